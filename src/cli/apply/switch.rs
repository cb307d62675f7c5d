//! The switch itself: files laid out, somebody standing by, then the engine.

use std::time::{Duration, SystemTime};

use super::super::print::{Paint, plain};
use super::super::{CliError, Client, Screen, span};
use super::files::Files;
use super::texts::Texts;
use super::{ApplyArgs, failed, watcher};
use crate::config;
use crate::control::views::timestamp;
use crate::control::wire::{Reply, Request};
use crate::engine::trial;

/// What is switched.
pub(super) struct Switch<'a> {
    pub(super) client: &'a Client,
    pub(super) files: &'a Files,
    pub(super) texts: &'a Texts,
    pub(super) args: &'a ApplyArgs,
    pub(super) seconds: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// When it goes back; none: never.
    pub(super) until: Option<String>,
    /// What the engine said of it.
    pub(super) told: Vec<String>,
}

impl Done {
    /// What changed was told before; what the engine has to say besides was not.
    pub(super) fn tell(&self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        for line in self.told.iter().filter(|line| !line.contains(" → ")) {
            writeln!(screen.out, "note: {}", plain(line))?;
        }
        Ok(())
    }
}

impl Switch<'_> {
    pub(super) fn make(&self, from: &str, sha256: &str, screen: &mut Screen<'_>) -> Result<Done, CliError> {
        self.must_be_as_read()?;
        let until = self.seconds.map(|seconds| trial::since_boot() + seconds);
        let at = self.seconds.map(|seconds| timestamp(SystemTime::now() + seconds));
        let ready = self
            .prepare(until, screen)
            .and_then(|()| self.announce(at.as_deref(), screen));
        if let Err(error) = ready {
            self.undo(screen);
            return Err(error);
        }
        let request = Request::Try {
            from: from.to_owned(),
            sha256: sha256.to_owned(),
            until_ms: until.map(trial::millis),
            force: self.args.force,
        };
        match self.client.ask(&request) {
            Ok(Reply::Reloaded(told)) => Ok(Done { until: at, told }),
            Ok(refused @ Reply::Refused { .. }) => {
                self.undo(screen);
                Err(CliError::other(refused))
            }
            // It may have been done: then it goes back, and what is laid out has to stay.
            Ok(other) => Err(CliError::other(other)),
            Err(error) => Err(error.into()),
        }
    }

    fn must_be_as_read(&self) -> Result<(), CliError> {
        match config::text(&self.files.config).ok() == self.texts.before {
            true => Ok(()),
            false => Err(CliError::Failed(format!(
                "nothing was changed: {:?} was written to meanwhile, apply again",
                self.files.config
            ))),
        }
    }

    fn prepare(&self, until: Option<Duration>, screen: &mut Screen<'_>) -> Result<(), CliError> {
        self.lay_out(screen)?;
        self.files.begin(until).map_err(|error| failed(&error))?;
        let Some(until) = until else { return Ok(()) };
        watcher::start(self.client, self.files, &self.args.state_dir, until)
            .map_err(|error| CliError::Failed(format!("nothing was changed: {error}")))
    }

    /// The candidate beside the configuration file, which holds the old text.
    fn lay_out(&self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let Texts { old, new, before, .. } = self.texts;
        let files = self.files;
        if files.put_aside().map_err(|error| failed(&error))? {
            let kept = files.unconfirmed();
            let kept = kept.display();
            writeln!(
                screen.err,
                "note: an apply that was broken off left its file, kept in {kept}"
            )?;
        }
        files.keep_in_force(old).map_err(|error| failed(&error))?;
        files.write_candidate(new).map_err(|error| failed(&error))?;
        if let Some(edited) = self.texts.edited() {
            let kept = files.keep_edit(edited).map_err(|error| failed(&error))?;
            let kept = kept.display();
            writeln!(
                screen.err,
                "note: what you wrote into the configuration file is kept in {kept}"
            )?;
        }
        match before.as_ref() == Some(old) {
            true => Ok(()),
            false => files.write_config(old).map_err(|error| failed(&error)),
        }
    }

    /// Before the switch: whoever is cut off by it has read how it ends.
    fn announce(&self, at: Option<&str>, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let (Some(at), Some(seconds), false) = (at, self.seconds, self.args.json) else {
            return Ok(());
        };
        let how = format!(
            "switching now; it goes back by itself in {} (at {at}) unless you open a NEW ssh connection and type: sudo \
             verdictctl confirm",
            span::spoken(seconds.as_secs())
        );
        writeln!(screen.out, "{}", screen.style.paint(Paint::Bold, &how))?;
        Ok(screen.out.flush()?)
    }

    fn undo(&self, screen: &mut Screen<'_>) {
        if let Err(why) = self.files.undo(self.texts.before.as_deref()) {
            let _ = writeln!(screen.err, "note: {}", plain(&why.to_string()));
        }
    }
}
