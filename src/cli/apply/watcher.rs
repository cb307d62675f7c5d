//! Who goes back when nobody else does: a process of its own, started before the switch, that outlives the session, the
//! shell and the engine. Where systemd runs it is a unit (logind may end all that a session started); else a process
//! that has left its session.
//!
//! The engine goes back at the deadline by itself, and so does any engine that starts in between, for the configuration
//! file holds the old text. The watcher is for an engine that is dead or hangs: it puts the old table into the kernel
//! without one (`verdictd restore`).

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::files::Files;
use crate::cli::{Client, ClientError, Exit};
use crate::control::wire::{GoneBack, Reply, Request};
use crate::engine::trial;
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset;
use crate::monitor::places::Places;
use crate::monitor::process::Process;

/// Starts one that acts `at` (since boot), and waits until it stands by.
pub(super) fn start(client: &Client, files: &Files, state_dir: &Path, at: Duration) -> Result<(), String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    let arguments = [
        "--socket".into(),
        absolute(client.path()).into_os_string(),
        "go-back".into(),
        "--at".into(),
        trial::millis(at).to_string().into(),
        "--config".into(),
        files.config.clone().into_os_string(),
        "--state-dir".into(),
        absolute(state_dir).into_os_string(),
    ];
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
        command
            .args(options)
            .arg("--")
            .arg(&own)
            .args(&arguments)
            .stdin(Stdio::null());
        if command.output().is_ok_and(|ran| ran.status.success()) {
            return Ok(());
        }
        // Better one that a strict logind ends with the session than none.
    }
    stand_by(Command::new(own).args(arguments).arg("--detached"))
}

fn stand_by(command: &mut Command) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot start what goes back if this program ends: {error}");
    let mut child = command
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let mut line = String::new();
    let output = child
        .stdout
        .take()
        .ok_or_else(|| cannot(io::ErrorKind::BrokenPipe.into()))?;
    BufReader::new(output).read_line(&mut line).map_err(cannot)?;
    match line.trim() {
        STANDING_BY => Ok(()),
        _ => Err(cannot(io::Error::other("it ended at once"))),
    }
}

/// systemd is the first process, and its units are in our network namespace: `restore` is for that.
fn by_systemd() -> bool {
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    Path::new("/run/systemd/system").is_dir() && network("self").is_some() && network("self") == network("1")
}

/// What one watcher is about.
pub(in crate::cli) struct Watcher {
    /// When it acts, since boot.
    pub(in crate::cli) at: Duration,
    /// The configuration file.
    pub(in crate::cli) config: PathBuf,
    /// Where state is kept.
    pub(in crate::cli) state_dir: PathBuf,
    /// Leave the session of who started it.
    pub(in crate::cli) detached: bool,
}

impl Watcher {
    /// Waits, and goes back unless the candidate is gone by then: confirmed, or given up.
    pub(in crate::cli) fn run(&self, client: &Client) -> Exit {
        if self.detached {
            let _ = rustix::process::setsid();
            let _ = writeln!(io::stdout(), "{STANDING_BY}").and_then(|()| io::stdout().flush());
        }
        // What frees memory by ending the one who opens the door again would be the wrong help.
        let _ = fs::write("/proc/self/oom_score_adj", "-900");
        let candidate = trial::candidate(&self.config);
        loop {
            if !candidate.exists() {
                return Exit::Fine;
            }
            let left = self.at.saturating_sub(trial::since_boot());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LOOK));
        }
        match go_back(client, &self.config, &self.state_dir) {
            Ok(how) => {
                say(LOG_WARNING, &format!("apply: {how}"));
                Exit::Fine
            }
            Err(why) => {
                say(
                    LOG_CRITICAL,
                    &format!("apply: THE NEW POLICY IS STILL IN FORCE, nobody confirmed it: {why}"),
                );
                Exit::Failed
            }
        }
    }
}

/// Goes back by the engine, else without one; how, in words.
pub(in crate::cli) fn go_back(client: &Client, config: &Path, state_dir: &Path) -> Result<String, String> {
    let places = Places {
        config: config.to_owned(),
        state_dir: state_dir.to_owned(),
        runtime_dir: client.path().parent().map(PathBuf::from).unwrap_or_default(),
        ..Places::default()
    };
    let mut why = String::new();
    for round in 1..=ROUNDS {
        match client.clone().within(PATIENCE).ask(&Request::GoBack {}) {
            Ok(Reply::GoneBack(GoneBack::Confirmed)) => return Ok("confirmed, the new policy stays".into()),
            Ok(Reply::GoneBack(_)) => return aside(config, "the old policy is in force"),
            Ok(Reply::Refused { message }) => {
                why = message;
                if round >= REFUSALS {
                    kill(&places, &why);
                }
            }
            Ok(_) => why = "the engine answered something else, is it of another version?".into(),
            // Somebody took the rules out: there is nothing to go back from.
            Err(ClientError::NotRunning { .. }) if !is_loaded() => {
                return aside(config, "neither engine nor rules are there");
            }
            Err(ClientError::NotRunning { .. }) => match restore(&places) {
                Ok(()) => return aside(config, "no engine runs; the old policy is in the kernel again"),
                Err(error) => why = error,
            },
            Err(error) => {
                why = error.to_string();
                if round >= HANGS {
                    kill(&places, &why);
                }
            }
        }
        thread::sleep(AGAIN);
    }
    Err(why)
}

/// Ends an engine that does not go back: the next one does, and without one `restore`.
fn kill(places: &Places, why: &str) {
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

/// Keeps what was tried where it is found.
fn aside(config: &Path, how: &str) -> Result<String, String> {
    let put =
        Files::of(config, PATIENCE).and_then(|files| Ok(files.put_aside()?.then(|| files.unconfirmed())));
    Ok(match put {
        Ok(Some(kept)) => format!("{how}; what was tried is kept in {}", kept.display()),
        Ok(None) => how.to_owned(),
        Err(error) => format!("{how}; what was tried cannot be put aside: {error}"),
    })
}

/// In doubt it is.
fn is_loaded() -> bool {
    let read = Netlink::open(mnl::Bus::Netfilter).map(|mut netlink| ruleset::read(&mut netlink));
    !matches!(read, Ok(Ok(None)))
}

fn restore(places: &Places) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own.with_file_name("verdictd"));
    command.arg("restore").arg("--config").arg(&places.config);
    command.arg("--state-dir").arg(&places.state_dir);
    let ran = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("verdictd restore: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!(
            "verdictd restore: {}",
            String::from_utf8_lossy(&ran.stderr).trim()
        )),
    }
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
/// A minute and more.
const ROUNDS: u32 = 60;
/// Of the facility "daemon" (RFC 5424): 3 × 8 + severity.
const LOG_WARNING: u8 = 28;
const LOG_CRITICAL: u8 = 26;
