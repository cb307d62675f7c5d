//! One event as a line on disk: `number milliseconds checksum json`. What a crash tore or a disk changed is told from
//! what was written, and the next line break begins anew.

use sha2::{Digest, Sha256};

use crate::webhook::wire::Event;

/// An event with its place in the order of all.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::webhook) struct Record {
    /// From 1, never given twice.
    pub(in crate::webhook) number: u64,
    /// When it was written, in milliseconds since 1970.
    pub(in crate::webhook) written: u64,
    /// What happened.
    pub(in crate::webhook) event: Event,
}

impl Record {
    /// The line, with its line break.
    pub(in crate::webhook) fn line(&self) -> Vec<u8> {
        // Escapes every line break.
        let json =
            serde_json::to_vec(&self.event).expect("an event is text, numbers and maps with text as keys");
        let mut line = Vec::with_capacity(json.len() + 64);
        let sum = checksum(self.number, self.written, &json);
        line.extend_from_slice(format!("{} {} {sum:016x} ", self.number, self.written).as_bytes());
        line.extend_from_slice(&json);
        line.push(b'\n');
        line
    }

    /// Back from a line without its line break; `None`: it is not what was written.
    pub(in crate::webhook) fn parse(line: &[u8]) -> Option<Record> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(parts.next()?).ok();
        let (number, written) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let sum = u64::from_str_radix(word()?, 16).ok()?;
        let json = parts.next()?;
        let whole = checksum(number, written, json) == sum;
        let event = serde_json::from_slice(json).ok().filter(|_| whole)?;
        Some(Record {
            number,
            written,
            event,
        })
    }
}

/// The first 64 bits of a SHA-256: against accidents, not against whoever may write here.
fn checksum(number: u64, written: u64, json: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(number.to_be_bytes());
    hash.update(written.to_be_bytes());
    hash.update(json);
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        let event = json!({
            "id": "x", "timestamp": "t", "event_type": "ip_blocked", "version": "1.0", "source": "firewall",
            "data": {"note": "a\nb\u{2028} \\ \""},
        });
        Record {
            number: 7,
            written: 1_780_000_000_000,
            event: serde_json::from_value(event).unwrap(),
        }
    }

    #[test]
    fn a_line_is_read_back_and_is_one_line() {
        let line = record().line();
        let body = line.strip_suffix(b"\n").unwrap();
        assert!(!body.contains(&b'\n'));
        assert_eq!(Record::parse(body), Some(record()));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_noticed(at in 0usize..200, to in any::<u8>(), cut in 0usize..300) {
            let line = record().line();
            let body = line.strip_suffix(b"\n").unwrap();
            let mut changed = body.to_vec();
            let at = at % changed.len();
            prop_assume!(changed[at] != to && !changed[at].eq_ignore_ascii_case(&to));
            changed[at] = to;
            prop_assert_eq!(Record::parse(&changed), None);
            if cut < body.len() {
                prop_assert_eq!(Record::parse(&body[..cut]), None);
            }
        }
    }
}
