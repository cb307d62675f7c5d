//! `verdictctl state import`: the Python system's file, read here and handed to the engine in parts.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde::Serialize;

use super::super::print::{Paint, counted, json, plain};
use super::{CliError, Client, ClientError, Exit, Screen};
use crate::control::wire::{
    ImportOutcome, ImportPart, ImportedBan, ImportedStanding, ImportedWindow, MAX_REQUEST_BYTES, Reply,
    Request,
};
use crate::state::import::{Clock, Import, Report, import};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ImportArgs {
    /// The Python system's firewall_state.toml; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say what would become of it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    dry_run: bool,
    file: &'a Report,
    engine: Option<&'a ImportOutcome>,
}

pub(super) fn run(client: &Client, args: ImportArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let clock = Clock::host();
    let found = read(&args, &clock)?;
    let (outcome, failed) = match hand_over(client, &found, &clock, args.dry_run) {
        Ok(outcome) => (Some(outcome), None),
        // What is in the file can be said without an engine.
        Err(error @ CliError::Client(ClientError::NotRunning { .. })) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    match args.json {
        true => {
            let told = Told {
                dry_run: args.dry_run,
                file: &found.report,
                engine: outcome.as_ref(),
            };
            json(screen.out, &told, false)?;
        }
        false => print(&found.report, outcome.as_ref(), args.dry_run, screen)?,
    }
    match (failed, outcome) {
        (Some(error), _) => Err(error),
        (None, Some(outcome)) if outcome.is_empty() => Ok(Exit::Failed),
        _ => Ok(Exit::Fine),
    }
}

fn read(args: &ImportArgs, clock: &Clock) -> Result<Import, CliError> {
    let from_stdin = args.file.as_os_str() == "-";
    let file: Box<dyn Read> = match from_stdin {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(|error| named(args, &error))?),
    };
    import(file, clock).map_err(|error| named(args, &error))
}

fn named(args: &ImportArgs, error: &dyn std::fmt::Display) -> CliError {
    CliError::Failed(format!("{} cannot be imported: {error}", args.file.display()))
}

fn hand_over(
    client: &Client,
    found: &Import,
    clock: &Clock,
    dry_run: bool,
) -> Result<ImportOutcome, CliError> {
    let mut parts = parts(found, clock);
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let mut outcome = ImportOutcome::default();
    for (nth, part) in (1..).zip(&mut parts) {
        (part.part, part.parts, part.dry_run) = (nth, count, dry_run);
        match client.ask(&Request::StateImport(std::mem::take(part)))? {
            Reply::StateImported(part) => outcome.add(*part),
            Reply::Refused { message } => {
                return Err(CliError::Refused(format!("part {nth} of {count}: {message}")));
            }
            Reply::Undecided { message } => {
                return Err(CliError::Undecided(format!("part {nth} of {count}: {message}")));
            }
            other => return Err(CliError::other(other)),
        }
    }
    Ok(outcome)
}

/// As many requests as it takes; at least one, so that an engine is asked in any case. Ladder positions come first: a
/// ban is then never without the offences that it was earned by.
fn parts(found: &Import, clock: &Clock) -> Vec<ImportPart> {
    let wall = u64::try_from(clock.now.as_millisecond()).unwrap_or_default();
    let mut parts = Parts::default();
    for standing in &found.ladder {
        let Some((offences, age)) = standing.real else {
            continue;
        };
        parts.add(MOST_STANDING, |part| {
            part.ladder.push(ImportedStanding {
                source: standing.source.to_string(),
                offences,
                age_ms: millis(age),
            });
        });
    }
    for ban in &found.bans {
        let Some(left) = ban.remaining else { continue };
        parts.add(MOST_BAN, |part| {
            part.bans.push(ImportedBan {
                source: ban.source.to_string(),
                offences: ban.offences,
                age_ms: millis(ban.age),
                until_ms: wall.saturating_add(millis(left)),
            });
        });
    }
    for window in &found.sources {
        let ports = window.touches.iter().filter_map(|touch| match touch.0 {
            crate::core::verdict::Asked::Port(_, port) => Some(port),
            crate::core::verdict::Asked::Protocol(_) => None,
        });
        let ports: Vec<u16> = ports.take(MOST_PORTS).collect();
        parts.add(MOST_WINDOW + 6 * ports.len(), |part| {
            part.windows.push(ImportedWindow {
                source: window.source.to_string(),
                age_ms: millis(window.age),
                idle_ms: millis(window.idle),
                ports,
            });
        });
    }
    parts.all()
}

