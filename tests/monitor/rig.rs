//! An engine and a monitor of one namespace, started and stopped by the built programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use verdictd::control::pidfile::{self, ENGINE, MONITOR};

use crate::common::command::{Output, Running};
use crate::common::engine::Home;
use crate::common::namespace::Namespace;
use crate::common::watch::set_elements;
use crate::common::{secs, within};

/// For all that takes the programs some seconds on a busy machine.
pub(crate) const LIMIT: Duration = secs(40);

/// Stops what runs when it is dropped.
pub(crate) struct Rig {
    pub(crate) home: Home,
    bin: PathBuf,
    pub(crate) ns: Namespace,
}

impl Rig {
    pub(crate) fn new(config: &str) -> Rig {
        Rig::of(Home::new(config))
    }

    fn of(home: Home) -> Rig {
        let bin = Path::new(env!("CARGO_BIN_EXE_verdictd"));
        Rig {
            home,
            bin: bin.parent().expect("a folder").to_owned(),
            ns: Namespace::new("watched"),
        }
    }

    /// With copies of the programs, to be spoiled, and a manifest over the engine's and the configuration.
    pub(crate) fn sealed(config: &str) -> Rig {
        // Where nobody but root can put anything else in a file's place.
        let mut rig = Rig::of(Home::below(Path::new("/var/lib"), config));
        let bin = rig.place("bin");
        fs::create_dir(&bin).expect("a directory of ours");
        for name in ["verdictd", "verdictctl"] {
            fs::copy(rig.bin.join(name), bin.join(name)).expect("room for a copy");
        }
        rig.bin = bin;
        rig.seal();
        rig
    }

    /// Writes the manifest as files are now.
    pub(crate) fn seal(&self) {
        let sums = Command::new("sha256sum")
            .args([self.program(), self.home.config()])
            .output()
            .expect("sha256sum runs");
        fs::write(self.place("sums"), sums.stdout).expect("a file of ours");
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.home.config().with_file_name(name)
    }

    /// The engine's program.
    pub(crate) fn program(&self) -> PathBuf {
        self.bin.join("verdictd")
    }

    fn places(&self, command: &mut Command) {
        command
            .arg("--config")
            .arg(self.home.config())
            .arg("--state-dir")
            .arg(self.home.state())
            .arg("--runtime-dir")
            .arg(self.place("run"))
            .arg("--log-dir")
            .arg(self.home.logs())
            .arg("--manifest")
            .arg(self.place("sums"));
    }

    /// The command line of `verdictctl start`, `stop`, `restart` or `monitor`.
    pub(crate) fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("verdictctl"));
        command.arg("--socket").arg(self.home.socket()).arg(verb);
        self.places(&mut command);
        command.args(more);
        command
    }

    pub(crate) fn control(&self, verb: &str, more: &[&str]) -> Output {
        self.ns.run(&mut self.command(verb, more), secs(120))
    }

    /// The same, which must succeed; gives what it said.
    pub(crate) fn must(&self, verb: &str, more: &[&str]) -> String {
        let output = self.control(verb, more);
        assert_eq!(output.code(), 0, "{verb}: {}\n{}", output.text(), self.logs());
        output.stdout
    }

    /// `verdictd monitor`, in the foreground.
    pub(crate) fn foreground(&self) -> Running {
        let mut command = Command::new(self.program());
        command.args(["monitor", "--every=1s"]);
        self.places(&mut command);
        self.ns.start(&mut command)
    }

    /// `verdictctl status` as a person reads it.
    pub(crate) fn status(&self) -> Output {
        let mut command = Command::new(self.bin.join("verdictctl"));
        command
            .arg("--socket")
            .arg(self.home.socket())
            .arg("status")
            .arg("--state-dir")
            .arg(self.home.state());
        self.ns.run(&mut command, secs(20))
    }

    pub(crate) fn engine(&self) -> Option<Pid> {
        pidfile::holder(&self.place("run").join(ENGINE))
    }

    pub(crate) fn monitor(&self) -> Option<Pid> {
        pidfile::holder(&self.place("run-monitor").join(MONITOR))
    }

    /// Waits until an engine other than `before` answers.
    pub(crate) fn wait_engine(&self, before: Option<Pid>) -> Pid {
        let mut engine = None;
        let came = within(LIMIT, || {
            engine = self.engine().filter(|pid| Some(*pid) != before);
            engine.is_some() && self.home.ctl(&["stats"]).code() == 0
        });
        assert!(came, "no engine other than {before:?}\n{}", self.logs());
        engine.expect("it came")
    }

    /// What the monitor wrote down.
    pub(crate) fn view(&self) -> Value {
        let text = fs::read_to_string(self.place("state-monitor/monitor.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Waits until what the monitor wrote down is as wanted.
    pub(crate) fn wait_view(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let came = within(LIMIT, || holds(&self.view()));
        assert!(came, "{what}: {}\n{}", self.view(), self.logs());
        self.view()
    }

    pub(crate) fn monitor_log(&self) -> String {
        fs::read_to_string(self.home.logs().join("monitor.log")).unwrap_or_default()
    }

    pub(crate) fn logs(&self) -> String {
        let engine = fs::read_to_string(self.home.logs().join("verdictd.log")).unwrap_or_default();
        format!("--- monitor ---\n{}--- engine ---\n{engine}", self.monitor_log())
    }

    /// Waits until the monitor's log holds `words`.
    pub(crate) fn wait_log(&self, words: &str) {
        let came = within(LIMIT, || self.monitor_log().contains(words));
        assert!(came, "{words:?} is not said\n{}", self.logs());
    }

    pub(crate) fn kernel_bans(&self) -> Vec<String> {
        set_elements(&self.ns, "verdictd", "banned4")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let stopped = self.control("stop", &["--force", "--remove-rules"]);
        if std::thread::panicking() {
            return;
        }
        assert_eq!(stopped.code(), 0, "{}\n{}", stopped.text(), self.logs());
        assert_eq!((self.engine(), self.monitor()), (None, None));
    }
}

/// Sends a signal to a process of this test.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).expect("a process of ours");
}

/// Whether a process lives, and is not only waiting to be reaped.
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}
