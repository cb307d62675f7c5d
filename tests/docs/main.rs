//! docs/migrating.md, docs/differences.md and docs/troubleshooting.md say what is so: every item of the Python system's
//! documents has its row, every command is run as it stands there, every message is what the programs say.
//!
//! The tests need root and fail without it: `sudo make test`.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod common;

mod differences;
mod migrating;
mod mission;
mod pages;
mod sandbox;
mod troubleshooting;
