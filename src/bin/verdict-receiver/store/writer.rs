//! The one thread that writes: what waits is committed together, and answered only after the commit.

use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::{Db, StoreError};
use crate::alert::rules::Rules;
use crate::intake::{self, Incoming};

/// What became of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Events that were not there before.
    pub(crate) new: usize,
    /// Of these, how many somebody should be told of.
    pub(crate) alerts: usize,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Errand {
    Store(Vec<Incoming>, Answer<Stored>),
    /// Is the database usable?
    Try(Answer<()>),
}

/// The way to the thread. It ends when all of these are gone.
#[derive(Clone)]
pub(crate) struct Writer {
    errands: mpsc::Sender<Errand>,
}

impl Writer {
    /// Stores all of `events` or, where it fails, none. When it returns `Ok` they survive `kill -9` and a power cut.
    pub(crate) async fn store(&self, events: Vec<Incoming>) -> Result<Stored, StoreError> {
        self.ask(|answer| Errand::Store(events, answer)).await
    }

    /// Whether events could be stored now.
    pub(crate) async fn usable(&self) -> Result<(), StoreError> {
        self.ask(Errand::Try).await
    }

    async fn ask<T>(&self, errand: impl FnOnce(Answer<T>) -> Errand) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.errands.try_send(errand(answer)).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        answered.await.unwrap_or(Err(StoreError::Stopped))
    }
}

/// Starts the thread; `told` is called after each commit that has alerts in it.
pub(crate) fn start(db: Db, rules: Rules, told: impl Fn() + Send + 'static) -> (Writer, JoinHandle<()>) {
    let (errands, mut waiting) = mpsc::channel(WAITING);
    let thread = thread::spawn(move || {
        let mut scribe = Scribe {
            db,
            rules,
            failed: false,
        };
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < TOGETHER
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            if scribe.serve(group) > 0 {
                told();
            }
        }
    });
    (Writer { errands }, thread)
}

struct Scribe {
    db: Db,
    rules: Rules,
    /// Whether the last commit failed: then a look is not enough to call the database usable.
    failed: bool,
}

impl Scribe {
    /// Answers every errand; says how many alerts are new.
    fn serve(&mut self, group: Vec<Errand>) -> usize {
        let (mut batches, mut answers) = (Vec::new(), Vec::new());
        let mut tries = Vec::new();
        for errand in group {
            match errand {
                Errand::Store(events, answer) => {
                    batches.push(events);
                    answers.push(answer);
                }
                Errand::Try(answer) => tries.push(answer),
            }
        }
        let results = match batches.is_empty() {
            true => Vec::new(),
            false => self.together(&batches),
        };
        let alerts = results.iter().flatten().map(|stored| stored.alerts).sum();
        // A sender that went away meanwhile will send again, and be answered the same.
        answers
            .into_iter()
            .zip(results)
            .for_each(|(answer, result)| _ = answer.send(result));
        for answer in tries {
            let _ = answer.send(self.look());
        }
        alerts
    }

    /// One commit for all; where that fails, and not because of somebody's lock, one for each, so that a small
    /// request is stored on a disk that has no room for a large one.
    fn together(&mut self, batches: &[Vec<Incoming>]) -> Vec<Result<Stored, StoreError>> {
        match self.commit(batches) {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            Err(why) if batches.len() == 1 => vec![Err(why)],
            Err(why) if why.is_locked() => batches.iter().map(|_| Err(StoreError::Busy)).collect(),
            Err(_) => batches
                .iter()
                .map(|batch| Ok(self.commit(std::slice::from_ref(batch))?.remove(0)))
                .collect(),
        }
    }

    fn commit(&mut self, batches: &[Vec<Incoming>]) -> Result<Vec<Stored>, StoreError> {
        let stored = self.try_commit(batches);
        self.failed = stored.is_err();
        stored
    }

    fn try_commit(&mut self, batches: &[Vec<Incoming>]) -> Result<Vec<Stored>, StoreError> {
        self.db.check_place()?;
        let now = now();
        let tx = self
            .db
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored: Result<Vec<Stored>, rusqlite::Error> = batches
            .iter()
            .map(|batch| store(&tx, batch, &self.rules, now))
            .collect();
        let stored = stored?;
        end_expired(&tx, now)?;
        tx.commit()?;
        Ok(stored)
    }

