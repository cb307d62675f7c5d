//! Events on disk between happening and delivery: appended in order, each endpoint with its own place in them.
//!
//! Bounded: when full, the oldest are dropped and counted for whoever had not got them. A crash of the engine loses
//! nothing that was written; a loss of power at most what [`Spool::unsynced`] was not asked for yet. A place that
//! cannot be read begins at the oldest event again: twice is better than never.

mod place;
mod record;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use self::place::Place;
pub(super) use self::place::hash;
pub(super) use self::record::Record;
use self::segment::Segment;
use super::config::Filter;
use super::wire::Event;
use crate::files;

/// The events that wait, and where each endpoint is in them.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    most_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last of `segments`, open; without it the next append begins a new one.
    file: Option<File>,
    next: u64,
    places: BTreeMap<String, Place>,
    damaged: u64,
    dirty: bool,
}

impl Spool {
    /// The spool in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made or read.
    pub(super) fn open(folder: &Path, most_bytes: u64) -> io::Result<Spool> {
        files::make_folder(folder, 0o700)?;
        let mut spool = Spool {
            folder: folder.to_owned(),
            most_bytes,
            segments: VecDeque::new(),
            file: None,
            next: 1 + place::highest(folder)?,
            places: BTreeMap::new(),
            damaged: 0,
            dirty: false,
        };
        for mut segment in Segment::list(folder)? {
            spool.damaged += segment.measure()?;
            spool.next = spool.next.max(segment.first).max(segment.last + 1);
            if segment.is_empty() {
                segment.remove()?;
            } else {
                spool.segments.push_back(segment);
            }
        }
        Ok(spool)
    }

