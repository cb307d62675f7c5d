//! The mode table on real packets, row by row: IPv4 and IPv6, TCP and UDP.

use std::io::ErrorKind;
use std::thread;

use crate::common::engine::{CORPORATE, DETECTION, Engine, FIREWALL};
use crate::common::flow::{connect, pings, talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, ATTACKER6, ATTACKER6_NET, ATTACKER6_ON_LINK, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::watch::counter;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

const MODES: [&str; 3] = [DETECTION, FIREWALL, CORPORATE];
const FILTERING: [&str; 2] = [FIREWALL, CORPORATE];
const FAMILIES: [&str; 2] = [HOST, HOST6];

fn observing(config: &str) -> String {
    config.replace("enforce = true", "enforce = false")
}

fn allowing_udp(config: &str) -> String {
    config.replace("tcp = [", "udp = [53]\ntcp = [")
}

fn dropping_others(config: &str) -> String {
    config.replace("[firewall]", "[firewall]\nother_protocols = \"drop\"")
}

/// Counts, in the attacker's namespace, every packet that comes from the host, but for neighbour discovery.
struct Silence<'a>(&'a Namespace);

impl<'a> Silence<'a> {
    fn new(ns: &'a Namespace) -> Silence<'a> {
        ns.nft(
            "add table inet silence; add counter inet silence heard; \
             add chain inet silence seen { type filter hook prerouting priority -400; policy accept; }; \
             add rule inet silence seen icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; \
             add rule inet silence seen ip saddr 10.77.0.2 counter name heard; \
             add rule inet silence seen ip6 saddr fd77::2 counter name heard",
        );
        Silence(ns)
    }

    fn heard(&self) -> u64 {
        counter(self.0, "silence", "heard")
    }
}

#[test]
fn a_refused_port_is_silent_and_an_allowed_one_answers() {
    for config in FILTERING {
        for config in [allowing_udp(config), observing(&allowing_udp(config))] {
            let lab = Lab::new();
            let _echo = Echo::both(&lab.host, &[80, 3306], &[53, 161]);
            let silence = Silence::new(&lab.attacker);
            let engine = Engine::start(&lab.host, &config);
            for address in FAMILIES {
                assert!(talks(&lab.attacker, address, 80), "{config}{}", engine.log());
                assert!(udp_echoes(&udp(&lab.attacker, address, 53)), "{config}");
                thread::sleep(ms(100)); // the last words of closed connections
                let heard = silence.heard();
                for port in [3306, 3307] {
                    let refused = connect(&lab.attacker, address, port).expect_err("refused");
                    assert_eq!(refused.kind(), ErrorKind::TimedOut, "{address} {port} {config}");
                }
                for port in [161, 162] {
                    assert!(
                        !udp_echoes(&udp(&lab.attacker, address, port)),
                        "{address} {port}"
                    );
                }
                assert_eq!(silence.heard(), heard, "the host answered {address}\n{config}");
            }
            let bans = engine.bans();
            assert!(
                bans.is_empty(),
                "four refused ports are below the threshold: {bans:?}"
            );
        }
    }
}

#[test]
fn nmap_calls_refused_ports_filtered() {
    for config in FILTERING {
        let lab = Lab::new();
        let _echo = Echo::both(&lab.host, &[80, 3306], &[53, 161]);
        let engine = Engine::start(&lab.host, &allowing_udp(config));
        for (family, address) in [("", HOST), ("-6", HOST6)] {
            let seen = nmap(
                &lab.attacker,
                &format!("{family} -sS -sU -p T:80,443,3306,U:53,161 {address}"),
                secs(60),
            );
            let expected = [
                ("80/tcp", "open"),
                ("443/tcp", "closed"), // allowed, nobody listens: the host's own answer
                ("3306/tcp", "filtered"),
                ("53/udp", "open"),
                ("161/udp", "open|filtered"),
            ];
            for (port, state) in expected {
                assert_eq!(
                    seen.get(port).map(String::as_str),
                    Some(state),
                    "{port} {seen:?}\n{}",
                    engine.log()
                );
            }
        }
    }
}

#[test]
fn detection_refuses_nothing() {
    for config in [DETECTION.to_owned(), observing(DETECTION)] {
        let lab = Lab::new();
        let _echo = Echo::both(&lab.host, &[3306], &[161]);
        let engine = Engine::start(&lab.host, &config);
        for address in FAMILIES {
            assert!(talks(&lab.attacker, address, 3306), "{}", engine.log());
            assert!(udp_echoes(&udp(&lab.attacker, address, 161)));
            let closed = connect(&lab.attacker, address, 3307).expect_err("nobody listens");
            assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "{address}");
            let closed = udp(&lab.attacker, address, 162);
            closed.send(b"hello").expect("a route");
            let said = closed.recv(&mut [0; 8]).expect_err("nobody listens");
            assert_eq!(said.kind(), ErrorKind::ConnectionRefused, "{address}");
        }
        assert_eq!(engine.json("stats")["verdicts"]["drop"], 0);
    }
}

