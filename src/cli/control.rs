//! `verdictctl start`, `stop`, `restart` and `monitor`: through systemd where it has our units, else by what the kernel
//! says of the processes (locked pid files, the control socket's peer), and never by their names.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use super::apply::need_root;
use super::print::plain;
use super::{CliError, Client, Exit, Screen};
use crate::config;
use crate::control::pidfile;
use crate::control::wire::{Reply, Request};
use crate::core::policy::OnLoss;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset;
use crate::monitor::launch::{self, LaunchError, Program, StartLock, What};
use crate::monitor::places::Places;
use crate::monitor::process::{Ended, Process};
use crate::monitor::seal::{self, Verdict};
use crate::monitor::systemd::{self, ENGINE_UNIT, MONITOR_UNIT};
use crate::places;

/// Where the engine has its files; with the defaults it is systemd's where that runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PlaceArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
    /// Where socket and pid files are [default: the folder of the control socket]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// Where logs are; without systemd those of engine (verdictd.log) and monitor (monitor.log) too
    #[arg(long, value_name = "DIR", default_value = places::LOG_DIR)]
    log_dir: PathBuf,
    /// The sums of the files that must not change
    #[arg(
        long,
        hide = true,
        value_name = "FILE",
        default_value = places::MANIFEST
    )]
    manifest: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Stop also under on_loss = "closed", where nothing new gets in without the engine
    #[arg(long)]
    force: bool,
    /// Take rules and bans out of the kernel too, also when no engine runs: the host is then unprotected
    #[arg(long)]
    remove_rules: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct MonitorArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Time between two looks; shorter for tests
    #[arg(long, hide = true)]
    every: Option<String>,
    /// Time between two functional tests; shorter for tests
    #[arg(long, hide = true)]
    selftest_every: Option<String>,
}

impl PlaceArgs {
    fn places(self, client: &Client) -> Places {
        let beside = || client.path().parent().map(PathBuf::from).unwrap_or_default();
        Places {
            config: absolute(self.config),
            state_dir: absolute(self.state_dir),
            runtime_dir: absolute(self.runtime_dir.unwrap_or_else(beside)),
            log_dir: absolute(self.log_dir),
            manifest: absolute(self.manifest),
        }
    }
}

/// What is started has another working directory.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

pub(super) fn start(client: &Client, args: PlaceArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    need_root("start")?;
    let places = args.places(client);
    start_engine(&places, screen)?;
    Ok(Exit::Fine)
}

pub(super) fn monitor(client: &Client, args: MonitorArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    need_root("monitor")?;
    let places = args.places.places(client);
    refuse_violated(&places)?;
    start_engine(&places, screen)?;
    if let Some(monitor) = Process::monitor(&places) {
        writeln!(screen.out, "the monitor runs already, pid {}", monitor.pid())?;
        return Ok(Exit::Fine);
    }
    if systemd::manages(&places) {
        through_systemd("start", MONITOR_UNIT)?;
        writeln!(screen.out, "started {MONITOR_UNIT}")?;
        return Ok(Exit::Fine);
    }
    let program = program(&places)?;
    let times = [("--every", args.every), ("--selftest-every", args.selftest_every)];
    let more: Vec<String> = times
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let child = launch::start_monitor(&places, &program, &more).map_err(|error| failed("monitor", &error))?;
    tell_started(screen, "monitor", &child, &places, What::Monitor)?;
    Ok(Exit::Fine)
}

pub(super) fn restart(client: &Client, args: PlaceArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    need_root("restart")?;
    let places = args.places(client);
    // Whatever keeps the new one from starting is found while the old one still runs.
    config::load(&places.config).map_err(CliError::Config)?;
    let program = program(&places)?;
    if systemd::manages(&places) {
        through_systemd("restart", ENGINE_UNIT)?;
        writeln!(screen.out, "restarted {ENGINE_UNIT}")?;
        return Ok(Exit::Fine);
    }
    let _lock = lock(&places)?;
    end_engine(&places, screen)?;
    launch_engine(&places, &program, screen)?;
    Ok(Exit::Fine)
}

pub(super) fn stop(client: &Client, args: StopArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    need_root("stop")?;
    let places = args.places.places(client);
    if !args.force && !args.remove_rules {
        refuse_closed(&places)?;
    }
    if systemd::manages(&places) {
        // The monitor first: it would start the engine again.
        if systemd::state(MONITOR_UNIT, "LoadState") == "loaded" {
            through_systemd("stop", MONITOR_UNIT)?;
        }
        through_systemd("stop", ENGINE_UNIT)?;
        writeln!(screen.out, "stopped {MONITOR_UNIT} and {ENGINE_UNIT}")?;
    }
    // Also those that were started by hand.
    if let Some(monitor) = Process::monitor(&places) {
        end(&monitor, "monitor", screen)?;
    }
    let _lock = lock(&places)?;
    let ran = end_engine(&places, screen)?;
    if args.remove_rules {
        remove_rules()?;
        writeln!(
            screen.out,
            "table inet verdictd is out of the kernel: no rule and no ban holds"
        )?;
    } else if ran {
        writeln!(
            screen.out,
            "rules and bans stay in the kernel (verdictctl stop --remove-rules takes them out)"
        )?;
    }
    Ok(Exit::Fine)
}

