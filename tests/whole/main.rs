//! Whole-program tests: real servers, the real binary. One module for each thing that is proven, and `harness` that they
//! all stand on; one test binary, so that a change of the program is linked once.
//!
//! `cargo nextest run -p redtape -E 'test(/^exactness::/)'` or `cargo test --test whole exactness::` run one module.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::pedantic,
    missing_docs,
    unreachable_pub
)]

#[macro_use]
mod harness;

mod accidents;
mod ack;
mod aof_history;
mod attribution;
mod automatic_marks;
mod beside;
mod capture;
mod chaos;
mod cli_errors;
mod clock;
mod cluster_target;
mod demo;
mod diff;
mod disk_trouble;
mod encrypted;
mod exactness;
mod files;
mod files_killed;
mod get;
mod harness_holds;
mod health;
mod impersonation;
mod journal_cli;
mod key_index;
mod limits;
mod live_repair;
mod log;
mod log_questions;
mod metrics;
mod nothing_lost;
mod order_and_origin;
mod passthrough;
mod power;
mod real_clients;
mod redtape_commands;
mod repair;
mod replace_all;
mod replicas;
mod report;
mod restarts;
mod restores;
mod retention;
mod selection;
mod serve;
mod server_identity;
mod settings_file;
mod stays_up;
mod tls_target;
mod tls_upstream;
mod transparent;
mod undo_edges;
mod undo_killed;
mod undo_model;
mod versions;
