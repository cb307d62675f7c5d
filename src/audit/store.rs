//! The log on the disk: takes up the chain where it ended, appends whole batches or nothing, puts full files aside.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use super::AuditConfig;
use super::chain::{Hash, Link};
use super::head::{self, Found, Head, HeadFile};
use super::place::{self, Tail};
use super::record::What;
use super::rotate::{self, Rotation};
use crate::files::{self, Identity};

/// Why nothing is written.
#[derive(Debug, Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A record and when it happened.
pub type Entry = (SystemTime, What);

/// The log, being written.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    head_path: PathBuf,
    max_bytes: u64,
    keep: u32,
    head: Head,
    head_file: HeadFile,
    /// The end of what is on the disk.
    link: Link,
    file: Option<Open>,
    /// What the next batch begins with.
    first: Vec<What>,
    rotation: Option<Rotation>,
    unrotated: Option<StoreError>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: Identity,
    /// Bytes that are ours; what is behind them is a batch that failed.
    length: u64,
    /// A batch failed and is still behind them.
    dirty: bool,
    /// Somebody left an unfinished line behind ours.
    glued: bool,
}

impl Store {
    /// Opens the log at `path`, whose head is at `head_path`, and takes up its chain, or begins one.
    ///
    /// # Errors
    /// If log or head cannot be had.
    pub fn open(path: &Path, head_path: &Path, config: &AuditConfig) -> Result<Store, StoreError> {
        place::make_folder(path).map_err(fault("make the folder of", path))?;
        let file = place::open_log(path).map_err(fault("open", path))?;
        let tail = place::tail(&file).map_err(fault("read", path))?;
        let identity = files::identity(&file.metadata().map_err(fault("look at", path))?);
        let found = head::read(head_path).map_err(fault("read", head_path))?;
        let beside = place::siblings(path).map_err(fault("look beside", path))?;
        let aside = beside
            .iter()
            .filter_map(place::Sibling::last)
            .max_by_key(|link| link.seq);
        let Resumed { head, link, first } = resume(found, &tail, aside).map_err(fault("begin", path))?;
        if !tail.torn.is_empty() {
            file.set_len(tail.whole).map_err(fault("mend", path))?;
        }
        let store = Store {
            path: path.to_owned(),
            head_path: head_path.to_owned(),
            max_bytes: config.max_bytes,
            keep: config.keep,
            head,
            head_file: HeadFile::open(head_path).map_err(fault("open", head_path))?,
            link,
            file: Some(Open {
                file,
                identity,
                length: tail.whole,
                dirty: false,
                glued: false,
            }),
            first,
            rotation: None,
            unrotated: None,
        };
        place::sync_folder(path).map_err(fault("sync the folder of", path))?;
        Ok(store)
    }

    /// The end of the chain.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Why the file grows beyond its size, if it does.
    pub fn unrotated(&self) -> Option<&StoreError> {
        self.unrotated.as_ref()
    }

    /// Other sizes from now on.
    pub fn configure(&mut self, config: &AuditConfig) {
        (self.max_bytes, self.keep) = (config.max_bytes, config.keep);
    }

    /// Looks after the file while nothing is written: it may be gone, or not be as it was left. Whether there is
    /// something to record about it.
    pub fn look(&mut self) -> bool {
        self.notice();
        // What cannot be made again fails the next batch, which says so.
        let _ = self.keep_head();
        self.file.is_none() || !self.first.is_empty()
    }

