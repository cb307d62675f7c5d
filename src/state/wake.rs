//! From ages and remainders back to a running process's clock.

use std::time::{Duration, Instant};

use super::{Moment, State};
use crate::core::attack::Baseline;
use crate::core::judge::Memory;
use crate::core::ledger::Standing;
use crate::core::source::Touch;
use crate::core::verdict::Ban;

/// A state in terms of a running process. What the ledger and the shards forget first comes first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Awake {
    /// Sources, last seen last.
    pub sources: Vec<Memory>,
    /// Ladder positions.
    pub standings: Vec<Standing>,
    /// What is usual on each port.
    pub usual: Baseline,
    /// How long ago that was known.
    pub away: Duration,
    /// Bans, also those that ended meanwhile by our clocks: the kernel's may say otherwise.
    pub bans: Vec<Ban>,
}

/// Brings `state` to `moment`, which the process calls `now`.
pub fn wake(state: State, moment: &Moment, now: Instant) -> Awake {
    let passed = moment.since(&state.saved);
    let ago = |age: Duration| earlier(now, age.saturating_add(passed));
    let sources = state.sources.into_iter().map(|saved| {
        let touches = saved.touches.into_iter();
        let touches = touches.map(|(what, stealth, age)| Touch {
            what,
            stealth,
            at: ago(age),
        });
        Memory {
            source: saved.source,
            first_seen: ago(saved.age),
            last_seen: ago(saved.idle),
            completed: saved.completed,
            touches: touches.collect(),
        }
    });
    let standings = state.ladder.into_iter().map(|saved| Standing {
        source: saved.source,
        offences: saved.real.map_or(0, |(offences, _)| offences),
        last: saved.real.map(|(_, age)| ago(age)),
        would_be: saved.would_be.map_or(0, |(offences, _)| offences),
        would_be_last: saved.would_be.map(|(_, age)| ago(age)),
    });
    let bans = state.bans.into_iter().map(|saved| Ban {
        source: saved.source,
        reason: saved.reason,
        step: saved.step,
        offences: saved.offences,
        since: ago(saved.age),
        until: saved.remaining.map(|left| now + left.saturating_sub(passed)),
        enforced: saved.enforced,
        note: saved.note,
    });
    let mut awake = Awake {
        sources: sources.collect(),
        standings: standings.collect(),
        usual: state.usual,
        away: passed,
        bans: bans.collect(),
    };
    awake.sources.sort_by_key(|memory| memory.last_seen);
    awake.standings.sort_by_key(Standing::latest);
    awake
}

/// Linux counts the seconds of an `Instant` in 64 bits with a sign: no age that is read falls off its start.
fn earlier(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}
