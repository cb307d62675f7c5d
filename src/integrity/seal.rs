//! Sealing: owners and modes as they should be, then the manifest over what is there.
//!
//! Two steps. A [`Plan`] looks at everything and changes nothing: what would be changed, what differs from the former
//! seal, or all that has to be put right first. [`Plan::apply`] does it, by the very files that the plan had open, and
//! then reads everything once more. What the plan saw is what is sealed: a file that somebody changes in between is
//! found by that.

mod survey;

use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use self::survey::{Item, Survey};
use super::DEFAULT_BINARIES;
use super::manifest::{About, Dress, Entry, Manifest, ManifestError};
use super::root::Root;
use super::verify::{Mismatch, lossy};
use crate::audit::chain::Hash;
use crate::config::ConfigError;
use crate::files::{self, SaveError};
use crate::notify::text::plain;
use crate::places;

/// What is sealed, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Below which directory everything is; accounts too are looked up there.
    pub root: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The manifest.
    pub manifest: PathBuf,
    /// Folder of the programs.
    pub binaries: PathBuf,
    /// Seal a configuration that does not load, too.
    pub force: bool,
}

impl Default for Options {
    /// As the package installs it.
    fn default() -> Options {
        Options {
            root: "/".into(),
            config: places::CONFIG.into(),
            manifest: places::MANIFEST.into(),
            binaries: DEFAULT_BINARIES.into(),
            force: false,
        }
    }
}

/// Why nothing was sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// Owners are root's to set.
    #[error("only root can set owners and seal: run it with sudo")]
    NotRoot,
    /// A path that depends on where one stands.
    #[error("{0:?} is not an absolute path without \".\" and \"..\"")]
    Relative(PathBuf),
    /// There is no such root.
    #[error("the root {path:?} cannot be opened: {source}")]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration does not load.
    #[error(transparent)]
    Config(ConfigError),
    /// What has to be put right first, a line each; nothing was changed.
    #[error("nothing was changed, this has to be put right first: {}", .0.join("; "))]
    Problems(Vec<String>),
    /// Some owners or modes could not be set; nothing was sealed.
    #[error("nothing was sealed, owners and modes cannot be set: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// The manifest could not be written; the old one stays.
    #[error(transparent)]
    Write(#[from] SaveError),
    /// The manifest just written cannot be read back.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What was sealed changed meanwhile.
    #[error("sealed, but somebody changed this meanwhile: {}", words(.0))]
    Changed(Vec<Mismatch>),
}

/// An owner or a mode that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of which file or folder.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Four octal digits.
    pub mode: Option<Turn>,
    /// `user:group`.
    pub owner: Option<Turn>,
}

/// What something was and will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Was.
    pub from: String,
    /// Will be.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", plain(&self.path.to_string_lossy()))?;
        if let Some(Turn { from, to }) = &self.mode {
            write!(
                f,
                " mode {from} -> {to}{}",
                if self.owner.is_some() { "," } else { "" }
            )?;
        }
        if let Some(Turn { from, to }) = &self.owner {
            write!(f, " owner {from} -> {to}")?;
        }
        Ok(())
    }
}

/// Where what is there is not what was sealed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// In words.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            plain(&self.path.to_string_lossy()),
            plain(&self.what)
        )
    }
}

/// What would be done. Holds every file open.
pub struct Plan {
    /// Owners and modes that would be set, in order.
    pub changes: Vec<Change>,
    /// How many were right already.
    pub right: usize,
    /// What differs from the former seal: to be shown and agreed to, or an attacker's change is sealed as if it were ours.
    pub differences: Vec<Difference>,
    /// Worth a word.
    pub notes: Vec<String>,
    root: Root,
    items: Vec<Item>,
    manifest: Manifest,
    /// Which files are sealed anew, where not all are.
    only: Option<Vec<PathBuf>>,
}

