//! Answers to `verdictctl`: reads counters and kernel tables itself, asks the analyst for what the ledger knows.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use tracing::info;

use super::analyst::{Command, Target};
use super::daemon::{Couriers, Event};
use super::enforcer::Expected;
use super::herald::Herald;
use super::keeper::{Errand, Health};
use super::orders;
use super::protect::Protection;
use super::pulse::Vitals;
use super::report::busiest;
use super::room::Manner;
use super::trial::{Attempt, Trials, Wish};
use super::troubles::{by_area, words};
use super::worker::Handle;
use crate::audit::OnFailure;
use crate::audit::log::Audit;
use crate::config::Config;
use crate::control::metrics_view::DroppedView;
use crate::control::rights::Right;
use crate::control::server::{Handler, Peer};
use crate::control::upkeep_view::WipeView;
use crate::control::wire::{
    AttackView, AuditView, BanCounts, MAX_TOP, ProtectedSource, QueueView, Reply, Request, SourceRow,
    StatsView, StatusReport, WebhookView,
};
use crate::core::judge::SourceView;
use crate::core::policy::OnLoss;
use crate::core::prefix::Prefix;
use crate::kernel::confine::Confinement;
use crate::kernel::conntrack;
use crate::kernel::netlink::Netlink;
use crate::kernel::queue::queue_counters;
use crate::kernel::ruleset::{self, Backend, Layout, Loaded, Ruleset};
use crate::state::Place;
use crate::stats::Stats;
use crate::webhook::Webhooks;

/// Everything an answer may need.
pub struct EngineHandler {
    /// What is in force.
    pub running: Shared,
    /// To the main thread.
    pub events: Sender<Event>,
    /// The numbers in use.
    pub layout: Layout,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The webhooks.
    pub webhooks: Couriers,
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
    /// Where it saves to.
    pub place: Place,
    /// What is wrong with the state.
    pub health: Arc<Health>,
    /// Where orders are written down.
    pub audit: Audit,
    /// What holds the engine itself.
    pub confinement: Arc<Confinement>,
    /// How the workers are.
    pub vitals: Arc<Vitals>,
    /// Who tells other systems.
    pub herald: Herald,
    /// What is on trial.
    pub trials: Trials,
}

/// What is in force, as a whole.
pub struct Running {
    /// Where the configuration is read from.
    pub path: PathBuf,
    /// The configuration in force.
    pub config: Config,
    /// How the kernel hands packets over; none: nothing is held.
    pub backend: Option<Backend>,
    /// What this host has room for.
    pub manner: Manner,
}

/// What is in force, for all who look at it; only a reload replaces it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Arc<Running>>>);

impl Shared {
    /// Begins with `running`.
    pub fn new(running: Running) -> Shared {
        Shared(Arc::new(Mutex::new(Arc::new(running))))
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<Running> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `running` in its place.
    pub fn set(&self, running: Running) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(running);
    }
}

impl Handler for EngineHandler {
    fn handle(&self, request: Request, peer: Peer) -> Reply {
        let own = rustix::process::geteuid().as_raw();
        let missing = Right::to(&request).missing(peer, own);
        orders::recorded(&self.audit, request, peer, |request| match missing {
            Some(why) => Reply::refused(why),
            None => self.answer(request, peer),
        })
    }
}

