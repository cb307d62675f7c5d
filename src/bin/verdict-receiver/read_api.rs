//! Reading what is stored: `/stats`, `/events`, `/blocked`, for this machine and for whoever shows the token.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use verdictd::config::suggest::nearest;
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
    /// Loopback, where no proxy passed a stranger on; anybody with the token.
    fn admits(&self, Peer(peer): Peer, headers: &HeaderMap) -> bool {
        let passed_on = PASSED_ON.iter().any(|name| headers.contains_key(*name));
        (peer.ip().to_canonical().is_loopback() && !passed_on) || self.has_token(headers)
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

pub(crate) async fn stats(app: State<Arc<App>>, peer: Extension<Peer>, headers: HeaderMap) -> Response {
    answer(&app, *peer, &headers, |db| db.stats()).await
}

pub(crate) async fn events(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(StatusCode::BAD_REQUEST, "The query cannot be read");
    };
    match event_filter(query) {
        Ok(filter) => {
            answer(&app, *peer, &headers, move |db| {
                Ok(paged("events", db.events(&filter)?))
            })
            .await
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

pub(crate) async fn blocked(
    app: State<Arc<App>>,
    peer: Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(StatusCode::BAD_REQUEST, "The query cannot be read");
    };
    match block_filter(query) {
        Ok(filter) => {
            answer(&app, *peer, &headers, move |db| {
                Ok(paged("blocked", db.blocks(&filter)?))
            })
            .await
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

async fn answer(
    app: &App,
    peer: Peer,
    headers: &HeaderMap,
    ask: impl FnOnce(&Db) -> Result<Value, StoreError> + Send + 'static,
) -> Response {
    if !app.readers.admits(peer, headers) {
        return problem(
            StatusCode::FORBIDDEN,
            "Events are shown to this machine only, or with read_token",
        );
    }
    let db = Arc::clone(&app.readers.db);
    let asked = tokio::task::spawn_blocking(move || ask(&db.lock().unwrap_or_else(PoisonError::into_inner)));
    match asked.await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(why)) => app.unavailable(&why),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "Reading failed"),
    }
}

fn paged(name: &str, page: Page) -> Value {
    json!({ name: page.rows, "next": page.next })
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
