//! Counting attempts per port over all sources, and the attacks that come of it.
//!
//! Each counted attempt costs the same whatever came before. Memory is bounded by there being 65,536 ports, each
//! with about 400 bytes once anything counted on it, so that a scan over all ports pushes out nothing; by
//! [`LISTED`] sources in lists; and by the table of failing sources.

use std::collections::{BTreeMap, VecDeque};
use std::hash::RandomState;
use std::time::{Duration, Instant};

use super::super::policy::Policy;
use super::super::prefix::Prefix;
use super::super::scan::ScanKind;
use super::super::verdict::{BanReason, Offence, Proto, Weight};
use super::baseline::{self, AN_HOUR, Baseline, Calendar, Usual, is_unusual};
use super::failing::Failing;
use super::sliding::Sliding;
use super::under_way::{Attack, SOURCES_LISTED, UnderWay};
use super::{Attempt, Counting};

/// What counted on each port, what is usual there, and the attacks under way.
///
/// A port comes under attack when more counted within the window than its threshold tolerates, *and* more within the
/// last hour than `baseline_factor` times its own hourly mean of up to seven days, the hour under way excluded.
///
/// What counts also teaches what is usual, under attack too: a busy server that starts with an empty baseline would
/// else be under attack for ever. It is until its first hour is over, and then has learned. The price: an attack that
/// goes on for days becomes usual.
///
/// Attacks are not saved: after a restart the port has to cross its line again.
#[derive(Debug)]
pub struct Attacks {
    /// From the first count on.
    calendar: Option<Calendar>,
    ports: BTreeMap<u16, Port>,
    under_way: BTreeMap<u16, UnderWay>,
    failing: Failing,
    /// The newest attempts of all ports: whom an attack that begins lists.
    newest: VecDeque<Noticed>,
    /// How many sources all attacks under way list.
    listed: usize,
    begun: u64,
    /// The quietest attack was above its limits then, or later.
    quietest: Option<Instant>,
    /// When it was last looked for.
    looked: Option<Instant>,
    hasher: RandomState,
}

/// What came of counting one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The attack that began with it.
    pub began: Option<Attack>,
    /// What its source has to answer for.
    pub offence: Option<Offence>,
}

/// What counted on one port.
#[derive(Clone, Debug)]
struct Port {
    window: Sliding,
    hour: Sliding,
    usual: Usual,
}

#[derive(Clone, Copy, Debug)]
struct Noticed {
    port: u16,
    source: Prefix,
    at: Duration,
}

/// How a port stands against its limits, an attempt just counted.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Attempts within the window.
    attempts: u64,
    /// Whether that, and the last hour, is too much.
    above: bool,
    /// Whether it also is if only what came within `attack_quiet` is held against what is usual.
    still: bool,
}

impl Default for Attacks {
    fn default() -> Attacks {
        Attacks::new()
    }
}

impl Attacks {
    /// Nothing counted, nothing known.
    pub fn new() -> Attacks {
        Attacks {
            calendar: None,
            ports: BTreeMap::new(),
            under_way: BTreeMap::new(),
            failing: Failing::new(),
            newest: VecDeque::new(),
            listed: 0,
            begun: 0,
            quietest: None,
            looked: None,
            hasher: RandomState::new(),
        }
    }

    /// Counts an attempt that the counting of its port wants ([`Distributed::wants`](super::Distributed::wants)):
    /// with `incomplete`, once conntrack said so. One flow must not be handed over twice.
    ///
    /// Under attack each attempt is an offence with `new_sources` and `all`, that which crosses the line included:
    /// one more than tolerated. With `incomplete` a client whose answer got lost fails once: an offence is the second
    /// failure that is counted after the attack began, and a source that ever completed a handshake is neither
    /// counted nor accused.
    pub fn count(&mut self, attempt: &Attempt, policy: &Policy, now: Instant) -> Outcome {
        let counting = policy.distributed.counting_of(attempt.port);
        if counting == Counting::Incomplete && attempt.proven {
            return Outcome::default(); // it completed one since it was asked for
        }
        let at = self.advance(now);
        let standing = self.add(attempt, policy, at);
        let under_attack = self.under_way.contains_key(&attempt.port);
        let begins = standing.above && !under_attack;
        if begins {
            self.begin(attempt, policy, &standing, at, now);
        }
        let offence = self.accuse(attempt, policy, &standing, under_attack, now);
        let one = self.under_way.get(&attempt.port).filter(|_| begins);
        Outcome {
            began: one.map(|one| one.attack.clone()),
            offence,
        }
    }

