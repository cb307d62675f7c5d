//! The files of an apply. The configuration file holds the old text until the new one is confirmed, so that whatever
//! starts an engine in between, a reboot too, goes back by itself.
//!
//! Beside it: `.candidate`, what is being tried; `.unconfirmed`, what was tried last and went back; `.bak`, what the last
//! confirmed one replaced; `.edited`, an edit in whose place another file was applied. Each is whole or not there, and on the disk before its name is.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::config::{self, ConfigError};
use crate::engine::trial;
use crate::state;

/// The files of one configuration, for one process at a time.
#[derive(Debug)]
pub(in crate::cli) struct Files {
    /// The configuration file itself, never a link to it.
    pub(in crate::cli) config: PathBuf,
    /// Open and locked: by this nobody else applies, confirms or puts aside meanwhile.
    folder: File,
}

impl Files {
    /// Those of the file at `config`. Waits for somebody else who is at them no longer than `patience`.
    pub(in crate::cli) fn of(config: &Path, patience: Duration) -> Result<Files, String> {
        if !config.is_absolute() {
            return Err(format!(
                "the engine was started with the relative path {config:?}, which only it can follow: start it with an \
                 absolute one"
            ));
        }
        let cannot = |error: io::Error| format!("cannot use {config:?}: {error}");
        let config = match fs::canonicalize(config) {
            // It is gone, and written anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => config.to_owned(),
            found => found.map_err(cannot)?,
        };
        let folder = config.parent().unwrap_or(Path::new("/"));
        let folder = File::open(folder).map_err(|error| format!("cannot open {folder:?}: {error}"))?;
        let end = Instant::now() + patience;
        while let Err(error) = flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK || Instant::now() >= end {
                return Err(format!(
                    "another verdictctl is at {config:?}, let it finish ({error})"
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(Files { config, folder })
    }

    /// What is being tried.
    pub(in crate::cli) fn candidate(&self) -> PathBuf {
        trial::candidate(&self.config)
    }

    /// What was tried last and went back.
    pub(in crate::cli) fn unconfirmed(&self) -> PathBuf {
        self.beside(".unconfirmed")
    }

    /// Writes `text` into the candidate.
    pub(super) fn write_candidate(&self, text: &str) -> Result<(), String> {
        self.write(&self.candidate(), text)
    }

    /// Puts the old text back into the configuration file.
    pub(super) fn write_config(&self, text: &str) -> Result<(), String> {
        self.write(&self.config, text)
    }

    /// Keeps an edit of the configuration file that is not what is applied; says where.
    pub(super) fn keep_edit(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.beside(".edited");
        self.write(&path, text).map(|()| path)
    }

    /// The configuration file gets what is in the candidate; what was there is kept.
    pub(in crate::cli) fn promote(&self) -> Result<(), String> {
        let kept = self.beside(".bak");
        let _ = fs::remove_file(&kept);
        // Without a copy of the old one there is one less, and no harm.
        let _ = fs::hard_link(&self.config, &kept);
        self.rename(&self.candidate(), &self.config)
    }

    /// What was tried is kept under another name; whether there was something.
    pub(in crate::cli) fn put_aside(&self) -> Result<bool, String> {
        match fs::symlink_metadata(self.candidate()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            _ => self.rename(&self.candidate(), &self.unconfirmed()).map(|()| true),
        }
    }

    /// As it was before a try that was refused: an edit goes back into its place, a copy goes.
    pub(super) fn undo(&self, in_place: bool) -> Result<(), String> {
        let candidate = self.candidate();
        if in_place {
            return self.rename(&candidate, &self.config);
        }
        fs::remove_file(&candidate).map_err(|error| format!("cannot remove {candidate:?}: {error}"))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), String> {
        let renamed = fs::rename(from, to).and_then(|()| self.folder.sync_all());
        renamed.map_err(|error| format!("cannot rename {from:?} to {to:?}: {error}"))
    }

    /// With owner and mode of the configuration file; without one, for root alone.
    fn write(&self, path: &Path, text: &str) -> Result<(), String> {
        let dress = fs::metadata(&self.config).ok();
        let folder = self.folder.try_clone().map_err(|error| error.to_string())?;
        let written = state::replace(folder, path, text.as_bytes(), |file| {
            let Some(like) = &dress else { return Ok(()) };
            // Owner first: to change it takes mode bits away.
            fchown(file, Some(like.uid()), Some(like.gid()))?;
            file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))
        });
        written.map_err(|error| super::super::engine::chain(&error))
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name: OsString = self.config.clone().into_os_string();
        name.push(ending);
        name.into()
    }
}

/// What is in force, and what is to come.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) old: String,
    pub(super) new: String,
    /// Where the new one was read, for its problems.
    pub(super) source: PathBuf,
    /// The configuration file was edited itself.
    pub(super) in_place: bool,
    /// What stands in the configuration file and is neither.
    pub(super) edited: Option<String>,
}

/// Why there is nothing to go from one to the other.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTexts {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{config:?} is what is in force: edit it, or name another file: verdictctl apply FILE{hint}")]
    Same { config: PathBuf, hint: String },
    #[error(
        "the text that is in force is neither in {config:?} nor in {good:?}, so that nothing could go back to it: \
         \"verdictctl reload\" what is in the file first"
    )]
    Lost { config: PathBuf, good: PathBuf },
}

