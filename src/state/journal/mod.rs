//! What happened since the last snapshot, a record each, so that neither `kill -9` nor power loss takes back what was
//! said to be done. A file only ever grows at its end; `docs/state.md` has its format.
//!
//! A snapshot of generation N begins the journal N first, and is then written from memory: it and the journals from N
//! on hold everything, whatever was true at the moment it was written. The records are idempotent for this.

pub(super) mod read;
pub(super) mod record;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use self::record::{Salt, Writer, header};
use super::{Moment, Place, SaveError};
use crate::core::ledger::Standing;
use crate::core::prefix::Prefix;
use crate::core::source::Touch;
use crate::core::verdict::Ban;

/// One thing that happened, as the journal keeps it. All idempotent: folding one twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Live from `since` on; replaces one of the same target and consumes its evidence.
    Ban(Ban),
    /// The ban ended: lifted, expired or withdrawn. The source's window starts empty.
    Lift {
        /// Whose.
        source: Prefix,
        /// When.
        at: Instant,
    },
    /// The ladder position as it is from now on.
    Standing(Standing),
    /// An entry of the source's window as it is now, its stealth probes in total; replaces one of the same port.
    Touch {
        /// Whose.
        source: Prefix,
        /// The entry.
        touch: Touch,
    },
    /// A handshake was completed on that TCP port: known from now on, the port leaves the window.
    Completed {
        /// By whom.
        source: Prefix,
        /// Where.
        port: u16,
        /// When.
        at: Instant,
    },
    /// Everything before is forgotten.
    Reset,
}

impl Record {
    /// Whether nothing but half-done scans is lost with it.
    fn is_activity(&self) -> bool {
        matches!(self, Record::Touch { .. } | Record::Completed { .. })
    }
}

/// One file that grows.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    generation: u64,
    salt: Salt,
    begun: Instant,
    /// What the clocks said last, and when.
    told: Option<(Moment, Instant)>,
    bytes: u64,
    broken: bool,
    /// Of the last batch, for the next one.
    buffer: Vec<u8>,
}

impl Journal {
    /// Begins the one of `generation` at `moment`, which the process calls `now`; where something of that name is left,
    /// it may hold what no snapshot holds: it stays, and the next number is taken.
    ///
    /// # Errors
    /// If the directory does not take a file, or does not take it to the disk.
    pub fn begin(
        place: &Place,
        generation: u64,
        moment: &Moment,
        now: Instant,
    ) -> Result<Journal, SaveError> {
        let directory = File::open(&place.directory)
            .map_err(|error| SaveError::new("open directory", place.directory.clone(), error))?;
        let (file, generation) = create(place, &directory, generation)?;
        let name = place.journal(generation);
        let mut journal = Journal {
            file,
            path: place.directory.join(&name),
            generation,
            salt: Salt::of(generation),
            begun: now,
            told: None,
            bytes: 0,
            broken: false,
            buffer: header(generation, moment),
        };
        let written = journal
            .write()
            .and_then(|()| journal.reach(File::sync_all))
            .and_then(|()| {
                directory
                    .sync_all()
                    .map_err(|error| journal.error("write", error))
            });
        if written.is_err() {
            // It is ours and holds nothing yet.
            let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
        }
        written.map(|()| journal)
    }

    /// Adds records in one write; `now` is what the process calls `moment`. They are on the disk after
    /// [`Journal::sync`]. Half-done scans beyond [`MOST_ACTIVITY_BYTES`] are left out: bans always fit.
    ///
    /// # Errors
    /// If they cannot be written: none of them is in the file then, and it goes on where it was, unless it
    /// [is broken](Journal::is_broken).
    pub fn append(&mut self, records: &[Record], moment: &Moment, now: Instant) -> Result<(), SaveError> {
        if self.broken {
            return Err(self.error("write", io::Error::other("an error before this one broke it")));
        }
        let takes_activity = self.bytes < MOST_ACTIVITY_BYTES;
        let mut wanted = records
            .iter()
            .filter(|record| takes_activity || !record.is_activity())
            .peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        let is_news = is_news(self.told.as_ref(), moment, now);
        self.buffer.clear();
        let mut writer = Writer {
            out: &mut self.buffer,
            salt: self.salt,
            begun: self.begun,
        };
        if is_news {
            writer.clock(moment, now);
        }
        wanted.for_each(|record| writer.put(record));
        if self.bytes + self.buffer.len() as u64 > MOST_JOURNAL_BYTES {
            return Err(self.error(
                "write",
                io::Error::other("it is full, a snapshot has to be written first"),
            ));
        }
        self.write()?;
        if is_news {
            self.told = Some((moment.clone(), now));
        }
        Ok(())
    }

