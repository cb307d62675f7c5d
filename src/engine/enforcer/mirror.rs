//! What the kernel's sets of bans should hold: a copy of what the ledger asked for and the kernel took, kept by the
//! only thread that writes them. From it everything that is lost is put back, without a question to anybody.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::core::prefix::Prefix;
use crate::core::verdict::Ban;
use crate::kernel::sets::{Change, LiveBan};

/// Every ban that is to be in force, and which were granted last.
#[derive(Debug, Default)]
pub struct Mirror {
    held: HashMap<Prefix, Held>,
    /// In the order in which they were granted, the last at the end; what was granted again or lifted since then is
    /// skipped by its number.
    newest: VecDeque<(u64, Prefix)>,
    granted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// When it ends; none: never.
    until: Option<Instant>,
    number: u64,
    /// The kernel refused it: it may hold an older one, or none. The analyst tries again.
    refused: bool,
}

/// How the kernel's sets differ from what they should hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// Bans that are not there.
    pub(super) missing: Vec<Prefix>,
    /// Elements behind which there is no ban.
    pub(super) foreign: Vec<Prefix>,
    /// Bans that end at another time than they should.
    pub(super) mistimed: Vec<Prefix>,
}

/// Who is to be banned until when; none: for ever.
pub(super) type Lasting = (Prefix, Option<Instant>);

/// What one element of the kernel is, as far as the mirror knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Right,
    Foreign,
    Mistimed,
}

impl Drift {
    /// What is wrong by both.
    pub(super) fn and(mut self, other: &Drift) -> Drift {
        let both = |these: &mut Vec<Prefix>, those: &Vec<Prefix>| {
            let those: HashSet<&Prefix> = those.iter().collect();
            these.retain(|target| those.contains(target));
        };
        both(&mut self.missing, &other.missing);
        both(&mut self.foreign, &other.foreign);
        both(&mut self.mistimed, &other.mistimed);
        self
    }
}

