//! Composition: open, spawn, wire, wait, stop in reverse. Whatever fails before the ruleset is loaded leaves the
//! running policy untouched; whatever fails after it ends the process, and the kernel keeps the policy.

mod crew;
mod trials;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, error, info, warn};

use self::crew::Crew;
use super::analyst::{Analyst, Command, Inbox};
use super::confine;
use super::denials::Denials;
use super::enforcer::{self, Enforcer, Expected, HOTTEST, Job, Mirror};
use super::error::DaemonError;
use super::handler::{EngineHandler, Running, Shared};
use super::handshakes::{self, Handshakes};
use super::herald::Herald;
use super::keeper::{Errand, Health, Keeper};
use super::last_good::{Chosen, LastGood};
use super::lockout::spare_sessions;
use super::open::{Opened, open, put_in_place};
use super::orders;
use super::pulse::Vitals;
use super::refusals;
use super::reload::{ReloadError, Reloader};
use super::report::Reporter;
use super::restore::Kept;
use super::scribe::{Desk, Task};
use super::trial::{Trials, Wish};
use super::worker::{Ears, Handle, Order, Tap};
use crate::audit::log::Audit;
use crate::audit::record::What;
use crate::config::Config;
use crate::control::pidfile::{self, PidFile};
use crate::control::server::{Bound, Server};
use crate::control::wire::Reply;
use crate::files;
use crate::kernel::confine::Confinement;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::{self, Layout, Ruleset, TableWatch};
use crate::notify::systemd::notify;
use crate::state::Place;
use crate::stats::Stats;
use crate::webhook::config::WebhookConfig;
use crate::webhook::{StartError, Webhooks, event};

/// How the engine is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Where state is kept; one engine per directory.
    pub state_dir: PathBuf,
    /// Where the control socket is made.
    pub runtime_dir: PathBuf,
    /// Where the audit log is kept.
    pub log_dir: PathBuf,
    /// Take the table out at exit.
    pub ephemeral: bool,
}

/// Runs the engine in the foreground until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let good = LastGood::beside(&options.state_dir);
    let Chosen { config, instead } = good.choose(&options.config, |config| spare_sessions(config, None))?;
    if !config.policy.enforce {
        let filter = match config.policy.mode.filters_ports() {
            true => "ports that are not allowed are refused, ",
            false => "",
        };
        warn!(
            "OBSERVING: offenders are recorded and not banned (bans.enforce = false); {filter}what an operator \
             bans is dropped"
        );
    }
    for note in &config.notes {
        warn!("{}: {note}", options.config.display());
    }
    let _lock = lock(&options.state_dir)?;
    make_dir(&options.runtime_dir)?;
    let control = Server::bind(&options.runtime_dir.join("control.sock"))?;
    let mut pid_file = hold_pid_file(&options.runtime_dir);
    let place = Place::new(&options.state_dir, config.engine.state_file.as_deref());
    let opened = open(&config, Kept::load(&place, config.policy.max_sources))?;
    // Files and capabilities bind a thread and what it starts: from here on threads are made.
    let confinement = confine::enter(options, &config, &place);
    opened.health.config(instead.clone());
    let engine = Engine::start(options, &config, opened, control, place, &confinement)?;
    confine::seal(&confinement);
    if instead.is_none() {
        good.keep(&options.config, &config.sha256);
    }
    // Whoever started us may have hung up; that is no reason to stop protecting.
    if let Err(error) = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush()) {
        warn!("cannot print that we are ready: {error}");
    }
    if let Err(error) = notify("READY=1") {
        warn!("cannot tell the service manager that we are ready: {error}");
    }
    let outcome = engine.wait();
    if let Err(error) = notify("STOPPING=1") {
        warn!("cannot tell the service manager that we stop: {error}");
    }
    let why = outcome
        .as_ref()
        .map_or_else(ToString::to_string, |signal| (*signal).to_owned());
    // Said first: a stop may take its time, in which nobody answers.
    if let (Ok(signal), Some(file)) = (&outcome, &mut pid_file)
        && let Err(error) = file.planned_end(signal)
    {
        warn!("cannot write that this end is wanted, a monitor may start the engine again: {error}");
    }
    engine.stop(options.ephemeral, why);
    outcome.map(drop)
}

