//! The main thread's part in a trial: puts the candidate in force, waits for its end, goes back.

use crossbeam_channel::{RecvError, RecvTimeoutError};
use tracing::{error, info, warn};

use super::{Engine, Event};
use crate::config;
use crate::control::apply_view::GoneBack;
use crate::control::wire::Reply;
use crate::engine::handler::Running;
use crate::engine::orders;
use crate::engine::trial::{Attempt, LOOK, Wish, candidate, since_boot};

impl Engine {
    /// What is to be done next; ends the trial by itself when its time is over, whatever else waits.
    pub(super) fn next_event(&self) -> Result<Event, RecvError> {
        loop {
            let Some(left) = self.trials.left() else {
                return self.events.recv();
            };
            if left.is_zero() {
                self.go_back("deadline", "nobody confirmed it in time");
                continue;
            }
            match self.events.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
            }
        }
    }

    pub(super) fn grant(&self, wish: &Wish) -> Reply {
        match wish {
            Wish::Try(attempt) => self.try_out(attempt),
            Wish::Confirm => self.confirm(),
            Wish::GoBack(until_ms) => match self.trials.stays(*until_ms) {
                Some(stays) => Reply::GoneBack(stays),
                None => self.go_back("go-back", "it was told to go back"),
            },
        }
    }

    fn try_out(&self, attempt: &Attempt) -> Reply {
        let before = self.running.get();
        let late = attempt.until.is_some_and(|until| until <= since_boot());
        let forbidden = self.trials.forbids().or_else(|| self.audit.refuses());
        let reply = if let Some(why) = forbidden {
            error!("apply refused: {why}");
            Reply::refused(why)
        } else if before.config.sha256 != attempt.from {
            Reply::refused("another configuration came into force meanwhile: look at it, then apply again")
        } else if late {
            Reply::refused("it took so long to get here that its time is over: apply again")
        } else {
            let path = candidate(&before.path);
            let taken =
                self.with_reloader(|reloader| reloader.try_out(&path, &attempt.sha256, attempt.force));
            self.taken_up(taken)
        };
        self.write_down("apply", &before, &reply);
        if let Reply::Reloaded(_) = reply {
            self.trials.begin(before, &self.running.get(), attempt.until);
            match self.trials.left() {
                Some(left) => warn!(
                    "on trial: goes back in {} s unless it is confirmed",
                    left.as_secs()
                ),
                None => info!("applied for good"),
            }
        }
        reply
    }

    /// First it stays in force, then the file gets it, then whoever wrote the file asks again, and it is over.
    fn confirm(&self) -> Reply {
        if !self.trials.confirm() {
            return Reply::refused(
                "nothing is on trial: the policy that is in force is the configuration file's",
            );
        }
        let running = self.running.get();
        let kept =
            config::text(&running.path).is_ok_and(|text| config::digest(&text) == running.config.sha256);
        if kept {
            self.trials.settled();
            self.good.keep(&running.path, &running.config.sha256);
        }
        info!(
            "the policy on trial is confirmed{}",
            if kept { " and saved" } else { "" }
        );
        Reply::Confirmed { saved: kept }
    }

    fn go_back(&self, by: &'static str, why: &str) -> Reply {
        let Some(old) = self.trials.old() else {
            return Reply::GoneBack(GoneBack::Nothing);
        };
        let tried = self.running.get();
        warn!("the policy on trial goes back to what was in force before: {why}");
        let taken = self.with_reloader(|reloader| reloader.put(old.config.clone()));
        let reply = self.taken_up(taken);
        self.write_down(by, &tried, &reply);
        match &reply {
            Reply::Refused { message } => {
                error!("it cannot go back: {message}");
                self.trials.stuck(message);
                reply
            }
            _ => {
                self.trials.went_back(why);
                Reply::GoneBack(GoneBack::Back)
            }
        }
    }

    fn write_down(&self, by: &'static str, before: &Running, reply: &Reply) {
        self.recorded(|| orders::reloaded(by, before, &self.running.get(), reply));
    }
}
