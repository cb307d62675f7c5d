//! The Python system's `firewall_state.toml` to what this program keeps: bans, ladder positions, half-done scans, and
//! a report that says line by line what became of it.
//!
//! The file is hostile until proven otherwise: [`import`] is total over any bytes, reads [`MOST_BYTES`] of them at most,
//! and leaves out by the entry what makes no sense. Where it can be read in two ways, the one that bans shorter is taken:
//!
//! - Times are local and carry no zone. An hour that came twice (clocks went back) is the earlier of the two, an hour
//!   that never came (clocks went forward) ends before the gap.
//! - An address with many unblock times has one ban, until the latest of them; what is past is dropped.
//! - A ban ends when the file says, and never lasts longer than from the time its source was last seen until then,
//!   whatever this host's clock says; nor longer than [`LONGEST`].
//! - A source that was ever blocked starts with an empty window, as after a ban of this program.

mod report;
mod when;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::report::{Entry, MOST_ENTRIES, Outcome, Report};
pub use self::when::Clock;

use self::when::{Reading, until};
use super::{MOST_BANS, MOST_STANDINGS, SavedBan, SavedSource, SavedStanding};
use crate::core::prefix::Prefix;
use crate::core::verdict::{Asked, BanReason, Proto};

/// What a file of the Python system comes to. Ages and remainders are as of the clock it was read by; bans are
/// enforced, which is for the policy to say in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// Bans that are not over.
    pub bans: Vec<SavedBan>,
    /// Ladder positions.
    pub ladder: Vec<SavedStanding>,
    /// Half-done scans of sources that were never blocked.
    pub sources: Vec<SavedSource>,
    /// What became of each part.
    pub report: Report,
}

/// Why a file is none of the Python system's.
#[derive(Debug, Error)]
pub enum NotImported {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// More than [`MOST_BYTES`].
    #[error("it has more than {MOST_BYTES} bytes, a state of the Python system is far smaller")]
    TooLarge,
    /// Bytes that are no text.
    #[error("byte {0} is no UTF-8 text, a state of the Python system is TOML")]
    NotText(usize),
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Where.
        line: u64,
        /// What the parser says.
        message: String,
    },
    /// A state of this program.
    #[error("it is a state of verdictd: with the engine stopped, put it in the place of the state file")]
    Own,
    /// TOML of something else.
    #[error("it holds none of {}, so it is no state of the Python system", PARTS.join(", "))]
    Foreign,
}

