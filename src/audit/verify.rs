//! Reads the log as somebody who does not believe it: every file that is kept, line by line, against the chain and
//! the head. Any change, deletion, insertion, reordering or cut is named by file and line.
//!
//! Total over any bytes, and it writes nothing. The engine may go on writing meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::{Hash, Link};
use super::head::{self, Found, Head};
use super::place::{self, Identity};

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file that is being written; those beside it whose names begin with its own belong to it.
    pub log: PathBuf,
    /// Its head; without one nobody can say whether lines are missing at the end.
    pub head: Option<PathBuf>,
    /// The first line that must be there; what is before it is kept, and verified, elsewhere.
    pub from: Option<u64>,
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct VerifyError {
    path: PathBuf,
    source: io::Error,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was read, oldest first.
    pub files: Vec<FileView>,
    /// Lines that were read.
    pub lines: u64,
    /// Number of the last one.
    pub last: u64,
    /// Its hash.
    pub sha256: String,
    /// By which chains are told apart: the first line's `prev`, as the head has it.
    pub chain: Option<String>,
    /// What is not as it was written, the first [`MOST_FAULTS`].
    pub faults: Vec<Fault>,
    /// How many there are.
    pub faults_in_all: u64,
    /// What cannot be told, or is worth knowing.
    pub notes: Vec<String>,
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileView {
    /// Which.
    pub path: String,
    /// Its whole lines.
    pub lines: u64,
    /// Number of its first record.
    pub first: Option<u64>,
    /// Number of its last record.
    pub last: Option<u64>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In which file.
    pub file: String,
    /// Line of that file, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl Report {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        self.faults_in_all == 0
    }
}

/// Reads and compares.
///
/// # Errors
/// If a file cannot be read. That there is no log at all is a fault, not an error, where a head says there was one.
pub fn verify(options: &Options) -> Result<Report, VerifyError> {
    Checker::new(options.clone()).check()
}

/// Verifies again and again: files that were put aside and have not changed since are not read again.
#[derive(Debug)]
pub struct Checker {
    options: Options,
    known: BTreeMap<Identity, (Stamp, Sound)>,
}

/// Size and times of a file: a change that leaves them all is root's work, and found when they are read anew.
type Stamp = (u64, i64, i64, i64, i64);

/// One line, as far as the chain goes.
#[derive(Clone, Debug)]
struct Entry {
    hash: Hash,
    record: Option<Record>,
}

#[derive(Clone, Debug)]
struct Record {
    seq: u64,
    prev: Hash,
    says: Option<Box<Says>>,
}

/// What few records say about the log itself.
#[derive(Clone, Debug)]
enum Says {
    /// What was removed at the old end.
    Removed(Link),
    /// What the engine found wrong.
    Broken(String),
    /// So many records were lost.
    Lost(u64),
}

/// A file that was read.
struct Kept {
    name: String,
    body: Body,
    /// Bytes behind its last newline.
    torn: usize,
}

/// A file that is sound in itself is as good as its two ends: a log may be many files of a hundred thousand lines.
enum Body {
    Sound(Sound),
    Lines(Vec<Entry>),
}

#[derive(Clone, Debug)]
struct Sound {
    lines: u64,
    first: Record,
    last: Link,
    removed: Option<Link>,
    lost: u64,
}

