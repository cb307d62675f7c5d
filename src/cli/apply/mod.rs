//! `verdictctl apply`: another configuration, looked through, put in force, and gone back from unless it is confirmed.
//!
//! In this order, so that a kill at any point leaves the old policy in force or coming back by itself: the new text is
//! written beside the configuration file, which holds the old one; somebody stands by who goes back; then the engine
//! switches, and counts down itself. Only `confirm` writes the new text into the configuration file.

mod difference;
pub(super) mod files;
mod rooted;
pub(super) mod session;
mod switch;
mod texts;
pub(super) mod watcher;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use self::difference::{Difference, World};
use self::files::Files;
use self::switch::{Done, Switch};
use self::texts::{NoTexts, Texts, Witnesses};
use super::engine::chain;
use super::print::{json, plain};
use super::{Ask, AskError, CliError, Client, Exit, Screen, confirm, span};
use crate::config::{self, Config};
use crate::control::wire::{ApplyState, BanView, Reply, Request, StatusReport};
use crate::engine::last_good;
use crate::engine::lockout;
use crate::integrity::{DEFAULT_CONFIG, DEFAULT_MANIFEST};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The new configuration; without it, what you wrote into the configuration file itself
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Go back after this time unless `verdictctl confirm` comes from a new connection, 5s to 1h [default: 120s if
    /// anything closes, or anybody is banned or no longer trusted]
    #[arg(long, value_name = "DURATION", conflicts_with = "no_confirm")]
    confirm: Option<String>,
    /// Apply for good, also what closes something
    #[arg(long)]
    no_confirm: bool,
    /// Apply also what would close the port of your own SSH session, or of somebody else's
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what it would change
    #[arg(long)]
    dry_run: bool,
    /// Print JSON; asks nothing, so that it needs --yes or --dry-run
    #[arg(long)]
    json: bool,
    /// The configuration file of the engine
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/verdictd")]
    state_dir: PathBuf,
    /// The seal of the configuration
    #[arg(long, hide = true, value_name = "FILE", default_value = DEFAULT_MANIFEST)]
    manifest: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    applied: bool,
    dry_run: bool,
    confirm_seconds: Option<u64>,
    confirm_until: Option<&'a str>,
    refusals: &'a [String],
    difference: &'a Difference,
    engine: &'a [String],
}

pub(super) fn run(
    client: &Client,
    args: ApplyArgs,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    need_root("apply")?;
    let asked = args.asked()?;
    let (files, status) = files_of(client, &args.config)?;
    refuse_second(&status)?;
    let texts = args.find(&files, &status)?;
    let plan = Plan::of(&args, asked, &files, &texts, bans(client))?;
    if !args.json {
        plan.look_through(&texts, screen)?;
    }
    if !plan.refusals.is_empty() && !args.force {
        return Err(plan.refused(&args, screen)?);
    }
    if args.dry_run {
        match args.json {
            true => plan.report(&args, &Done::default(), screen)?,
            false => writeln!(screen.out, "nothing was changed (--dry-run)")?,
        }
        return Ok(Exit::Fine);
    }
    agreed_to_old(&args, &texts, screen, ask)?;
    agreed(&args, plan.seconds, screen, ask)?;
    let switch = Switch {
        client,
        files: &files,
        texts: &texts,
        args: &args,
        seconds: plan.seconds,
    };
    let done = switch.make(&plan.old.sha256, &plan.new.sha256, screen)?;
    match args.json {
        true => plan.report(&args, &done, screen)?,
        false => done.tell(screen)?,
    }
    match done.until {
        Some(_) => Ok(Exit::Fine),
        None => confirm::save(client, &files, &args.manifest, args.json, screen),
    }
}

impl ApplyArgs {
    /// The deadline that is asked for.
    fn asked(&self) -> Result<Option<Duration>, CliError> {
        if self.json && !self.yes && !self.dry_run {
            return Err(CliError::Usage(
                "--json asks nothing: say --yes as well, or --dry-run".into(),
            ));
        }
        self.confirm.as_deref().map(deadline).transpose()
    }

    fn find(&self, files: &Files, status: &StatusReport) -> Result<Texts, CliError> {
        let witnesses = Witnesses {
            in_force: &status.config_sha256,
            good: &self.state_dir.join(last_good::NAME),
            manifest: &self.manifest,
        };
        Texts::find(files, self.file.as_deref(), &witnesses).map_err(|error| match error {
            NoTexts::Config(problems) => CliError::Config(problems),
            other => failed(&other),
        })
    }
}

