//! What an engine starts from: the saved state and the kernel's sets made one, before the first queue is bound.
//!
//! Of a ban that both know, the kernel has the time (its clock never steps and it ran on without us) and the
//! state has the rest. A ban that only the kernel knows is an operator's until the state says otherwise; one
//! that only the state knows is installed again, with what remained of it, the newest first: what a source did last
//! it does soonest again.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::analyst::is_leftover;
use super::clock;
use super::enforcer::MAX_PREFIX_SETS;
use super::open::draw_seed;
use super::protect::Protection;
use super::{imports, state_facts};
use crate::control::wire::StateStart;
use crate::core::attack::Attacks;
use crate::core::judge::{Judge, Memory};
use crate::core::ledger::Ledger;
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::shard::shard_of;
use crate::core::verdict::{Ban, BanReason};
use crate::kernel::ruleset::Spec;
use crate::kernel::sets::{Change, LiveBan};
use crate::state::{self, Awake, Place, Snapshot};
use crate::webhook::event::Ended;

/// What was saved, at rest.
#[derive(Default)]
pub struct Kept {
    state: Option<state::State>,
    /// What is wrong with it; `status` tells.
    pub troubles: Vec<String>,
    /// Of snapshot and journals.
    pub generations: Generations,
    /// What loading it told; `state show` tells that.
    start: StateStart,
}

/// Numbers of snapshots, and of the journals that go on from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Generations {
    /// Of the snapshot that was loaded, if there was one.
    pub loaded: Option<u64>,
    /// Of the next journal.
    pub next: u64,
}

/// What the engine starts from.
#[derive(Default)]
pub struct Restored {
    /// Live bans, would-be ones included, and ladder positions.
    pub ledger: Ledger,
    /// What makes the kernel's sets agree with it: who is free first, then bans, the newest first.
    pub changes: Vec<Change>,
    /// Bans that were in force when it was saved and are not any more, and why.
    pub ended: Vec<(Ban, Ended)>,
    /// Nothing counted yet, and what is usual.
    pub attacks: Attacks,
    /// All of that in numbers.
    pub start: StateStart,
    sources: Vec<Memory>,
}

impl Kept {
    /// Loads what is at `place`, for a look: nothing is renamed, nothing is written, and an engine that starts later
    /// finds it all as it was.
    pub fn peek(place: &Place, most_sources: usize) -> Kept {
        let loaded = state::peek(place, most_sources);
        loaded.troubles.iter().for_each(|line| warn!("{line}"));
        Kept {
            state: loaded.state,
            troubles: loaded.troubles,
            ..Kept::default()
        }
    }

    /// Loads what is at `place`, and says what is not as it should be.
    pub fn load(place: &Place, most_sources: usize) -> Kept {
        let loaded = state::load(place, most_sources);
        loaded
            .notes
            .iter()
            .chain(&loaded.troubles)
            .for_each(|line| warn!("{line}"));
        let mut state = loaded.state;
        let mut troubles = loaded.troubles;
        if let (Some(state), Some(report)) = (&mut state, &loaded.imported) {
            state.saved = clock::moment(); // ages and remainders are as of now
            let entries = report.entries.iter();
            entries.for_each(|entry| info!(line = entry.line, "{}: {}", entry.outcome.words(), entry.text));
            // Before anything is added to it: by now the Python system's file has another name.
            if let Err(error) = settle_down(state, place) {
                troubles.push(format!("what was imported is not saved yet: {error}"));
            }
        }
        let start = StateStart {
            imported: loaded.imported,
            troubles: troubles.clone(),
            notes: loaded.notes,
            ..StateStart::default()
        };
        Kept {
            generations: Generations {
                loaded: loaded.generation,
                next: loaded.next_generation,
            },
            state,
            troubles,
            start,
        }
    }

    /// Seed of the source hash when it was saved.
    pub fn seed(&self) -> Option<u32> {
        self.state.as_ref()?.seed
    }

