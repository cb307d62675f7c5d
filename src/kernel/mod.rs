//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

pub mod apart;
pub mod beat;
mod bind;
pub mod confine;
pub mod conntrack;
pub mod facts;
pub mod files;
pub mod host;
mod log;
mod logins;
pub mod netlink;
mod notices;
pub mod preflight;
pub mod processes;
pub mod queue;
mod queue_proc;
mod queue_wire;
mod route;
pub mod ruleset;
pub mod sessions;
mod setelem;
pub mod sets;
pub mod sockets;
pub mod ssh_peers;
mod sys;
pub mod tun;
pub mod way_in;
