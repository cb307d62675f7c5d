//! One file sealed anew, because we changed it ourselves, with an administrator's word. Whatever else differs from the
//! seal goes on differing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::manifest::{About, Dress, Manifest};
use super::{SealError, root::Root};
use crate::audit::chain::Hash;
use crate::files;

impl Manifest {
    /// Its own.
    pub(super) const DRESS: files::Dress = files::Dress {
        owner: Some((0, 0)),
        mode: 0o644,
    };

    /// Seals the file at `path` as it is now; the sum of the new manifest, or none if that file is not sealed.
    ///
    /// # Errors
    /// If it cannot be read, or the manifest not written; the old one stays then.
    pub fn reseal(&mut self, path: &Path) -> Result<Option<String>, SealError> {
        let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| entry.path == path && entry.hash.is_some())
        else {
            return Ok(None);
        };
        let unreadable = |error: io::Error| SealError::Problems(vec![format!("{path:?}: {error}")]);
        let root = Root::open(&self.root).map_err(unreadable)?;
        let (file, found) = root.file(path).map_err(|odd| unreadable(odd.into()))?;
        let (hash, size) = Hash::of_all(file).map_err(unreadable)?;
        entry.hash = Some(hash);
        if let Some(About {
            dress, size: sealed, ..
        }) = &mut entry.about
        {
            *sealed = Some(size);
            *dress = Dress {
                uid: found.uid(),
                gid: found.gid(),
                mode: found.mode() & 0o7777,
            };
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let directory = root.directory(folder).map_err(|odd| unreadable(odd.into()))?;
        let text = self.text();
        files::replace_in(directory, &self.path, &text, Manifest::DRESS)?;
        Ok(Some(Hash::of(&text).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_one_file_is_sealed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let line =
            |name: &str, text: &str| format!("{}  {}\n", Hash::of(text.as_bytes()), at(name).display());
        fs::write(at("config"), "old").unwrap();
        fs::write(at("other"), "genuine").unwrap();
        fs::write(at("sums"), line("config", "old") + &line("other", "genuine")).unwrap();
        fs::write(at("config"), "new").unwrap();
        fs::write(at("other"), "somebody's").unwrap();
        let mut manifest = Manifest::load(&at("sums")).unwrap();
        assert!(!manifest.verify_file(&at("config")).is_empty());
        assert!(manifest.reseal(&at("config")).unwrap().is_some());
        let manifest = Manifest::load(&at("sums")).unwrap();
        assert_eq!(manifest.verify_file(&at("config")), []);
        assert!(!manifest.verify_file(&at("other")).is_empty());
        assert_eq!(
            Manifest::load(&at("sums")).unwrap().reseal(&at("third")).unwrap(),
            None
        );
    }
}