    /// The attacks that are over, by port: nothing came for `attack_quiet` that found the port above its limits.
    ///
    /// What led to an attack is consumed with it: the next one needs as many attempts as the first. The failures of
    /// its sources are forgotten.
    pub fn expire(&mut self, policy: &Policy, now: Instant) -> Vec<Attack> {
        if self.next_deadline(policy).is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let quiet = policy.distributed.attack_quiet;
        let over: Vec<u16> = self
            .under_way
            .values()
            .filter(|one| now.saturating_duration_since(one.attack.last) >= quiet)
            .map(|one| one.attack.port)
            .collect();
        let ended = over.into_iter().filter_map(|port| self.end(port)).collect();
        self.looked = Some(now);
        self.quietest = self.under_way.values().map(|one| one.attack.last).min();
        if self.under_way.is_empty() {
            self.failing = Failing::new(); // gives its memory back
        }
        ended
    }

    /// When [`Attacks::expire`] has to be asked next: at most once a second, however many ports are under attack.
    pub fn next_deadline(&self, policy: &Policy) -> Option<Instant> {
        let quiet = self.quietest?.checked_add(policy.distributed.attack_quiet)?;
        let spared = self.looked.and_then(|looked| looked.checked_add(BETWEEN_LOOKS));
        Some(spared.map_or(quiet, |spared| quiet.max(spared)))
    }

    /// The attacks under way, by port.
    pub fn under_way(&self) -> impl Iterator<Item = &Attack> {
        self.under_way.values().map(|one| &one.attack)
    }

    /// On how many ports anything counted in the last seven days.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// How many sources are remembered as failing on a port under attack.
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Forgets how often `source` failed: its ban was lifted, and it starts anew.
    pub fn forget(&mut self, source: Prefix) {
        for one in self.under_way.values() {
            self.failing.forget(one.number, source);
        }
    }

    /// What is usual on each port, to be saved.
    pub fn baseline(&mut self, now: Instant) -> Baseline {
        let Some(calendar) = &mut self.calendar else {
            return Baseline::default();
        };
        calendar.advance(now);
        let ports = self.ports.iter_mut();
        baseline::export(calendar, ports.map(|(port, held)| (*port, &mut held.usual)))
    }

    /// Takes over what was saved `away` before `now`. What counted until now is forgotten: to be called at the start.
    pub fn restore(&mut self, saved: &Baseline, away: Duration, now: Instant) {
        let (calendar, ports) = baseline::restore(saved, away, now);
        let ports = ports.into_iter();
        *self = Attacks {
            calendar: Some(calendar),
            ports: ports.map(|(port, usual)| (port, Port::new(usual))).collect(),
            ..Attacks::new()
        };
    }

    fn advance(&mut self, now: Instant) -> Duration {
        let calendar = self.calendar.get_or_insert_with(|| Calendar::new(now));
        let day = calendar.hour() / 24;
        let at = calendar.advance(now);
        let hour = calendar.hour();
        if hour / 24 != day {
            self.ports.retain(|_, port| !port.usual.is_empty(hour));
        }
        at
    }

    fn add(&mut self, attempt: &Attempt, policy: &Policy, at: Duration) -> Standing {
        let (hour, observed) = self
            .calendar
            .as_ref()
            .map_or((0, 0), |calendar| (calendar.hour(), calendar.observed()));
        if self.newest.len() >= NOTICED {
            self.newest.pop_front();
        }
        self.newest.push_back(Noticed {
            port: attempt.port,
            source: attempt.source,
            at,
        });
        let port = self
            .ports
            .entry(attempt.port)
            .or_insert_with(|| Port::new(Usual::new(hour)));
        port.add(policy, hour, at);
        port.stands(attempt.port, policy, hour, at, observed)
    }

    fn begin(&mut self, attempt: &Attempt, policy: &Policy, standing: &Standing, at: Duration, now: Instant) {
        let sources = self.led_to(attempt, policy.window, at);
        let attack = Attack {
            port: attempt.port,
            counting: policy.distributed.counting_of(attempt.port),
            threshold: policy.distributed.thresholds.of(attempt.port),
            attempts: u32::try_from(standing.attempts).unwrap_or(u32::MAX),
            seen: attempt.seen,
            source: attempt.source,
            began: now,
            last: now,
            counted: 0,
            offences: 0,
            distinct: u32::try_from(sources.len()).unwrap_or(u32::MAX),
            sources,
        };
        self.begun += 1;
        self.listed += attack.sources.len();
        self.quietest = Some(self.quietest.map_or(now, |quietest| quietest.min(now)));
        self.under_way
            .insert(attempt.port, UnderWay::new(attack, self.begun));
    }

