//! A state into its file, so that at every moment one whole generation is there: a new file beside the old one
//! is written, synced and checked for its length; the old one becomes `.1`; then the new one takes its name.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::{Counts, Encoder, Moment, Place};
use crate::core::attack::Baseline;
use crate::core::judge::Memory;
use crate::core::ledger::Standing;
use crate::core::verdict::Ban;
use crate::files::{self, Dress, NewFile, SaveError};

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
    new: NewFile,
    path: PathBuf,
    previous: PathBuf,
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
        let path = place.path();
        let new = NewFile::beside(&path, Dress::PRIVATE)?;
        let begun = new.parts().0.try_clone().and_then(|file| {
            let mut encoder = Encoder::new(file, moment, now, seed)?;
            encoder.generation(generation)?;
            Ok(encoder)
        });
        Ok(Snapshot {
            encoder: Some(new.did("write", begun)?),
            new,
            path,
            previous: place.directory.join(place.named(PREVIOUS)),
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
        let finished = match self.encoder.take() {
            Some(encoder) => encoder.finish(),
            None => Err(io::Error::other("finished already")),
        };
        let (file, counts, bytes) = self.new.did("write", finished)?;
        // Before the previous one goes.
        self.new.did("write", file.sync_all())?;
        if self.new.did("write", file.metadata())?.len() != bytes {
            let short = io::Error::other("it is not as long as what was written");
            return self.new.did("write", Err(short));
        }
        self.keep_previous();
        self.new.take_name()?;
        Ok(Saved {
            path: self.path,
            bytes,
            counts,
        })
    }

    fn add(&mut self, write: impl FnOnce(&mut Encoder<File>) -> io::Result<()>) -> Result<(), SaveError> {
        match &mut self.encoder {
            Some(encoder) => self.new.did("write", write(encoder)),
            None => Ok(()),
        }
    }

    /// The current generation under a second name. Without it there is one generation less, and no harm.
    fn keep_previous(&self) {
        match files::keep(self.new.parts().1, &self.path, &self.previous) {
            // A file system without links: for a moment there is only the previous generation.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let _ = std::fs::rename(&self.path, &self.previous);
            }
            _ => {}
        }
    }
}

/// The previous generation.
pub(super) const PREVIOUS: &str = ".1";
