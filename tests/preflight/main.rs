//! `verdictd check --kernel` on machines that are made for it: bare ones, ones with other programs on them, and one on
//! which the engine runs.
//!
//! The tests need root and fail without it: `sudo make test`.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod common;

mod machine;
mod others;
mod running;
mod usage;
