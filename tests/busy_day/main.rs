//! A day of a busy public web server, in compressed time: the parts of the core put together as the engine does it,
//! fifty thousand sources with all that honest clients do wrong, and scanners among them.
//!
//! Who ever completed a handshake is not banned, every scanner is, and it is told how many others were.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

mod crowd;
mod host;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use verdictd::config;
use verdictd::core::policy::Policy;
use verdictd::core::prefix::Prefix;
use verdictd::core::verdict::BanReason;

use crate::crowd::{Crowd, Random};
use crate::host::Host;

/// The standard preset; `more` goes below `[firewall]`.
fn standard(more: &str) -> Policy {
    let text = format!("[firewall]\nmode = \"standard\"\n{more}");
    config::parse(&text, Path::new("verdictd.toml")).unwrap().policy
}

/// Lives through a day of `sources` sources.
fn live(policy: Policy, sources: usize, seed: u64) -> (Crowd, Host) {
    let start = Instant::now();
    let crowd = Crowd::gather(sources, &mut Random::new(seed), start);
    let mut host = Host::new(policy, start, Random::new(seed + 1));
    host.live(&crowd.plan);
    (crowd, host)
}

/// Nobody who ever completed a handshake was banned, all scanners were. How many others were.
fn judged_rightly(crowd: &Crowd, host: &Host) -> usize {
    let banned = |addr: &IpAddr| host.bans.iter().any(|ban| ban.source.contains(*addr));
    let guests: Vec<&IpAddr> = host.completed.difference(&crowd.scanners).collect();
    let hit: Vec<_> = host
        .bans
        .iter()
        .filter(|ban| guests.iter().any(|guest| ban.source.contains(**guest)))
        .collect();
    assert!(
        hit.is_empty(),
        "sources that completed handshakes were banned: {hit:?}"
    );
    let missed: Vec<_> = crowd.scanners.iter().filter(|scanner| !banned(scanner)).collect();
    assert!(missed.is_empty(), "scanners that went free: {missed:?}");
    let is_scanner = |source: &Prefix| crowd.scanners.iter().any(|scanner| source.contains(*scanner));
    let others: BTreeSet<Prefix> = host
        .bans
        .iter()
        .map(|ban| ban.source)
        .filter(|ban| !is_scanner(ban))
        .collect();
    others.len()
}

fn tell(name: &str, crowd: &Crowd, host: &Host, others: usize, took: Duration) {
    let guests = || {
        host.waited
            .iter()
            .filter(|(addr, _)| !crowd.scanners.contains(addr))
    };
    let count = |reason| host.bans.iter().filter(|ban| ban.reason == reason).count();
    println!(
        "{name}: {} sources, {} packets judged in {took:?}; {} handshakes completed, {} abandoned; {} bans ({} port \
         scans, {} stealth, {} distributed), {} of {} scanners among them, {others} others; {} guests had {} \
         packets dropped until their handshakes were known; {} attacks began, {} ended",
        crowd.sources.len(),
        host.judged,
        host.completions,
        host.abandoned,
        host.bans.len(),
        count(BanReason::PortScanning),
        count(BanReason::SuspiciousScanning),
        count(BanReason::DistributedAttack),
        crowd.scanners.len(),
        crowd.scanners.len(),
        guests().count(),
        guests().map(|(_, packets)| packets).sum::<u32>(),
        host.begun,
        host.ended,
    );
}

/// Of 50,000 sources at most so many that never completed anything are banned: whose path to the host works one way
/// only, so that they fail again and again while a port is under attack.
const OTHERS: usize = 10;

#[test]
fn a_busy_day_of_a_public_web_server() {
    let began = Instant::now();
    let (crowd, host) = live(standard(""), 50_000, 1);
    let others = judged_rightly(&crowd, &host);
    tell("a busy day", &crowd, &host, others, began.elapsed());
    assert!(crowd.sources.len() >= 50_000, "{}", crowd.sources.len());
    let handshakes = host.completions + host.abandoned;
    assert!(
        (80..120).contains(&(host.abandoned * 10_000 / handshakes)),
        "1 % are abandoned"
    );
    assert!(others <= OTHERS, "{others} sources that did no wrong were banned");
    assert!(
        host.begun > 0 && host.ended == host.begun,
        "{} began, {} ended",
        host.begun,
        host.ended
    );
}

#[test]
fn the_same_behind_a_port_filter() {
    let began = Instant::now();
    let more = "firewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22, 25, 80, 110, 143, 443, 465, 587, 993, 995]\n";
    let (crowd, host) = live(standard(more), 10_000, 2);
    let others = judged_rightly(&crowd, &host);
    tell("behind a port filter", &crowd, &host, others, began.elapsed());
    assert!(others <= OTHERS, "{others} sources that did no wrong were banned");
}

#[test]
fn who_only_observes_accepts_whatever_comes_and_enforces_nothing() {
    for seed in 10..13 {
        let began = Instant::now();
        let (crowd, host) = live(standard("[bans]\nenforce = false\n"), 3000, seed);
        let others = judged_rightly(&crowd, &host);
        tell("observing", &crowd, &host, others, began.elapsed());
        assert_eq!(host.dropped, 0, "every verdict is accept");
        assert!(host.bans.iter().all(|ban| !ban.enforced), "would-be bans only");
    }
}

#[test]
fn other_days_end_the_same() {
    for seed in 20..24 {
        let (crowd, host) = live(standard(""), 3000, seed);
        let others = judged_rightly(&crowd, &host);
        assert!(
            others <= OTHERS,
            "seed {seed}: {others} sources that did no wrong were banned"
        );
    }
}
