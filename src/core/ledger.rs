//! The ledger: who is banned until when, who stands on which step of the ladder, and how many bans are too many.
//!
//! It has one owner (the analyst) and is the truth of which the kernel's sets are a copy. It knows no netlink
//! and no clock: deadlines are asked for and fired from outside.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::bounded::{BoundedMap, HIGHEST};
use super::policy::Policy;
use super::prefix::Prefix;
use super::prefix_map::PrefixMap;
use super::tiers::{Counts, Tiers};
use super::verdict::{Ban, BanReason, Offence};

/// Why an offence earns no ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// A ban that is already live covers the source: one scan is one offence.
    #[error("the source is already banned")]
    AlreadyBanned,
    /// Too many new bans within a minute, of all sources or of this neighbourhood, or too many live ones.
    #[error("too many new bans within a minute")]
    Storm,
}

/// Live bans and ladder positions.
#[derive(Debug)]
pub struct Ledger {
    bans: PrefixMap<Ban>,
    deadlines: BTreeSet<(Instant, Prefix)>,
    records: BoundedMap<Prefix, Record>,
    granted: Minute,
    active: usize,
    tiers: Tiers,
    total: u64,
}

/// How often a source offended. What was only observed never climbs the real ladder.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    real: Count,
    would_be: Count,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    offences: u32,
    last: Option<Instant>,
}

/// Where one source stands on the ladders, apart from any live ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub source: Prefix,
    /// Offences that were answered with a ban, forgiven ones included until they are forgotten.
    pub offences: u32,
    /// When the last of them was.
    pub last: Option<Instant>,
    /// Offences that were only observed; they never climb the real ladder.
    pub would_be: u32,
    /// When the last of those was.
    pub would_be_last: Option<Instant>,
}

impl Standing {
    /// When this source last offended, in either way.
    pub fn latest(&self) -> Option<Instant> {
        self.last.max(self.would_be_last)
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}

impl Ledger {
    /// An empty ledger that remembers [`REMEMBERED`] sources.
    pub fn new() -> Ledger {
        Ledger::with_capacity(REMEMBERED)
    }

    /// An empty ledger that remembers the offences of `capacity` sources, and holds as many earned bans.
    pub fn with_capacity(capacity: usize) -> Ledger {
        Ledger {
            bans: PrefixMap::default(),
            deadlines: BTreeSet::new(),
            records: BoundedMap::new(capacity),
            granted: Minute::default(),
            active: 0,
            tiers: Tiers::default(),
            total: 0,
        }
    }

    /// Grants the ban that an offence earns: the next step of the source's ladder, or the first one if the offence
    /// does not weigh enough to climb (its sender may be forged). `draw` is a random
    /// number, for the jitter.
    ///
    /// # Errors
    /// If the source is banned already, or too many were banned within the last minute.
    pub fn offence(
        &mut self,
        offence: &Offence,
        enforced: bool,
        policy: &Policy,
        draw: u32,
        now: Instant,
    ) -> Result<Ban, Refusal> {
        let source = offence.source;
        if self.stands_against(&source, enforced) {
            return Err(Refusal::AlreadyBanned);
        }
        if self.bans.len() >= self.records.capacity()
            || !self.granted.grant(source, policy.max_bans_per_minute, now)
        {
            return Err(Refusal::Storm);
        }
        let climbs = offence.weight.climbs();
        let offences = self.climb(source, enforced, climbs, policy.forgive_after, now);
        let (step, length) = policy.ladder.duration(if climbs { offences } else { 1 });
        let length = length + jitter(length, policy, draw);
        let cap = policy.unproven_cap.filter(|_| !offence.proven);
        let length = cap.map_or(length, |cap| length.min(cap));
        let ban = Ban {
            source,
            reason: offence.reason,
            step,
            offences,
            since: now,
            until: now.checked_add(length),
            enforced,
            note: None,
        };
        Ok(self.grant(ban))
    }

    /// The ban of a self-test's offence: as live as any, for `length`, and nothing else. It counts toward no limit,
    /// climbs no ladder and is in no total.
    ///
    /// # Errors
    /// If the source is banned already.
    pub fn trial(
        &mut self,
        offence: &Offence,
        enforced: bool,
        length: Duration,
        now: Instant,
    ) -> Result<Ban, Refusal> {
        if self.stands_against(&offence.source, enforced) {
            return Err(Refusal::AlreadyBanned);
        }
        let ban = Ban {
            source: offence.source,
            reason: offence.reason,
            step: 1,
            offences: 1,
            since: now,
            until: now.checked_add(length),
            enforced,
            note: Some("self-test".into()),
        };
        self.put(ban.clone());
        Ok(ban)
    }

