//! The core against any input, and against models that are too simple to be wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use verdictd::core::attack::Distributed;
use verdictd::core::bounded::BoundedMap;
use verdictd::core::judge::{Guard, Judge};
use verdictd::core::ladder::Ladder;
use verdictd::core::policy::{Mode, OtherProtocols, Policy};
use verdictd::core::ports::PortSet;
use verdictd::core::prefix::{Prefix, PrefixSet};
use verdictd::core::probe::{Probe, TcpFlags, Transport, parse};
use verdictd::core::scan::{ScanKind, classify};
use verdictd::core::services::Services;
use verdictd::core::shard::shard_of;
use verdictd::core::source::{Crossed, Limits, Source};
use verdictd::core::verdict::{Asked, Class, Proto, Reason, Verdict};

/// Addresses out of a small world, so that they meet.
fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..4, 0u8..4, any::<u8>()).prop_map(|(b, c, d)| IpAddr::from([10, b, c, d])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        (0u16..4, 0u16..4, any::<u16>())
            .prop_map(|(net, mid, host)| IpAddr::from([0x2001, 0xdb8, 0, net, mid, 0, 0, host])),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (addr(), 0u8..=128).prop_map(|(addr, len)| {
        let addr = addr.to_canonical();
        let width = if addr.is_ipv4() { 32 } else { 128 };
        Prefix::new(addr, len % (width + 1)).expect("the length fits")
    })
}

fn transport() -> impl Strategy<Value = Transport> {
    let port = 0u16..40;
    prop_oneof![
        4 => (any::<u8>(), port.clone()).prop_map(|(flags, dport)| {
            Transport::Tcp { sport: 40000, dport, flags: TcpFlags(flags), seq: 1 }
        }),
        4 => port.clone().prop_map(|dport| {
            Transport::Tcp { sport: 40000, dport, flags: TcpFlags::SYN, seq: 1 }
        }),
        2 => port.prop_map(|dport| Transport::Udp { sport: 40000, dport }),
        1 => Just(Transport::Icmp),
        1 => any::<u8>().prop_map(Transport::Other),
    ]
}

/// Bytes that look like a packet at their beginning.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let next = prop_oneof![
        Just(0u8),
        Just(6),
        Just(17),
        Just(43),
        Just(44),
        Just(51),
        Just(58),
        Just(60),
        any::<u8>()
    ];
    let head = prop_oneof![Just(0x45u8), Just(0x46), Just(0x4f), Just(0x60), any::<u8>()];
    (
        head,
        next,
        vec(prop_oneof![3 => 0u8..64, 1 => any::<u8>()], 0..160),
    )
        .prop_map(|(head, next, mut bytes)| {
            let at = if head >> 4 == 4 { 9 } else { 6 };
            bytes.first_mut().into_iter().for_each(|byte| *byte = head);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = next);
            bytes
        })
}

#[derive(Clone, Debug)]
enum Happening {
    Packet(Transport),
    Bytes(Vec<u8>),
    Completed(u16),
    Released,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => transport().prop_map(Happening::Packet),
        1 => vec(any::<u8>(), 0..80).prop_map(Happening::Bytes),
        1 => any::<u16>().prop_map(Happening::Completed),
        1 => Just(Happening::Released),
    ]
}

