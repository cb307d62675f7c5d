//! The newest generation that can be read. What cannot is set aside, never deleted, and said in a sentence.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::import::Report;
use super::snapshot::PREVIOUS;
use super::{Place, State, Unreadable, decode, python};

/// What a start finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state, if there was one.
    pub state: Option<State>,
    /// What is wrong, one sentence each: `status` shows them until the next start.
    pub troubles: Vec<String>,
    /// What is worth a line in the log, and no more.
    pub notes: Vec<String>,
    /// What became of a file of the Python system, if the state is made of one.
    pub imported: Option<Report>,
}

/// Loads the state at `place`; at most `most_sources` windows of it. The current generation, else the previous
/// one, else none: there is always an answer, and it never looks healthy when it is not.
pub fn load(place: &Place, most_sources: usize) -> Loaded {
    let mut loaded = Loaded::default();
    let mut foreign: Option<(String, File)> = None;
    for suffix in ["", PREVIOUS] {
        let name = place.named(suffix);
        match attempt(place, &name, most_sources) {
            Ok(None) => continue,
            Ok(Some(state)) => {
                loaded.took(place, &name, &state, !suffix.is_empty());
                loaded.state = Some(state);
                if let Some((name, _)) = foreign {
                    python::pass_over(place, &name, &mut loaded);
                }
                return loaded;
            }
            Err(Refused::Foreign(file)) => foreign = foreign.or(Some((name, file))),
            Err(Refused::Because(why)) => {
                let shown = place.directory.join(&name);
                let aside = set_aside(place, &name);
                loaded
                    .troubles
                    .push(format!("{} cannot be used: {why}; {aside}", shown.display()));
            }
        }
    }
    if let Some((name, file)) = foreign {
        python::take_over(place, &name, file, most_sources, &mut loaded);
    }
    if !loaded.troubles.is_empty() && loaded.state.is_none() {
        loaded.troubles.push(
            "no saved state was usable: ladder positions, half-done scans and would-be bans are lost; bans \
             that the kernel holds stay"
                .into(),
        );
    }
    loaded
}

impl Loaded {
    fn took(&mut self, place: &Place, name: &str, state: &State, previous: bool) {
        let saved_at = state.saved.wall;
        if previous {
            self.troubles.push(format!(
                "the state is the previous generation, {}, saved at {saved_at}",
                place.directory.join(name).display()
            ));
        }
        if state.skipped > 0 {
            self.troubles.push(format!(
                "{} records of {} make no sense or are too many, and were left out",
                state.skipped,
                place.directory.join(name).display()
            ));
        }
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

/// `None`: there is no such file.
fn attempt(place: &Place, name: &str, most_sources: usize) -> Result<Option<State>, Refused> {
    let Some(mut file) = open(place, name)? else {
        return Ok(None);
    };
    match decode(&mut file, most_sources) {
        Ok(state) => Ok(Some(state)),
        Err(Unreadable::NoDigest) if is_python(&mut file)? => Err(Refused::Foreign(file)),
        Err(error) => Err(Refused::Because(error.to_string())),
    }
}

/// Opens a file that only we or root could have written, without following a link or waiting for a writer.
fn open(place: &Place, name: &str) -> Result<Option<File>, Refused> {
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

/// Renames a file to `.bad`, and the bad ones before it one further; [`BAD_KEPT`] are kept.
fn set_aside(place: &Place, name: &str) -> String {
    let bad = |nth: usize| match nth {
        0 => place.directory.join(place.named(".bad")),
        nth => place.directory.join(place.named(&format!(".bad.{nth}"))),
    };
    for nth in (1..BAD_KEPT).rev() {
        // What is not there needs no place; what cannot be moved is told by the last rename.
        let _ = std::fs::rename(bad(nth - 1), bad(nth));
    }
    match std::fs::rename(place.directory.join(name), bad(0)) {
        Ok(()) => format!("kept as {}", bad(0).display()),
        Err(error) => format!("and cannot be set aside: {error}"),
    }
}

/// How many unreadable files are kept.
const BAD_KEPT: usize = 3;
const PYTHON_LOOKED_AT: u64 = 1 << 20;
