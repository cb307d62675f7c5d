//! An operator wants everything forgotten. Policy, trusted and protected addresses are not the ledger's and stay.

use std::time::Instant;

use crossbeam_channel::Sender;
use tracing::{info, warn};

use super::super::enforcer::{Answer, Work};
use super::super::worker::Order;
use super::Analyst;
use crate::control::wire::{ForgottenView, Reply};
use crate::core::attack::Attacks;
use crate::state::Record;
use crate::webhook::event::{self, Ended};

impl Analyst {
    /// Lifts every ban in kernel and ledger and forgets the rest. Each lifted ban is told as an `unban` is: who blocks
    /// elsewhere what is blocked here has to hear of it.
    pub(super) fn reset(&mut self, to: Sender<Reply>, now: Instant) {
        if self.trial.is_some() {
            return drop(to.send(Reply::refused(
                "a self-test is under way, try again when it is over",
            )));
        }
        let forgotten = ForgottenView {
            bans: self.ledger.active() as u64,
            would_be: self.ledger.observed() as u64,
            ladder: self.ledger.standing_count() as u64,
        };
        warn!(
            "reset: {} bans, {} would-be bans and {} ladder positions are forgotten",
            forgotten.bans, forgotten.would_be, forgotten.ladder
        );
        let mut targets = self.ledger.targets();
        targets.sort_unstable();
        let mut work = Work::default();
        for target in targets {
            let Some(ban) = self.ledger.lift(&target) else {
                continue;
            };
            work.join(self.lifted(&ban, Ended::Manual, now));
        }
        self.ledger.forget_standings();
        self.end_attacks(now);
        self.workers
            .iter()
            .for_each(|worker| worker.order(Order::EraseAll));
        // One word for all of them.
        work.records = vec![Record::Reset];
        let reply = Reply::StateReset(forgotten);
        work.done = Some(Answer { to, reply });
        self.submit(work);
    }

    fn end_attacks(&mut self, now: Instant) {
        let attacks = std::mem::take(&mut self.attacks);
        for attack in attacks.under_way() {
            if self.attack_lines.ended(attack, now) {
                let enforced = self.policy.enforce;
                self.herald
                    .tell(|now| event::distributed_attack_ended(now, attack, enforced));
            }
        }
        if attacks.ports() > 0 {
            info!("what is usual on {} ports is learnt anew", attacks.ports());
        }
    }
}
