//! Any bytes to a state, or to a refusal in words. First the digest of the whole, then a line at a time: what
//! is held in memory is bounded by counts, whatever the file says.
//!
//! A wrong digest, version or head refuses the file. A single record that makes no sense is left out and
//! counted; fields and arrays that nobody knows are passed over.

mod written;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::value::Datetime;

use super::journal::MOST_GENERATION;
use super::{
    Boot, FOOTER_BYTES, FOOTER_START, MOST_BANS, MOST_BYTES, MOST_STANDINGS, Moment, SavedBan, SavedSource,
    SavedStanding, State, VERSION,
};
use crate::core::attack::{Baseline, DAYS, PortBaseline};
use crate::core::judge::MOST_COMPLETED;
use crate::core::prefix::Prefix;
use crate::core::verdict::{Asked, BanReason, Proto};

/// Why bytes are not a state.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// The file itself cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// More than [`MOST_BYTES`].
    #[error("{0} bytes are too many, the largest state has {MOST_BYTES}")]
    TooLarge(u64),
    /// There is no digest at the end: cut off, or not written by verdictd.
    #[error("it does not end in a digest: cut off, or not a state of verdictd")]
    NoDigest,
    /// It was changed since it was written.
    #[error("its digest does not fit: damaged or edited")]
    WrongDigest,
    /// Another version of the format.
    #[error("it has format version {0}, this verdictd reads {VERSION}")]
    Version(u32),
    /// The keys before the first array.
    #[error("its first lines make no sense: {0}")]
    Head(String),
}

