//! Where one endpoint is in the spool: what it has got, and a small file that says so after a restart.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::Record;
use crate::files::{self, Dress};
use crate::webhook::config::Filter;
use crate::webhook::wire::Event;

/// A place in the spool. `acked` ≤ `taken`: between them lies what is being sent.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) filter: Filter,
    /// Up to this number everything was delivered or given up.
    pub(super) acked: u64,
    /// Up to this number everything was handed out.
    pub(super) taken: u64,
    /// In which file, by its first number, reading goes on at which byte.
    pub(super) offset: (u64, u64),
    /// How many were handed out and not acked yet.
    pub(super) on_its_way: u64,
    /// Wanted events behind `acked`.
    pub(super) waiting: u64,
    /// Wanted events that were dropped before they were handed out.
    pub(super) dropped: u64,
}

impl Place {
    /// The place of `name` as it was saved; at `end` if it never had one; at the beginning if it cannot be told. Says
    /// also whether a new one was saved: one that was not is good until the next start.
    pub(super) fn open(folder: &Path, name: &str, end: u64) -> (Place, io::Result<()>) {
        let path = path(folder, name);
        let (acked, new) = match std::fs::read(&path) {
            Ok(bytes) => (parse(&bytes).map_or(0, |(acked, _)| acked), false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (end, true),
            Err(_) => (0, false),
        };
        let place = Place {
            filter: Filter::ALL,
            acked,
            taken: acked,
            offset: (0, 0),
            on_its_way: 0,
            waiting: 0,
            dropped: 0,
        };
        let saved = match new {
            true => {
                files::replace(&path, text(acked, name).as_bytes(), Dress::PRIVATE).map_err(io::Error::from)
            }
            false => Ok(()),
        };
        (place, saved)
    }

    /// Not synced: after a loss of power events are sent twice at worst.
    pub(super) fn save(&self, folder: &Path, name: &str) -> io::Result<()> {
        Ok(files::replace_unsynced(
            &path(folder, name),
            text(self.acked, name).as_bytes(),
            Dress::PRIVATE,
        )?)
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        self.filter.wants_name(&event.event_type)
    }

    pub(super) fn awaits(&self, record: &Record) -> bool {
        record.number > self.acked && self.wants(&record.event)
    }

    pub(super) fn offset_in(&self, first: u64) -> u64 {
        if self.offset.0 == first { self.offset.1 } else { 0 }
    }

    /// So many more are on their way. What is not wanted need not be acked, if nothing is.
    pub(super) fn handed_out(&mut self, count: u64) {
        self.on_its_way += count;
        if self.on_its_way == 0 {
            self.acked = self.taken;
        }
    }

    /// Everything up to `number` is done with; `records`: what of it was handed out.
    pub(super) fn ack(&mut self, number: u64, records: &[Record]) {
        let wanted = records.iter().filter(|record| self.awaits(record)).count() as u64;
        self.waiting = self.waiting.saturating_sub(wanted);
        self.on_its_way = self.on_its_way.saturating_sub(records.len() as u64);
        self.acked = self.acked.max(number);
        self.taken = self.taken.max(number);
    }

    /// Nothing is on its way any more.
    pub(super) fn rewind(&mut self) {
        self.on_its_way = 0;
        self.taken = self.acked;
        self.offset = (0, 0);
    }

    /// Everything up to `number` is gone.
    pub(super) fn pass(&mut self, number: u64) {
        if self.on_its_way == 0 {
            self.acked = self.acked.max(number);
        }
        self.taken = self.taken.max(number);
    }
}

/// The highest number that any place below `folder` has.
pub(super) fn highest(folder: &Path) -> io::Result<u64> {
    let mut highest = 0;
    for path in places(folder)? {
        let saved = std::fs::read(path).ok().and_then(|bytes| parse(&bytes));
        highest = highest.max(saved.map_or(0, |(acked, _)| acked));
    }
    Ok(highest)
}

/// Places of names that `stays` does not know are removed. One that cannot be read stays: it may be that of a name
/// that is served, and without it that name would begin at the end.
pub(super) fn remove_others(folder: &Path, stays: impl Fn(&str) -> bool) {
    for path in places(folder).unwrap_or_default() {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if parse(&bytes).is_some_and(|(_, name)| !stays(&name)) {
            let _ = std::fs::remove_file(path); // at worst it is found again
        }
    }
}

fn places(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && !name.contains('.'))
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Names are free text, and files are not.
fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{:016x}", hash(name)))
}

fn text(acked: u64, name: &str) -> String {
    format!("{acked} {:016x} {name}\n", hash(&format!("{acked} {name}")))
}

fn parse(bytes: &[u8]) -> Option<(u64, String)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let mut parts = text.splitn(3, ' ');
    let acked = parts.next()?.parse().ok()?;
    let sum = u64::from_str_radix(parts.next()?, 16).ok()?;
    let name = parts.next()?;
    (hash(&format!("{acked} {name}")) == sum).then(|| (acked, name.to_owned()))
}

/// The same in every version: files are named by it.
pub(in crate::webhook) fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

const PREFIX: &str = "place-";
