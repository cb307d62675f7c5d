//! Composition: open, spawn, wire, wait, stop in reverse. Whatever fails before the ruleset is loaded leaves the
//! running policy untouched; whatever fails after it ends the process, and the kernel keeps the policy.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use tracing::{error, info, warn};

use super::analyst::{Analyst, Command, Inbox};
use super::enforcer::{Enforcer, Expected, Failure, Job, Report};
use super::handler::{EngineHandler, Running, Shared, on_loss};
use super::keeper::{Errand, Health, Keeper};
use super::lockout::{self, Lockout};
use super::notify::notify;
use super::protect::{self, Protection};
use super::reconciler;
use super::refusals;
use super::reload::Reloader;
use super::report::Reporter;
use super::restore::{Kept, Restored};
use super::room::Manner;
use super::worker::{Ears, Handle, Order, Worker};
use crate::config::{self, Config, ConfigError};
use crate::control::server::{Bound, Server, ServerError};
use crate::control::wire::Reply;
use crate::core::judge::Judge;
use crate::core::policy::{OnLoss, Policy};
use crate::core::verdict::Class;
use crate::kernel::host::{self, HostError, Watch};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::preflight::{self, PreflightError};
use crate::kernel::queue::{COPY_RANGE, Feed, FeedConfig, FeedError, Numbered, free_groups, free_queues};
use crate::kernel::ruleset::{
    self, Backend, Family, Layout, Loaded, Ruleset, RulesetError, Spec, TableWatch,
};
use crate::kernel::sets::BanSets;
use crate::state::Place;
use crate::stats::Stats;

/// How the engine is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Where state is kept; one engine per directory.
    pub state_dir: PathBuf,
    /// Where the control socket is made.
    pub runtime_dir: PathBuf,
    /// Take the table out at exit.
    pub ephemeral: bool,
}

/// Why the engine did not start, or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A directory cannot be made or used.
    #[error("cannot use directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another engine has this state directory.
    #[error("another engine runs on state directory {}; stop it, or give --state-dir another directory", .0.display())]
    Running(PathBuf),
    /// The operator loads the table, and has not.
    #[error(
        "engine.manage_ruleset = false, and table inet verdictd is not loaded: write it with \"verdictd ruleset --config FILE > \
         /etc/verdictd/verdictd.nft\", include that file in /etc/nftables.conf and load it"
    )]
    NotLoaded,
    /// The operator's table leads packets where nobody would read them.
    #[error(
        "engine.manage_ruleset = false, and the loaded table inet verdictd does not fit the configuration ({}): packets would go where \
         nobody reads them; write the table again with \"verdictd ruleset\" and load it, or correct the configuration",
        .0.join("; ")
    )]
    Misfit(Vec<String>),
    /// Another process answers for our table.
    #[error("table inet verdictd is served by another process: {0}")]
    Served(FeedError),
    /// The same, by the first number of the table.
    #[error("table inet verdictd is served by another process ({kind} {number} is taken), stop that engine first", kind = .0.word(), number = .1)]
    Answered(Numbered, u16),
    /// Queues or log groups.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The policy would lock somebody out.
    #[error(transparent)]
    Lockout(#[from] Lockout),
    /// The kernel cannot do what is needed.
    #[error("preflight: {0}")]
    Preflight(#[from] PreflightError),
    /// The table.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Addresses and routes.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// Threads, event descriptors, signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A thread that must not end did.
    #[error("{0} ended unexpectedly; the kernel keeps bans and port filter, on_loss decides about the rest")]
    Lost(String),
}

/// Runs the engine in the foreground until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let config = config::load(&options.config)?;
    for note in &config.notes {
        warn!("{}: {note}", options.config.display());
    }
    lockout::spare_sessions(&config, None)?;
    let _lock = lock(&options.state_dir)?;
    make_dir(&options.runtime_dir)?;
    let control = Server::bind(&options.runtime_dir.join("control.sock"))?;
    let place = Place::new(&options.state_dir, config.engine.state_file.as_deref());
    let opened = open(&config, Kept::load(&place, config.policy.max_sources))?;
    let engine = Engine::start(options, &config, opened, control, place)?;
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
    engine.stop(options.ephemeral);
    outcome
}

