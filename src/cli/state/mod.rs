//! `verdictctl state`: what is kept, where, and what came of it; all of it as a document; all of it forgotten; what
//! another system knew, taken over.

mod export;
mod import;
mod reset;
mod show;

use std::path::{Path, PathBuf};

use super::print::{counted, plain};
use super::{Ask, CliError, Client, ClientError, Exit, Screen};
use crate::config;
use crate::control::wire::{Reply, Request, StateCounts, StateView};
use crate::places;
use crate::state::Place;

/// What is asked of the state.
#[derive(Debug, clap::Subcommand)]
pub(super) enum StateVerb {
    /// Show what is kept and where, what the last start found, the last snapshot and the next one
    Show {
        #[command(flatten)]
        folder: FolderArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print everything that is kept: the snapshot as it is, or one JSON document
    Export {
        #[command(flatten)]
        folder: FolderArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget every ban, ladder position and half-done scan, and what is usual; policy and trusted addresses stay
    Reset {
        /// Ask nothing
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Take over bans and ladder positions of the Python system's firewall_state.toml
    Import(import::ImportArgs),
}

/// Where to look when no engine runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FolderArgs {
    /// Where state is kept, for when no engine runs
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
    /// The configuration, which may give the state file another name
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
}

impl FolderArgs {
    /// Where the state would be. A configuration that cannot be read gives it no other name.
    fn place(&self) -> Place {
        let named = config::load(&self.config).ok();
        let named = named.and_then(|config| config.engine.state_file);
        Place::new(&self.state_dir, named.as_deref())
    }
}

pub(super) fn run(
    client: &Client,
    verb: StateVerb,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    match verb {
        StateVerb::Show { folder, json } => show::run(client, &folder, json, screen),
        StateVerb::Export { folder, json } => export::run(client, &folder, json, screen),
        StateVerb::Reset { yes, folder } => reset::run(client, &folder, yes, screen, ask),
        StateVerb::Import(args) => import::run(client, args, screen),
    }
}

/// What the engine says; `Err`: why none says anything, if that is for want of one.
fn ask_engine(client: &Client) -> Result<Result<StateView, ClientError>, CliError> {
    match client.ask(&Request::State {}) {
        Ok(Reply::State(view)) => Ok(Ok(*view)),
        Ok(other) => Err(CliError::other(other)),
        Err(error @ ClientError::NotRunning { .. }) => Ok(Err(error)),
        Err(error) => Err(error.into()),
    }
}

/// The end of a verb that made do without an engine.
fn without_engine(none: &ClientError, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    writeln!(
        screen.err,
        "verdictctl: {}; this is what lies in the folder",
        plain(&none.to_string())
    )?;
    Ok(Exit::NotRunning)
}

/// How much of what a person would miss.
fn records(counts: &StateCounts) -> String {
    format!(
        "{}, {}, {}, {}",
        counted(counts.bans, "ban"),
        counted(counts.would_be, "would-be ban"),
        counted(counts.ladder, "ladder position"),
        counted(counts.sources, "source")
    )
}

/// A file of the state is not for everybody.
fn unreadable(path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!(
        "cannot read {}: {error}; state is for root and the engine's user to read",
        path.display()
    ))
}

/// Windows that are looked at: as many as a file can hold.
const ALL: usize = usize::MAX;
