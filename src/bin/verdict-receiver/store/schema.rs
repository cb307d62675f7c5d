//! The tables, and how older files come to have them: `user_version` is the number of steps that a file has had.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::StoreError;

/// Refuses a file that some other program made, before anything is changed in it. The Python system's handler is one.
pub(super) fn refuse_foreign(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let path = || path.to_owned();
    let found = version(conn)?;
    if usize::try_from(found).is_ok_and(|found| found > STEPS.len()) {
        return Err(StoreError::Newer {
            path: path(),
            found,
            known: STEPS.len(),
        });
    }
    let id: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let table: Option<String> = conn
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
            [],
            |row| row.get(0),
        )
        .optional()?;
    match table {
        Some(table) if id != APPLICATION => Err(StoreError::Foreign { path: path(), table }),
        _ => Ok(()),
    }
}

/// Takes the steps that the file has not had, each whole or not at all.
pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    while let Some(step) = usize::try_from(version(conn)?)
        .ok()
        .and_then(|done| STEPS.get(done))
    {
        let step_from = version(conn)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Somebody else may have taken it while the lock was waited for.
        if version(&tx)? == step_from {
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", step_from + 1)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
        }
        tx.commit()?;
    }
    refuse_foreign(conn, path)
}

fn version(conn: &Connection) -> Result<i64, rusqlite::Error> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// `vdrc` in ASCII, in the header of each of our files.
const APPLICATION: i64 = 0x7664_7263;

/// What was released is never changed; a new version adds a step.
const STEPS: [&str; 3] = [EVENTS, BLOCKS_AND_ALERTS, BY_AGE];

/// Times are unix milliseconds. `event` is the event as it came, in JSON. `alert` is 0, or how urgent an alert is (1 first).
const EVENTS: &str = "
    CREATE TABLE events (
        seq        INTEGER PRIMARY KEY AUTOINCREMENT,
        id         TEXT NOT NULL UNIQUE,
        event_type TEXT NOT NULL,
        at         INTEGER NOT NULL,
        received   INTEGER NOT NULL,
        ip         TEXT,
        alert      INTEGER NOT NULL,
        event      TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_type ON events (event_type, seq);
    CREATE INDEX events_by_ip ON events (ip, seq) WHERE ip IS NOT NULL;
    CREATE INDEX events_to_alert ON events (seq) WHERE alert > 0;
    CREATE TABLE event_counts (
        event_type TEXT PRIMARY KEY,
        count      INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// `ended`: when an ip_unblocked said so, or `until` where none came. `alerts`: how far each channel has told.
const BLOCKS_AND_ALERTS: &str = "
    CREATE TABLE blocks (
        seq         INTEGER PRIMARY KEY REFERENCES events (seq),
        ip          TEXT NOT NULL,
        reason      TEXT,
        block_count INTEGER,
        since       INTEGER NOT NULL,
        until       INTEGER,
        ended       INTEGER
    ) STRICT;
    CREATE INDEX blocks_by_ip ON blocks (ip, seq);
    CREATE INDEX blocks_live ON blocks (until, ip) WHERE ended IS NULL;
    CREATE TABLE alerts (
        channel TEXT PRIMARY KEY,
        seq     INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// What is to be forgotten is found by its age and not by its place: a clock may have been wrong for a while.
const BY_AGE: &str = "CREATE INDEX events_by_received ON events (received)";

#[cfg(test)]
mod tests {
    use super::super::Db;
    use super::*;

    #[test]
    fn an_older_file_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(EVENTS).unwrap();
        old.execute("INSERT INTO events VALUES (1, 'a', 'x', 0, 0, NULL, 0, '{}')", [])
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.pragma_update(None, "application_id", APPLICATION).unwrap();
        drop(old);
        for _ in 0..2 {
            let db = Db::open(&path).unwrap();
            assert_eq!(version(&db.conn).unwrap(), STEPS.len() as i64);
            let kept: i64 = db
                .conn
                .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
                .unwrap();
            assert_eq!(kept, 1);
            db.conn.prepare("SELECT * FROM blocks, alerts").unwrap();
        }
    }

    #[test]
    fn the_files_of_others_and_of_later_versions_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE blocked_ips (ip TEXT)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let why = Db::open(&path).map(drop).unwrap_err().to_string();
        assert!(why.contains("blocked_ips"), "{why}");
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let path = folder.path().join("newer.db");
        drop(Db::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", STEPS.len() as i64 + 1)
            .unwrap();
        let why = Db::open(&path).map(drop).unwrap_err().to_string();
        assert!(why.ends_with("written by a newer version"), "{why}");
    }
}
