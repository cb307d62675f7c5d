//! What other systems hear of an engine on real packets: from its start to its end, and through a crash.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, OBSERVING};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::wire::{Gun, NULL, SYN, XMAS};
use crate::common::{secs, within};

/// A receiver on port 9999 of a namespace's loopback, that takes everything.
struct Receiver(Arc<Mutex<Vec<Value>>>);

impl Receiver {
    fn start(ns: &Namespace) -> Receiver {
        let listener = ns
            .inside(|| TcpListener::bind("127.0.0.1:9999"))
            .expect("a free port");
        let events = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&events);
        // Ends with the test program: nobody can close a listener that somebody waits on.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let batch = take(stream).unwrap_or_default();
                let more = batch["events"].as_array().cloned().unwrap_or_default();
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
            }
        });
        Receiver(events)
    }

    /// The data of every event of that type, oldest first.
    fn heard(&self, kind: &str) -> Vec<Value> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = events.iter().filter(|event| event["event_type"] == kind);
        of_kind.map(|event| event["data"].clone()).collect()
    }

    fn hears(&self, kind: &str, count: usize) -> Vec<Value> {
        within(secs(10), || self.heard(kind).len() >= count);
        let heard = self.heard(kind);
        assert_eq!(heard.len(), count, "{kind}: {:?}", self.0);
        heard
    }
}

fn take(stream: TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    (&stream)
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .ok()?;
    serde_json::from_slice(&body).ok()
}

/// `policy`, and an endpoint that gets everything but what `exclude` names.
fn config(policy: &str, exclude: &str) -> String {
    format!(
        "{policy}[webhooks]\nenabled = true\nbatch_timeout = 1\n[[webhooks.endpoints]]\nname = \"soc\"\n\
         url = \"http://127.0.0.1:9999/webhook\"\nsecret = \"a secret of this test\"\n\
         [webhooks.endpoints.events]\nexclude = [{exclude}]\n"
    )
}

const NO_ATTEMPTS: &str = "\"connection_attempt\"";

#[test]
fn others_hear_what_happens_from_the_start_to_the_end() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let engine = Engine::start(&lab.host, &config(DETECTION, NO_ATTEMPTS));
    let started = receiver.hears("firewall_started", 1);
    assert_eq!(
        (&started[0]["mode"], &started[0]["webhook_endpoints_count"]),
        (&"detection_only".into(), &1.into())
    );

    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    gun.syns(5001..=5008);
    let scan = &receiver.hears("port_scanning_detected", 1)[0];
    assert_eq!((&scan["ip"], &scan["threshold"]), (&ATTACKER.into(), &7.into()));
    let blocked = &receiver.hears("ip_blocked", 1)[0];
    assert_eq!(
        (
            &blocked["ip"],
            &blocked["reason"],
            &blocked["block_duration_seconds"]
        ),
        (&ATTACKER.into(), &"port_scanning".into(), &600.into())
    );

    engine.must(&["unban", ATTACKER]);
    let unblocked = &receiver.hears("ip_unblocked", 1)[0];
    assert_eq!(
        (&unblocked["ip"], &unblocked["reason"]),
        (&ATTACKER.into(), &"manual".into())
    );
    (0..4).for_each(|_| gun.tcp(80, NULL));
    let stealth = &receiver.hears("suspicious_scanning_detected", 1)[0];
    assert_eq!(stealth["scan_type"], "NULL_SCAN");
    assert_eq!(
        receiver.hears("ip_blocked", 2)[1]["reason"],
        "suspicious_scanning"
    );

    assert!(!engine.log().contains("a secret of this test"));
    engine.stop();
    receiver.hears("firewall_stopped", 1);
}

/// Killed before it could send: the next engine sends it, once.
#[test]
fn what_happened_before_a_crash_is_heard_after_it() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, &config(DETECTION, NO_ATTEMPTS));
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    engine.wait_ban(ATTACKER);
    thread::sleep(secs(1)); // it is on the disk
    let home = engine.kill9();
    let receiver = Receiver::start(&lab.host);
    let engine = Engine::start_in(&lab.host, home, &[]);
    receiver.hears("ip_blocked", 1);
    receiver.hears("firewall_started", 2);
    engine.stop();
}

