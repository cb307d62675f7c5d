//! What is usual on a port: how many attempts counted in each of the last seven days, and how long was looked.
//!
//! Sums of days and not of hours, because every port can have them: what is asked for is one mean.

use std::time::{Duration, Instant};

use super::BASELINE_DAYS;

/// What was learned, as the state file keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Seconds of the day that is under way (a day of ours begins when the engine first counted, not at midnight).
    pub into_day: u32,
    /// Seconds for which the engine looked, this day first.
    pub observed: [u32; DAYS],
    /// The ports on which anything counted, ascending.
    pub ports: Vec<PortBaseline>,
}

impl Baseline {
    /// So much time went by in which nobody looked: what is known is older, not smaller.
    pub fn age(&mut self, passed: Duration) {
        let into = (u64::from(self.into_day) % DAY).saturating_add(passed.as_secs());
        self.into_day = (into % DAY) as u32; // below 86,400
        shift(&mut self.observed, into / DAY);
        self.ports
            .iter_mut()
            .for_each(|port| shift(&mut port.counted, into / DAY));
    }
}

/// What counted on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBaseline {
    /// The port.
    pub port: u16,
    /// Attempts that counted, this day first.
    pub counted: [u32; DAYS],
}

/// Hours and days since the engine first counted, and for how long of them it looked.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    zero: Instant,
    /// What of the first day was over at `zero`.
    offset: Duration,
    elapsed: Duration,
    /// Seconds since the first day began up to which `observed` knows.
    settled: u64,
    observed: [u32; DAYS],
}

impl Calendar {
    pub(super) fn new(now: Instant) -> Calendar {
        Calendar::since(now, 0, [0; DAYS])
    }

    fn since(zero: Instant, offset: u64, observed: [u32; DAYS]) -> Calendar {
        let start = Duration::from_secs(offset);
        Calendar {
            zero,
            offset: start,
            elapsed: start,
            settled: offset,
            observed,
        }
    }

    /// Goes on to `now` and says how long after the beginning of the first day that is; time never goes back.
    pub(super) fn advance(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.zero);
        self.elapsed = self.elapsed.max(self.offset.saturating_add(since));
        self.settle(self.hour() * HOUR);
        self.elapsed
    }

    /// The number of the hour that is under way.
    pub(super) fn hour(&self) -> u64 {
        self.elapsed.as_secs() / HOUR
    }

    /// Seconds for which was looked, the hour under way excluded, as far back as is remembered.
    pub(super) fn observed(&self) -> u64 {
        self.observed.iter().map(|seconds| u64::from(*seconds)).sum()
    }

    fn settle(&mut self, until: u64) {
        self.settled = self.settled.max(until.saturating_sub((DAYS as u64 + 1) * DAY));
        while self.settled < until {
            let day_end = (self.settled / DAY + 1) * DAY;
            let next = day_end.min(until);
            let seconds = u32::try_from(next - self.settled).unwrap_or(u32::MAX);
            self.observed[0] = self.observed[0].saturating_add(seconds);
            self.settled = next;
            if next == day_end {
                shift(&mut self.observed, 1);
            }
        }
    }
}

/// What counted on one port in which day.
#[derive(Clone, Debug)]
pub(super) struct Usual {
    /// Number of the hour that `this_hour` belongs to.
    hour: u64,
    this_hour: u32,
    /// The hours before, by days, that of `hour` first.
    days: [u32; DAYS],
}

impl Usual {
    pub(super) fn new(hour: u64) -> Usual {
        Usual {
            hour,
            this_hour: 0,
            days: [0; DAYS],
        }
    }

    /// Counts one more.
    pub(super) fn add(&mut self, hour: u64) {
        self.roll(hour);
        self.this_hour = self.this_hour.saturating_add(1);
    }

