//! The newest generation that can be read, and the journals since. What cannot be read is set aside, never deleted, and
//! said in a sentence.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::aside::Aside;
use super::fold::Fold;
use super::import::Report;
use super::journal::journals;
use super::journal::read::{Reader, Told};
use super::journal::record::{Beginning, JOURNAL_VERSION};
use super::snapshot::PREVIOUS;
use super::{MOST_JOURNAL_BYTES, Moment, Place, State, Unreadable, decode, python};

/// What a start finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state, if there was one, with what the journals tell folded in.
    pub state: Option<State>,
    /// Which generation of the snapshot it is made from; one without a number, of an older version, is 0.
    pub generation: Option<u64>,
    /// A number above that of any snapshot or journal that was found.
    pub next_generation: u64,
    /// Journals that were folded in.
    pub journals: usize,
    /// Records of them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, one sentence each: `status` shows them until the next start.
    pub troubles: Vec<String>,
    /// What is worth a line in the log, and no more.
    pub notes: Vec<String>,
    /// What became of a file of the Python system, if the state is made of one.
    pub imported: Option<Report>,
    /// The snapshot that it is made from.
    pub file: Option<PathBuf>,
}

/// Loads the state at `place`; at most `most_sources` windows of it. The current generation, else the previous
/// one, else none, and the journals since: there is always an answer, and it never looks healthy when it is not.
pub fn load(place: &Place, most_sources: usize) -> Loaded {
    Search::of(place, most_sources, false).run()
}

/// The same for a look: nothing is renamed, nothing is written.
pub fn peek(place: &Place, most_sources: usize) -> Loaded {
    Search::of(place, most_sources, true).run()
}

/// One look through a state directory.
struct Search<'a> {
    place: &'a Place,
    most_sources: usize,
    loaded: Loaded,
    aside: Aside<'a>,
    /// Troubles that end in what became of a file.
    open: Vec<(usize, usize)>,
}

