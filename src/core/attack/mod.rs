//! Many sources on one port: counted per port over all sources, against a threshold and against what is usual there.
//!
//! Here are the words; [`Attacks`] does the counting. Which attempts count is half decided outside: whether a
//! handshake stayed incomplete only conntrack knows.

mod attacks;
mod baseline;
mod distinct;
mod failing;
mod pending;
mod sliding;
mod under_way;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use self::attacks::{Attacks, Outcome};
pub use self::baseline::{Baseline, DAYS, PortBaseline};
pub use self::pending::Pending;
pub use self::under_way::{Attack, SOURCES_LISTED};
use super::prefix::Prefix;

/// Which attempts on a port count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Those that the host answered and nobody came: conntrack still says SYN_RECV after [`HANDSHAKE_LIMIT`].
    #[default]
    Incomplete,
    /// Every one of sources that were first seen less than [`Distributed::known_after`] ago.
    NewSources,
    /// Every one, as the Python system counted.
    All,
}

impl Counting {
    /// Every counting and its word in the config.
    pub const ALL: [Counting; 3] = [Counting::Incomplete, Counting::NewSources, Counting::All];

    /// The word of the config.
    pub fn word(self) -> &'static str {
        match self {
            Counting::Incomplete => "incomplete",
            Counting::NewSources => "new_sources",
            Counting::All => "all",
        }
    }
}

/// Attempts on one port that are tolerated over all sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortThresholds {
    /// For ports that have no threshold of their own.
    pub default: u32,
    /// By port.
    pub ports: BTreeMap<u16, u32>,
}

impl PortThresholds {
    /// How many attempts on `port` are tolerated.
    pub fn of(&self, port: u16) -> u32 {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

/// What makes many sources together an attack on one TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distributed {
    /// Counted attempts that are tolerated within the policy's window.
    pub thresholds: PortThresholds,
    /// Which attempts count.
    pub counting: Counting,
    /// The same, by port.
    pub by_port: BTreeMap<u16, Counting>,
    /// An attack is more than so many times the port's own hourly mean of [`BASELINE_DAYS`] within an hour; 0: only
    /// the threshold counts.
    pub baseline_factor: u32,
    /// A source seen for longer is not new.
    pub known_after: Duration,
    /// The attack is over when nothing counted came for so long.
    pub attack_quiet: Duration,
}

impl Default for Distributed {
    /// The built-in numbers, and 10 attempts on any port.
    fn default() -> Distributed {
        Distributed {
            thresholds: PortThresholds {
                default: 10,
                ports: BTreeMap::new(),
            },
            counting: Counting::Incomplete,
            by_port: BTreeMap::new(),
            baseline_factor: 5,
            known_after: Duration::from_secs(60 * 60),
            attack_quiet: Duration::from_secs(10 * 60),
        }
    }
}

impl Distributed {
    /// Which attempts on `port` count.
    pub fn counting_of(&self, port: u16) -> Counting {
        self.by_port.get(&port).copied().unwrap_or(self.counting)
    }

    /// Whether any port counts the attempts of sources that are new here.
    pub fn asks_since_when(&self) -> bool {
        let mut countings = self.by_port.values().chain([&self.counting]);
        countings.any(|counting| *counting == Counting::NewSources)
    }

    /// Whether `attempt` is to be counted, by the counting of its port.
    pub fn wants(&self, attempt: &Attempt, now: Instant) -> Wants {
        match self.counting_of(attempt.port) {
            Counting::Incomplete if attempt.proven => Wants::Not,
            Counting::Incomplete => Wants::Later,
            Counting::NewSources if now.saturating_duration_since(attempt.first_seen) >= self.known_after => {
                Wants::Not
            }
            Counting::NewSources | Counting::All => Wants::Now,
        }
    }
}

/// What is to be done with an attempt before it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// It counts.
    Now,
    /// It counts if conntrack still waits for the client [`HANDSHAKE_LIMIT`] after it came.
    Later,
    /// It does not count.
    Not,
}

/// A TCP SYN to a port that is not refused, told once a flow, as the worker that judged it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who sent it, or claims to.
    pub seen: IpAddr,
    /// Its port.
    pub src_port: u16,
    /// Whom it is for.
    pub dst: IpAddr,
    /// The port it is for.
    pub port: u16,
    /// What is judged and banned for `seen`.
    pub source: Prefix,
    /// When the source was first seen.
    pub first_seen: Instant,
    /// Whether the source ever completed a handshake here.
    pub proven: bool,
    /// When it came.
    pub at: Instant,
}

/// A handshake that takes longer than this is not completed. A client's second SYN comes after 1 s and its third
/// after 3 (RFC 6298), so what is alive has answered by then; conntrack keeps SYN_RECV for 60 s.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How far back what is usual on a port is remembered.
pub const BASELINE_DAYS: u32 = 7;
