//! Starts engine and monitor without systemd: detached, one at a time, and never a program that is not what it was.
//!
//! The program is opened, its sum compared on the open descriptor, and that descriptor is what is executed: whatever
//! is put in its place between the two is not run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::check;
use super::places::{Places, make_folder_of};
use super::process::Process;
use super::seal;
use crate::audit::chain::Hash;
use crate::files;

/// Why a program was not started, or not for long.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its sum is another.
    #[error(
        "{program:?} is not what it was when the files were sealed, it is not started: put the genuine one back, or \
         run \"verdictctl harden\" if you changed it yourself"
    )]
    Tampered {
        /// Which.
        program: PathBuf,
    },
    /// Nobody can tell whether it is what it was.
    #[error("{program:?} is not started: {why}")]
    Unknown {
        /// Which.
        program: PathBuf,
        /// Why.
        why: String,
    },
    /// The system said no.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("it ended before it was ready ({status}){}", said(lines))]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last words.
        lines: Vec<String>,
    },
    /// It takes too long.
    #[error("it is not ready after {} s and goes on trying{}", limit.as_secs(), said(lines))]
    Slow {
        /// How long was waited.
        limit: Duration,
        /// Its last words.
        lines: Vec<String>,
    },
    /// Whoever asked for it wants it no more.
    #[error("told to stop while it started")]
    Interrupted,
}

fn said(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n{line}")).collect()
}

/// What is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `verdictd run`.
    Engine,
    /// `verdictd monitor`.
    Monitor,
}

impl What {
    fn verb(self) -> &'static str {
        match self {
            What::Engine => "run",
            What::Monitor => "monitor",
        }
    }

    /// The name of its log in the log directory.
    pub fn log(self) -> &'static str {
        match self {
            What::Engine => "verdictd",
            What::Monitor => "monitor",
        }
    }
}

/// Whoever holds it starts or stops the engine, and nobody else does.
#[derive(Debug)]
pub struct StartLock {
    _held: File,
}

impl StartLock {
    /// Waits for it, as long as a start may take or until `stop` says so.
    ///
    /// # Errors
    /// If it cannot be made or had.
    pub fn take(places: &Places, stop: &dyn Fn() -> bool) -> Result<StartLock, LaunchError> {
        let path = places.start_lock();
        let io = |source| LaunchError::Io {
            action: "lock",
            path: path.clone(),
            source,
        };
        make_folder_of(&path).map_err(io)?;
        let file = files::careful()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let end = Instant::now() + READY + READY;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StartLock { _held: file }),
                Err(rustix::io::Errno::WOULDBLOCK) if stop() => return Err(LaunchError::Interrupted),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => thread::sleep(POLL),
                Err(error) => return Err(io(error.into())),
            }
        }
    }
}

/// A program of ours beside the one that runs, opened and found to be what it was.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: File,
}

impl Program {
    /// Opens `path` and compares its sum with the manifest of `places`, if there is one.
    ///
    /// # Errors
    /// If it is another, or cannot be compared though there is a manifest.
    pub fn open(path: &Path, places: &Places) -> Result<Program, LaunchError> {
        let unknown = |why| LaunchError::Unknown {
            program: path.to_owned(),
            why,
        };
        let read = |source| LaunchError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let file = seal::open(path).map_err(read)?;
        let sealed = seal::manifest(places).map_err(|error| unknown(error.to_string()))?;
        if let Some(manifest) = sealed {
            let wanted = manifest.sum_of(path).ok_or_else(|| {
                let manifest = manifest.path().display();
                unknown(format!("{manifest} does not list it, run \"verdictctl harden\""))
            })?;
            if Hash::of_all(&file).map_err(read)?.0 != wanted {
                return Err(LaunchError::Tampered {
                    program: path.to_owned(),
                });
            }
        }
        Ok(Program {
            path: path.to_owned(),
            file,
        })
    }

    /// Starts it detached from us; standard output and error go into the log of `what`.
    fn start(&self, what: What, places: &Places, more: &[&OsStr]) -> Result<(Child, Log), LaunchError> {
        let log = Log::open(&places.log_of(what.log()))?;
        let io = |action, source| LaunchError::Io {
            action,
            path: self.path.clone(),
            source,
        };
        let out = log.file.try_clone().map_err(|error| io("log for", error))?;
        let err = log.file.try_clone().map_err(|error| io("log for", error))?;
        // The kernel resolves the name in the child before it closes what is close-on-exec.
        let child = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
            .arg0(&self.path)
            .arg(what.verb())
            .args(places.arguments())
            .arg("--detached")
            .args(more)
            .env_remove("NOTIFY_SOCKET")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| io("start", error))?;
        Ok((child, log))
    }
}

/// `verdictd`, which stands beside the program that runs.
///
/// # Errors
/// If that cannot be told.
pub fn verdictd() -> Result<PathBuf, LaunchError> {
    let own = std::env::current_exe().map_err(|source| LaunchError::Io {
        action: "find",
        path: "verdictd".into(),
        source,
    })?;
    Ok(own.with_file_name("verdictd"))
}

