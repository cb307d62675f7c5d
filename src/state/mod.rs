//! What outlives the process: bans, ladder positions, half-done scans, as a TOML file that a person can read.
//!
//! The room knows no thresholds and decides nothing: it writes what `core` holds, and gives it back after
//! whatever happened to file and clock in between. A file is hostile until proven otherwise: [`load`] is total
//! over any bytes.
//!
//! ```text
//! version = 1
//! saved_at = 2026-03-01T12:00:00.25Z
//! seed = 24301
//!
//! sources = [
//!   { source = "192.0.2.7", first_seen = …, last_seen = …, age = 12.5, idle = 0.004,
//!     ports = ["tcp/22", "tcp/80"], ages = [12.5, 0.004] },
//! ]
//!
//! ladder = [
//!   { source = "203.0.113.9", offences = 2, last_offence = …, age = 7200.0 },
//! ]
//!
//! usual = [
//!   { into_day = 5400, observed = [5400, 86400, …] },
//!   { port = 443, counted = [12, 240, …] },
//! ]
//!
//! bans = [
//!   { source = "203.0.113.9", reason = "port_scanning", step = 2, …, remaining_seconds = 593.412, … },
//! ]
//! # sha256 …
//! ```
//! Absolute times are for people. What counts are remainders and ages, as of `saved_at`, and
//! [`Moment::since`] says how much time has gone by since then without trusting the wall clock.
//!
//! What happens between two snapshots is in journals ([`Journal`], [`Record`]), which [`load`] folds in; the order in
//! which snapshots and journals begin and go, and the bytes of a journal, are in `docs/state.md`. A file of the Python
//! system in its place is imported once ([`import`]).

mod aside;
mod decode;
mod encode;
mod fold;
pub mod import;
mod journal;
mod load;
mod moment;
mod python;
mod snapshot;
pub mod survey;
mod timeline;
mod wake;
mod window;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::decode::{Unreadable, decode};
pub use self::encode::{Counts, Encoder};
pub use self::journal::{Journal, MOST_ACTIVITY_BYTES, MOST_JOURNAL_BYTES, Record, forget_journals_before};
pub use self::load::{Loaded, load, peek};
pub use self::moment::{Boot, Moment};
pub use self::snapshot::{Saved, Snapshot};
pub use self::wake::{Awake, wake};
pub use crate::files::SaveError;

use crate::core::attack::Baseline;
use crate::core::prefix::Prefix;
use crate::core::verdict::{Asked, BanReason};

/// Where the snapshot is: a file in a directory that exists. Its previous generation lies beside it as `.1`,
/// what could not be read as `.bad`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    directory: PathBuf,
    name: String,
}

impl Place {
    /// `file` (the config's `state_file`) in `state_dir`, or where it says itself if it is absolute.
    pub fn new(state_dir: &Path, file: Option<&Path>) -> Place {
        let path = state_dir.join(file.unwrap_or(Path::new(DEFAULT_NAME)));
        let name = path
            .file_name()
            .map_or(DEFAULT_NAME.into(), |name| name.to_string_lossy().into_owned());
        let directory = path.parent().unwrap_or(state_dir).to_owned();
        Place { directory, name }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn named(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.name)
    }
}

/// What a snapshot holds, in ages and remainders as of when it was saved.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// When it was saved, by every clock there was.
    pub saved: Moment,
    /// Its number: it and the journals from that number on hold everything. Versions before 0.2 wrote none.
    pub generation: Option<u64>,
    /// Seed of the hash that spreads sources over workers.
    pub seed: Option<u32>,
    /// Windows, in the order of the file.
    pub sources: Vec<SavedSource>,
    /// Ladder positions.
    pub ladder: Vec<SavedStanding>,
    /// What is usual on each port.
    pub usual: Baseline,
    /// Bans that were live.
    pub bans: Vec<SavedBan>,
    /// Records that could not be understood and were left out.
    pub skipped: usize,
}

/// A source: how well it is known, and its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSource {
    /// Who.
    pub source: Prefix,
    /// How long ago it was first seen.
    pub age: Duration,
    /// How long ago it was last seen.
    pub idle: Duration,
    /// Ports on which it completed handshakes; `None` if it never did.
    pub completed: Option<Vec<u16>>,
    /// What it asked for, how many stealth probes were among it, and how long ago, oldest first.
    pub touches: Vec<(Asked, u16, Duration)>,
}

/// A source's offences and how long ago the last one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedStanding {
    /// Who.
    pub source: Prefix,
    /// Real ones.
    pub real: Option<(u32, Duration)>,
    /// Those that were only observed.
    pub would_be: Option<(u32, Duration)>,
}

/// A live ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBan {
    /// Who.
    pub source: Prefix,
    /// Why.
    pub reason: BanReason,
    /// Position on the ladder.
    pub step: u32,
    /// Offences that counted.
    pub offences: u32,
    /// How long ago it began.
    pub age: Duration,
    /// What was left of it; `None`: without end.
    pub remaining: Option<Duration>,
    /// Whether the kernel drops the source.
    pub enforced: bool,
    /// An operator's words.
    pub note: Option<Box<str>>,
}

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// The snapshot's name unless `state_file` says otherwise.
pub const DEFAULT_NAME: &str = "state.toml";
/// The largest file that is read: a million bans (200 bytes each), as many ladder positions, and
/// [`MOST_SOURCE_BYTES`].
pub const MOST_BYTES: u64 = 1 << 30;
/// The most that half-done scans may take up of a file, so that bans always fit.
pub const MOST_SOURCE_BYTES: u64 = 1 << 29;
/// The most bans that are read, as many as a ledger holds.
pub const MOST_BANS: usize = 1_000_000;
/// The most ladder positions that are read, as many as a ledger remembers.
pub const MOST_STANDINGS: usize = 1_000_000;
/// How each footer begins.
const FOOTER_START: &str = "# sha256 ";
/// Its length: start, 64 digits, newline.
const FOOTER_BYTES: usize = FOOTER_START.len() + 64 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_renames_and_an_absolute_one_moves() {
        let dir = Path::new("/var/lib/verdictd");
        let path = |file: Option<&str>| Place::new(dir, file.map(Path::new)).path();
        assert_eq!(path(None), dir.join("state.toml"));
        assert_eq!(path(Some("firewall_state.toml")), dir.join("firewall_state.toml"));
        assert_eq!(path(Some("/srv/state/x.toml")), Path::new("/srv/state/x.toml"));
        assert_eq!(
            Place::new(dir, Some(Path::new("/srv/x.toml"))).directory,
            Path::new("/srv")
        );
    }
}
