//! What people are told of, and how urgent it is.

use crate::intake::Incoming;

/// The operator's word on alerts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Scans of so many ports are worth an alert.
    pub(crate) wide_scan_ports: u64,
}

impl Rules {
    /// 0: nobody is told. 1 and more: people are told, 1 first.
    pub(crate) fn urgency(&self, event: &Incoming) -> u8 {
        match &*event.event_type {
            "integrity_violation" | "ruleset_wiped" | "selftest_failed" | "ban_storm" | "state_degraded" => 1,
            "distributed_attack_detected" => 2,
            "ip_blocked" if event.count("block_count").is_some_and(|count| count >= REPEATED) => 3,
            "port_scanning_detected" | "suspicious_scanning_detected"
                if ports(event) >= self.wide_scan_ports =>
            {
                4
            }
            _ => 0,
        }
    }
}

/// How many ports a scan touched; one where it does not say.
fn ports(event: &Incoming) -> u64 {
    let listed = || event.data("ports")?.as_array().map(|ports| ports.len() as u64);
    event.count("unique_ports_scanned").or_else(listed).unwrap_or(1)
}

/// A source that was blocked so often comes back on purpose.
const REPEATED: u64 = 3;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::intake;

    fn urgency(wide_scan_ports: u64, kind: &str, data: Value) -> u8 {
        let body = json!({"event_type": kind, "data": data}).to_string();
        Rules { wide_scan_ports }.urgency(&intake::read(body.as_bytes()).unwrap()[0])
    }

    #[test]
    fn the_third_block_alerts_and_the_second_does_not() {
        let blocked = |count: Value| urgency(1, "ip_blocked", json!({"block_count": count}));
        assert_eq!(
            [json!(1), json!(2), json!(3), json!(40)].map(blocked),
            [0, 0, 3, 3]
        );
        assert_eq!(
            [json!(null), json!("3"), json!(-3), json!({})].map(blocked),
            [0; 4]
        );
    }

    #[test]
    fn scans_alert_from_the_width_that_is_asked_for() {
        let scan = |wide, data| urgency(wide, "port_scanning_detected", data);
        assert_eq!(scan(1, json!({})), 4);
        assert_eq!(scan(8, json!({"unique_ports_scanned": 7})), 0);
        assert_eq!(scan(8, json!({"unique_ports_scanned": 8})), 4);
        assert_eq!(scan(2, json!({"ports": [1, 2]})), 4);
    }

    #[test]
    fn every_distributed_attack_alerts_and_an_attempt_never() {
        assert_eq!(urgency(100, "distributed_attack_detected", json!(null)), 2);
        assert_eq!(urgency(1, "integrity_violation", json!({})), 1);
        assert_eq!(urgency(1, "connection_attempt", json!({"block_count": 9})), 0);
        assert_eq!(urgency(1, "from_the_future", json!({})), 0);
    }
}
