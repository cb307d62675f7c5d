//! Rotation: a full file becomes `.1`, what was `.1` becomes `.2`, and what is beyond `keep` goes, but only after the
//! chain says so. A crash in between loses nothing: at worst one file too many stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::place::{self, Sibling};
use super::record::Removed;

/// What a rotation is about to do, or did.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// Files beyond `keep`, to be removed once the record of it is on the disk.
    doomed: Vec<PathBuf>,
    /// What that record says of them.
    pub(super) removed: Option<Removed>,
}

/// The name under which the file that was written last is kept.
pub(super) fn first_name(path: &Path) -> PathBuf {
    numbered(path, 1)
}

/// Moves every file on by one number, so that `path` is free.
///
/// # Errors
/// If a name cannot be changed; those before it have changed theirs, and order is kept.
pub(super) fn shift(path: &Path, keep: u32) -> io::Result<Rotation> {
    let mut rotation = Rotation::default();
    // Oldest first: each name is free when it is taken.
    for Sibling { path: old, number } in place::siblings(path)? {
        let Some(number) = number.filter(|number| *number > 0 && *number < u32::MAX) else {
            continue;
        };
        let aside = numbered(path, number + 1);
        let last = Sibling {
            path: old.clone(),
            number: None,
        };
        if number >= keep {
            let removed = last.last().map(|link| Removed {
                through: link.seq,
                sha256: link.hash.to_string(),
            });
            let newest = rotation.removed.take().into_iter().chain(removed);
            rotation.removed = newest.max_by_key(|removed| removed.through);
            rotation.doomed.push(aside.clone());
        }
        fs::rename(&old, &aside)?;
    }
    fs::rename(path, first_name(path))?;
    place::sync_folder(path)?;
    Ok(rotation)
}

impl Rotation {
    /// Removes what is beyond `keep`. What cannot be removed stays until the next rotation.
    pub(super) fn finish(&self) {
        for path in &self.doomed {
            let _ = fs::remove_file(path);
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_on_and_what_is_beyond_goes_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        for (name, seq) in [("log", 9), ("log.1", 8), ("log.2", 7), ("log.4", 6)] {
            fs::write(folder.path().join(name), format!("{{\"seq\":{seq}}}\n")).unwrap();
        }
        let rotation = shift(&path, 2).unwrap();
        assert_eq!(rotation.removed.as_ref().map(|removed| removed.through), Some(7));
        assert_eq!(text("log"), None);
        for (name, seq) in [("log.1", 9), ("log.2", 8), ("log.3", 7), ("log.5", 6)] {
            assert_eq!(text(name), Some(format!("{{\"seq\":{seq}}}\n")), "{name}");
        }
        rotation.finish();
        assert_eq!(
            (text("log.2").is_some(), text("log.3"), text("log.5")),
            (true, None, None)
        );
    }
}
