//! What is wrong with a config, or worth a word: told so that the reader knows the next key to press.

use std::fmt;
use std::path::PathBuf;

/// A config that was not accepted: every problem that was found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One line a problem: `/etc/verdictd/verdictd.toml:12: allowed_ports.tcp: 70000 is not a port; write …`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (i, problem) in self.problems.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            match problem.line {
                Some(line) => write!(f, "{end}{path}:{line}: {problem}")?,
                None => write!(f, "{end}{path}: {problem}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong. Whatever comes from the file is escaped and cut to a readable length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// From 1; `None` only when the file could not be read at all.
    pub line: Option<usize>,
    /// The whole key, `allowed_ports.tcp`; empty where the text is not TOML.
    pub key: String,
    /// The value as it stands in the file; empty where there is none, or where it is a secret.
    pub found: String,
    /// What is wrong with it: `is not a port`.
    pub wrong: String,
    /// What to do instead: `write a number from 1 to 65535`.
    pub right: String,
}

/// Without file and line: `allowed_ports.tcp: 70000 is not a port; write a number from 1 to 65535`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            key,
            found,
            wrong,
            right,
            ..
        } = self;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        if !found.is_empty() {
            write!(f, "{found} ")?;
        }
        f.write_str(wrong)?;
        if !right.is_empty() {
            write!(f, "; {right}")?;
        }
        Ok(())
    }
}

/// Accepted, but without effect or not quite as written; shown by `check` and at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// From 1.
    pub line: usize,
    /// The whole key.
    pub key: String,
    /// A sentence that names key and value.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}
