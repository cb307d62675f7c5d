//! Whose a place is: as root nothing is written where somebody else could have put a file or a link of his own.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// Why a place is not used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NotRooted {
    #[error("cannot look at {path:?}: {source}")]
    Unseen { path: PathBuf, source: io::Error },
    #[error(
        "{path:?} belongs to uid {uid} and has mode {mode:04o}, so that others than root could put anything there, which \
         root would then write over or put in force: right is owner root, and nothing to write for group and others \
         (chown root {path:?}; chmod go-w {path:?})"
    )]
    Loose { path: PathBuf, uid: u32, mode: u32 },
}

/// Whether only root, or whoever runs this, can have put something at `path`, which has no links in it.
pub(super) fn rooted(path: &Path) -> Result<(), NotRooted> {
    match look(path) {
        Err(NotRooted::Unseen { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        found => strict(path, &found?)?,
    }
    path.parent().map_or(Ok(()), rooted_folder)
}

/// The same of everything in `folder`.
pub(super) fn rooted_folder(folder: &Path) -> Result<(), NotRooted> {
    strict(folder, &look(folder)?)?;
    for above in folder.ancestors().skip(1) {
        let found = look(above)?;
        // In a sticky folder nobody moves what is root's, but anybody makes files: further up that harms nothing.
        if found.mode() & STICKY == 0 || !is_ours(&found) {
            strict(above, &found)?;
        }
    }
    Ok(())
}

fn look(path: &Path) -> Result<Metadata, NotRooted> {
    fs::symlink_metadata(path).map_err(|source| NotRooted::Unseen {
        path: path.to_owned(),
        source,
    })
}

fn strict(path: &Path, found: &Metadata) -> Result<(), NotRooted> {
    match is_ours(found) && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(NotRooted::Loose {
            path: path.to_owned(),
            uid: found.uid(),
            mode: found.mode() & 0o7777,
        }),
    }
}

fn is_ours(found: &Metadata) -> bool {
    [0, geteuid().as_raw()].contains(&found.uid())
}

const STICKY: u32 = 0o1000;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn what_others_may_write_is_named_with_owner_and_mode() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let (folder, file) = (top.join("etc"), top.join("etc/file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let wrong = |path: &Path| rooted(path).unwrap_err().to_string();
        allow(&folder, 0o755);
        allow(&file, 0o640);
        rooted(&file).unwrap();
        rooted(&folder.join("none")).unwrap();
        for (path, mode, right) in [
            (&file, 0o660, 0o640),
            (&folder, 0o1777, 0o755),
            (&top, 0o775, 0o700),
        ] {
            allow(path, mode);
            let why = wrong(&file);
            assert!(
                why.contains(&format!("{path:?} belongs to uid 0 and has mode {mode:04o}")),
                "{why}"
            );
            assert!(why.contains("chmod go-w"), "{why}");
            allow(path, right);
        }
        allow(&top, 0o1777);
        rooted(&file).unwrap();
        for path in [&file, &folder, &top] {
            chown(path, Some(65534), None).unwrap();
            assert!(wrong(&file).contains("belongs to uid 65534"));
            chown(path, Some(0), None).unwrap();
        }
    }
}
