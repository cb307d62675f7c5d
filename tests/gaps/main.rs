//! Whether anything slips by while the engine, its rules or its configuration come and go, with 100,000 bans in force.
//!
//! Probes come a thousand times a second from banned sources and to refused ports, and each says when it was sent; what
//! arrives is seen where it arrives, by sockets that no ruleset holds. So what leaks is counted, and a gap has a length.
//! Beside them an honest client comes and goes, who must never be shut out.
//!
//! | story | what happens | what may leak |
//! |---|---|---|
//! | [`restarts`] | stop, `kill -9` at any moment, another number of workers; then a start | nothing |
//! | [`reloads`] | SIGHUP with other thresholds, ports and modes, and with files that are refused | nothing |
//! | [`wipes`] | others flush, delete and silence our table | until it is repaired; measured |
//!
//! One story at a time, since the processors are part of the instrument. What was measured is one line each:
//! `cargo test --release --test gaps -- --nocapture`, with `VERDICTD_SOAK=1` in full.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "no test program uses all of the rig")]
mod common;

mod client;
mod crowd;
mod owned;
mod probes;
mod reloads;
mod restarts;
mod stage;
mod wipes;
