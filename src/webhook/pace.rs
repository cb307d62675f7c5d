//! When the next request may go, and how much of a batch: a bucket of tokens for the usual pace, steps back where it
//! fails, fewer events where some are refused. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

/// Tokens that come back at a steady rate; each request takes one.
#[derive(Debug)]
pub(super) struct Bucket {
    most: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Full, for `a_minute` requests a minute.
    pub(super) fn new(a_minute: u32, now: Instant) -> Bucket {
        let most = f64::from(a_minute.max(1));
        Bucket {
            most,
            tokens: most,
            filled: now,
        }
    }

    /// The same fill under another rate.
    pub(super) fn set_rate(&mut self, a_minute: u32, now: Instant) {
        self.fill(now);
        self.most = f64::from(a_minute.max(1));
        self.tokens = self.tokens.min(self.most);
    }

    /// When the next request may go: at `now`, or later. What can wait leaves a fifth of the bucket to what cannot.
    pub(super) fn ready(&mut self, now: Instant, urgent: bool) -> Instant {
        self.fill(now);
        let wanted = if urgent {
            1.0
        } else {
            1.0 + (self.most / 5.0).floor()
        };
        let missing = (wanted.min(self.most) - self.tokens).max(0.0);
        // A nanosecond more, or rounding would have it a nanosecond too early for ever.
        let wait = Duration::from_secs_f64(missing * 60.0 / self.most);
        now + wait
            + if missing > 0.0 {
                Duration::from_nanos(1)
            } else {
                Duration::ZERO
            }
    }

    /// A request goes.
    pub(super) fn take(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.most / 60.0).min(self.most);
        self.filled = now;
    }
}

/// Whether requests are tried at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// As usual.
    Closed,
    /// Too many failed in a row: nothing is tried for a while.
    Open,
    /// The while is over: the next request decides.
    HalfOpen,
}

impl Circuit {
    /// The word in status.
    pub fn word(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
            Circuit::HalfOpen => "half_open",
        }
    }
}

/// How far back one endpoint's requests have stepped.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failed: u32,
    not_before: Option<Instant>,
}

impl Retry {
    /// A request went well.
    pub(super) fn succeeded(&mut self) {
        *self = Retry::default();
    }

    /// A request failed. `chance`: 0 to 1, so that many engines do not come back together. `wished`: the peer's
    /// Retry-After.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        retries: u32,
        first: Duration,
        chance: f64,
        wished: Option<Duration>,
    ) {
        self.failed = self.failed.saturating_add(1);
        let doubled = first.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST);
        // Of the full step three quarters are sure: doubling stays doubling.
        let step = doubled.mul_f64(0.75 + 0.25 * chance.clamp(0.0, 1.0));
        let rest = if self.failed > retries {
            REST
        } else {
            Duration::ZERO
        };
        let wished = wished.unwrap_or_default().min(LONGEST_WISH);
        self.not_before = now.checked_add(step.max(rest).max(wished));
    }

    /// Whether the last request failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failed > 0
    }

    /// When the next request may go.
    pub(super) fn ready(&self, now: Instant) -> Instant {
        self.not_before.map_or(now, |at| at.max(now))
    }

    /// An operator says the peer is well again.
    pub(super) fn reset(&mut self) {
        self.not_before = None;
    }

    /// What is to be shown.
    pub(super) fn circuit(&self, now: Instant, retries: u32) -> Circuit {
        match self.not_before {
            _ if self.failed <= retries => Circuit::Closed,
            Some(at) if at > now => Circuit::Open,
            _ => Circuit::HalfOpen,
        }
    }
}

/// How many events go in one request: fewer after one was refused for what is in it, so that of a batch only those
/// are given up that are refused by themselves, or are too large by themselves.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// `None`: as many as there are.
    most: Option<usize>,
    /// Events that were refused by themselves, with none taken in between.
    alone: u32,
}

impl Portion {
    /// How many of `held` events.
    pub(super) fn of(&self, held: usize) -> usize {
        self.most.map_or(held, |most| most.min(held))
    }

    /// A portion was taken.
    pub(super) fn taken(&mut self) {
        self.alone = 0;
        self.most = self.most.and_then(|most| most.checked_mul(2));
    }

    /// A portion of `count` was refused; whether fewer are worth a try. From somebody who refuses one by one whatever
    /// comes, nothing more is learnt.
    pub(super) fn refused(&mut self, count: usize) -> bool {
        if count > 1 && self.alone < ENOUGH {
            self.most = Some(count / 2);
            return true;
        }
        self.alone += 1;
        if self.alone >= ENOUGH {
            self.most = None;
        }
        false
    }
}

