//! Floods from forged sources: what they cost, and what they cannot bring about.
//!
//! A million packets in `make test`, ten million in `make soak`. Of what is measured one line is printed.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine};
use crate::common::flow::{connect_from, echoes, talks};
use crate::common::lab::{CLIENT, HOST, HOST6, Lab, NEIGHBOUR};
use crate::common::memory::Memory;
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::{FIN, Gun, SYN};
use crate::common::{count, ms, secs, within};

/// The gateway of the lab: protected.
const GATEWAY: &str = "10.77.0.254";
/// Addresses of the attacker's own, for scans whose answers are to be seen.
const SCANNER: &str = "10.88.7.7";
const BESIDE: &str = "10.88.17.7";
const LATECOMER: &str = "10.88.27.7";
/// Ports above this are the scanners' alone, so that it can be told who was answered.
const FLOODED: u16 = 61_000;
/// The default of `bans.max_bans_per_minute`.
const BLAST_RADIUS: u64 = 600;
/// `core::ledger::NEAR_PER_MINUTE`.
const OF_ONE_OWNER: usize = 10;
/// How long after its last refusal a ban storm is over, and a moment.
const CALM: Duration = secs(75);
/// How its lines in the log begin.
const STORM: &str = "ban storm: more offences";
const CALM_AGAIN: &str = "the ban storm is over";

/// Sources remembered in the short run; the long one has the default.
const MAX_SOURCES: usize = 100_000;
/// What README and ARCHITECTURE say of the memory of so many, in KiB: 124 bytes each, what the buckets take beside, and
/// some 50 MB for everything else, of which 20 are pages of the program, half as much again where it is not optimized.
const CEILING: fn(usize) -> u64 = |sources| 60 * 1024 + sources as u64 * 130 / 1024;
/// Growth that is no growth: pages of allocator and stacks. In KiB.
const FLAT: u64 = 4 * 1024;

#[test]
fn a_flood_of_forged_sources_costs_bounded_memory_and_hides_no_scanner() {
    let (packets, sources) = (count(1_000_000, 10_000_000), count(MAX_SOURCES, 1_000_000));
    let (lab, config) = ground(sources);
    let _echo = Echo::tcp(&lab.host, &[80, 443]);
    let witness = Witness::new(&lab.attacker);
    let engine = Engine::start(&lab.host, &config);
    let memory = Memory::of(&engine);
    let before = memory.now();

    let (sent, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let until = |share: usize| {
        while sent.load(Ordering::Relaxed) < packets / 100 * share {
            thread::sleep(ms(5));
        }
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let waits = flood(&lab, packets, &sent);
            over.store(true, Ordering::Relaxed);
            waits
        });
        let honest = scope.spawn(|| share(&over, || talks(lab.client(), HOST, 443)));
        let trusted = scope.spawn(|| share(&over, || talks_from(&lab.attacker, NEIGHBOUR)));
        until(40);
        let warm = memory.now();
        let caught = scan(&lab.attacker, &engine, SCANNER, 61_001);
        // Whom nobody may ban, forged among all the others.
        for spared in [GATEWAY, NEIGHBOUR] {
            Gun::new(&lab.attacker, spared, HOST).syns(5001..=5040);
        }
        until(85);
        let owner = scan_from_one_48(&lab.attacker, &engine);
        let beside = scan(&lab.attacker, &engine, BESIDE, 61_101);
        let waits = flood.join().expect("the flood");
        let took = began.elapsed();
        let [honest, trusted] = [honest, trusted].map(|share| share.join().expect("a client"));
        let (after, peak) = (memory.now(), memory.peak());
        let stats = engine.json("stats");
        println!(
            "flood: {packets} packets of forged sources in {took:.1?} (waited for the engine {waits} times), {} judged; scanners banned after {caught:.0?} and \
             {beside:.0?}; connections honest {honest:?}, trusted {trusted:?}; memory for {sources} sources {before}, \
             {warm}, {after}, at most {peak} KiB",
            stats["reasons"]["counted"]
        );
        assert!(caught.is_some() && beside.is_some(), "{}", engine.log());
        for (ports, took) in [(61_001..=61_020, caught), (61_101..=61_120, beside)] {
            let answered: Vec<u16> = witness.answered().range(ports).copied().collect();
            assert!(
                answered.len() <= 7,
                "{answered:?} answered within {took:?}; {stats}"
            );
        }
        assert_eq!(owner, OF_ONE_OWNER, "bans of one /48 in a minute");
        for spared in [GATEWAY, NEIGHBOUR, CLIENT] {
            assert!(engine.ban_of(spared).is_none(), "{spared} is banned");
        }
        for (good, all) in [honest, trusted] {
            assert!(all > 50 && good * 100 >= all * 99, "{good} of {all} connections");
        }
        assert!(
            stats["reasons"]["counted"].as_u64() > Some(packets as u64 / 100 * 99),
            "{stats}"
        );
        assert!(
            stats["sources"]["tracked"].as_u64() <= Some(sources as u64),
            "{stats}"
        );
        assert!(after <= warm + FLAT, "{warm} KiB grew to {after}");
        assert!(
            peak <= CEILING(sources),
            "{peak} KiB, {} are stated",
            CEILING(sources)
        );
    });
    a_storm_of_bans(&lab, &engine, &witness);
}

