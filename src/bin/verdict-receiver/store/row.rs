//! What the database keeps of an event, made before it waits for the thread that writes.

use serde_json::Value;

use crate::alert::rules::Rules;
use crate::intake::{self, Incoming};

/// What is written down of an event. Small beside the parsed JSON, since many may wait.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) event_type: String,
    pub(super) at: Option<i64>,
    pub(super) ip: Option<String>,
    pub(super) alert: u8,
    pub(super) block: Option<Block>,
    pub(super) event: String,
}

/// What an `ip_blocked` says of the block.
pub(super) struct Block {
    pub(super) reason: Option<String>,
    pub(super) count: Option<i64>,
    pub(super) until: Option<i64>,
    /// Milliseconds.
    pub(super) length: Option<i64>,
}

impl Row {
    pub(super) fn of(event: Incoming, rules: Rules) -> Row {
        let blocks = event.event_type == "ip_blocked" && event.ip.is_some();
        Row {
            alert: rules.urgency(&event),
            block: blocks.then(|| Block::of(&event)),
            event: serde_json::to_string(&event.whole).unwrap_or_default(),
            id: event.id,
            event_type: event.event_type,
            at: event.at,
            ip: event.ip,
        }
    }
}

impl Block {
    fn of(event: &Incoming) -> Block {
        let text = |key| event.data(key).and_then(Value::as_str);
        let count = |key| event.count(key).and_then(|count| i64::try_from(count).ok());
        Block {
            reason: text("reason").map(str::to_owned),
            count: count("block_count"),
            until: text("until").and_then(intake::moment),
            length: count("block_duration_seconds").and_then(|seconds| seconds.checked_mul(1_000)),
        }
    }
}
