//! What `stats` shows: the counters in words and numbers that scripts read. Field names are a contract.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics_view::{DroppedView, SecondsView, TierView, VerdictsByReason, bans_by_reason};
use super::upkeep_view::RepairsView;
use super::views::BanCounts;
use crate::core::scan::ScanKind;
use crate::core::verdict::Reason;
use crate::stats::StatsReport;

/// The counters, as `stats` shows them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsView {
    /// Whether the host is protected now.
    pub protected: bool,
    /// The word of the mode.
    pub mode: String,
    /// Whether offenders are banned, or only recorded.
    pub enforce: bool,
    /// Since the engine started.
    pub uptime_seconds: u64,
    /// Answers to held packets.
    pub verdicts: Verdicts,
    /// The same by the word of their reason.
    pub verdicts_by_reason: VerdictsByReason,
    /// Packets (copies too) by the word of their reason.
    pub reasons: BTreeMap<String, u64>,
    /// Packets that are evidence, by the word of their kind.
    pub kinds: BTreeMap<String, u64>,
    /// Held packets by what conntrack calls them.
    pub held: Held,
    /// Copies: packets that were not held.
    pub copies: Copies,
    /// Averages since the start, per second.
    pub rates: Rates,
    /// From reception to verdict, in microseconds.
    pub verdict_latency_us: Latency,
    /// The same as a histogram, in seconds.
    pub verdict_seconds: SecondsView,
    /// Packets that the kernel's rules dropped since they were loaded; null where the table could not be read.
    pub dropped_packets: Option<DroppedView>,
    /// Bans.
    pub bans: BanCounts,
    /// Enforced bans that are live now, by family and step of the ladder; what has none is left out.
    pub bans_by_step: Vec<TierView>,
    /// Enforced bans since the start, by the word of their reason.
    pub bans_by_reason: BTreeMap<String, u64>,
    /// The table of sources.
    pub sources: Sources,
    /// Handshakes of strangers.
    pub handshakes: HandshakeCounts,
    /// Verdict queues.
    pub queues: Vec<QueueView>,
    /// The sources with the most distinct ports in the window.
    pub top_sources: Vec<SourceRow>,
    /// What was lost or went wrong.
    pub losses: Losses,
    /// Repairs of the kernel's copy of rules and bans.
    pub repairs: RepairsView,
    /// Time in which rules or bans that should have been in force were not, all times together. Where nobody told of
    /// it, it counts from the last time that all was well.
    pub enforcement_gap_seconds: f64,
    /// What is not as it should be, in words; empty when all is well.
    pub degraded: Vec<String>,
    /// How many of these there are, by what they are about.
    pub degraded_by: BTreeMap<String, u64>,
}

impl StatsView {
    /// What the counters alone tell; the engine adds mode, queues, top sources and its own state.
    pub fn of(report: &StatsReport) -> StatsView {
        StatsView {
            uptime_seconds: report.uptime.as_secs(),
            verdicts: Verdicts {
                accept: report.accept,
                drop: report.drop,
            },
            reasons: by_word(Reason::ALL.map(Reason::word), &report.reasons),
            verdicts_by_reason: VerdictsByReason::of(report),
            kinds: by_word(ScanKind::ALL.map(ScanKind::word), &report.kinds),
            held: Held {
                new: report.new,
                odd: report.odd,
            },
            copies: Copies {
                refused: report.refused,
                observed: report.observed,
            },
            rates: Rates::of(report),
            verdict_latency_us: Latency::of(report),
            verdict_seconds: SecondsView::of(report),
            bans_by_step: TierView::all(report),
            bans_by_reason: bans_by_reason(report),
            bans: BanCounts {
                active: report.bans_active,
                total: report.bans_total,
                observed: report.bans_observed,
            },
            sources: Sources {
                tracked: report.tracked,
                evicted: report.evicted,
            },
            handshakes: HandshakeCounts {
                completed: report.completions,
                lost: report.completions_lost,
                unasked: report.attempts_unasked + report.attempts_lost,
            },
            losses: Losses::of(report),
            repairs: RepairsView::of(report),
            enforcement_gap_seconds: report.gaps.as_secs_f64(),
            ..StatsView::default()
        }
    }
}

fn by_word<const N: usize>(words: [&str; N], counts: &[u64; N]) -> BTreeMap<String, u64> {
    words
        .into_iter()
        .map(str::to_owned)
        .zip(counts.iter().copied())
        .collect()
}

/// Answers to held packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Let go.
    pub accept: u64,
    /// Discarded.
    pub drop: u64,
}

/// Held packets by what conntrack calls them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The first packet of a flow.
    pub new: u64,
    /// Invalid or untracked.
    pub odd: u64,
}

/// Packets of which only a copy came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Refused by the kernel (port filter).
    pub refused: u64,
    /// Let through by the kernel (observing).
    pub observed: u64,
}

/// Packets per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Verdicts that let go.
    pub accept: f64,
    /// Verdicts that discard.
    pub drop: f64,
    /// Copies of refused packets.
    pub refused: f64,
    /// Copies of observed packets.
    pub observed: f64,
}

impl Rates {
    fn of(report: &StatsReport) -> Rates {
        let seconds = report.uptime.as_secs_f64();
        let per_second = |count: u64| {
            if seconds > 0.0 {
                to_places(count as f64 / seconds, 1000.0)
            } else {
                0.0
            }
        };
        Rates {
            accept: per_second(report.accept),
            drop: per_second(report.drop),
            refused: per_second(report.refused),
            observed: per_second(report.observed),
        }
    }
}

