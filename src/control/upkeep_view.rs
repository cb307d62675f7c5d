//! What `stats` and `status` show of repairs to the kernel's table.

use serde::{Deserialize, Serialize};

use super::views::timestamp;
use crate::stats::{StatsReport, Wipe};

/// How often the kernel's copy of rules and bans was not what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepairsView {
    /// Times that table, chains, rules or sets were found changed, or a set emptied.
    pub wipes: u64,
    /// Bans that were missing, apart from those.
    pub missing: u64,
    /// Elements behind which there was no ban.
    pub foreign: u64,
    /// Bans that would have ended at another time than they should.
    pub mistimed: u64,
    /// Bans that an operator ended by deleting their elements.
    pub deleted: u64,
}

impl RepairsView {
    /// As they were counted.
    pub fn of(report: &StatsReport) -> RepairsView {
        RepairsView {
            wipes: report.wipes,
            missing: report.drift_missing,
            foreign: report.drift_foreign,
            mistimed: report.drift_mistimed,
            deleted: report.deleted,
        }
    }
}

/// The last time that the table was found changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WipeView {
    /// When it was found: RFC 3339, UTC.
    pub at: String,
    /// What was found, in words.
    pub found: String,
    /// Which process did it, if the kernel told.
    pub by: Option<String>,
    /// How long it lasted, in milliseconds; null while it still does.
    pub gap_ms: Option<u64>,
}

impl WipeView {
    /// As it was found.
    pub fn of(wipe: Wipe) -> WipeView {
        WipeView {
            at: timestamp(wipe.at),
            found: wipe.found,
            by: wipe.by,
            gap_ms: wipe
                .gap
                .map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
