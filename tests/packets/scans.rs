//! The main job: a scan runs into the engine, honest clients beside it do not.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::flow::{pings, talks};
use crate::common::lab::{
    ATTACKER, ATTACKER6, ATTACKER6_NET, ATTACKER6_ON_LINK, ATTACKER6_TWIN, CLIENT, HOST, HOST6, Lab,
    NEIGHBOUR, NEIGHBOUR6_ON_LINK,
};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::{Gun, SYN};
use crate::common::{count, ms, secs};

/// Distinct ports that the standard preset tolerates.
const TOLERATED: usize = 7;
/// Where nobody answers, nmap -T5 by itself slows down to hundreds of ports a second and needs minutes; a floor under
/// its rate makes it the harder scan and the shorter test.
const FULL_SCAN: Duration = secs(300);

/// Scans every port of a host that runs `config`; the ports that ever answered.
fn full_scan_against(config: &str) -> BTreeSet<u16> {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[22, 80, 443, 3306, 8080]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, config);

    nmap(
        &lab.attacker,
        &format!("-sS -T5 --min-rate 5000 -p 1-65535 {HOST}"),
        FULL_SCAN,
    );

    let answered = witness.answered();
    assert!(
        answered.len() <= TOLERATED,
        "{} ports answered: {answered:?}\n{}",
        answered.len(),
        engine.log()
    );
    let bans = engine.bans();
    assert_eq!(bans.len(), 1, "one scan is one ban: {bans:?}");
    let ban = &bans[0];
    assert_eq!(ban["source"], ATTACKER);
    assert_eq!(ban["reason"], "port_scanning");
    assert_eq!(
        (ban["step"].as_u64(), ban["offences"].as_u64()),
        (Some(1), Some(1)),
        "{ban}"
    );
    assert_eq!(ban["enforced"], true);
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);
    assert!(
        !talks(&lab.attacker, HOST, 80),
        "the banned scanner still gets in"
    );
    assert_eq!(witness.answered(), answered, "something answered after the ban");
    answered
}

#[test]
fn a_full_scan_in_firewall_mode_gets_at_most_seven_answers() {
    let answered = full_scan_against(FIREWALL);
    assert!(
        answered.is_subset(&BTreeSet::from([22, 80, 443])),
        "a refused port answered: {answered:?}"
    );
}

#[test]
fn a_full_scan_over_an_allowed_range_gets_at_most_seven_answers() {
    // Closed ports inside the range answer with RST: they count as answers too.
    let config = FIREWALL.replace(
        "tcp = [22, 80, 443]",
        "tcp = [22, 80, 443]\nranges = [\"1-30000\"]",
    );
    full_scan_against(&config);
}

#[test]
fn a_full_scan_in_detection_mode_gets_at_most_seven_answers() {
    full_scan_against(DETECTION);
}

#[test]
fn seven_ports_are_tolerated_and_the_eighth_bans_and_is_dropped_itself() {
    let lab = Lab::new();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, DETECTION);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);

    gun.syns(9001..=9007);
    gun.syns(9001..=9007);
    thread::sleep(ms(300));
    assert_eq!(witness.answered().len(), 7);
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());

    gun.syns([9008]);
    assert_eq!(engine.wait_ban(ATTACKER)["step"], 1);
    assert_eq!(
        witness.answered().len(),
        7,
        "the packet that crosses the line is itself dropped"
    );
}

#[test]
fn a_banned_scanner_is_one_offence_however_long_it_scans_on() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    for _ in 0..3 {
        gun.syns(1..=1000);
        thread::sleep(ms(200));
    }
    let ban = engine.wait_ban(ATTACKER);
    assert_eq!(
        (ban["step"].as_u64(), ban["offences"].as_u64()),
        (Some(1), Some(1)),
        "{ban}"
    );
    let stats = engine.json("stats");
    assert_eq!(
        (stats["bans"]["active"].as_u64(), stats["bans"]["total"].as_u64()),
        (Some(1), Some(1)),
        "{stats}"
    );
}

#[test]
fn a_thousand_connections_of_an_honest_client_all_succeed() {
    for config in [DETECTION, FIREWALL] {
        let lab = Lab::new().with_client();
        let _echo = Echo::tcp(&lab.host, &[443]);
        let engine = Engine::start(&lab.host, config);
        let failed = honest_connections(lab.client(), count(1000, 200_000));
        assert_eq!(failed, 0, "honest connections failed\n{}", engine.log());
        assert!(engine.bans().is_empty(), "{:?}", engine.bans());
        assert_eq!(engine.json("stats")["verdicts"]["drop"], 0);
    }
}

