//! The only writer of our nft table: bans become set elements, policy becomes rules, each in batches whose
//! acknowledgements are read before anything is reported as done.
//!
//! What the kernel refuses comes back as [`Failure`]: the ledger keeps the ban, the worker keeps dropping the
//! source, and the change is tried again ([`RETRY`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tracing::error;

use crate::control::wire::Reply;
use crate::core::prefix::Prefix;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::{self, Family, Ruleset};
use crate::kernel::sets::{BanSets, Change};

/// Work for the enforcer.
pub enum Job {
    /// Something to change.
    Change(Work),
    /// Carry out what came before, then leave.
    Stop,
}

/// Set elements to add, renew or remove.
pub struct Work {
    /// In this order.
    pub changes: Vec<Change>,
    /// Who is told once the kernel has acknowledged them all.
    pub done: Option<Answer>,
}

/// A reply that is held back until the kernel has done what it reports.
pub struct Answer {
    /// Where it goes.
    pub to: Sender<Reply>,
    /// What is said if all went well.
    pub reply: Reply,
}

/// A change that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What was to be changed.
    pub target: Prefix,
    /// Why it was not, in words.
    pub error: String,
}

/// What the table should be, for those who compare it with what is loaded.
pub type Expected = Arc<Mutex<Arc<Ruleset>>>;

/// The enforcer before it runs; see [`Enforcer::run`].
pub struct Enforcer {
    netlink: Netlink,
    sets: BanSets,
    expected: Expected,
    jobs: Receiver<Job>,
    failures: Sender<Failure>,
}

impl Enforcer {
    /// An enforcer of the table that is `expected` and loaded already.
    pub fn new(
        netlink: Netlink,
        sets: BanSets,
        expected: Expected,
        jobs: Receiver<Job>,
        failures: Sender<Failure>,
    ) -> Enforcer {
        Enforcer {
            netlink,
            sets,
            expected,
            jobs,
            failures,
        }
    }

    /// Does what is asked until told to stop; returns the netlink socket for whoever cleans up.
    pub fn run(mut self) -> Netlink {
        while let Ok(job) = self.jobs.recv() {
            let (jobs, stop) = self.gather(job);
            self.carry_out(jobs);
            if stop {
                break;
            }
        }
        self.netlink
    }

    /// Everything that queued up meanwhile goes into the same transaction.
    fn gather(&self, first: Job) -> (Vec<Work>, bool) {
        let mut gathered = Vec::new();
        for job in std::iter::once(first).chain(self.jobs.try_iter()) {
            match job {
                Job::Change(work) => gathered.push(work),
                Job::Stop => return (gathered, true),
            }
        }
        (gathered, false)
    }

    fn carry_out(&mut self, jobs: Vec<Work>) {
        let changes: Vec<Change> = jobs
            .iter()
            .flat_map(|work| work.changes.iter().copied())
            .collect();
        if changes.is_empty() {
            return;
        }
        self.make_room(&changes);
        let refused = self.sets.apply(&changes);
        for Work { changes, done } in jobs {
            let Some(answer) = done else { continue };
            let failed = refused
                .iter()
                .find(|(target, _)| changes.iter().any(|change| change.target() == *target));
            let reply = match failed {
                None => answer.reply,
                Some((target, error)) => Reply::refused(format!("{target}: {error}")),
            };
            // Whoever asked may have hung up.
            let _ = answer.to.send(reply);
        }
        for (target, error) in refused {
            // The analyst outlives the enforcer; it is told to stop first only at shutdown.
            let _ = self.failures.send(Failure {
                target,
                error: error.to_string(),
            });
        }
    }

    /// Prefixes of a length that has no set yet get one, with its rule. Without it the change is refused as one
    /// to a missing set, which the analyst hears of.
    fn make_room(&mut self, changes: &[Change]) {
        let mut spec = self.expected().spec().clone();
        let known = spec.ban_sets();
        let wanted = changes.iter().map(|change| family_and_length(&change.target()));
        let missing: BTreeSet<(Family, u8)> = wanted.filter(|set| !known.contains(set)).collect();
        if missing.is_empty() {
            return;
        }
        if spec.prefix_sets.len() + missing.len() > MAX_PREFIX_SETS {
            error!(
                "bans of {MAX_PREFIX_SETS} other prefix lengths than the usual are the most that fit the table"
            );
            return;
        }
        spec.prefix_sets.extend(missing);
        let ruleset = Ruleset::build(&spec);
        match ruleset::apply(&mut self.netlink, &ruleset) {
            Ok(_) => *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ruleset),
            Err(error) => error!("cannot add a set for another prefix length: {error}"),
        }
    }

    fn expected(&self) -> Arc<Ruleset> {
        Arc::clone(&self.expected.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn family_and_length(target: &Prefix) -> (Family, u8) {
    (
        if target.is_ipv4() { Family::V4 } else { Family::V6 },
        target.len(),
    )
}

/// Each costs two lookups per packet of a new flow.
pub(super) const MAX_PREFIX_SETS: usize = 8;
/// How long after a refusal a ban is tried again.
pub const RETRY: Duration = Duration::from_secs(5);
