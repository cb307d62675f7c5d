//! An exporter beside an engine, and questions to both.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::command::{Output, run};
use crate::common::engine::Home;
use crate::common::namespace::Namespace;
use crate::common::{secs, within};

/// Stands for the group `verdictd`, which need not exist here.
pub(crate) const GROUP: u32 = 64_321;
/// Nobody in particular, who is not the user of any engine here.
pub(crate) const STRANGER: u32 = 64_322;

/// A running exporter; killed when it is dropped.
pub(crate) struct Exporter<'a> {
    ns: &'a Namespace,
    child: Child,
    pub(crate) at: SocketAddr,
}

impl<'a> Exporter<'a> {
    /// One as root, on a port that is free.
    pub(crate) fn start(ns: &'a Namespace, home: &Home) -> Exporter<'a> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command.arg("--socket").arg(home.socket());
        command.args(["exporter", "--listen", "127.0.0.1:0", "--state-dir"]);
        command.arg(home.state());
        Exporter::start_by(ns, &mut command)
    }

    /// One by this command line.
    pub(crate) fn start_by(ns: &'a Namespace, command: &mut Command) -> Exporter<'a> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = ns
            .inside(|| command.spawn())
            .expect("the built verdictctl starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let at = line.trim().strip_prefix("listening on http://");
        let at = at.and_then(|rest| rest.strip_suffix("/metrics")?.parse().ok());
        let at = at.unwrap_or_else(|| panic!("it says {line:?}"));
        Exporter { ns, child, at }
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = self
            .ns
            .inside(|| TcpStream::connect_timeout(&self.at, secs(10)))?;
        stream.set_read_timeout(Some(secs(30)))?;
        stream.set_write_timeout(Some(secs(30)))?;
        Ok(stream)
    }

    /// Status line with headers, and body, of what it answers to these bytes.
    pub(crate) fn raw(&self, request: &[u8]) -> (String, String) {
        let mut stream = self.connect().expect("it listens");
        // It may answer, and close, before all is written.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) => (head.to_owned(), body.to_owned()),
            None => (answer, String::new()),
        }
    }

    /// The answer to `METHOD PATH`.
    pub(crate) fn request(&self, what: &str) -> (String, String) {
        self.raw(format!("{what} HTTP/1.1\r\nHost: {}\r\n\r\n", self.at).as_bytes())
    }

    /// What `/metrics` says, which must be 200.
    pub(crate) fn scrape(&self) -> Samples {
        let (head, body) = self.request("GET /metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Samples(body)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A number of `/proc/PID/status`, such as `Threads`.
    pub(crate) fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap()
    }

    /// SIGTERM; its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let mut ended = None;
        within(secs(10), || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.and_then(|status| status.code()).expect("it ends by itself")
    }
}

impl Drop for Exporter<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of one scrape.
#[derive(Debug)]
pub(crate) struct Samples(pub(crate) String);

impl Samples {
    /// Series with their values, as they are written.
    pub(crate) fn all(&self) -> BTreeMap<&str, f64> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a series and its value");
                (series, value.parse().expect("a number"))
            })
            .collect()
    }

    /// The value of one series.
    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.all().get(series).copied()
    }

    /// What Prometheus' own tool has to say against it; nothing if all is well.
    pub(crate) fn faults(&self) -> String {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (sudo make test installs what is missing)");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.0.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        match output.status.success() && said.is_empty() {
            true => String::new(),
            false => format!("{}: {said}", output.status),
        }
    }
}

/// A copy of `verdictctl` where every user can read it.
pub(crate) struct Copy {
    folder: TempDir,
}

impl Copy {
    pub(crate) fn new() -> Copy {
        let folder = TempDir::with_prefix("verdictd-test-").unwrap();
        open(folder.path(), 0o755);
        let copy = Copy { folder };
        std::fs::copy(env!("CARGO_BIN_EXE_verdictctl"), copy.path()).unwrap();
        copy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("verdictctl")
    }

    /// It as this user, without any capability, in these groups.
    pub(crate) fn command(&self, uid: u32, groups: &str, socket: &Path) -> Command {
        let mut bare = Command::new("setpriv");
        bare.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string()]);
        bare.args(["--groups", groups, "--bounding-set", "-all", "--no-new-privs"]);
        bare.arg(self.path()).arg("--socket").arg(socket);
        bare
    }

    /// It to its end.
    pub(crate) fn run(&self, uid: u32, groups: &str, socket: &Path, args: &[&str]) -> Output {
        run(self.command(uid, groups, socket).args(args), secs(30))
    }
}

/// Gives socket and its folder to [`GROUP`], as the unit's user and its group have them.
pub(crate) fn for_the_group(home: &Home) {
    let socket = home.socket();
    let folder = socket.parent().unwrap();
    chown(folder, None, Some(GROUP)).unwrap();
    chown(&socket, None, Some(GROUP)).unwrap();
    open(folder, 0o750);
    // Above it, the folder of the test.
    open(folder.parent().unwrap(), 0o755);
}

pub(crate) fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