impl EngineHandler {
    fn answer(&self, request: Request, peer: Peer) -> Reply {
        match request {
            Request::Status {} => self.status(),
            Request::Health {} => self.health(),
            Request::Stats { top } => self.stats(top.min(MAX_TOP)),
            Request::List {} => self.ask(|to| Command::List { to }),
            Request::Ban {
                target,
                duration_seconds,
                reason,
            } => {
                let length = duration_seconds.map(Duration::from_secs);
                Self::for_target(&target, |target| {
                    info!(
                        reason = reason.as_deref(),
                        "uid {} (pid {}) bans {target}", peer.uid, peer.pid
                    );
                    let note = reason.map(String::into_boxed_str);
                    self.ask(|to| Command::Ban {
                        target,
                        length,
                        note,
                        to,
                    })
                })
            }
            Request::Reload {} => {
                info!("uid {} (pid {}) asks for a reload", peer.uid, peer.pid);
                self.answered(|to| self.events.send(Event::Reload(Some(to))).is_ok())
            }
            Request::Try {
                from,
                sha256,
                until_ms,
                force,
            } => {
                let until = until_ms.map(Duration::from_millis);
                let attempt = Attempt {
                    from,
                    sha256,
                    until,
                    force,
                };
                self.wish(Wish::Try(attempt), peer)
            }
            Request::Confirm {} => self.wish(Wish::Confirm, peer),
            Request::GoBack { until_ms } => self.wish(Wish::GoBack(until_ms), peer),
            Request::Unban { target } => Self::for_target(&target, |target| {
                info!("uid {} (pid {}) unbans {target}", peer.uid, peer.pid);
                self.ask(|to| Command::Unban { target, to })
            }),
            Request::Snapshot {} => self.snapshot(),
            Request::AuditNote { kind, result, detail } => {
                orders::note(&self.audit, &self.herald, kind, result, detail, peer)
            }
            Request::Webhooks {} => {
                self.couriers(|webhooks| Reply::Webhooks(Box::new(WebhookView::of(&webhooks.status()))))
            }
            Request::WebhookRetry { endpoint } => {
                self.couriers(|webhooks| Reply::WebhooksRetried(webhooks.retry(endpoint.as_deref()) as u64))
            }
            Request::SelftestBegin { source, witness } => self.begin_selftest(source, witness, peer),
            Request::SelftestLook { source } => self.look_at_selftest(source, peer),
            Request::SelftestEnd {} => self.end_selftest(peer),
            Request::State {} => self.state(),
            Request::StateReset {} => self.reset_state(peer),
            Request::StateImport(part) => self.import_state(part, peer),
        }
    }

    /// A plain address means its source (an IPv6 address its prefix); one with a length means just that.
    fn for_target(text: &str, act: impl FnOnce(Target) -> Reply) -> Reply {
        match Prefix::parse(text) {
            Err(error) => Reply::refused(error),
            Ok((_, true)) => Reply::refused(format!(
                "{text} has bits beyond its prefix length; write the network's own address, or the address alone"
            )),
            Ok((prefix, false)) if text.contains('/') => act(Target::Prefix(prefix)),
            Ok((prefix, false)) => act(Target::Address(prefix.addr())),
        }
    }

    fn protection(&self) -> Option<Protection> {
        let (to, protection) = bounded(1);
        self.commands.send(Command::Protected { to }).ok()?;
        protection.recv_timeout(PATIENCE).ok()
    }

