//! The files of an apply. The configuration file holds the old text until the new one is confirmed, so that whatever
//! starts an engine in between, a reboot too, goes back by itself.
//!
//! Beside it: `.candidate`, what is being tried; `.unconfirmed`, what was tried last and went back; `.before-apply`, what
//! the last confirmed one replaced; `.edited`, an edit in whose place another file was applied; `.in-force`, what was in
//! force when apply or confirm last saw it; `.lock`. Each is whole or not there, and on the disk before its name is.
//!
//! Root reads and writes them, and the engine runs as somebody else: none of them is where he, or anybody, could write
//! ([`super::rooted`]), and it is whoever types who names the configuration file, never the engine.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::rooted::{NotRooted, rooted, rooted_folder};
use crate::engine::trial;
use crate::files::{Dress, SaveError, careful, keep, replace_in};

/// Why the files are not as they should be, or not ours now.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FilesError {
    #[error("{0:?} is no file's name, give that of the configuration file")]
    NoName(PathBuf),
    #[error("cannot use {path:?}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    NotRooted(#[from] NotRooted),
    #[error("another verdictctl is at {0:?}, let it finish")]
    Busy(PathBuf),
    #[error("cannot rename {from:?} to {to:?}: {source}")]
    Rename {
        from: PathBuf,
        to: PathBuf,
        source: io::Error,
    },
    #[error("cannot remove {path:?}: {source}")]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] SaveError),
}

/// The files of one configuration, for one process at a time.
#[derive(Debug)]
pub(in crate::cli) struct Files {
    /// The configuration file itself, never a link to it.
    pub(in crate::cli) config: PathBuf,
    folder: File,
    /// Open and locked: by this nobody else applies, confirms or puts aside meanwhile. It holds the deadline of the
    /// last apply.
    lock: File,
}

impl Files {
    /// Those of the file that is called `named`, there or not. Waits for somebody else who is at them no longer than
    /// `patience`.
    pub(in crate::cli) fn of(named: &Path, patience: Duration) -> Result<Files, FilesError> {
        let config = real(named)?;
        rooted(&config)?;
        let folder = config.parent().unwrap_or(Path::new("/"));
        let folder = File::open(folder).map_err(|source| open_error(folder, source))?;
        let lock = locked(&config, patience)?;
        Ok(Files { config, folder, lock })
    }

    /// What is being tried.
    pub(in crate::cli) fn candidate(&self) -> PathBuf {
        trial::candidate(&self.config)
    }

    /// What was tried last and went back.
    pub(in crate::cli) fn unconfirmed(&self) -> PathBuf {
        beside(&self.config, ".unconfirmed")
    }

    /// What was in force when apply or confirm last saw it.
    pub(in crate::cli) fn in_force(&self) -> PathBuf {
        beside(&self.config, ".in-force")
    }

    /// What the last confirmed one replaced.
    pub(in crate::cli) fn before_apply(&self) -> PathBuf {
        beside(&self.config, ".before-apply")
    }

    /// An apply begins, which goes back at `until` (since boot) unless it is confirmed: whoever stands by for an earlier
    /// one sees by this that his is over.
    pub(super) fn begin(&self, until: Option<Duration>) -> Result<(), FilesError> {
        let text = deadline(until);
        let written = self
            .lock
            .set_len(0)
            .and_then(|()| self.lock.write_all_at(text.as_bytes(), 0));
        written.map_err(|source| open_error(&lock_of(&self.config), source))
    }

    /// Writes `text` into the candidate.
    pub(in crate::cli) fn write_candidate(&self, text: &str) -> Result<(), FilesError> {
        self.write(&self.candidate(), text)
    }

    /// Writes `text` into the configuration file.
    pub(in crate::cli) fn write_config(&self, text: &str) -> Result<(), FilesError> {
        self.write(&self.config, text)
    }

    /// Keeps an edit of the configuration file that is not what is applied; says where.
    pub(super) fn keep_edit(&self, text: &str) -> Result<PathBuf, FilesError> {
        let path = beside(&self.config, ".edited");
        self.write(&path, text).map(|()| path)
    }

    /// Keeps what was not confirmed after all; says where.
    pub(in crate::cli) fn keep_unconfirmed(&self, text: &str) -> Result<PathBuf, FilesError> {
        let path = self.unconfirmed();
        self.write(&path, text).map(|()| path)
    }

