//! One file of the spool: events in order, only ever appended to, dropped as a whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Ending;
use super::record::Record;
use crate::files;

/// A file of the spool, or what is held in memory because there is no room for one.
#[derive(Debug)]
pub(super) struct Segment {
    place: Place,
    /// The number that its first event has, or will have.
    pub(super) first: u64,
    /// The number that its last event has; below `first` while it has none.
    pub(super) last: u64,
    /// Bytes that are whole lines.
    pub(super) bytes: u64,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Memory(Vec<u8>),
}

impl Segment {
    /// A new file below `folder`, open to be appended to.
    pub(super) fn create(folder: &Path, first: u64) -> io::Result<(Segment, File)> {
        let path = folder.join(format!("{PREFIX}{first:020}"));
        // An empty one of this number may be left from a start that wrote nothing.
        let file = files::private().write(true).truncate(true).open(&path)?;
        File::open(folder)?.sync_all()?;
        let segment = Segment {
            place: Place::File(path),
            first,
            last: first - 1,
            bytes: 0,
        };
        Ok((segment, file))
    }

    /// One in memory.
    pub(super) fn held(first: u64) -> Segment {
        Segment {
            place: Place::Memory(Vec::new()),
            first,
            last: first - 1,
            bytes: 0,
        }
    }

    /// Appends whole lines to one in memory; `false`: it is a file.
    pub(super) fn hold(&mut self, lines: &[u8], last: u64) -> bool {
        let Place::Memory(held) = &mut self.place else {
            return false;
        };
        held.extend_from_slice(lines);
        self.bytes += lines.len() as u64;
        self.last = last;
        true
    }

    /// Whether it is in memory.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Its file goes.
    pub(super) fn remove(&self) -> io::Result<()> {
        match &self.place {
            Place::File(path) => std::fs::remove_file(path),
            Place::Memory(_) => Ok(()),
        }
    }

    /// Those that lie below `folder`, oldest first. What else lies there is left alone.
    pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let Some(first) = number
                .and_then(|digits| digits.parse().ok())
                .filter(|first| *first > 0)
            else {
                continue;
            };
            let metadata = entry.metadata()?;
            if !metadata.is_file() {
                continue; // a link leads to what is not ours, and a pipe is waited for
            }
            found.push(Segment {
                place: Place::File(entry.path()),
                first,
                last: first - 1,
                bytes: metadata.len(),
            });
        }
        found.sort_by_key(|segment| segment.first);
        Ok(found)
    }

    /// Whether nothing stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Finds the last event; returns how many lines are damaged.
    pub(super) fn measure(&mut self) -> io::Result<u64> {
        let (mut last, mut damaged) = (self.last, 0);
        self.read(0, |record, _| {
            match record {
                Some(record) => last = last.max(record.number),
                None => damaged += 1,
            }
            true
        })?;
        self.last = last;
        Ok(damaged)
    }

    /// Every line from byte `from` on: what it is (`None`: damaged) and the byte behind it. Stops when `each`
    /// says false. A torn last line is damaged, too.
    pub(super) fn read(
        &self,
        from: u64,
        each: impl FnMut(Option<Record>, u64) -> bool,
    ) -> io::Result<Ending> {
        match &self.place {
            Place::File(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(from))?;
                lines(BufReader::with_capacity(1 << 16, file), from, each)
            }
            Place::Memory(held) => {
                let rest = usize::try_from(from).ok().and_then(|from| held.get(from..));
                lines(rest.unwrap_or_default(), from, each)
            }
        }
    }

    /// Appends whole lines; on failure the file is as it was.
    pub(super) fn append(&mut self, file: &mut File, lines: &[u8], last: u64) -> io::Result<()> {
        if let Err(error) = file.write_all(lines) {
            file.set_len(self.bytes)?;
            file.seek(SeekFrom::Start(self.bytes))?;
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        self.last = last;
        Ok(())
    }
}

/// See [`Segment::read`].
fn lines(
    mut reader: impl BufRead,
    from: u64,
    mut each: impl FnMut(Option<Record>, u64) -> bool,
) -> io::Result<Ending> {
    let mut at = from;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(Ending::Finished);
        }
        at += length as u64;
        let record = line.strip_suffix(b"\n").and_then(Record::parse);
        if !each(record, at) {
            return Ok(Ending::Stopped);
        }
    }
}

const PREFIX: &str = "events-";

/// No event is longer; a file without line breaks is not read as one line.
const LONGEST_LINE: u64 = 1 << 20;
