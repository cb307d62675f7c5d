//! One message for everything that came together: a subject, the most urgent events, counts of the rest.

use serde_json::Value;
use verdictd::notify::text::{grouped, plain};

use crate::show::summary;
use crate::store::Due;

/// What a message says. Nothing in it acts on its reader: what events hold is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// One line.
    pub(crate) subject: String,
    /// A line for each event shown, and one for those that are not.
    pub(crate) lines: Vec<String>,
}

impl Digest {
    /// Of what is due; there is something.
    pub(crate) fn of(due: &Due) -> Digest {
        let total: u64 = due.counts.iter().map(|(_, count)| count).sum();
        let kinds: Vec<String> = due
            .counts
            .iter()
            .map(|(kind, count)| format!("{} {}", grouped(*count), plain(kind)))
            .collect();
        let kinds = kinds.join(", ");
        let subject = match (total, due.events.first()) {
            (1, Some(only)) => line(only),
            _ => format!("{} alerts: {kinds}", grouped(total)),
        };
        let mut lines: Vec<String> = due.events.iter().map(line).collect();
        let more = total.saturating_sub(due.events.len() as u64);
        if more > 0 {
            lines.push(format!("and {} more; in all {kinds}", grouped(more)));
        }
        Digest {
            subject: cut(&subject, LONGEST_SUBJECT),
            lines,
        }
    }
}

fn line(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("?");
    let line = format!(
        "{} {}",
        plain(text("event_type")),
        summary(event.get("data").unwrap_or(&Value::Null))
    );
    let enforced = event.pointer("/data/enforced") != Some(&Value::Bool(false));
    let observed = if enforced {
        ""
    } else {
        " (observed, nothing was blocked)"
    };
    cut(
        &format!("{line}{observed}, at {}", plain(text("timestamp"))),
        LONGEST_LINE,
    )
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Events in one message.
pub(crate) const SHOWN: usize = 20;
/// Characters.
const LONGEST_LINE: usize = 400;
const LONGEST_SUBJECT: usize = 150;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_alert_says_it_in_its_subject() {
        let event = json!({"event_type": "ip_blocked", "timestamp": "t", "data": {"ip": "203.0.113.9", "block_count": 3}});
        let due = Due {
            counts: vec![("ip_blocked".into(), 1)],
            events: vec![event],
            last: 1,
        };
        let digest = Digest::of(&due);
        assert_eq!(digest.subject, "ip_blocked ip=203.0.113.9 block_count=3, at t");
        assert_eq!(digest.lines, std::slice::from_ref(&digest.subject));
    }

    #[test]
    fn a_storm_is_counted_and_hostile_text_is_harmless() {
        let event = json!({"event_type": "x\r\nBcc: all", "timestamp": "\u{1b}[2J",
            "data": {"ip": "\u{202e}", "long": "y".repeat(9_000), "enforced": false}});
        let due = Due {
            counts: vec![("x\r\n".into(), 4_980), ("ip_blocked".into(), 20)],
            events: vec![event; SHOWN],
            last: 1,
        };
        let digest = Digest::of(&due);
        assert_eq!(digest.subject, "5,000 alerts: 4,980 x\\r\\n, 20 ip_blocked");
        assert_eq!(digest.lines.len(), SHOWN + 1);
        assert!(digest.lines[SHOWN].starts_with("and 4,980 more"));
        assert!(
            digest
                .lines
                .iter()
                .all(|line| line.chars().count() <= LONGEST_LINE + 1)
        );
        assert!(
            !digest
                .lines
                .concat()
                .contains(|c: char| c.is_control() || c == '\u{202e}')
        );
    }
}
