//! The built `verdictctl` against an engine that answers from a script, and against none: texts, JSON, exit codes.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use verdictd::control::server::{Handler, Peer, Server};
use verdictd::control::wire::{
    BanCounts, BanView, Latency, Losses, ProtectedSource, QueueView, Reply, Request, SnapshotView, SourceRow,
    Sources, StatsView, StatusReport, Verdicts,
};

/// Answers as the engine would, remembers what was asked.
#[derive(Default)]
struct Canned {
    status: StatusReport,
    stats: StatsView,
    bans: Vec<BanView>,
    snapshot: SnapshotView,
    asked: Mutex<Vec<Request>>,
}

impl Handler for Canned {
    fn handle(&self, request: Request, _: Peer) -> Reply {
        self.asked.lock().unwrap().push(request.clone());
        match request {
            Request::Status {} => Reply::Status(Box::new(self.status.clone())),
            Request::Health {} | Request::Try { .. } | Request::Confirm {} | Request::GoBack { .. } => {
                Reply::refused("not asked by any verb")
            }
            Request::Stats { .. } => Reply::Stats(Box::new(self.stats.clone())),
            Request::List {} => Reply::List(self.bans.clone()),
            Request::Reload {} => Reply::Reloaded(vec!["ports tolerated: 7 → 3".into()]),
            Request::Ban { target, .. } if target == "127.0.0.1" => {
                Reply::refused("127.0.0.1 is protected: loopback\x1b[2J")
            }
            Request::Ban {
                target,
                duration_seconds,
                reason,
            } => Reply::Banned(Box::new(manual_ban(target, duration_seconds, reason))),
            Request::Unban { target } if target == "203.0.113.9" => Reply::Unbanned(self.bans.clone()),
            Request::Unban { target } => Reply::refused(format!("{target} is not banned")),
            Request::Snapshot {} => Reply::Snapshot(Box::new(self.snapshot.clone())),
            Request::State {} | Request::StateReset {} | Request::StateImport(_) => {
                Reply::refused("tried with a real engine")
            }
            Request::AuditNote { .. } => Reply::Noted { written: false },
            Request::Webhooks {} | Request::WebhookRetry { .. } => Reply::refused("webhooks are not running"),
            Request::SelftestBegin { .. } | Request::SelftestLook { .. } | Request::SelftestEnd {} => {
                Reply::refused("no self-test is under way")
            }
        }
    }
}

fn manual_ban(source: String, seconds: Option<u64>, note: Option<String>) -> BanView {
    BanView {
        source,
        reason: "manual".into(),
        step: 0,
        offences: 0,
        since: "2026-03-01T12:00:00Z".into(),
        until: Some("2026-03-01T14:00:00Z".into()),
        remaining_seconds: Some(seconds.unwrap_or(600)),
        enforced: true,
        note,
    }
}

fn scan_ban() -> BanView {
    BanView {
        source: "203.0.113.9".into(),
        reason: "port_scanning".into(),
        step: 1,
        offences: 1,
        since: "2026-03-01T12:00:00Z".into(),
        until: Some("2026-03-01T12:10:00Z".into()),
        remaining_seconds: Some(598),
        enforced: true,
        note: None,
    }
}

