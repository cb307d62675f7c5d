//! What the engine logs on real packets: few lines, stable ones, and nothing raw.

use serde_json::Value;

use crate::common::engine::{CORPORATE, DETECTION, Engine, FIREWALL, Home, OBSERVING};
use crate::common::lab::{ATTACKER, HOST, HOST6, Lab, NEIGHBOUR};
use crate::common::wire::Gun;
use crate::common::{secs, within};

/// What a fail2ban reader takes from a line by `NOTICE\s+\[(\S+)\]\s+(Ban|Unban)\s+(\S+)\s*$`.
fn stable(line: &str) -> Option<(String, String, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [.., "NOTICE", jail, action, address] = words[..] else {
        return None;
    };
    let jail = jail.strip_prefix('[')?.strip_suffix(']')?;
    Some((jail.into(), action.into(), address.into()))
}

fn stable_lines(log: &str) -> Vec<(String, String, String)> {
    log.lines().filter_map(stable).collect()
}

/// FAULTS row 35.
#[test]
fn fault_35_a_scan_of_every_port_is_a_handful_of_lines() {
    for (config, most) in [(DETECTION, 2), (FIREWALL, 2), (OBSERVING, 2), (CORPORATE, 12)] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        gun.syns(1..=65_535);
        engine.wait_ban(ATTACKER);
        let log = engine.stop().log();
        let lines: Vec<&str> = log
            .lines()
            .skip_while(|line| !line.contains("control socket"))
            .collect();
        // Beside them the greeting, the farewell and the report of four lines.
        assert!(lines.len() <= most + 6, "{config}{log}");
        let bans = stable_lines(&log);
        let expected = match config == OBSERVING {
            true => vec![],
            false => vec![("port_scanning".into(), "Ban".into(), ATTACKER.into())],
        };
        assert_eq!(bans, expected, "{log}");
    }
}

#[test]
fn bans_and_their_ends_are_the_stable_lines() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "203.0.113.9", "--for", "1h"]);
    engine.must(&["ban", "2001:db8:7::/64"]);
    engine.must(&["unban", "203.0.113.9"]);
    let log = engine.stop().log();
    let told = stable_lines(&log);
    let told: Vec<String> = told
        .iter()
        .map(|(jail, what, who)| format!("{jail} {what} {who}"))
        .collect();
    assert_eq!(
        told,
        [
            "manual Ban 203.0.113.9",
            "manual Ban 2001:db8:7::/64",
            "manual Unban 203.0.113.9"
        ],
        "{log}"
    );
}

#[test]
fn json_lines_hold_the_message_and_what_it_says_as_fields() {
    let lab = Lab::new();
    let engine = Engine::start_in(&lab.host, Home::new(CORPORATE), &["--log-format", "json"]);
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5020);
    engine.wait_ban(ATTACKER);
    engine.must(&["unban", ATTACKER]);
    let log = engine.stop().log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let of = |event: &str| {
        lines
            .iter()
            .find(|line| line["event"] == event)
            .unwrap_or_else(|| panic!("{event}: {log}"))
    };
    let ban = of("ban");
    assert_eq!(
        (&ban["message"], &ban["level"]),
        (
            &format!("NOTICE [port_scanning] Ban {ATTACKER}").into(),
            &"notice".into()
        )
    );
    assert_eq!(
        (&ban["source"], &ban["reason"], &ban["step"]),
        (&ATTACKER.into(), &"port_scanning".into(), &1.into())
    );
    assert!(
        ban["until"].as_str().is_some_and(|until| until.ends_with('Z')),
        "{ban}"
    );
    assert_eq!(of("unban")["why"], "manual");
    let refused = of("refused");
    assert_eq!(
        (&refused["source"], &refused["proto"], &refused["port"]),
        (&ATTACKER.into(), &"tcp".into(), &5001.into())
    );
    assert!(of("report")["probes"].as_u64() >= Some(8), "{log}");
}

#[test]
fn fault_58_an_operators_words_cannot_forge_a_line() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    let evil = "x\nNOTICE [manual] Ban 198.51.100.1\r\x1b[2J\u{202e}";
    for target in ["203.0.113.9", evil] {
        let _ = engine.ctl(&["ban", target, "--reason", evil]);
        let _ = engine.ctl(&["unban", target]);
    }
    let log = engine.stop().log();
    assert!(
        !log.chars()
            .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
        "{log:?}"
    );
    assert!(
        stable_lines(&log)
            .iter()
            .all(|(_, _, address)| address == "203.0.113.9"),
        "{log}"
    );
}

#[test]
fn the_report_tells_kinds_bans_and_sources_and_is_silent_when_nothing_came() {
    let lab = Lab::new();
    let config = format!("{DETECTION}\n[engine]\nreport_every = \"4s\"\n");
    let engine = Engine::start(&lab.host, &config);
    let reports = |log: String| log.lines().filter(|line| line.contains("report of ")).count();
    std::thread::sleep(secs(5));
    assert_eq!(reports(engine.home().log()), 0, "{}", engine.log());

    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    gun.tcp(4000, 0);
    Gun::new(&lab.attacker, NEIGHBOUR, HOST).syns([22, 80]);
    gun.syns(5001..=5020);
    engine.wait_ban(ATTACKER);
    let kinds = &engine.json("stats")["kinds"];
    assert!(
        kinds["NULL_SCAN"] == 1 && kinds["SYN_SCAN"].as_u64() >= Some(7),
        "{kinds}"
    );
    assert!(
        within(secs(12), || engine.home().log().contains("report: banned: ")),
        "{}",
        engine.log()
    );
    let log = engine.home().log();
    for words in [
        "new bans 1, in force 1",
        "report: kinds: SYN_SCAN ",
        ", NULL_SCAN 1",
        "report: banned: 10.77.0.1 (port_scanning)\n",
        "report: most ports: 10.77.0.9 (2)\n",
    ] {
        assert!(log.contains(words), "{words}\n{log}");
    }
    std::thread::sleep(secs(6));
    let told = reports(engine.home().log());
    assert!(told <= 2, "{}", engine.log());
    assert_eq!(reports(engine.stop().log()), told);
}

#[test]
fn corporate_tells_each_refusal_once_and_firewall_none() {
    for (config, tells) in [(CORPORATE, true), (FIREWALL, false)] {
        let lab = Lab::new();
        let config = config.replace("firewall_mode", "other_protocols = \"drop\"\nfirewall_mode");
        let engine = Engine::start(&lab.host, &config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        (0..5).for_each(|_| gun.syns([3306]));
        gun.udp(161);
        gun.ip(132, &[0; 12]);
        let mut gun6 = Gun::new(&lab.attacker, "fd66::1", HOST6);
        gun6.syns([3306]);
        gun6.udp(161);
        let refused = engine.json("stats")["copies"]["refused"].clone();
        assert!(
            within(secs(3), || engine.json("stats")["copies"]["refused"] == 9),
            "{refused}\n{}",
            engine.log()
        );
        let log = engine.stop().log();
        let told: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once(" INFO refused "))
            .map(|(_, told)| told)
            .collect();
        let expected = [
            "tcp/3306 from 10.77.0.1",
            "udp/161 from 10.77.0.1",
            "protocol 132 from 10.77.0.1",
            "tcp/3306 from fd66::1",
            "udp/161 from fd66::1",
            "… and 4 more from 10.77.0.1",
        ];
        for line in expected {
            assert_eq!(
                told.iter().filter(|told| **told == line).count(),
                usize::from(tells),
                "{line}\n{log}"
            );
        }
        assert_eq!(told.len(), if tells { expected.len() } else { 0 }, "{log}");
    }
}
