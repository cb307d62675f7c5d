//! The threads, each begun by a step of its own. `Engine::start` says in which order, and why.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use rustix::fd::OwnedFd;
use tracing::{error, info, warn};

use super::{Couriers, Event, Options, give_up, spawn, starts};
use crate::audit::log::{Audit, Paths};
use crate::audit::{self};
use crate::config::{Config, duration_text};
use crate::core::judge::Judge;
use crate::core::policy::Policy;
use crate::core::verdict::Ban;
use crate::engine::analyst::{Analyst, Command, Inbox};
use crate::engine::enforcer::{Expected, Job};
use crate::engine::handler::on_loss;
use crate::engine::handshakes::{self, Handshakes};
use crate::engine::herald::Herald;
use crate::engine::keeper::{Health, Keeper};
use crate::engine::protect::Follower;
use crate::engine::pulse::{self, Pulse, Vitals};
use crate::engine::reconciler;
use crate::engine::refusals;
use crate::engine::scribe::{Desk, Scribe};
use crate::engine::worker::{Ears, Handle, Worker};
use crate::kernel::netlink::Netlink;
use crate::kernel::queue::Feed;
use crate::kernel::ruleset::{Backend, Layout, TableWatch};
use crate::notify::refusals::Refusal;
use crate::stats::Stats;
use crate::webhook::event::{self, Ended};

/// What all of them share.
pub(super) struct Crew {
    pub(super) alarm: Sender<Event>,
    pub(super) policy: Arc<Policy>,
    pub(super) stats: Arc<Stats>,
    pub(super) health: Arc<Health>,
    pub(super) webhooks: Couriers,
    pub(super) herald: Herald,
    pub(super) audit: Audit,
    pub(super) stop_followers: Arc<OwnedFd>,
}

type Thread<T = ()> = io::Result<JoinHandle<T>>;

/// The audit log, which has the start in it before anything else happens; `bans` were restored.
pub(super) fn write_down(
    options: &Options,
    config: &Config,
    bans: usize,
    alarm: &Sender<Event>,
) -> io::Result<(Audit, JoinHandle<()>)> {
    let paths = Paths {
        log: config.audit.place(&options.log_dir),
        head: options.state_dir.join(audit::HEAD_NAME),
    };
    let (audit, recorder) = Audit::begin(paths, &config.audit);
    let recorder = spawn("audit", alarm, move || recorder.run())?;
    audit.note(|| starts(options, config, bans));
    Ok((audit, recorder))
}

impl Crew {
    /// One for each feed; they answer from now on.
    pub(super) fn workers(
        &self,
        feeds: Vec<Feed>,
        judges: Vec<Judge>,
        ears: &Ears,
        local_ports: (u16, u16),
        now: Instant,
    ) -> io::Result<Vec<(Handle, JoinHandle<()>)>> {
        let services = handshakes::services(local_ports, now);
        let begin = |(index, (feed, mut judge)): (usize, (Feed, Judge))| {
            judge.set_services(Arc::clone(&services));
            let (worker, handle) = Worker::new(feed, judge, ears.clone(), Arc::clone(&self.stats), index)?;
            let thread = spawn(&format!("worker {index}"), &self.alarm, move || {
                if let Err(error) = worker.run() {
                    error!("worker {index}: {error}");
                }
            })?;
            Ok((handle, thread))
        };
        feeds.into_iter().zip(judges).enumerate().map(begin).collect()
    }

    /// Sums refused packets up for log and audit log.
    pub(super) fn refusals(&self, refused: Receiver<Refusal>) -> Thread {
        let (stats, audit) = (Arc::clone(&self.stats), self.audit.clone());
        spawn("refusals", &self.alarm, move || {
            refusals::follow(&refused, &stats, &audit);
        })
    }

