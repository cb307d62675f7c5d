//! Files of the log, opened as by somebody who does not trust the folder they are in: no link is followed, no fifo
//! waited for, nothing written that others may write too.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use super::chain::{Hash, Link};
use crate::files;

/// The folder of `path`, made (0750) if it is not there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    files::make_folder(folder(path), 0o750)
}

/// Where `path` is.
pub(super) fn folder(path: &Path) -> &Path {
    let folder = path.parent().unwrap_or(Path::new("."));
    if folder.as_os_str().is_empty() {
        return Path::new(".");
    }
    folder
}

/// A rename or a new name is on the disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Opens `path` to append and read, 0640; makes it if there is none. Locked: two engines would write two chains.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    let file = files::careful()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link, name the file itself"),
            _ => error,
        })?;
    trust(&file.metadata()?)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::other("another process writes it")),
        other => Ok(other.map(|()| file)?),
    }
}

/// What others can write is no evidence, and what has two names may be another file of this host.
fn trust(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.nlink() > 1 {
        return Err(io::Error::other("it has a second name (hard link), remove that"));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(io::Error::other(format!(
            "others may write it (mode {mode:04o}), chmod 0640"
        )));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        return Err(io::Error::other(format!(
            "it belongs to uid {}, not to uid {me}",
            metadata.uid()
        )));
    }
    Ok(())
}

/// What stands at the end of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// Its last whole line, if that is a record.
    pub(super) last: Option<Link>,
    /// Bytes up to and with its last newline.
    pub(super) whole: u64,
    /// What stands behind it.
    pub(super) torn: Vec<u8>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// The end of `file`, read backwards so far as it takes.
pub(super) fn tail(file: &File) -> io::Result<Tail> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST_TAIL);
    let mut bytes = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(start))?;
    reader.take(length - start).read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let torn = bytes.split_off(whole);
    let before = bytes.len().saturating_sub(1);
    let begins = bytes[..before]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let line = &bytes[begins..];
    let seq = serde_json::from_slice::<Numbered>(line).ok();
    Ok(Tail {
        last: seq.map(|Numbered { seq }| Link {
            seq,
            hash: Hash::of(line),
        }),
        whole: start + whole as u64,
        torn,
    })
}

/// Whether the next line can follow what `file` of this length holds.
pub(super) fn ends_in_line(file: &File, length: u64) -> bool {
    let mut last = [0];
    length == 0 || file.read_exact_at(&mut last, length - 1).is_ok() && last == *b"\n"
}

/// The files beside `path` whose names begin with its own: what rotation put aside, ours or logrotate's. In the order
/// in which they were written, as far as names tell: dates, then numbers downwards.
pub(super) fn siblings(path: &Path) -> io::Result<Vec<Sibling>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let other = path.file_name().and_then(|name| name.to_str());
        let Some(end) = other.and_then(|other| other.strip_prefix(name)) else {
            continue;
        };
        if end.starts_with(['.', '-']) {
            let number = end[1..].parse().ok().filter(|_| end.starts_with('.'));
            found.push(Sibling { path, number });
        }
    }
    found.sort_by(|a, b| {
        let age = |sibling: &Sibling| std::cmp::Reverse(sibling.number.unwrap_or(u32::MAX));
        age(a).cmp(&age(b)).then_with(|| a.path.cmp(&b.path))
    });
    Ok(found)
}

/// A file that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    /// 3 of `audit.jsonl.3`.
    pub(super) number: Option<u32>,
}

impl Sibling {
    /// Whether it was packed by others, and cannot be read here.
    pub(super) fn is_packed(&self) -> bool {
        let end = self.path.extension().and_then(|end| end.to_str());
        end.is_some_and(|end| PACKED.contains(&end))
    }

    /// Its last record, if it can be read.
    pub(super) fn last(&self) -> Option<Link> {
        if self.is_packed() {
            return None;
        }
        let file = files::open_to_read(&self.path).ok()?;
        tail(&file).ok()?.last
    }
}

/// Endings of packers that logrotate may call.
const PACKED: [&str; 5] = ["gz", "xz", "zst", "bz2", "lz4"];
/// Lines are some hundred bytes; the longest (a reload that changes everything) a hundred KiB.
const LONGEST_TAIL: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_planted_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("victim"), "x").unwrap();
        symlink(path("victim"), path("link")).unwrap();
        fs::hard_link(path("victim"), path("hard")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        fs::write(path("loose"), "x").unwrap();
        fs::set_permissions(path("loose"), fs::Permissions::from_mode(0o666)).unwrap();
        for (name, why) in [
            ("link", "symbolic link"),
            ("hard", "second name"),
            ("fifo", "not a regular file"),
            ("loose", "mode 0666"),
        ] {
            let error = open_log(&path(name)).expect_err(name).to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        let first = open_log(&path("fine")).unwrap();
        assert_eq!(first.metadata().unwrap().mode() & 0o777, 0o640);
        assert!(
            open_log(&path("fine"))
                .unwrap_err()
                .to_string()
                .contains("another process")
        );
        assert_eq!(fs::read_to_string(path("victim")).unwrap(), "x");
    }

    #[test]
    fn the_end_of_a_file_is_told_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            tail(&File::open(&path).unwrap()).unwrap()
        };
        let link = |seq, line: &str| {
            let hash = Hash::of(line.as_bytes());
            Some(Link { seq, hash })
        };
        assert_eq!(told(""), Tail::default());
        assert_eq!(told("{\"seq\":1}\n").last, link(1, "{\"seq\":1}\n"));
        let torn = told("{\"seq\":1}\n{\"seq\":2}\n{\"se");
        assert_eq!((torn.last, torn.whole), (link(2, "{\"seq\":2}\n"), 20));
        assert_eq!(torn.torn, b"{\"se");
        assert_eq!(told("junk").torn, b"junk");
        assert_eq!(told("{\"seq\":1}\njunk\n").last, None);
    }

    #[test]
    fn siblings_come_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "a",
            "a.1",
            "a.10",
            "a.2",
            "a-20261121",
            "a-20261120.gz",
            "ab",
            "a.1.gz",
            "b.1",
        ] {
            fs::write(path(name), "").unwrap();
        }
        let found = siblings(&path("a")).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|s| s.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["a-20261120.gz", "a-20261121", "a.1.gz", "a.10", "a.2", "a.1"]
        );
        assert!(found[0].is_packed() && !found[1].is_packed());
        assert_eq!(siblings(&path("none/a")).unwrap(), []);
    }
}
