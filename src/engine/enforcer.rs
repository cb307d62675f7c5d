//! The only writer of our nft table: bans become set elements, policy becomes rules, each in batches whose
//! acknowledgements are read before anything is reported as done.
//!
//! What the kernel refuses comes back as [`Failure`]: the ledger keeps the ban, the worker keeps dropping the
//! source, and the change is tried again ([`RETRY`]). Only a ban that somebody waits for is withdrawn instead.
//! What it did goes on to the [`scribe`](super::scribe), which writes it down and then reports it.

mod mirror;
mod rounds;
mod touched;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tracing::{error, warn};

pub use self::mirror::Mirror;
pub use self::upkeep::Repair;

use self::rounds::Rounds;
use self::upkeep::Scope;
use super::notice::Notice;
use super::scribe::{Entry, Task};
use crate::config::EngineConfig;
use crate::control::wire::Reply;
use crate::core::prefix::Prefix;
use crate::core::verdict::Ban;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::alive::{self, GIVEN};
use crate::kernel::ruleset::{self, Family, Ruleset, RulesetError, Spec, Touch};
use crate::kernel::sets::{BanSets, Change, SetError};
use crate::state::Record;
use crate::stats::Stats;
use crate::webhook::wire::Event;

/// Work for the enforcer.
pub enum Job {
    /// Something to change.
    Change(Work),
    /// Somebody else changed the table: put right what is not as it should be.
    Touched(Box<Touch>),
    /// These workers live though their beats do not arrive: let the table know.
    Give(Vec<u16>),
    /// A self-test is over: should its scratch set still be there, it goes.
    Sweep,
    /// The table as it is to be from now on; how it went.
    Load(Box<Spec>, Sender<Result<(), RulesetError>>),
    /// Carry out what came before, then leave.
    Stop,
}

/// Something that was decided: what the kernel is to do, and what follows when it has.
#[derive(Default)]
pub struct Work {
    /// Set elements to add, renew or remove, in this order; none if only the ledger changed.
    pub changes: Vec<Change>,
    /// What is to be remembered of it.
    pub records: Vec<Record>,
    /// What people read.
    pub notices: Vec<Notice>,
    /// What other systems hear, unless the kernel refuses the change of that target.
    pub events: Vec<(Prefix, Event)>,
    /// Who is told.
    pub done: Option<Answer>,
    /// Bans that it replaces: should the kernel refuse what somebody asked for, they go on.
    pub replaced: Vec<Ban>,
}

/// A reply that is held back until the kernel has done what it reports, and that is on the disk.
pub struct Answer {
    /// Where it goes.
    pub to: Sender<Reply>,
    /// What is said if all went well.
    pub reply: Reply,
}

/// What the kernel made of the work, where it is not what was asked for.
#[derive(Debug)]
pub enum Report {
    /// A change was refused.
    Refused(Box<Failure>),
    /// The table was damaged.
    Repaired(Box<Repair>),
    /// Somebody deleted the elements of these bans, which ends them.
    Deleted {
        /// Who is free.
        targets: Vec<Prefix>,
        /// Which process it was, if the kernel told.
        by: Option<String>,
    },
    /// Somebody put these into the sets of bans, and they were taken out again.
    Foreign {
        /// What no ban stands behind.
        targets: Vec<Prefix>,
        /// Which process it was, if the kernel told.
        by: Option<String>,
    },
}

/// A change that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What was to be changed.
    pub target: Prefix,
    /// Why it was not, in words.
    pub error: String,
    /// Whoever asked for this ban is told that it was refused: it is not to come into force later.
    pub withdrawn: bool,
    /// What other systems did not hear, since it is not so.
    pub untold: Option<Event>,
    /// The ban that was in force before, if it is withdrawn.
    pub replaced: Option<Ban>,
}

/// What the table should be, for those who compare it with what is loaded.
pub type Expected = Arc<Mutex<Arc<Ruleset>>>;

/// The enforcer before it runs; see [`Enforcer::run`].
pub struct Enforcer {
    sets: BanSets,
    wanted: Mirror,
    rounds: Rounds,
    expected: Expected,
    /// Whether the rules are ours to write; if not, only elements are.
    managed: bool,
    jobs: Receiver<Job>,
    reports: Sender<Report>,
    scribe: Sender<Task>,
    stats: Arc<Stats>,
}

/// What the enforcer is wired to.
pub struct Desk {
    /// What is asked of it.
    pub jobs: Receiver<Job>,
    /// To the analyst.
    pub reports: Sender<Report>,
    /// To the journal.
    pub scribe: Sender<Task>,
    /// Counters.
    pub stats: Arc<Stats>,
}

