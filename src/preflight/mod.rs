//! What of a machine an admin should know before the engine holds its packets, each with the sentence that says what to do:
//! `verdictd check --kernel`. [`Facts`] are gathered and then judged, purely; whoever prints them is elsewhere.
//!
//! It needs no running engine and does no harm to one; nothing that it does lasts.

mod boot;
mod boot_files;
mod clients;
pub mod closing;
mod conntrack;
mod facts;
mod finding;
mod kernel;
mod numbers;
mod ports;
#[cfg(test)]
mod sample;
mod tables;

pub use self::boot_files::{Boot, Place, Unread};
pub use self::facts::Facts;
pub use self::finding::{Code, Finding, Level};

use crate::config::Config;
use crate::kernel::sessions::Session;

/// All findings, the most important first; within a level in the order of their topics. `sessions`: who is logged in
/// where a port filter holds.
pub fn judge(facts: &Facts, config: &Config, sessions: &[Session]) -> Vec<Finding> {
    let mut findings = kernel::judge(facts, config);
    findings.extend(conntrack::judge(facts, config));
    findings.extend(numbers::judge(facts, config));
    findings.extend(boot::judge(facts, config));
    findings.extend(tables::judge(facts));
    findings.extend(clients::judge(facts, config));
    findings.extend(ports::judge(facts, config, sessions));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

/// The engine's name among processes.
const ENGINE: &str = "verdictd";

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_to_act_on_comes_first() {
        let mut facts = sample::facts();
        facts.events = Some(0);
        facts.loose = Some(0);
        let findings = judge(&facts, &sample::config(""), &[]);
        assert_eq!(findings[0].code, Code::CtEvents);
        assert_eq!(findings[1].code, Code::CtLoose);
        assert_eq!(findings[2].code, Code::Queue);
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
