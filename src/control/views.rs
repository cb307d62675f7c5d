//! What replies hold: the engine's state in words and numbers that scripts read.
//!
//! Apart from [`super::wire`], which decides what may be asked. Field names are a contract.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::apply_view::ApplyView;
use super::metrics_view::{DroppedView, SecondsView, TierView, VerdictsByReason, bans_by_reason};
use super::monitor_view::MonitorView;
use super::upkeep_view::{RepairsView, WipeView};
use crate::core::attack::Attack;
use crate::core::scan::ScanKind;
use crate::core::verdict::{Ban, Reason};
use crate::state::survey::second;
use crate::stats::StatsReport;

/// How the engine is and what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// The engine's version.
    pub version: String,
    /// The engine's process.
    pub pid: u32,
    /// Since the engine started.
    pub uptime_seconds: u64,
    /// The configuration in force; none when built-in defaults run.
    pub config: Option<String>,
    /// SHA-256 of its text.
    pub config_sha256: String,
    /// The last `verdictctl apply`, as long as there is something to say about it.
    pub apply: Option<ApplyView>,
    /// The word of the mode.
    pub mode: String,
    /// The preset's name.
    pub preset: String,
    /// Whether offenders are banned, or only recorded.
    pub enforce: bool,
    /// Whether the host is protected now: what policy wants dropped is dropped.
    pub protected: bool,
    /// `open` or `closed`.
    pub on_loss: String,
    /// `nft queue`, `xt NFQUEUE` or `none (observing)`.
    pub backend: String,
    /// The table and its state, such as `inet verdictd: loaded, 41 rules`.
    pub table: String,
    /// The last time that somebody damaged the table; none: never since the start.
    pub last_wipe: Option<WipeView>,
    /// How many workers judge packets.
    pub workers: u32,
    /// Bound verdict queues, by number.
    pub queues: Vec<u16>,
    /// Bound log groups, by number.
    pub log_groups: Vec<u16>,
    /// Seed of the source hash.
    pub seed: u32,
    /// What is never banned, each with its reason.
    pub protected_sources: Vec<ProtectedSource>,
    /// Networks that are neither counted nor banned.
    pub trusted: Vec<String>,
    /// Enforced bans that are live now, and all since the start.
    pub bans: BanCounts,
    /// Ports on which many sources together attack, now.
    pub attacks: Vec<AttackView>,
    /// What the engine cannot know as it runs now, in words: empty unless it only watches copies.
    pub blind: Vec<String>,
    /// What holds the engine itself, and what does not and why.
    pub confinement: String,
    /// The audit log; none where nothing is written down.
    pub audit: Option<AuditView>,
    /// What is not as it should be, in words; empty when all is well.
    pub degraded: Vec<String>,
    /// The monitor; put there by `verdictctl`, none if there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorView>,
}

/// The audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditView {
    /// The file.
    pub path: String,
    /// The file that says how far it goes.
    pub head: String,
    /// Number of its last line.
    pub seq: u64,
    /// That line's hash.
    pub sha256: String,
    /// Records that were lost since the start.
    pub lost: u64,
    /// `continue` or `closed`.
    pub on_failure: String,
}

/// An address or network that is never banned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedSource {
    /// The address or prefix.
    pub source: String,
    /// Why it is protected.
    pub reason: String,
}

/// An attack of many sources on one TCP port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackView {
    /// The port.
    pub port: u16,
    /// Which attempts count: `incomplete`, `new_sources` or `all`.
    pub counting: String,
    /// Attempts that counted in the window.
    pub attempts: u32,
    /// How many are tolerated.
    pub threshold: u32,
    /// How many sources they came from.
    pub sources: u32,
    /// Since it began.
    pub seconds: u64,
}

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

/// How many bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCounts {
    /// Enforced and live now.
    pub active: u64,
    /// Enforced since the start.
    pub total: u64,
    /// Would-be bans that are live now: recorded, nothing is dropped.
    #[serde(default)]
    pub observed: u64,
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

