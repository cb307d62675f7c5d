//! Slow, silent, broken and many clients: a scrape gets through, the exporter stays small, the engine does not notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::common::engine::{Engine, FIREWALL};
use crate::common::namespace::Namespace;
use crate::common::{count, ms, secs, within};
use crate::rig::Exporter;

#[test]
fn a_thousand_silent_connections_keep_no_scraper_out() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let exporter = Exporter::start(&ns, engine.home());
    let files = || {
        let pid = exporter.pid();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let mut silent: Vec<TcpStream> = Vec::new();
    for n in 0..count(1000, 5000) {
        let mut one = exporter.connect().unwrap();
        // Half of them have begun to ask.
        if n % 2 == 0 {
            let _ = one.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
        }
        silent.push(one);
        if n % 250 == 0 {
            assert_eq!(exporter.scrape().get("verdictd_up"), Some(1.0));
        }
    }
    assert_eq!(exporter.scrape().get("verdictd_up"), Some(1.0));
    assert!(files() < 160, "{} descriptors", files());
    assert!(exporter.status("Threads") <= 4);
    assert!(engine.must(&["stats"]).contains("verdict"));
    // They lose their places by themselves as well.
    assert!(within(secs(30), || files() < 20), "{} descriptors", files());
    drop(silent);
    assert_eq!(exporter.stop(), 0);
}

#[test]
fn many_scrapes_at_a_time_are_all_answered() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let exporter = Exporter::start(&ns, engine.home());
    thread::scope(|scope| {
        let scrapers: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| exporter.scrape().get("verdictd_up")))
            .collect();
        for scraper in scrapers {
            assert_eq!(scraper.join().unwrap(), Some(1.0));
        }
    });
}

#[test]
fn garbage_and_drips_do_no_harm() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let exporter = Exporter::start(&ns, engine.home());
    let mut drip = exporter.connect().unwrap();
    let mut reader = exporter.connect().unwrap();
    reader
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let dripping = thread::spawn(move || {
        while drip.write_all(b"x").is_ok() {
            thread::sleep(ms(100));
        }
    });
    // xorshift64: random enough, and the same bytes every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let byte = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(byte).collect()
    };
    for round in 0..count(50, 1000) {
        let mut bytes = random(round * 7);
        bytes.extend(b"\r\n\r\n");
        let (head, _) = exporter.raw(&bytes);
        assert!(!head.contains(" 200 "), "{head}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(2_000));
    for bad in [
        long.as_str(),
        many.as_str(),
        "GET /metrics\r\n\r\n",
        "GET /metrics HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzzz",
    ] {
        let _ = exporter.raw(bad.as_bytes());
    }
    // A body that never comes, and requests one behind the other: one is answered, then it is over.
    let (head, _) =
        exporter.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"),
        "{head}"
    );
    assert_eq!(exporter.scrape().get("verdictd_up"), Some(1.0));
    dripping.join().unwrap();
    // Who reads late gets what was true when it asked.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("verdictd_up 1"), "{text}");
    assert!(
        exporter.status("VmRSS") < 64 * 1024,
        "{} KiB",
        exporter.status("VmRSS")
    );
}