/// Holds the state directory for this process; released by the kernel when it ends, however it ends.
fn lock(state_dir: &Path) -> Result<File, DaemonError> {
    make_dir(state_dir)?;
    let path = state_dir.join("lock");
    let directory = |source| DaemonError::Directory {
        path: state_dir.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Running(state_dir.to_owned())),
        Err(error) => Err(directory(error.into())),
    }
}

fn make_dir(path: &Path) -> Result<(), DaemonError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(|source| DaemonError::Directory {
            path: path.to_owned(),
            source,
        })
}

/// What is open before anything in the kernel's policy changes.
struct Opened {
    netlink: Netlink,
    sets: BanSets,
    watch: Watch,
    protection: Protection,
    feeds: Vec<Feed>,
    backend: Option<Backend>,
    spec: Spec,
    restored: Restored,
    judges: Vec<Judge>,
    health: Arc<Health>,
    loaded: Option<Loaded>,
    /// Why the table is stateless though the configuration asks for more.
    stateless: Option<String>,
}

fn open(config: &Config, mut kept: Kept) -> Result<Opened, DaemonError> {
    let policy = &config.policy;
    // Watched first, so that no change between reading and watching is missed.
    let watch = Watch::open()?;
    let facts = host::gather()?;
    for note in &facts.notes {
        warn!("{note}");
    }
    let protection = Protection::of(facts.protected, &policy.trusted);
    let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
    let mut sets = BanSets::open()?;
    let loaded = ruleset::read(&mut netlink)?;
    if let Some(loaded) = &loaded {
        unanswered(loaded)?;
    }
    let awake = loaded.as_ref().is_some_and(|loaded| !loaded.observing);
    let manner = Manner::of(config, awake);
    let backend = match (manner.observing, config.engine.manage_ruleset) {
        (true, _) => None,
        (false, true) => Some(preflight::judge_one_packet()?),
        // Its rules load, so this kernel has what they use; a chain of ours would be one too many.
        (false, false) => loaded.as_ref().and_then(|loaded| loaded.backend),
    };
    if !config.engine.manage_ruleset {
        let loaded = loaded.as_ref().ok_or(DaemonError::NotLoaded)?;
        match misfits(loaded, config, &manner) {
            misfits if misfits.is_empty() => {}
            misfits => return Err(DaemonError::Misfit(misfits)),
        }
    }
    // Everything is remembered before the first queue is bound: what waits in one is judged by all that is known.
    let found = loaded.as_ref().and_then(|loaded| loaded.seed);
    let seed = match config.engine.seed.or(found).or(kept.seed()) {
        Some(seed) => seed,
        None => draw_seed()?,
    };
    let live = if loaded.is_some() {
        sets.dump()?
    } else {
        Vec::new()
    };
    let policy = Arc::new(policy.clone());
    let restored = kept.join(&live, &policy, &protection, Instant::now());
    let (restored, judges) = restored.judges(&policy, &protection, seed, config.engine.workers);
    let (layout, feeds) = feeds(config, &manner, loaded.as_ref(), seed)?;
    let mut spec = spec(
        config,
        layout,
        backend.unwrap_or(Backend::Native),
        facts.local_ports,
    );
    manner.shape(&mut spec);
    if config.engine.manage_ruleset {
        restored.make_room(&mut spec);
    }
    Ok(Opened {
        netlink,
        sets,
        watch,
        protection,
        feeds,
        backend,
        spec,
        restored,
        judges,
        health: Arc::new(Health::new(kept.troubles)),
        loaded,
        stateless: manner.stateless,
    })
}

