//! Bans: how long they last, what they stop, what they must not stop.

use std::thread;
use std::time::Instant;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING, with_ladder};
use crate::common::flow::{Stream, connect, pings, talks, udp};
use crate::common::lab::{
    ATTACKER, ATTACKER6, ATTACKER6_TWIN, HOST, HOST6, Lab, NEIGHBOUR, NEIGHBOUR6_ON_LINK,
};
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::{FIN, Gun, NULL, XMAS};
use crate::common::{ms, secs, within};

/// A scan far above the threshold, from ports that nothing listens on.
fn scan(lab: &Lab) {
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
}

#[test]
fn a_ban_of_three_seconds_ends_by_itself_after_three_seconds() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, &with_ladder(DETECTION, &["3s", "1h"]));
    let begun = Instant::now();
    scan(&lab);
    let ban = engine.wait_ban(ATTACKER);
    assert!(
        ban["remaining_seconds"]
            .as_u64()
            .is_some_and(|left| (1..=3).contains(&left)),
        "{ban}"
    );
    assert!(
        lab.host
            .nft_list(&["list", "set", "inet", "verdictd", "banned4"])
            .contains("expires")
    );

    assert!(
        engine.wait_free(ATTACKER, secs(6)),
        "the ban never ended: {:?}",
        engine.bans()
    );
    let lasted = begun.elapsed();
    assert!(
        lasted >= ms(2900) && lasted < ms(4500),
        "a ban of 3 s lasted {lasted:?}"
    );
    assert!(
        within(secs(1), || engine.kernel_bans("banned4").is_empty()),
        "the kernel still holds it"
    );
    assert!(talks(&lab.attacker, HOST, 80));
}

#[test]
fn offences_climb_the_ladder_and_stay_on_its_last_step() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, &with_ladder(DETECTION, &["1s", "2s", "3s", "4s"]));
    for (offence, step) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)] {
        scan(&lab);
        let ban = engine.wait_ban(ATTACKER);
        assert_eq!(
            (ban["offences"].as_u64(), ban["step"].as_u64()),
            (Some(offence), Some(step)),
            "{ban}"
        );
        let left = ban["remaining_seconds"].as_u64().expect("it ends");
        assert!(
            left <= step && left + 1 >= step,
            "step {step} has {left} s left: {ban}"
        );
        assert!(
            engine.wait_free(ATTACKER, secs(step + 3)),
            "step {step} never ended"
        );
        assert!(
            within(secs(1), || engine.kernel_bans("banned4").is_empty()),
            "the kernel still holds step {step}"
        );
    }
}

#[test]
fn the_first_packets_after_a_ban_do_not_ban_again() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, &with_ladder(DETECTION, &["1s", "1h"]));
    scan(&lab);
    engine.wait_ban(ATTACKER);
    // What comes during the ban is no evidence afterwards.
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(6001..=6100);
    assert!(engine.wait_free(ATTACKER, secs(4)));

    Gun::new(&lab.attacker, ATTACKER, HOST).syns(7001..=7007);
    thread::sleep(ms(300));
    assert!(
        engine.bans().is_empty(),
        "seven ports after a ban are tolerated: {:?}",
        engine.bans()
    );
    Gun::new(&lab.attacker, ATTACKER, HOST).syns([7008]);
    assert_eq!(
        engine.wait_ban(ATTACKER)["step"],
        2,
        "and the eighth is the second offence"
    );
}

#[test]
fn a_lifted_ban_leaves_no_evidence_behind() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, DETECTION);
    scan(&lab);
    engine.wait_ban(ATTACKER);
    engine.must(&["unban", ATTACKER]);
    assert!(engine.ban_of(ATTACKER).is_none());
    assert!(within(secs(1), || engine.kernel_bans("banned4").is_empty()));
    assert!(talks(&lab.attacker, HOST, 80));
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(7001..=7006);
    thread::sleep(ms(300));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    assert_eq!(
        engine.ctl(&["unban", ATTACKER]).code(),
        1,
        "there is nothing left to lift"
    );
}

