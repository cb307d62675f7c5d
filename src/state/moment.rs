//! A moment by two clocks, and how much time lies between two moments when one of the clocks may lie.

use std::time::Duration;

use time::OffsetDateTime;

/// A moment by the wall clock, which anybody may step, and by the clock of this boot, which nobody can.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// UTC.
    pub wall: OffsetDateTime,
    /// Where there is one.
    pub boot: Option<Boot>,
}

/// The clock of one boot of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Which boot: `/proc/sys/kernel/random/boot_id`.
    pub id: Box<str>,
    /// Time since it began, suspend included (CLOCK_BOOTTIME).
    pub up: Duration,
}

impl Moment {
    /// How much time has gone by since `saved`, so that a stepped clock can neither free nor prolong:
    ///
    /// - within one boot by the boot's own clock, which has no steps (what is [a little](TOLERATED) ahead of it was put
    ///   together from two clocks: no time went by);
    /// - after a reboot by the wall clock, if it went forward and by no more than 30 days;
    /// - else the wall clock is not believed, and only the time since the machine booted has certainly gone by.
    ///
    /// What remains of a ban is its saved remainder less this time, hence never more than was saved.
    pub fn since(&self, saved: &Moment) -> Duration {
        match (&self.boot, &saved.boot) {
            (Some(now), Some(then)) if now.id == then.id && now.up >= then.up => now.up - then.up,
            (Some(now), Some(then)) if now.id == then.id && then.up - now.up <= TOLERATED => Duration::ZERO,
            (boot, _) => self
                .by_the_wall(saved)
                .unwrap_or(boot.as_ref().map_or(Duration::ZERO, |boot| boot.up)),
        }
    }

    fn by_the_wall(&self, saved: &Moment) -> Option<Duration> {
        let passed = Duration::try_from(self.wall - saved.wall).ok()?; // not if it went backwards
        (passed <= LONGEST_DOWN).then_some(passed)
    }
}

/// A host that was down for longer starts with what remained of its bans when it was saved: longer than the
/// longest step of the usual ladders (14 days), and far shorter than the steps of a clock that lost its battery.
pub(super) const LONGEST_DOWN: Duration = Duration::from_secs(30 * 86_400);

/// Clocks of one moment that are read one after the other differ by less.
const TOLERATED: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const SAVED_AT: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
    const HOUR: Duration = Duration::from_secs(3600);
    const STEPPED: [OffsetDateTime; 4] = [
        datetime!(2027-03-01 12:00 UTC),
        datetime!(2025-03-01 12:00 UTC),
        datetime!(1970-01-01 0:00 UTC),
        datetime!(2038-01-19 3:14:08 UTC),
    ];

    fn moment(wall: OffsetDateTime, boot: Option<(&str, u64)>) -> Moment {
        let boot = boot.map(|(id, up)| Boot {
            id: id.into(),
            up: Duration::from_secs(up),
        });
        Moment { wall, boot }
    }

    #[test]
    fn within_a_boot_no_step_counts() {
        let saved = moment(SAVED_AT, Some(("a", 100)));
        for wall in STEPPED.into_iter().chain([SAVED_AT, SAVED_AT + HOUR]) {
            assert_eq!(
                moment(wall, Some(("a", 160))).since(&saved),
                Duration::from_secs(60),
                "{wall}"
            );
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_counts_while_it_is_plausible() {
        let saved = moment(SAVED_AT, Some(("a", 100)));
        for (after, expected) in [
            (Duration::ZERO, Duration::ZERO),
            (HOUR, HOUR),
            (LONGEST_DOWN, LONGEST_DOWN),
            (LONGEST_DOWN + HOUR, Duration::from_secs(20)),
        ] {
            assert_eq!(moment(SAVED_AT + after, Some(("b", 20))).since(&saved), expected);
        }
    }

    #[test]
    fn after_a_reboot_a_stepped_clock_neither_frees_nor_prolongs() {
        let saved = moment(SAVED_AT, Some(("a", 100)));
        for wall in STEPPED {
            assert_eq!(
                moment(wall, Some(("b", 20))).since(&saved),
                Duration::from_secs(20),
                "{wall}"
            );
            assert_eq!(moment(wall, None).since(&saved), Duration::ZERO, "{wall}");
            assert_eq!(
                moment(wall, None).since(&moment(SAVED_AT, None)),
                Duration::ZERO,
                "{wall}"
            );
        }
    }

    #[test]
    fn a_boot_clock_that_went_backwards_is_not_believed_either() {
        let saved = moment(SAVED_AT, Some(("a", u64::MAX)));
        assert_eq!(moment(SAVED_AT + HOUR, Some(("a", 20))).since(&saved), HOUR);
        let saved = moment(SAVED_AT, Some(("a", 5000)));
        let since = |up| moment(SAVED_AT + HOUR, Some(("a", up))).since(&saved);
        assert_eq!((since(4998), since(4997)), (Duration::ZERO, HOUR));
    }
}