    /// Root's own copy of what is in force: after the next edit it is there to go back to.
    pub(in crate::cli) fn keep_in_force(&self, text: &str) -> Result<(), FilesError> {
        let path = self.in_force();
        match fs::read(&path).is_ok_and(|kept| kept == text.as_bytes()) {
            true => Ok(()),
            false => self.write(&path, text),
        }
    }

    /// The configuration file gets what is in the candidate; what was there is kept.
    pub(in crate::cli) fn promote(&self) -> Result<(), FilesError> {
        // Without a copy of the old one there is one less, and no harm.
        let _ = keep(&self.folder, &self.config, &self.before_apply());
        self.rename(&self.candidate(), &self.config)
    }

    /// What was tried is kept under another name; whether there was something.
    pub(in crate::cli) fn put_aside(&self) -> Result<bool, FilesError> {
        match fs::symlink_metadata(self.candidate()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            _ => self.rename(&self.candidate(), &self.unconfirmed()).map(|()| true),
        }
    }

    /// As it was before a try that was refused: the configuration file holds what it held, if it was there.
    pub(super) fn undo(&self, before: Option<&str>) -> Result<(), FilesError> {
        match before {
            Some(text) if fs::read(&self.config).is_ok_and(|now| now == text.as_bytes()) => {}
            Some(text) => self.write_config(text)?,
            None => remove(&self.config)?,
        }
        remove(&self.candidate())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FilesError> {
        let renamed = fs::rename(from, to).and_then(|()| self.folder.sync_all());
        renamed.map_err(|source| FilesError::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            source,
        })
    }

    /// With owner and mode of the configuration file; without one as the package has them: the folder's group may read.
    fn write(&self, path: &Path, text: &str) -> Result<(), FilesError> {
        let cannot = |source| open_error(path, source);
        let folder = self.folder.try_clone().map_err(cannot)?;
        let dress = match fs::metadata(&self.config) {
            Ok(like) => Dress::of(&like),
            Err(_) => Dress {
                mode: 0o640,
                ..Dress::of(&folder.metadata().map_err(cannot)?)
            },
        };
        Ok(replace_in(folder, path, text.as_bytes(), dress)?)
    }
}

/// Whether the last apply of the file at `config` is the one that goes back at `until`.
pub(super) fn is_last(config: &Path, until: Duration) -> bool {
    // What cannot be read was ours a moment before.
    fs::read_to_string(lock_of(config)).map_or(true, |last| last == deadline(Some(until)))
}

fn deadline(until: Option<Duration>) -> String {
    until.map_or_else(|| "none".to_owned(), |until| trial::millis(until).to_string())
}

/// The file that `named` leads to, or would if it were there.
fn real(named: &Path) -> Result<PathBuf, FilesError> {
    let cannot = |source| open_error(named, source);
    let path = std::path::absolute(named).map_err(cannot)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FilesError::NoName(named.to_owned()));
    };
    let folder = fs::canonicalize(folder).map_err(cannot)?;
    let path = folder.join(name);
    // Where the link lies counts as well as where it leads.
    rooted_folder(&folder)?;
    match fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        found => found.map_err(cannot),
    }
}

