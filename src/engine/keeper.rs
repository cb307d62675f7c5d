//! The snapshot thread: by the interval of the mode, within a second when the journal is too long or fails, when
//! somebody asks, and at the end. It has another journal begun, copies what workers and analyst hold a little at a time,
//! so that no verdict waits, and streams it into the file. Whatever fails here, protection goes on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{debug, error, info};

use super::alarm::Alarm;
use super::analyst::Command;
use super::clock;
use super::herald::Herald;
use super::scribe::{Task, Turned};
use super::state_facts::Facts;
use super::worker::{Handle, Order};
use crate::control::wire::{Reply, SnapshotView};
use crate::core::judge::Exported;
use crate::state::{Place, SaveError, Saved, Snapshot, forget_journals_before};
use crate::webhook::event;

/// What the keeper is told.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Errand {
    /// An operator wants a snapshot now.
    Snapshot { to: Sender<Reply> },
    /// The journal is too long, or lacks something: save soon, once for all that come together.
    Soon,
    /// Another interval from now on.
    Every(Duration),
    /// One last snapshot, then leave.
    Stop,
}

/// What is wrong with configuration and state, for `status`.
#[derive(Debug, Default)]
pub struct Health {
    words: Mutex<Words>,
    /// What the start found and what was saved since.
    pub facts: Facts,
}

#[derive(Debug, Default)]
struct Words {
    /// Found at start; it stays true until the next one.
    starting: Vec<String>,
    /// Why another configuration is in force than the file's, until a reload takes that.
    config: Option<String>,
    /// Of the last snapshot.
    saving: Option<String>,
    missing: Option<String>,
    /// Of the journal, until a snapshot holds what it lacks.
    journal: Option<String>,
    /// How often writing the journal failed.
    failures: u64,
    /// Since when the journal has been waiting for the disk.
    writing: Option<Instant>,
    /// For trouble with the disk.
    alarm: Alarm,
    /// Whether it was logged, and not yet that it is over.
    logged: bool,
}

/// The journal's thread waits for the disk while this lives.
pub struct AtWork<'a>(&'a Health);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.words().writing = None;
    }
}

impl Health {
    /// With what loading the state told.
    pub fn new(loading: Vec<String>) -> Health {
        let health = Health::default();
        health.words().starting = loading;
        health
    }

    /// Something else was not well at the start.
    pub fn trouble(&self, words: String) {
        self.words().starting.push(words);
    }

    /// Another configuration is in force than the file's, or (none) the file's is.
    pub fn config(&self, instead: Option<String>) {
        self.words().config = instead;
    }

    /// Why another configuration is in force than the file's.
    pub fn configured(&self) -> Option<String> {
        self.words().config.clone()
    }

    /// Everything that is wrong with the state, one sentence each.
    pub fn degraded(&self) -> Vec<String> {
        let words = self.words();
        let waited = words.writing.map(|since| since.elapsed());
        let hangs = waited.filter(|waited| *waited >= HANGS).map(|waited| {
            format!(
                "the journal has been waiting for the disk for {} s: bans are enforced and not yet reported",
                waited.as_secs()
            )
        });
        // One disk, one sentence.
        let disk: Vec<&str> = [&words.saving, &words.journal]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let disk = (!disk.is_empty()).then(|| disk.join("; "));
        let standing = words.starting.iter().chain(&words.missing).cloned();
        standing.chain(disk).chain(hangs).collect()
    }

