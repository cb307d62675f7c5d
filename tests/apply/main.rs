//! A new policy on trial: `verdictctl apply` against the built engine in a namespace, confirmed or not, with whoever
//! could go back killed in turn.
//!
//! It needs root and fails without it: `sudo make test`.

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod confirm;
mod ends;
mod refusals;
mod rig;
mod scripted;
mod ssh;