/// What is to be done, and what speaks against it.
struct Plan {
    old: Config,
    new: Config,
    difference: Difference,
    /// Whom it would lock out.
    refusals: Vec<String>,
    /// When it goes back; none: never.
    seconds: Option<Duration>,
}

impl Plan {
    fn of(
        args: &ApplyArgs,
        asked: Option<Duration>,
        files: &Files,
        texts: &Texts,
        bans: Vec<BanView>,
    ) -> Result<Plan, CliError> {
        let parsed = |text: &str, path: &Path| config::parse(text, path).map_err(CliError::Config);
        let old = parsed(&texts.old, &files.config)?;
        let new = parsed(&texts.new, &texts.source)?;
        let difference = Difference::between(&old, &new, World::look(bans));
        let seconds = match (asked, args.no_confirm) {
            (Some(asked), _) => Some(asked),
            (None, true) => None,
            (None, false) => difference.narrows.then_some(DEFAULT),
        };
        Ok(Plan {
            refusals: refusals(&old, &new),
            old,
            new,
            difference,
            seconds,
        })
    }

    fn look_through(&self, texts: &Texts, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let source = texts.source.display();
        for note in &self.new.notes {
            writeln!(screen.out, "{source}:{}: {}", note.line, plain(&note.text))?;
        }
        for line in self.difference.lines() {
            writeln!(screen.out, "{line}")?;
        }
        screen.out.flush()?;
        Ok(())
    }

    fn refused(&self, args: &ApplyArgs, screen: &mut Screen<'_>) -> Result<CliError, CliError> {
        if args.json {
            self.report(args, &Done::default(), screen)?;
        }
        let mut lines = vec!["nothing was changed, it would lock out:".to_owned()];
        lines.extend_from_slice(&self.refusals);
        Ok(CliError::Lines(lines))
    }

    fn report(&self, args: &ApplyArgs, done: &Done, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let refused = !self.refusals.is_empty() && !args.force;
        let until = done.until.as_deref();
        let report = Report {
            applied: !args.dry_run && !refused,
            dry_run: args.dry_run,
            confirm_seconds: until.and(self.seconds).map(|seconds| seconds.as_secs()),
            confirm_until: until,
            refusals: &self.refusals,
            difference: &self.difference,
            engine: &done.told,
        };
        Ok(json(screen.out, &report, false)?)
    }
}

pub(super) fn status(client: &Client) -> Result<Box<StatusReport>, CliError> {
    match client.ask(&Request::Status {})? {
        Reply::Status(status) => Ok(status),
        other => Err(CliError::other(other)),
    }
}

