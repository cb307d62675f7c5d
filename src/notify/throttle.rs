//! A bound for lines that strangers can cause: a token bucket that remembers how much it held back.

use std::time::{Duration, Instant};

/// `burst` lines at once and one every `every` after that; the others are counted.
#[derive(Clone, Debug)]
pub struct Throttle {
    burst: u32,
    every: Duration,
    /// When the bucket is full again; it holds one line less for each `every` until then.
    full_at: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// A full bucket.
    pub fn new(burst: u32, every: Duration) -> Throttle {
        Throttle {
            burst,
            every,
            full_at: None,
            held_back: 0,
        }
    }

    /// Whether one more line may go now; if so, how many were held back before it.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if !self.take(now) {
            self.held_back += 1;
            return None;
        }
        Some(std::mem::take(&mut self.held_back))
    }

    /// Whether one more line may go now. What is refused is not counted.
    pub fn take(&mut self, now: Instant) -> bool {
        let from = self.full_at.map_or(now, |at| at.max(now));
        let full_at = from + self.every;
        if full_at - now > self.every * self.burst {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }

    /// Whether it is as good as new.
    pub fn is_full(&self, now: Instant) -> bool {
        self.held_back == 0 && self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_one_in_a_while() {
        let start = Instant::now();
        let mut throttle = Throttle::new(3, SECOND);
        let passed = |throttle: &mut Throttle, at: Instant| (0..10).filter(|_| throttle.take(at)).count();
        assert_eq!(passed(&mut throttle, start), 3);
        assert_eq!(passed(&mut throttle, start + SECOND), 1);
        assert_eq!(passed(&mut throttle, start + 3 * SECOND), 2);
        assert!(!throttle.is_full(start + 5 * SECOND));
        assert!(throttle.is_full(start + 6 * SECOND));
        assert_eq!(passed(&mut throttle, start + 600 * SECOND), 3);
    }

    #[test]
    fn what_was_held_back_is_told_by_the_next() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1, SECOND);
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!((throttle.pass(start), throttle.pass(start)), (None, None));
        assert_eq!(throttle.pass(start + SECOND), Some(2));
        assert_eq!(throttle.pass(start + 2 * SECOND), Some(0));
    }
}
