//! What the kernel holds after it said yes. Before 6.12 it acknowledges a longer timeout for an element that it holds
//! and keeps the old one: the ban would end by the first length of its ladder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{BanSets, Change, SetError, absent_is_empty};
use crate::core::prefix::Prefix;
use crate::kernel::netlink::{Builder, NetlinkError};
use crate::kernel::setelem::{self, LiveBan, SetId};

/// A ban as it was asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    target: Prefix,
    timeout: Option<Duration>,
}

/// What is held of one target: nothing, or a ban with its time left.
type Held = Option<Option<Duration>>;

/// The bans of `batch` that the kernel did not refuse.
pub(super) fn bans(batch: &[Change], refused: &[(Prefix, SetError)]) -> Vec<Asked> {
    let refused: HashSet<Prefix> = refused.iter().map(|(target, _)| *target).collect();
    let bans = batch.iter().filter_map(|change| match *change {
        Change::Add { target, timeout } | Change::Renew { target, timeout } => {
            Some(Asked { target, timeout })
        }
        Change::Remove { .. } => None,
    });
    bans.filter(|ban| !refused.contains(&ban.target)).collect()
}

impl BanSets {
    /// Reads back one of `every` so many bans that were asked for since `asked_at`, and all of them if one is wrong.
    /// What is held otherwise is renewed, once; what is wrong then is refused.
    pub(super) fn make_true(
        &mut self,
        bans: &[Asked],
        every: usize,
        asked_at: Instant,
        refused: &mut Vec<(Prefix, SetError)>,
    ) {
        let some: Vec<Asked> = bans.iter().step_by(every.max(1)).copied().collect();
        let mut wrong = self.otherwise(&some, asked_at, refused);
        if wrong.is_empty() {
            return;
        }
        if some.len() < bans.len() {
            wrong = self.otherwise(bans, asked_at, refused);
        }
        let asked: Vec<Asked> = wrong.into_iter().map(|(ban, _)| ban).collect();
        let renewals: Vec<Change> = asked.iter().map(Asked::renewal).collect();
        let (again_at, known) = (Instant::now(), refused.len());
        self.settle(&renewals, &mut Default::default(), refused);
        let asked = self::bans(&renewals, &refused[known..]);
        for (ban, held) in self.otherwise(&asked, again_at, refused) {
            refused.push((ban.target, ban.told(held)));
        }
    }

    /// Those of `bans` that the kernel holds otherwise, and how. Which could not be read back is refused as unknown.
    fn otherwise(
        &mut self,
        bans: &[Asked],
        asked_at: Instant,
        refused: &mut Vec<(Prefix, SetError)>,
    ) -> Vec<(Asked, Held)> {
        let mut sets: BTreeMap<SetId, Vec<Asked>> = BTreeMap::new();
        for ban in bans {
            sets.entry(SetId::of(&ban.target)).or_default().push(*ban);
        }
        let mut wrong = Vec::new();
        for (set, bans) in sets {
            let held = match self.held(set, &bans) {
                Ok(held) => held,
                Err(error) => {
                    let reason = format!("it cannot be read back: {error}");
                    refused.extend(bans.iter().map(|ban| (ban.target, ban.unknown(reason.clone()))));
                    continue;
                }
            };
            let passed = asked_at.elapsed();
            let found = bans.into_iter().map(|ban| (ban, held.get(&ban.target).copied()));
            wrong.extend(found.filter(|(ban, held)| !ban.is_held(*held, passed)));
        }
        wrong
    }

    /// How long the kernel holds each of these targets of one set; those that it does not are not among them.
    fn held(
        &mut self,
        set: SetId,
        bans: &[Asked],
    ) -> Result<HashMap<Prefix, Option<Duration>>, NetlinkError> {
        let mut held = HashMap::with_capacity(bans.len());
        let mut rest = bans;
        while !rest.is_empty() {
            let asked = &rest[..rest.len().min(ASKED_AT_ONCE)];
            let mut request = Builder::new();
            let seq = self.netlink.take_seqs(1).start;
            setelem::put_get_all(&mut request, seq, set, asked.iter().map(|ban| ban.target));
            let mut answered = 0;
            let outcome = self.netlink.dump(request.bytes(), |_, payload| {
                let found = setelem::read_elements(set, payload);
                held.extend(found.map(
                    |LiveBan {
                         target, remaining, ..
                     }| (target, remaining),
                ));
                answered += 1;
                Ok(())
            });
            // The first that is not there ends the answer.
            let absent = usize::from(outcome.is_err());
            absent_is_empty(outcome)?;
            rest = &rest[(answered + absent).min(asked.len())..];
        }
        Ok(held)
    }
}

