//! Who is never banned: facts of this host and of those who administer it, followed while it runs, and the trusted
//! networks of the config.
//! One guard is built here and handed to workers and analyst alike.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use tracing::{debug, warn};

use super::analyst::Command;
use super::peers::Peers;
use crate::core::judge::Guard;
use crate::core::prefix::{Prefix, PrefixSet};
use crate::kernel::files::FileWatch;
use crate::kernel::host::{self, Facts, HostError, Watch, Why};
use crate::kernel::sessions::Records;
use crate::kernel::ssh_peers::ssh_peers;

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

/// Keeps up with who is protected on this host.
pub struct Follower {
    host: Watch,
    /// Without inotify changes of files are seen at the next round.
    resolvers: Option<FileWatch>,
    logins: Option<FileWatch>,
    records: Records,
    of_host: Vec<(Prefix, Why)>,
    peers: Peers,
    round: Instant,
}

impl Follower {
    /// Finds out in the network namespace of the calling thread; watched first, so that no change between watching
    /// and finding out is missed. The facts name everybody who is protected.
    ///
    /// # Errors
    /// If the kernel does not tell addresses or routes.
    pub fn open() -> Result<(Follower, Facts), HostError> {
        let records = Records::default();
        let mut follower = Follower {
            host: Watch::open()?,
            resolvers: watched(host::resolver_files(), "resolvers"),
            logins: watched(records.paths(), "logins"),
            records,
            of_host: Vec::new(),
            peers: Peers::default(),
            round: Instant::now(),
        };
        let mut facts = host::gather()?;
        follower.of_host = std::mem::take(&mut facts.protected);
        follower.look_for_peers(Instant::now());
        facts.protected = follower.protected();
        Ok((follower, facts))
    }

    /// Follows until `stop` becomes readable; tells the analyst what changed.
    pub fn follow(mut self, commands: &Sender<Command>, stop: &OwnedFd) {
        let mut known = self.protected();
        while self.wait(stop) {
            // A change seldom comes alone: one look for all of a moment.
            std::thread::sleep(SETTLE);
            let begun = Instant::now();
            self.look(begun);
            let protected = self.protected();
            if protected != known {
                debug!("{} addresses and networks are protected now", protected.len());
                known = protected;
                if commands.send(Command::Protect(known.clone())).is_err() {
                    return;
                }
            }
            // A host with a full routing table hears of changes without end, one with many users of logins.
            if !pause(stop, (9 * begun.elapsed()).clamp(REST, LONGEST_REST)) {
                return;
            }
        }
    }

    fn protected(&self) -> Vec<(Prefix, Why)> {
        let mut protected = self.of_host.clone();
        protected.extend(self.peers.reasons());
        protected.sort();
        protected
    }

    /// Sleeps until something changed or is due; `false`: stop.
    fn wait(&self, stop: &OwnedFd) -> bool {
        let due = self.peers.next_end().unwrap_or(self.round + LOOK_EVERY);
        let timeout = due.min(self.round + LOOK_EVERY);
        let mut ready = vec![stop.as_fd(), self.host.as_fd()];
        ready.extend(
            [&self.resolvers, &self.logins]
                .into_iter()
                .flatten()
                .map(AsFd::as_fd),
        );
        wait_for(&ready, timeout.saturating_duration_since(Instant::now()))
    }

    fn look(&mut self, now: Instant) {
        let round = now.duration_since(self.round) >= LOOK_EVERY;
        if round {
            self.round = now;
        }
        if self.host.drain() | drain(&mut self.resolvers) | round {
            self.look_at_host();
        }
        if drain(&mut self.logins) | round {
            self.look_for_peers(now);
        }
        self.peers.expire(now);
    }

    fn look_at_host(&mut self) {
        match host::gather() {
            Ok(facts) => self.of_host = facts.protected,
            // The known addresses stay protected: an unreadable kernel table must not unprotect anybody.
            Err(error) => {
                warn!("cannot read this host's addresses and routes, the known ones stay protected: {error}");
            }
        }
    }

    fn look_for_peers(&mut self, now: Instant) {
        match ssh_peers(&self.records) {
            Ok(peers) => self.peers.see(&peers, now),
            Err(error) => {
                warn!("cannot list this host's connections, known SSH sessions stay protected: {error}");
            }
        }
    }
}

fn watched(paths: impl Iterator<Item = PathBuf>, what: &str) -> Option<FileWatch> {
    let watch = FileWatch::over(paths);
    let told = |error| warn!("changes of {what} are noticed every {LOOK_EVERY:?} only: inotify: {error}");
    watch.map_err(told).ok()
}

fn drain(watch: &mut Option<FileWatch>) -> bool {
    watch.as_mut().is_some_and(FileWatch::drain)
}

/// `false`: stop.
fn pause(stop: &OwnedFd, length: Duration) -> bool {
    wait_for(&[stop.as_fd()], length)
}

/// Sleeps until one of `ready` is, at most `longest`; `false` if it is the first of them.
fn wait_for(ready: &[BorrowedFd<'_>], longest: Duration) -> bool {
    let mut polled: Vec<PollFd<'_>> = ready
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(longest).expect("a minute fits a timespec");
    let _ = poll(&mut polled, Some(&timeout));
    !polled
        .first()
        .is_some_and(|fd| fd.revents().contains(PollFlags::IN))
}

/// How long changes are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(20);
/// How long nothing is looked at after a look: nine times as long as it took, so that following costs a tenth of a
/// core at most, but between these. A login is thus noticed within some 1.1 s.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// What announces nothing is looked at this often: the age of SSH connections where nothing records logins, sessions
/// whose end nobody recorded, files behind a chain of links.
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
