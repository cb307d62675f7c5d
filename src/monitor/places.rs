//! Where engine and monitor keep their files, which is what makes them a pair.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::audit::HEAD_NAME;
use crate::control::client::Client;
use crate::control::pidfile;
use crate::files;
use crate::places;

/// The directories and files of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// Where the engine's socket and pid file are.
    pub runtime_dir: PathBuf,
    /// Where logs are.
    pub log_dir: PathBuf,
    /// The sums of the files that must not change.
    pub manifest: PathBuf,
}

impl Default for Places {
    /// Those of the package.
    fn default() -> Places {
        Places {
            config: places::CONFIG.into(),
            state_dir: places::STATE_DIR.into(),
            runtime_dir: places::RUNTIME_DIR.into(),
            log_dir: places::LOG_DIR.into(),
            manifest: places::MANIFEST.into(),
        }
    }
}

impl Places {
    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// The way to the engine.
    pub fn client(&self) -> Client {
        Client::find(Some(self.socket()))
    }

    /// The engine's pid file.
    pub fn engine_pid(&self) -> PathBuf {
        self.runtime_dir.join(pidfile::ENGINE)
    }

    /// Where the monitor keeps what the engine's user must not touch: beside that user's own directory, and root's.
    fn monitor_runtime_dir(&self) -> PathBuf {
        beside(&self.runtime_dir)
    }

    /// The monitor's pid file.
    pub fn monitor_pid(&self) -> PathBuf {
        self.monitor_runtime_dir().join(pidfile::MONITOR)
    }

    /// Held by whoever starts or stops the engine, for as long as that takes.
    pub fn start_lock(&self) -> PathBuf {
        self.monitor_runtime_dir().join("start.lock")
    }

    /// What the monitor found.
    pub fn report(&self) -> PathBuf {
        beside(&self.state_dir).join("monitor.json")
    }

    /// How far the audit log goes.
    pub fn audit_head(&self) -> PathBuf {
        self.state_dir.join(HEAD_NAME)
    }

    /// Where standard output and error of `what` go when it is started without systemd.
    pub fn log_of(&self, what: &str) -> PathBuf {
        self.log_dir.join(format!("{what}.log"))
    }

    /// Whether these are the places of the package, which the units name.
    pub fn are_packaged(&self) -> bool {
        let packaged = Places::default();
        let same = |ours: &Path, theirs: &Path| ours == theirs;
        same(&self.config, &packaged.config)
            && same(&self.state_dir, &packaged.state_dir)
            && same(&self.runtime_dir, &packaged.runtime_dir)
            && same(&self.log_dir, &packaged.log_dir)
    }

    /// As options of `verdictd run` and `verdictd monitor`.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let pairs: [(&str, &Path); 4] = [
            ("--config", &self.config),
            ("--state-dir", &self.state_dir),
            ("--runtime-dir", &self.runtime_dir),
            ("--log-dir", &self.log_dir),
        ];
        let both = pairs.map(|(name, value)| [name.into(), value.as_os_str().to_owned()]);
        both.into_iter().flatten().collect()
    }
}

fn beside(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push("-monitor");
    name.into()
}

/// Makes the folder of `path`, one of the monitor's own, where there is none: for root to write and for all to read.
///
/// # Errors
/// If it cannot be made.
pub(super) fn make_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if folder.is_dir() {
        return Ok(());
    }
    files::make_folder(folder, 0o755)?;
    // Whatever the umask: `verdictctl status` reads what is in it.
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}
