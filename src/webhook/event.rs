//! What happened to what is sent: each event with the keys that its receivers count on.
//!
//! Built from the core's own words by whoever saw it happen. Nothing here decides, and nothing is left to the caller
//! that a receiver depends on: words, units, names of keys.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::config::WebhookConfig;
pub use super::sample::sample;
use super::wire::{Event, EventType, timestamp};
use crate::core::attack::Attack;
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::probe::{Probe, Transport};
use crate::core::verdict::{Ban, BanReason, Offence};

/// One moment by two clocks: events are told by the wall's, and happened by the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// This moment.
    pub at: Instant,
    /// The same by the wall clock.
    pub wall: OffsetDateTime,
}

impl Now {
    /// This very moment.
    pub fn read() -> Now {
        Now {
            at: Instant::now(),
            wall: OffsetDateTime::now_utc(),
        }
    }

    /// What the wall clock says at `at`.
    fn wall_of(&self, at: Instant) -> OffsetDateTime {
        let ahead = at.saturating_duration_since(self.at);
        let behind = self.at.saturating_duration_since(at);
        let later = self
            .wall
            .checked_add(time::Duration::try_from(ahead).unwrap_or_default());
        let moved =
            later.and_then(|wall| wall.checked_sub(time::Duration::try_from(behind).unwrap_or_default()));
        moved.unwrap_or(self.wall)
    }
}

/// Why a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time was up.
    Timeout,
    /// An operator lifted it.
    Manual,
    /// Its source became protected.
    Protected,
}

impl Ended {
    /// The word on the wire. A contract.
    pub fn word(self) -> &'static str {
        match self {
            Ended::Timeout => "timeout_expired",
            Ended::Manual => "manual",
            Ended::Protected => "protected",
        }
    }
}

/// The engine protects, by this policy.
pub fn firewall_started(now: Now, policy: &Policy, webhooks: &WebhookConfig) -> Event {
    let data = json!({
        "mode": policy.mode.word(),
        "firewall_mode": policy.mode.word(),
        "security_mode": policy.preset,
        "unique_ports_threshold": policy.ports_threshold,
        "default_port_threshold": policy.distributed.thresholds.default,
        "trusted_ips_count": policy.trusted.len(),
        "webhook_enabled": webhooks.enabled,
        "webhook_endpoints_count": webhooks.live().count(),
        "enforced": policy.enforce,
        "engine_version": env!("CARGO_PKG_VERSION"),
    });
    started(now, data)
}

/// As [`firewall_started`], for who has no policy at hand.
pub(super) fn started(now: Now, data: Value) -> Event {
    event(EventType::FirewallStarted, now, now.at, data)
}

/// The engine stops; bans stay in the kernel.
pub fn firewall_stopped(now: Now, reason: &str, bans: usize) -> Event {
    let data = json!({"reason": reason, "active_bans": bans});
    event(EventType::FirewallStopped, now, now.at, data)
}

/// The first packet of a flow came at `at`; `count`: with so many more of its source within the second that this event
/// stands for them all.
pub fn connection_attempt(now: Now, probe: &Probe, at: Instant, count: u64) -> Event {
    let kind = probe.kind();
    let (protocol, src_port, flags) = match probe.transport {
        Transport::Tcp { sport, flags, .. } => ("tcp", Some(sport), Some(flag_letters(flags.0))),
        Transport::TinyFragment { .. } => ("tcp", None, None),
        Transport::Udp { sport, .. } => ("udp", Some(sport), None),
        Transport::Icmp => ("icmp", None, None),
        Transport::Other(_) => ("other", None, None),
    };
    let data = json!({
        "ip": probe.src,
        "port": probe.port().map(|(_, port)| port),
        "src_port": src_port,
        "dst": probe.dst,
        "protocol": protocol,
        "timestamp": timestamp(now.wall_of(at)),
        "scan_type": kind.word(),
        "tcp_flags": flags,
        "is_suspicious": kind.is_stealth(),
        "count": count,
    });
    event(EventType::ConnectionAttempt, now, at, data)
}