    /// Brings it to `now` and makes it one with what the kernel holds. Who is protected by now is freed; bans
    /// follow a switch of enforcement, as they do at a reload.
    pub fn join(
        &mut self,
        live: &[LiveBan],
        policy: &Policy,
        protection: &Protection,
        now: Instant,
    ) -> Restored {
        let mut awake = self
            .state
            .take()
            .map_or_else(Awake::default, |state| state::wake(state, &clock::moment(), now));
        let mut start = std::mem::take(&mut self.start);
        if start.imported.is_some() {
            start.protected = imports::settle(&mut awake, policy, protection);
            let spared = start.protected.iter();
            spared.for_each(|spared| warn!("{}: its ban is not imported: {}", spared.source, spared.reason));
        }
        let told = (awake.standings.len(), awake.sources.len());
        let mut joined = Joined::of(
            awake.bans,
            live,
            |source| protection.forbids(source).is_some(),
            now,
        );
        let mut ledger = Ledger::new();
        ledger.restore(&awake.standings, std::mem::take(&mut joined.bans));
        let mut switched = ledger.switch(policy.enforce, policy, now);
        switched.sort_by_key(|ban| Reverse(ban.since));
        let mut changes = joined.changes();
        changes.extend(switched.iter().map(|ban| change(ban, now))); // the last word on their targets
        let freed = switched.into_iter().filter(|ban| !ban.enforced);
        freed.for_each(|ban| joined.end(ban, Ended::Manual));
        if !live.is_empty() {
            info!("{} bans were in force already", live.len());
        }
        if told != (0, 0) || ledger.active() > 0 {
            info!(
                "{} bans, {} ladder positions and {} half-done scans are remembered",
                ledger.active(),
                told.0,
                told.1
            );
        }
        let mut attacks = Attacks::new();
        attacks.restore(&awake.usual, awake.away, now);
        let mut restored = Restored {
            ledger,
            attacks,
            changes,
            ended: joined.ended,
            sources: awake.sources,
            start: StateStart::default(),
        };
        start.protected.extend(state_facts::spared(&restored, protection));
        state_facts::restored(&mut start, &restored, told.0, told.1, &awake.usual);
        restored.start = start;
        restored
    }
}

/// Saves what was imported as the first snapshot, which no journal goes before.
fn settle_down(state: &mut state::State, place: &Place) -> io::Result<()> {
    let (seed, now) = (draw_seed()?, Instant::now());
    state.seed = Some(seed);
    let saved = state.saved.clone();
    let awake = state::wake(state.clone(), &saved, now);
    let mut snapshot = Snapshot::begin(place, &saved, now, seed, 0).map_err(io::Error::other)?;
    let written = awake
        .sources
        .iter()
        .try_for_each(|memory| snapshot.source(memory))
        .and_then(|()| {
            let mut standings = awake.standings.iter();
            standings.try_for_each(|standing| snapshot.standing(standing))
        })
        .and_then(|()| awake.bans.iter().try_for_each(|ban| snapshot.ban(ban)))
        .and_then(|()| snapshot.commit());
    written.map(drop).map_err(io::Error::other)
}

impl Restored {
    /// The judges of all shards, knowing what they would know if they had never stopped.
    pub fn judges(
        mut self,
        policy: &Arc<Policy>,
        protection: &Protection,
        seed: u32,
        workers: usize,
    ) -> (Restored, Vec<Judge>) {
        let capacity = policy.max_sources.div_ceil(workers.max(1));
        let now = Instant::now();
        let judge = || Judge::new(Arc::clone(policy), Arc::clone(&protection.guard), capacity, now);
        let mut judges: Vec<Judge> = (0..workers).map(|_| judge()).collect();
        let shards = u32::try_from(workers).unwrap_or(u32::MAX);
        let shard = |source: Prefix| shard_of(policy.source_of(source.addr()), seed, shards) as usize;
        for ban in self.ledger.bans() {
            if ban.source.len() < policy.source_of(ban.source.addr()).len() {
                judges
                    .iter_mut()
                    .for_each(|judge| judge.ban(ban.source, ban.enforced));
            } else if let Some(judge) = judges.get_mut(shard(ban.source)) {
                judge.ban(ban.source, ban.enforced);
            }
        }
        for memory in std::mem::take(&mut self.sources) {
            if let Some(judge) = judges.get_mut(shard(memory.source)) {
                judge.restore(&memory);
            }
        }
        (self, judges)
    }

