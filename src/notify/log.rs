//! The log: one line an event, for a person, for journald or for a program.
//!
//! A line is written before the call that logs it returns, so that none is missing after a crash. Whoever reads
//! them may stop reading: then lines are lost and counted, and no thread of the engine waits for it.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::text::{plain, plain_json};

/// Target of the lines that others' programs read, `NOTICE [port_scanning] Ban 203.0.113.9`: the message is a
/// contract and stands alone in its line; fields go into JSON only.
pub const NOTICE: &str = "verdictd::notice";
/// Target of lines whose message says all that their fields hold; fields go into JSON only.
pub const SAID: &str = "verdictd::said";

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`Format::Journald`] where standard error is the journal, else [`Format::Human`].
    Auto,
    /// Time, level, words; coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
    /// Priority as sd-daemon(3) has it and no time, which the journal knows itself.
    Journald,
}

impl Format {
    /// Every word of the option, with its meaning.
    pub const ALL: [(&'static str, Format); 4] = [
        ("auto", Format::Auto),
        ("human", Format::Human),
        ("json", Format::Json),
        ("journald", Format::Journald),
    ];

    /// What `auto` comes to here.
    fn settled(self) -> Format {
        match self {
            Format::Auto if is_journal() => Format::Journald,
            Format::Auto => Format::Human,
            given => given,
        }
    }
}

/// Why nothing can be logged.
#[derive(Debug, Error)]
pub enum LogError {
    /// Not a level.
    #[error("log level \"{given}\" cannot be read; write error, warn, info, debug or trace")]
    Level {
        /// As given, escaped.
        given: String,
    },
    /// Somebody logs already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends every event of `level` (a word, or directives of `tracing_subscriber::EnvFilter`) and above to standard
/// error, from now to the end of the process.
///
/// # Errors
/// If `level` is neither.
pub fn start(format: Format, level: &str) -> Result<(), LogError> {
    let lines = Lines::new(Shape::here(format.settled()), io::stderr());
    tracing_subscriber::registry()
        .with(filter(level)?)
        .with(lines)
        .try_init()?;
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let bad = || LogError::Level { given: plain(level) };
    let level = level.trim();
    // A word that is no level would be taken for the name of a module, and silence everything else.
    let is_directive = level.contains('=') || level.contains(',');
    let is_level = level.parse::<Level>().is_ok() || level.eq_ignore_ascii_case("off");
    if !is_directive && !is_level {
        return Err(bad());
    }
    EnvFilter::try_new(format!("{level},{SILENT}")).map_err(|_| bad())
}

/// The sender of webhooks tells the address whole at trace level, and services put their keys there.
const SILENT: &str = "ureq=off,ureq_proto=off";

/// systemd says where it connected standard error to (systemd.exec(5), `$JOURNAL_STREAM`): device and inode, so that
/// a redirected stream is not taken for it.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let stat = rustix::fs::fstat(io::stderr()).ok();
    named
        .zip(stat)
        .is_some_and(|(named, stat)| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Turns events into lines, and writes them where a reader takes them.
struct Lines<W> {
    shape: Shape,
    out: Mutex<Out<W>>,
}

struct Out<W> {
    to: W,
    /// Nobody takes lines: not waited for again until somebody does.
    stuck: bool,
    lost: u64,
}

impl<W: Write + AsFd> Lines<W> {
    fn new(shape: Shape, to: W) -> Lines<W> {
        let out = Mutex::new(Out {
            to,
            stuck: false,
            lost: 0,
        });
        Lines { shape, out }
    }

    fn write(&self, record: &Record) {
        let mut line = self.shape.line(record);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.lost > 0 {
            let words = format!("{} log lines are lost: nobody took them in time", out.lost);
            line.splice(..0, self.shape.line(&Record::own(Level::WARN, words)));
        }
        match out.put(&line) {
            true => out.lost = 0,
            false => out.lost += 1,
        }
    }
}

impl<W: Write + AsFd> Out<W> {
    fn put(&mut self, line: &[u8]) -> bool {
        let patience = if self.stuck { NONE } else { ONCE };
        let mut ready = [PollFd::new(&self.to, PollFlags::OUT)];
        // A pipe that is ready takes PIPE_BUF (4096) bytes at once; few lines have 200.
        self.stuck = !matches!(poll(&mut ready, Some(&patience)), Ok(1..));
        // There is nowhere to complain when the reader is gone.
        !self.stuck && self.to.write_all(line).is_ok()
    }
}

impl<S: Subscriber, W: Write + AsFd + Send + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::own(*event.metadata().level(), String::new());
        record.target = event.metadata().target();
        event.record(&mut record);
        self.write(&record);
    }
}

/// One event, with what was attached to it.
struct Record {
    at: SystemTime,
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    fn own(level: Level, message: String) -> Record {
        Record {
            at: SystemTime::now(),
            level,
            target: "",
            message,
            fields: Vec::new(),
        }
    }

