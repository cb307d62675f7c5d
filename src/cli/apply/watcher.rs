//! Who goes back when nobody else does: a process of its own, started before the switch, that outlives the session, the
//! shell and the engine. Where systemd runs it is a unit (logind may end all that a session started); else a process
//! that has left its session.
//!
//! The engine goes back at the deadline by itself, and so does any engine that starts in between, for the configuration
//! file holds the old text. The watcher is for an engine that is dead or hangs: it puts the old table into the kernel
//! without one (`verdictd restore`).

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{Files, FilesError, is_last};
use crate::cli::{Client, ClientError, Exit};
use crate::control::wire::{GoneBack, Reply, Request};
use crate::engine::trial;
use crate::kernel::netlink::Netlink;
use crate::kernel::processes;
use crate::kernel::ruleset;
use crate::monitor::places::Places;
use crate::monitor::process::Process;

/// Why nobody stands by, or nothing goes back.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum WatcherError {
    #[error("cannot start what goes back if this program ends: {0}")]
    Start(#[source] io::Error),
    #[error("the engine refuses: {0}")]
    Refused(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the engine answered something else, is it of another version?")]
    Unexpected,
    #[error("verdictd restore: {0}")]
    Restore(String),
}

/// Starts one that acts `at` (since boot), and waits until it stands by.
pub(super) fn start(
    client: &Client,
    files: &Files,
    state_dir: &Path,
    at: Duration,
) -> Result<(), WatcherError> {
    let own = std::env::current_exe().map_err(WatcherError::Start)?;
    let arguments = arguments(client, files, state_dir, at);
    if by_systemd() {
        let unit = format!("--unit=verdictd-go-back-{}", std::process::id());
        let options = [
            "--quiet",
            "--collect",
            "--no-ask-password",
            &unit,
            "--service-type=exec",
            "--description=goes back to the old policy of verdictd unless the new one is confirmed",
        ];
        let mut command = Command::new("systemd-run");
        command.args(options).arg("--").arg(&own).args(&arguments);
        if ended(&mut command, BY_SYSTEMD).is_ok_and(|(status, _)| status.success()) {
            return Ok(());
        }
        // Better one that a strict logind ends with the session than none; two of one deadline do no harm.
    }
    stand_by(Command::new(own).args(arguments).arg("--detached"))
}

/// What the watcher is called with: docs/apply.md has it too.
fn arguments(client: &Client, files: &Files, state_dir: &Path, at: Duration) -> [OsString; 9] {
    [
        "--socket".into(),
        absolute(client.path()).into_os_string(),
        "go-back".into(),
        "--at".into(),
        trial::millis(at).to_string().into(),
        "--config".into(),
        files.config.clone().into_os_string(),
        "--state-dir".into(),
        absolute(state_dir).into_os_string(),
    ]
}

fn stand_by(command: &mut Command) -> Result<(), WatcherError> {
    let mut child = command
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(WatcherError::Start)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        let read = BufReader::new(output).read_line(&mut line);
        read.map_err(WatcherError::Start)?;
    }
    match line.trim() {
        STANDING_BY => Ok(()),
        _ => Err(WatcherError::Start(io::Error::other("it ended at once"))),
    }
}

/// systemd is the first process, and its units are in our network namespace: `restore` is for that.
fn by_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir() && processes::shares_network(1) == Some(true)
}

/// What one watcher is about.
pub(in crate::cli) struct Watcher {
    /// When it acts, since boot; by this it knows its trial, and the engine too.
    pub(in crate::cli) at: Duration,
    /// The configuration file.
    pub(in crate::cli) config: PathBuf,
    /// Where state is kept.
    pub(in crate::cli) state_dir: PathBuf,
    /// Leave the session of who started it.
    pub(in crate::cli) detached: bool,
}

impl Watcher {
    /// Waits, and goes back unless its trial is over by then: confirmed, given up, or another has begun.
    pub(in crate::cli) fn run(&self, client: &Client) -> Exit {
        if self.detached {
            let _ = rustix::process::setsid();
            let _ = writeln!(io::stdout(), "{STANDING_BY}").and_then(|()| io::stdout().flush());
        }
        // What frees memory by ending the one who opens the door again would be the wrong help.
        let _ = fs::write("/proc/self/oom_score_adj", "-900");
        while !self.is_over() {
            let left = self.at.saturating_sub(trial::since_boot());
            if left.is_zero() {
                return self.act(client);
            }
            thread::sleep(left.min(LOOK));
        }
        Exit::Fine
    }

