//! How the sending of events goes, for people: plain data without secrets, user parts and queries of addresses.

use time::OffsetDateTime;

pub use super::pace::Circuit;

/// How it goes altogether.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Events that were written to disk since the start.
    pub spooled: u64,
    /// Attempts that were merged into others before they were written.
    pub merged: u64,
    /// Events that were never written, since they came faster than the disk takes them, or it takes none.
    pub dropped: u64,
    /// Bytes on disk of events that wait.
    pub spool_bytes: u64,
    /// Lines on disk that were not what was written: torn by a crash, or changed.
    pub damaged: u64,
    /// What went wrong last with the disk.
    pub last_error: Option<String>,
    /// Each endpoint of the config, in its order.
    pub endpoints: Vec<EndpointStatus>,
}

/// How it goes with one endpoint. Counts are of this run of the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// Its address up to the host.
    pub url: String,
    /// Whether it is served.
    pub enabled: bool,
    /// Events that it took.
    pub delivered: u64,
    /// Requests that were made.
    pub attempts: u64,
    /// Those that failed.
    pub failed: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When.
    pub last_error_at: Option<OffsetDateTime>,
    /// When it last took something.
    pub last_success_at: Option<OffsetDateTime>,
    /// Whether requests are tried.
    pub circuit: Circuit,
    /// Events on disk that wait for it.
    pub waiting: u64,
    /// Events that it refused, or that grew too old: kept aside, and sent again on request.
    pub dead_letters: u64,
    /// Events that it never got, since the spool or the dead letters were full.
    pub dropped: u64,
}

impl EndpointStatus {
    /// The part of requests that went well, 0 to 1; none before the first.
    pub fn success_rate(&self) -> Option<f64> {
        (self.attempts > 0).then(|| (self.attempts - self.failed) as f64 / self.attempts as f64)
    }
}
