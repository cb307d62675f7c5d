//! `verdictd`'s own verbs: run the engine, check a configuration, print the ruleset it would load.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use tracing::error;

use super::check::check;
use super::check_kernel::check_kernel;
use super::monitor::{self, Monitor};
use super::restore::{self, Restore};
use super::selftest::{self, Selftest};
use crate::config::{self, ConfigError};
use crate::engine::daemon::{self, Options};
use crate::engine::error::DaemonError;
use crate::engine::open::{self, FIRST_NUMBER};
use crate::kernel::host;
use crate::kernel::ruleset::{Backend, Layout, Ruleset};
use crate::notify::log::{self, Format};
use crate::places;
use crate::webhook::secret;

/// NFQUEUE verdict engine: judges new connections, bans scanners in the kernel
#[derive(Debug, Parser)]
#[command(name = "verdictd", version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the engine in the foreground
    Run(Run),
    /// Check a configuration: exit 0, or 2 with every problem in it; with --kernel this machine: exit 1 if there is something to
    /// act on
    Check(Check),
    /// Put rules and bans into the kernel without an engine, as at boot before the network is up; one that runs is left
    /// alone
    Restore(Restore),
    /// Print the nftables ruleset that this configuration would load
    Ruleset(ConfigFile),
    /// Watch the engine and start it again when it is gone, hangs or does not do its work, needs root
    Monitor(Monitor),
    /// Try the running engine with a scan of its own: leaves no trace, safe in production, needs root
    Selftest(Selftest),
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Check this machine instead: kernel, conntrack, other firewalls, queues, containers, proxies; needs root, no running
    /// engine, and changes nothing
    #[arg(long)]
    kernel: bool,
    /// Print JSON
    #[arg(long, requires = "kernel")]
    json: bool,
    /// Where the files of other programs are looked for
    #[arg(
        long,
        hide = true,
        requires = "kernel",
        value_name = "DIR",
        default_value = "/"
    )]
    root: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Where state is kept; one engine per directory
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
    /// Where the control socket is made
    #[arg(long, value_name = "DIR", default_value = places::RUNTIME_DIR)]
    runtime_dir: PathBuf,
    /// Where the audit log is kept
    #[arg(long, value_name = "DIR", default_value = places::LOG_DIR)]
    log_dir: PathBuf,
    /// Take the table (rules and bans) out at exit
    #[arg(long)]
    ephemeral: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// How `verdictd run` and `verdictd monitor` go about their work.
#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// How lines of the log look; auto: journald where standard error is the journal, else human
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = log_format())]
    log_format: Format,
    /// What is logged: error, warn, info, debug or trace [default: $VERDICTD_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Started by `verdictctl` or the monitor: leave their session
    #[arg(long, hide = true)]
    detached: bool,
}

impl Daemon {
    /// Leaves the session of who started us, if that is wanted, and begins to log; the exit code of one that cannot.
    pub(super) fn begin(self) -> Result<(), ExitCode> {
        if self.detached {
            detach();
        }
        let level = self.log_level.unwrap_or_else(default_level);
        log::start(self.log_format, &level).map_err(|error| {
            eprintln!("verdictd: {error}");
            ExitCode::from(BAD_CONFIG)
        })
    }
}

/// Leaves the session of who started us: its end is none of ours. The name is what `ps` shows; we were started by the
/// number of a descriptor.
fn detach() {
    // Refused to the leader of a group, which is detached already.
    let _ = rustix::process::setsid();
    let _ = std::fs::write("/proc/self/comm", "verdictd");
}

fn log_format() -> impl TypedValueParser<Value = Format> {
    let words = Format::ALL.map(|(word, _)| word);
    PossibleValuesParser::new(words).map(|given| {
        let known = Format::ALL.into_iter().find(|(word, _)| *word == given);
        known.map_or(Format::Auto, |(_, format)| format)
    })
}

/// The command line of `verdictd`: manual and completions are made of it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs `verdictd` with the process's own arguments.
pub fn main() -> ExitCode {
    secret::keep_from_others();
    let out = &mut io::stdout();
    match Arguments::parse().verb {
        Verb::Run(run) => self::run(run),
        Verb::Check(args) if args.kernel => check_kernel(&args.file.config, &args.root, args.json, out),
        Verb::Check(args) => check(&args.file.config, out),
        Verb::Restore(args) => restore::run(args, out),
        Verb::Ruleset(file) => ruleset(&file.config, out),
        Verb::Monitor(args) => monitor::run(args),
        Verb::Selftest(args) => selftest::run(args),
    }
}

/// Prints an answer and ends with `exit`: also where its reader went away, as `head` does, who has seen enough.
pub(super) fn answer(out: &mut dyn Write, text: &str, exit: ExitCode) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("verdictd: cannot print: {error}");
            ExitCode::from(FAILED)
        }
        _ => exit,
    }
}

fn run(run: Run) -> ExitCode {
    let Run {
        file,
        state_dir,
        runtime_dir,
        log_dir,
        ephemeral,
        daemon,
    } = run;
    if let Err(exit) = daemon.begin() {
        return exit;
    }
    match daemon::run(&Options {
        config: file.config,
        state_dir,
        runtime_dir,
        log_dir,
        ephemeral,
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Config(problems)) => refuse(&problems),
        Err(error) => {
            error!("{}", chain(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// `$VERDICTD_LOG`, for those who cannot change the command line.
fn default_level() -> String {
    let given = std::env::var_os("VERDICTD_LOG").filter(|level| !level.is_empty());
    given.map_or_else(|| "info".into(), |level| level.to_string_lossy().into_owned())
}

/// The table as text. Numbers that are probed at start are shown as the first that would be tried.
fn ruleset(path: &Path, out: &mut dyn Write) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    let local_ports = match host::gather() {
        Ok(facts) => facts.local_ports,
        Err(error) => {
            eprintln!("verdictd: {}", chain(&error));
            return ExitCode::from(FAILED);
        }
    };
    let layout = Layout {
        queue_base: config.engine.queue_base.unwrap_or(FIRST_NUMBER),
        log_base: config.engine.log_base.unwrap_or(FIRST_NUMBER),
        workers: config.engine.workers as u16,
        seed: config.engine.seed.unwrap_or(SHOWN_SEED),
    };
    let table = Ruleset::build(&open::spec(&config, layout, Backend::Native, local_ports));
    answer(out, &table.text(), ExitCode::SUCCESS)
}

pub(super) fn refuse(problems: &ConfigError) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(BAD_CONFIG)
}

/// An error and all that caused it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their cause.
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Exit code: refused or failed.
pub(super) const FAILED: u8 = 1;
/// Exit code: usage or bad configuration.
pub(super) const BAD_CONFIG: u8 = 2;
const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 refused or failed, or something to act on (check --kernel), 2 usage or bad configuration, 3 engine not \
running (selftest), 5 a file was changed (monitor)";
/// A printed ruleset is the same for the same configuration; without `engine.seed` a running engine draws one.
const SHOWN_SEED: u32 = 0x5eed;
