//! Attempts of one source above ten a second become one event with a count: a scanner is told, not echoed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::core::prefix::Prefix;
use crate::core::probe::Probe;

/// The first packet of a flow, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) probe: Probe,
    pub(super) at: Instant,
}

/// Sources of this second. Keys are what strangers choose: std's maps hash them with a key of their own.
#[derive(Debug)]
pub(super) struct Merger {
    began: Instant,
    sources: HashMap<Prefix, Seen>,
    merged: u64,
}

#[derive(Debug, Default)]
struct Seen {
    passed: u32,
    /// The first that did not pass, and how many it stands for.
    held: Option<(Sighting, u64)>,
}

impl Merger {
    pub(super) fn new(now: Instant) -> Merger {
        Merger {
            began: now,
            sources: HashMap::new(),
            merged: 0,
        }
    }

    /// The sighting, if it is to be told now; else it is held and counted.
    pub(super) fn offer(&mut self, sighting: Sighting) -> Option<Sighting> {
        let source = Prefix::source_of(sighting.probe.src, NETWORK);
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&source) {
            return Some(sighting);
        }
        let seen = self.sources.entry(source).or_default();
        if seen.passed < A_SECOND {
            seen.passed += 1;
            return Some(sighting);
        }
        match &mut seen.held {
            Some((_, count)) => {
                *count += 1;
                self.merged += 1;
            }
            held => *held = Some((sighting, 1)),
        }
        None
    }

    /// What was held, each with how many it stands for, if the second is over (or `at_once`).
    pub(super) fn due(&mut self, now: Instant, at_once: bool) -> Vec<(Sighting, u64)> {
        if now.saturating_duration_since(self.began) < SECOND && !at_once {
            return Vec::new();
        }
        self.began = now;
        let mut due: Vec<_> = self.sources.drain().filter_map(|(_, seen)| seen.held).collect();
        due.sort_by_key(|(sighting, _)| sighting.at);
        due
    }

    /// When [`due`](Merger::due) will have something.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.sources.is_empty()).then(|| self.began + SECOND)
    }

    /// Sightings that became part of another.
    pub(super) fn merged(&self) -> u64 {
        self.merged
    }
}

/// Sightings of one source that pass within a second.
const A_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
/// Sources that are told apart within a second; beyond, all pass unmerged, and the spool is bounded.
const MOST_SOURCES: usize = 10_000;
/// One owner's part of IPv6, whatever is judged as one source: this is about volume.
const NETWORK: u8 = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::core::probe::Transport;

    fn sighting(src: &str, at: Instant) -> Sighting {
        let probe = Probe {
            src: src.parse().unwrap(),
            dst: Ipv4Addr::LOCALHOST.into(),
            transport: Transport::Udp { sport: 1, dport: 53 },
        };
        Sighting { probe, at }
    }

    #[test]
    fn ten_a_second_pass_and_the_rest_is_one() {
        let now = Instant::now();
        let mut merger = Merger::new(now);
        let at = |n| now + Duration::from_millis(n);
        let passed = (0..100)
            .filter_map(|n| merger.offer(sighting("203.0.113.9", at(n))))
            .count();
        assert!(merger.offer(sighting("203.0.113.10", now)).is_some());
        assert_eq!((passed, merger.merged()), (10, 89));
        assert!(merger.due(at(999), false).is_empty());
        assert_eq!(
            merger.due(at(1_000), false),
            [(sighting("203.0.113.9", at(10)), 90)]
        );
        assert_eq!(merger.next(), None);
        assert!(merger.offer(sighting("203.0.113.9", now)).is_some());
        assert!(merger.due(now + 3 * SECOND, false).is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let now = Instant::now();
        let mut merger = Merger::new(now);
        let of = |n: u32| sighting(&format!("2001:db8::{n:x}"), now);
        assert_eq!((0..100).filter_map(|n| merger.offer(of(n))).count(), 10);
        assert!(merger.offer(sighting("2001:db8:0:1::1", now)).is_some());
    }

    #[test]
    fn many_sources_cost_bounded_memory() {
        let now = Instant::now();
        let mut merger = Merger::new(now);
        for n in 0..20_000u32 {
            assert!(
                merger
                    .offer(sighting(&Ipv4Addr::from_bits(n).to_string(), now))
                    .is_some()
            );
        }
        assert_eq!(merger.sources.len(), MOST_SOURCES);
    }
}
