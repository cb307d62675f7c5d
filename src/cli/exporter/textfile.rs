//! The same numbers in a file, for node_exporter's textfile collector.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::collect::Source;
use super::measure;
use crate::state;

/// Asks and replaces the file: a reader sees all of the old one or all of the new one. An engine that is gone is written
/// down as such.
///
/// # Errors
/// If the folder does not take it. The old file stays, and grows old: node_exporter tells by
/// `node_textfile_mtime_seconds`.
pub(super) fn write(path: &Path, source: &Source) -> io::Result<()> {
    let text = measure::page(&source.look(), SystemTime::now()).text();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(folder.unwrap_or(Path::new(".")))?;
    // Whatever the umask: node_exporter is another user.
    let dress = |file: &File| file.set_permissions(Permissions::from_mode(0o644));
    state::replace(directory, path, text.as_bytes(), dress).map_err(io::Error::other)
}

/// Nobody writes it any more: what nobody renews must not look like news.
pub(super) fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
