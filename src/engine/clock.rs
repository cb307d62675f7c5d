//! The only reader of clocks for the slow path: turns monotonic instants into wall time for people.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A pair of readings of the two clocks, taken together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    wall: OffsetDateTime,
}

impl Clock {
    /// Reads both clocks. Taken afresh for each answer, so that a stepped wall clock shows at once.
    pub fn read() -> Clock {
        Clock { instant: Instant::now(), wall: OffsetDateTime::now_utc() }
    }

    /// The monotonic reading.
    pub fn now(&self) -> Instant {
        self.instant
    }

    /// `at` as RFC 3339 in UTC, to the second.
    pub fn rfc3339(&self, at: Instant) -> String {
        let wall = match at.checked_duration_since(self.instant) {
            Some(ahead) => self.wall.checked_add(signed(ahead)),
            None => self.wall.checked_sub(signed(self.instant - at)),
        };
        wall.unwrap_or(self.wall)
            .replace_nanosecond(0)
            .unwrap_or(self.wall)
            .format(&Rfc3339)
            .unwrap_or_else(|_| "unknown".into())
    }
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn instants_become_wall_time_in_both_directions() {
        let instant = Instant::now();
        let clock = Clock { instant, wall: datetime!(2026-11-21 20:00:00.5 UTC) };
        assert_eq!(clock.rfc3339(instant + Duration::from_secs(600)), "2026-11-21T20:10:00Z");
        assert_eq!(clock.rfc3339(instant), "2026-11-21T20:00:00Z");
        if let Some(before) = instant.checked_sub(Duration::from_secs(1)) {
            assert_eq!(clock.rfc3339(before), "2026-11-21T19:59:59Z");
        }
    }
}
