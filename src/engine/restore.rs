//! What an engine starts from: the saved state and the kernel's sets made one, before the first queue is bound.
//!
//! Of a ban that both know, the kernel has the time (its clock never steps and it ran on without us) and the
//! state has the rest. A ban that only the kernel knows is an operator's until the state says otherwise; one
//! that only the state knows is installed again, with what remained of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::clock;
use super::enforcer::MAX_PREFIX_SETS;
use super::protect::Protection;
use crate::core::judge::Judge;
use crate::core::ledger::Standing;
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::shard::shard_of;
use crate::core::source::Touch;
use crate::core::verdict::{Ban, BanReason};
use crate::kernel::ruleset::Spec;
use crate::kernel::sets::{Change, LiveBan};
use crate::state::{self, Awake, Place};

/// What was saved, at rest.
#[derive(Default)]
pub struct Kept {
    state: Option<state::State>,
    /// What is wrong with it; `status` tells.
    pub troubles: Vec<String>,
}

/// What the engine starts from.
#[derive(Default)]
pub struct Restored {
    /// Live bans, would-be ones included.
    pub bans: Vec<Ban>,
    /// Ladder positions.
    pub standings: Vec<Standing>,
    /// What makes the kernel's sets agree with `bans`.
    pub changes: Vec<Change>,
    sources: Vec<(Prefix, Vec<Touch>)>,
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
        Kept {
            state: loaded.state,
            troubles: loaded.troubles,
        }
    }

    /// Seed of the source hash when it was saved.
    pub fn seed(&self) -> Option<u32> {
        self.state.as_ref()?.seed
    }

    /// Brings it to `now` and makes it one with what the kernel holds. Who is protected by now is freed.
    pub fn join(&mut self, live: &[LiveBan], protection: &Protection, now: Instant) -> Restored {
        let awake = self
            .state
            .take()
            .map_or_else(Awake::default, |state| state::wake(state, &clock::moment(), now));
        let restored = join(awake, live, |source| protection.forbids(source).is_some(), now);
        restored.tell(live.len());
        restored
    }
}

impl Restored {
    /// Gives `judges` what they would know if they had never stopped.
    pub fn teach(&mut self, judges: &mut [Judge], policy: &Policy, seed: u32) {
        let shards = u32::try_from(judges.len()).unwrap_or(u32::MAX);
        let shard = |source: Prefix| shard_of(policy.source_of(source.addr()), seed, shards) as usize;
        // Where offenders are banned, a would-be ban must not make them immune until it ends.
        let told = self.bans.iter().filter(|ban| ban.enforced || !policy.enforce);
        for ban in told {
            if ban.source.len() < policy.source_of(ban.source.addr()).len() {
                judges
                    .iter_mut()
                    .for_each(|judge| judge.ban(ban.source, ban.enforced));
            } else if let Some(judge) = judges.get_mut(shard(ban.source)) {
                judge.ban(ban.source, ban.enforced);
            }
        }
        for (source, touches) in std::mem::take(&mut self.sources) {
            if let Some(judge) = judges.get_mut(shard(source)) {
                judge.restore(source, &touches);
            }
        }
    }

    /// The table needs a set for each length of prefix that is banned.
    pub fn make_room(&self, spec: &mut Spec) {
        for ban in self.bans.iter().filter(|ban| ban.enforced) {
            if spec.prefix_sets.len() < MAX_PREFIX_SETS {
                spec.add_prefix_set(&ban.source);
            }
        }
    }

    fn tell(&self, live: usize) {
        if live > 0 {
            info!("{live} bans were in force already and stay so");
        }
        if !self.changes.is_empty() {
            info!(
                "{} bans of the saved state are put in force again or lifted",
                self.changes.len()
            );
        }
        if !self.standings.is_empty() || !self.sources.is_empty() {
            info!(
                "{} ladder positions and {} half-done scans are remembered",
                self.standings.len(),
                self.sources.len()
            );
        }
    }
}

fn join(awake: Awake, live: &[LiveBan], forbidden: impl Fn(&Prefix) -> bool, now: Instant) -> Restored {
    let mut kernel: HashMap<Prefix, LiveBan> = live.iter().map(|found| (found.target, *found)).collect();
    let mut restored = Restored {
        standings: awake.standings,
        sources: awake.sources,
        ..Restored::default()
    };
    let mut seen = HashSet::new();
    for mut ban in awake.bans {
        let held = if ban.enforced {
            kernel.remove(&ban.source)
        } else {
            None
        };
        match held {
            Some(found) => ban.until = found.remaining.and_then(|left| now.checked_add(left)),
            None if ban.until.is_some_and(|until| until <= now) => continue,
            None if !ban.enforced && kernel.contains_key(&ban.source) => continue,
            None => {}
        }
        if !seen.insert(ban.source) {
            continue; // twice in one state: the first counts
        }
        restored.admit(ban, held.is_some(), &forbidden, now);
    }
    let mut unknown: Vec<LiveBan> = kernel
        .into_values()
        .filter(|found| !seen.contains(&found.target))
        .collect();
    unknown.sort_unstable_by_key(|found| found.target);
    for found in unknown {
        restored.admit(adopted(found, now), true, &forbidden, now);
    }
    restored
}

impl Restored {
    fn admit(&mut self, ban: Ban, held: bool, forbidden: impl Fn(&Prefix) -> bool, now: Instant) {
        match (forbidden(&ban.source), held) {
            (true, true) => self.changes.push(Change::Remove { target: ban.source }),
            (true, false) => {}
            (false, held) => {
                if ban.enforced && !held {
                    self.changes.push(Change::Renew {
                        target: ban.source,
                        timeout: ban.remaining(now),
                    });
                }
                self.bans.push(ban);
            }
        }
    }
}

/// A ban that only the kernel knows of is an operator's until state says otherwise.
fn adopted(found: LiveBan, now: Instant) -> Ban {
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

/// The judges of all shards, knowing what is `restored`.
pub fn judges(
    restored: &mut Restored,
    policy: &Arc<Policy>,
    protection: &Protection,
    seed: u32,
    workers: usize,
) -> Vec<Judge> {
    let capacity = policy.max_sources.div_ceil(workers.max(1));
    let judge = || Judge::new(Arc::clone(policy), Arc::clone(&protection.guard), capacity);
    let mut judges: Vec<Judge> = (0..workers).map(|_| judge()).collect();
    restored.teach(&mut judges, policy, seed);
    judges
}