    fn couriers(&self, ask: impl FnOnce(&Webhooks) -> Reply) -> Reply {
        match &*self.webhooks.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(webhooks) => ask(webhooks),
            None => Reply::refused("webhooks could not be started: see verdictctl status"),
        }
    }

    fn attacks(&self) -> Vec<AttackView> {
        let (to, attacks) = bounded(1);
        let asked = self.commands.send(Command::Attacks { to }).is_ok();
        let answer = asked.then(|| attacks.recv_timeout(PATIENCE).ok()).flatten();
        answer.unwrap_or_default()
    }

    fn wish(&self, wish: Wish, peer: Peer) -> Reply {
        if peer.uid != 0 {
            return Reply::refused("only root may try out a policy");
        }
        let (to, reply) = bounded(1);
        if self.events.send(Event::Trial(wish, to)).is_err() {
            return Reply::refused("the engine is stopping");
        }
        let reply = reply.recv_timeout(RELOADING);
        reply.unwrap_or_else(|_| {
            Reply::undecided("no answer in time, whether it was done is unknown: see verdictctl status")
        })
    }

    pub(super) fn ask(&self, command: impl FnOnce(Sender<Reply>) -> Command) -> Reply {
        self.answered(|to| self.commands.send(command(to)).is_ok())
    }

    fn answered(&self, send: impl FnOnce(Sender<Reply>) -> bool) -> Reply {
        let (to, reply) = bounded(1);
        if !send(to) {
            return Reply::refused("the engine is stopping");
        }
        reply.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            Reply::undecided(format!(
                "no answer within {} s, whether it was done is unknown: see verdictctl list",
                PATIENCE.as_secs()
            ))
        })
    }

    pub(super) fn snapshot(&self) -> Reply {
        let (to, reply) = bounded(1);
        if self
            .keeper
            .send_timeout(Errand::Snapshot { to }, PATIENCE)
            .is_err()
        {
            return Reply::refused("the snapshot thread does not answer");
        }
        reply.recv_timeout(SAVING).unwrap_or_else(|_| {
            Reply::undecided(format!(
                "the snapshot is not on the disk after {} s, it may come later: see verdictctl status",
                SAVING.as_secs()
            ))
        })
    }

    fn status(&self) -> Reply {
        let protection = self.protection();
        let table = self.table();
        let running = self.running.get();
        let policy = &running.config.policy;
        let counts = self.stats.snapshot(Instant::now());
        let mut report = StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: counts.uptime.as_secs(),
            config: Some(running.path.display().to_string()),
            config_sha256: running.config.sha256.clone(),
            apply: self.trials.view(),
            mode: policy.mode.word().to_owned(),
            preset: policy.preset.to_string(),
            enforce: policy.enforce,
            protected: table.protected,
            on_loss: on_loss(running.config.engine.on_loss).to_owned(),
            backend: running
                .backend
                .map_or_else(|| "none (observing)".to_owned(), |backend| backend.to_string()),
            table: table.words.clone(),
            last_wipe: self.stats.upkeep.last_wipe().map(WipeView::of),
            attacks: self.attacks(),
            workers: u32::from(self.layout.workers),
            queues: self.queues(),
            log_groups: (0..self.layout.workers)
                .map(|worker| self.layout.log_group(worker))
                .collect(),
            seed: self.layout.seed,
            trusted: policy.trusted.iter().map(|prefix| prefix.to_string()).collect(),
            bans: BanCounts {
                active: counts.bans_active,
                total: counts.bans_total,
                observed: counts.bans_observed,
            },
            blind: match running.backend {
                Some(_) => Vec::new(),
                None => BLIND.map(str::to_owned).into(),
            },
            degraded: words(&self.troubles(&table)),
            confinement: self.confinement.to_string(),
            audit: self.audit_view(running.config.audit.on_failure),
            ..StatusReport::default()
        };
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

    fn audit_view(&self, on_failure: OnFailure) -> Option<AuditView> {
        let state = Some(self.audit.state()).filter(|state| state.enabled)?;
        Some(AuditView {
            path: state.path.display().to_string(),
            head: state.head.display().to_string(),
            seq: state.end.seq,
            sha256: state.end.hash.to_string(),
            lost: state.lost,
            on_failure: on_failure.word().to_owned(),
        })
    }

    fn stats(&self, top: usize) -> Reply {
        let table = self.table();
        let running = self.running.get();
        let policy = &running.config.policy;
        let troubles = self.troubles(&table);
        let view = StatsView {
            protected: table.protected,
            mode: policy.mode.word().to_owned(),
            enforce: policy.enforce,
            queues: self.queue_views(),
            top_sources: self.top(top),
            degraded: words(&troubles),
            degraded_by: by_area(&troubles),
            dropped_packets: table.dropped,
            ..StatsView::of(&self.stats.snapshot(Instant::now()))
        };
        Reply::Stats(Box::new(view))
    }

    /// The busiest sources of all workers.
    fn top(&self, count: usize) -> Vec<SourceRow> {
        let now = Instant::now();
        let row = |view: SourceView| SourceRow {
            source: view.source.to_string(),
            ports: view.ports,
            idle_seconds: now.saturating_duration_since(view.last_seen).as_secs(),
            banned: view.banned,
        };
        busiest(&self.workers, count, PATIENCE)
            .into_iter()
            .map(row)
            .collect()
    }

    pub(super) fn queues(&self) -> Vec<u16> {
        match self.running.get().backend {
            None => Vec::new(),
            Some(_) => self.layout.queues().collect(),
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
        let mut table = self.loaded();
        let stateless = self.running.get().manner.stateless.clone();
        table.protected &= stateless.is_none();
        table.conntrack.extend(stateless);
        if let Some(since) = self.stats.upkeep.gap_since()
            && table.protected
        {
            table.protected = false;
            table.degraded.push(format!(
                "bans are missing in the kernel's sets since {} ms, and are being put back",
                since.elapsed().as_millis()
            ));
        }
        if self.running.get().backend.is_some() && conntrack::is_muted() {
            table.conntrack.push(MUTED.to_owned());
        }
        table
    }

    fn loaded(&self) -> TableState {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        self.vitals.count(&mut netlink, &self.stats);
        self.compared(&mut netlink)
    }

    pub(super) fn compared(&self, netlink: &mut Netlink) -> TableState {
        let expected = Arc::clone(&self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        match ruleset::read(netlink) {
            Ok(Some(loaded)) => {
                let differences = loaded.differences(&expected);
                let dropped = loaded.dropped();
                let words = match differences.len() {
                    0 => "inet verdictd: loaded, as it should be".to_owned(),
                    count => format!("inet verdictd: loaded, {count} differences"),
                } + self.ownership(&loaded, &expected);
                TableState {
                    protected: differences.is_empty(),
                    words,
                    degraded: differences,
                    conntrack: Vec::new(),
                    dropped: Some(DroppedView {
                        by_set: dropped.by_set,
                        refused: dropped.refused,
                    }),
                    is_read: true,
                }
            }
            Ok(None) => TableState::lost("table inet verdictd is gone: nothing is refused and no ban holds"),
            Err(error) => TableState {
                is_read: false,
                ..TableState::lost(&format!("table inet verdictd cannot be read: {error}"))
            },
        }
    }

    /// What became of `own_table`.
    fn ownership(&self, loaded: &Loaded, expected: &Ruleset) -> &'static str {
        let wanted = self.running.get().config.engine.own_table;
        match (loaded.owner.is_some(), wanted, expected.is_owned()) {
            (true, _, _) => "; nobody else can change it (own_table)",
            (false, false, _) => "",
            (false, true, false) => "; others can change it: own_table needs Linux 6.9 and manage_ruleset",
            (false, true, true) => {
                "; others can change it: own_table takes effect once the table is made anew"
            }
        }
    }
}