fn protecting() -> Canned {
    Canned {
        status: StatusReport {
            version: "0.1.0".into(),
            pid: 4242,
            uptime_seconds: 11_520,
            config: Some("/etc/verdictd/verdictd.toml".into()),
            config_sha256: "12ab".into(),
            apply: None,
            mode: "firewall".into(),
            preset: "standard".into(),
            enforce: true,
            protected: true,
            on_loss: "open".into(),
            backend: "xt NFQUEUE".into(),
            table: "inet verdictd: loaded".into(),
            last_wipe: None,
            workers: 2,
            queues: vec![7000, 7001, 7002, 7003],
            log_groups: vec![7000, 7001],
            seed: 0x1234,
            protected_sources: vec![ProtectedSource {
                source: "127.0.0.0/8".into(),
                reason: "loopback".into(),
            }],
            trusted: vec!["10.0.0.0/8".into()],
            bans: BanCounts {
                active: 1,
                total: 17,
                observed: 0,
            },
            attacks: Vec::new(),
            blind: vec![],
            confinement: "seccomp, landlock (ABI 7), capabilities net_admin".into(),
            audit: None,
            degraded: vec![],
            monitor: None,
        },
        stats: StatsView {
            protected: true,
            mode: "firewall".into(),
            enforce: true,
            uptime_seconds: 100,
            verdicts: Verdicts {
                accept: 9_000,
                drop: 1_000,
            },
            reasons: [("harmless", 8_000), ("counted", 1_000), ("banned", 1_000)]
                .map(|(word, n)| (word.to_owned(), n))
                .into(),
            verdict_latency_us: Latency {
                p50: Some(12.3),
                p99: Some(45.6),
                p999: Some(120.0),
            },
            bans: BanCounts {
                active: 1,
                total: 17,
                observed: 0,
            },
            sources: Sources {
                tracked: 42,
                evicted: 0,
            },
            queues: vec![
                QueueView {
                    number: 7000,
                    waiting: Some(3),
                    kernel_dropped: Some(0),
                    user_dropped: Some(12_345),
                },
                QueueView {
                    number: 7001,
                    ..QueueView::default()
                },
            ],
            top_sources: vec![SourceRow {
                source: "203.0.113.9".into(),
                ports: 8,
                idle_seconds: 125,
                banned: true,
            }],
            ..StatsView::default()
        },
        bans: vec![scan_ban()],
        snapshot: SnapshotView::default(),
        asked: Mutex::default(),
    }
}

fn observing() -> Canned {
    let mut canned = protecting();
    canned.status.mode = "detection_only".into();
    canned.status.enforce = false;
    canned.status.protected = false;
    canned.status.bans.active = 0;
    canned.stats.mode = "detection_only".into();
    canned.stats.enforce = false;
    canned.stats.protected = false;
    canned.stats.bans.active = 0;
    canned
}

struct Engine {
    canned: Arc<Canned>,
    server: Option<Server>,
    folder: tempfile::TempDir,
}

impl Engine {
    fn run(canned: Canned) -> Engine {
        let folder = tempfile::tempdir().unwrap();
        let canned = Arc::new(canned);
        let server = Server::start(&folder.path().join("control.sock"), canned.clone()).unwrap();
        Engine {
            canned,
            server: Some(server),
            folder,
        }
    }

