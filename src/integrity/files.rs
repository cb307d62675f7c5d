//! Which files the seal covers.
//!
//! What runs (binaries, what units call before them, units and their drop-ins, what the loader puts into every program) and
//! what says how (configuration, nft file). Nothing that changes by itself: no state, no log. The receiver is another
//! package's, often on another host: it is none of it. Of secrets owner and mode, not the content: a hash of a weak one helps to guess it, and
//! manifests are meant to be copied elsewhere; besides, secrets are changed on purpose.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::root::{Odd, Root};
use crate::places;

/// What a file is to this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A program.
    Binary,
    /// A unit or a drop-in of one.
    Unit,
    /// What the loader puts into every program.
    Loader,
    /// The configuration.
    Config,
    /// The table as text.
    Nft,
    /// The secret of a webhook.
    Secret,
    /// The folder of all that.
    Folder,
}

impl Kind {
    const ALL: [(Kind, &str); 7] = [
        (Kind::Binary, "binary"),
        (Kind::Unit, "unit"),
        (Kind::Loader, "loader"),
        (Kind::Config, "config"),
        (Kind::Nft, "nft"),
        (Kind::Secret, "secret"),
        (Kind::Folder, "folder"),
    ];

    /// Whether its content is sealed.
    pub(super) fn is_hashed(self) -> bool {
        !matches!(self, Kind::Secret | Kind::Folder)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Kind::ALL.iter().find(|(kind, _)| kind == self);
        f.write_str(found.map_or("", |(_, word)| word))
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Kind, ()> {
        let found = Kind::ALL.iter().find(|(_, word)| *word == text);
        found.map(|(kind, _)| *kind).ok_or(())
    }
}

/// Units of this program and their drop-ins that systemd would read below `root`, in order. One that is masked (a link
/// to `/dev/null`) is none: nothing of it runs.
pub(super) fn units(root: &Root) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for folder in UNIT_FOLDERS.map(Path::new) {
        // /lib is /usr/lib on most systems: each folder is read once, by its first name.
        let Ok(directory) = root.directory(folder) else {
            continue;
        };
        let which = crate::files::identity(&directory.metadata()?);
        if seen.contains(&which) {
            continue;
        }
        seen.push(which);
        for name in root.names(folder)? {
            let path = folder.join(&name);
            if is_unit(&name) && !is_masked(root, &path) {
                found.push(path);
            } else if name.as_bytes().strip_suffix(b".d").is_some_and(has_drop_ins) {
                drop_ins(root, path, &mut found)?;
            }
        }
    }
    Ok(found)
}

/// What the package's units call before they start a program, in order.
pub(super) fn helpers(root: &Root) -> io::Result<Vec<PathBuf>> {
    let folder = Path::new(HELPERS);
    match root.directory(folder) {
        Ok(_) => Ok(root.names(folder)?.iter().map(|name| folder.join(name)).collect()),
        Err(Odd::Missing) => Ok(Vec::new()),
        Err(odd) => Err(odd.into()),
    }
}

/// Whether `path` is gone after a reboot: that it is missing then is no difference.
pub(super) fn is_fleeting(path: &Path) -> bool {
    path.starts_with("/run")
}

/// A file in each folder of units that is there, for [`Root::way`].
pub(super) fn unit_places(root: &Root) -> Vec<PathBuf> {
    let there = UNIT_FOLDERS.map(Path::new).into_iter();
    let there = there.filter(|folder| root.directory(folder).is_ok());
    there.map(|folder| folder.join("x")).collect()
}

fn drop_ins(root: &Root, folder: PathBuf, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if root.folder(&folder).is_err() {
        found.push(folder); // a link or a file: whoever looks at it says so
        return Ok(());
    }
    for name in root.names(&folder)? {
        let path = folder.join(&name);
        if name.as_bytes().ends_with(b".conf") && !is_masked(root, &path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_unit(name: &OsStr) -> bool {
    is_unit_name(name.as_bytes())
}

fn is_unit_name(name: &[u8]) -> bool {
    name.starts_with(b"verdictd") && name.ends_with(b".service")
}

/// Ours, and those of every service.
fn has_drop_ins(name: &[u8]) -> bool {
    is_unit_name(name) || name == b"service"
}

fn is_masked(root: &Root, path: &Path) -> bool {
    matches!(root.file(path), Err(Odd::Link(target)) if target == Path::new("/dev/null"))
}

/// Where systemd looks for units of the system (systemd.unit(5)), strongest first. Not for transient ones, which are made
/// while it runs (one watches each trial of a policy), nor for those of generators, of which none is ours.
const UNIT_FOLDERS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Programs of the package.
pub(super) const BINARIES: [&str; 2] = ["verdictd", "verdictctl"];
/// Libraries that are loaded into every program (ld.so(8)).
pub(super) const PRELOAD: &str = "/etc/ld.so.preload";
const HELPERS: &str = "/usr/lib/verdictd";
/// Where the package puts them.
pub const DEFAULT_BINARIES: &str = "/usr/bin";
/// Folder of what is ours alone below `/etc`.
pub(super) const OWN_FOLDER: &str = "/etc/verdictd";
/// The table as text, for those who include it.
pub(super) const NFT_FILE: &str = "/etc/verdictd/verdictd.nft";
/// Folders that the engine writes in.
pub(super) const WRITTEN_FOLDERS: [&str; 2] = [places::STATE_DIR, places::LOG_DIR];
/// User and group of the engine.
pub(super) const ACCOUNT: &str = "verdictd";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn units_are_found_once_each_and_masked_ones_not() {
        let image = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = image.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        put("usr/lib/systemd/system/verdictd.service");
        put("usr/lib/systemd/system/verdictd-monitor.service");
        put("usr/lib/systemd/system/sshd.service");
        put("etc/systemd/system/verdictd.service.d/override.conf");
        put("etc/systemd/system/verdictd.service.d/override.conf~");
        put("etc/systemd/system/service.d/all.conf");
        put("run/systemd/system/verdictd.service.d/now.conf");
        put("run/systemd/transient/verdictd-go-back-1.service");
        symlink("usr/lib", image.path().join("lib")).unwrap();
        symlink(
            "/dev/null",
            image.path().join("etc/systemd/system/verdictd-exporter.service"),
        )
        .unwrap();
        symlink(
            "/tmp",
            image.path().join("etc/systemd/system/verdictd-monitor.service.d"),
        )
        .unwrap();
        let found = units(&Root::open(image.path()).unwrap()).unwrap();
        let expected = [
            "/etc/systemd/system/service.d/all.conf",
            "/etc/systemd/system/verdictd-monitor.service.d",
            "/etc/systemd/system/verdictd.service.d/override.conf",
            "/run/systemd/system/verdictd.service.d/now.conf",
            "/usr/lib/systemd/system/verdictd-monitor.service",
            "/usr/lib/systemd/system/verdictd.service",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