impl Sound {
    fn of(entries: &[Entry]) -> Option<Sound> {
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
    fn lines(&self) -> u64 {
        match &self.body {
            Body::Sound(sound) => sound.lines,
            Body::Lines(entries) => entries.len() as u64,
        }
    }

    /// Numbers of its first and last record.
    fn ends(&self) -> (Option<u64>, Option<u64>) {
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

impl Checker {
    /// Nothing is read yet.
    pub fn new(options: Options) -> Checker {
        Checker {
            options,
            known: BTreeMap::new(),
        }
    }

    /// Reads what is new and compares everything.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn check(&mut self) -> Result<Report, VerifyError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let before = self.head()?;
            let names = self.names()?;
            let files = self.read(&names)?;
            let moved = files.is_none() || self.names()? != names;
            if moved && tries < TRIES {
                continue; // a rotation came between
            }
            let after = self.head()?;
            return Ok(self.compare(before, after, files.unwrap_or_default()));
        }
    }

    fn head(&self) -> Result<Option<Found>, VerifyError> {
        let read = |path: &PathBuf| {
            head::read(path).map_err(|source| VerifyError {
                path: path.clone(),
                source,
            })
        };
        self.options.head.as_ref().map(read).transpose()
    }

    /// Every file that can be read, oldest first by name, with which file it is.
    fn names(&self) -> Result<Vec<(PathBuf, Option<Identity>)>, VerifyError> {
        let log = &self.options.log;
        let siblings = place::siblings(log).map_err(|source| VerifyError {
            path: place::folder(log).to_owned(),
            source,
        })?;
        let paths = siblings
            .into_iter()
            .map(|sibling| sibling.path)
            .chain([log.clone()]);
        let named = paths.map(|path| {
            let identity = std::fs::symlink_metadata(&path)
                .ok()
                .map(|found| place::identity(&found));
            (path, identity)
        });
        Ok(named.filter(|(_, identity)| identity.is_some()).collect())
    }

    /// `None`: one of them went away meanwhile.
    fn read(&mut self, names: &[(PathBuf, Option<Identity>)]) -> Result<Option<Vec<Kept>>, VerifyError> {
        let mut known = BTreeMap::new();
        let mut files = Vec::new();
        for (path, _) in names.iter().filter(|(path, _)| !is_packed(path)) {
            let fault = |source| VerifyError {
                path: path.clone(),
                source,
            };
            let file = match place::open_to_read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(fault)?,
            };
            let metadata = file.metadata().map_err(fault)?;
            let m = &metadata;
            let stamp = (m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            let identity = place::identity(m);
            let is_aside = *path != self.options.log;
            let unchanged = self
                .known
                .remove(&identity)
                .filter(|(then, _)| is_aside && *then == stamp);
            let (body, torn) = match unchanged {
                Some((_, sound)) => (Body::Sound(sound), 0),
                None => {
                    let (entries, torn) = entries(file).map_err(fault)?;
                    // The file that is written is looked at line by line: the head names some of them.
                    let sound = Sound::of(&entries).filter(|_| is_aside && torn == 0);
                    (sound.map_or_else(|| Body::Lines(entries), Body::Sound), torn)
                }
            };
            if let Body::Sound(sound) = &body {
                known.insert(identity, (stamp, sound.clone()));
            }
            files.push(Kept {
                name: path.display().to_string(),
                body,
                torn,
            });
        }
        self.known = known;
        Ok(Some(files))
    }

    fn compare(&self, before: Option<Found>, after: Option<Found>, mut files: Vec<Kept>) -> Report {
        let by_name = self.walk(before, after, &files);
        if by_name.is_sound() {
            return by_name;
        }
        // Names may mislead (logrotate's dates, a copy that was put back): numbers may tell better.
        files.sort_by_key(|file| file.ends().0);
        let by_number = self.walk(before, after, &files);
        match by_number.faults_in_all < by_name.faults_in_all {
            true => by_number,
            false => by_name,
        }
    }

    fn walk(&self, before: Option<Found>, after: Option<Found>, files: &[Kept]) -> Report {
        let mut walk = Walk::new(before, self.options.from, files);
        for (at, file) in files.iter().enumerate() {
            walk.file(file, at + 1 == files.len());
        }
        walk.beginning(&self.packed());
        walk.end(&self.options.log, before, after);
        walk.report
    }

    fn packed(&self) -> Vec<String> {
        let siblings = place::siblings(&self.options.log).unwrap_or_default();
        let packed = siblings.into_iter().filter(place::Sibling::is_packed);
        packed.map(|sibling| sibling.path.display().to_string()).collect()
    }
}

/// On the way through all lines.
struct Walk {
    report: Report,
    from: Option<u64>,
    /// The last line that belongs to the chain, and where it stands.
    last: Option<(Link, Place)>,
    /// Lines since then that are no records, by their hashes.
    junk: Vec<(Hash, Place)>,
    first: Option<(Record, Place)>,
    /// The newest record's word on what was removed.
    removed: Option<Link>,
    /// Lines that the head names, as they were found.
    named: BTreeMap<u64, Option<(Hash, Place)>>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    file: String,
    line: u64,
}

impl Walk {
    fn new(head: Option<Found>, from: Option<u64>, files: &[Kept]) -> Walk {
        let (mut named, mut chain) = (BTreeMap::new(), None);
        if let Some(Found::Head(head)) = head {
            named.extend([head.confirmed, head.announced].map(|link| (link.seq, None)));
            chain = Some(head.chain)
                .filter(|chain| *chain != Hash::default())
                .map(|chain| chain.to_string());
        }
        let view = |file: &Kept| {
            let (first, last) = file.ends();
            FileView {
                path: file.name.clone(),
                lines: file.lines(),
                first,
                last,
            }
        };
        Walk {
            report: Report {
                files: files.iter().map(view).collect(),
                lines: files.iter().map(Kept::lines).sum(),
                chain,
                ..Report::default()
            },
            from,
            last: None,
            junk: Vec::new(),
            first: None,
            removed: None,
            named,
        }
    }