fn locked(config: &Path, patience: Duration) -> Result<File, FilesError> {
    let path = lock_of(config);
    let cannot = |source| open_error(&path, source);
    let mut options = careful();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options.open(&path).map_err(cannot)?;
    let end = Instant::now() + patience;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        match error {
            rustix::io::Errno::WOULDBLOCK if Instant::now() < end => std::thread::sleep(POLL),
            rustix::io::Errno::WOULDBLOCK => return Err(FilesError::Busy(config.to_owned())),
            other => return Err(cannot(other.into())),
        }
    }
    Ok(file)
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FilesError::Remove {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Not the folder: whoever may read that could lock it, and for ever.
fn lock_of(config: &Path) -> PathBuf {
    beside(config, ".lock")
}

fn beside(config: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = config.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

fn open_error(path: &Path, source: io::Error) -> FilesError {
    FilesError::Open {
        path: path.to_owned(),
        source,
    }
}

const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        files: Files,
    }

    fn place(text: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("verdictd.toml");
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
        let files = Files::of(&config, Duration::ZERO).unwrap();
        Place { folder, files }
    }

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.at(name)).ok()
        }
    }

    #[test]
    fn a_candidate_takes_the_place_of_the_old_one_which_is_kept() {
        let place = place("old");
        fs::write(place.at("verdictd.toml.bak"), "somebody's own").unwrap();
        place.files.write_candidate("new").unwrap();
        let mode = fs::metadata(place.files.candidate()).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode, place.read("verdictd.toml").as_deref()),
            (0o640, Some("old"))
        );
        place.files.promote().unwrap();
        assert_eq!(place.read("verdictd.toml").as_deref(), Some("new"));
        assert_eq!(place.read("verdictd.toml.before-apply").as_deref(), Some("old"));
        assert_eq!(place.read("verdictd.toml.bak").as_deref(), Some("somebody's own"));
        assert_eq!(place.read("verdictd.toml.candidate"), None);
        assert!(!place.files.put_aside().unwrap());
    }

    #[test]
    fn what_went_back_is_kept_aside() {
        let place = place("old");
        place.files.write_candidate("new").unwrap();
        assert!(place.files.put_aside().unwrap());
        assert_eq!(place.read("verdictd.toml.unconfirmed").as_deref(), Some("new"));
        assert_eq!(place.read("verdictd.toml.candidate"), None);
    }

    #[test]
    fn what_was_refused_leaves_everything_as_it_was() {
        let place = place("edited");
        for before in [Some("edited"), None] {
            if before.is_none() {
                fs::remove_file(place.at("verdictd.toml")).unwrap();
            }
            place.files.write_candidate("new").unwrap();
            place.files.write_config("old").unwrap();
            place.files.undo(before).unwrap();
            assert_eq!(place.read("verdictd.toml").as_deref(), before);
            assert_eq!(place.read("verdictd.toml.candidate"), None);
        }
    }

    #[test]
    fn a_file_that_was_not_there_is_for_the_folders_group_to_read() {
        let place = place("old");
        fs::remove_file(place.at("verdictd.toml")).unwrap();
        std::os::unix::fs::chown(place.folder.path(), None, Some(65534)).unwrap();
        place.files.write_config("old").unwrap();
        let made = fs::metadata(place.at("verdictd.toml")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (0, 65534, 0o640));
    }

    #[test]
    fn two_at_a_time_there_are_not_and_who_may_read_the_folder_is_no_second() {
        let place = place("old");
        let config = place.at("verdictd.toml");
        let again = Files::of(&config, Duration::ZERO).unwrap_err().to_string();
        assert!(again.contains("another verdictctl"), "{again}");
        let Place { folder, files } = place;
        drop(files);
        let open = File::open(folder.path()).unwrap();
        flock(&open, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(Files::of(&config, Duration::ZERO).is_ok());
        let lock = fs::metadata(lock_of(&config)).unwrap();
        assert_eq!(lock.mode() & 0o7777, 0o600);
    }

    #[test]
    fn where_others_could_lay_something_nothing_is_used() {
        let place = place("old");
        drop(place.files);
        let (top, link) = (place.folder.path(), place.folder.path().join("open/link"));
        fs::create_dir(top.join("open")).unwrap();
        fs::set_permissions(top.join("open"), Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(top.join("verdictd.toml"), &link).unwrap();
        let refused = |path: &Path| Files::of(path, Duration::ZERO).unwrap_err().to_string();
        assert!(
            refused(&link).contains("has mode 0777"),
            "who may change the link"
        );
        fs::set_permissions(top.join("verdictd.toml"), Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(top.join("open"), Permissions::from_mode(0o755)).unwrap();
        assert!(refused(&link).contains("has mode 0666"), "where it leads");
        fs::set_permissions(top.join("verdictd.toml"), Permissions::from_mode(0o644)).unwrap();
        let files = Files::of(&link, Duration::ZERO).unwrap();
        assert_eq!(files.config, top.join("verdictd.toml").canonicalize().unwrap());
        assert!(refused(Path::new("/")).contains("no file's name"));
    }

    #[test]
    fn the_last_apply_is_told_by_its_deadline() {
        let place = place("old");
        let [early, late] = [1, 2].map(Duration::from_secs);
        place.files.begin(Some(early)).unwrap();
        assert!(is_last(&place.files.config, early));
        place.files.begin(Some(late)).unwrap();
        assert!(is_last(&place.files.config, late) && !is_last(&place.files.config, early));
        place.files.begin(None).unwrap();
        assert!(!is_last(&place.files.config, late));
    }
}
