//! Tells other systems what happened: builds the events of what happens and hands them to the webhooks, if
//! there are any. It never waits, and decides nothing.

use std::time::Instant;

use crate::core::attack::Attack;
use crate::core::prefix::Prefix;
use crate::core::probe::Probe;
use crate::core::verdict::{Ban, BanReason, Offence};
use crate::webhook::Outbox;
use crate::webhook::event::{self, Ended, Now};
use crate::webhook::wire::Event;

/// Where events go; nowhere, if webhooks are off.
#[derive(Clone, Debug, Default)]
pub struct Herald {
    outbox: Option<Outbox>,
}

impl Herald {
    /// One that hands events to `outbox`.
    pub fn new(outbox: Option<Outbox>) -> Herald {
        Herald { outbox }
    }

    /// Hands over what `event` makes of this moment; it is not made if nobody would get it.
    pub fn tell(&self, event: impl FnOnce(Now) -> Event) {
        if self.outbox.is_some() {
            self.hand_over(event(Now::read()));
        }
    }

    /// Hands over what was built when it was decided, and is true now.
    pub fn hand_over(&self, event: Event) {
        if let Some(outbox) = &self.outbox {
            outbox.publish(event);
        }
    }

    /// The first packet of a flow came. For the verdict path.
    pub fn saw(&self, probe: &Probe, at: Instant) {
        if let Some(outbox) = &self.outbox {
            outbox.saw(probe, at);
        }
    }

    /// A source was found out, and a ban recorded for it.
    pub fn found(&self, offence: &Offence, ban: &Ban) {
        match offence.reason {
            BanReason::PortScanning => self.tell(|now| event::port_scanning_detected(now, offence, ban)),
            BanReason::SuspiciousScanning => {
                self.tell(|now| event::suspicious_scanning_detected(now, offence, ban));
            }
            // Of an attack it is told that it began; its sources are told as they are blocked.
            BanReason::DistributedAttack | BanReason::Manual | BanReason::Prefix => {}
        }
    }

    /// What is told once the kernel drops a source; nothing of a ban that is only recorded.
    pub fn blocked(&self, ban: &Ban, offence: Option<&Offence>, attack: Option<&Attack>) -> Option<Event> {
        let told = ban.enforced && self.outbox.is_some();
        told.then(|| event::ip_blocked(Now::read(), ban, offence, attack))
    }

    /// What is told once the kernel drops it no longer.
    pub fn unblocked(&self, ban: &Ban, why: Ended) -> Option<Event> {
        let told = ban.enforced && self.outbox.is_some();
        told.then(|| event::ip_unblocked(Now::read(), ban, why))
    }

    /// The kernel refused to begin a ban, or to end one.
    pub fn failed(&self, target: Prefix, ban: Option<&Ban>, error: &str) {
        match ban {
            Some(ban) => self.tell(|now| event::block_error(now, target, ban.reason, &error)),
            None => self.tell(|now| event::unblock_error(now, target, Ended::Manual, &error)),
        }
    }
}