    /// What counted, the hour under way excluded.
    pub(super) fn total(&mut self, hour: u64) -> u64 {
        self.roll(hour);
        self.days.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether nothing counted in all these days.
    pub(super) fn is_empty(&mut self, hour: u64) -> bool {
        self.total(hour) == 0 && self.this_hour == 0
    }

    fn roll(&mut self, hour: u64) {
        if hour > self.hour {
            self.days[0] = self.days[0].saturating_add(std::mem::take(&mut self.this_hour));
            shift(&mut self.days, hour / HOURS - self.hour / HOURS);
            self.hour = hour;
        }
    }
}

/// Whether `count` within `span` is more than `factor` times the mean of `total` within `observed` seconds; always,
/// if `factor` is 0. Until an hour was looked, that mean is taken as if it had been one.
pub(super) fn is_unusual(count: u64, span: Duration, total: u64, observed: u64, factor: u32) -> bool {
    // Below 2^50 * 2^64 on the left, 2^32 * 2^35 * 2^42 on the right.
    let here = u128::from(count) * u128::from(observed.max(HOUR)) * 1000;
    here > u128::from(factor) * u128::from(total) * span.min(AN_HOUR).as_millis()
}

/// What is known at the calendar's time, the hour under way included: a restart an hour would else learn nothing.
pub(super) fn export<'a>(calendar: &Calendar, ports: impl Iterator<Item = (u16, &'a mut Usual)>) -> Baseline {
    let mut now = calendar.clone();
    now.settle(calendar.elapsed.as_secs());
    let port = |(port, usual): (u16, &mut Usual)| {
        usual.roll(calendar.hour());
        let mut counted = usual.days;
        counted[0] = counted[0].saturating_add(usual.this_hour);
        PortBaseline { port, counted }
    };
    Baseline {
        into_day: u32::try_from(now.settled % DAY).unwrap_or(0),
        observed: now.observed,
        ports: ports
            .map(port)
            .filter(|port| port.counted.iter().any(|count| *count > 0))
            .collect(),
    }
}

/// The calendar that goes on `away` after what was saved, and the ports' counts in it. The time between was not
/// looked at: it makes what is known older, not smaller.
pub(super) fn restore(saved: &Baseline, away: Duration, now: Instant) -> (Calendar, Vec<(u16, Usual)>) {
    let into = (u64::from(saved.into_day) % DAY).saturating_add(away.as_secs());
    let mut observed = saved.observed.map(|seconds| seconds.min(DAY as u32));
    shift(&mut observed, into / DAY);
    let calendar = Calendar::since(now, into % DAY, observed);
    let usual = |port: &PortBaseline| {
        let mut usual = Usual::new(calendar.hour());
        usual.days = port.counted;
        shift(&mut usual.days, into / DAY);
        (port.port, usual)
    };
    let ports = saved.ports.iter().map(usual).collect();
    (calendar, ports)
}

/// Makes room for `by` new days in front.
fn shift(days: &mut [u32; DAYS], by: u64) {
    let by = usize::try_from(by).unwrap_or(DAYS).min(DAYS);
    days.rotate_right(by % DAYS);
    days[..by].fill(0);
}

