//! The built `verdict-receiver` on real sockets and a real database: what it takes, what it refuses, what it keeps.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

mod alerts;
mod endurance;
mod hostile;
mod reading;
mod rig;
mod test_server;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use verdictd::webhook::signature::{Secret, sign_v1, sign_v2};

use self::rig::{KEY, Post, Site, event, run, send, unix_seconds};

const REFUSED: &str = r#"{"error":"Invalid signature"}"#;

#[test]
fn openssl_and_python_agree_with_our_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let body = "{\"events\":[],\"batch_size\":0,\"note\":\"ä\"}";
    let (plain, dated) = (folder.path().join("body"), folder.path().join("dated"));
    fs::write(&plain, body).unwrap();
    fs::write(&dated, format!("1780000000.{body}")).unwrap();
    let secret = Secret::new(KEY).unwrap();
    let ours = [
        sign_v1(body.as_bytes(), &secret),
        sign_v2(1_780_000_000u64, body.as_bytes(), &secret),
    ];
    for (path, ours) in [plain, dated].iter().zip(&ours) {
        let (text, _) = run(Command::new("openssl")
            .args(["dgst", "-sha256", "-hmac", KEY])
            .arg(path));
        assert_eq!(
            text.trim()
                .rsplit(' ')
                .next()
                .map(|hex| format!("sha256={hex}"))
                .as_ref(),
            Some(ours)
        );
        // As the Python system's documentation verifies.
        let python = "import hmac, hashlib, sys\npayload = open(sys.argv[1]).read()\n\
            expected = hmac.new(sys.argv[2].encode(), payload.encode(), hashlib.sha256).hexdigest()\n\
            print(hmac.compare_digest(f'sha256={expected}', sys.argv[3]))";
        let (text, _) = run(Command::new("/usr/bin/python3")
            .args(["-c", python])
            .arg(path)
            .args([KEY, ours]));
        assert_eq!(text, "True\n");
    }
    let receiver = Site::new().start();
    assert_eq!(
        receiver.post(&Post::of(body)).json(),
        json!({"status": "success", "processed_events": 0})
    );
}

#[test]
fn a_request_that_is_not_what_it_says_is_refused() {
    let site = Site::new().with("WEBHOOK_SECRET_PREVIOUS", "the-older-one");
    let receiver = site.start();
    let body = json!({"events": [event("a", "ip_blocked", json!({"ip": "203.0.113.9"}))]}).to_string();
    let now = unix_seconds();
    let good = Post::of(&*body);
    let other = Post::signed(&*body, "another", now);
    let refused = [
        Post {
            v1: None,
            v2: None,
            ..good.clone()
        },
        Post {
            v1: other.v1.clone(),
            ..good.clone()
        },
        Post {
            v2: other.v2.clone(),
            ..good.clone()
        },
        Post {
            v1: Some("sha256=ä\u{1}".into()),
            ..good.clone()
        },
        Post {
            timestamp: None,
            ..good.clone()
        },
        Post {
            timestamp: None,
            v2: None,
            ..good.clone()
        },
        Post {
            timestamp: Some((now + 1).to_string()),
            ..good.clone()
        },
        Post {
            timestamp: Some("soon".into()),
            v2: None,
            ..good.clone()
        },
        Post {
            body: body.replace("113.9", "113.8").into(),
            ..good.clone()
        },
        Post::signed(&*body, KEY, now - 310),
        Post {
            v2: None,
            ..Post::signed(&*body, KEY, now - 310)
        },
        Post::signed(&*body, KEY, now + 310),
        other,
    ];
    for (at, post) in refused.iter().enumerate() {
        let answer = receiver.post(post);
        // A byte that no header may hold ends the talk before anybody looks at a signature.
        let expected = if at == 3 { (400, "") } else { (401, REFUSED) };
        assert_eq!((answer.status, &*answer.body), expected, "{at}");
    }
    assert_eq!(receiver.stored(), 0);
    let accepted = [
        Post {
            v2: None,
            ..good.clone()
        },
        Post {
            v2: None,
            ..Post::signed(&*body, KEY, now - 280)
        },
        Post {
            v1: None,
            ..good.clone()
        },
        Post::signed(&*body, "the-older-one", now),
        good.clone(),
        good,
    ];
    for (at, post) in accepted.iter().enumerate() {
        let answer = receiver.post(post);
        assert_eq!(
            answer.body, r#"{"processed_events":1,"status":"success"}"#,
            "{at}"
        );
    }
    assert_eq!(receiver.stored(), 1);
    let log = receiver.log();
    assert!(
        log.contains("signed with an older secret") && log.contains("is not signed"),
        "{log}"
    );
    assert!(!log.contains(KEY) && !log.contains("the-older-one"), "{log}");
}

