//! The audit log: what was refused, banned and ordered, by whom, in a file whose every line holds the hash of the line
//! before it, so that nobody can change, add or take out a line unnoticed.
//!
//! ```text
//! analyst, refusals, control ──try_send──▶ thread `audit` ──▶ audit.jsonl  (one JSON object a line, synced)
//!                                              │  ▲              audit.jsonl.1 …  (the same chain goes on)
//!                        gate of the workers ◀─┘  └──▶ audit.head in the state directory: how far it goes
//! ```
//! Nobody on the way of a packet waits for it. What finds no room is counted, and the count is a record itself. The
//! log stands alone because it is evidence: it decides nothing about what it writes down, and [`verify`] reads files
//! that it takes from nobody but the disk.

pub mod chain;
pub mod gate;
pub mod head;
pub mod log;
mod place;
pub mod record;
pub mod rotate;
pub mod store;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod who;
mod writer;

use std::path::{Path, PathBuf};

/// `[audit]`, and `[engine] on_audit_failure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Whether anything is written down; corporate mode does unless told otherwise.
    pub enabled: bool,
    /// A name in the log directory, or an absolute path.
    pub path: PathBuf,
    /// A file that is longer is put aside as `.1`.
    pub max_bytes: u64,
    /// How many files are kept beside the one that is written.
    pub keep: u32,
    /// What happens while nothing can be written.
    pub on_failure: OnFailure,
}

/// What happens while nothing can be written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// All goes on, `status` says so.
    #[default]
    Continue,
    /// No new connection, no change by an operator.
    Closed,
}

impl OnFailure {
    /// Every answer with its word in the config.
    pub const ALL: [(&'static str, OnFailure); 2] =
        [("continue", OnFailure::Continue), ("closed", OnFailure::Closed)];

    /// The word of the config.
    pub fn word(self) -> &'static str {
        match self {
            OnFailure::Continue => "continue",
            OnFailure::Closed => "closed",
        }
    }
}

impl Default for AuditConfig {
    fn default() -> AuditConfig {
        AuditConfig {
            enabled: false,
            path: DEFAULT_NAME.into(),
            max_bytes: 16 << 20,
            keep: 30,
            on_failure: OnFailure::Continue,
        }
    }
}

impl AuditConfig {
    /// Where the log is, with `log_dir` as the log directory.
    pub fn place(&self, log_dir: &Path) -> PathBuf {
        log_dir.join(&self.path)
    }
}

/// The log's name unless `[audit] path` says otherwise.
pub const DEFAULT_NAME: &str = "audit.jsonl";
/// The head's name in the state directory.
pub const HEAD_NAME: &str = "audit.head";
