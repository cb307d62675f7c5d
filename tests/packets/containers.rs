//! Containers and guests on a bridge: they keep the host's DNS and their way out, and what they publish is
//! guarded like a port of the host's own.
//!
//! ```text
//! guest 10.99.0.10 fd99::10 ── br-lab 10.99.0.1 fd99::1 (host) wan0 198.51.100.2 ── internet 198.51.100.1
//! ```

use std::thread;

use crate::common::engine::{CORPORATE, Engine, FIREWALL};
use crate::common::flow::{connect, echoes, pings, talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::namespace::{Namespace, join};
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

const GUEST: &str = "10.99.0.10";
const GUEST6: &str = "fd99::10";
/// The host on the bridge.
const BRIDGE: &str = "10.99.0.1";
const BRIDGE6: &str = "fd99::1";
const INTERNET: &str = "198.51.100.1";
const INTERNET6: &str = "2001:db8:51::1";
/// The host toward the internet.
const OUTSIDE: &str = "198.51.100.2";

/// What container runtimes load: a way out for guests, and port 8080 of the host as port 80 of the guest.
const RUNTIME: &str = "add table ip runtime; \
    add chain ip runtime out { type nat hook postrouting priority 100; policy accept; }; \
    add rule ip runtime out ip saddr 10.99.0.0/24 oifname != \"br-lab\" masquerade; \
    add chain ip runtime published { type nat hook prerouting priority -100; policy accept; }; \
    add rule ip runtime published fib daddr type local tcp dport 8080 dnat to 10.99.0.10:80";

struct Site {
    lab: Lab,
    guest: Namespace,
    internet: Namespace,
}

impl Site {
    fn new() -> Site {
        let lab = Lab::new();
        let (guest, internet) = (Namespace::new("guest"), Namespace::new("internet"));
        let host = &lab.host;
        host.ip(&["link", "add", "br-lab", "type", "bridge"]);
        for address in ["10.99.0.1/24", "fd99::1/64"] {
            host.ip(&["address", "add", address, "dev", "br-lab"]);
        }
        host.ip(&["link", "set", "br-lab", "up"]);
        join(
            (&guest, "eth0", &["10.99.0.10/24", "fd99::10/64"]),
            (host, "guest0", &[]),
        );
        host.ip(&["link", "set", "guest0", "master", "br-lab"]);
        join(
            (&internet, "wan0", &["198.51.100.1/24", "2001:db8:51::1/64"]),
            (host, "wan0", &["198.51.100.2/24", "2001:db8:51::2/64"]),
        );
        host.sysctl("net/ipv4/ip_forward", "1");
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        guest.ip(&["route", "add", "default", "via", BRIDGE]);
        guest.ip(&["-6", "route", "add", "default", "via", BRIDGE6]);
        internet.ip(&["-6", "route", "add", "fd99::/64", "via", "2001:db8:51::2"]);
        host.nft(RUNTIME);
        Site { lab, guest, internet }
    }
}

#[test]
fn a_guest_reaches_the_hosts_dns_and_the_internet() {
    for config in [FIREWALL, CORPORATE] {
        let site = Site::new();
        let _dns = Echo::both(&site.lab.host, &[53], &[53]);
        let _web = Echo::both(&site.internet, &[443], &[53]);
        let engine = Engine::start(&site.lab.host, config);
        for address in [BRIDGE, BRIDGE6] {
            assert!(
                udp_echoes(&udp(&site.guest, address, 53)),
                "{address}\n{}",
                engine.log()
            );
            assert!(talks(&site.guest, address, 53), "{address}\n{}", engine.log());
        }
        for address in [INTERNET, INTERNET6] {
            assert!(talks(&site.guest, address, 443), "{address}\n{}", engine.log());
            assert!(udp_echoes(&udp(&site.guest, address, 53)), "{address}");
            assert!(pings(&site.guest, address, 2), "{address}");
        }
        // Nobody else gets the resolver.
        assert!(!talks(&site.internet, OUTSIDE, 53) && !udp_echoes(&udp(&site.internet, OUTSIDE, 53)));
        assert!(!talks(&site.lab.attacker, HOST, 53));
        assert!(!engine.home().log().contains(GUEST), "{}", engine.log());
    }
}

#[test]
fn what_a_guest_does_is_neither_filtered_nor_counted_but_a_ban_of_it_holds() {
    let site = Site::new();
    let _echo = Echo::both(&site.lab.host, &[3306], &[53]);
    let witness = Witness::new(&site.guest);
    let engine = Engine::start(&site.lab.host, FIREWALL);
    for (from, to) in [(GUEST, BRIDGE), (GUEST6, BRIDGE6)] {
        Gun::new(&site.guest, from, to).syns(6001..=6100);
        assert!(talks(&site.guest, to, 3306), "{to}\n{}", engine.log());
    }
    assert!(
        within(secs(2), || witness.answered().range(6001..=6100).count() == 100),
        "{:?}",
        witness.answered()
    );
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    let kinds = engine.json("stats")["kinds"].clone();
    assert!(
        kinds.as_object().unwrap().values().all(|count| count == 0),
        "{kinds}"
    );

    engine.must(&["ban", GUEST]);
    assert!(!talks(&site.guest, BRIDGE, 3306) && !udp_echoes(&udp(&site.guest, BRIDGE, 53)));
    engine.must(&["unban", GUEST]);
    assert!(talks(&site.guest, BRIDGE, 3306));
}

#[test]
fn a_published_port_is_filtered_like_the_hosts_own() {
    let site = Site::new();
    let _web = Echo::tcp(&site.guest, &[80]);
    assert!(talks(&site.internet, OUTSIDE, 8080), "the runtime publishes it");
    let engine = Engine::start(&site.lab.host, FIREWALL);
    for (from, to) in [(&site.internet, OUTSIDE), (&site.lab.attacker, HOST)] {
        assert!(!talks(from, to, 8080), "8080 is not allowed\n{}", engine.log());
    }
    assert!(!talks(&site.internet, OUTSIDE, 3306));
    engine.stop();

    let engine = Engine::start(&site.lab.host, &FIREWALL.replace("443]", "443, 8080]"));
    for (from, to) in [(&site.internet, OUTSIDE), (&site.lab.attacker, HOST)] {
        assert!(talks(from, to, 8080), "8080 is allowed\n{}", engine.log());
    }
    let mut open = connect(&site.lab.attacker, HOST, 8080).expect("published");
    Gun::new(&site.lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    engine.wait_ban(ATTACKER);
    thread::sleep(ms(300));
    assert!(!echoes(&mut open), "a ban cuts what is open to a guest, too");
    assert!(!talks(&site.lab.attacker, HOST, 8080));
    assert!(talks(&site.internet, OUTSIDE, 8080), "others are let in");
}