/// Reads a state of the Python system by `clock`.
///
/// # Errors
/// If it is none as a whole; single entries that make no sense are left out and in the report.
pub fn import(file: impl Read, clock: &Clock) -> Result<Import, NotImported> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(NotImported::TooLarge);
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| NotImported::NotText(error.valid_up_to()))?;
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|error| NotImported::Syntax {
        line: lines.number(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let document = document.get_ref();
    if !PARTS.iter().any(|part| document.contains_key(*part)) {
        let is_own = document.contains_key("saved_at") && document.contains_key("version");
        return Err(if is_own {
            NotImported::Own
        } else {
            NotImported::Foreign
        });
    }
    let mut reader = Reader {
        clock,
        lines,
        report: Report::in_zone(clock.zone_name()),
    };
    let tasks = reader.tasks(document.get(TASKS));
    let seen = reader.activity(document.get(ACTIVITY));
    reader.others(document, &seen);
    Ok(reader.compose(&tasks, &seen))
}

/// When an address was to be freed.
struct Task {
    /// The latest of its times.
    at: Timestamp,
    line: u64,
    entries: u64,
    remark: Option<&'static str>,
}

/// What is known of an address.
#[derive(Default)]
struct Seen {
    line: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    blocked: u32,
    ports: Vec<u16>,
    kinds: usize,
}

struct Reader<'a> {
    clock: &'a Clock,
    lines: Lines,
    report: Report,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn tasks(&mut self, value: Option<&Value<'_>>) -> BTreeMap<IpAddr, Task> {
        let mut tasks = BTreeMap::new();
        let Some(value) = value else { return tasks };
        let Some(entries) = value.get_ref().as_array() else {
            self.refuse(value, format!("{TASKS} is {}, not a list", shown(value)));
            return tasks;
        };
        for entry in entries.iter() {
            match self.task(entry) {
                Ok((addr, task)) => merge(&mut tasks, addr, task),
                Err(why) => self.refuse(entry, format!("{TASKS}: {why}")),
            }
        }
        tasks
    }

    fn task(&self, entry: &Value<'_>) -> Result<(IpAddr, Task), String> {
        let field = |name: &str| {
            let value = entry.get_ref().as_table().and_then(|table| table.get(name));
            value.ok_or_else(|| format!("an entry without {name}"))
        };
        let ip = field("ip")?;
        let addr = address(ip.get_ref().as_str().unwrap_or(&shown(ip)))?;
        let Reading { at, remark } = self.time("unblock_time", field("unblock_time")?)?;
        let line = self.line(entry);
        let task = Task {
            at,
            line,
            entries: 1,
            remark,
        };
        Ok((addr, task))
    }

    fn activity(&mut self, value: Option<&Value<'_>>) -> BTreeMap<IpAddr, Seen> {
        let mut all = BTreeMap::new();
        let Some(value) = value else { return all };
        let Some(sources) = value.get_ref().as_table() else {
            self.refuse(value, format!("{ACTIVITY} is {}, not a table", shown(value)));
            return all;
        };
        for (name, entry) in sources.iter() {
            match (address(name.get_ref()), entry.get_ref().as_table()) {
                (Ok(addr), Some(table)) => {
                    let seen = self.seen(addr, self.line_at(name.span().start), table);
                    all.insert(addr, seen);
                }
                (Err(why), _) => self.refuse(entry, format!("{ACTIVITY}: {why}")),
                (_, None) => self.refuse(entry, format!("{ACTIVITY}: {} is no table", shown(entry))),
            }
        }
        all
    }

    fn seen(&mut self, addr: IpAddr, line: u64, table: &DeTable<'_>) -> Seen {
        let mut seen = Seen {
            line,
            ..Seen::default()
        };
        for (name, value) in table.iter() {
            let told = match &**name.get_ref() {
                "first_seen" => self
                    .time("first_seen", value)
                    .map(|time| seen.first = Some(time.at)),
                "last_seen" => self
                    .time("last_seen", value)
                    .map(|time| seen.last = Some(time.at)),
                "block_count" => whole(value)
                    .map(|count| seen.blocked = count)
                    .ok_or_else(|| format!("block_count is {}, not a count", shown(value))),
                "unique_ports" => self.ports(addr, value).map(|ports| seen.ports = ports),
                "scan_types" => {
                    seen.kinds = value.get_ref().as_table().map_or(0, |kinds| kinds.len());
                    Ok(())
                }
                other => Err(format!("{} is not known", quoted(other))),
            };
            if let Err(why) = told {
                self.refuse(value, format!("{addr}: {why}"));
            }
        }
        seen
    }

    fn ports(&mut self, addr: IpAddr, value: &Value<'_>) -> Result<Vec<u16>, String> {
        let entries = value.get_ref().as_array();
        let entries = entries.ok_or_else(|| format!("unique_ports is {}, not a list", shown(value)))?;
        let mut ports = Vec::new();
        for entry in entries.iter() {
            match whole(entry).and_then(|port| u16::try_from(port).ok()) {
                Some(port) => ports.push(port),
                None => self.refuse(
                    entry,
                    format!("{addr}: unique_ports holds {}, not a port", shown(entry)),
                ),
            }
        }
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }

    /// What has no counterpart here, and what nobody knows.
    fn others(&mut self, document: &DeTable<'_>, seen: &BTreeMap<IpAddr, Seen>) {
        let kinds = seen.values().filter(|seen| seen.kinds > 0).count() as u64;
        if kinds > 0 {
            let told = format!(
                "scan_types of {kinds} sources: what kind a packet was is not counted by source here"
            );
            self.report.tell(None, Outcome::LeftOut, kinds, told);
        }
        for (name, value) in document.iter() {
            let line = self.line_at(name.span().start);
            match &**name.get_ref() {
                TASKS | ACTIVITY => {}
                TRACKER => {
                    let ports = value.get_ref().as_table().map_or(0, |ports| ports.len()) as u64;
                    let told = format!(
                        "{TRACKER} of {ports} ports: what is usual on a port is a mean of days here, and learnt anew"
                    );
                    self.report.tell(Some(line), Outcome::LeftOut, ports, told);
                }
                other => {
                    let told = format!("{} is no part of a state of the Python system", quoted(other));
                    self.report.tell(Some(line), Outcome::LeftOut, 1, told);
                }
            }
        }
    }

    fn compose(mut self, tasks: &BTreeMap<IpAddr, Task>, all: &BTreeMap<IpAddr, Seen>) -> Import {
        let mut import = Import::default();
        let unknown = Seen::default();
        for (addr, task) in tasks {
            let seen = all.get(addr).unwrap_or(&unknown);
            import.bans.extend(self.ban(*addr, task, seen, import.bans.len()));
        }
        for (addr, seen) in all {
            import
                .ladder
                .extend(self.standing(*addr, seen, import.ladder.len()));
            import
                .sources
                .extend(self.window(*addr, seen, tasks.contains_key(addr)));
        }
        self.report.bans = import.bans.len() as u64;
        self.report.ladder = import.ladder.len() as u64;
        self.report.windows = import.sources.len() as u64;
        self.report.entries.sort_by_key(|entry| entry.line);
        import.report = self.report;
        import
    }

    fn ban(&mut self, addr: IpAddr, task: &Task, seen: &Seen, taken: usize) -> Option<SavedBan> {
        let more = task.entries - 1;
        if more > 0 {
            let told = format!("{addr}: {more} more entries for it, the latest time counts");
            self.report.tell(Some(task.line), Outcome::Merged, more, told);
        }
        // A clock that is behind the file would make the ban longer than it was.
        let from = seen.last.map_or(self.clock.now, |last| last.max(self.clock.now));
        let Some(left) = until(from, task.at) else {
            let told = format!("{addr}: its block ended at {:.0}", task.at);
            self.report.tell(Some(task.line), Outcome::Past, 1, told);
            return None;
        };
        if taken >= MOST_BANS {
            let told = format!("{addr}: more than {MOST_BANS} bans");
            self.report.tell(Some(task.line), Outcome::LeftOut, 1, told);
            return None;
        }
        let cut = (left > LONGEST).then_some(", cut to 376 days, the longest there is");
        let remark = task.remark.unwrap_or_default();
        let told = format!(
            "{addr}: banned until {:.0}{remark}{}",
            task.at,
            cut.unwrap_or_default()
        );
        self.report.tell(Some(task.line), Outcome::Taken, 1, told);
        Some(SavedBan {
            source: Prefix::host(addr),
            // The file does not say; most were.
            reason: BanReason::PortScanning,
            step: 0,
            offences: seen.blocked,
            age: seen.last.map_or(Duration::ZERO, |last| self.ago(last)),
            remaining: Some(left.min(LONGEST)),
            enforced: true,
            note: Some(NOTE.into()),
        })
    }

    fn standing(&mut self, addr: IpAddr, seen: &Seen, taken: usize) -> Option<SavedStanding> {
        if seen.blocked == 0 {
            return None;
        }
        let told = |what: &str| format!("{addr}: block_count = {}{what}", seen.blocked);
        let line = Some(seen.line);
        let Some(last) = seen.last.or(seen.first).filter(|_| taken < MOST_STANDINGS) else {
            let why = ", and nothing says when: no ladder position";
            self.report.tell(line, Outcome::LeftOut, 1, told(why));
            return None;
        };
        let what = format!(" is its number of offences, the last at {last:.0}");
        self.report.tell(line, Outcome::Taken, 1, told(&what));
        Some(SavedStanding {
            source: Prefix::host(addr),
            real: Some((seen.blocked, self.ago(last))),
            would_be: None,
        })
    }

    fn window(&mut self, addr: IpAddr, seen: &Seen, listed: bool) -> Option<SavedSource> {
        let (line, count) = (Some(seen.line), seen.ports.len());
        if count == 0 {
            return None;
        }
        if listed || seen.blocked > 0 {
            let told = format!("{addr}: its {count} ports were answered by a block, its window starts empty");
            self.report.tell(line, Outcome::LeftOut, 1, told);
            return None;
        }
        let Some(last) = seen.last.or(seen.first) else {
            let told = format!("{addr}: {count} ports, and nothing says when");
            self.report.tell(line, Outcome::LeftOut, 1, told);
            return None;
        };
        let told = format!("{addr}: {count} ports in its window, as of {last:.0}");
        self.report.tell(line, Outcome::Taken, 1, told);
        let idle = self.ago(last);
        // Neither does the file say which protocol: nearly all of what it counted is TCP.
        let touch = |port: &u16| (Asked::Port(Proto::Tcp, *port), 0, idle);
        Some(SavedSource {
            source: Prefix::host(addr),
            age: seen.first.map_or(idle, |first| self.ago(first).max(idle)),
            idle,
            completed: None,
            touches: seen.ports.iter().map(touch).collect(),
        })
    }

    /// How long ago; what the file says of the future is of now.
    fn ago(&self, at: Timestamp) -> Duration {
        until(at, self.clock.now).unwrap_or_default()
    }

    fn time(&self, name: &str, value: &Value<'_>) -> Result<Reading, String> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            _ => return Err(format!("{name} is {}, not a time", shown(value))),
        };
        let read = self.clock.read(&text);
        read.ok_or_else(|| {
            format!(
                "{name} is {}, not a time such as 2026-11-21T19:49:10",
                quoted(&text)
            )
        })
    }

    fn refuse(&mut self, value: &Value<'_>, why: String) {
        let line = self.line(value);
        self.report.tell(Some(line), Outcome::Refused, 1, why);
    }

    fn line(&self, value: &Value<'_>) -> u64 {
        self.line_at(value.span().start)
    }

    fn line_at(&self, offset: usize) -> u64 {
        self.lines.number(offset)
    }
}

