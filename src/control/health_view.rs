//! How the engine's parts are, for whoever supervises it. Field names are a contract.

use serde::{Deserialize, Serialize};

/// What is answered to [`Request::Health`](super::wire::Request::Health), within two seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthView {
    /// Every worker, by number.
    pub workers: Vec<WorkerHealth>,
    /// Every verdict queue; none while nothing is held.
    pub queues: Vec<QueueHealth>,
    /// [`AS_EXPECTED`], or what is wrong with the table.
    pub table: String,
    /// Since the engine started.
    pub uptime_seconds: u64,
    /// Packets that passed unjudged since then, because their worker hung.
    pub unjudged: u64,
    /// What else is wrong with workers and their beats, in words.
    pub notes: Vec<String>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerHealth {
    /// Its number.
    pub index: u16,
    /// Whether it carried out an order within a second.
    pub answered: bool,
    /// Grows with every batch of packets and every order of this kind: the same twice is a worker that stands still.
    pub progress: u64,
}

/// One verdict queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueHealth {
    /// Its number.
    pub number: u16,
    /// Whether somebody listens and is given packets; null where that cannot be read.
    pub bound: Option<bool>,
}

impl HealthView {
    /// Whether nothing is wrong, as far as can be known.
    pub fn is_well(&self) -> bool {
        let bound = |queue: &QueueHealth| queue.bound != Some(false);
        self.table == AS_EXPECTED
            && self.notes.is_empty()
            && self.workers.iter().all(|worker| worker.answered)
            && self.queues.iter().all(bound)
    }
}

/// The word for a table in which nothing is wrong.
pub const AS_EXPECTED: &str = "as expected";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_is_not_well_is_enough() {
        let well = HealthView {
            workers: vec![WorkerHealth {
                answered: true,
                ..WorkerHealth::default()
            }],
            queues: [None, Some(true)]
                .map(|bound| QueueHealth { number: 1, bound })
                .into(),
            table: AS_EXPECTED.into(),
            ..HealthView::default()
        };
        assert!(well.is_well());
        let worse: [fn(&mut HealthView); 4] = [
            |view| view.workers[0].answered = false,
            |view| view.queues[1].bound = Some(false),
            |view| view.table = "it is gone".into(),
            |view| view.notes.push("no beats".into()),
        ];
        for make in worse {
            let mut view = well.clone();
            make(&mut view);
            assert!(!view.is_well(), "{view:?}");
        }
    }
}
