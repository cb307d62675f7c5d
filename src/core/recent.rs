//! Was this flow seen a moment ago? A table of fixed size that makes one probe of a SYN and its retransmissions.
//!
//! A client whose SYN gets no answer sends it again and again, and the kernel delivers a held packet twice when
//! somebody adds a base chain: none of that is a second attempt. The table stands alone because it has to answer
//! in the worker, for each packet of whoever floods the host: it allocates nothing after it was made, never
//! moves an entry and looks at four of them.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

/// The flows that were first seen less than [`REPEATS`] ago, as far as they fit.
///
/// Strangers choose the keys, so they are hashed with std's keyed hash (SipHash-1-3), and what is held of a flow is
/// its 64-bit hash: among a million flows in the table a new one is taken for a repetition once in 2⁴⁴ times (an
/// entry is found only by the whole hash), and nobody without the key can bring that about.
///
/// When the four places of a set are taken the flow first seen longest ago gives way. The worst that a flood does
/// is thereby that a retransmission counts as an attempt of its own, of which [`Recent::crowded`] tells.
#[derive(Debug)]
pub struct Recent {
    hasher: RandomState,
    /// Hashes of flows; 0: the place is free. Apart from their times, so that each array is made of zeroed
    /// memory, which the kernel hands out only as it is used.
    flows: Box<[[u64; WAYS]]>,
    /// When the flow in the same place was first seen, in milliseconds of `clock`, modulo 2³² (50 days). What lay
    /// there for longer can pass as young again, which only the very same flow would notice.
    firsts: Box<[[u32; WAYS]]>,
    epoch: Instant,
    /// Milliseconds since `epoch`, never less than before.
    clock: u64,
    crowded: u64,
}

impl Recent {
    /// An empty table for `capacity` flows, rounded up to a power of two, at least 4 and at most 2²⁶; 12 bytes
    /// each, of which none are added later.
    ///
    /// `now` only gives the clock a beginning.
    pub fn new(capacity: usize, now: Instant) -> Recent {
        let sets = capacity.clamp(WAYS, MOST).next_power_of_two() / WAYS;
        Recent {
            hasher: RandomState::new(),
            flows: vec![[0; WAYS]; sets].into_boxed_slice(),
            firsts: vec![[0; WAYS]; sets].into_boxed_slice(),
            epoch: now,
            clock: 0,
            crowded: 0,
        }
    }

    /// Whether the flow was seen less than [`REPEATS`] before `now`; if not, it is from now on.
    ///
    /// A repetition does not renew the first sighting: no honest stack goes on for longer, and whoever replays one
    /// packet for ever would otherwise be counted once for ever; so it counts again every [`REPEATS`].
    ///
    /// A `now` earlier than the one before is taken as that one.
    pub fn seen(&mut self, flow: impl Hash, now: Instant) -> bool {
        let now = self.tick(now);
        let hash = self.hasher.hash_one(flow).max(1); // 0 is a free place
        let set = self.set_of(hash);
        let Some(way) = self.flows[set].iter().position(|held| *held == hash) else {
            self.put(set, hash, now);
            return false;
        };
        let first = &mut self.firsts[set][way];
        let repeated = now.wrapping_sub(*first) < REPEATS_MS;
        if !repeated {
            *first = now;
        }
        repeated
    }

    /// How many flows had to give way less than [`REPEATS`] after they were first seen, since the table was made.
    /// If this grows, the table is too small for the traffic, and retransmissions may count.
    pub fn crowded(&self) -> u64 {
        self.crowded
    }

    /// How many flows there is room for.
    pub fn capacity(&self) -> usize {
        self.flows.len() * WAYS
    }

