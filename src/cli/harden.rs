//! `verdictctl harden`: sets owners and modes, and seals what is there.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::print::{Paint, counted, json, plain};
use super::verify::{forgive, note};
use super::{Ask, AskError, CliError, Client, Exit, Screen};
use crate::control::wire::NoteResult;
use crate::integrity::{Change, DEFAULT_BINARIES, Difference, Options, Plan, SealError};
use crate::places;

#[derive(Debug, clap::Args)]
pub(super) struct HardenArgs {
    /// Work on the system below this directory instead of the running one
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = places::CONFIG)]
    config: PathBuf,
    /// Where the manifest is written
    #[arg(long, value_name = "FILE", default_value = places::MANIFEST)]
    manifest: PathBuf,
    /// Folder of the programs [default: that of this one; /usr/bin with --root]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Seal what differs from the former seal without asking
    #[arg(long)]
    yes: bool,
    /// Seal a configuration that does not load, too
    #[arg(long)]
    force: bool,
    /// Seal this file anew and leave the rest of the former seal as it is; for the packages' scripts
    #[arg(long, hide = true, value_name = "FILE")]
    only: Vec<PathBuf>,
    /// Print nothing but what is wrong
    #[arg(long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    sealed: bool,
    dry_run: bool,
    manifest: String,
    sha256: String,
    files: Vec<String>,
    changes: &'a [Change],
    right_already: usize,
    differences: &'a [Difference],
    notes: &'a [String],
}

pub(super) fn run(
    client: &Client,
    args: HardenArgs,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    let options = Options {
        binaries: args.binaries.clone().map_or_else(|| own_folder(&args.root), Ok)?,
        root: args.root.clone(),
        config: args.config.clone(),
        manifest: args.manifest.clone(),
        force: args.force,
    };
    let plan = Plan::make(&options).and_then(|plan| match args.only.is_empty() {
        true => Ok(plan),
        false => plan.only(&args.only),
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(SealError::Problems(problems)) => return problems_first(&problems, screen),
        Err(SealError::Config(error)) => return Err(CliError::Config(error)),
        Err(error @ SealError::Relative(_)) => return Err(CliError::Usage(error.to_string())),
        Err(error) => return Err(CliError::Failed(error.to_string())),
    };
    let words = !args.json && !args.quiet;
    if words {
        print(&plan, screen)?;
    }
    if !args.dry_run {
        agreed(&plan, &args, screen, ask)?;
        let applied = plan.apply();
        tell(client, &plan, &args, applied.as_ref().err(), screen);
        applied.map_err(|error| CliError::Failed(error.to_string()))?;
        if args.only.is_empty() {
            forgive(&args.root, &args.manifest, screen);
        }
    }
    if args.json {
        json(screen.out, &report(&plan, &args), false)?;
    } else if words {
        done(&plan, &args, screen)?;
    }
    Ok(Exit::Fine)
}

/// Programs lie together; those of another root do not lie where this one does.
fn own_folder(root: &Path) -> Result<PathBuf, CliError> {
    if root != Path::new("/") {
        return Ok(DEFAULT_BINARIES.into());
    }
    let own = std::env::current_exe().map_err(|error| {
        CliError::Failed(format!(
            "cannot tell where this program is ({error}), name its folder with --binaries"
        ))
    })?;
    Ok(own
        .parent()
        .map_or_else(|| DEFAULT_BINARIES.into(), Path::to_owned))
}

fn problems_first(problems: &[String], screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    writeln!(
        screen.err,
        "verdictctl: nothing was changed, this has to be put right first:"
    )?;
    for problem in problems {
        writeln!(screen.err, "  {}", plain(problem))?;
    }
    Ok(Exit::Failed)
}

fn print(plan: &Plan, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Screen { out, style, .. } = screen;
    for note in &plan.notes {
        writeln!(
            out,
            "{}",
            style.paint(Paint::Yellow, &format!("note: {}", plain(note)))
        )?;
    }
    for change in &plan.changes {
        writeln!(out, "{change}")?;
    }
    let (wrong, right) = (plan.changes.len(), plan.right);
    writeln!(out, "owners and modes: {wrong} to change, {right} right already")?;
    for difference in &plan.differences {
        writeln!(out, "{}", style.paint(Paint::Red, &difference.to_string()))?;
    }
    out.flush()?;
    Ok(())
}

/// An attacker's change must not be sealed by habit: a person says that it is hers, or `--yes` does.
fn agreed(
    plan: &Plan,
    args: &HardenArgs,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<(), CliError> {
    if plan.differences.is_empty() || args.yes {
        return Ok(());
    }
    if args.quiet || args.json {
        for difference in &plan.differences {
            writeln!(screen.err, "{difference}")?;
        }
    }
    let differences = counted(plan.differences.len() as u64, "difference");
    let question = format!("{differences} from the former seal: are they all yours, and to be sealed?");
    match ask.yes(&question, false) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::Failed(
            "nothing was changed, the former seal stays".into(),
        )),
        Err(AskError::NoTerminal) => Err(CliError::Failed(format!(
            "nothing was changed: {differences} from the former seal; look at them, then say --yes if they are yours"
        ))),
        Err(other) => Err(other.into()),
    }
}

fn tell(
    client: &Client,
    plan: &Plan,
    args: &HardenArgs,
    failed: Option<&SealError>,
    screen: &mut Screen<'_>,
) {
    // What could not be set or written is no violation, which the note would be taken for.
    if failed.is_some_and(|error| !matches!(error, SealError::Changed(_))) {
        return;
    }
    let (result, detail) = match failed {
        Some(error) => (NoteResult::Failed, format!("harden: {error}")),
        None => {
            let accepted: Vec<String> = plan.differences.iter().map(Difference::to_string).collect();
            let accepted = match accepted.is_empty() {
                true => String::new(),
                false => format!("; accepted: {}", accepted.join("; ")),
            };
            let sealed = format!(
                "harden: sealed {}, manifest sha256 {}",
                plan.cover(),
                plan.sha256()
            );
            (NoteResult::Ok, sealed + &accepted)
        }
    };
    note(client, &args.root, result, &detail, screen);
}

fn done(plan: &Plan, args: &HardenArgs, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Screen { out, style, .. } = screen;
    let manifest = plain(&args.manifest.to_string_lossy());
    let cover = plan.cover();
    if args.dry_run {
        writeln!(
            out,
            "nothing was changed (--dry-run); {manifest} would cover {cover}"
        )?;
        return Ok(());
    }
    let sealed = style.paint(Paint::Green, "SEALED");
    writeln!(
        out,
        "{sealed}: {cover} in {manifest}, whose sha256 is {}",
        plan.sha256()
    )?;
    writeln!(
        out,
        "who becomes root can seal anew: keep a copy of it on another machine"
    )?;
    Ok(())
}

fn report<'a>(plan: &'a Plan, args: &HardenArgs) -> Report<'a> {
    Report {
        sealed: !args.dry_run,
        dry_run: args.dry_run,
        manifest: args.manifest.to_string_lossy().into_owned(),
        sha256: plan.sha256(),
        files: plan
            .files()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
        changes: &plan.changes,
        right_already: plan.right,
        differences: &plan.differences,
        notes: &plan.notes,
    }
}
