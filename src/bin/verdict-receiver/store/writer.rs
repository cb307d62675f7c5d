//! The one thread that writes: what waits is committed together, and answered only after the commit.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::row::{Block, Row};
use super::{Db, StoreError};
use crate::alert::rules::Rules;
use crate::intake::Incoming;
use crate::log::Log;

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
    Store(Vec<Row>, Answer<Stored>),
    /// Is the database usable?
    Try(Answer<()>),
    /// Forget what came before this moment, a little of it at a time.
    Forget(i64, Answer<usize>),
}

/// The way to the thread. It ends when all of these are gone.
#[derive(Clone)]
pub(crate) struct Writer {
    errands: mpsc::Sender<Errand>,
    rules: Rules,
}

impl Writer {
    /// Stores all of `events` or, where it fails, none. When it returns `Ok` they survive `kill -9` and a power cut.
    pub(crate) async fn store(&self, events: Vec<Incoming>) -> Result<Stored, StoreError> {
        let rows = events
            .into_iter()
            .map(|event| Row::of(event, self.rules))
            .collect();
        self.ask(|answer| Errand::Store(rows, answer)).await
    }

    /// Whether events could be stored now.
    pub(crate) async fn usable(&self) -> Result<(), StoreError> {
        self.ask(Errand::Try).await
    }

    /// Deletes some of what is older than `age`; how much there is no more. A full share means that there may be more.
    async fn forget(&self, age: Duration) -> Result<usize, StoreError> {
        let before = now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.ask(|answer| Errand::Forget(before, answer)).await
    }

