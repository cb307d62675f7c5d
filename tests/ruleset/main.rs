//! The table of the engine in the kernel: what is loaded is what is written, is read back, and does what it
//! says to packets, without any engine running. Every test has namespaces of its own.

#[allow(dead_code, unreachable_pub)]
#[path = "../common/mod.rs"]
mod common;

mod adopt;
mod listing;
mod packets;
mod refusals;
mod rig;
