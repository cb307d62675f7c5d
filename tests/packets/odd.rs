//! What is no plain segment or datagram: other protocols, fragments, long chains of extension headers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::flow::{PATIENCE, talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, ATTACKER6, ATTACKER6_NET, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::service::Echo;
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
    // One long header; and many short ones: Linux follows and answers them all.
    let chains = [vec![300], vec![1000], vec![1400], vec![8; 17], vec![8; 170]];
    for (config, answers) in [(DETECTION, 1..=7), (FIREWALL, 0..=0), (OBSERVING, 12..=12)] {
        let lab = Lab::new();
        let witness = Witness::new(&lab.attacker);
        let engine = Engine::start(&lab.host, config);
        let mut gun = Gun::new(&lab.attacker, ATTACKER6, HOST6);
        for (chain, first) in chains.iter().zip((5000..).step_by(100)) {
            let before = witness.answered().len();
            for port in first..first + 12 {
                let segment = gun.segment(port, SYN);
                gun.ip(DESTINATION_OPTIONS, &[options(chain), segment].concat());
            }
            engine.wait_ban(ATTACKER6_NET);
            let answered = witness.answered().len() - before;
            let what = format!(
                "{answered} answers behind {} headers of {} bytes",
                chain.len(),
                chain[0]
            );
            assert!(answers.contains(&answered), "{what}\n{config}");
            engine.must(&["unban", ATTACKER6]);
            // The rate of copies of one source.
            thread::sleep(ms(700));
        }
    }
}

/// Destination options headers of about these lengths, one after the other, before TCP.
fn options(lengths: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, length) in lengths.iter().enumerate() {
        let next = if at + 1 == lengths.len() {
            TCP
        } else {
            DESTINATION_OPTIONS
        };
        let end = bytes.len() + length.next_multiple_of(8);
        bytes.extend([next, (length.div_ceil(8) - 1) as u8]);
        while bytes.len() < end {
            match end - bytes.len() {
                1 => bytes.push(0),
                // An option that nobody knows and that says "skip me" (RFC 8200, section 4.2). Of padding Linux takes no
                // more than 7 bytes, of options no more than 8.
                rest => {
                    let length = (rest - 2).min(255);
                    bytes.extend([0x1e, length as u8]);
                    bytes.resize(bytes.len() + length, 0);
                }
            }
        }
    }
    bytes
}

/// What conntrack calls invalid, and what is refused, comes from any number of forged sources at any rate, each
/// within its limit. A worker looks at so much of it that the others' packets do not wait.
#[test]
fn floods_from_forged_sources_cut_nobody_off() {
    const CLOSED: &str = "[engine]\non_loss = \"closed\"\n";
    let firewall = FIREWALL.replace("tcp = [22, 80, 443]", "tcp = [443]\nudp = [5353]");
    for (config, port, flags) in [(DETECTION, 443, FIN), (&firewall, 8080, SYN)] {
        let lab = Lab::new().with_client();
        let _echo = Echo::both(&lab.host, &[443], &[5353]);
        // A service that its operator took out of conntrack: its packets wait in the same queues as invalid ones.
        lab.host.nft(
            "add table inet free; add counter inet free asked; add counter inet free answered; \
             add chain inet free in { type filter hook prerouting priority -300; }; \
             add chain inet free out { type filter hook output priority -300; }; \
             add rule inet free in udp dport 5353 counter name asked notrack; \
             add rule inet free out udp sport 5353 counter name answered notrack",
        );
        let engine = Engine::start(&lab.host, &format!("{config}{CLOSED}"));
        let stop = AtomicBool::new(false);
        let (mut refused, mut silent) = (0, 0);
        let sent = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&lab.attacker, port, flags, &stop));
            let began = Instant::now();
            while began.elapsed() < secs(5) {
                refused += u32::from(!talks(lab.client(), HOST, 443));
                let client = udp(lab.client(), "10.77.1.2", 5353);
                client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                silent += u32::from(!udp_echoes(&client));
            }
            stop.store(true, Ordering::Relaxed);
            flood.join().expect("the flood")
        });
        let stats = engine.json("stats");
        let lost = |queue: &Value| {
            queue["kernel_dropped"]
                .as_u64()
                .zip(queue["user_dropped"].as_u64())
        };
        let queues = stats["queues"].as_array().expect("queues");
        assert!(queues.iter().all(|queue| lost(queue) == Some((0, 0))), "{stats}");
        assert!(sent > 80_000, "{sent} packets are no flood");
        // No datagram that reached the host went under, be it late.
        let datagrams = || ["asked", "answered"].map(|name| counter(&lab.host, "free", name));
        let all_answered = || matches!(datagrams(), [asked, answered] if asked == answered);
        assert!(within(secs(10), all_answered), "{:?} {stats}", datagrams());
        // Nothing sends a datagram again that a busy machine lost on its way.
        assert!(
            refused == 0 && silent <= 2,
            "{refused} {silent} {:?} {stats}",
            datagrams()
        );
    }
}

/// One packet from ever another source until stopped; how many.
fn flood(ns: &Namespace, port: u16, flags: u8, stop: &AtomicBool) -> u32 {
    let gun = Gun::new(ns, ATTACKER, HOST);
    let dst = HOST.parse::<Ipv4Addr>().expect("an address").octets();
    let [p0, p1] = port.to_be_bytes();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        // 10.88.0.0/15, over and over: twice as many as have a limit of their own.
        let source = (0x0a58_0000_u32 + sent % (2 << 16)).to_be_bytes();
        let header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0];
        let segment = [
            0x9c, 0x40, p0, p1, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0,
        ];
        gun.bytes(&[&header[..], &source, &dst, &segment].concat());
        sent += 1;
    }
    sent
}
