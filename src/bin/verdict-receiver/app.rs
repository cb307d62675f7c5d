//! What `serve` answers: takes batches in, and lets those read who may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::timeout;
use verdictd::notify::throttle::Throttle;
use verdictd::webhook::signature::{self, Accepted, SIGNATURE, SIGNATURE_V2, Secret, Signed, TIMESTAMP};
use verdictd::webhook::wire;

use crate::config::Config;
use crate::guests::Guest;
use crate::http::{self, Peer, Refused, Room, busy, problem};
use crate::intake;
use crate::log::Log;
use crate::read_api::{self, Readers};
use crate::store::{StoreError, Writer};

/// What every request needs.
pub(crate) struct App {
    secrets: Vec<Secret>,
    /// Whether the signature that covers the timestamp has to be there.
    require_v2: bool,
    writer: Writer,
    pub(crate) readers: Readers,
    log: Arc<Log>,
    /// Strangers cannot fill the log.
    complaints: Mutex<Throttle>,
    /// When the database was last tried, and what came of it.
    health: tokio::sync::Mutex<Option<(Instant, bool)>>,
    room: Room,
}

impl App {
    pub(crate) fn new(config: &Config, writer: Writer, readers: Readers, log: Arc<Log>) -> App {
        App {
            secrets: config.secrets.clone(),
            require_v2: config.require_v2,
            writer,
            readers,
            log,
            complaints: Mutex::new(Throttle::new(COMPLAINTS, COMPLAINTS_EVERY)),
            health: tokio::sync::Mutex::new(None),
            room: Room::new(),
        }
    }

    /// The way from a path to its answer.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/webhook", post(webhook))
            .route("/health", get(health))
            .route("/stats", get(read_api::stats))
            .route("/events", get(read_api::events))
            .route("/blocked", get(read_api::blocked))
            .fallback(|| async { problem(StatusCode::NOT_FOUND, "Not found") })
            .with_state(Arc::new(self))
    }

    /// Who made it, or the answer to a stranger, which says nothing of why.
    fn check(&self, headers: &HeaderMap, body: &[u8], peer: Peer) -> Result<Accepted, Refused> {
        let why = match signature::verify(signed(headers, body), &self.secrets, unix_seconds()) {
            Ok(accepted) if accepted.replay_proof || !self.require_v2 => return Ok(accepted),
            Ok(_) => format!("{SIGNATURE_V2} is missing, and require_v2 asks for it"),
            Err(why) => why.to_string(),
        };
        self.complain(format!("request of {} refused: {why}", peer.0));
        Err(problem(StatusCode::UNAUTHORIZED, "Invalid signature").into())
    }

    /// The answer to whom the database cannot serve: come again.
    pub(crate) fn unavailable(&self, why: &StoreError) -> Response {
        self.complain(format!("answered 503: {why}"));
        busy("Database unavailable")
    }

    /// Whether events could be stored now. One look serves all who ask within [`HEALTH_AGE`].
    async fn is_usable(&self) -> bool {
        let mut last = self.health.lock().await;
        if let Some((at, usable)) = *last
            && at.elapsed() < HEALTH_AGE
        {
            return usable;
        }
        let usable = timeout(HEALTH_TIME, self.writer.usable())
            .await
            .unwrap_or(Err(StoreError::Busy));
        if let Err(why) = &usable {
            self.complain(format!("unhealthy: {why}"));
        }
        *last = Some((Instant::now(), usable.is_ok()));
        usable.is_ok()
    }

    /// A line that strangers can cause: in bounds.
    fn complain(&self, text: String) {
        let mut throttle = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        match throttle.pass(Instant::now()) {
            None => {}
            Some(0) => self.log.warn(text),
            Some(more) => self
                .log
                .warn(format!("{text} ({more} lines like it are left out)")),
        }
    }
}

async fn webhook(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Extension(guest): Extension<Arc<Guest>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let taken = take_in(&app, peer, &guest, &headers, body).await;
    taken.unwrap_or_else(|answer| *answer)
}

async fn take_in(
    app: &App,
    peer: Peer,
    guest: &Guest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let body = http::whole_body(body, &app.room).await?;
    let accepted = app.check(headers, &body.bytes, peer)?;
    guest.is_known();
    let events = intake::read(&body.bytes).map_err(|why| {
        app.log
            .warn(format!("well signed request of {} refused: {why}", peer.0));
        Refused::from(problem(StatusCode::BAD_REQUEST, &why.to_string()))
    })?;
    let count = events.len();
    let stored = app
        .writer
        .store(events)
        .await
        .map_err(|why| app.unavailable(&why))?;
    let old_secret = if accepted.secret > 0 {
        ", signed with an older secret"
    } else {
        ""
    };
    let known = count - stored.new;
    let again = if known > 0 {
        format!(", {known} of them known already")
    } else {
        String::new()
    };
    app.log
        .info(format!("{count} events of {}{again}{old_secret}", peer.0));
    Ok(Json(json!({"status": "success", "processed_events": count})).into_response())
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let now = wire::timestamp(OffsetDateTime::now_utc());
    match app.is_usable().await {
        true => Json(json!({"status": "healthy", "timestamp": now})).into_response(),
        false => {
            let body = json!({"status": "unhealthy", "timestamp": now, "error": "Database unavailable"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// The headers that say who sent it. One that is no text, or is there twice, fits nothing: which of two is meant would
/// be for everything on the way to decide.
pub(crate) fn signed<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Signed<'a> {
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap_or("");
        Some(if values.next().is_some() { "" } else { value })
    };
    Signed {
        v1: text(SIGNATURE),
        v2: text(SIGNATURE_V2),
        timestamp: text(TIMESTAMP),
        body,
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}

/// Longer than a lock is waited for, shorter than the patience of who asks.
const HEALTH_TIME: Duration = Duration::from_secs(4);
const HEALTH_AGE: Duration = Duration::from_millis(500);
/// Lines of what is refused or failed: so many at once, then one in this time.
const COMPLAINTS: u32 = 20;
const COMPLAINTS_EVERY: Duration = Duration::from_secs(3);
