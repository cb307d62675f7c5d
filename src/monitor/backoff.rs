//! How long to wait before the next start of an engine that does not stay: growing, never nothing, never for ever.

use std::time::{Duration, Instant};

/// The delay before the next start.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    well_since: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            next: FIRST,
            well_since: None,
        }
    }
}

impl Backoff {
    /// The engine is well at `now`; after ten minutes of that the next delay is the first again.
    pub fn well(&mut self, now: Instant) {
        let since = *self.well_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= HEALTHY {
            self.next = FIRST;
        }
    }

    /// It has to be started again: how long to wait before that.
    pub fn delay(&mut self) -> Duration {
        self.well_since = None;
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay
    }
}

/// A crash costs a second of judging new connections, no more.
const FIRST: Duration = Duration::from_secs(1);
/// As long as an operator would wait before he looks again.
const LONGEST: Duration = Duration::from_secs(300);
/// Who ran that long does not fail at its start.
const HEALTHY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_five_minutes_and_stays_there() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..12).map(|_| backoff.delay().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_health_begin_anew_and_less_does_not() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..5).for_each(|_| {
            backoff.delay();
        });
        backoff.well(at(0));
        backoff.well(at(599));
        assert_eq!(backoff.delay().as_secs(), 32);
        // Health before the last end does not count.
        backoff.well(at(600));
        backoff.well(at(1199));
        assert_eq!(backoff.delay().as_secs(), 64);
        backoff.well(at(1200));
        backoff.well(at(1800));
        assert_eq!(backoff.delay().as_secs(), 1);
    }
}