/// Tells monitor and `verdictctl` which process this is. They can do without: the control socket tells it too.
fn hold_pid_file(runtime_dir: &Path) -> Option<PidFile> {
    PidFile::hold(&runtime_dir.join(pidfile::ENGINE))
        .inspect_err(|error| warn!("{error}"))
        .ok()
}

/// Holds the state directory for this process; released by the kernel when it ends, however it ends.
pub(super) fn lock(state_dir: &Path) -> Result<File, DaemonError> {
    make_dir(state_dir)?;
    let path = state_dir.join("lock");
    let directory = |source| DaemonError::Directory {
        path: state_dir.to_owned(),
        source,
    };
    clear(&path);
    let file = files::careful()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| regular(file, state_dir))
        .map_err(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Running(state_dir.to_owned())),
        Err(error) => Err(directory(error.into())),
    }
}

/// A link or a pipe in the place of the lock locks nothing, and would keep everybody from restoring.
fn clear(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        let _ = fs::remove_file(path);
    }
}

/// The folder is the engine's: root, who restores without it, is not led elsewhere by what lies there, and leaves nothing
/// that the engine could not open. A second name of another's file is nothing to give away.
fn regular(file: File, state_dir: &Path) -> io::Result<File> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("its lock is not a regular file"));
    }
    if geteuid().is_root() && found.uid() == 0 && found.nlink() == 1 {
        let owner = fs::metadata(state_dir)?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

fn make_dir(path: &Path) -> Result<(), DaemonError> {
    files::make_folder(path, 0o750).map_err(|source| DaemonError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// The engine while it runs.
struct Engine {
    running: Shared,
    layout: Layout,
    events: Receiver<Event>,
    server: Server,
    workers: Vec<(Handle, JoinHandle<()>)>,
    refusals: JoinHandle<()>,
    reporter: Reporter,
    commands: Sender<Command>,
    analyst: JoinHandle<()>,
    jobs: Sender<Job>,
    enforcer: JoinHandle<Netlink>,
    tasks: Sender<Task>,
    scribe: JoinHandle<()>,
    keeper: JoinHandle<()>,
    errands: Sender<Errand>,
    followers: [JoinHandle<()>; 3],
    stop_followers: Arc<OwnedFd>,
    webhooks: Couriers,
    herald: Herald,
    audit: Audit,
    recorder: JoinHandle<()>,
    stats: Arc<Stats>,
    confinement: Arc<Confinement>,
    pulse: JoinHandle<()>,
    leash: Sender<()>,
    health: Arc<Health>,
    good: LastGood,
    trials: Trials,
}

/// The webhooks, for who asks how they are; none if they could not be started.
pub type Couriers = Arc<Mutex<Option<Webhooks>>>;

/// What the main thread waits for.
pub enum Event {
    /// The signal that says so.
    Stop(&'static str),
    /// Read the configuration again; whoever asked is told.
    Reload(Option<Sender<Reply>>),
    /// Something about a trial; whoever asked is told.
    Trial(Wish, Sender<Reply>),
    /// A thread ended, which none may before it is told to.
    Ended(String),
}

/// Tells the main thread when its thread ends, by return or by panic.
struct Alarm(Sender<Event>, String);

impl Drop for Alarm {
    fn drop(&mut self) {
        // Nobody listens once the engine stops on purpose.
        let _ = self.0.send(Event::Ended(std::mem::take(&mut self.1)));
    }
}

impl Engine {
    fn start(
        options: &Options,
        config: &Config,
        opened: Opened,
        control: Bound,
        place: Place,
        confinement: &Arc<Confinement>,
    ) -> Result<Engine, DaemonError> {
        let Opened {
            mut sets,
            watch,
            protection,
            feeds,
            backend,
            spec,
            restored,
            judges,
            health,
            generations,
            loaded,
            manner,
            eyes,
        } = opened;
        // Whatever can fail comes before the rules: under on_loss = "closed" rules without an engine shut ports.
        let asking = Netlink::open(mnl::Bus::Netfilter)?;
        let stop_followers = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let mut listening = Netlink::open(mnl::Bus::Netfilter)?;
        let now = Instant::now();
        let layout = spec.layout;
        let (alarm, events) = unbounded();
        let (webhooks, herald) = couriers(&options.state_dir, &health);
        let (audit, recorder) = crew::write_down(options, config, restored.ledger.active(), &alarm)?;
        let crew = Crew {
            alarm,
            policy: Arc::new(config.policy.clone()),
            stats: Arc::new(Stats::new(feeds.len(), now)),
            health,
            webhooks,
            herald,
            audit,
            stop_followers,
        };
        let (offence_sender, offences) = bounded(OFFENCE_CHANNEL);
        let (refusal_sender, refused) = bounded(refusals::CHANNEL);
        let (attempt_sender, attempts) = bounded(handshakes::CHANNEL);
        let (counted_sender, counted) = bounded(handshakes::COUNTED);
        let (word_sender, words) = unbounded();
        let (activity_sender, activity) = bounded(ACTIVITY);
        let (tasks, task_receiver) = unbounded();
        let ears = Ears {
            offences: offence_sender,
            attempts: attempt_sender,
            refusals: refusal_sender,
            herald: crew.herald.clone(),
            activity: Tap::new(activity_sender, now),
            gate: crew.audit.gate(),
        };
        let (commands, command_receiver) = unbounded();
        let (jobs, job_receiver) = unbounded();
        let (report_sender, reports) = unbounded();
        let (errands, errand_receiver) = bounded(ERRANDS);

        // Workers answer before the first rule leads to them.
        let workers = crew.workers(feeds, judges, &ears, spec.ephemeral, now)?;
        drop(ears);
        let refusals = crew.refusals(refused)?;
        let handles: Box<[Handle]> = workers.iter().map(|(handle, _)| handle.clone()).collect();

        // Listens from before the table is written, so that nothing somebody else does to it goes unheard.
        let table_watch = TableWatch::open(sets.netlink().portid())?;
        let managed = config.engine.manage_ruleset;
        let vitals: Arc<Vitals> = Arc::default();
        vitals.inherit(&mut listening, !managed);
        let wanted = Mirror::of(restored.ledger.bans());
        let ruleset = put_in_place(
            sets.netlink(),
            Ruleset::build(&spec),
            loaded.as_ref(),
            &config.engine,
            &wanted.hottest(HOTTEST, now),
        )?;
        let expected: Expected = Arc::new(Mutex::new(Arc::new(ruleset)));
        let (leash, pulse) = crew.pulse(handles.clone(), &expected, listening, &jobs, &vitals)?;

        let mut enforcer = Enforcer::new(
            sets,
            wanted,
            Arc::clone(&expected),
            &config.engine,
            enforcer::Desk {
                jobs: job_receiver,
                reports: report_sender,
                scribe: tasks.clone(),
                stats: Arc::clone(&crew.stats),
            },
        );
        enforcer.begin(&restored.changes);
        // Reads what waits on disk, which may be much: the kernel holds rules and bans by now.
        if let Err(error) = reload_couriers(&crew.webhooks, &config.webhooks) {
            crew.health.trouble(format!("no webhooks: {error}"));
        }
        let desk = Desk {
            place: place.clone(),
            tasks: task_receiver,
            activity,
            keeper: errands.clone(),
            health: Arc::clone(&crew.health),
            herald: crew.herald.clone(),
            stats: Arc::clone(&crew.stats),
        };
        let scribe = crew.scribe(desk, generations.next)?;
        let enforcer = spawn("enforcer", &crew.alarm, move || enforcer.run())?;
        let mut analyst = Analyst::new(
            Arc::clone(&crew.policy),
            protection.clone(),
            handles.clone(),
            layout.seed,
            jobs.clone(),
            Arc::clone(&crew.stats),
        )
        .with_watcher(word_sender);
        analyst.restore(restored.ledger, restored.attacks);
        let inbox = Inbox {
            offences,
            commands: command_receiver,
            attempts: counted,
            reports,
        };
        let analyst = crew.analyst(analyst, inbox)?;
        let kept_at = place.clone();
        let keeper = crew.keeper(Keeper {
            place,
            every: config.engine.snapshot_every,
            seed: layout.seed,
            workers: handles.clone(),
            analyst: commands.clone(),
            scribe: tasks.clone(),
            generation: generations.loaded,
            health: Arc::clone(&crew.health),
            herald: crew.herald.clone(),
            errands: errand_receiver,
        })?;
        let protector = crew.protector(watch, &commands)?;
        let watcher = crew.handshakes(Handshakes {
            eyes,
            attempts,
            words,
            workers: handles.clone(),
            seed: layout.seed,
            counted: counted_sender,
            stats: Arc::clone(&crew.stats),
            policy: Arc::clone(&crew.policy),
            own: protection.own(),
            local_ports: spec.ephemeral,
            stop: Arc::clone(&crew.stop_followers),
        })?;
        let running = Shared::new(Running {
            path: options.config.clone(),
            config: config.clone(),
            backend,
            manner: manner.clone(),
        });
        let reconciler = crew.reconciler(table_watch, &jobs)?;
        let trials = Trials::default();
        let reporter = Reporter::start(
            running.clone(),
            Arc::clone(&crew.stats),
            handles.clone(),
            commands.clone(),
        )?;
        let handler = EngineHandler {
            running: running.clone(),
            events: crew.alarm.clone(),
            layout,
            stats: Arc::clone(&crew.stats),
            webhooks: Arc::clone(&crew.webhooks),
            commands: commands.clone(),
            workers: handles,
            expected,
            netlink: Mutex::new(asking),
            keeper: errands.clone(),
            place: kept_at,
            health: Arc::clone(&crew.health),
            audit: crew.audit.clone(),
            denials: Denials::new(crew.audit.clone()),
            confinement: Arc::clone(confinement),
            vitals,
            herald: crew.herald.clone(),
            trials: trials.clone(),
        };
        let server = control.serve(Arc::new(handler))?;
        follow_signals(crew.alarm.clone())?;
        crew.introduce(config, manner.stateless.as_deref(), backend, &layout);
        info!("control socket {}", server.path().display());
        crew.tell_others(config, &restored.ended);
        Ok(Engine {
            running,
            layout,
            events,
            server,
            workers,
            refusals,
            reporter,
            commands,
            analyst,
            jobs,
            enforcer,
            tasks,
            scribe,
            keeper,
            errands,
            followers: [protector, reconciler, watcher],
            stop_followers: crew.stop_followers,
            webhooks: crew.webhooks,
            herald: crew.herald,
            audit: crew.audit,
            recorder,
            stats: crew.stats,
            confinement: Arc::clone(confinement),
            pulse,
            leash,
            health: crew.health,
            good: LastGood::beside(&options.state_dir),
            trials,
        })
    }

    /// Until a signal says stop, or a thread is lost.
    fn wait(&self) -> Result<&'static str, DaemonError> {
        loop {
            match self.next_event() {
                Ok(Event::Stop(signal)) => {
                    info!("{signal}: stopping");
                    return Ok(signal);
                }
                Ok(Event::Reload(asker)) => {
                    let reply = self.reload(if asker.is_some() {
                        "control socket"
                    } else {
                        "SIGHUP"
                    });
                    // Whoever asked may have hung up.
                    if let Some(asker) = asker {
                        let _ = asker.send(reply);
                    }
                }
                Ok(Event::Trial(wish, asker)) => drop(asker.send(self.grant(&wish))),
                Ok(Event::Ended(thread)) => return Err(DaemonError::Lost(thread)),
                Err(_) => return Err(DaemonError::Lost("every thread".into())),
            }
        }
    }

    /// Another configuration, or everything as it was; told to the log and to whoever asked, and written down.
    fn reload(&self, by: &'static str) -> Reply {
        let before = self.running.get();
        let reply = match self.trials.forbids().or_else(|| self.audit.refuses()) {
            Some(why) => {
                error!("reload refused: {why}");
                Reply::refused(why)
            }
            None => self.try_reload(),
        };
        self.recorded(|| orders::reloaded(by, &before, &self.running.get(), &reply));
        reply
    }

    /// Has `record` written down by whichever of the two configurations wants it, and goes on by the one in force.
    fn recorded(&self, record: impl Fn() -> What) {
        let was_on = self.audit.is_on();
        if was_on {
            self.audit.note(&record);
        }
        self.audit.configure(&self.running.get().config.audit);
        if !was_on {
            self.audit.note(&record);
        }
    }

    fn try_reload(&self) -> Reply {
        let taken = self.with_reloader(|reloader| reloader.reload());
        self.taken_up(taken)
    }

    fn with_reloader<T>(&self, act: impl FnOnce(&Reloader<'_>) -> T) -> T {
        let handles: Vec<Handle> = self.workers.iter().map(|(handle, _)| handle.clone()).collect();
        let reloader = Reloader {
            running: &self.running,
            layout: self.layout,
            workers: &handles,
            jobs: &self.jobs,
            commands: &self.commands,
            keeper: &self.errands,
        };
        act(&reloader)
    }

    /// What follows from another configuration, or is said of one that was refused.
    fn taken_up(&self, taken: Result<Vec<String>, ReloadError>) -> Reply {
        match taken {
            Ok(mut changes) => {
                self.reporter.look();
                // Webhooks that cannot be changed are no reason to refuse: protection has been changed already.
                let running = self.running.get();
                self.health.config(None);
                self.good.keep(&running.path, &running.config.sha256);
                let _ = reload_couriers(&self.webhooks, &running.config.webhooks);
                changes.extend(confine::kept_back(&self.confinement, &running.config.webhooks));
                for change in &changes {
                    info!("reload: {change}");
                }
                info!("reloaded, settings that changed: {}", changes.len());
                Reply::Reloaded(changes)
            }
            Err(error) => {
                error!("reload refused, everything stays as it was");
                error.to_string().lines().for_each(|line| error!("{line}"));
                Reply::refused(error)
            }
        }
    }

    /// Stops in reverse order of the flow and goes on past errors.
    fn stop(self, ephemeral: bool, why: String) {
        let bans = usize::try_from(self.stats.bans_active.get()).unwrap_or(usize::MAX);
        self.herald
            .tell(|now| event::firewall_stopped(now, "stopped", bans));
        self.server.stop();
        // The last snapshot, while all who hold something can still tell.
        let _ = self.errands.send(Errand::Stop);
        join(self.keeper);
        self.reporter.stop();
        drop(self.leash);
        join(self.pulse);
        for (handle, _) in &self.workers {
            handle.order(Order::Stop);
        }
        for (_, thread) in self.workers {
            join(thread);
        }
        join(self.refusals);
        let _ = rustix::io::write(&self.stop_followers, &1u64.to_ne_bytes());
        for thread in self.followers {
            join(thread);
        }
        let _ = self.commands.send(Command::Stop);
        join(self.analyst);
        // What was decided is done, written down and told before those leave to whom it is told.
        let _ = self.jobs.send(Job::Stop);
        let netlink = join(self.enforcer);
        let _ = self.tasks.send(Task::Stop);
        join(self.scribe);
        self.audit.note(|| What::Stop { why });
        self.audit.stop();
        join(self.recorder);
        let webhooks = self
            .webhooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(webhooks) = webhooks {
            // What is not sent by then is in the spool, and sent at the next start.
            let left = webhooks.stop(Instant::now() + LAST_SENDING);
            debug!(?left, "webhooks");
        }
        let Some(mut netlink) = netlink else {
            return;
        };
        if ephemeral && let Err(error) = ruleset::delete(&mut netlink) {
            error!("table inet verdictd stays behind: {error}");
        }
    }
}

/// What a worker that hangs comes to: no thread can be waited for that may never end, so that the process ends as by a
/// kill, which costs nothing that was reported.
fn give_up(audit: &Audit, herald: &Herald, stats: &Arc<Stats>) -> Box<dyn Fn(String) + Send> {
    let (audit, herald, stats) = (audit.clone(), herald.clone(), Arc::clone(stats));
    Box::new(move |why| {
        let bans = usize::try_from(stats.bans_active.get()).unwrap_or(usize::MAX);
        herald.tell(|now| event::firewall_stopped(now, "stopped", bans));
        audit.note(|| What::Stop { why });
        thread::sleep(LAST_WORDS);
        std::process::exit(1);
    })
}

/// What is written down of a start.
fn starts(options: &Options, config: &Config, bans: usize) -> What {
    What::Start {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        mode: config.policy.mode.to_string(),
        enforce: config.policy.enforce,
        config: options.config.display().to_string(),
        config_sha256: config.sha256.clone(),
        bans: bans as u64,
    }
}

/// Starts the threads of the webhooks, which send nothing yet; without them everything else goes on, and `status` says
/// so.
fn couriers(state_dir: &Path, health: &Health) -> (Couriers, Herald) {
    match Webhooks::start(&WebhookConfig::default(), &state_dir.join("webhooks")) {
        Ok((webhooks, outbox)) => (Arc::new(Mutex::new(Some(webhooks))), Herald::new(Some(outbox))),
        Err(error) => {
            error!("no webhooks: {error}");
            health.trouble(format!("no webhooks: {error}"));
            (Arc::default(), Herald::default())
        }
    }
}

/// Has them go on by `config`.
fn reload_couriers(couriers: &Couriers, config: &WebhookConfig) -> Result<(), StartError> {
    let mut couriers = couriers.lock().unwrap_or_else(PoisonError::into_inner);
    let done = couriers
        .as_mut()
        .map_or(Ok(()), |webhooks| webhooks.reload(config));
    done.inspect_err(|error| error!("webhooks: {error}"))
}

fn spawn<T: Send + 'static>(
    name: &str,
    alarm: &Sender<Event>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let alarm = Alarm(alarm.clone(), name.to_owned());
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        body()
    })
}

/// The result of a thread; a panic was reported by the panic hook and by its alarm already.
fn join<T>(thread: JoinHandle<T>) -> Option<T> {
    thread.join().ok()
}

fn follow_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => Event::Reload(None),
                SIGINT => Event::Stop("SIGINT"),
                _ => Event::Stop("SIGTERM"),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Offences on their way to the analyst. A full channel loses nothing: the source stays dropped and its next
/// packet carries the offence again.
const OFFENCE_CHANNEL: usize = 4096;
/// How long log, audit log and spool have to be written when a worker hangs.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How long a stop waits for webhooks that are on their way.
const LAST_SENDING: Duration = Duration::from_secs(2);
/// What workers counted and the journal has not written yet: a second of it from two workers.
const ACTIVITY: usize = 4096;
/// Errands of the snapshot thread that wait for the one it is at.
const ERRANDS: usize = 16;
