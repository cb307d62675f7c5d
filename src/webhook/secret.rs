//! From where a secret stands to the secret, and what to say where it cannot be had. Never repeats one.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use thiserror::Error;

use super::config::SecretSource;
use super::signature::Secret;

/// Why there is no secret. An endpoint that has one to use sends nothing without it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret in {path:?} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every user of the machine may read it.
    #[error("the secret in {path:?} can be read by every user; chmod 0640 and give it the group of verdictd")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// No regular file, or too large, or no text.
    #[error("{path:?} holds no secret: it must be a regular file of one line of text")]
    Form {
        /// Which.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("the secret in {0} is empty")]
    Empty(String),
    /// No such variable.
    #[error("the environment variable {0:?} that should hold the secret is not set to text")]
    NoVariable(String),
    /// Not started by systemd, or without credentials.
    #[error("$CREDENTIALS_DIRECTORY is not set: add LoadCredential={0}:… to the unit")]
    NoCredentials(String),
}

impl SecretSource {
    /// The secret, if the endpoint has one.
    ///
    /// # Errors
    /// If it has one that cannot be had.
    pub fn read(&self) -> Result<Option<Secret>, SecretError> {
        match self {
            SecretSource::None => Ok(None),
            SecretSource::Inline(secret) => Ok(Some(secret.clone())),
            SecretSource::File(path) => from_file(path).map(Some),
            SecretSource::Env(name) => {
                let text = std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?;
                trimmed(&text, || format!("${name}")).map(Some)
            }
            SecretSource::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                from_file(&Path::new(&folder).join(name)).map(Some)
            }
        }
    }
}

/// Keeps what this process knows out of core dumps and of `/proc` for others of its user: secrets are in its memory,
/// and one may be in its environment. LimitCORE=0 alone does not: a `kernel.core_pattern` that is a program gets the
/// memory whatever the limit (core(5)).
pub fn keep_from_others() {
    // Never refused: it is asked with a value that every kernel knows.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let form = || SecretError::Form {
        path: path.to_owned(),
    };
    // O_NONBLOCK: a fifo without a writer would hold open() for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(form());
    }
    if metadata.mode() & 0o004 != 0 {
        return Err(SecretError::Open {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes).ok();
    let text = text
        .filter(|text| text.len() as u64 <= LARGEST)
        .ok_or_else(form)?;
    if text.trim().contains(['\r', '\n']) {
        return Err(form());
    }
    trimmed(&text, || format!("{path:?}"))
}

/// Editors end a file with a line break that nobody means; spaces at its ends are not seen, and the receiver takes them
/// away, too.
fn trimmed(text: &str, place: impl FnOnce() -> String) -> Result<Secret, SecretError> {
    Secret::new(text.trim()).ok_or_else(|| SecretError::Empty(place()))
}

/// No key is longer; HMAC hashes what is longer than 64 bytes anyway (RFC 2104, section 2).
const LARGEST: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_read_without_what_nobody_sees_at_its_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let put = |text: &[u8], mode| {
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            SecretSource::File(path.clone()).read()
        };
        for text in [&b"hush hush\n"[..], b"hush hush", b" hush hush \r\n\n"] {
            assert_eq!(put(text, 0o600).unwrap(), Secret::new("hush hush"));
        }
        for (text, mode) in [
            (&b"hush"[..], 0o644),
            (b"\n", 0o600),
            (&[0x68, 0xff], 0o600),
            (&[b'h'; 5_000], 0o600),
            // As a receiver has it while the secret is changed: which of them signs, nobody said.
            (b"hush\nhush hush\n", 0o600),
        ] {
            let said = put(text, mode).unwrap_err().to_string();
            assert!(!said.contains("hush") && said.contains("\"/"), "{said}");
        }
        assert!(matches!(
            SecretSource::File(folder.path().into()).read(),
            Err(SecretError::Form { .. })
        ));
        assert!(matches!(
            SecretSource::File("/nowhere".into()).read(),
            Err(SecretError::Unreadable { .. })
        ));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let said = |source: SecretSource| source.read().unwrap_err().to_string();
        assert!(said(SecretSource::Env("VERDICTD_NO_SUCH".into())).contains("VERDICTD_NO_SUCH"));
        assert!(said(SecretSource::Credential("soc".into())).contains("LoadCredential=soc:"));
        assert_eq!(SecretSource::None.read().unwrap(), None);
    }
}