/// Eight ports of TCP, refused or not, in every mode, from both families.
#[test]
fn an_offence_is_a_ban_where_bans_are_enforced_and_a_word_where_not() {
    for config in MODES {
        for enforce in [true, false] {
            let text = if enforce {
                config.to_owned()
            } else {
                observing(config)
            };
            let lab = Lab::new();
            let _echo = Echo::tcp(&lab.host, &[80, 3306]);
            let engine = Engine::start(&lab.host, &text);
            let refuses = config != DETECTION;
            for (from, listed, to, set) in [
                (ATTACKER, ATTACKER, HOST, "banned4"),
                (ATTACKER6, ATTACKER6_NET, HOST6, "banned6"),
            ] {
                Gun::new(&lab.attacker, from, to).syns(5001..=5008);
                let ban = engine.wait_ban(listed);
                assert_eq!(
                    (&ban["enforced"], &ban["reason"]),
                    (&enforce.into(), &"port_scanning".into()),
                    "{text}"
                );
                let held = within(secs(1), || !engine.kernel_bans(set).is_empty());
                assert_eq!(held, enforce, "{text}{}", engine.log());
                if to == HOST6 {
                    lab.attacker.ip(&[
                        "-6", "route", "replace", "fd77::2", "dev", "lan0", "src", "fd66::1",
                    ]);
                }
                assert_eq!(talks(&lab.attacker, to, 80), !enforce, "{text}{}", engine.log());
                assert_eq!(pings(&lab.attacker, to, 2), !enforce, "{text}");
                assert_eq!(talks(&lab.attacker, to, 3306), !enforce && !refuses, "{text}");
            }
            if !enforce {
                assert_eq!(engine.json("stats")["verdicts"]["drop"], 0, "{text}");
            }
        }
    }
}

#[test]
fn a_udp_scan_over_ipv6_is_an_offence_in_every_mode() {
    for config in MODES {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER6, HOST6);
        // Below 20 a second, the limit for copies of refused packets.
        (1001..=1029).for_each(|port| {
            gun.udp(port);
            thread::sleep(ms(60));
        });
        assert_eq!(engine.wait_ban(ATTACKER6_NET)["step"], 1, "{config}");
    }
}

#[test]
fn a_trusted_source_is_never_banned_and_the_port_filter_still_holds() {
    for config in MODES {
        let lab = Lab::new();
        let _echo = Echo::both(&lab.host, &[80, 3306], &[161]);
        let trusted = "\n[trusted]\nips = [\"10.77.0.1\"]\nnetworks = [\"fd66::/64\", \"fd77::1/128\"]\n";
        let engine = Engine::start(&lab.host, &format!("{config}{trusted}"));
        let refuses = config != DETECTION;
        for (from, to) in [(ATTACKER, HOST), (ATTACKER6, HOST6)] {
            Gun::new(&lab.attacker, from, to).syns(5001..=5100);
            thread::sleep(ms(300));
            assert!(talks(&lab.attacker, to, 80), "{config}{}", engine.log());
            assert_eq!(talks(&lab.attacker, to, 3306), !refuses, "{config}");
            assert_eq!(udp_echoes(&udp(&lab.attacker, to, 161)), !refuses, "{config}");
        }
        assert!(engine.bans().is_empty(), "{config}{:?}", engine.bans());
    }
}

/// What arrives past our table in the host: one counter a kind of packet (some kinds are words of nft).
struct Past<'a>(&'a Namespace);

impl<'a> Past<'a> {
    const KINDS: [(&'static str, &'static str); 17] = [
        ("mdns4", "ip daddr 224.0.0.251 udp dport 5353"),
        ("mdns6", "ip6 daddr ff02::fb udp dport 5353"),
        ("ssdp4", "ip daddr 239.255.255.250 udp dport 1900"),
        ("ssdp6", "ip6 daddr ff02::c udp dport 1900"),
        ("llmnr4", "ip daddr 224.0.0.252 udp dport 5355"),
        ("llmnr6", "ip6 daddr ff02::1:3 udp dport 5355"),
        ("igmp", "ip daddr 224.0.0.1 ip protocol 2"),
        ("dhcp4", "udp sport 67 udp dport 68"),
        ("dhcp6", "udp sport 547 udp dport 546"),
        (
            "toobig4",
            "icmp type destination-unreachable icmp code frag-needed",
        ),
        ("toobig6", "icmpv6 type packet-too-big"),
        ("echo4", "icmp type echo-request"),
        ("echo6", "icmpv6 type echo-request"),
        ("gre4", "ip daddr 10.77.0.2 ip protocol gre"),
        ("gre6", "ip6 daddr fd77::2 ip6 nexthdr gre"),
        ("sctp4", "ip daddr 10.77.0.2 ip protocol sctp"),
        ("sctp6", "ip6 daddr fd77::2 ip6 nexthdr sctp"),
    ];