#[test]
fn a_scanner_and_an_honest_client_at_once_only_the_scanner_is_banned() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[22, 80, 443]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let failed = thread::scope(|scope| {
        let honest = scope.spawn(|| honest_connections(lab.client(), 500));
        nmap(&lab.attacker, &format!("-sS -T5 -p 1-1000 {HOST}"), secs(120));
        honest.join().expect("the honest client")
    });
    assert_eq!(failed, 0, "honest connections beside a scan\n{}", engine.log());
    let bans = engine.bans();
    assert_eq!(bans.len(), 1, "{bans:?}");
    assert_eq!(bans[0]["source"], ATTACKER);
    assert!(engine.ban_of(CLIENT).is_none());
    assert!(talks(lab.client(), HOST, 443));
}

/// Connects `count` times to port 443 and speaks; how many did not come about.
fn honest_connections(client: &Namespace, count: usize) -> usize {
    (0..count).filter(|_| !talks(client, HOST, 443)).count()
}

#[test]
fn nmap_prints_the_listings_of_the_mission() {
    let expected = |filtered: &[u16]| {
        [22, 80, 443, 3306, 8080]
            .map(|port| {
                (
                    format!("{port}/tcp"),
                    if filtered.contains(&port) {
                        "filtered"
                    } else {
                        "open"
                    },
                )
            })
            .map(|(port, state)| (port, state.to_string()))
            .into()
    };
    for (config, filtered) in [(DETECTION, &[][..]), (FIREWALL, &[3306, 8080])] {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[22, 80, 443, 3306, 8080]);
        let engine = Engine::start(&lab.host, config);
        let seen = nmap(
            &lab.attacker,
            &format!("-sS -p 22,80,443,3306,8080 {HOST}"),
            secs(60),
        );
        assert_eq!(seen, expected(filtered), "{}", engine.log());
        assert!(
            engine.bans().is_empty(),
            "five ports are below the threshold: {:?}",
            engine.bans()
        );
    }
}

#[test]
fn stealth_scans_are_scans() {
    for kind in ["-sN", "-sF", "-sX"] {
        let lab = Lab::new();
        let witness = Witness::new(&lab.attacker);
        let engine = Engine::start(&lab.host, DETECTION);
        nmap(
            &lab.attacker,
            &format!("{kind} -T5 -p 5000-5199 {HOST}"),
            secs(120),
        );
        assert_eq!(engine.wait_ban(ATTACKER)["step"], 1, "nmap {kind}");
        assert!(
            witness.answered().len() <= TOLERATED,
            "nmap {kind}: {:?}",
            witness.answered()
        );
    }
}

#[test]
fn a_udp_scan_is_banned_above_its_own_threshold() {
    // Four times the TCP threshold: 28 are tolerated, the 29th bans.
    for config in [DETECTION, FIREWALL] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        // Below 20 a second, the limit for copies of refused packets.
        (1001..=1028).for_each(|port| {
            gun.udp(port);
            thread::sleep(ms(60));
        });
        thread::sleep(ms(300));
        assert!(
            engine.bans().is_empty(),
            "28 UDP ports are tolerated: {:?}",
            engine.bans()
        );
        gun.udp(1029);
        let ban = engine.wait_ban(ATTACKER);
        assert_eq!(
            (&ban["reason"], &ban["step"]),
            (&"port_scanning".into(), &1.into())
        );
        assert!(
            !pings(&lab.attacker, HOST, 3),
            "the banned source still gets answers"
        );
    }
}

#[test]
fn a_traceroute_is_no_scan() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    (33_434..=33_534).for_each(|port| gun.udp(port));
    thread::sleep(ms(500));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
}

#[test]
fn backscatter_is_no_scan() {
    // SYN+ACK and RST to many ports: answers to packets that somebody forged in our name.
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    for port in 10_001..=10_100 {
        gun.tcp(port, SYN | 0x10);
        gun.tcp(port, 0x04);
    }
    thread::sleep(ms(500));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
}

