//! Keeps the kernel's table what it should be: somebody's changes are put right as soon as they are heard of, and what
//! nobody told of is found by a look now and then.
//!
//! The ledger is the truth, the kernel's sets a copy, and the mirror is what that copy should be. One change of
//! somebody else's is obeyed: an operator's `nft delete element` of a ban. A set that was emptied, deleted or flushed
//! with its table is no such word; it is filled again.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::mirror::{Drift, Lasting};
use super::{Enforcer, HOTTEST, Report, family_and_length};
use crate::core::prefix::Prefix;
use crate::kernel::ruleset::{self, Culprit, Family, Ruleset, RulesetError};
use crate::kernel::sets::{Change, SetError};

/// Damage that was found, and what was done about it.
#[derive(Debug)]
pub struct Repair {
    /// What was found, in words.
    pub found: String,
    /// Which process did it, if the kernel told.
    pub by: Option<String>,
    /// Bans that were put back.
    pub bans: usize,
    /// How long something was not in force; none: it still is not.
    pub gap: Option<Duration>,
}

impl Enforcer {
    /// Whatever is not as it should be is put right: rules, then the hottest bans with them, then all others. `found`
    /// is known already. Whether all is well at the end.
    ///
    /// What is not in force counts as not in force from `since` on.
    pub(super) fn put_right(
        &mut self,
        since: Instant,
        by: Option<&Culprit>,
        mut found: Vec<String>,
        scope: Scope,
    ) -> bool {
        let outcome = self.put_rules_right(since, &mut found);
        let wiped = !found.is_empty();
        let (bans, all_there) = match (&outcome, scope) {
            (Rules::Made(first), _) if first.created => self.put_bans_back(&first.bans),
            (Rules::Wrong(None), _) => (0, false),
            (_, Scope::Rules) => (0, true),
            (outcome, Scope::All) => self.put_elements_right(since, by, wiped, outcome.sets()),
            (outcome, Scope::Elements(drift)) => self.repair(drift, since, by, wiped, outcome.sets()),
        };
        let outcome = match outcome {
            Rules::Made(first) if first.partly => Rules::Made(First {
                partly: matches!(self.put_rules_right(since, &mut Vec::new()), Rules::Wrong(_)),
                ..first
            }),
            outcome => outcome,
        };
        let ended = Instant::now();
        let whole = match &outcome {
            Rules::Right => true,
            Rules::Made(_) => self.reads_back(),
            Rules::Wrong(_) => false,
        };
        let well = whole && all_there;
        let gap = match well {
            true => self.stats.upkeep.close_gap(ended),
            false => None,
        };
        if !found.is_empty() {
            self.tell(found.join("; "), by, bans + outcome.first(), gap, well);
        } else if let Some(gap) = gap {
            warn!(
                "table inet verdictd is whole again; bans or rules were not in force for {} ms",
                gap.as_millis()
            );
        }
        well
    }

    fn put_rules_right(&mut self, since: Instant, found: &mut Vec<String>) -> Rules {
        for _ in 0..TRIES {
            let expected = self.expected();
            let look = match ruleset::look(self.sets.netlink()) {
                Ok(look) => look,
                Err(error) => {
                    self.damaged(since);
                    found.push(format!("it cannot be read: {error}"));
                    return Rules::Wrong(None);
                }
            };
            let differences = match &look.found {
                Some(loaded) => loaded.differences(&expected),
                None => vec![GONE.to_owned()],
            };
            if !found.is_empty() || !differences.is_empty() {
                self.damaged(since);
            }
            if differences.is_empty() {
                return Rules::Right;
            }
            // Looked at again because somebody was faster: the same is found, or what he made of it.
            let news = differences.into_iter().filter(|what| !found.contains(what));
            let news: Vec<String> = news.collect();
            found.extend(news);
            let sets = look.found.as_ref().map(|loaded| loaded.ban_sets.clone());
            if !self.managed {
                return Rules::Wrong(sets);
            }
            let mut bans = self.wanted.hottest(HOTTEST, Instant::now());
            let at_once = match &look.found {
                None => expected.before_queues(),
                Some(_) => None,
            };
            let wanted = at_once.as_ref().unwrap_or(&expected);
            match ruleset::mend(self.sets.netlink(), wanted, &look, &bans) {
                Ok(applied) => {
                    self.expect(expected.with_ban_sets(&applied.adopted));
                    bans.retain(|(target, _)| {
                        let there = |sets: &BTreeSet<_>| sets.contains(&family_and_length(target));
                        !sets.as_ref().is_some_and(there)
                    });
                    return Rules::Made(First {
                        created: applied.created,
                        partly: at_once.is_some(),
                        bans,
                    });
                }
                Err(RulesetError::Overtaken) => {}
                Err(error) => {
                    error!("table inet verdictd cannot be loaded again: {error}");
                    return Rules::Wrong(sets);
                }
            }
        }
        error!("table inet verdictd cannot be loaded again: somebody changes nftables all the time");
        Rules::Wrong(None)
    }

