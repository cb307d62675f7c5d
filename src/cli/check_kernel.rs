//! `verdictd check --kernel`: prints what [`crate::preflight`] finds.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::engine::{FAILED, answer, refuse};
use super::print::{self, plain};
use crate::config::{self, Config, ConfigError};
use crate::engine::lockout;
use crate::engine::open::{self, FIRST_NUMBER};
use crate::kernel::host;
use crate::kernel::ruleset::{Backend, Layout, Ruleset};
use crate::places::CONFIG;
use crate::preflight::{self, Code, Facts, Finding, Level};

/// What it prints; as JSON a contract.
#[derive(Serialize)]
struct Report {
    /// How many findings there are to act on.
    act: usize,
    findings: Vec<Finding>,
}

/// Checks this machine against the configuration at `path`: exit code 0 nothing to act on, 1 something, 2 a bad
/// configuration. `root` is where the files of other programs are looked for.
pub(super) fn check_kernel(path: &Path, root: &Path, as_json: bool, out: &mut dyn Write) -> ExitCode {
    let (config, absent) = match load(path) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let facts = Facts::gather(root, |backend| table(&config, backend));
    let sessions = lockout::filtered_sessions(&config);
    let report = Report::of(absent, preflight::judge(&facts, &config, &sessions));
    let text = match as_json {
        true => report.json(),
        false => report.text(),
    };
    answer(out, &text, report.exit())
}

/// The configuration; before there is one at the usual place, the built-in defaults and a word of it.
fn load(path: &Path) -> Result<(Config, Option<Finding>), ConfigError> {
    let absent = matches!(path.try_exists(), Ok(false));
    if !absent || path != Path::new(CONFIG) {
        return Ok((config::load(path)?, None));
    }
    let finding = Finding::note(
        Code::Config,
        format!("there is no {CONFIG}, so this is judged by the built-in defaults"),
        "name your file: verdictd check --kernel --config FILE",
    );
    Ok((config::parse("", path)?, Some(finding)))
}

/// The table that this configuration would load, all but its numbers.
fn table(config: &Config, backend: Backend) -> Ruleset {
    let layout = Layout {
        queue_base: config.engine.queue_base.unwrap_or(FIRST_NUMBER),
        log_base: config.engine.log_base.unwrap_or(FIRST_NUMBER),
        workers: config.engine.workers as u16,
        seed: 1,
    };
    let local_ports = host::gather().map_or(32_768..=60_999, |facts| facts.local_ports);
    Ruleset::build(&open::spec(config, layout, backend, local_ports))
}

impl Report {
    fn of(absent: Option<Finding>, found: Vec<Finding>) -> Report {
        let acts = found.iter().filter(|finding| finding.level == Level::Act);
        let act = acts.count();
        let mut findings = found;
        // The first of the notes.
        findings.splice(act..act, absent);
        Report { act, findings }
    }

    fn exit(&self) -> ExitCode {
        match self.act {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(FAILED),
        }
    }

    fn json(&self) -> String {
        let mut text = Vec::new();
        print::json(&mut text, self, true).expect("a report is text, and memory takes it");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let (shown, word) = (finding.level.shown(), finding.code.word());
            let _ = writeln!(text, "{shown:<5} {word:<13} {}", plain(&finding.what));
            if !finding.remedy.is_empty() {
                let _ = writeln!(text, "{:<19} -> {}", "", plain(&finding.remedy));
            }
        }
        let _ = match self.act {
            0 => writeln!(text, "nothing to act on"),
            many => writeln!(text, "{many} to act on"),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same_and_no_byte_is_raw() {
        let findings = vec![
            Finding::act(Code::Queue, "none \u{1b}[31m here", "modprobe nft_queue"),
            Finding::fine(Code::Log, "copies work"),
        ];
        let absent = Finding::note(Code::Config, "no file", "name it");
        let report = Report::of(Some(absent), findings);
        let text = report.text();
        assert!(text.starts_with("ACT   queue         none "), "{text}");
        assert!(
            text.contains("\n                    -> modprobe nft_queue\nnote  config "),
            "{text}"
        );
        assert!(
            text.ends_with("ok    log           copies work\n1 to act on\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["act"], 1);
        assert_eq!(value["findings"][0]["finding"], "queue");
        assert_eq!(value["findings"][0]["level"], "act");
        assert_eq!(value["findings"][2]["do"], "");
        assert_eq!(Report::of(None, Vec::new()).text(), "nothing to act on\n");
    }
}