/// Whatever its protocol, whatever becomes of it, and once, however often it is sent again.
#[test]
fn every_first_packet_is_a_connection_attempt() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let engine = Engine::start(&lab.host, &config(FIREWALL, ""));
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    let again = gun.segment(22, SYN); // allowed
    (0..3).for_each(|_| gun.given(&again));
    gun.tcp(4444, SYN); // refused
    gun.tcp(22, XMAS);
    gun.udp(4445);
    gun.tcp(22, 0x10); // what an honest client sends late
    let mut heard = receiver.hears("connection_attempt", 4);
    heard.sort_by_key(|data| (data["port"].as_u64(), data["is_suspicious"].as_bool()));
    let words = |data: &Value| {
        let words = [
            "port",
            "protocol",
            "scan_type",
            "tcp_flags",
            "is_suspicious",
            "count",
        ];
        Value::from_iter(words.map(|key| data[key].clone()))
    };
    assert_eq!(
        heard.iter().map(words).collect::<Vec<_>>(),
        [
            json!([22, "tcp", "SYN_SCAN", "S", false, 1]),
            json!([22, "tcp", "XMAS_SCAN", "FPU", true, 1]),
            json!([4444, "tcp", "SYN_SCAN", "S", false, 1]),
            json!([4445, "udp", "UDP_SCAN", null, false, 1]),
        ]
    );
    assert!(heard.iter().all(|data| data["ip"] == ATTACKER));
    engine.stop();
}

/// A wiped table and a state that cannot be read are for others to know, too.
#[test]
fn what_is_wrong_with_the_engine_is_heard() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let home = Home::new(&config(DETECTION, NO_ATTEMPTS));
    std::fs::create_dir_all(home.state()).expect("a folder for the state");
    std::fs::write(home.state().join("state.toml"), "no state").expect("a file");
    let engine = Engine::start_in(&lab.host, home, &[]);
    let degraded = &receiver.hears("state_degraded", 1)[0];
    assert!(
        degraded["reasons"][0]
            .as_str()
            .is_some_and(|text| text.contains("state.toml")),
        "{degraded}"
    );
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    engine.wait_ban(ATTACKER);
    lab.host.nft("delete table inet verdictd");
    let wiped = &receiver.hears("ruleset_wiped", 1)[0];
    assert_eq!(
        (wiped["detail"].as_str(), &wiped["repaired"]),
        (
            Some("table inet verdictd: it is gone; bans that go into it again: 1"),
            &true.into()
        )
    );
    let by = wiped["by"].as_str().unwrap_or_default();
    assert!(by.starts_with("nft (pid ") && wiped["gap_ms"].is_u64(), "{wiped}");
    engine.stop();
}

/// The kernel ended it on time; others hear of it as soon as somebody can tell them.
#[test]
fn a_ban_that_ended_while_no_engine_ran_is_heard_to_have_ended() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let engine = Engine::start(&lab.host, &config(DETECTION, NO_ATTEMPTS));
    engine.must(&["ban", "20.0.0.1", "--for", "3s"]);
    engine.must(&["ban", "20.0.0.2", "--for", "1h"]);
    receiver.hears("ip_blocked", 2);
    let home = engine.stop();
    thread::sleep(secs(4));
    let engine = Engine::start_in(&lab.host, home, &[]);
    let ended = &receiver.hears("ip_unblocked", 1)[0];
    assert_eq!(
        (&ended["ip"], &ended["reason"]),
        (&"20.0.0.1".into(), &"timeout_expired".into())
    );
    engine.stop();
}

/// Who is told that an address is blocked may rely on it: while the set is full nobody is told so.
#[test]
fn a_ban_is_told_once_the_kernel_holds_it() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let config =
        config(DETECTION, NO_ATTEMPTS).replace("[webhooks]", "[engine]\nban_set_size = 1\n[webhooks]");
    let engine = Engine::start(&lab.host, &config);
    engine.must(&["ban", "20.0.0.1", "--for", "1h"]);
    receiver.hears("ip_blocked", 1);

    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    let error = &receiver.hears("block_error", 1)[0];
    assert_eq!(
        (&error["ip"], &error["action"]),
        (&ATTACKER.into(), &"block_failed".into())
    );
    receiver.hears("port_scanning_detected", 1);
    receiver.hears("ip_blocked", 1);

    engine.must(&["unban", "20.0.0.1"]);
    receiver.hears("ip_unblocked", 1);
    let blocked = &receiver.hears("ip_blocked", 2)[1];
    assert_eq!(
        (&blocked["ip"], &blocked["unique_ports_scanned"]),
        (&ATTACKER.into(), &8.into())
    );
    engine.stop();
}

/// An operator who stops enforcement opens the door to those who are banned: others hear of that, too.
#[test]
fn the_end_of_enforcement_ends_every_ban() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab.host);
    let mut engine = Engine::start(&lab.host, &config(DETECTION, NO_ATTEMPTS));
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    receiver.hears("ip_blocked", 1);
    engine.home().write_config(&config(OBSERVING, NO_ATTEMPTS));
    engine.signal(Signal::HUP);
    let freed = &receiver.hears("ip_unblocked", 1)[0];
    assert_eq!(
        (&freed["ip"], &freed["reason"]),
        (&ATTACKER.into(), &"manual".into())
    );
    assert!(engine.kernel_bans("banned4").is_empty());
    engine.stop();
}
