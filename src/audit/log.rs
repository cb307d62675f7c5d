//! How everybody reaches the thread that writes the log, without waiting for it.
//!
//! Records come through a bounded channel. What finds it full, or finds the disk full for too long, is counted, and the
//! count becomes a record. Records of refused packets, which strangers can cause at any rate, yield to all others.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Sender, bounded};

use super::AuditConfig;
use super::chain::Link;
use super::gate::Gate;
use super::record::What;
use super::store::Entry;
pub use super::writer::Recorder;
use super::writer::Writer;

/// The way to the log; its clones write the same one. Without a thread ([`Audit::default`]) nothing is written.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    link: Option<(Sender<Message>, Arc<Shared>)>,
}

#[derive(Debug)]
pub(super) enum Message {
    Note(Box<Entry>),
    /// As before, and whoever waits hears whether it is on the disk.
    Confirm(Box<Entry>, Sender<bool>),
    Configure(AuditConfig),
    Stop,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) enabled: AtomicBool,
    pub(super) closes: AtomicBool,
    pub(super) lost: AtomicU64,
    /// Milliseconds since `began` at which the writer went to the disk; 0: it is not there.
    pub(super) busy_since: AtomicU64,
    began: Instant,
    pub(super) view: Mutex<View>,
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) path: PathBuf,
    pub(super) head: PathBuf,
    pub(super) end: Link,
    pub(super) failing: Option<String>,
    pub(super) unrotated: Option<String>,
    pub(super) lost: u64,
}

/// How the log is, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether anything is written.
    pub enabled: bool,
    /// The file.
    pub path: PathBuf,
    /// The file that says how far it goes.
    pub head: PathBuf,
    /// Its last line.
    pub end: Link,
    /// Records that were lost since the start.
    pub lost: u64,
    /// What is not well, in words.
    pub degraded: Vec<String>,
}

/// Where the log is kept.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The file.
    pub log: PathBuf,
    /// Its head.
    pub head: PathBuf,
}

impl Audit {
    /// The log at `paths`, as `config` says; [`Recorder::run`] writes it. A log that cannot be opened is tried again
    /// every second.
    pub fn begin(paths: Paths, config: &AuditConfig) -> (Audit, Recorder) {
        let (sender, messages) = bounded(CHANNEL);
        let shared = Arc::new(Shared::new(&paths));
        let mut writer = Writer::new(paths, config.clone(), Arc::clone(&shared));
        // Before anything else runs: under "closed" not one connection is to come before the gate knows.
        writer.configure(config.clone());
        let link = Some((sender, shared));
        (Audit { link }, Recorder::new(writer, messages))
    }

    /// Whether anything is written down.
    pub fn is_on(&self) -> bool {
        self.link().is_some()
    }

    /// Shut while nothing can be written and `on_audit_failure = "closed"`.
    pub fn gate(&self) -> Gate {
        self.link
            .as_ref()
            .map_or_else(Gate::default, |(_, shared)| shared.gate.clone())
    }

    /// Writes down what happened now, if anything is; never waits.
    pub fn note(&self, what: impl FnOnce() -> What) {
        let Some((sender, shared)) = self.link() else {
            return;
        };
        let entry = Box::new((SystemTime::now(), what()));
        if sender.try_send(Message::Note(entry)).is_err() {
            shared.lost.fetch_add(1, Relaxed);
        }
        shared.watch();
    }

    /// Writes down what happened now and waits until it is on the disk, [`PATIENCE`] at most; whether it is. `true`
    /// where nothing is written at all.
    pub fn confirm(&self, what: What) -> bool {
        let Some((sender, shared)) = self.link() else {
            return true;
        };
        let (to, confirmed) = bounded(1);
        let entry = Box::new((SystemTime::now(), what));
        let end = Instant::now() + PATIENCE;
        if sender.send_deadline(Message::Confirm(entry, to), end).is_err() {
            shared.lost.fetch_add(1, Relaxed);
            return false;
        }
        confirmed.recv_deadline(end).unwrap_or(false)
    }

