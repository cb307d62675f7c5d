//! A state into its file, so that at every moment one whole generation is there: a new file beside the old one
//! is written, synced and checked for its length; the old one becomes `.1`; then the new one takes its name.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::{Counts, Encoder, Moment, Place};
use crate::core::attack::Baseline;
use crate::core::judge::Memory;
use crate::core::ledger::Standing;
use crate::core::verdict::Ban;

/// Why there is no new snapshot. The last good one stays.
#[derive(Debug, Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct SaveError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SaveError {
    pub(super) fn new(what: &'static str, path: PathBuf, source: io::Error) -> SaveError {
        SaveError { what, path, source }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its records.
    pub counts: Counts,
}

/// A snapshot that is being written. Nothing is seen of it before [`Snapshot::commit`].
pub struct Snapshot {
    /// Gone once finished.
    encoder: Option<Encoder<File>>,
    temporary: Temporary,
}

/// The new file until it has its name; removed if it never gets it.
struct Temporary {
    place: Place,
    directory: File,
    named: bool,
}

impl Snapshot {
    /// Begins one of `moment`, which the process calls `now`. What a killed predecessor left is removed. The journal
    /// of that `generation` has begun already: what happens while this is written is in there.
    ///
    /// # Errors
    /// If the directory does not take a file.
    pub fn begin(
        place: &Place,
        moment: &Moment,
        now: Instant,
        seed: u32,
        generation: u64,
    ) -> Result<Snapshot, SaveError> {
        let mut temporary = Temporary::of(place)?;
        let file = temporary.create()?;
        let encoder = Encoder::new(file, moment, now, seed).and_then(|mut encoder| {
            encoder.generation(generation)?;
            Ok(encoder)
        });
        Ok(Snapshot {
            encoder: Some(temporary.write(encoder)?),
            temporary,
        })
    }

    /// Adds a source.
    pub fn source(&mut self, memory: &Memory) -> Result<(), SaveError> {
        self.add(|encoder| encoder.source(memory))
    }

    /// Adds a ladder position.
    pub fn standing(&mut self, standing: &Standing) -> Result<(), SaveError> {
        self.add(|encoder| encoder.standing(standing))
    }

    /// Adds what is usual on each port.
    pub fn usual(&mut self, baseline: &Baseline) -> Result<(), SaveError> {
        self.add(|encoder| encoder.usual(baseline))
    }

    /// Adds a ban.
    pub fn ban(&mut self, ban: &Ban) -> Result<(), SaveError> {
        self.add(|encoder| encoder.ban(ban))
    }

    /// Makes it the current generation, and the current one the previous.
    pub fn commit(mut self) -> Result<Saved, SaveError> {
        let temporary = &mut self.temporary;
        let Some(encoder) = self.encoder.take() else {
            return Err(temporary.error("write", io::Error::other("finished already")));
        };
        let (file, counts, bytes) = temporary.write(encoder.finish())?;
        temporary.write(file.sync_all())?;
        if temporary.write(file.metadata())?.len() != bytes {
            let short = io::Error::other("it is not as long as what was written");
            return Err(temporary.error("write", short));
        }
        temporary.keep_previous();
        temporary.take_name()?;
        Ok(Saved {
            path: temporary.place.path(),
            bytes,
            counts,
        })
    }

    fn add(&mut self, write: impl FnOnce(&mut Encoder<File>) -> io::Result<()>) -> Result<(), SaveError> {
        match &mut self.encoder {
            Some(encoder) => self.temporary.write(write(encoder)),
            None => Ok(()),
        }
    }
}

/// Puts `bytes` in the place of the file at `path`, whose `directory` is open: all of them or none, on the disk before
/// the name is theirs. `dress` gives owner and mode before anybody sees it; without, it is 0600.
///
/// # Errors
/// If the directory does not take it. The old one stays.
pub fn replace(
    directory: File,
    path: &Path,
    bytes: &[u8],
    dress: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), SaveError> {
    let mut temporary = Temporary {
        place: Place::new(Path::new(""), Some(path)),
        directory,
        named: true,
    };
    let mut file = temporary.create()?;
    let written = file.write_all(bytes).and_then(|()| dress(&file));
    temporary.write(written.and_then(|()| file.sync_all()))?;
    temporary.take_name()
}

impl Temporary {
    fn of(place: &Place) -> Result<Temporary, SaveError> {
        let directory = File::open(&place.directory).map_err(|source| SaveError {
            what: "open directory",
            path: place.directory.clone(),
            source,
        })?;
        Ok(Temporary {
            place: place.clone(),
            directory,
            named: true,
        })
    }

    /// A file of our own, whatever lies in its place: it is never opened, only removed.
    fn create(&mut self) -> Result<File, SaveError> {
        let name = self.name();
        let created = self.remove().and_then(|()| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR)
        });
        let file = created.map_err(|errno| self.error("create", errno.into()))?;
        self.named = false;
        Ok(File::from(file))
    }

    /// The current generation under a second name. Without it there is one generation less, and no harm.
    fn keep_previous(&self) {
        let (current, previous) = (&self.place.name, self.place.named(PREVIOUS));
        let exists = rustix::fs::statat(&self.directory, current, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if !exists {
            return;
        }
        let _ = rustix::fs::unlinkat(&self.directory, &previous, AtFlags::empty());
        let linked = rustix::fs::linkat(
            &self.directory,
            current,
            &self.directory,
            &previous,
            AtFlags::empty(),
        );
        if linked.is_err() {
            // A file system without links: for a moment there is only the previous generation.
            let _ = rustix::fs::renameat(&self.directory, current, &self.directory, &previous);
        }
    }

    fn take_name(&mut self) -> Result<(), SaveError> {
        let current = &self.place.name;
        rustix::fs::renameat(&self.directory, self.name(), &self.directory, current)
            .map_err(|errno| self.error("rename to its name", errno.into()))?;
        self.named = true;
        self.write(self.directory.sync_all())
    }

    fn remove(&self) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, self.name(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn name(&self) -> String {
        self.place.named(TEMPORARY)
    }

    fn write<T>(&self, result: io::Result<T>) -> Result<T, SaveError> {
        result.map_err(|source| self.error("write", source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> SaveError {
        SaveError {
            what,
            path: self.place.directory.join(self.name()),
            source,
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            let _ = self.remove();
        }
    }
}

/// The previous generation.
pub(super) const PREVIOUS: &str = ".1";
const TEMPORARY: &str = ".new";
