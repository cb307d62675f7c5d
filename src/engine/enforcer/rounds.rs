//! Looks at the table that nobody asked for: now and then, for what no notice told.

use std::time::{Duration, Instant};

use tracing::debug;

use super::mirror::Drift;
use super::upkeep::Scope;
use super::{Enforcer, RETRY};
use crate::kernel::ruleset;

/// When to look at the table unasked.
#[derive(Debug)]
pub(super) struct Rounds {
    every: Duration,
    next: Instant,
    /// Found wrong a moment ago.
    suspected: Option<Drift>,
    /// The last time that all was as it should be.
    good: Instant,
}

impl Rounds {
    pub(super) fn new(every: Duration, now: Instant) -> Rounds {
        Rounds {
            every,
            next: now + every,
            suspected: None,
            good: now,
        }
    }

    /// The next look comes sooner than planned.
    pub(super) fn soon(&mut self, now: Instant) {
        self.next = self.next.min(now + AGAIN);
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }
}

impl Enforcer {
    /// A look that nobody asked for. What it finds may be on its way to us as a notice, which says more: only what is
    /// found again a moment later is put right.
    pub(super) fn make_rounds(&mut self) {
        let begun = Instant::now();
        self.mirror.forget_ended(begun);
        let found = self.look_around(begun);
        let suspected = self.rounds.suspected.take();
        let open = self.stats.upkeep.gap_since();
        let well = match (found, suspected) {
            (None, _) if open.is_none() => true,
            (None, _) => self.put_right(begun, None, Vec::new(), Scope::All),
            (Some(found), None) => {
                self.rounds.suspected = Some(found);
                self.rounds.next = begun + AGAIN;
                return;
            }
            (Some(found), Some(suspected)) => {
                let scope = Scope::Elements(found.and(&suspected));
                self.put_right(open.unwrap_or(self.rounds.good), None, Vec::new(), scope)
            }
        };
        let every = self.rounds.every;
        self.rounds.next = begun + if well { every } else { every.min(RETRY) };
        if well {
            self.rounds.good = begun;
        }
    }

    /// What is wrong with the elements, also if nothing is, where something is wrong with the rules; none: all is well.
    fn look_around(&mut self, begun: Instant) -> Option<Drift> {
        let expected = self.expected();
        let whole = match ruleset::read(self.sets.netlink()) {
            Ok(Some(loaded)) => loaded.differences(&expected).is_empty(),
            _ => false,
        };
        let drift = match self.sets.dump() {
            Ok(live) => self.mirror.drift(&live, begun, Instant::now()),
            Err(error) => {
                // They change faster than they can be read, or there is no table.
                debug!("the sets of bans cannot be read: {error}");
                Drift::default()
            }
        };
        (!whole || drift != Drift::default()).then_some(drift)
    }
}

/// How long a notice may be under way.
const AGAIN: Duration = Duration::from_millis(200);