/// Starts the engine and waits until it answers. The caller holds the [`StartLock`], and knows that none runs.
///
/// # Errors
/// If it does not become ready, with its own last words.
pub fn start_engine(
    places: &Places,
    program: &Program,
    stop: &dyn Fn() -> bool,
) -> Result<Child, LaunchError> {
    let (mut child, log) = program.start(What::Engine, places, &[])?;
    let end = Instant::now() + READY;
    loop {
        let ours = Process::engine(places).is_some_and(|engine| engine.pid() == child.id());
        if ours && check::probe(places).is_ok() {
            return Ok(child);
        }
        wait_on(&mut child, &log, end)?;
        // It can be found from now on by whoever wants to stop it.
        if ours && stop() {
            return Err(LaunchError::Interrupted);
        }
        thread::sleep(POLL);
    }
}

/// Starts the monitor and waits until it holds its pid file.
///
/// # Errors
/// If it ends before that, with its own last words.
pub fn start_monitor(places: &Places, program: &Program, more: &[&str]) -> Result<Child, LaunchError> {
    let mut arguments = vec![OsStr::new("--manifest"), places.manifest.as_os_str()];
    arguments.extend(more.iter().map(OsStr::new));
    let (mut child, log) = program.start(What::Monitor, places, &arguments)?;
    let end = Instant::now() + READY;
    while Process::monitor(places).is_none_or(|monitor| monitor.pid() != child.id()) {
        wait_on(&mut child, &log, end)?;
        thread::sleep(POLL);
    }
    Ok(child)
}

fn wait_on(child: &mut Child, log: &Log, end: Instant) -> Result<(), LaunchError> {
    if let Ok(Some(status)) = child.try_wait() {
        let lines = log.last_lines();
        return Err(LaunchError::Ended { status, lines });
    }
    if Instant::now() >= end {
        return Err(LaunchError::Slow {
            limit: READY,
            lines: log.last_lines(),
        });
    }
    Ok(())
}

/// What a process without systemd says.
#[derive(Debug)]
struct Log {
    file: File,
    from: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Log, LaunchError> {
        let io = |source| LaunchError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            files::make_folder(folder, 0o750).map_err(|source| LaunchError::Io {
                action: "make the directory",
                path: folder.to_owned(),
                source,
            })?;
        }
        let long = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.size() > LONG_LOG);
        if long {
            fs::rename(path, path.with_extension("log.1")).map_err(io)?;
        }
        let file = files::careful()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(io)?;
        let found = file.metadata().map_err(io)?;
        if !found.is_file() || found.nlink() > 1 {
            return Err(io(io::Error::other("it is no file of ours, move it away")));
        }
        Ok(Log {
            file,
            from: found.size(),
        })
    }

    /// The last lines that were said since it was opened.
    fn last_lines(&self) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        let end = file.metadata().map_or(0, |found| found.size());
        let from = self.from.max(end.saturating_sub(LAST_BYTES));
        let read = file
            .seek(SeekFrom::Start(from))
            .and_then(|_| file.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        read.map_or_else(
            |_| Vec::new(),
            |_| last.iter().map(|line| (*line).to_owned()).collect(),
        )
    }
}

/// As systemd waits by default; a million bans are restored in a tenth of that.
pub(super) const READY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
const LAST_LINES: usize = 10;
const LAST_BYTES: u64 = 16 << 10;
/// It is put aside as `.log.1` at the next start: without systemd nobody else does.
const LONG_LOG: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places {
            runtime_dir: folder.join("run"),
            log_dir: folder.join("log"),
            manifest: folder.join("sums"),
            ..Places::default()
        }
    }

    #[test]
    fn a_flipped_byte_is_never_opened_as_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let path = folder.path().join("verdictd");
        fs::write(&path, "genuine").unwrap();
        Program::open(&path, &places).unwrap();
        let (sum, _) = Hash::of_all(File::open(&path).unwrap()).unwrap();
        fs::write(&places.manifest, format!("{sum}  {}\n", path.display())).unwrap();
        Program::open(&path, &places).unwrap();
        fs::write(&path, "Genuine").unwrap();
        let refused = Program::open(&path, &places).unwrap_err();
        assert!(matches!(refused, LaunchError::Tampered { .. }), "{refused}");
        fs::write(&places.manifest, format!("{sum}  /elsewhere\n")).unwrap();
        let refused = Program::open(&path, &places).unwrap_err().to_string();
        assert!(refused.contains("does not list it"), "{refused}");
        fs::write(&places.manifest, "").unwrap();
        assert!(
            Program::open(&path, &places).is_err(),
            "an emptied manifest is none"
        );
    }

    #[test]
    fn the_last_lines_are_those_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/verdictd.log");
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(&path, "of the last one\n").unwrap();
        let log = Log::open(&path).unwrap();
        assert!(log.last_lines().is_empty());
        let text: String = (0..12).map(|n| format!("line {n}\n")).collect();
        io::Write::write_all(&mut &log.file, text.as_bytes()).unwrap();
        let lines = log.last_lines();
        assert_eq!((lines.len(), lines[9].as_str()), (10, "line 11"));
    }

    #[test]
    fn one_start_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        let held = StartLock::take(&places, &|| false).unwrap();
        assert!(matches!(
            StartLock::take(&places, &|| true),
            Err(LaunchError::Interrupted)
        ));
        drop(held);
        StartLock::take(&places, &|| true).unwrap();
    }
}
