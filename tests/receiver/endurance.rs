//! What was answered 200 is in the database, whatever happens to either.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::json;

use super::many;
use super::rig::{Post, Receiver, Site, event, read_answer, run, within};

#[test]
fn an_event_outlives_kill_9_right_after_its_200() {
    let site = Site::new();
    for round in 0..5 {
        let mut receiver = site.start();
        let events = many(20, "connection_attempt", &format!("{round}-"));
        assert_eq!(receiver.post(&Post::events(&events)).status, 200);
        receiver.child.kill().unwrap();
        receiver.child.wait().unwrap();
    }
    let stored: i64 = Connection::open(site.database())
        .unwrap()
        .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
        .unwrap();
    assert_eq!(stored, 100);
    assert_eq!(site.start().stored(), 100);
}

#[test]
fn a_locked_database_is_503_and_loses_nothing() {
    let site = Site::new();
    let receiver = site.start();
    let post = Post::events(&many(3, "x", ""));
    let other = Connection::open(site.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = receiver.post(&post);
    assert_eq!(
        (answer.status, &*answer.body),
        (503, r#"{"error":"Database unavailable"}"#)
    );
    assert!(answer.head.contains("retry-after: 5"), "{answer:?}");
    assert_eq!(receiver.get("/health").status, 503);
    // Who reads is not kept out by who writes.
    assert_eq!(receiver.stored(), 0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(receiver.post(&post).status, 200);
    assert!(within(5, || receiver.get("/health").status == 200));
    assert_eq!(receiver.stored(), 3);
}

#[test]
fn a_full_disk_is_503_until_there_is_room() {
    let site = Site::new();
    let folder = site.path("small");
    fs::create_dir(&folder).unwrap();
    // In a mount namespace of its own: nobody else sees the file system, and it goes with the program.
    let script = format!(
        "mount -t tmpfs -o size=600k none {0} && exec \"$@\"",
        folder.display()
    );
    let serve = site.command();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", &script, "sh"])
        .arg(serve.get_program())
        .args(serve.get_args());
    command
        .envs(site.variables.iter().cloned())
        .env("DATABASE_PATH", folder.join("events.db"));
    let receiver = Receiver::start(&mut command, &site.path("stderr"));

    let large = |id: usize| Post::events(&[event(&format!("{id}"), "x", json!("y".repeat(50_000)))]);
    let statuses: Vec<u16> = (0..20).map(|id| receiver.post(&large(id)).status).collect();
    let taken = statuses.iter().filter(|status| **status == 200).count();
    assert!(taken > 0 && statuses.last() == Some(&503), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(receiver.get("/health").status, 503);
    assert_eq!(receiver.stored(), taken as u64);

    let pid = receiver.child.id().to_string();
    let larger = [
        "--target",
        &*pid,
        "--mount",
        "mount",
        "-o",
        "remount,size=64m",
        folder.to_str().unwrap(),
    ];
    let (text, code) = run(Command::new("nsenter").args(larger));
    assert_eq!(code, 0, "{text}");
    assert!((0..20).all(|id| receiver.post(&large(id)).status == 200));
    assert!(within(5, || receiver.get("/health").status == 200));
    assert_eq!(receiver.stored(), 20);
}

#[test]
fn a_thousand_copies_at_once_are_one_event() {
    let receiver = Site::new().start();
    let post = Post::events(&many(2, "ip_blocked", ""));
    thread::scope(|scope| {
        for _ in 0..250 {
            scope.spawn(|| {
                for _ in 0..4 {
                    // 503 is "come again", which is what a sender does.
                    assert!(within(30, || match receiver.post(&post).status {
                        200 => true,
                        503 => false,
                        other => panic!("answered {other}"),
                    }));
                }
            });
        }
    });
    assert_eq!(receiver.stored(), 2);
    assert_eq!(
        receiver.get("/blocked").json()["blocked"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_request_in_flight_is_finished_before_it_stops() {
    let site = Site::new();
    let receiver = site.start();
    let bytes = Post::events(&many(1, "x", "")).bytes("/webhook");
    let (first, rest) = bytes.split_at(bytes.len() - 10);
    let mut stream = TcpStream::connect(receiver.address).unwrap();
    stream.write_all(first).unwrap();
    thread::sleep(Duration::from_millis(200));
    receiver.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(200));
    stream.write_all(rest).unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
    assert_eq!(receiver.stop(), Some(0));
    assert_eq!(site.start().stored(), 1);
}

#[test]
fn a_database_that_was_moved_away_is_not_written_on() {
    let site = Site::new();
    let receiver = site.start();
    fs::rename(site.database(), site.path("moved.db")).unwrap();
    let post = Post::events(&many(1, "x", ""));
    assert_eq!(
        (receiver.post(&post).status, receiver.get("/health").status),
        (503, 503)
    );
    assert!(receiver.log().contains("was moved, deleted or replaced"));
    fs::rename(site.path("moved.db"), site.database()).unwrap();
    assert_eq!(receiver.post(&post).status, 200);
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let site = Site::new();
    let other = Connection::open(site.database()).unwrap();
    other.execute_batch("CREATE TABLE blocked_ips (ip TEXT)").unwrap();
    let (text, code) = run(&mut site.command());
    assert_eq!(code, 1);
    assert!(
        text.contains("another program (it has a table \"blocked_ips\")"),
        "{text}"
    );
}
