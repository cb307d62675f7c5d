//! `GET /metrics` for a scraper, and nothing else for anybody.
//!
//! Bounded in every direction: [`SEATS`] connections at a time, of which the one that has asked nothing for longest gives
//! way to a new one, so that no number of silent or slow clients keeps a scraper out; headers, time and answers are
//! limited; one thread asks the engine, once for all who wait at the time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::collect::Source;
use super::measure;
use super::page::CONTENT_TYPE;

type Answer = Response<Full<Bytes>>;

/// Serves until `stop` is done.
///
/// # Errors
/// If the thread that asks cannot be started, or ended.
pub(super) async fn serve(
    listener: TcpListener,
    source: Source,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let scraper = Scraper::start(source)?;
    let mut seats = Seats::default();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = scraper.0.closed() => return Err(io::Error::other("the thread that asks the engine ended")),
            () = &mut stop => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            // Out of files, or the peer is gone already: not a reason to spin.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        seats.take(stream, &scraper);
    }
}

/// The way to the thread that asks the engine.
#[derive(Clone)]
struct Scraper(mpsc::Sender<oneshot::Sender<Bytes>>);

impl Scraper {
    fn start(source: Source) -> io::Result<Scraper> {
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<Bytes>>(SEATS);
        thread::Builder::new().name("scrape".into()).spawn(move || {
            while let Some(first) = asked.blocking_recv() {
                // Whoever asked before this look began is answered by it; later ones wait for the next.
                let mut waiting = vec![first];
                waiting.extend(std::iter::from_fn(|| asked.try_recv().ok()));
                waiting.retain(|one| !one.is_closed());
                if waiting.is_empty() {
                    continue;
                }
                let page = measure::page(&source.look());
                let page = Bytes::from(page.text());
                for one in waiting {
                    let _ = one.send(page.clone());
                }
            }
        })?;
        Ok(Scraper(ask))
    }

    /// What there is to tell now.
    async fn page(&self) -> Option<Bytes> {
        let (to, page) = oneshot::channel();
        self.0.send(to).await.ok()?;
        page.await.ok()
    }
}

/// Who is connected, the first come first.
#[derive(Default)]
struct Seats(VecDeque<Seat>);

struct Seat {
    /// A whole request has come.
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Seats {
    fn take(&mut self, stream: TcpStream, scraper: &Scraper) {
        self.make_room();
        let asked = Arc::new(AtomicBool::new(false));
        let talk = timeout(WHOLE, talk(stream, scraper.clone(), Arc::clone(&asked)));
        // A peer that breaks off or breaks rules has its answer; nobody else needs to know.
        let task = tokio::spawn(async move { drop(talk.await) }).abort_handle();
        self.0.push_back(Seat { asked, task });
    }

    fn make_room(&mut self) {
        self.0.retain(|seat| !seat.task.is_finished());
        if self.0.len() < SEATS {
            return;
        }
        let silent = self.0.iter().position(|seat| !seat.asked.load(Ordering::Relaxed));
        if let Some(seat) = self.0.remove(silent.unwrap_or(0)) {
            seat.task.abort();
        }
    }
}

async fn talk(stream: TcpStream, scraper: Scraper, asked: Arc<AtomicBool>) -> Result<(), hyper::Error> {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let scraper = scraper.clone();
        async move { Ok::<_, Infallible>(answer(&request, &scraper).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        // A scrape every 15 s needs no open connection between two.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, scraper: &Scraper) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" => match scraper.page().await {
            Some(page) => typed(StatusCode::OK, CONTENT_TYPE, page),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the exporter is stopping\n"),
        },
        "/" => plain(StatusCode::OK, ROOT),
        _ => plain(StatusCode::NOT_FOUND, "there is only /metrics\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    typed(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}

const ROOT: &str = concat!(
    "verdictd exporter ",
    env!("CARGO_PKG_VERSION"),
    ": metrics of the verdictd on this host are at /metrics, in the text format of Prometheus\n"
);
/// Connections at a time. A scraper needs one, for the moment of its question.
const SEATS: usize = 128;
/// From accept to the end of the request's headers.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// A whole connection: headers, a look at an engine that hangs (8 s) after another one, and a slow reader.
const WHOLE: Duration = Duration::from_secs(30);
const HEADERS: usize = 64;
/// The least that hyper takes.
const HEADER_BYTES: usize = 8192;