    fn put(&mut self, set: usize, hash: u64, now: u32) {
        let (flows, firsts) = (&mut self.flows[set], &mut self.firsts[set]);
        let mut oldest = (0, 0);
        for way in 0..WAYS {
            if flows[way] == 0 {
                oldest = (way, u32::MAX);
                break;
            }
            let age = now.wrapping_sub(firsts[way]);
            if age > oldest.1 {
                oldest = (way, age);
            }
        }
        let (way, age) = oldest;
        self.crowded += u64::from(age < REPEATS_MS);
        (flows[way], firsts[way]) = (hash, now);
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2³² is meant, and a set is chosen by low bits
    fn tick(&mut self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        self.clock = self.clock.max(since as u64);
        self.clock as u32
    }

    #[allow(clippy::cast_possible_truncation)] // the low bits are wanted
    fn set_of(&self, hash: u64) -> usize {
        hash as usize & (self.flows.len() - 1)
    }
}

/// How long a flow's packets count as one probe. With tcp_syn_retries = 6 Linux sends its last SYN after 63 s (67 s
/// with tcp_syn_linear_timeouts = 4) and gives up after 127 s: Documentation/networking/ip-sysctl.rst.
pub const REPEATS: Duration = Duration::from_millis(REPEATS_MS as u64);
const REPEATS_MS: u32 = 127_000;
/// Places of a set. Four keep the loss small until the table is three quarters full, and their hashes lie in 32 bytes.
const WAYS: usize = 4;
const MOST: usize = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(capacity: usize) -> (Recent, Instant) {
        let now = Instant::now();
        (Recent::new(capacity, now), now)
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_syn_and_its_retransmissions_are_one() {
        let (mut recent, start) = table(1024);
        let flow = ("192.0.2.7", 40_000, "198.51.100.1", 22, 0x1234_5678);
        assert!(!recent.seen(flow, start));
        for seconds in [0, 1, 3, 7, 15, 31, 63] {
            assert!(recent.seen(flow, after(start, seconds * 1000)), "{seconds} s");
        }
        assert!(recent.seen(flow, after(start, 126_999)));
        assert!(!recent.seen(("192.0.2.7", 40_000, "198.51.100.1", 22, 0x1234_5679), start));
    }

    #[test]
    fn a_packet_replayed_for_ever_counts_every_127_seconds() {
        let (mut recent, start) = table(1024);
        let counted = (0..1270).filter(|second| !recent.seen("flow", after(start, second * 1000)));
        assert_eq!(
            counted.collect::<Vec<_>>(),
            (0..10).map(|n| n * 127).collect::<Vec<_>>()
        );
        assert_eq!(recent.crowded(), 0);
    }

    #[test]
    fn the_first_seen_gives_way() {
        let (mut recent, start) = table(4);
        for flow in 0..4u64 {
            assert!(!recent.seen(flow, after(start, flow)));
        }
        assert!(recent.seen(0u64, after(start, 10)), "a repetition renews nothing");
        assert!(!recent.seen(4u64, after(start, 20)));
        let held: Vec<bool> = [4u64, 3, 2, 1]
            .iter()
            .map(|flow| recent.seen(flow, after(start, 30)))
            .collect();
        assert_eq!((held, recent.crowded()), (vec![true; 4], 1));
        assert!(!recent.seen(0u64, after(start, 30)));
    }

    #[test]
    fn what_is_past_gives_way_unnoticed() {
        let (mut recent, start) = table(4);
        for flow in 0..40u64 {
            assert!(!recent.seen(flow, after(start, flow / 4 * 127_000)));
        }
        assert_eq!(recent.crowded(), 0);
    }

    #[test]
    fn a_million_flows_are_all_new_and_the_table_stays_as_it_is() {
        let (mut recent, start) = table(1 << 16);
        let mut random = 7u64;
        for n in 0..1_000_000u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            assert!(!recent.seen((random, n), after(start, n / 1000)));
        }
        assert_eq!(recent.capacity(), 1 << 16);
        assert_eq!(recent.crowded() + (1 << 16), 1_000_000, "each place is in use");
    }

    #[test]
    fn half_full_it_forgets_next_to_nothing() {
        let (mut recent, now) = table(1 << 17);
        (0..1u32 << 16).for_each(|flow| assert!(!recent.seen(flow, now)));
        let forgotten = (0..1u32 << 16).filter(|flow| !recent.seen(flow, now)).count();
        assert!(forgotten < (1 << 16) / 10, "{forgotten}");
    }

    #[test]
    fn any_capacity_makes_a_table() {
        for (asked, made) in [(0, 4), (1, 4), (4, 4), (5, 8), (1000, 1024), (1 << 16, 1 << 16)] {
            let (mut recent, now) = table(asked);
            assert_eq!(recent.capacity(), made);
            assert_eq!((recent.seen(1, now), recent.seen(1, now)), (false, true));
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_far_ahead_forgets_nothing_it_should_know() {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut recent = Recent::new(1024, start);
        assert!(!recent.seen("early", start - Duration::from_secs(500)));
        assert!(recent.seen("early", start));
        assert!(!recent.seen("late", after(start, 60_000)));
        assert!(recent.seen("late", after(start, 59_000)));
        let months = Duration::from_secs(90 * 86_400);
        assert!(!recent.seen("late", start + months));
        assert!(recent.seen("late", start + months));
        assert!(recent.seen("late", start), "taken as the time before");
    }
}