impl Asked {
    fn renewal(&self) -> Change {
        Change::Renew {
            target: self.target,
            timeout: self.timeout,
        }
    }

    /// Whether that is what was asked for at most `passed` ago, give or take [`TOLERANCE`].
    fn is_held(&self, held: Held, passed: Duration) -> bool {
        let wanted = self.timeout.map(setelem::as_held);
        match (wanted, held) {
            (None, Some(None)) => true,
            (Some(wanted), Some(Some(left))) => {
                left <= wanted + TOLERANCE && left + passed + TOLERANCE >= wanted
            }
            (Some(wanted), None) => wanted <= passed + TOLERANCE,
            (Some(_), Some(None)) | (None, _) => false,
        }
    }

    fn told(&self, held: Held) -> SetError {
        let length = |time: Option<Duration>| match time {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "no end".to_owned(),
        };
        SetError::Otherwise {
            set: SetId::of(&self.target).name(),
            found: held.map_or_else(|| "nothing".to_owned(), length),
            asked: length(self.timeout),
        }
    }

    fn unknown(&self, reason: String) -> SetError {
        SetError::Unknown {
            set: SetId::of(&self.target).name(),
            reason,
        }
    }
}

/// Each takes an answer of its own, about 1 KiB of the socket's buffer, all of which lie there before one is read.
const ASKED_AT_ONCE: usize = 500;
/// Kernels count in jiffies, of 1 to 10 ms.
const TOLERANCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ban(timeout: Option<Duration>) -> Asked {
        Asked {
            target: "203.0.113.9".parse().unwrap(),
            timeout,
        }
    }

    #[test]
    fn a_second_more_or_less_is_as_asked_and_more_is_not() {
        let hour = ban(Some(secs(3600)));
        for (left, passed, fine) in [
            (3600, 0, true),
            (3599, 0, true),
            (3598, 0, false),
            (3601, 0, true),
            (3602, 0, false),
            (3590, 9, true),
            (3590, 8, false),
            (600, 0, false),
        ] {
            assert_eq!(
                hour.is_held(Some(Some(secs(left))), secs(passed)),
                fine,
                "{left} s after {passed} s"
            );
        }
    }

    #[test]
    fn without_end_is_neither_an_hour_nor_nothing() {
        let (hour, ever) = (ban(Some(secs(3600))), ban(None));
        assert!(ever.is_held(Some(None), secs(9)));
        assert!(!ever.is_held(Some(Some(secs(u64::MAX / 2))), secs(9)));
        assert!(!ever.is_held(None, secs(9)));
        assert!(!hour.is_held(Some(None), secs(0)));
        assert_eq!(
            ever.told(Some(Some(secs(600)))).to_string(),
            "set \"banned4\" does not hold it as asked: 600.0 s instead of no end"
        );
        assert!(
            hour.told(None)
                .to_string()
                .contains("nothing instead of 3600.0 s")
        );
    }

    #[test]
    fn what_is_over_by_now_may_be_gone() {
        assert!(ban(Some(Duration::ZERO)).is_held(None, secs(0)));
        assert!(ban(Some(secs(3))).is_held(None, secs(2)));
        assert!(!ban(Some(secs(5))).is_held(None, secs(2)));
        assert!(!ban(Some(Duration::MAX)).is_held(None, secs(2)));
        assert!(ban(Some(Duration::MAX)).is_held(Some(Some(secs(36_500 * 86_400))), secs(0)));
    }

    #[test]
    fn refused_and_removed_ones_are_not_read_back() {
        let target = |last| Prefix::host([10, 0, 0, last].into());
        let batch = [
            ban(None).renewal(),
            Change::Remove { target: target(2) },
            Change::Add {
                target: target(3),
                timeout: None,
            },
        ];
        let full = SetError::Full {
            set: "banned4".into(),
        };
        let read: Vec<Prefix> = bans(&batch, &[(target(3), full)])
            .iter()
            .map(|ban| ban.target)
            .collect();
        assert_eq!(read, [batch[0].target()]);
    }
}
