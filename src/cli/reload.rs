//! `verdictctl reload`: the configuration file, read again by the engine.

use std::path::Path;

use super::print::plain;
use super::verify::tell_stale;
use super::{CliError, Client, Exit, Screen};
use crate::control::wire::{Reply, Request};
use crate::places::CONFIG;

pub(super) fn run(client: &Client, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    match client.ask(&Request::Reload {})? {
        Reply::Reloaded(changes) if changes.is_empty() => writeln!(screen.out, "reloaded, nothing changed")?,
        Reply::Reloaded(changes) => {
            writeln!(screen.out, "reloaded:")?;
            for change in changes {
                writeln!(screen.out, "  {}", plain(&change))?;
            }
        }
        other => return Err(CliError::other(other)),
    }
    tell_stale(Path::new(CONFIG), screen)?;
    Ok(Exit::Fine)
}
