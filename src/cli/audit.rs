//! `verdictctl audit`: is the audit log as it was written?

use std::path::{Path, PathBuf};

use super::print::{Paint, counted, grouped, json, plain};
use super::{CliError, Client, Exit, Screen};
use crate::audit::verify::{MOST_FAULTS, Options, Report, verify};
use crate::audit::{DEFAULT_NAME, HEAD_NAME};
use crate::control::wire::{Reply, Request};
use crate::places;

/// What is asked of the audit log.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Read every file of the audit log and name each line that is not as it was written: exit 1 if there is one
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The file that is being written; files beside it belong to it [default: the running engine's, else
    /// /var/log/verdictd/audit.jsonl]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// The file that says how far it goes [default: that of the engine, for the engine's log]
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Ask nothing about lines before this one: they are kept elsewhere, or were looked into
    #[arg(long, value_name = "LINE")]
    from: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(client: &Client, verb: AuditVerb, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let AuditVerb::Verify(args) = verb;
    let (log, head) = own(client);
    let is_own = args.path.as_ref().is_none_or(|path| *path == log);
    let options = Options {
        log: args.path.unwrap_or(log),
        head: args.head.or_else(|| Some(head).filter(|_| is_own)),
        from: args.from,
    };
    let report = verify(&options).map_err(|error| CliError::Failed(error.to_string()))?;
    if report.files.is_empty() && report.is_sound() {
        let log = options.log.display();
        return Err(CliError::Failed(format!("there is no audit log at {log}")));
    }
    match args.json {
        true => json(screen.out, &report, false)?,
        false => print(&report, screen)?,
    }
    Ok(if report.is_sound() {
        Exit::Fine
    } else {
        Exit::Failed
    })
}

/// The log and the head of the engine that runs, else those of the package.
fn own(client: &Client) -> (PathBuf, PathBuf) {
    let status = match client.ask(&Request::Status {}) {
        Ok(Reply::Status(status)) => status.audit,
        _ => None,
    };
    status.map_or_else(
        || {
            (
                Path::new(places::LOG_DIR).join(DEFAULT_NAME),
                Path::new(places::STATE_DIR).join(HEAD_NAME),
            )
        },
        |audit| (audit.path.into(), audit.head.into()),
    )
}

fn print(report: &Report, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Screen { out, style, .. } = screen;
    for file in &report.files {
        let lines = match (file.first, file.last) {
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "none".into(),
        };
        writeln!(out, "{}: lines {lines}", plain(&file.path))?;
    }
    for fault in &report.faults {
        writeln!(out, "{}", style.paint(Paint::Red, &plain(&fault.to_string())))?;
    }
    if report.faults_in_all > MOST_FAULTS as u64 {
        writeln!(
            out,
            "… and {} more",
            grouped(report.faults_in_all - MOST_FAULTS as u64)
        )?;
    }
    for note in &report.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    let lines = counted(report.lines, "line");
    match report.is_sound() {
        true => {
            let sound = style.paint(Paint::Green, "SOUND");
            writeln!(
                out,
                "{sound}: {lines} as they were written; the last is {}, sha256 {}",
                report.last, report.sha256
            )?;
        }
        false => {
            let changed = style.paint(Paint::Red, "CHANGED");
            writeln!(
                out,
                "{changed}: {} in {lines}",
                counted(report.faults_in_all, "fault")
            )?;
        }
    }
    Ok(())
}
