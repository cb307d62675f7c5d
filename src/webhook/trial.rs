//! One event to one endpoint, now, for somebody who looks on: outside spool, filters, pace and retries, by the same
//! signatures and the same rules on addresses as all others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use time::OffsetDateTime;
use ureq::http::StatusCode;

use super::config::{EndpointConfig, WebhookConfig};
use super::http::{self, Client, SystemLookup};
use super::wire::{Batch, Event};

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Bytes of the body.
    pub bytes: usize,
    /// From the lookup of the name to the end of the answer.
    pub took: Duration,
    /// The status that was answered, whichever.
    pub answer: Result<u16, Trouble>,
}

impl Trial {
    /// Whether the event was taken.
    pub fn accepted(&self) -> bool {
        matches!(self.answer, Ok(200..300))
    }

    /// The answer's status with its usual words, `401 Unauthorized`; empty without an answer.
    pub fn status_line(&self) -> String {
        let Ok(status) = self.answer else {
            return String::new();
        };
        StatusCode::from_u16(status).map_or_else(|_| status.to_string(), http::words)
    }
}

/// Why there is no answer. Holds no secret, and nothing that the peer wrote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Trouble {
    /// Of what sort.
    pub why: Why,
    /// In words.
    pub text: String,
}

/// Sorts of trouble that call for different help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The secret cannot be read; nothing was sent.
    Secret,
    /// The name leads to no address.
    Name,
    /// The address is one that nothing is sent to.
    Address,
    /// Nobody took the connection, or it broke.
    Connection,
    /// No answer in time.
    Late,
    /// No trust in the certificate, or no TLS.
    Tls,
    /// An answer that cannot be read.
    NotHttp,
}

/// Sends `event` alone in its batch. Waits at most for the endpoint's `timeout`.
pub fn post(endpoint: &EndpointConfig, config: &WebhookConfig, event: Event) -> Trial {
    let now = OffsetDateTime::now_utc();
    let body = Batch::new(vec![event], now).body();
    let client = Client::new(endpoint, config, Arc::new(SystemLookup));
    let begun = Instant::now();
    let answer = client.exchange(&body, now);
    Trial {
        bytes: body.len(),
        took: begun.elapsed(),
        answer: answer.map(|(status, _)| status.as_u16()),
    }
}