    /// Serves each of these names from now on what its filter wants: from where it was, or, if it was never served,
    /// from here on.
    ///
    /// # Errors
    /// If a new place cannot be written, or what is on disk cannot be read. They are served all the same.
    pub(super) fn serve<'n>(&mut self, names: impl IntoIterator<Item = (&'n str, Filter)>) -> io::Result<()> {
        let (mut new, mut result) = (BTreeMap::new(), Ok(()));
        for (name, filter) in names {
            let place = match self.places.get(name) {
                Some(place) if place.filter == filter => continue,
                Some(_) => self.places.remove(name).expect("seen one line above"),
                None => {
                    let (place, saved) = Place::open(&self.folder, name, self.next - 1);
                    result = result.and(saved);
                    place
                }
            };
            let waiting = 0;
            new.insert(
                name.to_owned(),
                Place {
                    filter,
                    waiting,
                    ..place
                },
            );
        }
        if !new.is_empty() {
            result = result.and(self.count_waiting(&mut new));
            self.places.append(&mut new);
        }
        result
    }

    /// Reads what is on disk once, however many they are.
    fn count_waiting(&self, places: &mut BTreeMap<String, Place>) -> io::Result<()> {
        let Some(from) = places.values().map(|place| place.acked).min() else {
            return Ok(());
        };
        for segment in self.segments.iter().filter(|segment| segment.last > from) {
            segment.read(0, |record, _| {
                let Some(record) = record else { return true };
                for place in places.values_mut() {
                    place.waiting += u64::from(place.awaits(&record));
                }
                true
            })?;
        }
        Ok(())
    }

    /// Forgets everybody whom `stays` does not name, and what only they waited for.
    pub(super) fn forget(&mut self, stays: impl Fn(&str) -> bool) {
        place::remove_others(&self.folder, &stays);
        self.places.retain(|name, _| stays(name));
        self.trim();
    }

    /// How many bytes may lie on disk.
    pub(super) fn set_most_bytes(&mut self, most_bytes: u64) {
        self.most_bytes = most_bytes;
        self.make_room(0);
    }

    /// Writes events that happened; returns how many of them were written or, where the disk does not take them, are held
    /// in memory until they are delivered, the engine ends or that is full. `written`: milliseconds since 1970.
    pub(super) fn append(&mut self, events: Vec<Event>, written: u64) -> (usize, io::Result<()>) {
        let wanted = |event: &Event| self.places.values().any(|place| place.wants(event));
        let events: Vec<Event> = events.into_iter().filter(wanted).collect();
        let (mut done, mut events, mut result) = (0, events.into_iter(), Ok(()));
        loop {
            let (mut lines, mut chunk) = (Vec::new(), Vec::new());
            for event in events.by_ref() {
                let number = self.next + chunk.len() as u64;
                let record = Record {
                    number,
                    written,
                    event,
                };
                lines.extend(record.line());
                chunk.push(record.event);
                if lines.len() >= CHUNK {
                    break;
                }
            }
            if chunk.is_empty() {
                return (done, result);
            }
            if let Err(error) = self.write(&lines, chunk.len() as u64) {
                if !self.hold(&lines, chunk.len() as u64) {
                    return (done, Err(error));
                }
                result = Err(error);
            }
            for place in self.places.values_mut() {
                place.waiting += chunk.iter().filter(|event| place.wants(event)).count() as u64;
            }
            done += chunk.len();
        }
    }

    fn write(&mut self, lines: &[u8], count: u64) -> io::Result<()> {
        self.make_room(lines.len() as u64);
        let mut written = self.try_write(lines, count);
        // A disk that is full of other things still has room for what is newest.
        while written
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
            && self.segments.len() > 1
            && !self.segments[0].is_held()
        {
            self.drop_oldest();
            written = self.try_write(lines, count);
        }
        written
    }

    /// What the disk does not take waits in memory: that the disk is full is worth telling while it is. `false`: there is
    /// no room for it either.
    fn hold(&mut self, lines: &[u8], count: u64) -> bool {
        let held = self.segments.iter().filter(|segment| segment.is_held());
        if held.map(|segment| segment.bytes).sum::<u64>() + lines.len() as u64 > MOST_HELD {
            return false;
        }
        if self.segments.back().is_some_and(Segment::is_empty) {
            // It has the number that comes now.
            self.segments.pop_back();
        }
        let last = self.next + count - 1;
        let held = |segment: &mut Segment| segment.hold(lines, last);
        if !self.segments.back_mut().is_some_and(held) {
            let mut segment = Segment::held(self.next);
            segment.hold(lines, last);
            self.segments.push_back(segment);
        }
        self.next = last + 1;
        true
    }

    fn try_write(&mut self, lines: &[u8], count: u64) -> io::Result<()> {
        let full = |segment: &Segment| segment.bytes + lines.len() as u64 > self.segment_bytes();
        if self.segments.back().is_none_or(full) {
            self.sync_and_close()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                // What could not be written to has the name that comes now.
                if self.segments.back().is_some_and(Segment::is_empty) {
                    self.segments.pop_back();
                }
                let (segment, file) = Segment::create(&self.folder, self.next)?;
                self.segments.push_back(segment);
                file
            }
        };
        let segment = self
            .segments
            .back_mut()
            .expect("pushed above, or there with its file");
        let last = self.next + count - 1;
        segment.append(&mut file, lines, last)?; // on failure the next one begins a file of its own
        self.file = Some(file);
        self.next = last + 1;
        self.dirty = true;
        Ok(())
    }

    fn sync_and_close(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_data())
    }

    /// What was written since this was last asked, to be synced outside of any lock.
    pub(super) fn unsynced(&mut self) -> Option<File> {
        let file = self.file.as_ref().filter(|_| self.dirty)?.try_clone().ok()?;
        self.dirty = false;
        Some(file)
    }

    /// The next events for `name`, at most `most` and not many more bytes than `most_bytes`. They stay on disk until
    /// [`ack`](Spool::ack).
    pub(super) fn take(&mut self, name: &str, most: usize, most_bytes: u64) -> Taken {
        let mut taken = Taken::default();
        let Some(place) = self.places.get_mut(name) else {
            return taken;
        };
        let mut looked_at = 0;
        let mut lost = Vec::new();
        for segment in &self.segments {
            if segment.last <= place.taken {
                continue;
            }
            let mut at = place.offset_in(segment.first);
            let read = segment.read(at, |record, end| {
                let length = end - at;
                at = end;
                looked_at += 1;
                if let Some(record) = record.filter(|record| record.number > place.taken) {
                    place.taken = record.number;
                    if place.wants(&record.event) {
                        taken.bytes += length;
                        taken.records.push(record);
                    }
                }
                taken.records.len() < most && taken.bytes < most_bytes && looked_at < LOOKED_AT
            });
            place.offset = (segment.first, at);
            match read {
                Ok(Ending::Stopped) => {
                    taken.more = true;
                    break;
                }
                Ok(Ending::Finished) => place.taken = place.taken.max(segment.last),
                Err(_) => lost.push(segment.first),
            }
        }
        place.handed_out(taken.records.len() as u64);
        for first in lost {
            self.lose(first);
        }
        taken
    }

    /// `name` has got (or given up) `records`, the oldest that it took, and all before them.
    pub(super) fn ack(&mut self, name: &str, records: &[Record]) -> io::Result<()> {
        let (Some(place), Some(last)) = (self.places.get_mut(name), records.last()) else {
            return Ok(());
        };
        place.ack(last.number, records);
        let saved = place.save(&self.folder, name);
        self.trim();
        saved
    }

    /// What `name` took and never acked is to be taken again.
    pub(super) fn rewind(&mut self, name: &str) {
        if let Some(place) = self.places.get_mut(name) {
            place.rewind();
        }
    }

    /// Events that wait for `name`, and those that were dropped before it got them.
    pub(super) fn depth(&self, name: &str) -> (u64, u64) {
        self.places
            .get(name)
            .map_or((0, 0), |place| (place.waiting, place.dropped))
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Lines that were not what was written.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    fn segment_bytes(&self) -> u64 {
        (self.most_bytes / 16).clamp(CHUNK as u64, 8 << 20)
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes() + bytes > self.most_bytes && !self.segments.is_empty() {
            self.drop_oldest();
        }
    }

    /// The oldest file goes, with what nobody had taken from it yet.
    fn drop_oldest(&mut self) {
        let Some(segment) = self.segments.pop_front() else {
            return;
        };
        if self.segments.is_empty() {
            self.file = None;
        }
        let places = &mut self.places;
        let counted = segment.read(0, |record, _| {
            let Some(record) = record else { return true };
            for place in places.values_mut().filter(|place| record.number > place.taken) {
                let lost = u64::from(place.wants(&record.event));
                place.dropped += lost;
                place.waiting = place.waiting.saturating_sub(lost);
            }
            true
        });
        self.damaged += u64::from(counted.is_err());
        self.gone(&segment);
    }

    /// A file that cannot be read is no longer there: somebody removed it, or the disk fails.
    fn lose(&mut self, first: u64) {
        if let Some(at) = self.segments.iter().position(|segment| segment.first == first) {
            if at + 1 == self.segments.len() {
                self.file = None;
            }
            self.damaged += 1;
            if let Some(segment) = self.segments.remove(at) {
                self.gone(&segment);
            }
        }
    }

    fn gone(&mut self, segment: &Segment) {
        // What cannot be removed is not read again before the next start.
        let _ = segment.remove();
        for place in self.places.values_mut() {
            place.pass(segment.last);
        }
    }

    /// Files that everybody has got go; the one that is written to stays.
    fn trim(&mut self) {
        let everybody = self.places.values().map(|place| place.acked).min();
        // Without anybody: who will be served has not been said yet.
        let Some(everybody) = everybody else { return };
        let kept = usize::from(self.file.is_some());
        while self.segments.len() > kept && self.segments[0].last <= everybody {
            if let Some(segment) = self.segments.pop_front() {
                let _ = segment.remove();
            }
        }
    }
}

/// What is handed out for one endpoint.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: Vec<Record>,
    /// How long they are on disk.
    pub(super) bytes: u64,
    /// Not everything was looked at.
    pub(super) more: bool,
}

/// Why the reading of a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Finished,
    Stopped,
}

/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;
/// Bytes that are held in memory: some five hundred events.
const MOST_HELD: u64 = 256 << 10;
/// Lines that are looked at in one go: others wait for the lock.
const LOOKED_AT: usize = 4_096;

#[cfg(test)]
mod tests;
