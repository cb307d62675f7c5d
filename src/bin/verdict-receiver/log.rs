//! The receiver's own log: one line an event, to standard error or to a file that logrotate may move away.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;
use verdictd::notify::text::plain;
use verdictd::webhook::wire;

/// Where lines go.
pub(crate) struct Log {
    path: Option<PathBuf>,
    /// The file; none: standard error.
    file: Mutex<Option<File>>,
}

impl Log {
    /// Appends to `path`, or writes to standard error.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let file = path.as_deref().map(append).transpose()?;
        Ok(Log {
            path,
            file: Mutex::new(file),
        })
    }

    /// Opens the file anew: what was under its name may have been moved away. If that fails the old one stays.
    pub(crate) fn reopen(&self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(file) => *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file),
            Err(why) => self.warn(format!("{} cannot be reopened: {why}", path.display())),
        }
    }

    /// What happened.
    pub(crate) fn info(&self, text: impl Display) {
        self.line("INFO ", &text.to_string());
    }

    /// What somebody should look at.
    pub(crate) fn warn(&self, text: impl Display) {
        self.line("WARN ", &text.to_string());
    }

    fn line(&self, level: &str, text: &str) {
        let now = wire::timestamp(OffsetDateTime::now_utc());
        let line = format!("{now} {level} {}\n", plain(text));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match file.as_mut() {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
        if written.is_err() && file.is_some() {
            // A full disk: the journal may still take it.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

fn append(path: impl AsRef<std::path::Path>) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}
