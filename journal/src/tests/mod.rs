//! What must hold for a whole journal, whatever happens to it.

mod beside;
mod crash;
mod crash_sealing;
mod encrypted;
mod golden;
mod kinds;
mod live;
mod model_based;
mod refuse;
mod source_change;
mod tamper;
mod tamper_parts;
