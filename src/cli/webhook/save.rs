//! A config in the place of the old one: whole or not at all, with its owner and mode, the old one kept beside it. And
//! secrets, made and put where nobody else reads them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::files::{self, Dress, NewFile};

/// A file as it was read.
pub(super) struct Original {
    /// The file itself, not a link to it.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Original {
    /// Reads the file behind `path`.
    pub(super) fn read(path: &Path) -> io::Result<Original> {
        let path = fs::canonicalize(path)?;
        let text = fs::read_to_string(&path)?;
        Ok(Original { path, text })
    }

    /// Puts `text` in its place; says where the old one is.
    pub(super) fn replace(&self, text: &str) -> io::Result<PathBuf> {
        let mut new = NewFile::beside(&self.path, Dress::of(&fs::metadata(&self.path)?))?;
        new.write(text.as_bytes())?;
        if fs::read_to_string(&self.path)? != self.text {
            return Err(io::Error::other("it was changed by somebody else meanwhile"));
        }
        let mut kept = self.path.clone().into_os_string();
        kept.push(".bak");
        let kept = PathBuf::from(kept);
        files::keep(new.parts().1, &self.path, &kept)?;
        new.take_name()?;
        Ok(kept)
    }
}

/// 32 bytes of chance in hex: as much as HMAC-SHA256 can use.
pub(super) fn new_secret() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled < bytes.len() {
        return Err(io::Error::other("the kernel gave too little of chance"));
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes `secret` to a new file that only its owner reads; its group too if the group of the `config` is one that is
/// let in to it, since the engine then reads both as that group.
pub(super) fn write_secret(path: &Path, secret: &str, config: &Path) -> io::Result<()> {
    let config = fs::metadata(config)?;
    let mut file = create(path)?;
    let written = (|| {
        if config.gid() != 0 && config.mode() & 0o040 != 0 {
            fchown(&file, Some(config.uid()), Some(config.gid()))?;
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
        writeln!(file, "{secret}")?;
        file.sync_all()?;
        sync_folder(path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Whether every user may read the file.
pub(super) fn open_to_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_one_is_kept_and_the_new_one_has_its_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let kept = Original::read(&link).unwrap().replace("new").unwrap();
        assert_eq!(
            (
                fs::read_to_string(&path).unwrap(),
                fs::read_to_string(kept).unwrap()
            ),
            ("new".into(), "old".into())
        );
        let now = fs::metadata(&path).unwrap();
        assert_eq!(
            (now.mode() & 0o7777, now.uid(), now.gid()),
            (0o640, 65_534, 65_534)
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        fs::write(&path, "old").unwrap();
        let original = Original::read(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(original.replace("new").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_is_new_and_read_by_its_owner_or_by_whom_the_config_lets_in() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("x.toml");
        fs::write(&config, "").unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().mode() & 0o7777;
        let secret = new_secret().unwrap();
        assert!(secret.len() == 64 && secret != new_secret().unwrap());
        write_secret(&folder.path().join("a"), &secret, &config).unwrap();
        assert_eq!(mode("a"), 0o600);
        std::os::unix::fs::chown(&config, Some(0), Some(65_534)).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        write_secret(&folder.path().join("b"), &secret, &config).unwrap();
        assert_eq!(mode("b"), 0o640);
        let again = write_secret(&folder.path().join("b"), "x", &config);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            fs::read_to_string(folder.path().join("b")).unwrap(),
            secret + "\n"
        );
    }
}
