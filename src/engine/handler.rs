//! Answers to `verdictctl`: reads counters and kernel tables itself, asks the analyst for what the ledger knows.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use tracing::info;

use super::analyst::Command;
use super::enforcer::Expected;
use super::keeper::{Errand, Health};
use super::worker::{Handle, Order};
use crate::control::server::{Handler, Peer};
use crate::control::wire::{
    BanCounts, MAX_TOP, ProtectedSource, QueueView, Reply, Request, SourceRow, StatsView, StatusReport,
};
use crate::core::judge::SourceView;
use crate::core::policy::{OnLoss, Policy};
use crate::core::prefix::Prefix;
use crate::kernel::netlink::Netlink;
use crate::kernel::queue::queue_counters;
use crate::kernel::ruleset::{self, Backend, Layout};
use crate::stats::Stats;

/// Everything an answer may need.
pub struct EngineHandler {
    /// Where the configuration came from.
    pub config: PathBuf,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// What happens to allowed ports while nobody answers.
    pub on_loss: OnLoss,
    /// How the kernel hands packets over; none: nothing is held.
    pub backend: Option<Backend>,
    /// The numbers in use.
    pub layout: Layout,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The analyst.
    pub commands: Sender<Command>,
    /// The workers.
    pub workers: Box<[Handle]>,
    /// What the table should be.
    pub expected: Expected,
    /// A socket for reading the table.
    pub netlink: Mutex<Netlink>,
    /// The snapshot thread.
    pub keeper: Sender<Errand>,
    /// What is wrong with the state.
    pub health: Arc<Health>,
}

impl Handler for EngineHandler {
    fn handle(&self, request: Request, peer: Peer) -> Reply {
        match request {
            Request::Status {} => self.status(),
            Request::Stats { top } => self.stats(top.min(MAX_TOP)),
            Request::List {} => self.ask(|to| Command::List { to }),
            Request::Ban {
                target,
                duration_seconds,
                reason,
            } => {
                let length = duration_seconds.map(Duration::from_secs);
                self.for_target(&target, |target| {
                    info!("uid {} (pid {}) bans {target}", peer.uid, peer.pid);
                    let note = reason.map(String::into_boxed_str);
                    self.ask(|to| Command::Ban {
                        target,
                        length,
                        note,
                        to,
                    })
                })
            }
            Request::Unban { target } => self.for_target(&target, |target| {
                info!("uid {} (pid {}) unbans {target}", peer.uid, peer.pid);
                self.ask(|to| Command::Unban { target, to })
            }),
            Request::Snapshot {} => self.snapshot(),
        }
    }
}

impl EngineHandler {
    /// A plain address means its source (an IPv6 address its prefix); one with a length means just that.
    fn for_target(&self, text: &str, act: impl FnOnce(Prefix) -> Reply) -> Reply {
        match Prefix::parse(text) {
            Err(error) => Reply::refused(error),
            Ok((_, true)) => Reply::refused(format!(
                "{text} has bits beyond its prefix length; write the network's own address, or the address alone"
            )),
            Ok((prefix, false)) if text.contains('/') => act(prefix),
            Ok((prefix, false)) => act(self.policy.source_of(prefix.addr())),
        }
    }