/// Where an operator's table would send packets past the queues and groups of this configuration, in words. What else
/// differs is told by `status`; this would be a hole or a wall.
fn misfits(loaded: &Loaded, config: &Config, manner: &Manner) -> Vec<String> {
    let engine = &config.engine;
    let mut misfits = Vec::new();
    let mut compare = |what: &str, found: Option<u32>, wanted: Option<u32>| {
        if let Some(wanted) = wanted
            && found != Some(wanted)
        {
            let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
            misfits.push(format!("{what} is {found} there and {wanted} here"));
        }
    };
    compare(
        "workers",
        loaded.workers.map(u32::from),
        u32::try_from(engine.workers).ok(),
    );
    compare(
        "log_base",
        loaded.log_base.map(u32::from),
        engine.log_base.map(u32::from),
    );
    if !manner.observing {
        compare(
            "queue_base",
            loaded.queue_base.map(u32::from),
            engine.queue_base.map(u32::from),
        );
    }
    compare("seed", loaded.seed, engine.seed);
    if loaded.observing != manner.observing {
        misfits.push(match loaded.observing {
            true => "it only observes".to_owned(),
            false => "it holds packets, and the configuration only observes".to_owned(),
        });
    }
    misfits
}

/// Makes sure that no living engine answers for a loaded table: whatever numbers ours would take, loading its
/// rules would leave the other one deaf. A holder that has just died is given a moment.
fn unanswered(loaded: &Loaded) -> Result<(), DaemonError> {
    let until = Instant::now() + DYING;
    loop {
        let queue = loaded
            .queue_base
            .map(|base| (Numbered::Queue, base, free_queues(base, 1)));
        let group = loaded
            .log_base
            .map(|base| (Numbered::LogGroup, base, free_groups(base, 1)));
        let mut taken = None;
        for (kind, base, free) in queue.into_iter().chain(group) {
            match free {
                Ok(free) if free == base => {}
                Ok(_) | Err(FeedError::Exhausted { .. }) => taken = Some(DaemonError::Answered(kind, base)),
                Err(error) => return Err(error.into()),
            }
        }
        match taken {
            None => return Ok(()),
            Some(error) if Instant::now() >= until => return Err(error),
            Some(_) => thread::sleep(DYING / 50),
        }
    }
}

/// Binds every queue and log group, before any rule leads there. The numbers of a loaded table are kept, so that
/// an adopted table needs no moment without a listener.
fn feeds(
    config: &Config,
    manner: &Manner,
    loaded: Option<&Loaded>,
    seed: u32,
) -> Result<(Layout, Vec<Feed>), DaemonError> {
    let workers = config.engine.workers as u16;
    if let Some(kept) = loaded.and_then(|loaded| kept_layout(loaded, seed, config, manner)) {
        return match bind(config, manner, &kept) {
            Ok(feeds) => Ok((kept, feeds)),
            Err(error @ FeedError::Taken { .. }) => Err(DaemonError::Served(error)),
            Err(error) => Err(error.into()),
        };
    }
    let queue_base = match config.engine.queue_base {
        Some(fixed) => fixed,
        None if manner.observing => FIRST_NUMBER,
        None => free_queues(FIRST_NUMBER, 2 * workers)?,
    };
    let log_base = match config.engine.log_base {
        Some(fixed) => fixed,
        None => free_groups(FIRST_NUMBER, workers)?,
    };
    let layout = Layout {
        queue_base,
        log_base,
        workers,
        seed,
    };
    let feeds = bind(config, manner, &layout)?;
    Ok((layout, feeds))
}

/// The numbers of a loaded table, if they are all that this configuration needs and asks for.
fn kept_layout(loaded: &Loaded, seed: u32, config: &Config, manner: &Manner) -> Option<Layout> {
    let queue_base = loaded.queue_base.or(manner.observing.then_some(FIRST_NUMBER))?;
    let layout = Layout {
        queue_base,
        log_base: loaded.log_base?,
        workers: loaded.workers?,
        seed,
    };
    let engine = &config.engine;
    let asked = usize::from(layout.workers) == engine.workers
        && engine.queue_base.is_none_or(|base| base == layout.queue_base)
        && engine.log_base.is_none_or(|base| base == layout.log_base);
    asked.then_some(layout)
}