/// More offenders than may be banned in a minute.
fn a_storm_of_bans(lab: &Lab, engine: &Engine<'_>, witness: &Witness<'_>) {
    let told = |words: &str| engine.log().matches(words).count();
    let total = || engine.json("stats")["bans"]["total"].as_u64().expect("a count");
    let before = total();
    // That of the scan from one /48 may go on, or in a long flood be over.
    let (begun, ended) = (told(STORM), told(CALM_AGAIN));
    let storms = ended + 1;
    assert!((ended..=storms).contains(&begun), "{}", engine.log());
    let mut gun = Gun::new(&lab.attacker, SCANNER, HOST);
    let queues = Queues::of(&lab.host);
    for number in 0..1500_u16 {
        let [b, c] = number.to_be_bytes();
        gun.forge(Ipv4Addr::new(20, b, c, 1));
        gun.syns(5001..=5008);
        queues.wait();
    }
    within(secs(10), || total() - before > BLAST_RADIUS - 50);
    thread::sleep(secs(1));
    let granted = total() - before;
    assert!(
        (BLAST_RADIUS - 50..=BLAST_RADIUS).contains(&granted),
        "{granted} bans"
    );

    let mut late = Gun::new(&lab.attacker, LATECOMER, HOST);
    late.syns(61_201..=61_240);
    let answered = || witness.answered().range(61_201..=61_240).count();
    within(secs(5), || answered() == 7);
    thread::sleep(ms(500));
    assert!(engine.ban_of(LATECOMER).is_none());
    assert_eq!(
        answered(),
        7,
        "each packet of an offender beyond the blast radius is dropped"
    );
    assert!(talks(lab.client(), HOST, 443));

    assert_eq!(
        (told(STORM), told(CALM_AGAIN)),
        (storms, ended),
        "{}",
        engine.log()
    );
    assert!(within(CALM, || told(CALM_AGAIN) == storms), "{}", engine.log());
    assert_eq!(told(STORM), storms, "one line each: {}", engine.log());
    // Forgotten by then; and whoever scans on is banned.
    assert!(
        scan(&lab.attacker, engine, LATECOMER, 61_301).is_some(),
        "{}",
        engine.log()
    );
}

/// Scans from a hundred /64s of one /48; how many are banned.
fn scan_from_one_48(ns: &Namespace, engine: &Engine<'_>) -> usize {
    let mut gun = Gun::new(ns, "2a00:aaaa:bbbb::1", HOST6);
    for subnet in 0..100 {
        gun.forge(Ipv6Addr::new(0x2a00, 0xaaaa, 0xbbbb, subnet, 0, 0, 0, 1));
        gun.syns(5001..=5008);
    }
    let of_owner = |ban: &Value| {
        ban["source"]
            .as_str()
            .is_some_and(|source| source.starts_with("2a00:aaaa:bbbb:"))
    };
    let banned = || engine.bans().iter().filter(|ban| of_owner(ban)).count();
    within(secs(5), || banned() >= OF_ONE_OWNER);
    thread::sleep(ms(500));
    banned()
}