/// Reads a state; at most `most_sources` windows of it.
///
/// # Errors
/// If it is not a state as a whole; single records that are not only add to [`State::skipped`].
pub fn decode(mut file: impl Read + Seek, most_sources: usize) -> Result<State, Unreadable> {
    let body = authentic(&mut file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut lines = Lines::of(file, body);
    let (mut state, mut array) = head(&mut lines)?;
    let mut usual: Vec<UsualLine> = Vec::new();
    while let Some(piece) = lines.next()? {
        let skipped = match piece {
            Piece::Array(next) => {
                array = next;
                continue;
            }
            Piece::Line(line) => match array {
                Array::Sources => take(line, &mut state.sources, most_sources),
                Array::Ladder => take(line, &mut state.ladder, MOST_STANDINGS),
                Array::Usual => take(line, &mut usual, MOST_PORTS),
                Array::Bans => take(line, &mut state.bans, MOST_BANS),
                Array::Other => continue,
            },
        };
        state.skipped += usize::from(skipped.is_none());
    }
    state.usual = baseline(usual);
    Ok(state)
}

/// The length of what comes before the digest, if the digest fits.
fn authentic(file: &mut (impl Read + Seek)) -> Result<u64, Unreadable> {
    let size = file.seek(SeekFrom::End(0))?;
    if size > MOST_BYTES {
        return Err(Unreadable::TooLarge(size));
    }
    let body = size
        .checked_sub(FOOTER_BYTES as u64)
        .ok_or(Unreadable::NoDigest)?;
    file.seek(SeekFrom::Start(body))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact(&mut footer)?;
    let written = footer
        .strip_prefix(FOOTER_START.as_bytes())
        .ok_or(Unreadable::NoDigest)?;
    let written = written.strip_suffix(b"\n").ok_or(Unreadable::NoDigest)?;

    file.seek(SeekFrom::Start(0))?;
    let (mut digest, mut left, mut buffer) = (Sha256::new(), file.take(body), vec![0; 1 << 16]);
    loop {
        match left.read(&mut buffer)? {
            0 => break,
            count => digest.update(&buffer[..count]),
        }
    }
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    let found = digest.finalize();
    match found.iter().flat_map(digits).eq(written.iter().copied()) {
        true => Ok(body),
        false => Err(Unreadable::WrongDigest),
    }
}

/// Keys before the first array. What else there may be is for others to know.
#[derive(Deserialize)]
struct Head {
    version: u32,
    saved_at: Datetime,
    boot_id: Option<String>,
    boot_seconds: Option<f64>,
    seed: Option<u32>,
    generation: Option<u64>,
}

/// What the file begins with, and the array that follows it.
fn head<R: Read>(lines: &mut Lines<R>) -> Result<(State, Array), Unreadable> {
    let (mut text, mut array) = (String::new(), Array::Other);
    while let Some(piece) = lines.next()? {
        match piece {
            Piece::Line(line) => text.extend([line.unwrap_or_default(), "\n"]),
            Piece::Array(next) => {
                array = next;
                break;
            }
        }
        if text.len() > MOST_HEAD {
            return Err(Unreadable::Head(format!(
                "more than {MOST_HEAD} bytes before the first array"
            )));
        }
    }
    let head: Head = toml::from_str(&text).map_err(|error| Unreadable::Head(error.message().to_owned()))?;
    if head.version != VERSION {
        return Err(Unreadable::Version(head.version));
    }
    let wall = OffsetDateTime::parse(&head.saved_at.to_string(), &Rfc3339)
        .map_err(|error| Unreadable::Head(format!("saved_at = {}: {error}", head.saved_at)))?;
    let boot = match (head.boot_id, head.boot_seconds.and_then(seconds)) {
        (Some(id), Some(up)) if id.len() <= MOST_BOOT_ID => Some(Boot { id: id.into(), up }),
        _ => None,
    };
    let state = State {
        saved: Moment { wall, boot },
        generation: head
            .generation
            .filter(|generation| *generation <= MOST_GENERATION),
        seed: head.seed,
        sources: Vec::new(),
        ladder: Vec::new(),
        usual: Baseline::default(),
        bans: Vec::new(),
        skipped: 0,
    };
    Ok((state, array))
}

/// Adds the record of a line; `None` if it is none, or there is no room.
fn take<T: Record>(line: Option<&str>, into: &mut Vec<T>, most: usize) -> Option<()> {
    let record = record(line?.strip_suffix(',')?)?;
    (into.len() < most).then(|| into.push(record))
}

fn record<T: Record>(line: &str) -> Option<T> {
    T::written(line).or_else(|| parsed(line))
}

fn parsed<T: Record>(line: &str) -> Option<T> {
    let value = toml::de::ValueDeserializer::parse(line).ok()?;
    T::of(T::Line::deserialize(value).ok()?)
}

/// A line of an array, checked field by field.
trait Record: Sized {
    type Line: DeserializeOwned;
    fn of(line: Self::Line) -> Option<Self>;

    /// Without a parser, where the line is exactly what the encoder writes; the same as [`Record::of`] then.
    fn written(_line: &str) -> Option<Self> {
        None
    }
}

/// Versions before 0.2 wrote neither `age`, `idle`, `completed` nor `stealth`: their sources are as old as what they
/// asked for.
#[derive(Deserialize)]
struct SourceLine {
    source: String,
    age: Option<f64>,
    idle: Option<f64>,
    completed: Option<Vec<u16>>,
    ports: Vec<String>,
    ages: Vec<f64>,
    stealth: Option<Vec<u16>>,
}

impl Record for SavedSource {
    type Line = SourceLine;

    fn written(line: &str) -> Option<SavedSource> {
        written::source(line)
    }

    fn of(line: SourceLine) -> Option<SavedSource> {
        let source = prefix(&line.source)?;
        let count = line.ports.len();
        let stealth = line.stealth.unwrap_or_else(|| vec![0; count]);
        if line.ages.len() != count || stealth.len() != count {
            return None;
        }
        let touches = line.ports.iter().zip(stealth).zip(line.ages);
        let touches = touches.map(|((text, stealth), age)| Some((asked(text)?, stealth, seconds(age)?)));
        let touches = in_window_order(touches.collect::<Option<_>>()?);
        let known = |told: Option<f64>, touch: Option<&(Asked, u16, Duration)>| match told {
            Some(told) => seconds(told),
            None => touch.map(|touch| touch.2),
        };
        Some(SavedSource {
            source,
            age: known(line.age, touches.first())?,
            idle: known(line.idle, touches.last())?,
            completed: line.completed.filter(|ports| ports.len() <= MOST_COMPLETED),
            touches,
        })
    }
}

#[derive(Deserialize)]
struct StandingLine {
    source: String,
    offences: Option<u32>,
    age: Option<f64>,
    would_be: Option<u32>,
    would_be_age: Option<f64>,
}

impl Record for SavedStanding {
    type Line = StandingLine;

    fn written(line: &str) -> Option<SavedStanding> {
        written::standing(line)
    }

    fn of(line: StandingLine) -> Option<SavedStanding> {
        let standing = SavedStanding {
            source: prefix(&line.source)?,
            real: line.offences.zip(line.age.and_then(seconds)),
            would_be: line.would_be.zip(line.would_be_age.and_then(seconds)),
        };
        (standing.real.is_some() || standing.would_be.is_some()).then_some(standing)
    }
}

/// Either how long was looked, or what counted on one port.
#[derive(Deserialize)]
#[serde(untagged)]
enum UsualLine {
    Looked { into_day: u32, observed: [u32; DAYS] },
    Port { port: u16, counted: [u32; DAYS] },
}

impl Record for UsualLine {
    type Line = UsualLine;

    fn of(line: UsualLine) -> Option<UsualLine> {
        Some(line)
    }
}

/// One entry a port, ascending; the first that says how long was looked counts.
fn baseline(lines: Vec<UsualLine>) -> Baseline {
    let mut baseline = Baseline::default();
    let mut ports = BTreeMap::new();
    for line in lines.into_iter().rev() {
        match line {
            UsualLine::Looked { into_day, observed } => {
                (baseline.into_day, baseline.observed) = (into_day, observed);
            }
            UsualLine::Port { port, counted } => drop(ports.insert(port, counted)),
        }
    }
    let ports = ports.into_iter();
    baseline.ports = ports
        .map(|(port, counted)| PortBaseline { port, counted })
        .collect();
    baseline
}

#[derive(Deserialize)]
struct BanLine {
    source: String,
    reason: String,
    step: u32,
    offences: u32,
    age: f64,
    until: Option<Datetime>,
    remaining_seconds: Option<f64>,
    enforced: bool,
    note: Option<String>,
}

impl Record for SavedBan {
    type Line = BanLine;

    fn written(line: &str) -> Option<SavedBan> {
        written::ban(line)
    }

    fn of(line: BanLine) -> Option<SavedBan> {
        let remaining = match (line.until, line.remaining_seconds) {
            (None, None) => None,
            (Some(_), Some(left)) => Some(seconds(left)?.min(LONGEST_REMAINDER)),
            _ => return None, // half an end is none that anybody wrote
        };
        Some(SavedBan {
            source: prefix(&line.source)?,
            reason: ban_reason(&line.reason)?,
            step: line.step,
            offences: line.offences,
            age: seconds(line.age)?,
            remaining,
            enforced: line.enforced,
            note: line
                .note
                .filter(|note| is_plain(note))
                .map(String::into_boxed_str),
        })
    }
}

/// Oldest first.
fn in_window_order(mut touches: Vec<(Asked, u16, Duration)>) -> Vec<(Asked, u16, Duration)> {
    touches.sort_by_key(|touch| std::cmp::Reverse(touch.2));
    touches
}

fn ban_reason(word: &str) -> Option<BanReason> {
    BanReason::ALL.into_iter().find(|reason| reason.word() == word)
}

/// In the form in which it is written: one prefix has one name.
fn prefix(text: &str) -> Option<Prefix> {
    match Prefix::parse(text) {
        Ok((prefix, false)) => Some(prefix),
        _ => None,
    }
}

fn asked(text: &str) -> Option<Asked> {
    let (kind, number) = text.split_once('/')?;
    match kind {
        "ip" => Some(Asked::Protocol(number.parse().ok()?)),
        "tcp" => Some(Asked::Port(Proto::Tcp, number.parse().ok()?)),
        "udp" => Some(Asked::Port(Proto::Udp, number.parse().ok()?)),
        _ => None,
    }
}

/// To the millisecond that it was written with. Neither negative, nor not a number, nor so long that adding it
/// to a clock could overflow.
fn seconds(value: f64) -> Option<Duration> {
    let time = Duration::try_from_secs_f64(value).ok()?;
    let nanoseconds = time.as_nanos() + 500_000;
    let milliseconds = u64::try_from(nanoseconds / 1_000_000).ok()?;
    (time <= LONGEST_AGE).then(|| Duration::from_millis(milliseconds))
}

/// As the control socket takes a reason for a ban.
pub(super) fn is_plain(note: &str) -> bool {
    note.chars().count() <= MOST_NOTE_CHARS && !note.chars().any(char::is_control)
}

/// What a line of the body is.
enum Piece<'a> {
    /// An array begins, or ended.
    Array(Array),
    /// A key or a record; `None` if it is too long or not text.
    Line(Option<&'a str>),
}

/// In which array a record is.
#[derive(Clone, Copy)]
enum Array {
    Sources,
    Ladder,
    Usual,
    Bans,
    Other,
}

struct Lines<R> {
    reader: io::Take<BufReader<R>>,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    fn of(file: R, body: u64) -> Lines<R> {
        Lines {
            reader: BufReader::with_capacity(1 << 16, file).take(body),
            line: Vec::new(),
        }
    }

    /// The next line that is not empty and no comment.
    fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        loop {
            self.line.clear();
            let mut bounded = self.reader.by_ref().take(MOST_LINE as u64);
            if bounded.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            if !self.line.ends_with(b"\n") {
                self.reader.skip_until(b'\n')?;
                return Ok(Some(Piece::Line(None)));
            }
            if !matches!(self.line.trim_ascii().first(), None | Some(b'#')) {
                break;
            }
        }
        Ok(Some(match self.line.trim_ascii() {
            b"sources = [" => Piece::Array(Array::Sources),
            b"ladder = [" => Piece::Array(Array::Ladder),
            b"usual = [" => Piece::Array(Array::Usual),
            b"bans = [" => Piece::Array(Array::Bans),
            b"]" => Piece::Array(Array::Other),
            other if other.ends_with(b" = [") => Piece::Array(Array::Other),
            line => Piece::Line(std::str::from_utf8(line).ok()),
        }))
    }
}

/// A source that touched every port of both protocols takes 2.7 MB.
const MOST_LINE: usize = 4 << 20;
/// As many ports as there are, and the line about time.
const MOST_PORTS: usize = 65_537;
const MOST_HEAD: usize = 4096;
pub(super) const MOST_BOOT_ID: usize = 64;
pub(super) const MOST_NOTE_CHARS: usize = 200;
/// The longest step of a ladder is a year, lengthened by 3 % at most; nothing longer was ever granted.
pub(super) const LONGEST_REMAINDER: Duration = Duration::from_secs(376 * 86_400);
/// A hundred years.
pub(super) const LONGEST_AGE: Duration = Duration::from_secs(100 * 365 * 86_400);
