//! `test-server`: prints what arrives and says plainly what is wrong with it, and misbehaves on demand.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use verdictd::notify::text::plain;
use verdictd::webhook::signature::{self, Refusal, SIGNATURE, SIGNATURE_V2, Secret, Signed, TIMESTAMP};
use verdictd::webhook::wire::{EventType, Severity};

use crate::Failed;
use crate::app::{signed, unix_seconds};
use crate::args::TestServer;
use crate::http::{self, HangUp, Peer, Room, problem};
use crate::serve::announce;
use crate::settings;
use crate::show::summary;

/// What it checks against, and how it behaves.
struct Bench {
    secrets: Vec<Secret>,
    fail: Option<StatusCode>,
    delay: Duration,
    drop: bool,
    colour: bool,
    room: Room,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: TestServer) -> Result<(), Failed> {
    if args.secret.is_some() {
        eprintln!(
            "note: other users of this machine can read --secret in the list of processes; --secret-file keeps it"
        );
    }
    let address = SocketAddr::new(args.bind, args.port);
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let bench = Bench {
        secrets: secrets(&args)?,
        fail: args.fail.and_then(|status| StatusCode::from_u16(status).ok()),
        delay: args.delay,
        drop: args.drop,
        colour: io::stdout().is_terminal()
            && !no_colour
            && env::var_os("TERM").is_none_or(|term| term != "dumb"),
        room: Room::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .and_then(|runtime| runtime.block_on(listen(address, bench)))
        .map_err(|why| Failed::Work(format!("{address}: {why}")))
}

fn secrets(args: &TestServer) -> Result<Vec<Secret>, Failed> {
    let usage = |why: String| Failed::Usage(vec![why]);
    if let Some(path) = &args.secret_file {
        return settings::secret_file(path).map_err(usage);
    }
    let from_environment = || env::var("WEBHOOK_SECRET").ok().filter(|text| !text.is_empty());
    match args.secret.clone().or_else(from_environment) {
        Some(text) => Ok(vec![
            Secret::new(text).ok_or_else(|| usage("--secret is empty".into()))?,
        ]),
        None => Ok(Vec::new()),
    }
}

async fn listen(address: SocketAddr, bench: Bench) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind(address).await?;
    announce(listener.local_addr()?);
    if bench.secrets.is_empty() {
        show("no secret is given: signatures are not checked\n");
    }
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    http::serve(
        listener,
        Router::new().fallback(take).with_state(Arc::new(bench)),
        stop,
    )
    .await;
    Ok(())
}

async fn take(
    State(bench): State<Arc<Bench>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "POST events here, on any path");
    }
    let what = format!("{} {} from {peer}", head.method, plain(&head.uri.to_string()));
    let answer = match http::whole_body(body, &bench.room).await {
        Ok(body) => {
            let (text, answer) = bench.judge(&what, &head.headers, &body.bytes);
            show(&text);
            answer
        }
        Err(answer) => {
            show(&format!(
                "{what}: its body broke off, took too long or is too large\n"
            ));
            *answer
        }
    };
    sleep(bench.delay).await;
    bench.misbehave(answer)
}

impl Bench {
    /// What is printed of a request, and the answer to it.
    fn judge(&self, what: &str, headers: &HeaderMap, body: &[u8]) -> (String, Response) {
        let mut text = format!("{} {} bytes\n", self.paint(BOLD, what), body.len());
        let good = self.check_origin(signed(headers, body), &mut text);
        let events = self.check_body(body, &mut text);
        let answer = match (good, events) {
            (false, _) => problem(StatusCode::UNAUTHORIZED, "Invalid signature"),
            (true, Ok(count)) => {
                Json(json!({"status": "success", "processed_events": count})).into_response()
            }
            (true, Err(why)) => problem(StatusCode::BAD_REQUEST, &why),
        };
        let verdict = match (self.drop, self.fail) {
            (true, _) => "hanging up, as told".to_owned(),
            (_, Some(status)) => format!("answering {}, as told", status.as_u16()),
            _ => format!("answering {}", answer.status().as_u16()),
        };
        text += &format!("  {verdict}\n");
        (text, answer)
    }

    /// Both signatures and the time, each on its own, so that all that is wrong is seen at once.
    fn check_origin(&self, request: Signed<'_>, text: &mut String) -> bool {
        let now = unix_seconds();
        let date = signature::check_date(request.timestamp, now);
        let mut good = date.is_ok();
        self.say(text, TIMESTAMP, date.map_err(|why| why.to_string()));
        if self.secrets.is_empty() {
            return true;
        }
        if request.v1.is_none() && request.v2.is_none() {
            good = false;
            self.say(text, SIGNATURE, Err(Refusal::Unsigned.to_string()));
        }
        let alone = [
            (SIGNATURE, Signed { v2: None, ..request }, request.v1),
            (SIGNATURE_V2, Signed { v1: None, ..request }, request.v2),
        ];
        for (name, request, _) in alone.into_iter().filter(|(_, _, given)| given.is_some()) {
            let fits = match signature::verify(request, &self.secrets, now) {
                // Of the time it was said already.
                Ok(_) | Err(Refusal::Undated | Refusal::Date | Refusal::Stale { .. }) => Ok(()),
                Err(why) => Err(why.to_string()),
            };
            good &= fits.is_ok();
            self.say(text, name, fits);
        }
        good
    }

