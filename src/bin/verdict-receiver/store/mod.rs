//! Where events are kept: one SQLite file, written by one thread, read by others meanwhile (WAL).
//!
//! `synchronous = FULL`: in WAL mode that is one fsync a commit, and the writer commits what waits together. With
//! NORMAL a power cut could take back what a sender was told is stored, and it would never be sent again.

mod read;
mod row;
mod schema;
mod writer;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

pub(crate) use self::read::{BlockFilter, Due, EventFilter, LARGEST_PAGE, Page};
pub(crate) use self::writer::{Writer, start};

/// Why something could not be stored or read.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// SQLite says so.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// SQLite says so when the file is opened.
    #[error("database {path}: {why}")]
    Open { path: PathBuf, why: rusqlite::Error },
    /// The file cannot be made or looked at.
    #[error("database {path}: {why}")]
    File { path: PathBuf, why: io::Error },
    /// Somebody else's tables.
    #[error(
        "{path} is the database of another program (it has a table \"{table}\"); name a new file, nothing was changed"
    )]
    Foreign { path: PathBuf, table: String },
    /// Written by a later version.
    #[error("{path} has schema {found}, this version knows {known}: it was written by a newer version")]
    Newer { path: PathBuf, found: i64, known: usize },
    /// What is under the name now is not what was opened.
    #[error("{0} was moved, deleted or replaced while in use; restart to use what is there now")]
    Moved(PathBuf),
    /// Somebody else held the lock for [`LOCK_TIME`].
    #[error("database: locked by another program")]
    Locked,
    /// So much waits already that nothing more is taken.
    #[error("database: too much waits to be written")]
    Busy,
    /// The thread that writes is gone.
    #[error("database: the writer stopped")]
    Stopped,
}

impl StoreError {
    /// Whether somebody else held the lock.
    fn is_locked(&self) -> bool {
        let code = match self {
            StoreError::Sqlite(why) => why.sqlite_error_code(),
            _ => None,
        };
        matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }
}

/// One connection to the file, which knows whether the file is still under its name.
pub(crate) struct Db {
    conn: Connection,
    path: PathBuf,
    /// Device and inode of what was opened: the file and its write-ahead log, where commits are at first.
    files: [Option<(u64, u64)>; 2],
}

impl Db {
    /// Opens the database, makes it where there is none, and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Db, StoreError> {
        let at = |why| StoreError::File {
            path: path.to_owned(),
            why,
        };
        // Made here and not by SQLite, so that others cannot read it (SQLite makes its -wal and -shm alike).
        let made = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        made.map_err(at)?;
        let conn = connect(path).map_err(|why| match why {
            StoreError::Sqlite(why) => StoreError::Open {
                path: path.to_owned(),
                why,
            },
            other => other,
        })?;
        Ok(Db {
            conn,
            files: files(path),
            path: path.to_owned(),
        })
    }

    fn check_place(&self) -> Result<(), StoreError> {
        match files(&self.path) == self.files {
            true => Ok(()),
            false => Err(StoreError::Moved(self.path.clone())),
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(LOCK_TIME)?;
    schema::refuse_foreign(&conn, path)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    schema::migrate(&mut conn, path)?;
    Ok(conn)
}

fn files(path: &Path) -> [Option<(u64, u64)>; 2] {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [path, Path::new(&log)].map(|path| Some(fs::metadata(path).ok()?).map(|meta| (meta.dev(), meta.ino())))
}

/// How long a lock of somebody else is waited for. A sender waits 10 s for its answer, behind at most one other commit.
const LOCK_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let db = Db::open(&path).unwrap();
        for name in ["events.db", "events.db-wal", "events.db-shm"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        let pragma = |name: &str| {
            db.conn
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
        assert_eq!(pragma("synchronous").unwrap(), 2.into());
        db.check_place().unwrap();
        fs::rename(&path, folder.path().join("elsewhere.db")).unwrap();
        assert!(matches!(db.check_place(), Err(StoreError::Moved(_))));
    }
}