    /// The journal begins to wait for the disk.
    pub fn at_work(&self) -> AtWork<'_> {
        self.words().writing = Some(Instant::now());
        AtWork(self)
    }

    /// How often writing the journal failed.
    pub fn failures(&self) -> u64 {
        self.words().failures
    }

    /// Something is not in the journal.
    pub fn journal_fails(&self, text: String) {
        self.log(&text);
        let mut words = self.words();
        words.failures += 1;
        words.journal = Some(text);
    }

    /// A snapshot holds everything up to where the journal had failed so often.
    fn mended(&self, failures: u64) {
        let mut words = self.words();
        if words.failures == failures {
            words.journal = None;
        }
        words.saving = None;
    }

    /// Once an hour while it lasts, for snapshot and journal together: it is one disk.
    fn log(&self, text: &str) {
        let (now, mut words) = (Instant::now(), self.words());
        if words.alarm.rings(1, now) {
            words.logged = true;
            error!("{text}; protection goes on, and it is tried again");
        }
    }

    fn is_failing(&self) -> bool {
        let words = self.words();
        words.saving.is_some() || words.journal.is_some()
    }

    /// Whether there was trouble to log, which is over.
    fn is_over(&self) -> bool {
        let mut words = self.words();
        if words.journal.is_some() {
            return false;
        }
        words.alarm.rings(0, Instant::now());
        std::mem::take(&mut words.logged)
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper before it runs; see [`Keeper::run`].
pub struct Keeper {
    /// Where the snapshot goes.
    pub place: Place,
    /// The interval.
    pub every: Duration,
    /// Seed of the source hash.
    pub seed: u32,
    /// Who has the half-done scans.
    pub workers: Box<[Handle]>,
    /// Who has the ledger.
    pub analyst: Sender<Command>,
    /// Who has the journal.
    pub scribe: Sender<Task>,
    /// The number of the snapshot that was loaded, or written last.
    pub generation: Option<u64>,
    /// Where failures show.
    pub health: Arc<Health>,
    /// To other systems.
    pub herald: Herald,
    /// What to do.
    pub errands: Receiver<Errand>,
}

impl Keeper {
    /// Saves until told to stop. The first snapshot is written at once: it holds the seed.
    pub fn run(mut self) {
        let mut next = Instant::now();
        let mut heralded = Alarm::default();
        loop {
            self.tell(&mut heralded);
            self.health.facts.next(next);
            match self.errands.recv_deadline(next) {
                Ok(Errand::Snapshot { to }) => {
                    let reply = self.save();
                    // Whoever asked may have hung up.
                    let _ = to.send(reply);
                }
                Ok(Errand::Soon) => {
                    // A disk that is full is not asked every second.
                    let pause = if self.health.is_failing() { RETRY } else { SETTLE };
                    next = next.min(Instant::now() + pause);
                    continue;
                }
                Ok(Errand::Every(every)) => self.every = every,
                Ok(Errand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.save();
                    self.tell(&mut heralded);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => drop(self.save()),
            }
            let failing = self.health.is_failing();
            next = Instant::now()
                + if failing {
                    self.every.min(RETRY)
                } else {
                    self.every
                };
        }
    }

    /// Other systems hear of trouble when there is more of it, and once an hour while it lasts.
    fn tell(&self, alarm: &mut Alarm) {
        let reasons = self.health.degraded();
        if alarm.rings(reasons.len(), Instant::now()) {
            self.herald.tell(|now| event::state_degraded(now, &reasons));
        }
    }

    /// One snapshot; a failure is told once an hour and shown until it is over.
    fn save(&mut self) -> Reply {
        let begun = Instant::now();
        match self.write() {
            Ok((saved, missing)) => {
                let view = view(&saved, begun.elapsed(), &missing);
                self.health.facts.saved(&view);
                debug!(?saved, duration = ?begun.elapsed(), "snapshot");
                if self.health.is_over() {
                    info!("the state is saved again, to {}", saved.path.display());
                }
                self.health.words().missing = (!missing.is_empty()).then(|| missing.join("; "));
                Reply::Snapshot(Box::new(view))
            }
            Err(failure) => {
                let text = format!("the state is not saved: {failure}");
                self.health.log(&text);
                self.health.words().saving = Some(text.clone());
                Reply::refused(text)
            }
        }
    }

    /// Sources first and bans last: who is banned meanwhile is then in the file as banned.
    fn write(&mut self) -> Result<(Saved, Vec<String>), Failure> {
        // First: what is decided from now on is in another journal, and may be in the snapshot as well.
        let turned = self.turn()?;
        // One after the other and the moment first: what comes between them, be it a slow disk, would be granted on top.
        let (moment, now, seed) = (clock::moment(), Instant::now(), self.seed);
        let mut snapshot = Snapshot::begin(&self.place, &moment, now, seed, turned.generation)?;
        let mut missing = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if !sources(worker, &mut snapshot)? {
                missing.push(format!(
                    "worker {index} does not answer, its half-done scans are not in the snapshot"
                ));
            }
        }
        self.ledger(&mut snapshot)?;
        let saved = snapshot.commit()?;
        self.health.mended(turned.failures);
        // The previous snapshot and the journals since then lose nothing either, should this one be damaged.
        if let Some(previous) = self.generation.replace(turned.generation)
            && let Err(error) = forget_journals_before(&self.place, previous)
        {
            debug!("journals that nobody needs stay: {error}");
        }
        Ok((saved, missing))
    }

    fn turn(&self) -> Result<Turned, Failure> {
        let (to, turned) = bounded(1);
        self.scribe
            .send(Task::Turn(self.generation, to))
            .map_err(|_| Failure::Scribe)?;
        Ok(turned.recv_timeout(PATIENCE).map_err(|_| Failure::Scribe)??)
    }

    fn ledger(&self, snapshot: &mut Snapshot) -> Result<(), Failure> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let (standings, next) = self.ask(|to| Command::Standings {
                cursor: at,
                limit: CHUNK,
                to,
            })?;
            standings
                .iter()
                .try_for_each(|standing| snapshot.standing(standing))?;
            cursor = next;
        }
        snapshot.usual(&self.ask(|to| Command::Baseline { to })?)?;
        let mut targets = self.ask(|to| Command::Targets { to })?;
        targets.sort_unstable();
        for some in targets.chunks(CHUNK) {
            let bans = self.ask(|to| Command::Bans { of: some.into(), to })?;
            bans.iter().try_for_each(|ban| snapshot.ban(ban))?;
        }
        Ok(())
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, Failure> {
        let (to, answer) = bounded(1);
        self.analyst.send(command(to)).map_err(|_| Failure::Analyst)?;
        answer.recv_timeout(PATIENCE).map_err(|_| Failure::Analyst)
    }
}

