//! Attacks of many on one port, and attackers who forge honest names or pose as guests.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;

use super::{no_attack, nobody_banned, visit};
use crate::common::engine::{DETECTION, Engine, with_ladder};
use crate::common::flow::{connect as connected, talks};
use crate::common::lab::{ATTACKER, CLIENT, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::wire::{Gun, SYN};
use crate::common::{ms, secs, within};

/// Two hundred strangers, each in a neighbourhood of its own.
fn strangers() -> Vec<String> {
    (1..=200).map(|n| format!("10.88.{n}.1")).collect()
}

/// Begins `each` connections from each source to `port` of the host without waiting; all are open a moment later.
fn crowd(ns: &Namespace, sources: &[String], port: u16, each: usize) -> Vec<OwnedFd> {
    let at = |text: &str, port| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), port);
    let one = |from: &String| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
        bind(&socket, &at(from, 0)).expect("an address of ours");
        match connect(&socket, &at(HOST, port)) {
            Ok(()) | Err(Errno::INPROGRESS) => socket,
            Err(error) => panic!("{from}: {error}"),
        }
    };
    ns.inside(|| {
        sources
            .iter()
            .flat_map(|from| (0..each).map(move |_| one(from)))
            .collect()
    })
}

fn attacks(engine: &Engine<'_>) -> Vec<Value> {
    engine.json("status")["attacks"]
        .as_array()
        .cloned()
        .expect("a list")
}

fn told(engine: &Engine<'_>, words: &str) -> usize {
    engine.log().lines().filter(|line| line.contains(words)).count()
}

fn are_first_steps(bans: &[Value]) {
    for ban in bans {
        assert_eq!(
            (&ban["reason"], &ban["step"]),
            (&"distributed_attack".into(), &1.into()),
            "{ban}"
        );
        assert!(ban["remaining_seconds"].as_u64() <= Some(600), "{ban}");
    }
}

const NEW_SOURCES: &str = "[distributed]\nknown_after = \"10s\"\n[distributed.ports]\n22 = \"new_sources\"\n";

#[test]
fn two_hundred_new_sources_on_port_22_are_an_attack_and_an_old_guest_is_not_part_of_it() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[22, 80]);
    let engine = Engine::start(&lab.host, &format!("{DETECTION}{NEW_SOURCES}"));
    assert!(talks(lab.client(), HOST, 22));
    thread::sleep(ms(10_200));

    let open = crowd(&lab.attacker, &strangers(), 22, 2);
    assert!(
        within(secs(5), || engine.bans().len() >= 190),
        "{} bans\n{}",
        engine.bans().len(),
        engine.log()
    );
    are_first_steps(&engine.bans());
    let found = attacks(&engine);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["port"], &found[0]["counting"]),
        (&22.into(), &"new_sources".into())
    );
    assert_eq!(told(&engine, "under attack"), 1, "{}", engine.log());

    let late = crowd(&lab.attacker, &["10.88.210.1".into()], 22, 1);
    assert_eq!(engine.wait_ban("10.88.210.1")["step"], 1);
    assert!(
        talks(lab.client(), HOST, 22),
        "who is known gets in\n{}",
        engine.log()
    );
    assert!(engine.ban_of(CLIENT).is_none(), "{}", engine.log());
    drop((open, late));
}

#[test]
fn with_the_default_counting_completed_connections_are_no_attack() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[22]);
    let engine = Engine::start(&lab.host, DETECTION);
    let open = crowd(&lab.attacker, &strangers(), 22, 2);
    let completed = || engine.json("stats")["handshakes"]["completed"].as_u64() >= Some(400);
    assert!(within(secs(30), completed), "{}", engine.json("stats"));
    thread::sleep(ms(11_500)); // by now conntrack would have been asked
    nobody_banned(&engine);
    no_attack(&engine);
    drop(open);
}

