//! A state as text, record by record into any writer: the whole of it never lies in memory.
//!
//! One record a line, so that `grep` finds a source and the reader needs to understand no more than a line at
//! a time. The last line is the digest of all before it.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{FOOTER_START, MOST_SOURCE_BYTES, Moment, VERSION};
use crate::core::attack::Baseline;
use crate::core::judge::Memory;
use crate::core::ledger::Standing;
use crate::core::verdict::Ban;

/// How many records were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Half-done scans.
    pub sources: u64,
    /// Ladder positions.
    pub ladder: u64,
    /// Bans.
    pub bans: u64,
}

/// Writes one state. Sources come first, then ladder positions, what is usual, and bans: who is banned while it is written
/// is then among the bans.
pub struct Encoder<W: Write> {
    out: BufWriter<Digesting<W>>,
    wall: OffsetDateTime,
    now: Instant,
    section: Section,
    counts: Counts,
}

/// The arrays of the file, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Head,
    Sources,
    Ladder,
    Usual,
    Bans,
}

impl<W: Write> Encoder<W> {
    /// Begins a state that is saved at `moment`, which the process calls `now`.
    pub fn new(out: W, moment: &Moment, now: Instant, seed: u32) -> io::Result<Encoder<W>> {
        let mut out = BufWriter::with_capacity(BUFFER, Digesting::new(out));
        writeln!(out, "{HEADING}\nversion = {VERSION}")?;
        writeln!(out, "saved_at = {}", Utc::exact(moment.wall))?;
        if let Some(boot) = &moment.boot {
            writeln!(out, "boot_id = {}", Text(&boot.id))?;
            writeln!(out, "boot_seconds = {}", Seconds(boot.up))?;
        }
        writeln!(out, "seed = {seed}")?;
        Ok(Encoder {
            out,
            wall: moment.wall,
            now,
            section: Section::Head,
            counts: Counts::default(),
        })
    }

    /// Which generation it is; before any record.
    pub fn generation(&mut self, generation: u64) -> io::Result<()> {
        match self.section {
            Section::Head => writeln!(self.out, "generation = {generation}"),
            _ => Err(io::Error::other(
                "the generation of a state comes before its records",
            )),
        }
    }

    /// A source. Beyond [`MOST_SOURCE_BYTES`] none is written.
    pub fn source(&mut self, memory: &Memory) -> io::Result<()> {
        if self.out.get_ref().bytes > MOST_SOURCE_BYTES {
            return Ok(());
        }
        self.enter(Section::Sources)?;
        let Memory {
            first_seen,
            last_seen,
            ..
        } = *memory;
        let (first, last) = (self.utc(first_seen), self.utc(last_seen));
        let (age, idle) = (self.age(first_seen), self.age(last_seen));
        write!(
            self.out,
            "  {{ source = \"{}\", first_seen = {first}, last_seen = {last}, age = {age}, idle = {idle}",
            memory.source
        )?;
        if let Some(completed) = &memory.completed {
            self.list(", completed", completed.iter())?;
        }
        let touches = memory.touches.iter();
        self.list(", ports", touches.clone().map(|touch| Quoted(touch.what)))?;
        let ages: Vec<Seconds> = touches.clone().map(|touch| self.age(touch.at)).collect();
        self.list(", ages", ages.iter())?;
        if touches.clone().any(|touch| touch.stealth > 0) {
            self.list(", stealth", touches.map(|touch| touch.stealth))?;
        }
        self.counts.sources += 1;
        writeln!(self.out, " }},")
    }

    fn list(&mut self, name: &str, values: impl Iterator<Item = impl Display>) -> io::Result<()> {
        write!(self.out, "{name} = [")?;
        for (nth, value) in values.enumerate() {
            write!(self.out, "{}{value}", comma(nth))?;
        }
        write!(self.out, "]")
    }

    /// A ladder position.
    pub fn standing(&mut self, standing: &Standing) -> io::Result<()> {
        self.enter(Section::Ladder)?;
        write!(self.out, "  {{ source = \"{}\"", standing.source)?;
        if let Some(last) = standing.last {
            let (offences, at, age) = (standing.offences, self.utc(last), self.age(last));
            write!(
                self.out,
                ", offences = {offences}, last_offence = {at}, age = {age}"
            )?;
        }
        if let Some(last) = standing.would_be_last {
            let (offences, at, age) = (standing.would_be, self.utc(last), self.age(last));
            write!(
                self.out,
                ", would_be = {offences}, last_would_be = {at}, would_be_age = {age}"
            )?;
        }
        self.counts.ladder += 1;
        writeln!(self.out, " }},")
    }