/// A source is banned in the kernel. `offence`, `attack`: what led to it, where there was one.
pub fn ip_blocked(now: Now, ban: &Ban, offence: Option<&Offence>, attack: Option<&Attack>) -> Event {
    let mut data = object(json!({
        "reason": ban.reason.word(),
        "action": "blocked",
        "method": METHOD,
        "block_count": ban.offences,
        "block_duration_seconds": duration_seconds(ban),
        "since": timestamp(now.wall_of(ban.since)),
        "until": ban.until.map(|until| timestamp(now.wall_of(until))),
        "step": ban.step,
        "enforced": true,
    }));
    put_source(&mut data, offence.map(|offence| offence.seen), ban.source);
    match (ban.reason, offence) {
        (BanReason::PortScanning, Some(offence)) => put_ports(&mut data, offence),
        (BanReason::DistributedAttack, _) => {
            let port = attack
                .map(|attack| attack.port)
                .or(offence.and_then(|offence| offence.ports.first().map(|(_, port)| *port)));
            data.extend(object(json!({
                "port": port,
                "attempts": attack.map(|attack| attack.counted),
                "threshold": attack.map(|attack| attack.threshold).or(offence.map(|offence| offence.threshold)),
            })));
        }
        _ => {}
    }
    if let Some(note) = &ban.note {
        data.insert("note".into(), json!(note));
    }
    event(EventType::IpBlocked, now, now.at, Value::Object(data))
}

/// A ban ended in the kernel.
pub fn ip_unblocked(now: Now, ban: &Ban, why: Ended) -> Event {
    let mut data = object(json!({
        "reason": why.word(),
        "action": "unblocked",
        "method": METHOD,
        "ban_reason": ban.reason.word(),
        "block_count": ban.offences,
    }));
    put_source(&mut data, None, ban.source);
    event(EventType::IpUnblocked, now, now.at, Value::Object(data))
}

/// One source asked for more ports than are tolerated, and is banned or would be.
pub fn port_scanning_detected(now: Now, offence: &Offence, ban: &Ban) -> Event {
    let mut data = object(json!({
        "offense_count": ban.offences,
        "block_duration_seconds": duration_seconds(ban),
        "attack_type": BanReason::PortScanning.word(),
        "scan_type": offence.kind.word(),
        "enforced": ban.enforced,
    }));
    put_source(&mut data, Some(offence.seen), offence.source);
    put_ports(&mut data, offence);
    event(
        EventType::PortScanningDetected,
        now,
        offence.at,
        Value::Object(data),
    )
}

/// One source sent more stealth probes than are tolerated, and is banned or would be.
pub fn suspicious_scanning_detected(now: Now, offence: &Offence, ban: &Ban) -> Event {
    let mut data = object(json!({
        "scan_type": offence.kind.word(),
        // Judged on each probe, the offence is the first above the threshold.
        "total_suspicious_scans": offence.threshold.saturating_add(1),
        "threshold": offence.threshold,
        "offense_count": ban.offences,
        "block_duration_seconds": duration_seconds(ban),
        "attack_type": BanReason::SuspiciousScanning.word(),
        "enforced": ban.enforced,
    }));
    put_source(&mut data, Some(offence.seen), offence.source);
    event(
        EventType::SuspiciousScanningDetected,
        now,
        offence.at,
        Value::Object(data),
    )
}

/// A port came under attack. `enforced`: whether sources that fail on it are banned.
pub fn distributed_attack_detected(now: Now, attack: &Attack, enforced: bool) -> Event {
    let mut data = attack_data(attack, enforced);
    data.insert("attempts".into(), json!(attack.attempts));
    event(
        EventType::DistributedAttackDetected,
        now,
        attack.began,
        Value::Object(data),
    )
}