    /// An operator's ban: enforced in every mode, exempt from every limit, and no offence. It replaces a live
    /// ban of the same target. Without a length it takes the first step of the ladder; a length past the end
    /// of the clock is a ban without end.
    pub fn manual(
        &mut self,
        target: Prefix,
        length: Option<Duration>,
        note: Option<Box<str>>,
        policy: &Policy,
        now: Instant,
    ) -> Ban {
        let (first, default) = policy.ladder.duration(1);
        let step = if length.is_some() { 0 } else { first };
        self.grant(Ban {
            source: target,
            reason: BanReason::Manual,
            step,
            offences: self.offences_of(&target),
            since: now,
            until: now.checked_add(length.unwrap_or(default)),
            enforced: true,
            note,
        })
    }

    /// Takes over a ban that is live already, with the ladder position it tells; it counts toward no limit.
    pub fn adopt(&mut self, ban: Ban) {
        if ban.reason != BanReason::Manual && ban.offences > 0 {
            let mut record = self.records.get(&ban.source).copied().unwrap_or_default();
            let count = record.count(ban.enforced);
            *count = Count {
                offences: count.offences.max(ban.offences),
                last: count.last.max(Some(ban.since)),
            };
            self.records.insert(ban.source, record, HIGHEST, ban.since);
        }
        self.put(ban);
    }

    /// Takes back what a ledger held before: ladder positions, then live bans. Nothing of it counts toward a
    /// limit, and no ban climbs: what it earned is in its source's standing.
    ///
    /// `standings` come oldest first, or the table forgets the wrong ones.
    pub fn restore(&mut self, standings: &[Standing], bans: Vec<Ban>) {
        for standing in standings {
            let record = Record {
                real: Count {
                    offences: standing.offences,
                    last: standing.last,
                },
                would_be: Count {
                    offences: standing.would_be,
                    last: standing.would_be_last,
                },
            };
            if let Some(latest) = standing.latest() {
                self.records
                    .insert(standing.source, record, record.worth(), latest);
            }
        }
        bans.into_iter().for_each(|ban| self.put(ban));
    }

    /// Takes over a ban that was earned under another system. It counts toward no limit and climbs no ladder; one of the
    /// same target is replaced.
    pub fn take_over(&mut self, ban: Ban) {
        self.put(ban);
    }

    /// Raises a source to the `offences` that another system counted, the last of them at `last`; `false`: it stands
    /// as high already.
    pub fn raise(&mut self, source: Prefix, offences: u32, last: Instant, now: Instant) -> bool {
        let mut record = self.records.get(&source).copied().unwrap_or_default();
        if record.real.offences >= offences {
            return false;
        }
        record.real = Count {
            offences,
            last: record.real.last.max(Some(last)),
        };
        let rank = match self.bans.get(&source) {
            Some(_) => HIGHEST,
            None => record.worth(),
        };
        self.records.insert(source, record, rank, now);
        true
    }

    /// Forgets every ladder position. Live bans stay.
    pub fn forget_standings(&mut self) {
        self.records = BoundedMap::new(self.records.capacity());
    }

    /// How many ladder positions are remembered.
    pub fn standing_count(&self) -> usize {
        self.records.len()
    }

    /// Whether there is room for one more ban.
    pub fn has_room(&self) -> bool {
        self.bans.len() < self.records.capacity()
    }

    /// Who is banned, in no order: what [`Ledger::get`] can be asked for a few at a time.
    pub fn targets(&self) -> Vec<Prefix> {
        self.bans.iter().map(|(target, _)| *target).collect()
    }

    /// Where `source` stands on the ladders; none: it never offended, or that is forgotten.
    pub fn standing(&self, source: &Prefix) -> Option<Standing> {
        self.records.get(source).map(|record| record.standing(*source))
    }

    /// Ladder positions, `limit` table slots at a time: from `cursor` on (0 at first), and where to go on, if
    /// there is more.
    pub fn standings(&self, cursor: usize, limit: usize) -> (Vec<Standing>, Option<usize>) {
        let end = cursor.saturating_add(limit.max(1)).min(self.records.slots());
        let slots = (cursor..end).filter_map(|at| self.records.slot(at));
        let standings = slots
            .map(|(source, record, _)| record.standing(*source))
            .collect();
        (standings, (end < self.records.slots()).then_some(end))
    }

    /// Enforcement was switched on or off: every earned ban goes along with its time left, operators' bans stay
    /// enforced. Returns those that changed.
    ///
    /// A ban that was only ever observed becomes the source's first offence, and lasts no longer than that earns. One
    /// that did not climb the ladder of would-be bans (its sender may be forged) does not climb the real one either.
    pub fn switch(&mut self, enforced: bool, policy: &Policy, now: Instant) -> Vec<Ban> {
        let earned = |ban: &&Ban| ban.reason != BanReason::Manual && ban.enforced != enforced;
        let mut changed: Vec<Ban> = self.bans().filter(earned).cloned().collect();
        for ban in &mut changed {
            ban.enforced = enforced;
            if enforced && self.offences_of(&ban.source) == 0 {
                let (step, longest) = policy.ladder.duration(1);
                ban.step = step;
                let weighed = self
                    .records
                    .get(&ban.source)
                    .is_some_and(|record| record.would_be.offences > 0);
                ban.offences = self.climb(ban.source, true, weighed, policy.forgive_after, now);
                ban.until = ban
                    .until
                    .min(now.checked_add(longest))
                    .or(now.checked_add(longest));
            }
            self.put(ban.clone());
        }
        changed
    }

