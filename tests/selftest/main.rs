//! `verdictd selftest` beside the running engine: it proves what is so, it fails where something is wrong, and
//! whatever becomes of it, it leaves no trace.
//!
//! The tests need root and fail without it: `sudo make test`.

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod attack;
mod broken;
mod modes;
mod rig;
mod trace;
