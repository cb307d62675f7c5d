//! FAULTS 36: eight peers that misbehave, beside one that does not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use verdictd::webhook::Webhooks;
use verdictd::webhook::wire::EventType;

use crate::rig::{QUICK, Receiver, answer, config, of, publish, read_request, until};

/// A peer that reads the request and then does `act`; its port.
fn peer(act: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = act.clone();
            thread::spawn(move || {
                read_request(&stream);
                act(stream);
            });
        }
    });
    port
}

fn drip(mut stream: TcpStream) {
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".iter().cycle() {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Counts as taken by its status; what follows is not waited for.
fn endless(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n");
    while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
}

fn reset(stream: TcpStream) {
    // Closing with a zero linger sends RST; std has no word for it, and unread bytes do the same.
    drop(stream);
}

fn long_head(mut stream: TcpStream) {
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
        let folder = tempfile::tempdir().unwrap();
        let (key, cert) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-days",
                "2",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&cert)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "openssl s_server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        BadCertificate {
            port,
            server,
            _folder: folder,
        }
    }
}

impl Drop for BadCertificate {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// VmRSS of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn eight_bad_peers_delay_nobody_else_and_cost_little() {
    let good = Receiver::fine();
    let elsewhere = Receiver::fine();
    let redirected = elsewhere.address;
    let silent = peer(|mut stream| drop(stream.read(&mut [0; 1])));
    let storm = Receiver::start(|_| answer("503 Service Unavailable", ""));
    let redirect =
        Receiver::start(move |_| answer("302 Found", &format!("location: http://{redirected}/\r\n")));
    let tls = BadCertificate::start();
    let url = |port: u16| format!("http://127.0.0.1:{port}/");
    let urls = [
        ("good", url(good.address.port())),
        ("silent", url(silent)),
        ("drip", url(peer(drip))),
        ("endless", url(peer(endless))),
        ("reset", url(peer(reset))),
        ("storm", url(storm.address.port())),
        ("long head", url(peer(long_head))),
        ("redirect", url(redirect.address.port())),
        ("tls", format!("https://127.0.0.1:{}/", tls.port)),
    ];
    let endpoints: Vec<_> = urls.iter().map(|(name, url)| (*name, url.as_str(), "")).collect();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&format!("{QUICK}\nspool_max_bytes = 1048576"), &endpoints);
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let before = memory();
    let mut sent = Vec::new();
    for _ in 0..30 {
        let told = Instant::now();
        sent.extend(publish(&outbox, EventType::IpBlocked, 100));
        assert!(
            told.elapsed() < Duration::from_millis(500),
            "{:?}",
            told.elapsed()
        );
        let status = until(2, &webhooks, "the good one gets everything", |status| {
            of(status, "good").delivered == sent.len() as u64
        });
        assert!(status.spool_bytes <= 1 << 20);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(good.ids(), sent);
    let status = until(20, &webhooks, "each bad one was noticed", |status| {
        let bad = status
            .endpoints
            .iter()
            .filter(|endpoint| !["good", "endless"].contains(&endpoint.name.as_str()));
        bad.into_iter().all(|endpoint| endpoint.failed > 0)
    });
    assert!(memory() < before + 32 * 1024, "{before} {}", memory());
    assert!(elsewhere.requests().is_empty(), "a redirect was followed");
    for (name, said) in [
        ("silent", "no answer within 2 s"),
        ("drip", "no answer within 2 s"),
        ("reset", ""),
        ("storm", "it answers 503 Service Unavailable"),
        ("long head", "the head of its answer is longer than 16 KiB"),
        ("redirect", "it answers 302 Found, and redirects are not followed"),
        ("tls", "invalid peer certificate"),
    ] {
        let endpoint = of(&status, name);
        let error = endpoint.last_error.as_deref().unwrap();
        assert!(error.contains(said), "{name}: {error}");
        assert_eq!(
            (endpoint.delivered, endpoint.success_rate()),
            (0, Some(0.0)),
            "{name}"
        );
        assert!(
            endpoint.waiting > 0 && endpoint.waiting + endpoint.dropped == 3_000,
            "{endpoint:?}"
        );
    }
    let ended = Instant::now();
    webhooks.stop(ended + Duration::from_secs(3));
    assert!(ended.elapsed() < Duration::from_secs(4), "{:?}", ended.elapsed());
}
