//! An HTTP/1 server that a stranger cannot hold: bounds on connections, headers, bodies and time.
//!
//! Stands apart from what is served: a router comes in, connections go out. axum's own `serve` sets none of these.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let room = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, room)
        };
        let (accepted, room) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let talk = graceful.watch(connection(stream, peer, router.clone()));
                tokio::spawn(async move {
                    // A peer that breaks off or breaks rules has its answer; nobody else needs to know.
                    let _ = talk.await;
                    drop(room);
                });
            }
            // Out of files, or the peer is gone already: not a reason to spin.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
    drop(listener);
    let _ = timeout(LAST_WORDS, graceful.shutdown()).await;
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
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

/// The whole body within [`BODY_BYTES`] and [`BODY_TIME`], or the answer that says why not.
pub(crate) async fn whole_body(body: Body) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    match timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(why)) if is_too_large(&why) => Err(too_large()),
        Ok(Err(_)) => Err(problem(StatusCode::BAD_REQUEST, "Body broke off").into()),
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "Body took too long").into()),
    }
}

fn is_too_large(why: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(why);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn too_large() -> Refused {
    let what = format!("Body larger than {BODY_BYTES} bytes");
    problem(StatusCode::PAYLOAD_TOO_LARGE, &what).into()
}

/// `{"error": …}` with a status.
pub(crate) fn problem(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": what }))).into_response()
}

/// At once; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// A proxy and a sender together send some twenty.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;
/// From the first byte of a request, or from the answer before it, to the end of its headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A batch of 50 events has some 30 KiB.
pub(crate) const BODY_BYTES: usize = 2 * 1024 * 1024;
/// Senders give up after 10 s; two of them are for room in memory, two for a lock of the database.
const BODY_TIME: Duration = Duration::from_secs(5);
/// For what is in flight when it is told to stop: a body and its commit.
const LAST_WORDS: Duration = Duration::from_secs(15);