impl<'a> Search<'a> {
    fn of(place: &'a Place, most_sources: usize, only_looks: bool) -> Search<'a> {
        Search {
            place,
            most_sources,
            loaded: Loaded::default(),
            aside: Aside::of(place, only_looks),
            open: Vec::new(),
        }
    }

    fn run(mut self) -> Loaded {
        let found = journals(self.place).unwrap_or_else(|error| {
            self.trouble(format!(
                "{} cannot be listed: {error}",
                self.place.directory.display()
            ));
            Vec::new()
        });
        let state = self.snapshot().or_else(|| self.import_again(found.is_empty()));
        let nothing_good = state.is_none() && !self.loaded.troubles.is_empty();
        let generation = state.as_ref().map_or(0, |state| state.generation.unwrap_or(0));
        self.loaded.generation = state.as_ref().map(|_| generation);
        self.loaded.next_generation = found.last().copied().unwrap_or(0).max(generation) + 1;
        let wanted: Vec<u64> = found.into_iter().filter(|found| *found >= generation).collect();
        if generation > 0 && wanted.first() != Some(&generation) {
            self.trouble(format!(
                "{} is missing: what it held since the state was saved is lost",
                self.shown(&self.place.journal(generation))
            ));
        }
        self.fold(state, &wanted);
        if nothing_good {
            self.trouble(self.lost());
        }
        self.done()
    }

    /// The newest snapshot that can be read.
    fn snapshot(&mut self) -> Option<State> {
        let mut foreign: Option<(String, File)> = None;
        for suffix in ["", PREVIOUS] {
            let name = self.place.named(suffix);
            match self.attempt(&name) {
                Ok(None) => continue,
                Ok(Some(state)) => {
                    self.took(&name, &state, !suffix.is_empty());
                    if let Some((name, _)) = foreign.filter(|_| !self.aside.only_looks()) {
                        python::pass_over(self.place, &name, &mut self.loaded);
                    }
                    return Some(state);
                }
                Err(Refused::Foreign(file)) => foreign = foreign.or(Some((name, file))),
                Err(Refused::Because(why)) => {
                    let number = self.aside.put(&name);
                    self.unusable(&name, &why, number);
                }
            }
        }
        let (name, file) = foreign?;
        if self.aside.only_looks() {
            let note = format!(
                "{} is of the Python system: the next start imports it",
                self.shown(&name)
            );
            self.loaded.notes.push(note);
            return None;
        }
        python::take_over(self.place, &name, file, self.most_sources, &mut self.loaded)
    }

    /// Where there is nothing but the Python system's file that is kept, its import never came to a snapshot.
    fn import_again(&mut self, is_alone: bool) -> Option<State> {
        let name = self.place.named(python::KEPT);
        if !is_alone || self.aside.only_looks() || !self.loaded.troubles.is_empty() {
            return None;
        }
        let Err(Refused::Foreign(file)) = self.attempt(&name) else {
            return None;
        };
        python::take_over(self.place, &name, file, self.most_sources, &mut self.loaded)
    }

    /// `None`: there is no such file.
    fn attempt(&self, name: &str) -> Result<Option<State>, Refused> {
        let Some(mut file) = self.open(name)? else {
            return Ok(None);
        };
        match decode(&mut file, self.most_sources) {
            Ok(state) => Ok(Some(state)),
            Err(Unreadable::NoDigest) if is_python(&mut file)? => Err(Refused::Foreign(file)),
            Err(error) => Err(Refused::Because(error.to_string())),
        }
    }

    fn open(&self, name: &str) -> Result<Option<File>, Refused> {
        open(self.place, name, self.aside.only_looks())
    }

    fn took(&mut self, name: &str, state: &State, previous: bool) {
        let (saved_at, shown) = (state.saved.wall, self.shown(name));
        self.loaded.file = Some(self.place.directory.join(name));
        if previous {
            self.trouble(format!(
                "the state is the previous generation, {shown}, saved at {saved_at}"
            ));
        }
        if state.skipped > 0 {
            self.trouble(format!(
                "{} records of {shown} make no sense or are too many, and were left out",
                state.skipped
            ));
        }
    }

    /// Goes through the journals and makes them one with the snapshot.
    fn fold(&mut self, state: Option<State>, wanted: &[u64]) {
        let mut fold = Fold::onto(state.as_ref().map(|state| &state.saved), self.most_sources);
        let since = state.as_ref().filter(|state| state.generation.unwrap_or(0) == 0);
        for generation in wanted {
            self.journal(&mut fold, *generation, since.map(|state| &state.saved));
        }
        if fold.skipped > 0 {
            self.trouble(format!(
                "{} records of the journals are too many, and were left out",
                fold.skipped
            ));
        }
        self.loaded.state = match self.loaded.records {
            0 => state,
            _ => Some(fold.finish(state)),
        };
    }

    /// Takes in one of them. `since` is when a snapshot was saved that names no journal: an older version wrote it, and
    /// what was begun before it is older than it.
    fn journal(&mut self, fold: &mut Fold, generation: u64, since: Option<&Moment>) {
        let name = self.place.journal(generation);
        let opened = self
            .open(&name)
            .map(|file| file.map(|file| Reader::of(file, generation)));
        let (reader, beginning) = match opened {
            Ok(None) => return,
            Ok(Some(Ok(opened))) => opened,
            Ok(Some(Err(error))) => return self.left(&name, &error.to_string()),
            Err(Refused::Because(why)) => return self.left(&name, &why),
            Err(Refused::Foreign(_)) => return,
        };
        let moment = match beginning {
            Beginning::Version(version) => {
                let number = self.aside.put(&name);
                let why = format!("it has format version {version}, this verdictd reads {JOURNAL_VERSION}");
                return self.unusable(&name, &why, number);
            }
            Beginning::Moment(moment) => Some(moment),
            Beginning::Damaged => None,
        };
        if let Some((begun, saved)) = moment.as_ref().zip(since)
            && is_before(begun, saved)
        {
            let note = format!("{} is older than the state, and not used", self.shown(&name));
            return self.loaded.notes.push(note);
        }
        fold.begin(moment.as_ref());
        let (told, senseless, failed) = records(reader, fold);
        self.loaded.journals += usize::from(told.records > 0);
        self.loaded.records += told.records;
        self.loaded.bytes += told.bytes - told.torn;
        match failed {
            Some(error) => self.left(&name, &format!("{error} after {} records", told.records)),
            None => self.read(&name, told, senseless),
        }
    }

    /// Says what a journal turned out to be.
    fn read(&mut self, name: &str, told: Told, senseless: u64) {
        let shown = self.shown(name);
        if senseless > 0 {
            self.trouble(format!(
                "{senseless} records of {shown} make no sense, and were left out"
            ));
        }
        if told.records == 0 && !told.is_headed {
            match is_unfinished(told) {
                true => self
                    .loaded
                    .notes
                    .push(format!("{shown} was begun and holds nothing")),
                false => {
                    let number = self.aside.put(name);
                    self.unusable(name, "nothing in it is a record", number);
                }
            }
            return;
        }
        let why = if told.gave_up {
            format!(
                "only its first {} bytes were read",
                told.bytes.min(MOST_JOURNAL_BYTES)
            )
        } else if told.torn > MOST_TORN {
            format!("its last {} bytes are damaged", told.torn)
        } else if told.holes > 0 {
            format!("{} bytes in {} places of it are damaged", told.lost, told.holes)
        } else if !told.is_headed {
            "its beginning is damaged".into()
        } else {
            if told.torn > 0 {
                self.loaded.notes.push(format!(
                    "{shown} ends in {} bytes of a write that was cut short, as a crash leaves them",
                    told.torn
                ));
            }
            return;
        };
        let number = self.aside.put_copy(name);
        self.pending(format!("{shown}: {why}, the rest of it was used"), number);
    }

    /// Something that is not a file of ours: nobody touches it.
    fn left(&mut self, name: &str, why: &str) {
        let shown = self.shown(name);
        self.trouble(format!("{shown} cannot be used: {why}; it is left where it is"));
    }

    fn unusable(&mut self, name: &str, why: &str, number: usize) {
        self.pending(format!("{} cannot be used: {why}", self.shown(name)), number);
    }

    /// A trouble that goes on with what became of the file.
    fn pending(&mut self, words: String, number: usize) {
        self.open.push((self.loaded.troubles.len(), number));
        self.trouble(words);
    }

    fn trouble(&mut self, words: String) {
        self.loaded.troubles.push(words);
    }

    fn lost(&self) -> String {
        match self.loaded.records {
            0 => "no saved state was usable: ladder positions, half-done scans and would-be bans are lost; bans that \
                  the kernel holds stay"
                .into(),
            records => format!(
                "no saved state was usable, only {records} records of its journals: what was before is lost, but bans \
                 that the kernel holds stay"
            ),
        }
    }

    fn done(mut self) -> Loaded {
        let became = self.aside.done();
        for (trouble, number) in self.open {
            let words = &mut self.loaded.troubles[trouble];
            *words = format!("{words}; {}", became[number]);
        }
        self.loaded
    }

    fn shown(&self, name: &str) -> String {
        self.place.directory.join(name).display().to_string()
    }
}

/// Takes in what the file holds; how many records of it make no sense, and why it could not be read to its end.
fn records(mut reader: Reader<File>, fold: &mut Fold) -> (Told, u64, Option<io::Error>) {
    let mut senseless = 0;
    let failed = loop {
        match reader.next() {
            Ok(Some(Some(entry))) => fold.take(entry),
            Ok(Some(None)) => senseless += 1,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    (reader.told(), senseless, failed)
}

/// Whether a file without a beginning is no more than what a crash leaves of one that was just begun.
fn is_unfinished(told: Told) -> bool {
    told.bytes < super::journal::record::HEADER as u64
}

fn is_before(one: &Moment, other: &Moment) -> bool {
    match (&one.boot, &other.boot) {
        (Some(one), Some(other)) if one.id == other.id => one.up < other.up,
        _ => one.wall < other.wall,
    }
}

enum Refused {
    /// The Python system's format.
    Foreign(File),
    Because(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Because(error.to_string())
    }
}

/// Opens a file that only we or root could have written, without following a link or waiting for a writer. Who only
/// looks may look at anybody's.
fn open(place: &Place, name: &str, only_looks: bool) -> Result<Option<File>, Refused> {
    let directory = match File::open(&place.directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        directory => directory?,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Refused::Because("it is a symbolic link".into())),
        file => file.map_err(io::Error::from)?,
    };
    let facts = fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
        return Err(Refused::Because("it is not a regular file".into()));
    }
    if only_looks {
        return Ok(Some(File::from(file)));
    }
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&facts.st_uid);
    if !ours || Mode::from_raw_mode(facts.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(Refused::Because(format!(
            "others can write it (owner {}, mode {:o}), it must be ours or root's and mode 600",
            facts.st_uid,
            facts.st_mode & 0o7777
        )));
    }
    Ok(Some(File::from(file)))
}

pub(super) fn is_python(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(PYTHON_LOOKED_AT).read_to_end(&mut start)?;
    let start = String::from_utf8_lossy(&start);
    let marks = ["[ip_activity", "[port_access_tracker", "unblock_tasks = ["];
    Ok(start
        .lines()
        .any(|line| marks.iter().any(|mark| line.starts_with(mark))))
}

/// A write that was cut short is no longer than what is added at once; more is damage.
const MOST_TORN: u64 = 1 << 20;
const PYTHON_LOOKED_AT: u64 = 1 << 20;
