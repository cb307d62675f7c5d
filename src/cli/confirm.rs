//! `verdictctl confirm` and `verdictctl go-back`: how an apply ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::apply::files::Files;
use super::apply::session;
use super::apply::watcher::{self, Watcher};
use super::apply::{files_of, need_root};
use super::print::{Paint, plain};
use super::verify::note;
use super::{CliError, Client, Exit, Screen};
use crate::config;
use crate::control::wire::{ApplyState, ApplyView, NoteResult, Reply, Request, StatusReport};
use crate::integrity::{DEFAULT_CONFIG, DEFAULT_MANIFEST, Manifest, ManifestError};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfirmArgs {
    /// You sit in front of this host, in a window that tells nothing of it
    #[arg(long)]
    here: bool,
    /// The seal of the configuration
    #[arg(long, hide = true, value_name = "FILE", default_value = DEFAULT_MANIFEST)]
    manifest: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct GoBackArgs {
    /// When, in milliseconds since boot: what an apply leaves running
    #[arg(long, hide = true, value_name = "MS")]
    at: Option<u64>,
    /// The configuration file
    #[arg(long, hide = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/verdictd")]
    state_dir: PathBuf,
    /// Leave the session of who started it
    #[arg(long, hide = true)]
    detached: bool,
}

pub(super) fn confirm(
    client: &Client,
    args: &ConfirmArgs,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    need_root("confirm")?;
    let status = status(client)?;
    let apply = pending(&status)?;
    let files = files_of(&status)?;
    if apply.state == ApplyState::Pending {
        let since = Duration::from_millis(apply.since_boot_ms);
        let config = config::load(&files.candidate()).ok();
        let proof = session::proof(since, config.as_ref(), args.here).map_err(|why| {
            let left = apply.seconds_left.unwrap_or_default();
            CliError::Refused(format!("{why}; it goes back in {left} s"))
        })?;
        writeln!(screen.out, "{}", plain(&proof))?;
    }
    save(client, &files, &args.manifest, false, screen)
}

/// The engine keeps it, then the configuration file gets it, then the seal.
pub(super) fn save(
    client: &Client,
    files: &Files,
    manifest: &Path,
    quiet: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    // Now and not before: what the file gets must be what runs.
    let status = status(client)?;
    let apply = pending(&status)?;
    let candidate = files.candidate();
    let holds = |path: &Path| config::text(path).is_ok_and(|text| config::digest(&text) == apply.sha256);
    let done = holds(&files.config);
    if !done && !holds(&candidate) {
        return Err(CliError::Failed(format!(
            "{candidate:?} is not what is in force, it was changed meanwhile: it is not confirmed"
        )));
    }
    keep(client)?;
    if !done {
        files.promote().map_err(|why| {
            CliError::Failed(format!(
                "it is in force for good, but not saved: {why}; \"verdictctl confirm\" tries again"
            ))
        })?;
    }
    if !keep(client)? {
        return Err(CliError::Failed(format!(
            "it is in force for good, but the engine does not find it in {:?}: \"verdictctl confirm\" tries again",
            files.config
        )));
    }
    if !quiet {
        let confirmed = screen.style.paint(Paint::Green, "CONFIRMED");
        writeln!(screen.out, "{confirmed}: {} holds it", files.config.display())?;
    }
    reseal(client, files, manifest, quiet, screen)?;
    Ok(Exit::Fine)
}

/// Whether the configuration file holds it.
fn keep(client: &Client) -> Result<bool, CliError> {
    match client.ask(&Request::Confirm {})? {
        Reply::Confirmed { saved } => Ok(saved),
        other => Err(CliError::other(other)),
    }
}

/// Only where something was sealed, and only what we changed.
fn reseal(
    client: &Client,
    files: &Files,
    manifest: &Path,
    quiet: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut sealed = match Manifest::load(manifest) {
        Ok(sealed) => sealed,
        Err(ManifestError::Missing(_)) => return Ok(()),
        Err(error) => {
            writeln!(
                screen.err,
                "note: the configuration is not sealed anew: {}",
                plain(&error.to_string())
            )?;
            return Ok(());
        }
    };
    match sealed.reseal(&files.config) {
        Ok(None) => {}
        Ok(Some(sum)) => {
            let detail = format!(
                "apply: sealed {} anew, manifest sha256 {sum}",
                files.config.display()
            );
            if manifest == Path::new(DEFAULT_MANIFEST) {
                note(client, Path::new("/"), NoteResult::Ok, &detail, screen);
            }
            if !quiet {
                writeln!(
                    screen.out,
                    "sealed anew in {}, whose sha256 is {sum}",
                    plain(&manifest.to_string_lossy())
                )?;
            }
        }
        Err(error) => writeln!(
            screen.err,
            "note: the configuration is not sealed anew: {}; the monitor stops at that within a minute, say \"verdictctl \
             harden\"",
            plain(&error.to_string())
        )?,
    }
    Ok(())
}

pub(super) fn go_back(client: &Client, args: GoBackArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    need_root("go-back")?;
    if let Some(at) = args.at {
        let watcher = Watcher {
            at: Duration::from_millis(at),
            config: args.config,
            state_dir: args.state_dir,
            detached: args.detached,
        };
        return Ok(watcher.run(client));
    }
    let status = status(client)?;
    if pending(&status)?.state == ApplyState::Unsaved {
        return Err(CliError::Refused(
            "it is confirmed already: \"verdictctl confirm\" saves it, then apply another one".into(),
        ));
    }
    let config = files_of(&status)?.config;
    let how = watcher::go_back(client, &config, &args.state_dir).map_err(CliError::Failed)?;
    writeln!(screen.out, "{}", plain(&how))?;
    Ok(Exit::Fine)
}

fn status(client: &Client) -> Result<Box<StatusReport>, CliError> {
    match client.ask(&Request::Status {})? {
        Reply::Status(status) => Ok(status),
        other => Err(CliError::other(other)),
    }
}

/// What waits for an end.
fn pending(status: &StatusReport) -> Result<&ApplyView, CliError> {
    match &status.apply {
        Some(apply) if apply.state != ApplyState::WentBack => Ok(apply),
        Some(apply) => Err(CliError::Refused(format!(
            "too late: it went back at {} ({}); apply again",
            apply.until.as_deref().unwrap_or("a time unknown"),
            apply.why.as_deref().unwrap_or("no reason was given")
        ))),
        None => Err(CliError::Refused(
            "nothing is on trial: what is in force is what the configuration file says, or the engine was started since"
                .into(),
        )),
    }
}
