//! The body of a request: a batch of events in JSON, as the Python system sends it and its receivers read it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;

/// What one request carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// How many they are.
    pub batch_size: usize,
    /// When the batch was put together, as [`timestamp`] writes it.
    pub timestamp: String,
}

impl Batch {
    /// These events, put together at `at`.
    pub fn new(events: Vec<Event>, at: OffsetDateTime) -> Batch {
        Batch {
            batch_size: events.len(),
            events,
            timestamp: timestamp(at),
        }
    }

    /// What is posted, and signed.
    pub fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a batch is text, numbers and maps with text as keys")
    }
}

/// One thing that happened. `event_type` is text, so that a receiver can hold events that it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same however often the event is sent, and of no other event.
    pub id: String,
    /// When it happened, as [`timestamp`] writes it.
    pub timestamp: String,
    /// A name of [`EventType`], or one that a later version brings.
    pub event_type: String,
    /// [`VERSION`].
    pub version: String,
    /// [`SOURCE`].
    pub source: String,
    /// What the event's type says: [`EventType::data_keys`], and more.
    pub data: Map<String, Value>,
}

impl Event {
    /// An event of a known type that happened at `at`.
    pub fn new(
        id: impl Into<String>,
        kind: EventType,
        at: OffsetDateTime,
        data: Map<String, Value>,
    ) -> Event {
        Event {
            id: id.into(),
            timestamp: timestamp(at),
            event_type: kind.name().to_owned(),
            version: VERSION.to_owned(),
            source: SOURCE.to_owned(),
            data,
        }
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-03-01T12:00:00.250Z`.
pub fn timestamp(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at.to_offset(time::UtcOffset::UTC)
        .format(form)
        .expect("every moment from year 0 to 9999 has its parts")
}

/// How soon people want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// May wait for its batch to fill.
    Informational,
    /// The engine could not do what it should: sent at once.
    Error,
    /// Somebody attacks, or protection is at stake: sent at once.
    Critical,
}

macro_rules! event_types {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $severity:ident [$($key:literal)*];)+) => {
        /// Every event that is sent. Names are contracts, none is renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventType { $($(#[doc = $doc])+ $variant,)+ }

        impl EventType {
            /// Every type, in the order of the documentation.
            pub const ALL: &[EventType] = &[$(EventType::$variant,)+];

            /// Its name on the wire and in filters.
            pub fn name(self) -> &'static str {
                match self { $(EventType::$variant => $name,)+ }
            }

            /// How soon people want to know.
            pub fn severity(self) -> Severity {
                match self { $(EventType::$variant => Severity::$severity,)+ }
            }

            /// The keys that `data` always has. A contract: none is renamed, more may be there.
            pub fn data_keys(self) -> &'static [&'static str] {
                match self { $(EventType::$variant => &[$($key,)*],)+ }
            }
        }
    };
}

event_types! {
    /// The engine protects.
    FirewallStarted "firewall_started" Informational [
        "mode" "firewall_mode" "security_mode" "unique_ports_threshold" "default_port_threshold" "trusted_ips_count"
        "webhook_enabled" "webhook_endpoints_count"];
    /// A new flow toward this host.
    ConnectionAttempt "connection_attempt" Informational [
        "ip" "port" "src_port" "protocol" "timestamp" "scan_type" "tcp_flags" "is_suspicious"];
    /// A source is banned in the kernel, never merely recorded.
    IpBlocked "ip_blocked" Critical [
        "ip" "reason" "action" "method" "block_count" "block_duration_seconds" "until"];
    /// Its ban ended in the kernel.
    IpUnblocked "ip_unblocked" Informational ["ip" "reason" "action" "method"];
    /// One source touched more ports than are tolerated.
    PortScanningDetected "port_scanning_detected" Critical [
        "ip" "unique_ports_scanned" "threshold" "ports" "offense_count" "block_duration_seconds" "attack_type"
        "enforced"];
    /// A port came under attack from many sources.
    DistributedAttackDetected "distributed_attack_detected" Critical [
        "ip" "port" "attempts" "threshold" "attack_type" "sources" "enforced"];
    /// One source sent more stealth probes than are tolerated.
    SuspiciousScanningDetected "suspicious_scanning_detected" Critical [
        "ip" "scan_type" "total_suspicious_scans" "threshold" "offense_count" "block_duration_seconds" "attack_type"];
    /// A ban could not be put into the kernel.
    BlockError "block_error" Error ["ip" "reason" "error" "action"];
    /// A ban could not be taken out of the kernel.
    UnblockError "unblock_error" Error ["ip" "reason" "error" "action"];
    /// Nothing counted came to the port for a while.
    DistributedAttackEnded "distributed_attack_ended" Informational [];
    /// More bans a minute than are allowed: no new ones for now.
    BanStorm "ban_storm" Critical [];
    /// A file of the engine is not what it was.
    IntegrityViolation "integrity_violation" Critical [];
    /// The engine runs with something missing.
    StateDegraded "state_degraded" Error [];
    /// Somebody changed or removed the engine's table.
    RulesetWiped "ruleset_wiped" Critical [];
    /// The self-test did not see its own probe banned.
    SelftestFailed "selftest_failed" Critical [];
    /// The engine stopped.
    FirewallStopped "firewall_stopped" Informational [];
}

impl EventType {
    /// What `data` of an `ip_blocked` has beside its [`data_keys`](EventType::data_keys), by its `reason`.
    pub fn blocked_keys(reason: &str) -> &'static [&'static str] {
        match reason {
            "port_scanning" => &["unique_ports_scanned", "threshold", "ports"],
            "distributed_attack" => &["port", "attempts", "threshold"],
            _ => &[],
        }
    }

    /// The MITRE ATT&CK technique that it shows, where one fits: Active Scanning, Network Denial of Service.
    pub fn mitre_technique(self) -> Option<&'static str> {
        match self {
            EventType::PortScanningDetected | EventType::SuspiciousScanningDetected => Some("T1595"),
            EventType::DistributedAttackDetected => Some("T1498"),
            _ => None,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not the name of an event")]
pub struct UnknownEvent;

impl FromStr for EventType {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<EventType, UnknownEvent> {
        let known = EventType::ALL.iter().copied();
        known
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or(UnknownEvent)
    }
}

/// `version` of every event.
pub const VERSION: &str = "1.0";
/// `source` of every event.
pub const SOURCE: &str = "firewall";
/// `User-Agent` of every request.
pub const USER_AGENT: &str = "Firewall-Webhook/1.0";

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_batch_looks_as_documented() {
        let Value::Object(data) = json!({"ip": "203.0.113.9"}) else {
            unreachable!()
        };
        let at = datetime!(2026-03-01 13:00:00.25 +1);
        let event = Event::new("e-1", EventType::IpBlocked, at, data);
        let batch = serde_json::to_value(Batch::new(vec![event], at)).unwrap();
        assert_eq!(
            batch,
            json!({
                "events": [{
                    "id": "e-1", "timestamp": "2026-03-01T12:00:00.250Z", "event_type": "ip_blocked",
                    "version": "1.0", "source": "firewall", "data": {"ip": "203.0.113.9"},
                }],
                "batch_size": 1,
                "timestamp": "2026-03-01T12:00:00.250Z",
            })
        );
        assert_eq!(
            serde_json::from_value::<Batch>(batch).unwrap().events[0].id,
            "e-1"
        );
    }

    #[test]
    fn names_are_read_back_and_unknown_ones_are_not() {
        for kind in EventType::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        assert_eq!("ip_bloked".parse::<EventType>(), Err(UnknownEvent));
        assert_eq!(EventType::ALL.len(), 16);
    }
}
