//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

pub mod host;
pub mod netlink;
mod route;
pub mod ruleset;
mod setelem;
pub mod sets;
pub mod sockets;
mod sys;
