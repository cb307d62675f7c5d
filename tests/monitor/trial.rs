//! A functional test that fails.

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use crate::common::engine::DETECTION;
use crate::common::namespace::Namespace;
use crate::common::peers::{events_of, read_request};
use crate::common::{secs, within};
use crate::rig::Rig;

/// A receiver on port 9999 of a namespace's loopback; what it heard.
fn receiver(ns: &Namespace) -> Arc<Mutex<Vec<Value>>> {
    let listener = ns
        .inside(|| TcpListener::bind("127.0.0.1:9999"))
        .expect("a free port");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&heard);
    // Ends with the test program.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok((_, body)) = read_request(&stream) else {
                continue;
            };
            events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(events_of(&body));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    heard
}

const WEBHOOK: &str = "[webhooks]\nenabled = true\nbatch_timeout = 1\n[[webhooks.endpoints]]\nname = \"soc\"\n\
                       url = \"http://127.0.0.1:9999/webhook\"\n";

/// In front of everything of ours: what the scanner sends never arrives.
const FOREIGN: &str = "table inet foreign { chain first { type filter hook prerouting priority -400; \
                       ip saddr { 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 } drop; }; }";

#[test]
fn a_failed_self_test_restarts_once_tells_and_does_not_loop() {
    let rig = Rig::new(&format!("{DETECTION}{WEBHOOK}"));
    let heard = receiver(&rig.ns);
    let count = |kind: &str| {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|event| event["event_type"] == kind).count()
    };
    rig.ns.nft(FOREIGN);
    rig.must("start", &[]);
    let first = rig.engine();
    rig.must("monitor", &["--every=1s", "--selftest-every=3s"]);
    let failed = |view: &Value| view["selftest"]["passed"] == false;
    let view = rig.wait_view("a failed test", failed);
    let second = rig.wait_engine(first);
    assert_eq!(view["restarts"], 1, "{view}");
    assert!(within(secs(20), || count("selftest_failed") == 1), "{heard:?}");
    let status = rig.status();
    assert_eq!(status.code(), 4, "{}", status.text());
    assert!(status.stdout.contains("self-test failed: "), "{}", status.text());
    // It is tried again, nothing more is done about it, and nobody is told twice.
    let last = view["selftest"]["last"].clone();
    rig.wait_view("another try", |view| view["selftest"]["last"] != last);
    assert_eq!((rig.engine(), count("selftest_failed")), (Some(second), 1));
    // Also after the monitor is started again.
    let monitor = rig.monitor().expect("a monitor");
    crate::rig::signal(monitor, rustix::process::Signal::TERM);
    assert!(within(secs(20), || rig.monitor().is_none()));
    rig.must("monitor", &["--every=1s", "--selftest-every=3s"]);
    let last = rig.view()["selftest"]["last"].clone();
    rig.wait_view("another try", |view| view["selftest"]["last"] != last);
    assert_eq!((rig.engine(), count("selftest_failed")), (Some(second), 1));
    rig.ns.nft("delete table inet foreign");
    rig.wait_view("a passed test", |view| view["selftest"]["passed"] == true);
    assert!(
        within(secs(10), || rig.status().code() == 0),
        "{}",
        rig.status().text()
    );
}
