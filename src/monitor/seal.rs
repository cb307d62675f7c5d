//! Are the files what they were, and the audit log as it was written? What the monitor asks of both.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::places::Places;
use crate::audit::verify::{Checker, Options};
use crate::config;

/// The sums of the files that must not change, as `verdictctl harden` wrote them.
#[derive(Clone, Debug, Default)]
pub struct Seal {
    sums: Vec<(PathBuf, String)>,
}

/// What the manifest says of the files now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no manifest.
    Unsealed,
    /// All as it was.
    Intact,
    /// These are not, in words.
    Violated(Vec<String>),
}

impl Seal {
    /// Reads the manifest; none if there is none.
    ///
    /// # Errors
    /// In words, if it cannot be read or is no list of sums: whoever relies on it must not go on as if there were none.
    pub fn load(manifest: &Path) -> Result<Option<Seal>, String> {
        let words = |error: io::Error| format!("{}: {error}", manifest.display());
        let mut text = String::new();
        match open(manifest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file
                .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
                .map_err(words)?,
        };
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sums: Option<Vec<_>> = lines.map(sum).collect();
        match sums {
            Some(sums) if !sums.is_empty() => Ok(Some(Seal { sums })),
            _ => Err(format!(
                "{} is not what verdictctl harden writes",
                manifest.display()
            )),
        }
    }

    /// Reads every file; what is not as it was, in words.
    pub fn violations(&self) -> Vec<String> {
        let found = self.sums.iter().filter_map(|(path, wanted)| {
            let what = match open(path).and_then(|file| sha256(&file)) {
                Ok(found) if found == *wanted => return None,
                Ok(_) => "was changed".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing".to_owned(),
                Err(error) => format!("cannot be read: {error}"),
            };
            Some(format!("{} {what}", path.display()))
        });
        found.collect()
    }

    /// The sum that `path` must have, if it is listed.
    pub fn wanted(&self, path: &Path) -> Option<&str> {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let found = self
            .sums
            .iter()
            .find(|(listed, _)| listed == path || *listed == canonical);
        found.map(|(_, sum)| sum.as_str())
    }
}

/// What the manifest of `places` says of the files now.
pub fn verify(places: &Places) -> Verdict {
    match Seal::load(&places.manifest) {
        Ok(None) => Verdict::Unsealed,
        Err(error) => Verdict::Violated(vec![error]),
        Ok(Some(seal)) => match seal.violations() {
            found if found.is_empty() => Verdict::Intact,
            found => Verdict::Violated(found),
        },
    }
}

/// `HASH  PATH` or `HASH *PATH`, as sha256sum(1) writes it.
fn sum(line: &str) -> Option<(PathBuf, String)> {
    let (hash, path) = line.split_at_checked(64)?;
    let path = path.strip_prefix("  ").or_else(|| path.strip_prefix(" *"))?;
    let is_hash = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && !path.is_empty()).then(|| (path.into(), hash.to_ascii_lowercase()))
}

/// The sum of what is behind `file`, in hex.
///
/// # Errors
/// If it cannot be read.
pub fn sha256(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Without waiting for the writer of a fifo.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Reads the audit log again and again; nothing of what was sound and is put aside is read twice.
#[derive(Debug)]
pub(super) struct AuditEye {
    log: PathBuf,
    checker: Checker,
}

impl AuditEye {
    /// For the log that the configuration names; none if it is off, or cannot be read (the engine says so itself).
    pub(super) fn of(places: &Places, before: Option<AuditEye>) -> Option<AuditEye> {
        let config = config::load(&places.config).ok()?;
        config.audit.enabled.then_some(())?;
        let log = config.audit.place(&places.log_dir);
        match before {
            Some(eye) if eye.log == log => Some(eye),
            _ => Some(AuditEye {
                checker: Checker::new(Options {
                    log: log.clone(),
                    head: Some(places.audit_head()),
                    from: None,
                }),
                log,
            }),
        }
    }

    /// Lines that are not as they were written, the first few, in words.
    pub(super) fn faults(&mut self) -> Vec<String> {
        match self.checker.check() {
            Ok(report) => report.faults.iter().take(FEW).map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        }
    }
}

/// A few lines for each file of a package.
const LONGEST: u64 = 1 << 20;
/// A replaced log has a fault a line; `verdictctl audit verify` names them all.
const FEW: usize = 3;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_flipped_byte_a_missing_file_and_a_fifo_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let text = ["a", "b"].map(|name| {
            fs::write(place(name), name).unwrap();
            let sum = sha256(&File::open(place(name)).unwrap()).unwrap();
            format!("{sum}  {}\n", place(name).display())
        });
        let manifest = place("sums");
        assert!(Seal::load(&manifest).unwrap().is_none());
        fs::write(&manifest, text.concat()).unwrap();
        let seal = Seal::load(&manifest).unwrap().unwrap();
        assert_eq!(seal.violations(), Vec::<String>::new());
        assert!(seal.wanted(&place("a")).is_some() && seal.wanted(&place("c")).is_none());
        fs::write(place("a"), "A").unwrap();
        fs::remove_file(place("b")).unwrap();
        let found = seal.violations();
        assert!(found[0].ends_with("/a was changed") && found[1].ends_with("/b is missing"));
        fs::write(&manifest, "nonsense").unwrap();
        assert!(Seal::load(&manifest).unwrap_err().contains("verdictctl harden"));
    }

    #[test]
    fn sha256sum_s_lines_are_read() {
        let hash = "0".repeat(64);
        assert_eq!(
            sum(&format!("{hash}  /usr/bin/x")),
            Some(("/usr/bin/x".into(), hash.clone()))
        );
        assert!(sum(&format!("{hash} */usr/bin/x y")).is_some());
        for line in [
            "",
            "x",
            &hash,
            &format!("{hash}  "),
            &format!("{}g  /x", &hash[1..]),
        ] {
            assert_eq!(sum(line), None, "{line}");
        }
    }
}
