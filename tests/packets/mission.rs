//! The configuration file of the Python system, word for word, drives the engine as it drove that system.

use std::thread;

use crate::common::engine::{Engine, Home};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, ATTACKER6, ATTACKER6_NET, HOST, HOST6, Lab};
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

const MISSION: &str = include_str!("../data/mission_firewall_config.toml");
/// A scanner outside the networks that the file trusts: those of the lab are all in 10.0.0.0/8.
const STRANGER: &str = "203.0.113.9";
/// What the file tolerates in its mode "standard".
const TOLERATED: usize = 7;
const HOUR: u64 = 3600;

/// The lab, where the attacker has a stranger's address too.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.attacker
        .ip(&["address", "add", &format!("{STRANGER}/32"), "dev", "lan0"]);
    lab.host.ip(&["route", "add", STRANGER, "dev", "lan0"]);
    lab
}

#[test]
fn the_eighth_port_bans_a_stranger_for_ten_minutes() {
    let lab = lab();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, MISSION);
    let status = engine.json("status");
    assert_eq!(
        (&status["mode"], &status["preset"], &status["enforce"]),
        (&"detection_only".into(), &"standard".into(), &true.into()),
        "{status}"
    );

    let mut gun = Gun::new(&lab.attacker, STRANGER, HOST);
    gun.syns(9001..=9007);
    gun.syns(9001..=9007);
    thread::sleep(ms(300));
    assert_eq!(witness.answered().len(), TOLERATED, "{}", engine.log());
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());

    gun.syns([9008]);
    let ban = engine.wait_ban(STRANGER);
    assert_eq!(
        (&ban["reason"], &ban["step"], &ban["enforced"]),
        (&"port_scanning".into(), &1.into(), &true.into()),
        "{ban}"
    );
    let left = ban["remaining_seconds"].as_u64().expect("it ends");
    assert!((590..=600).contains(&left), "{ban}");
    assert!(within(secs(1), || engine.kernel_bans("banned4") == [STRANGER]));

    gun.syns(9101..=9200);
    thread::sleep(ms(300));
    assert_eq!(witness.answered().len(), TOLERATED, "{:?}", witness.answered());
}

#[test]
fn an_ipv6_stranger_is_banned_by_the_same_file() {
    let lab = lab();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, MISSION);
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(9001..=9100);
    assert_eq!(engine.wait_ban(ATTACKER6_NET)["step"], 1);
    assert_eq!(witness.answered().len(), TOLERATED, "{:?}", witness.answered());
}

#[test]
fn a_scanner_in_a_network_that_the_file_trusts_is_never_banned() {
    let lab = lab();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, MISSION);
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(9001..=9100);
    assert!(
        within(secs(3), || witness.answered().len() == 100),
        "{} of 100 answered",
        witness.answered().len()
    );
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    let stats = engine.json("stats");
    assert_eq!(
        (&stats["verdicts"]["drop"], &stats["sources"]["tracked"]),
        (&0.into(), &0.into()),
        "{stats}"
    );
}

#[test]
fn offences_climb_the_ladder_of_the_file() {
    let lab = lab();
    let engine = Engine::start(&lab.host, MISSION);
    let mut gun = Gun::new(&lab.attacker, STRANGER, HOST);
    // 10m 2h 1d 7d, and the last again; bans from an hour on get up to 3 % more.
    let ladder = [HOUR / 6, 2 * HOUR, 24 * HOUR, 168 * HOUR, 168 * HOUR];
    for (step, length) in (1..).zip(ladder) {
        gun.syns(9001..=9008);
        let ban = engine.wait_ban(STRANGER);
        assert_eq!(
            (&ban["step"], &ban["offences"]),
            (&step.min(4).into(), &step.into())
        );
        let left = ban["remaining_seconds"].as_u64().expect("it ends");
        assert!((length - 10..=length * 103 / 100).contains(&left), "{ban}");
        engine.must(&["unban", STRANGER]);
        assert!(within(secs(1), || engine.kernel_bans("banned4").is_empty()));
    }
}

#[test]
fn the_ports_of_the_file_count_when_it_says_firewall() {
    let switched = MISSION.replace(
        "\nfirewall_mode = \"detection_only\"",
        "\nfirewall_mode = \"firewall\"",
    );
    assert_ne!(switched, MISSION);
    for (config, others) in [(MISSION, "open"), (&switched, "filtered")] {
        let lab = lab();
        let _echo = Echo::tcp(&lab.host, &[22, 80, 443, 3306, 8080]);
        let engine = Engine::start(&lab.host, config);
        let seen = nmap(
            &lab.attacker,
            &format!("-sS -p 22,80,443,3306,8080 {HOST}"),
            secs(60),
        );
        let states = ["22/tcp", "80/tcp", "443/tcp", "3306/tcp", "8080/tcp"].map(|port| seen[port].as_str());
        assert_eq!(
            states,
            ["open", "open", "open", others, others],
            "{}",
            engine.log()
        );
        assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    }
}

#[test]
fn its_bans_outlive_the_engine() {
    let lab = lab();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start_in(&lab.host, Home::new(MISSION), &[]);
    let mut gun = Gun::new(&lab.attacker, STRANGER, HOST);
    gun.syns(9001..=9008);
    engine.wait_ban(STRANGER);
    let home = engine.stop();
    let before = witness.answered();
    gun.syns([80, 9009]);
    thread::sleep(ms(300));
    assert_eq!(witness.answered(), before, "answered while no engine runs");
    assert!(talks(&lab.attacker, HOST, 80), "{ATTACKER} is not banned");

    let engine = Engine::start_in(&lab.host, home, &[]);
    let left = engine.wait_ban(STRANGER)["remaining_seconds"].as_u64();
    assert!(left.is_some_and(|left| (570..=600).contains(&left)), "{left:?}");
}
