//! Reload under traffic: no ban, no evidence, no connection lost, and a bad file changes nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use verdictd::config;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::flow::{pings, talks};
use crate::common::lab::{ATTACKER, CLIENT, HOST, Lab};
use crate::common::mutate::{Dice, mutated};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::Gun;
use crate::common::{count, ms, secs, within};

#[test]
fn a_reload_says_in_words_what_changed() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 8080]);
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "203.0.113.0/24", "--for", "1h"]);
    assert_eq!(engine.must(&["reload"]).trim(), "reloaded, nothing changed");
    engine.must(&["status"]); // a set made for a prefix is as it should be
    assert_eq!(engine.kernel_bans("banned4_24").len(), 1);
    assert!(!talks(&lab.attacker, HOST, 8080));

    engine
        .home()
        .write_config(&FIREWALL.replace("443]", "443, 8080]"));
    let told = engine.must(&["reload"]);
    assert!(
        told.contains("allowed_ports.tcp: 22, 80, 443 → 22, 80, 443, 8080"),
        "{told}"
    );
    assert!(talks(&lab.attacker, HOST, 8080), "{}", engine.log());
}

#[test]
fn a_bad_file_changes_nothing_by_reload_or_by_signal() {
    let lab = Lab::new();
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "203.0.113.9", "--for", "1h"]);
    let before = engine.json("status");
    for bad in [
        "[firewall]\nmode = \"strict\"\n",
        "[firewall\n",
        "[allowed_ports]\ntcp = [70000]\n",
    ] {
        engine.home().write_config(bad);
        let output = engine.ctl(&["reload"]);
        assert_eq!(output.code(), 1, "{}", output.text());
        assert!(
            output.text().contains("verdictd.toml:"),
            "the line is named: {}",
            output.text()
        );
        engine.signal(Signal::HUP);
        assert!(within(secs(3), || engine
            .log()
            .contains("everything stays as it was")));
        let after = engine.json("status");
        for what in ["mode", "preset", "table", "queues", "seed", "bans", "protected"] {
            assert_eq!(before[what], after[what], "{what} after {bad:?}");
        }
    }
    assert_eq!(engine.kernel_bans("banned4"), ["203.0.113.9"]);
}

/// Of a thousand mutated files those that `check` refuses, each by a reload of its own.
#[test]
fn a_thousand_mutated_files_change_nothing_by_reload() {
    let host = Namespace::new("host");
    let mut engine = Engine::start(&host, FIREWALL);
    engine.must(&["ban", "203.0.113.9", "--for", "1h"]);
    let (table, path) = (engine.table(), engine.home().config());
    let (mut dice, mut refused) = (Dice::new(0x0bad_5eed), 0);
    for round in 0..1_000 {
        let text = mutated(FIREWALL, &mut dice);
        fs::write(&path, &text).expect("a file of ours");
        // What is no UTF-8 is refused when the file is read.
        if std::str::from_utf8(&text).is_ok_and(|text| config::parse(text, Path::new("f.toml")).is_ok()) {
            continue;
        }
        refused += 1;
        let output = engine.ctl(&["reload"]);
        let said = || {
            format!(
                "round {round}: {}\n{}",
                output.text(),
                String::from_utf8_lossy(&text)
            )
        };
        assert_eq!(output.code(), 1, "{}", said());
        assert!(output.stderr.contains("verdictd.toml:"), "no line: {}", said());
    }
    assert!(refused > 500, "only {refused} of 1000 were refused");
    assert!(engine.alive(), "{}", engine.log());
    assert!(!engine.log().contains("panicked"), "{}", engine.log());
    assert_eq!(engine.table(), table);
    assert_eq!(engine.kernel_bans("banned4"), ["203.0.113.9"]);
    let status = engine.json("status");
    assert_eq!(
        (&status["mode"], &status["preset"], &status["enforce"]),
        (&"firewall".into(), &"standard".into(), &true.into())
    );
    engine.home().write_config(FIREWALL);
}

