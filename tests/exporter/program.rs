//! The program by itself: what it answers, what it refuses, and what it says of an engine that is gone.

use std::process::Command;

use crate::common::command::run;
use crate::common::engine::{Engine, FIREWALL, Home, OBSERVING};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};
use crate::rig::Exporter;

use rustix::process::Signal;

#[test]
fn an_engine_that_is_gone_is_told_and_nothing_of_what_it_said() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let exporter = Exporter::start(&ns, engine.home());
    engine.must(&["ban", "203.0.113.9"]);
    let all = exporter.scrape();
    assert_eq!(all.faults(), "");
    assert_eq!(all.get("verdictd_up"), Some(1.0), "{all:?}");
    assert_eq!(
        all.get("verdictd_active_bans{family=\"ipv4\",tier=\"1\"}"),
        Some(1.0)
    );
    assert_eq!(all.get("verdictd_bans_total{reason=\"manual\"}"), Some(1.0));

    let home = engine.kill9();
    let down = exporter.scrape();
    assert_eq!(down.faults(), "");
    let names: Vec<&str> = down.all().into_keys().collect();
    let told = |name: &&&str| {
        !name.starts_with("verdictd_scrape_") && !name.starts_with("verdictd_exporter_build_info")
    };
    assert_eq!(names.iter().filter(told).collect::<Vec<_>>(), [&"verdictd_up"]);
    assert_eq!(down.get("verdictd_up"), Some(0.0));

    // Another engine in its place: what it counts begins anew, the bans are still there.
    let mut engine = Engine::start_in(&ns, home, &[]);
    let again = exporter.scrape();
    assert_eq!(again.get("verdictd_up"), Some(1.0));
    assert_eq!(again.get("verdictd_bans_total{reason=\"manual\"}"), Some(0.0));
    assert_eq!(
        again.get("verdictd_active_bans{family=\"ipv4\",tier=\"1\"}"),
        Some(1.0)
    );

    // Hung, it is down too, and up again when it answers.
    engine.signal(Signal::STOP);
    let hung = exporter.scrape();
    engine.signal(Signal::CONT);
    assert_eq!(hung.get("verdictd_up"), Some(0.0));
    assert_eq!(hung.get("verdictd_uptime_seconds"), None);
    let up = || exporter.scrape().get("verdictd_up") == Some(1.0);
    assert!(within(secs(30), up));
    assert_eq!(exporter.stop(), 0);
}

#[test]
fn there_is_one_page_and_what_is_told_of_an_observing_engine_is_well_formed() {
    let ns = Namespace::new("host");
    let endpoint = "[webhooks]\nenabled = true\n[[webhooks.endpoints]]\nname = \"SOC \\\"one\\\"\"\n\
                    url = \"https://token:secret@soc.example.invalid/path-token?key=hidden\"\n";
    let engine = Engine::start(&ns, &format!("{OBSERVING}\n{endpoint}"));
    let exporter = Exporter::start(&ns, engine.home());
    let all = exporter.scrape();
    assert_eq!(all.faults(), "");
    assert_eq!(all.get("verdictd_enforce"), Some(0.0));
    assert_eq!(
        all.get("verdictd_webhook_dead_letters{endpoint=\"SOC \\\"one\\\"\"}"),
        Some(0.0),
        "{all:?}"
    );
    for secret in ["secret", "token", "hidden", "soc.example"] {
        assert!(!all.0.contains(secret), "{secret} is told");
    }

    let (head, body) = exporter.request("GET /");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body.contains("/metrics"),
        "{head}\n{body}"
    );
    let (head, body) = exporter.request("HEAD /metrics");
    assert!(
        head.contains("text/plain; version=0.0.4") && body.is_empty(),
        "{head}\n{body}"
    );
    for path in ["/metrics/", "/METRICS", "/..", "/metrics/../x", "*"] {
        let (head, _) = exporter.request(&format!("GET {path}"));
        assert!(head.starts_with("HTTP/1.1 40"), "{path}: {head}");
    }
    let (head, _) = exporter.request("POST /metrics");
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(
        exporter
            .request("GET /metrics?x=1")
            .0
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn what_it_cannot_or_must_not_do_is_refused_in_words() {
    let home = Home::new(FIREWALL);
    let refused = |args: &[&str], code: i32, words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command
            .arg("--socket")
            .arg(home.socket())
            .arg("exporter")
            .args(args);
        let output = run(&mut command, secs(30));
        assert_eq!(output.code(), code, "{args:?}: {}", output.text());
        assert!(output.stderr.contains(words), "{args:?}: {}", output.text());
    };
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9590", "[::ffff:127.0.0.1]:0"] {
        refused(&["--listen", open], 2, "--public");
    }
    refused(&["--listen", "9590"], 2, "--listen");
    refused(&["--every", "15s"], 2, "--textfile");
    refused(&["--textfile", "x.prom", "--every", "10ms"], 2, "--every");
    refused(&["--textfile", "x.prom", "--every", "0s"], 2, "between 1s and 1h");
    refused(&["--textfile", "x.prom", "--every", "2h"], 2, "between 1s and 1h");
    refused(&["--textfile", "x.txt"], 2, ".prom");
    refused(
        &["--textfile", "x.prom", "--listen", "127.0.0.1:1"],
        2,
        "--listen",
    );
    refused(&["--textfile", "/nowhere/x.prom"], 1, "/nowhere/x.prom");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let held = std::net::TcpListener::bind(&taken);
    refused(&["--listen", &taken], 1, "cannot listen");
    drop(held);
}

/// What the engine does not need is not linked into it.
#[test]
fn no_http_server_and_no_runtime_is_linked_into_the_engine() {
    let symbols = |program: &str| {
        let output = run(Command::new("nm").args(["--demangle", program]), secs(60));
        assert_eq!(output.code(), 0, "{}", output.stderr);
        let of = |name: &str| output.stdout.lines().filter(|line| line.contains(name)).count();
        (of("hyper::"), of("tokio::"))
    };
    assert_eq!(symbols(env!("CARGO_BIN_EXE_verdictd")), (0, 0));
    let (hyper, tokio) = symbols(env!("CARGO_BIN_EXE_verdictctl"));
    assert!(hyper > 0 && tokio > 0, "or this test looks for the wrong words");
}
