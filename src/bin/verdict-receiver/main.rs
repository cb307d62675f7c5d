//! `verdict-receiver`: the program of the organisation that gets the webhooks.
//!
//! `test-server` shows what arrives, for people who set a sender up; `serve` keeps it in SQLite and alerts by e-mail
//! and Slack. Its modules stand beside it and not in the library, so that nothing of an HTTP server, SQLite or SMTP is
//! linked into the engine; what it shares with the engine is [`verdictd::webhook`].

mod alert;
mod app;
mod args;
mod config;
mod guests;
mod http;
mod intake;
mod log;
mod read_api;
mod serve;
mod settings;
mod show;
mod store;
mod test_server;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use verdictd::notify::text::plain;
use verdictd::webhook::secret;

use crate::args::{Args, Verb};

fn main() -> ExitCode {
    secret::keep_from_others();
    let ended = match Args::parse().verb {
        Verb::Serve(args) => serve::run(&args),
        Verb::TestServer(args) => test_server::run(args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Usage(problems)) => {
            problems.iter().for_each(complain);
            ExitCode::from(2)
        }
        Err(Failed::Work(why)) => {
            complain(why);
            ExitCode::from(1)
        }
    }
}

fn complain(what: impl Display) {
    eprintln!("verdict-receiver: {}", plain(&what.to_string()));
}

/// How the program can end other than well. Exit codes are a contract.
#[derive(Debug)]
pub(crate) enum Failed {
    /// 2: the command line or the configuration is wrong; every problem of it.
    Usage(Vec<String>),
    /// 1: something could not be done.
    Work(String),
}