impl Mirror {
    /// Begins with the enforced ones of `bans`, of which the last granted are the hottest.
    pub fn of<'a>(bans: impl Iterator<Item = &'a Ban>) -> Mirror {
        let mut bans: Vec<&Ban> = bans.filter(|ban| ban.enforced).collect();
        bans.sort_by_key(|ban| (ban.since, ban.source));
        let mut mirror = Mirror::default();
        for ban in bans {
            mirror.hold(ban.source, ban.until);
        }
        mirror
    }

    /// The kernel was given `change` and took it at `now`.
    pub(super) fn note(&mut self, change: &Change, now: Instant) {
        match change {
            Change::Remove { target } => drop(self.held.remove(target)),
            Change::Add { target, .. } | Change::Renew { target, .. } => {
                let until = change.lasts().and_then(|length| now.checked_add(length));
                self.hold(*target, until);
            }
        }
    }

    /// The kernel refused what it was last given for `target`.
    pub(super) fn refuse(&mut self, target: &Prefix) {
        if let Some(held) = self.held.get_mut(target) {
            held.refused = true;
        }
    }

    /// `target` was freed behind our back, and stays so.
    pub(super) fn forget(&mut self, target: &Prefix) {
        self.held.remove(target);
    }

    /// Forgets what ended; the kernel ended it by itself.
    pub(super) fn forget_ended(&mut self, now: Instant) {
        self.held
            .retain(|_, held| held.until.is_none_or(|until| until + ENDING > now));
    }

    /// Whether `target` is to be banned at `now`.
    pub(super) fn holds(&self, target: &Prefix, now: Instant) -> bool {
        self.held.get(target).is_some_and(|held| held.is_live(now))
    }

    /// How many bans are to be in the set of `target` for longer than a moment at `now`, and how many of `targets` are
    /// among them. What the kernel refused is not there to be deleted.
    pub(super) fn share(&self, targets: &HashSet<Prefix>, of: &Prefix, now: Instant) -> (usize, usize) {
        let same = |target: &Prefix| (target.is_ipv4(), target.len()) == (of.is_ipv4(), of.len());
        let lasting = self
            .held
            .iter()
            .filter(|(target, held)| same(target) && !held.refused && held.is_lasting(now));
        lasting.fold((0, 0), |(all, of), (target, _)| {
            (all + 1, of + usize::from(targets.contains(target)))
        })
    }

    /// The `count` bans that were granted last, the last first, and how long each still lasts.
    pub fn hottest(&self, count: usize, now: Instant) -> Vec<(Prefix, Option<Duration>)> {
        let newest = self.newest.iter().rev().filter_map(|(number, target)| {
            let held = self.held.get(target)?;
            (held.number == *number && !held.refused && held.is_live(now)).then(|| (*target, held.left(now)))
        });
        newest.take(count).collect()
    }

    /// Every ban that is not among `done`.
    pub(super) fn others(&self, done: &[(Prefix, Option<Duration>)], now: Instant) -> Vec<Lasting> {
        let done: HashSet<Prefix> = done.iter().map(|(target, _)| *target).collect();
        let live = self.held.iter().filter(|(_, held)| held.is_live(now));
        live.filter(|(target, _)| !done.contains(target))
            .map(|(target, held)| (*target, held.until))
            .collect()
    }

    /// Those of `targets` that are to be banned.
    pub(super) fn of_these(&self, targets: &[Prefix], now: Instant) -> Vec<Lasting> {
        let held = targets.iter().map(|target| (target, self.held.get(target)));
        held.filter_map(|(target, held)| Some((*target, held.filter(|held| held.is_live(now))?.until)))
            .collect()
    }

    /// What gives `target` the time it should have; nothing if it should not be banned.
    pub(super) fn renewal(&self, target: &Prefix, now: Instant) -> Option<Change> {
        let held = self.held.get(target).filter(|held| held.is_live(now))?;
        Some(Change::Renew {
            target: *target,
            timeout: held.left(now),
        })
    }

    /// How what was found between `begun` and `ended` differs. What ends just now, or was refused, is no difference.
    pub(super) fn drift(&self, found: &[LiveBan], begun: Instant, ended: Instant) -> Drift {
        let mut drift = Drift::default();
        let mut seen = HashSet::with_capacity(found.len());
        for ban in found {
            seen.insert(ban.target);
            match self.judge(ban, begun, ended) {
                Judged::Right => {}
                Judged::Foreign => drift.foreign.push(ban.target),
                Judged::Mistimed => drift.mistimed.push(ban.target),
            }
        }
        let missing = self
            .held
            .iter()
            .filter(|(target, held)| !held.refused && held.is_lasting(ended) && !seen.contains(target));
        drift.missing = missing.map(|(target, _)| *target).collect();
        drift
    }

    /// What an element that was seen between `begun` and `ended` is.
    pub(super) fn judge(&self, found: &LiveBan, begun: Instant, ended: Instant) -> Judged {
        let Some(held) = self.held.get(&found.target) else {
            return Judged::Foreign;
        };
        if held.refused || (!held.is_lasting(ended) && found.remaining.is_some_and(|left| left < ENDING)) {
            return Judged::Right;
        }
        let right = match (held.until, found.remaining) {
            (None, None) => true,
            (Some(until), Some(left)) => {
                let (most, least) = (
                    until.saturating_duration_since(begun),
                    until.saturating_duration_since(ended),
                );
                left <= most + TOLERANCE && left + TOLERANCE >= least
            }
            _ => false,
        };
        match right {
            true => Judged::Right,
            // It ended; what the kernel holds is somebody's.
            false if !held.is_live(begun) => Judged::Foreign,
            false => Judged::Mistimed,
        }
    }

    fn hold(&mut self, target: Prefix, until: Option<Instant>) {
        if let Some(held) = self.held.get_mut(&target)
            && held.ends_with(until)
        {
            // Asserted again: it was granted when it was.
            (held.until, held.refused) = (until, false);
            return;
        }
        self.granted += 1;
        let number = self.granted;
        self.held.insert(
            target,
            Held {
                until,
                number,
                refused: false,
            },
        );
        self.newest.push_back((number, target));
        if self.newest.len() > REMEMBERED {
            self.newest.pop_front();
        }
    }
}

impl Held {
    /// Whether it ends when another one would.
    fn ends_with(&self, until: Option<Instant>) -> bool {
        match (self.until, until) {
            (None, None) => true,
            (Some(one), Some(other)) => one.max(other).saturating_duration_since(one.min(other)) <= TOLERANCE,
            _ => false,
        }
    }

    fn is_live(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Not about to end.
    fn is_lasting(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now + ENDING)
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(now))
    }
}