    /// The table needs a set for each length of prefix that is banned.
    pub fn make_room(&self, spec: &mut Spec) {
        for ban in self.ledger.bans().filter(|ban| ban.enforced) {
            if spec.prefix_sets.len() < MAX_PREFIX_SETS {
                spec.add_prefix_set(&ban.source);
            }
        }
    }
}

/// The bans of state and kernel as one list, and what the kernel lacks of it or has too much.
#[derive(Default)]
struct Joined {
    bans: Vec<Ban>,
    free: Vec<Prefix>,
    /// What the kernel lacks, with the beginning of the ban.
    missing: Vec<(Instant, Change)>,
    ended: Vec<(Ban, Ended)>,
    seen: HashSet<Prefix>,
}

impl Joined {
    fn of(saved: Vec<Ban>, live: &[LiveBan], forbidden: impl Fn(&Prefix) -> bool, now: Instant) -> Joined {
        let kernel: HashMap<Prefix, &LiveBan> = live.iter().map(|found| (found.target, found)).collect();
        let most = saved.len() + live.len();
        let mut joined = Joined {
            bans: Vec::with_capacity(most),
            seen: HashSet::with_capacity(most),
            ..Joined::default()
        };
        for mut ban in saved {
            let held = kernel.get(&ban.source);
            match held {
                // Would-be when it was saved: what drops the source since then is another ban.
                Some(_) if !ban.enforced => continue,
                Some(found) => ban.until = found.remaining.and_then(|left| now.checked_add(left)),
                None if ban.until.is_some_and(|until| until <= now) => {
                    if ban.enforced {
                        joined.end(ban, Ended::Timeout);
                    }
                    continue;
                }
                None => {}
            }
            joined.admit(ban, held.is_some(), &forbidden, now);
        }
        for found in live {
            if is_leftover(found) && joined.seen.insert(found.target) {
                joined.free.push(found.target);
            }
            joined.admit(adopted(found, now), true, &forbidden, now);
        }
        joined
    }

    /// The first word on each target counts.
    fn admit(&mut self, ban: Ban, held: bool, forbidden: impl Fn(&Prefix) -> bool, now: Instant) {
        if !self.seen.insert(ban.source) {
            return;
        }
        match (forbidden(&ban.source), held) {
            (true, held) => {
                if held {
                    self.free.push(ban.source);
                }
                if ban.enforced {
                    self.end(ban, Ended::Protected);
                }
            }
            (false, held) => {
                if ban.enforced && !held {
                    let (target, timeout) = (ban.source, ban.remaining(now));
                    self.missing.push((ban.since, Change::Add { target, timeout }));
                }
                self.bans.push(ban);
            }
        }
    }

    /// Takes out what the kernel is to be told.
    fn changes(&mut self) -> Vec<Change> {
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_by_key(|(since, _)| Reverse(*since));
        let free = std::mem::take(&mut self.free).into_iter();
        let free = free.map(|target| Change::Remove { target });
        free.chain(missing.into_iter().map(|(_, add)| add)).collect()
    }

    /// It was in force, whatever it is now.
    fn end(&mut self, ban: Ban, why: Ended) {
        self.ended.push((
            Ban {
                enforced: true,
                ..ban
            },
            why,
        ));
    }
}

/// What makes the kernel agree with `ban`.
fn change(ban: &Ban, now: Instant) -> Change {
    match ban.enforced {
        true => Change::Renew {
            target: ban.source,
            timeout: ban.remaining(now),
        },
        false => Change::Remove { target: ban.source },
    }
}

