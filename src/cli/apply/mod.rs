//! `verdictctl apply`: another configuration, looked through, put in force, and gone back from unless it is confirmed.
//!
//! In this order, so that a kill at any point leaves the old policy in force or coming back by itself: the new text is
//! written beside the configuration file, which holds the old one; somebody stands by who goes back; then the engine
//! switches, and counts down itself. Only `confirm` writes the new text into the configuration file.

mod difference;
pub(super) mod files;
pub(super) mod session;
pub(super) mod watcher;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use self::difference::{Difference, World};
use self::files::{Files, NoTexts, Texts};
use super::print::{Paint, json, plain};
use super::{Ask, AskError, CliError, Client, Exit, Screen, confirm, span};
use crate::config::{self, Config};
use crate::control::views::timestamp;
use crate::control::wire::{ApplyState, Reply, Request, StatusReport};
use crate::engine::last_good;
use crate::engine::lockout;
use crate::engine::trial;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// The new configuration; without it, what you wrote into the configuration file itself
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Go back after this time unless `verdictctl confirm` comes from a new connection, 5s to 1h [default: 120s if
    /// anything closes]
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
    /// Where state is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/verdictd")]
    state_dir: PathBuf,
    /// The seal of the configuration
    #[arg(long, hide = true, value_name = "FILE", default_value = crate::integrity::DEFAULT_MANIFEST)]
    manifest: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    applied: bool,
    dry_run: bool,
    confirm_seconds: Option<u64>,
    confirm_until: Option<String>,
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
    let asked = args.confirm.as_deref().map(deadline).transpose()?;
    if args.json && !args.yes && !args.dry_run {
        return Err(CliError::Usage(
            "--json asks nothing: say --yes as well, or --dry-run".into(),
        ));
    }
    let status = status(client)?;
    refuse_second(&status)?;
    let files = files_of(&status)?;
    let texts = find(&files, &args, &status)?;
    let (old, new) = (
        parsed(&texts.old, &files.config)?,
        parsed(&texts.new, &texts.source)?,
    );
    let difference = Difference::between(&old, &new, World::look(bans(client)));
    let seconds = match (asked, args.no_confirm) {
        (Some(asked), _) => Some(asked),
        (None, true) => None,
        (None, false) => difference.narrows.then_some(DEFAULT),
    };
    let refusals = refusals(&old, &new);
    if !args.json {
        look_through(&difference, &new, &texts, screen)?;
    }
    if !refusals.is_empty() && !args.force {
        if args.json {
            report(&args, &difference, &refusals, None, &[], screen)?;
        }
        let mut lines = vec!["nothing was changed, it would lock out:".to_owned()];
        lines.extend(refusals);
        return Err(CliError::Lines(lines));
    }
    if args.dry_run {
        match args.json {
            true => report(&args, &difference, &refusals, None, &[], screen)?,
            false => writeln!(screen.out, "nothing was changed (--dry-run)")?,
        }
        return Ok(Exit::Fine);
    }
    agreed(&args, seconds, screen, ask)?;
    let switch = Switch {
        client,
        files: &files,
        texts: &texts,
        args: &args,
        seconds,
    };
    let (until, told) = switch.make(&old.sha256, &new.sha256, screen)?;
    let confirm = until.clone().zip(seconds);
    match args.json {
        true => report(&args, &difference, &refusals, confirm, &told, screen)?,
        // What changed was told before; what the engine has to say besides was not.
        false => {
            for line in told.iter().filter(|line| !line.contains(" → ")) {
                writeln!(screen.out, "note: {}", plain(line))?;
            }
        }
    }
    match until {
        Some(_) => Ok(Exit::Fine),
        None => confirm::save(client, &files, &args.manifest, args.json, screen),
    }
}

/// The switch itself.
struct Switch<'a> {
    client: &'a Client,
    files: &'a Files,
    texts: &'a Texts,
    args: &'a ApplyArgs,
    seconds: Option<Duration>,
}

