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
    /// [`AS_EXPECTED`], or what is wrong with the table; null where it could not be read, which is no loss of it.
    pub table: Option<String>,
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

/// The word for a table in which nothing is wrong.
pub const AS_EXPECTED: &str = "as expected";
