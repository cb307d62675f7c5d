//! What is asked of the database: counts, pages of events and of blocks, and what is due to be alerted. Every
//! question has a bound.

use rusqlite::types::ToSql;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use verdictd::webhook::wire;

use super::writer::now;
use super::{Db, StoreError};

/// Which events; a page has those nearest to the cursor.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    pub(crate) limit: Option<usize>,
    /// Only older ones than this `seq`, newest first (the default order).
    pub(crate) before: Option<i64>,
    /// Only newer ones than this `seq`, oldest first.
    pub(crate) after: Option<i64>,
    pub(crate) event_type: Option<String>,
    pub(crate) ip: Option<String>,
}

/// Which blocks, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockFilter {
    pub(crate) limit: Option<usize>,
    pub(crate) before: Option<i64>,
    pub(crate) ip: Option<String>,
    /// Only those that hold now.
    pub(crate) current: bool,
}

/// Some rows, and where the next ones begin, if there may be any.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Value>,
    pub(crate) next: Option<i64>,
}

/// What a channel has not told yet.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// How many by type.
    pub(crate) counts: Vec<(String, u64)>,
    /// The most urgent, as they came.
    pub(crate) events: Vec<Value>,
    /// The newest; what is told when this is.
    pub(crate) last: i64,
}

impl Db {
    /// The body of `/stats`.
    pub(crate) fn stats(&self) -> Result<Value, StoreError> {
        self.check_place()?;
        let mut counts = Map::new();
        let mut question = self
            .conn
            .prepare_cached("SELECT event_type, count FROM event_counts ORDER BY count DESC LIMIT ?")?;
        let mut rows = question.query([MOST_TYPES])?;
        while let Some(row) = rows.next()? {
            counts.insert(row.get(0)?, Value::from(row.get::<_, i64>(1)?));
        }
        let blocked: i64 = self.conn.query_row(
            &format!("SELECT count(DISTINCT ip) FROM blocks WHERE {IN_FORCE}"),
            [now()],
            |row| row.get(0),
        )?;
        let recent = self.events(&EventFilter {
            limit: Some(RECENT),
            ..EventFilter::default()
        })?;
        // Not by json!, which copies what it is given.
        Ok(Value::from_iter([
            ("event_counts", Value::Object(counts)),
            ("blocked_ip_count", blocked.into()),
            ("recent_events", Value::Array(recent.rows)),
        ]))
    }

    /// A page of `/events`.
    pub(crate) fn events(&self, filter: &EventFilter) -> Result<Page, StoreError> {
        self.check_place()?;
        let (mut wheres, mut values) = (Where::new(), Vec::<&dyn ToSql>::new());
        let limit = filter.limit.unwrap_or(PAGE).min(LARGEST_PAGE);
        wheres.add("seq < ?", &filter.before, &mut values);
        wheres.add("seq > ?", &filter.after, &mut values);
        wheres.add("event_type = ?", &filter.event_type, &mut values);
        wheres.add("ip = ?", &filter.ip, &mut values);
        let order = if filter.after.is_some() { "ASC" } else { "DESC" };
        let text = format!(
            "SELECT seq, id, received, event FROM events {} ORDER BY seq {order} LIMIT {limit}",
            wheres.0
        );
        self.page(&text, &values, limit, event_row)
    }

    /// A page of `/blocked`.
    pub(crate) fn blocks(&self, filter: &BlockFilter) -> Result<Page, StoreError> {
        self.check_place()?;
        let (mut wheres, mut values) = (Where::new(), Vec::<&dyn ToSql>::new());
        let limit = filter.limit.unwrap_or(PAGE).min(LARGEST_PAGE);
        let now = filter.current.then(now);
        wheres.add("seq < ?", &filter.before, &mut values);
        wheres.add("ip = ?", &filter.ip, &mut values);
        wheres.add(IN_FORCE, &now, &mut values);
        let text = format!(
            "SELECT seq, ip, reason, block_count, since, until, ended FROM blocks {} ORDER BY seq DESC LIMIT {limit}",
            wheres.0
        );
        self.page(&text, &values, limit, block_row)
    }

