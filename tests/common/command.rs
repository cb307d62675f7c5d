//! Programs under a time limit: none can hang a test run.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a finished program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// The exit code; -1 when a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Both streams, for messages.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A running program that is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    what: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts `command` in the namespace of the calling thread, both streams captured.
    pub(crate) fn start(command: &mut Command) -> Running {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{what}: {e} (sudo make test installs what is missing)"));
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Running {
            child,
            what,
            stdout,
            stderr,
        }
    }

    /// Waits for the end, at most `limit`; then kills it and fails the test.
    pub(crate) fn finish(mut self, limit: Duration) -> Output {
        let end = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait().expect("waiting for a child of ours") {
                Some(status) => break status,
                None if Instant::now() < end => thread::sleep(Duration::from_millis(2)),
                None => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let (stdout, stderr) = self.streams();
                    panic!("{} took longer than {limit:?}: {stdout}{stderr}", self.what);
                }
            }
        };
        let (stdout, stderr) = self.streams();
        Output {
            status,
            stdout,
            stderr,
        }
    }

    fn streams(&mut self) -> (String, String) {
        let text = |h: Option<JoinHandle<String>>| h.and_then(|h| h.join().ok()).unwrap_or_default();
        (text(self.stdout.take()), text(self.stderr.take()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` the child is reaped, and std then refuses to signal its number.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end in the namespace of the calling thread.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Output {
    Running::start(command).finish(limit)
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
