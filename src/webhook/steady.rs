//! A time of day that nobody can step: how long an event has waited must not depend on who sets the clock meanwhile.

use std::time::{Duration, Instant, SystemTime};

/// The time of day at its making, and as much more as has passed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    began: Instant,
    /// Milliseconds since 1970.
    then: u64,
}

impl Steady {
    /// One whose `began` was `then`, in milliseconds since 1970.
    fn new(began: Instant, then: u64) -> Steady {
        Steady { began, then }
    }

    /// Milliseconds since 1970 at `now`.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began).as_millis();
        self.then.saturating_add(passed as u64)
    }

    /// How old at `now` something is that was written then. What an earlier run wrote under a clock that was ahead is
    /// as old as this run at least.
    pub(super) fn age(&self, written: u64, now: Instant) -> Duration {
        match self.millis(now).checked_sub(written) {
            Some(age) => Duration::from_millis(age),
            None => now.saturating_duration_since(self.began),
        }
    }
}

impl Default for Steady {
    /// From now on.
    fn default() -> Steady {
        let then = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Steady::new(Instant::now(), then.map_or(0, |then| then.as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_goes_by_what_passed_and_not_by_the_clock() {
        let began = Instant::now();
        let steady = Steady::new(began, 1_000_000);
        let later = began + Duration::from_secs(60);
        assert_eq!(steady.millis(later), 1_060_000);
        assert_eq!(steady.age(1_010_000, later), Duration::from_secs(50));
        assert_eq!(steady.age(990_000, later), Duration::from_secs(70));
        assert_eq!(steady.age(9_000_000, later), Duration::from_secs(60));
    }
}
