//! A host in detection mode, and the firewall that it is to become.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::command::Output;
use crate::common::engine::{DETECTION, FIREWALL, Home, table};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};

/// For all that takes the programs some seconds on a busy machine.
pub(crate) const LIMIT: Duration = secs(30);
/// The shortest that is allowed: nobody waits for a test.
pub(crate) const SOON: &[&str] = &["--yes", "--confirm", "5s"];

/// What is typed on one host.
pub(crate) struct Desk<'a> {
    pub(crate) ns: &'a Namespace,
    pub(crate) home: PathBuf,
}

impl<'a> Desk<'a> {
    pub(crate) fn of(ns: &'a Namespace, home: &Home) -> Desk<'a> {
        let desk = Desk {
            ns,
            home: home.config().parent().expect("a folder").to_owned(),
        };
        fs::write(desk.at("firewall.toml"), FIREWALL).expect("a file of ours");
        desk
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    /// `verdictctl` and where it finds this engine.
    pub(crate) fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command.arg("--socket").arg(self.at("run/control.sock")).arg(verb);
        if ["apply", "confirm", "go-back"].contains(&verb) {
            command.arg("--config").arg(self.at("verdictd.toml"));
        }
        if ["apply", "go-back"].contains(&verb) {
            command.arg("--state-dir").arg(self.at("state"));
        }
        if ["apply", "confirm"].contains(&verb) {
            command.arg("--manifest").arg(self.at("sums"));
        }
        command.args(args);
        command
    }

    /// The same as one line of a shell.
    pub(crate) fn line(&self, verb: &str, args: &[&str]) -> String {
        let command = self.command(verb, args);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) fn ctl(&self, verb: &str, args: &[&str]) -> Output {
        self.ns.run(&mut self.command(verb, args), secs(60))
    }

    /// Typed at the console, wherever this test is run from: nothing that it descends from is seen.
    pub(crate) fn at_console(&self, verb: &str, args: &[&str]) -> Output {
        let inner = self.command(verb, args);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "env", "-u", "SSH_CONNECTION"]);
        command.arg(inner.get_program()).args(inner.get_args());
        self.ns.run(&mut command, secs(60))
    }

    /// Root has seen what is in force, and so can go back to it from an edit.
    pub(crate) fn knows_what_is_in_force(&self) {
        let same = self.at("same.toml");
        fs::copy(self.at("verdictd.toml"), &same).expect("files of ours");
        let output = self.ctl("apply", &["--yes", &same.display().to_string()]);
        assert_eq!(output.code(), 0, "{}", output.text());
    }

    /// Applies the firewall, which must be taken.
    pub(crate) fn apply(&self, options: &[&str]) -> String {
        let file = self.at("firewall.toml").display().to_string();
        let args: Vec<&str> = options.iter().copied().chain([file.as_str()]).collect();
        let output = self.ctl("apply", &args);
        assert_eq!(output.code(), 0, "{}", output.text());
        output.stdout
    }

    pub(crate) fn status(&self) -> Value {
        let output = self.ctl("status", &["--json"]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()))
    }

    /// What `status` says of the trial; empty if nothing.
    pub(crate) fn state(&self) -> String {
        self.status()["apply"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn table(&self) -> String {
        table(self.ns)
    }

    /// The watchers of this host that live.
    pub(crate) fn watchers(&self) -> Vec<Pid> {
        let home = self.home.display().to_string();
        let is_ours = |path: &Path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("\0go-back\0") && line.contains(&home)
        };
        let entries = fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .map(|entry| entry.path());
        let ours = entries.filter(|path| is_ours(path));
        ours.filter_map(|path| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?))
            .collect()
    }

    pub(crate) fn kill_watchers(&self) {
        let watchers = self.watchers();
        assert_eq!(watchers.len(), 1, "one stands by");
        for watcher in watchers {
            kill_process(watcher, Signal::KILL).expect("started by this test");
        }
        assert!(within(LIMIT, || self.watchers().is_empty()), "it is gone");
    }

    /// The old policy is in the kernel again, the file has never said otherwise, and nobody stands by any more.
    pub(crate) fn must_be_back(&self, before: &str, how: &str) {
        let back = within(LIMIT, || self.table() == before);
        assert!(
            back,
            "{how}: not back\n{}\n--- before ---\n{before}--- now ---\n{}",
            self.log(),
            self.table()
        );
        assert_eq!(self.read("verdictd.toml").as_deref(), Some(DETECTION), "{how}");
        assert!(
            within(LIMIT, || self.watchers().is_empty()),
            "{how}: somebody stands by still"
        );
    }

    pub(crate) fn log(&self) -> String {
        self.read("log").unwrap_or_default()
    }
}