/// One ban, as `list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanView {
    /// The banned address or prefix.
    pub source: String,
    /// The word of the reason.
    pub reason: String,
    /// Position on the ladder, from 1; 0 for an operator's own duration.
    pub step: u32,
    /// Offences that count toward the ladder.
    pub offences: u32,
    /// When it began: RFC 3339, UTC.
    pub since: String,
    /// When it ends; null for a ban without end.
    pub until: Option<String>,
    /// Time left, rounded up; null for a ban without end.
    pub remaining_seconds: Option<u64>,
    /// Whether the kernel drops the source.
    pub enforced: bool,
    /// The operator's words.
    #[serde(default)]
    pub note: Option<String>,
}

impl AttackView {
    /// `attack` as it is at `now`.
    pub fn of(attack: &Attack, now: Instant) -> AttackView {
        AttackView {
            port: attack.port,
            counting: attack.counting.word().to_owned(),
            attempts: attack.attempts,
            threshold: attack.threshold,
            sources: attack.distinct,
            seconds: now.saturating_duration_since(attack.began).as_secs(),
        }
    }
}

impl BanView {
    /// `ban` as seen at `now`, which `clock` calls by the wall clock's name.
    pub fn of(ban: &Ban, now: Instant, clock: SystemTime) -> BanView {
        BanView {
            source: ban.source.to_string(),
            reason: ban.reason.word().to_owned(),
            step: ban.step,
            offences: ban.offences,
            since: timestamp(wall(ban.since, now, clock)),
            until: ban.until.map(|until| timestamp(wall(until, now, clock))),
            remaining_seconds: ban.remaining(now).map(seconds_up),
            enforced: ban.enforced,
            note: ban.note.as_deref().map(str::to_owned),
        }
    }
}

/// A snapshot of the state that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// The file.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Live bans in it, would-be ones included.
    pub bans: u64,
    /// Ladder positions in it.
    pub ladder: u64,
    /// Half-done scans in it.
    pub sources: u64,
    /// How long it took, its way to the disk included.
    pub duration_ms: u64,
    /// What could not be had, one sentence each.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// RFC 3339 in UTC, whole seconds: `2026-03-01T12:00:00Z`.
pub fn timestamp(at: SystemTime) -> String {
    second(at.into())
}

fn wall(at: Instant, now: Instant, clock: SystemTime) -> SystemTime {
    let then = match at.checked_duration_since(now) {
        Some(ahead) => clock.checked_add(ahead),
        None => clock.checked_sub(now.saturating_duration_since(at)),
    };
    then.unwrap_or(clock)
}

/// Up, so that a live ban never shows zero seconds.
fn seconds_up(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn to_places(value: f64, places: f64) -> f64 {
    (value * places).round() / places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::prefix::Prefix;
    use crate::core::verdict::{BanReason, Class, Verdict};
    use crate::stats::Stats;

    fn ban(since: Instant, length: Option<Duration>) -> Ban {
        Ban {
            source: Prefix::host("203.0.113.9".parse().unwrap()),
            reason: BanReason::PortScanning,
            step: 2,
            offences: 2,
            since,
            until: length.map(|length| since + length),
            enforced: true,
            note: None,
        }
    }

    #[test]
    fn a_ban_has_the_fields_and_times_of_the_contract() {
        let since = Instant::now();
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        let now = since + Duration::from_millis(1500);
        let view = BanView::of(&ban(since, Some(Duration::from_secs(600))), now, clock);
        assert_eq!(
            serde_json::to_value(view).unwrap(),
            json!({
                "source": "203.0.113.9", "reason": "port_scanning", "step": 2, "offences": 2,
                "since": "2026-03-01T11:59:58Z", "until": "2026-03-01T12:09:58Z",
                "remaining_seconds": 599, "enforced": true, "note": null,
            })
        );
    }

    #[test]
    fn a_ban_without_end_has_null_times() {
        let now = Instant::now();
        let view = BanView::of(&ban(now, None), now, SystemTime::now());
        assert_eq!((view.until, view.remaining_seconds), (None, None));
    }

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
