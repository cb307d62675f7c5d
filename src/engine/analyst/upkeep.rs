//! What the analyst makes of damage to the kernel's table: it tells people and other systems what was repaired, and
//! lifts the bans whose elements an operator deleted.

use std::time::Instant;

use tracing::info;

use super::super::enforcer::Repair;
use super::Analyst;
use crate::audit::record::What;
use crate::core::prefix::Prefix;
use crate::core::verdict::Ban;
use crate::webhook::event;

impl Analyst {
    /// The table was damaged, and is whole again or not.
    pub(super) fn note_repair(&mut self, repair: Repair) {
        let Repair { found, by, bans, gap } = repair;
        let detail = format!("table inet verdictd: {found}; bans that go into it again: {bans}");
        self.herald
            .tell(|now| event::ruleset_wiped(now, &detail, by.as_deref(), gap));
        self.audit.note(|| What::Ruleset {
            found,
            by,
            sources: Vec::new(),
            bans: bans as u64,
            repaired: gap.is_some(),
            gap_ms: gap.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
        });
    }

    /// An operator's `nft delete element` is as good a word as `verdictctl unban`.
    pub(super) fn note_deleted(&mut self, targets: &[Prefix], by: Option<String>, now: Instant) {
        let lifted: Vec<Ban> = targets
            .iter()
            .filter_map(|target| self.ledger.lift(target))
            .collect();
        if lifted.is_empty() {
            return;
        }
        let who = by.as_deref().unwrap_or("a process that the kernel does not name");
        info!(
            "{} bans are lifted, for {who} deleted their elements: next time verdictctl unban does the same",
            lifted.len()
        );
        self.note_elements("elements of bans were deleted, which lifts them", targets, by);
        self.free(&lifted, None, now);
    }

    /// What somebody put into the sets of bans is out again.
    pub(super) fn note_foreign(&mut self, targets: &[Prefix], by: Option<String>) {
        self.note_elements("elements that no ban stands behind were taken out", targets, by);
    }

    fn note_elements(&self, found: &str, targets: &[Prefix], by: Option<String>) {
        self.audit.note(|| What::Ruleset {
            found: found.to_owned(),
            by,
            sources: targets.iter().take(NAMED).map(Prefix::to_string).collect(),
            bans: targets.len() as u64,
            repaired: true,
            gap_ms: None,
        });
    }
}

/// A line of the audit log stays short; of the lifted ones each has a line of its own.
const NAMED: usize = 64;
