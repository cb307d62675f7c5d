//! What an engine starts from: the saved state and the kernel's sets made one, before the first queue is bound.
//!
//! Of a ban that both know, the kernel has the time (its clock never steps and it ran on without us) and the
//! state has the rest. A ban that only the kernel knows is an operator's until the state says otherwise; one
//! that only the state knows is installed again, with what remained of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::analyst::is_leftover;
use super::clock;
use super::enforcer::MAX_PREFIX_SETS;
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
use crate::state::{self, Awake, Place};
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
    /// What makes the kernel's sets agree with it.
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
    /// Loads what is at `place`, and says what is not as it should be.
    pub fn load(place: &Place, most_sources: usize) -> Kept {
        let loaded = state::load(place, most_sources);
        loaded
            .notes
            .iter()
            .chain(&loaded.troubles)
            .for_each(|line| warn!("{line}"));
        let mut state = loaded.state;
        if let (Some(state), Some(report)) = (&mut state, &loaded.imported) {
            state.saved = clock::moment(); // ages and remainders are as of now
            let entries = report.entries.iter();
            entries.for_each(|entry| info!(line = entry.line, "{}: {}", entry.outcome.words(), entry.text));
        }
        let start = StateStart {
            imported: loaded.imported,
            troubles: loaded.troubles.clone(),
            notes: loaded.notes,
            ..StateStart::default()
        };
        Kept {
            generations: Generations {
                loaded: loaded.generation,
                next: loaded.next_generation,
            },
            state,
            troubles: loaded.troubles,
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
        for ban in ledger.switch(policy.enforce, policy, now) {
            joined.changes.push(change(&ban, now));
            if !ban.enforced {
                joined.end(ban, Ended::Manual);
            }
        }
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
            changes: joined.changes,
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
    changes: Vec<Change>,
    ended: Vec<(Ban, Ended)>,
    seen: HashSet<Prefix>,
}

impl Joined {
    fn of(saved: Vec<Ban>, live: &[LiveBan], forbidden: impl Fn(&Prefix) -> bool, now: Instant) -> Joined {
        let kernel: HashMap<Prefix, &LiveBan> = live.iter().map(|found| (found.target, found)).collect();
        let mut joined = Joined::default();
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
                joined.changes.push(Change::Remove { target: found.target });
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
                    self.changes.push(Change::Remove { target: ban.source });
                }
                if ban.enforced {
                    self.end(ban, Ended::Protected);
                }
            }
            (false, held) => {
                if ban.enforced && !held {
                    self.changes.push(change(&ban, now));
                }
                self.bans.push(ban);
            }
        }
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
    fn outcome(joined: &Joined, now: Instant) -> (Vec<String>, Vec<String>, Vec<String>) {
        let shown = |ban: &Ban| {
            format!(
                "{} {} {}",
                ban.source,
                ban.reason,
                ban.remaining(now).unwrap().as_secs()
            )
        };
        let of = |added: bool| -> Vec<String> {
            let changes = joined.changes.iter();
            let changes = changes.filter(|change| matches!(change, Change::Remove { .. }) != added);
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
        let joined = Joined::of(bans, &kernel, |_| false, now);
        let ended = joined.ended.iter().map(|(ban, why)| (ban.source, *why));
        assert!(
            ended.eq([(prefix("192.0.2.2"), Ended::Timeout)]),
            "{:?}",
            joined.ended
        );
        assert_eq!(
            outcome(&joined, now),
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
        let joined = Joined::of(
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
        assert_eq!(outcome(&joined, now), (vec![], vec![], freed));
    }

    #[test]
    fn a_would_be_ban_stays_one_unless_the_kernel_drops_the_source() {
        let now = Instant::now();
        let bans = vec![
            saved("192.0.2.1", 100, false, now),
            saved("192.0.2.2", 100, false, now),
        ];
        let joined = Joined::of(bans, &[live("192.0.2.1", 50)], |_| false, now);
        let expected = vec!["192.0.2.2 port_scanning 100".into(), "192.0.2.1 manual 50".into()];
        assert_eq!(outcome(&joined, now), (expected, vec![], vec![]));
        assert!(!joined.bans[0].enforced && joined.ended.is_empty());
    }
}
