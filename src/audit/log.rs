//! The thread that writes the log, and how everybody else reaches it without waiting.
//!
//! Records come through a bounded channel. What finds it full, or finds the disk full for too long, is counted, and the
//! count becomes a record. Records of refused packets, which strangers can cause at any rate, yield to all others.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{error, info, warn};

use super::chain::Link;
use super::gate::Gate;
use super::record::What;
use super::store::{Entry, Store};
use super::{AuditConfig, OnFailure};

/// The way to the log; its clones write the same one. Without a thread ([`Audit::default`]) nothing is written.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    link: Option<(Sender<Message>, Arc<Shared>)>,
}

#[derive(Debug)]
enum Message {
    Note(Box<Entry>),
    /// As before, and whoever waits hears whether it is on the disk.
    Confirm(Box<Entry>, Sender<bool>),
    Configure(AuditConfig),
    Stop,
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    enabled: AtomicBool,
    closes: AtomicBool,
    lost: AtomicU64,
    /// Milliseconds since `began` at which the writer went to the disk; 0: it is not there.
    busy_since: AtomicU64,
    began: Instant,
    view: Mutex<View>,
}

#[derive(Debug, Default)]
struct View {
    path: PathBuf,
    head: PathBuf,
    end: Link,
    failing: Option<String>,
    unrotated: Option<String>,
    lost: u64,
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
        (Audit { link }, Recorder { writer, messages })
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

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
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

    fn consequence(&self) -> &'static str {
        match self.closes.load(Relaxed) {
            true => "; no new connection is accepted until it can (on_audit_failure = \"closed\")",
            false => "; records wait in memory (on_audit_failure = \"continue\")",
        }
    }
}

/// What writes the log, on a thread of its own.
pub struct Recorder {
    writer: Writer,
    messages: Receiver<Message>,
}

impl Recorder {
    /// Writes until told to stop.
    pub fn run(self) {
        self.writer.run(&self.messages);
    }
}

struct Writer {
    paths: Paths,
    config: AuditConfig,
    shared: Arc<Shared>,
    store: Option<Store>,
    /// What is not on the disk yet, and who waits for it to be.
    pending: VecDeque<Entry>,
    waiting: Vec<Sender<bool>>,
    failing: Option<Failing>,
    told_at: Instant,
}

struct Failing {
    since: Instant,
    why: String,
    retry_at: Instant,
    told_at: Instant,
}

impl Writer {
    fn new(paths: Paths, config: AuditConfig, shared: Arc<Shared>) -> Writer {
        Writer {
            paths,
            config,
            shared,
            store: None,
            pending: VecDeque::new(),
            waiting: Vec::new(),
            failing: None,
            told_at: Instant::now(),
        }
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let goes_on = match messages.recv_deadline(self.deadline()) {
                Ok(first) => {
                    let more = messages.try_iter().take(BATCH);
                    std::iter::once(first)
                        .chain(more)
                        .all(|message| self.take(message))
                }
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            self.write(!goes_on);
            if !goes_on {
                return self.close();
            }
        }
    }

    fn deadline(&self) -> Instant {
        let idle = Instant::now() + LOOK_EVERY;
        self.failing.as_ref().map_or(idle, |failing| failing.retry_at)
    }