    /// The newest different sources on the port within the window, oldest first; the attempt's own is the last.
    fn led_to(&self, attempt: &Attempt, window: Duration, at: Duration) -> Vec<Prefix> {
        let room = SOURCES_LISTED.min(LISTED.saturating_sub(self.listed)).max(1);
        let mut sources = Vec::new();
        let within = self
            .newest
            .iter()
            .rev()
            .take_while(|one| at.saturating_sub(one.at) < window || one.at == at);
        for one in within.filter(|one| one.port == attempt.port) {
            if sources.len() >= room {
                break;
            }
            if !sources.contains(&one.source) {
                sources.push(one.source);
            }
        }
        sources.reverse();
        sources
    }

    /// Notes the attempt in the attack on its port, if there is one.
    fn accuse(
        &mut self,
        attempt: &Attempt,
        policy: &Policy,
        standing: &Standing,
        under_attack: bool,
        now: Instant,
    ) -> Option<Offence> {
        let one = self.under_way.get_mut(&attempt.port)?;
        let took = one.note(attempt, self.listed < LISTED, &self.hasher);
        self.listed += usize::from(took);
        if standing.still {
            one.attack.last = one.attack.last.max(now);
        }
        let tolerated = match policy.distributed.counting_of(attempt.port) {
            Counting::Incomplete if !under_attack => return None,
            Counting::Incomplete => FAILURES_TOLERATED,
            Counting::NewSources | Counting::All => 0,
        };
        let offends = self.failing.fails(one.number, attempt.source, tolerated, now);
        offends.then(|| {
            one.attack.offences += 1;
            offence(attempt, policy, now)
        })
    }

    fn end(&mut self, port: u16) -> Option<Attack> {
        let attack = self.under_way.remove(&port)?.attack;
        self.listed -= attack.sources.len().min(self.listed);
        if let Some(port) = self.ports.get_mut(&port) {
            port.window.clear();
            port.hour.clear();
        }
        Some(attack)
    }
}

impl Port {
    fn new(usual: Usual) -> Port {
        Port {
            window: Sliding::default(),
            hour: Sliding::default(),
            usual,
        }
    }

    fn add(&mut self, policy: &Policy, hour: u64, at: Duration) {
        self.window.add(policy.window, at);
        self.hour.add(AN_HOUR, at);
        self.usual.add(hour);
    }

    fn stands(&mut self, port: u16, policy: &Policy, hour: u64, at: Duration, observed: u64) -> Standing {
        let (attempts, total) = (self.window.count(policy.window, at), self.usual.total(hour));
        let crossed = attempts > u64::from(policy.distributed.thresholds.of(port));
        let unusual = |count, span| {
            let factor = policy.distributed.baseline_factor;
            is_unusual(count, span, total, observed, factor)
        };
        let above = crossed && unusual(self.hour.count(AN_HOUR, at), AN_HOUR);
        let quiet = policy.distributed.attack_quiet.min(AN_HOUR);
        Standing {
            attempts,
            above,
            still: above && unusual(self.hour.newest(quiet), quiet),
        }
    }
}

fn offence(attempt: &Attempt, policy: &Policy, now: Instant) -> Offence {
    Offence {
        seen: attempt.seen,
        source: attempt.source,
        reason: BanReason::DistributedAttack,
        kind: ScanKind::Syn,
        ports: Box::new([(Proto::Tcp, attempt.port)]),
        threshold: policy.distributed.thresholds.of(attempt.port),
        weight: Weight::OneOfMany,
        proven: attempt.proven,
        at: now,
    }
}

/// Failures of one source on a port under attack that are no offence.
const FAILURES_TOLERATED: u32 = 1;
/// Attempts of which is remembered whose they were, over all ports.
const NOTICED: usize = 4096;
/// Sources that all attacks under way list together (beside the one that began each); the rest is estimated.
const LISTED: usize = 65_536;
/// With every port under attack a look costs a millisecond.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
