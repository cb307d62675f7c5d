//! The engine and the monitor as processes: found by what the kernel says of them, signalled by a descriptor of the
//! process, so that a pid that is somebody else's by now is never hit.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::places::Places;
use crate::control::client::Client;
use crate::control::pidfile;

/// A process that lived when it was found.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
}

/// How a process ended that was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Asked,
    /// By SIGKILL, because it did not within its time.
    Killed,
}

impl Process {
    /// The engine: who holds its pid file, else who listens on its control socket.
    pub fn engine(places: &Places) -> Option<Process> {
        let path = places.engine_pid();
        let client = places.client().within(LOOK);
        let holder = Process::found(|| pidfile::holder(&path)).filter(Process::is_ours);
        holder.or_else(|| Process::found(|| listener(&client)).filter(Process::is_ours))
    }

    /// The monitor: who holds its pid file.
    pub fn monitor(places: &Places) -> Option<Process> {
        let path = places.monitor_pid();
        Process::found(|| pidfile::holder(&path)).filter(Process::is_ours)
    }

    /// Whether it runs our program. The engine's user rules over pid file and socket, and could have both name somebody
    /// else's process, which root then ends; what a process runs he cannot make up. Who may not see that may not signal
    /// it either. Of one that is gone by now it may be wrong, which harms nobody: it takes no signal.
    fn is_ours(&self) -> bool {
        match fs::read_link(format!("/proc/{}/exe", self.pid())) {
            Ok(program) => {
                let name = program.file_name().unwrap_or_default().as_encoded_bytes();
                name.strip_suffix(b" (deleted)").unwrap_or(name) == b"verdictd"
            }
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Asked twice, with the descriptor opened between: what is said of a pid is said of one process only while that
    /// lives.
    fn found(ask: impl Fn() -> Option<Pid>) -> Option<Process> {
        for _ in 0..TRIES {
            let pid = ask()?;
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if ask() == Some(pid) {
                return Some(Process { pid, handle });
            }
        }
        None
    }

    /// Its number, for people.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends `signal`; a process that is gone takes none, and that is fine.
    ///
    /// # Errors
    /// If this process may not.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Waits until it ended; whether it did within `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(1) => return true,
                _ if left.is_zero() => return false,
                _ => {}
            }
        }
    }

    /// Asks it to end, and ends it after `grace`.
    ///
    /// # Errors
    /// If this process may not.
    pub fn end(&self, grace: Duration) -> io::Result<Ended> {
        self.signal(Signal::TERM)?;
        if self.wait(grace) {
            return Ok(Ended::Asked);
        }
        self.kill().map(|()| Ended::Killed)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If this process may not, or it is stuck in the kernel.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        match self.wait(KILL) {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "process {} does not end on SIGKILL, it is stuck in the kernel",
                self.pid()
            ))),
        }
    }
}

impl AsFd for Process {
    /// Becomes readable when it ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn listener(client: &Client) -> Option<Pid> {
    client.server().ok().flatten()
}

/// For poll(2).
pub(super) fn timespec(time: Duration) -> Timespec {
    // Beyond what a clock counts is for ever.
    Timespec::try_from(time).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    })
}

/// How long a connect to a socket with a full backlog may take.
const LOOK: Duration = Duration::from_secs(2);
/// What SIGKILL takes on a host that swaps.
const KILL: Duration = Duration::from_secs(10);
const TRIES: u32 = 5;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> (std::process::Child, Process) {
        let child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        (child, Process::found(|| Some(pid)).unwrap())
    }

    #[test]
    fn a_stopped_process_is_killed_after_its_grace() {
        let (mut child, process) = sleeper();
        process.signal(Signal::STOP).unwrap();
        // SIGTERM beside a SIGSTOP that is still on its way would be taken first.
        let stat = format!("/proc/{}/stat", process.pid());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
        assert_eq!(process.end(Duration::from_millis(50)).unwrap(), Ended::Killed);
        child.wait().unwrap();
        assert!(process.wait(Duration::ZERO));
        process.signal(Signal::TERM).unwrap();
    }

    #[test]
    fn one_that_listens_ends_by_itself() {
        let (mut child, process) = sleeper();
        assert!(!process.wait(Duration::ZERO));
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Ended::Asked);
        child.wait().unwrap();
    }

    #[test]
    fn who_changes_while_being_looked_for_is_not_found() {
        let other = std::cell::Cell::new(0);
        let found = Process::found(|| {
            other.set(1 - other.get());
            (other.get() == 1).then(rustix::process::getpid)
        });
        assert!(found.is_none());
    }
}
