//! What can be asked of it, by whom, and what it writes into its log.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::many;
use super::rig::{KEY, Post, Site, event, send, within};

#[test]
fn pages_have_every_event_once() {
    let receiver = Site::new().start();
    assert_eq!(receiver.post(&Post::events(&many(120, "x", "e"))).status, 200);
    let walk = |first: &str, step: &str| {
        let (mut ids, mut path) = (Vec::new(), format!("/events?limit=50{first}"));
        loop {
            let page = receiver.get(&path).json();
            ids.extend(
                page["events"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| event["id"].as_str().unwrap().to_owned()),
            );
            match page["next"].as_i64() {
                Some(next) => path = format!("/events?limit=50&{step}={next}"),
                None => return ids,
            }
        }
    };
    let newest_first: Vec<String> = (0..120).rev().map(|at| format!("e{at}")).collect();
    let mut oldest_first = newest_first.clone();
    oldest_first.reverse();
    assert_eq!(walk("", "before"), newest_first);
    assert_eq!(walk("&after=0", "after"), oldest_first);
    assert_eq!(
        receiver.get("/events").json()["events"].as_array().unwrap().len(),
        50
    );
}

#[test]
fn events_are_found_by_type_and_address() {
    let receiver = Site::new().start();
    let events = [
        event(
            "a",
            "ip_blocked",
            json!({"ip": "203.0.113.9", "reason": "port_scanning", "until": "2999-01-01T00:00:00Z"}),
        ),
        event("b", "ip_unblocked", json!({"ip": "203.0.113.7"})),
        event("c", "connection_attempt", json!({"ip": "2001:db8::1"})),
        event("d", "ip_blocked", json!({"ip": "203.0.113.7"})),
    ];
    assert_eq!(receiver.post(&Post::events(&events)).status, 200);
    let ids = |path: &str| -> Vec<String> {
        let found = receiver.get(path).json();
        found["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("/events?event_type=ip_blocked"), ["d", "a"]);
    assert_eq!(ids("/events?ip=203.0.113.7"), ["d", "b"]);
    assert_eq!(ids("/events?ip=2001%3ADB8%3A%3A1"), ["c"]);
    assert_eq!(ids("/events?ip=203.0.113.7&event_type=ip_unblocked"), ["b"]);
    let blocked = receiver.get("/blocked?current=true").json();
    assert_eq!(blocked["blocked"].as_array().unwrap().len(), 1, "{blocked}");
    assert_eq!(blocked["blocked"][0]["ip"], "203.0.113.9");
    assert_eq!(blocked["blocked"][0]["until"], "2999-01-01T00:00:00.000Z");
    for bad in [
        "limit=0",
        "limit=501",
        "before=x",
        "ip=no",
        "evnt_type=x",
        "ip=' OR 1=1",
    ] {
        assert_eq!(
            receiver
                .get(&format!("/events?{}", bad.replace(' ', "%20")))
                .status,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        ids("/events?event_type=%27%3B%20DROP%20TABLE%20events%3B"),
        [""; 0]
    );
}

#[test]
fn who_is_not_of_this_machine_needs_the_token() {
    let receiver = Site::new().with("READ_TOKEN", "hunter2-the-token").start();
    let strange = "X-Forwarded-For: 198.51.100.1\r\n";
    for path in ["/stats", "/events", "/blocked"] {
        assert_eq!(receiver.get(path).status, 200);
        assert_eq!(receiver.get_with(path, strange).status, 403);
        let wrong = format!("{strange}Authorization: Bearer hunter3\r\n");
        assert_eq!(receiver.get_with(path, &wrong).status, 403);
        let right = format!("{strange}Authorization: Bearer hunter2-the-token\r\n");
        assert_eq!(receiver.get_with(path, &right).status, 200);
    }
    assert_eq!(receiver.get_with("/health", strange).status, 200);
    let none = Site::new().start();
    assert_eq!(
        none.get_with("/stats", &format!("{strange}Authorization: Bearer \r\n"))
            .status,
        403
    );
}

#[test]
fn who_only_looks_local_is_not_shown_events() {
    let receiver = Site::new().start();
    let ask = |text: &str| send(receiver.address, format!("GET /stats {text}\r\n\r\n").as_bytes()).status;
    let end = "Connection: close";
    assert_eq!(ask(&format!("HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n{end}")), 200);
    assert_eq!(ask(&format!("HTTP/1.1\r\nHost: localhost\r\n{end}")), 200);
    // A page in a browser of this machine, by a name that its owner points to 127.0.0.1.
    assert_eq!(ask(&format!("HTTP/1.1\r\nHost: rebound.example\r\n{end}")), 403);
    // nginx with nothing but proxy_pass.
    assert_eq!(ask(&format!("HTTP/1.0\r\nHost: 127.0.0.1:5000\r\n{end}")), 403);
}

#[test]
fn what_is_read_does_nothing_to_a_terminal() {
    let receiver = Site::new().start();
    let hostile = event("a", "x", json!({"note": "\u{9b}2J\u{202e}\u{7f}\u{1b}]0;ä"}));
    assert_eq!(
        receiver
            .post(&Post::events(std::slice::from_ref(&hostile)))
            .status,
        200
    );
    for path in ["/events", "/stats"] {
        let answer = receiver.get(path);
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!answer.body.contains(acts), "{:?}", answer.body);
        assert!(answer.body.contains('ä'));
    }
    assert_eq!(
        receiver.get("/events").json()["events"][0]["data"],
        hostile["data"]
    );
}

#[test]
fn the_log_goes_to_its_file_and_follows_its_name() {
    let site = Site::new();
    let log = site.path("webhook_handler.log");
    let site = site.with("LOG_FILE", log.to_str().unwrap());
    let receiver = site.start();
    let lines = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    assert!(within(5, || lines(&log).contains("listening on")));
    let moved = site.path("webhook_handler.log.1");
    fs::rename(&log, &moved).unwrap();
    receiver.signal(Signal::HUP);
    assert!(within(5, || log.exists()));
    let hostile = event("\u{1b}[2J\n", "x\u{1b}]0;", json!({}));
    assert_eq!(receiver.post(&Post::events(&[hostile])).status, 200);
    assert_eq!(
        receiver
            .post(&Post::of("{\"events\":[{\"event_type\":7}]}"))
            .status,
        400
    );
    assert!(within(5, || lines(&log).contains("1 events of 127.0.0.1")));
    let all = lines(&log) + &lines(&moved) + &receiver.log();
    assert!(!all.contains('\x1b') && !all.contains(KEY), "{all}");
}

#[test]
fn the_wire_is_the_documented_one() {
    let receiver = Site::new().start();
    let health = receiver.get("/health").json();
    assert_eq!(health["status"], "healthy");
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&health), ["status", "timestamp"]);
    let stats = receiver.get("/stats").json();
    assert_eq!(
        stats,
        json!({"event_counts": {}, "blocked_ip_count": 0, "recent_events": []})
    );
}
