//! What is tolerated and what follows: thresholds, window, ladder, ports. Valid by type, immutable once built.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::attack::Distributed;
use super::ladder::Ladder;
use super::ports::PortSet;
use super::prefix::{Prefix, PrefixSet};
use super::verdict::Proto;

/// Which packets the kernel may refuse, and what an offence earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// No port is refused; offenders are banned if `enforce`.
    DetectionOnly,
    /// Ports that are not allowed are refused silently.
    Firewall,
    /// As firewall, with an audit trail.
    Corporate,
}

impl Mode {
    /// Whether ports are filtered.
    pub fn filters_ports(self) -> bool {
        !matches!(self, Mode::DetectionOnly)
    }

    /// Whether each refusal is told.
    pub fn tells_refusals(self) -> bool {
        matches!(self, Mode::Corporate)
    }

    /// The word of the config.
    pub fn word(self) -> &'static str {
        match self {
            Mode::DetectionOnly => "detection_only",
            Mode::Firewall => "firewall",
            Mode::Corporate => "corporate",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What happens to packets to allowed ports while the engine does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// They pass (queue bypass and NFQA_CFG_F_FAIL_OPEN).
    Open,
    /// They are dropped.
    Closed,
}

/// What other protocols than TCP, UDP and what always passes meet in firewall and corporate modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtherProtocols {
    /// They pass and are counted.
    Pass,
    /// They are refused.
    Drop,
}

/// Everything that a decision depends on and that does not change between two reloads.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which packets may be refused.
    pub mode: Mode,
    /// The preset's name as configured: `aggressive`, `standard`, `lenient` or `custom`.
    pub preset: Box<str>,
    /// Whether offenders are banned in the kernel, or only recorded.
    pub enforce: bool,
    /// Distinct ports of one source that are tolerated within `window`.
    pub ports_threshold: u32,
    /// The same, when all of them are UDP.
    pub udp_ports_threshold: u32,
    /// Stealth probes of one source that are tolerated within `window`.
    pub stealth_threshold: u32,
    /// Whether a port counts although the source completed a handshake on it, as in the Python system.
    pub count_completed: bool,
    /// Length of the sliding window.
    pub window: Duration,
    /// Ban lengths, first offence first.
    pub ladder: Ladder,
    /// After this long without a new offence the ladder starts from its first step again.
    pub forgive_after: Duration,
    /// Whether bans of an hour and more are lengthened by up to 3 %, so that they do not end together.
    pub jitter: bool,
    /// The longest ban of a source that never completed a handshake here; `None`: as the ladder says.
    pub unproven_cap: Option<Duration>,
    /// What makes many sources together an attack on one port.
    pub distributed: Distributed,
    /// More new bans than this within a minute stop the adding of bans.
    pub max_bans_per_minute: u32,
    /// TCP ports that are open in firewall and corporate modes.
    pub tcp_allowed: PortSet,
    /// UDP ports that are open in firewall and corporate modes.
    pub udp_allowed: PortSet,
    /// What other protocols meet.
    pub other_protocols: OtherProtocols,
    /// Networks that are neither counted nor banned.
    pub trusted: PrefixSet,
    /// Length of the IPv6 prefix that counts as one source (1..=128, 64 unless configured).
    pub v6_prefix: u8,
    /// How many sources all shards together remember.
    pub max_sources: usize,
}

impl Policy {
    /// What is judged and banned for `addr`: itself, or its IPv6 prefix.
    pub fn source_of(&self, addr: IpAddr) -> Prefix {
        Prefix::source_of(addr, self.v6_prefix)
    }

    /// Whether strangers find this port refused by policy.
    pub fn refuses(&self, proto: Proto, port: u16) -> bool {
        let allowed = match proto {
            Proto::Tcp => &self.tcp_allowed,
            Proto::Udp => &self.udp_allowed,
        };
        self.mode.filters_ports() && !allowed.contains(port)
    }

    /// Whether the table holds nothing back and the engine only watches copies.
    pub fn observes_only(&self) -> bool {
        !self.enforce && !self.mode.filters_ports()
    }
}
