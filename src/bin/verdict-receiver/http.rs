//! An HTTP/1 server that a stranger cannot hold: bounds on connections, headers, bodies and time.
//!
//! Stands apart from what is served: a router comes in, connections go out. axum's own `serve` sets none of these.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::guests::{Guest, Guests};

/// Who sent a request; an extension of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The answer to a request that is not taken.
pub(crate) type Refused = Box<Response>;

/// An extension of a response: close the connection instead of answering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HangUp;

/// Serves `router` until `stop` is done; then finishes what is in flight, [`LAST_WORDS`] at most.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let guests = Guests::default();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of files, or the peer is gone already: not a reason to spin.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Without a seat the connection ends here.
        let Some(seat) = guests.enter() else { continue };
        let guest = Arc::clone(&seat.guest);
        let talk = graceful.watch(connection(stream, peer, guest, router.clone()));
        tokio::spawn(async move {
            tokio::select! {
                // A peer that breaks off or breaks rules has its answer; nobody else needs to know.
                _ = talk => {}
                () = seat.taken() => {}
            }
        });
    }
    drop(listener);
    let _ = timeout(LAST_WORDS, graceful.shutdown()).await;
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    guest: Arc<Guest>,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(Arc::clone(&guest));
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await.unwrap_or_else(|never: Infallible| match never {});
            match answer.extensions().get::<HangUp>() {
                Some(_) => Err(std::io::Error::other("told to hang up")),
                None => Ok(answer),
            }
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

/// Room in memory for the bodies of all requests.
pub(crate) struct Room(Semaphore);

impl Room {
    pub(crate) fn new() -> Room {
        Room(Semaphore::new(BODIES_BYTES))
    }
}

/// A body, and the room that it takes for as long as this lives.
pub(crate) struct Held<'r> {
    pub(crate) bytes: Vec<u8>,
    room: Option<SemaphorePermit<'r>>,
}

/// The whole body within [`BODY_BYTES`] and [`BODY_TIME`], or the answer that says why not. Room is taken for what
/// came and not for what is announced: who sends nothing takes none.
pub(crate) async fn whole_body(body: Body, room: &Room) -> Result<Held<'_>, Refused> {
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let read = timeout(BODY_TIME, read_body(body, room)).await;
    read.unwrap_or_else(|_| Err(problem(StatusCode::REQUEST_TIMEOUT, "Body took too long").into()))
}

async fn read_body(mut body: Body, Room(room): &Room) -> Result<Held<'_>, Refused> {
    let mut held = Held {
        bytes: Vec::new(),
        room: None,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| problem(StatusCode::BAD_REQUEST, "Body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if held.bytes.len() + data.len() > BODY_BYTES {
            return Err(too_large());
        }
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let Ok(Ok(more)) = timeout(WAIT_FOR_ROOM, room.acquire_many(count)).await else {
            return Err(busy("Too many requests at once").into());
        };
        match held.room.as_mut() {
            Some(room) => room.merge(more),
            None => held.room = Some(more),
        }
        held.bytes.extend_from_slice(&data);
    }
    Ok(held)
}

fn too_large() -> Refused {
    let what = format!("Body larger than {BODY_BYTES} bytes");
    problem(StatusCode::PAYLOAD_TOO_LARGE, &what).into()
}

/// `{"error": …}` with a status.
pub(crate) fn problem(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": what }))).into_response()
}

/// "Come again": nothing was stored.
pub(crate) fn busy(what: &str) -> Response {
    let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, what);
    let later = HeaderValue::from_static("5");
    answer.headers_mut().insert(header::RETRY_AFTER, later);
    answer
}

/// A proxy and a sender together send some twenty.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;
/// From the first byte of a request, or from the answer before it, to the end of its headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A batch of 50 events has some 30 KiB.
pub(crate) const BODY_BYTES: usize = 2 * 1024 * 1024;
/// Of all requests that are read or written down at one time: what strangers can make us hold.
const BODIES_BYTES: usize = 32 * 1024 * 1024;
const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);
/// Senders give up after 10 s; two of them are for room in memory, two for a lock of the database.
const BODY_TIME: Duration = Duration::from_secs(5);
/// For what is in flight when it is told to stop: a body and its commit.
const LAST_WORDS: Duration = Duration::from_secs(10);
