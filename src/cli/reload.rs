//! `verdictctl reload`: the configuration file, read again by the engine.

use super::print::plain;
use super::{CliError, Client, Exit, Screen};
use crate::control::wire::{Reply, Request};

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
    Ok(Exit::Fine)
}
