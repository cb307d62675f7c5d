//! Many sources on one port, on the real kernel: what a flood may not hide, and whom it may not hit.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab, NEIGHBOUR};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::wire::{Gun, SYN};
use crate::common::{secs, within};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Faster than attempts can be asked about one by one. It is an attack all the same, the scanner in it is caught,
/// and a client that completes handshakes goes on.
#[test]
fn a_flood_too_fast_to_ask_about_is_an_attack_and_hides_no_scanner() {
    for counting in ["incomplete", "all"] {
        let lab = Lab::new().with_client();
        let _echo = Echo::tcp(&lab.host, &[80, 443]);
        // Who is forged does not answer.
        lab.attacker.nft(
            "add table inet silent; add chain inet silent in { type filter hook input priority 0; }; \
             add rule inet silent in ip daddr 10.88.0.0/15 drop",
        );
        let engine = Engine::start(
            &lab.host,
            &format!("{DETECTION}[distributed]\ncounting = \"{counting}\"\n"),
        );
        assert!(talks(lab.client(), HOST, 80));
        let stop = AtomicBool::new(false);
        let (attacked, banned, served, sent) = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&lab.attacker, 80, &stop));
            let mut scanner = Gun::new(&lab.attacker, NEIGHBOUR, HOST);
            scanner.syns(9000..9008);
            let banned = within(secs(10), || engine.ban_of(NEIGHBOUR).is_some());
            let attacked = within(secs(20), || engine.log().contains("tcp port 80 is under attack"));
            let served = (0..20).filter(|_| talks(lab.client(), HOST, 443)).count();
            stop.store(true, Ordering::Relaxed);
            (attacked, banned, served, flood.join().expect("the flood"))
        });
        let stats = engine.must(&["stats"]);
        assert!(sent > 10_000, "{sent} packets are no flood");
        assert!(attacked, "{counting}: no attack was seen\n{stats}");
        assert!(banned, "{counting}: the scanner hides in the flood\n{stats}");
        // With `all` whoever connects to a port under attack is an offender.
        assert!(served == 20 || counting == "all", "{served} of 20\n{stats}");
    }
}

/// One SYN from ever another source until stopped; how many.
fn flood(ns: &Namespace, port: u16, stop: &AtomicBool) -> u32 {
    let mut gun = Gun::new(ns, ATTACKER, HOST);
    let mut sent: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        gun.forge(Ipv4Addr::from(0x0a58_0000 + sent % (1 << 16))); // 10.88.0.0/16, over and over
        gun.given(&segment(1024 + (sent >> 16) as u16, port, SYN));
        sent += 1;
    }
    sent
}

fn segment(sport: u16, dport: u16, flags: u8) -> [u8; 20] {
    let [s, d] = [sport.to_be_bytes(), dport.to_be_bytes()];
    [
        s[0], s[1], d[0], d[1], 1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0,
    ]
}

/// The same numbers in every packet, as fast scanners send them: each port counts, and none hides behind another.
#[test]
fn probes_that_are_all_alike_but_for_their_port_are_a_scan() {
    for (transport, flags, probes) in [(TCP, SYN, 8), (TCP, 0, 4), (UDP, 0, 29)] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, DETECTION);
        let gun = Gun::new(&lab.attacker, ATTACKER, HOST);
        for port in 7000..7000 + probes {
            assert_eq!(engine.ban_of(ATTACKER), None, "{transport} {flags}: port {port}");
            match transport {
                TCP => gun.given(&segment(4444, port, flags)),
                // A sum of 0: none (RFC 768).
                _ => gun.ip(
                    UDP,
                    &[&4444u16.to_be_bytes()[..], &port.to_be_bytes(), &[0, 8, 0, 0]].concat(),
                ),
            }
        }
        engine.wait_ban(ATTACKER);
    }
}

/// Handshakes are told of some milliseconds after they are completed, and a round trip after they begin: who opens
/// nine services faster than that is no scanner.
#[test]
fn an_honest_client_may_open_nine_services_at_once() {
    const OFFICE: [u16; 9] = [25, 80, 110, 143, 443, 465, 587, 993, 995];
    for at_once in [false, true] {
        let lab = Lab::new().with_client();
        let _echo = Echo::tcp(&lab.host, &OFFICE);
        let engine = Engine::start(&lab.host, DETECTION);
        let client = lab.client();
        let served: Vec<bool> = match at_once {
            false => client.inside(|| OFFICE.map(opens).to_vec()),
            true => thread::scope(|scope| {
                let opening = OFFICE.map(|port| scope.spawn(move || client.inside(|| opens(port))));
                opening.map(|thread| thread.join().expect("a client")).to_vec()
            }),
        };
        assert_eq!(served, [true; 9], "at once: {at_once}\n{}", engine.log());
        thread::sleep(secs(2));
        assert_eq!(engine.bans(), [] as [Value; 0], "at once: {at_once}");
    }
}

fn opens(port: u16) -> bool {
    let address = format!("{HOST}:{port}").parse().expect("an address");
    TcpStream::connect_timeout(&address, secs(5)).is_ok()
}