#[test]
fn a_header_that_is_there_twice_fits_nothing() {
    let receiver = Site::new().start();
    let post = Post::of("{\"events\":[]}");
    assert_eq!(receiver.post(&post).status, 200);
    let text = String::from_utf8(post.bytes("/webhook")).unwrap();
    for name in [
        "X-Firewall-Signature",
        "X-Firewall-Signature-V2",
        "X-Firewall-Timestamp",
    ] {
        let second = format!(
            "Content-Type: x\r\n{name}: {}\r\n",
            "sha256=".to_owned() + &"0".repeat(64)
        );
        let twice = text.replace("Content-Type: application/json\r\n", &second);
        assert_eq!(send(receiver.address, twice.as_bytes()).body, REFUSED, "{name}");
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap();
        let twice = text.replace(line, &format!("{line}\r\n{line}"));
        assert_eq!(send(receiver.address, twice.as_bytes()).body, REFUSED, "{name}");
    }
}

#[test]
fn a_recorded_request_under_a_new_timestamp_is_known_or_refused() {
    let then = Post::signed(
        json!({"events": [event("a", "x", json!({}))]}).to_string(),
        KEY,
        unix_seconds() - 1_000,
    );
    let again = Post {
        v2: None,
        timestamp: Some(unix_seconds().to_string()),
        ..then
    };
    let strict = Site::new().with("REQUIRE_V2", "true").start();
    assert_eq!(strict.post(&again).body, REFUSED);
    assert!(
        strict
            .log()
            .contains("X-Firewall-Signature-V2 is missing, and require_v2 asks for it")
    );
    assert_eq!(strict.post(&Post::events(&many(1, "x", "a"))).status, 200);
    let lenient = Site::new().start();
    for _ in 0..3 {
        assert_eq!(lenient.post(&again).status, 200);
    }
    assert_eq!(lenient.stored(), 1);
}

