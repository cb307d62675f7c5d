//! The manifest: what was sealed, and from where it is believed.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::files::Kind;
use super::root::{Odd, Root};
use crate::audit::chain::Hash;

/// What was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where it is, below `root`.
    pub(super) path: PathBuf,
    /// Below which directory its paths are.
    pub(super) root: PathBuf,
    /// Whether it was made by us, and so holds every unit that there was.
    pub(super) complete: bool,
    pub(super) entries: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// What we wrote about it; nothing in a manifest by sha256sum.
    pub(super) about: Option<About>,
    /// `None`: its content is not sealed.
    pub(super) hash: Option<Hash>,
}

/// What sha256sum does not know of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) kind: Kind,
    pub(super) dress: Dress,
    /// `None`: its content is not sealed.
    pub(super) size: Option<u64>,
}

/// Owner and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dress {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Why there is no manifest to go by.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Nothing was sealed yet.
    #[error("there is no manifest at {0:?}: run verdictctl harden")]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("the manifest {path:?} cannot be read: {source}; be root, or run verdictctl harden")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may have written it.
    #[error(
        "the manifest {path:?} cannot be trusted: {why}; find out who changed it, then run verdictctl harden"
    )]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is none.
    #[error("the manifest {path:?}, {source}; find out who changed it, then run verdictctl harden")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong where.
        source: SyntaxError,
    },
}

/// Where a text stops being a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {wrong}")]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// What is found there, and what would be right.
    pub wrong: String,
}

impl Manifest {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    /// If there is none, or it is not a regular file of at most 1 MiB, or others than root may write it, or it cannot be
    /// understood.
    pub fn load(path: &Path) -> Result<Manifest, ManifestError> {
        Manifest::load_in(Path::new("/"), path)
    }

    /// The same in the system whose top is `root`: `path` and all that the manifest names are below it.
    ///
    /// # Errors
    /// As [`Manifest::load`].
    pub fn load_in(root: &Path, path: &Path) -> Result<Manifest, ManifestError> {
        let unreadable = |source| ManifestError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let bytes = read(&Root::open(root).map_err(unreadable)?, path)?;
        let parsed = Manifest::parse(&bytes).map_err(|source| ManifestError::Malformed {
            path: path.to_owned(),
            source,
        });
        Ok(Manifest {
            path: path.to_owned(),
            root: root.to_owned(),
            ..parsed?
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sum that the content of `path` must have; none if that is not sealed.
    pub fn sum_of(&self, path: &Path) -> Option<Hash> {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut entries = self.entries.iter();
        let found = entries.find(|entry| entry.path == path || entry.path == canonical);
        found.and_then(|entry| entry.hash)
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|entry| entry.path.as_path())
    }
}

fn read(root: &Root, path: &Path) -> Result<Vec<u8>, ManifestError> {
    let untrusted = |why: String| ManifestError::Untrusted {
        path: path.to_owned(),
        why,
    };
    let unreadable = |source| ManifestError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let (file, metadata) = root.file(path).map_err(|odd| match odd {
        Odd::Missing => ManifestError::Missing(path.to_owned()),
        Odd::Failed(source) => unreadable(source),
        odd => untrusted(io::Error::from(odd).to_string()),
    })?;
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != 0 {
        return Err(untrusted(format!(
            "it belongs to uid {}, not to root",
            metadata.uid()
        )));
    }
    if mode & 0o022 != 0 {
        return Err(untrusted(format!(
            "its mode {mode:04o} lets others write, 0644 is right"
        )));
    }
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(untrusted("it is larger than 1 MiB, and no manifest is".into()));
    }
    Ok(bytes)
}

/// A hundred bytes a file.
const LARGEST: u64 = 1 << 20;