/// Copies the sources of one worker; `false`: it does not answer.
fn sources(worker: &Handle, snapshot: &mut Snapshot) -> Result<bool, SaveError> {
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let (to, answer) = bounded(1);
        worker.order(Order::Export {
            cursor: at,
            limit: SHARE,
            to,
        });
        let Ok(Exported { sources, next }) = answer.recv_timeout(PATIENCE) else {
            return Ok(false);
        };
        for memory in &sources {
            snapshot.source(memory)?;
        }
        cursor = next;
    }
    Ok(true)
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the analyst does not answer")]
    Analyst,
    #[error("the journal does not answer, it may be waiting for the disk")]
    Scribe,
    #[error(transparent)]
    Save(#[from] SaveError),
}

fn view(saved: &Saved, took: Duration, missing: &[String]) -> SnapshotView {
    SnapshotView {
        path: saved.path.display().to_string(),
        bytes: saved.bytes,
        bans: saved.counts.bans,
        ladder: saved.counts.ladder,
        sources: saved.counts.sources,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        missing: missing.to_vec(),
    }
}

/// Sources or ports that one look at a worker's table takes: 0.1 ms of it, measured with a million sources.
const SHARE: usize = 256;
/// Ladder positions or bans that one look at the ledger takes.
const CHUNK: usize = 1024;
/// How long a thread has to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited for more of the kind before it is saved: at most one snapshot a second.
const SETTLE: Duration = Duration::from_secs(1);
/// How soon a snapshot that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long a sync may take before somebody hears of it: far longer than a disk that works hard.
const HANGS: Duration = Duration::from_secs(5);
