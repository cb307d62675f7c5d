//! What `stats` tells for those who keep time series of it (`verdictctl exporter`): the same counts, finer. Field names
//! are a contract.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::verdict::{BanReason, Reason};
use crate::stats::StatsReport;

/// Answers to held packets, by the word of their reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictsByReason {
    /// Let go.
    pub accept: BTreeMap<String, u64>,
    /// Discarded.
    pub drop: BTreeMap<String, u64>,
}

impl VerdictsByReason {
    /// As they were counted.
    pub fn of(report: &StatsReport) -> VerdictsByReason {
        let words = || Reason::ALL.map(Reason::word);
        VerdictsByReason {
            accept: by_word(words(), &report.accepts),
            drop: by_word(words(), &report.drops),
        }
    }
}

/// Live enforced bans of one family and step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierView {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Position on the ladder, from 1; 0 for an operator's own duration. 16 stands for all above it too.
    pub step: u32,
    /// How many.
    pub bans: u64,
}

impl TierView {
    /// Those that there are.
    pub fn all(report: &StatsReport) -> Vec<TierView> {
        let of_family = |(family, steps): (&str, &[u64])| -> Vec<TierView> {
            let steps = (0..).zip(steps).filter(|(_, bans)| **bans > 0);
            steps
                .map(|(step, bans)| TierView {
                    family: family.to_owned(),
                    step,
                    bans: *bans,
                })
                .collect()
        };
        let families = ["ipv4", "ipv6"]
            .into_iter()
            .zip(report.tiers.iter().map(|steps| &steps[..]));
        families.flat_map(of_family).collect()
    }
}

/// How long verdicts took, from reception on, as Prometheus wants it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecondsView {
    /// Cumulative, the shortest first.
    pub buckets: Vec<BucketView>,
    /// All of them together.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

/// How many verdicts took no longer than this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketView {
    /// Seconds.
    pub le: f64,
    /// How many for certain: up to 3.2 % below `le` may be missing, never is there one too many.
    pub count: u64,
}

impl SecondsView {
    /// As they were counted.
    pub fn of(report: &StatsReport) -> SecondsView {
        let latency = &report.latency;
        let bucket = |nanoseconds: u64| BucketView {
            le: nanoseconds as f64 / 1e9,
            count: latency.within(nanoseconds),
        };
        SecondsView {
            buckets: BOUNDS.map(bucket).into(),
            sum: latency.sum().as_secs_f64(),
            count: latency.count(),
        }
    }
}

/// Packets that the kernel dropped by itself since the rules were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DroppedView {
    /// Because their source is in this set of bans; `any` where the sets are not told apart (observing).
    pub by_set: BTreeMap<String, u64>,
    /// Because policy refuses their port or protocol; null where nothing is refused.
    pub refused: Option<u64>,
}

/// Enforced bans since the start, by the word of their reason.
pub fn bans_by_reason(report: &StatsReport) -> BTreeMap<String, u64> {
    by_word(BanReason::ALL.map(BanReason::word), &report.bans_by_reason)
}

fn by_word<const N: usize>(words: [&str; N], counts: &[u64; N]) -> BTreeMap<String, u64> {
    let words = words.into_iter().map(str::to_owned);
    words.zip(counts.iter().copied()).collect()
}

/// 1 us to 10 s in nanoseconds: a verdict takes some microseconds, a waiting SYN comes again after a second.
const BOUNDS: [u64; 18] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::core::verdict::{Class, Verdict};
    use crate::stats::Stats;

    #[test]
    fn counts_are_told_by_reason_step_and_duration() {
        let stats = Stats::new(2, Instant::now());
        stats.workers[0].count(Class::New, Verdict::Accept, Reason::Harmless);
        stats.workers[1].count(Class::Odd, Verdict::Drop, Reason::Offence);
        stats.workers[1].count(Class::Refused, Verdict::Drop, Reason::Counted);
        stats.workers[0].latency.record(4_000, 3);
        stats.workers[1].latency.record(2_000_000_000, 1);
        stats.banned(BanReason::Manual);
        let mut counts = crate::core::tiers::Counts::default();
        (counts[0][2], counts[1][0]) = (7, 1);
        stats.tiers.set(&counts);
        let report = stats.snapshot(stats.started);
        let verdicts = VerdictsByReason::of(&report);
        assert_eq!((verdicts.accept["harmless"], verdicts.drop["offence"]), (1, 1));
        assert_eq!(verdicts.drop["counted"], 0, "the kernel dropped it");
        assert_eq!(verdicts.drop.values().sum::<u64>(), report.drop);
        assert_eq!(bans_by_reason(&report)["manual"], 1);
        let tiers: Vec<_> = TierView::all(&report)
            .into_iter()
            .map(|tier| (tier.family, tier.step, tier.bans))
            .collect();
        assert_eq!(tiers, [("ipv4".into(), 2, 7), ("ipv6".into(), 0, 1)]);
        let seconds = SecondsView::of(&report);
        let count = |le| seconds.buckets.iter().find(|b| b.le == le).unwrap().count;
        assert_eq!(
            (count(2.5e-6), count(5e-6), count(1.0), count(10.0)),
            (0, 3, 3, 4)
        );
        assert_eq!((seconds.count, seconds.sum), (4, 2.000_012));
    }
}
