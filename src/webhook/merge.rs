//! Attempts of one source above ten a second become one event with a count: a scanner is told, not echoed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wire::Event;

/// Sources of this second. Keys are what strangers choose: std's maps hash them with a key of their own.
#[derive(Debug)]
pub(super) struct Merger {
    began: Instant,
    sources: HashMap<String, Seen>,
    merged: u64,
}

#[derive(Debug, Default)]
struct Seen {
    passed: u32,
    held: Option<Event>,
    count: u64,
}

impl Merger {
    pub(super) fn new(now: Instant) -> Merger {
        Merger {
            began: now,
            sources: HashMap::new(),
            merged: 0,
        }
    }

    /// The event, if it is to be written now; else it is held and counted.
    pub(super) fn offer(&mut self, event: Event) -> Option<Event> {
        let Some(ip) = event.data.get("ip").and_then(Value::as_str) else {
            return Some(event);
        };
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(ip) {
            return Some(event);
        }
        let seen = self.sources.entry(ip.to_owned()).or_default();
        if seen.passed < A_SECOND {
            seen.passed += 1;
            return Some(event);
        }
        seen.count += 1;
        self.merged += u64::from(seen.held.is_some());
        seen.held.get_or_insert(event);
        None
    }

    /// What was held, if the second is over (or `at_once`).
    pub(super) fn due(&mut self, now: Instant, at_once: bool) -> Vec<Event> {
        if now.saturating_duration_since(self.began) < SECOND && !at_once {
            return Vec::new();
        }
        self.began = now;
        let mut due: Vec<Event> = self.sources.drain().filter_map(|(_, seen)| told(seen)).collect();
        due.sort_by(|a, b| a.id.cmp(&b.id));
        due
    }

    /// When [`due`](Merger::due) will have something.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.sources.is_empty()).then(|| self.began + SECOND)
    }

    /// Events that became part of another.
    pub(super) fn merged(&self) -> u64 {
        self.merged
    }
}

fn told(seen: Seen) -> Option<Event> {
    let mut event = seen.held?;
    event.data.insert("count".into(), seen.count.into());
    Some(event)
}

/// Events of one source that pass within a second.
const A_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
/// Sources that are told apart within a second; beyond, events pass unmerged, and the spool is bounded.
const MOST_SOURCES: usize = 10_000;

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};
    use time::macros::datetime;

    use super::*;
    use crate::webhook::wire::EventType;

    fn attempt(ip: &str, n: u32) -> Event {
        let data = Map::from_iter([("ip".to_owned(), json!(ip))]);
        Event::new(
            n.to_string(),
            EventType::ConnectionAttempt,
            datetime!(2026-03-01 12:00 UTC),
            data,
        )
    }

    #[test]
    fn ten_a_second_pass_and_the_rest_is_one() {
        let now = Instant::now();
        let mut merger = Merger::new(now);
        let passed = (0..100)
            .filter_map(|n| merger.offer(attempt("203.0.113.9", n)))
            .count();
        assert!(merger.offer(attempt("203.0.113.10", 0)).is_some());
        assert_eq!((passed, merger.merged()), (10, 89));
        assert!(merger.due(now + Duration::from_millis(999), false).is_empty());
        let due = merger.due(now + SECOND, false);
        assert_eq!(
            (due.len(), &due[0].data["count"], due[0].id.as_str()),
            (1, &json!(90), "10")
        );
        assert_eq!(merger.next(), None);
        assert!(merger.offer(attempt("203.0.113.9", 200)).is_some());
        assert!(merger.due(now + 3 * SECOND, false).is_empty());
    }

    #[test]
    fn many_sources_cost_bounded_memory() {
        let mut merger = Merger::new(Instant::now());
        for n in 0..20_000u32 {
            assert!(merger.offer(attempt(&n.to_string(), n)).is_some());
        }
        assert_eq!(merger.sources.len(), MOST_SOURCES);
    }
}
