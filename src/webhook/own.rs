//! Files that are this program's alone: no other user reads them, and none is reached through a link that somebody
//! planted.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How such a file is opened, made if it is not there; whether to append or to truncate is left to say.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).custom_flags(libc::O_NOFOLLOW).mode(0o600);
    options
}

/// Puts `bytes` in the place of what is at `path`: all of them or none. `synced`: they are on the disk before the name
/// is theirs.
pub(super) fn replace(path: &Path, bytes: &[u8], synced: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = options().write(true).truncate(true).open(&new)?;
    file.write_all(bytes)?;
    if synced {
        file.sync_data()?;
    }
    std::fs::rename(new, path)
}
