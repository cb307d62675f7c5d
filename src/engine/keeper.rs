//! The snapshot thread: by the interval of the mode, within a second when an operator bans or unbans or the kernel
//! refuses a ban, when somebody asks, and at the end. It copies what workers and analyst hold a little at a time, so that no verdict waits, and streams it
//! into the file. Whatever fails here, protection goes on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{debug, error, info};

use super::analyst::Command;
use super::clock;
use super::herald::Herald;
use super::state_facts::Facts;
use super::worker::{Handle, Order};
use crate::control::wire::{Reply, SnapshotView};
use crate::core::judge::Exported;
use crate::state::{Place, SaveError, Saved, Snapshot};
use crate::webhook::event;

/// What the keeper is told.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Errand {
    /// An operator wants a snapshot now.
    Snapshot { to: Sender<Reply> },
    /// An operator's word, or a ban that the kernel refuses: save soon, once for all that come together.
    Soon,
    /// Another interval from now on.
    Every(Duration),
    /// One last snapshot, then leave.
    Stop,
}

/// What is wrong with the state, for `status`.
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
    /// Of the last snapshot.
    saving: Option<String>,
    missing: Option<String>,
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

    /// Everything that is wrong, one sentence each.
    pub fn degraded(&self) -> Vec<String> {
        let words = self.words();
        let saving = words.saving.iter().chain(&words.missing);
        words.starting.iter().chain(saving).cloned().collect()
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
        let (mut told, mut heralded) = (None, None);
        loop {
            self.tell(&mut heralded);
            self.health.facts.next(next);
            match self.errands.recv_deadline(next) {
                Ok(Errand::Snapshot { to }) => {
                    let reply = self.save(&mut told);
                    // Whoever asked may have hung up.
                    let _ = to.send(reply);
                }
                Ok(Errand::Soon) => {
                    next = next.min(Instant::now() + SETTLE);
                    continue;
                }
                Ok(Errand::Every(every)) => self.every = every,
                Ok(Errand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.save(&mut told);
                    self.tell(&mut heralded);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => drop(self.save(&mut told)),
            }
            next = Instant::now() + self.every;
        }
    }

    /// Other systems hear of trouble when there is more of it, and once an hour while it lasts.
    fn tell(&self, heralded: &mut Option<(usize, Instant)>) {
        let (reasons, now) = (self.health.degraded(), Instant::now());
        let (known, at) = heralded.unwrap_or((0, now));
        let lasts = !reasons.is_empty() && now.duration_since(at) >= TELL_EVERY;
        let news = reasons.len() > known || lasts;
        *heralded = Some((reasons.len(), if news { now } else { at }));
        if news {
            self.herald.tell(|now| event::state_degraded(now, &reasons));
        }
    }

    /// One snapshot; a failure is told once an hour and shown until it is over.
    fn save(&self, told: &mut Option<Instant>) -> Reply {
        let begun = Instant::now();
        match self.write(begun) {
            Ok((saved, missing)) => {
                let view = view(&saved, begun.elapsed(), &missing);
                self.health.facts.saved(&view);
                debug!(?saved, duration = ?begun.elapsed(), "snapshot");
                if told.take().is_some() {
                    info!("the state is saved again, to {}", saved.path.display());
                }
                let mut words = self.health.words();
                words.saving = None;
                words.missing = (!missing.is_empty()).then(|| missing.join("; "));
                Reply::Snapshot(Box::new(view))
            }
            Err(failure) => {
                let text = format!("the state is not saved: {failure}");
                if told.is_none_or(|told| begun.duration_since(told) >= TELL_EVERY) {
                    *told = Some(begun);
                    error!(
                        "{text}; protection goes on, it is tried again every {}",
                        seconds(self.every)
                    );
                }
                self.health.words().saving = Some(text.clone());
                Reply::refused(text)
            }
        }
    }

    /// Sources first and bans last: who is banned meanwhile is then in the file as banned.
    fn write(&self, now: Instant) -> Result<(Saved, Vec<String>), Failure> {
        let mut snapshot = Snapshot::begin(&self.place, &clock::moment(), now, self.seed)?;
        let mut missing = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if !sources(worker, &mut snapshot)? {
                missing.push(format!(
                    "worker {index} does not answer, its half-done scans are not in the snapshot"
                ));
            }
        }
        self.ledger(&mut snapshot)?;
        Ok((snapshot.commit()?, missing))
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

fn seconds(every: Duration) -> String {
    format!("{} s", every.as_secs())
}

/// Sources or ports that one look at a worker's table takes: 0.1 ms of it, measured with a million sources.
const SHARE: usize = 256;
/// Ladder positions or bans that one look at the ledger takes.
const CHUNK: usize = 1024;
/// How long a thread has to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited for more of the kind before it is saved: at most one snapshot a second.
const SETTLE: Duration = Duration::from_secs(1);
/// How often a failure that lasts is told.
const TELL_EVERY: Duration = Duration::from_secs(3600);