fn policy(threshold: u32, enforce: bool) -> Policy {
    Policy {
        mode: Mode::DetectionOnly,
        preset: "custom".into(),
        enforce,
        ports_threshold: threshold,
        udp_ports_threshold: threshold * 4,
        stealth_threshold: 3,
        count_completed: false,
        window: Duration::from_secs(60),
        ladder: Ladder::new(vec![Duration::from_secs(600)]).expect("one step"),
        forgive_after: Duration::from_secs(2_592_000),
        jitter: false,
        unproven_cap: None,
        distributed: Distributed::default(),
        max_bans_per_minute: 600,
        tcp_allowed: PortSet::default(),
        udp_allowed: PortSet::default(),
        other_protocols: OtherProtocols::Pass,
        trusted: PrefixSet::default(),
        v6_prefix: 64,
        max_sources: 100,
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn bytes_like_packets_are_read_or_refused_at_every_length(bytes in packet()) {
        for length in 0..=bytes.len() {
            if let Ok(probe) = parse(&bytes[..length]) {
                prop_assert!(probe.evidence().is_none() || probe.kind().is_evidence());
                prop_assert_eq!(probe.src.is_ipv4(), bytes[0] >> 4 == 4);
            }
        }
    }

    /// Cutting a packet never makes it say something else: it says the same, or nothing.
    #[test]
    fn a_cut_packet_says_the_same_or_nothing(bytes in packet()) {
        let Ok(whole) = parse(&bytes) else { return Ok(()) };
        for length in 0..bytes.len() {
            if let Ok(cut) = parse(&bytes[..length]) {
                prop_assert_eq!(cut, whole, "{}", length);
            }
        }
    }

    #[test]
    fn every_flag_byte_has_a_kind(flags: u8) {
        let kind = classify(TcpFlags(flags));
        prop_assert!(ScanKind::ALL.contains(&kind));
        // With ACK only what neither an answer nor the end of a connection is: SYN with FIN or RST.
        let impossible = flags & 0x02 != 0 && flags & 0x05 != 0;
        prop_assert!(!kind.is_evidence() || flags & 0x10 == 0 || impossible);
    }

    #[test]
    fn a_set_of_prefixes_agrees_with_a_list(prefixes in vec(prefix(), 0..20), addrs in vec(addr(), 1..20), other in prefix()) {
        let set: PrefixSet = prefixes.iter().copied().collect();
        let firsts = prefixes.iter().map(Prefix::addr).collect::<Vec<_>>();
        for addr in addrs.iter().chain(&firsts) {
            let widest = prefixes.iter().filter(|prefix| prefix.contains(*addr)).min_by_key(|prefix| prefix.len());
            prop_assert_eq!(set.matching(*addr), widest.copied());
            prop_assert_eq!(set.contains(*addr), widest.is_some());
        }
        prop_assert_eq!(set.overlaps(&other), prefixes.iter().any(|prefix| prefix.overlaps(&other)));
        prop_assert_eq!(&set.iter().collect::<PrefixSet>(), &set);
        prop_assert_eq!(set.iter().count(), set.len());
    }

    #[test]
    fn a_prefix_is_read_back_as_it_is_shown(prefix in prefix(), addr in addr()) {
        prop_assert_eq!(Prefix::parse(&prefix.to_string()), Ok((prefix, false)));
        let host = Prefix::host(addr);
        prop_assert_eq!(prefix.contains(addr), prefix.covers(&host));
        prop_assert_eq!(prefix.overlaps(&host), prefix.contains(addr));
    }

    #[test]
    fn any_text_is_a_prefix_or_an_error_that_quotes_it(text in "[0-9a-f:./]{0,24}|.{0,12}") {
        if let Err(error) = Prefix::parse(&text) {
            prop_assert!(error.to_string().contains(&text));
        }
    }

    #[test]
    fn a_port_set_agrees_with_a_list(ranges in vec((any::<u16>(), 0u16..50), 0..10), ports in vec(any::<u16>(), 1..50)) {
        let ranges: Vec<_> = ranges.into_iter().map(|(first, more)| first..=first.saturating_add(more)).collect();
        let set: PortSet = ranges.iter().cloned().collect();
        for port in ports.into_iter().chain(ranges.iter().flat_map(|range| [*range.start(), *range.end()])) {
            prop_assert_eq!(set.contains(port), ranges.iter().any(|range| range.contains(&port)));
        }
    }

    #[test]
    fn a_shard_is_one_of_them(source in prefix(), seed: u32, shards in 1u32..65) {
        prop_assert!(shard_of(source, seed, shards) < shards);
    }

    /// The model keeps every touch for ever and counts anew each time. A touch renews the stealth probes that came
    /// before it on its port.
    #[test]
    fn a_window_agrees_with_a_list_of_everything(
        threshold in 0u32..6,
        touches in vec((any::<bool>(), 0u16..12, any::<bool>(), 0u64..20), 1..120),
    ) {
        let limits = Limits { tcp: threshold, udp: threshold * 2, stealth: 9, window: Duration::from_secs(30) };
        let (mut source, mut now) = (Source::default(), Instant::now());
        let mut model: BTreeMap<(Proto, u16), (Instant, u32)> = BTreeMap::new();
        for (udp, port, stealth, wait) in touches {
            now += Duration::from_secs(wait);
            let proto = if udp { Proto::Udp } else { Proto::Tcp };
            let stealth = stealth && !udp;
            model.retain(|_, (at, _)| now - *at < limits.window);
            let entry = model.entry((proto, port)).or_insert((now, 0));
            *entry = (now, entry.1 + u32::from(stealth));
            let ports = Crossed::Ports(proto);
            let distinct = model.keys().filter(|(known, _)| *known == proto).count();
            let probes: u32 = model.values().map(|(_, probes)| probes).sum();
            let expected = match (stealth && probes > limits.stealth, distinct > limits.tolerated(ports) as usize) {
                (true, _) => Some(Crossed::Stealth),
                (_, true) => Some(ports),
                _ => None,
            };
            let what = Asked::Port(proto, port);
            prop_assert_eq!(source.touch(what, stealth, &limits, now), expected);
            prop_assert!(source.len() <= (limits.tcp + limits.udp + 2) as usize);
            if expected.is_some() {
                model.clear(); // a ban consumes its evidence
                source = Source::default();
            }
        }
    }

    #[test]
    fn a_bounded_map_is_bounded_and_keeps_the_newest(capacity in 1usize..20, keys in vec((0u8..60, 0u8..9), 1..200)) {
        let (mut map, now) = (BoundedMap::new(capacity), Instant::now());
        for (i, (key, rank)) in keys.into_iter().enumerate() {
            map.insert(key, i, rank, now);
            prop_assert_eq!(map.get(&key), Some(&i));
            prop_assert!(map.len() <= capacity);
            prop_assert_eq!(map.worthiest().count(), map.len());
        }
    }

    /// Whatever came before: packets, bytes that are none, completed handshakes, would-be bans and their ends.
    #[test]
    fn where_nothing_is_enforced_everything_is_accepted(
        history in vec((addr(), happening(), 0u64..90), 1..300),
        threshold in 0u32..5,
        class in prop_oneof![Just(Class::New), Just(Class::Odd), Just(Class::Observed)],
    ) {
        let start = Instant::now();
        let (mut judge, mut now) = (Judge::new(Arc::new(policy(threshold, false)), Arc::default(), 50, start), start);
        let services = Services::new(PortSet::default(), 32_768..=60_999, start);
        judge.set_services(Arc::new(services));
        for (src, happening, wait) in history {
            now += Duration::from_secs(wait);
            let probe = match happening {
                Happening::Packet(transport) => Ok(Probe { src, dst: Ipv4Addr::LOCALHOST.into(), transport }),
                Happening::Bytes(bytes) => parse(&bytes),
                Happening::Completed(port) => {
                    judge.complete(src, port, now);
                    continue;
                }
                Happening::Released => {
                    judge.release(Prefix::source_of(src, 64));
                    continue;
                }
            };
            let decision = judge.judge(&probe, class, now);
            prop_assert_eq!(decision.verdict, Verdict::Accept);
            if let Some(offence) = decision.offence {
                judge.ban(offence.source, false);
            }
        }
    }

    #[test]
    fn whoever_is_trusted_or_protected_is_never_dropped_nor_accused(
        packets in vec((0u8..8, transport()), 1..300),
        threshold in 0u32..5,
    ) {
        let one = |text: &str| -> PrefixSet { [text.parse::<Prefix>().expect("a prefix")].into_iter().collect() };
        let guard = Guard { trusted: one("10.0.0.0/30"), protected: one("10.0.0.4/31") };
        let mut judge = Judge::new(Arc::new(policy(threshold, true)), Arc::new(guard), 50, Instant::now());
        let now = Instant::now();
        for (host, transport) in packets {
            let probe = Probe { src: IpAddr::from([10, 0, 0, host]), dst: Ipv6Addr::LOCALHOST.into(), transport };
            let decision = judge.judge(&Ok(probe), Class::New, now);
            prop_assert_eq!(decision.reason == Reason::Trusted, host < 4);
            if host < 6 {
                prop_assert_eq!((decision.verdict, decision.offence), (Verdict::Accept, None));
            }
        }
    }

    /// Whatever the order of packets, at most `threshold` distinct ports of a source pass between two bans.
    #[test]
    fn no_more_ports_pass_than_are_tolerated(packets in vec((0u8..3, transport()), 1..400), threshold in 0u32..6) {
        let mut judge = Judge::new(Arc::new(policy(threshold, true)), Arc::new(Guard::default()), 50, Instant::now());
        let (now, mut passed) = (Instant::now(), vec![Vec::new(); 3]);
        for (host, transport) in packets {
            let probe = Probe { src: IpAddr::from([10, 0, 0, host]), dst: Ipv6Addr::LOCALHOST.into(), transport };
            let decision = judge.judge(&Ok(probe), Class::New, now);
            let Some((Proto::Tcp, port)) = probe.evidence() else { continue };
            let passed = &mut passed[usize::from(host)];
            if decision.verdict == Verdict::Accept && !passed.contains(&port) {
                passed.push(port);
            }
            prop_assert!(passed.len() <= threshold as usize);
        }
    }
}
