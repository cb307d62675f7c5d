//! `test-server`: what it prints, what it answers, how it misbehaves.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::rig::{KEY, Post, Receiver, event, run, send};

struct Bench {
    _folder: TempDir,
    server: Receiver,
}

fn start(args: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, KEY).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdict-receiver"));
    command
        .args(["test-server", "--port", "0", "--secret-file"])
        .arg(secret)
        .args(args);
    let server = Receiver::start(&mut command, &folder.path().join("stderr"));
    Bench {
        _folder: folder,
        server,
    }
}

impl Bench {
    fn post(&mut self, request: &Post, path: &str) -> (u16, String) {
        let status = send(self.server.address, &request.bytes(path)).status;
        let mut text = String::new();
        while !text.contains("  answering") && !text.contains("  hanging up") {
            assert!(self.server.stdout.read_line(&mut text).unwrap() > 0, "{text}");
        }
        (status, text)
    }
}

#[test]
fn it_shows_events_and_says_what_is_wrong() {
    let mut bench = start(&[]);
    let hostile = event(
        "a",
        "ip_blocked",
        json!({"ip": "203.0.113.9", "reason": "\u{1b}[2Jx", "block_count": 1}),
    );
    let good = Post::events(&[hostile]);
    let (status, text) = bench.post(&good, "/any/path?x=1");
    assert_eq!(status, 200);
    assert!(text.starts_with("POST /any/path?x=1 from 127.0.0.1:"), "{text}");
    assert!(
        text.contains("ip_blocked ip=203.0.113.9 reason=\\u{1b}[2Jx block_count=1"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text:?}");
    let (status, text) = bench.post(
        &Post {
            v1: Some("sha256=00".into()),
            ..good.clone()
        },
        "/",
    );
    assert_eq!(status, 401);
    assert!(
        text.contains("wrong X-Firewall-Signature is not \"sha256=\" and 64"),
        "{text}"
    );
    assert!(
        text.contains("good X-Firewall-Signature-V2") && text.contains("good X-Firewall-Timestamp"),
        "{text}"
    );
    let (status, text) = bench.post(&Post::signed(good.body.clone(), KEY, 1_000), "/");
    assert_eq!(status, 401);
    assert!(text.contains("s behind this clock, more than 300"), "{text}");
    let (status, text) = bench.post(&Post::of("[1"), "/");
    assert_eq!(status, 400);
    assert!(text.contains("wrong Invalid JSON"), "{text}");
    assert_eq!(bench.server.get("/").status, 405);
    assert_eq!(bench.server.stop(), Some(0));
}

#[test]
fn it_misbehaves_as_told() {
    let good = Post::events(&[event("a", "x", json!({}))]);
    assert_eq!(start(&["--fail", "503"]).post(&good, "/").0, 503);
    assert_eq!(start(&["--drop"]).post(&good, "/").0, 0);
    let begun = Instant::now();
    assert_eq!(start(&["--delay", "700ms"]).post(&good, "/").0, 200);
    assert!(begun.elapsed() >= Duration::from_millis(700));
}

#[test]
fn curl_and_openssl_are_enough_to_try_it() {
    let bench = start(&[]);
    let script = r#"
        body='{"events":[{"event_type":"ip_blocked","data":{"ip":"203.0.113.9"}}]}'
        signature=$(printf %s "$body" | openssl dgst -sha256 -hmac "$1" | sed 's/^.* //')
        curl --silent --data "$body" --header "X-Firewall-Signature: sha256=$signature" \
            --header "X-Firewall-Timestamp: $(date +%s)" "$2""#;
    let url = format!("http://{}/", bench.server.address);
    let (text, _) = run(Command::new("sh").args(["-c", script, "sh", KEY, &url]));
    assert_eq!(text, r#"{"processed_events":1,"status":"success"}"#);
}

#[test]
fn a_secret_file_that_everybody_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, KEY).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let program = env!("CARGO_BIN_EXE_verdict-receiver");
    let (text, code) = run(Command::new(program)
        .args(["test-server", "--secret-file"])
        .arg(&secret));
    assert_eq!(code, 2);
    assert!(
        text.contains("everybody may read it") && !text.contains(KEY),
        "{text}"
    );
}
