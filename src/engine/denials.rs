//! Orders of those who have no right to them: refused, and written down so that they cannot fill the audit log. Whoever
//! is in the socket's group can give thousands a second, and what they would push out is the evidence of others.
//!
//! The first [`TOLD`] of a user within [`WINDOW`] have a record each, the others a count at its end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::orders::Order;
use crate::audit::log::Audit;
use crate::audit::record::{Outcome, What};
use crate::control::server::Peer;
use crate::control::wire::Request;

/// What is remembered of them. What is still to be told is told when it is dropped.
#[derive(Debug, Default)]
pub struct Denials {
    audit: Audit,
    /// By user; all beyond [`USERS`] together.
    counts: Mutex<BTreeMap<Option<u32>, Count>>,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Denials {
    /// Written into `audit`.
    pub fn new(audit: Audit) -> Denials {
        Denials {
            audit,
            counts: Mutex::default(),
        }
    }

    /// `request` of `peer` was refused, and `why`. Waits for nobody: nothing depends on the record.
    pub fn note(&self, request: &Request, peer: Peer, why: &str, now: Instant) {
        if self.audit.is_on() && self.is_told(peer.uid, now) {
            self.audit
                .note(|| Order::of(request, peer).ended(Outcome::Refused, Some(why.to_owned())));
        }
    }

    /// Writes down the counts whose time is over.
    pub fn settle(&self, now: Instant) {
        self.counts().retain(|uid, count| {
            let goes_on = now.saturating_duration_since(count.since) < WINDOW;
            if !goes_on {
                self.tell(*uid, count);
            }
            goes_on
        });
    }

    /// Whether this one has a record of its own; it is counted if not.
    fn is_told(&self, uid: u32, now: Instant) -> bool {
        let mut counts = self.counts();
        let known = counts.contains_key(&Some(uid)) || counts.len() < USERS;
        let count = counts.entry(known.then_some(uid)).or_insert(Count {
            since: now,
            told: 0,
            left_out: 0,
        });
        let told = count.told < TOLD;
        match told {
            true => count.told += 1,
            false => count.left_out += 1,
        }
        told
    }

    fn tell(&self, uid: Option<u32>, count: &Count) {
        if count.left_out > 0 {
            let orders = count.left_out;
            self.audit.note(|| What::Denied { uid, orders });
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Option<u32>, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Denials {
    fn drop(&mut self) {
        self.counts()
            .iter()
            .for_each(|(uid, count)| self.tell(*uid, count));
    }
}

/// Enough to see what somebody is after.
const TOLD: u32 = 10;
/// With [`TOLD`] and [`USERS`] no more than 25,000 lines a day, of which the log keeps some weeks by its default size.
const WINDOW: Duration = Duration::from_secs(600);
/// A member of the group who has subordinate users can be thousands of them.
const USERS: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;
    use crate::audit::AuditConfig;
    use crate::audit::log::Paths;

    /// What stands in the log after `act`.
    fn log_of(act: impl FnOnce(Denials)) -> Vec<serde_json::Value> {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            log: folder.path().join("audit.jsonl"),
            head: folder.path().join("audit.head"),
        };
        let config = AuditConfig {
            enabled: true,
            ..AuditConfig::default()
        };
        let (audit, recorder) = Audit::begin(paths.clone(), &config);
        let writer = thread::spawn(move || recorder.run());
        act(Denials::new(audit.clone()));
        audit.stop();
        writer.join().unwrap();
        let text = fs::read_to_string(paths.log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn deny(denials: &Denials, uid: u32, now: Instant) {
        let peer = Peer { uid, gid: 7, pid: 0 };
        denials.note(&Request::Reload {}, peer, "no", now);
    }

    #[test]
    fn the_first_of_a_user_have_a_record_and_the_others_a_count() {
        let now = Instant::now();
        let log = log_of(|denials| {
            (0..5_000).for_each(|_| deny(&denials, 1000, now));
            deny(&denials, 1001, now);
            denials.settle(now + WINDOW / 2);
            denials.settle(now + WINDOW);
            deny(&denials, 1000, now + WINDOW);
        });
        let of = |uid: u32| log.iter().filter(|line| line["who"]["uid"] == uid).count();
        assert_eq!((of(1000), of(1001), log.len()), (11, 1, 13), "{log:#?}");
        let count = log.iter().find(|line| line["kind"] == "denied").unwrap();
        assert_eq!((&count["uid"], &count["orders"]), (&1000.into(), &4_990.into()));
    }

    #[test]
    fn who_is_many_users_is_one_of_them_in_the_end() {
        let now = Instant::now();
        let log = log_of(|denials| (0..9_000).for_each(|uid| deny(&denials, uid, now)));
        assert_eq!(log.len(), USERS + TOLD as usize + 1, "{log:#?}");
        let count = log.last().unwrap();
        assert_eq!((count["kind"].as_str(), count.get("uid")), (Some("denied"), None));
        assert_eq!(count["orders"], 9_000 - USERS - TOLD as usize);
    }
}