impl Texts {
    /// The text whose sum is `in_force` is looked for in the configuration file and in `good`; the new one is in `file`,
    /// or in the configuration file.
    pub(super) fn find(
        files: &Files,
        file: Option<&Path>,
        in_force: &str,
        good: &Path,
    ) -> Result<Texts, NoTexts> {
        let file = file.filter(|file| fs::canonicalize(file).ok().as_ref() != Some(&files.config));
        let there = config::text(&files.config);
        let is_old = |text: &String| config::digest(text) == in_force;
        let unchanged = there.as_ref().is_ok_and(is_old);
        let new = match file {
            Some(file) => config::text(file)?,
            None if unchanged => {
                let kept = files.unconfirmed();
                let hint = kept
                    .exists()
                    .then(|| format!("; what went back last is {kept:?}"));
                return Err(NoTexts::Same {
                    config: files.config.clone(),
                    hint: hint.unwrap_or_default(),
                });
            }
            None => there.clone()?,
        };
        let old = match there.as_ref().ok().filter(|_| unchanged) {
            Some(text) => text.clone(),
            None => config::text(good)
                .ok()
                .filter(is_old)
                .ok_or_else(|| NoTexts::Lost {
                    config: files.config.clone(),
                    good: good.to_owned(),
                })?,
        };
        Ok(Texts {
            old,
            new,
            source: file.unwrap_or(&files.config).to_owned(),
            in_place: file.is_none(),
            edited: there.ok().filter(|_| !unchanged && file.is_some()),
        })
    }
}

const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        files: Files,
    }

    fn place(text: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("verdictd.toml");
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
        let files = Files::of(&config, Duration::ZERO).unwrap();
        Place { folder, files }
    }

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.at(name)).ok()
        }

        fn find(&self, file: Option<&str>, in_force: &str) -> Result<Texts, NoTexts> {
            let file = file.map(|name| self.at(name));
            Texts::find(
                &self.files,
                file.as_deref(),
                &config::digest(in_force),
                &self.at("good"),
            )
        }
    }

    #[test]
    fn a_candidate_takes_the_place_of_the_old_one_which_is_kept() {
        let place = place("old");
        place.files.write_candidate("new").unwrap();
        let mode = fs::metadata(place.files.candidate()).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode, place.read("verdictd.toml").as_deref()),
            (0o640, Some("old"))
        );
        place.files.promote().unwrap();
        assert_eq!(place.read("verdictd.toml").as_deref(), Some("new"));
        assert_eq!(place.read("verdictd.toml.bak").as_deref(), Some("old"));
        assert_eq!(place.read("verdictd.toml.candidate"), None);
        assert!(!place.files.put_aside().unwrap());
    }

    #[test]
    fn what_went_back_is_kept_aside() {
        let place = place("old");
        place.files.write_candidate("new").unwrap();
        assert!(place.files.put_aside().unwrap());
        assert_eq!(place.read("verdictd.toml.unconfirmed").as_deref(), Some("new"));
        assert_eq!(place.read("verdictd.toml.candidate"), None);
    }

    #[test]
    fn what_was_refused_leaves_everything_as_it_was() {
        let place = place("edited");
        place.files.write_candidate("edited").unwrap();
        place.files.write_config("old").unwrap();
        place.files.undo(true).unwrap();
        assert_eq!(place.read("verdictd.toml").as_deref(), Some("edited"));
        place.files.write_candidate("new").unwrap();
        place.files.undo(false).unwrap();
        assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_at_a_time_there_are_not() {
        let place = place("old");
        let again = Files::of(&place.at("verdictd.toml"), Duration::ZERO).unwrap_err();
        assert!(again.contains("another verdictctl"), "{again}");
        assert!(
            Files::of(Path::new("verdictd.toml"), Duration::ZERO)
                .unwrap_err()
                .contains("relative")
        );
    }

    #[test]
    fn the_old_text_is_found_wherever_it_is() {
        let place = place("old");
        fs::write(place.at("new"), "new").unwrap();
        let found = place.find(Some("new"), "old").unwrap();
        assert_eq!(
            (found.old.as_str(), found.new.as_str(), found.in_place),
            ("old", "new", false)
        );
        assert!(matches!(place.find(None, "old"), Err(NoTexts::Same { .. })));
        // Edited in its place.
        fs::write(place.at("verdictd.toml"), "edited").unwrap();
        assert!(matches!(place.find(None, "old"), Err(NoTexts::Lost { .. })));
        fs::write(place.at("good"), "old").unwrap();
        let found = place.find(None, "old").unwrap();
        assert_eq!(
            (found.old.as_str(), found.new.as_str(), found.in_place),
            ("old", "edited", true)
        );
        // Named by its own name, it is the same.
        assert!(place.find(Some("verdictd.toml"), "old").unwrap().in_place);
        // Another file, while an edit waits.
        let found = place.find(Some("new"), "old").unwrap();
        assert_eq!((found.edited.as_deref(), found.in_place), (Some("edited"), false));
        assert!(matches!(place.find(Some("none"), "old"), Err(NoTexts::Config(_))));
    }
}
