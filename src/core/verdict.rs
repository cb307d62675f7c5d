//! The words in which decisions are told: plain data with `Display`, no behaviour.

use std::fmt;
use std::time::{Duration, Instant};

use super::prefix::Prefix;
use super::scan::ScanKind;

/// What is answered to the kernel for one queued packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Verdict {
    /// The packet goes on its way (NF_ACCEPT).
    Accept,
    /// The packet is discarded silently (NF_DROP).
    Drop,
}

/// How a packet came to the engine. The number of the queue or the prefix of the copy tells it, not the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Held in a verdict queue; conntrack calls it `new`.
    New,
    /// Held in a verdict queue; conntrack calls it `invalid` or `untracked`.
    Odd,
    /// A copy of a packet that the kernel has already refused (port filter).
    Refused,
    /// A copy of a packet that went on its way (`enforce = false`, or a protocol that is neither TCP nor UDP):
    /// nothing is held, nothing is answered.
    Observed,
}

impl Class {
    /// Whether the kernel waits for a verdict on packets of this class.
    pub fn is_held(self) -> bool {
        matches!(self, Class::New | Class::Odd)
    }
}

/// Why a packet got its verdict; every packet is counted under exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Source is in a trusted network: neither counted nor banned.
    Trusted,
    /// Source is under a live ban (or its offence is being turned into one).
    Banned,
    /// This very packet crossed a threshold.
    Offence,
    /// Counted as evidence, below every threshold.
    Counted,
    /// Seen before: a retransmission, or the kernel's second delivery of the same packet. Counts once.
    Repeated,
    /// Nothing in it is evidence of anything.
    Harmless,
    /// Could not be read. It accuses nobody; where bans are enforced it is dropped (fails closed: what the host might
    /// read and we cannot is no way around us), else it passes.
    Unparsed,
    /// It would begin something that cannot be written down, and policy wants it written down.
    Unlogged,
}

impl Reason {
    /// Every reason, in the order in which they are shown.
    pub const ALL: [Reason; 8] = [
        Reason::Trusted,
        Reason::Banned,
        Reason::Offence,
        Reason::Counted,
        Reason::Repeated,
        Reason::Harmless,
        Reason::Unparsed,
        Reason::Unlogged,
    ];

    /// The word used in `stats`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Trusted => "trusted",
            Reason::Banned => "banned",
            Reason::Offence => "offence",
            Reason::Counted => "counted",
            Reason::Repeated => "repeated",
            Reason::Harmless => "harmless",
            Reason::Unparsed => "unparsed",
            Reason::Unlogged => "unlogged",
        }
    }
}

/// Why a source is banned: the words of `list`, the log and the wire. A contract: none is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BanReason {
    /// More distinct ports within the window than are tolerated.
    PortScanning,
    /// Failing (or new) sources on a port under distributed attack.
    DistributedAttack,
    /// More stealth probes than are tolerated.
    SuspiciousScanning,
    /// An operator's `verdictctl ban`.
    Manual,
    /// Several banned neighbours were widened to one prefix.
    Prefix,
}

impl BanReason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [BanReason; 5] = [
        BanReason::PortScanning,
        BanReason::DistributedAttack,
        BanReason::SuspiciousScanning,
        BanReason::Manual,
        BanReason::Prefix,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            BanReason::PortScanning => "port_scanning",
            BanReason::DistributedAttack => "distributed_attack",
            BanReason::SuspiciousScanning => "suspicious_scanning",
            BanReason::Manual => "manual",
            BanReason::Prefix => "prefix",
        }
    }
}

impl fmt::Display for BanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// TCP or UDP: the two protocols that have ports here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// What a source asked for: a port, or an IP protocol beside those that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    /// A port.
    Port(Proto, u16),
    /// An IP protocol number, of neither TCP, UDP nor ICMP: what `nmap -sO` goes through.
    Protocol(u8),
}

impl Asked {
    /// The port, if it is one.
    pub fn port(self) -> Option<(Proto, u16)> {
        match self {
            Asked::Port(proto, port) => Some((proto, port)),
            Asked::Protocol(_) => None,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Port(proto, port) => write!(f, "{proto}/{port}"),
            Asked::Protocol(number) => write!(f, "ip/{number}"),
        }
    }
}

/// How much an offence says about the one who owns the source's address: addresses can be forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weight {
    /// It climbs the ladder.
    Full,
    /// Only UDP ports made it an offence: first step.
    UdpOnly,
    /// The source completed handshakes here before, and none of these flows was: first step, or whoever forges
    /// its address could have an honest client banned for days.
    PossiblyForged,
    /// It is one of many on a port under attack: first step.
    OneOfMany,
}

impl Weight {
    /// Whether the offence counts for the next one; if not, its ban is the ladder's first step.
    pub fn climbs(self) -> bool {
        matches!(self, Weight::Full)
    }
}

/// What a shard tells the analyst when a source crosses a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offence {
    /// The address whose packet crossed the line.
    pub seen: std::net::IpAddr,
    /// What is to be banned: the address, or its IPv6 prefix.
    pub source: Prefix,
    /// What the source did.
    pub reason: BanReason,
    /// The kind of the probe that crossed the line.
    pub kind: ScanKind,
    /// Distinct ports in the window, this one included, oldest first.
    pub ports: Box<[(Proto, u16)]>,
    /// How many distinct ports were tolerated.
    pub threshold: u32,
    /// How far it can be laid at the source's door.
    pub weight: Weight,
    /// Whether the source ever completed a handshake here.
    pub proven: bool,
    /// When the packet was judged.
    pub at: Instant,
}

/// A ban as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The banned address or prefix.
    pub source: Prefix,
    /// Why.
    pub reason: BanReason,
    /// Position on the ladder, from 1; 0 for an operator's ban with a duration of its own.
    pub step: u32,
    /// Offences of this source that count toward the ladder, this one included.
    pub offences: u32,
    /// When it began.
    pub since: Instant,
    /// When it ends; `None`: when an operator lifts it.
    pub until: Option<Instant>,
    /// Whether the kernel drops the source; `false`: a would-be ban, recorded only.
    pub enforced: bool,
    /// An operator's words, if any.
    pub note: Option<Box<str>>,
}

impl Ban {
    /// Time left at `now`; `None` for a ban without end.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }
}
