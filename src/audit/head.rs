//! The head: how far the log goes, in a small file apart from it, so that lines cut off at its end are missed.
//!
//! Before lines are written it says which line will be the last, afterwards that it is. So a crash at any moment is told
//! from a hand: what is in the log is at least what was confirmed, and at most what was announced. Two slots are
//! written in turn, in place: a power cut spoils one of them, a full disk none.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::chain::{Hash, Link};
use crate::files;

/// What the head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The first line's `prev`; all zeros where that is not known.
    pub chain: Hash,
    /// The last line that is on the disk for certain.
    pub confirmed: Link,
    /// The last line of what is being written; equal to `confirmed` while nothing is.
    pub announced: Link,
    /// Which writing of the head this is.
    turn: u64,
}

/// What there is of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file.
    None,
    /// A file that holds no head.
    Spoiled,
    /// A head.
    Head(Head),
}

/// The file of a head.
#[derive(Debug)]
pub struct HeadFile {
    file: File,
}

impl Head {
    /// Before a chain's first line.
    pub fn new(chain: Hash) -> Head {
        let link = Link { seq: 0, hash: chain };
        Head {
            chain,
            confirmed: link,
            announced: link,
            turn: 0,
        }
    }

    /// At the end of a chain whose id nobody knows any more: all zeros.
    pub(super) fn at(link: Link) -> Head {
        Head {
            confirmed: link,
            announced: link,
            ..Head::default()
        }
    }

    fn slot(&self) -> String {
        let (c, a) = (&self.confirmed, &self.announced);
        let mut text = format!(
            "{:020} {:020} {} {:020} {} {} ",
            self.turn, c.seq, c.hash, a.seq, a.hash, self.chain
        );
        let check = Hash::of(text.as_bytes());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{check}");
        text
    }

    fn parse(slot: &[u8]) -> Option<Head> {
        let text = std::str::from_utf8(slot).ok()?;
        let (body, check) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        let body = format!("{body} ");
        if Hash::parse(check)? != Hash::of(body.as_bytes()) {
            return None;
        }
        let mut words = body.split_ascii_whitespace();
        let turn = words.next()?.parse().ok()?;
        let mut link = || -> Option<Link> {
            let seq = words.next()?.parse().ok()?;
            let hash = Hash::parse(words.next()?)?;
            Some(Link { seq, hash })
        };
        let (confirmed, announced) = (link()?, link()?);
        let chain = Hash::parse(words.next()?)?;
        Some(Head {
            chain,
            confirmed,
            announced,
            turn,
        })
    }
}

/// Reads the head at `path`.
///
/// # Errors
/// If a file is there and cannot be read.
pub fn read(path: &Path) -> io::Result<Found> {
    let file = match files::open_to_read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(2 * SLOT).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(Found::None); // made, and the engine was killed before it said anything
    }
    let slots = bytes.chunks(SLOT as usize).filter_map(Head::parse);
    Ok(slots
        .max_by_key(|head| head.turn)
        .map_or(Found::Spoiled, Found::Head))
}

impl HeadFile {
    /// Opens `path` to write, 0640, or makes it.
    ///
    /// # Errors
    /// If the file cannot be had.
    pub fn open(path: &Path) -> io::Result<HeadFile> {
        let file = files::careful()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(HeadFile { file })
    }

    /// Whether `path` still means this file.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let named = std::fs::symlink_metadata(path).map(|named| files::identity(&named));
        let ours = self.file.metadata().map(|ours| files::identity(&ours));
        matches!((named, ours), (Ok(named), Ok(ours)) if named == ours)
    }

    /// Writes `head` over the older slot; `synced`: and waits until it is on the disk.
    ///
    /// # Errors
    /// If it is not; the other slot is as it was.
    pub fn write(&self, head: &mut Head, synced: bool) -> io::Result<()> {
        head.turn += 1;
        let slot = head.slot();
        debug_assert_eq!(slot.len() as u64, SLOT);
        self.file.write_all_at(slot.as_bytes(), head.turn % 2 * SLOT)?;
        if synced {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Three numbers of 20 digits, four hashes, their spaces, and the newline.
const SLOT: u64 = 3 * 21 + 4 * 65;

#[cfg(test)]
mod tests {
    use super::*;

    fn link(seq: u64) -> Link {
        Link {
            seq,
            hash: Hash::of(&seq.to_le_bytes()),
        }
    }

    #[test]
    fn the_newest_slot_that_is_whole_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        assert_eq!(read(&path).unwrap(), Found::None);
        let file = HeadFile::open(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Found::None);
        let mut head = Head::new(Hash::of(b"chain"));
        for seq in 1..=5 {
            (head.confirmed, head.announced) = (link(seq), link(seq + 1));
            file.write(&mut head, true).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Head(head));
        }
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let Found::Head(found) = read(&path).unwrap() else {
                panic!("no slot is left after a flip at {at}");
            };
            assert!(
                found == head || found.confirmed == link(4),
                "flip at {at}: {found:?}"
            );
        }
    }
}
