//! How the sending of events goes, as `webhook status` shows it. Field names are a contract; nothing here is a secret.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::views::timestamp;
use crate::webhook::status::{EndpointStatus, Status};

/// How it goes altogether. Counts are of this run of the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookView {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Events written to disk.
    pub spooled: u64,
    /// Attempts merged into others before they were written.
    pub merged: u64,
    /// Events never written, since they came faster than the disk takes them, or it takes none.
    pub dropped: u64,
    /// Bytes on disk of events that wait.
    pub spool_bytes: u64,
    /// Lines on disk that were not what was written.
    pub damaged: u64,
    /// What went wrong last with the disk.
    pub last_error: Option<String>,
    /// Each endpoint of the config, in its order.
    pub endpoints: Vec<WebhookEndpointView>,
}

/// How it goes with one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookEndpointView {
    /// Its name.
    pub name: String,
    /// Its address up to the host.
    pub url: String,
    /// Whether it is served.
    pub enabled: bool,
    /// Events that it took.
    pub delivered: u64,
    /// Requests that were made.
    pub attempts: u64,
    /// Those that failed.
    pub failed: u64,
    /// The part of requests that went well, 0 to 1 in thousandths; none before the first.
    pub success_rate: Option<f64>,
    /// What went wrong last, and when, RFC 3339.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<String>,
    /// When it last took something.
    pub last_success_at: Option<String>,
    /// `closed`: requests are made; `open`: none for a while; `half_open`: the next one decides.
    pub circuit: String,
    /// Events on disk that wait for it.
    pub waiting: u64,
    /// Events that it refused or that grew too old, kept aside.
    pub dead_letters: u64,
    /// Events that it never got, since spool or dead letters were full.
    pub dropped: u64,
}

impl WebhookView {
    /// What `status` says.
    pub fn of(status: &Status) -> WebhookView {
        WebhookView {
            enabled: status.enabled,
            spooled: status.spooled,
            merged: status.merged,
            dropped: status.dropped,
            spool_bytes: status.spool_bytes,
            damaged: status.damaged,
            last_error: status.last_error.clone(),
            endpoints: status.endpoints.iter().map(WebhookEndpointView::of).collect(),
        }
    }
}

impl WebhookEndpointView {
    fn of(status: &EndpointStatus) -> WebhookEndpointView {
        let told = |at: Option<OffsetDateTime>| at.map(|at| timestamp(SystemTime::from(at)));
        // Rounded down: only a clean sheet is 1.
        let rate = |rate: f64| (rate * 1000.0).floor() / 1000.0;
        WebhookEndpointView {
            name: status.name.clone(),
            url: status.url.clone(),
            enabled: status.enabled,
            delivered: status.delivered,
            attempts: status.attempts,
            failed: status.failed,
            success_rate: status.success_rate().map(rate),
            last_error: status.last_error.clone(),
            last_error_at: told(status.last_error_at),
            last_success_at: told(status.last_success_at),
            circuit: status.circuit.word().to_owned(),
            waiting: status.waiting,
            dead_letters: status.dead_letters,
            dropped: status.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::webhook::status::Circuit;

    #[test]
    fn an_endpoint_has_the_fields_of_the_contract() {
        let endpoint = EndpointStatus {
            name: "SOC".into(),
            url: "https://soc.example.com/…".into(),
            enabled: true,
            delivered: 40,
            attempts: 3_000,
            failed: 1,
            last_error: Some("it answers 503 Service Unavailable".into()),
            last_error_at: Some(datetime!(2026-03-01 12:00:00.7 UTC)),
            last_success_at: None,
            circuit: Circuit::HalfOpen,
            waiting: 2,
            dead_letters: 1,
            dropped: 0,
        };
        let status = Status {
            enabled: true,
            endpoints: vec![endpoint],
            ..Status::default()
        };
        let view = serde_json::to_value(WebhookView::of(&status)).unwrap();
        assert_eq!(
            view["endpoints"][0],
            json!({
                "name": "SOC", "url": "https://soc.example.com/…", "enabled": true, "delivered": 40,
                "attempts": 3_000, "failed": 1, "success_rate": 0.999,
                "last_error": "it answers 503 Service Unavailable", "last_error_at": "2026-03-01T12:00:00Z",
                "last_success_at": null, "circuit": "half_open", "waiting": 2, "dead_letters": 1, "dropped": 0,
            })
        );
        assert_eq!(view["spool_bytes"], 0);
    }
}
