//! `verdictctl confirm` and `verdictctl go-back`: how an apply ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::apply::files::Files;
use super::apply::watcher::{self, Ended, Watcher};
use super::apply::{failed, files_of, need_root, session, status};
use super::print::{Paint, plain};
use super::verify::note;
use super::{CliError, Client, Exit, Screen};
use crate::config;
use crate::control::wire::{ApplyState, ApplyView, NoteResult, Reply, Request, StatusReport};
use crate::integrity::{Manifest, ManifestError};
use crate::places;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfirmArgs {
    /// You sit in front of this host, in a window that tells nothing of it
    #[arg(long)]
    here: bool,
    /// The configuration file of the engine
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
    /// The seal of the configuration
    #[arg(long, hide = true, value_name = "FILE", default_value = places::MANIFEST)]
    manifest: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct GoBackArgs {
    /// When, in milliseconds since boot: what an apply leaves running
    #[arg(long, hide = true, value_name = "MS")]
    at: Option<u64>,
    /// The configuration file of the engine
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
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
    let (files, status) = files_of(client, &args.config)?;
    let apply = pending(&status)?;
    if apply.state == ApplyState::Pending {
        let since = Duration::from_millis(apply.since_boot_ms);
        let config = config::load(&files.candidate()).ok();
        let proof = session::proof(since, config.as_ref(), args.here).map_err(|why| {
            let left = apply.seconds_left.unwrap_or_default();
            CliError::Refused(format!("{why}; it goes back in {left} s"))
        })?;
        writeln!(screen.out, "{}", plain(&proof.to_string()))?;
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
    let there = held(&files.config, apply);
    let done = there.is_some();
    let Some(text) = there.or_else(|| held(&files.candidate(), apply)) else {
        return Err(lost(files, apply));
    };
    match (keep(client)?, done) {
        (true, _) => {}
        (false, true) => return Err(unseen(files)),
        (false, false) => write(client, files, &text)?,
    }
    if let Err(error) = files.keep_in_force(&text) {
        let why = plain(&error.to_string());
        writeln!(
            screen.err,
            "note: the next apply will have to ask what was in force: {why}"
        )?;
    }
    if !quiet {
        let confirmed = screen.style.paint(Paint::Green, "CONFIRMED");
        writeln!(screen.out, "{confirmed}: {} holds it", files.config.display())?;
    }
    reseal(client, files, manifest, quiet, screen)?;
    Ok(Exit::Fine)
}

/// The text that is to be confirmed, if it is at `path`.
fn held(path: &Path, apply: &ApplyView) -> Option<String> {
    let text = config::text(path).ok()?;
    (config::digest(&text) == apply.sha256).then_some(text)
}

/// What is in force cannot be written anywhere.
fn lost(files: &Files, apply: &ApplyView) -> CliError {
    let candidate = files.candidate();
    CliError::Failed(match apply.state {
        ApplyState::Unsaved => format!(
            "it is in force and confirmed, but cannot be saved: {candidate:?} is gone or was changed meanwhile, and no other \
             file holds it; \"verdictctl go-back\" gives it up, then apply it again"
        ),
        _ => format!("{candidate:?} is not what is in force, it was changed meanwhile: it is not confirmed"),
    })
}

/// Into the configuration file, which holds what was in force before, unless the engine is at something else by then: it
/// may have been started anew meanwhile, with what was before.
fn write(client: &Client, files: &Files, text: &str) -> Result<(), CliError> {
    let before = config::text(&files.config).ok();
    files.promote().map_err(|error| {
        CliError::Failed(format!(
            "it is in force for good, but not saved: {error}; \"verdictctl confirm\" tries again"
        ))
    })?;
    let Err(why) = must_be_saved(client, files) else {
        return Ok(());
    };
    let running = status(client).map(|status| status.config_sha256);
    match (running, before) {
        // The next one starts with it: it was confirmed.
        (Err(_), _) => Err(why),
        (Ok(running), _) if running == config::digest(text) => Ok(()),
        (Ok(running), Some(before)) if running == config::digest(&before) => {
            Err(give_up(files, text, &before))
        }
        (Ok(_), _) => Err(CliError::Failed(format!(
            "{why}; what is in force is something else than {:?} says: \"verdictctl reload\" takes up what the file says",
            files.config
        ))),
    }
}

/// Only a start in between brings the old policy back: then the file has to say so too.
fn give_up(files: &Files, text: &str, before: &str) -> CliError {
    let written = files
        .write_config(before)
        .and_then(|()| files.keep_unconfirmed(text));
    match written {
        Ok(kept) => CliError::Failed(format!(
            "not confirmed: the engine was started anew meanwhile and runs the old policy again, as the file says; apply \
             it again, it is kept in {kept:?}"
        )),
        Err(error) => failed(&error),
    }
}

/// The engine looks into the file.
fn must_be_saved(client: &Client, files: &Files) -> Result<(), CliError> {
    match keep(client)? {
        true => Ok(()),
        false => Err(unseen(files)),
    }
}

fn unseen(files: &Files) -> CliError {
    CliError::Failed(format!(
        "it is in force for good, but the engine does not find it in {:?}: \"verdictctl confirm\" tries again",
        files.config
    ))
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
            if manifest == Path::new(places::MANIFEST) {
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
    let (files, status) = files_of(client, &args.config)?;
    take_back(&files, pending(&status)?)?;
    let ended = watcher::go_back(client, &files.config, &args.state_dir, None);
    let line = match ended.map_err(|error| failed(&error))? {
        Ended::Back(how) => format!("{how}{}", watcher::told(watcher::aside(&files))),
        Ended::Stays(how) => how.to_owned(),
    };
    writeln!(screen.out, "{}", plain(&line))?;
    Ok(Exit::Fine)
}

/// A confirm that was broken off may have written the configuration file already: as if it had not, so that whoever goes
/// back, with an engine or without, finds the old text there.
fn take_back(files: &Files, apply: &ApplyView) -> Result<(), CliError> {
    let Some(text) = held(&files.config, apply) else {
        return Ok(());
    };
    let old = [files.in_force(), files.before_apply()]
        .iter()
        .filter_map(|path| config::text(path).ok())
        .find(|old| config::digest(old) != apply.sha256);
    let Some(old) = old else {
        return Err(CliError::Failed(format!(
            "{:?} holds it already, and what was in force before lies nowhere beside it: \"verdictctl confirm\" completes \
             it, then apply what is to be in force",
            files.config
        )));
    };
    files
        .write_candidate(&text)
        .and_then(|()| files.write_config(&old))
        .map_err(|error| failed(&error))
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
