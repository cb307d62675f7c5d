//! Events on their way to endpoints that are slow, broken, hostile or gone: real sockets on loopback, small servers
//! written by hand.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests on real packets use the rest")]
mod common;

mod faults;
mod kill;
mod odd;
mod peers;
mod process;
mod rig;
mod safety;
