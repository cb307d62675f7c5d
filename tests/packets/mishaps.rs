//! Mishaps: what an unlucky administrator, two impatient ones, or a crash at the wrong moment do to an engine.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, table};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::wire::Gun;
use crate::common::{count, ms, secs, within};

#[test]
fn a_control_socket_in_other_hands_is_found_before_any_rule_is_loaded() {
    let ns = Namespace::new("host");
    let home = Home::new(FIREWALL);
    let _other = UnixListener::bind(home.socket()).expect("a socket of the test's");
    let output = Engine::refuse(&ns, &home);
    assert_eq!(output.code(), 1, "{}", output.text());
    assert!(output.stderr.contains("control.sock"), "{}", output.stderr);
    assert_eq!(
        table(&ns),
        "",
        "rules were loaded by an engine that did not start"
    );
}

#[test]
fn a_failed_start_takes_its_control_socket_with_it() {
    let ns = Namespace::new("host");
    ns.nft("add table inet verdictd");
    let home = Home::new(FIREWALL);
    assert_eq!(Engine::refuse(&ns, &home).code(), 1);
    assert!(!home.socket().exists(), "a socket without an engine stays behind");
}

#[test]
fn of_two_engines_started_at_once_exactly_one_gets_the_table() {
    for _ in 0..count(4, 100) {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[80, 3306]);
        let homes = [Home::new(FIREWALL), Home::new(FIREWALL)];
        let mut engines = homes.each_ref().map(|home| {
            let mut command = home.command();
            command.stdout(Stdio::null()).stderr(Stdio::null());
            lab.host.inside(|| command.spawn()).expect("the built engine")
        });
        let mut lost = None;
        assert!(
            within(secs(10), || {
                lost = engines
                    .each_mut()
                    .map(|e| e.try_wait().expect("a child of ours"))
                    .iter()
                    .position(Option::is_some);
                lost.is_some()
            }),
            "both go on"
        );
        let won = 1 - lost.expect("one ended");
        let status = || homes[won].ctl(&["status"]);
        let healthy = within(secs(10), || status().code() == 0);
        let (text, works) = (
            status().text(),
            talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306),
        );
        for engine in &mut engines {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        assert!(healthy && works, "the one that is left: {text}");
    }
}

#[test]
fn killed_again_and_again_in_the_middle_of_its_start_it_starts_all_the_same() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let home = Home::new(FIREWALL);
    for round in 0..count(20, 500) {
        let mut command = home.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut engine = lab.host.inside(|| command.spawn()).expect("the built engine");
        // Over the whole of a start, which takes some 50 ms.
        thread::sleep(ms(round as u64 * 7 % 60));
        let _ = engine.kill();
        let _ = engine.wait();
    }
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert_eq!(engine.ctl(&["status"]).code(), 0, "{}", engine.log());
    let tables = lab.host.nft_list(&["list", "tables"]);
    assert_eq!(tables.trim(), "table inet verdictd", "throw-away tables are left");
    assert!(talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306));
}

#[test]
fn a_ban_that_the_kernel_refuses_is_no_ban() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, DETECTION);
    for length in 8..16 {
        engine.must(&["ban", &format!("20.0.0.0/{length}"), "--for", "1h"]);
    }
    let ninth = engine.ctl(&["ban", "20.0.0.0/16", "--for", "1h"]);
    assert_eq!(ninth.code(), 1, "{}", ninth.text());
    assert!(ninth.stderr.contains("8 prefix lengths"), "{}", ninth.stderr);
    assert_eq!(
        engine.bans().len(),
        8,
        "it was refused and is listed: {:?}",
        engine.bans()
    );
    assert_eq!(engine.ctl(&["unban", "20.0.0.0/16"]).code(), 1);
    assert_eq!(engine.ctl(&["status"]).code(), 0, "{}", engine.log());
    engine.must(&["ban", "30.0.0.0/8", "--for", "1h"]);
}

#[test]
fn bans_of_prefixes_outlive_a_kill_and_the_next_engine_knows_their_sets() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, DETECTION);
    engine.must(&["ban", "20.0.0.0/8", "--for", "1h"]);
    engine.must(&["ban", "2001:db8::/32", "--for", "1h"]);
    let before = engine.table();
    let home = engine.kill9();
    let engine = Engine::start_in(&ns, home, &[]);
    let status = engine.ctl(&["status"]);
    assert_eq!(status.code(), 0, "{}", status.text());
    assert_eq!(engine.table(), before);
    assert_eq!(engine.bans().len(), 2, "{:?}", engine.bans());
}

#[test]
fn a_flushed_ruleset_comes_back_and_takes_bans_of_every_length() {
    let ns = Namespace::new("host");
    let mut engine = Engine::start(&ns, DETECTION);
    engine.must(&["ban", "10.88.0.7", "--for", "1h"]);
    engine.must(&["ban", "20.0.0.0/8", "--for", "1h"]);
    ns.nft("flush ruleset");
    let healed = || {
        engine.ctl(&["status"]).code() == 0
            && engine.kernel_bans("banned4") == ["10.88.0.7"]
            && engine.kernel_bans("banned4_8").len() == 1
    };
    assert!(within(secs(2), healed), "{}", engine.log());
    engine.must(&["unban", "20.0.0.0/8"]);
    engine.must(&["ban", "30.0.0.0/9", "--for", "1h"]);
    assert_eq!(engine.bans().len(), 2, "{:?}", engine.bans());
    assert!(engine.alive());
}

#[test]
fn a_state_directory_that_is_a_file_is_named() {
    let ns = Namespace::new("host");
    let home = Home::new(FIREWALL);
    fs::remove_dir(home.state()).expect("a directory of ours");
    fs::write(home.state(), "").expect("a file of ours");
    let output = Engine::refuse(&ns, &home);
    let path = home.state().display().to_string();
    assert!(
        output.code() == 1 && output.stderr.contains(&path),
        "{}",
        output.text()
    );
    assert_eq!(table(&ns), "");
}

#[test]
fn a_ban_that_finds_the_set_full_holds_in_the_worker_and_is_told_by_status() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, &format!("{DETECTION}\n[engine]\nban_set_size = 2\n"));
    engine.must(&["ban", "20.0.0.1", "--for", "1h"]);
    engine.must(&["ban", "20.0.0.2", "--for", "1h"]);
    let third = engine.ctl(&["ban", "20.0.0.3", "--for", "1h"]);
    assert!(
        third.code() == 1 && third.stderr.contains("full"),
        "{}",
        third.text()
    );
    assert_eq!(engine.ctl(&["status"]).code(), 0, "nothing is left undone");

    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    engine.wait_ban(ATTACKER);
    assert!(
        !talks(&lab.attacker, HOST, 80),
        "the worker drops what the kernel does not"
    );
    let told = || engine.ctl(&["status"]);
    assert!(within(secs(2), || told().code() == 4), "{}", told().text());
    engine.must(&["unban", "20.0.0.1"]);
    assert!(
        within(secs(8), || engine
            .kernel_bans("banned4")
            .contains(&ATTACKER.into())),
        "{}",
        engine.log()
    );
    assert!(within(secs(8), || told().code() == 0), "{}", told().text());
}
