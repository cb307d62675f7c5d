//! What was acknowledged, and what may be true besides: of each target the fates it may have met.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The clock of `Instant`, which all processes of a machine share.
pub(crate) fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("it began at zero")
}

/// What becomes of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Free,
    /// A ban that ends between these two moments.
    Until(Duration, Duration),
    /// A ban without end.
    Forever,
}

/// What was found: how long from then on; `None` is a ban without end.
pub(crate) type Found = BTreeMap<String, Option<Duration>>;

/// How far what is found may lie off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margin {
    /// Longer than granted.
    pub(crate) over: Duration,
    /// Shorter.
    pub(crate) under: Duration,
}

/// The fates that each target may have met; the only one, once it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises(BTreeMap<String, Vec<Fate>>);

impl Promises {
    /// From now on this may come true as well.
    pub(crate) fn may(&mut self, target: &str, fate: Fate) {
        self.0
            .entry(target.into())
            .or_insert_with(|| vec![Fate::Free])
            .push(fate);
    }

    /// From now on nothing else is true.
    pub(crate) fn must(&mut self, target: &str, fate: Fate) {
        self.0.insert(target.into(), vec![fate]);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything that is not as promised in what was found between `from` and `to`; empty if all is well.
    pub(crate) fn broken(&self, found: &Found, from: Duration, to: Duration, margin: Margin) -> String {
        let mut said = String::new();
        for (target, fates) in &self.0 {
            let met = found.get(target);
            if !fates.iter().any(|fate| fits(*fate, met, from, to, margin)) {
                let _ = writeln!(
                    said,
                    "{target}: {met:?} left between {from:?} and {to:?}, and promised was {fates:?}"
                );
            }
        }
        for target in found.keys().filter(|target| !self.0.contains_key(*target)) {
            let _ = writeln!(said, "{target}: nobody asked for it");
        }
        said
    }
}

fn fits(fate: Fate, met: Option<&Option<Duration>>, from: Duration, to: Duration, margin: Margin) -> bool {
    match (fate, met) {
        (Fate::Free, None) | (Fate::Forever, Some(None)) => true,
        (Fate::Until(soonest, latest), Some(Some(left))) => {
            *left + margin.under >= soonest.saturating_sub(to)
                && *left <= latest.saturating_sub(from) + margin.over
        }
        (Fate::Until(soonest, _), None) => soonest <= to + margin.under,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_was_promised_or_asked_for_is_let_through() {
        let margin = Margin {
            over: at(1),
            under: at(2),
        };
        let mut promises = Promises::default();
        let broken = |promises: &Promises, found: &[(&str, Option<u64>)]| {
            let found = found.iter().map(|(who, left)| ((*who).into(), left.map(at)));
            promises.broken(&found.collect(), at(100), at(101), margin)
        };
        assert_eq!(broken(&promises, &[]), "");
        assert!(broken(&promises, &[("x", None)]).contains("nobody asked"));
        promises.may("x", Fate::Until(at(160), at(161)));
        for fine in [&[][..], &[("x", Some(57))], &[("x", Some(62))]] {
            assert_eq!(broken(&promises, fine), "");
        }
        for bad in [&[("x", Some(56))][..], &[("x", Some(63))], &[("x", None)]] {
            assert!(broken(&promises, bad).contains("promised was"));
        }
        promises.must("x", Fate::Forever);
        assert_eq!(broken(&promises, &[("x", None)]), "");
        assert!(broken(&promises, &[]).contains("promised was"));
        promises.must("x", Fate::Until(at(102), at(102)));
        assert_eq!(broken(&promises, &[]), "", "it may have ended");
        promises.must("x", Fate::Free);
        assert!(broken(&promises, &[("x", Some(1))]).contains("promised was"));
    }
}
