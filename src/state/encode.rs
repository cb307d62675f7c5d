//! A state as text, record by record into any writer: the whole of it never lies in memory.
//!
//! One record a line, so that `grep` finds a source and the reader needs to understand no more than a line at
//! a time. The last line is the digest of all before it.

mod line;

use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::line::Line;
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
    line: Line,
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
            line: Line::default(),
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
        let (wall, now) = (self.wall, self.now);
        let line = self.line.begin(&memory.source);
        line.text(", first_seen = ").utc(wall, now, memory.first_seen);
        line.text(", last_seen = ").utc(wall, now, memory.last_seen);
        line.text(", age = ").age(now, memory.first_seen);
        line.text(", idle = ").age(now, memory.last_seen);
        if let Some(completed) = &memory.completed {
            line.list(", completed = ", completed, |line, port| line.number(*port));
        }
        let touches = &memory.touches;
        line.list(", ports = ", touches, |line, touch| line.asked(touch.what));
        line.list(", ages = ", touches, |line, touch| line.age(now, touch.at));
        if touches.iter().any(|touch| touch.stealth > 0) {
            line.list(", stealth = ", touches, |line, touch| line.number(touch.stealth));
        }
        self.counts.sources += 1;
        self.write_line()
    }

    /// A ladder position.
    pub fn standing(&mut self, standing: &Standing) -> io::Result<()> {
        self.enter(Section::Ladder)?;
        let (wall, now) = (self.wall, self.now);
        let line = self.line.begin(&standing.source);
        if let Some(last) = standing.last {
            line.text(", offences = ").number(standing.offences);
            line.text(", last_offence = ").utc(wall, now, last);
            line.text(", age = ").age(now, last);
        }
        if let Some(last) = standing.would_be_last {
            line.text(", would_be = ").number(standing.would_be);
            line.text(", last_would_be = ").utc(wall, now, last);
            line.text(", would_be_age = ").age(now, last);
        }
        self.counts.ladder += 1;
        self.write_line()
    }

    /// What is usual on each port: how long was looked on each of the last days, this one first, then what counted.
    pub fn usual(&mut self, baseline: &Baseline) -> io::Result<()> {
        if baseline.ports.is_empty() {
            return Ok(());
        }
        self.enter(Section::Usual)?;
        let line = self.line.clear();
        line.text("  { into_day = ").number(baseline.into_day);
        line.list(", observed = ", &baseline.observed, |line, looked| {
            line.number(*looked)
        });
        self.write_line()?;
        for port in &baseline.ports {
            let line = self.line.clear();
            line.text("  { port = ").number(port.port);
            line.list(", counted = ", &port.counted, |line, count| line.number(*count));
            self.write_line()?;
        }
        Ok(())
    }

    /// A live ban.
    pub fn ban(&mut self, ban: &Ban) -> io::Result<()> {
        self.enter(Section::Bans)?;
        let (wall, now) = (self.wall, self.now);
        let line = self.line.begin(&ban.source);
        line.text(", reason = \"").text(ban.reason.word()).text("\"");
        line.text(", step = ").number(ban.step);
        line.text(", offences = ").number(ban.offences);
        line.text(", since = ").utc(wall, now, ban.since);
        line.text(", age = ").age(now, ban.since);
        if let Some(until) = ban.until {
            let left = until.saturating_duration_since(now);
            line.text(", until = ").utc(wall, now, until);
            line.text(", remaining_seconds = ").seconds(left);
        }
        line.text(", enforced = ")
            .text(if ban.enforced { "true" } else { "false" });
        if let Some(note) = &ban.note {
            line.text(", note = ").shown(Text(note));
        }
        self.counts.bans += 1;
        self.write_line()
    }

    fn write_line(&mut self) -> io::Result<()> {
        self.out.write_all(self.line.text(" },\n").bytes())
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

/// RFC 3339 with milliseconds, as ages and remainders have them. Years that it cannot write do not come from a clock;
/// they become 1970.
struct Utc(OffsetDateTime);

impl Utc {
    fn exact(at: OffsetDateTime) -> Utc {
        Utc(at.replace_millisecond(at.millisecond()).unwrap_or(at))
    }
}

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339);
        f.write_str(text.as_deref().unwrap_or(EPOCH))
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

const EPOCH: &str = "1970-01-01T00:00:00Z";
const HEADING: &str = "\
# State of verdictd, written by it and read at its next start; nothing in it is configuration.
# The last line is a digest of all before it: a file that was edited is set aside as .bad. See verdictctl list.";
/// Written and digested in pieces of this size.
const BUFFER: usize = 1 << 16;