    /// Ends the ban of exactly this target.
    pub fn lift(&mut self, target: &Prefix) -> Option<Ban> {
        let ban = self.bans.remove(target)?;
        self.active -= usize::from(ban.enforced);
        self.tiers.leave(&ban);
        if let Some(until) = ban.until {
            self.deadlines.remove(&(until, *target));
        }
        if let Some(place) = self.records.find(target) {
            let worth = self.records.at(place).map_or(0, Record::worth);
            self.records.rerank(place, worth);
        }
        Some(ban)
    }

    /// Ends every ban that hits an address of `target` (which became protected): those inside it, and those
    /// that hold it.
    pub fn lift_covered(&mut self, target: &Prefix) -> Vec<Ban> {
        let mut hit: Vec<Prefix> = self
            .bans
            .iter()
            .map(|(source, _)| *source)
            .filter(|source| source.overlaps(target))
            .collect();
        hit.sort_unstable();
        hit.iter().filter_map(|source| self.lift(source)).collect()
    }

    /// The ban of exactly this target.
    pub fn get(&self, target: &Prefix) -> Option<&Ban> {
        self.bans.get(target)
    }

    /// The narrowest ban that holds `addr`; an enforced one if there is one.
    pub fn covering(&self, addr: IpAddr) -> Option<&Ban> {
        let bans = || self.bans.covering(addr).map(|(_, ban)| ban);
        bans().find(|ban| ban.enforced).or_else(|| bans().next())
    }

    /// When the next ban ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Takes out the bans that ended, first ended first.
    pub fn expire(&mut self, now: Instant) -> Vec<Ban> {
        let mut ended = Vec::new();
        while let Some((until, source)) = self.deadlines.first().copied()
            && until <= now
        {
            ended.extend(self.lift(&source));
            self.deadlines.remove(&(until, source));
        }
        ended
    }

    /// All bans, ordered by prefix.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        let mut bans: Vec<&Ban> = self.bans.iter().map(|(_, ban)| ban).collect();
        bans.sort_unstable_by_key(|ban| ban.source);
        bans.into_iter()
    }

    /// How many enforced bans are live.
    pub fn active(&self) -> usize {
        self.active
    }

    /// The enforced ones by family and step of the ladder.
    pub fn tiers(&self) -> Counts {
        self.tiers.counts()
    }

    /// How many would-be bans are live: recorded, not enforced.
    pub fn observed(&self) -> usize {
        self.bans.len() - self.active
    }

    /// How many enforced bans were ever granted here, adopted ones not among them.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many real offences of `source` are remembered.
    pub fn offences_of(&self, source: &Prefix) -> u32 {
        self.records.get(source).map_or(0, |record| record.real.offences)
    }

    /// Whether a live ban makes a new one pointless. A would-be ban does not stand against a real one.
    fn stands_against(&self, source: &Prefix, enforced: bool) -> bool {
        let covering = self
            .bans
            .covering(source.addr())
            .filter(|(held, _)| held.covers(source));
        covering.into_iter().any(|(_, ban)| ban.enforced || !enforced)
    }

    /// The number of this offence; it is noted only if it `counts`.
    fn climb(
        &mut self,
        source: Prefix,
        enforced: bool,
        counts: bool,
        forgive_after: Duration,
        now: Instant,
    ) -> u32 {
        self.records.expire(|_| forgive_after, now, 2);
        let mut record = self.records.get(&source).copied().unwrap_or_default();
        let count = record.count(enforced);
        let offences = count.unforgiven(forgive_after, now).saturating_add(1);
        if counts {
            *count = Count {
                offences,
                last: Some(now),
            };
            self.records.insert(source, record, HIGHEST, now);
        }
        offences
    }

    fn grant(&mut self, ban: Ban) -> Ban {
        self.total += u64::from(ban.enforced);
        self.put(ban.clone());
        ban
    }

    fn put(&mut self, ban: Ban) {
        self.lift(&ban.source);
        if let Some(place) = self.records.find(&ban.source) {
            self.records.rerank(place, HIGHEST);
        }
        self.active += usize::from(ban.enforced);
        self.tiers.enter(&ban);
        self.deadlines.extend(ban.until.map(|until| (until, ban.source)));
        self.bans.insert(ban.source, ban);
    }
}

impl Record {
    /// What it is worth remembering while no ban is live: the more offences, the more.
    fn worth(&self) -> u8 {
        u8::try_from(self.real.offences)
            .unwrap_or(HIGHEST)
            .min(HIGHEST - 1)
    }

    fn standing(&self, source: Prefix) -> Standing {
        Standing {
            source,
            offences: self.real.offences,
            last: self.real.last,
            would_be: self.would_be.offences,
            would_be_last: self.would_be.last,
        }
    }

    fn count(&mut self, enforced: bool) -> &mut Count {
        if enforced {
            &mut self.real
        } else {
            &mut self.would_be
        }
    }
}