/// Starts the engine, unless one runs.
fn start_engine(places: &Places, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let program = program(places)?;
    if systemd::manages(places) {
        if systemd::state(ENGINE_UNIT, "ActiveState") == "active" {
            writeln!(screen.out, "{ENGINE_UNIT} runs already")?;
            return Ok(());
        }
        through_systemd("start", ENGINE_UNIT)?;
        writeln!(screen.out, "started {ENGINE_UNIT}")?;
        return Ok(());
    }
    // Two starts at once: the second waits, and finds an engine.
    let _lock = lock(places)?;
    if let Some(engine) = Process::engine(places) {
        let pid = engine.pid();
        if let Err(error) = places.client().within(PATIENCE).ask(&Request::Status {}) {
            return Err(CliError::Failed(format!(
                "the engine runs already, pid {pid}, but {error}: verdictctl restart ends it and starts another"
            )));
        }
        writeln!(screen.out, "the engine runs already, pid {pid}")?;
        return Ok(());
    }
    launch_engine(places, &program, screen)
}

fn launch_engine(places: &Places, program: &Program, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let child = launch::start_engine(places, program, &|| false).map_err(|error| failed("engine", &error))?;
    Ok(tell_started(screen, "engine", &child, places, What::Engine)?)
}

fn tell_started(
    screen: &mut Screen<'_>,
    who: &str,
    child: &Child,
    places: &Places,
    what: What,
) -> std::io::Result<()> {
    let log = places.log_of(what.log());
    let log = plain(&log.display().to_string());
    writeln!(screen.out, "{who} started, pid {}; its log is {log}", child.id())
}

/// Ends the engine, if one runs; whether one did.
fn end_engine(places: &Places, screen: &mut Screen<'_>) -> Result<bool, CliError> {
    let Some(engine) = Process::engine(places) else {
        writeln!(screen.out, "no engine runs")?;
        return Ok(false);
    };
    end(&engine, "engine", screen)?;
    let path = places.engine_pid();
    if pidfile::planned_end(&path).is_none() {
        // It hung, or had lost its pid file, and could not say itself that nobody wants it started again.
        pidfile::mark_planned(&path, "verdictctl").map_err(|error| CliError::Failed(error.to_string()))?;
    }
    Ok(true)
}

fn end(process: &Process, who: &str, screen: &mut Screen<'_>) -> Result<Ended, CliError> {
    let pid = process.pid();
    let ended = process
        .end(GRACE)
        .map_err(|error| CliError::Failed(format!("cannot stop the {who} (pid {pid}): {error}")))?;
    match ended {
        Ended::Asked => writeln!(screen.out, "{who} stopped (pid {pid})")?,
        Ended::Killed => writeln!(
            screen.out,
            "{who} did not end within {} s and was killed (pid {pid})",
            GRACE.as_secs()
        )?,
    }
    Ok(ended)
}

fn remove_rules() -> Result<(), CliError> {
    let refused = |error: &dyn std::fmt::Display| CliError::Failed(format!("the rules stay: {error}"));
    let mut netlink = Netlink::open(mnl::Bus::Netfilter).map_err(|error| refused(&error))?;
    ruleset::delete(&mut netlink).map_err(|error| refused(&error))
}

/// Under `on_loss = "closed"` a stop shuts the host to everything new, also to who stops it.
fn refuse_closed(places: &Places) -> Result<(), CliError> {
    if Process::engine(places).is_none() {
        return Ok(());
    }
    let closed = match places.client().within(PATIENCE).ask(&Request::Status {}) {
        Ok(Reply::Status(status)) => status.on_loss == "closed",
        _ => config::load(&places.config).is_ok_and(|config| config.engine.on_loss == OnLoss::Closed),
    };
    match closed {
        false => Ok(()),
        true => Err(CliError::Refused(
            "on_loss = \"closed\": without the engine nothing new gets in, not even you; say --force if that is \
             meant, or --remove-rules to open the host"
                .into(),
        )),
    }
}

fn refuse_violated(places: &Places) -> Result<(), CliError> {
    match seal::verify(places) {
        Verdict::Violated(found) => Err(CliError::Failed(format!(
            "INTEGRITY VIOLATED: {}: put the genuine files back, or run \"verdictctl harden\" if you changed them \
             yourself",
            found.join("; ")
        ))),
        _ => Ok(()),
    }
}

fn program(places: &Places) -> Result<Program, CliError> {
    let opened = launch::verdictd().and_then(|path| Program::open(&path, places));
    opened.map_err(|error| CliError::Failed(error.to_string()))
}

fn lock(places: &Places) -> Result<StartLock, CliError> {
    StartLock::take(places, &|| false).map_err(|error| CliError::Failed(error.to_string()))
}

fn through_systemd(verb: &str, unit: &str) -> Result<(), CliError> {
    systemd::control(verb, &[unit]).map_err(|mut why| {
        for line in systemd::last_lines(unit) {
            why += "\n";
            why += &line;
        }
        lines(&why)
    })
}

fn failed(who: &str, error: &LaunchError) -> CliError {
    lines(&format!("the {who} was not started: {error}"))
}

/// The last words of another process: a line each, and nothing in them acts on a terminal.
fn lines(text: &str) -> CliError {
    CliError::Lines(text.lines().map(plain).collect())
}

/// What a stop may take: webhooks 2 s, clients 3 s, the last snapshot the rest.
const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);
