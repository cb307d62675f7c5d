//! What is looked at every minute: the files, the audit log, the engine.

use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::check::Finding;
use super::seal::{self, AuditEye, Verdict};
use super::{GRACE, Monitor, Outcome, STARTING, report};
use crate::config;
use crate::control::wire::{NoteKind, NoteResult};

impl Monitor {
    /// The files and the audit log.
    pub(super) fn files(&mut self) -> Outcome {
        let mut verdict = seal::verify(&self.options.places);
        if let Verdict::Violated(_) = verdict {
            thread::sleep(SEALING);
            verdict = seal::verify(&self.options.places);
        }
        self.view.integrity.last = Some(report::now());
        match verdict {
            Verdict::Violated(found) => return self.violated(found),
            Verdict::Unsealed if self.view.integrity.sealed => {
                let manifest = self.options.places.manifest.display();
                let gone =
                    format!("{manifest} is missing: run \"verdictctl harden\" if you removed it yourself");
                return self.violated(vec![gone]);
            }
            Verdict::Unsealed => {}
            Verdict::Intact => {
                self.view.integrity.sealed = true;
                self.view.integrity.violations.clear();
            }
        }
        self.audit_log();
        Outcome::Stopped
    }

    /// Names what was changed and ends the watch: what would be started is not what it was. The engine that runs and
    /// the kernel's policy go on.
    pub(super) fn violated(&mut self, found: Vec<String>) -> Outcome {
        for what in &found {
            error!("INTEGRITY VIOLATED: {what}");
        }
        error!(
            "the monitor stops and starts nothing any more; the engine that runs and the rules go on. Put the genuine \
             files back, or run \"verdictctl harden\" if you changed them yourself"
        );
        self.notes
            .add(NoteKind::Integrity, NoteResult::Failed, &found.join("; "));
        self.notes.tell(&self.options.places);
        self.view.integrity.last = Some(report::now());
        self.view.integrity.violations = found;
        self.save();
        Outcome::Violated
    }

    /// A changed line stays changed: it is told once, and the watch goes on.
    fn audit_log(&mut self) {
        self.audit = AuditEye::of(&self.options.places, self.audit.take());
        let found = self.audit.as_mut().map(AuditEye::faults).unwrap_or_default();
        if found != self.view.integrity.audit {
            for what in &found {
                error!("INTEGRITY VIOLATED: audit log: {what}");
            }
            if !found.is_empty() {
                let detail = format!("audit log: {}", found.join("; "));
                self.notes.add(NoteKind::Integrity, NoteResult::Failed, &detail);
            }
            self.view.integrity.audit = found;
        }
    }

    /// The engine, if there is one.
    pub(super) fn look(&mut self, now: Instant) {
        self.view.last_check = Some(report::now());
        let Some(engine) = &self.engine else { return };
        match self.eyes.look(&self.options.places, &engine.process) {
            None => self.well(now),
            Some(finding) => self.found(finding, now),
        }
    }

    fn well(&mut self, now: Instant) {
        if let Some(engine) = &mut self.engine {
            engine.answered = true;
        }
        if let Some((finding, _)) = self.suspicion.take() {
            info!("all is well again, after: {}", finding.words());
        }
        self.view.findings.clear();
        self.backoff.well(now);
        self.notes.tell(&self.options.places);
        if now >= self.next_trial {
            self.try_engine();
            self.notes.tell(&self.options.places);
        }
    }

    /// Once is a suspicion, again and again a fault.
    fn found(&mut self, finding: Finding, now: Instant) {
        if self.stopped_by().is_some() {
            return; // it is on its way out, by order
        }
        self.next_look = now + self.soon();
        let starting = self
            .engine
            .as_ref()
            .is_some_and(|engine| !engine.answered && now < engine.since + STARTING);
        if starting && matches!(finding, Finding::Silent(_)) {
            self.view.findings = vec!["the engine is starting".into()];
            return;
        }
        let mut words = finding.words();
        if let Finding::Silent(_) = finding {
            let missing = self.eyes.missing(false);
            if !missing.is_empty() {
                words = format!("{words}; {}", missing.join("; "));
            }
        }
        let before = self
            .suspicion
            .take()
            .filter(|(before, _)| before.same_kind(&finding));
        let count = before.map_or(0, |(_, count)| count) + 1;
        if count == 1 {
            warn!("{words}");
        }
        self.view.findings = vec![words.clone()];
        let patience = finding.patience();
        self.suspicion = Some((finding.clone(), count));
        if count < patience {
            return;
        }
        match finding {
            Finding::Table(_) if self.is_operators_table() => {
                if count == patience {
                    error!("{words}; it is the operator's (manage_ruleset = false), load it again");
                }
                self.next_look = now + self.options.every;
            }
            Finding::Silent(_) | Finding::Stuck(_) => self.replace(words, None),
            _ => self.replace(words, Some(GRACE)),
        }
    }

    /// An engine that may not write the table does not repair it by being started again.
    fn is_operators_table(&self) -> bool {
        config::load(&self.options.places.config).is_ok_and(|config| !config.engine.manage_ruleset)
    }
}

/// `verdictctl harden` sets modes before it seals: what differs is looked at twice.
const SEALING: Duration = Duration::from_secs(2);
