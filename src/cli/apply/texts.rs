//! What is in force and what is to come, as texts: the one goes back into the configuration file, the other is tried.
//!
//! Which text is in force only the engine can say, and it says so by its sum. The text itself root takes from where only
//! root could have put it: the configuration file, or his own copy beside it. The engine's copy will do if the seal has
//! that sum; else whoever applies has to look at it first, for root would write it into the configuration file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use crate::config::{self, ConfigError};
use crate::integrity::Manifest;

/// What is in force, and what is to come.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) old: String,
    pub(super) new: String,
    /// Where the new one was read, for its problems.
    pub(super) source: PathBuf,
    /// What the configuration file holds now, if it is there.
    pub(super) before: Option<String>,
    /// The new one was written into the configuration file itself.
    pub(super) in_place: bool,
    /// The old one comes from a file that others than root may write, and was not recognised.
    pub(super) doubted: Option<PathBuf>,
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

/// Where the text that is in force may be told from, besides the configuration file.
#[derive(Debug)]
pub(super) struct Witnesses<'a> {
    /// Its sum, by the engine's word.
    pub(super) in_force: &'a str,
    /// The engine's copy.
    pub(super) good: &'a Path,
    /// The seal.
    pub(super) manifest: &'a Path,
}

impl Texts {
    /// The new one is in `file`, or in the configuration file; the old one wherever it is.
    pub(super) fn find(
        files: &Files,
        file: Option<&Path>,
        witnesses: &Witnesses<'_>,
    ) -> Result<Texts, NoTexts> {
        let file = file.filter(|file| fs::canonicalize(file).ok().as_ref() != Some(&files.config));
        let before = match fs::symlink_metadata(&files.config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => Some(config::text(&files.config)?),
        };
        let unchanged = before
            .as_ref()
            .is_some_and(|text| config::digest(text) == witnesses.in_force);
        let new = match (file, &before) {
            (Some(file), _) => config::text(file)?,
            (None, Some(_)) if unchanged => return Err(same(files)),
            (None, Some(edited)) => edited.clone(),
            (None, None) => config::text(&files.config)?,
        };
        let (old, doubted) = witnesses.old(files, before.as_deref())?;
        Ok(Texts {
            old,
            new,
            source: file.unwrap_or(&files.config).to_owned(),
            before,
            in_place: file.is_none(),
            doubted,
        })
    }

    /// What stands in the configuration file and is neither.
    pub(super) fn edited(&self) -> Option<&str> {
        let before = self.before.as_deref()?;
        (!self.in_place && before != self.old).then_some(before)
    }
}

impl Witnesses<'_> {
    /// The text that is in force, and where it comes from if that is doubtful.
    fn old(&self, files: &Files, before: Option<&str>) -> Result<(String, Option<PathBuf>), NoTexts> {
        let is_old = |text: &str| config::digest(text) == self.in_force;
        let read = |path: &Path| config::text(path).ok().filter(|text| is_old(text));
        let ours = before
            .filter(|text| is_old(text))
            .map(str::to_owned)
            .or_else(|| read(&files.in_force()));
        if let Some(text) = ours {
            return Ok((text, None));
        }
        let Some(text) = read(self.good) else {
            return Err(NoTexts::Lost {
                config: files.config.clone(),
                good: self.good.to_owned(),
            });
        };
        let sealed = Manifest::load(self.manifest)
            .ok()
            .and_then(|seal| seal.sum_of(&files.config));
        let known = sealed.is_some_and(|sum| sum.to_string() == self.in_force);
        Ok((text, (!known).then(|| self.good.to_owned())))
    }
}

/// With what an apply left that was not confirmed, or was broken off.
fn same(files: &Files) -> NoTexts {
    let left = [
        (files.candidate(), "what an apply that was broken off left"),
        (files.unconfirmed(), "what went back last"),
    ];
    let hint = left.into_iter().find(|(path, _)| path.exists());
    NoTexts::Same {
        config: files.config.clone(),
        hint: hint.map_or_else(String::new, |(path, what)| format!("; {what} is {path:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        files: Files,
    }

    fn place(text: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("verdictd.toml");
        fs::write(&config, text).unwrap();
        let files = Files::of(&config, Duration::ZERO).unwrap();
        Place { folder, files }
    }

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.at(name), text).unwrap();
        }

        fn find(&self, file: Option<&str>, in_force: &str) -> Result<Texts, NoTexts> {
            let file = file.map(|name| self.at(name));
            let witnesses = Witnesses {
                in_force: &config::digest(in_force),
                good: &self.at("good"),
                manifest: &self.at("sums"),
            };
            Texts::find(&self.files, file.as_deref(), &witnesses)
        }
    }

    #[test]
    fn the_old_text_is_found_wherever_it_is() {
        let place = place("old");
        place.write("new", "new");
        let found = place.find(Some("new"), "old").unwrap();
        assert_eq!(
            (found.old.as_str(), found.new.as_str(), found.in_place),
            ("old", "new", false)
        );
        assert!(matches!(place.find(None, "old"), Err(NoTexts::Same { .. })));
        place.write("verdictd.toml", "edited");
        assert!(matches!(place.find(None, "old"), Err(NoTexts::Lost { .. })));
        place.files.keep_in_force("old").unwrap();
        let found = place.find(None, "old").unwrap();
        assert_eq!(
            (found.old.as_str(), found.new.as_str(), found.in_place),
            ("old", "edited", true)
        );
        assert_eq!((found.doubted.as_deref(), found.edited()), (None, None));
        // Named by its own name, it is the same.
        assert!(place.find(Some("verdictd.toml"), "old").unwrap().in_place);
        // Another file, while an edit waits.
        let found = place.find(Some("new"), "old").unwrap();
        assert_eq!((found.edited(), found.in_place), (Some("edited"), false));
        assert!(matches!(place.find(Some("none"), "old"), Err(NoTexts::Config(_))));
        // No configuration file at all.
        fs::remove_file(place.at("verdictd.toml")).unwrap();
        assert_eq!(place.find(Some("new"), "old").unwrap().before, None);
        assert!(matches!(place.find(None, "old"), Err(NoTexts::Config(_))));
    }

    #[test]
    fn the_engines_copy_is_doubted_unless_it_is_what_was_sealed() {
        let place = place("edited");
        place.write("good", "old");
        let found = place.find(None, "old").unwrap();
        assert_eq!(
            (found.old.as_str(), found.doubted),
            ("old", Some(place.at("good")))
        );
        let sealed = |text: &str| {
            let line = format!(
                "{}  {}\n",
                config::digest(text),
                place.at("verdictd.toml").display()
            );
            place.write("sums", &line);
        };
        sealed("another");
        assert!(place.find(None, "old").unwrap().doubted.is_some());
        sealed("old");
        assert_eq!(place.find(None, "old").unwrap().doubted, None);
    }

    #[test]
    fn what_a_broken_off_apply_left_is_named() {
        let place = place("old");
        place.write("verdictd.toml.unconfirmed", "earlier");
        let told = |found: Result<Texts, NoTexts>| found.unwrap_err().to_string();
        assert!(told(place.find(None, "old")).contains("what went back last is"));
        place.files.write_candidate("edit").unwrap();
        assert!(told(place.find(None, "old")).contains("verdictd.toml.candidate\""));
    }
}
