//! A file in the place of another, so that at every moment one whole file has the name: the new one lies beside the old
//! one as `.new`, with its owner and mode before it has a byte, until it is written and on the disk.
//!
//! One writer of a path at a time: of two, the one whose new file is gone fails. What a killed one left is removed by
//! the next.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use thiserror::Error;

use super::identity;

/// Why there is no new file. The old one stays.
#[derive(Debug, Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct SaveError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SaveError {
    pub(crate) fn new(what: &'static str, path: PathBuf, source: io::Error) -> SaveError {
        SaveError { what, path, source }
    }
}

impl From<SaveError> for io::Error {
    fn from(error: SaveError) -> io::Error {
        io::Error::new(error.source.kind(), error)
    }
}

/// Owner and mode of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dress {
    /// User and group; none: whoever writes it.
    pub owner: Option<(u32, u32)>,
    /// Whatever the umask.
    pub mode: u32,
}

impl Dress {
    /// For no other user.
    pub const PRIVATE: Dress = Dress {
        owner: None,
        mode: 0o600,
    };
    /// For all to read.
    pub const PUBLIC: Dress = Dress {
        owner: None,
        mode: 0o644,
    };

    /// That of another file.
    pub fn of(metadata: &Metadata) -> Dress {
        Dress {
            owner: Some((metadata.uid(), metadata.gid())),
            mode: metadata.mode() & 0o7777,
        }
    }

    /// Owner first: to change it takes mode bits away. Nothing is done, nor need be allowed, that is so already.
    fn put_on(self, file: &File) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        match file.metadata()?.mode() & 0o7777 == self.mode {
            true => Ok(()),
            false => file.set_permissions(Permissions::from_mode(self.mode)),
        }
    }
}

/// Puts `bytes` in the place of what is at `path`: all of them or none, on the disk before the name is theirs. A link
/// there is replaced, not followed; one to the folder is followed.
///
/// # Errors
/// If the folder does not take them.
pub fn replace(path: &Path, bytes: &[u8], dress: Dress) -> Result<(), SaveError> {
    let mut new = NewFile::beside(path, dress)?;
    new.write(bytes)?;
    new.take_name()
}

/// The same for what may be lost with the power: then there is the old one, the new one, or an empty one.
///
/// # Errors
/// As [`replace`].
pub fn replace_unsynced(path: &Path, bytes: &[u8], dress: Dress) -> Result<(), SaveError> {
    let mut new = NewFile::beside(path, dress)?;
    new.write(bytes)?;
    new.rename()
}

/// As [`replace`], in a `folder` that is open: that of `path`, as whoever opened it made sure.
///
/// # Errors
/// As [`replace`].
pub fn replace_in(folder: File, path: &Path, bytes: &[u8], dress: Dress) -> Result<(), SaveError> {
    let mut new = NewFile::create(folder, path, dress)?;
    new.write(bytes)?;
    new.take_name()
}

/// Gives the file at `path` a second name in its folder, `kept`, whatever has it: at every moment one file has it. With
/// what then takes the name of `path`, it is the one before.
///
/// # Errors
/// If there is none, or the file system knows no links; `kept` stays what it was.
pub fn keep(folder: &File, path: &Path, kept: &Path) -> io::Result<()> {
    let (name, kept) = (name_of(path)?, name_of(kept)?);
    let link = with_ending(kept);
    remove(folder, &link)?;
    linkat(folder, name, folder, &link, AtFlags::empty())?;
    let renamed = renameat(folder, &link, folder, kept);
    // Not renamed, or the same file under both names already: then rename does nothing.
    remove(folder, &link)?;
    Ok(renamed?)
}

/// A file that nobody takes for the one it will replace; removed if it never gets its name.
#[derive(Debug)]
pub struct NewFile {
    folder: File,
    path: PathBuf,
    file: File,
    is_named: bool,
}

