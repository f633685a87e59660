//! `redtape snapshot report`: what a dataset consists of, for people and for programs.

pub(crate) mod csv;
pub(crate) mod json;
mod table;
pub(crate) mod text;
