//! What another system knew, taken into a running ledger: who is banned for longer stays so, who stands higher too.
//!
//! It is told in one line for the whole, and to no other system: nothing happened now. The audit log holds each part
//! as an operator's order.

use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use tracing::info;

use super::super::enforcer::{Answer, Work};
use super::super::imports;
use super::super::worker::Order;
use super::Analyst;
use crate::control::wire::{ImportOutcome, ImportPart, Reply, Spared};
use crate::core::source::Touch;
use crate::core::verdict::Ban;
use crate::kernel::sets::Change;
use crate::state::{Awake, Record};

impl Analyst {
    pub(super) fn tally(&mut self, now: Instant) -> (u64, u64) {
        let ports = self.attacks.baseline(now).ports.len();
        (self.ledger.standing_count() as u64, ports as u64)
    }

    /// Takes over one part; the reply comes when the kernel has its bans.
    pub(super) fn import(&mut self, part: &ImportPart, to: Sender<Reply>, now: Instant) {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        let mut awake = match imports::awake(part, now, wall) {
            Ok(awake) => awake,
            Err(why) => return drop(to.send(Reply::refused(why))),
        };
        let mut outcome = ImportOutcome {
            refused: imports::settle(&mut awake, &self.policy, &self.protection),
            would_be: !self.policy.enforce,
            ..ImportOutcome::default()
        };
        let work = self.take_in(awake, &mut outcome, part.dry_run, now);
        if !part.dry_run {
            self.sum_up(part, &outcome);
        }
        let reply = Reply::StateImported(Box::new(outcome));
        self.submit(Work {
            done: Some(Answer { to, reply }),
            ..work
        });
    }

    fn take_in(&mut self, awake: Awake, outcome: &mut ImportOutcome, dry: bool, now: Instant) -> Work {
        let mut work = Work::default();
        for standing in awake.standings {
            let known = self.ledger.offences_of(&standing.source);
            let higher = standing.offences > known;
            if let (true, false, Some(last)) = (higher, dry, standing.last) {
                self.ledger.raise(standing.source, standing.offences, last, now);
                let standing = self.ledger.standing(&standing.source);
                work.records.extend(standing.map(Record::Standing));
            }
            match higher {
                true => outcome.climbed += 1,
                false => outcome.ladder_kept += 1,
            }
        }
        for ban in awake.bans {
            if !self.weigh(&ban, outcome) || dry {
                continue;
            }
            if ban.enforced {
                self.unmade.forget(&ban.source);
                work.changes.push(Change::Renew {
                    target: ban.source,
                    timeout: ban.remaining(now),
                });
            }
            self.tell(&ban.source, || Order::Ban {
                source: ban.source,
                enforced: ban.enforced,
            });
            work.records.push(Record::Ban(ban.clone()));
            work.replaced.extend(self.ledger.get(&ban.source).cloned());
            self.ledger.take_over(ban);
        }
        outcome.windows += awake.sources.len() as u64;
        if !dry {
            for memory in awake.sources {
                let source = memory.source;
                let touched = |touch: &Touch| Record::Touch {
                    source,
                    touch: *touch,
                };
                work.records.extend(memory.touches.iter().map(touched));
                self.tell(&source, || Order::Learn(Box::new(memory.clone())));
            }
        }
        work
    }

    /// Whether `ban` goes in: the longer of two counts, and what is enforced is not replaced by what is not.
    fn weigh(&self, ban: &Ban, outcome: &mut ImportOutcome) -> bool {
        match self.ledger.get(&ban.source) {
            None if !self.ledger.has_room() => {
                outcome.refused.push(Spared {
                    source: ban.source.to_string(),
                    reason: "there is no room for more bans".into(),
                });
                return false;
            }
            None => outcome.banned += 1,
            Some(held) if !is_longer(ban, held) || held.enforced && !ban.enforced => {
                outcome.kept += 1;
                return false;
            }
            Some(_) => outcome.prolonged += 1,
        }
        true
    }

    /// One line for the whole, when its last part came.
    fn sum_up(&mut self, part: &ImportPart, outcome: &ImportOutcome) {
        if part.part <= 1 {
            self.imported = ImportOutcome::default();
        }
        // How many is enough for the line; who they are is in the reply.
        self.imported.add(outcome.clone());
        if part.part >= part.parts {
            let all = std::mem::take(&mut self.imported);
            info!(
                "imported: {} bans{}, {} made longer, {} kept as they were, {} not banned since they are \
                 protected; {} ladder positions, {} kept as they were; {} half-done scans",
                all.banned,
                if all.would_be {
                    " (recorded, not enforced)"
                } else {
                    ""
                },
                all.prolonged,
                all.kept,
                all.refused.len(),
                all.climbed,
                all.ladder_kept,
                all.windows
            );
        }
    }
}

/// By more than two readings of two clocks differ.
fn is_longer(ban: &Ban, held: &Ban) -> bool {
    match (ban.until, held.until) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(until), Some(held)) => until.saturating_duration_since(held) > SAME,
    }
}

const SAME: Duration = Duration::from_secs(1);