impl Count {
    fn unforgiven(&self, forgive_after: Duration, now: Instant) -> u32 {
        let forgiven = |last: Instant| now.saturating_duration_since(last) >= forgive_after;
        if self.last.is_some_and(forgiven) {
            0
        } else {
            self.offences
        }
    }
}

/// The bans of the last minute: of all, and of each neighbourhood, so that the owner of many addresses cannot
/// use up what all together may.
#[derive(Debug, Default)]
struct Minute {
    /// When and where, oldest first: at most as many as are allowed.
    granted: VecDeque<(Instant, Prefix)>,
    near: HashMap<Prefix, u32>,
}

impl Minute {
    /// Whether one more is allowed, which is then noted.
    fn grant(&mut self, source: Prefix, allowed: u32, now: Instant) -> bool {
        while let Some((at, near)) = self.granted.front().copied()
            && now.saturating_duration_since(at) >= MINUTE
        {
            self.granted.pop_front();
            self.forget(near);
        }
        let near = neighbourhood(source);
        let of_near = self.near.get(&near).copied().unwrap_or(0);
        if self.granted.len() >= usize::try_from(allowed).unwrap_or(usize::MAX) || of_near >= NEAR_PER_MINUTE
        {
            return false;
        }
        self.granted.push_back((now, near));
        self.near.insert(near, of_near + 1);
        true
    }

    fn forget(&mut self, near: Prefix) {
        match self.near.get_mut(&near) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.near.remove(&near)),
        }
    }
}

/// How much longer a ban of `length` gets: nothing if short, else up to [`JITTER_PERCENT`], by `draw`.
fn jitter(length: Duration, policy: &Policy, draw: u32) -> Duration {
    if !policy.jitter || length < JITTER_FROM {
        return Duration::ZERO;
    }
    (length / 100 * JITTER_PERCENT).mul_f64(f64::from(draw) / f64::from(u32::MAX))
}

/// The /24 or /48 around a source, or the source if it is wider.
fn neighbourhood(source: Prefix) -> Prefix {
    let length = if source.is_ipv4() { 24 } else { 48 };
    Prefix::new(source.addr(), length.min(source.len())).unwrap_or(source)
}

