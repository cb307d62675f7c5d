//! The scan report: now and then, and at the end, what came since the last one, in a few lines. Nothing came, no line.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tracing::info;

use super::analyst::Command;
use super::handler::Shared;
use super::worker::{Handle, Order};
use crate::config::duration_text;
use crate::core::judge::SourceView;
use crate::core::prefix::Prefix;
use crate::core::scan::ScanKind;
use crate::core::verdict::BanReason;
use crate::notify::log::SAID;
use crate::notify::text::grouped;
use crate::stats::{Stats, StatsReport};

/// The thread that reports.
pub struct Reporter {
    wake: Sender<Wake>,
    thread: JoinHandle<()>,
}

enum Wake {
    /// The configuration may have changed.
    Look,
    Stop,
}

impl Reporter {
    /// Reports what `stats`, `workers` and the analyst know as often as the running configuration says.
    pub fn start(
        running: Shared,
        stats: Arc<Stats>,
        workers: Box<[Handle]>,
        analyst: Sender<Command>,
    ) -> io::Result<Reporter> {
        let (wake, woken) = unbounded();
        let asked = Asked {
            stats,
            workers,
            analyst,
        };
        let thread = thread::Builder::new()
            .name("reporter".into())
            .spawn(move || follow(&running, &asked, &woken))?;
        Ok(Reporter { wake, thread })
    }

    /// The configuration may have changed.
    pub fn look(&self) {
        // A reporter that is gone reports nothing: no reason to stop protecting.
        let _ = self.wake.send(Wake::Look);
    }

    /// The last report. Workers and analyst must still run: they are asked for the sources.
    pub fn stop(self) {
        let _ = self.wake.send(Wake::Stop);
        let _ = self.thread.join();
    }
}

/// Who knows what is reported.
struct Asked {
    stats: Arc<Stats>,
    workers: Box<[Handle]>,
    analyst: Sender<Command>,
}

fn follow(running: &Shared, asked: &Asked, woken: &Receiver<Wake>) {
    let stats = &asked.stats;
    // Counters begin at zero: what came before this thread ran belongs to the first report too.
    let mut last = StatsReport::default();
    let mut last_at = stats.started;
    loop {
        let every = running.get().config.engine.report_every;
        let wake = match every.is_zero() {
            true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => woken.recv_deadline(last_at + every),
        };
        let stops = match wake {
            Ok(Wake::Look) => continue,
            Err(RecvTimeoutError::Timeout) => false,
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => true,
        };
        if every.is_zero() {
            return;
        }
        let now = Instant::now();
        let all = stats.snapshot(now);
        let since = Since {
            span: now - last_at,
            before: &last,
            now: &all,
        };
        if since.anything() {
            since.tell(
                &busiest(&asked.workers, TOP, PATIENCE),
                &asked.banned_since(last_at),
            );
        }
        if stops {
            return;
        }
        (last, last_at) = (all, now);
    }
}

impl Asked {
    fn banned_since(&self, since: Instant) -> Vec<(Prefix, BanReason)> {
        let (to, banned) = bounded(1);
        let count = TOP;
        let _ = self.analyst.send(Command::BannedSince { since, count, to });
        banned.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

/// What happened between two snapshots.
struct Since<'a> {
    span: Duration,
    before: &'a StatsReport,
    now: &'a StatsReport,
}

impl Since<'_> {
    fn anything(&self) -> bool {
        self.probes() > 0 || self.bans() > 0
    }

    fn tell(&self, top: &[SourceView], banned: &[(Prefix, BanReason)]) {
        let (probes, bans) = (self.probes(), self.bans());
        let dropped = self.dropped();
        let active = self.now.bans_active;
        info!(target: SAID, event = "report", seconds = self.span.as_secs(), probes, dropped, bans, bans_active = active,
            bans_observed = self.now.bans_observed, "{}", self.head());
        if probes > 0 {
            info!(target: SAID, event = "report_kinds", "report: kinds: {}", self.kinds());
        }
        if !banned.is_empty() {
            let more = (bans as usize).saturating_sub(banned.len());
            let sources: Vec<String> = banned
                .iter()
                .map(|(source, why)| format!("{source} ({why})"))
                .collect();
            let more = if more > 0 {
                format!(" … and {} more", grouped(more as u64))
            } else {
                String::new()
            };
            info!(target: SAID, event = "report_bans", "report: banned: {}{more}", sources.join(", "));
        }
        // Without those above: a ban empties the window of its source.
        if !top.is_empty() {
            let sources: Vec<String> = top.iter().map(source).collect();
            info!(target: SAID, event = "report_sources", "report: most ports: {}", sources.join(", "));
        }
    }