/// An attack is over.
pub fn distributed_attack_ended(now: Now, attack: &Attack, enforced: bool) -> Event {
    let mut data = attack_data(attack, enforced);
    data.extend(object(json!({
        "attempts": attack.counted,
        "began": timestamp(now.wall_of(attack.began)),
        "last": timestamp(now.wall_of(attack.last)),
    })));
    event(
        EventType::DistributedAttackEnded,
        now,
        now.at,
        Value::Object(data),
    )
}

fn attack_data(attack: &Attack, enforced: bool) -> Map<String, Value> {
    let listed = attack.sources.iter().take(MOST_LISTED);
    let mut data = object(json!({
        "port": attack.port,
        "threshold": attack.threshold,
        "attack_type": "distributed_port_attack",
        "counting": attack.counting.word(),
        "sources": listed.map(ToString::to_string).collect::<Vec<_>>(),
        "sources_count": attack.distinct,
        "enforced": enforced,
    }));
    put_source(&mut data, Some(attack.seen), attack.source);
    data
}

/// A ban could not be put into the kernel.
pub fn block_error(now: Now, source: Prefix, reason: BanReason, error: &dyn std::fmt::Display) -> Event {
    failed(
        EventType::BlockError,
        now,
        source,
        reason.word(),
        error,
        "block_failed",
    )
}

/// A ban could not be taken out of the kernel.
pub fn unblock_error(now: Now, source: Prefix, why: Ended, error: &dyn std::fmt::Display) -> Event {
    failed(
        EventType::UnblockError,
        now,
        source,
        why.word(),
        error,
        "unblock_failed",
    )
}

fn failed(
    kind: EventType,
    now: Now,
    source: Prefix,
    reason: &str,
    error: &dyn std::fmt::Display,
    action: &str,
) -> Event {
    let mut data = object(json!({"reason": reason, "error": error.to_string(), "action": action}));
    put_source(&mut data, None, source);
    event(kind, now, now.at, Value::Object(data))
}

/// More new bans within a minute than are allowed: no more are added for now.
pub fn ban_storm(now: Now, most: u32) -> Event {
    let data = json!({"max_bans_per_minute": most});
    event(EventType::BanStorm, now, now.at, data)
}

/// A file of the engine is not what it was.
pub fn integrity_violation(now: Now, detail: &str) -> Event {
    event(
        EventType::IntegrityViolation,
        now,
        now.at,
        json!({"detail": detail}),
    )
}

/// The engine runs with something missing.
pub fn state_degraded(now: Now, reasons: &[String]) -> Event {
    event(EventType::StateDegraded, now, now.at, json!({"reasons": reasons}))
}

/// Somebody changed or removed the engine's table, `by` this process if the kernel told; `gap`: how long it was not as
/// it should be, none if it still is not.
pub fn ruleset_wiped(now: Now, detail: &str, by: Option<&str>, gap: Option<Duration>) -> Event {
    event(
        EventType::RulesetWiped,
        now,
        now.at,
        json!({
            "detail": detail,
            "repaired": gap.is_some(),
            "by": by,
            "gap_ms": gap.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
        }),
    )
}

/// The self-test did not see its own probe banned.
pub fn selftest_failed(now: Now, detail: &str) -> Event {
    event(EventType::SelftestFailed, now, now.at, json!({"detail": detail}))
}

/// What the machine calls itself: a receiver of many has to tell them apart.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Ends every constructor: id, moment, machine, technique.
fn event(kind: EventType, now: Now, at: Instant, data: Value) -> Event {
    let mut data = object(data);
    data.insert("host".into(), host().into());
    if let Some(technique) = kind.mitre_technique() {
        data.insert("mitre_technique".into(), technique.into());
    }
    let wall = now.wall_of(at);
    Event::new(new_id(wall), kind, wall, data)
}

