//! Answers about the state, and orders that change it as a whole.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use tracing::info;

use super::analyst::Command;
use super::handler::{EngineHandler, PATIENCE};
use crate::control::server::Peer;
use crate::control::wire::{ImportPart, Reply, StateCounts};

impl EngineHandler {
    pub(super) fn state(&self) -> Reply {
        let (to, tally) = bounded(1);
        let asked = self.commands.send(Command::Tally { to }).is_ok();
        let tally = asked.then(|| tally.recv_timeout(PATIENCE).ok()).flatten();
        let counts = self.stats.snapshot(Instant::now());
        let (ladder, baseline_ports) = tally.unwrap_or_default();
        let counts = StateCounts {
            bans: counts.bans_active,
            would_be: counts.bans_observed,
            ladder,
            sources: counts.tracked,
            baseline_ports,
        };
        let mut troubles = self.health.degraded();
        if tally.is_none() {
            troubles.push("the analyst does not answer".to_owned());
        }
        let view = self
            .health
            .facts
            .view(&self.place, counts, troubles, Instant::now());
        Reply::State(Box::new(view))
    }

    /// Everything is forgotten, and that is saved: a start finds nothing either.
    pub(super) fn reset_state(&self, peer: Peer) -> Reply {
        info!("uid {} (pid {}) resets the state", peer.uid, peer.pid);
        let (to, reply) = bounded(1);
        if self.commands.send(Command::Reset { to }).is_err() {
            return Reply::refused("the engine is stopping");
        }
        let Ok(reply) = reply.recv_timeout(FORGETTING) else {
            return Reply::undecided(format!(
                "no answer within {} s, whether it was done is unknown: see verdictctl state show",
                FORGETTING.as_secs()
            ));
        };
        match (&reply, self.snapshot()) {
            (Reply::StateReset(_), Reply::Refused { message } | Reply::Undecided { message }) => {
                Reply::refused(format!(
                    "everything is forgotten, but a start would find it again, for {message}"
                ))
            }
            _ => reply,
        }
    }

    pub(super) fn import_state(&self, part: ImportPart, peer: Peer) -> Reply {
        if part.part <= 1 && !part.dry_run {
            info!(
                "uid {} (pid {}) imports bans of another system",
                peer.uid, peer.pid
            );
        }
        let part = Box::new(part);
        self.ask(|to| Command::Import { part, to })
    }
}

/// A hundred thousand bans are told one by one and taken out of the kernel in this time; with a slow snapshot it is
/// still less than `verdictctl` waits.
const FORGETTING: Duration = Duration::from_secs(6);
