//! When trouble is worth telling: when there is more of it, and once an hour while it lasts. A disk that fails every other
//! second is one trouble and not a thousand.

use std::time::{Duration, Instant};

/// What was told of a trouble, or of several.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// How many there are, as was told or seen.
    known: usize,
    told: Option<Instant>,
    /// Since when there have been fewer, and how many.
    fewer: Option<(Instant, usize)>,
}

impl Alarm {
    /// There are so many troubles at `now`; whether that is to be told.
    pub(super) fn rings(&mut self, troubles: usize, now: Instant) -> bool {
        if let Some((_, left)) = self
            .fewer
            .filter(|(since, _)| now.duration_since(*since) >= QUIET)
        {
            (self.known, self.fewer) = (left, None);
        }
        let lasts = |told: Instant| now.duration_since(told) >= TELL_EVERY;
        let rings = troubles > self.known || troubles > 0 && self.told.is_none_or(lasts);
        if troubles < self.known {
            self.fewer = self
                .fewer
                .filter(|(_, left)| *left == troubles)
                .or(Some((now, troubles)));
        } else {
            (self.known, self.fewer) = (troubles, None);
        }
        if rings {
            self.told = Some(now);
        }
        rings
    }
}

/// How often trouble that lasts is told.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// How long it must be gone to be another one when it returns.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_for_more_and_once_an_hour_and_not_for_what_flaps() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut told = Vec::new();
        let seen = [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 0),
            (5, 1), // the same
            (6, 2),
            (10, 1),
            (75, 2), // one was gone for a minute
            (80, 0),
            (200, 1), // and so were both
            (3799, 1),
            (3800, 1),
            (3900, 0),
            (3905, 1),
            (7400, 1),
        ];
        for (second, troubles) in seen {
            if alarm.rings(troubles, start + Duration::from_secs(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [1, 6, 75, 200, 3800, 7400]);
    }

    #[test]
    fn a_disk_that_fails_every_other_second_is_told_once_an_hour() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut rings = |second| alarm.rings(second as usize % 2, start + Duration::from_secs(second));
        assert_eq!((0..7200).filter(|second| rings(*second)).count(), 2);
    }
}
