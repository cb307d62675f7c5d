//! A policy on trial: in force until somebody confirms it over a new connection, else the old one comes back.
//!
//! Here is what is known of a trial, and when it is over; who puts policies in force is [`super::reload`]. The old
//! configuration is held in memory, so that going back needs no file. Time is that of this boot, sleep included
//! (CLOCK_BOOTTIME): an administrator who is locked out does not wait longer because the laptop under his desk slept,
//! or because somebody set the clock.
//!
//! Fails toward the old policy: an engine that dies comes back with the configuration file, which holds the old text
//! until the trial is confirmed, and `verdictctl`'s watcher goes back without an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::handler::Running;
use crate::control::apply_view::{ApplyState, ApplyView, GoneBack};
use crate::control::views::timestamp;

/// What may be asked about a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Try the candidate.
    Try(Attempt),
    /// It stays.
    Confirm,
    /// It goes, also if it is confirmed and not saved; with a deadline (milliseconds since boot) only the one that has that.
    GoBack(Option<u64>),
}

/// What is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of what is in force, as whoever asks looked it through.
    pub from: String,
    /// Of the candidate, as whoever asks looked it through.
    pub sha256: String,
    /// When it goes back, since boot; never without one.
    pub until: Option<Duration>,
    /// Also if it locks somebody out.
    pub force: bool,
}

/// The trial of this engine, for all who look at it.
#[derive(Clone, Default)]
pub struct Trials(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    None,
    Pending(Trial),
    /// Confirmed, and the file holds the old one.
    Unsaved {
        old: Arc<Running>,
        view: ApplyView,
    },
    Back(ApplyView),
}

struct Trial {
    old: Arc<Running>,
    view: ApplyView,
    until: Duration,
    /// Going back failed: when it is tried again.
    again: Option<Duration>,
}

impl Trials {
    /// The candidate came into force in the place of `old`.
    pub fn begin(&self, old: Arc<Running>, new: &Running, until: Option<Duration>) {
        let now = since_boot();
        let view = ApplyView {
            state: ApplyState::Unsaved,
            from: old.config.policy.mode.word().to_owned(),
            to: new.config.policy.mode.word().to_owned(),
            sha256: new.config.sha256.clone(),
            since_boot_ms: millis(now),
            ..ApplyView::default()
        };
        *self.state() = match until {
            None => State::Unsaved { old, view },
            Some(until) => State::Pending(Trial {
                old,
                view: ApplyView {
                    state: ApplyState::Pending,
                    until: Some(timestamp(SystemTime::now() + until.saturating_sub(now))),
                    ..view
                },
                until,
                again: None,
            }),
        };
    }

    /// How long nothing is to be done; none: nothing is on trial.
    pub fn left(&self) -> Option<Duration> {
        match &*self.state() {
            State::Pending(trial) => Some(trial.again.unwrap_or(trial.until).saturating_sub(since_boot())),
            _ => None,
        }
    }

    /// What comes back if the trial ends now.
    pub fn old(&self) -> Option<Arc<Running>> {
        match &*self.state() {
            State::Pending(Trial { old, .. }) | State::Unsaved { old, .. } => Some(Arc::clone(old)),
            State::None | State::Back(_) => None,
        }
    }

    /// Why it does not go back, whoever asked for that by its deadline, or without one for whatever it is.
    pub fn stays(&self, until_ms: Option<u64>) -> Option<GoneBack> {
        match (&*self.state(), until_ms) {
            (State::None | State::Back(_), _) => Some(GoneBack::Nothing),
            (State::Unsaved { .. }, Some(_)) => Some(GoneBack::Confirmed),
            (State::Pending(trial), Some(until)) if until != millis(trial.until) => Some(GoneBack::Another),
            (State::Pending(_) | State::Unsaved { .. }, _) => None,
        }
    }

    /// It stays; whether there was something to confirm.
    pub fn confirm(&self) -> bool {
        let mut state = self.state();
        if let State::Pending(trial) = &mut *state {
            let view = ApplyView {
                state: ApplyState::Unsaved,
                until: None,
                ..trial.view.clone()
            };
            *state = State::Unsaved {
                old: Arc::clone(&trial.old),
                view,
            };
        }
        matches!(*state, State::Unsaved { .. })
    }

    /// The configuration file holds what is in force.
    pub fn settled(&self) {
        *self.state() = State::None;
    }

    /// The old policy is in force again.
    pub fn went_back(&self, why: &str) {
        let mut state = self.state();
        if let State::Pending(Trial { view, .. }) | State::Unsaved { view, .. } = &*state {
            let view = ApplyView {
                state: ApplyState::WentBack,
                until: Some(timestamp(SystemTime::now())),
                why: Some(why.to_owned()),
                ..view.clone()
            };
            *state = State::Back(view);
        }
    }

    /// It could not be put in force; it is tried again in a second.
    pub fn stuck(&self, why: &str) {
        if let State::Pending(trial) = &mut *self.state() {
            trial.again = Some(since_boot() + AGAIN);
            trial.view.why = Some(format!("it cannot go back: {why}; tried again every second"));
        }
    }

