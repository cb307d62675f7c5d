//! Reading what is stored: `/stats`, `/events`, `/blocked`, for this machine and for whoever shows the token.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use subtle::ConstantTimeEq;
use verdictd::config::suggest::nearest;
use verdictd::notify::text::plain_json;
use verdictd::webhook::signature::Secret;

use crate::app::App;
use crate::http::{Peer, problem};
use crate::store::{BlockFilter, Db, EventFilter, LARGEST_PAGE, Page, StoreError};

/// A connection for questions, and who may ask.
pub(crate) struct Readers {
    pub(crate) db: Arc<Mutex<Db>>,
    pub(crate) token: Option<Secret>,
}

impl Readers {
    /// This machine, as far as that can be told; anybody with the token.
    fn admits(&self, request: &Parts) -> bool {
        is_local(request) || self.has_token(&request.headers)
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        self.token
            .as_ref()
            .is_some_and(|token| token.reveal().as_bytes().ct_eq(given.as_bytes()).into())
    }
}

/// Whether it comes from this machine, and is meant for it: not what a proxy here passed on, and not what a page in a
/// browser here was told to fetch by a name that leads to loopback.
fn is_local(request: &Parts) -> bool {
    let headers = &request.headers;
    let peer = request.extensions.get::<Peer>();
    let loopback = peer.is_some_and(|Peer(peer)| peer.ip().to_canonical().is_loopback());
    let passed_on = PASSED_ON.iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // nginx speaks HTTP/1.0 to what stands behind it and adds no header, if it is not told otherwise.
    loopback && !passed_on && request.version > Version::HTTP_10 && host.is_some_and(is_address)
}

/// `localhost` or an address, with or without a port.
fn is_address(host: &str) -> bool {
    host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || host
            .split(':')
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
}

pub(crate) async fn stats(State(app): State<Arc<App>>, request: Parts) -> Response {
    answer(&app, &request, |db| db.stats()).await
}

pub(crate) async fn events(State(app): State<Arc<App>>, request: Parts) -> Response {
    match parameters(&request).and_then(event_filter) {
        Ok(filter) => answer(&app, &request, move |db| Ok(paged("events", db.events(&filter)?))).await,
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

pub(crate) async fn blocked(State(app): State<Arc<App>>, request: Parts) -> Response {
    match parameters(&request).and_then(block_filter) {
        Ok(filter) => {
            answer(&app, &request, move |db| {
                Ok(paged("blocked", db.blocks(&filter)?))
            })
            .await
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

fn parameters(request: &Parts) -> Result<Vec<(String, String)>, String> {
    Query::try_from_uri(&request.uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| "The query cannot be read".to_owned())
}

async fn answer(
    app: &App,
    request: &Parts,
    ask: impl FnOnce(&Db) -> Result<Value, StoreError> + Send + 'static,
) -> Response {
    if !app.readers.admits(request) {
        return problem(
            StatusCode::FORBIDDEN,
            "Events are shown to this machine only (asked by address or as localhost), or with read_token",
        );
    }
    let db = Arc::clone(&app.readers.db);
    // Only the text leaves: parsed JSON takes many times its room, and many may ask at once.
    let asked = tokio::task::spawn_blocking(move || {
        let db = db.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&db).map(|value| plain_json(&value.to_string()))
    });
    match asked.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(why)) => app.unavailable(&why),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "Reading failed"),
    }
}

fn paged(name: &str, page: Page) -> Value {
    // Not by json!, which copies what it is given.
    let next = page.next.map_or(Value::Null, Value::from);
    Value::from_iter([(name, Value::Array(page.rows)), ("next", next)])
}

fn event_filter(query: Vec<(String, String)>) -> Result<EventFilter, String> {
    let mut filter = EventFilter::default();
    for (key, value) in query {
        match &*key {
            "limit" => filter.limit = Some(limit(&value)?),
            "before" => filter.before = Some(cursor(&key, &value)?),
            "after" => filter.after = Some(cursor(&key, &value)?),
            "event_type" => filter.event_type = Some(value),
            "ip" => filter.ip = Some(ip(&value)?),
            _ => return Err(unknown(&key, &["limit", "before", "after", "event_type", "ip"])),
        }
    }
    Ok(filter)
}

fn block_filter(query: Vec<(String, String)>) -> Result<BlockFilter, String> {
    let mut filter = BlockFilter::default();
    for (key, value) in query {
        match &*key {
            "limit" => filter.limit = Some(limit(&value)?),
            "before" => filter.before = Some(cursor(&key, &value)?),
            "ip" => filter.ip = Some(ip(&value)?),
            "current" => {
                filter.current = value
                    .parse()
                    .map_err(|_| "current: write true or false".to_owned())?
            }
            _ => return Err(unknown(&key, &["limit", "before", "ip", "current"])),
        }
    }
    Ok(filter)
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=LARGEST_PAGE).contains(limit));
    limit.ok_or_else(|| format!("limit: write a number from 1 to {LARGEST_PAGE}"))
}

fn cursor(key: &str, text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{key}: write the \"next\" of a page, or the \"seq\" of an event"))
}

fn ip(text: &str) -> Result<String, String> {
    let ip: IpAddr = text.parse().map_err(|_| "ip: write an address".to_owned())?;
    Ok(ip.to_string())
}

fn unknown(key: &str, known: &[&'static str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("no such parameter; did you mean {near}?"),
        None => format!("no such parameter; known are {}", known.join(", ")),
    }
}

/// What proxies say of those they speak for.
const PASSED_ON: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_name_that_anybody_can_point_here_is_no_address() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:5000",
            "localhost",
            "LOCALHOST:5000",
        ] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:5000",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn parameters_are_read_and_others_refused() {
        let filter =
            event_filter(query(&[("limit", "500"), ("ip", "2001:DB8::1"), ("before", "7")])).unwrap();
        assert_eq!((filter.limit, filter.before), (Some(500), Some(7)));
        assert_eq!(filter.ip.as_deref(), Some("2001:db8::1"));
        let why = |pairs: &[(&str, &str)]| event_filter(query(pairs)).unwrap_err();
        assert_eq!(why(&[("limti", "1")]), "no such parameter; did you mean limit?");
        for limit in ["0", "501", "-1", "all"] {
            assert_eq!(why(&[("limit", limit)]), "limit: write a number from 1 to 500");
        }
        assert!(why(&[("ip", "1.2.3")]).starts_with("ip: "));
        assert!(why(&[("after", "x")]).starts_with("after: "));
        assert!(block_filter(query(&[("current", "true")])).unwrap().current);
    }
}
