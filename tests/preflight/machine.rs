//! A namespace, a configuration, and files of other programs; the check run there.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::command::Output;
use crate::common::namespace::Namespace;
use crate::common::secs;

/// Much longer than a check takes.
const LIMIT: std::time::Duration = secs(60);

/// Where the configuration and the files of other programs are.
pub(crate) struct Files(TempDir);

impl Files {
    /// A folder with this configuration and no other file.
    pub(crate) fn new(config: &str) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("f.toml", config);
        files
    }

    /// Puts a file where `/path` would be.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The command line of a check.
    pub(crate) fn command(&self) -> Command {
        self.command_for(&self.0.path().join("f.toml"))
    }

    /// The same with the configuration of somebody else.
    pub(crate) fn command_for(&self, config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
        command.args(["check", "--kernel", "--config"]).arg(config);
        command.arg("--root").arg(self.0.path());
        command
    }

    /// What a check here finds.
    pub(crate) fn check(&self, ns: &Namespace) -> Findings {
        Findings::of(ns, self.command())
    }
}

/// What a check found.
pub(crate) struct Findings {
    pub(crate) code: i32,
    value: Value,
}

impl Findings {
    /// Runs it with `--json`.
    pub(crate) fn of(ns: &Namespace, mut command: Command) -> Findings {
        Findings::read(&ns.run(command.arg("--json"), LIMIT))
    }

    fn read(output: &Output) -> Findings {
        let value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()));
        let code = output.code();
        Findings { code, value }
    }

    /// Level, what and remedy of each finding of this word.
    pub(crate) fn all(&self, word: &str) -> Vec<[String; 3]> {
        let findings = self.value["findings"].as_array().unwrap();
        let wanted = findings.iter().filter(|one| one["finding"] == word);
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        wanted
            .map(|one| ["level", "what", "do"].map(|key| text(one, key)))
            .collect()
    }

    /// The only one of this word.
    pub(crate) fn one(&self, word: &str) -> [String; 3] {
        let [one] =
            <[_; 1]>::try_from(self.all(word)).unwrap_or_else(|all| panic!("{word}: {all:?}: {self}"));
        one
    }

    /// Its level.
    pub(crate) fn level(&self, word: &str) -> String {
        let [level, ..] = self.one(word);
        level
    }

    /// What it says is so.
    pub(crate) fn what(&self, word: &str) -> String {
        let [_, what, _] = self.one(word);
        what
    }

    /// The words of what is to act on.
    pub(crate) fn acts(&self) -> Vec<String> {
        let findings = self.value["findings"].as_array().unwrap();
        let acts = findings.iter().filter(|one| one["level"] == "act");
        acts.map(|one| one["finding"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.value)
    }
}
