//! `verdictctl`'s verbs. Most ask the engine one thing over the control socket and print the answer; some look at files
//! or processes.
//!
//! Nothing is decided here. Text is for people and may change; `--json` and the exit codes are for scripts and
//! may not.

mod apply;
mod args;
mod audit;
mod ban;
mod check;
mod check_kernel;
mod confirm;
mod control;
mod detection;
pub mod engine;
mod exporter;
mod harden;
mod list;
mod monitor;
mod print;
mod reload;
mod restore;
mod selftest;
mod snapshot;
mod span;
mod state;
mod stats;
mod status;
mod verify;
mod webhook;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use self::print::{Style, plain};
pub use self::webhook::ask::{Ask, AskError};
pub use crate::control::client::{Client, ClientError, DEFAULT_SOCKET, SOCKET_VARIABLE};

use self::args::{Args, Verb};
use crate::config::ConfigError;
use crate::control::wire::Reply;

/// How `verdictctl` ends. A contract: no number changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done, and all is well.
    Fine = 0,
    /// 1: the engine refused, or the request or the output failed.
    Failed = 1,
    /// 2: the command line is wrong, nothing was asked.
    Usage = 2,
    /// 3: no engine runs on that socket.
    NotRunning = 3,
    /// 4: the engine runs, degraded or without protecting the host (`status`).
    Degraded = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Where a verb prints.
pub struct Screen<'a> {
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Errors and notes.
    pub err: &'a mut dyn Write,
    /// How answers look.
    pub style: Style,
}

/// The command line of `verdictctl`: manual and completions are made of it.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs `verdictctl` with `args` (its own name first) and says how it ended. `ask` is for verbs that ask back.
pub fn run(args: impl IntoIterator<Item = OsString>, mut screen: Screen<'_>, ask: &mut dyn Ask) -> Exit {
    let ended = match Args::try_parse_from(args) {
        Ok(args) => obey(args, &mut screen, ask).and_then(|exit| Ok(screen.out.flush().map(|()| exit)?)),
        Err(error) => return explain_usage(&error, screen),
    };
    ended.unwrap_or_else(|error| report(&error, screen.err))
}

fn obey(args: Args, screen: &mut Screen<'_>, ask: &mut dyn Ask) -> Result<Exit, CliError> {
    let client = Client::find(args.socket);
    match args.verb {
        Verb::Status(wanted) => status::run(&client, &wanted, screen),
        Verb::Start(places) => control::start(&client, places, screen),
        Verb::Stop(wanted) => control::stop(&client, wanted, screen),
        Verb::Restart(places) => control::restart(&client, places, screen),
        Verb::Monitor(wanted) => control::monitor(&client, wanted, screen),
        Verb::Stats(wanted) => stats::run(&client, wanted, screen),
        Verb::List { json } => list::run(&client, json, screen),
        Verb::Ban {
            target,
            length,
            reason,
        } => ban::ban(&client, &target, length.as_deref(), reason, screen),
        Verb::Reload => reload::run(&client, screen),
        Verb::Apply(wanted) => apply::run(&client, wanted, screen, ask),
        Verb::Confirm(wanted) => confirm::confirm(&client, &wanted, screen),
        Verb::GoBack(wanted) => confirm::go_back(&client, wanted, screen),
        Verb::Unban { target } => ban::unban(&client, &target, screen),
        Verb::Snapshot { json } => snapshot::run(&client, json, screen),
        Verb::State(verb) => state::run(&client, verb, screen, ask),
        Verb::Exporter(args) => exporter::run(&client, args, screen),
        Verb::Audit(verb) => audit::run(&client, verb, screen),
        Verb::Harden(args) => harden::run(&client, args, screen, ask),
        Verb::Verify(args) => verify::run(&client, args, screen),
        Verb::Webhook(verb) => webhook::run(&client, verb, screen, ask),
    }
}

/// Help and version go to the output and are fine; all else is a usage error.
fn explain_usage(error: &clap::Error, screen: Screen<'_>) -> Exit {
    let text: String = error
        .render()
        .to_string()
        .split_inclusive('\n')
        .map(plain_line)
        .collect();
    let (stream, exit) = if error.use_stderr() {
        (screen.err, Exit::Usage)
    } else {
        (screen.out, Exit::Fine)
    };
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(failed) if failed.kind() != ErrorKind::BrokenPipe => Exit::Failed,
        _ => exit,
    }
}

/// clap quotes arguments as they came.
fn plain_line(line: &str) -> String {
    match line.strip_suffix('\n') {
        Some(text) => plain(text) + "\n",
        None => plain(line),
    }
}

/// Prints the chain of causes once; a reader that went away (`verdictctl list | head`) is no error.
fn report(error: &CliError, err: &mut dyn Write) -> Exit {
    if matches!(error, CliError::Output(error) if error.kind() == ErrorKind::BrokenPipe) {
        return Exit::Fine;
    }
    let lines = match error {
        CliError::Config(error) => error.to_string(),
        CliError::Lines(lines) => lines.join("\n"),
        other => plain(&other.to_string()),
    };
    for line in lines.lines() {
        let _ = writeln!(err, "verdictctl: {}", plain(line));
    }
    error.exit()
}

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(ConfigError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Failed(String),
    #[error("{}", .0.join("\n"))]
    Lines(Vec<String>),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Undecided(String),
    #[error("the engine answered something else, is it of another version?")]
    Unexpected,
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            CliError::Usage(_) | CliError::Config(_) | CliError::Ask(AskError::NoTerminal) => Exit::Usage,
            CliError::Client(ClientError::NotRunning { .. }) => Exit::NotRunning,
            _ => Exit::Failed,
        }
    }

    /// What an answer is, that the verb did not ask for.
    fn other(reply: Reply) -> CliError {
        match reply {
            Reply::Refused { message } => CliError::Refused(message),
            Reply::Undecided { message } => CliError::Undecided(message),
            _ => CliError::Unexpected,
        }
    }
}
