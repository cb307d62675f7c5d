//! What became of each part of an imported file, for people and for scripts.

use serde::{Deserialize, Serialize};

/// What became of a file of the Python system. Field names are a contract of `verdictctl state import --json` and
/// `state show --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The zone in which times without one were read.
    pub zone: String,
    /// Addresses with a ban that is not over.
    pub bans: u64,
    /// Sources with a ladder position.
    pub ladder: u64,
    /// Sources with a half-done scan.
    pub windows: u64,
    /// Further entries of an address that has one with a later time.
    pub merged: u64,
    /// Addresses whose block is over.
    pub past: u64,
    /// Entries and fields that make no sense.
    pub refused: u64,
    /// What has no counterpart here.
    pub left_out: u64,
    /// Each of them, in words: the first [`MOST_ENTRIES`].
    pub entries: Vec<Entry>,
    /// How many more there are.
    pub unsaid: u64,
}

/// What became of one part of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands, if it stands in one place.
    pub line: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
    /// In words.
    pub text: String,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is a ban, a ladder position or a window from now on.
    Taken,
    /// Another entry says more.
    Merged,
    /// It was over.
    Past,
    /// It makes no sense.
    Refused,
    /// It has no counterpart here.
    LeftOut,
}

impl Outcome {
    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Taken => "taken",
            Outcome::Merged => "merged",
            Outcome::Past => "past",
            Outcome::Refused => "refused",
            Outcome::LeftOut => "left out",
        }
    }
}

impl Report {
    pub(super) fn in_zone(zone: String) -> Report {
        Report {
            zone,
            ..Report::default()
        }
    }

    /// Counts `count` things, and says it as long as there is room. What is taken is counted where it is kept.
    pub(super) fn tell(&mut self, line: Option<u64>, outcome: Outcome, count: u64, text: String) {
        match outcome {
            Outcome::Taken => {}
            Outcome::Merged => self.merged += count,
            Outcome::Past => self.past += count,
            Outcome::Refused => self.refused += count,
            Outcome::LeftOut => self.left_out += count,
        }
        match self.entries.len() < MOST_ENTRIES {
            true => self.entries.push(Entry { line, outcome, text }),
            false => self.unsaid += 1,
        }
    }

    /// The whole in one sentence.
    pub fn summary(&self) -> String {
        format!(
            "{} bans, {} ladder positions and {} half-done scans are taken; {} entries are merged, {} bans are over, \
             {} entries make no sense, {} have no counterpart here; times are read in zone {}",
            self.bans,
            self.ladder,
            self.windows,
            self.merged,
            self.past,
            self.refused,
            self.left_out,
            self.zone
        )
    }

    /// Nothing of it is of use.
    pub fn is_empty(&self) -> bool {
        self.bans + self.ladder + self.windows == 0
    }
}

/// So that a report fits into an answer and a log.
pub const MOST_ENTRIES: usize = 1000;
