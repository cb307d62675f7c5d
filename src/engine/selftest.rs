//! The engine's end of a self-test: who may begin one, what the tester has to know, how far it is.

use std::net::IpAddr;
use std::time::Instant;

use crossbeam_channel::bounded;

use super::analyst::{Command, NONE, Question};
use super::handler::{EngineHandler, PATIENCE};
use super::worker::Order;
use crate::control::selftest_view::{SelftestPlan, SelftestState};
use crate::control::server::Peer;
use crate::control::wire::Reply;
use crate::core::prefix::Prefix;
use crate::core::shard::shard_of;

impl EngineHandler {
    /// From now on `source` is tested and `witness` looks on, for as long as a self-test may take.
    pub(super) fn begin_selftest(&self, source: IpAddr, witness: IpAddr, peer: Peer) -> Reply {
        if peer.uid != 0 {
            return Reply::refused(format!(
                "only root may begin a self-test, and uid {} asks",
                peer.uid
            ));
        }
        if source == witness {
            return Reply::refused(format!("{source} cannot be both source and witness"));
        }
        let (ready, knows) = bounded(self.workers.len());
        let sources = [source, witness];
        let begun = self.ask(|to| Command::Selftest(Question::Begin { sources, ready, to }));
        if let Reply::Refused { .. } | Reply::Undecided { .. } = begun {
            return begun;
        }
        // Nothing of it may be told before every worker knows.
        let deadline = Instant::now() + PATIENCE;
        let deaf = self
            .workers
            .iter()
            .filter(|_| knows.recv_deadline(deadline).is_err())
            .count();
        if deaf > 0 {
            let _ended = self.end_selftest(peer);
            return Reply::refused(format!(
                "{deaf} of {} workers did not answer within {} s",
                self.workers.len(),
                PATIENCE.as_secs()
            ));
        }
        Reply::Selftest(Box::new(self.plan()))
    }

    fn plan(&self) -> SelftestPlan {
        let running = self.running.get();
        let (policy, engine) = (&running.config.policy, &running.config.engine);
        let filters = policy.mode.filters_ports() && !running.manner.observing;
        let allowed = policy.tcp_allowed.ranges().iter();
        let allowed = allowed
            .flat_map(|(first, last)| *first..=*last)
            .take(ALLOWED_TOLD);
        SelftestPlan {
            mode: policy.mode.word().to_owned(),
            preset: policy.preset.to_string(),
            enforce: policy.enforce,
            holds: running.backend.is_some(),
            threshold: policy.ports_threshold,
            filters,
            allowed: if filters { allowed.collect() } else { Vec::new() },
            internal_interfaces: engine
                .internal_interfaces
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// How far it is: the ports that the source's worker counted, and what became of the ban.
    pub(super) fn look_at_selftest(&self, source: IpAddr, peer: Peer) -> Reply {
        if peer.uid != 0 {
            return Reply::refused(format!(
                "only root may run a self-test, and uid {} asks",
                peer.uid
            ));
        }
        let (to, state) = bounded(1);
        let asked = self
            .commands
            .send(Command::Selftest(Question::Look { to }))
            .is_ok();
        let state = asked.then(|| state.recv_timeout(PATIENCE).ok()).flatten();
        let state = match state {
            Some(Some(state)) => state,
            Some(None) => return Reply::refused(NONE),
            None => return Reply::refused("the analyst does not answer"),
        };
        let shard = shard_of(Prefix::host(source), self.layout.seed, self.workers.len() as u32);
        let (to, counted) = bounded(1);
        if let Some(worker) = self.workers.get(shard as usize) {
            worker.order(Order::Look(source, to));
        }
        Reply::SelftestState(Box::new(SelftestState {
            counted: counted.recv_timeout(PATIENCE).ok(),
            ..state
        }))
    }

    /// It is over; answered when the kernel holds nothing of it.
    pub(super) fn end_selftest(&self, peer: Peer) -> Reply {
        if peer.uid != 0 {
            return Reply::refused(format!(
                "only root may end a self-test, and uid {} asks",
                peer.uid
            ));
        }
        self.ask(|to| Command::Selftest(Question::End { to }))
    }
}

/// As many allowed ports as a tester could ever try.
const ALLOWED_TOLD: usize = 64;
