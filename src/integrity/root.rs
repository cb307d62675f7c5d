//! Files below a root, looked at as by somebody who trusts none of them: no link at the end of a path is followed, no
//! fifo waited for, no device opened, and what is said of a file is said of the opened descriptor.
//!
//! Below a root other than `/` every link on the way means what it means inside (`RESOLVE_IN_ROOT`): an image cannot
//! lead us out to files of this host.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::files::identity;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Where paths begin.
pub(super) struct Root {
    top: OwnedFd,
}

/// What stands at a path instead of what was looked for.
#[derive(Debug)]
pub(super) enum Odd {
    /// Nothing.
    Missing,
    /// A symbolic link, and what it says.
    Link(PathBuf),
    /// A directory, pipe, device or socket; or a file where a folder was looked for.
    Kind(&'static str),
    /// It cannot be opened.
    Failed(io::Error),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Root { top })
    }

    /// The regular file at `path`, to read. Looked at before it is opened: opening some devices does something.
    pub(super) fn file(&self, path: &Path) -> Result<(File, Metadata), Odd> {
        let found = self.stand(path)?;
        if !found.is_file() {
            return Err(Odd::Kind(kind(&found)));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.at(path, flags)?);
        let metadata = file.metadata()?;
        match metadata.is_file() {
            true => Ok((file, metadata)),
            false => Err(Odd::Kind(kind(&metadata))),
        }
    }

    /// The directory at `path`.
    pub(super) fn folder(&self, path: &Path) -> Result<(File, Metadata), Odd> {
        let found = self.stand(path)?;
        if !found.is_dir() {
            return Err(Odd::Kind(kind(&found)));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let folder = File::from(self.at(path, flags)?);
        let metadata = folder.metadata()?;
        Ok((folder, metadata))
    }

    /// The directory that `path` leads to, over links too: where systems keep theirs is their own affair.
    pub(super) fn directory(&self, path: &Path) -> Result<File, Odd> {
        Ok(File::from(self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?))
    }

    /// What the directory at `path` holds, sorted; nothing if there is none.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let directory = match self.directory(path) {
            Ok(directory) => directory,
            Err(Odd::Missing) => return Ok(Vec::new()),
            Err(odd) => return Err(odd.into()),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_bytes().to_owned();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Every directory that has to be passed on the way to `path`, links included: who may write in one of them can put
    /// something else in its place. Keyed by device and inode, so that each is told once.
    pub(super) fn way(&self, path: &Path, passed: &mut BTreeMap<(u64, u64), Passed>) -> io::Result<()> {
        let top = File::from(openat2_retried(&self.top, Path::new("/"), OFlags::PATH)?).metadata()?;
        // From the top, so that a folder is called by its shortest name; what lies behind a link comes by "..".
        let ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        for ancestor in ancestors.into_iter().rev() {
            let Ok(opened) = self.at(ancestor, OFlags::PATH | OFlags::DIRECTORY) else {
                continue; // not there, and so nobody passes; what cannot be opened shows at the file itself
            };
            let mut here = File::from(opened);
            let mut name = ancestor.to_owned();
            for _ in 0..DEEPEST {
                let metadata = here.metadata()?;
                let Entry::Vacant(unknown) = passed.entry(identity(&metadata)) else {
                    break; // known, and so all above it
                };
                unknown.insert(Passed::of(name.clone(), &metadata));
                if identity(&metadata) == identity(&top) {
                    break;
                }
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                here = File::from(openat(&here, "..", flags, Mode::empty())?);
                name = name.join("..");
            }
        }
        Ok(())
    }

    /// What stands at the end of `path`, a link as itself.
    fn stand(&self, path: &Path) -> Result<Metadata, Odd> {
        let stand = self.at(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        if let Ok(target) = readlinkat(&stand, "", Vec::new())
            && !target.is_empty()
        {
            return Err(Odd::Link(OsString::from_vec(target.into_bytes()).into()));
        }
        Ok(File::from(stand).metadata()?)
    }

    fn at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Odd> {
        openat2_retried(&self.top, path, flags).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Odd::Missing,
            // It was looked at a moment before, and has been replaced since.
            Errno::LOOP => Odd::Kind("a symbolic link"),
            Errno::NXIO => Odd::Kind("a socket or device"),
            other => Odd::Failed(other.into()),
        })
    }
}

