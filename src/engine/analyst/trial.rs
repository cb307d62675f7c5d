//! A self-test as the analyst sees it: one source of a documentation range that is judged and banned like anybody,
//! by the same code and the same kernel set, and of which nothing is told, counted or remembered.
//!
//! It ends when the tester says so, or by itself after [`LONGEST`]; then ban, records and the tester's scratch set are gone. Should the engine die meanwhile, the ban ends in the kernel no later, and the
//! next engine knows it by its length ([`is_leftover`]).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tracing::debug;

use super::super::enforcer::{Answer, Failure, Job, Work};
use super::super::worker::Order;
use super::Analyst;
use crate::control::selftest_view::{LONGEST, SelftestState, is_documentation};
use crate::control::wire::Reply;
use crate::core::prefix::Prefix;
use crate::core::verdict::Ban;
use crate::kernel::sets::{Change, LiveBan};

/// What the control socket asks.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Question {
    /// Begin; each worker says when it knows.
    Begin {
        /// Who scans, and who only looks on.
        sources: [IpAddr; 2],
        ready: Sender<()>,
        to: Sender<Reply>,
    },
    /// How it goes, as far as the ledger knows; none: no self-test is under way.
    Look { to: Sender<Option<SelftestState>> },
    /// It is over; the reply comes when the kernel has forgotten it.
    End { to: Sender<Reply> },
}

/// The self-test under way.
#[derive(Debug)]
pub(super) struct Trial {
    sources: [Prefix; 2],
    until: Instant,
    refused: Option<String>,
}

impl Analyst {
    pub(super) fn answer_tester(&mut self, question: Question, now: Instant) {
        match question {
            Question::Begin { sources, ready, to } => {
                let begun = self.begin_trial(sources.map(Prefix::host), &ready, now);
                // Whoever asked may have hung up: then it ends by itself.
                let _ = to.send(begun.map_or_else(Reply::refused, |()| Reply::SelftestEnded {}));
            }
            Question::Look { to } => drop(to.send(self.look_at_trial())),
            Question::End { to } => self.end_trial(Some(to)),
        }
    }

    fn begin_trial(&mut self, sources: [Prefix; 2], ready: &Sender<()>, now: Instant) -> Result<(), String> {
        if let Some(trial) = &self.trial {
            return Err(format!(
                "a self-test from {} is under way: wait until it is over, {} s at most",
                trial.sources[0],
                trial.until.saturating_duration_since(now).as_secs() + 1
            ));
        }
        for source in sources {
            if !is_documentation(source.addr()) {
                return Err(format!("{source} is of no documentation range (RFC 5737)"));
            }
            if let Some(why) = self.protection.forbids(&source) {
                return Err(why);
            }
            if let Some(ban) = self.ledger.covering(source.addr()) {
                return Err(format!("{source} is banned already: {} is", ban.source));
            }
        }
        self.trial = Some(Trial {
            sources,
            until: now + LONGEST,
            refused: None,
        });
        for worker in &self.workers {
            worker.order(Order::Test(sources, ready.clone()));
        }
        debug!("a self-test from {} begins", sources[0]);
        Ok(())
    }

    fn look_at_trial(&self) -> Option<SelftestState> {
        let trial = self.trial.as_ref()?;
        Some(SelftestState {
            banned: self.ledger.get(&trial.sources[0]).map(|ban| ban.enforced),
            refused: trial.refused.clone(),
            ..SelftestState::default()
        })
    }

    /// Enforcement is switched under a self-test: its ban must not become a real offence, so it ends.
    pub(super) fn spare_trial(&mut self) {
        let tested = self.trial.as_ref().map(|trial| trial.sources[0]);
        let switched = |source: &Prefix| {
            let ban = self.ledger.get(source);
            ban.is_some_and(|ban| ban.enforced != self.policy.enforce)
        };
        if let Some(source) = tested.filter(switched) {
            self.ledger.lift(&source);
            self.submit(Work {
                changes: vec![Change::Remove { target: source }],
                ..Work::default()
            });
            self.release(source);
        }
    }

    /// Whether `source` is one that a self-test made up.
    pub(super) fn is_tested(&self, source: &Prefix) -> bool {
        self.trial
            .as_ref()
            .is_some_and(|trial| trial.sources.contains(source))
    }

    /// What is told of a ban elsewhere is one line here that nobody sees who does not look for it.
    pub(super) fn enact_trial(&mut self, ban: &Ban, now: Instant) {
        debug!("self-test: {} is found out and banned", ban.source);
        self.assert(ban, Work::default(), now);
    }

    /// The tester is told instead of everybody else. It is not tried again: the test has failed by then.
    pub(super) fn note_refusal_of_trial(&mut self, failure: Failure) {
        debug!(
            "self-test: the kernel refused {}: {}",
            failure.target, failure.error
        );
        if let Some(trial) = &mut self.trial {
            trial.refused = Some(failure.error);
        }
    }

    pub(super) fn trial_deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.until)
    }

    /// A tester that died leaves nothing for longer than that.
    pub(super) fn end_stale_trial(&mut self, now: Instant) {
        if self.trial_deadline().is_some_and(|until| until <= now) {
            debug!("the self-test's time is over");
            self.end_trial(None);
        }
    }

    /// Takes every trace of it away.
    pub(super) fn end_trial(&mut self, to: Option<Sender<Reply>>) {
        let Some(trial) = self.trial.take() else {
            if let Some(to) = to {
                let _ = to.send(Reply::refused(NONE));
            }
            return;
        };
        debug!("the self-test from {} is over", trial.sources[0]);
        for source in &trial.sources {
            self.ledger.lift(source);
            self.attacks.forget(*source);
        }
        for worker in &self.workers {
            worker.order(Order::Tested);
        }
        // The enforcer leaves only after the analyst.
        let _ = self.jobs.send(Job::Sweep);
        let changes = trial.sources.map(|target| Change::Remove { target });
        let reply = Reply::SelftestEnded {};
        self.submit(Work {
            changes: changes.into(),
            done: to.map(|to| Answer { to, reply }),
            ..Work::default()
        });
    }
}

/// What a tester hears whom the engine does not know.
pub const NONE: &str = "no self-test is under way: its 30 s are over, or the engine was restarted";

/// Whether a ban found at start was left by a self-test, whose engine died in the middle of it.
pub fn is_leftover(found: &LiveBan) -> bool {
    found.timeout == Some(LENGTH) && is_documentation(found.target.addr())
}

/// How long the ban of a self-test lasts at most. No other ban has this length: an operator's are whole seconds, and so
/// are those of a ladder until jitter, which begins at an hour. A multiple of every jiffy there is, so that the kernel
/// gives it back as it took it (CONFIG_HZ 100, 250, 300, 1000).
pub(super) const LENGTH: Duration = Duration::from_millis(29_960);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ban_of_a_self_test_is_a_leftover() {
        let found = |target: &str, milliseconds| LiveBan {
            target: target.parse().unwrap(),
            remaining: Some(Duration::from_secs(3)),
            timeout: Some(Duration::from_millis(milliseconds)),
        };
        assert!(is_leftover(&found("192.0.2.7", 29_960)));
        assert!(!is_leftover(&found("192.0.2.7", 30_000)), "an operator's");
        assert!(!is_leftover(&found("10.0.0.7", 29_960)), "of a real source");
    }
}
