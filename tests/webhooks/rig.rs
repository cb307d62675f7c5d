//! A receiver that answers as it is told and remembers what it got, and a config that leads to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use verdictd::webhook::config::WebhookConfig;
use verdictd::webhook::event::{self, Now};
use verdictd::webhook::status::{EndpointStatus, Status};
use verdictd::webhook::wire::{Event, EventType};
use verdictd::webhook::{Outbox, Webhooks};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn events(&self) -> Vec<Value> {
        let batch: Value = serde_json::from_slice(&self.body).unwrap();
        let events = batch["events"].as_array().unwrap().clone();
        assert_eq!(batch["batch_size"], events.len());
        events
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
        self.events().iter().map(id).collect()
    }
}

/// Reads one request; `None` if the peer hung up.
pub(crate) fn read_request(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.trim_end().to_owned());
        }
        line.clear();
    }
    let length = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let at = Instant::now();
    Some(Request { at, headers, body })
}

/// What is answered to the request of this number, from 0: the whole answer.
type Answer = dyn Fn(usize, &Request) -> String + Send + Sync;

/// A receiver on a port of its own.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    pub(crate) fn start(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Receiver {
        Receiver::judging(move |number, _| answer(number))
    }

    /// One that looks at what it gets.
    pub(crate) fn judging(answer: impl Fn(usize, &Request) -> String + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Receiver {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
        };
        let (got, answer): (_, Arc<Answer>) = (Arc::clone(&receiver.got), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (got, answer) = (Arc::clone(&got), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &got, &*answer));
            }
        });
        receiver
    }

    pub(crate) fn fine() -> Receiver {
        Receiver::start(|_| ok())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.got.lock().unwrap().clone()
    }

    /// Ids of everything that came, in order, also what came twice.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.requests().iter().flat_map(Request::ids).collect()
    }
}

fn serve(mut stream: TcpStream, got: &Mutex<Vec<Request>>, answer: &Answer) {
    if let Some(request) = read_request(&stream) {
        let number = {
            let mut got = got.lock().unwrap();
            got.push(request.clone());
            got.len() - 1
        };
        let _ = stream.write_all(answer(number, &request).as_bytes());
    }
}

pub(crate) fn ok() -> String {
    answer("200 OK", "")
}

pub(crate) fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\nconnection: close\r\n\r\n{{}}")
}

/// A config of `[webhooks]` with `more` keys and these endpoints: name, address and more keys of each.
pub(crate) fn config(more: &str, endpoints: &[(&str, &str, &str)]) -> WebhookConfig {
    let mut text = format!("[webhooks]\nenabled = true\n{more}\n");
    for (name, url, keys) in endpoints {
        text += &format!("[[webhooks.endpoints]]\nname = {name:?}\nurl = {url:?}\n{keys}\n");
    }
    let config = verdictd::config::parse(&text, std::path::Path::new("f.toml"));
    config.unwrap_or_else(|error| panic!("{error}")).webhooks
}

/// As [`config`], of one endpoint.
pub(crate) fn to(receiver: &Receiver, more: &str, keys: &str) -> WebhookConfig {
    config(
        more,
        &[("soc", &format!("http://{}/hook", receiver.address), keys)],
    )
}

/// A made-up event with its number in it.
pub(crate) fn numbered(kind: EventType, n: usize) -> Event {
    let mut event = event::sample(kind, Now::read());
    event.data.insert("n".into(), n.into());
    event
}

/// Hands over `count` events of this kind; their ids.
pub(crate) fn publish(outbox: &Outbox, kind: EventType, count: usize) -> Vec<String> {
    let one = |n| {
        let event = numbered(kind, n);
        let id = event.id.clone();
        outbox.publish(event);
        id
    };
    (0..count).map(one).collect()
}

/// Waits until `done` says so, or fails with what it looks like then.
#[track_caller]
pub(crate) fn until(limit: u64, webhooks: &Webhooks, what: &str, done: impl Fn(&Status) -> bool) -> Status {
    let end = Instant::now() + Duration::from_secs(limit);
    loop {
        let status = webhooks.status();
        if done(&status) {
            return status;
        }
        assert!(Instant::now() < end, "not within {limit} s: {what}: {status:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn of<'s>(status: &'s Status, name: &str) -> &'s EndpointStatus {
    status
        .endpoints
        .iter()
        .find(|endpoint| endpoint.name == name)
        .unwrap()
}

/// The usual settings of tests that should not take long.
pub(crate) const QUICK: &str = "retry_delay = 1\nbatch_timeout = 1\nrate_limit = 1000000\ntimeout = 2";