    fn is_over(&self) -> bool {
        !trial::candidate(&self.config).exists() || !is_last(&self.config, self.at)
    }

    /// Until it is done: whoever is locked out has nobody else.
    fn act(&self, client: &Client) -> Exit {
        loop {
            match go_back(client, &self.config, &self.state_dir, Some(self)) {
                Ok(Ended::Stays(how)) => {
                    say(LOG_WARNING, &format!("apply: {how}"));
                    return Exit::Fine;
                }
                Ok(Ended::Back(how)) => {
                    let kept = Files::of(&self.config, PATIENCE).and_then(|files| aside(&files));
                    say(LOG_WARNING, &format!("apply: {how}{}", told(kept)));
                    return Exit::Fine;
                }
                Err(why) => say(
                    LOG_CRITICAL,
                    &format!(
                        "apply: THE NEW POLICY IS STILL IN FORCE, nobody confirmed it, tried again: {why}"
                    ),
                ),
            }
            thread::sleep(LATER);
        }
    }
}

/// How a trial ended, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Ended {
    /// What is in force stays.
    Stays(&'static str),
    /// The old policy is in force.
    Back(&'static str),
}

/// Goes back by the engine, else without one; for a watcher only from what it stands by for.
pub(in crate::cli) fn go_back(
    client: &Client,
    config: &Path,
    state_dir: &Path,
    watcher: Option<&Watcher>,
) -> Result<Ended, WatcherError> {
    let places = Places {
        config: config.to_owned(),
        state_dir: state_dir.to_owned(),
        runtime_dir: client.path().parent().map(PathBuf::from).unwrap_or_default(),
        ..Places::default()
    };
    let request = Request::GoBack {
        until_ms: watcher.map(|watcher| trial::millis(watcher.at)),
    };
    let mut last = WatcherError::Unexpected;
    for round in 1..=ROUNDS {
        if watcher.is_some_and(Watcher::is_over) {
            return Ok(Ended::Stays(
                "another has begun, or it is confirmed: what is in force stays",
            ));
        }
        last = match client.clone().within(PATIENCE).ask(&request) {
            Ok(Reply::GoneBack(GoneBack::Confirmed)) => {
                return Ok(Ended::Stays("confirmed, the new policy stays"));
            }
            Ok(Reply::GoneBack(GoneBack::Another)) => {
                return Ok(Ended::Stays("another policy is being tried out, which stays"));
            }
            Ok(Reply::GoneBack(GoneBack::Back | GoneBack::Nothing)) => {
                return Ok(Ended::Back("the old policy is in force"));
            }
            Ok(Reply::Refused { message } | Reply::Undecided { message }) => {
                let why = WatcherError::Refused(message);
                if round >= REFUSALS {
                    kill(&places, &why);
                }
                why
            }
            Ok(_) => WatcherError::Unexpected,
            // Somebody took the rules out: there is nothing to go back from.
            Err(ClientError::NotRunning { .. }) if !is_loaded() => {
                return Ok(Ended::Back("neither engine nor rules are there"));
            }
            Err(ClientError::NotRunning { .. }) => match restore(&places) {
                Ok(()) => {
                    return Ok(Ended::Back(
                        "no engine runs; the old policy is in the kernel again",
                    ));
                }
                // It is there after all: it answers nobody any more, and holds what it is to let go of.
                Err(why) => {
                    if round >= LINGERS {
                        kill(&places, &why);
                    }
                    why
                }
            },
            Err(error) => {
                let why = error.into();
                if round >= HANGS {
                    kill(&places, &why);
                }
                why
            }
        };
        thread::sleep(AGAIN);
    }
    Err(last)
}

/// Ends an engine that does not go back: the next one does, and without one `restore`.
fn kill(places: &Places, why: &WatcherError) {
    if let Some(engine) = Process::engine(places) {
        let pid = engine.pid();
        say(
            LOG_WARNING,
            &format!("apply: the engine (pid {pid}) does not go back and is killed: {why}"),
        );
        if let Err(error) = engine.kill() {
            say(LOG_CRITICAL, &format!("apply: {error}"));
        }
    }
}

/// Keeps what was tried where it is found; says where.
pub(in crate::cli) fn aside(files: &Files) -> Result<Option<PathBuf>, FilesError> {
    Ok(files.put_aside()?.then(|| files.unconfirmed()))
}

/// What became of what was tried, to go on a sentence with.
pub(in crate::cli) fn told(kept: Result<Option<PathBuf>, FilesError>) -> String {
    match kept {
        Ok(Some(kept)) => format!("; what was tried is kept in {}", kept.display()),
        Ok(None) => String::new(),
        Err(error) => format!("; what was tried cannot be put aside: {error}"),
    }
}

/// In doubt it is.
fn is_loaded() -> bool {
    let read = Netlink::open(mnl::Bus::Netfilter).map(|mut netlink| ruleset::read(&mut netlink));
    !matches!(read, Ok(Ok(None)))
}

fn restore(places: &Places) -> Result<(), WatcherError> {
    let cannot = |error: io::Error| WatcherError::Restore(error.to_string());
    let own = std::env::current_exe().map_err(cannot)?;
    let mut command = Command::new(own.with_file_name("verdictd"));
    command.arg("restore").arg("--config").arg(&places.config);
    command.arg("--state-dir").arg(&places.state_dir);
    let (status, said) = ended(&mut command, RESTORING).map_err(cannot)?;
    match status.success() {
        true => Ok(()),
        false => Err(WatcherError::Restore(said.trim().to_owned())),
    }
}

/// How `command` ends, and what it says of errors; one that takes longer than `limit` is killed: it is in nobody's way
/// when it is tried again.
fn ended(command: &mut Command, limit: Duration) -> io::Result<(ExitStatus, String)> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let errors = child.stderr.take();
    // Beside us: who waits for somebody that reads never ends.
    let reader = thread::spawn(move || errors.map(first_of).unwrap_or_default());
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, reader.join().unwrap_or_default()));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            let seconds = limit.as_secs();
            return Err(io::Error::other(format!(
                "it did not end within {seconds} s and was killed"
            )));
        }
        thread::sleep(POLL);
    }
}