#[test]
fn a_ban_stops_what_runs_within_100_ms() {
    let lab = Lab::new();
    let _echo = Echo::both(&lab.host, &[80], &[53]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, DETECTION);
    let tcp = Stream::tcp(connect(&lab.attacker, HOST, 80).expect("an allowed port"));
    let datagrams = Stream::udp(udp(&lab.attacker, HOST, 53));
    let runs = [("tcp", &tcp), ("udp", &datagrams)];
    assert!(
        within(secs(2), || runs.iter().all(|(_, stream)| stream.runs())),
        "flows did not start"
    );
    assert!(pings(&lab.attacker, HOST, 2));
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    [FIN, NULL, XMAS]
        .into_iter()
        .for_each(|flags| gun.tcp(9000, flags));
    assert!(
        within(secs(1), || witness.resets() == 3),
        "stealth probes are answered before the ban"
    );

    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    let banned = Instant::now();
    thread::sleep(ms(100));
    let resets = witness.resets();
    for _ in 0..20 {
        [FIN, NULL, XMAS]
            .into_iter()
            .for_each(|flags| gun.tcp(9000, flags));
        thread::sleep(ms(10));
    }
    assert!(
        !pings(&lab.attacker, HOST, 5),
        "pings of the banned source are answered"
    );
    for (what, stream) in runs {
        let last = stream.last_answer().expect("it ran");
        assert!(
            last < banned + ms(100),
            "{what} was answered {:?} after the ban",
            last - banned
        );
    }
    assert_eq!(
        witness.resets(),
        resets,
        "FIN, NULL or XMAS of the banned source is answered"
    );
}

#[test]
fn an_automatic_ban_stops_an_open_connection() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let stream = Stream::tcp(connect(&lab.attacker, HOST, 80).expect("an allowed port"));
    assert!(within(secs(2), || stream.runs()));
    scan(&lab);
    assert!(
        within(secs(3), || !engine.kernel_bans("banned4").is_empty()),
        "{}",
        engine.log()
    );
    let banned = Instant::now();
    thread::sleep(ms(400));
    assert!(stream.last_answer().is_some_and(|last| last < banned + ms(100)));
}

#[test]
fn the_hosts_own_connections_to_a_banned_address_go_on() {
    for config in [DETECTION, FIREWALL] {
        let lab = Lab::new();
        let _echo = Echo::both(&lab.attacker, &[80], &[53]);
        let engine = Engine::start(&lab.host, config);
        let tcp = Stream::tcp(connect(&lab.host, ATTACKER, 80).expect("their server"));
        let datagrams = Stream::udp(udp(&lab.host, ATTACKER, 53));
        let runs = [("tcp", &tcp), ("udp", &datagrams)];
        assert!(within(secs(2), || runs.iter().all(|(_, stream)| stream.runs())));

        engine.must(&["ban", ATTACKER, "--for", "1h"]);
        thread::sleep(ms(500));
        for (what, stream) in runs {
            assert!(
                stream.runs(),
                "the host's own {what} to the banned address was cut"
            );
        }
        assert!(
            talks(&lab.host, ATTACKER, 80),
            "a new connection to the banned address"
        );
        assert!(pings(&lab.host, ATTACKER, 2), "a ping to the banned address");
        let closed = udp(&lab.host, ATTACKER, 9999);
        let refused = within(secs(2), || {
            let _ = closed.send(b"x");
            closed
                .recv(&mut [0; 8])
                .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        assert!(refused, "ICMP errors from the banned address no longer arrive");
        assert!(!talks(&lab.attacker, HOST, 22), "and the ban holds");
    }
}

#[test]
fn an_operators_ban_holds_in_every_mode() {
    let corporate = FIREWALL.replace("\"firewall\"\n[allowed", "\"corporate\"\n[allowed");
    assert!(corporate.contains("corporate"));
    for config in [DETECTION, OBSERVING, FIREWALL, &corporate] {
        let lab = Lab::new().with_client();
        let _echo = Echo::both(&lab.host, &[80], &[]);
        let engine = Engine::start(&lab.host, config);
        assert!(talks(&lab.attacker, HOST, 80), "{config}");

        engine.must(&["ban", ATTACKER, "--for", "1h", "--reason", "seen elsewhere"]);
        let ban = engine.ban_of(ATTACKER).expect("it is listed");
        assert_eq!(
            (&ban["reason"], &ban["enforced"]),
            (&"manual".into(), &true.into()),
            "{config}"
        );
        assert_eq!(engine.kernel_bans("banned4"), [ATTACKER], "{config}");
        assert!(!talks(&lab.attacker, HOST, 80), "{config}");
        assert!(!pings(&lab.attacker, HOST, 2), "{config}");
        assert!(talks(lab.client(), HOST, 80), "{config}");

        engine.must(&["unban", ATTACKER]);
        assert!(talks(&lab.attacker, HOST, 80), "{config}");
    }
}

#[test]
fn a_ban_can_be_extended_and_shortened() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    engine.must(&["ban", ATTACKER, "--for", "2s"]);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    thread::sleep(ms(2500));
    assert_eq!(
        engine.kernel_bans("banned4"),
        [ATTACKER],
        "the kernel kept the shorter timeout"
    );
    assert!(engine.ban_of(ATTACKER).is_some());
    engine.must(&["ban", ATTACKER, "--for", "1s"]);
    assert!(engine.wait_free(ATTACKER, secs(3)));
    assert!(within(secs(1), || engine.kernel_bans("banned4").is_empty()));
}

#[test]
fn a_ban_without_length_takes_the_first_step_and_climbs_nothing() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, &with_ladder(DETECTION, &["90s", "1h"]));
    engine.must(&["ban", ATTACKER]);
    let ban = engine.ban_of(ATTACKER).expect("it is listed");
    assert!(
        ban["remaining_seconds"]
            .as_u64()
            .is_some_and(|left| (85..=90).contains(&left)),
        "{ban}"
    );
    engine.must(&["unban", ATTACKER]);
    scan(&lab);
    assert_eq!(engine.wait_ban(ATTACKER)["step"], 1);
}

