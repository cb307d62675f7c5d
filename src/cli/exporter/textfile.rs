//! The same numbers in a file, for node_exporter's textfile collector.

use std::fs;
use std::io;
use std::path::Path;

use super::collect::Source;
use super::measure;
use crate::files::{self, Dress};

/// Asks and replaces the file: a reader sees all of the old one or all of the new one. An engine that is gone is written
/// down as such.
///
/// # Errors
/// If the folder does not take it. The old file stays, and grows old: node_exporter tells by
/// `node_textfile_mtime_seconds`.
pub(super) fn write(path: &Path, source: &Source) -> io::Result<()> {
    let text = measure::page(&source.look()).text();
    // node_exporter is another user.
    Ok(files::replace(path, text.as_bytes(), Dress::PUBLIC)?)
}

/// Nobody writes it any more: what nobody renews must not look like news.
pub(super) fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
