//! The functional test: when it is due, and what follows from it.
//!
//! It runs when the monitor starts, unless it passed within the last hour (a monitor that is started again and again is
//! no reason to scan oneself each time), and then every 24 hours. A failure is answered once, by starting the engine
//! again and repeating it; then it is told, and repeated every hour until it passes, with nothing more done about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::{GRACE, Monitor, report};
use crate::control::monitor_view::SelftestRecord;
use crate::control::wire::{NoteKind, NoteResult};
use crate::selftest::{self, Cause, Failed, Options};

/// How long after the monitor's start the first one is due.
pub(super) fn first(last: &SelftestRecord, every: Duration) -> Duration {
    match report::since(last.last.as_deref()) {
        Some(age) if last.passed == Some(true) && age < RECENT => every.saturating_sub(age),
        _ => Duration::ZERO,
    }
}

impl Monitor {
    /// Tries the engine that runs.
    pub(super) fn try_engine(&mut self) {
        let tried = selftest::run(&Options {
            socket: Some(self.options.places.socket()),
            stop: Arc::clone(&self.stop.flag),
        });
        if self.stop.is_set() {
            return; // it was interrupted, which proves nothing
        }
        let every = self.options.selftest_every;
        let failing = self.view.selftest.passed == Some(false);
        match tried {
            Ok(proof) => {
                info!(
                    "self-test passed, {} steps in {:.0} ms",
                    proof.steps.len(),
                    proof.ms
                );
                let detail = format!("{} steps in {:.0} ms", proof.steps.len(), proof.ms);
                self.record(Some(true), detail, every);
            }
            Err(failed) if failed.cause == Cause::CannotRun => {
                warn!("the self-test could not be run: {}", words(&failed));
                self.record(None, words(&failed), every.min(AGAIN));
            }
            Err(failed) if failing => {
                error!("self-test fails as before: {}", words(&failed));
                self.on_trial = false;
                self.record(Some(false), words(&failed), every.min(AGAIN));
            }
            Err(failed) if !self.on_trial => {
                self.on_trial = true;
                self.next_trial = Instant::now();
                self.replace(format!("the self-test failed: {}", words(&failed)), Some(GRACE));
            }
            Err(failed) => {
                error!(
                    "self-test failed again after a restart of the engine: {}",
                    words(&failed)
                );
                self.record(Some(false), words(&failed), every.min(AGAIN));
            }
        }
    }

    fn record(&mut self, passed: Option<bool>, detail: String, next: Duration) {
        let news = self.view.selftest.passed != passed || passed == Some(true);
        if let Some(passed) = passed.filter(|_| news) {
            let result = if passed {
                NoteResult::Ok
            } else {
                NoteResult::Failed
            };
            self.notes.add(NoteKind::Selftest, result, &detail);
        }
        self.on_trial = false;
        self.next_trial = Instant::now() + next;
        self.view.selftest = SelftestRecord {
            last: Some(report::now()),
            passed,
            detail,
        };
        self.save();
    }
}

fn words(failed: &Failed) -> String {
    format!(
        "{}: expected {}; seen: {}; look at {}",
        failed.step, failed.expected, failed.seen, failed.look_at
    )
}

const RECENT: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn it_is_due_at_the_start_unless_it_passed_within_the_hour() {
        let record = |passed, last: String| SelftestRecord {
            last: Some(last),
            passed,
            ..SelftestRecord::default()
        };
        assert_eq!(first(&SelftestRecord::default(), DAY), Duration::ZERO);
        assert!(first(&record(Some(true), report::now()), DAY) > DAY / 2);
        assert_eq!(first(&record(Some(false), report::now()), DAY), Duration::ZERO);
        assert_eq!(first(&record(None, report::now()), DAY), Duration::ZERO);
        let yesterday = record(Some(true), "2020-01-01T00:00:00Z".into());
        assert_eq!(first(&yesterday, DAY), Duration::ZERO);
        let tomorrow = record(Some(true), "2999-01-01T00:00:00Z".into());
        assert_eq!(first(&tomorrow, DAY), Duration::ZERO);
    }
}