/// So many events refused one by one are not an accident.
const ENOUGH: u32 = 3;

/// The longest step back.
const LONGEST: Duration = Duration::from_secs(300);
/// An open circuit rests at least so long, however short the steps were.
const REST: Duration = Duration::from_secs(30);
/// A peer that wishes for more is asked again all the same.
const LONGEST_WISH: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_minute_holds_what_the_limit_says() {
        let start = Instant::now();
        let mut bucket = Bucket::new(60, start);
        let mut at = start;
        let mut sent = 0;
        while at <= start + 60 * SECOND {
            if bucket.ready(at, true) <= at {
                bucket.take(at);
                sent += 1;
            } else {
                at = bucket.ready(at, true);
            }
        }
        // what a rest saved up, and a minute's worth
        assert!((119..=121).contains(&sent), "{sent}");
    }

    #[test]
    fn what_can_wait_leaves_room_for_what_cannot() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, now);
        let mut sent = 0;
        while bucket.ready(now, false) <= now {
            bucket.take(now);
            sent += 1;
        }
        assert_eq!(sent, 8);
        assert_eq!(bucket.ready(now, true), now);
        let mut one = Bucket::new(1, now);
        assert_eq!(one.ready(now, false), now);
        one.take(now);
        assert!(one.ready(now, true) > now + 59 * SECOND);
    }

    #[test]
    fn steps_double_up_to_five_minutes_and_the_circuit_opens() {
        let now = Instant::now();
        let mut retry = Retry::default();
        let mut steps = Vec::new();
        for _ in 0..8 {
            assert_eq!(retry.circuit(now, 8), Circuit::Closed);
            retry.failed(now, 8, 5 * SECOND, 1.0, None);
            steps.push((retry.ready(now) - now).as_secs());
        }
        assert_eq!(steps, [5, 10, 20, 40, 80, 160, 300, 300]);
        retry.failed(now, 8, 5 * SECOND, 0.0, None);
        assert_eq!(retry.ready(now) - now, 225 * SECOND);
        assert_eq!(retry.circuit(now, 8), Circuit::Open);
        assert_eq!(retry.circuit(now + 226 * SECOND, 8), Circuit::HalfOpen);
        retry.succeeded();
        assert_eq!((retry.circuit(now, 8), retry.ready(now)), (Circuit::Closed, now));
    }

    #[test]
    fn a_peers_wish_counts_within_reason() {
        let now = Instant::now();
        let mut retry = Retry::default();
        retry.failed(now, 3, SECOND, 1.0, Some(60 * SECOND));
        assert_eq!(retry.ready(now) - now, 60 * SECOND);
        retry.failed(now, 3, SECOND, 1.0, Some(Duration::MAX));
        assert_eq!(retry.ready(now) - now, LONGEST_WISH);
    }

    #[test]
    fn an_open_circuit_rests_even_after_short_steps() {
        let now = Instant::now();
        let mut retry = Retry::default();
        retry.failed(now, 0, SECOND, 1.0, None);
        assert_eq!(retry.ready(now) - now, REST);
        retry.reset();
        assert_eq!(
            (retry.ready(now), retry.circuit(now, 0)),
            (now, Circuit::HalfOpen)
        );
    }

    /// Who refuses every portion with a bad event in it: sizes of the portions, and what is given up.
    fn sent_to(bad: &[usize], batch: usize) -> (Vec<usize>, Vec<usize>) {
        let mut portion = Portion::default();
        let mut held: Vec<usize> = (0..batch).collect();
        let (mut sizes, mut lost) = (Vec::new(), Vec::new());
        while !held.is_empty() {
            let count = portion.of(held.len());
            sizes.push(count);
            if !held[..count].iter().any(|event| bad.contains(event)) {
                portion.taken();
                held.drain(..count);
            } else if !portion.refused(count) {
                lost.extend(held.drain(..count));
            }
        }
        (sizes, lost)
    }

    #[test]
    fn of_a_batch_only_the_bad_are_given_up() {
        for bad in 0..10 {
            let (sizes, lost) = sent_to(&[bad], 10);
            assert_eq!(lost, [bad]);
            assert!(sizes.len() <= 11, "{bad}: {sizes:?}");
        }
        assert_eq!(sent_to(&[1, 7], 10).1, [1, 7]);
        let (sizes, lost) = sent_to(&[4_321], 10_000);
        assert!(lost == [4_321] && sizes.len() < 60, "{}", sizes.len());
    }

    #[test]
    fn who_refuses_everything_is_not_asked_about_each() {
        let all: Vec<usize> = (0..10_000).collect();
        let (sizes, lost) = sent_to(&all, 10_000);
        assert_eq!((sizes.len(), lost), (17, all));
    }
}
