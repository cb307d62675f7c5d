//! From a look to samples. What the engine does not say is left out: an absent series is honest, an old or made-up
//! number is not.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::collect::{InForce, Look};
use super::families as f;
use super::page::Page;
use crate::control::monitor_view::MonitorView;
use crate::control::wire::{StateView, StatsView, WebhookView};

/// Everything that `look` tells.
pub(super) fn page(look: &Look) -> Page {
    let mut page = Page::default();
    page.put(f::UP, &[], look.stats.is_some());
    page.put(f::EXPORTER_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    page.put(f::SCRAPE_SECONDS, &[], look.took.as_secs_f64());
    for (part, there) in [
        ("stats", look.stats.is_some()),
        ("status", look.status.is_some()),
        ("state", look.state.is_some()),
        ("webhooks", look.webhooks.is_some()),
    ] {
        page.put(f::SCRAPE_SUCCESS, &[part], there);
    }
    if let Some(stats) = &look.stats {
        packets(&mut page, stats);
        bans(&mut page, stats);
        queues_and_losses(&mut page, stats);
        upkeep(&mut page, stats);
    }
    if let Some(status) = &look.status {
        in_force(&mut page, status);
    }
    if let Some(state) = &look.state {
        saved(&mut page, state);
    }
    if let Some(webhooks) = &look.webhooks {
        sent(&mut page, webhooks);
    }
    if let Some(monitor) = &look.monitor {
        watched(&mut page, monitor);
    }
    page
}

fn packets(page: &mut Page, stats: &StatsView) {
    let verdicts = &stats.verdicts_by_reason;
    for (verdict, reasons) in [("accept", &verdicts.accept), ("drop", &verdicts.drop)] {
        for (reason, count) in reasons {
            page.put(f::VERDICTS, &[verdict, reason], *count);
        }
    }
    for (class, count) in [
        ("new", stats.held.new),
        ("odd", stats.held.odd),
        ("refused", stats.copies.refused),
        ("observed", stats.copies.observed),
    ] {
        page.put(f::PACKETS, &[class], count);
    }
    by_word(page, f::JUDGED, &stats.reasons);
    by_word(page, f::EVIDENCE, &stats.kinds);
    let seconds = &stats.verdict_seconds;
    // An engine that is older than this exporter tells none.
    if !seconds.buckets.is_empty() {
        let buckets = seconds.buckets.iter().map(|bucket| (bucket.le, bucket.count));
        page.histogram(f::SECONDS, buckets, seconds.sum, seconds.count);
    }
    if let Some(dropped) = &stats.dropped_packets {
        by_word(page, f::DROPPED, &dropped.by_set);
        page.put_known(f::REFUSED, &[], dropped.refused);
    }
    page.put(f::UNJUDGED, &[], stats.losses.unjudged);
}

fn bans(page: &mut Page, stats: &StatsView) {
    // The first steps are always there, for sums and alerts.
    let mut tiers: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    tiers.extend(
        ["ipv4", "ipv6"]
            .into_iter()
            .flat_map(|family| [0, 1].map(|step| ((family, step), 0))),
    );
    tiers.extend(
        stats
            .bans_by_step
            .iter()
            .map(|tier| ((tier.family.as_str(), tier.step), tier.bans)),
    );
    for ((family, step), count) in tiers {
        page.put(f::ACTIVE_BANS, &[family, &step.to_string()], count);
    }
    page.put(f::WOULD_BE_BANS, &[], stats.bans.observed);
    by_word(page, f::BANS, &stats.bans_by_reason);
    page.put(f::STORM_REFUSALS, &[], stats.losses.storm_refusals);
    page.put(f::TRACKED, &[], stats.sources.tracked);
    page.put(f::EVICTIONS, &[], stats.sources.evicted);
    page.put(f::HANDSHAKES, &[], stats.handshakes.completed);
}

fn queues_and_losses(page: &mut Page, stats: &StatsView) {
    for queue in &stats.queues {
        let number = queue.number.to_string();
        page.put_known(f::QUEUE_DEPTH, &[&number], queue.waiting);
        page.put_known(f::QUEUE_DROPPED, &[&number, "kernel"], queue.kernel_dropped);
        page.put_known(f::QUEUE_DROPPED, &[&number, "user"], queue.user_dropped);
    }
    let losses = &stats.losses;
    page.put(f::ENOBUFS, &[], losses.enobufs);
    for (what, count) in [
        ("messages", losses.parse_errors),
        ("verdicts", losses.verdict_errors),
        ("facts", losses.facts_dropped),
        ("activity", losses.activity_unsaved),
        ("refusal_lines", losses.refusals_lost),
        ("handshakes", stats.handshakes.lost),
        ("attempts", stats.handshakes.unasked),
    ] {
        page.put(f::LOSSES, &[what], count);
    }
}

fn upkeep(page: &mut Page, stats: &StatsView) {
    page.put(f::PROTECTED, &[], stats.protected);
    page.put(f::ENFORCE, &[], stats.enforce);
    page.put(f::UPTIME, &[], stats.uptime_seconds);
    by_word(page, f::DEGRADED, &stats.degraded_by);
    let repairs = &stats.repairs;
    for (result, count) in [
        ("wiped", repairs.wipes),
        ("missing", repairs.missing),
        ("foreign", repairs.foreign),
        ("mistimed", repairs.mistimed),
        ("deleted", repairs.deleted),
    ] {
        page.put(f::RECONCILE, &[result], count);
    }
    page.put(f::GAP, &[], stats.enforcement_gap_seconds);
    page.put(f::ENFORCEMENT_ERRORS, &[], stats.losses.enforcement_errors);
}

fn in_force(page: &mut Page, status: &InForce) {
    page.put(f::BUILD_INFO, &[&status.version], 1);
    let labels = [&status.mode, &status.preset, &status.on_loss, &status.backend];
    page.put(f::MODE_INFO, &labels.map(String::as_str), 1);
    page.put(f::WORKERS, &[], u64::from(status.workers));
    page.put(f::ATTACKS, &[], status.attacks.0);
    page.put(f::PROTECTED_SOURCES, &[], status.protected_sources.0);
    if let Some(audit) = &status.audit {
        page.put(f::AUDIT_LINES, &[], audit.seq);
        page.put(f::AUDIT_LOST, &[], audit.lost);
    }
}

fn saved(page: &mut Page, state: &StateView) {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    bytes.extend(["snapshot", "journal"].map(|kind| (kind.to_owned(), 0)));
    for file in &state.files {
        *bytes.entry(file.kind.label().to_owned()).or_default() += file.bytes;
    }
    by_word(page, f::STATE_FILES, &bytes);
    let last = state.last_snapshot.as_ref();
    let at = last.map(|last| &last.at).or(state.saved_at.as_ref());
    page.put_known(f::SNAPSHOT_AT, &[], at.and_then(|at| moment(at)));
    page.put_known(
        f::SNAPSHOT_TIME,
        &[],
        last.map(|last| last.duration_ms as f64 / 1000.0),
    );
    page.put_known(f::GENERATION, &[], state.generation);
    page.put(f::LADDER, &[], state.counts.ladder);
    page.put(f::BASELINE, &[], state.counts.baseline_ports);
}

/// The name of an endpoint is the operator's word for it; its address is not told.
fn sent(page: &mut Page, webhooks: &WebhookView) {
    for endpoint in &webhooks.endpoints {
        let name = endpoint.name.as_str();
        let went_well = endpoint.attempts.saturating_sub(endpoint.failed);
        page.put(f::DELIVERIES, &[name, "ok"], went_well);
        page.put(f::DELIVERIES, &[name, "failed"], endpoint.failed);
        page.put(f::EVENTS, &[name, "delivered"], endpoint.delivered);
        page.put(f::EVENTS, &[name, "dropped"], endpoint.dropped);
        page.put(f::WAITING, &[name], endpoint.waiting);
        page.put(f::DEAD, &[name], endpoint.dead_letters);
        page.put(f::CIRCUIT, &[name], endpoint.circuit == "closed");
    }
    page.put(f::SPOOL, &[], webhooks.spool_bytes);
    page.put(f::UNSPOOLED, &[], webhooks.dropped);
}

fn watched(page: &mut Page, monitor: &MonitorView) {
    page.put(f::MONITOR_UP, &[], monitor.running);
    page.put_known(f::MONITOR_AT, &[], monitor.last_check.as_deref().and_then(moment));
    page.put(f::MONITOR_FINDINGS, &[], monitor.findings.len() as u64);
    page.put(f::MONITOR_RESTARTS, &[], monitor.restarts);
    page.put_known(f::SELFTEST, &[], monitor.selftest.passed);
    page.put_known(
        f::SELFTEST_AT,
        &[],
        monitor.selftest.last.as_deref().and_then(moment),
    );
    let integrity = &monitor.integrity;
    let violations = integrity.violations.len() + integrity.audit.len();
    page.put(f::SEALED, &[], integrity.sealed);
    page.put(f::VIOLATIONS, &[], violations as u64);
    // As `status` has it.
    page.put(f::DEGRADED, &["integrity"], violations as u64);
    page.put(f::DEGRADED, &["selftest"], monitor.selftest.passed == Some(false));
}

fn by_word(page: &mut Page, family: f::Family, counts: &BTreeMap<String, u64>) {
    for (word, count) in counts {
        page.put(family, &[word], *count);
    }
}

/// `at` (RFC 3339) in seconds since 1970; none if that cannot be read.
fn moment(at: &str) -> Option<f64> {
    let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
    Some(at.unix_timestamp_nanos() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::metrics_view::{BucketView, DroppedView, TierView};
    use crate::control::wire::{AuditView, LastSnapshot, QueueView, WebhookEndpointView};
    use crate::stats::Stats;

    fn monitor() -> MonitorView {
        let mut monitor = MonitorView {
            running: true,
            last_check: Some("2026-03-01T12:00:00Z".into()),
            ..MonitorView::default()
        };
        monitor.selftest.passed = Some(false);
        monitor.selftest.last = Some("2999-01-01T00:00:00Z".into());
        monitor.integrity.audit.push("line 7".into());
        monitor
    }

    fn full() -> Look {
        let stats = Stats::new(1, std::time::Instant::now());
        let mut view = StatsView::of(&stats.snapshot(stats.started));
        view.queues = vec![QueueView {
            number: 4100,
            waiting: Some(2),
            kernel_dropped: Some(0),
            user_dropped: None,
        }];
        view.dropped_packets = Some(DroppedView {
            by_set: [("banned4".to_owned(), 7)].into(),
            refused: Some(3),
        });
        view.degraded_by = [("table".to_owned(), 1)].into();
        view.bans_by_step = vec![TierView {
            family: "ipv6".into(),
            step: 4,
            bans: 9,
        }];
        Look {
            stats: Some(view),
            status: Some(InForce {
                version: "9.9".into(),
                audit: Some(AuditView::default()),
                ..InForce::default()
            }),
            state: Some(StateView {
                generation: Some(3),
                saved_at: Some("2026-03-01T11:00:00Z".into()),
                last_snapshot: Some(LastSnapshot {
                    at: "2026-03-01T11:59:00Z".into(),
                    bytes: 1,
                    duration_ms: 250,
                }),
                ..StateView::default()
            }),
            webhooks: Some(WebhookView {
                endpoints: vec![WebhookEndpointView {
                    name: "SOC".into(),
                    url: "https://soc.example.com/…".into(),
                    attempts: 5,
                    failed: 2,
                    circuit: "open".into(),
                    ..WebhookEndpointView::default()
                }],
                ..WebhookView::default()
            }),
            monitor: Some(monitor()),
            took: Duration::from_millis(12),
        }
    }

    fn told(look: &Look) -> String {
        page(look).text()
    }

    #[test]
    fn every_metric_is_told_by_an_engine_that_has_everything() {
        let text = told(&full());
        for family in f::ALL {
            let head = format!("# TYPE {} {}\n", family.name, family.kind.word());
            assert!(text.contains(&head), "{} is never told", family.name);
        }
        for line in [
            "verdictd_active_bans{family=\"ipv4\",tier=\"1\"} 0",
            "verdictd_active_bans{family=\"ipv6\",tier=\"4\"} 9",
            "verdictd_degraded{reason=\"table\"} 1",
            "verdictd_degraded{reason=\"integrity\"} 1",
            "verdictd_degraded{reason=\"selftest\"} 1",
            "verdictd_dropped_packets_total{set=\"banned4\"} 7",
            "verdictd_last_snapshot_timestamp_seconds 1772366340",
            "verdictd_last_snapshot_duration_seconds 0.25",
            "verdictd_monitor_last_look_timestamp_seconds 1772366400",
            "verdictd_selftest_timestamp_seconds 32472144000",
            "verdictd_webhook_deliveries_total{endpoint=\"SOC\",result=\"ok\"} 3",
            "verdictd_webhook_circuit_closed{endpoint=\"SOC\"} 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("soc.example.com"));
        assert!(!text.contains("kind=\"user\""), "nobody knows it");
    }

    #[test]
    fn without_an_engine_its_numbers_are_missing_and_the_monitor_s_are_there() {
        let look = Look {
            monitor: Some(monitor()),
            ..Look::default()
        };
        let text = told(&look);
        assert!(text.contains("\nverdictd_up 0\n"), "{text}");
        assert!(text.contains("\nverdictd_integrity_violations 1\n"));
        for gone in ["verdictd_protected", "verdictd_verdicts", "verdictd_active_bans"] {
            assert!(!text.contains(gone), "{gone}");
        }
    }

    #[test]
    fn an_engine_that_is_older_leaves_out_what_it_does_not_know() {
        let mut look = full();
        let stats = look.stats.as_mut().unwrap();
        stats.verdict_seconds.buckets = Vec::<BucketView>::new();
        stats.dropped_packets = None;
        let text = told(&look);
        assert!(!text.contains("verdictd_verdict_seconds"));
        assert!(!text.contains("verdictd_dropped_packets_total"));
    }
}
