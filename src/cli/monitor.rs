//! `verdictd monitor`: the supervisor, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tracing::error;

use super::Exit;
use super::engine::{Daemon, chain};
use crate::config::parse_duration;
use crate::monitor::places::Places;
use crate::monitor::{self, Options, Outcome};
use crate::places;

#[derive(Debug, Args)]
pub(super) struct Monitor {
    /// The engine's configuration file
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
    /// The engine's state directory; monitor.json in DIR-monitor says what was found
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
    /// The engine's runtime directory, with its control socket
    #[arg(long, value_name = "DIR", default_value = places::RUNTIME_DIR)]
    runtime_dir: PathBuf,
    /// The engine's log directory
    #[arg(long, value_name = "DIR", default_value = places::LOG_DIR)]
    log_dir: PathBuf,
    /// The sums of the files that must not change, as `verdictctl harden` wrote them
    #[arg(long, value_name = "FILE", default_value = places::MANIFEST)]
    manifest: PathBuf,
    #[command(flatten)]
    daemon: Daemon,
    /// Time between two looks; shorter for tests
    #[arg(long, hide = true, default_value = "1m", value_parser = parse_duration)]
    every: Duration,
    /// Time between two functional tests; shorter for tests
    #[arg(long, hide = true, default_value = "1d", value_parser = parse_duration)]
    selftest_every: Duration,
}

pub(super) fn run(args: Monitor) -> ExitCode {
    if let Err(exit) = args.daemon.begin() {
        return exit;
    }
    let places = Places {
        config: args.config,
        state_dir: args.state_dir,
        runtime_dir: args.runtime_dir,
        log_dir: args.log_dir,
        manifest: args.manifest,
    };
    let options = Options {
        places,
        every: args.every,
        selftest_every: args.selftest_every,
    };
    match monitor::run(options) {
        Ok(Outcome::Stopped) => Exit::Fine.into(),
        Ok(Outcome::Violated) => ExitCode::from(VIOLATED),
        Err(error) => {
            error!("{}", chain(&error));
            Exit::Failed.into()
        }
    }
}

/// Exit code: a file is not what it was. systemd is told not to start us again (`RestartPreventExitStatus=5`).
const VIOLATED: u8 = 5;