    /// Loads `ruleset`, with its hottest bans where there was no table; then all others.
    pub(super) fn load(&mut self, ruleset: &Ruleset) -> Result<(), RulesetError> {
        let begun = Instant::now();
        let first = self.wanted.hottest(HOTTEST, begun);
        let applied = ruleset::apply_with(self.sets.netlink(), ruleset, &first)?;
        self.expect(ruleset.with_ban_sets(&applied.adopted));
        if applied.created {
            self.damaged(begun);
            let (bans, all_there) = self.put_bans_back(&first);
            let gap = self.stats.upkeep.close_gap(Instant::now()).filter(|_| all_there);
            self.tell(GONE.to_owned(), None, bans + first.len(), gap, all_there);
        }
        Ok(())
    }

    fn damaged(&self, since: Instant) {
        self.stats.upkeep.open_gap(since);
    }

    pub(super) fn reads_back(&mut self) -> bool {
        let expected = self.expected();
        match ruleset::read(self.sets.netlink()) {
            Ok(Some(loaded)) => loaded.differences(&expected).is_empty(),
            _ => false,
        }
    }

    /// Into a table that was made anew.
    fn put_bans_back(&mut self, done: &[(Prefix, Option<Duration>)]) -> (usize, bool) {
        let others = self.wanted.others(done, Instant::now());
        (others.len(), self.assert(&others))
    }

    /// A dump of every set against what it should hold. `wiped`: what is missing went with the rest; `sets`: those that
    /// there are, if not all that there should be.
    fn put_elements_right(
        &mut self,
        since: Instant,
        by: Option<&Culprit>,
        wiped: bool,
        sets: Option<&BTreeSet<(Family, u8)>>,
    ) -> (usize, bool) {
        let begun = Instant::now();
        let live = match self.sets.dump() {
            Ok(live) => live,
            Err(error) => {
                // They change faster than they can be read, or there is no table: another look comes.
                debug!("the sets of bans cannot be read: {error}");
                return (0, !wiped);
            }
        };
        let drift = self.wanted.drift(&live, begun, Instant::now());
        drop(live);
        self.repair(drift, since, by, wiped, sets)
    }

    fn repair(
        &mut self,
        mut drift: Drift,
        since: Instant,
        by: Option<&Culprit>,
        wiped: bool,
        sets: Option<&BTreeSet<(Family, u8)>>,
    ) -> (usize, bool) {
        // The kernel collects what expired during a dump, which can hide others from it.
        if drift.missing.len() <= CONFIRMED {
            let is_gone = |target: &Prefix| !matches!(self.sets.contains(target), Ok(Some(_)));
            drift.missing.retain(is_gone);
        }
        let lost = drift.missing.len();
        drift
            .missing
            .retain(|target| sets.is_none_or(|sets| sets.contains(&family_and_length(target))));
        let missing = drift.missing.len();
        let mut all_there = missing == lost;
        if missing > 0 {
            self.damaged(since);
            self.hottest_first(&mut drift.missing);
            let missing = self.wanted.of_these(&drift.missing, Instant::now());
            all_there &= self.assert(&missing);
        }
        if missing > 0 && !wiped {
            self.stats.upkeep.missing.add(missing as u64);
            warn!(
                "{missing} bans were missing in the kernel's sets ({}) and are in force again{}",
                some_of(&drift.missing),
                whose(by)
            );
        }
        self.remove_foreign(drift.foreign, by);
        self.renew(&drift.mistimed, by);
        (missing, all_there)
    }

    fn hottest_first(&self, targets: &mut [Prefix]) {
        if targets.len() > HOTTEST {
            let hottest = self.wanted.hottest(HOTTEST, Instant::now());
            let hottest: HashSet<Prefix> = hottest.into_iter().map(|(target, _)| target).collect();
            targets.sort_by_key(|target| !hottest.contains(target));
        }
    }

    /// Puts these bans back; whether the kernel took them all. If the table goes meanwhile, the rest waits for its
    /// repair, of which a notice is under way.
    pub(super) fn assert(&mut self, bans: &[Lasting]) -> bool {
        let expected = self.expected();
        let sets = expected.spec().ban_sets();
        let mut all = true;
        for batch in bans.chunks(BATCH) {
            // What remains of each, as it is when it goes: a million bans take seconds.
            let now = Instant::now();
            let fitting = batch
                .iter()
                .filter(|(target, _)| sets.contains(&family_and_length(target)));
            let changes = fitting.map(|(target, until)| Change::Add {
                target: *target,
                timeout: until.map(|until| until.saturating_duration_since(now)),
            });
            let changes: Vec<Change> = changes.collect();
            let refused = self.sets.apply(&changes);
            if refused
                .iter()
                .any(|(_, error)| matches!(error, SetError::MissingSet { .. }))
            {
                self.rounds.soon(now);
                return false;
            }
            all &= refused.is_empty();
            self.leave_to_analyst(refused);
        }
        all
    }