    fn page(
        &self,
        text: &str,
        values: &[&dyn ToSql],
        limit: usize,
        read: impl Fn(&Row<'_>) -> Result<Value, rusqlite::Error>,
    ) -> Result<Page, StoreError> {
        let mut question = self.conn.prepare_cached(text)?;
        let mut rows = question.query(values)?;
        let (mut page, mut next, mut bytes) = (Vec::new(), None, 0);
        while let Some(row) = rows.next()? {
            page.push(read(row)?);
            next = Some(row.get::<_, i64>(0)?);
            bytes += row
                .get_ref("event")
                .ok()
                .and_then(|text| text.as_str().ok())
                .map_or(0, str::len);
            if bytes > PAGE_BYTES {
                return Ok(Page { rows: page, next });
            }
        }
        let next = next.filter(|_| page.len() == limit);
        Ok(Page { rows: page, next })
    }

    /// How far `channel` has told; a channel that is new begins with what comes from now on.
    pub(crate) fn told(&self, channel: &str) -> Result<i64, StoreError> {
        let found = self
            .conn
            .query_row("SELECT seq FROM alerts WHERE channel = ?", [channel], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(seq) = found {
            return Ok(seq);
        }
        let newest = self
            .conn
            .query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?;
        self.set_told(channel, newest)?;
        Ok(newest)
    }

    /// `channel` has told everything up to `seq`.
    pub(crate) fn set_told(&self, channel: &str, seq: i64) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(
                "INSERT INTO alerts VALUES (?1, ?2) ON CONFLICT (channel) DO UPDATE SET seq = max(seq, ?2)",
            )?
            .execute(params![channel, seq])?;
        Ok(())
    }

    /// What came after `seq` and is worth an alert; `show` of it whole.
    pub(crate) fn due(&self, seq: i64, show: usize) -> Result<Due, StoreError> {
        let mut due = Due {
            last: seq,
            ..Due::default()
        };
        let newest: Option<i64> = self.conn.query_row(
            "SELECT max(seq) FROM events WHERE alert > 0 AND seq > ?",
            [seq],
            |row| row.get(0),
        )?;
        let Some(newest) = newest else { return Ok(due) };
        due.last = newest;
        let mut question = self.conn.prepare_cached(
            "SELECT event_type, count(*) FROM events WHERE alert > 0 AND seq > ? AND seq <= ?
             GROUP BY event_type ORDER BY min(alert), event_type LIMIT 20",
        )?;
        let counts = question.query_map([seq, newest], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        due.counts = counts.collect::<Result<_, _>>()?;
        let mut question = self.conn.prepare_cached(
            "SELECT event FROM events WHERE alert > 0 AND seq > ? AND seq <= ? ORDER BY alert, seq LIMIT ?",
        )?;
        let show = i64::try_from(show).unwrap_or(i64::MAX);
        let texts = question.query_map([seq, newest, show], |row| row.get::<_, String>(0))?;
        for text in texts {
            due.events.push(serde_json::from_str(&text?).unwrap_or_default());
        }
        Ok(due)
    }
}

/// Conditions that were asked for, each with its value.
struct Where(String);

impl Where {
    fn new() -> Where {
        Where(String::new())
    }

    fn add<'v, T: ToSql>(&mut self, condition: &str, value: &'v Option<T>, values: &mut Vec<&'v dyn ToSql>) {
        if let Some(value) = value {
            self.0 += if self.0.is_empty() { "WHERE " } else { " AND " };
            self.0 += condition;
            values.push(value);
        }
    }
}

/// The event as it came, with its place, its id (which it may have got here) and when it came.
fn event_row(row: &Row<'_>) -> Result<Value, rusqlite::Error> {
    let mut event: Map<String, Value> = serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default();
    event.insert("seq".into(), row.get::<_, i64>(0)?.into());
    event.insert("id".into(), row.get::<_, String>(1)?.into());
    event.insert("received_at".into(), shown(Some(row.get(2)?)));
    Ok(Value::Object(event))
}

fn block_row(row: &Row<'_>) -> Result<Value, rusqlite::Error> {
    let (until, ended): (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
    Ok(json!({
        "seq": row.get::<_, i64>(0)?,
        "ip": row.get::<_, String>(1)?,
        "reason": row.get::<_, Option<String>>(2)?,
        "block_count": row.get::<_, Option<i64>>(3)?,
        "since": shown(Some(row.get(4)?)),
        "until": shown(until),
        "ended": shown(ended.or(until.filter(|until| *until <= now()))),
        "current": ended.is_none() && until.is_none_or(|until| until > now()),
    }))
}

fn shown(at: Option<i64>) -> Value {
    let moment = at.and_then(|at| OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000).ok());
    moment.map_or(Value::Null, |moment| wire::timestamp(moment).into())
}

/// Of blocks that hold at the moment given.
const IN_FORCE: &str = "ended IS NULL AND (until IS NULL OR until > ?)";
/// Rows on a page, if nobody says how many.
const PAGE: usize = 50;
pub(crate) const LARGEST_PAGE: usize = 500;
/// Of events on one page; the last one may go over it.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// `recent_events` in `/stats`.
const RECENT: usize = 10;
/// `event_counts` in `/stats`.
const MOST_TYPES: i64 = 200;
