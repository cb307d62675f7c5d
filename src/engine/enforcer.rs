//! The only writer of our nft table: bans become set elements, policy becomes rules, each in batches whose
//! acknowledgements are read before anything is reported as done.
//!
//! What the kernel refuses comes back as [`Failure`]: the ledger keeps the ban, the worker keeps dropping the
//! source, and the change is tried again ([`RETRY`]). Only a ban that somebody waits for is withdrawn instead.
//! What it did goes on to the [`scribe`](super::scribe), which writes it down and then reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tracing::{error, warn};

use super::notice::Notice;
use super::scribe::{Entry, Task};
use crate::control::wire::Reply;
use crate::core::prefix::Prefix;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::{self, Family, Ruleset, RulesetError, Spec};
use crate::kernel::sets::{BanSets, Change};
use crate::state::Record;
use crate::webhook::wire::Event;

/// Work for the enforcer.
pub enum Job {
    /// Something to change.
    Change(Work),
    /// Somebody touched the table: put right what is not as it should be.
    Verify,
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
    Refused(Failure),
    /// The table was gone, or may be a new one: no ban is in it any more.
    Emptied {
        /// What was found, in words.
        found: String,
        /// Whether its rules are again as they should be.
        whole: bool,
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
}

/// What the table should be, for those who compare it with what is loaded.
pub type Expected = Arc<Mutex<Arc<Ruleset>>>;

/// The enforcer before it runs; see [`Enforcer::run`].
pub struct Enforcer {
    netlink: Netlink,
    sets: BanSets,
    expected: Expected,
    /// Whether the rules are ours to write; if not, only elements are.
    managed: bool,
    jobs: Receiver<Job>,
    reports: Sender<Report>,
    scribe: Sender<Task>,
}

impl Enforcer {
    /// An enforcer of the table that is `expected` and loaded already.
    pub fn new(
        netlink: Netlink,
        sets: BanSets,
        expected: Expected,
        managed: bool,
        jobs: Receiver<Job>,
        reports: Sender<Report>,
        scribe: Sender<Task>,
    ) -> Enforcer {
        Enforcer {
            netlink,
            sets,
            expected,
            managed,
            jobs,
            reports,
            scribe,
        }
    }

    /// Does what is asked until told to stop; returns the netlink socket for whoever cleans up.
    pub fn run(mut self) -> Netlink {
        while let Ok(job) = self.jobs.recv() {
            let (work, last) = self.gather(job);
            self.carry_out(work);
            match last {
                Some(Job::Stop) => break,
                Some(Job::Verify) => self.verify(),
                Some(Job::Sweep) => self.sweep(),
                Some(Job::Load(spec, done)) => drop(done.send(self.reload(&spec))),
                Some(Job::Change(_)) | None => {}
            }
        }
        self.netlink
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
            self.report(Report::Refused(Failure {
                target: *target,
                error: error.clone(),
                withdrawn: jobs.iter().any(|work| work.answers_for_ban_of(target)),
                untold: untold.remove(target),
            }));
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
        let refused = self.sets.apply(changes).into_iter();
        let told = refused.map(
            |(target, error)| match crowded.contains(&family_and_length(&target)) {
                true => (target, NO_ROOM.to_owned()),
                false => (target, error.to_string()),
            },
        );
        told.collect()
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
        match self.load(expected.with_ban_sets(&missing)) {
            Ok(true) => self.report_gone(),
            Ok(false) => {}
            Err(error) => error!("cannot add a set for another prefix length: {error}"),
        }
        crowded
    }

    /// Loads the table again if it is gone or different, and has every ban asserted: a table that looks right may
    /// be a new one, with empty sets.
    fn verify(&mut self) {
        let noticed = Instant::now();
        let expected = self.expected();
        let found = match ruleset::read(&mut self.netlink) {
            Ok(Some(loaded)) => loaded.differences(&expected),
            Ok(None) => vec!["it is gone".to_owned()],
            Err(error) => vec![format!("it cannot be read: {error}")],
        };
        let mut whole = found.is_empty();
        let found = found.join("; ");
        if !whole {
            warn!("somebody changed table inet verdictd: {found}");
        }
        if !whole && self.managed {
            let loaded = self.load(Ruleset::clone(&expected));
            whole = loaded.is_ok();
            match loaded {
                Ok(_) => warn!(
                    "table inet verdictd is loaded again, {} ms later",
                    noticed.elapsed().as_millis()
                ),
                Err(error) => error!("table inet verdictd cannot be loaded again: {error}"),
            }
        }
        self.report(Report::Emptied { found, whole });
    }

    fn sweep(&mut self) {
        if let Err(error) = ruleset::scratch::remove(&mut self.netlink) {
            warn!("the scratch set of a self-test stays in table inet verdictd: {error}");
        }
    }

    /// The table was not there when it was to be changed.
    fn report_gone(&self) {
        self.report(Report::Emptied {
            found: "it was gone".into(),
            whole: true,
        });
    }

    /// Sets of other prefix lengths may hold bans: they stay whatever the configuration says.
    fn reload(&mut self, spec: &Spec) -> Result<(), RulesetError> {
        let ruleset = Ruleset::build(spec).with_ban_sets(&self.expected().spec().prefix_sets);
        if !self.managed {
            self.expect(ruleset);
        } else if self.load(ruleset)? {
            self.report_gone();
        }
        Ok(())
    }

    /// Makes the table what `ruleset` says; whether there was none, so that its sets are empty.
    fn load(&mut self, ruleset: Ruleset) -> Result<bool, RulesetError> {
        let applied = ruleset::apply(&mut self.netlink, &ruleset)?;
        self.expect(ruleset.with_ban_sets(&applied.adopted));
        Ok(applied.created)
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
            .find_map(|change| refused.get_key_value(&change.target()));
        if let (Some(answer), Some((target, error))) = (&mut self.done, failed) {
            answer.reply = Reply::refused(format!("{target}: {error}"));
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
/// How long after a refusal a ban is tried again.
pub const RETRY: Duration = Duration::from_secs(5);
