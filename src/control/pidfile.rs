//! Pid files: written and held locked by the process itself for its whole life.
//!
//! What stands in one is for people. Who holds it is asked of the kernel, which gives the pid of the process that
//! has the record lock (`F_GETLK`): a file that is stale, foreign, copied or lying is never believed. The `flock`
//! beside it keeps a second process out, and is what `flock(1)` sees.
//!
//! At a planned end the process adds a line that says so: by it the monitor knows that nobody wants it started again.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::files;
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

/// The engine's, in the runtime directory.
pub const ENGINE: &str = "verdictd.pid";
/// The monitor's, in a directory of its own.
pub const MONITOR: &str = "monitor.pid";

/// Why a pid file is not held.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Somebody else is what this process wants to be.
    #[error("{path:?} is held by {}", holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The file.
        path: PathBuf,
        /// Who holds it, if that process can be seen from here.
        holder: Option<i32>,
    },
    /// The system said no.
    #[error("cannot write the pid file {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A pid file of this process. Opened once and closed at its end: closing any descriptor of it gives the record
/// lock up.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes this process's pid into `path` and holds it. Whatever stands there and is no pid file is replaced.
    ///
    /// # Errors
    /// If another process holds it, or the directory cannot be written.
    pub fn hold(path: &Path) -> Result<PidFile, PidFileError> {
        let io = |source| PidFileError::Io {
            path: path.to_owned(),
            source,
        };
        for _ in 0..TRIES {
            let file = open_to_hold(path).map_err(io)?;
            let taken = flock(&file, FlockOperation::NonBlockingLockExclusive)
                .and_then(|()| fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive));
            match taken {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => {
                    return Err(PidFileError::Held {
                        path: path.to_owned(),
                        holder: locker(&file).map(|pid| pid.as_raw_nonzero().get()),
                    });
                }
                Err(error) => return Err(io(error.into())),
            }
            let mut held = PidFile {
                path: path.to_owned(),
                file,
            };
            // Somebody may have removed the name between open and lock.
            if held.stands() {
                held.write().map_err(io)?;
                return Ok(held);
            }
        }
        Err(io(io::Error::other("it is replaced again and again")))
    }

    /// Whether its name still leads to it.
    pub fn stands(&self) -> bool {
        let ours = self.file.metadata().map(|found| (found.dev(), found.ino()));
        let named = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        matches!((ours, named), (Ok(ours), Ok(named)) if ours == named)
    }

    /// Says that the end which comes now is wanted, and `by` what.
    ///
    /// # Errors
    /// If it cannot be written; whoever looks for it then takes the end for an accident.
    pub fn planned_end(&mut self, by: &str) -> io::Result<()> {
        self.file.seek(SeekFrom::End(0))?;
        writeln!(self.file, "{PLANNED} {by}")
    }

    fn write(&mut self) -> io::Result<()> {
        // Whatever the umask: `verdictctl status` of the group reads it.
        self.file.set_permissions(Permissions::from_mode(0o644))?;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// The process that holds `path`, by the kernel's word; none if nobody does, or nobody that can be seen from here.
///
/// Not for the process that holds it itself: looking would give its lock up.
pub fn holder(path: &Path) -> Option<Pid> {
    locker(&files::open_to_read(path).ok()?)
}

/// By what the process that last held `path` was stopped on purpose; none if it was not, or nobody knows.
pub fn planned_end(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = files::open_to_read(path).ok()?;
    trusted(&file).then_some(())?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let last = text.lines().nth(1)?;
    last.strip_prefix(PLANNED).map(|by| by.trim().to_owned())
}

/// Says of a process that is dead already that its end was wanted. A living one's file is left alone.
///
/// # Errors
/// If the file cannot be written.
pub fn mark_planned(path: &Path, by: &str) -> Result<(), PidFileError> {
    // The pid that is written here is ours, and nobody's who looks: the lock is gone with us.
    let mut file = PidFile::hold(path)?;
    file.planned_end(by).map_err(|source| PidFileError::Io {
        path: path.to_owned(),
        source,
    })
}

fn locker(file: &File) -> Option<Pid> {
    let asked = Flock::from(FlockType::WriteLock);
    fcntl_getlk(file, &asked).ok().flatten()?.pid
}

/// The file at `path` if it is fit to be a pid file, else a new one in its place.
fn open_to_hold(path: &Path) -> io::Result<File> {
    let mut options = files::careful();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644);
    match options.open(path) {
        Ok(file) if trusted(&file) => return Ok(file),
        // A link, a fifo, a file that others may write or that has a second name: not ours, and in our place.
        Ok(_) => fs::remove_file(path)?,
        // Root's, where the engine is somebody else in a directory of its own.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ELOOP | libc::ENXIO | libc::EACCES)
            ) =>
        {
            fs::remove_file(path)?;
        }
        Err(error) => return Err(error),
    }
    options.create_new(true).open(path)
}

fn trusted(file: &File) -> bool {
    file.metadata().is_ok_and(|found| {
        found.is_file() && found.nlink() == 1 && found.mode() & 0o022 == 0 && found.len() <= LONGEST
    })
}

/// How the line of a planned end begins.
const PLANNED: &str = "stopped by";
/// Far more than two lines of ours.
const LONGEST: u64 = 4096;
const TRIES: u32 = 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_held_once_and_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ENGINE);
        let held = PidFile::hold(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        assert!(matches!(PidFile::hold(&path), Err(PidFileError::Held { .. })));
        assert_eq!(planned_end(&path), None);
        drop(held);
        assert_eq!(holder(&path), None);
        PidFile::hold(&path).unwrap();
    }

    #[test]
    fn a_planned_end_is_told_until_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ENGINE);
        let mut held = PidFile::hold(&path).unwrap();
        held.planned_end("SIGTERM").unwrap();
        drop(held);
        assert_eq!(planned_end(&path).as_deref(), Some("SIGTERM"));
        drop(PidFile::hold(&path).unwrap());
        assert_eq!(planned_end(&path), None);
        mark_planned(&path, "verdictctl stop").unwrap();
        assert_eq!(planned_end(&path).as_deref(), Some("verdictctl stop"));
    }

    #[test]
    fn what_is_no_pid_file_is_not_believed_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ENGINE);
        let other = folder.path().join("other");
        fs::write(&other, "1\nstopped by me\n").unwrap();
        let fifo = |path: &Path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        };
        let plant: [&dyn Fn(&Path); 5] = [
            &|path| symlink(&other, path).unwrap(),
            &|path| fs::hard_link(&other, path).unwrap(),
            &fifo,
            &|path| fs::write(path, b"\xff\xfe garbage").unwrap(),
            &|path| fs::write(path, "x".repeat(10_000)).unwrap(),
        ];
        for plant in plant {
            let _ = fs::remove_file(&path);
            plant(&path);
            assert_eq!(holder(&path), None);
            assert_eq!(planned_end(&path), None);
            let held = PidFile::hold(&path).unwrap();
            assert!(held.stands());
            assert_eq!(fs::read_to_string(&other).unwrap(), "1\nstopped by me\n");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let refused = PidFile::hold(&path).unwrap_err().to_string();
        assert!(refused.starts_with("cannot write the pid file"), "{refused}");
        assert_eq!(holder(&path), None);
    }
}
