//! The records of one file, front to back, whatever was done to it: what is no record is passed over until one begins
//! again. What is held in memory is one buffer.

use std::io::{self, Read};

use super::MOST_JOURNAL_BYTES;
use super::record::{self, Beginning, Entry, Found, HEADER, MOST_RECORD, Salt, candidate};

/// Reads one file.
pub(in super::super) struct Reader<R> {
    file: io::Take<R>,
    salt: Salt,
    /// What was read and not yet looked at, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    whole: bool,
    /// Bytes since the last record that are none.
    nothing: u64,
    attempts: u32,
    told: Told,
}

/// What a file turned out to be, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Told {
    /// Whether it begins as it should.
    pub(in super::super) is_headed: bool,
    /// Records, those that make no sense and the clocks included.
    pub(in super::super) records: u64,
    /// Bytes that were looked at.
    pub(in super::super) bytes: u64,
    /// Places where something is no record and records follow, and how long they are in all.
    pub(in super::super) holes: u64,
    pub(in super::super) lost: u64,
    /// What is no record at the end: a write that was cut short.
    pub(in super::super) torn: u64,
    /// More was not read: it is too long, or so spoiled that it would take too long.
    pub(in super::super) gave_up: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of the file of that generation.
    pub(in super::super) fn of(file: R, generation: u64) -> io::Result<(Reader<R>, Beginning)> {
        let mut reader = Reader {
            file: file.take(MOST_JOURNAL_BYTES + 1),
            salt: Salt::of(generation),
            buffer: Vec::new(),
            at: 0,
            whole: false,
            nothing: 0,
            attempts: 0,
            told: Told::default(),
        };
        reader.fill()?;
        let beginning = record::beginning(&reader.buffer, generation);
        reader.told.is_headed = matches!(beginning, Beginning::Moment(_));
        if reader.told.is_headed {
            reader.advance(HEADER);
        }
        Ok((reader, beginning))
    }

    /// The next record; `Some(None)` is one that makes no sense.
    pub(in super::super) fn next(&mut self) -> io::Result<Option<Option<Entry>>> {
        loop {
            self.fill()?;
            let rest = &self.buffer[self.at..];
            if rest.is_empty() || self.told.gave_up {
                return Ok(None);
            }
            if let Found::Record(entry, length) = record::decode(rest, &self.salt) {
                self.close_hole();
                self.told.records += 1;
                self.advance(length);
                return Ok(Some(entry));
            }
            self.attempts += u32::from(candidate(rest).is_some());
            self.told.gave_up = self.attempts > MOST_ATTEMPTS;
            let step = nothing_for(rest);
            self.nothing += step as u64;
            self.advance(step);
        }
    }

    /// What the file was; after the last record.
    pub(in super::super) fn told(&self) -> Told {
        Told {
            torn: self.nothing,
            gave_up: self.told.gave_up || self.told.bytes > MOST_JOURNAL_BYTES,
            ..self.told
        }
    }

    fn close_hole(&mut self) {
        // A spoiled beginning is told by itself.
        let hole = if self.told.records == 0 && !self.told.is_headed {
            HEADER as u64
        } else {
            0
        };
        self.told.holes += u64::from(self.nothing > hole);
        self.told.lost += std::mem::take(&mut self.nothing);
    }

    fn advance(&mut self, by: usize) {
        self.at += by;
        self.told.bytes += by as u64;
    }

    /// Has a whole record in the buffer, if there are so many bytes.
    fn fill(&mut self) -> io::Result<()> {
        if self.whole || self.buffer.len() - self.at >= MOST_RECORD {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let had = self.buffer.len();
        let read = self.file.by_ref().take(PIECE).read_to_end(&mut self.buffer)?;
        self.whole = self.buffer.len() == had || (read as u64) < PIECE;
        Ok(())
    }
}

/// How many bytes no record begins in, the first one included.
fn nothing_for(rest: &[u8]) -> usize {
    match rest.starts_with(&ZEROS) {
        // Two of them may be the length of one without a body.
        true => ZEROS.len() - 2,
        false => 1,
    }
}

/// Read in pieces of this size.
const PIECE: u64 = 1 << 16;
/// A file that was made longer and never written is full of them.
const ZEROS: [u8; 512] = [0; 512];
/// So many places of a file may look like a record and be none: two seconds at the most.
const MOST_ATTEMPTS: u32 = 1 << 18;
