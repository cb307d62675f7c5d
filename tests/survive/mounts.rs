//! Small file systems that nobody else sees: in a mount namespace of their own, gone with its keeper also when this
//! program is killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::command::run;
use crate::common::secs;

/// A mount namespace.
pub(crate) struct Mounts {
    keeper: Child,
}

impl Mounts {
    pub(crate) fn new() -> Mounts {
        let mut command = Command::new("unshare");
        // The keeper reads until our end of its pipe is closed, however that comes about.
        command.args(["--mount", "--propagation", "slave", "sh", "-c", "echo up; read _"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("unshare, of util-linux");
        let mut line = String::new();
        let _ = BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut line);
        assert_eq!(line, "up\n", "a mount namespace needs root: run sudo make test");
        Mounts { keeper }
    }

    /// `command` where these mounts are seen; who signals it means the command itself.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered
            .arg(format!("--target={}", self.keeper.id()))
            .arg("--mount");
        entered.arg(command.get_program()).args(command.get_args());
        let set = command.get_envs().filter_map(|(key, value)| Some((key, value?)));
        entered.envs(set);
        entered
    }

    /// Runs a program that must succeed there.
    pub(crate) fn must(&self, program: &str, args: &[&str]) {
        let output = run(&mut self.inside(Command::new(program).args(args)), secs(20));
        assert!(output.status.success(), "{program} {args:?}: {}", output.text());
    }

    /// How we get to a path of theirs.
    pub(crate) fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
