//! The thread that writes the log: gathers what came, writes it in one go, and goes on trying while the disk is full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tracing::{error, info, warn};

use super::log::{Message, Paths, Shared};
use super::record::What;
use super::store::{Entry, Store};
use super::{AuditConfig, OnFailure};

/// What writes the log, on a thread of its own.
pub struct Recorder {
    writer: Writer,
    messages: Receiver<Message>,
}

impl Recorder {
    pub(super) fn new(writer: Writer, messages: Receiver<Message>) -> Recorder {
        Recorder { writer, messages }
    }

    /// Writes until told to stop.
    pub fn run(self) {
        self.writer.run(&self.messages);
    }
}

pub(super) struct Writer {
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
    pub(super) fn new(paths: Paths, config: AuditConfig, shared: Arc<Shared>) -> Writer {
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

    pub(super) fn configure(&mut self, config: AuditConfig) {
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

/// Records that wait for a disk that is full: some 30 MB.
const PENDING: usize = 1 << 16;
/// Lines of one write.
const BATCH: usize = 1024;
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is looked after while nothing is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Lines about the same thing.
const TELL_EVERY: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::audit::log::Audit;
    use crate::audit::verify::{Options, verify};

    fn paths(folder: &tempfile::TempDir) -> Paths {
        Paths {
            log: folder.path().join("audit.jsonl"),
            head: folder.path().join("audit.head"),
        }
    }

    fn config() -> AuditConfig {
        AuditConfig {
            enabled: true,
            on_failure: OnFailure::Closed,
            ..AuditConfig::default()
        }
    }

    fn options(paths: &Paths) -> Options {
        Options {
            log: paths.log.clone(),
            head: Some(paths.head.clone()),
            from: None,
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_count_is_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        let (audit, recorder) = Audit::begin(paths.clone(), &config());
        let begun = Instant::now();
        for number in 0..40_000 {
            audit.note(|| What::unseen(number));
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody waited");
        let writer = thread::spawn(move || recorder.run());
        // The channel is full until the writer has begun.
        let end = Instant::now() + Duration::from_secs(20);
        let mut asked = 40_001;
        while !audit.confirm(What::unseen(40_000)) {
            assert!(Instant::now() < end, "the writer does not begin");
            asked += 1;
            thread::sleep(Duration::from_millis(1));
        }
        audit.stop();
        writer.join().unwrap();
        let lost = audit.state().lost;
        let text = std::fs::read_to_string(&paths.log).unwrap();
        assert!(
            text.contains(&format!("\"kind\":\"gap\",\"lost\":{lost}")),
            "{lost}"
        );
        assert_eq!(text.lines().count() as u64, asked - lost + 1);
        let report = verify(&options(&paths)).unwrap();
        assert!(
            report.is_sound() && report.notes[0].contains("were lost"),
            "{report:?}"
        );
    }

    #[test]
    fn a_log_that_cannot_be_had_shuts_the_gate_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = paths(&folder);
        paths.log = folder.path().join("in/the/way/audit.jsonl");
        std::fs::write(folder.path().join("in"), "a file").unwrap();
        let (audit, recorder) = Audit::begin(paths.clone(), &config());
        assert!(audit.gate().is_shut() && audit.comes_first());
        let writer = thread::spawn(move || recorder.run());
        assert!(!audit.confirm(What::unseen(1)));
        let why = audit.refuses().expect("it cannot be written");
        assert!(
            why.contains("in/the/way") && why.contains("\"continue\""),
            "{why}"
        );
        assert!(audit.state().degraded[0].contains("no new connection"));
        std::fs::remove_file(folder.path().join("in")).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while audit.gate().is_shut() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(audit.refuses().is_none() && audit.state().degraded.is_empty());
        audit.stop();
        writer.join().unwrap();
        let text = std::fs::read_to_string(&paths.log).unwrap();
        assert!(
            text.contains("\"kind\":\"resumed\"") && text.contains("\"packets\":1"),
            "{text}"
        );
        assert!(verify(&options(&paths)).unwrap().is_sound());
    }
}