/// How many days are remembered, the one under way included.
pub const DAYS: usize = BASELINE_DAYS as usize;
/// The time over which what came is held against what is usual.
pub(super) const AN_HOUR: Duration = Duration::from_secs(HOUR);
const HOUR: u64 = 60 * 60;
const HOURS: u64 = 24;
const DAY: u64 = HOURS * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    /// Calendar and one port, and the time, which moves by hand.
    struct Bench {
        calendar: Calendar,
        usual: Usual,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            let now = Instant::now();
            Bench {
                calendar: Calendar::new(now),
                usual: Usual::new(0),
                now,
            }
        }

        fn hours(&mut self, hours: u32, each: u32) -> (u64, u64) {
            for _ in 0..hours {
                (0..each).for_each(|_| self.usual.add(self.calendar.hour()));
                self.wait(3600);
            }
            self.known()
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.calendar.advance(self.now);
        }

        fn known(&mut self) -> (u64, u64) {
            (
                self.usual.total(self.calendar.hour()),
                self.calendar.observed() / HOUR,
            )
        }

        fn save(&mut self) -> Baseline {
            export(&self.calendar, [(22, &mut self.usual)].into_iter())
        }

        fn load(&mut self, saved: &Baseline, away: u64) {
            self.now += Duration::from_secs(away);
            let (calendar, ports) = restore(saved, Duration::from_secs(away), self.now);
            self.calendar = calendar;
            let held = ports.into_iter().next_back();
            self.usual = held.map_or(Usual::new(self.calendar.hour()), |(_, usual)| usual);
        }
    }

    #[test]
    fn the_mean_is_that_of_the_hours_that_are_over() {
        let mut bench = Bench::new();
        assert_eq!(bench.hours(72, 20), (1440, 72));
        (0..500).for_each(|_| bench.usual.add(bench.calendar.hour()));
        bench.wait(3599);
        assert_eq!(bench.known(), (1440, 72));
        bench.wait(1);
        assert_eq!(bench.known(), (1940, 73));
    }

    #[test]
    fn days_are_forgotten_one_by_one() {
        let mut bench = Bench::new();
        assert_eq!(bench.hours(24, 100), (2400, 24));
        assert_eq!(bench.hours(6 * 24 - 1, 1), (2400 + 143, 167));
        assert_eq!(bench.hours(1, 1), (144, 144), "the first day is gone");
        assert_eq!(bench.hours(10 * 24, 0), (0, 144));
        assert!(bench.usual.is_empty(bench.calendar.hour()));
    }

    #[test]
    fn whatever_the_pause_only_seven_days_are_known() {
        for days in [1, 6, 7, 8, 30, 36_500] {
            let mut bench = Bench::new();
            bench.hours(24, 10);
            bench.wait(days * DAY);
            let left = if days < 6 { 240 } else { 0 };
            assert_eq!(bench.known(), (left, 24 * (days + 1).min(6)), "{days}");
        }
    }

    #[test]
    fn a_restart_changes_nothing_and_time_away_is_not_looked_at() {
        let mut bench = Bench::new();
        bench.hours(30, 20);
        bench.usual.add(bench.calendar.hour());
        bench.wait(1800);
        let saved = bench.save();
        let mut observed = [0; DAYS];
        (observed[0], observed[1]) = (6 * 3600 + 1800, 86_400);
        assert_eq!((saved.into_day, saved.observed), (observed[0], observed));
        assert_eq!(saved.ports[0].counted[..2], [121, 480]);
        bench.load(&saved, 0);
        assert_eq!((bench.known().0, bench.save()), (601, saved.clone()));
        bench.load(&saved, 2 * 3600);
        assert_eq!(bench.hours(1, 0), (601, 31));
        bench.load(&saved, 7 * DAY);
        assert_eq!(bench.known(), (0, 0));
    }

    #[test]
    fn restarting_often_still_makes_days_pass() {
        let mut bench = Bench::new();
        bench.hours(1, 1000);
        for _ in 0..8 * 24 {
            bench.wait(3000);
            let saved = bench.save();
            bench.load(&saved, 600);
        }
        let (total, hours) = bench.known();
        assert_eq!(total, 0);
        assert!((110..=140).contains(&hours), "{hours} of 144 were looked at");
    }

    #[test]
    fn a_hostile_file_overflows_nothing() {
        let mut bench = Bench::new();
        let port = PortBaseline {
            port: 22,
            counted: [u32::MAX; DAYS],
        };
        let saved = Baseline {
            into_day: u32::MAX,
            observed: [u32::MAX; DAYS],
            ports: vec![port, port],
        };
        bench.load(&saved, 0);
        bench.hours(200, 3);
        let (_, ports) = restore(&saved, Duration::MAX, bench.now);
        assert_eq!(ports.len(), 2);
        let most = DAYS as u64 * u64::from(u32::MAX);
        assert!(!is_unusual(most, AN_HOUR, most, 0, u32::MAX));
        assert!(is_unusual(u64::MAX, Duration::MAX, most, 1 << 20, 1));
    }

    #[test]
    fn unusual_is_more_than_so_many_times_the_mean() {
        let three_days = 72 * HOUR;
        for (count, span, unusual) in [
            (100, HOUR, false),
            (101, HOUR, true),
            (16, 600, false),
            (17, 600, true),
        ] {
            assert_eq!(
                is_unusual(count, Duration::from_secs(span), 1440, three_days, 5),
                unusual,
                "{count}"
            );
        }
        assert!(is_unusual(1, AN_HOUR, 0, 0, 5), "nothing was usual");
        assert!(is_unusual(1, AN_HOUR, u64::MAX, 1, 0), "no baseline");
        assert!(!is_unusual(500, AN_HOUR, 100, 60, 5), "not an hour was looked");
    }
}
