//! How many came within a span that ends now, in memory that does not grow with how many came.

use std::time::Duration;

/// A sliding count in [`BUCKETS`] buckets.
///
/// A bucket is dropped as soon as its beginning is a span old: what came counts for at least 29/30 of the span (of
/// 2 h: 116 min) and never for longer than the span. So coarseness errs toward counting less: an attack is noticed
/// an attempt later, nothing honest is taken for one.
///
/// Times are durations since one fixed moment. A time before the newest is taken as the newest; another span than
/// before (a reload) empties the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Sliding {
    buckets: [u32; BUCKETS],
    /// The sum of all buckets.
    total: u64,
    /// Number of the newest bucket since the fixed moment.
    newest: u64,
    /// Length of a bucket in nanoseconds.
    step: u64,
}

impl Sliding {
    /// Counts one more at `at`.
    pub(super) fn add(&mut self, span: Duration, at: Duration) {
        self.slide(span, at);
        let bucket = &mut self.buckets[place(self.newest)];
        if let Some(more) = bucket.checked_add(1) {
            *bucket = more;
            self.total += 1;
        }
    }

    /// How many came within `span` before `at`.
    pub(super) fn count(&mut self, span: Duration, at: Duration) -> u64 {
        self.slide(span, at);
        self.total
    }

    /// How many of those that [`Sliding::count`] or [`Sliding::add`] saw last came within `part` of the span, to
    /// the bucket below, but at least one bucket.
    pub(super) fn newest(&self, part: Duration) -> u64 {
        let whole = nanos(part) / self.step.max(1);
        (0..whole.clamp(1, BUCKETS as u64).min(self.newest.saturating_add(1)))
            .map(|back| u64::from(self.buckets[place(self.newest - back)]))
            .sum()
    }

    /// Forgets all that came.
    pub(super) fn clear(&mut self) {
        self.buckets = [0; BUCKETS];
        self.total = 0;
    }

    fn slide(&mut self, span: Duration, at: Duration) {
        let step = (nanos(span) / BUCKETS as u64).max(1);
        let now = nanos(at) / step;
        if step != self.step || now.saturating_sub(self.newest) >= BUCKETS as u64 {
            self.clear();
            (self.step, self.newest) = (step, now);
        }
        while self.newest < now {
            self.newest += 1;
            self.total -= u64::from(std::mem::take(&mut self.buckets[place(self.newest)]));
        }
    }
}

fn place(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).unwrap_or(0)
}

/// 584 years at most.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// As few as keep the loss at the edge small: there can be a count for each of 65,536 ports.
pub(super) const BUCKETS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_came_counts_for_29_of_30_parts_of_the_span_and_never_longer() {
        for at in (0..7200).step_by(7) {
            let mut sliding = Sliding::default();
            sliding.add(HOUR, s(at));
            assert_eq!(sliding.clone().count(HOUR, s(at + 3480)), 1, "{at}");
            assert_eq!(sliding.count(HOUR, s(at + 3600)), 0, "{at}");
        }
    }

    #[test]
    fn it_agrees_with_a_list_of_times() {
        let (mut sliding, mut times, mut at, mut random) = (Sliding::default(), Vec::new(), 0u64, 5u32);
        for _ in 0..5000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            at += u64::from(random >> 24);
            sliding.add(HOUR, s(at));
            times.push(at);
            let count = sliding.count(HOUR, s(at));
            let within = |span| times.iter().filter(|then| at - **then < span).count() as u64;
            assert!((within(3480)..=within(3600)).contains(&count), "{count} at {at}");
            assert!(
                (within(480)..=within(600)).contains(&sliding.newest(s(600))),
                "at {at}"
            );
        }
    }

    #[test]
    fn any_span_and_any_time_will_do() {
        for span in [Duration::ZERO, Duration::from_nanos(1), HOUR, Duration::MAX] {
            let mut sliding = Sliding::default();
            for at in [s(5), Duration::ZERO, Duration::MAX, HOUR] {
                sliding.add(span, at);
                assert!(sliding.newest(span) >= 1 && sliding.newest(Duration::MAX) == sliding.total);
            }
        }
    }

    #[test]
    fn going_back_counts_as_now_and_another_span_starts_anew() {
        let mut sliding = Sliding::default();
        sliding.add(HOUR, s(7000));
        sliding.add(HOUR, s(10));
        assert_eq!(sliding.count(HOUR, s(7000)), 2);
        assert_eq!(sliding.count(2 * HOUR, s(7000)), 0);
    }
}