/// A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, so that ids sort by time, and 74 of chance.
fn new_id(wall: OffsetDateTime) -> String {
    let mut bytes = [0u8; 16];
    // Blocks only until the kernel's pool is filled once, early at boot.
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled.is_err() {
        // A kernel without getrandom (before 3.17) is older than nf_tables: the keys of std's maps are as random.
        use std::hash::{BuildHasher, RandomState};
        let halves = [0, 1].map(|half| RandomState::new().hash_one(half).to_be_bytes());
        bytes.copy_from_slice(halves.as_flattened());
    }
    let millis = u64::try_from(wall.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// `ip` as seen, `prefix` as banned where that is more than one address.
fn put_source(data: &mut Map<String, Value>, seen: Option<IpAddr>, source: Prefix) {
    data.insert("ip".into(), json!(seen.unwrap_or(source.addr())));
    if !source.is_host() {
        data.insert("prefix".into(), json!(source.to_string()));
    }
}

fn put_ports(data: &mut Map<String, Value>, offence: &Offence) {
    let listed = offence.ports.iter().take(MOST_LISTED);
    data.extend(object(json!({
        "unique_ports_scanned": offence.ports.len(),
        "threshold": offence.threshold,
        "ports": listed.map(|(_, port)| port).collect::<Vec<_>>(),
    })));
}

fn duration_seconds(ban: &Ban) -> Option<u64> {
    let length: Duration = ban.until?.saturating_duration_since(ban.since);
    Some(length.as_secs())
}

/// As tcpdump and Scapy write them.
fn flag_letters(flags: u8) -> String {
    let letters = "FSRPAUEC".chars().enumerate();
    letters
        .filter(|(bit, _)| flags & 1 << bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `method` of what the kernel enforces.
const METHOD: &str = "nftables";
/// Ports and sources that an event lists: it has to fit a request beside others.
const MOST_LISTED: usize = 100;

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::core::attack::Counting;
    use crate::core::probe::TcpFlags;
    use crate::core::scan::ScanKind;
    use crate::core::verdict::{Proto, Weight};

    fn now() -> Now {
        Now {
            at: Instant::now() + Duration::from_secs(100_000),
            wall: datetime!(2026-03-01 12:00 UTC),
        }
    }

    fn source(text: &str) -> Prefix {
        Prefix::parse(text).unwrap().0
    }

    fn offence(now: Now, reason: BanReason) -> Offence {
        Offence {
            seen: "2001:db8::9".parse().unwrap(),
            source: source("2001:db8::/64"),
            reason,
            kind: ScanKind::Null,
            ports: (1..=8).map(|port| (Proto::Tcp, port)).collect(),
            threshold: 7,
            weight: Weight::Full,
            proven: false,
            at: now.at,
        }
    }

    fn ban(now: Now, reason: BanReason) -> Ban {
        Ban {
            source: source("2001:db8::/64"),
            reason,
            step: 1,
            offences: 1,
            since: now.at,
            until: Some(now.at + Duration::from_secs(600)),
            enforced: true,
            note: None,
        }
    }

    fn attack(now: Now) -> Attack {
        Attack {
            port: 22,
            counting: Counting::Incomplete,
            threshold: 3,
            attempts: 4,
            seen: "203.0.113.9".parse().unwrap(),
            source: source("203.0.113.9"),
            began: now.at - Duration::from_secs(60),
            last: now.at,
            counted: 9,
            offences: 2,
            sources: vec![source("203.0.113.9")],
            distinct: 1,
        }
    }

    fn xmas() -> Probe {
        Probe {
            src: "203.0.113.9".parse().unwrap(),
            dst: "192.0.2.1".parse().unwrap(),
            transport: Transport::Tcp {
                sport: 1,
                dport: 2,
                flags: TcpFlags(0x29),
                seq: 0,
            },
        }
    }

    fn every(now: Now) -> Vec<Event> {
        let scanned = offence(now, BanReason::PortScanning);
        let banned = ban(now, BanReason::PortScanning);
        let policy = crate::config::parse("", std::path::Path::new("x"))
            .unwrap()
            .policy;
        vec![
            firewall_started(now, &policy, &WebhookConfig::default()),
            connection_attempt(now, &xmas(), now.at, 1),
            ip_blocked(now, &banned, Some(&scanned), None),
            ip_unblocked(now, &banned, Ended::Timeout),
            port_scanning_detected(now, &scanned, &banned),
            distributed_attack_detected(now, &attack(now), true),
            suspicious_scanning_detected(now, &scanned, &banned),
            block_error(now, banned.source, banned.reason, &"full"),
            unblock_error(now, banned.source, Ended::Manual, &"gone"),
            distributed_attack_ended(now, &attack(now), true),
            ban_storm(now, 600),
            integrity_violation(now, "x"),
            state_degraded(now, &["x".to_owned()]),
            ruleset_wiped(now, "x", None, None),
            selftest_failed(now, "x"),
            firewall_stopped(now, "x", 0),
        ]
    }

    #[test]
    fn every_event_has_the_keys_that_receivers_count_on() {
        let events = every(now());
        let names: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
        let all: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names, all);
        for (kind, event) in EventType::ALL.iter().zip(&events) {
            for key in kind.data_keys() {
                assert!(event.data.contains_key(*key), "{kind}: {key}");
            }
            assert_eq!(
                event.data.get("mitre_technique").and_then(Value::as_str),
                kind.mitre_technique()
            );
            // What people try their receivers with is shaped as what happens, but for IPv6.
            let mut made_up = sample(*kind, now()).data;
            made_up.remove("test");
            let keys = event.data.keys().filter(|key| *key != "prefix");
            assert!(keys.eq(made_up.keys()), "{kind}: {made_up:?}");
        }
    }

    #[test]
    fn a_ban_says_what_led_to_it() {
        let now = now();
        let scanned = offence(now, BanReason::PortScanning);
        let event = ip_blocked(now, &ban(now, BanReason::PortScanning), Some(&scanned), None);
        assert_eq!(event.timestamp, "2026-03-01T12:00:00.000Z");
        for (key, value) in [
            ("ip", json!("2001:db8::9")),
            ("prefix", json!("2001:db8::/64")),
            ("reason", json!("port_scanning")),
            ("action", json!("blocked")),
            ("method", json!("nftables")),
            ("block_count", json!(1)),
            ("block_duration_seconds", json!(600)),
            ("until", json!("2026-03-01T12:10:00.000Z")),
            ("unique_ports_scanned", json!(8)),
            ("threshold", json!(7)),
            ("ports", json!([1, 2, 3, 4, 5, 6, 7, 8])),
        ] {
            assert_eq!(event.data[key], value, "{key}");
        }
        let many = ban(now, BanReason::DistributedAttack);
        let event = ip_blocked(now, &many, None, Some(&attack(now)));
        for key in EventType::blocked_keys("distributed_attack") {
            assert!(event.data[*key].is_number(), "{key}");
        }
        let endless = Ban {
            until: None,
            ..ban(now, BanReason::Manual)
        };
        let event = ip_blocked(now, &endless, None, None);
        assert_eq!(
            (&event.data["until"], &event.data["block_duration_seconds"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn an_event_tells_when_it_happened_not_when_it_was_told() {
        let now = now();
        let event = distributed_attack_detected(now, &attack(now), false);
        assert_eq!(event.timestamp, "2026-03-01T11:59:00.000Z");
        assert_eq!(event.data["enforced"], json!(false));
    }

    #[test]
    fn flags_are_letters() {
        let event = connection_attempt(now(), &xmas(), now().at, 7);
        assert_eq!(
            ["tcp_flags", "is_suspicious", "count"].map(|key| &event.data[key]),
            [&json!("FPU"), &json!(true), &json!(7)]
        );
    }

    #[test]
    fn ids_are_uuids_that_sort_by_time() {
        let at = datetime!(2026-03-01 12:00 UTC);
        let (first, second) = (new_id(at), new_id(at + time::Duration::milliseconds(1)));
        assert!(first < second && first[..8] == second[..8], "{first} {second}");
        assert_eq!((first.len(), &first[14..15]), (36, "7"));
        assert_ne!(new_id(at), new_id(at));
    }
}