    /// Writes `entries`, all of them or none, and waits until they are on the disk.
    ///
    /// # Errors
    /// If they are not; they are to be given again.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.notice();
        self.reopen()?;
        self.keep_head()?;
        if self.is_full() {
            // Fails open: a file that is too long is better than none.
            self.unrotated = self.shift().err();
            self.reopen()?;
        }
        let (text, link) = self.lines(entries);
        if text.is_empty() {
            return Ok(());
        }
        self.head.announced = link;
        self.head_file
            .write(&mut self.head, true)
            .map_err(fault("write", &self.head_path))?;
        let open = self.file.as_mut().expect("it was opened above");
        open.write(text.as_bytes()).map_err(fault("write", &self.path))?;
        self.link = link;
        self.first.clear();
        (self.head.confirmed, self.head.announced) = (link, link);
        // Not synced: after a power cut the announcement before counts, and vouches for the same lines. Nor is a failure
        // one of the batch, which is on the disk: the next announcement says what is wrong.
        let _ = self.head_file.write(&mut self.head, false);
        if let Some(rotation) = self.rotation.take() {
            rotation.finish();
        }
        Ok(())
    }

    /// The head is on the disk as it is.
    pub fn close(mut self) {
        let _ = self.head_file.write(&mut self.head, true);
    }

    fn lines(&self, entries: &[Entry]) -> (String, Link) {
        let (mut link, mut text, now) = (self.link, String::new(), SystemTime::now());
        if self.file.as_ref().is_some_and(|open| open.glued) && !entries.is_empty() {
            text.push('\n');
        }
        for what in &self.first {
            // Lines that are missing keep their numbers: a chain that went on as if nothing were would hide it.
            let last = self.head.confirmed.seq.max(link.seq);
            text += &link.skip_to(last + 1, what, now);
        }
        for (at, what) in entries {
            text += &link.append(what, *at);
        }
        (text, link)
    }

    fn is_full(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|open| open.length >= self.max_bytes)
    }

    fn shift(&mut self) -> Result<(), StoreError> {
        let rotation = rotate::shift(&self.path, self.keep).map_err(fault("put aside", &self.path))?;
        self.file = None;
        let aside = rotate::first_name(&self.path);
        let name = aside.file_name().map(|name| name.to_string_lossy().into_owned());
        self.first.push(What::Rotate {
            closed: name.unwrap_or_default(),
            removed: rotation.removed.clone(),
        });
        self.rotation = Some(rotation);
        Ok(())
    }

    /// The file is there, or is made again where somebody took it away.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.file.is_some() {
            return Ok(());
        }
        self.create()
    }

    fn create(&mut self) -> Result<(), StoreError> {
        place::make_folder(&self.path).map_err(fault("make the folder of", &self.path))?;
        let file = place::open_log(&self.path).map_err(fault("open", &self.path))?;
        let metadata = file.metadata().map_err(fault("look at", &self.path))?;
        if metadata.len() > 0 {
            let why = format!("{} bytes that are not ours stood in the new file", metadata.len());
            self.tell(What::Broken { why });
        }
        place::sync_folder(&self.path).map_err(fault("sync the folder of", &self.path))?;
        self.file = Some(Open {
            identity: files::identity(&metadata),
            length: metadata.len(),
            dirty: false,
            glued: !place::ends_in_line(&file, metadata.len()),
            file,
        });
        Ok(())
    }

    /// Whether the name still means our file, and the file is as long as we left it.
    fn notice(&mut self) {
        let Some(open) = &mut self.file else { return };
        let named = fs::symlink_metadata(&self.path);
        match named.as_ref().map(files::identity) {
            Ok(identity) if identity == open.identity => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return,
            other => {
                let why = match other {
                    Ok(_) => "another file has its name",
                    Err(_) => "the file was moved away or removed",
                };
                self.file = None;
                self.tell(What::Reopen { why: why.into() });
                return;
            }
        }
        if !open.mend() {
            return;
        }
        let length = open
            .file
            .metadata()
            .map_or(open.length, |metadata| metadata.size());
        if length != open.length {
            let why = format!("the file was {} bytes long and is {length}", open.length);
            open.length = length;
            open.glued = !place::ends_in_line(&open.file, length);
            self.tell(What::Broken { why });
        }
    }

    /// Somebody may have taken the head away; it is made again, and that is recorded.
    fn keep_head(&mut self) -> Result<(), StoreError> {
        if self.head_file.is_at(&self.head_path) {
            return Ok(());
        }
        self.head_file = HeadFile::open(&self.head_path).map_err(fault("open", &self.head_path))?;
        let why = "the head in the state directory was moved away or removed".into();
        self.tell(What::Broken { why });
        self.head_file
            .write(&mut self.head, true)
            .map_err(fault("write", &self.head_path))
    }

    fn tell(&mut self, what: What) {
        if self.first.len() < MOST_FIRST && !self.first.contains(&what) {
            self.first.push(what);
        }
    }
}

