//! The configuration that was last in force, kept beside the state: what a start falls back on when somebody left a
//! file that cannot be used, or none. A host that was protected yesterday is not left alone for a missing quote mark.
//!
//! It is kept when it has come into force by a start or a reload, never before.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::error::DaemonError;
use super::lockout::Lockout;
use crate::config::{self, Config};
use crate::files::{self, Dress};

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
}

/// What to start from.
#[derive(Debug)]
pub struct Chosen {
    /// The configuration.
    pub config: Config,
    /// Why it is not the file that was asked for; `status` tells.
    pub instead: Option<String>,
}

impl LastGood {
    /// In the folder of the state.
    pub fn beside(state_dir: &Path) -> LastGood {
        LastGood {
            path: state_dir.join(NAME),
        }
    }

    /// The file at `path`, unless it cannot be used or `fits` refuses it: then what was last in force, if it does fit.
    ///
    /// # Errors
    /// What is wrong with the file at `path`, if there is nothing to fall back on.
    pub fn choose(
        &self,
        path: &Path,
        fits: impl Fn(&Config) -> Result<(), Lockout>,
    ) -> Result<Chosen, DaemonError> {
        let usable = |path: &Path| -> Result<Config, DaemonError> {
            let config = config::load(path)?;
            fits(&config)?;
            Ok(config)
        };
        let refused = match usable(path) {
            Ok(config) => {
                return Ok(Chosen {
                    config,
                    instead: None,
                });
            }
            Err(refused) => refused,
        };
        if !self.is_ours() {
            return Err(refused);
        }
        let Ok(config) = usable(&self.path) else {
            return Err(refused);
        };
        let why: Vec<String> = refused.to_string().lines().map(str::to_owned).collect();
        why.iter().for_each(|line| error!("{line}"));
        warn!(
            "DEGRADED: the configuration that was last in force is in force again ({}); correct the file, then \
             \"verdictctl reload\"",
            self.path.display()
        );
        Ok(Chosen {
            config,
            instead: Some(format!(
                "the configuration cannot be used, and the one that was last in force is: {}; correct it, then \
                 \"verdictctl reload\"",
                why.join("; ")
            )),
        })
    }

    /// Keeps what is at `path`, if it is what is in force: `sha256` is of that. The start and the reload that it was
    /// read for have succeeded, and go on without it.
    pub fn keep(&self, path: &Path, sha256: &str) {
        let kept = match config::text(path) {
            Ok(text) if config::digest(&text) != sha256 => return, // edited since
            Ok(text) => files::replace(&self.path, text.as_bytes(), Dress::PRIVATE).map_err(io::Error::from),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        if let Err(error) = kept {
            warn!(
                "cannot keep this configuration in {}, for a start that finds none that can be used: {error}",
                self.path.display()
            );
        }
    }

    /// A file that others may write says nothing about what was in force.
    fn is_ours(&self) -> bool {
        let found = files::open_to_read(&self.path).and_then(|file| file.metadata());
        found.is_ok_and(|file| file.mode() & 0o022 == 0)
    }
}

/// Its name.
pub const NAME: &str = "config.good";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const GOOD: &str = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n";

    struct Place {
        _folder: tempfile::TempDir,
        file: PathBuf,
        good: LastGood,
    }

    impl Place {
        fn new(text: &str) -> Place {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("verdictd.toml");
            fs::write(&file, text).unwrap();
            let good = LastGood::beside(folder.path());
            Place {
                file,
                good,
                _folder: folder,
            }
        }

        fn keep(&self) {
            let sha256 = config::load(&self.file).unwrap().sha256;
            self.good.keep(&self.file, &sha256);
        }

        fn choose(&self) -> Result<Chosen, DaemonError> {
            self.good.choose(&self.file, |_| Ok(()))
        }
    }

    #[test]
    fn a_spoiled_or_missing_file_is_made_up_for_by_what_was_in_force() {
        let place = Place::new(GOOD);
        place.keep();
        assert!(place.choose().unwrap().instead.is_none());
        fs::write(&place.file, GOOD.replace("[22]", "[22").as_str()).unwrap();
        let chosen = place.choose().unwrap();
        assert!(chosen.instead.unwrap().contains("verdictd.toml:4: "));
        assert!(chosen.config.policy.mode.filters_ports());
        fs::remove_file(&place.file).unwrap();
        assert!(place.choose().unwrap().instead.unwrap().contains("no such file"));
    }

    #[test]
    fn without_one_the_problems_are_told() {
        let place = Place::new("nonsense");
        assert!(matches!(place.choose(), Err(DaemonError::Config(_))));
    }

    #[test]
    fn what_was_edited_meanwhile_or_is_somebody_elses_is_not_kept_or_used() {
        let place = Place::new(GOOD);
        place.good.keep(&place.file, "of another text");
        assert!(!place.good.path.exists());
        place.keep();
        fs::write(&place.file, "nonsense").unwrap();
        fs::set_permissions(&place.good.path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(place.choose().is_err(), "others may write it");
        fs::rename(&place.good.path, place.file.with_extension("elsewhere")).unwrap();
        symlink(place.file.with_extension("elsewhere"), &place.good.path).unwrap();
        assert!(place.choose().is_err(), "a link");
    }

    #[test]
    fn what_does_not_fit_is_no_better_for_having_been_in_force() {
        let place = Place::new(GOOD);
        place.keep();
        let refuse = |_: &Config| Err(Lockout(vec!["somebody".into()]));
        let refused = place.good.choose(&place.file, refuse).unwrap_err();
        assert!(matches!(refused, DaemonError::Lockout(_)));
    }
}