    pub(super) fn renew(&mut self, targets: &[Prefix], by: Option<&Culprit>) {
        let now = Instant::now();
        let renewals = targets
            .iter()
            .filter_map(|target| self.wanted.renewal(target, now));
        let changes: Vec<Change> = renewals.collect();
        if changes.is_empty() {
            return;
        }
        self.stats.upkeep.mistimed.add(changes.len() as u64);
        warn!(
            "{} bans would have ended at another time than they should ({}) and are set right{}: the length of a ban is \
             what verdictctl ban --for says",
            changes.len(),
            some_of(targets),
            whose(by)
        );
        self.settle(&changes);
    }

    pub(super) fn remove_foreign(&mut self, targets: Vec<Prefix>, by: Option<&Culprit>) {
        if targets.is_empty() {
            return;
        }
        let changes: Vec<Change> = targets
            .iter()
            .map(|target| Change::Remove { target: *target })
            .collect();
        self.stats.upkeep.foreign.add(changes.len() as u64);
        warn!(
            "{} elements that no ban stands behind are taken out of the sets of bans ({}){}: to ban, use verdictctl ban",
            changes.len(),
            some_of(&targets),
            whose(by)
        );
        self.settle(&changes);
        self.report(Report::Foreign {
            targets,
            by: by.map(Culprit::to_string),
        });
    }

    /// Has the kernel make `changes`, which are none of the ledger's.
    pub(super) fn settle(&mut self, changes: &[Change]) {
        let refused = self.sets.apply(changes);
        self.leave_to_analyst(refused);
    }

    /// It tries again what the kernel refused.
    pub(super) fn leave_to_analyst(&mut self, refused: Vec<(Prefix, SetError)>) {
        for (target, error) in refused {
            self.wanted.refuse(&target);
            self.report_refused(target, error.to_string());
        }
    }

    fn tell(&self, found: String, by: Option<&Culprit>, bans: usize, gap: Option<Duration>, well: bool) {
        let by = by.map(Culprit::to_string);
        let upkeep = &self.stats.upkeep;
        let known = upkeep.last_wipe().filter(|wipe| wipe.gap.is_none());
        if known.is_some_and(|wipe| wipe.found == found) {
            // It was told, and nothing could be done about it.
            return;
        }
        warn!(
            "somebody changed table inet verdictd{}: {found}",
            whose_name(by.as_deref())
        );
        match gap {
            Some(gap) => warn!(
                "table inet verdictd is whole again {} ms later, {bans} bans were put back",
                gap.as_millis()
            ),
            None if well => info!("table inet verdictd is whole"),
            None => error!("table inet verdictd is not whole: see verdictctl status"),
        }
        upkeep.wiped(found.clone(), by.clone(), gap);
        self.report(Report::Repaired(Box::new(Repair { found, by, bans, gap })));
    }
}

/// What is looked at, beside the rules.
pub(super) enum Scope {
    Rules,
    /// Every element of every set.
    All,
    /// These, of which something is wrong.
    Elements(Drift),
}

/// What became of the rules.
enum Rules {
    Right,
    Made(First),
    /// These sets of bans there are, if the table is there.
    Wrong(Option<BTreeSet<(Family, u8)>>),
}

struct First {
    /// There was no table: these are the only bans in it.
    created: bool,
    /// What hands packets to the engine is still missing.
    partly: bool,
    /// Bans in sets that were made with them.
    bans: Vec<(Prefix, Option<Duration>)>,
}

impl Rules {
    /// The sets that there are, if not all that there should be.
    fn sets(&self) -> Option<&BTreeSet<(Family, u8)>> {
        match self {
            Rules::Wrong(sets) => sets.as_ref(),
            _ => None,
        }
    }

    /// How many bans came with them.
    fn first(&self) -> usize {
        match self {
            Rules::Made(first) => first.bans.len(),
            _ => 0,
        }
    }
}

fn some_of(targets: &[Prefix]) -> String {
    let mut named: Vec<String> = targets.iter().take(NAMED).map(Prefix::to_string).collect();
    if targets.len() > NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

fn whose(by: Option<&Culprit>) -> String {
    whose_name(by.map(Culprit::to_string).as_deref())
}

fn whose_name(by: Option<&str>) -> String {
    by.map_or_else(String::new, |by| format!(", by {by}"))
}

const GONE: &str = "it is gone";
/// How often a repair that was overtaken by another's change is begun anew: a few milliseconds each.
const TRIES: u32 = 50;
/// Bans of which the remaining time is computed together.
const BATCH: usize = 5_000;
/// So many missing ones are asked for one by one; more than the collector hides are missing.
const CONFIRMED: usize = 1_000;
/// Targets that a line of the log names.
const NAMED: usize = 5;