    fn none() -> Engine {
        Engine {
            canned: Arc::default(),
            server: None,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn ctl(&self, args: &[&str]) -> Ended {
        ctl(&self.socket(), args)
    }

    fn asked(&self) -> Vec<Request> {
        self.canned.asked.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Asserts the exit code, and that a failure speaks on stderr only.
    #[track_caller]
    fn with(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:?}");
        if matches!(code, 1..=3) {
            assert!(self.out.is_empty() && !self.err.is_empty(), "{self:?}");
        }
        self
    }

    #[track_caller]
    fn shows(&self, text: &str) -> &Ended {
        assert!(self.out.contains(text), "{text:?} is not in\n{}", self.out);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn verdictctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    command
        .env_remove("VERDICTD_SOCKET")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn ctl(socket: &Path, args: &[&str]) -> Ended {
    verdictctl()
        .args(args)
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap()
        .into()
}

#[test]
fn status_of_a_protected_host_is_0_and_says_so_first() {
    let engine = Engine::run(protecting());
    let ended = engine.ctl(&["status"]).with(0);
    assert!(
        ended
            .out
            .starts_with("PROTECTED: refused ports and banned sources are dropped"),
        "{}",
        ended.out
    );
    ended
        .shows("0.1.0, pid 4242, up 3h12m")
        .shows("xt NFQUEUE")
        .shows("7000 7001 7002 7003")
        .shows("loopback");
    assert!(!ended.out.contains('\x1b'), "no colours outside a terminal");
}

#[test]
fn status_while_observing_is_4_and_says_that_nothing_is_dropped() {
    let engine = Engine::run(observing());
    let ended = engine.ctl(&["status"]).with(4);
    assert_eq!(
        ended.out.lines().next(),
        Some("OBSERVING ONLY: nothing is dropped (bans.enforce = false)")
    );
    let stats = engine.ctl(&["stats"]).with(0);
    assert_eq!(
        stats.out.lines().next(),
        Some("OBSERVING ONLY: nothing is dropped (bans.enforce = false)")
    );
}

#[test]
fn a_degraded_engine_is_4_with_each_reason() {
    let mut canned = protecting();
    canned.status.degraded = vec!["the analyst is behind".into(), "two \x1b[31mreds".into()];
    let engine = Engine::run(canned);
    let ended = engine.ctl(&["status"]).with(4);
    ended.shows("\nDEGRADED: the analyst is behind\nDEGRADED: two \\u{1b}[31mreds\n");
    let json = engine.ctl(&["status", "--json"]).with(4).json();
    assert_eq!(
        json["degraded"],
        json!(["the analyst is behind", "two \u{1b}[31mreds"])
    );
}

#[test]
fn status_json_has_its_fields() {
    let json = Engine::run(protecting())
        .ctl(&["status", "--json"])
        .with(0)
        .json();
    assert_eq!(json["protected"], true);
    assert_eq!(json["mode"], "firewall");
    assert_eq!(json["backend"], "xt NFQUEUE");
    assert_eq!(json["queues"], json!([7000, 7001, 7002, 7003]));
    assert_eq!(
        json["protected_sources"],
        json!([{"source": "127.0.0.0/8", "reason": "loopback"}])
    );
    for field in
        "version pid uptime_seconds config preset enforce on_loss table workers log_groups seed trusted bans"
            .split(' ')
    {
        assert!(!json[field].is_null(), "{field}");
    }
}

#[test]
fn stats_are_something_to_look_at() {
    let engine = Engine::run(protecting());
    let ended = engine.ctl(&["stats", "--top", "5"]).with(0);
    ended
        .shows("accept  9,000  90.0%  90.0/s\n")
        .shows("drop    1,000  10.0%  10.0/s\n")
        .shows("harmless  8,000  80.0%  80.0/s\n")
        .shows("p50 12.3 us   p99 45.6 us   p99.9 120.0 us")
        .shows("1 active, 17 since the start")
        .shows("42 tracked")
        .shows("  7000           3               0        12,345\n")
        .shows("  7001  unreadable      unreadable    unreadable\n")
        .shows("203.0.113.9      8   2m5s ago  banned\n")
        .shows("nothing lost, no errors");
    assert_eq!(engine.asked(), [Request::Stats { top: 5 }]);
}

#[test]
fn losses_are_shown_when_there_are_any() {
    let mut canned = protecting();
    canned.stats.losses = Losses {
        enobufs: 3,
        ..Losses::default()
    };
    let ended = Engine::run(canned).ctl(&["stats"]).with(0);
    ended.shows("losses and errors\n  3  receive buffer overflows");
    assert!(!ended.out.contains("nothing lost"));
}

#[test]
fn stats_json_is_the_contract() {
    let json = Engine::run(protecting()).ctl(&["stats", "--json"]).with(0).json();
    assert_eq!(json["verdicts"], json!({"accept": 9000, "drop": 1000}));
    assert_eq!(
        json["reasons"],
        json!({"harmless": 8000, "counted": 1000, "banned": 1000})
    );
    assert_eq!(
        (&json["bans"]["active"], &json["bans"]["total"]),
        (&json!(1), &json!(17))
    );
    assert_eq!(json["sources"]["tracked"], 42);
    assert_eq!(
        json["queues"],
        json!([
            {"number": 7000, "waiting": 3, "kernel_dropped": 0, "user_dropped": 12345},
            {"number": 7001, "waiting": null, "kernel_dropped": null, "user_dropped": null},
        ])
    );
    assert_eq!(
        json["verdict_latency_us"],
        json!({"p50": 12.3, "p99": 45.6, "p999": 120.0})
    );
    assert_eq!(
        (&json["protected"], &json["mode"]),
        (&json!(true), &json!("firewall"))
    );
    assert_eq!(json["uptime_seconds"], 100);
}

#[test]
fn watching_prints_again_with_the_rates_of_the_last_second() {
    let engine = Engine::run(protecting());
    let mut child = verdictctl()
        .args(["stats", "--watch", "--socket"])
        .arg(engine.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("rates since the start")));
    assert!(lines.any(|line| line.contains("rates of the last second")));
    let accept = lines.find(|line| line.contains("accept")).unwrap();
    assert!(accept.ends_with("0.0/s"), "{accept}");
    // The reader goes away, as `| head` does: no error.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watching_ends_with_the_engine() {
    let mut engine = Engine::run(protecting());
    let child = verdictctl()
        .args(["stats", "--watch", "--json", "--socket"])
        .arg(engine.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while engine.asked().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    engine.server.take().unwrap().stop();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for line in ended.out.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap()["verdicts"].is_object());
    }
}

#[test]
fn list_is_a_table_and_an_array() {
    let engine = Engine::run(protecting());
    engine
        .ctl(&["list"])
        .with(0)
        .shows("SOURCE")
        .shows("203.0.113.9  port_scanning")
        .shows("9m58s");
    let json = engine.ctl(&["list", "--json"]).with(0).json();
    assert_eq!(
        json,
        json!([{
            "source": "203.0.113.9", "reason": "port_scanning", "step": 1, "offences": 1,
            "since": "2026-03-01T12:00:00Z", "until": "2026-03-01T12:10:00Z", "remaining_seconds": 598,
            "enforced": true, "note": null,
        }])
    );
    let empty = Engine::run(Canned::default());
    empty.ctl(&["list"]).with(0).shows("no bans\n");
    assert_eq!(empty.ctl(&["list", "--json"]).with(0).json(), json!([]));
}

#[test]
fn a_hundred_thousand_bans_are_listed() {
    let bans = (0..100_000u32).map(|n| {
        let [_, a, b, c] = n.to_be_bytes();
        BanView {
            source: format!("10.{a}.{b}.{c}"),
            ..scan_ban()
        }
    });
    let engine = Engine::run(Canned {
        bans: bans.collect(),
        ..Canned::default()
    });
    assert_eq!(engine.ctl(&["list"]).with(0).out.lines().count(), 100_001);
}

#[test]
fn hostile_words_reach_no_terminal() {
    let note = Some("x\x1b]0;owned\x07\u{202e}\u{9b}2J".into());
    let engine = Engine::run(Canned {
        bans: vec![BanView { note, ..scan_ban() }],
        ..Canned::default()
    });
    for args in [&["list"][..], &["list", "--json"]] {
        let ended = engine.ctl(args).with(0);
        assert!(
            !ended
                .out
                .chars()
                .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{}",
            ended.out
        );
    }
}

#[test]
fn ban_takes_address_length_and_reason() {
    let engine = Engine::run(protecting());
    let ended = engine
        .ctl(&["ban", "203.0.113.9", "--for", "2h", "--reason", "asked twice"])
        .with(0);
    assert_eq!(
        ended.out,
        "banned 203.0.113.9 for 2h, until 2026-03-01T14:00:00Z\n"
    );
    engine
        .ctl(&["ban", "2001:DB8:0:0::1"])
        .with(0)
        .shows("banned 2001:db8::1 for 10m,");
    assert_eq!(
        engine.asked(),
        [
            Request::Ban {
                target: "203.0.113.9".into(),
                duration_seconds: Some(7200),
                reason: Some("asked twice".into())
            },
            Request::Ban {
                target: "2001:db8::1".into(),
                duration_seconds: None,
                reason: None
            },
        ]
    );
}

#[test]
fn masked_host_bits_are_said_aloud() {
    let engine = Engine::run(protecting());
    let ended = engine.ctl(&["ban", "198.51.100.7/24"]).with(0);
    ended.shows("banned 198.51.100.0/24");
    assert!(
        ended
            .err
            .contains("198.51.100.7/24 is taken as the network 198.51.100.0/24"),
        "{}",
        ended.err
    );
}

#[test]
fn what_the_engine_refuses_is_1() {
    let engine = Engine::run(protecting());
    let refused = engine.ctl(&["ban", "127.0.0.1"]).with(1);
    assert_eq!(
        refused.err,
        "verdictctl: refused: 127.0.0.1 is protected: loopback\\u{1b}[2J\n"
    );
    let refused = engine.ctl(&["unban", "192.0.2.1"]).with(1);
    assert_eq!(refused.err, "verdictctl: refused: 192.0.2.1 is not banned\n");
    assert_eq!(
        engine.ctl(&["unban", "203.0.113.9"]).with(0).out,
        "unbanned 203.0.113.9 (port_scanning)\n"
    );
}

#[test]
fn nonsense_is_2_and_never_asked() {
    let engine = Engine::run(protecting());
    let long = "x".repeat(201);
    let huge = "9".repeat(100_000);
    for args in [
        &[][..],
        &["explode"],
        &["ban"],
        &["ban", "example.org"],
        &["ban", "10.0.0.0/33"],
        &["ban", "300.1.1.1"],
        &["ban", ""],
        &["ban", "::ffff:192.0.2.1"],
        &["ban", "192.0.2.1};flush ruleset"],
        &["ban", "\x1b[2J"],
        &["ban", &huge],
        &["ban", "192.0.2.1", "192.0.2.2"],
        &["ban", "192.0.2.1", "--for", "soon"],
        &["ban", "192.0.2.1", "--for", "0s"],
        &["ban", "192.0.2.1", "--for", "366d"],
        &["ban", "192.0.2.1", "--for", "1h30m"],
        &["ban", "192.0.2.1", "--for", "99999999999999999999d"],
        &["ban", "192.0.2.1", "--reason", &long],
        &["ban", "192.0.2.1", "--reason", "two\nlines"],
        &["unban", "everybody"],
        &["stats", "--top", "many"],
        &["stats", "--top", "1001"],
        &["status", "--jsno\x1b[2J"],
    ] {
        let ended = match args {
            [] => verdictctl().output().unwrap().into(),
            _ => engine.ctl(args),
        };
        let ended = ended.with(2);
        assert!(!ended.err.contains('\x1b'), "{args:?} prints {}", ended.err);
    }
    assert!(engine.ctl(&["ban", "10.0.0.0/33"]).err.contains("33"));
    assert_eq!(
        engine.ctl(&["ban", "192.0.2.1", "--for", "soon"]).err,
        "verdictctl: --for \"soon\" does not begin with a number, write 90s, 10m, 2h or 1d\n"
    );
    assert_eq!(engine.asked(), []);
}

#[test]
fn help_and_version_are_0() {
    for flag in ["--help", "--version", "-V"] {
        let ended = Ended::from(verdictctl().arg(flag).output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{flag}");
    }
    let help = Ended::from(verdictctl().arg("--help").output().unwrap());
    help.shows("status")
        .shows("unban")
        .shows("VERDICTD_SOCKET")
        .shows("3 engine not running");
}

#[test]
fn no_engine_is_3() {
    let engine = Engine::none();
    for args in [
        &["status"][..],
        &["stats", "--json"],
        &["list"],
        &["ban", "192.0.2.1"],
        &["unban", "192.0.2.1"],
    ] {
        let ended = engine.ctl(args).with(3);
        assert!(ended.err.contains("no engine runs on"), "{}", ended.err);
    }
    // A killed engine leaves its socket behind.
    drop(UnixListener::bind(engine.socket()).unwrap());
    engine.ctl(&["status"]).with(3);
}

#[test]
fn the_socket_is_found_by_flag_then_environment() {
    let engine = Engine::run(protecting());
    let by_environment = verdictctl()
        .arg("list")
        .env("VERDICTD_SOCKET", engine.socket())
        .output()
        .unwrap();
    Ended::from(by_environment).with(0);
    let nowhere = engine.folder.path().join("nowhere.sock");
    let flag_wins = verdictctl()
        .args(["list", "--socket"])
        .arg(&nowhere)
        .env("VERDICTD_SOCKET", engine.socket())
        .output()
        .unwrap();
    let ended = Ended::from(flag_wins).with(3);
    assert!(ended.err.contains("nowhere.sock"), "{}", ended.err);
}

/// Accepts one connection, reads its request, answers with `bytes`.
fn answer_once(socket: &Path, bytes: &'static [u8]) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(bytes).unwrap();
    })
}

#[test]
fn answers_of_something_else_are_1() {
    for (answer, words) in [
        (&b""[..], "without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not a reply of verdictd"),
        (b"{\"reply\":\"list\",\"body\":[", "not a reply of verdictd"),
        (b"\xff\x00\x1b[2J\n", "not a reply of verdictd"),
        (b"{\"reply\":\"status\",\"body\":{}}\n", "another version"),
    ] {
        let engine = Engine::none();
        let fake = answer_once(&engine.socket(), answer);
        let ended = engine.ctl(&["list"]).with(1);
        assert!(ended.err.contains(words), "{}", ended.err);
        assert!(!ended.err.contains('\x1b'), "{}", ended.err);
        fake.join().unwrap();
    }
}

/// What a stranger's program sends, and what it reads back.
fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn oversized_and_mangled_requests_are_refused_in_words_and_the_engine_goes_on() {
    let engine = Engine::run(protecting());
    let oversized = format!(
        "{{\"request\":\"ban\",\"target\":\"192.0.2.1\",\"reason\":\"{}\"}}\n",
        "x".repeat(100_000)
    );
    assert!(raw(&engine.socket(), oversized.as_bytes()).contains("request is longer than 4096 bytes"));
    assert!(raw(&engine.socket(), b"{\"request\":\"status\",\"verbose\":true}\n").contains("unknown field"));
    assert!(raw(&engine.socket(), b"\x00\xff\n").contains("not a request"));
    assert_eq!(engine.asked(), []);
    engine.ctl(&["status"]).with(0);
}

#[test]
fn a_slow_stranger_does_not_keep_verdictctl_waiting() {
    let engine = Engine::run(protecting());
    let mut strangers: Vec<_> = (0..15)
        .map(|_| UnixStream::connect(engine.socket()).unwrap())
        .collect();
    for stranger in &mut strangers {
        stranger.write_all(b"{").unwrap();
    }
    let asked = Instant::now();
    engine.ctl(&["status"]).with(0);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[test]
fn a_snapshot_says_where_and_how_much() {
    let engine = Engine::run(Canned {
        snapshot: SnapshotView {
            path: "/var/lib/verdictd/state.toml\x1b[2J".into(),
            bytes: 12_345,
            bans: 1,
            ladder: 2,
            sources: 0,
            duration_ms: 7,
            missing: vec!["worker 1 does not answer".into()],
        },
        ..Canned::default()
    });
    let ended = engine.ctl(&["snapshot"]).with(0);
    ended
        .shows("saved 12,345 bytes to /var/lib/verdictd/state.toml")
        .shows("1 ban, 2 ladder positions, 0 half-done scans, in 7 ms\n");
    let json = engine.ctl(&["snapshot", "--json"]).with(0).json();
    assert_eq!((&json["bans"], &json["bytes"]), (&json!(1), &json!(12_345)));
    assert_eq!(engine.asked(), [Request::Snapshot {}, Request::Snapshot {}]);
}
