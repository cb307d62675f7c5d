//! Are the files what they were, and the audit log as it was written? What the monitor asks of both.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::places::Places;
use crate::audit::verify::{Checker, Options};
use crate::config;
use crate::integrity::{Manifest, ManifestError, Mismatch};

/// What the manifest says of the files now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no manifest.
    Unsealed,
    /// All as it was.
    Intact,
    /// These are not, in words.
    Violated(Vec<String>),
}

/// What the manifest of `places` says of the files now. One that cannot be believed is a violation: whoever relies on it
/// must not go on as if there were none.
pub fn verify(places: &Places) -> Verdict {
    match manifest(places) {
        Ok(None) => Verdict::Unsealed,
        Err(error) => Verdict::Violated(vec![error.to_string()]),
        Ok(Some(manifest)) => match manifest.verify() {
            found if found.is_empty() => Verdict::Intact,
            found => Verdict::Violated(found.iter().map(Mismatch::to_string).collect()),
        },
    }
}

/// The manifest of `places`, if there is one.
pub(super) fn manifest(places: &Places) -> Result<Option<Manifest>, ManifestError> {
    match Manifest::load(&places.manifest) {
        Err(ManifestError::Missing(_)) => Ok(None),
        loaded => loaded.map(Some),
    }
}

/// A program, without waiting for the writer of a fifo.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Reads the audit log again and again; nothing of what was sound and is put aside is read twice.
#[derive(Debug)]
pub(super) struct AuditEye {
    log: PathBuf,
    checker: Checker,
}

impl AuditEye {
    /// For the log that the configuration names; none if it is off, or cannot be read (the engine says so itself).
    pub(super) fn of(places: &Places, before: Option<AuditEye>) -> Option<AuditEye> {
        let config = config::load(&places.config).ok()?;
        config.audit.enabled.then_some(())?;
        let log = config.audit.place(&places.log_dir);
        match before {
            Some(eye) if eye.log == log => Some(eye),
            _ => Some(AuditEye {
                checker: Checker::new(Options {
                    log: log.clone(),
                    head: Some(places.audit_head()),
                    from: None,
                }),
                log,
            }),
        }
    }

    /// Lines that are not as they were written, the first few, in words.
    pub(super) fn faults(&mut self) -> Vec<String> {
        match self.checker.check() {
            Ok(report) => report.faults.iter().take(FEW).map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        }
    }
}

/// A replaced log has a fault a line; `verdictctl audit verify` names them all.
const FEW: usize = 3;