impl Enforcer {
    /// An enforcer of the table that is `expected` and loaded already.
    pub fn new(
        sets: BanSets,
        wanted: Mirror,
        expected: Expected,
        engine: &EngineConfig,
        desk: Desk,
    ) -> Enforcer {
        Enforcer {
            sets,
            wanted,
            rounds: Rounds::new(engine.reconcile_every, Instant::now()),
            expected,
            managed: engine.manage_ruleset,
            jobs: desk.jobs,
            reports: desk.reports,
            scribe: desk.scribe,
            stats: desk.stats,
        }
    }

    /// Has the kernel make these changes, before anybody asks for others.
    pub fn begin(&mut self, changes: &[Change]) {
        let sets = self.expected().spec().ban_sets();
        let fits =
            |change: &&Change| !change.is_removal() && sets.contains(&family_and_length(&change.target()));
        let (bans, others): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(fits);
        let others: Vec<Change> = others.into_iter().copied().collect();
        self.settle(&others);
        // With what is left of each as it goes: a million take seconds.
        let targets: Vec<Prefix> = bans.iter().map(|change| change.target()).collect();
        let bans = self.wanted.of_these(&targets, Instant::now());
        self.assert(&bans);
    }

    /// Does what is asked until told to stop; returns the netlink socket for whoever cleans up.
    pub fn run(mut self) -> Netlink {
        loop {
            let (work, last) = match self.jobs.recv_deadline(self.rounds.next()) {
                Ok(job) => self.gather(job),
                Err(RecvTimeoutError::Timeout) => (Vec::new(), None),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.carry_out(work);
            match last {
                Some(Job::Stop) => break,
                Some(Job::Touched(touch)) => self.touched(&touch),
                Some(Job::Give(workers)) => self.give(&workers),
                Some(Job::Sweep) => self.sweep(),
                Some(Job::Load(spec, done)) => drop(done.send(self.reload(&spec))),
                Some(Job::Change(_)) | None => {}
            }
            if Instant::now() >= self.rounds.next() {
                self.make_rounds();
            }
        }
        self.sets.into_netlink()
    }

    /// Everything that queued up meanwhile goes into the same transaction, up to a job of another kind.
    fn gather(&self, first: Job) -> (Vec<Work>, Option<Job>) {
        let mut gathered = Vec::new();
        for job in std::iter::once(first).chain(self.jobs.try_iter()) {
            match job {
                Job::Change(work) => gathered.push(work),
                other => return (gathered, Some(other)),
            }
        }
        (gathered, None)
    }

    fn carry_out(&mut self, mut jobs: Vec<Work>) {
        let changes: Vec<Change> = jobs
            .iter()
            .flat_map(|work| work.changes.iter().copied())
            .collect();
        let refused = self.change(&changes);
        let mut untold: BTreeMap<Prefix, Event> = jobs
            .iter_mut()
            .flat_map(|work| {
                work.events
                    .extract_if(.., |(target, _)| refused.contains_key(target))
            })
            .collect();
        // The analyst hears of it before whoever asked, who may ask for the next thing at once.
        for (target, error) in &refused {
            self.report(Report::Refused(Box::new(Failure {
                target: *target,
                error: error.clone(),
                withdrawn: jobs.iter().any(|work| work.answers_for_ban_of(target)),
                untold: untold.remove(target),
                replaced: jobs.iter().rev().find_map(|work| work.replaced(target)),
            })));
        }
        for work in jobs {
            // The scribe leaves only after us.
            let _ = self.scribe.send(Task::Write(work.entry(&refused)));
        }
    }

    /// Has the kernel do it; what it refused, and why.
    fn change(&mut self, changes: &[Change]) -> BTreeMap<Prefix, String> {
        if changes.is_empty() {
            return BTreeMap::new();
        }
        let crowded = self.make_room(changes);
        // Their time counts from here on, in the mirror as in the kernel.
        let now = Instant::now();
        let refused = self.apply(changes).into_iter();
        let told = refused.map(
            |(target, error)| match crowded.contains(&family_and_length(&target)) {
                true => (target, NO_ROOM.to_owned()),
                false => (target, error.to_string()),
            },
        );
        let refused: BTreeMap<Prefix, String> = told.collect();
        changes.iter().for_each(|change| self.wanted.note(change, now));
        refused.keys().for_each(|target| self.wanted.refuse(target));
        refused
    }

    /// In a table that somebody wiped a moment ago, it is done once that is repaired.
    fn apply(&mut self, changes: &[Change]) -> Vec<(Prefix, SetError)> {
        let mut refused = self.sets.apply(changes);
        let is_lost = |error: &SetError| matches!(error, SetError::MissingSet { .. });
        if self.managed && refused.iter().any(|(_, error)| is_lost(error)) {
            self.put_right(Instant::now(), None, Vec::new(), Scope::All);
            let lost = refused.extract_if(.., |(_, error)| is_lost(error));
            let lost: BTreeSet<Prefix> = lost.map(|(target, _)| target).collect();
            let again = changes.iter().filter(|change| lost.contains(&change.target()));
            let again: Vec<Change> = again.copied().collect();
            refused.extend(self.sets.apply(&again));
        }
        refused
    }

    fn report_refused(&self, target: Prefix, error: String) {
        self.report(Report::Refused(Box::new(Failure {
            target,
            error,
            withdrawn: false,
            untold: None,
            replaced: None,
        })));
    }

    fn report(&self, report: Report) {
        // The analyst outlives the enforcer; it is told to stop first only at shutdown.
        let _ = self.reports.send(report);
    }

    /// Prefixes of a length that has no set yet get one, with its rule; returns the lengths that got none because
    /// there are too many. A ban without its set is refused, which the analyst hears of.
    fn make_room(&mut self, changes: &[Change]) -> BTreeSet<(Family, u8)> {
        let expected = self.expected();
        let known = expected.spec().ban_sets();
        let bans = changes.iter().filter(|change| !change.is_removal());
        let wanted = bans.map(|change| family_and_length(&change.target()));
        let mut missing: BTreeSet<(Family, u8)> = wanted.filter(|set| !known.contains(set)).collect();
        let room = MAX_PREFIX_SETS.saturating_sub(expected.spec().prefix_sets.len());
        let crowded = missing.iter().nth(room).copied();
        let crowded = crowded.map_or_else(BTreeSet::new, |first| missing.split_off(&first));
        if missing.is_empty() || !self.managed {
            return crowded;
        }
        if let Err(error) = self.load(&expected.with_ban_sets(&missing)) {
            error!("cannot add a set for another prefix length: {error}");
        }
        crowded
    }

    fn sweep(&mut self) {
        if let Err(error) = ruleset::scratch::remove(self.sets.netlink()) {
            warn!("the scratch set of a self-test stays in table inet verdictd: {error}");
        }
    }

    /// Where beats do not come through, netlink carries them: slower, and better than nobody judging.
    fn give(&mut self, workers: &[u16]) {
        if let Err(error) = alive::give(self.sets.netlink(), workers, GIVEN) {
            error!("workers {workers:?} cannot be kept in use by netlink: {error}");
        }
    }

    /// Sets of other prefix lengths may hold bans: they stay whatever the configuration says.
    fn reload(&mut self, spec: &Spec) -> Result<(), RulesetError> {
        let expected = self.expected();
        let ruleset = Ruleset::build(spec)
            .owned(expected.is_owned())
            .with_ban_sets(&expected.spec().prefix_sets);
        match self.managed {
            true => self.load(&ruleset),
            false => {
                self.expect(ruleset);
                Ok(())
            }
        }
    }

    fn expect(&self, ruleset: Ruleset) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ruleset);
    }

    fn expected(&self) -> Arc<Ruleset> {
        Arc::clone(&self.expected.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Work {
    /// What follows when the kernel has done it, but for what it `refused`. A ban that was asked for and refused is not
    /// to come back from the disk.
    fn entry(mut self, refused: &BTreeMap<Prefix, String>) -> Entry {
        let failed = self
            .changes
            .iter()
            .filter_map(|change| refused.get_key_value(&change.target()));
        let failed: Vec<(&Prefix, &String)> = failed.collect();
        if let (Some(answer), Some((target, error))) = (&mut self.done, failed.first()) {
            match &mut answer.reply {
                Reply::StateImported(outcome) => outcome.refuse(&failed),
                reply => *reply = Reply::refused(format!("{target}: {error}")),
            }
            self.records
                .retain(|record| !matches!(record, Record::Ban(ban) if refused.contains_key(&ban.source)));
        }
        Entry {
            records: self.records,
            notices: self.notices,
            events: self.events.into_iter().map(|(_, event)| event).collect(),
            answer: self.done,
        }
    }

    fn replaced(&self, target: &Prefix) -> Option<Ban> {
        self.replaced.iter().find(|ban| ban.source == *target).cloned()
    }

    /// Adds what `other` is, but for its answer.
    pub fn join(&mut self, other: Work) {
        self.changes.extend(other.changes);
        self.records.extend(other.records);
        self.notices.extend(other.notices);
        self.events.extend(other.events);
    }

    fn answers_for_ban_of(&self, target: &Prefix) -> bool {
        let bans = |change: &Change| change.target() == *target && !change.is_removal();
        self.done.is_some() && self.changes.iter().any(bans)
    }
}

fn family_and_length(target: &Prefix) -> (Family, u8) {
    (Family::of(target), target.len())
}

/// Each costs two lookups per packet of a new flow.
pub(super) const MAX_PREFIX_SETS: usize = 8;
const NO_ROOM: &str = "the table has sets for 8 prefix lengths beside the usual, which is the most; ban it with one \
                       of the lengths that bans have already";
/// Bans that are in force again in the same moment as the rules, the last granted first: who was banned a moment ago is
/// most likely to be at it still.
pub const HOTTEST: usize = 1_000;
/// How long after a refusal a ban is tried again.
pub const RETRY: Duration = Duration::from_secs(5);