fn bind(config: &Config, manner: &Manner, layout: &Layout) -> Result<Vec<Feed>, FeedError> {
    (0..layout.workers)
        .map(|worker| Feed::open(&feed_config(config, manner, layout, worker)))
        .collect()
}

/// What worker number `worker` listens to.
pub fn feed_config(config: &Config, manner: &Manner, layout: &Layout, worker: u16) -> FeedConfig {
    let observing = manner.observing;
    FeedConfig {
        new_queue: (!observing).then(|| layout.new_queue(worker)),
        odd_queue: (!observing).then(|| layout.odd_queue(worker)),
        log_group: layout.log_group(worker),
        log_class: if observing {
            Class::Observed
        } else {
            Class::Refused
        },
        queue_length: manner.queue_length,
        fail_open: config.engine.on_loss == OnLoss::Open,
        copy_range: COPY_RANGE,
    }
}

fn draw_seed() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The table that `config` asks for, with the numbers and the way of handing packets over that were found.
pub fn spec(config: &Config, layout: Layout, backend: Backend, local_ports: RangeInclusive<u16>) -> Spec {
    let policy = &config.policy;
    Spec {
        observing: policy.observes_only(),
        filter_ports: policy.mode.filters_ports(),
        layout,
        backend,
        on_loss: config.engine.on_loss,
        trusted: policy.trusted.clone(),
        tcp_allowed: policy.tcp_allowed.clone(),
        udp_allowed: policy.udp_allowed.clone(),
        other_protocols: policy.other_protocols,
        internal_interfaces: config
            .engine
            .internal_interfaces
            .iter()
            .map(ToString::to_string)
            .collect(),
        v6_prefix: policy.v6_prefix,
        ban_set_size: config.engine.ban_set_size,
        prefix_sets: match config.engine.manage_ruleset {
            true => BTreeSet::new(),
            // Nobody adds a set to an operator's table later: those that an engine needs most are in it.
            false => BTreeSet::from([(Family::V4, 24), (Family::V6, 48), (Family::V6, 128)]),
        },
        ephemeral: local_ports.into_inner(),
    }
}

/// Loads the table, or takes the operator's as it is and says how it differs; what is expected of it from now on.
fn put_in_place(
    netlink: &mut Netlink,
    ruleset: Ruleset,
    loaded: Option<&Loaded>,
    managed: bool,
) -> Result<Ruleset, RulesetError> {
    if !managed {
        for difference in loaded
            .map(|loaded| loaded.differences(&ruleset))
            .unwrap_or_default()
        {
            warn!("the loaded table is not what this configuration would load: {difference}");
        }
        return Ok(ruleset);
    }
    let applied = ruleset::apply_over(netlink, &ruleset, loaded)?;
    for kept in applied.kept {
        warn!(
            "set {} keeps its size {:?} instead of {}: making it anew would lose its bans",
            kept.name, kept.size, kept.wanted
        );
    }
    Ok(ruleset.with_ban_sets(&applied.adopted))
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
    keeper: JoinHandle<()>,
    errands: Sender<Errand>,
    followers: [JoinHandle<()>; 2],
    stop_followers: Arc<OwnedFd>,
}

