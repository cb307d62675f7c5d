//! `verdictd selftest`: tries the running engine with packets of its own, and says what it proved.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Exit;
use super::print::plain;
use crate::selftest::{self, Cause, Options};

#[derive(Debug, Args)]
pub(super) struct Selftest {
    /// The engine's control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Selftest) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Without it a signal ends us at once, and the engine cleans up after 30 s.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let outcome = selftest::run(&Options {
        socket: args.socket,
        stop,
    });
    let (text, json, exit) = match &outcome {
        Ok(proof) => (proof.to_string(), serde_json::to_string_pretty(proof), Exit::Fine),
        Err(failed) => {
            let exit = match failed.cause {
                Cause::NotRunning => Exit::NotRunning,
                Cause::Engine | Cause::CannotRun => Exit::Failed,
            };
            (failed.to_string(), serde_json::to_string_pretty(failed), exit)
        }
    };
    let text = match (args.json, json) {
        (true, Ok(json)) => json,
        _ => text.lines().map(plain).collect::<Vec<_>>().join("\n"),
    };
    match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("verdictd: cannot print: {error}");
            Exit::Failed.into()
        }
        _ => exit.into(),
    }
}
