//! A file of the log as the chain sees it: hashes, numbers, and what few records say about the log itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;

use crate::audit::chain::{Hash, Link};

/// One line, as far as the chain goes.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) hash: Hash,
    pub(super) record: Option<Record>,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) says: Option<Box<Says>>,
}

/// What few records say about the log itself.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// What was removed at the old end.
    Removed(Link),
    /// What the engine found wrong.
    Broken(String),
    /// So many records were lost.
    Lost(u64),
}

/// A file that was read.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) body: Body,
    /// Bytes behind its last newline.
    pub(super) torn: usize,
}

/// A file that is sound in itself is as good as its two ends: a log may be many files of a hundred thousand lines.
pub(super) enum Body {
    Sound(Sound),
    Lines(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Sound {
    pub(super) lines: u64,
    pub(super) first: Record,
    pub(super) last: Link,
    pub(super) removed: Option<Link>,
    pub(super) lost: u64,
}

impl Sound {
    pub(super) fn of(entries: &[Entry]) -> Option<Sound> {
        let first = entries.first()?.record.clone()?;
        let mut sound = Sound {
            lines: entries.len() as u64,
            last: Link {
                seq: first.seq.checked_sub(1)?,
                hash: first.prev,
            },
            first,
            removed: None,
            lost: 0,
        };
        for Entry { hash, record } in entries {
            let record = record.as_ref()?;
            if record.seq != sound.last.seq + 1 || record.prev != sound.last.hash {
                return None;
            }
            match record.says.as_deref() {
                Some(Says::Broken(_)) => return None,
                Some(Says::Removed(link)) => sound.removed = Some(*link),
                Some(Says::Lost(lost)) => sound.lost += lost,
                None => {}
            }
            sound.last = Link {
                seq: record.seq,
                hash: *hash,
            };
        }
        Some(sound)
    }
}

impl Kept {
    pub(super) fn lines(&self) -> u64 {
        match &self.body {
            Body::Sound(sound) => sound.lines,
            Body::Lines(entries) => entries.len() as u64,
        }
    }

    /// Numbers of its first and last record.
    pub(super) fn ends(&self) -> (Option<u64>, Option<u64>) {
        match &self.body {
            Body::Sound(sound) => (Some(sound.first.seq), Some(sound.last.seq)),
            Body::Lines(entries) => {
                let mut records = entries
                    .iter()
                    .filter_map(|entry| entry.record.as_ref().map(|r| r.seq));
                let first = records.next();
                (first, records.next_back().or(first))
            }
        }
    }
}

/// Every line of `file`, and how many bytes stand behind the last newline.
pub(super) fn entries(file: File) -> io::Result<(Vec<Entry>, usize)> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut entries, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        match line.last() {
            None => return Ok((entries, 0)),
            Some(b'\n') => {}
            Some(_) if (line.len() as u64) < LONGEST_LINE => return Ok((entries, line.len())),
            // Longer than any record: its parts are no records either.
            Some(_) => {}
        }
        entries.push(Entry {
            hash: Hash::of(&line),
            record: record(&line),
        });
    }
}

fn record(line: &[u8]) -> Option<Record> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        seq: u64,
        kind: &'a str,
        prev: &'a str,
        #[serde(default)]
        removed: Option<RawRemoved>,
        #[serde(default)]
        why: Option<String>,
        #[serde(default)]
        lost: u64,
    }
    #[derive(Deserialize)]
    struct RawRemoved {
        through: u64,
        sha256: String,
    }
    let raw: Raw<'_> = serde_json::from_slice(line).ok()?;
    let says = match raw.kind {
        "rotate" => raw.removed.and_then(|removed| {
            let hash = Hash::parse(&removed.sha256)?;
            Some(Says::Removed(Link {
                seq: removed.through,
                hash,
            }))
        }),
        "broken" => Some(Says::Broken(raw.why.unwrap_or_default())),
        "gap" => Some(Says::Lost(raw.lost)),
        _ => None,
    };
    Some(Record {
        seq: raw.seq,
        prev: Hash::parse(raw.prev)?,
        says: says.map(Box::new),
    })
}

/// Far beyond every record.
const LONGEST_LINE: u64 = 4 << 20;