impl Open {
    /// Appends `bytes` and syncs, or takes back what was written of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.mend() {
            return Err(io::Error::other(
                "what was written of the last batch cannot be taken back",
            ));
        }
        let mut file = &self.file;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        self.dirty = written.is_err();
        self.mend();
        written.inspect(|()| {
            self.length += bytes.len() as u64;
            self.glued = false;
        })
    }

    /// Nothing of a failed batch is left behind what is ours; `false`: not yet.
    fn mend(&mut self) -> bool {
        self.dirty = self.dirty && self.file.set_len(self.length).is_err();
        !self.dirty
    }
}

/// Where the chain goes on.
struct Resumed {
    head: Head,
    link: Link,
    first: Vec<What>,
}

/// By the head and the end of the file; `aside`: the last line of all files that were put aside.
fn resume(found: Found, tail: &Tail, aside: Option<Link>) -> io::Result<Resumed> {
    let mut first = Vec::new();
    let last = tail.last.into_iter().chain(aside).max_by_key(|link| link.seq);
    let has_lines = tail.whole > 0;
    let (mut head, link) = match (found, last) {
        (Found::Head(head), None) if !has_lines => {
            if head.confirmed.seq > 0 {
                let why = "the file was moved away or removed".into();
                first.push(What::Reopen { why });
            }
            (head, head.confirmed)
        }
        (Found::None, None) if !has_lines => {
            let head = Head::new(Hash::drawn()?);
            (head, head.confirmed)
        }
        (Found::Head(head), last) => {
            let link = last.unwrap_or(head.confirmed);
            first.extend(
                differs(&head, link, tail.last.is_none() && has_lines).map(|why| What::Broken { why }),
            );
            (head, link)
        }
        (found, last) => {
            let why = match found {
                Found::Spoiled => "the head in the state directory is spoiled",
                _ => "the head in the state directory is gone",
            };
            let why = format!("{why}: whether lines are missing at the end cannot be told");
            first.push(What::Broken { why });
            let link = last.map_or_else(|| Hash::drawn().map(|hash| Link { seq: 0, hash }), Ok)?;
            (Head::at(link), link)
        }
    };
    if !tail.torn.is_empty() {
        let fragment = &tail.torn[..tail.torn.len().min(MOST_FRAGMENT)];
        first.push(What::Torn {
            bytes: tail.torn.len() as u64,
            fragment: String::from_utf8_lossy(fragment).into_owned(),
        });
    }
    // What was announced beyond is not there, and never was confirmed.
    head.announced = head.confirmed;
    Ok(Resumed { head, link, first })
}

/// What is not as `head` says, if so.
fn differs(head: &Head, last: Link, unreadable: bool) -> Option<String> {
    let (confirmed, announced) = (head.confirmed, head.announced);
    if unreadable {
        return Some(format!(
            "its last line is no record; line {} was the last",
            confirmed.seq
        ));
    }
    if last.seq < confirmed.seq {
        return Some(format!(
            "it ends with line {}; line {} was the last",
            last.seq, confirmed.seq
        ));
    }
    if last.seq > announced.seq {
        return Some(format!(
            "it ends with line {}; {} was the last that was written",
            last.seq, announced.seq
        ));
    }
    let changed = [confirmed, announced]
        .iter()
        .any(|link| link.seq == last.seq && link.hash != last.hash);
    changed.then(|| format!("its last line, {}, is not the one that was written", last.seq))
}

fn fault(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Of a line that was not finished.
const MOST_FRAGMENT: usize = 4096;
/// While the disk is full somebody may go on playing with the file.
const MOST_FIRST: usize = 16;
