//! Looks at the table that nobody asked for: now and then, for what no notice told.

use std::time::{Duration, Instant};

use tracing::debug;

use super::mirror::Drift;
use super::upkeep::Scope;
use super::{Enforcer, RETRY};

/// When to look at the table unasked.
#[derive(Debug)]
pub(super) struct Rounds {
    every: Duration,
    next: Instant,
    /// Found wrong a moment ago.
    suspected: Option<Drift>,
    /// The last time that all was as it should be.
    good: Instant,
    /// When everything was last looked at because notices were lost.
    looked: Option<Instant>,
}

impl Rounds {
    pub(super) fn new(every: Duration, now: Instant) -> Rounds {
        Rounds {
            every,
            next: now + every,
            suspected: None,
            good: now,
            looked: None,
        }
    }

    /// Whether everything may be looked at again at `now`, because notices were lost; else a look comes soon. One a second:
    /// of a million bans it takes that long, and others wait for it.
    pub(super) fn may_look_at_all(&mut self, now: Instant) -> bool {
        let may = self
            .looked
            .is_none_or(|at| now.saturating_duration_since(at) >= AGAIN);
        match may {
            true => self.looked = Some(now),
            false => self.soon(now),
        }
        may
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
        self.wanted.forget_ended(begun);
        let Some(found) = self.look_around(begun) else {
            self.rounds.next = begun + RETRY;
            return;
        };
        let suspected = self.rounds.suspected.take();
        let open = self.stats.upkeep.gap_since();
        // A repair that does not come to its end may want the next look sooner than that.
        self.rounds.next = begun + self.rounds.every;
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
        match well {
            true => self.rounds.good = begun,
            false => self.rounds.next = self.rounds.next.min(begun + RETRY),
        }
    }

    /// What is wrong with the elements, also if nothing is, where something is wrong with the rules; none inside: all is
    /// well; none at all: the sets change faster than they can be read.
    fn look_around(&mut self, begun: Instant) -> Option<Option<Drift>> {
        let whole = self.reads_back();
        let drift = match self.sets.dump() {
            Ok(live) => self.wanted.drift(&live, begun, Instant::now()),
            Err(error) => {
                debug!("the sets of bans cannot be read: {error}");
                return (!whole).then(|| Some(Drift::default()));
            }
        };
        Some((!whole || drift != Drift::default()).then_some(drift))
    }
}

/// How long a notice may be under way, also on a machine that hardly keeps up: what an operator deleted is not to be put
/// back before it is heard who did it.
const AGAIN: Duration = Duration::from_secs(1);
