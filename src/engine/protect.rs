//! Who is never banned: facts of this host, followed while it runs, and the trusted networks of the config.
//! One guard is built here and handed to workers and analyst alike.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use tracing::{debug, warn};

use super::analyst::Command;
use crate::core::judge::Guard;
use crate::core::prefix::{Prefix, PrefixSet};
use crate::kernel::host::{self, Watch, Why};

/// The protected addresses with their reasons, as `status` shows them, and the guard made of them.
#[derive(Clone)]
pub struct Protection {
    /// Every protected address or network and why.
    pub reasons: Arc<[(Prefix, Why)]>,
    /// The same and the trusted networks, for lookups.
    pub guard: Arc<Guard>,
}

impl Protection {
    /// The protected addresses `reasons` beside the `trusted` networks.
    pub fn of(reasons: Vec<(Prefix, Why)>, trusted: &PrefixSet) -> Protection {
        let protected = reasons.iter().map(|(prefix, _)| *prefix).collect();
        Protection {
            reasons: reasons.into(),
            guard: Arc::new(Guard {
                trusted: trusted.clone(),
                protected,
            }),
        }
    }

    /// This host's own addresses.
    pub fn own(&self) -> PrefixSet {
        let own = self.reasons.iter();
        own.filter(|(_, why)| matches!(why, Why::OwnAddress { .. }))
            .map(|(prefix, _)| *prefix)
            .collect()
    }

    /// Why `target` must not be banned, if so: it touches something protected or trusted.
    pub fn forbids(&self, target: &Prefix) -> Option<String> {
        if !self.guard.spares(target) {
            return None; // by bisection: asked for every offence, and for every ban when addresses change
        }
        if let Some((prefix, why)) = self.reasons.iter().find(|(prefix, _)| prefix.overlaps(target)) {
            return Some(match prefix == target {
                true => format!("{target} is protected: {why}"),
                false => format!("{target} is protected: it touches {prefix}, {why}"),
            });
        }
        let trusted = self.guard.trusted.iter().find(|prefix| prefix.overlaps(target))?;
        Some(format!("{target} is trusted: trusted networks hold {trusted}"))
    }
}

/// Follows addresses, routes and resolvers until `stop` becomes readable; tells the analyst what changed.
pub fn follow(watch: Watch, first: Vec<(Prefix, Why)>, commands: Sender<Command>, stop: Arc<OwnedFd>) {
    let mut watch = watch;
    let mut known = first;
    while wait(&watch, &stop) {
        // A host with a full routing table hears of changes without end: one look for all of a moment.
        std::thread::sleep(SETTLE);
        watch.drain();
        match host::gather() {
            Ok(facts) if facts.protected == known => {}
            Ok(facts) => {
                debug!(
                    "{} addresses and networks are protected now",
                    facts.protected.len()
                );
                known = facts.protected;
                if commands.send(Command::Protect(known.clone())).is_err() {
                    return;
                }
            }
            // The known addresses stay protected: an unreadable kernel table must not unprotect anybody.
            Err(error) => {
                warn!("cannot read this host's addresses and routes, the known ones stay protected: {error}");
            }
        }
    }
}

/// Sleeps until something changed or it is time to look at the resolvers; `false`: stop.
fn wait(watch: &Watch, stop: &OwnedFd) -> bool {
    let mut ready = [
        PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
    ];
    let timeout = rustix::event::Timespec::try_from(LOOK_EVERY).expect("a minute fits a timespec");
    let _ = poll(&mut ready, Some(&timeout));
    !ready[1].revents().contains(PollFlags::IN)
}

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(20);
/// resolv.conf announces nothing; it is read again this often.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn what_must_not_be_banned_is_told_with_its_reason() {
        let trusted = [prefix("198.51.100.0/24")].into_iter().collect();
        let protection = Protection::of(vec![(prefix("192.0.2.1"), Why::Gateway)], &trusted);
        for (target, words) in [
            ("192.0.2.1", "192.0.2.1 is protected: gateway"),
            (
                "192.0.2.0/24",
                "192.0.2.0/24 is protected: it touches 192.0.2.1, gateway",
            ),
            (
                "198.51.100.7",
                "198.51.100.7 is trusted: trusted networks hold 198.51.100.0/24",
            ),
        ] {
            assert_eq!(protection.forbids(&prefix(target)).as_deref(), Some(words));
        }
        for free in ["192.0.2.2", "198.51.101.0/24", "2001:db8::/64"] {
            assert_eq!(protection.forbids(&prefix(free)), None, "{free}");
        }
    }
}