    /// `false`: it is the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Note(entry) => self.keep(*entry),
            Message::Confirm(entry, to) => {
                self.keep(*entry);
                self.waiting.push(to);
            }
            Message::Configure(config) => {
                self.write(true);
                self.configure(config);
            }
            Message::Stop => return false,
        }
        true
    }

    /// Fails open, counted: memory is bounded, also while the disk is full for days.
    fn keep(&mut self, entry: Entry) {
        let room = if entry.1.is_common() { PENDING / 2 } else { PENDING };
        if !self.config.enabled {
            return; // noted a moment after it ended
        }
        match self.pending.len() < room {
            true => self.pending.push_back(entry),
            false => drop(self.shared.lost.fetch_add(1, Relaxed)),
        }
    }

    fn configure(&mut self, config: AuditConfig) {
        self.config = config;
        let closes = self.config.enabled && self.config.on_failure == OnFailure::Closed;
        self.shared.enabled.store(self.config.enabled, Relaxed);
        self.shared.closes.store(closes, Relaxed);
        if !self.config.enabled {
            self.store.take().into_iter().for_each(Store::close);
            (self.failing, self.shared.view().failing) = (None, None);
            self.pending.clear();
        } else if let Some(store) = &mut self.store {
            store.configure(&self.config);
        } else {
            let opened = self.open();
            self.outcome(opened);
        }
        self.shared.gate.set(closes && self.failing.is_some());
    }

    /// Writes what waits, if it is time to.
    fn write(&mut self, at_once: bool) {
        let now = Instant::now();
        let due = at_once
            || self
                .failing
                .as_ref()
                .is_none_or(|failing| failing.retry_at <= now);
        if self.config.enabled && due {
            self.shared.busy_since.store(self.shared.millis(), Relaxed);
            let written = self.open().and_then(|()| self.append());
            self.shared.busy_since.store(0, Relaxed);
            self.outcome(written);
        }
        let done = self.failing.is_none();
        // Whoever asked may have given up waiting.
        for to in self.waiting.drain(..) {
            let _ = to.send(done);
        }
        self.tell_end();
    }

    fn open(&mut self) -> Result<(), String> {
        if self.store.is_none() {
            let opened = Store::open(&self.paths.log, &self.paths.head, &self.config);
            self.store = Some(opened.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), String> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let lost = self.shared.lost.swap(0, Relaxed);
        let now = SystemTime::now();
        let mut resumed = self.failing.as_ref().map(|failing| What::Resumed {
            seconds: failing.since.elapsed().as_secs(),
            error: failing.why.clone(),
        });
        if resumed.is_none() && lost == 0 && self.pending.is_empty() && !store.look() {
            return Ok(());
        }
        let mut result;
        loop {
            let first = resumed.take().map(|what| (now, what));
            let waiting = self.pending.iter().take(BATCH).cloned();
            let mut part: Vec<Entry> = first.into_iter().chain(waiting).collect();
            let taken = self.pending.len().min(BATCH);
            let is_last = taken == self.pending.len();
            // What was lost came after what waits.
            part.extend((is_last && lost > 0).then_some((now, What::Gap { lost })));
            result = store.append(&part);
            if result.is_ok() {
                self.pending.drain(..taken);
            }
            if is_last || result.is_err() {
                break;
            }
        }
        let mut view = self.shared.view();
        view.end = store.link();
        view.unrotated = store.unrotated().map(ToString::to_string);
        match &result {
            Ok(()) => view.lost += lost,
            Err(_) => drop(self.shared.lost.fetch_add(lost, Relaxed)),
        }
        result.map_err(|error| error.to_string())
    }

    fn outcome(&mut self, written: Result<(), String>) {
        let now = Instant::now();
        match written {
            Ok(()) => {
                if let Some(failing) = self.failing.take() {
                    warn!(
                        "the audit log is written again after {} s",
                        failing.since.elapsed().as_secs()
                    );
                }
            }
            Err(why) => {
                let before = self.failing.take();
                let told = before.as_ref().map(|failing| failing.told_at);
                let tell = told.is_none_or(|at| now.duration_since(at) >= TELL_EVERY);
                if tell {
                    error!(
                        "nothing can be written to the audit log: {why}{}",
                        self.shared.consequence()
                    );
                }
                self.failing = Some(Failing {
                    since: before.map_or(now, |failing| failing.since),
                    why,
                    retry_at: now + RETRY,
                    told_at: told.filter(|_| !tell).unwrap_or(now),
                });
            }
        }
        self.shared.view().failing = self.failing.as_ref().map(|failing| failing.why.clone());
        self.shared
            .gate
            .set(self.shared.closes.load(Relaxed) && self.failing.is_some());
    }

    /// The end of the chain goes into the normal log now and then: that may be kept where nobody here can write.
    fn tell_end(&mut self) {
        if self.told_at.elapsed() >= TELL_EVERY && self.store.is_some() {
            self.told_at = Instant::now();
            self.say_end();
        }
    }

    fn say_end(&self) {
        let Some(link) = self.store.as_ref().map(Store::link).filter(|link| link.seq > 0) else {
            return;
        };
        info!("audit log: line {}, sha256 {}", link.seq, link.hash);
    }

    fn close(mut self) {
        if !self.pending.is_empty() {
            error!(
                "{} records of the audit log are lost: it could not be written",
                self.pending.len()
            );
        }
        self.say_end();
        self.store.take().into_iter().for_each(Store::close);
    }
}

/// Records on their way: a restart may end ten thousand bans at once.
const CHANNEL: usize = 1 << 15;
/// Records that wait for a disk that is full: some 30 MB.
const PENDING: usize = 1 << 16;
/// Lines of one write.
const BATCH: usize = 1024;
/// How long somebody waits for his record to be on the disk.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is looked after while nothing is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Lines about the same thing.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// A disk that has not answered for so long counts as failed.
const STUCK_AFTER: Duration = Duration::from_secs(5);
const STUCK: &str = "the disk of the audit log does not answer";
