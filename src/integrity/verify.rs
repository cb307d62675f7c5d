//! What differs from the seal, each difference named in words.
//!
//! Each file is opened once, without following a link or waiting for anybody, and all that is said of it is said of
//! what was opened.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::accounts::Accounts;
use super::files::{self, Kind};
use super::manifest::{About, Dress, Entry, Manifest};
use super::root::{Odd, Root};
use crate::audit::chain::Hash;
use crate::notify::text::plain;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Which file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// In which respect.
    pub what: What,
    /// What was sealed.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// In which respect a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its content.
    Changed,
    /// It is gone.
    Missing,
    /// It cannot be read.
    Unreadable,
    /// Its owner or group.
    Owner,
    /// Its mode.
    Mode,
    /// A directory, pipe, device or socket stands in its place.
    NotPlain,
    /// A symbolic link stands in its place.
    Symlink,
    /// A unit, a drop-in or a list of the loader that was not there when the rest was sealed.
    Added,
    /// A folder on the way in which others than root could put something else in a file's place.
    Loose,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = plain(&self.path.to_string_lossy());
        let (expected, found) = (plain(&self.expected), plain(&self.found));
        match self.what {
            What::Changed => write!(f, "{path} was changed: {found}, sealed was {expected}"),
            What::Missing => write!(f, "{path} is missing: sealed was {expected}"),
            What::Unreadable => write!(f, "{path} cannot be read: {found}"),
            What::Owner => write!(f, "{path} belongs to {found}, sealed was {expected}"),
            What::Mode => write!(f, "{path} has mode {found}, sealed was {expected}"),
            What::NotPlain | What::Symlink => write!(f, "{path} is {found}, sealed was {expected}"),
            What::Added => write!(f, "{path} was added: {expected}"),
            What::Loose => write!(f, "{path} is open to others: {found}, {expected}"),
        }
    }
}

impl Manifest {
    /// Compares it with what is there. Empty: all is as it was sealed.
    pub fn verify(&self) -> Vec<Mismatch> {
        let root = match Root::open(&self.root) {
            Ok(root) => root,
            Err(error) => return vec![unreadable(&self.root, &error)],
        };
        let mut found = entries(self.entries.iter(), &root);
        found.extend(self.added(&root));
        found.extend(self.loose(&root));
        found
    }

    /// Compares the one file at `path`; nothing differs about one that is not sealed.
    pub fn verify_file(&self, path: &Path) -> Vec<Mismatch> {
        match Root::open(&self.root) {
            Ok(root) => entries(self.entries.iter().filter(|entry| entry.path == path), &root),
            Err(error) => vec![unreadable(&self.root, &error)],
        }
    }

    /// Units decide what is started, the loader what is in it: one more is as good as another program.
    fn added(&self, root: &Root) -> Vec<Mismatch> {
        if !self.complete {
            return Vec::new();
        }
        let mut there = match files::units(root) {
            Ok(units) => units,
            Err(error) => return vec![unreadable(Path::new("/etc/systemd/system"), &error)],
        };
        let preload = Path::new(files::PRELOAD);
        if !matches!(root.file(preload), Err(Odd::Missing)) {
            there.push(preload.to_owned());
        }
        let is_new = |path: &PathBuf| !self.entries.iter().any(|entry| entry.path == *path);
        let added = |path| Mismatch {
            path,
            what: What::Added,
            expected: "it was not there when the rest was sealed".into(),
            found: "a unit, a drop-in or a list of the loader".into(),
        };
        there.into_iter().filter(is_new).map(added).collect()
    }

    fn loose(&self, root: &Root) -> Vec<Mismatch> {
        let mut passed = BTreeMap::new();
        let units = files::unit_places(root);
        let paths = self.files().chain([self.path.as_path()]);
        for path in paths.chain(units.iter().map(PathBuf::as_path)) {
            if let Err(error) = root.way(path, &mut passed) {
                return vec![unreadable(path, &error)];
            }
        }
        let loose = passed.into_values().filter_map(|passed| {
            Some(Mismatch {
                what: What::Loose,
                expected: "root alone may put files there".into(),
                found: passed.looseness()?,
                path: passed.name,
            })
        });
        loose.collect()
    }
}