    /// Why nothing else may be put in force now; none: it may.
    pub fn forbids(&self) -> Option<String> {
        match &*self.state() {
            State::Pending(trial) => Some(format!(
                "a policy is being tried out ({} → {}) until {}: first \"verdictctl confirm\" it, or \"verdictctl \
                 go-back\"",
                trial.view.from,
                trial.view.to,
                trial.view.until.as_deref().unwrap_or("soon"),
            )),
            State::Unsaved { .. } => Some(UNSAVED.to_owned()),
            State::None | State::Back(_) => None,
        }
    }

    /// For `status`.
    pub fn view(&self) -> Option<ApplyView> {
        match &*self.state() {
            State::None => None,
            State::Unsaved { view, .. } | State::Back(view) => Some(view.clone()),
            State::Pending(trial) => {
                let left = trial.until.saturating_sub(since_boot());
                Some(ApplyView {
                    seconds_left: Some(left.as_millis().div_ceil(1000) as u64),
                    ..trial.view.clone()
                })
            }
        }
    }

    /// What is wrong, for `status`.
    pub fn degraded(&self) -> Option<String> {
        match &*self.state() {
            State::Pending(trial) => trial.view.why.clone(),
            State::Unsaved { .. } => Some(UNSAVED.to_owned()),
            State::None | State::Back(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where what is to be tried lies: beside the configuration file itself, not beside a link to it.
pub fn candidate(config: &Path) -> PathBuf {
    let real = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let mut name = real.into_os_string();
    name.push(".candidate");
    name.into()
}

/// The time since boot, sleep included.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// As it is told.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long the main thread sleeps at most while something is on trial: its own timeouts do not count sleep.
pub const LOOK: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(1);
const UNSAVED: &str = "a new policy is in force and confirmed, but the configuration file still holds the old one: \
                       \"verdictctl confirm\" saves it, \"verdictctl go-back\" gives it up";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::engine::room::Manner;

    fn running(mode: &str) -> Arc<Running> {
        let text = format!("[firewall]\nfirewall_mode = \"{mode}\"\n[allowed_ports]\ntcp = [22]\n");
        let config = config::parse(&text, Path::new("f.toml")).unwrap();
        Arc::new(Running {
            path: "f.toml".into(),
            manner: Manner::of(&config, true),
            config,
            backend: None,
        })
    }

    fn begun(until: Option<Duration>) -> Trials {
        let trials = Trials::default();
        trials.begin(running("detection_only"), &running("firewall"), until);
        trials
    }

    #[test]
    fn a_trial_is_pending_until_its_time_and_holds_the_old_one() {
        let trials = begun(Some(since_boot() + Duration::from_secs(60)));
        let left = trials.left().unwrap();
        assert!(
            left > Duration::from_secs(50) && left <= Duration::from_secs(60),
            "{left:?}"
        );
        let view = trials.view().unwrap();
        assert_eq!(
            (view.state, view.from.as_str(), view.to.as_str()),
            (ApplyState::Pending, "detection_only", "firewall")
        );
        assert_eq!(trials.old().unwrap().config.policy.mode.word(), "detection_only");
        assert!(trials.forbids().unwrap().contains("verdictctl confirm"));
        assert_eq!(begun(Some(Duration::ZERO)).left(), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_confirmed_goes_back_at_no_deadline() {
        let until = since_boot();
        let trials = begun(Some(until));
        assert!(trials.confirm() && trials.confirm());
        assert!(trials.left().is_none());
        assert_eq!(trials.view().unwrap().state, ApplyState::Unsaved);
        assert!(trials.degraded().unwrap().contains("holds the old one"));
        assert_eq!(trials.stays(Some(millis(until))), Some(GoneBack::Confirmed));
        trials.settled();
        assert_eq!(trials.view(), None);
        assert!(!trials.confirm() && trials.forbids().is_none());
    }

    #[test]
    fn what_is_confirmed_and_not_saved_can_be_given_up() {
        let trials = begun(None);
        assert!(trials.left().is_none() && trials.forbids().unwrap().contains("go-back"));
        assert_eq!(trials.stays(None), None);
        assert_eq!(trials.old().unwrap().config.policy.mode.word(), "detection_only");
        trials.went_back("told to");
        assert_eq!(trials.view().unwrap().state, ApplyState::WentBack);
        assert_eq!(trials.stays(None), Some(GoneBack::Nothing));
    }

    #[test]
    fn an_old_watcher_ends_no_newer_trial() {
        let until = since_boot() + Duration::from_secs(60);
        let trials = begun(Some(until));
        assert_eq!(trials.stays(Some(millis(until) - 1)), Some(GoneBack::Another));
        assert_eq!(
            (trials.stays(Some(millis(until))), trials.stays(None)),
            (None, None)
        );
    }

    #[test]
    fn what_went_back_is_told_and_stands_in_nobodys_way() {
        let trials = begun(Some(since_boot()));
        trials.stuck("the kernel says no");
        assert!(trials.left().unwrap() > Duration::from_millis(500));
        assert!(trials.degraded().unwrap().contains("the kernel says no"));
        trials.went_back("not confirmed");
        let view = trials.view().unwrap();
        assert_eq!(
            (view.state, view.why.as_deref()),
            (ApplyState::WentBack, Some("not confirmed"))
        );
        assert!(trials.forbids().is_none() && !trials.confirm());
    }
}