    /// Asks all others whether they live, until its leash is dropped.
    pub(super) fn pulse(
        &self,
        workers: Box<[Handle]>,
        expected: &Expected,
        netlink: Netlink,
        jobs: &Sender<Job>,
        vitals: &Arc<Vitals>,
    ) -> io::Result<(Sender<()>, JoinHandle<()>)> {
        let (leash, stop) = pulse::leash();
        let mut pulse = Pulse {
            workers,
            expected: Arc::clone(expected),
            netlink,
            jobs: jobs.clone(),
            vitals: Arc::clone(vitals),
            stats: Arc::clone(&self.stats),
            stop,
            suspects: Vec::new(),
            give_up: give_up(&self.audit, &self.herald, &self.stats),
        };
        pulse.begin();
        Ok((leash, spawn("pulse", &self.alarm, move || pulse.run())?))
    }

    /// Writes the journal, from `generation` on.
    pub(super) fn scribe(&self, desk: Desk, generation: u64) -> Thread {
        let scribe = Scribe::begin(desk, generation);
        spawn("journal", &self.alarm, move || scribe.run())
    }

    /// Owns the ledger.
    pub(super) fn analyst(&self, analyst: Analyst, inbox: Inbox) -> Thread {
        let analyst = analyst
            .with_herald(self.herald.clone())
            .with_audit(self.audit.clone());
        spawn("analyst", &self.alarm, move || analyst.run(&inbox))
    }

    /// Saves the state.
    pub(super) fn keeper(&self, keeper: Keeper) -> Thread {
        spawn("keeper", &self.alarm, move || keeper.run())
    }

    /// Follows who is never banned.
    pub(super) fn protector(&self, watch: Follower, commands: &Sender<Command>) -> Thread {
        let (commands, stop) = (commands.clone(), Arc::clone(&self.stop_followers));
        spawn("protector", &self.alarm, move || watch.follow(&commands, &stop))
    }

    /// Follows what others do to the table.
    pub(super) fn reconciler(&self, watch: TableWatch, jobs: &Sender<Job>) -> Thread {
        let (jobs, stop) = (jobs.clone(), Arc::clone(&self.stop_followers));
        spawn("reconciler", &self.alarm, move || {
            reconciler::follow(watch, jobs, stop);
        })
    }

    /// Follows who completes a handshake.
    pub(super) fn handshakes(&self, handshakes: Handshakes) -> Thread {
        let following = handshakes.begin();
        spawn("handshakes", &self.alarm, move || following.run())
    }

    /// Other systems hear of the start. Whoever relied on bans that ended meanwhile is told, however late. Few as a rule:
    /// what finds no room is counted as dropped.
    pub(super) fn tell_others(&self, config: &Config, ended: &[(Ban, Ended)]) {
        self.herald
            .tell(|now| event::firewall_started(now, &self.policy, &config.webhooks));
        for event in ended
            .iter()
            .filter_map(|(ban, why)| self.herald.unblocked(ban, *why))
        {
            self.herald.hand_over(event);
        }
    }

    /// Says in plain words what happens from now on.
    pub(super) fn introduce(
        &self,
        config: &Config,
        stateless: Option<&str>,
        backend: Option<Backend>,
        layout: &Layout,
    ) {
        let policy = &self.policy;
        if let Some(why) = stateless {
            warn!("DEGRADED: {why}");
        }
        match policy.mode.filters_ports() && stateless.is_none() {
            true => info!(
                "mode {}: open are tcp {} and udp {}; every other port is refused by the kernel",
                policy.mode, policy.tcp_allowed, policy.udp_allowed
            ),
            false => info!("mode {}: no port is refused", policy.mode),
        }
        info!(
            "preset {}: a source that touches more than {} ports within {} is an offender",
            policy.preset,
            policy.ports_threshold,
            duration_text(policy.window)
        );
        match backend {
            Some(backend) => info!(
                "{} workers on queues {}..{} ({}), on_loss = {}",
                layout.workers,
                layout.queue_base,
                layout.queue_base + (2 * layout.workers - 1),
                backend,
                on_loss(config.engine.on_loss)
            ),
            None => info!("{} workers on log copies, nothing is held", layout.workers),
        }
    }
}
