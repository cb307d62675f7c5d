//! From the first line to the last: what follows what, where the chain begins, and where the head says that it ends.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::{Body, Entry, Kept, Record, Says, Sound};
use super::{Fault, FileView, MOST_FAULTS, Report};
use crate::audit::chain::{Hash, Link};
use crate::audit::head::{Found, Head};

/// On the way through all lines.
pub(super) struct Walk {
    pub(super) report: Report,
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
    pub(super) fn new(head: Option<Found>, from: Option<u64>, files: &[Kept]) -> Walk {
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

    pub(super) fn file(&mut self, file: &Kept, is_last: bool) {
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
    pub(super) fn beginning(&mut self, packed: &[String]) {
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
    pub(super) fn end(&mut self, log: &Path, before: Option<Found>, after: Option<Found>) {
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

/// `line 7 is`, `lines 7 to 9 are`; the verb is the caller's where it is another.
fn lines(first: u64, last: u64) -> String {
    match first == last {
        true => format!("line {first} is"),
        false => format!("lines {first} to {last} are"),
    }
}
