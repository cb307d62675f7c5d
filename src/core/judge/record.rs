//! What a shard knows of one source: its window or its accusation, and how well it is known.

use std::time::{Duration, Instant};

use crate::core::bounded::HIGHEST;
use crate::core::prefix::Prefix;
use crate::core::source::{Crossed, Limits, Source, Touch};
use crate::core::verdict::{Asked, BanReason, Offence, Proto};

/// How well a source is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquaintance {
    /// When it was first seen.
    pub first_seen: Instant,
    /// Whether it ever completed a handshake here.
    pub proven: bool,
}

/// What is to be remembered of a source when the engine stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Who.
    pub source: Prefix,
    /// When it was first seen.
    pub first_seen: Instant,
    /// When it was last seen.
    pub last_seen: Instant,
    /// TCP ports on which it completed handshakes; `None` if it never did.
    pub completed: Option<Vec<u16>>,
    /// What is in its window, oldest first.
    pub touches: Vec<Touch>,
}

/// What is known of one source.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) first_seen: Instant,
    /// Where it completed handshakes. No more than a pointer for those who never did: a flood has many.
    pub(super) completed: Option<Box<Completed>>,
    pub(super) standing: Standing,
}

/// TCP ports on which a source completed handshakes.
#[derive(Debug, Default)]
pub(super) struct Completed {
    /// The last one last.
    ports: Vec<u16>,
}

#[derive(Debug)]
pub(super) enum Standing {
    Watched(Source),
    /// It crossed a threshold, and the analyst has not answered.
    Accused {
        offence: Box<Offence>,
        told: Told,
    },
}

/// Whether the analyst knows of an accusation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// On purpose not yet: what it is made of may turn out to be completed handshakes.
    Held,
    /// There was no room in the channel: the next packet carries it again.
    Unsent,
    Sent,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing::Watched(Source::default())
    }
}

impl Completed {
    pub(super) fn of(ports: &[u16]) -> Completed {
        let mut completed = Completed::default();
        ports.iter().for_each(|port| completed.note(*port));
        completed
    }

    fn note(&mut self, port: u16) {
        if let Some(at) = self.ports.iter().position(|known| *known == port) {
            self.ports[at..].rotate_left(1);
            return;
        }
        if self.ports.len() >= MOST_COMPLETED {
            self.ports.remove(0);
        }
        self.ports.push(port);
    }
}

impl Memory {
    /// Whether anything would be lost with it: a source that is only known by sight is made anew by its next packet.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.completed.is_some() || !self.touches.is_empty()
    }
}

impl Record {
    pub(super) fn new(now: Instant) -> Record {
        Record {
            first_seen: now,
            completed: None,
            standing: Standing::default(),
        }
    }

    pub(super) fn is_accused(&self) -> bool {
        matches!(self.standing, Standing::Accused { .. })
    }

    pub(super) fn acquaintance(&self) -> Acquaintance {
        Acquaintance {
            first_seen: self.first_seen,
            proven: self.completed.is_some(),
        }
    }

    pub(super) fn has_completed(&self, asked: Asked) -> bool {
        match (asked, &self.completed) {
            (Asked::Port(Proto::Tcp, port), Some(completed)) => completed.ports.contains(&port),
            _ => false,
        }
    }

    pub(super) fn complete(&mut self, port: u16) {
        let completed = Box::default;
        self.completed.get_or_insert_with(completed).note(port);
    }

    /// Takes a completed port out of what speaks against the source, also out of an accusation that nobody was told of.
    pub(super) fn clear(&mut self, port: u16, limits: &Limits, now: Instant) {
        match &mut self.standing {
            Standing::Watched(source) => source.clear(port),
            Standing::Accused {
                offence,
                told: Told::Held,
            } if offence.ports.contains(&(Proto::Tcp, port)) => {
                let mut source = Source::default();
                let touches = self.touches(limits.window, now).into_iter();
                touches
                    .filter(|touch| touch.what != Asked::Port(Proto::Tcp, port))
                    .for_each(|touch| source.restore(touch, limits));
                self.standing = Standing::Watched(source);
            }
            Standing::Accused { .. } => {}
        }
    }

    /// What it is worth remembering: who was honest more than who did little, the more evidence the more.
    pub(super) fn rank(&self) -> u8 {
        match &self.standing {
            Standing::Accused { .. } => HIGHEST,
            Standing::Watched(_) if self.completed.is_some() => PROVEN,
            Standing::Watched(source) => {
                let more = source.len().saturating_sub(1);
                u8::try_from(more).map_or(PROVEN - 1, |more| more.min(PROVEN - 1))
            }
        }
    }

    pub(super) fn within(&self, window: Duration, now: Instant) -> &[Touch] {
        match &self.standing {
            Standing::Watched(source) => source.within(window, now),
            Standing::Accused { .. } => &[],
        }
    }

    pub(super) fn touches(&self, window: Duration, now: Instant) -> Vec<Touch> {
        let of_offence = |offence: &Offence, (proto, port): (Proto, u16)| Touch {
            what: Asked::Port(proto, port),
            stealth: u16::from(offence.reason == BanReason::SuspiciousScanning),
            at: offence.at,
        };
        match &self.standing {
            Standing::Watched(source) => source.within(window, now).to_vec(),
            Standing::Accused { offence, .. } => {
                let ports = offence.ports.iter();
                ports.map(|port| of_offence(offence, *port)).collect()
            }
        }
    }

    pub(super) fn memory(
        &self,
        source: Prefix,
        last_seen: Instant,
        window: Duration,
        now: Instant,
    ) -> Memory {
        Memory {
            source,
            first_seen: self.first_seen,
            last_seen,
            completed: self.completed.as_ref().map(|completed| completed.ports.clone()),
            touches: self.touches(window, now),
        }
    }

    pub(super) fn ports(&self, crossed: Crossed) -> Box<[(Proto, u16)]> {
        match &self.standing {
            Standing::Watched(source) => source.ports(crossed).collect(),
            Standing::Accused { offence, .. } => offence.ports.clone(),
        }
    }
}

/// Rank of a source that completed a handshake and is not accused.
pub(super) const PROVEN: u8 = HIGHEST - 1;
/// How many ports with completed handshakes are remembered of one source: an office behind one address uses nine.
pub const MOST_COMPLETED: usize = 16;
