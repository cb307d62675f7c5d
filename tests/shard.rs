//! `core::shard_of` against the kernel: every address is where the table's own hash sends its packets.
//!
//! A restored record or a ban that lies with another worker than its packets is never found, and nothing else
//! would tell. So the rules of the engine's own table are asked, about thousands of sources in both families.

#[allow(dead_code, unreachable_pub)]
#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use verdictd::core::policy::{OnLoss, OtherProtocols};
use verdictd::core::prefix::Prefix;
use verdictd::core::shard::shard_of;
use verdictd::kernel::netlink::Netlink;
use verdictd::kernel::queue::queue_counters;
use verdictd::kernel::ruleset::{Backend, Layout, Ruleset, Spec, apply, probe_backend};

use crate::common::engine::{DETECTION, Engine};
use crate::common::flow::pings;
use crate::common::lab::{ATTACKER, ATTACKER6, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::watch::set_elements;
use crate::common::wire::{FIN, Gun, SYN};
use crate::common::{secs, within};

/// The one port that the table of these tests allows.
const ALLOWED: u16 = 80;
const SEEDS: [u32; 2] = [0x5eed, 0xfeed_f00d];

#[test]
fn with_two_workers_ten_thousand_addresses_are_where_the_kernel_sends_them() {
    SEEDS
        .into_iter()
        .for_each(|seed| the_kernel_agrees(2, seed, 64, 5_000));
}

#[test]
fn with_three_workers_ten_thousand_addresses_are_where_the_kernel_sends_them() {
    SEEDS
        .into_iter()
        .for_each(|seed| the_kernel_agrees(3, seed, 64, 5_000));
}

#[test]
fn with_eight_workers_ten_thousand_addresses_are_where_the_kernel_sends_them() {
    SEEDS
        .into_iter()
        .for_each(|seed| the_kernel_agrees(8, seed, 64, 5_000));
}

#[test]
fn with_other_source_prefixes_addresses_are_where_the_kernel_sends_them() {
    // The hash is the same, the mask is not: fewer do.
    for v6_prefix in [48, 56, 127, 128] {
        the_kernel_agrees(5, SEEDS[0], v6_prefix, 250);
    }
}

/// Where the hash sends a packet: the first letter of the chains, and a packet that gets there.
const WAYS: [(char, u16, u8); 3] = [('q', ALLOWED, SYN), ('i', ALLOWED, FIN), ('l', 9, SYN)];

/// `count` addresses of each family by every way (new, invalid, refused): 3 × 2 × `count` packets.
fn the_kernel_agrees(workers: u16, seed: u32, v6_prefix: u8, count: usize) {
    let host = Host::new(&spec(workers, seed, v6_prefix));
    let shard = |source| shard_of(Prefix::source_of(source, v6_prefix), seed, u32::from(workers));
    let expected: BTreeMap<_, _> = addresses(count).into_iter().map(|a| (a, shard(a))).collect();
    assert_eq!(expected.len(), 2 * count);
    for (way, port, flags) in WAYS {
        let packets: Vec<_> = expected.keys().map(|a| tcp(*a, 40_000, port, flags)).collect();
        let seen = host.shards(way, &packets);
        assert_eq!(seen.len(), expected.len(), "not every packet came by way {way}");
        let differ: Vec<_> = seen.iter().filter(|(a, shard)| expected[a] != **shard).collect();
        assert!(
            differ.is_empty(),
            "{} of {} differ by way {way}, seed {seed:#x}, such as (with the kernel's shard) {:?}",
            differ.len(),
            seen.len(),
            &differ[..differ.len().min(3)]
        );
    }
}

/// A host with the table but without an engine; it writes down which chain each source reaches.
struct Host {
    lab: Lab,
    workers: u16,
}

impl Host {
    fn new(spec: &Spec) -> Host {
        let lab = Lab::new();
        let netlink = || Netlink::open(mnl::Bus::Netfilter);
        let mut netlink = lab.host.inside(netlink).expect("a netlink socket");
        let backend = probe_backend(&mut netlink).expect("a backend");
        let spec = Spec {
            backend,
            ..spec.clone()
        };
        apply(&mut netlink, &Ruleset::build(&spec)).expect("a table");
        ready_for_packets_by_hand(&lab);
        let host = Host {
            lab,
            workers: spec.layout.workers,
        };
        host.write_down();
        host
    }

    /// Puts a rule in front of each worker's chains that writes down and drops: nothing is answered, and
    /// conntrack keeps nothing.
    fn write_down(&self) {
        let ways = WAYS.iter().map(|(way, ..)| way);
        let chains = ways.flat_map(|way| (0..self.workers).map(move |worker| format!("{way}{worker}")));
        let commands: Vec<_> = chains
            .flat_map(|chain| [(4, "ip"), (6, "ip6")].map(|family| recorder(&chain, family)))
            .collect();
        let _ = self.lab.host.nft(&commands.join("; "));
    }

    /// Sends `packets`, again what got lost, until the source of each is written down: their shards.
    fn shards(&self, way: char, packets: &[Packet]) -> BTreeMap<IpAddr, u32> {
        let guns = guns(&self.lab);
        let mut seen = BTreeMap::new();
        within(secs(10), || {
            let missing = packets.iter().filter(|packet| !seen.contains_key(&packet.source));
            missing.for_each(|packet| fire(&guns, packet));
            seen = self.written(way);
            seen.len() == packets.len()
        });
        seen
    }

    fn written(&self, way: char) -> BTreeMap<IpAddr, u32> {
        let mut shards = BTreeMap::new();
        for (worker, version) in (0..self.workers).flat_map(|worker| [(worker, 4), (worker, 6)]) {
            let set = format!("{way}{worker}v{version}");
            for text in set_elements(&self.lab.host, "verdictd", &set) {
                let address = text.parse().unwrap_or_else(|_| panic!("an address: {text}"));
                let before = shards.insert(address, u32::from(worker));
                assert_eq!(before, None, "the kernel sent {address} to two workers");
            }
        }
        shards
    }
}

fn recorder(chain: &str, (version, word): (u8, &str)) -> String {
    let set = format!("{chain}v{version}");
    format!(
        "add set inet verdictd {set} {{ type ipv{version}_addr; size 65536; flags dynamic; }}; \
         insert rule inet verdictd {chain} add @{set} {{ {word} saddr }} drop"
    )
}

fn spec(workers: u16, seed: u32, v6_prefix: u8) -> Spec {
    Spec {
        observing: false,
        filter_ports: true,
        layout: Layout {
            queue_base: 4200,
            log_base: 4200,
            workers,
            seed,
        },
        backend: Backend::Xt,
        on_loss: OnLoss::Open,
        trusted: Default::default(),
        tcp_allowed: [ALLOWED..=ALLOWED].into_iter().collect(),
        udp_allowed: Default::default(),
        other_protocols: OtherProtocols::Pass,
        internal_interfaces: Vec::new(),
        v6_prefix,
        ban_set_size: 1 << 16,
        prefix_sets: Default::default(),
        ephemeral: (32_768, 60_999),
    }
}

/// With the engine at work: the kernel's own count of each queue, to the packet.
#[test]
fn packets_of_one_source_arrive_at_one_worker_only() {
    const WORKERS: u32 = 4;
    const EACH: u16 = 3;
    let lab = Lab::new();
    let config = format!("{DETECTION}\n[engine]\nworkers = {WORKERS}\n");
    let engine = Engine::start(&lab.host, &config);
    ready_for_packets_by_hand(&lab);
    let status = engine.json("status");
    let seed = number(&status["seed"]);
    // Those for what is new come first, then those for what is odd.
    let queues: Vec<_> = status["queues"]
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect();
    assert_eq!(
        (number(&status["workers"]), queues.len()),
        (WORKERS, 8),
        "{status}"
    );

    let before = counts(&lab.host);
    let mut expected = before.clone();
    let guns = guns(&lab);
    for source in addresses(100) {
        let shard = shard_of(Prefix::source_of(source, 64), seed, WORKERS);
        *expected.get_mut(&queues[shard as usize]).expect("a bound queue") += u32::from(EACH);
        (40_000..40_000 + EACH).for_each(|sport| fire(&guns, &tcp(source, sport, ALLOWED, SYN)));
    }
    within(secs(3), || counts(&lab.host) == expected);
    assert_eq!(
        counts(&lab.host),
        expected,
        "packets by queue; before: {before:?}"
    );
    assert!(
        queues[..4].iter().all(|queue| expected[queue] > before[queue]),
        "a worker has no source: {expected:?}"
    );
    let tracked = || engine.json("stats")["sources"]["tracked"].as_u64();
    assert!(
        within(secs(3), || tracked() == Some(100 + 50)),
        "{:?} sources; two IPv6 addresses of one /64 are one",
        tracked()
    );
}

fn number(value: &serde_json::Value) -> u32 {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("{value} is no number of 32 bits"))
}

