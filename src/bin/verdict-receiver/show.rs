//! An event in words: `ip=203.0.113.9 reason=port_scanning …`, safe for a terminal, a log and a message.

use serde_json::Value;
use verdictd::notify::text::plain;

/// What `data` says on one line, the usual keys first. Long lists are cut, hostile text is escaped.
pub(crate) fn summary(data: &Value) -> String {
    let Value::Object(data) = data else {
        return value(data);
    };
    let first = FIRST.into_iter().filter(|key| data.contains_key(*key));
    let others = data.keys().map(String::as_str).filter(|key| !FIRST.contains(key));
    let words: Vec<String> = first
        .chain(others)
        .map(|key| format!("{}={}", plain(key), value(&data[key])))
        .collect();
    words.join(" ")
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.contains([' ', '=', '"']) => {
            plain(&format!("{text:?}"))
        }
        Value::String(text) => plain(text),
        Value::Array(all) if all.iter().all(|one| !one.is_object() && !one.is_array()) => list(all),
        other => plain(&other.to_string()),
    }
}

fn list(all: &[Value]) -> String {
    let shown: Vec<String> = all.iter().take(LISTED).map(value).collect();
    match all.len().saturating_sub(LISTED) {
        0 => shown.join(","),
        more => format!("{},… ({more} more)", shown.join(",")),
    }
}

/// What people look for.
const FIRST: [&str; 7] = [
    "ip",
    "prefix",
    "port",
    "reason",
    "block_count",
    "unique_ports_scanned",
    "attempts",
];
/// Of a list.
const LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_reads_well() {
        let data = json!({"action": "blocked", "ip": "203.0.113.9", "note": "two words", "ports": [22, 80], "until": null});
        assert_eq!(
            summary(&data),
            "ip=203.0.113.9 action=blocked note=\"two words\" ports=22,80 until=null"
        );
        let many: Vec<u16> = (1..=25).collect();
        assert!(summary(&json!({ "ports": many })).ends_with("19,20,… (5 more)"));
        assert_eq!(summary(&json!(null)), "null");
    }

    #[test]
    fn nothing_acts_on_its_reader() {
        let shown = summary(
            &json!({"a\u{1b}[2J": "\u{202e}x\n", "b": ["\u{7}"], "c": {"\u{1b}": 1}, "d": "x\u{1b}y z"}),
        );
        assert!(
            !shown.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{shown:?}"
        );
    }
}
