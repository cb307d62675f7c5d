//! Where webhooks are sent to: a receiver that takes everything, and eight that misbehave.
//!
//! All listen on loopback of the network namespace of the thread that starts them, on ports of their own, until the
//! test program ends: nobody can close a listener that somebody waits on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use super::{secs, within};

/// All of a request, and its body alone.
pub(crate) fn read_request(stream: &TcpStream) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    stream.set_read_timeout(Some(secs(20)))?;
    let (mut reader, mut request, mut length) = (BufReader::new(stream), Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        request.extend_from_slice(line.as_bytes());
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.extend_from_slice(&body);
    Ok((request, body))
}

/// The events of a request's body.
pub(crate) fn events_of(body: &[u8]) -> Vec<Value> {
    let batch: Value = serde_json::from_slice(body).unwrap_or_default();
    batch["events"].as_array().cloned().unwrap_or_default()
}

/// Listens, and does `act` with each peer on a thread of its own once its request is read. These threads stand for other
/// machines: what they need of this one's processors comes after everything else.
fn listen(act: impl Fn(TcpStream, &[u8]) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let act = Arc::new(act);
    thread::spawn(move || {
        let _ = rustix::process::nice(10);
        for stream in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            thread::spawn(move || {
                if let Ok((_, body)) = read_request(&stream) {
                    act(stream, &body);
                }
            });
        }
    });
    address
}

/// Takes everything at once, and remembers when; of attempts, which are many, nothing.
pub(crate) struct Good {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<(SystemTime, Value)>>>,
}

impl Good {
    pub(crate) fn start() -> Good {
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&taken);
        let address = listen(move |mut stream, body| {
            let now = SystemTime::now();
            let events = events_of(body).into_iter();
            let events = events.filter(|event| event["event_type"] != "connection_attempt");
            let events = events.map(|event| (now, event));
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
            let _ = stream.write_all(answer("200 OK", "").as_bytes());
        });
        Good { address, taken }
    }

    /// Events of this type with the time of their arrival, in its order.
    pub(crate) fn heard(&self, kind: &str) -> Vec<(SystemTime, Value)> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken
            .iter()
            .filter(|(_, event)| event["event_type"] == kind)
            .cloned()
            .collect()
    }
}

/// Receivers that misbehave.
pub(crate) struct BadPeers {
    /// What each does, in a word, and where it is.
    pub(crate) urls: Vec<(&'static str, String)>,
    followed: Arc<AtomicUsize>,
    _tls: BadCertificate,
}

impl BadPeers {
    pub(crate) fn start() -> BadPeers {
        let followed = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&followed);
        let elsewhere = listen(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let away = answer("302 Found", &format!("location: http://{elsewhere}/\r\n"));
        let tls = BadCertificate::start();
        let peers = [
            ("silent", listen(|mut stream, _| drop(stream.read(&mut [0; 1])))),
            ("drip", listen(drip)),
            ("endless", listen(endless)),
            ("reset", listen(reset)),
            (
                "storm",
                listen(|stream, _| say(stream, &answer("503 Service Unavailable", ""))),
            ),
            ("long head", listen(long_head)),
            ("redirect", listen(move |stream, _| say(stream, &away))),
        ];
        let mut urls: Vec<_> = peers
            .map(|(name, address)| (name, format!("http://{address}/")))
            .into();
        urls.push(("tls", format!("https://127.0.0.1:{}/", tls.port)));
        BadPeers {
            urls,
            followed,
            _tls: tls,
        }
    }

    /// How many redirects were followed.
    pub(crate) fn followed(&self) -> usize {
        self.followed.load(Ordering::Relaxed)
    }
}

fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\nconnection: close\r\n\r\n{{}}")
}

fn say(mut stream: TcpStream, answer: &str) {
    let _ = stream.write_all(answer.as_bytes());
}

fn drip(mut stream: TcpStream, _: &[u8]) {
    for byte in answer("200 OK", "").as_bytes().iter().cycle() {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Counts as taken by its status; what follows is not waited for.
fn endless(mut stream: TcpStream, _: &[u8]) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n");
    while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
}

fn reset(stream: TcpStream, _: &[u8]) {
    // Time zero: the connection is not closed but cut, by a RST.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

/// Ten megabytes of it.
fn long_head(mut stream: TcpStream, _: &[u8]) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
    for _ in 0..160 {
        if stream.write_all(&[b'x'; 1 << 16]).is_err() {
            return;
        }
    }
}

/// A TLS server whose certificate nobody vouches for.
struct BadCertificate {
    port: u16,
    server: Child,
    _folder: TempDir,
}

impl BadCertificate {
    fn start() -> BadCertificate {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [key, cert] = ["key.pem", "cert.pem"].map(|name| folder.path().join(name));
        let mut made = Command::new("openssl");
        made.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
                .split(' '),
        )
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert);
        let made = made.stderr(Stdio::null()).status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "openssl makes no certificate"
        );
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-key"]);
        server.arg(&key).arg("-cert").arg(&cert);
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = server
            .spawn()
            .expect("openssl (sudo make test installs what is missing)");
        let tls = BadCertificate {
            port,
            server,
            _folder: folder,
        };
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(within(secs(10), listens), "openssl s_server does not listen");
        tls
    }
}

impl Drop for BadCertificate {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
