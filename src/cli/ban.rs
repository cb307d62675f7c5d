//! `verdictctl ban` and `unban`: the operator's own word.

use super::print::plain;
use super::{CliError, Client, Exit, Screen, list};
use crate::config::parse_duration;
use crate::control::wire::{BanView, Reply, Request};
use crate::core::prefix::Prefix;

pub(super) fn ban(
    client: &Client,
    target: &str,
    length: Option<&str>,
    reason: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let target = target_of(target, screen)?;
    let duration_seconds = length.map(seconds_of).transpose()?;
    match ask(
        client,
        Request::Ban {
            target,
            duration_seconds,
            reason,
        },
    )? {
        Reply::Banned(ban) => writeln!(screen.out, "banned {} {}", plain(&ban.source), for_how_long(&ban))?,
        other => return Err(CliError::other(other)),
    }
    Ok(Exit::Fine)
}

pub(super) fn unban(client: &Client, target: &str, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let target = target_of(target, screen)?;
    match ask(client, Request::Unban { target })? {
        Reply::Unbanned(lifted) => {
            for ban in lifted {
                writeln!(
                    screen.out,
                    "unbanned {} ({})",
                    plain(&ban.source),
                    plain(&ban.reason)
                )?;
            }
        }
        other => return Err(CliError::other(other)),
    }
    Ok(Exit::Fine)
}

/// What the engine would refuse for its form is a usage error, known before asking.
fn ask(client: &Client, request: Request) -> Result<Reply, CliError> {
    request
        .check()
        .map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(client.ask(&request)?)
}

/// As the configuration writes durations. Bounds are [`Request::check`]'s.
fn seconds_of(text: &str) -> Result<u64, CliError> {
    let duration = parse_duration(text)
        .map_err(|error| CliError::Usage(format!("--for {text:?} {error}, write 90s, 10m, 2h or 1d")))?;
    Ok(duration.as_secs())
}

/// Masked host bits are said aloud: a ban of a whole network may be a slip.
fn target_of(text: &str, screen: &mut Screen<'_>) -> Result<String, CliError> {
    let (prefix, masked) = Prefix::parse(text).map_err(|error| CliError::Usage(error.to_string()))?;
    if masked {
        writeln!(
            screen.err,
            "verdictctl: {} is taken as the network {prefix}",
            plain(text)
        )?;
    }
    // An address with its full length means just that address; alone it means its source.
    Ok(match text.contains('/') {
        true => format!("{}/{}", prefix.addr(), prefix.len()),
        false => prefix.to_string(),
    })
}

fn for_how_long(ban: &BanView) -> String {
    match &ban.until {
        Some(until) => format!("for {}, until {}", list::left(ban), plain(until)),
        None => "until you lift it".into(),
    }
}