    fn is_notice(&self) -> bool {
        self.target == NOTICE
    }

    fn field(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), value.into()));
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.field(field, text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.field(field, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value);
    }
}

/// A settled format: what a record becomes.
#[derive(Clone, Copy)]
struct Shape {
    format: Format,
    colour: bool,
}

impl Shape {
    fn here(format: Format) -> Shape {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|word| !word.is_empty());
        Shape {
            format,
            colour: format == Format::Human && io::stderr().is_terminal() && !no_colour,
        }
    }

    fn line(self, record: &Record) -> Vec<u8> {
        let mut line = match self.format {
            Format::Json => json(record),
            Format::Journald => format!("<{}>{}", priority(record), words(record)),
            Format::Human | Format::Auto => self.human(record),
        };
        line.push('\n');
        line.into_bytes()
    }

    fn human(self, record: &Record) -> String {
        let (at, words) = (stamp(record.at), words(record));
        let level = match record.is_notice() {
            true => String::new(), // the line says so itself
            false => format!("{:>5} ", record.level),
        };
        if !self.colour {
            return format!("{at} {level}{words}");
        }
        format!("\x1b[2m{at}\x1b[0m \x1b[{}m{level}\x1b[0m{words}", colour(record))
    }
}

/// The message, and what is attached if the message does not say it.
fn words(record: &Record) -> String {
    let mut text = plain(&record.message);
    if record.is_notice() || record.target == SAID {
        return text;
    }
    for (name, value) in &record.fields {
        let shown = match value {
            Value::String(word) if !word.is_empty() && !word.contains([' ', '"', '=']) => plain(word),
            other => plain_json(&other.to_string()),
        };
        let _ = write!(text, " {name}={shown}");
    }
    text
}

fn json(record: &Record) -> String {
    let level = match record.is_notice() {
        true => "notice".to_owned(),
        false => record.level.to_string().to_ascii_lowercase(),
    };
    let mut bytes = Vec::new();
    let written = || -> serde_json::Result<()> {
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &stamp(record.at))?;
        map.serialize_entry("level", &level)?;
        map.serialize_entry("message", &record.message)?;
        for (name, value) in &record.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    };
    match { written }() {
        Ok(()) => plain_json(&String::from_utf8_lossy(&bytes)),
        Err(_) => String::new(), // strings and numbers into memory: nothing can fail
    }
}