    fn fault(&mut self, place: &Place, what: impl Into<String>) {
        self.report.faults_in_all += 1;
        if self.report.faults.len() < MOST_FAULTS {
            self.report.faults.push(Fault {
                file: place.file.clone(),
                line: place.line,
                what: what.into(),
            });
        }
    }

    fn file(&mut self, file: &Kept, is_last: bool) {
        let mut place = Place {
            file: file.name.clone(),
            line: 0,
        };
        match &file.body {
            Body::Sound(sound) => self.sound(sound, &mut place),
            Body::Lines(entries) => {
                for entry in entries {
                    place.line += 1;
                    self.line(entry, &place);
                }
            }
        }
        place.line += 1;
        match file.torn {
            0 => {}
            bytes if is_last => self.report.notes.push(format!(
                "{}:{}: {bytes} bytes of an unfinished line: the engine is writing it, or was killed while it did; its \
                 next start says so",
                place.file, place.line
            )),
            bytes => self.fault(&place, format!("ends in the middle of a line ({bytes} bytes)")),
        }
    }

    fn sound(&mut self, sound: &Sound, place: &mut Place) {
        place.line = 1;
        let early = self.last.is_none() && self.from.is_some_and(|from| sound.last.seq < from);
        if early || !self.follows(&sound.first, place) {
            return;
        }
        self.first
            .get_or_insert_with(|| (sound.first.clone(), place.clone()));
        self.removed = sound.removed.or(self.removed);
        place.line = sound.lines;
        self.lost(sound.lost, place);
        self.go_on(sound.last, place);
    }

    fn line(&mut self, entry: &Entry, place: &Place) {
        let Some(record) = &entry.record else {
            // Before the first line that is asked about nothing is judged.
            if self.from.is_none() || self.last.is_some() {
                self.fault(place, "is no record: it was changed, or does not belong here");
                self.junk.push((entry.hash, place.clone()));
            }
            return;
        };
        let early = self.last.is_none() && self.from.is_some_and(|from| record.seq < from);
        if early || !self.follows(record, place) {
            return;
        }
        match record.says.as_deref() {
            Some(Says::Broken(why)) => self.fault(place, format!("the engine found the log changed: {why}")),
            Some(Says::Removed(link)) => self.removed = Some(*link),
            Some(Says::Lost(lost)) => self.lost(*lost, place),
            None => {}
        }
        self.first.get_or_insert_with(|| (record.clone(), place.clone()));
        let link = Link {
            seq: record.seq,
            hash: entry.hash,
        };
        self.go_on(link, place);
    }

    fn go_on(&mut self, link: Link, place: &Place) {
        if let Some(named) = self.named.get_mut(&link.seq) {
            *named = Some((link.hash, place.clone()));
        }
        self.last = Some((link, place.clone()));
        self.junk.clear();
    }

    fn lost(&mut self, lost: u64, place: &Place) {
        if lost > 0 {
            let note = format!(
                "{}:{}: {lost} records were lost before they were written",
                place.file, place.line
            );
            self.report.notes.push(note);
        }
    }

    /// Whether `record` belongs to the chain; what is wrong before it, or with it, is reported.
    fn follows(&mut self, record: &Record, place: &Place) -> bool {
        let Some((last, before)) = self.last.clone() else {
            return true;
        };
        let due = last.seq + 1;
        // The lines that are no records were records once, if this one names the last of them.
        let junk = self.junk.len() as u64;
        let after_junk =
            self.junk.last().is_some_and(|(hash, _)| *hash == record.prev) || record.seq == due + junk;
        match (record.seq == due, record.prev == last.hash) {
            (true, true) => {}
            _ if junk > 0 && after_junk => {}
            (false, true) if record.seq < due => {
                self.fault(
                    place,
                    format!("has number {}, {due} was due: it was changed", record.seq),
                );
            }
            (true, false) => {
                let words = format!(
                    "was changed: the next line ({}) holds another hash of it",
                    record.seq
                );
                self.fault(&before, words);
            }
            (false, _) if record.seq > due => {
                self.fault(place, format!("before it {} missing", lines(due, record.seq - 1)));
            }
            (false, _) => {
                let words = format!("number {} was there already: it does not belong here", record.seq);
                self.fault(place, words);
                return false;
            }
        }
        true
    }

