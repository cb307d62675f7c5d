//! What lies in the state's folder, for people: nothing is renamed, written or judged here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::snapshot::PREVIOUS;
use super::{Place, State, Unreadable, decode};
use crate::files;

/// A file of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Where it is.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// When it was written, RFC 3339 in UTC.
    pub modified: Option<String>,
}

/// What a file of the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The newest snapshot.
    Snapshot,
    /// The one before it.
    Previous,
    /// What happened since.
    Journal,
    /// A snapshot that is being written, or was when a process died.
    Unfinished,
    /// It could not be read, and is kept for people.
    Bad,
    /// The Python system's, kept after its import.
    Python,
}

impl Kind {
    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Previous => "the one before",
            Kind::Journal => "journal",
            Kind::Unfinished => "unfinished",
            Kind::Bad => "unreadable, kept",
            Kind::Python => "of the Python system, kept",
        }
    }

    /// One word, as it is on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Previous => "previous",
            Kind::Journal => "journal",
            Kind::Unfinished => "unfinished",
            Kind::Bad => "bad",
            Kind::Python => "python",
        }
    }

    fn of(suffix: &str) -> Option<Kind> {
        match suffix {
            "" => Some(Kind::Snapshot),
            PREVIOUS => Some(Kind::Previous),
            ".new" => Some(Kind::Unfinished),
            _ if suffix.starts_with(".journal-") => Some(Kind::Journal),
            _ if suffix.contains(".python") => Some(Kind::Python),
            _ if suffix.contains(".bad") => Some(Kind::Bad),
            _ => None,
        }
    }
}

/// The files of the state at `place`, by name; [`MOST_FILES`] at most.
///
/// # Errors
/// If the folder cannot be read.
pub fn files(place: &Place) -> io::Result<Vec<KeptFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&place.directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = name
            .to_str()
            .and_then(|name| name.strip_prefix(&place.name))
            .and_then(Kind::of);
        let (Some(kind), Ok(facts)) = (kind, entry.metadata()) else {
            continue;
        };
        found.push(KeptFile {
            path: entry.path().display().to_string(),
            kind,
            bytes: facts.len(),
            modified: facts.modified().ok().map(|at| second(at.into())),
        });
        if found.len() >= MOST_FILES {
            break;
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// What the newest snapshot says of itself before its first record: when it was saved, and its number.
pub fn head(place: &Place) -> (Option<String>, Option<u64>) {
    let mut text = Vec::new();
    // What cannot be opened says nothing; who wants to know why loads it.
    if let Ok(file) = files::open_to_read(&place.path()) {
        let _ = file.take(HEAD).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let told = |key: &str| {
        let mut lines = text.lines().take_while(|line| !line.ends_with('['));
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        value.map(|value| value.trim().to_owned())
    };
    let saved_at = told("saved_at").filter(|at| OffsetDateTime::parse(at, &Rfc3339).is_ok());
    (
        saved_at,
        told("generation").and_then(|number| number.parse().ok()),
    )
}

/// One snapshot, as it is.
///
/// # Errors
/// If it cannot be opened or read.
pub fn read(path: &Path) -> Result<(File, State), Unreadable> {
    let mut file = files::open_to_read(path)?;
    let state = decode(&mut file, usize::MAX)?;
    Ok((file, state))
}

/// RFC 3339 in UTC, whole seconds.
pub fn second(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339)
        .unwrap_or_else(|_| at.unix_timestamp().to_string())
}

const MOST_FILES: usize = 1000;
const HEAD: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_told_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "state.toml",
            "state.toml.1",
            "state.toml.journal-7",
            "state.toml.bad.1",
            "state.toml.python",
            "state.toml.new",
            "lock",
            "state.toml.swp",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let place = Place::new(folder.path(), None);
        let kinds: Vec<Kind> = files(&place).unwrap().iter().map(|file| file.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Snapshot,
                Kind::Previous,
                Kind::Bad,
                Kind::Journal,
                Kind::Unfinished,
                Kind::Python
            ]
        );
        let nowhere = Place::new(&folder.path().join("nowhere"), None);
        assert!(files(&nowhere).is_err());
    }

    #[test]
    fn a_snapshot_says_when_it_was_saved_and_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), None);
        assert_eq!(head(&place), (None, None));
        let text =
            "version = 1\nsaved_at = 2026-03-01T12:00:00.25Z\ngeneration = 41\nbans = [\nsaved_at = x\n";
        fs::write(place.path(), text).unwrap();
        assert_eq!(head(&place), (Some("2026-03-01T12:00:00.25Z".into()), Some(41)));
        fs::write(place.path(), "saved_at = soon\ngeneration = -1\n").unwrap();
        assert_eq!(head(&place), (None, None));
    }
}
