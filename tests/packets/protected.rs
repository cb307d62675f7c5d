//! Whom no packet gets banned, and that it is followed: addresses, gateways and resolvers of this host, and those who
//! are logged in by SSH.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, unprivileged};
use crate::common::flow::{Stream, connect, connect_from, echoes};
use crate::common::lab::{
    ATTACKER, ATTACKER6, ATTACKER6_NET, ATTACKER6_ON_LINK, ATTACKER6_TWIN, CLIENT, HOST, HOST6, Lab,
    NEIGHBOUR6_ON_LINK,
};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::ssh::{Files, Pretender, Sshd, idle_connections};
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

const GATEWAY: &str = "10.77.0.254";
const GATEWAY6: &str = "fd77::fe";
const RESOLVER: &str = "10.88.0.53";
/// Where nothing answers, nmap by itself slows down to hundreds of ports a second.
const SCAN: &str = "-sS -T5 --max-retries 0 --min-rate 10000 -p 1-65535";
const SCAN_LIMIT: Duration = secs(300);

/// An engine among these files.
fn engine<'a>(lab: &'a Lab, config: &str, files: &Files) -> Engine<'a> {
    Engine::start_by(&lab.host, Home::new(config), |command| files.wrap(command))
}

/// Why `source` is never banned, as status says it; none: it is not protected.
fn why(engine: &Engine<'_>, source: &str) -> Vec<String> {
    let status = engine.json("status");
    let protected = status["protected_sources"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of = protected.iter().filter(|entry| entry["source"] == source);
    of.map(|entry| entry["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits until `source` is protected for a reason with these words; how long that took.
fn wait_protected(engine: &Engine<'_>, source: &str, words: &str) -> Duration {
    let begun = Instant::now();
    let holds = || why(engine, source).iter().any(|reason| reason.contains(words));
    assert!(
        within(secs(3), holds),
        "{source} is not protected as {words}: {:?}\n{}",
        why(engine, source),
        engine.log()
    );
    begun.elapsed()
}

fn elements(engine: &Engine<'_>) -> usize {
    let sets = ["banned4", "banned6", "banned6_128"];
    sets.map(|set| engine.kernel_bans(set).len()).iter().sum()
}

/// Waits until no ban is left in the kernel; how long that took.
fn wait_empty(engine: &Engine<'_>) -> Duration {
    let begun = Instant::now();
    assert!(
        within(secs(35), || elements(engine) == 0),
        "still banned: {:?}\n{}",
        engine.bans(),
        engine.log()
    );
    begun.elapsed()
}

/// Waits until the kernel bans `source`, in this set, and nobody else.
fn wait_banned_alone(engine: &Engine<'_>, set: &str, source: &str) {
    assert_eq!(engine.wait_ban(source)["reason"], "port_scanning");
    let alone = || elements(engine) == 1 && engine.kernel_bans(set) == [source];
    assert!(within(secs(2), alone), "{:?}\n{}", engine.bans(), engine.log());
}

/// Distinct ports of `source` that are counted.
fn counted(engine: &Engine<'_>, source: &str) -> u64 {
    let output = engine.ctl(&["stats", "--json", "--top", "100"]);
    let stats: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let top = stats["top_sources"].as_array().cloned().unwrap_or_default();
    let found = top.iter().find(|row| row["source"] == source);
    found.and_then(|row| row["ports"].as_u64()).unwrap_or(0)
}

fn refuses_ban(engine: &Engine<'_>, target: &str, words: &str) {
    let output = engine.ctl(&["ban", target]);
    assert_eq!(output.code(), 1, "{target}: {}", output.text());
    assert!(output.stderr.contains(words), "{target}: {}", output.stderr);
    assert_eq!(elements(engine), 0, "{target}");
}

#[test]
fn an_address_that_becomes_the_hosts_own_is_unbanned_at_once() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    for (address, banned) in [("10.77.0.66", "10.77.0.66"), ("fd55::66", "fd55::/64")] {
        engine.must(&["ban", address, "--for", "1h"]);
        assert_eq!((elements(&engine), engine.ban_of(banned).is_some()), (1, true));
        let begun = Instant::now();
        lab.host.ip(&["address", "add", address, "dev", "lan0"]);
        wait_empty(&engine);
        let took = begun.elapsed();
        println!("{address}: unbanned {took:?} after ip address add began");
        assert!(took < secs(1), "{took:?}");
        assert!(engine.bans().is_empty());
        refuses_ban(&engine, address, "own address on lan0");

        lab.host.ip(&["address", "del", address, "dev", "lan0"]);
        assert!(within(secs(2), || why(&engine, address).is_empty()));
        engine.must(&["ban", address]);
        engine.must(&["unban", address]);
    }
}

#[test]
fn who_becomes_gateway_or_resolver_is_unbanned_at_once() {
    let (lab, files) = (Lab::new(), Files::new());
    let engine = engine(&lab, FIREWALL, &files);
    engine.must(&["ban", "10.77.0.200"]);
    let begun = Instant::now();
    lab.host
        .ip(&["route", "add", "10.99.0.0/16", "via", "10.77.0.200"]);
    wait_empty(&engine);
    println!("gateway: unbanned after {:?}", begun.elapsed());
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    refuses_ban(&engine, "10.77.0.200", "gateway");
    lab.host
        .ip(&["route", "change", "10.99.0.0/16", "via", "10.77.0.201"]);
    wait_protected(&engine, "10.77.0.201", "gateway");
    assert!(within(secs(2), || why(&engine, "10.77.0.200").is_empty()));

    engine.must(&["ban", RESOLVER]);
    let begun = Instant::now();
    files.write_resolvers(&["198.51.100.1", RESOLVER]);
    wait_empty(&engine);
    println!("resolver: unbanned after {:?}", begun.elapsed());
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    refuses_ban(&engine, RESOLVER, "resolver");
    files.write_resolvers(&["198.51.100.1"]);
    assert!(within(secs(2), || why(&engine, RESOLVER).is_empty()));
}

#[test]
fn a_new_login_frees_its_peer_within_two_seconds() {
    let (lab, files) = (Lab::new().with_client(), Files::new());
    let (_echo, sshd) = (Echo::tcp(&lab.host, &[22]), Pretender::called("sshd"));
    let _session = connect(lab.client(), HOST, 22).expect("nothing is banned yet");
    let engine = engine(&lab, FIREWALL, &files);
    assert_eq!(why(&engine, CLIENT), [""; 0]);
    engine.must(&["ban", CLIENT, "--for", "1h"]);
    assert_eq!(elements(&engine), 1);

    let begun = Instant::now();
    files.write_logins(&[(CLIENT, sshd.pid())]);
    wait_empty(&engine);
    let took = begun.elapsed();
    println!("new login: unbanned after {took:?}");
    assert!(took < secs(2), "{took:?}");
    assert_eq!(why(&engine, CLIENT), ["SSH session listed in utmp"]);
    refuses_ban(&engine, CLIENT, "SSH session listed in utmp");
    refuses_ban(&engine, "10.77.1.0/24", CLIENT);
    assert!(engine.must(&["status"]).contains("SSH session listed in utmp"));

    // Who has logged out is spared for a while.
    files.write_logins(&[]);
    wait_protected(&engine, CLIENT, "ended less than 10 min ago");
    assert_eq!(why(&engine, CLIENT).len(), 1);
    refuses_ban(&engine, CLIENT, "ended less than 10 min ago");
}

/// Found before the state is taken back: a ban of before does not stand.
#[test]
fn a_saved_ban_of_a_logged_in_peer_is_dropped_at_start() {
    let (lab, files) = (Lab::new().with_client(), Files::new());
    let (_echo, sshd) = (Echo::tcp(&lab.host, &[22]), Pretender::called("sshd"));
    let _session = connect(lab.client(), HOST, 22).expect("nothing is banned yet");
    let first = engine(&lab, FIREWALL, &files);
    first.must(&["ban", CLIENT, "--for", "1h"]);
    let home = first.stop();
    files.write_logins(&[(CLIENT, sshd.pid())]);
    let second = Engine::start_by(&lab.host, home, |command| files.wrap(command));
    assert_eq!(
        (second.bans().len(), elements(&second)),
        (0, 0),
        "{}",
        second.log()
    );
    assert_eq!(why(&second, CLIENT), ["SSH session listed in utmp"]);
}

/// Any local user can have a record of a login written that never was (utempter), of a process of his.
#[test]
fn a_record_that_sshd_did_not_make_protects_nobody() {
    let (lab, files) = (Lab::new(), Files::new());
    let (_echo, other) = (Echo::tcp(&lab.host, &[22]), Pretender::called("screen"));
    let _open = connect(&lab.attacker, HOST, 22).expect("nothing is banned yet");
    files.write_logins(&[(ATTACKER, other.pid())]);
    let engine = engine(&lab, DETECTION, &files);
    assert_eq!(why(&engine, ATTACKER), [""; 0]);
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    engine.wait_ban(ATTACKER);
}

#[test]
fn five_connections_to_sshd_without_a_login_protect_nobody() {
    for files in [Files::new(), Files::without_utmp()] {
        let lab = Lab::new();
        let _sshd = Sshd::start(&lab.host, &files);
        let held = idle_connections(&lab.attacker, HOST, 5);
        let engine = engine(&lab, DETECTION, &files);
        assert_eq!(why(&engine, ATTACKER), [""; 0]);
        Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
        wait_banned_alone(&engine, "banned4", ATTACKER);
        drop(held);
    }
}

/// The whole way with OpenSSH, root and an ordinary user: a login protects, a scan in its name changes nothing, and
/// who only holds connections open beside it is banned.
#[test]
fn a_real_login_protects_its_peer_and_nobody_else() {
    for user in ["root", Sshd::USER] {
        let (lab, files) = (Lab::new().with_client(), Files::new());
        let sshd = Sshd::start(&lab.host, &files);
        let held = idle_connections(&lab.attacker, HOST, 5);
        let engine = engine(&lab, FIREWALL, &files);
        assert_eq!(why(&engine, CLIENT), [""; 0]);
        let session = sshd.login(lab.client(), user, HOST);
        println!(
            "{user}: protected after {:?}",
            wait_protected(&engine, CLIENT, "SSH session")
        );

        nmap(lab.client(), &format!("{SCAN} {HOST}"), SCAN_LIMIT);
        assert_eq!(
            (engine.bans().len(), elements(&engine)),
            (0, 0),
            "{}",
            engine.log()
        );
        assert!(counted(&engine, CLIENT) > 7, "what is protected is counted");
        assert!(
            sshd.lets_in(lab.client(), user, HOST),
            "{user} does not get in again"
        );

        Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
        wait_banned_alone(&engine, "banned4", ATTACKER);
        drop((session, held));
        wait_protected(&engine, CLIENT, "ended less than 10 min ago");
    }
}

/// CAP_NET_ADMIN alone, as packaged: other users' descriptors cannot be read there.
#[test]
fn an_engine_without_privileges_protects_the_same() {
    let (lab, files) = (Lab::new().with_client(), Files::new());
    let sshd = Sshd::start(&lab.host, &files);
    let held = idle_connections(&lab.attacker, HOST, 5);
    let engine = Engine::start_by(&lab.host, Home::for_anybody(DETECTION), |command| {
        let mut bare = unprivileged(command, &["--clear-groups"]);
        files.wrap(&mut bare);
        *command = bare;
    });
    let _session = sshd.login(lab.client(), Sshd::USER, HOST);
    wait_protected(&engine, CLIENT, "SSH session listed in utmp");
    assert_eq!(why(&engine, ATTACKER), [""; 0]);
    for (ns, source) in [(lab.client(), CLIENT), (&lab.attacker, ATTACKER)] {
        Gun::new(ns, source, HOST).syns(5001..=5012);
    }
    wait_banned_alone(&engine, "banned4", ATTACKER);
    drop(held);
}

#[test]
fn no_protected_address_can_be_banned_by_hand() {
    let (lab, files) = (Lab::new(), Files::new());
    files.write_resolvers(&[RESOLVER]);
    let trusting = format!("{FIREWALL}\n[trusted]\nnetworks = [\"192.0.2.0/24\"]\n");
    let engine = engine(&lab, &trusting, &files);
    for (target, words) in [
        (HOST, "own address on lan0"),
        (HOST6, "own address on lan0"),
        ("10.77.0.0/24", "own address on lan0"),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        (GATEWAY, "gateway"),
        (GATEWAY6, "gateway"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "broadcast"),
        (RESOLVER, "resolver"),
        ("192.0.2.77", "trusted"),
    ] {
        refuses_ban(&engine, target, words);
    }
}

#[test]
fn a_whole_scan_from_the_gateway_bans_nobody_and_cuts_nothing() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[22, 80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let open = connect_from(&lab.attacker, GATEWAY, HOST, 80).expect("an allowed port");
    let stream = Stream::tcp(open);
    nmap(
        &lab.attacker,
        &format!("{SCAN} -S {GATEWAY} -e lan0 {HOST}"),
        SCAN_LIMIT,
    );
    assert_eq!(
        (engine.bans().len(), elements(&engine)),
        (0, 0),
        "{}",
        engine.log()
    );
    assert!(stream.runs(), "an open connection was cut");
    assert!(counted(&engine, GATEWAY) > 7);
    assert!(connect_from(&lab.attacker, GATEWAY, HOST, 22).is_ok());
}

/// Whoever is protected, and whatever a stranger sends in his name.
#[test]
fn forged_scans_in_protected_names_are_counted_and_ban_nobody() {
    let (lab, files) = (Lab::new().with_client(), Files::new());
    files.write_resolvers(&[RESOLVER]);
    let (_echo, sshd) = (Echo::tcp(&lab.host, &[22]), Pretender::called("sshd-session"));
    files.write_logins(&[(CLIENT, sshd.pid())]);
    let mut session = connect(lab.client(), HOST, 22).expect("nothing is banned yet");
    let trusting = format!("{DETECTION}\n[trusted]\nnetworks = [\"192.0.2.0/24\"]\n");
    let engine = engine(&lab, &trusting, &files);
    let counted_names = [
        (HOST, HOST),
        (GATEWAY, HOST),
        (RESOLVER, HOST),
        (CLIENT, HOST),
        ("169.254.7.7", HOST),
        (GATEWAY6, HOST6),
        ("fe80::77", HOST6),
    ];
    // The sending kernel itself refuses some of these.
    let others = [
        ("127.0.0.9", HOST),
        ("192.0.2.9", HOST),
        ("224.0.0.9", HOST),
        (HOST6, HOST6),
    ];
    for (name, to) in counted_names.into_iter().chain(others) {
        let mut gun = Gun::new(&lab.attacker, name, to);
        gun.syns(5001..=5040);
        (5001..=5040).for_each(|port| gun.udp(port));
    }
    for (name, _) in counted_names {
        assert!(
            within(secs(2), || counted(&engine, name) > 7),
            "{name} is not counted"
        );
    }
    assert_eq!(counted(&engine, "192.0.2.9"), 0, "trusted is not counted");
    assert_eq!(
        (engine.bans().len(), elements(&engine)),
        (0, 0),
        "{:?}",
        engine.bans()
    );
    assert!(echoes(&mut session), "the session was cut");

    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    wait_banned_alone(&engine, "banned4", ATTACKER);
}

fn reaches(ns: &Namespace, from: &str) -> bool {
    connect_from(ns, from, HOST6, 80).is_ok_and(|mut stream| echoes(&mut stream))
}

#[test]
fn an_attacker_in_the_hosts_own_ipv6_network_is_banned_alone() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    nmap(
        &lab.attacker,
        &format!("-6 -sS -T5 -F --max-retries 0 -S {ATTACKER6_ON_LINK} -e lan0 {HOST6}"),
        secs(60),
    );
    wait_banned_alone(&engine, "banned6_128", ATTACKER6_ON_LINK);
    assert!(reaches(&lab.attacker, NEIGHBOUR6_ON_LINK), "a neighbour is cut");
    assert!(!reaches(&lab.attacker, ATTACKER6_ON_LINK));
}

/// A whole /64 is banned, then somebody in it becomes protected: the ban ends for all of it, since a set cannot leave
/// one address out. Each machine in it starts with an empty window and is judged for itself from then on.
#[test]
fn a_banned_network_is_free_once_somebody_in_it_is_protected() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5012);
    engine.wait_ban(ATTACKER6_NET);
    assert!(!reaches(&lab.attacker, ATTACKER6_TWIN));

    let begun = Instant::now();
    lab.host.ip(&[
        "-6",
        "route",
        "add",
        "2001:db8::/32",
        "via",
        "fd66::99",
        "dev",
        "lan0",
        "onlink",
    ]);
    wait_empty(&engine);
    println!("the /64: unbanned after {:?}", begun.elapsed());
    assert_eq!(why(&engine, "fd66::99"), ["gateway"]);
    assert!(reaches(&lab.attacker, ATTACKER6) && reaches(&lab.attacker, ATTACKER6_TWIN));
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5007);
    thread::sleep(ms(300));
    assert!(
        engine.bans().is_empty(),
        "seven ports are tolerated of each: {:?}",
        engine.bans()
    );
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns([5008]);
    wait_banned_alone(&engine, "banned6_128", ATTACKER6);
    assert!(reaches(&lab.attacker, ATTACKER6_TWIN), "its neighbour is cut");
}
