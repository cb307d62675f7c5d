//! Made-up events: what an operator sends to try out an endpoint, and what the documentation shows. Built by the
//! constructors of real ones, so that they have the same keys and forms. Addresses are of RFC 5737.

use std::time::Duration;

use serde_json::json;

use super::event::{self, Ended, Now};
use super::wire::{Event, EventType};
use crate::core::attack::{Attack, Counting};
use crate::core::prefix::Prefix;
use crate::core::probe::{Probe, TcpFlags, Transport};
use crate::core::scan::ScanKind;
use crate::core::verdict::{Ban, BanReason, Offence, Proto, Weight};

/// An event of this type as it could happen, marked by `"test": true`.
pub fn sample(kind: EventType, now: Now) -> Event {
    let mut event = made_up(kind, now);
    event.data.insert("host".into(), "web1.example".into());
    event.data.insert("test".into(), true.into());
    event
}

fn made_up(kind: EventType, now: Now) -> Event {
    let offence = offence(now);
    let ban = ban(now);
    match kind {
        EventType::FirewallStarted => event::started(now, started()),
        EventType::ConnectionAttempt => event::connection_attempt(now, &probe(), now.at, 1),
        EventType::IpBlocked => event::ip_blocked(now, &ban, Some(&offence), None),
        EventType::IpUnblocked => event::ip_unblocked(now, &ban, Ended::Timeout),
        EventType::PortScanningDetected => event::port_scanning_detected(now, &offence, &ban),
        EventType::DistributedAttackDetected => event::distributed_attack_detected(now, &attack(now), true),
        EventType::SuspiciousScanningDetected => {
            let stealth = Offence {
                reason: BanReason::SuspiciousScanning,
                kind: ScanKind::Xmas,
                threshold: 3,
                ..offence
            };
            event::suspicious_scanning_detected(now, &stealth, &ban)
        }
        EventType::BlockError => event::block_error(
            now,
            ban.source,
            ban.reason,
            &"the set banned4 is full (1048576 elements)",
        ),
        EventType::UnblockError => event::unblock_error(
            now,
            ban.source,
            Ended::Manual,
            &"netlink: no buffer space available",
        ),
        EventType::DistributedAttackEnded => event::distributed_attack_ended(now, &attack(now), true),
        EventType::BanStorm => event::ban_storm(now, 600),
        EventType::IntegrityViolation => event::integrity_violation(
            now,
            "/usr/bin/verdictd was changed: its sha256 is 3c6e0b8a…, sealed was 8f434346…",
        ),
        EventType::StateDegraded => event::state_degraded(
            now,
            &["the state is not saved: cannot write /var/lib/verdictd/state.toml.new: No space left on device (os error 28)".to_owned()],
        ),
        EventType::RulesetWiped => {
            event::ruleset_wiped(
                now,
                "table inet verdictd: it is gone; bans that go into it again: 17",
                Some("nft (pid 4711)"),
                Some(Duration::from_millis(12)),
            )
        }
        EventType::SelftestFailed => event::selftest_failed(
            now,
            "banned: expected 192.0.2.99 in set banned4 within 1 s; seen: it is not; look at verdictctl status",
        ),
        EventType::FirewallStopped => event::firewall_stopped(now, "stopped", 17),
    }
}

fn started() -> serde_json::Value {
    json!({
        "mode": "detection_only",
        "firewall_mode": "detection_only",
        "security_mode": "standard",
        "unique_ports_threshold": 7,
        "default_port_threshold": 10,
        "trusted_ips_count": 2,
        "webhook_enabled": true,
        "webhook_endpoints_count": 1,
        "enforced": true,
        "engine_version": env!("CARGO_PKG_VERSION"),
    })
}

fn probe() -> Probe {
    Probe {
        src: source(1).addr(),
        dst: [198, 51, 100, 1].into(),
        transport: Transport::Tcp {
            sport: 50_123,
            dport: 22,
            flags: TcpFlags(0x02),
            seq: 1,
        },
    }
}

fn offence(now: Now) -> Offence {
    let ports = [21, 22, 23, 25, 80, 110, 143, 443];
    Offence {
        seen: source(1).addr(),
        source: source(1),
        reason: BanReason::PortScanning,
        kind: ScanKind::Syn,
        ports: ports.into_iter().map(|port| (Proto::Tcp, port)).collect(),
        threshold: 7,
        weight: Weight::Full,
        proven: false,
        at: now.at,
    }
}

fn ban(now: Now) -> Ban {
    Ban {
        source: source(1),
        reason: BanReason::PortScanning,
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
        seen: source(4).addr(),
        source: source(4),
        began: now.at,
        last: now.at,
        counted: 57,
        offences: 4,
        sources: (1..=4).map(source).collect(),
        distinct: 4,
    }
}

/// `192.0.2.last`, of TEST-NET-1.
fn source(last: u8) -> Prefix {
    Prefix::host([192, 0, 2, last].into())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn every_type_has_a_sample_with_its_keys() {
        let now = Now {
            at: Instant::now(),
            wall: datetime!(2026-03-01 12:00 UTC),
        };
        for kind in EventType::ALL {
            let sample = sample(*kind, now);
            assert_eq!(sample.event_type, kind.name());
            assert_eq!(sample.timestamp, "2026-03-01T12:00:00.000Z", "{kind}");
            assert_eq!(sample.data["test"], true);
            for key in kind.data_keys() {
                assert!(sample.data.contains_key(*key), "{kind}: {key}");
            }
        }
        let blocked = sample(EventType::IpBlocked, now);
        for key in EventType::blocked_keys("port_scanning") {
            assert!(blocked.data.contains_key(*key), "{key}");
        }
    }
}