    /// What is usual on each port: how long was looked on each of the last days, this one first, then what counted.
    pub fn usual(&mut self, baseline: &Baseline) -> io::Result<()> {
        if baseline.ports.is_empty() {
            return Ok(());
        }
        self.enter(Section::Usual)?;
        write!(self.out, "  {{ into_day = {}", baseline.into_day)?;
        self.list(", observed", baseline.observed.iter())?;
        writeln!(self.out, " }},")?;
        for port in &baseline.ports {
            write!(self.out, "  {{ port = {}", port.port)?;
            self.list(", counted", port.counted.iter())?;
            writeln!(self.out, " }},")?;
        }
        Ok(())
    }

    /// A live ban.
    pub fn ban(&mut self, ban: &Ban) -> io::Result<()> {
        self.enter(Section::Bans)?;
        let (since, age) = (self.utc(ban.since), self.age(ban.since));
        write!(
            self.out,
            "  {{ source = \"{}\", reason = \"{}\"",
            ban.source, ban.reason
        )?;
        write!(self.out, ", step = {}, offences = {}", ban.step, ban.offences)?;
        write!(self.out, ", since = {since}, age = {age}")?;
        if let Some(until) = ban.until {
            let left = Seconds(until.saturating_duration_since(self.now));
            write!(
                self.out,
                ", until = {}, remaining_seconds = {left}",
                self.utc(until)
            )?;
        }
        write!(self.out, ", enforced = {}", ban.enforced)?;
        if let Some(note) = &ban.note {
            write!(self.out, ", note = {}", Text(note))?;
        }
        self.counts.bans += 1;
        writeln!(self.out, " }},")
    }

    /// Ends the file; gives the writer back, what was counted, and the length.
    pub fn finish(mut self) -> io::Result<(W, Counts, u64)> {
        self.enter(Section::Bans)?;
        writeln!(self.out, "]")?;
        let mut out = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let digest = out.digest.finalize();
        let mut footer = FOOTER_START.to_owned();
        digest.iter().for_each(|byte| footer += &format!("{byte:02x}"));
        footer.push('\n');
        out.inner.write_all(footer.as_bytes())?;
        Ok((out.inner, self.counts, out.bytes + footer.len() as u64))
    }

    /// Closes every array before `wanted` and opens it. Records that come out of order are refused: the file
    /// would hold a key twice.
    fn enter(&mut self, wanted: Section) -> io::Result<()> {
        if wanted < self.section {
            return Err(io::Error::other(
                "the records of a state come in the order of their arrays",
            ));
        }
        while self.section < wanted {
            if self.section > Section::Head {
                writeln!(self.out, "]")?;
            }
            self.section = match self.section {
                Section::Head => Section::Sources,
                Section::Sources => Section::Ladder,
                Section::Ladder => Section::Usual,
                Section::Usual | Section::Bans => Section::Bans,
            };
            writeln!(self.out, "\n{} = [", self.section.name())?;
        }
        Ok(())
    }

    fn utc(&self, at: Instant) -> Utc {
        let at = match at.checked_duration_since(self.now) {
            Some(ahead) => self
                .wall
                .checked_add(ahead.try_into().unwrap_or(time::Duration::MAX)),
            None => self.wall.checked_sub(
                self.now
                    .saturating_duration_since(at)
                    .try_into()
                    .unwrap_or(time::Duration::MAX),
            ),
        };
        Utc::whole(at.unwrap_or(self.wall))
    }

    /// What was touched after the state was begun is as old as the state.
    fn age(&self, at: Instant) -> Seconds {
        Seconds(self.now.saturating_duration_since(at))
    }
}

/// In quotes; what is in it needs no escape.
struct Quoted<T>(T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Section::Head => "",
            Section::Sources => "sources",
            Section::Ladder => "ladder",
            Section::Usual => "usual",
            Section::Bans => "bans",
        }
    }
}

fn comma(nth: usize) -> &'static str {
    if nth == 0 { "" } else { ", " }
}

/// RFC 3339. Years that it cannot write do not come from a clock; they become 1970.
struct Utc(OffsetDateTime);

impl Utc {
    /// Whole seconds, for people.
    fn whole(at: OffsetDateTime) -> Utc {
        Utc(at.replace_nanosecond(0).unwrap_or(at))
    }

    /// With milliseconds, as ages and remainders have them.
    fn exact(at: OffsetDateTime) -> Utc {
        Utc(at.replace_millisecond(at.millisecond()).unwrap_or(at))
    }
}

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339);
        f.write_str(text.as_deref().unwrap_or("1970-01-01T00:00:00Z"))
    }
}

/// Seconds with milliseconds, as TOML writes a float.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// A TOML string that holds to its line.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Digests and counts what goes through.
struct Digesting<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W> Digesting<W> {
    fn new(inner: W) -> Digesting<W> {
        Digesting {
            inner,
            digest: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

const HEADING: &str = "\
# State of verdictd, written by it and read at its next start; nothing in it is configuration.
# The last line is a digest of all before it: a file that was edited is set aside as .bad. See verdictctl list.";
/// Written and digested in pieces of this size.
const BUFFER: usize = 1 << 16;
