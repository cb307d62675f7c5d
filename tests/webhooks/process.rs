//! FAULTS 47: what the programs know cannot be had from outside, even when they crash.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::rig::read_request;

const KEY: &str = "hunter2-the-webhook-secret";

/// A program that may leave core dumps in `folder`; killed also when the test fails.
struct Program(Child);

impl Program {
    fn start(folder: &Path, command: &str) -> Program {
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -c unlimited; exec {command}")])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Program(child.unwrap())
    }

    /// Waits until it has printed a line that begins so.
    fn prints(&mut self, begin: &str) -> BufReader<ChildStdout> {
        let mut out = BufReader::new(self.0.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(begin) {
            line.clear();
            assert!(
                out.read_line(&mut line).unwrap() > 0,
                "it ended before \"{begin}\""
            );
        }
        out
    }

    /// Whether a crash leaves its memory behind.
    #[track_caller]
    fn dumps(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.signal(), Some(6), "{status:?}");
        status.core_dumped()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fault_48_no_proxy_of_the_environment_is_used() {
    let receiver = crate::rig::Receiver::fine();
    let url = format!("http://{}/", receiver.address);
    let mut test = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    test.args(["webhook", "test", "--url", &url]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        test.env(name, "http://127.0.0.1:1/");
    }
    let output = test.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn fault_47_a_crash_leaves_no_secret_behind() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    // Without limit a crash leaves its memory on this host, or this test would show nothing.
    let mut other = Program::start(place, "sh -c 'echo begun; while :; do :; done'");
    drop(other.prints("begun"));
    assert!(other.dumps(), "nothing dumps core here: see kernel.core_pattern");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let config = format!(
        "[webhooks]\nenabled = true\n[[webhooks.endpoints]]\nname = \"a\"\nurl = {url:?}\nsecret = {KEY:?}\n"
    );
    fs::write(place.join("v.toml"), config).unwrap();

    let ctl = env!("CARGO_BIN_EXE_verdictctl");
    let ctl = Program::start(place, &format!("{ctl} webhook test --config v.toml"));
    let (asked, _) = silent.accept().unwrap();
    read_request(&asked);
    assert!(!ctl.dumps());

    let receiver = env!("CARGO_BIN_EXE_verdict-receiver");
    let mut receiver = Program::start(place, &format!("{receiver} test-server --port 0 --secret {KEY}"));
    let said = receiver.prints("listening");
    assert!(!receiver.dumps());
    drop(said);

    let engine = env!("CARGO_BIN_EXE_verdictd");
    for part in ["state", "run"] {
        fs::create_dir(place.join(part)).unwrap();
    }
    let run = format!("{engine} run --config v.toml --state-dir state --runtime-dir run --ephemeral");
    let run = format!("unshare --net sh -c 'ip link set lo up; exec {run}'");
    let mut engine = Program::start(place, &run);
    let said = engine.prints("ready");
    assert!(!engine.dumps());
    drop(said);
}