#[test]
fn protected_addresses_cannot_be_banned() {
    let lab = Lab::new();
    let config = format!("{DETECTION}\n[trusted]\nips = [\"{NEIGHBOUR}\"]\n");
    let engine = Engine::start(&lab.host, &config);
    for target in [
        HOST,
        HOST6,
        "127.0.0.1",
        "::1",
        "10.77.0.0/24",
        "fd77::/64",
        "224.0.0.1",
        NEIGHBOUR,
        "0.0.0.0/0",
    ] {
        let answer = engine.ctl(&["ban", target]);
        assert_eq!(answer.code(), 1, "ban {target}: {}", answer.text());
        assert!(
            answer.stderr.contains("protected") || answer.stderr.contains("trusted"),
            "{target}: {}",
            answer.stderr
        );
    }
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    assert!(pings(&lab.attacker, HOST, 2));
}

#[test]
fn a_prefix_ban_drops_every_address_in_it_and_no_other() {
    let lab = Lab::new();
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, DETECTION);
    for (target, set, inside, outside, host) in [
        (
            "10.88.0.0/24",
            "banned4_24",
            ["10.88.0.7", "10.88.0.200"],
            "10.88.1.7",
            HOST,
        ),
        (
            "fd66::/48",
            "banned6_48",
            [ATTACKER6, ATTACKER6_TWIN],
            NEIGHBOUR6_ON_LINK,
            HOST6,
        ),
    ] {
        let answers = |source: &str, port: u16| {
            Gun::new(&lab.attacker, source, host).syns([port]);
            within(ms(300), || witness.answered().contains(&port))
        };
        assert!(answers(inside[0], 7001));
        lab.attacker.nft("flush set inet witness answered");

        engine.must(&["ban", target, "--for", "1h"]);
        assert_eq!(engine.ban_of(target).expect("it is listed")["reason"], "manual");
        assert_eq!(engine.kernel_bans(set).len(), 1, "{}", engine.table());
        assert!(
            !answers(inside[0], 7002) && !answers(inside[1], 7003),
            "{target} does not hold"
        );
        assert!(answers(outside, 7004), "{outside} is not in {target}");

        engine.must(&["unban", target]);
        assert!(answers(inside[0], 7005), "{target} holds after it was lifted");
        lab.attacker.nft("flush set inet witness answered");
    }
}