#[derive(Default)]
struct Parts {
    done: Vec<ImportPart>,
    open: ImportPart,
    bytes: usize,
}

impl Parts {
    fn add(&mut self, bytes: usize, put: impl FnOnce(&mut ImportPart)) {
        if self.bytes + bytes > ROOM {
            self.done.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes;
        put(&mut self.open);
    }

    fn all(mut self) -> Vec<ImportPart> {
        self.done.push(self.open);
        self.done
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn print(
    report: &Report,
    outcome: Option<&ImportOutcome>,
    dry_run: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    super::show::print_report(report, screen.out)?;
    let Some(outcome) = outcome else { return Ok(()) };
    let Screen { out, style, .. } = screen;
    for spared in &outcome.refused {
        let text = format!("not banned: {}: {}", spared.source, spared.reason);
        writeln!(out, "{}", style.paint(Paint::Yellow, &plain(&text)))?;
    }
    writeln!(
        out,
        "{}: {}{}, {} made longer, {} kept as they were, {} not banned; {}, {} kept as they were; {}",
        if dry_run { "would be taken" } else { "taken" },
        counted(
            outcome.banned,
            if outcome.would_be { "would-be ban" } else { "ban" }
        ),
        if outcome.would_be {
            " (bans.enforce = false)"
        } else {
            ""
        },
        outcome.prolonged,
        outcome.kept,
        outcome.refused.len(),
        counted(outcome.climbed, "ladder position"),
        outcome.ladder_kept,
        counted(outcome.windows, "half-done scan")
    )?;
    Ok(())
}

/// What a request has for records, beside its name and the names of its lists.
const ROOM: usize = MAX_REQUEST_BYTES - 256;
/// Names, punctuation, an IPv6 address and numbers of 20 and 10 digits.
const MOST_BAN: usize = 60 + 39 + 10 + 2 * 20;
const MOST_STANDING: usize = 50 + 39 + 10 + 20;
const MOST_WINDOW: usize = 60 + 39 + 2 * 20;
/// More than any threshold tolerates; the window judges by the first few anyway.
const MOST_PORTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::Request;

    #[test]
    fn every_part_fits_into_a_request_and_none_is_lost() {
        let mut text = String::from("unblock_tasks = [\n");
        for nth in 0..500 {
            text += &format!(
                "{{ ip = \"2001:db8:1111:2222:3333:4444:5555:{nth:x}\", unblock_time = 9999-01-01T00:00:00Z }},\n"
            );
        }
        text += "]\n";
        for nth in 0..300 {
            let ports: Vec<u16> = (65_000..65_400).collect();
            text += &format!("[ip_activity.\"192.0.2.{nth}\"]\nlast_seen = 0001-01-01T00:00:00Z\n");
            text += match nth % 2 {
                0 => format!("unique_ports = {ports:?}\n"),
                _ => "block_count = 4000000000\n".into(),
            }
            .as_str();
        }
        let clock = Clock::host();
        let found = import(text.as_bytes(), &clock).unwrap();
        let mut parts = parts(&found, &clock);
        let count = parts.len() as u32;
        let (mut bans, mut ladder, mut windows) = (0, 0, 0);
        for part in &mut parts {
            (part.part, part.parts) = (count, count);
            bans += part.bans.len();
            ladder += part.ladder.len();
            windows += part.windows.len();
            let request = Request::StateImport(part.clone());
            let line = request.encode();
            assert!(line.len() < MAX_REQUEST_BYTES, "{} bytes", line.len());
            assert_eq!(Request::decode(&line), Ok(request));
        }
        assert_eq!((bans, ladder, windows), (500, 128, 128));
        assert_eq!(super::parts(&Import::default(), &clock).len(), 1);
    }
}
