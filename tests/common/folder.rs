//! What a test finds in a folder of its own, and puts there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Every name in it, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("UTF-8")).collect();
    names.sort();
    names
}

/// A file that only its owner reads.
pub(crate) fn write_private(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).expect("a file of ours");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a file of ours");
}
