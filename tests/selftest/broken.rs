//! It fails where something is wrong, and says what.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, OBSERVING};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};
use crate::rig::{self, LIMIT, Traces};

/// An engine that leaves its table as it is, so that a test can break it.
fn unmanaged<'a>(ns: &'a Namespace, config: &str) -> Engine<'a> {
    let numbers = "\n[engine]\nworkers = 1\nqueue_base = 4100\nlog_base = 4100\n";
    let managed = Engine::start(ns, &format!("{config}{numbers}"));
    let home = managed.stop();
    home.write_config(&format!("{config}{numbers}manage_ruleset = false\n"));
    Engine::start_in(ns, home, &[])
}

#[test]
fn a_rule_that_leads_nowhere_fails() {
    for config in [DETECTION, FIREWALL] {
        let ns = Namespace::new("self");
        let engine = unmanaged(&ns, config);
        rig::proved(&ns, &engine);
        ns.nft("flush chain inet verdictd q0");
        let failed = rig::failed(&ns, &engine);
        assert_eq!(failed["step"], "counted", "{failed}");
        assert!(
            failed["look_at"].to_string().contains("verdictctl status"),
            "{failed}"
        );
        assert!(engine.bans().is_empty());
    }
}

#[test]
fn copies_that_nobody_gets_fail() {
    let ns = Namespace::new("self");
    let engine = unmanaged(&ns, OBSERVING);
    rig::proved(&ns, &engine);
    ns.nft("flush chain inet verdictd watch");
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "counted", "{failed}");
}

#[test]
fn a_set_that_is_gone_fails() {
    let ns = Namespace::new("self");
    let engine = unmanaged(&ns, DETECTION);
    // A set goes only with the rules that look at it.
    ns.nft("flush chain inet verdictd raw");
    let rules = ns.nft_list(&["-a", "list", "chain", "inet", "verdictd", "pre"]);
    for rule in rules.lines().filter(|rule| rule.contains("@banned4")) {
        let handle = rule.rsplit("# handle ").next().expect("a handle").trim();
        ns.nft(&format!("delete rule inet verdictd pre handle {handle}"));
    }
    ns.nft("delete set inet verdictd banned4");
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "banned", "{failed}");
    assert!(failed["seen"].to_string().contains("banned4"), "{failed}");
    // No engine's line about it either: the tester was told.
    assert!(!engine.log().contains("refused a change for"), "{}", engine.log());
}

#[test]
fn a_full_set_fails_and_is_named() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, &format!("{DETECTION}\n[engine]\nban_set_size = 16\n"));
    // An engine that runs would take them out again.
    let home = engine.stop();
    let elements: Vec<String> = (0..16).map(|n| format!("10.9.0.{n} timeout 1h")).collect();
    ns.nft(&format!(
        "add element inet verdictd banned4 {{ {} }}",
        elements.join(", ")
    ));
    let engine = Engine::start_in(&ns, home, &[]);
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "banned", "{failed}");
    assert!(failed["seen"].to_string().contains("full"), "{failed}");
    assert!(failed["look_at"].to_string().contains("ban_set_size"), "{failed}");
}

#[test]
fn a_hung_engine_fails_and_an_absent_one_is_told() {
    let ns = Namespace::new("self");
    let mut engine = Engine::start(&ns, DETECTION);
    engine.signal(Signal::STOP);
    let failed = rig::failed(&ns, &engine);
    engine.signal(Signal::CONT);
    assert_eq!(failed["step"], "engine", "{failed}");
    assert!(failed["seen"].to_string().contains("did not answer"), "{failed}");
    let command = &mut rig::command(&engine);
    let home = engine.stop();
    let output = ns.run(command, LIMIT);
    assert_eq!(output.code(), 3, "{}", output.text());
    assert_eq!(rig::json(&output)["cause"], "not_running");
    drop(home);
}

#[test]
fn two_testers_at_once_do_not_disturb_each_other() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, DETECTION);
    let before = Traces::of(&ns, &engine);
    let both = [rig::start(&ns, &engine), rig::start(&ns, &engine)];
    let mut codes = both.map(|tester| {
        let output = tester.finish(LIMIT);
        if output.code() == 1 {
            let failed = rig::json(&output);
            assert!(failed["seen"].to_string().contains("under way"), "{failed}");
        }
        output.code()
    });
    codes.sort_unstable();
    assert_eq!(codes, [0, 1]);
    assert_eq!(Traces::of(&ns, &engine), before);
}

#[test]
fn a_range_that_is_somebodys_is_left_alone() {
    let ns = Namespace::new("self");
    let trusted = "\n[trusted]\nnetworks = [\"192.0.2.0/24\"]\n";
    let engine = Engine::start(&ns, &format!("{DETECTION}{trusted}"));
    assert!(rig::proved(&ns, &engine).to_string().contains("198.51.100."));
    ns.ip(&["route", "add", "198.51.100.64/26", "dev", "lo"]);
    assert!(rig::proved(&ns, &engine).to_string().contains("203.0.113."));
    engine.must(&["ban", "203.0.113.0/24"]);
    let failed = rig::failed(&ns, &engine);
    let seen = failed["seen"].to_string();
    assert!(
        seen.contains("trusted") && seen.contains("banned already"),
        "{failed}"
    );
    ns.ip(&["route", "add", "192.0.0.0/2", "dev", "lo"]);
    ns.ip(&["route", "add", "203.0.113.9", "dev", "lo"]);
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "range", "{failed}");
    engine.must(&["unban", "203.0.113.0/24"]);
}

/// The name of the scratch set is no cloak.
#[test]
fn a_rule_that_looks_at_a_set_of_that_name_is_tampering_all_the_same() {
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, OBSERVING);
    let before = engine.table();
    ns.nft("add set inet verdictd selftest { type ipv4_addr; flags timeout; }");
    // By itself it does nothing, and is nothing.
    assert_eq!(engine.ctl(&["status"]).code(), 0, "{}", engine.log());
    ns.nft("insert rule inet verdictd pre ip saddr @selftest accept");
    assert!(
        within(secs(10), || engine.table() == before),
        "{}",
        engine.table()
    );
    // Told when it is repaired.
    let told = || engine.log().contains("somebody changed");
    assert!(within(secs(10), told), "{}", engine.log());
    rig::proved(&ns, &engine);
}

#[test]
fn an_interface_that_is_not_judged_is_told() {
    let ns = Namespace::new("self");
    let engine = Engine::start(
        &ns,
        &format!("{DETECTION}\n[engine]\ninternal_interfaces = [\"vd*\"]\n"),
    );
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "device", "{failed}");
    assert!(failed["seen"].to_string().contains("vd*"), "{failed}");
}

#[test]
fn without_root_it_says_so() {
    let ns = Namespace::new("self");
    let home = Home::for_anybody(DETECTION);
    let mut command = Command::new(home.command().get_program());
    command
        .args(["selftest", "--socket"])
        .arg(home.socket())
        .uid(65_534)
        .gid(65_534);
    let output = ns.run(&mut command, secs(10));
    assert_eq!(output.code(), 1, "{}", output.text());
    assert!(output.stdout.contains("FAILED root") && output.stdout.contains("sudo verdictd selftest"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    let output = ns.run(command.args(["selftest", "--nonsense"]), secs(10));
    assert_eq!(output.code(), 2, "{}", output.text());
}