    /// Why an operator's change is refused now, if it is.
    pub fn refuses(&self) -> Option<String> {
        let (_, shared) = self.link()?;
        shared.watch();
        shared.gate.is_shut().then(|| {
            let why = shared.view().failing.clone().unwrap_or_else(|| STUCK.to_owned());
            format!(
                "it could not be written down, and on_audit_failure = \"closed\": {why}; put that right, or write \
                 on_audit_failure = \"continue\" and restart the engine"
            )
        })
    }

    /// Whether an order is to be on the disk before it is carried out.
    pub fn comes_first(&self) -> bool {
        self.link().is_some_and(|(_, shared)| shared.closes.load(Relaxed))
    }

    /// Goes over to another configuration; the path stays until the next start.
    pub fn configure(&self, config: &AuditConfig) {
        if let Some((sender, shared)) = &self.link {
            // What is noted from now on comes behind this, and is written by it.
            shared.enabled.fetch_or(config.enabled, Relaxed);
            // The writer is gone only when the engine is.
            let _ = sender.send_timeout(Message::Configure(config.clone()), PATIENCE);
        }
    }

    /// Writes what has come so far and ends the thread.
    pub fn stop(&self) {
        if let Some((sender, _)) = &self.link {
            let _ = sender.send_timeout(Message::Stop, PATIENCE);
        }
    }

    /// How the log is.
    pub fn state(&self) -> State {
        let Some((_, shared)) = &self.link else {
            return State::default();
        };
        shared.watch();
        let view = shared.view();
        let mut degraded = Vec::new();
        if let Some(why) = &view.failing {
            degraded.push(format!(
                "nothing can be written to the audit log: {why}{}",
                shared.consequence()
            ));
        } else if shared.is_stuck() {
            degraded.push(format!("{STUCK}{}", shared.consequence()));
        }
        if let Some(why) = &view.unrotated {
            degraded.push(format!("the audit log grows beyond its size: {why}"));
        }
        State {
            enabled: shared.enabled.load(Relaxed),
            path: view.path.clone(),
            head: view.head.clone(),
            end: view.end,
            lost: view.lost + shared.lost.load(Relaxed),
            degraded,
        }
    }

    fn link(&self) -> Option<&(Sender<Message>, Arc<Shared>)> {
        self.link
            .as_ref()
            .filter(|(_, shared)| shared.enabled.load(Relaxed))
    }
}

impl Shared {
    fn new(paths: &Paths) -> Shared {
        let view = View {
            path: paths.log.clone(),
            head: paths.head.clone(),
            ..View::default()
        };
        Shared {
            gate: Gate::default(),
            enabled: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            began: Instant::now(),
            view: Mutex::new(view),
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Whether the disk has not answered for long.
    fn is_stuck(&self) -> bool {
        let since = self.busy_since.load(Relaxed);
        since > 0 && self.millis().saturating_sub(since) > STUCK_AFTER.as_millis() as u64
    }

    /// A writer that waits for its disk cannot shut the gate: whoever has something to record does.
    fn watch(&self) {
        if self.closes.load(Relaxed) && self.is_stuck() {
            self.gate.set(true);
        }
    }

    pub(super) fn consequence(&self) -> &'static str {
        match self.closes.load(Relaxed) {
            true => "; no new connection is accepted until it can (on_audit_failure = \"closed\")",
            false => "; records wait in memory (on_audit_failure = \"continue\")",
        }
    }
}

/// Records on their way: a restart may end ten thousand bans at once.
const CHANNEL: usize = 1 << 15;
/// How long somebody waits for his record to be on the disk.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A disk that has not answered for so long counts as failed.
const STUCK_AFTER: Duration = Duration::from_secs(5);
const STUCK: &str = "the disk of the audit log does not answer";
