//! What the engine knew survives: `kill -9` at any syscall and at any moment, a power cut, a disk that is full, read-only,
//! failing or hung, and a clock that is stepped by years.
//!
//! A kill alone proves little, since the kernel's sets outlive the process. So each round also takes the table away, as a
//! power cut would, and then asks for everything that was acknowledged: `verdictctl` that answered 0, a NOTICE line that
//! was printed. What was asked for and not acknowledged may have happened or not, but nothing else may have.
//!
//! It needs root and fails without it: `sudo make test`.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other test programs use the rest")]
mod common;

mod clock;
mod disk;
mod kills;
mod mounts;
mod points;
mod power;
mod promises;
mod rounds;
mod subject;
mod writer;