#[test]
fn reloads_under_traffic_lose_no_connection_and_leak_no_banned_packet() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let witness = Witness::new(&lab.attacker);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    // While it runs it would take out what no ban stands behind.
    let home = engine.stop();
    let elements: Vec<String> = (0..10_000)
        .map(|n| format!("198.18.{}.{} timeout 1h", n / 250, n % 250))
        .collect();
    for some in elements.chunks(1_000) {
        let some = some.join(",");
        lab.host
            .nft(&format!("add element inet verdictd banned4 {{ {some} }}"));
    }
    let engine = Engine::start_in(&lab.host, home, &[]);

    let going = AtomicBool::new(true);
    // Also when an assertion fails: the scope waits for its threads.
    struct StopAtEnd<'a>(&'a AtomicBool);
    impl Drop for StopAtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }
    let (made, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
            while going.load(Ordering::Relaxed) {
                gun.syns([80]);
                thread::sleep(ms(1));
            }
        });
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                let counter = if talks(lab.client(), HOST, 80) {
                    &made
                } else {
                    &failed
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = StopAtEnd(&going);
        let other = FIREWALL
            .replace("443]", "443, 6000]")
            .replace("standard", "lenient");
        for turn in 0..count(20, 200) {
            engine
                .home()
                .write_config(if turn % 2 == 0 { &other } else { FIREWALL });
            engine.must(&["reload"]);
        }
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "{}", engine.log());
    assert!(made.load(Ordering::Relaxed) > 20, "the client hardly connected");
    assert!(witness.answered().is_empty(), "a banned source was answered");
    assert_eq!(engine.kernel_bans("banned4").len(), 10_001);
    assert!(engine.ban_of(CLIENT).is_none());
}

#[test]
fn switching_enforcement_loses_neither_evidence_nor_bans() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, DETECTION);
    engine.must(&["ban", "203.0.113.9", "--for", "1h"]);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    gun.syns(6001..=6005);
    assert!(within(secs(3), || engine.json("stats")["reasons"]["counted"] == 5));

    // Off: what was counted stays counted, and the offence is only recorded.
    engine.home().write_config(OBSERVING);
    engine.must(&["reload"]);
    assert!(
        !engine.table().contains("queue num"),
        "observing holds nothing\n{}",
        engine.table()
    );
    gun.syns(6006..=6008);
    let recorded = engine.wait_ban(ATTACKER);
    assert_eq!(recorded["enforced"], false, "{recorded}");
    assert!(talks(&lab.attacker, HOST, 80), "nothing is dropped");
    assert_eq!(
        engine.kernel_bans("banned4"),
        ["203.0.113.9"],
        "an operator's ban stays"
    );

    // On: the recorded offender is banned for what is left of it.
    engine.home().write_config(DETECTION);
    engine.must(&["reload"]);
    assert!(
        within(secs(2), || engine.kernel_bans("banned4").len() == 2),
        "{}",
        engine.log()
    );
    let ban = engine.ban_of(ATTACKER).expect("it is listed");
    assert_eq!(
        (&ban["enforced"], &ban["step"]),
        (&true.into(), &1.into()),
        "{ban}"
    );
    assert!(!pings(&lab.attacker, HOST, 1));

    // Off again: the earned ban is lifted in the kernel and stays on record.
    engine.home().write_config(OBSERVING);
    engine.must(&["reload"]);
    assert!(within(secs(2), || engine.kernel_bans("banned4") == ["203.0.113.9"]));
    assert_eq!(
        engine.ban_of(ATTACKER).expect("it is on record")["enforced"],
        false
    );
    assert!(talks(&lab.attacker, HOST, 80));
}

#[test]
fn a_reload_may_go_from_watching_to_filtering_and_back_under_traffic() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let engine = Engine::start(&lab.host, OBSERVING);
    for turn in 0..6 {
        let (config, filtered) = if turn % 2 == 0 {
            (FIREWALL, true)
        } else {
            (OBSERVING, false)
        };
        engine.home().write_config(config);
        engine.must(&["reload"]);
        assert!(talks(lab.client(), HOST, 80), "turn {turn}\n{}", engine.log());
        assert_eq!(
            talks(lab.client(), HOST, 3306),
            !filtered,
            "turn {turn}\n{}",
            engine.log()
        );
        let status = engine.json("status");
        assert_eq!(status["degraded"], serde_json::json!([]), "turn {turn}: {status}");
    }
}