#[test]
fn what_no_sender_sends_is_refused_and_hurts_nobody() {
    let receiver = Site::new().start();
    let bad: [(&str, Vec<u8>, u16); 6] = [
        (
            "deep",
            [b"{\"events\":".to_vec(), vec![b'['; 1_000_000]].concat(),
            400,
        ),
        (
            "not UTF-8",
            b"{\"events\":[{\"event_type\":\"\xff\xfe\"}]}".to_vec(),
            400,
        ),
        ("no JSON", b"events".to_vec(), 400),
        ("no events", b"{\"hello\":1}".to_vec(), 400),
        (
            "one event bad",
            b"{\"events\":[{\"event_type\":\"x\"},{}]}".to_vec(),
            400,
        ),
        ("too large", vec![b' '; 2 * 1024 * 1024 + 1], 413),
    ];
    for (what, body, status) in bad {
        assert_eq!(receiver.post(&Post::of(body)).status, status, "{what}");
    }
    let header = format!(
        "POST /webhook HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    assert_eq!(send(receiver.address, header.as_bytes()).status, 431);
    let headers = "X-More: 1\r\n".repeat(100);
    assert_eq!(receiver.get_with("/health", &headers).status, 431);
    let chunked = [
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n".to_vec(),
        vec![b'x'; 0x30_0000],
    ];
    assert!([0, 413].contains(&send(receiver.address, &chunked.concat()).status));
    assert_eq!(receiver.get("/webhook").status, 405);
    assert_eq!(receiver.get("/").status, 404);
    assert_eq!(receiver.stored(), 0);
    assert_eq!(receiver.get("/health").json()["status"], "healthy");
}

#[test]
fn unknown_events_are_stored_and_a_python_payload_is_taken() {
    let receiver = Site::new().start();
    let unknown = event("new", "from_the_future", json!({"anything": [1, {"deep": null}]}));
    assert_eq!(receiver.post(&Post::events(&[unknown])).status, 200);
    // As the Python system's documentation has it: no ids, local times without an offset, a first signature only.
    let python = json!({
        "events": [
            {"event_type": "ip_blocked", "timestamp": "2026-03-01T12:00:00.123456",
             "data": {"ip": "203.0.113.9", "reason": "port_scanning"}},
            {"event_type": "distributed_attack_detected", "timestamp": "2026-03-01T12:00:00.123456",
             "data": {"ip": "203.0.113.9", "port": 22}},
        ],
        "batch_size": 2,
        "timestamp": "2026-03-01T12:00:01.000001",
    });
    let post = Post {
        v2: None,
        ..Post::of(python.to_string())
    };
    for _ in 0..3 {
        assert_eq!(receiver.post(&post).json()["processed_events"], 2);
    }
    let stats = receiver.get("/stats").json();
    let counts = json!({"from_the_future": 1, "ip_blocked": 1, "distributed_attack_detected": 1});
    assert_eq!(stats["event_counts"], counts);
    assert_eq!(stats["blocked_ip_count"], 1);
    assert_eq!(
        stats["recent_events"][2]["data"],
        json!({"anything": [1, {"deep": null}]})
    );
    assert_eq!(
        stats["recent_events"][1]["timestamp"],
        "2026-03-01T12:00:00.123456"
    );
}

#[test]
fn without_a_secret_or_with_a_wrong_setting_it_does_not_start() {
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdict-receiver"));
        command.env_clear().args(["serve", "--bind", "127.0.0.1:0"]);
        command
    };
    let (text, code) = run(&mut program());
    assert_eq!(code, 2);
    assert!(text.starts_with("verdict-receiver: no secret: "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receiver.toml");
    fs::write(
        &file,
        format!("webhook_secret = \"{KEY}\"\nsmpt_server = \"x\"\n"),
    )
    .unwrap();
    let (text, code) = run(program().arg("--config").arg(&file));
    assert_eq!(code, 2);
    assert!(
        text.contains("did you mean \"smtp_server\"?") && text.contains("everybody may read it"),
        "{text}"
    );
    assert!(!text.contains(KEY), "{text}");
    let (text, code) = run(program()
        .env("WEBHOOK_SECRET", KEY)
        .env("DATABASE_PATH", "/nowhere/at/all.db"));
    assert_eq!((code, text.contains("/nowhere/at/all.db")), (1, true), "{text}");
    assert_eq!(
        run(Command::new(env!("CARGO_BIN_EXE_verdict-receiver")).arg("server")).1,
        2
    );
}

#[test]
fn the_engine_links_nothing_of_the_receiver() {
    let folder = tempfile::tempdir().unwrap();
    // As they are shipped: what the linker threw away has names still in what a debugger reads.
    let stripped = |program: &str| {
        let shipped = folder.path().join(Path::new(program).file_name().unwrap());
        let (text, code) = run(Command::new("strip").arg("-o").arg(&shipped).arg(program));
        assert_eq!(code, 0, "{text}");
        shipped
    };
    // An unoptimised test takes a minute for what grep does at once.
    let holds = |program: &Path, word: &str| {
        let (text, code) = run(Command::new("grep").args(["-qaF", "-e", word]).arg(program));
        assert!([0, 1].contains(&code), "{text}");
        code == 0
    };
    let [engine, ctl, receiver] = [
        env!("CARGO_BIN_EXE_verdictd"),
        env!("CARGO_BIN_EXE_verdictctl"),
        env!("CARGO_BIN_EXE_verdict-receiver"),
    ]
    .map(stripped);
    // The exporter of verdictctl is a server too.
    for (word, in_ctl) in [
        ("SQLite format 3", false),
        ("/axum-0.", false),
        ("/lettre-0.", false),
        ("/tokio-1.", true),
        ("/hyper-1.", true),
    ] {
        let found = [&engine, &ctl, &receiver].map(|program| holds(program, word));
        assert_eq!(
            found,
            [false, in_ctl, true],
            "{word} in engine, verdictctl, receiver"
        );
    }
    // Who receives webhooks need not have the engine's libraries.
    for library in ["libnftnl.so", "libmnl.so"] {
        assert!(
            holds(&engine, library),
            "{library}: this test looks for the wrong thing"
        );
        assert!(!holds(&receiver, library), "{library}");
    }
}

/// For tests that count: `n` events that differ.
fn many(n: usize, kind: &str, prefix: &str) -> Vec<Value> {
    let one = |at: usize| {
        event(
            &format!("{prefix}{at}"),
            kind,
            json!({"ip": "203.0.113.9", "block_count": 5}),
        )
    };
    (0..n).map(one).collect()
}
