//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

mod bind;
pub mod conntrack;
pub mod host;
mod log;
pub mod netlink;
mod notices;
pub mod preflight;
pub mod queue;
mod queue_proc;
mod queue_wire;
mod route;
pub mod ruleset;
mod setelem;
pub mod sets;
pub mod sockets;
mod sys;
