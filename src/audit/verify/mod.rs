//! Reads the log as somebody who does not believe it: every file that is kept, line by line, against the chain and
//! the head. Any change, deletion, insertion, reordering or cut is named by file and line.
//!
//! Total over any bytes, and it writes nothing. The engine may go on writing meanwhile.

mod read;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use self::read::{Body, Kept, Sound, entries};
use self::walk::Walk;
use super::head::{self, Found};
use super::place;
use crate::files::{self, Identity};

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file that is being written; those beside it whose names begin with its own belong to it.
    pub log: PathBuf,
    /// Its head; without one nobody can say whether lines are missing at the end.
    pub head: Option<PathBuf>,
    /// The first line that must be there; what is before it is kept, and verified, elsewhere.
    pub from: Option<u64>,
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct VerifyError {
    path: PathBuf,
    source: io::Error,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was read, oldest first.
    pub files: Vec<FileView>,
    /// Lines that were read.
    pub lines: u64,
    /// Number of the last one.
    pub last: u64,
    /// Its hash.
    pub sha256: String,
    /// By which chains are told apart: the first line's `prev`, as the head has it.
    pub chain: Option<String>,
    /// What is not as it was written, the first [`MOST_FAULTS`].
    pub faults: Vec<Fault>,
    /// How many there are.
    pub faults_in_all: u64,
    /// What cannot be told, or is worth knowing.
    pub notes: Vec<String>,
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileView {
    /// Which.
    pub path: String,
    /// Its whole lines.
    pub lines: u64,
    /// Number of its first record.
    pub first: Option<u64>,
    /// Number of its last record.
    pub last: Option<u64>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In which file.
    pub file: String,
    /// Line of that file, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl Report {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        self.faults_in_all == 0
    }
}

/// Reads and compares.
///
/// # Errors
/// If a file cannot be read. That there is no log at all is a fault, not an error, where a head says there was one.
pub fn verify(options: &Options) -> Result<Report, VerifyError> {
    Checker::new(options.clone()).check()
}

/// Verifies again and again: files that were put aside and have not changed since are not read again.
#[derive(Debug)]
pub struct Checker {
    options: Options,
    known: BTreeMap<Identity, (Stamp, Sound)>,
}

/// Size and times of a file: a change that leaves them all is root's work, and found when they are read anew.
type Stamp = (u64, i64, i64, i64, i64);

impl Checker {
    /// Nothing is read yet.
    pub fn new(options: Options) -> Checker {
        Checker {
            options,
            known: BTreeMap::new(),
        }
    }

    /// Reads what is new and compares everything.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn check(&mut self) -> Result<Report, VerifyError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let before = self.head()?;
            let names = self.names()?;
            let files = self.read(&names)?;
            let moved = files.is_none() || self.names()? != names;
            if moved && tries < TRIES {
                continue; // a rotation came between
            }
            let after = self.head()?;
            return Ok(self.compare(before, after, files.unwrap_or_default()));
        }
    }

    fn head(&self) -> Result<Option<Found>, VerifyError> {
        let read = |path: &PathBuf| {
            head::read(path).map_err(|source| VerifyError {
                path: path.clone(),
                source,
            })
        };
        self.options.head.as_ref().map(read).transpose()
    }

    /// Every file that can be read, oldest first by name, with which file it is.
    fn names(&self) -> Result<Vec<(PathBuf, Option<Identity>)>, VerifyError> {
        let log = &self.options.log;
        let siblings = place::siblings(log).map_err(|source| VerifyError {
            path: place::folder(log).to_owned(),
            source,
        })?;
        let paths = siblings
            .into_iter()
            .map(|sibling| sibling.path)
            .chain([log.clone()]);
        let named = paths.map(|path| {
            let identity = std::fs::symlink_metadata(&path)
                .ok()
                .map(|found| files::identity(&found));
            (path, identity)
        });
        Ok(named.filter(|(_, identity)| identity.is_some()).collect())
    }

    /// `None`: one of them went away meanwhile.
    fn read(&mut self, names: &[(PathBuf, Option<Identity>)]) -> Result<Option<Vec<Kept>>, VerifyError> {
        let mut known = BTreeMap::new();
        let mut files = Vec::new();
        for (path, _) in names.iter().filter(|(path, _)| !is_packed(path)) {
            let fault = |source| VerifyError {
                path: path.clone(),
                source,
            };
            let file = match files::open_to_read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(fault)?,
            };
            let metadata = file.metadata().map_err(fault)?;
            let m = &metadata;
            let stamp = (m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            let identity = files::identity(m);
            let is_aside = *path != self.options.log;
            let unchanged = self
                .known
                .remove(&identity)
                .filter(|(then, _)| is_aside && *then == stamp);
            let (body, torn) = match unchanged {
                Some((_, sound)) => (Body::Sound(sound), 0),
                None => {
                    let (entries, torn) = entries(file).map_err(fault)?;
                    // The file that is written is looked at line by line: the head names some of them.
                    let sound = Sound::of(&entries).filter(|_| is_aside && torn == 0);
                    (sound.map_or_else(|| Body::Lines(entries), Body::Sound), torn)
                }
            };
            if let Body::Sound(sound) = &body {
                known.insert(identity, (stamp, sound.clone()));
            }
            files.push(Kept {
                name: path.display().to_string(),
                body,
                torn,
            });
        }
        self.known = known;
        Ok(Some(files))
    }

    fn compare(&self, before: Option<Found>, after: Option<Found>, mut files: Vec<Kept>) -> Report {
        let by_name = self.walk(before, after, &files);
        if by_name.is_sound() {
            return by_name;
        }
        // Names may mislead (logrotate's dates, a copy that was put back): numbers may tell better.
        files.sort_by_key(|file| file.ends().0);
        let by_number = self.walk(before, after, &files);
        match by_number.faults_in_all < by_name.faults_in_all {
            true => by_number,
            false => by_name,
        }
    }

    fn walk(&self, before: Option<Found>, after: Option<Found>, files: &[Kept]) -> Report {
        let mut walk = Walk::new(before, self.options.from, files);
        for (at, file) in files.iter().enumerate() {
            walk.file(file, at + 1 == files.len());
        }
        walk.beginning(&self.packed());
        walk.end(&self.options.log, before, after);
        walk.report
    }

    fn packed(&self) -> Vec<String> {
        let siblings = place::siblings(&self.options.log).unwrap_or_default();
        let packed = siblings.into_iter().filter(place::Sibling::is_packed);
        packed.map(|sibling| sibling.path.display().to_string()).collect()
    }
}

fn is_packed(path: &Path) -> bool {
    place::Sibling {
        path: path.to_owned(),
        number: None,
    }
    .is_packed()
}

/// Faults that are told one by one: a log that was replaced has one a line.
pub const MOST_FAULTS: usize = 100;
/// Rotations that may come between.
const TRIES: u32 = 5;
