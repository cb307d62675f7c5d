//! Who fails on a port while it is under attack, and who was told of lately.

use std::time::{Duration, Instant};

use super::super::bounded::BoundedMap;
use super::super::prefix::Prefix;

/// Sources that failed on ports under attack: at most [`CAPACITY`], about 8 MB when full.
///
/// When it is full the source that failed longest ago gives way, those that offended last of all: a flood from forged
/// addresses makes entries of one failure. What is forgotten has to fail once more; nobody is banned for it.
#[derive(Debug)]
pub(super) struct Failing {
    /// By the attack's number, so that the end of an attack forgets all of its own without looking for them.
    sources: BoundedMap<(u64, Prefix), Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    fails: u32,
    told: Option<Instant>,
}

impl Failing {
    pub(super) fn new() -> Failing {
        Failing {
            sources: BoundedMap::new(CAPACITY),
        }
    }

    /// Notes that `source` failed in the attack of this number; true if it did so more often than is tolerated.
    ///
    /// The offence consumes its evidence, and for [`TOLD_FOR`] nothing more is heard of the source: attempts on
    /// their way when it was banned are no new offence. Should the ban not have come about, it is told again.
    pub(super) fn fails(&mut self, attack: u64, source: Prefix, tolerated: u32, now: Instant) -> bool {
        let key = (attack, source);
        let place = match self.sources.find(&key) {
            Some(place) => place,
            None => self.sources.insert(key, Entry::default(), RANK_FAILED, now),
        };
        let Some(entry) = self.sources.at_mut(place) else {
            return false;
        };
        let offends = entry.fail(tolerated, now);
        let rank = if entry.told.is_some() {
            RANK_TOLD
        } else {
            RANK_FAILED
        };
        self.sources.touch(place, rank, now);
        offends
    }

    /// Forgets what `source` did in the attack of this number.
    pub(super) fn forget(&mut self, attack: u64, source: Prefix) {
        self.sources.remove(&(attack, source));
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }
}

impl Entry {
    fn fail(&mut self, tolerated: u32, now: Instant) -> bool {
        if self
            .told
            .is_some_and(|told| now.saturating_duration_since(told) < TOLD_FOR)
        {
            return false;
        }
        self.fails = self.fails.saturating_add(1);
        let offends = self.fails > tolerated;
        if offends {
            *self = Entry {
                fails: 0,
                told: Some(now),
            };
        }
        offends
    }
}

/// Sources of all attacks together.
pub(super) const CAPACITY: usize = 65_536;
/// As long as a ban storm holds bans back.
pub(super) const TOLD_FOR: Duration = Duration::from_secs(60);
const RANK_FAILED: u8 = 0;
const RANK_TOLD: u8 = 1;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(n: u32) -> Prefix {
        Prefix::host(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn one_failure_more_than_tolerated_is_told_once_a_minute() {
        let (mut failing, start) = (Failing::new(), Instant::now());
        let told: Vec<u64> = (0..200)
            .filter(|second| failing.fails(1, source(1), 1, start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [1, 62, 123, 184]);
        assert!(
            !failing.fails(2, source(1), 1, start),
            "another attack, another count"
        );
        assert!(failing.fails(3, source(1), 0, start));
    }

    #[test]
    fn what_is_forgotten_has_to_fail_again() {
        let (mut failing, now) = (Failing::new(), Instant::now());
        assert!(!failing.fails(1, source(1), 1, now));
        failing.forget(1, source(1));
        assert!(!failing.fails(1, source(1), 1, now));
        assert!(failing.fails(1, source(1), 1, now));
    }

    #[test]
    fn a_flood_leaves_room_and_offenders_in_peace() {
        let (mut failing, now) = (Failing::new(), Instant::now());
        assert!(failing.fails(1, source(0), 0, now));
        for n in 1..200_000 {
            assert!(!failing.fails(1, source(n), 1, now));
        }
        assert_eq!(failing.len(), CAPACITY);
        assert!(!failing.fails(1, source(0), 0, now), "still known as told");
    }
}
