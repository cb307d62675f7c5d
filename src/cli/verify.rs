//! `verdictctl verify`: is everything as it was sealed?

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::print::{Paint, counted, json, plain};
use super::{CliError, Client, Exit, Screen};
use crate::control::wire::{NoteKind, NoteResult, Reply, Request};
use crate::integrity::{HINT, Manifest, Mismatch};
use crate::monitor::places::Places;
use crate::monitor::report;
use crate::places;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Look at the system below this directory instead of the running one
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The manifest that `verdictctl harden` wrote
    #[arg(long, value_name = "FILE", default_value = places::MANIFEST)]
    manifest: PathBuf,
    /// Print nothing when all is as it was sealed
    #[arg(long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    sound: bool,
    manifest: String,
    files: usize,
    mismatches: &'a [Mismatch],
}

/// Exit 0, or 1 if something differs, or 2 if there is no manifest to go by.
pub(super) fn run(client: &Client, args: VerifyArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let loaded = Manifest::load_in(&args.root, &args.manifest);
    let manifest = loaded.map_err(|error| CliError::Usage(error.to_string()))?;
    let mismatches = manifest.verify();
    let files = manifest.files().count();
    match args.json {
        true => json(
            screen.out,
            &Report {
                sound: mismatches.is_empty(),
                manifest: args.manifest.to_string_lossy().into_owned(),
                files,
                mismatches: &mismatches,
            },
            false,
        )?,
        false if args.quiet && mismatches.is_empty() => {}
        false => print(&args, files, &mismatches, screen)?,
    }
    let words: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    let (result, detail) = match words.is_empty() {
        true => (
            NoteResult::Ok,
            format!("{} as sealed", counted(files as u64, "file")),
        ),
        false => (NoteResult::Failed, words.join("; ")),
    };
    note(client, &args.root, result, &detail, screen);
    if mismatches.is_empty() {
        forgive(&args.root, &args.manifest, screen);
    }
    Ok(match mismatches.is_empty() {
        true => Exit::Fine,
        false => Exit::Failed,
    })
}

fn print(
    args: &VerifyArgs,
    files: usize,
    mismatches: &[Mismatch],
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let Screen { out, style, .. } = screen;
    let manifest = plain(&args.manifest.to_string_lossy());
    for mismatch in mismatches {
        writeln!(out, "{}", style.paint(Paint::Red, &mismatch.to_string()))?;
    }
    let files = counted(files as u64, "file");
    if mismatches.is_empty() {
        let sound = style.paint(Paint::Green, "SOUND");
        writeln!(out, "{sound}: {files} as sealed in {manifest}")?;
        return Ok(());
    }
    let changed = style.paint(Paint::Red, "CHANGED");
    let differences = counted(mismatches.len() as u64, "difference");
    writeln!(out, "{changed}: {differences} from {manifest} ({files})")?;
    writeln!(
        out,
        "{HINT}; if it was not, compare with dpkg -V and find out whose"
    )?;
    Ok(())
}

/// A word after the configuration at `path` was changed by what we did: its seal is broken now, and a monitor would stop.
pub(super) fn tell_stale(path: &Path, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Ok(manifest) = Manifest::load(Path::new(places::MANIFEST)) else {
        return Ok(());
    };
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(mismatch) = manifest.verify_file(&path).first() {
        writeln!(screen.out, "{mismatch}")?;
        writeln!(screen.out, "the monitor stops at that within a minute: {HINT}")?;
    }
    Ok(())
}

/// What the monitor found is put right: `status` no longer says otherwise.
pub(super) fn forgive(root: &Path, manifest: &Path, screen: &mut Screen<'_>) {
    let places = Places::default();
    let ours = root == Path::new("/") && manifest == places.manifest;
    if !ours || !rustix::process::geteuid().is_root() {
        return;
    }
    // What cannot be said is no reason to fail: the seal holds.
    let _ = match report::forgive(&places) {
        Ok(true) => writeln!(
            screen.err,
            "note: the monitor ended when it found that, start it again: verdictctl monitor"
        ),
        Ok(false) => Ok(()),
        Err(error) => writeln!(
            screen.err,
            "note: {} is as it was: {error}",
            places.report().display()
        ),
    };
}

/// Has the running engine write the result into the audit log. Without one, or elsewhere than in this system, it is only
/// printed.
pub(super) fn note(client: &Client, root: &Path, result: NoteResult, detail: &str, screen: &mut Screen<'_>) {
    if root != Path::new("/") || !rustix::process::geteuid().is_root() {
        return;
    }
    let request = Request::note(NoteKind::Integrity, result, detail);
    if let Ok(Reply::Refused { message }) = client.ask(&request) {
        let _ = writeln!(screen.err, "note: not in the audit log: {}", plain(&message));
    }
}
