//! What was found wrong with the kernel's copy of our rules and bans, and how long it was: counted by who repairs it,
//! told by `stats` and `status`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Tally;

/// Counters of repairs, and the last wipe.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Times that table, chains, rules or sets were found changed, or a set emptied.
    pub wipes: Tally,
    /// Bans that were missing in the kernel, apart from wipes.
    pub missing: Tally,
    /// Elements behind which there was no ban.
    pub foreign: Tally,
    /// Bans that would have ended at another time than they should.
    pub mistimed: Tally,
    /// Bans that an operator ended by deleting their elements.
    pub deleted: Tally,
    gap: Mutex<Gap>,
    last: Mutex<Option<Wipe>>,
}

/// Time in which bans or rules that should have been in force were not.
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    sum: Duration,
    since: Option<Instant>,
}

/// Damage to the table, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wipe {
    /// When it was found.
    pub at: SystemTime,
    /// What was found, in words.
    pub found: String,
    /// Which process did it, if the kernel told.
    pub by: Option<String>,
    /// How long it lasted; none: it still does.
    pub gap: Option<Duration>,
}

impl Upkeep {
    /// From `since` on something was not in force; whether that is news.
    pub fn open_gap(&self, since: Instant) -> bool {
        let mut gap = self.gap();
        let news = gap.since.is_none();
        gap.since.get_or_insert(since);
        news
    }

    /// From `until` on everything is in force again; for how long it was not, if it was not.
    pub fn close_gap(&self, until: Instant) -> Option<Duration> {
        let mut gap = self.gap();
        let lasted = until.saturating_duration_since(gap.since.take()?);
        gap.sum += lasted;
        if let Some(wipe) = &mut *self.last_wipe_mut() {
            wipe.gap.get_or_insert(lasted);
        }
        Some(lasted)
    }

    /// Since when something is not in force, if so.
    pub fn gap_since(&self) -> Option<Instant> {
        self.gap().since
    }

    /// All gaps together, the present one up to `now`.
    pub fn gaps(&self, now: Instant) -> Duration {
        let gap = self.gap();
        gap.sum
            + gap
                .since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The table was found damaged, for as long as `gap`; none: it still is.
    pub fn wiped(&self, found: String, by: Option<String>, gap: Option<Duration>) {
        self.wipes.add(1);
        *self.last_wipe_mut() = Some(Wipe {
            at: SystemTime::now(),
            found,
            by,
            gap,
        });
    }

    /// The last damage, if there was any.
    pub fn last_wipe(&self) -> Option<Wipe> {
        self.last_wipe_mut().clone()
    }

    fn gap(&self) -> MutexGuard<'_, Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_wipe_mut(&self) -> MutexGuard<'_, Option<Wipe>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_add_up_and_the_present_one_counts() {
        let (upkeep, begun) = (Upkeep::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(upkeep.open_gap(at(1)));
        assert!(!upkeep.open_gap(at(2)), "it goes on");
        upkeep.wiped("it is gone".into(), None, None);
        assert_eq!(upkeep.gaps(at(4)), Duration::from_secs(3));
        assert_eq!(upkeep.close_gap(at(5)), Some(Duration::from_secs(4)));
        assert_eq!(upkeep.close_gap(at(9)), None);
        assert!(upkeep.open_gap(at(10)));
        assert_eq!(upkeep.gaps(at(11)), Duration::from_secs(5));
        let wipe = upkeep.last_wipe().unwrap();
        assert_eq!(wipe.gap, Some(Duration::from_secs(4)), "the first gap after it");
    }
}
