//! Files that cannot be used, kept for whoever wants to know why: `.bad` is the newest, [`BAD_KEPT`] are kept in all.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Place;
use crate::files::identity;

/// Files that are to be set aside, in the order in which they were found: names are known once all of them are.
pub(super) struct Aside<'a> {
    place: &'a Place,
    /// For a look: nothing is touched.
    only_looks: bool,
    found: Vec<Bad>,
}

/// A file that cannot be used as it is.
struct Bad {
    name: String,
    /// It is needed where it is; a copy is kept.
    stays: bool,
}

impl<'a> Aside<'a> {
    pub(super) fn of(place: &'a Place, only_looks: bool) -> Aside<'a> {
        Aside {
            place,
            only_looks,
            found: Vec::new(),
        }
    }

    pub(super) fn only_looks(&self) -> bool {
        self.only_looks
    }

    /// Notes a file that nothing can be made of. Returns its number.
    pub(super) fn put(&mut self, name: &str) -> usize {
        self.add(name, false)
    }

    /// Notes a file of which something can be made, and which has to stay.
    pub(super) fn put_copy(&mut self, name: &str) -> usize {
        self.add(name, true)
    }

    fn add(&mut self, name: &str, stays: bool) -> usize {
        self.found.push(Bad {
            name: name.into(),
            stays,
        });
        self.found.len() - 1
    }

    /// Sets them aside and says of each, by its number, what became of it.
    pub(super) fn done(self) -> Vec<String> {
        if self.only_looks {
            return self
                .found
                .iter()
                .map(|_| "it is left where it is".into())
                .collect();
        }
        let kept = &self.found[..self.found.len().min(BAD_KEPT)];
        kept.iter()
            .filter(|bad| bad.stays)
            .for_each(|bad| self.drop_copies_of(bad));
        self.make_room(kept.len());
        let of_number = |(nth, bad)| self.set_aside(bad, nth);
        self.found.iter().enumerate().map(of_number).collect()
    }

    /// A start after a start that found it: one copy is enough.
    fn drop_copies_of(&self, bad: &Bad) {
        let of = |path: &Path| fs::symlink_metadata(path).ok().map(|facts| identity(&facts));
        let original = of(&self.place.directory.join(&bad.name));
        for nth in 0..BAD_KEPT {
            let copy = self.bad(nth);
            if original.is_some() && of(&copy) == original {
                let _ = fs::remove_file(copy);
            }
        }
    }

    /// What is not there needs no place; what cannot be moved is told when its place is wanted.
    fn make_room(&self, wanted: usize) {
        for nth in (0..BAD_KEPT.saturating_sub(wanted)).rev().filter(|_| wanted > 0) {
            let _ = fs::rename(self.bad(nth), self.bad(nth + wanted));
        }
    }

    fn set_aside(&self, bad: &Bad, nth: usize) -> String {
        if nth >= BAD_KEPT {
            return "it is left where it is".into();
        }
        let (from, to) = (self.place.directory.join(&bad.name), self.bad(nth));
        let moved = match bad.stays {
            true => copy(&from, &to),
            false => fs::rename(from, &to),
        };
        match (moved, bad.stays) {
            (Ok(()), false) => format!("kept as {}", to.display()),
            (Ok(()), true) => format!("a copy is kept as {}", to.display()),
            (Err(error), _) => format!("and cannot be set aside: {error}"),
        }
    }

    fn bad(&self, nth: usize) -> PathBuf {
        let suffix = match nth {
            0 => ".bad".to_owned(),
            nth => format!(".bad.{nth}"),
        };
        self.place.directory.join(self.place.named(&suffix))
    }
}

/// A second name for it, which costs nothing; where the file system has none, its bytes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(from, to).or_else(|_| {
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        io::copy(&mut crate::files::open_to_read(from)?, &mut target).map(drop)
    })
}

/// How many files that cannot be used are kept.
const BAD_KEPT: usize = 3;