    fn ask(&self, command: impl FnOnce(Sender<Reply>) -> Command) -> Reply {
        let (to, reply) = bounded(1);
        if self.commands.send(command(to)).is_err() {
            return Reply::refused("the engine is stopping");
        }
        reply.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            Reply::refused(format!(
                "no answer within {} s, whether it was done is unknown: see verdictctl list",
                PATIENCE.as_secs()
            ))
        })
    }

    fn snapshot(&self) -> Reply {
        let (to, reply) = bounded(1);
        if self
            .keeper
            .send_timeout(Errand::Snapshot { to }, PATIENCE)
            .is_err()
        {
            return Reply::refused("the snapshot thread does not answer");
        }
        reply.recv_timeout(SAVING).unwrap_or_else(|_| {
            Reply::refused(format!(
                "the snapshot is not on the disk after {} s, it may come later: see verdictctl status",
                SAVING.as_secs()
            ))
        })
    }

    fn status(&self) -> Reply {
        let (to, protection) = bounded(1);
        let protection = match self.commands.send(Command::Protected { to }) {
            Ok(()) => protection.recv_timeout(PATIENCE).ok(),
            Err(_) => None,
        };
        let table = self.table();
        let counts = self.stats.snapshot(Instant::now());
        let mut report = StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: counts.uptime.as_secs(),
            config: Some(self.config.display().to_string()),
            mode: self.policy.mode.word().to_owned(),
            preset: self.policy.preset.to_string(),
            enforce: self.policy.enforce,
            protected: table.protected,
            on_loss: on_loss(self.on_loss).to_owned(),
            backend: self
                .backend
                .map_or_else(|| "none (observing)".to_owned(), |backend| backend.to_string()),
            table: table.words,
            workers: u32::from(self.layout.workers),
            queues: self.queues(),
            log_groups: (0..self.layout.workers)
                .map(|worker| self.layout.log_group(worker))
                .collect(),
            seed: self.layout.seed,
            trusted: self
                .policy
                .trusted
                .iter()
                .map(|prefix| prefix.to_string())
                .collect(),
            bans: BanCounts {
                active: counts.bans_active,
                total: counts.bans_total,
                observed: counts.bans_observed,
            },
            degraded: table.degraded,
            ..StatusReport::default()
        };
        report.degraded.extend(self.health.degraded());
        match protection {
            Some(protection) => {
                let sources = protection.reasons.iter().map(|(prefix, why)| ProtectedSource {
                    source: prefix.to_string(),
                    reason: why.to_string(),
                });
                report.protected_sources = sources.collect();
            }
            None => report.degraded.push("the analyst does not answer".to_owned()),
        }
        Reply::Status(Box::new(report))
    }

    fn stats(&self, top: usize) -> Reply {
        let table = self.table();
        let view = StatsView {
            protected: table.protected,
            mode: self.policy.mode.word().to_owned(),
            enforce: self.policy.enforce,
            queues: self.queue_views(),
            top_sources: self.top(top),
            degraded: table.degraded.into_iter().chain(self.health.degraded()).collect(),
            ..StatsView::of(&self.stats.snapshot(Instant::now()))
        };
        Reply::Stats(Box::new(view))
    }

    /// The busiest sources of all workers.
    fn top(&self, count: usize) -> Vec<SourceRow> {
        if count == 0 {
            return Vec::new();
        }
        let (to, views) = bounded(self.workers.len());
        for worker in &self.workers {
            worker.order(Order::Top(count, to.clone()));
        }
        drop(to);
        let until = Instant::now() + PATIENCE;
        let mut all: Vec<SourceView> = Vec::new();
        while let Ok(views) = views.recv_deadline(until) {
            all.extend(views);
        }
        let now = Instant::now();
        all.sort_by(|a, b| b.ports.cmp(&a.ports).then(a.source.cmp(&b.source)));
        all.truncate(count);
        let row = |view: SourceView| SourceRow {
            source: view.source.to_string(),
            ports: view.ports,
            idle_seconds: now.saturating_duration_since(view.last_seen).as_secs(),
            banned: view.banned,
        };
        all.into_iter().map(row).collect()
    }

    fn queues(&self) -> Vec<u16> {
        match self.backend {
            None => Vec::new(),
            Some(_) => (0..2 * self.layout.workers)
                .map(|offset| self.layout.queue_base + offset)
                .collect(),
        }
    }

    fn queue_views(&self) -> Vec<QueueView> {
        let counters = queue_counters().unwrap_or_default();
        let view = |number| match counters.iter().find(|queue| queue.number == number) {
            None => QueueView {
                number,
                ..QueueView::default()
            },
            Some(queue) => QueueView {
                number,
                waiting: Some(queue.waiting.into()),
                kernel_dropped: Some(queue.kernel_dropped.into()),
                user_dropped: Some(queue.user_dropped.into()),
            },
        };
        self.queues().into_iter().map(view).collect()
    }

    /// What is loaded against what should be.
    fn table(&self) -> TableState {
        let expected = Arc::clone(&self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        match ruleset::read(&mut netlink) {
            Ok(Some(loaded)) => {
                let differences = loaded.differences(&expected);
                let words = match differences.len() {
                    0 => "inet verdictd: loaded, as it should be".to_owned(),
                    count => format!("inet verdictd: loaded, {count} differences"),
                };
                TableState {
                    protected: differences.is_empty(),
                    words,
                    degraded: differences,
                }
            }
            Ok(None) => TableState::lost("table inet verdictd is gone: nothing is refused and no ban holds"),
            Err(error) => TableState::lost(&format!("table inet verdictd cannot be read: {error}")),
        }
    }
}

struct TableState {
    protected: bool,
    words: String,
    degraded: Vec<String>,
}

impl TableState {
    fn lost(words: &str) -> TableState {
        TableState {
            protected: false,
            words: words.to_owned(),
            degraded: vec![words.to_owned()],
        }
    }
}

/// The config's word.
pub fn on_loss(on_loss: OnLoss) -> &'static str {
    match on_loss {
        OnLoss::Open => "open",
        OnLoss::Closed => "closed",
    }
}

/// Long enough for a batch of set elements, short enough for an operator.
const PATIENCE: Duration = Duration::from_secs(5);
/// A slow disk may take longer; `verdictctl` gives up after 15 s.
const SAVING: Duration = Duration::from_secs(8);
