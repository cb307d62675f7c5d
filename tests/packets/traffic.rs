//! Traffic that is not to be touched, and traffic that must not slip by.

use std::fs;
use std::thread;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::flow::{connect, echoes, pings, talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, BEHIND, CLIENT, HOST, HOST6, Lab};
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

#[test]
fn a_trusted_scanner_is_never_banned_but_refused_ports_stay_refused_to_it() {
    for trusted in [
        format!("ips = [\"{ATTACKER}\"]"),
        "networks = [\"10.77.0.0/24\"]".into(),
    ] {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[22, 80, 3306]);
        let engine = Engine::start(&lab.host, &format!("{FIREWALL}\n[trusted]\n{trusted}\n"));
        let seen = nmap(
            &lab.attacker,
            &format!("-sS -T5 -p 22,80,443,3306,1000-1095 {HOST}"),
            secs(60),
        );
        let open = |port: &str| seen.get(port).map(String::as_str);
        assert_eq!([open("22/tcp"), open("80/tcp")], [Some("open"); 2], "{seen:?}");
        assert_eq!(open("443/tcp"), Some("closed"), "{seen:?}");
        assert_ne!(
            open("3306/tcp"),
            Some("open"),
            "a refused port is open to a trusted source"
        );
        assert!(engine.bans().is_empty(), "{:?}", engine.bans());
        assert!(talks(&lab.attacker, HOST, 80));
        assert!(!talks(&lab.attacker, HOST, 3306));
    }
}

#[test]
fn forwarded_traffic_is_neither_filtered_nor_counted() {
    let lab = Lab::new().with_behind();
    let _echo = Echo::both(lab.behind(), &[3306, 8080], &[5353]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, FIREWALL);
    assert!(
        talks(&lab.attacker, BEHIND, 3306),
        "a port that the host refuses for itself"
    );
    assert!(udp_echoes(&udp(&lab.attacker, BEHIND, 5353)));
    assert!(pings(&lab.attacker, BEHIND, 2));
    Gun::new(&lab.attacker, ATTACKER, BEHIND).syns(6001..=6100);
    assert!(
        within(secs(2), || witness.answered().range(6001..=6100).count() == 100),
        "{:?}",
        witness.answered()
    );
    assert!(
        engine.bans().is_empty(),
        "a scan of another machine: {:?}",
        engine.bans()
    );
    let stats = engine.json("stats");
    assert_eq!(stats["verdicts"]["drop"], 0, "{stats}");
}

#[test]
fn the_way_out_of_a_machine_behind_is_untouched() {
    let lab = Lab::new().with_behind();
    let _echo = Echo::tcp(&lab.attacker, &[3306]);
    let engine = Engine::start(&lab.host, FIREWALL);
    assert!(
        (0..50).all(|_| talks(lab.behind(), ATTACKER, 3306)),
        "{}",
        engine.log()
    );
    assert!(engine.bans().is_empty());
}

/// Publishes port 8080 of the host as port 80 of the machine behind, as a container runtime does.
const PUBLISHED: &str = "add table ip publish; \
    add chain ip publish nat { type nat hook prerouting priority -100; policy accept; }; \
    add rule ip publish nat ip daddr 10.77.0.2 tcp dport 8080 dnat to 10.77.2.1:80";

#[test]
fn a_published_port_is_filtered_like_the_hosts_own() {
    let lab = Lab::new().with_behind();
    let _echo = Echo::tcp(lab.behind(), &[80]);
    lab.host.nft(PUBLISHED);
    assert!(talks(&lab.attacker, HOST, 8080), "the lab publishes it");
    let engine = Engine::start(&lab.host, FIREWALL);
    assert!(!talks(&lab.attacker, HOST, 8080), "8080 is not allowed");
    engine.stop();

    let engine = Engine::start(&lab.host, &FIREWALL.replace("443]", "443, 8080]"));
    assert!(
        talks(&lab.attacker, HOST, 8080),
        "8080 is allowed\n{}",
        engine.log()
    );
}

#[test]
fn a_published_port_is_protected_like_the_hosts_own() {
    let lab = Lab::new().with_behind();
    let _echo = Echo::tcp(lab.behind(), &[80]);
    lab.host.nft(PUBLISHED);
    let engine = Engine::start(&lab.host, DETECTION);
    let mut stream = connect(&lab.attacker, HOST, 8080).expect("published");
    assert!(echoes(&mut stream));
    assert!(within(
        secs(2),
        || engine.json("stats")["handshakes"]["completed"].as_u64() >= Some(1)
    ));
    // A completed handshake speaks for the published port as it does for the host's own.
    Gun::new(&lab.attacker, ATTACKER, HOST).syns([8080, 5001, 5002, 5003, 5004, 5005, 5006, 5007]);
    std::thread::sleep(secs(1));
    assert!(engine.bans().is_empty(), "{}", engine.log());
    Gun::new(&lab.attacker, ATTACKER, HOST).syns([5008]);
    engine.wait_ban(ATTACKER);
    assert!(within(secs(1), || !engine.kernel_bans("banned4").is_empty()));
    assert!(
        !echoes(&mut stream),
        "an open connection through the published port goes on"
    );
    assert!(!talks(&lab.attacker, HOST, 8080));
}