fn entries<'a>(entries: impl Iterator<Item = &'a Entry>, root: &Root) -> Vec<Mismatch> {
    let accounts = Accounts::read(root);
    let check = |entry| {
        Check {
            entry,
            accounts: &accounts,
        }
        .all(root)
    };
    entries.flat_map(check).collect()
}

/// One file against what was sealed of it.
struct Check<'a> {
    entry: &'a Entry,
    accounts: &'a Accounts,
}

impl Check<'_> {
    fn all(&self, root: &Root) -> Vec<Mismatch> {
        let path = &self.entry.path;
        let is_folder = self.entry.about.is_some_and(|about| about.kind == Kind::Folder);
        let opened = if is_folder {
            root.folder(path)
        } else {
            root.file(path)
        };
        match opened {
            Err(Odd::Missing) if files::is_fleeting(path) => Vec::new(),
            Err(odd) => vec![self.odd(odd, is_folder)],
            Ok((file, metadata)) => {
                let mut found = self.dress(&metadata);
                found.extend(self.content(file, &metadata));
                found
            }
        }
    }

    fn odd(&self, odd: Odd, is_folder: bool) -> Mismatch {
        let expected = if is_folder {
            "a directory"
        } else {
            "a regular file"
        };
        match odd {
            Odd::Missing => self.of(What::Missing, expected, "nothing"),
            Odd::Link(target) => self.of(What::Symlink, expected, format!("a symbolic link to {target:?}")),
            Odd::Kind(kind) => self.of(What::NotPlain, expected, kind),
            Odd::Failed(error) => unreadable(&self.entry.path, &error),
        }
    }

    fn dress(&self, metadata: &Metadata) -> Vec<Mismatch> {
        let now = Dress::of(metadata);
        let mut found = Vec::new();
        let owner = self.accounts.pair(now.uid, now.gid);
        let mode = format!("{:04o}", now.mode);
        match self.entry.about {
            Some(About { dress, .. }) => {
                if (now.uid, now.gid) != (dress.uid, dress.gid) {
                    let sealed = self.accounts.pair(dress.uid, dress.gid);
                    found.push(self.of(What::Owner, sealed, owner));
                }
                if now.mode != dress.mode {
                    found.push(self.of(What::Mode, format!("{:04o}", dress.mode), mode));
                }
            }
            None => {
                if now.uid != 0 {
                    found.push(self.of(What::Owner, "root", owner));
                }
                if now.mode & 0o022 != 0 {
                    found.push(self.of(What::Mode, "one that lets nobody else write", mode));
                }
            }
        }
        found
    }

    fn content(&self, file: File, metadata: &Metadata) -> Option<Mismatch> {
        let sealed = self.entry.hash?;
        let size = self.entry.about.and_then(|about| about.size);
        // A file that somebody blew up is not read for hours.
        if let Some(size) = size
            && size != metadata.len()
        {
            let found = format!("it has {} bytes", metadata.len());
            return Some(self.of(What::Changed, format!("{size} bytes"), found));
        }
        let most = size.unwrap_or(LARGEST);
        match Hash::of_all(file.take(most + 1)) {
            Err(error) => Some(unreadable(&self.entry.path, &error)),
            Ok((_, read)) if read > most => {
                Some(self.of(What::Changed, format!("at most {most}"), "it has more bytes"))
            }
            Ok((hash, _)) if hash == sealed => None,
            Ok((hash, _)) => {
                Some(self.of(What::Changed, sealed.to_string(), format!("its sha256 is {hash}")))
            }
        }
    }

    fn of(&self, what: What, expected: impl Into<String>, found: impl Into<String>) -> Mismatch {
        Mismatch {
            path: self.entry.path.clone(),
            what,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl Dress {
    /// Of what was opened.
    pub(super) fn of(metadata: &Metadata) -> Dress {
        Dress {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Mismatch {
    Mismatch {
        path: path.to_owned(),
        what: What::Unreadable,
        expected: String::new(),
        found: error.to_string(),
    }
}

/// Names that are no text are shown as near as text comes to them.
pub(super) fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// No program of ours comes near it; only manifests that sha256sum wrote say nothing of sizes.
const LARGEST: u64 = 1 << 30;
