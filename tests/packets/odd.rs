//! What is no plain segment or datagram: other protocols, fragments, long chains of extension headers.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Instant;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::lab::{ATTACKER, ATTACKER6, ATTACKER6_NET, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::watch::{Witness, counter};
use crate::common::wire::{FIN, Gun, SYN};
use crate::common::{ms, secs, within};

const TCP: u8 = 6;
const GRE: u8 = 47;
const ESP: u8 = 50;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
const SCTP: u8 = 132;

fn copies(engine: &Engine<'_>, class: &str) -> u64 {
    engine.json("stats")["copies"][class].as_u64().expect("a count")
}

/// Counts in `ns`, behind the engine's table, what comes with this protocol.
fn count_protocol(ns: &Namespace, protocol: u8) {
    ns.nft(&format!(
        "add table inet arrived; add counter inet arrived p{protocol}; \
         add chain inet arrived late {{ type filter hook prerouting priority 0; }}; \
         add rule inet arrived late meta l4proto {protocol} counter name p{protocol}"
    ));
}

#[test]
fn a_sweep_over_ip_protocols_reaches_the_engine_in_every_mode() {
    for config in [DETECTION, FIREWALL, OBSERVING] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        nmap(
            &lab.attacker,
            &format!("-sO -T5 --max-retries 0 {HOST}"),
            secs(120),
        );
        assert!(
            within(secs(3), || copies(&engine, "observed") >= 8),
            "{}\n{config}",
            engine.must(&["stats"])
        );
    }
}

#[test]
fn closed_to_other_protocols_a_sweep_is_refused_and_told() {
    let lab = Lab::new();
    let config = FIREWALL.replace(
        "firewall_mode = \"firewall\"",
        "firewall_mode = \"firewall\"\nother_protocols = \"drop\"",
    );
    let engine = Engine::start(&lab.host, &config);
    let gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    (200..208).for_each(|protocol| gun.ip(protocol, &[0; 20]));
    assert!(within(secs(3), || copies(&engine, "refused") >= 8));
    assert_eq!(copies(&engine, "observed"), 0);
}

#[test]
fn refused_and_passed_packets_are_told_apart() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    for round in 0..5 {
        gun.ip(GRE, &[0; 8]);
        gun.tcp(8000 + round % 2, SYN);
    }
    let both = || (copies(&engine, "refused"), copies(&engine, "observed"));
    assert!(within(secs(3), || both() == (5, 5)), "{:?}", both());
}

#[test]
fn tunnels_without_answers_pass_and_cost_few_copies() {
    const PACKETS: u64 = 600;
    for config in [DETECTION, FIREWALL, OBSERVING] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let protocols = [GRE, ESP, SCTP];
        protocols
            .iter()
            .for_each(|protocol| count_protocol(&lab.host, *protocol));
        let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        let began = Instant::now();
        for _ in 0..PACKETS / 30 {
            for protocol in protocols {
                (0..30).for_each(|_| gun.ip(protocol, &[0; 32]));
            }
            thread::sleep(ms(100));
        }
        for protocol in protocols {
            let arrived = || counter(&lab.host, "arrived", &format!("p{protocol}"));
            assert!(
                within(secs(2), || arrived() == PACKETS),
                "{protocol}: {}",
                arrived()
            );
        }
        thread::sleep(ms(100));
        let (made, allowed) = (
            copies(&engine, "observed"),
            20 + 20 * (began.elapsed().as_secs() + 1),
        );
        assert!((20..=allowed).contains(&made), "{made} copies, {allowed} allowed");

        // A full stream of them hides nothing else of its source.
        gun.syns(5001..=5010);
        engine.wait_ban(ATTACKER);
    }
}

#[test]
fn a_fragmented_scan_is_a_scan() {
    for (config, kind) in [
        (DETECTION, "SYN_SCAN"),
        (FIREWALL, "SYN_SCAN"),
        (OBSERVING, "TINY_FRAGMENT_SCAN"),
    ] {
        for option in ["-f", "--mtu 8", "--mtu 16", "--mtu 24"] {
            let lab = Lab::new();
            let engine = Engine::start(&lab.host, config);
            let scan = format!("-sS {option} -T5 --max-retries 0 -p 5000-5019 {HOST}");
            nmap(&lab.attacker, &scan, secs(60));
            engine.wait_ban(ATTACKER);
            let kinds = engine.json("stats")["kinds"].clone();
            let kind = if option == "--mtu 24" { "SYN_SCAN" } else { kind };
            // The ninth SYN or the fifth stealth probe comes from a banned source: no evidence any more.
            let enough = if kind == "SYN_SCAN" { 8 } else { 4 };
            assert_eq!(kinds[kind], enough, "{option}: {kinds}\n{config}");
        }
    }
}

