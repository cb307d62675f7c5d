//! `verdictctl start`, `stop`, `restart`, `monitor` and `verdictd monitor` with real processes: whatever becomes of the
//! engine it comes back, what an operator stopped stays stopped, and nobody else's process is ever hit.
//!
//! The tests need root and fail without it: `sudo make test`.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod control;
mod files;
mod pidfiles;
mod rig;
mod trial;
mod watch;