    /// Whether anything may be missing before the first line.
    fn beginning(&mut self, packed: &[String]) {
        let Some((first, place)) = self.first.clone() else {
            return;
        };
        let from = self.from;
        let vouched = |removed: Link| {
            first.seq <= removed.seq || first.seq == removed.seq + 1 && first.prev == removed.hash
        };
        let is_first = first.seq == 1
            && self
                .report
                .chain
                .as_ref()
                .is_none_or(|chain| *chain == first.prev.to_string());
        if is_first || self.removed.is_some_and(vouched) || from.is_some_and(|from| first.seq <= from) {
            if first.seq > 1 {
                let note = format!(
                    "{} not here: files beyond audit.keep were removed",
                    lines(1, first.seq - 1)
                );
                self.report.notes.push(match from {
                    Some(_) => format!("begins with line {}, as asked for", first.seq),
                    None => note,
                });
            }
            return;
        }
        if first.seq == 1 {
            self.fault(
                &place,
                "its prev is not the id of the chain that the head names: this is another chain",
            );
            return;
        }
        let mut what = format!(
            "before it {} missing, and no record says that they were removed",
            lines(1, first.seq - 1)
        );
        if !packed.is_empty() {
            what += &format!("; not read, because they are packed: {}", packed.join(", "));
        }
        self.fault(&place, what);
    }

    /// Whether the end is where the head says it is.
    fn end(&mut self, log: &Path, before: Option<Found>, after: Option<Found>) {
        let (last, place) = self.last.clone().unwrap_or((
            Link::default(),
            Place {
                file: log.display().to_string(),
                line: 0,
            },
        ));
        (self.report.last, self.report.sha256) = (last.seq, last.hash.to_string());
        let end = Place {
            line: place.line + 1,
            ..place
        };
        let (low, high) = match (before, after) {
            (Some(Found::Head(before)), Some(Found::Head(after))) => (before, after),
            (None, _) | (_, None) => {
                let note = "without a head nobody can say whether lines are missing at the end (--head FILE)";
                self.report.notes.push(note.into());
                return;
            }
            _ if self.report.lines == 0 => {
                self.report
                    .notes
                    .push("there is no log and no head: nothing was written yet".into());
                return;
            }
            _ => {
                let what = "the head is gone or spoiled: whether lines are missing at the end cannot be told";
                self.fault(&end, what);
                return;
            }
        };
        self.against_head(last, &end, &low, &high);
    }

    fn against_head(&mut self, last: Link, end: &Place, low: &Head, high: &Head) {
        if last.seq < low.confirmed.seq {
            self.fault(
                end,
                format!("{} missing at the end", lines(last.seq + 1, low.confirmed.seq)),
            );
        }
        if last.seq > high.announced.seq {
            let first = high.announced.seq + 1;
            let place = Place {
                line: end.line.saturating_sub(last.seq - high.announced.seq).max(1),
                ..end.clone()
            };
            let what = format!("{} not the engine's: added at the end", lines(first, last.seq));
            self.fault(&place, what);
        }
        for link in [low.confirmed, low.announced] {
            let found = self.named.remove(&link.seq).flatten();
            if let Some((hash, place)) = found.filter(|(hash, _)| *hash != link.hash) {
                let what = format!(
                    "was changed: the head holds another hash of line {} (not {hash})",
                    link.seq
                );
                self.fault(&place, what);
            }
        }
    }
}

/// Every line of `file`, and how many bytes stand behind the last newline.
fn entries(file: File) -> io::Result<(Vec<Entry>, usize)> {
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

fn is_packed(path: &Path) -> bool {
    place::Sibling {
        path: path.to_owned(),
        number: None,
    }
    .is_packed()
}

/// `line 7 is`, `lines 7 to 9 are`; the verb is the caller's where it is another.
fn lines(first: u64, last: u64) -> String {
    match first == last {
        true => format!("line {first} is"),
        false => format!("lines {first} to {last} are"),
    }
}

/// Faults that are told one by one: a log that was replaced has one a line.
pub const MOST_FAULTS: usize = 100;
/// Rotations that may come between.
const TRIES: u32 = 5;
/// Far beyond every record.
const LONGEST_LINE: u64 = 4 << 20;