    /// Each event on a line, with what a receiver would miss in it. How many there are, or why it cannot be read.
    fn check_body(&self, body: &[u8], text: &mut String) -> Result<usize, String> {
        let events = match crate::intake::read(body) {
            Ok(events) => events,
            Err(why) => {
                *text += &format!("  {} {}\n", self.paint(RED, "wrong"), plain(&why.to_string()));
                return Err(why.to_string());
            }
        };
        for event in &events {
            let known = event.event_type.parse::<EventType>().ok();
            let colour = known.map_or(YELLOW, |kind| colour_of(kind.severity()));
            let of = |key: &str| {
                event
                    .whole
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or("?")
                    .to_owned()
            };
            let kind = self.paint(colour, &plain(&event.event_type));
            let data = event.whole.get("data").unwrap_or(&Value::Null);
            *text += &format!("  {} {kind} {}\n", plain(&of("timestamp")), summary(data));
            for fault in faults(&event.whole, known) {
                *text += &format!("    {} {fault}\n", self.paint(YELLOW, "note"));
            }
        }
        Ok(events.len())
    }

    fn say(&self, text: &mut String, what: &str, holds: Result<(), String>) {
        *text += &match holds {
            Ok(()) => format!("  {} {what}\n", self.paint(GREEN, "good")),
            Err(why) => format!("  {} {}\n", self.paint(RED, "wrong"), plain(&why)),
        };
    }

    fn misbehave(&self, answer: Response) -> Response {
        if self.drop {
            let mut answer = answer;
            answer.extensions_mut().insert(HangUp);
            return answer;
        }
        match self.fail {
            Some(status) => (status, Body::empty()).into_response(),
            None => answer,
        }
    }

    fn paint(&self, colour: u8, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// What is missing in an event, by the documented wire.
fn faults(event: &serde_json::Map<String, Value>, known: Option<EventType>) -> Vec<String> {
    let mut faults: Vec<String> = ["id", "timestamp", "version", "source", "data"]
        .into_iter()
        .filter(|key| !event.contains_key(*key))
        .map(|key| format!("has no \"{key}\""))
        .collect();
    match known {
        None => {
            faults.push("is not an event that this version knows; receivers store it all the same".into())
        }
        Some(kind) => {
            let data = event.get("data").unwrap_or(&Value::Null);
            let missing: Vec<&str> = kind
                .data_keys()
                .iter()
                .copied()
                .filter(|key| data.get(*key).is_none())
                .collect();
            if !missing.is_empty() {
                faults.push(format!("its data has no {}", missing.join(", ")));
            }
        }
    }
    faults
}

fn colour_of(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => RED,
        Severity::Error => YELLOW,
        Severity::Informational => GREEN,
    }
}

/// A reader that went away (`| head`) is no reason to stop answering.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

// Of a terminal (ECMA-48, SGR).
const BOLD: u8 = 1;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> Bench {
        let secrets = Secret::new("key").into_iter().collect();
        Bench {
            secrets,
            fail: None,
            delay: Duration::ZERO,
            drop: false,
            colour: false,
            room: Room::new(),
        }
    }

    fn judged(headers: &[(&'static str, &str)], body: &str) -> (String, u16) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase().parse().unwrap(), value.parse().unwrap()));
        let (text, answer) = bench().judge("POST / from x", &headers.collect(), body.as_bytes());
        (text, answer.status().as_u16())
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = signature::sign_v1(b"other", &Secret::new("key").unwrap());
        let (text, status) = judged(
            &[(SIGNATURE, &wrong), (SIGNATURE_V2, "x"), (TIMESTAMP, "17")],
            "{\"events\": 1}",
        );
        assert_eq!(status, 401);
        assert_eq!(text.matches("  wrong ").count(), 4, "{text}");
        let (text, status) = judged(&[], "{\"event_type\":\"\\u001b[2J\"}");
        assert_eq!(status, 401);
        assert!(
            text.contains("X-Firewall-Timestamp is missing") && text.contains("it is not signed"),
            "{text}"
        );
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn a_good_request_is_called_good() {
        let body = "{\"events\":[{\"event_type\":\"ip_blocked\",\"data\":{\"ip\":\"203.0.113.9\"}}]}";
        let (now, key) = (unix_seconds(), Secret::new("key").unwrap());
        let v1 = signature::sign_v1(body.as_bytes(), &key);
        let v2 = signature::sign_v2(now, body.as_bytes(), &key);
        let (text, status) = judged(
            &[
                (SIGNATURE, &v1),
                (SIGNATURE_V2, &v2),
                (TIMESTAMP, &now.to_string()),
            ],
            body,
        );
        assert_eq!((status, text.matches("  good ").count()), (200, 3), "{text}");
        assert!(text.contains("ip_blocked ip=203.0.113.9\n"), "{text}");
        assert!(text.contains("its data has no reason, action"), "{text}");
    }
}