impl Switch<'_> {
    /// When it goes back, and what the engine said of it.
    fn make(
        &self,
        from: &str,
        sha256: &str,
        screen: &mut Screen<'_>,
    ) -> Result<(Option<String>, Vec<String>), CliError> {
        self.lay_out(screen)?;
        let until = self.seconds.map(|seconds| trial::since_boot() + seconds);
        if let Some(until) = until
            && let Err(why) = watcher::start(self.client, self.files, &self.args.state_dir, until)
        {
            self.undo(screen);
            return Err(CliError::Failed(format!("nothing was changed: {why}")));
        }
        let at = self.seconds.map(|seconds| timestamp(SystemTime::now() + seconds));
        // Before the switch: whoever is cut off by it has read how it ends.
        if let (Some(at), Some(seconds), false) = (&at, self.seconds, self.args.json) {
            let how = format!(
                "switching now; it goes back by itself in {} (at {at}) unless you open a NEW ssh connection and type: \
                 sudo verdictctl confirm",
                span::spoken(seconds.as_secs())
            );
            writeln!(screen.out, "{}", screen.style.paint(Paint::Bold, &how))?;
            screen.out.flush()?;
        }
        let request = Request::Try {
            from: from.to_owned(),
            sha256: sha256.to_owned(),
            until_ms: until.map(trial::millis),
            force: self.args.force,
        };
        match self.client.ask(&request) {
            Ok(Reply::Reloaded(told)) => Ok((at, told)),
            Ok(Reply::Refused { message }) if message.contains("unknown") => Err(CliError::Refused(message)),
            Ok(other) => {
                self.undo(screen);
                Err(CliError::other(other))
            }
            // It may have been done: then it goes back, and what is laid out has to stay.
            Err(error) => Err(error.into()),
        }
    }

    /// The candidate beside the configuration file, which holds the old text.
    fn lay_out(&self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let Texts {
            old,
            new,
            in_place,
            edited,
            ..
        } = self.texts;
        if self.files.put_aside().map_err(CliError::Failed)? {
            let kept = self.files.unconfirmed();
            writeln!(
                screen.err,
                "note: an apply that was broken off left its file, kept in {}",
                kept.display()
            )?;
        }
        let there = config::text(&self.files.config).ok();
        let expected = if *in_place {
            Some(new)
        } else {
            edited.as_ref().or(Some(old))
        };
        if there.is_some() && there.as_ref() != expected {
            return Err(CliError::Failed(format!(
                "nothing was changed: {:?} was written to meanwhile, apply again",
                self.files.config
            )));
        }
        self.files.write_candidate(new).map_err(CliError::Failed)?;
        if let Some(edited) = edited {
            let kept = self.files.keep_edit(edited).map_err(CliError::Failed)?;
            writeln!(
                screen.err,
                "note: what you wrote into the configuration file is kept in {}",
                kept.display()
            )?;
        }
        match there.as_ref() == Some(old) {
            true => Ok(()),
            false => self.files.write_config(old).map_err(CliError::Failed),
        }
    }

    fn undo(&self, screen: &mut Screen<'_>) {
        if let Err(why) = self.files.undo(self.texts.in_place) {
            let _ = writeln!(screen.err, "note: {}", plain(&why));
        }
    }
}

fn status(client: &Client) -> Result<Box<StatusReport>, CliError> {
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
            "the last policy is confirmed and not saved yet: \"verdictctl confirm\" saves it".into(),
        )),
        _ => Ok(()),
    }
}

/// The files of the configuration that the engine runs.
pub(super) fn files_of(status: &StatusReport) -> Result<Files, CliError> {
    let config = status
        .config
        .as_deref()
        .unwrap_or(crate::integrity::DEFAULT_CONFIG);
    refuse_elsewhere(status.pid)?;
    Files::of(Path::new(config), PATIENCE).map_err(CliError::Failed)
}

/// What is listening and connected here is looked at, and the old table comes back here.
fn refuse_elsewhere(pid: u32) -> Result<(), CliError> {
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    match (network("self"), network(&pid.to_string())) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(CliError::Failed(format!(
            "the engine (pid {pid}) works in another network namespace: nsenter --net=/proc/{pid}/ns/net verdictctl …"
        ))),
        _ => Ok(()),
    }
}

fn find(files: &Files, args: &ApplyArgs, status: &StatusReport) -> Result<Texts, CliError> {
    let good = args.state_dir.join(last_good::NAME);
    Texts::find(files, args.file.as_deref(), &status.config_sha256, &good).map_err(|error| match error {
        NoTexts::Config(problems) => CliError::Config(problems),
        other => CliError::Failed(other.to_string()),
    })
}

fn parsed(text: &str, path: &Path) -> Result<Config, CliError> {
    config::parse(text, path).map_err(CliError::Config)
}

/// Without them less is known of what changes; nothing hangs on it.
fn bans(client: &Client) -> Vec<crate::control::wire::BanView> {
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
    let mut refusals: Vec<String> = session::cut(old, new).into_iter().collect();
    refusals.extend(lockout::newly_locked_out(new, Some(old)));
    refusals
}

fn look_through(
    difference: &Difference,
    new: &Config,
    texts: &Texts,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    for note in &new.notes {
        writeln!(
            screen.out,
            "{}:{}: {}",
            texts.source.display(),
            note.line,
            plain(&note.text)
        )?;
    }
    for line in difference.lines() {
        writeln!(screen.out, "{line}")?;
    }
    screen.out.flush()?;
    Ok(())
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

fn report(
    args: &ApplyArgs,
    difference: &Difference,
    refusals: &[String],
    confirm: Option<(String, Duration)>,
    engine: &[String],
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let refused = !refusals.is_empty() && !args.force;
    let (until, seconds) = confirm.unzip();
    let report = Report {
        applied: !args.dry_run && !refused,
        dry_run: args.dry_run,
        confirm_seconds: seconds.map(|seconds| seconds.as_secs()),
        confirm_until: until,
        refusals,
        difference,
        engine,
    };
    Ok(json(screen.out, &report, false)?)
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
