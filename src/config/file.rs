//! From a path to text: bounded, never blocking, whatever lies there.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::problem::Problem;

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    // O_NONBLOCK: a fifo without a writer would hold open() for ever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = opened.map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() {
            "is a directory"
        } else {
            "is a pipe, device or socket"
        };
        return Err(whole_file(kind, "name a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(whole_file(
            "is larger than 1 MiB",
            "keep it below: no config needs more",
        ));
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))
}

fn unreadable(error: &std::io::Error) -> Problem {
    match error.kind() {
        ErrorKind::NotFound => whole_file("no such file", "write one, or name another with --config"),
        ErrorKind::PermissionDenied => whole_file("permission denied", "let the user of verdictd read it"),
        _ => whole_file(&format!("cannot be read: {error}"), ""),
    }
}

fn whole_file(wrong: &str, right: &str) -> Problem {
    Problem {
        wrong: wrong.into(),
        right: right.into(),
        ..Problem::default()
    }
}

fn not_utf8(bytes: &[u8], good: usize) -> Problem {
    Problem {
        line: Some(1 + bytes[..good].iter().filter(|byte| **byte == b'\n').count()),
        found: format!("byte 0x{:02x}", bytes[good]),
        wrong: "is not UTF-8".into(),
        right: "save the file as UTF-8".into(),
        ..Problem::default()
    }
}

/// The largest config that is read: a hundred times one with everything in it.
const LARGEST: u64 = 1 << 20;
