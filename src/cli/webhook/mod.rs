//! `verdictctl webhook`: endpoints set up, tried out, watched. Setting up and trying out need no engine; they read the
//! configuration as it does and send as it does.

mod args;
pub(super) mod ask;
mod edit;
mod save;
mod setup;
mod status;
mod try_out;
mod wizard;

pub(super) use self::args::WebhookVerb;

use std::path::Path;

use self::ask::Ask;
use super::print::plain;
use super::{CliError, Client, Exit, Screen};
use crate::config::{self, Config};

pub(super) fn run(
    client: &Client,
    verb: WebhookVerb,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    match verb {
        WebhookVerb::Setup(args) => setup::run(client, args, screen, ask),
        WebhookVerb::Test(args) => try_out::test(args, screen),
        WebhookVerb::Send(args) => try_out::send(&args, screen),
        WebhookVerb::Status { json } => status::run(client, json, screen),
        WebhookVerb::Retry { endpoint } => status::retry(client, endpoint, screen),
        WebhookVerb::Service => {
            screen.out.write_all(SERVICE.as_bytes())?;
            Ok(Exit::Fine)
        }
    }
}

/// The configuration at `path`, or every problem in it.
fn load(path: &Path) -> Result<Config, CliError> {
    config::load(path).map_err(CliError::Config)
}

/// A remark beside the answer.
fn note(screen: &mut Screen<'_>, text: &str) -> Result<(), CliError> {
    Ok(writeln!(screen.err, "verdictctl: {}", plain(text))?)
}

const SERVICE: &str = include_str!("../../../packaging/systemd/verdict-receiver.service");