#[test]
fn an_ipv6_scanner_is_banned_with_its_64() {
    for config in [DETECTION, FIREWALL] {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[80]);
        let witness = Witness::new(&lab.attacker);
        let engine = Engine::start(&lab.host, config);
        assert!(talks(&lab.attacker, HOST6, 80));

        let mut gun = Gun::new(&lab.attacker, ATTACKER6, HOST6);
        gun.syns(5001..=5020);
        assert_eq!(engine.wait_ban(ATTACKER6_NET)["step"], 1);
        assert_eq!(
            engine.kernel_bans("banned6"),
            ["fd66::"],
            "the set holds the prefix's first address"
        );
        assert!(
            witness.answered().len() <= TOLERATED + 1,
            "{:?}",
            witness.answered()
        );

        let before = witness.resets();
        Gun::new(&lab.attacker, ATTACKER6_TWIN, HOST6).syns([80, 5101, 5102]);
        thread::sleep(ms(300));
        assert_eq!(
            witness.resets(),
            before,
            "another address of the banned /64 gets answers"
        );
        assert!(
            talks(&lab.attacker, HOST, 80),
            "the ban of a /64 says nothing about IPv4"
        );
    }
}

#[test]
fn a_scanner_on_the_hosts_own_ipv6_link_never_takes_its_neighbours_along() {
    let lab = Lab::new();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, DETECTION);
    Gun::new(&lab.attacker, ATTACKER6_ON_LINK, HOST6).syns(5001..=5020);
    thread::sleep(ms(500));
    let before = witness.resets();
    Gun::new(&lab.attacker, NEIGHBOUR6_ON_LINK, HOST6).syns([5101]);
    thread::sleep(ms(300));
    assert_eq!(
        witness.resets() - before,
        1,
        "a neighbour in the host's own /64 is cut: {:?}",
        engine.bans()
    );
    // The operator means the same by the address as the engine does.
    engine.must(&["unban", ATTACKER6_ON_LINK]);
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    engine.must(&["ban", ATTACKER6_ON_LINK]);
    assert_eq!(engine.kernel_bans("banned6_128"), [ATTACKER6_ON_LINK]);
}

#[test]
fn an_operator_bans_and_frees_single_machines_of_the_hosts_own_ipv6_link() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    Gun::new(&lab.attacker, ATTACKER6_ON_LINK, HOST6).syns(5001..=5020);
    engine.wait_ban(ATTACKER6_ON_LINK);
    engine.must(&["unban", ATTACKER6_ON_LINK]);
    assert!(engine.kernel_bans("banned6_128").is_empty(), "{}", engine.log());

    engine.must(&["ban", ATTACKER6_ON_LINK, "--for", "1h"]);
    assert_eq!(engine.kernel_bans("banned6_128"), [ATTACKER6_ON_LINK]);
    engine.must(&["unban", &format!("{ATTACKER6_ON_LINK}/128")]);
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());

    // Elsewhere an address alone means its /64, and with its length just itself.
    engine.must(&["ban", "2001:db8::5"]);
    engine.must(&["ban", "2001:db8::6/128"]);
    assert_eq!(engine.kernel_bans("banned6"), ["2001:db8::"]);
    assert_eq!(engine.kernel_bans("banned6_128"), ["2001:db8::6"]);
    // A prefix lifts just that ban, an address alone whatever holds it.
    engine.must(&["unban", "2001:db8::6/128"]);
    assert_eq!(engine.bans().len(), 1, "{:?}", engine.bans());
    engine.must(&["ban", "2001:db8::6/128"]);
    engine.must(&["unban", "2001:db8::6"]);
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    let protected = engine.ctl(&["ban", HOST6]);
    assert_eq!(protected.code(), 1);
    assert!(protected.stderr.contains("own address"), "{}", protected.stderr);
}

#[test]
fn engines_in_two_namespaces_do_not_see_each_other() {
    let (one, two) = (Lab::new(), Lab::new());
    let _echoes = [&one, &two].map(|lab| Echo::tcp(&lab.host, &[80]));
    let (first, second) = (
        Engine::start(&one.host, DETECTION),
        Engine::start(&two.host, FIREWALL),
    );

    Gun::new(&one.attacker, ATTACKER, HOST).syns(5001..=5020);
    first.wait_ban(ATTACKER);
    assert!(second.bans().is_empty(), "{:?}", second.bans());
    assert!(second.kernel_bans("banned4").is_empty());
    assert!(talks(&two.attacker, HOST, 80));
    assert!(!talks(&one.attacker, HOST, 80));

    first.stop();
    Gun::new(&two.attacker, NEIGHBOUR, HOST).syns(5001..=5020);
    second.wait_ban(NEIGHBOUR);
}
