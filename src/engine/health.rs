//! The answer to `health`: short, and in time whatever hangs.

use std::sync::TryLockError;
use std::thread;
use std::time::{Duration, Instant};

use super::handler::EngineHandler;
use super::pulse::{self, ROUND};
use crate::control::wire::{AS_EXPECTED, HealthView, QueueHealth, Reply, WorkerHealth};
use crate::kernel::queue::queue_counters;

impl EngineHandler {
    /// Asks every worker, the kernel for the queues, and for the table.
    pub(super) fn health(&self) -> Reply {
        let answered = pulse::ask(&self.workers, ROUND);
        let workers = (0..).zip(answered).zip(&self.stats.workers);
        let counts = self.stats.snapshot(Instant::now());
        Reply::Health(Box::new(HealthView {
            workers: workers
                .map(|((index, answered), stats)| WorkerHealth {
                    index,
                    answered,
                    progress: stats.batches.get() + stats.pulses.get(),
                })
                .collect(),
            queues: self.bound_queues(),
            table: self.table_health(),
            uptime_seconds: counts.uptime.as_secs(),
            unjudged: counts.unjudged,
            notes: self.vitals.degraded(&self.stats),
        }))
    }

    fn bound_queues(&self) -> Vec<QueueHealth> {
        let counters = queue_counters();
        let bound = |number| {
            let there = counters.as_ref()?.iter().find(|queue| queue.number == number);
            Some(there.is_some_and(|queue| queue.copy_mode == COPY_PACKET))
        };
        let queues = self.queues().into_iter();
        queues
            .map(|number| QueueHealth {
                number,
                bound: bound(number),
            })
            .collect()
    }

    /// None: it could not be read.
    fn table_health(&self) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut netlink = loop {
            match self.netlink.try_lock() {
                Ok(netlink) => break netlink,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PATIENCE / 50),
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        let found = self.compared(&mut netlink);
        found.is_read.then(|| match found.degraded.is_empty() {
            true => AS_EXPECTED.into(),
            false => found.degraded.join("; "),
        })
    }
}

/// linux/netfilter/nfnetlink_queue.h, NFQNL_COPY_PACKET: without it whatever comes is dropped.
const COPY_PACKET: u8 = 2;
/// How long others may read the table.
const PATIENCE: Duration = Duration::from_millis(500);
