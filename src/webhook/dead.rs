//! Events that one endpoint refused, or that grew too old for it: kept aside in a file of bounded size, one JSON object
//! a line, for people to read and to be sent again on request.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wire::Event;
use crate::files::{self, Dress};

/// The dead letters of one endpoint.
#[derive(Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
    most_bytes: u64,
    kept: u64,
    dropped: u64,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    endpoint: String,
    reason: String,
    event: Event,
}

impl DeadLetters {
    /// Those in `folder` that belong to the endpoint of this number.
    pub(super) fn open(folder: &Path, number: u64, most_bytes: u64) -> DeadLetters {
        let mut letters = DeadLetters {
            path: folder.join(format!("dead-{number:016x}.jsonl")),
            most_bytes,
            kept: 0,
            dropped: 0,
        };
        letters.kept = letters.read().map_or(0, |all| all.len() as u64);
        letters
    }

    /// How many there are.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// How many there were once and are not any more, since the file was full, or could not be kept at all.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Keeps `events`, or counts them as dropped. When full, the older half goes.
    pub(super) fn put<'e>(
        &mut self,
        endpoint: &str,
        reason: &str,
        events: impl Iterator<Item = &'e Event>,
    ) -> io::Result<()> {
        let letters: Vec<Letter> = events
            .map(|event| Letter {
                endpoint: endpoint.to_owned(),
                reason: reason.to_owned(),
                event: event.clone(),
            })
            .collect();
        let (lines, count) = (lines_of(&letters)?, letters.len() as u64);
        let kept = self.append(&lines);
        match kept {
            Ok(()) => self.kept += count,
            Err(_) => self.dropped += count,
        }
        kept
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length + lines.len() as u64 > self.most_bytes {
            self.halve()?;
        }
        let mut file = files::private().append(true).open(&self.path)?;
        let torn = length > 0 && !self.ends_whole();
        if torn {
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_data()
    }

    fn ends_whole(&self) -> bool {
        use std::os::unix::fs::FileExt;
        let mut last = [0];
        let file = File::open(&self.path);
        let read = file.and_then(|file| {
            let length = file.metadata()?.len();
            file.read_exact_at(&mut last, length.saturating_sub(1))
        });
        read.is_err() || last == *b"\n"
    }

    fn halve(&mut self) -> io::Result<()> {
        let mut letters = self.read()?;
        let older = letters.len().div_ceil(2);
        letters.drain(..older);
        self.dropped += older as u64;
        self.rewrite(&letters)
    }

    /// The oldest, at most `most`.
    pub(super) fn oldest(&self, most: usize) -> io::Result<Vec<Event>> {
        let letters = self.read()?;
        Ok(letters
            .into_iter()
            .take(most)
            .map(|letter| letter.event)
            .collect())
    }

    /// The oldest `count` were refused again: others come before them from now on.
    pub(super) fn put_last(&mut self, count: usize) -> io::Result<()> {
        let mut letters = self.read()?;
        let count = count.min(letters.len());
        letters.rotate_left(count);
        self.rewrite(&letters)
    }

    /// The oldest `count` were delivered after all.
    pub(super) fn remove_oldest(&mut self, count: usize) -> io::Result<()> {
        let mut letters = self.read()?;
        letters.drain(..count.min(letters.len()));
        self.rewrite(&letters)
    }

    /// Lines that a crash tore are left out.
    fn read(&self) -> io::Result<Vec<Letter>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut letters = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            letters.extend(serde_json::from_slice::<Letter>(&line?));
        }
        Ok(letters)
    }

    fn rewrite(&mut self, letters: &[Letter]) -> io::Result<()> {
        files::replace(&self.path, &lines_of(letters)?, Dress::PRIVATE)?;
        self.kept = letters.len() as u64;
        Ok(())
    }
}

fn lines_of(letters: &[Letter]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for letter in letters {
        serde_json::to_writer(&mut lines, letter)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use time::macros::datetime;

    use super::*;
    use crate::webhook::wire::EventType;

    fn events(range: std::ops::Range<u32>) -> Vec<Event> {
        let at = datetime!(2026-03-01 12:00 UTC);
        range
            .map(|n| Event::new(n.to_string(), EventType::IpBlocked, at, Map::new()))
            .collect()
    }

    fn ids(events: &[Event]) -> Vec<u32> {
        events.iter().map(|event| event.id.parse().unwrap()).collect()
    }

    #[test]
    fn they_outlive_the_process_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = DeadLetters::open(folder.path(), 1, 1 << 20);
        letters.put("a", "410 Gone", events(0..3).iter()).unwrap();
        let path = letters.path.clone();
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 9)
            .unwrap();
        let mut letters = DeadLetters::open(folder.path(), 1, 1 << 20);
        assert_eq!(letters.kept(), 2);
        letters.put("a", "410 Gone", events(3..4).iter()).unwrap();
        assert_eq!(ids(&letters.oldest(9).unwrap()), [0, 1, 3]);
        letters.remove_oldest(2).unwrap();
        assert_eq!((ids(&letters.oldest(9).unwrap()), letters.kept()), (vec![3], 1));
    }

    #[test]
    fn when_full_the_older_half_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = DeadLetters::open(folder.path(), 1, 4_096);
        for n in 0..100 {
            letters.put("a", "410 Gone", events(n..n + 1).iter()).unwrap();
            assert!(std::fs::metadata(&letters.path).unwrap().len() <= 4_096);
        }
        assert_eq!(letters.kept() + letters.dropped(), 100);
        assert_eq!(ids(&letters.oldest(100).unwrap()).last(), Some(&99));
    }
}