    /// Takes to the disk what was added (fdatasync).
    ///
    /// # Errors
    /// If the disk fails. What the kernel did with the pages is then unknown: the journal is broken for good.
    pub fn sync(&mut self) -> Result<(), SaveError> {
        match self.broken {
            true => Err(self.error("write", io::Error::other("an error before this one broke it"))),
            false => self.reach(File::sync_data),
        }
    }

    /// How long the file is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Which one it is: at least the one that was asked for.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether nothing can be added any more: only a new generation helps.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes the buffer, all of it or nothing.
    fn write(&mut self) -> Result<(), SaveError> {
        let written = self.file.write_all(&self.buffer);
        match written {
            Ok(()) => {
                self.bytes += self.buffer.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.broken = self.file.set_len(self.bytes).is_err();
                Err(self.error("write", error))
            }
        }
    }

    fn reach(&mut self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), SaveError> {
        sync(&self.file).map_err(|error| {
            self.broken = true;
            self.error("write", error)
        })
    }

    fn error(&self, what: &'static str, source: io::Error) -> SaveError {
        SaveError::new(what, self.path.clone(), source)
    }
}

/// Whether the clocks say something that those in the file, `told`, do not: a second went by, one of them was stepped,
/// or the machine slept.
fn is_news(told: Option<&(Moment, Instant)>, moment: &Moment, now: Instant) -> bool {
    let Some((told, at)) = told else {
        return true;
    };
    let Some(passed) = now.checked_duration_since(*at) else {
        return true;
    };
    let off = |other: Option<Duration>| other.is_none_or(|other| other.abs_diff(passed) > TOLERATED);
    let by_boot = match (&told.boot, &moment.boot) {
        (Some(then), Some(now)) if then.id == now.id => now.up.checked_sub(then.up),
        (None, None) => Some(passed),
        _ => None,
    };
    passed >= CLOCK_EVERY || off(by_boot) || off((moment.wall - told.wall).try_into().ok())
}

/// A file that nobody else has, of that number or the next free one.
fn create(place: &Place, directory: &File, from: u64) -> Result<(File, u64), SaveError> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut generation = from;
    loop {
        let name = place.journal(generation);
        match rustix::fs::openat(directory, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok((File::from(file), generation)),
            Err(Errno::EXIST) if generation - from < MOST_TAKEN => generation += 1,
            Err(errno) => return Err(SaveError::new("create", place.directory.join(name), errno.into())),
        }
    }
}

/// Removes the journals below `generation`: what they hold is in the snapshot of that generation. Tells how many.
///
/// # Errors
/// If one cannot be removed; the others are.
pub fn forget_journals_before(place: &Place, generation: u64) -> io::Result<usize> {
    let (mut removed, mut failed) = (0, None);
    for found in journals(place)?.into_iter().filter(|found| *found < generation) {
        match std::fs::remove_file(place.directory.join(place.journal(found))) {
            Ok(()) => removed += 1,
            // A directory in its place: loading said so, and it is nobody's way.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// The generations of which there is something by that name, ascending.
pub(super) fn journals(place: &Place) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(&place.directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| place.generation_of(name)));
    }
    found.sort_unstable();
    Ok(found)
}

impl Place {
    pub(super) fn journal(&self, generation: u64) -> String {
        self.named(&format!("{INFIX}{generation}"))
    }

    /// The generation that a name says, in the form in which it is written.
    fn generation_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.name)?.strip_prefix(INFIX)?;
        let generation: u64 = digits.parse().ok().filter(|number| *number <= MOST_GENERATION)?;
        (generation.to_string() == digits).then_some(generation)
    }
}

const INFIX: &str = ".journal-";
/// Numbers beyond it are not ours: one a second lasts for thirty million years, and there is always one above.
pub(super) const MOST_GENERATION: u64 = 999_999_999_999_999;
/// The largest journal: five million bans.
pub const MOST_JOURNAL_BYTES: u64 = 1 << 28;
/// From where on half-done scans are left out of a journal, so that bans always fit.
pub const MOST_ACTIVITY_BYTES: u64 = 1 << 26;
/// How long the clocks in the file count as what they are now.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// How far two clocks may differ over a second before one was stepped: NTP slews by half a millisecond a second.
const TOLERATED: Duration = Duration::from_millis(100);
/// So many leftovers in a row are an error.
const MOST_TAKEN: u64 = 1000;

#[cfg(test)]
mod tests;
