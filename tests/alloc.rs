//! The way of a packet of a known source, from bytes to decision, allocates nothing.
#![allow(clippy::unwrap_used)] // a test may
#![allow(unsafe_code)] // a global allocator is an unsafe trait; this one counts and hands on

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use verdictd::core::attack::Distributed;
use verdictd::core::judge::{Guard, Judge};
use verdictd::core::ladder::Ladder;
use verdictd::core::policy::{Mode, OtherProtocols, Policy};
use verdictd::core::ports::PortSet;
use verdictd::core::prefix::{Prefix, PrefixSet};
use verdictd::core::probe::parse;
use verdictd::core::recent::Recent;
use verdictd::core::verdict::{Class, Reason};

struct Counting;

thread_local! {
    /// Of this thread, so that the test harness does not count.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator as it came; counting neither allocates (a
// const-initialised Cell without destructor) nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` through `alloc` or `realloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as `dealloc`; the caller vouches for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    let [p0, p1] = port.to_be_bytes();
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend_from_slice(&source);
    packet.extend_from_slice(&[198, 51, 100, 1]);
    packet.extend_from_slice(&[
        0x9c, 0x40, p0, p1, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0,
    ]);
    packet
}

fn judge() -> Judge {
    let prefixes = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse::<Prefix>().unwrap())
            .collect::<PrefixSet>()
    };
    let trusted = prefixes(&["203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"]);
    let policy = Policy {
        mode: Mode::DetectionOnly,
        preset: "standard".into(),
        enforce: true,
        ports_threshold: 7,
        udp_ports_threshold: 28,
        stealth_threshold: 3,
        count_completed: false,
        window: Duration::from_secs(7200),
        ladder: Ladder::new(vec![Duration::from_secs(600)]).unwrap(),
        forgive_after: Duration::from_secs(2_592_000),
        jitter: false,
        unproven_cap: None,
        distributed: Distributed::default(),
        max_bans_per_minute: 600,
        tcp_allowed: PortSet::default(),
        udp_allowed: PortSet::default(),
        other_protocols: OtherProtocols::Pass,
        trusted: trusted.clone(),
        v6_prefix: 64,
        max_sources: 1000,
    };
    let guard = Guard {
        trusted,
        protected: prefixes(&["198.51.100.1", "127.0.0.0/8"]),
    };
    Judge::new(Arc::new(policy), Arc::new(guard), 1000, Instant::now())
}

#[test]
fn a_known_source_costs_no_allocation() {
    let (mut judge, mut now) = (judge(), Instant::now());
    let mut send = |packet: &[u8]| {
        now += Duration::from_millis(1);
        judge.judge(&parse(packet), Class::New, now).reason
    };
    let mut known: Vec<Vec<u8>> = (1..=7).map(|port| syn([192, 0, 2, 7], port)).collect();
    let trusted = syn([203, 0, 113, 9], 80);
    let broken = known[0][..30].to_vec();
    for packet in &known {
        assert_eq!(send(packet), Reason::Counted);
    }
    let counted = allocations(|| {
        for flow in 2..100 {
            for packet in &mut known {
                packet[27] = flow; // the sequence number tells the flow
                assert_eq!(send(packet), Reason::Counted);
                assert_eq!(send(packet), Reason::Repeated);
            }
            assert_eq!(send(&trusted), Reason::Trusted);
            assert_eq!(send(&broken), Reason::Unparsed);
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_banned_or_accused_source_costs_no_allocation() {
    let (mut judge, now) = (judge(), Instant::now());
    let banned = syn([192, 0, 2, 8], 80);
    judge.ban("192.0.2.8".parse().unwrap(), true);
    let scan: Vec<Vec<u8>> = (1..=20).map(|port| syn([192, 0, 2, 9], port)).collect();
    let told = scan
        .iter()
        .filter(|packet| judge.judge(&parse(packet), Class::New, now).offence.is_some());
    assert_eq!(told.count(), 1);
    let counted = allocations(|| {
        for packet in scan.iter().chain([&banned]) {
            assert_eq!(
                judge.judge(&parse(packet), Class::New, now).reason,
                Reason::Banned
            );
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_flood_from_forged_addresses_costs_none_each() {
    let (mut judge, now) = (judge(), Instant::now());
    let packets: Vec<Vec<u8>> = (0..5000u16)
        .map(|i| {
            let [a, b] = i.to_be_bytes();
            syn([100, 64, a, b], 80)
        })
        .collect();
    let counted = allocations(|| {
        for packet in &packets {
            assert_eq!(
                judge.judge(&parse(packet), Class::New, now).reason,
                Reason::Counted
            );
        }
    });
    assert_eq!((counted, judge.tracked()), (0, 1000));
}

#[test]
fn remembering_a_flow_costs_no_allocation() {
    let now = Instant::now();
    let mut recent = Recent::new(1 << 10, now);
    let flood = || {
        for n in 0..10_000u32 {
            recent.seen((std::net::IpAddr::from(n.to_be_bytes()), 22u16, n), now);
        }
    };
    assert_eq!(allocations(flood), 0);
}