    /// Takes the lock and gives it back; after a failure also writes, since a full disk shows only then.
    fn look(&mut self) -> Result<(), StoreError> {
        self.db.check_place()?;
        if self.failed {
            return self.write_something();
        }
        self.db.conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        Ok(())
    }

    /// Writes 256 KiB, more than most requests, and takes it back out.
    fn write_something(&mut self) -> Result<(), StoreError> {
        let tried = self.db.conn.execute_batch(
            "BEGIN IMMEDIATE; INSERT INTO alerts VALUES ('probe ' || hex(zeroblob(131072)), 0); COMMIT;
             DELETE FROM alerts WHERE channel LIKE 'probe %'",
        );
        if tried.is_err() && !self.db.conn.is_autocommit() {
            let _ = self.db.conn.execute_batch("ROLLBACK");
        }
        self.failed = tried.is_err();
        Ok(tried?)
    }
}

fn store(
    tx: &Transaction<'_>,
    batch: &[Incoming],
    rules: &Rules,
    now: i64,
) -> Result<Stored, rusqlite::Error> {
    let mut stored = Stored::default();
    for event in batch {
        let at = event.at.unwrap_or(now);
        let alert = rules.urgency(event);
        let whole = serde_json::to_string(&event.whole).unwrap_or_default();
        let added = tx
            .prepare_cached(
                "INSERT INTO events (id, event_type, at, received, ip, alert, event) VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![event.id, event.event_type, at, now, event.ip, alert, whole])?;
        if added == 0 {
            continue;
        }
        let seq = tx.last_insert_rowid();
        stored.new += 1;
        stored.alerts += usize::from(alert > 0);
        tx.prepare_cached(
            "INSERT INTO event_counts VALUES (?, 1) ON CONFLICT (event_type) DO UPDATE SET count = count + 1",
        )?
        .execute([&event.event_type])?;
        match (&*event.event_type, &event.ip) {
            ("ip_blocked", Some(ip)) => block(tx, seq, ip, at, event)?,
            ("ip_unblocked", Some(ip)) => unblock(tx, ip, at)?,
            _ => {}
        }
    }
    Ok(stored)
}

/// Events may come in any order (a batch that failed is sent again after later ones): a block whose end is known
/// already is put down as ended.
fn block(conn: &Connection, seq: i64, ip: &str, since: i64, event: &Incoming) -> Result<(), rusqlite::Error> {
    let ended: Option<i64> = conn
        .prepare_cached(
            "SELECT min(at) FROM events WHERE ip = ? AND event_type = 'ip_unblocked' AND at >= ?",
        )?
        .query_row(params![ip, since], |row| row.get(0))
        .optional()?
        .flatten();
    let length = event
        .count("block_duration_seconds")
        .and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000));
    let until = match event
        .data("until")
        .and_then(Value::as_str)
        .and_then(intake::moment)
    {
        Some(until) => Some(until),
        None => length.and_then(|length| since.checked_add(length)),
    };
    let reason = event.data("reason").and_then(Value::as_str);
    let count = event
        .count("block_count")
        .and_then(|count| i64::try_from(count).ok());
    conn.prepare_cached("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![seq, ip, reason, count, since, until, ended])?;
    Ok(())
}

fn unblock(conn: &Connection, ip: &str, at: i64) -> Result<(), rusqlite::Error> {
    conn.prepare_cached(
        "UPDATE blocks SET ended = ?2 WHERE ip = ?1 AND since <= ?2 AND (ended IS NULL OR ended > ?2)",
    )?
    .execute(params![ip, at])?;
    Ok(())
}

/// Blocks whose time ran out end by themselves: an endpoint may not be sent ip_unblocked at all.
fn end_expired(conn: &Connection, now: i64) -> Result<(), rusqlite::Error> {
    conn.prepare_cached("UPDATE blocks SET ended = until WHERE ended IS NULL AND until <= ?")?
        .execute([now])?;
    Ok(())
}