impl Plan {
    /// Looks at everything, and changes nothing.
    ///
    /// # Errors
    /// If this is not root, or something has to be put right first.
    pub fn make(options: &Options) -> Result<Plan, SealError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SealError::NotRoot);
        }
        for path in [&options.config, &options.manifest, &options.binaries] {
            if !is_plain(path) {
                return Err(SealError::Relative(path.clone()));
            }
        }
        let root = Root::open(&options.root).map_err(|source| SealError::Root {
            path: options.root.clone(),
            source,
        })?;
        let survey = Survey::of(&root, options)?;
        let changes: Vec<Change> = survey.changes();
        let Survey { items, mut notes, .. } = survey;
        let manifest = Manifest {
            path: options.manifest.clone(),
            root: options.root.clone(),
            complete: true,
            entries: items.iter().filter_map(Item::entry).collect(),
        };
        let differences = differences(&manifest, &mut notes);
        Ok(Plan {
            right: items.len() - changes.len(),
            changes,
            differences,
            notes,
            root,
            items,
            manifest,
            only: None,
        })
    }

    /// The same for `files` alone: all else keeps its owner, its mode and the seal that it had, also where it does not fit.
    ///
    /// # Errors
    /// Without a former manifest to believe.
    pub fn only(mut self, files: &[PathBuf]) -> Result<Plan, SealError> {
        let former = Manifest::load_in(&self.manifest.root, &self.manifest.path)?;
        let is_one = |path: &Path| files.iter().any(|file| file == path);
        self.items.retain(|item| is_one(&item.path));
        self.changes.retain(|change| is_one(&change.path));
        self.differences.retain(|difference| is_one(&difference.path));
        self.right = self.items.len() - self.changes.len();
        let kept = former
            .entries
            .into_iter()
            .filter(|entry| !is_one(&entry.path) && !is_receivers(&entry.path));
        let anew = self.items.iter().filter_map(Item::entry);
        self.manifest.entries = kept.chain(anew).collect();
        self.manifest.complete = former.complete;
        self.only = Some(files.to_vec());
        Ok(self)
    }

    /// The files that the seal covers.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.manifest.files()
    }

    /// How many of each kind: `3 binaries, 2 units, 1 config`.
    pub fn cover(&self) -> String {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for entry in &self.manifest.entries {
            let kind = entry
                .about
                .map_or_else(String::new, |about| about.kind.to_string());
            match counts.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        }
        let words = counts
            .into_iter()
            .map(|(kind, count)| match (count, kind.as_str()) {
                (1, kind) => format!("1 {kind}"),
                (count, "binary") => format!("{count} binaries"),
                (count, kind) => format!("{count} {kind}s"),
            });
        words.collect::<Vec<String>>().join(", ")
    }

    /// The SHA-256 of the manifest: worth writing down elsewhere.
    pub fn sha256(&self) -> String {
        Hash::of(&self.manifest.text()).to_string()
    }

    /// Sets owners and modes, writes the manifest, and reads all of it once more.
    ///
    /// # Errors
    /// If something cannot be set or written; the former manifest then stays. Or if somebody changed something
    /// meanwhile.
    pub fn apply(&self) -> Result<(), SealError> {
        let refused: Vec<String> = self.items.iter().filter_map(|item| item.set().err()).collect();
        if !refused.is_empty() {
            return Err(SealError::Refused(refused));
        }
        self.write()?;
        let written = Manifest::load_in(&self.manifest.root, &self.manifest.path)?;
        let mismatches = match &self.only {
            None => written.verify(),
            Some(files) => files.iter().flat_map(|file| written.verify_file(file)).collect(),
        };
        match mismatches.is_empty() {
            true => Ok(()),
            false => Err(SealError::Changed(mismatches)),
        }
    }

    /// Always: also one that says the same may have the wrong owner, or others have it open to write.
    fn write(&self) -> Result<(), SealError> {
        let path = &self.manifest.path;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let cannot = |odd| SealError::Problems(vec![format!("{folder:?}: {}", io::Error::from(odd))]);
        let directory = self.root.directory(folder).map_err(cannot)?;
        let text = self.manifest.text();
        Ok(files::replace_in(directory, path, &text, Manifest::DRESS)?)
    }
}

impl Item {
    /// Owner first: to change it takes mode bits away.
    fn set(&self) -> Result<(), String> {
        if self.now == self.right {
            return Ok(());
        }
        let hint = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => format!("{error}; is it immutable (lsattr)?"),
            _ => error.to_string(),
        };
        let set = self.right.put_on(&self.file);
        set.map_err(|error| format!("{:?}: {}", self.path, hint(error)))
    }

    fn entry(&self) -> Option<Entry> {
        Some(Entry {
            path: self.path.clone(),
            about: Some(About {
                kind: self.kind?,
                dress: self.right,
                size: self.sealed.map(|(_, size)| size),
            }),
            hash: self.sealed.map(|(hash, _)| hash),
        })
    }
}

impl Dress {
    fn put_on(self, file: &File) -> io::Result<()> {
        fchown(file, Some(self.uid), Some(self.gid))?;
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// Sealed by older versions; now another package's, whose upgrades do not seal.
fn is_receivers(path: &Path) -> bool {
    path.ends_with("verdict-receiver") || path.ends_with("verdict-receiver.service")
}

/// The same place wherever one stands.
fn is_plain(path: &Path) -> bool {
    let again: PathBuf = path.components().collect();
    let up = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    path.is_absolute() && !up && again == path
}

fn differences(new: &Manifest, notes: &mut Vec<String>) -> Vec<Difference> {
    let former = match Manifest::load_in(&new.root, &new.path) {
        Ok(former) => former,
        Err(ManifestError::Missing(_)) => {
            notes.push("nothing was sealed before: there is nothing to compare with".into());
            return Vec::new();
        }
        Err(error) => {
            return vec![Difference {
                path: new.path.clone(),
                what: format!("says nothing of what was sealed before ({error})"),
            }];
        }
    };
    let hash_in = |manifest: &Manifest, path: &Path| {
        let entry = manifest.entries.iter().find(|entry| entry.path == path);
        entry.map(|entry| entry.hash)
    };
    let mut found = Vec::new();
    let mut tell = |path: &Path, what: String| {
        found.push(Difference {
            path: path.to_owned(),
            what,
        });
    };
    for entry in former.entries.iter().filter(|entry| entry.hash.is_some()) {
        match (entry.hash, hash_in(new, &entry.path)) {
            (_, None) => tell(
                &entry.path,
                "was sealed, and is gone or no longer one of ours".into(),
            ),
            (Some(old), Some(Some(now))) if old != now => {
                tell(
                    &entry.path,
                    format!("was changed: its sha256 is {now}, sealed was {old}"),
                );
            }
            _ => {}
        }
    }
    for entry in new.entries.iter().filter(|entry| entry.hash.is_some()) {
        if hash_in(&former, &entry.path).is_none() {
            tell(&entry.path, "is new since the last seal".into());
        }
    }
    found
}

fn words(mismatches: &[Mismatch]) -> String {
    let words: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_files_are_known_by_their_names() {
        for path in [
            "/usr/bin/verdict-receiver",
            "/usr/lib/systemd/system/verdict-receiver.service",
        ] {
            assert!(is_receivers(Path::new(path)), "{path}");
        }
        for path in [
            "/usr/bin/verdictd",
            "/usr/bin/not-verdict-receiver",
            "/etc/verdict-receiver/x.conf",
        ] {
            assert!(!is_receivers(Path::new(path)), "{path}");
        }
    }
}
