//! One look at the engine: does it answer, are its queues bound, is its table in place, does every worker work?

use std::time::Duration;

use super::places::Places;
use super::process::Process;
use crate::control::client::ClientError;
use crate::control::wire::{AS_EXPECTED, HealthView, QueueHealth, Reply, Request, WorkerHealth};
use crate::kernel::netlink::Netlink;
use crate::kernel::processes;
use crate::kernel::queue::queue_counters;
use crate::kernel::ruleset::{self, Loaded};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It does not answer, for this reason.
    Silent(String),
    /// Nobody reads these queues.
    Unbound(Vec<u16>),
    /// These workers do nothing.
    Stuck(Vec<u16>),
    /// The table is not in place.
    Table(Vec<String>),
}

impl Finding {
    /// In words.
    pub(super) fn words(&self) -> String {
        let list = |numbers: Vec<String>| numbers.join(" ");
        match self {
            Finding::Silent(why) => format!("the engine does not answer: {why}"),
            Finding::Unbound(numbers) => {
                let numbers = list(numbers.iter().map(u16::to_string).collect());
                format!("nobody reads queue {numbers}")
            }
            Finding::Stuck(workers) => {
                let workers = list(workers.iter().map(u16::to_string).collect());
                format!("worker {workers} makes no progress")
            }
            Finding::Table(what) => format!("the table is not in place: {}", what.join("; ")),
        }
    }

    /// After how many looks that find the same the engine is started anew. A missing table is its
    /// own to repair first.
    pub(super) fn patience(&self) -> u32 {
        match self {
            // An engine that is only slow answers one of the next.
            Finding::Table(_) | Finding::Silent(_) => 3,
            _ => 2,
        }
    }

    pub(super) fn same_kind(&self, other: &Finding) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Asks the engine how it is, within [`ANSWER`].
pub(super) fn probe(places: &Places) -> Result<HealthView, String> {
    match places.client().within(ANSWER).ask(&Request::Health {}) {
        Ok(Reply::Health(health)) => Ok(*health),
        Ok(Reply::Refused { message }) => Err(message),
        Ok(_) => Err("it answers something else, is it of another version?".into()),
        Err(ClientError::Late { limit, .. }) => Err(format!("nothing came within {} s", limit.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

/// The monitor's own look at the kernel, which needs nobody's answer.
pub(super) struct Eyes {
    netlink: Option<Netlink>,
    good: Option<Loaded>,
    /// How far each worker was at the last look.
    progress: Vec<u64>,
}

impl Eyes {
    /// Nothing is seen yet. Without netlink only the engine's word counts.
    pub(super) fn open() -> Eyes {
        Eyes {
            netlink: Netlink::open(mnl::Bus::Netfilter).ok(),
            good: None,
            progress: Vec::new(),
        }
    }

    /// What is wrong with the engine that `process` is, the most urgent of it.
    pub(super) fn look(&mut self, places: &Places, process: &Process) -> Option<Finding> {
        let health = match probe(places) {
            Ok(health) => health,
            Err(why) => return Some(Finding::Silent(why)),
        };
        let stuck = self.stuck(&health.workers);
        if !stuck.is_empty() {
            return Some(Finding::Stuck(stuck));
        }
        let is_read = health.table.is_some();
        let wrong = health.table.filter(|table| table != AS_EXPECTED);
        let ours = shares_network(process);
        let unbound = unbound(&health.queues, ours);
        if !unbound.is_empty() {
            return Some(Finding::Unbound(unbound));
        }
        let missing = match wrong {
            Some(wrong) => vec![wrong],
            None if ours => self.missing(is_read),
            None => Vec::new(),
        };
        (!missing.is_empty()).then_some(Finding::Table(missing))
    }

    /// Workers that did not answer now, and did nothing since the last look: one that is starved of CPU does little.
    fn stuck(&mut self, workers: &[WorkerHealth]) -> Vec<u16> {
        let stand = |worker: &&WorkerHealth| {
            let before = self.progress.get(usize::from(worker.index));
            !worker.answered && before == Some(&worker.progress)
        };
        let stuck = workers.iter().filter(stand).map(|worker| worker.index).collect();
        self.progress = workers.iter().map(|worker| worker.progress).collect();
        stuck
    }

    /// What is gone from the table since it was last good, by our own look. `well`: the engine says that it is good now.
    pub(super) fn missing(&mut self, well: bool) -> Vec<String> {
        let Some(netlink) = &mut self.netlink else {
            return Vec::new();
        };
        match ruleset::read(netlink) {
            Ok(None) => vec!["table inet verdictd is gone".into()],
            Ok(Some(loaded)) => {
                let missing = match &self.good {
                    Some(good) if !well => loaded.lost_since(good),
                    _ => loaded.lost_since(&Loaded::default()),
                };
                if well && missing.is_empty() {
                    self.good = Some(loaded);
                }
                missing
            }
            // A table that cannot be read is told by the engine too, if it is no matter of a moment.
            Err(_) => Vec::new(),
        }
    }
}

/// Queues of these that nobody reads: by the engine's word, and where it lives in our network namespace (`ours`) by our
/// own look.
fn unbound(queues: &[QueueHealth], ours: bool) -> Vec<u16> {
    let seen = if ours { queue_counters() } else { None };
    let is_unbound = |queue: &&QueueHealth| {
        let unseen = seen
            .as_ref()
            .is_some_and(|seen| !seen.iter().any(|there| there.number == queue.number));
        queue.bound == Some(false) || unseen
    };
    queues
        .iter()
        .filter(is_unbound)
        .map(|queue| queue.number)
        .collect()
}

/// Whether `process` lives in our network namespace; what we see in another says nothing of it.
fn shares_network(process: &Process) -> bool {
    // Where it cannot be told: systemd runs both in the same one.
    processes::shares_network(process.pid()).unwrap_or(true)
}

/// An engine that works answers within milliseconds, and within 2 s whatever hangs in it; a busy machine may take longer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_words_and_kinds() {
        let table = Finding::Table(vec!["a".into(), "b".into()]);
        assert_eq!(table.words(), "the table is not in place: a; b");
        assert!(table.same_kind(&Finding::Table(Vec::new())));
        let unbound = Finding::Unbound(vec![1, 2]);
        assert_eq!(unbound.words(), "nobody reads queue 1 2");
        assert!(!table.same_kind(&unbound) && unbound.patience() < table.patience());
    }
}