    /// Deletes what is older than `age`, now and from time to time, with room for others between. Never ends.
    pub(crate) async fn keep_forgetting(self, age: Duration, log: Arc<Log>) {
        let mut forgotten = 0;
        loop {
            match self.forget(age).await {
                Ok(SHARE) => forgotten += SHARE,
                Ok(last) => {
                    forgotten += last;
                    if forgotten > 0 {
                        log.info(format!(
                            "{forgotten} events forgotten, older than {} days",
                            age.as_secs() / 86_400
                        ));
                    }
                    forgotten = 0;
                    sleep(FORGET_EVERY).await;
                }
                Err(why) => {
                    log.warn(format!("old events cannot be deleted: {why}"));
                    sleep(FORGET_EVERY).await;
                }
            }
            sleep(BREATH).await;
        }
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
        let mut scribe = Scribe { db, failed: false };
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
    (Writer { errands, rules }, thread)
}

struct Scribe {
    db: Db,
    /// Whether the last commit failed: then a look is not enough to call the database usable.
    failed: bool,
}

impl Scribe {
    /// Answers every errand; says how many alerts are new.
    fn serve(&mut self, group: Vec<Errand>) -> usize {
        let (mut batches, mut answers) = (Vec::new(), Vec::new());
        let (mut tries, mut ages) = (Vec::new(), Vec::new());
        for errand in group {
            match errand {
                Errand::Store(events, answer) => {
                    batches.push(events);
                    answers.push(answer);
                }
                Errand::Try(answer) => tries.push(answer),
                Errand::Forget(before, answer) => ages.push((before, answer)),
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
        for (before, answer) in ages {
            let _ = answer.send(self.forget(before));
        }
        alerts
    }

    /// One commit for all; where that fails, and not because of somebody's lock, one for each, so that a small
    /// request is stored on a disk that has no room for a large one.
    fn together(&mut self, batches: &[Vec<Row>]) -> Vec<Result<Stored, StoreError>> {
        match self.commit(batches) {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            Err(why) if batches.len() == 1 => vec![Err(why)],
            Err(why) if why.is_locked() => batches.iter().map(|_| Err(StoreError::Locked)).collect(),
            Err(_) => batches
                .iter()
                .map(|batch| Ok(self.commit(std::slice::from_ref(batch))?.remove(0)))
                .collect(),
        }
    }

    fn commit(&mut self, batches: &[Vec<Row>]) -> Result<Vec<Stored>, StoreError> {
        let stored = self.try_commit(batches);
        self.failed = stored.is_err();
        stored
    }

    fn try_commit(&mut self, batches: &[Vec<Row>]) -> Result<Vec<Stored>, StoreError> {
        self.db.check_place()?;
        let now = now();
        let tx = self
            .db
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored: Result<Vec<Stored>, rusqlite::Error> =
            batches.iter().map(|batch| store(&tx, batch, now)).collect();
        let stored = stored?;
        end_expired(&tx, now)?;
        tx.commit()?;
        Ok(stored)
    }

    /// Deletes [`SHARE`] events at most, the oldest first, and what hangs on them.
    fn forget(&mut self, before: i64) -> Result<usize, StoreError> {
        self.db.check_place()?;
        let tx = self
            .db
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let old = "(SELECT seq FROM events WHERE received < ? ORDER BY received, seq LIMIT ?)";
        let share = i64::try_from(SHARE).unwrap_or(i64::MAX);
        tx.execute(
            &format!("DELETE FROM blocks WHERE seq IN {old}"),
            params![before, share],
        )?;
        let gone = tx.execute(
            &format!("DELETE FROM events WHERE seq IN {old}"),
            params![before, share],
        )?;
        tx.commit()?;
        Ok(gone)
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

fn store(tx: &Transaction<'_>, batch: &[Row], now: i64) -> Result<Stored, rusqlite::Error> {
    let mut stored = Stored::default();
    for row in batch {
        let at = row.at.unwrap_or(now);
        let added = tx
            .prepare_cached(
                "INSERT INTO events (id, event_type, at, received, ip, alert, event) VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![row.id, row.event_type, at, now, row.ip, row.alert, row.event])?;
        if added == 0 {
            continue;
        }
        let seq = tx.last_insert_rowid();
        stored.new += 1;
        stored.alerts += usize::from(row.alert > 0);
        tx.prepare_cached(
            "INSERT INTO event_counts VALUES (?, 1) ON CONFLICT (event_type) DO UPDATE SET count = count + 1",
        )?
        .execute([&row.event_type])?;
        match (&row.ip, &row.block) {
            (Some(ip), Some(start)) => block(tx, seq, ip, at, start)?,
            (Some(ip), None) if row.event_type == "ip_unblocked" => unblock(tx, ip, at)?,
            _ => {}
        }
    }
    Ok(stored)
}

/// Events may come in any order (a batch that failed is sent again after later ones): a block whose end is known
/// already is put down as ended.
fn block(conn: &Connection, seq: i64, ip: &str, since: i64, block: &Block) -> Result<(), rusqlite::Error> {
    let ended: Option<i64> = conn
        .prepare_cached(
            "SELECT min(at) FROM events WHERE ip = ? AND event_type = 'ip_unblocked' AND at >= ?",
        )?
        .query_row(params![ip, since], |row| row.get(0))
        .optional()?
        .flatten();
    let by_length = || since.checked_add(block.length?);
    let until = block.until.or_else(by_length);
    conn.prepare_cached("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![seq, ip, block.reason, block.count, since, until, ended])?;
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

/// Events deleted in one commit: some milliseconds, in which senders wait.
const SHARE: usize = 500;
/// Between two such commits.
const BREATH: Duration = Duration::from_millis(50);
/// Between two looks for what is old.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// Requests in one commit.
const TOGETHER: usize = 64;
/// Requests that wait for the thread. More are told to come again.
const WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::super::{BlockFilter, EventFilter};
    use super::*;
    use crate::intake;

    fn scribe() -> (TempDir, Scribe) {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("events.db")).unwrap();
        (folder, Scribe { db, failed: false })
    }

    fn events(all: Value) -> Vec<Row> {
        let events = intake::read(json!({ "events": all }).to_string().as_bytes()).unwrap();
        let rules = Rules { wide_scan_ports: 1 };
        events.into_iter().map(|event| Row::of(event, rules)).collect()
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
        let again = scribe.commit(std::slice::from_ref(&batch)).unwrap();
        assert_eq!(again, [Stored::default()]);
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
        let results = scribe.together(&[large, small]);
        assert!(results[0].is_err());
        assert_eq!(results[1].as_ref().unwrap().new, 1);
        let large = events(json!([event("large", "x", "?", json!("y".repeat(100_000)))]));
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

    #[test]
    fn what_is_old_is_forgotten_a_share_at_a_time() {
        let (_folder, mut scribe) = scribe();
        let old: Vec<Value> = (0..SHARE + 20)
            .map(|at| event(&at.to_string(), "ip_blocked", "?", json!({"ip": "203.0.113.9"})))
            .collect();
        scribe.commit(&[events(json!(old))]).unwrap();
        scribe
            .db
            .conn
            .execute("UPDATE events SET received = received - 1000 * seq", [])
            .unwrap();
        scribe
            .commit(&[events(json!([event("new", "x", "?", json!({}))]))])
            .unwrap();
        let before = now() - 10;
        assert_eq!(scribe.forget(before).unwrap(), SHARE);
        // The oldest went, by when they came.
        let left = scribe.db.events(&EventFilter::default()).unwrap().rows;
        assert_eq!(
            (left.len(), &left[0]["id"], &left[20]["id"]),
            (21, &json!("new"), &json!("0"))
        );
        assert_eq!(scribe.db.blocks(&BlockFilter::default()).unwrap().rows.len(), 20);
        assert_eq!(scribe.forget(before).unwrap(), 20);
        assert_eq!(scribe.forget(before).unwrap(), 0);
        assert_eq!(scribe.db.events(&EventFilter::default()).unwrap().rows.len(), 1);
        assert_eq!(
            scribe.db.stats().unwrap()["event_counts"]["ip_blocked"],
            SHARE + 20
        );
    }
}