/// A ban that only the kernel knows of is an operator's until state says otherwise.
fn adopted(found: &LiveBan, now: Instant) -> Ban {
    Ban {
        source: found.target,
        reason: BanReason::Manual,
        step: 0,
        offences: 0,
        since: found.timeout.zip(found.remaining).map_or(now, |(length, left)| {
            now.checked_sub(length.saturating_sub(left)).unwrap_or(now)
        }),
        until: found.remaining.and_then(|left| now.checked_add(left)),
        enforced: true,
        note: Some("found in the kernel's set at start".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::Moment;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn saved(source: &str, left: u64, enforced: bool, now: Instant) -> Ban {
        Ban {
            source: prefix(source),
            reason: BanReason::PortScanning,
            step: 2,
            offences: 2,
            since: now,
            until: Some(now + Duration::from_secs(left)),
            enforced,
            note: None,
        }
    }

    fn live(source: &str, left: u64) -> LiveBan {
        LiveBan {
            target: prefix(source),
            remaining: Some(Duration::from_secs(left)),
            timeout: Some(Duration::from_secs(600)),
        }
    }

    /// Source, reason, seconds left of every ban; targets that the kernel is told to ban, and to free.
    fn outcome(joined: &mut Joined, now: Instant) -> (Vec<String>, Vec<String>, Vec<String>) {
        let changes = joined.changes();
        let shown = |ban: &Ban| {
            format!(
                "{} {} {}",
                ban.source,
                ban.reason,
                ban.remaining(now).unwrap().as_secs()
            )
        };
        let of = |added: bool| -> Vec<String> {
            let changes = changes
                .iter()
                .filter(|change| matches!(change, Change::Remove { .. }) != added);
            changes.map(|change| change.target().to_string()).collect()
        };
        (joined.bans.iter().map(shown).collect(), of(true), of(false))
    }

    #[test]
    fn the_kernel_has_the_time_and_the_state_the_reason() {
        let now = Instant::now();
        let bans = vec![
            saved("192.0.2.1", 100, true, now),
            saved("192.0.2.2", 0, true, now),
            saved("192.0.2.3", 300, true, now),
            saved("192.0.2.4", 0, true, now),
            saved("192.0.2.1", 999, true, now),
        ];
        let kernel = [live("192.0.2.1", 50), live("192.0.2.4", 7), live("192.0.2.5", 60)];
        let mut joined = Joined::of(bans, &kernel, |_| false, now);
        let ended = joined.ended.iter().map(|(ban, why)| (ban.source, *why));
        assert!(
            ended.eq([(prefix("192.0.2.2"), Ended::Timeout)]),
            "{:?}",
            joined.ended
        );
        assert_eq!(
            outcome(&mut joined, now),
            (
                vec![
                    "192.0.2.1 port_scanning 50".into(),
                    "192.0.2.3 port_scanning 300".into(),
                    "192.0.2.4 port_scanning 7".into(),
                    "192.0.2.5 manual 60".into(),
                ],
                vec!["192.0.2.3".into()],
                vec![],
            )
        );
    }

    #[test]
    fn the_protected_are_freed_and_not_banned_again() {
        let now = Instant::now();
        let bans = vec![
            saved("192.0.2.1", 100, true, now),
            saved("192.0.2.2", 100, true, now),
        ];
        let mut joined = Joined::of(
            bans,
            &[live("192.0.2.1", 50), live("192.0.2.3", 50)],
            |_| true,
            now,
        );
        let ended = joined
            .ended
            .iter()
            .map(|(ban, why)| (ban.source.to_string(), *why));
        let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert!(
            ended.eq(all.map(|source| (source.into(), Ended::Protected))),
            "{:?}",
            joined.ended
        );
        let freed = vec!["192.0.2.1".into(), "192.0.2.3".into()];
        assert_eq!(outcome(&mut joined, now), (vec![], vec![], freed));
    }

    #[test]
    fn a_would_be_ban_stays_one_unless_the_kernel_drops_the_source() {
        let now = Instant::now();
        let bans = vec![
            saved("192.0.2.1", 100, false, now),
            saved("192.0.2.2", 100, false, now),
        ];
        let mut joined = Joined::of(bans, &[live("192.0.2.1", 50)], |_| false, now);
        let expected = vec!["192.0.2.2 port_scanning 100".into(), "192.0.2.1 manual 50".into()];
        assert_eq!(outcome(&mut joined, now), (expected, vec![], vec![]));
        assert!(!joined.bans[0].enforced && joined.ended.is_empty());
    }

    #[test]
    fn the_newest_bans_are_installed_first_and_who_is_free_before_them() {
        let now = Instant::now();
        let since = |source: &str, age: u64| Ban {
            since: now - Duration::from_secs(age),
            ..saved(source, 600, true, now)
        };
        let bans = vec![
            since("192.0.2.1", 500),
            since("192.0.2.2", 5),
            since("192.0.2.3", 0),
            since("192.0.2.4", 50),
        ];
        let kernel = [live("192.0.2.5", 9)];
        let protected = prefix("192.0.2.5");
        let mut joined = Joined::of(bans, &kernel, |source| *source == protected, now);
        let order: Vec<String> = joined
            .changes()
            .iter()
            .map(|change| change.target().to_string())
            .collect();
        let expected = ["192.0.2.5", "192.0.2.3", "192.0.2.2", "192.0.2.4", "192.0.2.1"];
        assert_eq!(order, expected);
    }

    /// `passed` of a running clock, in a file that says `now`; and back.
    fn restarted(bans: &[Ban], at: &Moment, next: &Moment, now: Instant, passed: Duration) -> Vec<Ban> {
        let mut encoder = state::Encoder::new(Vec::new(), at, now, 1).unwrap();
        bans.iter().for_each(|ban| encoder.ban(ban).unwrap());
        let bytes = encoder.finish().unwrap().0;
        let state = state::decode(std::io::Cursor::new(bytes), 1).unwrap();
        state::wake(state, next, now + passed).bans
    }

    /// A moment of one boot; the clock on the wall is stepped by years at every other one.
    fn moment(up: u64, step: i64) -> Moment {
        Moment {
            wall: time::OffsetDateTime::UNIX_EPOCH + time::Duration::weeks(52 * (50 + step)),
            boot: Some(state::Boot {
                id: "a".into(),
                up: Duration::from_secs(up),
            }),
        }
    }

    #[test]
    fn fault_40_a_hundred_restarts_neither_lengthen_nor_shorten_a_ban() {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(600);
        for kept in [false, true] {
            let mut bans = vec![saved("192.0.2.1", 600, true, begun)];
            for restart in 0..100_u64 {
                let (up, step) = (restart * 3, restart as i64 % 5 - 2);
                let now = begun + Duration::from_secs(up);
                let (at, next) = (moment(up, step), moment(up + 3, -step));
                bans = restarted(&bans, &at, &next, now, Duration::from_secs(3));
                let now = now + Duration::from_secs(3);
                // The kernel's clock runs on, in milliseconds.
                let kernel = [LiveBan {
                    target: prefix("192.0.2.1"),
                    remaining: Some(until - now),
                    timeout: Some(Duration::from_secs(600)),
                }];
                let kernel = if kept { &kernel[..] } else { &[] };
                let mut joined = Joined::of(bans, kernel, |_| false, now);
                let changes = joined.changes();
                assert_eq!(changes.len(), usize::from(!kept), "{changes:?}");
                bans = joined.bans;
            }
            let off = bans[0].until.unwrap().max(until) - bans[0].until.unwrap().min(until);
            assert!(off < Duration::from_secs(2), "{off:?} off");
            let now = begun + Duration::from_secs(300);
            let bans = restarted(
                &bans,
                &moment(300, 0),
                &moment(601, 0),
                now,
                Duration::from_secs(301),
            );
            let joined = Joined::of(bans, &[], |_| false, now + Duration::from_secs(301));
            assert!(joined.bans.is_empty() && joined.ended[0].1 == Ended::Timeout);
        }
    }

    #[test]
    fn a_ban_without_end_stays_one_and_none_is_longer_than_a_ladder_can_be() {
        let now = Instant::now();
        let day = Duration::from_secs(86_400);
        let ban = |source, until| Ban {
            until,
            ..saved(source, 0, true, now)
        };
        let bans = [
            ban("192.0.2.1", None),
            ban("192.0.2.2", Some(now + 365 * day)),
            ban("192.0.2.3", Some(now + 36_500 * day)),
            ban("192.0.2.4", Some(now)),
        ];
        let later = Duration::from_secs(10);
        let bans = restarted(&bans, &moment(0, 0), &moment(10, 0), now, later);
        let now = now + later;
        let ever = LiveBan {
            target: prefix("192.0.2.1"),
            remaining: None,
            timeout: None,
        };
        for kernel in [&[][..], &[ever]] {
            let joined = Joined::of(bans.clone(), kernel, |_| false, now);
            let left: Vec<_> = joined.bans.iter().map(|ban| ban.remaining(now)).collect();
            assert_eq!(left, [None, Some(365 * day - later), Some(376 * day - later)]);
            assert_eq!(joined.ended.len(), 1, "{:?}", joined.ended);
        }
    }
}