#[test]
fn observing_knows_completed_handshakes_without_conntrack() {
    let lab = Lab::new();
    let office = [25, 80, 110, 143, 443, 465, 587, 993, 995];
    let _echo = Echo::tcp(&lab.host, &office);
    let engine = Engine::start(&lab.host, OBSERVING);
    let mut open = Vec::new();
    for ports in office.chunks(5) {
        open.extend(
            ports
                .iter()
                .map(|port| connect(&lab.attacker, HOST, *port).expect("open")),
        );
        std::thread::sleep(ms(2500));
    }
    assert_eq!(
        engine.json("stats")["handshakes"]["completed"],
        9,
        "{}",
        engine.log()
    );
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    gun.syns(5001..=5007);
    std::thread::sleep(secs(1));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    gun.syns([5008]);
    assert_eq!(engine.wait_ban(ATTACKER)["enforced"], false);
    let count = lab
        .host
        .inside(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    assert_eq!(count.unwrap().trim(), "0", "conntrack sleeps on");
}

#[test]
fn observing_holds_nothing_and_wakes_no_conntrack() {
    let lab = Lab::new().with_client();
    let _echo = Echo::both(&lab.host, &[80, 443], &[53]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, OBSERVING);

    let table = engine.table();
    for word in ["ct ", "queue flags", "queue to", "queue num", "NFQUEUE", "reject"] {
        assert!(
            !table.contains(word),
            "the observing table holds {word:?}:\n{table}"
        );
    }
    let blind = engine.json("status")["blind"].to_string();
    assert!(
        blind.contains("UDP scans are not seen"),
        "status says what it cannot know: {blind}"
    );
    let queues = lab
        .host
        .inside(|| fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"));
    assert_eq!(queues.unwrap_or_default(), "", "a queue is bound");

    let _open: Vec<_> = (0..20)
        .map(|_| connect(lab.client(), HOST, 443).expect("open"))
        .collect();
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5100);
    let ban = engine.wait_ban(ATTACKER);
    assert_eq!(ban["enforced"], false, "{ban}");
    assert_eq!(ban["reason"], "port_scanning", "{ban}");
    assert!(
        within(secs(2), || witness.answered().len() == 100),
        "{} of 100 answered",
        witness.answered().len()
    );
    assert!(engine.kernel_bans("banned4").is_empty());
    assert!(talks(&lab.attacker, HOST, 80) && pings(&lab.attacker, HOST, 2));
    assert!(udp_echoes(&udp(&lab.attacker, HOST, 53)));
    assert!(engine.ban_of(CLIENT).is_none());
    assert_eq!(lab.host.conntrack_count(), 0, "conntrack woke up");
    let stats = engine.json("stats");
    assert_eq!(
        (&stats["verdicts"]["drop"], &stats["bans"]["active"]),
        (&0.into(), &0.into()),
        "{stats}"
    );
}

#[test]
fn sources_are_forgotten_without_traffic_and_then_the_workers_only_beat() {
    let lab = Lab::new();
    // 10.1 s: nearly the shortest window there is; and what is no longer new is forgotten soon.
    let config = DETECTION.replace("\"standard\"", "\"custom\"")
        + "[custom]\nactivity_window_hours = 0.0028\n[distributed]\nknown_after = \"10s\"\n";
    let engine = Engine::start(&lab.host, &config);
    let tracked = || engine.json("stats")["sources"]["tracked"].clone();
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5003);
    assert!(within(secs(2), || tracked() == 1), "{} tracked", tracked());
    assert!(within(secs(30), || tracked() == 0), "{} tracked", tracked());

    let pid = engine.json("status")["pid"].as_u64().expect("a process number");
    thread::sleep(secs(1));
    let before = sleeps(pid);
    assert!(!before.is_empty());
    thread::sleep(secs(3));
    // Four beats a second, and one order to give a sign of life.
    let woken = sleeps(pid)
        .into_iter()
        .zip(&before)
        .map(|(now, before)| now - before);
    let woken: Vec<u64> = woken.collect();
    assert!(
        woken.iter().all(|count| *count <= 3 * 5 + 3),
        "workers wake up for nothing: {woken:?}"
    );
}

/// How often each worker thread of `pid` went to sleep.
fn sleeps(pid: u64) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running engine");
    let status = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let workers = status.filter(|status| status.starts_with("Name:\tworker"));
    let line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("voluntary"))
            .and_then(|line| line.split_whitespace().last()?.parse().ok())
    };
    workers.filter_map(|text| line(&text)).collect()
}

#[test]
fn what_keeps_a_network_alive_always_passes() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[3306]);
    let engine = Engine::start(&lab.host, &FIREWALL.replace("tcp = [22, 80, 443]", "tcp = [22]"));
    for (ns, peer, peer6) in [(&lab.attacker, HOST, HOST6), (&lab.host, ATTACKER, "fd77::1")] {
        for _ in 0..2 {
            ns.ip(&["neigh", "flush", "all"]);
            assert!(pings(ns, peer, 2), "ping {peer}\n{}", engine.log());
            assert!(pings(ns, peer6, 2), "ping {peer6}\n{}", engine.log());
        }
    }
    assert!(talks(&lab.host, "127.0.0.1", 3306), "loopback");
    assert!(talks(&lab.host, HOST, 3306), "the host to itself");
    thread::sleep(ms(100));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
}

#[test]
fn in_firewall_mode_udp_is_refused_unless_allowed() {
    let lab = Lab::new();
    let _echo = Echo::both(&lab.host, &[], &[53, 161]);
    let engine = Engine::start(&lab.host, &FIREWALL.replace("443]", "443]\nudp = [53]"));
    assert!(udp_echoes(&udp(&lab.attacker, HOST, 53)), "{}", engine.log());
    assert!(!udp_echoes(&udp(&lab.attacker, HOST, 161)));
    engine.stop();
    let _engine = Engine::start(&lab.host, FIREWALL);
    assert!(
        !udp_echoes(&udp(&lab.attacker, HOST, 53)),
        "without a udp key every UDP port is refused"
    );
}
