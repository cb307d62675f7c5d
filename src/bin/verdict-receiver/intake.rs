//! From the body of a signed request to events that can be stored: lenient in what an event may be, strict in size.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime};

/// One event as it came, with what the store looks at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incoming {
    /// Its own, or made from its content and place.
    pub(crate) id: String,
    pub(crate) event_type: String,
    /// When it happened, in unix milliseconds; none if it does not say so readably.
    pub(crate) at: Option<i64>,
    /// `data.ip`, if it is an address.
    pub(crate) ip: Option<String>,
    /// All of it.
    pub(crate) whole: Map<String, Value>,
}

impl Incoming {
    /// A value of `data`.
    pub(crate) fn data(&self, key: &str) -> Option<&Value> {
        self.whole.get("data")?.get(key)
    }

    /// A count of `data`.
    pub(crate) fn count(&self, key: &str) -> Option<u64> {
        self.data(key)?.as_u64()
    }
}

/// Why a body is not a batch of events. None of it is stored then.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum BadBody {
    #[error("Invalid JSON: {0}")]
    Json(String),
    #[error("no list \"events\" and no \"event_type\" in it")]
    Shape,
    #[error("events[{at}] {what}")]
    Event { at: usize, what: &'static str },
    #[error("{0} events in one request; at most {MOST_EVENTS}")]
    Many(usize),
}

/// The events of `body`: `{"events": […], …}`, or one event alone.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Incoming>, BadBody> {
    let batch: Value = serde_json::from_slice(body).map_err(|why| BadBody::Json(why.to_string()))?;
    let Value::Object(mut batch) = batch else {
        return Err(BadBody::Shape);
    };
    let events = match batch.remove("events") {
        Some(Value::Array(events)) => events,
        None if batch.contains_key("event_type") => vec![Value::Object(std::mem::take(&mut batch))],
        _ => return Err(BadBody::Shape),
    };
    if events.len() > MOST_EVENTS {
        return Err(BadBody::Many(events.len()));
    }
    let sent = batch.get("timestamp").cloned().unwrap_or_default();
    let events = events.into_iter().enumerate();
    events.map(|(at, event)| one(at, event, &sent)).collect()
}

fn one(at: usize, event: Value, sent: &Value) -> Result<Incoming, BadBody> {
    let bad = |what| BadBody::Event { at, what };
    let Value::Object(whole) = event else {
        return Err(bad("is not an object"));
    };
    let event_type = whole.get("event_type").and_then(Value::as_str);
    let event_type = event_type.ok_or_else(|| bad("has no \"event_type\""))?;
    if event_type.is_empty() || event_type.len() > LONGEST_NAME {
        return Err(bad(
            "has an \"event_type\" that is empty or longer than 128 bytes",
        ));
    }
    Ok(Incoming {
        id: id(at, &whole, sent),
        event_type: event_type.to_owned(),
        at: whole.get("timestamp").and_then(Value::as_str).and_then(moment),
        ip: address(&whole),
        whole,
    })
}

/// The event's own id. Without one (the first Python senders) the same event in the same place of the same batch has
/// the same id, so that a request sent twice is stored once, and two like events of one batch are two.
fn id(at: usize, whole: &Map<String, Value>, sent: &Value) -> String {
    let own = whole.get("id").and_then(Value::as_str);
    if let Some(id) = own.filter(|id| !id.is_empty() && id.len() <= LONGEST_NAME) {
        return id.to_owned();
    }
    let content = serde_json::to_vec(&(at, sent, whole)).unwrap_or_default();
    let digest = Sha256::digest(&content);
    digest[..16].iter().fold("content-".to_owned(), |mut id, byte| {
        id.push_str(&format!("{byte:02x}"));
        id
    })
}

fn address(whole: &Map<String, Value>) -> Option<String> {
    let text = whole.get("data")?.get("ip")?.as_str()?;
    let ip: std::net::IpAddr = text.parse().ok()?;
    Some(ip.to_string())
}

/// Unix milliseconds of RFC 3339, or of what Python's `isoformat()` writes without an offset, taken for UTC.
pub(crate) fn moment(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .or_else(|| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339).ok())
        .or_else(|| {
            PrimitiveDateTime::parse(text, &time::format_description::well_known::Iso8601::DEFAULT)
                .ok()
                .map(PrimitiveDateTime::assume_utc)
        })?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// In one request. The engine's largest `batch_size`.
const MOST_EVENTS: usize = 10_000;
/// Of an id and of the name of an event, in bytes.
const LONGEST_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(body: &str) -> Vec<String> {
        read(body.as_bytes())
            .unwrap()
            .into_iter()
            .map(|event| event.id)
            .collect()
    }

    #[test]
    fn what_the_store_looks_at_is_found() {
        let body = r#"{"events":[{"id":"a","event_type":"ip_blocked","timestamp":"2026-03-01T12:00:00.250Z",
            "data":{"ip":"2001:DB8::1","block_count":3}}],"batch_size":1,"timestamp":"x"}"#;
        let events = read(body.as_bytes()).unwrap();
        assert_eq!(events[0].id, "a");
        assert_eq!(events[0].at, Some(1_772_366_400_250));
        assert_eq!(events[0].ip.as_deref(), Some("2001:db8::1"));
        assert_eq!(events[0].count("block_count"), Some(3));
        assert_eq!(ids(r#"{"event_type":"alone","id":"b"}"#), ["b"]);
        assert_eq!(ids(r#"{"events":[]}"#), [""; 0]);
    }

    #[test]
    fn python_times_are_read() {
        for text in [
            "2026-03-01T12:00:00",
            "2026-03-01T12:00:00.000000",
            "2026-03-01T13:00:00+01:00",
            "2026-03-01 12:00:00Z",
        ] {
            assert_eq!(moment(text), Some(1_772_366_400_000), "{text}");
        }
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn events_without_an_id_are_known_by_content_and_place() {
        let like = r#"{"event_type":"x","data":{}}"#;
        let body = format!(r#"{{"events":[{like},{like}],"timestamp":"t1"}}"#);
        let first = ids(&body);
        assert_ne!(first[0], first[1]);
        assert_eq!(ids(&body), first);
        assert_ne!(ids(&body.replace("t1", "t2")), first);
        let long = format!(r#"{{"event_type":"x","id":"{}"}}"#, "i".repeat(129));
        assert!(ids(&long)[0].starts_with("content-"));
        assert!(ids(r#"{"event_type":"x","id":7}"#)[0].starts_with("content-"));
    }

    #[test]
    fn what_is_no_batch_is_refused_as_a_whole() {
        let why = |body: &[u8]| read(body).unwrap_err().to_string();
        assert!(why(b"{").starts_with("Invalid JSON"));
        assert!(why(b"\xff\xfe{}").starts_with("Invalid JSON"));
        assert!(why("[".repeat(100_000).as_bytes()).starts_with("Invalid JSON"));
        for body in ["[]", "{}", "7", r#"{"events":7}"#, r#"{"events":null}"#] {
            assert_eq!(read(body.as_bytes()), Err(BadBody::Shape), "{body}");
        }
        assert_eq!(
            why(br#"{"events":[{"event_type":"x"},3]}"#),
            "events[1] is not an object"
        );
        assert_eq!(why(br#"{"events":[{}]}"#), "events[0] has no \"event_type\"");
        let many = format!(r#"{{"events":[{}0]}}"#, "0,".repeat(MOST_EVENTS));
        assert_eq!(read(many.as_bytes()), Err(BadBody::Many(MOST_EVENTS + 1)));
    }
}
