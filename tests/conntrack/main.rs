//! Completed handshakes as the kernel tells them: one message each, none lost, and what a sender who never sees an
//! answer can make conntrack believe.

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod completions;
mod forgery;
mod questions;
mod rig;