/// How many packets each bound queue was given so far.
fn counts(ns: &Namespace) -> BTreeMap<u32, u32> {
    let counters = ns.inside(queue_counters).expect("root reads them");
    counters
        .iter()
        .map(|queue| (u32::from(queue.number), queue.id_sequence))
        .collect()
}

/// Our packets have no checksums, and the first ones must not wait for a neighbour.
fn ready_for_packets_by_hand(lab: &Lab) {
    lab.host.sysctl("net/netfilter/nf_conntrack_checksum", "0");
    assert!(pings(&lab.attacker, HOST, 3) && pings(&lab.attacker, HOST6, 3));
}

/// One for each family.
fn guns(lab: &Lab) -> [Gun; 2] {
    [(ATTACKER, HOST), (ATTACKER6, HOST6)].map(|(src, dst)| Gun::new(&lab.attacker, src, dst))
}

fn fire(guns: &[Gun; 2], packet: &Packet) {
    guns[usize::from(packet.source.is_ipv6())].bytes(&packet.bytes);
}

/// A packet made by hand, and whom it says it is from.
struct Packet {
    source: IpAddr,
    bytes: Vec<u8>,
}

/// TCP without a checksum, from any `source` to the host.
fn tcp(source: IpAddr, sport: u16, dport: u16, flags: u8) -> Packet {
    let ([s, t], [d, e]) = (sport.to_be_bytes(), dport.to_be_bytes());
    let segment = [s, t, d, e, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0];
    let header = match source {
        IpAddr::V4(v4) => {
            let host: Ipv4Addr = HOST.parse().expect("an address");
            let start = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            [&start[..], &v4.octets(), &host.octets()].concat()
        }
        IpAddr::V6(v6) => {
            let host: Ipv6Addr = HOST6.parse().expect("an address");
            let start = [0x60, 0, 0, 0, 0, 20, 6, 64];
            [&start[..], &v6.octets(), &host.octets()].concat()
        }
    };
    Packet {
        source,
        bytes: [&header[..], &segment].concat(),
    }
}

/// `count` distinct addresses of each family, the same in every run. Each two IPv6 addresses share a /64.
fn addresses(count: usize) -> BTreeSet<IpAddr> {
    let mut random = Random(0x7665_7264_6963_7464);
    let mut all = BTreeSet::new();
    while all.len() < count {
        all.extend(unicast4(random.next() as u32).map(IpAddr::from));
    }
    while all.len() < 2 * count {
        let high = u128::from(random.next() >> 3 | 1 << 61) << 64;
        let pair = [random.next(), random.next()];
        all.extend(pair.map(|low| IpAddr::from(Ipv6Addr::from(high | u128::from(low)))));
    }
    all
}

/// No sender and no host takes packets from 0/8, 127/8, 224/3; 10/8 is the lab's.
fn unicast4(bits: u32) -> Option<Ipv4Addr> {
    let first = bits >> 24;
    (![0, 10, 127].contains(&first) && first < 224).then(|| Ipv4Addr::from(bits))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
