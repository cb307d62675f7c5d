//! Files that may change, be made or be replaced at any time: inotify says that one of them might have. As with every
//! announcement it is a reason to look, never a fact.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Watches some files and directories, also before they exist; becomes readable when one may have changed.
pub struct FileWatch {
    inotify: OwnedFd,
    paths: Vec<PathBuf>,
    awaited: BTreeMap<i32, Awaited>,
    buffer: Box<[MaybeUninit<u8>]>,
}

/// What of one watch concerns us.
enum Awaited {
    /// Whatever happens.
    All,
    /// That one of these names appears in a directory.
    Names(BTreeSet<OsString>),
}

impl FileWatch {
    /// Watches `paths` from now on. A link is followed: its target is watched, and that the link is replaced.
    ///
    /// # Errors
    /// If the kernel has no inotify instance left (fs.inotify.max_user_instances).
    pub fn over(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<FileWatch> {
        let mut watch = FileWatch {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            paths: paths.into_iter().collect(),
            awaited: BTreeMap::new(),
            buffer: vec![MaybeUninit::uninit(); EVENT_BYTES].into(),
        };
        watch.arm();
        Ok(watch)
    }

    /// Reads what is there, without waiting; whether one of the files may have changed. Lost events count as a
    /// change. What was made or replaced meanwhile is watched from now on.
    pub fn drain(&mut self) -> bool {
        let changed = self.read();
        self.arm();
        changed
    }

    fn read(&mut self) -> bool {
        let mut changed = false;
        let mut reader = Reader::new(&self.inotify, &mut self.buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    changed |= concerns(&self.awaited, &event);
                    if event.events().contains(ReadFlags::IGNORED) {
                        self.awaited.remove(&event.wd());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return changed,
                Err(_) => return true,
            }
        }
    }

    fn arm(&mut self) {
        for path in self.paths.clone() {
            // The place where it would appear first, so that it cannot appear unseen between the two.
            let mut below = path.as_path();
            for directory in path.ancestors().skip(1) {
                if self.watch(directory, APPEARS, below.file_name()) {
                    break;
                }
                below = directory;
            }
            self.watch(&path, CHANGES, None);
        }
    }

    /// Whether `path` is there and watched.
    fn watch(&mut self, path: &Path, what: WatchFlags, name: Option<&OsStr>) -> bool {
        let Ok(watch) = inotify::add_watch(&self.inotify, path, what | WatchFlags::MASK_ADD) else {
            return false; // not there (yet), or not for us to read: its directory tells when it comes
        };
        let Some(name) = name else {
            self.awaited.insert(watch, Awaited::All);
            return true;
        };
        let before = self.awaited.entry(watch);
        if let Awaited::Names(names) = before.or_insert_with(|| Awaited::Names(BTreeSet::new())) {
            names.insert(name.to_owned());
        }
        true
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Whether an event tells of a watched file, not of another one in its directory.
fn concerns(awaited: &BTreeMap<i32, Awaited>, event: &Event<'_>) -> bool {
    match (awaited.get(&event.wd()), event.file_name()) {
        (Some(Awaited::Names(names)), Some(name)) => names.contains(OsStr::from_bytes(name.to_bytes())),
        _ => true,
    }
}

/// What can happen to a file, and in a directory that is watched for all that is in it.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// A name appears in a directory.
const APPEARS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO);
/// Some dozens of events; one has at most 16 bytes and a name of 256 (inotify(7)).
const EVENT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn watch(paths: &[&Path]) -> FileWatch {
        let mut watch = FileWatch::over(paths.iter().map(|path| path.to_path_buf())).unwrap();
        assert!(!watch.drain(), "nothing happened yet");
        watch
    }

    #[test]
    fn a_file_is_watched_before_it_exists_and_after_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("utmp"), folder.path().join("other"));
        let mut watch = watch(&[&path]);
        fs::write(&other, "x").unwrap();
        assert!(!watch.drain(), "another file in its directory is none of ours");
        for text in ["made", "written again"] {
            fs::write(&path, text).unwrap();
            assert!(watch.drain(), "{text}");
        }
        for round in 0..3 {
            fs::write(&other, "new").unwrap();
            assert!(!watch.drain());
            fs::rename(&other, &path).unwrap();
            assert!(watch.drain(), "replaced, round {round}");
            fs::write(&path, "x").unwrap();
            assert!(watch.drain(), "written, round {round}");
        }
        fs::remove_file(&path).unwrap();
        assert!(watch.drain());
        assert!(!watch.drain());
    }

    #[test]
    fn a_directory_is_watched_before_its_parents_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("systemd/sessions");
        let mut watch = watch(&[&path]);
        fs::create_dir(folder.path().join("systemd")).unwrap();
        assert!(watch.drain());
        fs::create_dir(&path).unwrap();
        assert!(watch.drain());
        fs::write(path.join("1"), "x").unwrap();
        assert!(watch.drain());
        fs::rename(path.join("1"), path.join("2")).unwrap();
        assert!(watch.drain());
        fs::remove_file(path.join("2")).unwrap();
        assert!(watch.drain());
        assert!(!watch.drain());
    }

    #[test]
    fn a_link_is_followed_and_its_replacement_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("run")).unwrap();
        ["run/a", "run/b"]
            .iter()
            .for_each(|name| fs::write(place(name), "x").unwrap());
        symlink(place("run/a"), place("link")).unwrap();
        let mut watch = watch(&[&place("link")]);
        fs::write(place("run/a"), "y").unwrap();
        assert!(watch.drain());
        symlink(place("run/b"), place("new")).unwrap();
        fs::rename(place("new"), place("link")).unwrap();
        assert!(watch.drain());
        fs::write(place("run/b"), "y").unwrap();
        assert!(watch.drain());
    }

    #[test]
    fn more_events_than_the_queue_holds_count_as_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watch(&[folder.path()]);
        // fs.inotify.max_queued_events is 16,384 at least; each file makes two events.
        for number in 0..9_000 {
            let path = folder.path().join(number.to_string());
            fs::write(path, "x").unwrap();
        }
        assert!(watch.drain());
        assert!(!watch.drain());
    }
}
