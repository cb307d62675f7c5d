//! The built receiver on a free port of loopback, a hand-made HTTP client, and stand-ins for Slack and a mail server.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;
use verdictd::webhook::signature::{Secret, sign_v1, sign_v2};

pub(crate) const KEY: &str = "hunter2-the-webhook-secret";

/// A running `verdict-receiver`; killed when dropped.
pub(crate) struct Receiver {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) stdout: BufReader<ChildStdout>,
    /// Its standard error.
    pub(crate) err: PathBuf,
    /// Where its database is: removed after it.
    #[allow(dead_code, reason = "kept, not read")]
    kept_folder: Option<Arc<TempDir>>,
}

impl Receiver {
    /// Starts the program and waits until it listens.
    pub(crate) fn start(command: &mut Command, err: &Path) -> Receiver {
        let file = fs::File::options().create(true).append(true).open(err).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|text| text.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            panic!("{command:?}: \"{line}\" {}", fs::read_to_string(err).unwrap());
        };
        Receiver {
            child,
            address,
            stdout,
            err: err.to_owned(),
            kept_folder: None,
        }
    }

    pub(crate) fn post(&self, request: &Post) -> Answer {
        send(self.address, &request.bytes("/webhook"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// `headers`: whole lines, each with its CRLF.
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Answer {
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        send(self.address, text.as_bytes())
    }

    /// How many events are stored, by its own word.
    pub(crate) fn stored(&self) -> u64 {
        let counts = self.get("/stats").json()["event_counts"].clone();
        counts
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Tells it to stop; its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let child = &mut self.child;
        assert!(within(20, || child.try_wait().unwrap().is_some()), "did not stop");
        self.child.wait().unwrap().code()
    }

    /// The most memory that it ever had.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a database, and how `serve` is started on it.
pub(crate) struct Site {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Site {
    pub(crate) fn new() -> Site {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let site = Site {
            folder,
            variables: Vec::new(),
        };
        let database = site.database().to_str().unwrap().to_owned();
        site.with("WEBHOOK_SECRET", KEY).with("DATABASE_PATH", &database)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Site {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("events.db")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdict-receiver"));
        command
            .args(["serve", "--bind", "127.0.0.1:0"])
            .env_clear()
            .envs(self.variables.iter().cloned());
        command
    }

    pub(crate) fn start(&self) -> Receiver {
        let mut receiver = Receiver::start(&mut self.command(), &self.path("stderr"));
        receiver.kept_folder = Some(Arc::clone(&self.folder));
        receiver
    }
}

/// A request as a sender makes it, each part to be spoilt.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) v1: Option<String>,
    pub(crate) v2: Option<String>,
    pub(crate) timestamp: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Post {
    /// Signed with `key` at `timestamp`.
    pub(crate) fn signed(body: impl Into<Vec<u8>>, key: &str, timestamp: u64) -> Post {
        let (body, secret) = (body.into(), Secret::new(key).unwrap());
        Post {
            v1: Some(sign_v1(&body, &secret)),
            v2: Some(sign_v2(timestamp, &body, &secret)),
            timestamp: Some(timestamp.to_string()),
            body,
        }
    }

    /// Well signed, now.
    pub(crate) fn of(body: impl Into<Vec<u8>>) -> Post {
        Post::signed(body, KEY, unix_seconds())
    }

    pub(crate) fn events(events: &[Value]) -> Post {
        let batch =
            json!({"events": events, "batch_size": events.len(), "timestamp": "2026-03-01T12:00:00Z"});
        Post::of(batch.to_string())
    }

    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut text = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.body.len()
        );
        let headers = [
            ("X-Firewall-Signature", &self.v1),
            ("X-Firewall-Signature-V2", &self.v2),
            ("X-Firewall-Timestamp", &self.timestamp),
        ];
        for (name, value) in headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        {
            text += &format!("{name}: {value}\r\n");
        }
        text += "Content-Type: application/json\r\nUser-Agent: Firewall-Webhook/1.0\r\n\r\n";
        [text.as_bytes(), &self.body].concat()
    }
}

/// What came back; status 0 if nothing did.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // Who refuses a body may close before all of it is sent.
    let _ = stream.write_all(bytes);
    read_answer(&mut stream)
}

pub(crate) fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) fn event(id: &str, kind: &str, data: Value) -> Value {
    json!({"id": id, "timestamp": "2026-03-01T12:00:00Z", "event_type": kind, "version": "1.0", "source": "firewall", "data": data})
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Asks again every 20 ms; whether the answer was yes within `seconds`.
pub(crate) fn within(seconds: u64, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    holds()
}

/// Runs a program to its end; what it wrote, both streams, and its exit code.
pub(crate) fn run(command: &mut Command) -> (String, i32) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e} (sudo make test installs what is missing)"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code().unwrap_or(-1))
}

/// Takes what is posted, as Slack does; answers with the statuses it was given, then 200.
pub(crate) struct FakeSlack {
    pub(crate) address: SocketAddr,
    pub(crate) messages: Arc<Mutex<Vec<String>>>,
}

impl FakeSlack {
    /// Refuses so many, then takes everything.
    pub(crate) fn start(refusals: usize) -> FakeSlack {
        FakeSlack::refusing(refusals, "500 No")
    }

    /// Takes nothing; `status` may have further headers behind it.
    pub(crate) fn answering(status: &str) -> FakeSlack {
        FakeSlack::refusing(usize::MAX, status)
    }

    fn refusing(refusals: usize, status: &str) -> FakeSlack {
        let refusal = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let messages = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&messages);
        thread::spawn(move || {
            for (at, stream) in listener.incoming().enumerate() {
                let mut stream = BufReader::new(stream.unwrap());
                let body = read_body(&mut stream);
                if at < refusals {
                    let _ = stream.get_mut().write_all(refusal.as_bytes());
                } else {
                    let text: Value = serde_json::from_slice(&body).unwrap();
                    kept.lock()
                        .unwrap()
                        .push(text["text"].as_str().unwrap().to_owned());
                    let _ = stream
                        .get_mut()
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                }
            }
        });
        FakeSlack { address, messages }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/services/T0/B0/hunter2-the-slack-path", self.address)
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }
}

fn read_body(stream: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            return body;
        }
    }
}

/// aiosmtpd in a process of its own; killed when dropped.
pub(crate) struct MailServer {
    child: Child,
    pub(crate) port: u16,
    kept: PathBuf,
}

impl MailServer {
    /// `login`: certificate, key, user and password; without it neither TLS nor a login is offered.
    pub(crate) fn start(folder: &Path, login: &[&str]) -> MailServer {
        let kept = folder.join("mail");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receiver/smtp.py");
        // Debian's own Python: that is where packaging/deps.sh puts aiosmtpd.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(&kept).args(login).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .expect("python3 (sudo make test installs what is missing)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .trim()
            .parse()
            .expect("python3-aiosmtpd is missing: sudo make test installs it");
        MailServer { child, port, kept }
    }

    pub(crate) fn messages(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.kept).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