pub(super) struct TableState {
    protected: bool,
    words: String,
    pub(super) degraded: Vec<String>,
    pub(super) conntrack: Vec<String>,
    dropped: Option<DroppedView>,
    pub(super) is_read: bool,
}

impl TableState {
    fn lost(words: &str) -> TableState {
        TableState {
            protected: false,
            words: words.to_owned(),
            degraded: vec![words.to_owned()],
            conntrack: Vec::new(),
            dropped: None,
            is_read: true,
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

/// What copies without conntrack do not tell (DESIGN: observing holds nothing, and wakes nothing).
const BLIND: [&str; 3] = [
    "UDP: a first packet cannot be told from an answer, so UDP scans are not seen",
    "the state of connections: TCP is judged by its flags, and where conntrack sleeps a connection of less than a \
     second counts as not completed",
    "packets of one source beyond 20 a second: their copies are not taken",
];

const MUTED: &str = "connections that last less than a second count as not completed, for conntrack announces nothing: \
                     sysctl -w net.netfilter.nf_conntrack_events=1";

/// Long enough for a batch of set elements, short enough for an operator.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Queues, rules and sets in turn; `verdictctl` gives up after 15 s.
const RELOADING: Duration = Duration::from_secs(12);
/// A slow disk may take longer; `verdictctl` gives up after 15 s.
const SAVING: Duration = Duration::from_secs(8);