/// How many sources' offences are remembered; about 100 MB when full.
pub const REMEMBERED: usize = 1_000_000;
/// How many new bans a minute one /24 or /48 can earn.
pub const NEAR_PER_MINUTE: u32 = 10;
/// Enough to spread the ends of a storm's bans, too little for anyone to notice.
const JITTER_PERCENT: u32 = 3;
const JITTER_FROM: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::attack::Distributed;
    use super::super::ladder::Ladder;
    use super::super::policy::{Mode, OtherProtocols};
    use super::super::ports::PortSet;
    use super::super::prefix::PrefixSet;
    use super::super::scan::ScanKind;
    use super::super::verdict::Weight;
    use super::*;

    const DAY: u64 = 86_400;

    /// A ledger and the time, which moves by hand.
    struct Bench {
        ledger: Ledger,
        policy: Policy,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                ledger: Ledger::with_capacity(1000),
                policy: standard(),
                now: Instant::now(),
            }
        }

        fn wait(&mut self, seconds: u64) -> Vec<Ban> {
            self.now += Duration::from_secs(seconds);
            self.ledger.expire(self.now)
        }

        fn offend(&mut self, source: &str) -> Result<Ban, Refusal> {
            self.ledger
                .offence(&offence(source, false), true, &self.policy, 0, self.now)
        }

        fn observe(&mut self, source: &str) -> Result<Ban, Refusal> {
            self.ledger
                .offence(&offence(source, false), false, &self.policy, 0, self.now)
        }

        /// Step and seconds of the ban that an offence earns.
        fn earned(&mut self, source: &str) -> (u32, u64) {
            let ban = self.offend(source).unwrap();
            (ban.step, ban.remaining(self.now).unwrap().as_secs())
        }
    }

    #[test]
    fn a_trial_is_banned_like_anybody_and_remembered_nowhere() {
        let mut bench = Bench::new();
        let length = Duration::from_millis(1500);
        let trial = |bench: &mut Bench, enforced| {
            let offence = offence("203.0.113.1", false);
            bench.ledger.trial(&offence, enforced, length, bench.now)
        };
        let ban = trial(&mut bench, true).unwrap();
        assert_eq!((ban.step, ban.remaining(bench.now)), (1, Some(length)));
        assert_eq!(bench.ledger.active(), 1);
        assert_eq!(trial(&mut bench, true), Err(Refusal::AlreadyBanned));
        bench.ledger.lift(&ban.source).unwrap();
        assert_eq!(
            (bench.ledger.total(), bench.ledger.offences_of(&ban.source)),
            (0, 0)
        );
        assert_eq!(bench.ledger.standings(0, 1000).0, []);
        assert!(!trial(&mut bench, false).unwrap().enforced);
        assert_eq!(bench.wait(2).len(), 1, "it ends by itself");
        assert_eq!(bench.earned("203.0.113.1"), (1, 600), "nothing was remembered");
        for _ in 0..2 * NEAR_PER_MINUTE {
            bench.ledger.lift(&ban.source);
            trial(&mut bench, true).unwrap();
        }
    }

    #[test]
    fn what_another_system_counted_raises_and_never_lowers() {
        let mut bench = Bench::new();
        let source = "203.0.113.1".parse().unwrap();
        assert!(bench.ledger.raise(source, 2, bench.now, bench.now));
        assert!(!bench.ledger.raise(source, 2, bench.now, bench.now));
        assert!(!bench.ledger.raise(source, 1, bench.now, bench.now));
        let ban = bench.offend("203.0.113.1").unwrap();
        assert_eq!((ban.step, ban.offences), (3, 3), "the third offence");
        assert!(bench.ledger.raise(source, 9, bench.now, bench.now));
        bench.ledger.take_over(Ban {
            until: Some(bench.now + Duration::from_secs(30 * DAY)),
            ..ban
        });
        assert_eq!((bench.ledger.active(), bench.ledger.total()), (1, 1));
        bench.ledger.forget_standings();
        assert_eq!((bench.ledger.standing_count(), bench.ledger.active()), (0, 1));
        bench.ledger.lift(&source).unwrap();
        assert_eq!(bench.earned("203.0.113.1"), (1, 600));
    }

    #[test]
    fn switching_enforcement_takes_earned_bans_along_and_leaves_operators_bans() {
        let mut bench = Bench::new();
        let real = bench.offend("203.0.113.1").unwrap();
        let target = "203.0.113.2".parse().unwrap();
        bench.ledger.manual(target, None, None, &bench.policy, bench.now);

        let off = bench.ledger.switch(false, &bench.policy, bench.now);
        assert_eq!(
            off.iter().map(|ban| ban.source).collect::<Vec<_>>(),
            [real.source]
        );
        assert_eq!(bench.ledger.active(), 1, "the operator's ban stays");

        bench.wait(60);
        let on = bench.ledger.switch(true, &bench.policy, bench.now);
        assert_eq!(on, [real], "the same ban, to the same end");
    }

    #[test]
    fn an_observed_ban_that_becomes_real_is_a_first_offence() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.observe("203.0.113.1").unwrap();
            bench.wait(DAY * 8);
        }
        let observed = bench.observe("203.0.113.1").unwrap();
        assert_eq!(observed.step, 4);
        let on = bench.ledger.switch(true, &bench.policy, bench.now);
        assert_eq!((on[0].step, on[0].offences), (1, 1));
        assert_eq!(
            on[0].remaining(bench.now),
            Some(bench.policy.ladder.duration(1).1)
        );
    }

    #[test]
    fn an_observed_ban_that_may_be_forged_does_not_climb_when_it_becomes_real() {
        let mut bench = Bench::new();
        let observed = offence("192.0.2.7", true);
        bench
            .ledger
            .offence(&observed, false, &bench.policy, 0, bench.now)
            .unwrap();
        let on = bench.ledger.switch(true, &bench.policy, bench.now);
        assert_eq!((on[0].step, on[0].offences, on[0].enforced), (1, 1, true));
        bench.wait(600);
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
    }

    #[test]
    fn who_never_completed_a_handshake_is_banned_no_longer_than_the_cap_and_climbs_all_the_same() {
        let mut bench = Bench::new();
        bench.policy.unproven_cap = Some(Duration::from_secs(3600));
        for (step, seconds) in [(1, 600), (2, 3600), (3, 3600), (4, 3600)] {
            assert_eq!(bench.earned("192.0.2.7"), (step, seconds));
            bench.wait(3600);
        }
        let proven = Offence {
            proven: true,
            ..offence("192.0.2.7", false)
        };
        let known = bench.ledger.offence(&proven, true, &bench.policy, 0, bench.now);
        assert_eq!(
            known.unwrap().remaining(bench.now),
            Some(Duration::from_secs(7 * DAY))
        );
        bench.policy.unproven_cap = None;
        assert_eq!(bench.earned("192.0.2.8"), (1, 600), "off");
    }

    #[test]
    fn what_may_be_forged_never_gets_past_the_first_step_whatever_came_before() {
        for weight in [Weight::UdpOnly, Weight::PossiblyForged, Weight::OneOfMany] {
            let mut bench = Bench::new();
            assert_eq!(bench.earned("192.0.2.7"), (1, 600));
            bench.wait(600);
            let light = Offence {
                weight,
                ..offence("192.0.2.7", false)
            };
            for _ in 0..32 {
                let ban = bench.ledger.offence(&light, true, &bench.policy, 0, bench.now);
                assert_eq!(ban.unwrap().step, 1, "{weight:?}");
                bench.wait(3000);
            }
            assert_eq!(
                bench.earned("192.0.2.7"),
                (2, 7200),
                "what weighs goes on where it was"
            );
        }
    }

    #[test]
    fn after_a_storm_each_minute_has_its_own_bans() {
        let mut bench = Bench::new();
        bench.policy.max_bans_per_minute = 5;
        let banned: Vec<usize> = (0..5)
            .map(|minute| {
                let of_minute = (0..60u8).filter(|second| {
                    let ok = bench.offend(&format!("10.{minute}.{second}.1")).is_ok();
                    bench.wait(1);
                    ok
                });
                of_minute.count()
            })
            .collect();
        assert_eq!(banned, [5; 5]);
    }

    fn offence(source: &str, udp_only: bool) -> Offence {
        let source = prefix(source);
        Offence {
            seen: source.addr(),
            source,
            reason: BanReason::PortScanning,
            kind: ScanKind::Syn,
            ports: Box::default(),
            threshold: 7,
            weight: if udp_only { Weight::UdpOnly } else { Weight::Full },
            proven: false,
            at: Instant::now(),
        }
    }

    fn standard() -> Policy {
        let steps = [600, 7200, DAY, 7 * DAY].map(Duration::from_secs);
        Policy {
            mode: Mode::DetectionOnly,
            preset: "standard".into(),
            enforce: true,
            ports_threshold: 7,
            udp_ports_threshold: 28,
            stealth_threshold: 3,
            count_completed: false,
            window: Duration::from_secs(7200),
            ladder: Ladder::new(steps.to_vec()).unwrap(),
            forgive_after: Duration::from_secs(30 * DAY),
            jitter: true,
            unproven_cap: None,
            distributed: Distributed::default(),
            max_bans_per_minute: 600,
            tcp_allowed: PortSet::default(),
            udp_allowed: PortSet::default(),
            other_protocols: OtherProtocols::Pass,
            trusted: PrefixSet::default(),
            v6_prefix: 64,
            max_sources: 1000,
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn sources(bans: &[Ban]) -> Vec<String> {
        bans.iter().map(|ban| ban.source.to_string()).collect()
    }

    #[test]
    fn each_offence_takes_the_next_step_and_the_last_repeats() {
        let mut bench = Bench::new();
        for expected in [(1, 600), (2, 7200), (3, DAY), (4, 7 * DAY), (4, 7 * DAY)] {
            assert_eq!(bench.earned("192.0.2.7"), expected);
            assert_eq!(sources(&bench.wait(expected.1)), ["192.0.2.7"]);
        }
        assert_eq!(
            (
                bench.ledger.offences_of(&prefix("192.0.2.7")),
                bench.ledger.total()
            ),
            (5, 5)
        );
        assert_eq!((bench.ledger.active(), bench.ledger.next_deadline()), (0, None));
    }

    #[test]
    fn jitter_only_lengthens_by_three_percent_at_most_and_only_from_an_hour_on() {
        let policy = standard();
        let longer = |seconds, draw| jitter(Duration::from_secs(seconds), &policy, draw);
        assert_eq!(longer(3_599, u32::MAX), Duration::ZERO);
        assert_eq!(longer(3_600, u32::MAX), Duration::from_secs(108));
        assert_eq!(longer(7 * DAY, 0), Duration::ZERO);
        let half = longer(DAY, u32::MAX / 2);
        assert!((1_295..=1_296).contains(&half.as_secs()), "{half:?}");
        let longest = super::super::ladder::LONGEST.as_secs();
        assert_eq!(longer(longest, u32::MAX).as_secs(), longest * 3 / 100);
        let steady = Policy {
            jitter: false,
            ..standard()
        };
        assert_eq!(
            jitter(Duration::from_secs(DAY), &steady, u32::MAX),
            Duration::ZERO
        );
    }

    #[test]
    fn an_earned_ban_of_two_hours_is_drawn_longer_and_an_operators_is_not() {
        let mut bench = Bench::new();
        bench.offend("192.0.2.7").unwrap();
        bench.wait(600);
        let ban = bench
            .ledger
            .offence(
                &offence("192.0.2.7", false),
                true,
                &bench.policy,
                u32::MAX,
                bench.now,
            )
            .unwrap();
        assert_eq!(
            (ban.step, ban.remaining(bench.now).unwrap().as_secs()),
            (2, 7_416)
        );
        let two_hours = Some(Duration::from_secs(7_200));
        let target = prefix("192.0.2.8");
        let manual = bench
            .ledger
            .manual(target, two_hours, None, &bench.policy, bench.now);
        assert_eq!(manual.remaining(bench.now), two_hours);
    }

    #[test]
    fn while_a_ban_lives_nothing_climbs() {
        let mut bench = Bench::new();
        bench.offend("192.0.2.7").unwrap();
        assert_eq!(bench.offend("192.0.2.7"), Err(Refusal::AlreadyBanned));
        bench
            .ledger
            .manual(prefix("198.51.100.0/24"), None, None, &bench.policy, bench.now);
        assert_eq!(bench.offend("198.51.100.9"), Err(Refusal::AlreadyBanned));
        assert_eq!(bench.observe("198.51.100.9"), Err(Refusal::AlreadyBanned));
        assert_eq!(bench.ledger.offences_of(&prefix("192.0.2.7")), 1);
    }

    #[test]
    fn a_ban_ends_at_its_deadline_and_not_before() {
        let mut bench = Bench::new();
        let until = bench.offend("192.0.2.7").unwrap().until;
        assert_eq!(bench.ledger.next_deadline(), until);
        assert!(bench.wait(599).is_empty() && bench.ledger.get(&prefix("192.0.2.7")).is_some());
        assert_eq!(sources(&bench.wait(1)), ["192.0.2.7"]);
        assert!(bench.ledger.get(&prefix("192.0.2.7")).is_none());
    }

    #[test]
    fn offences_are_forgiven_after_a_while_without_one() {
        let mut bench = Bench::new();
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
        bench.wait(30 * DAY - 1);
        assert_eq!(bench.earned("192.0.2.7"), (2, 7200));
        bench.wait(30 * DAY);
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
    }

    #[test]
    fn udp_alone_never_climbs() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            let ban = bench
                .ledger
                .offence(&offence("192.0.2.7", true), true, &bench.policy, 0, bench.now)
                .unwrap();
            assert_eq!((ban.step, ban.offences), (1, 1));
            bench.wait(600);
        }
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
    }

    #[test]
    fn what_was_only_observed_never_climbs_the_real_ladder() {
        let mut bench = Bench::new();
        for step in [1, 2, 3] {
            let ban = bench.observe("192.0.2.7").unwrap();
            assert_eq!((ban.step, ban.enforced), (step, false));
            bench.wait(DAY);
        }
        assert_eq!((bench.ledger.active(), bench.ledger.total()), (0, 0));
        assert_eq!(bench.ledger.observed(), 0);
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
    }

    #[test]
    fn a_real_ban_replaces_one_that_was_only_observed() {
        let mut bench = Bench::new();
        bench.observe("192.0.2.7").unwrap();
        bench.observe("192.0.2.8").unwrap();
        assert_eq!((bench.ledger.active(), bench.ledger.observed()), (0, 2));
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
        assert_eq!((bench.ledger.active(), bench.ledger.observed()), (1, 1));
        assert_eq!(bench.ledger.bans().count(), 2);
    }

    #[test]
    fn an_operator_extends_shortens_and_needs_no_ladder() {
        let mut bench = Bench::new();
        bench.offend("192.0.2.7").unwrap();
        let target = prefix("192.0.2.7");
        let hour = Some(Duration::from_secs(3600));
        let ban = bench
            .ledger
            .manual(target, hour, Some("abuse desk".into()), &bench.policy, bench.now);
        assert_eq!(
            (ban.reason, ban.step, ban.note.as_deref()),
            (BanReason::Manual, 0, Some("abuse desk"))
        );
        assert!(bench.wait(600).is_empty());
        bench.ledger.manual(
            target,
            Some(Duration::from_secs(5)),
            None,
            &bench.policy,
            bench.now,
        );
        assert_eq!((bench.ledger.active(), bench.ledger.total()), (1, 3));
        assert_eq!(sources(&bench.wait(5)), ["192.0.2.7"]);
        assert_eq!(bench.earned("192.0.2.7"), (2, 7200));
        let default = bench
            .ledger
            .manual(prefix("198.51.100.1"), None, None, &bench.policy, bench.now);
        assert_eq!(
            (default.step, default.remaining(bench.now)),
            (1, Some(Duration::from_secs(600)))
        );
        let endless = bench
            .ledger
            .manual(target, Some(Duration::MAX), None, &bench.policy, bench.now);
        assert_eq!(endless.until, None);
    }

    #[test]
    fn a_storm_stops_the_adding_until_the_minute_is_over() {
        let mut bench = Bench::new();
        bench.policy.max_bans_per_minute = 3;
        for source in ["192.0.2.1", "198.51.100.1", "203.0.113.1"] {
            bench.offend(source).unwrap();
        }
        assert_eq!(bench.offend("10.0.0.1"), Err(Refusal::Storm));
        bench
            .ledger
            .manual(prefix("10.9.9.9"), None, None, &bench.policy, bench.now);
        bench.wait(59);
        assert_eq!(bench.offend("10.0.0.1"), Err(Refusal::Storm));
        bench.wait(1);
        assert_eq!(bench.earned("10.0.0.1"), (1, 600));
    }

    #[test]
    fn one_neighbourhood_cannot_use_up_the_minute() {
        let mut bench = Bench::new();
        for host in 0..10 {
            bench.offend(&format!("192.0.2.{host}")).unwrap();
            bench.offend(&format!("2001:db8:0:{host}::/64")).unwrap();
        }
        assert_eq!(bench.offend("192.0.2.10"), Err(Refusal::Storm));
        assert_eq!(bench.offend("2001:db8:0:10::/64"), Err(Refusal::Storm));
        assert!(bench.offend("192.0.3.10").is_ok() && bench.offend("2001:db8:1:10::/64").is_ok());
        bench.wait(60);
        assert!(bench.offend("192.0.2.10").is_ok());
    }

    #[test]
    fn live_bans_are_bounded_and_records_give_way_to_theirs() {
        let mut bench = Bench::new();
        bench.ledger = Ledger::with_capacity(4);
        for net in 0..4 {
            bench.offend(&format!("10.0.{net}.1")).unwrap();
        }
        assert_eq!(bench.offend("10.0.9.1"), Err(Refusal::Storm));
        bench.ledger.lift(&prefix("10.0.2.1")).unwrap();
        assert!(bench.offend("10.0.9.1").is_ok());
        let remembered = ["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1", "10.0.9.1"]
            .map(|source| bench.ledger.offences_of(&prefix(source)));
        assert_eq!(remembered, [1, 1, 0, 1, 1]);
    }

    #[test]
    fn who_becomes_protected_is_freed_of_wider_bans_too() {
        let mut bench = Bench::new();
        for source in ["192.0.2.7", "192.0.2.8", "192.0.3.1", "2001:db8::/64"] {
            bench.offend(source).unwrap();
        }
        bench
            .ledger
            .manual(prefix("192.0.0.0/16"), None, None, &bench.policy, bench.now);
        let lifted = bench.ledger.lift_covered(&prefix("192.0.2.0/24"));
        assert_eq!(sources(&lifted), ["192.0.0.0/16", "192.0.2.7", "192.0.2.8"]);
        assert_eq!(
            sources(&bench.ledger.lift_covered(&prefix("2001:db8::1"))),
            ["2001:db8::/64"]
        );
        assert_eq!(bench.ledger.active(), 1);
    }

    #[test]
    fn an_address_finds_the_enforced_ban_that_holds_it() {
        let mut bench = Bench::new();
        bench.observe("192.0.2.7").unwrap();
        let addr = "192.0.2.7".parse().unwrap();
        assert!(!bench.ledger.covering(addr).unwrap().enforced);
        bench
            .ledger
            .manual(prefix("192.0.2.0/24"), None, None, &bench.policy, bench.now);
        assert_eq!(
            bench.ledger.covering(addr).unwrap().source,
            prefix("192.0.2.0/24")
        );
        let listed: Vec<_> = bench.ledger.bans().cloned().collect();
        assert_eq!(sources(&listed), ["192.0.2.0/24", "192.0.2.7"]);
    }

    #[test]
    fn an_adopted_ban_keeps_its_place_on_the_ladder() {
        let mut bench = Bench::new();
        let mut ban = bench.offend("192.0.2.7").unwrap();
        (ban.step, ban.offences) = (3, 3);
        bench.ledger = Ledger::new();
        bench.ledger.adopt(ban);
        assert_eq!((bench.ledger.active(), bench.ledger.total()), (1, 0));
        assert_eq!(sources(&bench.wait(600)), ["192.0.2.7"]);
        assert_eq!(bench.earned("192.0.2.7"), (4, 7 * DAY));
    }

    /// Everything a ledger tells, moved to a new one.
    fn moved(ledger: &Ledger) -> Ledger {
        let (mut standings, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let (some, next) = ledger.standings(at, 1);
            standings.extend(some);
            cursor = next;
        }
        standings.sort_by_key(Standing::latest);
        let bans = ledger
            .targets()
            .iter()
            .filter_map(|target| ledger.get(target).cloned())
            .collect();
        let mut next = Ledger::with_capacity(1000);
        next.restore(&standings, bans);
        next
    }

    #[test]
    fn what_is_told_and_taken_back_goes_on_where_it_was() {
        let mut bench = Bench::new();
        bench.offend("192.0.2.7").unwrap();
        bench.wait(600);
        bench.offend("192.0.2.7").unwrap();
        bench.observe("198.51.100.1").unwrap();
        bench.offend("203.0.113.1").unwrap();
        bench.wait(600);
        bench.ledger.manual(
            prefix("10.0.0.0/8"),
            Some(Duration::MAX),
            Some("note".into()),
            &bench.policy,
            bench.now,
        );
        let before: Vec<Ban> = bench.ledger.bans().cloned().collect();
        bench.ledger = moved(&bench.ledger);

        let after: Vec<Ban> = bench.ledger.bans().cloned().collect();
        assert_eq!((after, bench.ledger.total()), (before, 0));
        assert_eq!(bench.ledger.active(), 2);
        assert_eq!(sources(&bench.wait(6600)), ["192.0.2.7"]);
        assert_eq!(bench.earned("192.0.2.7"), (3, DAY));
        assert_eq!(bench.earned("203.0.113.1"), (2, 7200));
        let observed = bench.observe("198.51.100.1").unwrap();
        assert_eq!((observed.step, bench.earned("198.51.100.1")), (2, (1, 600)));
    }

    #[test]
    fn a_udp_ban_that_comes_back_climbs_no_more_than_before() {
        let mut bench = Bench::new();
        let udp = offence("192.0.2.7", true);
        bench
            .ledger
            .offence(&udp, true, &bench.policy, 0, bench.now)
            .unwrap();
        bench.ledger = moved(&bench.ledger);
        bench.wait(600);
        assert_eq!(bench.earned("192.0.2.7"), (1, 600));
    }
}