/// A directory on the way to a file.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) name: PathBuf,
    pub(super) uid: u32,
    pub(super) mode: u32,
}

impl Passed {
    fn of(name: PathBuf, metadata: &Metadata) -> Passed {
        Passed {
            name,
            uid: metadata.uid(),
            mode: metadata.mode() & 0o7777,
        }
    }

    /// Why somebody else than root can put other files in it; a sticky bit would keep him from it only as long as there
    /// is a file.
    pub(super) fn looseness(&self) -> Option<String> {
        match self {
            Passed { uid, .. } if *uid != 0 => Some(format!("it belongs to uid {uid}")),
            Passed { mode, .. } if mode & 0o022 != 0 => Some(format!("its mode is {mode:04o}")),
            _ => None,
        }
    }
}

impl From<io::Error> for Odd {
    fn from(error: io::Error) -> Odd {
        Odd::Failed(error)
    }
}

impl From<Odd> for io::Error {
    fn from(odd: Odd) -> io::Error {
        match odd {
            Odd::Missing => io::Error::new(io::ErrorKind::NotFound, "it is not there"),
            Odd::Link(target) => io::Error::other(format!("it is a symbolic link to {target:?}")),
            Odd::Kind(kind) => io::Error::other(format!("it is {kind}")),
            Odd::Failed(error) => error,
        }
    }
}

/// The kernel gives up (EAGAIN) where something on the way is renamed meanwhile.
fn openat2_retried(top: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let mut tries = 0..TRIES;
    loop {
        match openat2(&top, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries.next().is_some() => {}
            other => return other,
        }
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "a regular file",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_symlink() => "a symbolic link",
        () => "a device",
    }
}

/// No path of 4,096 bytes has more folders.
const DEEPEST: usize = 2_048;
const TRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_inside_leads_nowhere_outside() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("usr/lib")).unwrap();
        fs::write(image.path().join("usr/lib/x"), "inside").unwrap();
        symlink("/usr/lib", image.path().join("lib")).unwrap();
        symlink("../../../../../../usr/lib", image.path().join("up")).unwrap();
        let root = Root::open(image.path()).unwrap();
        for path in ["/lib/x", "/up/x", "/usr/lib/x"] {
            let (mut file, _) = root.file(Path::new(path)).unwrap();
            let text = io::read_to_string(&mut file).unwrap();
            assert_eq!(text, "inside");
        }
        assert!(
            matches!(root.file(Path::new("/lib")), Err(Odd::Link(target)) if target == Path::new("/usr/lib"))
        );
        assert!(matches!(
            root.file(Path::new("/usr")),
            Err(Odd::Kind("a directory"))
        ));
        assert!(matches!(root.file(Path::new("/usr/lib/x/y")), Err(Odd::Missing)));
    }

    #[test]
    fn every_folder_on_the_way_is_passed_also_behind_a_link() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("real/deep/bin")).unwrap();
        symlink("/real/deep", image.path().join("short")).unwrap();
        let loose = image.path().join("real");
        fs::set_permissions(&loose, fs::Permissions::from_mode(0o777)).unwrap();
        let root = Root::open(image.path()).unwrap();
        let mut passed = BTreeMap::new();
        root.way(Path::new("/short/bin/verdictd"), &mut passed).unwrap();
        assert_eq!(passed.len(), 4); // the top, real, deep, bin
        let loose: Vec<&Passed> = passed
            .values()
            .filter(|passed| passed.looseness().is_some())
            .collect();
        assert_eq!((loose.len(), loose[0].mode), (1, 0o777));
    }
}