pub(super) fn now() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Requests in one commit.
const TOGETHER: usize = 64;
/// Requests that wait for the thread. More are told to come again.
const WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::{BlockFilter, EventFilter};
    use super::*;

    fn scribe() -> (TempDir, Scribe) {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("events.db")).unwrap();
        let rules = Rules { wide_scan_ports: 1 };
        (
            folder,
            Scribe {
                db,
                rules,
                failed: false,
            },
        )
    }

    fn events(all: Value) -> Vec<Incoming> {
        intake::read(json!({ "events": all }).to_string().as_bytes()).unwrap()
    }

    fn event(id: &str, kind: &str, at: &str, data: Value) -> Value {
        json!({"id": id, "event_type": kind, "timestamp": at, "data": data})
    }

    fn live(scribe: &Scribe) -> Vec<String> {
        let filter = BlockFilter {
            current: true,
            ..BlockFilter::default()
        };
        let page = scribe.db.blocks(&filter).unwrap();
        page.rows
            .iter()
            .map(|row| row["ip"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn an_event_is_stored_once_however_often_it_comes() {
        let (_folder, mut scribe) = scribe();
        let batch = events(json!([
            event(
                "a",
                "ip_blocked",
                "2026-03-01T12:00:00Z",
                json!({"ip": "203.0.113.9", "block_count": 3})
            ),
            event("a", "ip_blocked", "2026-03-01T12:00:00Z", json!({})),
            event("b", "from_the_future", "?", json!(null)),
        ]));
        let first = scribe.commit(std::slice::from_ref(&batch)).unwrap();
        assert_eq!(first, [Stored { new: 2, alerts: 1 }]);
        let again = scribe.commit(&[batch.clone(), batch]).unwrap();
        assert_eq!(again, [Stored::default(); 2]);
        let stats = scribe.db.stats().unwrap();
        assert_eq!(
            stats["event_counts"],
            json!({"from_the_future": 1, "ip_blocked": 1})
        );
        assert_eq!(stats["blocked_ip_count"], 1);
        assert_eq!(scribe.db.events(&EventFilter::default()).unwrap().rows.len(), 2);
    }

    #[test]
    fn blocks_end_by_word_or_by_time_in_whatever_order_they_come() {
        let (_folder, mut scribe) = scribe();
        let ip = |last: u8| json!({"ip": format!("203.0.113.{last}")});
        let far = json!({"ip": "203.0.113.4", "until": "2999-01-01T00:00:00Z"});
        let past = json!({"ip": "203.0.113.5", "block_duration_seconds": 600});
        let batch = events(json!([
            event("1", "ip_unblocked", "2026-03-01T12:10:00Z", ip(1)),
            event("2", "ip_blocked", "2026-03-01T12:00:00Z", ip(1)),
            event("3", "ip_blocked", "2026-03-01T12:20:00Z", ip(2)),
            event("4", "ip_unblocked", "2026-03-01T12:10:00Z", ip(2)),
            event("5", "ip_blocked", "2026-03-01T12:00:00Z", ip(3)),
            event("6", "ip_unblocked", "2026-03-01T12:10:00Z", ip(3)),
            event("7", "ip_blocked", "2026-03-01T12:00:00Z", far),
            event("8", "ip_blocked", "2026-03-01T12:00:00Z", past),
        ]));
        scribe.commit(&[batch]).unwrap();
        assert_eq!(live(&scribe), ["203.0.113.4", "203.0.113.2"]);
        assert_eq!(scribe.db.stats().unwrap()["blocked_ip_count"], 2);
        let filter = BlockFilter {
            ip: Some("203.0.113.5".into()),
            ..BlockFilter::default()
        };
        let rows = scribe.db.blocks(&filter).unwrap().rows;
        assert_eq!(rows[0]["until"], "2026-03-01T12:10:00.000Z");
        assert_eq!(rows[0]["current"], false);
    }

    #[test]
    fn a_full_file_refuses_and_takes_again_when_there_is_room() {
        let (_folder, mut scribe) = scribe();
        let pages: i64 = scribe
            .db
            .conn
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        scribe
            .db
            .conn
            .pragma_update(None, "max_page_count", pages + 2)
            .unwrap();
        let large = events(json!([event("large", "x", "?", json!("y".repeat(100_000)))]));
        let small = events(json!([event("small", "x", "?", json!(1))]));
        let results = scribe.together(&[large.clone(), small]);
        assert!(results[0].is_err());
        assert_eq!(results[1].as_ref().unwrap().new, 1);
        assert!(scribe.commit(std::slice::from_ref(&large)).is_err());
        assert!(scribe.look().is_err());
        scribe
            .db
            .conn
            .pragma_update(None, "max_page_count", 10_000)
            .unwrap();
        scribe.look().unwrap();
        assert_eq!(scribe.commit(&[large]).unwrap()[0].new, 1);
    }
}
