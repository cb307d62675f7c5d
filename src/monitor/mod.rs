//! Watches the engine from outside, and starts it again when it is gone, hangs or does not do its work.
//!
//! Root, and a process of its own: it reads files and starts programs, which the engine never does. It decides nothing
//! about packets; while it is at work, and while it is not, the kernel keeps rules and bans. What it does is bounded by
//! growing delays, and by what operators want: an engine that was stopped on purpose stays stopped.

pub mod backoff;
mod check;
pub mod launch;
mod notes;
pub mod places;
pub mod process;
pub mod report;
mod rounds;
pub mod seal;
pub mod systemd;
mod trial;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{error, info, warn};

use self::backoff::Backoff;
use self::check::{Eyes, Finding};
use self::launch::{LaunchError, Program, READY, StartLock};
use self::notes::Notes;
use self::places::{Places, make_folder_of};
use self::process::{Process, timespec};
use self::seal::AuditEye;
use crate::control::monitor_view::MonitorView;
use crate::control::pidfile::{self, PidFile, PidFileError};
use crate::control::wire::{NoteKind, NoteResult};
use crate::notify::systemd::notify;

/// How the monitor is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose engine it watches.
    pub places: Places,
    /// Time between two looks.
    pub every: Duration,
    /// Time between two functional tests.
    pub selftest_every: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A signal asked for it.
    Stopped,
    /// A file is not what it was: nothing is started any more.
    Violated,
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// There is one already, or the pid file cannot be written.
    #[error("another monitor runs, or its pid file cannot be had: {0}")]
    PidFile(#[from] PidFileError),
    /// Only root may.
    #[error("the monitor starts and ends the engine, which takes root: sudo verdictd monitor")]
    NotRoot,
    /// Signals, sockets.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Watches in the foreground until SIGTERM or SIGINT, which leave the engine as it is, or until a file is found changed.
///
/// # Errors
/// If it cannot begin, or another one took its place.
pub fn run(mut options: Options) -> Result<Outcome, MonitorError> {
    options.every = options.every.max(Duration::from_secs(1));
    if !rustix::process::geteuid().is_root() {
        return Err(MonitorError::NotRoot);
    }
    let pid_file = hold(&options.places)?;
    let stop = Stop::new()?;
    let mut monitor = Monitor::new(options, pid_file, stop);
    info!("watching, a look every {:?}", monitor.options.every);
    if !monitor.options.places.manifest.exists() {
        warn!("the files are not sealed, a changed one goes unnoticed: verdictctl harden");
    }
    if let Err(error) = notify("READY=1") {
        warn!("cannot tell the service manager that we are ready: {error}");
    }
    let outcome = monitor.watch();
    monitor.save();
    outcome
}

fn hold(places: &Places) -> Result<PidFile, MonitorError> {
    let path = places.monitor_pid();
    make_folder_of(&path)?;
    Ok(PidFile::hold(&path)?)
}

/// Set by a signal, and wakes whoever sleeps.
#[derive(Debug)]
struct Stop {
    flag: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Stop {
    fn new() -> io::Result<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        let (wake, sender) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            // The flag first: whoever is woken finds it set.
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Stop { flag, wake })
    }

    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

/// The engine that is watched.
#[derive(Debug)]
struct Engine {
    process: Process,
    /// It was well once.
    answered: bool,
    since: Instant,
}

struct Monitor {
    options: Options,
    pid_file: PidFile,
    stop: Stop,
    systemd: bool,
    view: MonitorView,
    eyes: Eyes,
    audit: Option<AuditEye>,
    notes: Notes,
    backoff: Backoff,
    engine: Option<Engine>,
    /// Ours to reap.
    child: Option<Child>,
    /// What the last looks found, and how many of them.
    suspicion: Option<(Finding, u32)>,
    next_look: Instant,
    /// When the engine is started; none while it runs, or is not wanted.
    next_start: Option<Instant>,
    why: String,
    /// It was told that the engine is stopped on purpose.
    told_stopped: bool,
    next_trial: Instant,
    /// The engine was started again because of a failed test, which is to be repeated.
    on_trial: bool,
}

impl Monitor {
    fn new(options: Options, pid_file: PidFile, stop: Stop) -> Monitor {
        let now = Instant::now();
        let places = &options.places;
        let before = report::load(&places.report()).unwrap_or_default();
        let view = MonitorView {
            every_seconds: options.every.as_secs(),
            restarts: 0,
            last_restart: None,
            ..before
        };
        Monitor {
            systemd: systemd::manages(places),
            next_trial: now + trial::first(&view.selftest, options.selftest_every),
            view,
            options,
            pid_file,
            stop,
            eyes: Eyes::open(),
            audit: None,
            notes: Notes::default(),
            backoff: Backoff::default(),
            engine: None,
            child: None,
            suspicion: None,
            next_look: now,
            next_start: None,
            why: String::new(),
            told_stopped: false,
            on_trial: false,
        }
    }

    /// The loop: files first, then whether there is an engine, then how it is.
    fn watch(&mut self) -> Result<Outcome, MonitorError> {
        while !self.stop.is_set() {
            let now = Instant::now();
            let look = now >= self.next_look;
            if look && self.files() == Outcome::Violated {
                return Ok(Outcome::Violated);
            }
            self.follow(now);
            if look {
                self.keep_pid_file();
                self.next_look = now + self.options.every;
                self.look(now);
            }
            if self.next_start.is_some_and(|at| now >= at) && self.start() == Outcome::Violated {
                return Ok(Outcome::Violated);
            }
            if look {
                self.save();
            }
            self.sleep();
        }
        info!("told to stop; the engine is left as it is");
        Ok(Outcome::Stopped)
    }

    /// Somebody removed it: without it `verdictctl` would not find us.
    fn keep_pid_file(&mut self) {
        if self.pid_file.stands() {
            return;
        }
        match hold(&self.options.places) {
            Ok(file) => {
                warn!("somebody removed our pid file, it is written again");
                self.pid_file = file;
            }
            Err(error) => error!("our pid file is gone, and cannot be written again: {error}"),
        }
    }

    /// Is there an engine, and is it the one that was there?
    fn follow(&mut self, now: Instant) {
        if self
            .engine
            .as_ref()
            .is_some_and(|engine| engine.process.wait(Duration::ZERO))
        {
            let pid = self.engine.take().map_or(0, |engine| engine.process.pid());
            let how = self.reap();
            self.suspicion = None;
            if self.stopped_by().is_none() {
                self.want_start(now, format!("engine {pid} ended unexpectedly{how}"));
            }
        }
        if self.engine.is_some() {
            return;
        }
        match Process::engine(&self.options.places) {
            Some(process) => self.meet(process, now),
            None => self.absent(now),
        }
    }

    fn meet(&mut self, process: Process, now: Instant) {
        info!("engine {} runs", process.pid());
        self.engine = Some(Engine {
            process,
            answered: false,
            since: now,
        });
        self.next_start = None;
        self.told_stopped = false;
        self.next_look = self.next_look.min(now + self.soon());
    }

    /// By what an operator stopped the engine, if one did.
    fn stopped_by(&self) -> Option<String> {
        let said = pidfile::planned_end(&self.options.places.engine_pid());
        said.or_else(|| (self.systemd && systemd::is_stopped()).then(|| "systemctl stop".to_owned()))
    }

    fn absent(&mut self, now: Instant) {
        match self.stopped_by() {
            Some(by) => {
                if !self.told_stopped {
                    warn!(
                        "the engine was stopped on purpose ({by}): not started until somebody does, verdictctl start"
                    );
                    self.view.findings = vec![format!("the engine was stopped on purpose ({by})")];
                    self.save();
                }
                self.told_stopped = true;
                self.next_start = None;
            }
            None if self.next_start.is_none() => self.want_start(now, "no engine runs".into()),
            None => {}
        }
    }

    /// It is started after the delay that is due.
    fn want_start(&mut self, now: Instant, why: String) {
        let delay = self.backoff.delay();
        error!(
            "{why}: starting it in {} s; the kernel keeps rules and bans",
            delay.as_secs()
        );
        self.view.findings = vec![why.clone()];
        self.why = why;
        self.next_start = Some(now + delay);
        self.save();
    }

    /// Starts the engine, unless somebody did or does not want it.
    fn start(&mut self) -> Outcome {
        self.next_start = None;
        match self.try_start() {
            Ok(true) => {
                self.view.restarts += 1;
                self.view.last_restart = Some(format!("{}: {}", report::now(), self.why));
                info!("the engine was started again");
                let detail = format!("started the engine: {}", self.why);
                self.notes.add(NoteKind::Monitor, NoteResult::Failed, &detail);
            }
            Ok(false) | Err(LaunchError::Interrupted) => {}
            Err(error @ LaunchError::Tampered { .. }) => return self.violated(vec![error.to_string()]),
            Err(error) => {
                let why = format!("the engine cannot be started: {error}");
                self.want_start(Instant::now(), why);
            }
        }
        self.follow(Instant::now());
        Outcome::Stopped
    }

    fn try_start(&mut self) -> Result<bool, LaunchError> {
        let places = &self.options.places;
        let stop = || self.stop.is_set();
        let path = launch::verdictd()?;
        let program = Program::open(&path, places)?;
        let _lock = StartLock::take(places, &stop)?;
        if self.stopped_by().is_some() || Process::engine(places).is_some() {
            return Ok(false);
        }
        if self.systemd {
            drop(program);
            systemd::control(systemd::start_verb(), &[systemd::ENGINE_UNIT])
                .map_err(|why| LaunchError::Unknown { program: path, why })?;
            return Ok(true);
        }
        self.child = Some(launch::start_engine(places, &program, &stop)?);
        Ok(true)
    }

    /// Ends an engine that does not do its work; it is started again after the delay that is due.
    fn replace(&mut self, why: String, grace: Option<Duration>) {
        let Some(engine) = self.engine.take() else { return };
        let ended = match grace {
            None => engine.process.kill(),
            Some(grace) => engine.process.end(grace).map(drop),
        };
        if let Err(error) = ended {
            error!("engine {}: {error}", engine.process.pid());
        }
        self.reap();
        self.suspicion = None;
        // What it wrote at a planned end is not what an operator wants.
        drop(PidFile::hold(&self.options.places.engine_pid()));
        self.want_start(Instant::now(), why);
    }

    /// How our child ended, in words.
    fn reap(&mut self) -> String {
        let status = self.child.take().and_then(|mut child| child.wait().ok());
        status.map_or_else(String::new, |status| format!(" ({status})"))
    }

    fn save(&mut self) {
        if let Err(error) = report::save(&self.options.places.report(), &self.view) {
            warn!("cannot write {}: {error}", self.options.places.report().display());
        }
    }

    /// The time between two looks when something is suspicious.
    fn soon(&self) -> Duration {
        self.options.every.min(SOON)
    }

    /// Until something is due, a signal comes or the engine ends.
    fn sleep(&self) {
        let now = Instant::now();
        let mut end = self
            .next_start
            .map_or(self.next_look, |at| at.min(self.next_look));
        if self.engine.is_none() {
            // Somebody else may start one, or take his word back.
            end = end.min(now + ABSENT);
        }
        let mut fds = vec![PollFd::new(&self.stop.wake, PollFlags::IN)];
        if let Some(engine) = &self.engine {
            fds.push(PollFd::from_borrowed_fd(engine.process.as_fd(), PollFlags::IN));
        }
        let _ = poll(&mut fds, Some(&timespec(end.saturating_duration_since(now))));
    }
}

/// Between two looks at an engine that was found wanting: long enough for a reload or a flush of a slow disk.
const SOON: Duration = Duration::from_secs(5);
const ABSENT: Duration = Duration::from_secs(1);
/// How long an engine that answers has for a planned end.
const GRACE: Duration = Duration::from_secs(10);
/// How long a start may take before silence is a fault.
const STARTING: Duration = READY;