/// syslog(3) as sd-daemon(3) writes it.
fn priority(record: &Record) -> u8 {
    match record.level {
        _ if record.is_notice() => 5,
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// SGR codes of ECMA-48.
fn colour(record: &Record) -> u8 {
    match record.level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 2,
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn stamp(at: SystemTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from(at)
        .format(form)
        .unwrap_or_else(|_| "-".to_owned())
}

/// How long a reader that keeps up may take once: a burst of lines is not lost for it.
const ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const NONE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::{Duration, Instant};

    fn shape(format: Format) -> Shape {
        Shape {
            format,
            colour: false,
        }
    }

    fn ban() -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_366_400_123),
            level: Level::INFO,
            target: NOTICE,
            message: "NOTICE [port_scanning] Ban 203.0.113.9".into(),
            fields: vec![("source", "203.0.113.9".into()), ("step", 1.into())],
        }
    }

    fn line(format: Format, record: &Record) -> String {
        String::from_utf8(shape(format).line(record)).unwrap()
    }

    #[test]
    fn the_stable_line_ends_with_its_address() {
        assert_eq!(
            line(Format::Human, &ban()),
            "2026-03-01T12:00:00.123Z NOTICE [port_scanning] Ban 203.0.113.9\n"
        );
        assert_eq!(
            line(Format::Journald, &ban()),
            "<5>NOTICE [port_scanning] Ban 203.0.113.9\n"
        );
        assert_eq!(
            line(Format::Json, &ban()),
            "{\"time\":\"2026-03-01T12:00:00.123Z\",\"level\":\"notice\",\"message\":\
             \"NOTICE [port_scanning] Ban 203.0.113.9\",\"source\":\"203.0.113.9\",\"step\":1}\n"
        );
    }

    #[test]
    fn other_lines_show_what_is_attached() {
        let record = Record {
            level: Level::WARN,
            target: "verdictd::engine",
            message: "it broke".into(),
            fields: vec![("error", "no such file".into()), ("count", 3.into())],
            ..ban()
        };
        assert_eq!(
            line(Format::Human, &record),
            "2026-03-01T12:00:00.123Z  WARN it broke error=\"no such file\" count=3\n"
        );
        assert_eq!(
            line(Format::Journald, &record),
            "<4>it broke error=\"no such file\" count=3\n"
        );
        let said = Record {
            target: SAID,
            ..record
        };
        assert_eq!(line(Format::Journald, &said), "<4>it broke\n");
    }

    /// FAULTS row 58: whatever a stranger or an operator got into a text, it is one line and nothing acts.
    #[test]
    fn fault_58_nothing_is_printed_raw() {
        let evil = "x\n<0>NOTICE [manual] Ban 198.51.100.1\r\x1b[2J\u{202e}\u{0}";
        let record = Record {
            target: "",
            message: evil.into(),
            fields: vec![("note", evil.into())],
            ..ban()
        };
        for format in [Format::Human, Format::Journald, Format::Json] {
            let line = line(format, &record);
            let body = line.strip_suffix('\n').unwrap();
            assert!(
                !body.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{body:?}"
            );
        }
        let read: Value = serde_json::from_str(&line(Format::Json, &record)).unwrap();
        assert_eq!((&read["message"], &read["note"]), (&evil.into(), &evil.into()));
    }

    #[test]
    fn a_level_is_a_word_or_directives() {
        for good in [
            "info",
            "WARN",
            "off",
            "verdictd=debug",
            "info,verdictd::engine=trace",
        ] {
            let filter = filter(good).unwrap().to_string();
            assert!(filter.contains("ureq=off"), "{good}: {filter}");
        }
        for bad in ["", "loud", "verdictd=loud", "\x1b[2J"] {
            let said = filter(bad).unwrap_err().to_string();
            assert!(
                said.contains("write error, warn, info") && !said.contains('\x1b'),
                "{said}"
            );
        }
    }

    /// A reader that stopped reading costs lines, not time.
    #[test]
    fn nobody_waits_for_whoever_reads() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::registry().with(Lines::new(shape(Format::Journald), pipe));
        let mut text = String::new();
        tracing::subscriber::with_default(subscriber, || {
            let start = Instant::now();
            (0..20_000).for_each(|number| tracing::info!("line {number}"));
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            let mut taken = vec![0; 1 << 20];
            let length = reader.read(&mut taken).unwrap();
            text += std::str::from_utf8(&taken[..length]).unwrap();
            tracing::info!("the last");
        });
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], *lines.last().unwrap()), ("<6>line 0", "<6>the last"));
        let lost = lines[lines.len() - 2];
        let told = lines.len() - 2;
        assert_eq!(
            lost,
            format!(
                "<4>{} log lines are lost: nobody took them in time",
                20_000 - told
            )
        );
    }
}