/// How far the kernel's time for a ban may be off: it counts from when it took the ban, we from when it said so.
const TOLERANCE: Duration = Duration::from_secs(1);
/// A ban this close to its end may have ended there already, or still be there.
const ENDING: Duration = Duration::from_secs(2);
/// Grants of which the order is remembered: many times those that are hottest, since some are renewed or lifted.
const REMEMBERED: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn renew(text: &str, seconds: u64) -> Change {
        Change::Renew {
            target: prefix(text),
            timeout: Some(Duration::from_secs(seconds)),
        }
    }

    fn found(text: &str, seconds: Option<u64>) -> LiveBan {
        LiveBan {
            target: prefix(text),
            remaining: seconds.map(Duration::from_secs),
            timeout: seconds.map(Duration::from_secs),
        }
    }

    fn mirror(now: Instant) -> Mirror {
        let mut mirror = Mirror::default();
        for change in [
            renew("192.0.2.1", 100),
            renew("192.0.2.2", 100),
            renew("192.0.2.3", 100),
            renew("2001:db8::/64", 100),
            Change::Renew {
                target: prefix("192.0.2.4"),
                timeout: None,
            },
        ] {
            mirror.note(&change, now);
        }
        mirror
    }

    #[test]
    fn the_last_granted_are_the_hottest() {
        let now = Instant::now();
        let mut mirror = mirror(now);
        mirror.note(&renew("192.0.2.1", 50), now);
        mirror.note(
            &Change::Remove {
                target: prefix("192.0.2.4"),
            },
            now,
        );
        let hottest = mirror.hottest(3, now + Duration::from_secs(10));
        let second = Duration::from_secs;
        assert_eq!(
            hottest,
            [
                (prefix("192.0.2.1"), Some(second(40))),
                (prefix("2001:db8::/64"), Some(second(90))),
                (prefix("192.0.2.3"), Some(second(90))),
            ]
        );
        let others = mirror.others(&hottest, now);
        let other = (prefix("192.0.2.2"), Some(now + second(100)));
        assert_eq!(others, [other]);
        let asked = ["192.0.2.2", "198.51.100.1"].map(prefix);
        assert_eq!(mirror.of_these(&asked, now), [other]);
        assert!(mirror.hottest(9, now + second(101)).is_empty());
    }

    #[test]
    fn drift_is_what_is_missing_foreign_or_mistimed_and_nothing_else() {
        let now = Instant::now();
        let mut mirror = mirror(now);
        mirror.note(&renew("192.0.2.9", 100), now);
        mirror.refuse(&prefix("192.0.2.9"));
        let right = [
            found("192.0.2.1", Some(101)),
            found("192.0.2.2", Some(99)),
            found("192.0.2.3", Some(100)),
            found("192.0.2.4", None),
            found("2001:db8::/64", Some(100)),
        ];
        assert_eq!(mirror.drift(&right, now, now), Drift::default());
        let wrong = [
            found("192.0.2.1", Some(102)),
            found("192.0.2.2", Some(97)),
            found("192.0.2.3", None),
            found("192.0.2.4", Some(100)),
            found("198.51.100.7", Some(100)),
            found("192.0.2.9", Some(5)),
        ];
        let drift = mirror.drift(&wrong, now, now);
        assert_eq!(drift.missing, [prefix("2001:db8::/64")]);
        assert_eq!(drift.foreign, [prefix("198.51.100.7")]);
        let mistimed = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
        assert_eq!(drift.mistimed, mistimed.map(prefix));
    }

    #[test]
    fn what_ends_just_now_is_neither_missing_nor_foreign() {
        let now = Instant::now();
        let mut mirror = mirror(now);
        let late = now + Duration::from_millis(99_500);
        let rest = [found("192.0.2.4", None), found("192.0.2.1", Some(1))];
        assert_eq!(mirror.drift(&rest, late, late), Drift::default());
        let later = now + Duration::from_secs(101);
        assert_eq!(mirror.drift(&rest, later, later), Drift::default());
        mirror.forget_ended(now + Duration::from_secs(103));
        assert_eq!(mirror.held.len(), 1);
        assert_eq!(
            mirror.judge(&found("192.0.2.1", Some(1)), late, late),
            Judged::Foreign
        );
    }

    #[test]
    fn a_ban_that_ended_and_is_held_for_long_is_somebodys() {
        let now = Instant::now();
        let mirror = mirror(now);
        let late = now + Duration::from_secs(101);
        assert_eq!(
            mirror.judge(&found("192.0.2.1", Some(3600)), late, late),
            Judged::Foreign
        );
    }

    #[test]
    fn the_share_of_a_set_counts_that_set_alone() {
        let now = Instant::now();
        let mirror = mirror(now);
        let gone: HashSet<_> = ["192.0.2.1", "192.0.2.2", "198.51.100.1"]
            .map(prefix)
            .into_iter()
            .collect();
        assert_eq!(mirror.share(&gone, &prefix("10.0.0.1"), now), (4, 2));
        assert_eq!(mirror.share(&gone, &prefix("2001:db8::/64"), now), (1, 0));
    }
}
