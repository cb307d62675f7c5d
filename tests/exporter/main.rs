//! `verdictctl exporter` against a real engine: a real Prometheus scrapes it, others ask slowly, wrongly and by the
//! thousand, and whoever may look may not order.
//!
//! The tests need root and Debian's prometheus and fail without them: `sudo make test`.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod abuse;
mod group;
mod program;
mod prometheus;
mod rig;
mod textfile;
