//! Peers and files that are out to hold it up.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;

use super::many;
use super::rig::{Post, Receiver, Site, event, within};

/// More than the receiver has room for.
const CROWD: usize = 700;

#[test]
fn peers_that_never_finish_keep_nobody_out() {
    let receiver = Site::new().start();
    let begun = [
        "POST /webhook HTT",
        "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n{",
    ];
    let mut crowd = Vec::new();
    for round in 0..4 {
        for at in 0..CROWD {
            let mut stream = TcpStream::connect(receiver.address).unwrap();
            // It may have made room already for those after it.
            let _ = stream.write_all(begun[at % 2].as_bytes());
            crowd.push(stream);
        }
        let begun = Instant::now();
        let post = Post::events(&[event(&round.to_string(), "x", json!({}))]);
        assert_eq!(receiver.post(&post).status, 200);
        // Half of what a begun request may take.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(receiver.stored(), 4);
}

#[test]
fn a_peer_that_never_reads_does_not_keep_it_from_stopping() {
    let receiver = Site::new().start();
    let mut deaf = TcpStream::connect(receiver.address).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let asked = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
    while deaf.write_all(asked.as_bytes()).is_ok() {}
    let post = Post::events(&many(1, "x", ""));
    assert_eq!(receiver.post(&post).status, 200);
    assert_eq!(receiver.stop(), Some(0));
}

/// Parsed JSON takes some thirty times the room of its text: what waits must not be kept in that form.
#[test]
fn large_requests_at_once_take_little_memory() {
    let site = Site::new();
    let receiver = site.start();
    let send_one = &|at: usize| {
        let zeros = "0,".repeat(400_000);
        let body = format!("{{\"events\":[{{\"id\":\"{at}\",\"event_type\":\"x\",\"data\":[{zeros}0]}}]}}");
        assert!(within(100, || receiver.post(&Post::of(body.clone())).status == 200));
    };
    // While somebody else holds the lock, all that came is waiting to be written.
    let other = Connection::open(site.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        (0..16).for_each(|at| _ = scope.spawn(move || send_one(at)));
        thread::sleep(Duration::from_secs(5));
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert_eq!(receiver.stored(), 16);
    assert!(receiver.peak_kib() < 200 * 1024, "{} KiB", receiver.peak_kib());
}

#[test]
fn a_write_ahead_log_that_was_deleted_is_not_written_on() {
    let site = Site::new();
    let receiver = site.start();
    assert_eq!(receiver.post(&Post::events(&many(1, "x", "a"))).status, 200);
    fs::remove_file(site.path("events.db-wal")).unwrap();
    let post = Post::events(&many(1, "x", "b"));
    // A 200 would be for what is gone after kill -9.
    assert_eq!(
        (receiver.post(&post).status, receiver.get("/health").status),
        (503, 503)
    );
    // It still holds the deleted file, and an orderly stop brings that into the database.
    assert_eq!(receiver.stop(), Some(0));
    let receiver = site.start();
    assert_eq!(receiver.post(&post).status, 200);
    assert_eq!(receiver.stored(), 2);
}

#[test]
fn events_are_forgotten_when_their_time_is_over() {
    let site = Site::new().with("RETENTION_DAYS", "30");
    let receiver = site.start();
    let events = many(1_300, "ip_blocked", "");
    assert_eq!(receiver.post(&Post::events(&events)).status, 200);
    assert_eq!(receiver.stop(), Some(0));
    let day = 86_400_000;
    let aged = format!(
        "UPDATE events SET received = received - (CASE WHEN seq <= 1290 THEN 31 ELSE 29 END) * {day}"
    );
    Connection::open(site.database())
        .unwrap()
        .execute(&aged, [])
        .unwrap();
    let receiver: Receiver = site.start();
    let left = || {
        receiver.get("/events?limit=500").json()["events"]
            .as_array()
            .unwrap()
            .len()
    };
    assert!(within(20, || left() == 10), "{}", receiver.log());
    assert!(
        within(5, || receiver
            .log()
            .contains("1290 events forgotten, older than 30 days")),
        "{}",
        receiver.log()
    );
    assert_eq!(receiver.get("/health").status, 200);
}