/// nmap does not fragment IPv6. Linux refuses such fragments by itself (RFC 8200, section 4.5), so that this scan
/// learns nothing; whoever tries is told all the same.
#[test]
fn a_fragmented_scan_of_ipv6_is_a_scan() {
    for config in [DETECTION, FIREWALL, OBSERVING] {
        for size in [8, 16] {
            let lab = Lab::new();
            let engine = Engine::start(&lab.host, config);
            let mut gun = Gun::new(&lab.attacker, ATTACKER6, HOST6);
            for port in 5000..5012 {
                let segment = gun.segment(port, SYN);
                send_in_fragments6(&gun, &segment, size, port);
            }
            engine.wait_ban(ATTACKER6_NET);
            let kinds = engine.json("stats")["kinds"].clone();
            assert_eq!(kinds["TINY_FRAGMENT_SCAN"], 4, "{size}: {kinds}\n{config}");
        }
    }
}

fn send_in_fragments6(gun: &Gun, segment: &[u8], size: usize, id: u16) {
    for (at, piece) in segment.chunks(size).enumerate() {
        let offset = (at * size) as u16;
        let more = u16::from((at + 1) * size < segment.len());
        let ([o0, o1], [i0, i1]) = ((offset | more).to_be_bytes(), id.to_be_bytes());
        gun.ip(FRAGMENT, &[&[TCP, 0, o0, o1, 0, 0, i0, i1], piece].concat());
    }
}

#[test]
fn the_stealthiest_flags_do_not_hide_in_a_later_fragment() {
    for config in [DETECTION, OBSERVING] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        for port in 5000..5012 {
            let segment = gun.segment(port, FIN);
            send_in_fragments4(&gun, &segment, 8, port);
        }
        engine.wait_ban(ATTACKER);
    }
}

fn send_in_fragments4(gun: &Gun, segment: &[u8], size: usize, id: u16) {
    let [src, dst] = [ATTACKER, HOST].map(|text| text.parse::<Ipv4Addr>().expect("an address"));
    for (at, piece) in segment.chunks(size).enumerate() {
        let more = u16::from((at + 1) * size < segment.len()) << 13;
        let fragment = (at * size / 8) as u16 | more;
        let ([f0, f1], [i0, i1]) = (fragment.to_be_bytes(), id.to_be_bytes());
        // Length and checksum are the kernel's to fill in (raw(7)).
        let header = [0x45, 0, 0, 0, i0, i1, f0, f1, 64, TCP, 0, 0];
        gun.bytes(&[&header[..], &src.octets(), &dst.octets(), piece].concat());
    }
}

#[test]
fn extension_headers_hide_no_scan() {
    // One header of up to 2,048 bytes; and as many of the shortest as Linux follows.
    let chains = [vec![300], vec![1000], vec![1400], vec![8; 17], vec![8; 170]];
    for config in [DETECTION, FIREWALL, OBSERVING] {
        for chain in &chains {
            let lab = Lab::new();
            let witness = Witness::new(&lab.attacker);
            let engine = Engine::start(&lab.host, config);
            let mut gun = Gun::new(&lab.attacker, ATTACKER6, HOST6);
            for port in 5000..5012 {
                let segment = gun.segment(port, SYN);
                gun.ip(DESTINATION_OPTIONS, &[options(chain), segment].concat());
            }
            engine.wait_ban(ATTACKER6_NET);
            let answered = witness.answered().len();
            eprintln!("answered {answered} of chain {} x {}", chain.len(), chain[0]);
        }
    }
}

/// Destination options of about these lengths, one header after the other, before TCP.
fn options(lengths: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        let next = if at + 1 == lengths.len() {
            TCP
        } else {
            DESTINATION_OPTIONS
        };
        let begin = bytes.len();
        let words = length.div_ceil(8);
        bytes.extend([next, (words - 1) as u8]);
        // Padding options (RFC 8200, section 4.2) of at most 7 bytes: Linux takes no longer ones.
        while bytes.len() < begin + words * 8 {
            let rest = (begin + words * 8 - bytes.len()).min(7);
            match rest {
                1 => bytes.push(0),
                _ => bytes.extend([&[1, rest as u8 - 2][..], &vec![0; rest - 2]].concat()),
            }
        }
    }
    bytes
}
