//! An attack on a port from its beginning to its end.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use super::super::prefix::Prefix;
use super::distinct::Distinct;
use super::{Attempt, Counting};

/// An attack on one TCP port, as it is told when it begins and when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attack {
    /// The port.
    pub port: u16,
    /// Which attempts counted there when it began.
    pub counting: Counting,
    /// How many of them were tolerated within the window.
    pub threshold: u32,
    /// How many there were within the window when it began: that which crossed the line included.
    pub attempts: u32,
    /// Whose packet crossed the line.
    pub seen: IpAddr,
    /// What is judged for `seen`.
    pub source: Prefix,
    /// When the line was crossed.
    pub began: Instant,
    /// When an attempt last found the port above its limits.
    pub last: Instant,
    /// Attempts that counted since, that which crossed the line included.
    pub counted: u64,
    /// Offences among them.
    pub offences: u64,
    /// Different sources in the order in which they were noticed, of the attempts that led to it as far as they are
    /// remembered, and of those since; the first [`SOURCES_LISTED`].
    pub sources: Vec<Prefix>,
    /// How many different sources there were: exact up to the length of the list, then an estimate that is off by
    /// 6.5 % (standard error).
    pub distinct: u32,
}

/// An attack with what only its counting needs.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) attack: Attack,
    /// No other attack has the same.
    pub(super) number: u64,
    /// Made when the list is full.
    more: Option<Distinct>,
}

impl UnderWay {
    /// `sources` led to it, oldest first.
    pub(super) fn new(attack: Attack, number: u64) -> UnderWay {
        UnderWay {
            attack,
            number,
            more: None,
        }
    }

    /// Notes an attempt. Its source is listed if there is `room`; true if it took that.
    pub(super) fn note(&mut self, attempt: &Attempt, room: bool, hasher: &RandomState) -> bool {
        self.attack.counted = self.attack.counted.saturating_add(1);
        let attack = &mut self.attack;
        if attack.sources.contains(&attempt.source) {
            return false;
        }
        if room && attack.sources.len() < SOURCES_LISTED && self.more.is_none() {
            attack.sources.push(attempt.source);
            attack.distinct = attack.distinct.saturating_add(1);
            return true;
        }
        self.estimate(attempt.source, hasher);
        false
    }

    fn estimate(&mut self, source: Prefix, hasher: &RandomState) {
        let attack = &mut self.attack;
        let more = self.more.get_or_insert_with(|| {
            let mut listed = Distinct::new();
            for source in &attack.sources {
                listed.put(hasher.hash_one(source));
            }
            listed
        });
        if more.put(hasher.hash_one(source)) {
            let beyond = u32::try_from(attack.sources.len() + 1).unwrap_or(u32::MAX);
            attack.distinct = attack.distinct.max(beyond).max(more.estimate());
        }
    }
}

/// Sources that are listed of one attack.
pub const SOURCES_LISTED: usize = 100;
