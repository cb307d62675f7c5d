//! Nothing stays, also of a tester or an engine that dies in the middle, and nobody is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use verdictd::control::client::Client;
use verdictd::control::wire::{Reply, Request};

use crate::common::engine::{CORPORATE, DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};
use crate::rig::{self, Traces};

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process");
    kill_process(pid, signal).expect("a child of ours");
}

/// A self-test that has just had its source banned.
fn in_the_middle(ns: &Namespace, engine: &Engine<'_>) -> Child {
    let mut command = rig::command(engine);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = ns.inside(|| command.spawn()).expect("the built tester starts");
    assert!(
        within(secs(10), || !engine.kernel_bans("banned4").is_empty()),
        "{}",
        engine.log()
    );
    child
}

#[test]
fn nobody_is_told() {
    let ns = Namespace::new("self");
    let listener = ns
        .inside(|| TcpListener::bind("127.0.0.1:9999"))
        .expect("a free port");
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            hears
                .lock()
                .expect("no panic")
                .push_str(&String::from_utf8_lossy(&body));
        }
    });
    let webhooks = "[webhooks]\nenabled = true\nbatch_timeout = 1\n[[webhooks.endpoints]]\nname = \"soc\"\n\
                    url = \"http://127.0.0.1:9999/webhook\"\n";
    for config in [DETECTION, CORPORATE] {
        for enforce in [true, false] {
            let config = config.replace("enforce = true", &format!("enforce = {enforce}"));
            let engine = Engine::start(&ns, &format!("{config}{webhooks}"));
            rig::proved(&ns, &engine);
            rig::nothing_is_written(&engine);
            drop(engine); // what is in the spool is sent
        }
    }
    let text = || heard.lock().expect("no panic").clone();
    assert!(
        within(secs(10), || text().matches("firewall_started").count() == 4),
        "{}",
        text()
    );
    for word in [
        "192.0.2.",
        "198.51.100.",
        "203.0.113.",
        "ip_blocked",
        "connection_attempt",
        "ruleset_wiped",
    ] {
        assert!(!text().contains(word), "{word}: {}", text());
    }
}

#[test]
fn a_signal_ends_it_and_takes_all_away() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, DETECTION);
    let before = Traces::of(&ns, &engine);
    for kind in [Signal::INT, Signal::TERM] {
        let child = in_the_middle(&ns, &engine);
        signal(&child, kind);
        let output = child.wait_with_output().expect("a child of ours");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("interrupted"),
            "{output:?}"
        );
        assert_eq!(Traces::of(&ns, &engine), before);
    }
}

#[test]
fn a_tester_that_is_killed_leaves_nothing_after_thirty_seconds() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, DETECTION);
    let before = Traces::of(&ns, &engine);
    let mut child = in_the_middle(&ns, &engine);
    signal(&child, Signal::KILL);
    child.wait().expect("a child of ours");
    assert!(
        !ns.must("ip", &["address"]).contains("vdself"),
        "the device goes with its descriptor"
    );
    let second = rig::failed(&ns, &engine);
    assert!(second["seen"].to_string().contains("under way"), "{second}");
    assert!(within(secs(32), || engine.bans().is_empty()), "{}", engine.log());
    assert!(within(secs(10), || Traces::of(&ns, &engine) == before));
    rig::nothing_is_written(&engine);
    // The ban ends some milliseconds before the test that it belonged to.
    assert!(
        within(secs(5), || rig::run(&ns, &engine).code() == 0),
        "{}",
        engine.log()
    );
}

#[test]
fn an_engine_that_is_killed_in_the_middle_leaves_nothing_to_the_next() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, FIREWALL);
    let child = in_the_middle(&ns, &engine);
    let home = engine.kill9();
    let output = child.wait_with_output().expect("a child of ours");
    assert_ne!(output.status.code(), Some(0));
    let engine = Engine::start_in(&ns, home, &[]);
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    assert_eq!(engine.kernel_bans("banned4"), Vec::<String>::new());
    rig::nothing_is_written(&engine);
}

#[test]
fn a_reload_in_the_middle_brings_nothing_to_light() {
    let ns = Namespace::new("self");
    for after in [DETECTION, OBSERVING] {
        let engine = Engine::start(&ns, DETECTION);
        let child = in_the_middle(&ns, &engine);
        signal(&child, Signal::STOP);
        engine.home().write_config(after);
        engine.must(&["reload"]);
        signal(&child, Signal::CONT);
        let output = child.wait_with_output().expect("a child of ours");
        // What it proves under another policy depends on how far it was.
        assert!(after == OBSERVING || output.status.success(), "{output:?}");
        assert!(engine.bans().is_empty());
        assert_eq!(engine.json("stats")["bans"]["total"], 0);
        rig::nothing_is_written(&engine);
        rig::proved(&ns, &engine);
    }
}

#[test]
fn an_engine_that_is_restarted_in_the_middle_is_not_scanned_in_earnest() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, DETECTION);
    let child = in_the_middle(&ns, &engine);
    signal(&child, Signal::STOP);
    let home = engine.kill9();
    let engine = Engine::start_in(&ns, home, &[]);
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().expect("a child of ours");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(engine.bans().is_empty());
    rig::nothing_is_written(&engine);
    rig::proved(&ns, &engine);
}

/// Who could call any source tested could hide its bans.
#[test]
fn no_source_but_a_documentation_address_is_tested() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, DETECTION);
    let client = Client::find(Some(engine.home().socket()));
    let begin = |source: &str| {
        let reply = client.ask(&Request::SelftestBegin {
            source: source.parse().expect("an address"),
            witness: "192.0.2.3".parse().expect("an address"),
        });
        match reply.expect("an answer") {
            Reply::Refused { message } => message,
            other => panic!("{source}: {other:?}"),
        }
    };
    for source in ["10.77.0.1", "8.8.8.8", "2001:db8::1"] {
        assert!(begin(source).contains("of no documentation range"), "{source}");
    }
    assert!(
        begin("192.0.2.3").contains("both"),
        "one cannot be its own witness"
    );
    let ended = client.ask(&Request::SelftestEnd {}).expect("an answer");
    assert!(matches!(ended, Reply::Refused { .. }), "{ended:?}");
    drop(engine);
}
