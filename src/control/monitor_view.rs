//! What the monitor knows, as it writes it into its file and as `status` shows it. Field names are a contract.

use serde::{Deserialize, Serialize};

/// The monitor and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorView {
    /// Whether it runs now; filled in by who reads the file.
    pub running: bool,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Seconds between two looks.
    pub every_seconds: u64,
    /// When it last looked (RFC 3339).
    pub last_check: Option<String>,
    /// What was wrong then, in words; empty when all was well.
    pub findings: Vec<String>,
    /// How often it started the engine again since its own start.
    pub restarts: u64,
    /// Why it did so last.
    pub last_restart: Option<String>,
    /// The functional test.
    pub selftest: SelftestRecord,
    /// The files and the audit log.
    pub integrity: IntegrityRecord,
}

/// What became of the last functional test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelftestRecord {
    /// When it was run (RFC 3339).
    pub last: Option<String>,
    /// Whether it passed; none if it could not be run.
    pub passed: Option<bool>,
    /// What it said.
    pub detail: String,
}

/// What the files are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrityRecord {
    /// When they were last looked at (RFC 3339).
    pub last: Option<String>,
    /// Whether there is a manifest to compare with (`verdictctl harden`).
    pub sealed: bool,
    /// Files that are not what they were.
    pub violations: Vec<String>,
    /// Lines of the audit log that are not as they were written.
    pub audit: Vec<String>,
}

impl MonitorView {
    /// What `status` has to call degraded.
    pub fn degraded(&self) -> Vec<String> {
        let mut found = Vec::new();
        let violated = |what: &String| format!("INTEGRITY VIOLATED: {what}");
        found.extend(self.integrity.violations.iter().map(violated));
        found.extend(self.integrity.audit.iter().map(violated));
        if self.selftest.passed == Some(false) {
            found.push(format!("self-test failed: {}", self.selftest.detail));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoiled_file_and_a_failed_test_are_degraded_and_nothing_else() {
        let mut view = MonitorView {
            findings: vec!["the engine does not answer".into()],
            ..MonitorView::default()
        };
        assert!(view.degraded().is_empty());
        view.selftest.passed = Some(false);
        view.selftest.detail = "not banned".into();
        view.integrity
            .violations
            .push("/usr/bin/verdictd was changed".into());
        assert_eq!(
            view.degraded(),
            [
                "INTEGRITY VIOLATED: /usr/bin/verdictd was changed",
                "self-test failed: not banned"
            ]
        );
    }
}