    fn new(ns: &'a Namespace) -> Past<'a> {
        let rules = Past::KINDS.map(|(name, matches)| {
            format!(
                "add counter inet past n_{name}; add rule inet past seen {matches} counter name n_{name}; "
            )
        });
        ns.nft(&format!(
            "add table inet past; \
             add chain inet past seen {{ type filter hook prerouting priority 0; policy accept; }}; {}",
            rules.concat()
        ));
        Past(ns)
    }

    fn arrived(&self, name: &str) -> bool {
        counter(self.0, "past", &format!("n_{name}")) > 0
    }
}

/// A UDP datagram without a checksum: nobody reads it.
fn datagram(sport: u16, dport: u16) -> Vec<u8> {
    let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    [&ports[..], &[0, 12, 0, 0], b"ping"].concat()
}

/// One of each kind of [`Past::KINDS`] but the pings.
fn shoot_all(attacker: &Namespace) {
    attacker.ip(&["route", "add", "224.0.0.0/4", "dev", "lan0"]);
    let shoot = |from: &str, to: &str, protocol: u8, payload: &[u8]| {
        Gun::new(attacker, from, to).ip(protocol, payload);
    };
    const UDP: u8 = 17;
    let (link_local, on_link) = ("fe80::77", ATTACKER6_ON_LINK);
    for (to4, to6, port) in [
        ("224.0.0.251", "ff02::fb", 5353),
        ("239.255.255.250", "ff02::c", 1900),
        ("224.0.0.252", "ff02::1:3", 5355),
    ] {
        shoot(ATTACKER, to4, UDP, &datagram(port, port));
        shoot(on_link, to6, UDP, &datagram(port, port));
    }
    shoot(ATTACKER, "224.0.0.1", 2, &[0x11, 100, 0xee, 0x9b, 0, 0, 0, 0]);
    shoot(ATTACKER, HOST, UDP, &datagram(67, 68));
    shoot(link_local, HOST6, UDP, &datagram(547, 546));
    // Type, code, checksum (of zeros: nobody reads it), MTU 1280.
    shoot(ATTACKER, HOST, 1, &[3, 4, 0, 0, 0, 0, 5, 0]);
    shoot(on_link, HOST6, 58, &[2, 0, 0, 0, 0, 0, 5, 0]);
    for (from, to) in [(ATTACKER, HOST), (on_link, HOST6)] {
        shoot(from, to, 47, &[0, 0, 8, 0, 0, 0, 0, 0]);
        shoot(from, to, 132, &[0x9c, 0x40, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

/// What a network needs to live is not a matter of policy.
const VITAL: [&str; 11] = [
    "mdns4", "mdns6", "ssdp4", "ssdp6", "llmnr4", "llmnr6", "igmp", "dhcp4", "dhcp6", "toobig4", "toobig6",
];
const OTHERS: [&str; 6] = ["echo4", "echo6", "gre4", "gre6", "sctp4", "sctp6"];

#[test]
fn what_keeps_a_network_alive_passes_in_every_mode_and_other_protocols_unless_closed() {
    for (config, closes) in [
        (DETECTION.to_owned(), false),
        (observing(DETECTION), false),
        (FIREWALL.to_owned(), false),
        (CORPORATE.to_owned(), false),
        (dropping_others(FIREWALL), true),
        (dropping_others(CORPORATE), true),
    ] {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[80]);
        let engine = Engine::start(&lab.host, &config);
        let past = Past::new(&lab.host);
        shoot_all(&lab.attacker);
        for address in FAMILIES {
            assert_eq!(pings(&lab.attacker, address, 2), !closes, "{address} {config}");
        }
        for name in VITAL {
            assert!(within(secs(1), || past.arrived(name)), "{name} {config}");
        }
        for name in OTHERS {
            assert_eq!(past.arrived(name), !closes, "{name} {config}");
        }
        for ns in [&lab.attacker, &lab.host] {
            ns.ip(&["neigh", "flush", "all"]);
        }
        for address in FAMILIES {
            assert!(
                talks(&lab.attacker, address, 80),
                "{address}: neighbours are found\n{config}"
            );
        }
        assert!(pings(&lab.host, ATTACKER, 2), "what the host asks is answered");
        if config != observing(DETECTION) {
            let rules = lab.host.nft_list(&["list", "chain", "inet", "verdictd", "pre"]);
            let counts = rules
                .lines()
                .find(|line| line.contains("other protocols"))
                .expect("a rule");
            assert!(!counts.contains("packets 0 "), "counted: {counts}");
        }
        assert!(engine.bans().is_empty(), "{config}{:?}", engine.bans());
    }
}