/// Percentiles in microseconds; null before the first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of all packets were faster.
    pub p50: Option<f64>,
    /// 99 in 100 were.
    pub p99: Option<f64>,
    /// 999 in 1,000 were.
    pub p999: Option<f64>,
}

impl Latency {
    fn of(report: &StatsReport) -> Latency {
        let microseconds = |share| report.latency.percentile(share).map(|ns| ns as f64 / 1000.0);
        Latency {
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            p999: microseconds(0.999),
        }
    }
}

/// The table of sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Remembered now.
    pub tracked: u64,
    /// Forgotten because the table was full.
    #[serde(default)]
    pub evicted: u64,
}

/// Handshakes with this host, as far as conntrack tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeCounts {
    /// Completed.
    pub completed: u64,
    /// Times that completions were lost; conntrack is asked for them afterwards.
    pub lost: u64,
    /// Attempts whose fate nobody asked for, because there were too many.
    pub unasked: u64,
}

/// One verdict queue; null where the kernel does not let us read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// The queue's number.
    pub number: u16,
    /// Packets that wait for a verdict.
    pub waiting: Option<u64>,
    /// Packets lost because the queue was full.
    pub kernel_dropped: Option<u64>,
    /// Packets lost because our receive buffer was full.
    pub user_dropped: Option<u64>,
}

/// One of the busiest sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// The address or prefix.
    pub source: String,
    /// Distinct ports within the window.
    pub ports: u32,
    /// Since its last probe.
    pub idle_seconds: u64,
    /// Whether it is under a ban.
    pub banned: bool,
}

/// What was lost or went wrong; zero everywhere is the normal state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Receive buffer overflows.
    pub enobufs: u64,
    /// Netlink messages that could not be understood.
    pub parse_errors: u64,
    /// Verdicts that the kernel did not take.
    pub verdict_errors: u64,
    /// Facts that found the analyst's channel full.
    pub facts_dropped: u64,
    /// Counted probes and completed handshakes that the journal does not hold, but the next snapshot.
    pub activity_unsaved: u64,
    /// Refused packets that are missing in the log of corporate mode.
    pub refusals_lost: u64,
    /// Set changes that the kernel refused.
    pub enforcement_errors: u64,
    /// Offences beyond `max_bans_per_minute`.
    pub storm_refusals: u64,
    /// Packets that passed because their worker did not beat: it hung, or was starved of CPU.
    pub unjudged: u64,
}

impl Losses {
    fn of(report: &StatsReport) -> Losses {
        Losses {
            enobufs: report.enobufs,
            parse_errors: report.parse_errors,
            verdict_errors: report.verdict_errors,
            facts_dropped: report.facts_dropped,
            activity_unsaved: report.activity_unsaved,
            refusals_lost: report.refusals_lost,
            enforcement_errors: report.enforcement_errors,
            storm_refusals: report.storm_refusals,
            unjudged: report.unjudged,
        }
    }
}

fn to_places(value: f64, places: f64) -> f64 {
    (value * places).round() / places
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;
    use crate::core::verdict::{Class, Verdict};
    use crate::stats::Stats;

    #[test]
    fn stats_have_the_fields_of_the_contract() {
        let stats = Stats::new(2, Instant::now());
        stats.workers[0].count(Class::New, Verdict::Accept, Reason::Harmless);
        stats.workers[1].count(Class::Refused, Verdict::Drop, Reason::Counted);
        stats.workers[0].latency.record(16_000, 1);
        stats.workers[1].tracked.set(1);
        stats.workers[0].evidence(ScanKind::Null);
        let report = stats.snapshot(stats.started + Duration::from_secs(2));
        let mut view = StatsView::of(&report);
        view.queues.push(QueueView {
            number: 7000,
            ..QueueView::default()
        });
        let value = serde_json::to_value(view).unwrap();
        assert_eq!(value["verdicts"], json!({"accept": 1, "drop": 0}));
        assert_eq!(
            value["reasons"],
            json!({"trusted": 0, "banned": 0, "offence": 0, "counted": 1, "repeated": 0, "harmless": 1, "unparsed": 0, "unlogged": 0})
        );
        assert_eq!(
            (&value["kinds"]["NULL_SCAN"], &value["kinds"]["SYN_SCAN"]),
            (&json!(1), &json!(0))
        );
        assert_eq!(value["bans"], json!({"active": 0, "total": 0, "observed": 0}));
        assert_eq!(value["sources"]["tracked"], 1);
        assert_eq!(
            value["queues"],
            json!([{"number": 7000, "waiting": null, "kernel_dropped": null, "user_dropped": null}])
        );
        assert_eq!(
            value["verdict_latency_us"],
            json!({"p50": 16.127, "p99": 16.127, "p999": 16.127})
        );
        assert_eq!(
            (&value["protected"], &value["uptime_seconds"]),
            (&json!(false), &json!(2))
        );
        assert_eq!(value["rates"]["accept"], 0.5);
        assert!(value["mode"].is_string());
    }

    #[test]
    fn nothing_measured_is_null_and_not_zero() {
        let stats = Stats::new(1, Instant::now());
        let view = StatsView::of(&stats.snapshot(stats.started));
        assert_eq!(view.verdict_latency_us, Latency::default());
        assert_eq!(view.rates.accept, 0.0);
    }
}
