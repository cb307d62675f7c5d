//! `verdictd restore`: rules and bans into the kernel, without an engine.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing::{error, warn};

use super::engine::{BAD_CONFIG, ConfigFile, FAILED, answer, chain, refuse};
use crate::engine::early::{self, Options, Restored};
use crate::engine::error::DaemonError;
use crate::notify::log::{self, Format};
use crate::places;

/// `verdictd restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    #[command(flatten)]
    file: ConfigFile,
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
}

/// Exit 0 when it is in force, also where the kernel did not take every ban: what can hold does.
pub(super) fn run(args: Restore, out: &mut dyn Write) -> ExitCode {
    if let Err(error) = log::start(Format::Auto, "warn") {
        eprintln!("verdictd: {error}");
        return ExitCode::from(BAD_CONFIG);
    }
    let options = Options {
        config: args.file.config,
        state_dir: args.state_dir,
    };
    match early::restore(&options) {
        Ok(Restored {
            config,
            bans,
            refused,
        }) => {
            for ban in &refused {
                warn!("not in force: {ban}");
            }
            let mode = config.policy.mode;
            let text = format!("in force: mode {mode}, {bans} bans; no engine answers yet\n");
            answer(out, &text, ExitCode::SUCCESS)
        }
        Err(DaemonError::Config(problems)) => refuse(&problems),
        Err(error) => {
            error!("{}", chain(&error));
            ExitCode::from(FAILED)
        }
    }
}
