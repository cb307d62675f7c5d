//! `verdictd check --kernel`: what of this machine an admin should know before the engine holds its packets, each with the
//! sentence that says what to do. Facts come from [`crate::kernel::facts`]; here they are judged, purely, and printed.
//!
//! It needs no running engine and does no harm to one; nothing that it does lasts.

mod conntrack;
mod finding;
mod kernel;
mod network;
mod others;
#[cfg(test)]
mod sample;

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use self::finding::{Code, Finding, Level};
use super::engine::{DEFAULT_CONFIG, refuse};
use super::print::plain;
use crate::config::{self, Config};
use crate::engine::lockout;
use crate::engine::open::{self, FIRST_NUMBER};
use crate::kernel::facts::Facts;
use crate::kernel::host;
use crate::kernel::ruleset::{Backend, Layout, Ruleset};
use crate::kernel::sessions::Session;

/// Checks this machine against the configuration at `path`: exit code 0 nothing to act on, 1 something, 2 a bad
/// configuration. `root` is where the files of other programs are looked for.
pub(super) fn check_kernel(path: &Path, root: &Path, as_json: bool) -> ExitCode {
    let mut findings = Vec::new();
    let config = match load(path, &mut findings) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    let facts = Facts::gather(root, |backend| table(&config, backend));
    let sessions = lockout::filtered_sessions(&config);
    findings.extend(judge(&facts, &config, &sessions));
    // The most important first; within a level in the order of topics.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let text = match as_json {
        true => as_value(&findings).to_string() + "\n",
        false => as_text(&findings),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => exit(&findings),
    }
}

/// The configuration; before there is one at the usual place, the built-in defaults.
fn load(path: &Path, findings: &mut Vec<Finding>) -> Result<Config, config::ConfigError> {
    let absent = matches!(path.try_exists(), Ok(false));
    if !absent || path != Path::new(DEFAULT_CONFIG) {
        return config::load(path);
    }
    findings.push(Finding::note(
        Code::Config,
        format!("there is no {DEFAULT_CONFIG}, so this is judged by the built-in defaults"),
        "name your file: verdictd check --kernel --config FILE",
    ));
    config::parse("", path)
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

/// All findings, in the order of their topics.
fn judge(facts: &Facts, config: &Config, sessions: &[Session]) -> Vec<Finding> {
    let mut findings = kernel::judge(facts, config);
    findings.extend(conntrack::judge(facts, config));
    findings.extend(others::judge(facts, config));
    findings.extend(network::judge(facts, config, sessions));
    findings
}

fn exit(findings: &[Finding]) -> ExitCode {
    match acts(findings) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn acts(findings: &[Finding]) -> usize {
    let acts = findings.iter().filter(|finding| finding.level == Level::Act);
    acts.count()
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding {
        code,
        level,
        what,
        remedy,
    } in findings
    {
        let _ = writeln!(text, "{:<5} {:<13} {}", level.shown(), code.word(), plain(what));
        if !remedy.is_empty() {
            let _ = writeln!(text, "{:<19} -> {}", "", plain(remedy));
        }
    }
    let _ = match acts(findings) {
        0 => writeln!(text, "nothing to act on"),
        many => writeln!(text, "{many} to act on"),
    };
    text
}

fn as_value(findings: &[Finding]) -> Value {
    let all = findings.iter().map(|finding| {
        json!({
            "finding": finding.code.word(),
            "level": finding.level.word(),
            "what": finding.what,
            "do": finding.remedy,
        })
    });
    json!({ "act": acts(findings), "findings": all.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same_and_no_byte_is_raw() {
        let findings = [
            Finding::act(Code::Queue, "none \u{1b}[31m here", "modprobe nft_queue"),
            Finding::fine(Code::Log, "copies work"),
        ];
        let text = as_text(&findings);
        assert!(text.starts_with("ACT   queue         none "), "{text}");
        assert!(
            text.contains("\n                    -> modprobe nft_queue\n"),
            "{text}"
        );
        assert!(
            text.ends_with("ok    log           copies work\n1 to act on\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        let value = as_value(&findings);
        assert_eq!(value["act"], 1);
        assert_eq!(value["findings"][0]["finding"], "queue");
        assert_eq!(value["findings"][0]["level"], "act");
        assert_eq!(value["findings"][1]["do"], "");
        assert_eq!(as_text(&[]), "nothing to act on\n");
    }

    #[test]
    fn a_plain_machine_has_nothing_to_act_on() {
        let findings = judge(&sample::facts(), &sample::config(""), &[]);
        let acts: Vec<_> = findings.iter().filter(|one| one.level == Level::Act).collect();
        assert!(acts.is_empty(), "{acts:?}");
        for finding in &findings {
            assert_eq!(
                finding.remedy.is_empty(),
                finding.level == Level::Fine,
                "{finding:?}"
            );
        }
    }

    #[test]
    fn every_code_is_in_the_documents() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/preflight.md")).unwrap();
        for code in Code::ALL {
            let row = format!("| `{}` |", code.word());
            assert_eq!(
                page.matches(&row).count(),
                1,
                "docs/preflight.md has one row {row}"
            );
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(
            rows,
            Code::ALL.len(),
            "docs/preflight.md tells of findings that there are not"
        );
    }
}