    fn head(&self) -> String {
        let mut text = format!(
            "report of {}: {} probes; {} packets dropped on judgement; new bans {}, in force {}",
            rounded(self.span),
            grouped(self.probes()),
            grouped(self.dropped()),
            grouped(self.bans()),
            grouped(self.now.bans_active),
        );
        if self.now.bans_observed > 0 {
            text += &format!(
                "; would-be bans {} (nothing is dropped for them)",
                grouped(self.now.bans_observed)
            );
        }
        text
    }

    fn probes(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }

    fn bans(&self) -> u64 {
        self.now.bans_total.saturating_sub(self.before.bans_total)
    }

    fn dropped(&self) -> u64 {
        self.now.drop.saturating_sub(self.before.drop)
    }

    /// The most frequent first.
    fn kinds(&self) -> String {
        let mut seen: Vec<_> = self.counts().filter(|(_, count)| *count > 0).collect();
        seen.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
        let words: Vec<String> = seen
            .into_iter()
            .map(|(kind, count)| format!("{kind} {}", grouped(count)))
            .collect();
        words.join(", ")
    }

    fn counts(&self) -> impl Iterator<Item = (ScanKind, u64)> {
        let counts = self.now.kinds.iter().zip(&self.before.kinds);
        ScanKind::ALL
            .into_iter()
            .zip(counts.map(|(now, before)| now.saturating_sub(*before)))
    }
}

fn source(view: &SourceView) -> String {
    let banned = if view.banned { ", banned" } else { "" };
    format!("{} ({}{banned})", view.source, view.ports)
}

/// To the minute, where seconds say nothing.
fn rounded(span: Duration) -> String {
    let seconds = span.as_secs();
    let shown = if seconds < 120 { seconds } else { seconds / 60 * 60 };
    duration_text(Duration::from_secs(shown))
}

/// The sources with the most ports of all workers, most first; those of workers that do not answer within
/// `patience` are missing.
pub fn busiest(workers: &[Handle], count: usize, patience: Duration) -> Vec<SourceView> {
    if count == 0 {
        return Vec::new();
    }
    let (to, views) = bounded(workers.len());
    for worker in workers {
        worker.order(Order::Top(count, to.clone()));
    }
    drop(to);
    let until = Instant::now() + patience;
    let mut all: Vec<SourceView> = Vec::new();
    while let Ok(views) = views.recv_deadline(until) {
        all.extend(views);
    }
    all.sort_by(|a, b| b.ports.cmp(&a.ports).then(a.source.cmp(&b.source)));
    all.truncate(count);
    all
}

/// Sources that are named.
const TOP: usize = 5;
/// A worker answers between two batches.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::prefix::Prefix;

    fn report(syn: u64, null: u64, bans: u64) -> StatsReport {
        let mut report = StatsReport {
            bans_total: bans,
            bans_active: bans,
            drop: bans,
            ..StatsReport::default()
        };
        report.kinds[ScanKind::Syn as usize] = syn;
        report.kinds[ScanKind::Null as usize] = null;
        report
    }

    #[test]
    fn only_what_is_new_is_told() {
        let (before, now) = (report(1000, 7, 3), report(13_345, 7, 4));
        let since = Since {
            span: Duration::from_secs(3607),
            before: &before,
            now: &now,
        };
        assert!(since.anything());
        assert_eq!(
            since.head(),
            "report of 1h: 12,345 probes; 1 packets dropped on judgement; new bans 1, in force 4"
        );
        assert_eq!(since.kinds(), "SYN_SCAN 12,345");
        let nothing = Since {
            before: &now,
            ..since
        };
        assert!(!nothing.anything());
    }

    #[test]
    fn kinds_come_most_frequent_first_and_sources_with_their_ports() {
        let (before, now) = (report(0, 0, 0), report(5, 9, 0));
        let since = Since {
            span: Duration::from_secs(59),
            before: &before,
            now: &now,
        };
        assert_eq!(since.kinds(), "NULL_SCAN 9, SYN_SCAN 5");
        assert!(since.head().starts_with("report of 59s: 14 probes"));
        let view = SourceView {
            source: Prefix::host([203, 0, 113, 9].into()),
            ports: 8,
            last_seen: Instant::now(),
            banned: true,
        };
        assert_eq!(source(&view), "203.0.113.9 (8, banned)");
    }
}