fn refuse_second(status: &StatusReport) -> Result<(), CliError> {
    match &status.apply {
        Some(apply) if apply.state == ApplyState::Pending => Err(CliError::Refused(format!(
            "a policy is being tried out ({} → {}), it goes back in {} s: first \"verdictctl confirm\" it, or \"verdictctl \
             go-back\"",
            apply.from,
            apply.to,
            apply.seconds_left.unwrap_or_default()
        ))),
        Some(apply) if apply.state == ApplyState::Unsaved => Err(CliError::Refused(
            "the last policy is confirmed and not saved yet: \"verdictctl confirm\" saves it, \"verdictctl go-back\" gives \
             it up"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// The files of the configuration at `config`, which must be what the engine runs, and how the engine is while nobody else
/// begins or ends a trial. It is for whoever types to say which file that is: root writes there.
pub(super) fn files_of(client: &Client, config: &Path) -> Result<(Files, Box<StatusReport>), CliError> {
    let first = status(client)?;
    refuse_elsewhere(first.pid)?;
    refuse_another(&first, config)?;
    let files = Files::of(config, PATIENCE).map_err(|error| failed(&error))?;
    Ok((files, status(client)?))
}

/// What is listening and connected here is looked at, and the old table comes back here.
fn refuse_elsewhere(pid: u32) -> Result<(), CliError> {
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    match (network("self"), network(&pid.to_string())) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(CliError::Failed(format!(
            "the engine (pid {pid}) works in another network namespace: nsenter --net=/proc/{pid}/ns/net verdictctl …"
        ))),
        _ => Ok(()),
    }
}

/// The engine is asked which file it runs only to notice a mistake: it could name any.
fn refuse_another(status: &StatusReport, config: &Path) -> Result<(), CliError> {
    let theirs = Path::new(status.config.as_deref().unwrap_or(DEFAULT_CONFIG));
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        fs::canonicalize(&absolute).unwrap_or(absolute)
    };
    if !theirs.is_absolute() {
        return Err(CliError::Failed(format!(
            "the engine was started with the relative path {theirs:?}, which only it can follow: start it with an absolute \
             one"
        )));
    }
    match real(theirs) == real(config) {
        true => Ok(()),
        false => Err(CliError::Failed(format!(
            "the engine runs {theirs:?}, not {config:?}: if that file is yours and meant, name it with --config"
        ))),
    }
}

/// Without them less is known of what changes; nothing hangs on it.
fn bans(client: &Client) -> Vec<BanView> {
    match client.ask(&Request::List {}) {
        Ok(Reply::List(bans)) => bans,
        _ => Vec::new(),
    }
}

/// Whom it would lock out: whoever types this, then everybody else who is logged in.
fn refusals(old: &Config, new: &Config) -> Vec<String> {
    if new.engine.allow_lockout {
        return Vec::new();
    }
    let cut = session::cut(old, new).map(|cut| cut.to_string());
    let mut refusals: Vec<String> = cut.into_iter().collect();
    refusals.extend(lockout::newly_locked_out(new, Some(old)));
    refusals
}

/// Root writes nothing into the configuration file that only the engine vouches for: whoever applies looks at it first.
fn agreed_to_old(
    args: &ApplyArgs,
    texts: &Texts,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<(), CliError> {
    let Some(good) = &texts.doubted else { return Ok(()) };
    let unseen = || {
        CliError::Failed(format!(
            "nothing was changed: the text that is in force, to go back to, is only in {good:?}, which the engine may write: \
             it has to be looked at once, so apply without --yes on a terminal; or put the configuration file back as it \
             was, and apply yours as another file"
        ))
    };
    if args.yes {
        return Err(unseen());
    }
    writeln!(screen.out, "what is in force, as {good:?} has it:")?;
    for line in texts.old.lines() {
        writeln!(screen.out, "  {}", plain(line))?;
    }
    screen.out.flush()?;
    let question = "is that the text to go back to, and to stand in the configuration file until the new one is confirmed?";
    match ask.yes(question, false) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::Failed("nothing was changed".into())),
        Err(AskError::NoTerminal) => Err(unseen()),
        Err(other) => Err(other.into()),
    }
}

fn agreed(
    args: &ApplyArgs,
    seconds: Option<Duration>,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    screen.out.flush()?;
    let question = match seconds {
        Some(seconds) => format!(
            "switch to it? It goes back by itself after {} unless it is confirmed from a new connection",
            span::spoken(seconds.as_secs())
        ),
        None => "switch to it for good?".into(),
    };
    match ask.yes(&question, false) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::Failed("nothing was changed".into())),
        Err(AskError::NoTerminal) => Err(CliError::Failed(
            "nothing was changed: there is no terminal to ask on; say --yes if all of this is meant".into(),
        )),
        Err(other) => Err(other.into()),
    }
}

fn deadline(text: &str) -> Result<Duration, CliError> {
    let wrong = |why: &str| {
        CliError::Usage(format!(
            "--confirm {text}: {why}, 5s to 1h would be right, such as 120s"
        ))
    };
    let length = config::parse_duration(text).map_err(|error| wrong(&error.to_string()))?;
    match (SHORTEST..=LONGEST).contains(&length) {
        true => Ok(length),
        false => Err(wrong("is out of range")),
    }
}

pub(super) fn need_root(verb: &str) -> Result<(), CliError> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(CliError::Failed(format!(
            "only root may do that: sudo verdictctl {verb}"
        ))),
    }
}

/// With all that caused it.
pub(super) fn failed(error: &dyn Error) -> CliError {
    CliError::Failed(chain(error))
}

/// As netplan-try: time to open a window, log in and type; short enough to be waited for by who is locked out.
const DEFAULT: Duration = Duration::from_secs(120);
/// Nobody logs in anew in less.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_make_sense_are_taken() {
        for (text, seconds) in [("5s", 5), ("120s", 120), ("2m", 120), ("1h", 3600)] {
            assert_eq!(deadline(text).unwrap().as_secs(), seconds);
        }
        for text in ["", "4s", "61m", "x", "-5s", "120"] {
            let wrong = deadline(text).unwrap_err().to_string();
            assert!(wrong.contains("5s to 1h would be right"), "{wrong}");
        }
    }
}
