//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

mod bind;
mod log;
pub mod netlink;
pub mod preflight;
pub mod queue;
mod queue_proc;
mod queue_wire;
mod sys;