/// Handshakes that the host answers and nobody completes, from addresses where nobody is.
#[test]
fn half_open_handshakes_are_an_attack_that_begins_and_ends() {
    const GUEST: &str = "10.88.7.7";
    let lab = Lab::new();
    lab.host
        .ip(&["route", "add", "10.99.0.0/16", "via", "10.77.0.254"]);
    // What the guest's kernel would say to answers that it did not ask for; his own connection is left alone.
    lab.attacker.nft(
        "add table ip mute; add chain ip mute out { type filter hook output priority 0; }; \
         add rule ip mute out ip saddr 10.88.7.7 tcp dport 80 tcp flags rst drop",
    );
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(
        &lab.host,
        &format!("{DETECTION}[distributed]\nattack_quiet = \"10s\"\n"),
    );
    let guest = lab
        .attacker
        .inside(|| visit(GUEST, 80))
        .expect("nothing in the way");

    let silent: Vec<String> = (1..=30).map(|n| format!("10.99.{n}.1")).collect();
    let mut guns: Vec<Gun> = silent
        .iter()
        .map(|from| Gun::new(&lab.attacker, from, HOST))
        .collect();
    guns.push(Gun::new(&lab.attacker, GUEST, HOST));
    let first = Instant::now();
    // Those who fail once fail before the others: with the first of them the attack begins, and is nobody's offence yet.
    guns.iter_mut().take(10).for_each(|gun| gun.tcp(80, SYN));
    thread::sleep(secs(3));
    for _ in 0..2 {
        guns.iter_mut().skip(10).for_each(|gun| gun.tcp(80, SYN));
        thread::sleep(secs(1));
    }
    thread::sleep(secs(2));
    no_attack(&engine); // not before the time for a handshake is over, which is 10 s

    // The last 20 of the silent ones failed twice.
    assert!(within(secs(15), || engine.bans().len() >= 20), "{}", engine.log());
    are_first_steps(&engine.bans());
    assert_eq!(attacks(&engine)[0]["counting"], "incomplete");
    thread::sleep(ms(500));
    let banned: Vec<_> = engine
        .bans()
        .iter()
        .map(|ban| ban["source"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(banned.len(), 20, "{banned:?}\n{}", engine.log());
    assert!(
        silent[10..]
            .iter()
            .all(|source| banned.contains(&Some(source.clone()))),
        "{banned:?}"
    );

    let over = within(secs(15), || told(&engine, "attack on tcp port 80 is over") == 1);
    assert!(over && attacks(&engine).is_empty(), "{}", engine.log());
    let lasted = first.elapsed();
    assert!(
        lasted > secs(20),
        "over after {lasted:?}: half-open handshakes came until 14 s"
    );
    assert_eq!(told(&engine, "under attack"), 1, "{}", engine.log());
    drop(guest);
}

#[test]
fn a_scanner_that_holds_five_connections_to_port_22_is_banned_all_the_same() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[22]);
    let engine = Engine::start(&lab.host, DETECTION);
    let held: Vec<_> = (0..5).map(|_| connected(&lab.attacker, HOST, 22)).collect();
    assert!(held.iter().all(Result::is_ok));
    thread::sleep(ms(300));
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    engine.wait_ban(ATTACKER);
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);
    assert!(!talks(&lab.attacker, HOST, 22));
}

/// Whoever forges a guest's name gets him banned for the first step, again and again, and never for longer. The same
/// from a name that nobody ever came under climbs.
#[test]
fn forged_scans_in_the_name_of_a_guest_never_get_past_the_first_step() {
    const GUEST: &str = "10.88.9.9";
    const NOBODY: &str = "10.88.8.8";
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, &with_ladder(DETECTION, &["2s", "1h"]));
    let guest = lab
        .attacker
        .inside(|| visit(GUEST, 80))
        .expect("nothing in the way");
    // Twice, if it was announced while what is open was learned.
    let known = || engine.json("stats")["handshakes"]["completed"].as_u64() >= Some(1);
    assert!(within(secs(3), known), "{}", engine.json("stats"));
    drop(guest);

    for round in 0..4 {
        Gun::new(&lab.attacker, GUEST, HOST).syns(5001..=5032);
        let ban = engine.wait_ban(GUEST);
        assert_eq!(
            (&ban["step"], &ban["offences"]),
            (&1.into(), &1.into()),
            "round {round}: {ban}"
        );
        if round < 2 {
            Gun::new(&lab.attacker, NOBODY, HOST).syns(5001..=5032);
            assert_eq!(engine.wait_ban(NOBODY)["step"], round + 1);
        }
        assert!(
            engine.wait_free(GUEST, secs(4)),
            "round {round}\n{}",
            engine.log()
        );
        thread::sleep(ms(300)); // the kernel's element ends by itself, a moment later
    }
    assert_eq!(told(&engine, "possibly forged"), 4, "{}", engine.log());
    assert!(lab.attacker.inside(|| visit(GUEST, 80)).is_ok());
}
