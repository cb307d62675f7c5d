//! The rig for tests on real packets: namespaces, the built engine inside one of them, services and probes.
//!
//! Everything happens in network namespaces of the test's own; nothing touches the machine's network. Sockets
//! are opened by threads of this process that have entered a namespace, so there are no helper programs to
//! wait for; programs that are the point of a test (nmap, ping, nft) run under a time limit.

pub(crate) mod command;
pub(crate) mod engine;
pub(crate) mod flow;
pub(crate) mod lab;
pub(crate) mod memory;
pub(crate) mod mutate;
pub(crate) mod namespace;
pub(crate) mod nmap;
pub(crate) mod peers;
pub(crate) mod service;
pub(crate) mod ssh;
pub(crate) mod watch;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// Asks again every 10 ms until the answer is yes; says whether it came within `limit`.
pub(crate) fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Milliseconds, for the many short waits of these tests.
pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Seconds.
pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// How many times: `usual`, or `long` under `make soak`.
pub(crate) fn count(usual: usize, long: usize) -> usize {
    if std::env::var_os("VERDICTD_SOAK").is_some() {
        long
    } else {
        usual
    }
}
