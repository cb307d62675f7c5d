//! Every metric there is: name, kind, labels, help. The one place for it; docs/metrics.md, the dashboard and the alerts
//! are tested against it.
//!
//! Names are a contract. Base units; what only grows ends in `_total`; no label holds an address or anything else that a
//! stranger chooses.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Grows, and starts from zero with the engine.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
}

impl Kind {
    /// The word of the format.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric with all its label values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// With the prefix.
    pub(super) name: &'static str,
    /// What kind of number.
    pub(super) kind: Kind,
    /// Names of its labels, in the order in which values are given.
    pub(super) labels: &'static [&'static str],
    /// One sentence without full stop.
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(#[doc = $help] pub(super) const $constant: Family = Family {
            name: concat!("verdictd_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them, to hold the documents to.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    UP Gauge "up" [] "Whether the engine answers";
    BUILD_INFO Gauge "build_info" ["version"] "1, labelled with the engine's version";
    MODE_INFO Gauge "mode_info" ["mode" "preset" "on_loss" "backend"] "1, labelled with what is in force";
    UPTIME Gauge "uptime_seconds" [] "Time since the engine started";
    PROTECTED Gauge "protected" [] "Whether what policy wants dropped is dropped now";
    ENFORCE Gauge "enforce" [] "Whether offenders are banned (1) or only recorded (0)";
    DEGRADED Gauge "degraded" ["reason"] "Things that are not as they should be, by what they are about";
    WORKERS Gauge "workers" [] "Threads that judge packets";

    VERDICTS Counter "verdicts_total" ["verdict" "reason"] "Answers to held packets";
    PACKETS Counter "packets_total" ["class"] "Packets that reached the engine, by how they came";
    JUDGED Counter "judged_packets_total" ["reason"] "Packets by what was made of them, copies included";
    EVIDENCE Counter "evidence_packets_total" ["kind"] "Packets that are evidence, by what they look like";
    SECONDS Histogram "verdict_seconds" [] "From reception of a batch to the verdict on its packets";
    DROPPED Counter "dropped_packets_total" ["set"] "Packets of banned sources that the kernel dropped, by set of bans";
    REFUSED Counter "refused_packets_total" [] "Packets to refused ports and protocols that the kernel dropped";
    UNJUDGED Counter "unjudged_packets_total" [] "Packets that passed because their worker did not beat";

    ACTIVE_BANS Gauge "active_bans" ["family" "tier"] "Enforced bans that are live, by step of the ladder (0: an operator's own length)";
    WOULD_BE_BANS Gauge "would_be_bans" [] "Bans that are only recorded (bans.enforce = false)";
    BANS Counter "bans_total" ["reason"] "Enforced bans that were granted";
    STORM_REFUSALS Counter "storm_refusals_total" [] "Offences beyond max_bans_per_minute";
    ATTACKS Gauge "attacks_under_way" [] "Ports under attack of many sources";
    PROTECTED_SOURCES Gauge "protected_sources" [] "Addresses and networks that are never banned";

    QUEUE_DEPTH Gauge "queue_depth" ["queue"] "Packets that wait for a verdict";
    QUEUE_DROPPED Counter "queue_dropped_total" ["queue" "kind"] "Packets lost because the queue (kernel) or our receive buffer (user) was full";
    ENOBUFS Counter "netlink_enobufs_total" [] "Overflows of a receive buffer: packets were lost unseen";
    LOSSES Counter "losses_total" ["what"] "What could not be read, told, counted or saved in time";

    TRACKED Gauge "tracked_sources" [] "Sources in the table";
    EVICTIONS Counter "evictions_total" [] "Sources forgotten because the table was full";
    HANDSHAKES Counter "handshakes_completed_total" [] "Handshakes with this host that strangers completed";

    RECONCILE Counter "reconcile_total" ["result"] "Differences between the kernel's copy of rules and bans and the ledger, by what was found";
    GAP Counter "enforcement_gap_seconds_total" [] "Time in which rules or bans that should have been in force were not";
    ENFORCEMENT_ERRORS Counter "enforcement_errors_total" [] "Set changes that the kernel refused";

    DELIVERIES Counter "webhook_deliveries_total" ["endpoint" "result"] "Requests to webhook endpoints";
    EVENTS Counter "webhook_events_total" ["endpoint" "result"] "Events that an endpoint took, or never got";
    WAITING Gauge "webhook_waiting_events" ["endpoint"] "Events on disk that wait for an endpoint";
    DEAD Gauge "webhook_dead_letters" ["endpoint"] "Events that an endpoint refused, or that grew too old";
    CIRCUIT Gauge "webhook_circuit_closed" ["endpoint"] "Whether requests are made at all: 0 while an endpoint is given a rest";
    SPOOL Gauge "webhook_spool_bytes" [] "Events on disk that wait";
    UNSPOOLED Counter "webhook_unspooled_total" [] "Events that were never written to disk";

    STATE_FILES Gauge "state_file_bytes" ["kind"] "Files of the state: snapshot, previous, journal and what else lies there";
    SNAPSHOT_AT Gauge "last_snapshot_timestamp_seconds" [] "When the state was last saved, in seconds since 1970";
    SNAPSHOT_TIME Gauge "last_snapshot_duration_seconds" [] "How long that took, its way to the disk included";
    GENERATION Gauge "state_generation" [] "Number of the snapshot; grows with each";
    LADDER Gauge "ladder_positions" [] "Sources whose offences are remembered";
    BASELINE Gauge "baseline_ports" [] "Ports of which is known what is usual";
    AUDIT_LINES Gauge "audit_log_lines" [] "Number of the audit log's last line";
    AUDIT_LOST Counter "audit_lost_total" [] "Records that the audit log lost";

    MONITOR_UP Gauge "monitor_up" [] "Whether the monitor runs";
    MONITOR_AT Gauge "monitor_last_look_timestamp_seconds" [] "When the monitor last looked, in seconds since 1970";
    MONITOR_FINDINGS Gauge "monitor_findings" [] "What the monitor found wrong then";
    MONITOR_RESTARTS Counter "monitor_restarts_total" [] "Times that the monitor started the engine again";
    SELFTEST Gauge "selftest_passed" [] "Whether the last self-test passed";
    SELFTEST_AT Gauge "selftest_timestamp_seconds" [] "When the last self-test was, in seconds since 1970";
    SEALED Gauge "integrity_sealed" [] "Whether there is a manifest to compare files with";
    VIOLATIONS Gauge "integrity_violations" [] "Files and lines of the audit log that are not what they were";

    SCRAPE_SUCCESS Gauge "scrape_success" ["part"] "Whether this part of the answer could be had";
    SCRAPE_SECONDS Gauge "scrape_duration_seconds" [] "How long asking for all this took";
    EXPORTER_INFO Gauge "exporter_build_info" ["version"] "1, labelled with the exporter's version";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn page() -> String {
        file("docs/metrics.md")
    }

    fn file(path: &str) -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(root.join(path)).unwrap()
    }

    fn row(family: &Family) -> String {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = match labels.is_empty() {
            true => "–".to_owned(),
            false => labels.join(" "),
        };
        let Family { name, kind, help, .. } = family;
        format!("| `{name}` | {} | {labels} | {help} |", kind.word())
    }

    #[test]
    fn the_page_lists_every_metric_as_it_is() {
        let page = page();
        let told: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `verdictd_"))
            .collect();
        assert_eq!(told, ALL.iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let names: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let total = family.name.ends_with("_total");
            assert_eq!(total, family.kind == Kind::Counter, "{}", family.name);
            assert!(!family.help.ends_with('.'), "{}", family.help);
            // An age is old when it is read: what is told is the moment, and the reader takes it from time().
            assert!(!family.name.contains("_age"), "{}", family.name);
        }
    }

    /// What a text names after the prefix: metrics, some with the endings of a histogram's series.
    fn named(text: &str) -> BTreeSet<&str> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.match_indices("verdictd_")
            .map(|(at, _)| {
                let rest = &text[at..];
                &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())]
            })
            .collect()
    }

    #[test]
    fn dashboard_and_alerts_name_metrics_that_exist() {
        let dashboard = file("packaging/grafana/verdictd.json");
        let alerts = file("packaging/prometheus/verdictd.rules.yml");
        for text in [dashboard, alerts, page()] {
            let named = named(&text);
            assert!(named.len() > 10, "{named:?}");
            for name in named {
                let known = |family: &&Family| {
                    let series = name.strip_prefix(family.name);
                    let histogram = family.kind == Kind::Histogram;
                    series.is_some_and(|end| {
                        end.is_empty() || histogram && ["_bucket", "_sum", "_count"].contains(&end)
                    })
                };
                assert!(ALL.iter().any(|family| known(&family)), "{name} does not exist");
            }
        }
    }
}
