//! `verdictctl snapshot`: the state, saved now.

use super::print::{counted, grouped, json, plain};
use super::{CliError, Client, Exit, Screen};
use crate::control::wire::{Reply, Request};

pub(super) fn run(client: &Client, as_json: bool, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let view = match client.ask(&Request::Snapshot {})? {
        Reply::Snapshot(view) => view,
        other => return Err(CliError::other(other)),
    };
    if as_json {
        json(screen.out, &view, false)?;
        return Ok(Exit::Fine);
    }
    writeln!(
        screen.out,
        "saved {} to {}: {}, {}, {}, in {} ms",
        counted(view.bytes, "byte"),
        plain(&view.path),
        counted(view.bans, "ban"),
        counted(view.ladder, "ladder position"),
        counted(view.sources, "half-done scan"),
        grouped(view.duration_ms)
    )?;
    for sentence in &view.missing {
        writeln!(screen.err, "verdictctl: {}", plain(sentence))?;
    }
    Ok(Exit::Fine)
}