impl NewFile {
    /// Beside what is at `path`, or is to be.
    ///
    /// # Errors
    /// If the folder is not there, or does not take a file.
    pub fn beside(path: &Path, dress: Dress) -> Result<NewFile, SaveError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(folder);
        let opened = opened.map_err(|error| SaveError::new("open directory", folder.to_owned(), error))?;
        NewFile::create(opened, path, dress)
    }

    /// Whatever lies in its place: it is never opened, only removed.
    pub(crate) fn create(folder: File, path: &Path, dress: Dress) -> Result<NewFile, SaveError> {
        let cannot = |error| SaveError::new("create", temporary(path), error);
        let name = with_ending(name_of(path).map_err(cannot)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = remove(&folder, &name)
            .and_then(|()| openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(|errno| cannot(errno.into()))?;
        let new = NewFile {
            folder,
            path: path.to_owned(),
            file: created.into(),
            is_named: false,
        };
        new.did("set the owner of", dress.put_on(&new.file))?;
        Ok(new)
    }

    /// The file itself; its folder.
    pub fn parts(&self) -> (&File, &File) {
        (&self.file, &self.folder)
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        let written = self.file.write_all(bytes);
        self.did("write", written)
    }

    /// It is on the disk before it takes the place of the old one, and so is its name when this returns.
    ///
    /// # Errors
    /// If not; the old one stays, unless it is only that the disk does not answer.
    pub fn take_name(mut self) -> Result<(), SaveError> {
        self.did("write", self.file.sync_all())?;
        self.rename_it()?;
        self.did("write", self.folder.sync_all())
    }

    fn rename(mut self) -> Result<(), SaveError> {
        self.rename_it()
    }

    fn rename_it(&mut self) -> Result<(), SaveError> {
        let renamed = self.is_ours().and_then(|()| {
            let name = name_of(&self.path)?;
            Ok(renameat(&self.folder, with_ending(name), &self.folder, name)?)
        });
        self.is_named = renamed.is_ok();
        self.did("rename to its name", renamed)
    }

    /// What lies there may be another's by now.
    fn is_ours(&self) -> io::Result<()> {
        let there = statat(
            &self.folder,
            with_ending(name_of(&self.path)?),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        match (there.st_dev, there.st_ino) == identity(&self.file.metadata()?) {
            true => Ok(()),
            false => Err(io::Error::other("somebody else is writing it too")),
        }
    }

    /// Names the file that the error of `what` is about.
    pub(crate) fn did<T>(&self, what: &'static str, result: io::Result<T>) -> Result<T, SaveError> {
        result.map_err(|error| SaveError::new(what, temporary(&self.path), error))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_named && self.is_ours().is_ok() {
            let _ = name_of(&self.path).map(|name| remove(&self.folder, &with_ending(name)));
        }
    }
}

fn remove(folder: &File, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn name_of(path: &Path) -> io::Result<&OsStr> {
    let none = || io::Error::new(ErrorKind::InvalidInput, "the path ends in no file name");
    path.file_name().ok_or_else(none)
}

fn temporary(path: &Path) -> PathBuf {
    with_ending(path.as_os_str()).into()
}

fn with_ending(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(ENDING);
    name
}

/// Of a file that is not whole yet.
const ENDING: &str = ".new";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_has_owner_and_mode_before_a_byte_of_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let dress = Dress {
            owner: Some((65_534, 65_533)),
            mode: 0o640,
        };
        let mut new = NewFile::beside(&path, dress).unwrap();
        assert_eq!(Dress::of(&fs::metadata(temporary(&path)).unwrap()), dress);
        assert!(!path.exists());
        new.write(b"whole").unwrap();
        new.take_name().unwrap();
        assert_eq!(Dress::of(&fs::metadata(&path).unwrap()), dress);
        replace(&path, b"mine", Dress::PRIVATE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        replace_unsynced(&path, b"yours", Dress::PUBLIC).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(
            (names(folder.path()), fs::read(&path).unwrap()),
            (vec!["x".into()], b"yours".into())
        );
    }

    #[test]
    fn what_was_planted_or_left_is_removed_and_never_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "mine").unwrap();
        for name in ["x", "x.new"] {
            symlink(at("victim"), at(name)).unwrap();
        }
        replace(&at("x"), b"new", Dress::PRIVATE).unwrap();
        assert_eq!(
            (fs::read(at("victim")).unwrap(), fs::read(at("x")).unwrap()),
            (b"mine".into(), b"new".into())
        );
        assert!(!fs::symlink_metadata(at("x")).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["victim", "x"]);
    }

    #[test]
    fn what_never_got_its_name_goes_and_of_two_writers_one_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        drop(NewFile::beside(&path, Dress::PRIVATE).unwrap());
        assert!(names(folder.path()).is_empty());
        let first = NewFile::beside(&path, Dress::PRIVATE).unwrap();
        let mut second = NewFile::beside(&path, Dress::PRIVATE).unwrap();
        second.write(b"second").unwrap();
        let error = first.take_name().unwrap_err().to_string();
        assert!(error.contains("somebody else"), "{error}");
        second.take_name().unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names(folder.path())),
            (b"second".into(), vec!["x".into()])
        );
    }

    #[test]
    fn the_one_before_is_kept_under_a_name_that_is_never_missing() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(
            keep(&opened, &at("x"), &at("x.bak")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        fs::write(at("x"), "1").unwrap();
        fs::write(at("x.bak"), "0").unwrap();
        for _ in 0..2 {
            keep(&opened, &at("x"), &at("x.bak")).unwrap();
            assert_eq!(
                (fs::read(at("x.bak")).unwrap(), names(folder.path())),
                (b"1".into(), vec!["x".into(), "x.bak".into()])
            );
        }
        replace(&at("x"), b"2", Dress::PRIVATE).unwrap();
        assert_eq!(
            (fs::read(at("x.bak")).unwrap(), fs::read(at("x")).unwrap()),
            (b"1".into(), b"2".into())
        );
    }

    #[test]
    fn a_path_that_is_no_file_s_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["", "/", ".."] {
            assert!(replace(Path::new(path), b"", Dress::PRIVATE).is_err(), "{path}");
        }
        let error = replace(&folder.path().join("none/x"), b"", Dress::PRIVATE).unwrap_err();
        assert_eq!(io::Error::from(error).kind(), ErrorKind::NotFound);
    }
}
