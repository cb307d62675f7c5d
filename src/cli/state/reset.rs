//! `verdictctl state reset`.

use super::super::print::{counted, plain};
use super::{Ask, CliError, Client, Exit, FolderArgs, Screen, ask_engine, records};
use crate::cli::AskError;
use crate::control::wire::{Reply, Request};
use crate::state::survey::{self, Kind};

pub(super) fn run(
    client: &Client,
    folder: &FolderArgs,
    yes: bool,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    let view = match ask_engine(client)? {
        Ok(view) => view,
        Err(none) => {
            writeln!(screen.err, "verdictctl: {}", plain(&none.to_string()))?;
            explain(folder, screen)?;
            return Ok(Exit::NotRunning);
        }
    };
    if !yes {
        let usual = counted(view.counts.baseline_ports, "port");
        let question = format!("Forget {} and what is usual on {usual}?", records(&view.counts));
        match ask.yes(&question, false) {
            Ok(true) => {}
            Ok(false) => return Err(AskError::Cancelled.into()),
            Err(AskError::NoTerminal) => {
                return Err(CliError::Usage("no terminal to ask on; give --yes".into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match client.ask(&Request::StateReset {})? {
        Reply::StateReset(gone) => writeln!(
            screen.out,
            "forgotten: {}, {}, {}, every half-done scan and what is usual on each port; policy, trusted and \
             protected addresses are as they were",
            counted(gone.bans, "ban"),
            counted(gone.would_be, "would-be ban"),
            counted(gone.ladder, "ladder position")
        )?,
        other => return Err(CliError::other(other)),
    }
    Ok(Exit::Fine)
}

/// Without an engine nobody takes bans out of the kernel.
fn explain(folder: &FolderArgs, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let err = &mut screen.err;
    writeln!(
        err,
        "verdictctl: nothing was forgotten: start the engine and ask again"
    )?;
    let files = survey::files(&folder.place()).unwrap_or_default();
    // What is kept of the Python system is imported again where there is nothing else.
    let read = |kind: Kind| {
        matches!(
            kind,
            Kind::Snapshot | Kind::Previous | Kind::Journal | Kind::Python
        )
    };
    let paths: Vec<String> = (files.iter().filter(|file| read(file.kind)))
        .map(|file| plain(&file.path))
        .collect();
    if !paths.is_empty() {
        writeln!(
            err,
            "verdictctl: or remove {}, and what holds in the kernel with: verdictctl stop --remove-rules",
            paths.join(" ")
        )?;
    }
    Ok(())
}