/// Attacker, host and client; forged sources are answered through the attacker.
fn ground(sources: usize) -> (Lab, String) {
    let lab = Lab::new().with_client();
    lab.host.ip(&["route", "add", "default", "via", GATEWAY]);
    lab.host.ip(&["-6", "route", "add", "default", "via", "fd77::fe"]);
    let config =
        format!("{DETECTION}\n[trusted]\nips = [{NEIGHBOUR:?}]\n[engine]\nmax_sources = {sources}\n");
    (lab, config)
}

/// One packet each of ever other sources: SYNs, of every tenth a FIN; a third of them IPv6. As fast as the engine takes
/// them: what finds its queue full passes unjudged. How often that had to be waited for.
fn flood(lab: &Lab, packets: usize, sent: &AtomicUsize) -> u32 {
    let ns = &lab.attacker;
    let mut guns = [Gun::new(ns, SCANNER, HOST), Gun::new(ns, "fd66::1", HOST6)];
    let (queues, mut random, mut waits) = (Queues::of(&lab.host), Random(0x5eed), 0);
    for number in 0..packets {
        let source = random.source(number % 3 == 0);
        let gun = &mut guns[usize::from(source.is_ipv6())];
        gun.forge(source);
        let flags = if number % 10 == 0 { FIN } else { SYN };
        gun.tcp(random.port(), flags);
        if number % 500 == 0 {
            sent.store(number, Ordering::Relaxed);
            waits += u32::from(queues.wait());
        }
    }
    sent.store(packets, Ordering::Relaxed);
    waits
}

/// The kernel's list of queues.
struct Queues(File);

impl Queues {
    fn of(ns: &Namespace) -> Queues {
        // Of the namespace of whoever opens it, for as long as it is open.
        let open = || File::open("/proc/thread-self/net/netfilter/nfnetlink_queue");
        Queues(ns.inside(open).expect("a kernel with queues"))
    }

    /// Until there is room; whether there was none.
    fn wait(&self) -> bool {
        let full = || self.longest() > 1000;
        let was_full = full();
        while full() {
            thread::sleep(Duration::from_micros(200));
        }
        was_full
    }

    /// Packets that wait in the longest.
    fn longest(&self) -> u64 {
        let mut text = [0; 4096];
        let length = self.0.read_at(&mut text, 0).expect("a file of proc(5)");
        let text = String::from_utf8_lossy(&text[..length]);
        let waiting = |line: &str| line.split_whitespace().nth(2)?.parse().ok();
        text.lines().filter_map(waiting).max().unwrap_or(0)
    }
}

/// How many exchanges came about, of how many, until it is over.
fn share(over: &AtomicBool, mut exchange: impl FnMut() -> bool) -> (u32, u32) {
    let (mut good, mut all) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        good += u32::from(exchange());
        all += 1;
        thread::sleep(ms(10));
    }
    (good, all)
}

fn talks_from(ns: &Namespace, from: &str) -> bool {
    connect_from(ns, from, HOST, 80).is_ok_and(|mut stream| echoes(&mut stream))
}

/// A scan of twenty ports from `first` on, 10 ms apart; how long until it is banned.
fn scan(ns: &Namespace, engine: &Engine<'_>, source: &str, first: u16) -> Option<Duration> {
    let began = Instant::now();
    let mut gun = Gun::new(ns, source, HOST);
    for port in first..first + 20 {
        gun.syns([port]);
        if engine.ban_of(source).is_some() {
            return Some(began.elapsed());
        }
        thread::sleep(ms(10));
    }
    within(secs(5), || engine.ban_of(source).is_some()).then(|| began.elapsed())
}

/// Marsaglia's xorshift64: the same flood each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A port that no service of the lab has.
    fn port(&mut self) -> u16 {
        1000 + (self.next() % u64::from(FLOODED - 1000)) as u16
    }

    /// An address of anybody on the internet.
    fn source(&mut self, v6: bool) -> IpAddr {
        let word = self.next();
        if v6 {
            let host = self.next();
            // Of 2600::/8: any of 2⁵⁶ /64s.
            return Ipv6Addr::from(0x26 << 120 | u128::from(word >> 8) << 64 | u128::from(host)).into();
        }
        let [_, _, _, _, _, b, c, d] = word.to_be_bytes();
        Ipv4Addr::new(11 + (word >> 40) as u8 % 100, b, c, d).into()
    }
}