/// What the main thread waits for.
pub enum Event {
    /// The signal that says so.
    Stop(&'static str),
    /// Read the configuration again; whoever asked is told.
    Reload(Option<Sender<Reply>>),
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
    ) -> Result<Engine, DaemonError> {
        let Opened {
            mut netlink,
            mut sets,
            watch,
            protection,
            feeds,
            backend,
            spec,
            restored,
            judges,
            health,
            loaded,
            stateless,
        } = opened;
        // Whatever can fail comes before the rules: under on_loss = "closed" rules without an engine shut ports.
        let asking = Netlink::open(mnl::Bus::Netfilter)?;
        let stop_followers = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let now = Instant::now();
        let policy = Arc::new(config.policy.clone());
        let stats = Arc::new(Stats::new(feeds.len(), now));
        let layout = spec.layout;
        let (alarm, events) = unbounded();
        let (offence_sender, offences) = bounded(OFFENCE_CHANNEL);
        let (refusal_sender, refused) = bounded(refusals::CHANNEL);
        let ears = Ears {
            offences: offence_sender,
            refusals: refusal_sender,
        };
        let (commands, command_receiver) = unbounded();
        let (jobs, job_receiver) = unbounded();
        let (report_sender, reports) = unbounded();
        let (errands, errand_receiver) = bounded(ERRANDS);

        // Workers answer before the first rule leads to them.
        let mut workers = Vec::new();
        for (index, (feed, judge)) in feeds.into_iter().zip(judges).enumerate() {
            let (worker, handle) =
                Worker::new(feed, judge, ears.clone(), Arc::clone(&stats), index).map_err(io::Error::from)?;
            let thread = spawn(&format!("worker {index}"), &alarm, move || {
                if let Err(error) = worker.run() {
                    error!("worker {index}: {error}");
                }
            })?;
            workers.push((handle, thread));
        }
        drop(ears);
        let refusals = {
            let stats = Arc::clone(&stats);
            spawn("refusals", &alarm, move || refusals::follow(&refused, &stats))?
        };
        let handles: Box<[Handle]> = workers.iter().map(|(handle, _)| handle.clone()).collect();

        let managed = config.engine.manage_ruleset;
        let ruleset = put_in_place(&mut netlink, Ruleset::build(&spec), loaded.as_ref(), managed)?;
        let expected: Expected = Arc::new(Mutex::new(Arc::new(ruleset)));

        for (target, error) in sets.apply(&restored.changes) {
            // The analyst tries again, as with every ban that the kernel refuses.
            let _ = report_sender.send(Report::Refused(Failure {
                target,
                error: error.to_string(),
                withdrawn: false,
            }));
        }
        // Listens from before the first ban is added; what was lost before that, start itself has put right.
        let table_watch = TableWatch::open(netlink.portid())?;
        let enforcer = Enforcer::new(
            netlink,
            sets,
            Arc::clone(&expected),
            managed,
            job_receiver,
            report_sender,
        );
        let enforcer = spawn("enforcer", &alarm, move || enforcer.run())?;
        let mut analyst = Analyst::new(
            Arc::clone(&policy),
            protection.clone(),
            handles.clone(),
            layout.seed,
            jobs.clone(),
            Arc::clone(&stats),
        )
        .with_keeper(errands.clone());
        analyst.restore(restored.ledger);
        let inbox = Inbox {
            offences,
            commands: command_receiver,
            reports,
        };
        let analyst = spawn("analyst", &alarm, move || analyst.run(&inbox))?;
        let keeper = Keeper {
            place,
            every: config.engine.snapshot_every,
            seed: layout.seed,
            workers: handles.clone(),
            analyst: commands.clone(),
            health: Arc::clone(&health),
            errands: errand_receiver,
        };
        let keeper = spawn("keeper", &alarm, move || keeper.run())?;
        let protector = {
            let (commands, stop) = (commands.clone(), Arc::clone(&stop_followers));
            let first = protection.reasons.to_vec();
            spawn("protector", &alarm, move || {
                protect::follow(watch, first, commands, stop)
            })?
        };
        let running = Shared::new(Running {
            path: options.config.clone(),
            config: config.clone(),
            backend,
            stateless: stateless.clone(),
        });
        let reconciler = {
            let (jobs, stop) = (jobs.clone(), Arc::clone(&stop_followers));
            spawn("reconciler", &alarm, move || {
                reconciler::follow(table_watch, jobs, stop)
            })?
        };
        let reporter = Reporter::start(
            running.clone(),
            Arc::clone(&stats),
            handles.clone(),
            commands.clone(),
        )?;
        let handler = EngineHandler {
            running: running.clone(),
            events: alarm.clone(),
            layout,
            stats,
            commands: commands.clone(),
            workers: handles,
            expected,
            netlink: Mutex::new(asking),
            keeper: errands.clone(),
            health,
        };
        let server = control.serve(Arc::new(handler))?;
        follow_signals(alarm)?;
        introduce(
            &policy,
            stateless.as_deref(),
            config.engine.on_loss,
            backend,
            &layout,
        );
        info!("control socket {}", server.path().display());
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
            keeper,
            errands,
            followers: [protector, reconciler],
            stop_followers,
        })
    }

    /// Until a signal says stop, or a thread is lost.
    fn wait(&self) -> Result<(), DaemonError> {
        loop {
            match self.events.recv() {
                Ok(Event::Stop(signal)) => {
                    info!("{signal}: stopping");
                    return Ok(());
                }
                Ok(Event::Reload(asker)) => {
                    let reply = self.reload();
                    // Whoever asked may have hung up.
                    if let Some(asker) = asker {
                        let _ = asker.send(reply);
                    }
                }
                Ok(Event::Ended(thread)) => return Err(DaemonError::Lost(thread)),
                Err(_) => return Err(DaemonError::Lost("every thread".into())),
            }
        }
    }

    /// Another configuration, or everything as it was; told to the log and to whoever asked.
    fn reload(&self) -> Reply {
        let handles: Vec<Handle> = self.workers.iter().map(|(handle, _)| handle.clone()).collect();
        let reloader = Reloader {
            running: &self.running,
            layout: self.layout,
            workers: &handles,
            jobs: &self.jobs,
            commands: &self.commands,
            keeper: &self.errands,
        };
        match reloader.reload() {
            Ok(changes) => {
                self.reporter.look();
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
    fn stop(self, ephemeral: bool) {
        self.server.stop();
        // The last snapshot, while all who hold something can still tell.
        let _ = self.errands.send(Errand::Stop);
        join(self.keeper);
        self.reporter.stop();
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
        let _ = self.jobs.send(Job::Stop);
        let Some(mut netlink) = join(self.enforcer) else {
            return;
        };
        if ephemeral && let Err(error) = ruleset::delete(&mut netlink) {
            error!("table inet verdictd stays behind: {error}");
        }
    }
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

/// Says in plain words what happens from now on.
fn introduce(
    policy: &Policy,
    stateless: Option<&str>,
    loss: OnLoss,
    backend: Option<Backend>,
    layout: &Layout,
) {
    if let Some(why) = stateless {
        warn!("DEGRADED: {why}");
    }
    if !policy.enforce {
        warn!(
            "OBSERVING: offenders are recorded, none is banned and no ban drops anything (bans.enforce = false)"
        );
    }
    match policy.mode.filters_ports() && stateless.is_none() {
        true => info!(
            "mode {}: open are tcp {} and udp {}; every other port is refused by the kernel",
            policy.mode, policy.tcp_allowed, policy.udp_allowed
        ),
        false => info!("mode {}: no port is refused", policy.mode),
    }
    info!(
        "preset {}: a source that touches more than {} ports within {} min is an offender",
        policy.preset,
        policy.ports_threshold,
        policy.window.as_secs() / 60
    );
    match backend {
        Some(backend) => info!(
            "{} workers on queues {}..{} ({}), on_loss = {}",
            layout.workers,
            layout.queue_base,
            layout.queue_base + (2 * layout.workers - 1),
            backend,
            on_loss(loss)
        ),
        None => info!("{} workers on log copies, nothing is held", layout.workers),
    }
}

/// Queue numbers and log groups are looked for from here on: far from 0, which Suricata and OpenSnitch take.
pub const FIRST_NUMBER: u16 = 4100;
/// How long a number may stay taken after its holder was killed; see `kernel::queue`.
const DYING: Duration = Duration::from_secs(1);
/// Offences on their way to the analyst. A full channel loses nothing: the source stays dropped and its next
/// packet carries the offence again.
const OFFENCE_CHANNEL: usize = 4096;
/// Errands of the snapshot thread that wait for the one it is at.
const ERRANDS: usize = 16;