fn merge(tasks: &mut BTreeMap<IpAddr, Task>, addr: IpAddr, task: Task) {
    match tasks.get_mut(&addr) {
        None => drop(tasks.insert(addr, task)),
        Some(known) => {
            let entries = known.entries + 1;
            if task.at > known.at {
                *known = task;
            }
            known.entries = entries;
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let addr: Result<IpAddr, _> = text.parse();
    addr.map(|addr| addr.to_canonical())
        .map_err(|_| format!("{} is no IPv4 or IPv6 address", quoted(text)))
}

fn whole(value: &Value<'_>) -> Option<u32> {
    let integer = value.get_ref().as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value as it stands in the file, as far as it is short.
fn shown(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(MOST_QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(ends.map(|(at, _)| at).collect())
    }

    /// From 1 on.
    fn number(&self, offset: usize) -> u64 {
        self.0.partition_point(|end| *end < offset) as u64 + 1
    }
}

/// The largest file that is read: 60,000 addresses with what was known of each, twenty times the most that was seen
/// of that system. It is parsed as a whole, into some 25 times as much memory.
pub const MOST_BYTES: u64 = 16 << 20;
/// As of a ban that this program saved: the longest step of a ladder, a year, and 3 %.
pub const LONGEST: Duration = Duration::from_secs(376 * 86_400);
const TASKS: &str = "unblock_tasks";
const ACTIVITY: &str = "ip_activity";
const TRACKER: &str = "port_access_tracker";
/// At least one of them is in every state of the Python system.
const PARTS: [&str; 3] = [TASKS, ACTIVITY, TRACKER];
pub(crate) const NOTE: &str = "imported from the Python system";
const MOST_QUOTED: usize = 60;

#[cfg(test)]
mod tests;