/// The first of what comes; the rest is read all the same, for whoever writes it.
fn first_of(mut errors: impl Read) -> String {
    let mut said = Vec::new();
    let _ = (&mut errors).take(MOST_SAID).read_to_end(&mut said);
    let _ = io::copy(&mut errors, &mut io::sink());
    String::from_utf8_lossy(&said).into_owned()
}

/// Into the system's log: nobody reads the output of one that left its session.
fn say(priority: u8, text: &str) {
    eprintln!("verdictctl: {text}");
    let line = format!("<{priority}>verdictctl[{}]: {text}", std::process::id());
    let _ = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), "/dev/log")
    });
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

const STANDING_BY: &str = "standing by";
/// How long it sleeps at most: its own timer does not count a suspended host, CLOCK_BOOTTIME does.
const LOOK: Duration = Duration::from_secs(1);
/// A reload of a loaded host takes well below a second.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);
/// An engine that did not answer twice hangs.
const HANGS: u32 = 2;
/// One that says no for five seconds will go on saying so.
const REFUSALS: u32 = 10;
/// Half a minute at least.
const ROUNDS: u32 = 60;
/// What failed for so long is tried again, without filling the log.
const LATER: Duration = Duration::from_secs(30);
/// An engine that stops has closed its socket and saves; ten seconds are enough for what its journal has anyway.
const LINGERS: u32 = 20;
/// As the unit of an engine has to start: a million bans take some ten seconds.
const RESTORING: Duration = Duration::from_secs(90);
/// It hands over to systemd and ends.
const BY_SYSTEMD: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// More than anybody reads in a log.
const MOST_SAID: u64 = 64 * 1024;
/// Of the facility "daemon" (RFC 5424): 3 × 8 + severity.
const LOG_WARNING: u8 = 28;
const LOG_CRITICAL: u8 = 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_end_in_time_is_killed() {
        let shell = |line: &str, limit| {
            ended(
                Command::new("sh").args(["-c", line]),
                Duration::from_millis(limit),
            )
        };
        let (status, said) = shell("echo no >&2; exit 3", 30_000).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "no\n"));
        let late = shell("exec sleep 1000", 50).unwrap_err().to_string();
        assert!(late.contains("was killed"), "{late}");
        // More than a pipe holds, and more than is kept.
        let (status, said) = shell("yes 0123456 | head -c 9999999 >&2; exit 0", 30_000).unwrap();
        assert!(
            status.success() && said.len() as u64 == MOST_SAID,
            "{status} {}",
            said.len()
        );
    }
}
