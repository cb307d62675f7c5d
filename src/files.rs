//! Files in folders that others may write in too: opened without following a link at the end of the path or waiting for
//! anybody. What to make of owner and mode differs from file to file, and is said where each is opened.

mod replacement;

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

pub use self::replacement::{Dress, NewFile, SaveError, keep, replace, replace_in, replace_unsynced};

/// Device and inode: which file it is, whatever it is called.
pub type Identity = (u64, u64);

/// Of an open or a named file.
pub fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// No link is followed, no fifo waited for, no terminal taken. Flags of one's own would take the place of these.
pub fn careful() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// The regular file at `path`, for reading.
///
/// # Errors
/// If there is none, or something else stands there.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let file = careful().read(true).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// For a file that no other user reads, made if it is not there; whether to append or to truncate is left to say.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).custom_flags(libc::O_NOFOLLOW).mode(0o600);
    options
}

/// Makes `folder` and those above it with `mode`, as the umask lets it; one that is there stays as it is.
///
/// # Errors
/// If it cannot be made, or something else stands there.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// The first `most` bytes of the regular file at `path`, to which links may lead: of files that are somebody else's and may
/// hold anything. Nothing is waited for.
///
/// # Errors
/// If there is none, something else stands there, or it cannot be read.
pub fn read_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn only_a_regular_file_of_that_name_is_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        symlink(at("file"), at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        make_folder(&at("a/b"), 0o750).unwrap();
        make_folder(&at("a/b"), 0o700).unwrap();
        assert!(open_to_read(&at("file")).is_ok());
        for name in ["link", "fifo", "a", "none"] {
            assert!(open_to_read(&at(name)).is_err(), "{name}");
        }
        assert!(make_folder(&at("file"), 0o750).is_err());
    }

    #[test]
    fn no_more_is_read_than_asked_for_and_of_regular_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        symlink(at("file"), at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read_up_to(&at("link"), 3).unwrap(), b"123");
        assert_eq!(read_up_to(&at("file"), 9).unwrap(), b"12345");
        assert!(!read_up_to(Path::new("/proc/self/status"), 9).unwrap().is_empty());
        for other in [at("fifo"), at("none"), "/dev/zero".into(), "/".into()] {
            assert!(read_up_to(&other, 9).is_err(), "{}", other.display());
        }
    }
}
