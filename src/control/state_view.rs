//! What `verdictctl state` shows, and what it sends. Field names are a contract: more may be added, none is renamed.

use serde::{Deserialize, Serialize};

use crate::core::prefix::Prefix;
use crate::state::import::Report;
use crate::state::survey::KeptFile;

/// What is kept, where, and what the last start found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateView {
    /// The snapshot's path.
    pub path: String,
    /// Its number, which grows with each; none: it has none yet.
    pub generation: Option<u64>,
    /// When it was saved, RFC 3339 in UTC.
    pub saved_at: Option<String>,
    /// It and what lies beside it.
    pub files: Vec<KeptFile>,
    /// How much is known: by the engine now, else by what is saved.
    pub counts: StateCounts,
    /// What the last start found; none without an engine.
    pub start: Option<StateStart>,
    /// The last snapshot since the start.
    pub last_snapshot: Option<LastSnapshot>,
    /// When the next one is due, if nothing calls for one before.
    pub next_snapshot_seconds: Option<u64>,
    /// What is wrong, one sentence each.
    pub troubles: Vec<String>,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// How much is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// Bans in force.
    pub bans: u64,
    /// Bans that are only recorded.
    pub would_be: u64,
    /// Ladder positions.
    pub ladder: u64,
    /// Sources with something in their window, or known otherwise.
    pub sources: u64,
    /// Ports of which is known what is usual.
    pub baseline_ports: u64,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStart {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What was restored.
    pub restored: StateCounts,
    /// Bans that had ended meanwhile.
    pub expired: u64,
    /// Bans that were not restored since who they hit is protected by now: who, and why.
    pub protected: Vec<Spared>,
    /// What became of a file of the Python system.
    pub imported: Option<Report>,
    /// What was wrong, one sentence each.
    pub troubles: Vec<String>,
    /// What was worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// Who is not banned, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// Who.
    pub source: String,
    /// One sentence.
    pub reason: String,
}

/// A snapshot that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSnapshot {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Its length.
    pub bytes: u64,
    /// How long it took, its way to the disk included.
    pub duration_ms: u64,
}

/// A ban that was earned elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedBan {
    /// Address.
    pub source: String,
    /// Offences so far.
    pub offences: u32,
    /// How long ago it began.
    pub age_ms: u64,
    /// When it ends, by the wall clock: milliseconds since 1970.
    pub until_ms: u64,
}

/// A ladder position that was earned elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedStanding {
    /// Address.
    pub source: String,
    /// Offences so far.
    pub offences: u32,
    /// How long ago the last one was.
    pub age_ms: u64,
}

/// A half-done scan that was seen elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedWindow {
    /// Address.
    pub source: String,
    /// How long ago it was first seen.
    pub age_ms: u64,
    /// How long ago it was last seen.
    pub idle_ms: u64,
    /// TCP ports that it asked for.
    pub ports: Vec<u16>,
}

/// A part of an import, no longer than a request may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportPart {
    /// Which one, from 1 on.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
    /// Only say what would become of it.
    #[serde(default)]
    pub dry_run: bool,
    /// Bans.
    #[serde(default)]
    pub bans: Vec<ImportedBan>,
    /// Ladder positions.
    #[serde(default)]
    pub ladder: Vec<ImportedStanding>,
    /// Half-done scans.
    #[serde(default)]
    pub windows: Vec<ImportedWindow>,
}

impl ImportPart {
    /// Everybody that it names.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let bans = self.bans.iter().map(|ban| ban.source.as_str());
        let ladder = self.ladder.iter().map(|standing| standing.source.as_str());
        let windows = self.windows.iter().map(|window| window.source.as_str());
        bans.chain(ladder).chain(windows)
    }
}

/// What became of an import, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOutcome {
    /// Bans of sources that were not banned.
    pub banned: u64,
    /// Bans that became longer.
    pub prolonged: u64,
    /// Bans that were as long already, or enforced where the new one would not be.
    pub kept: u64,
    /// Ladder positions that are new or higher.
    pub climbed: u64,
    /// Ladder positions that were as high already.
    pub ladder_kept: u64,
    /// Half-done scans.
    pub windows: u64,
    /// Who is protected or trusted, and so is not banned.
    pub refused: Vec<Spared>,
    /// The bans are recorded and not enforced (`bans.enforce = false`).
    pub would_be: bool,
}

impl ImportOutcome {
    /// These bans were not taken by the kernel.
    pub fn refuse(&mut self, targets: &[(&Prefix, &String)]) {
        for (target, error) in targets {
            match self.banned {
                0 => self.prolonged = self.prolonged.saturating_sub(1),
                _ => self.banned -= 1,
            }
            self.refused.push(Spared {
                source: target.to_string(),
                reason: (*error).clone(),
            });
        }
    }

    /// Adds what became of another part.
    pub fn add(&mut self, part: ImportOutcome) {
        self.banned += part.banned;
        self.prolonged += part.prolonged;
        self.kept += part.kept;
        self.climbed += part.climbed;
        self.ladder_kept += part.ladder_kept;
        self.windows += part.windows;
        self.refused.extend(part.refused);
        self.would_be |= part.would_be;
    }

    /// Whether anything was taken, or known already.
    pub fn is_empty(&self) -> bool {
        let taken = self.banned + self.prolonged + self.kept + self.climbed + self.ladder_kept + self.windows;
        taken == 0
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenView {
    /// Bans that were in force.
    pub bans: u64,
    /// Bans that were only recorded.
    pub would_be: u64,
    /// Ladder positions.
    pub ladder: u64,
}
