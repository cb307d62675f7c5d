//! What a table is to be made of: the part of the configuration that the kernel carries out by itself.

use std::collections::BTreeSet;
use std::fmt;

use crate::core::policy::{OnLoss, OtherProtocols};
use crate::core::ports::PortSet;
use crate::core::prefix::{Prefix, PrefixSet};

/// IPv4 or IPv6: sets and rules are per family, because a set's key is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order of the table's rules.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of a prefix.
    pub fn of(prefix: &Prefix) -> Family {
        if prefix.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Bits of an address.
    pub fn width(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The digit in the names of sets.
    pub(super) fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }
}

/// Numbers by which packets find their worker. Fixed for the life of a table, read back when it is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Worker 0's queue of new flows; the others follow.
    pub queue_base: u16,
    /// Worker 0's log group; the others follow.
    pub log_base: u16,
    /// How many workers share the sources.
    pub workers: u16,
    /// Seed of the hash that gives a source its worker.
    pub seed: u32,
}

impl Layout {
    /// Verdict queue of flows that conntrack calls new.
    pub fn new_queue(&self, worker: u16) -> u16 {
        self.queue_base + worker
    }

    /// Verdict queue of packets that conntrack calls invalid or untracked.
    pub fn odd_queue(&self, worker: u16) -> u16 {
        self.queue_base + self.workers + worker
    }

    /// Every verdict queue: the new ones of all workers, then the odd ones.
    pub fn queues(&self) -> impl Iterator<Item = u16> + use<> {
        let base = self.queue_base;
        (0..2 * self.workers).map(move |offset| base + offset)
    }

    /// Log group of copies.
    pub fn log_group(&self, worker: u16) -> u16 {
        self.log_base + worker
    }
}

/// How a rule hands a packet to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The `queue` expression of nftables (CONFIG_NFT_QUEUE).
    Native,
    /// The NFQUEUE target of xtables, revision 3, through nft_compat.
    Xt,
}

impl Backend {
    /// The words of `status`.
    pub fn word(self) -> &'static str {
        match self {
            Backend::Native => "nft queue",
            Backend::Xt => "xt NFQUEUE",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Everything the table depends on.
///
/// Expected of the caller, as the configuration grants it: at least one worker, queue and group numbers that
/// do not overflow, interface names of 1 to 15 bytes without blanks, quotes or slashes (a trailing `*` stands
/// for any ending), prefix lengths within their family.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Nothing is held and nothing refused: copies only, and no conntrack.
    pub observing: bool,
    /// Ports that are not allowed are refused.
    pub filter_ports: bool,
    /// Queue numbers, log groups, workers and the seed.
    pub layout: Layout,
    /// How packets are handed to queues.
    pub backend: Backend,
    /// What packets meet while nobody listens to their queue.
    pub on_loss: OnLoss,
    /// Networks that are neither counted nor banned.
    pub trusted: PrefixSet,
    /// TCP ports that stay open when ports are filtered.
    pub tcp_allowed: PortSet,
    /// UDP ports that stay open when ports are filtered.
    pub udp_allowed: PortSet,
    /// What other protocols meet when ports are filtered.
    pub other_protocols: OtherProtocols,
    /// Interfaces of guests and containers: not filtered, not counted, but bans hold there.
    pub internal_interfaces: Vec<String>,
    /// Length of the IPv6 prefix that is one source.
    pub v6_prefix: u8,
    /// How many elements each set of bans holds.
    pub ban_set_size: u32,
    /// Prefix lengths that have a set of bans beside `banned4` (addresses) and `banned6` (/64).
    pub prefix_sets: BTreeSet<(Family, u8)>,
    /// `net.ipv4.ip_local_port_range`: where answers to the host's own connections arrive.
    pub ephemeral: (u16, u16),
}

impl Spec {
    /// Whether new connections pass where their worker hangs, which takes a heartbeat of each worker.
    pub fn has_switch(&self) -> bool {
        !self.observing && self.on_loss == OnLoss::Open
    }

    /// Every (family, length) that has a set of bans, in the order of their rules.
    pub fn ban_sets(&self) -> BTreeSet<(Family, u8)> {
        let mut sets = self.prefix_sets.clone();
        sets.extend([(Family::V4, 32), (Family::V6, 64), (Family::V6, self.v6_prefix)]);
        sets
    }

    /// Makes room for bans of prefixes as long as `target`, if there is none.
    pub fn add_prefix_set(&mut self, target: &Prefix) {
        let family = Family::of(target);
        let set = (family, target.len());
        if !self.ban_sets().contains(&set) {
            self.prefix_sets.insert(set);
        }
    }
}

/// Name of the set that holds bans of prefixes of length `len`.
pub fn ban_set_name(family: Family, len: u8) -> String {
    match (family, len) {
        (Family::V4, 32) => "banned4".into(),
        (Family::V6, 64) => "banned6".into(),
        _ => format!("banned{}_{len}", family.digit()),
    }
}

/// What [`ban_set_name`] made `name` of, if it is the name of a set of bans.
pub fn parse_ban_set_name(name: &str) -> Option<(Family, u8)> {
    let rest = name.strip_prefix("banned")?;
    let (family, len) = match rest.split_at_checked(1)? {
        ("4", "") => (Family::V4, 32),
        ("6", "") => (Family::V6, 64),
        ("4", len) => (Family::V4, len.strip_prefix('_')?.parse().ok()?),
        ("6", len) => (Family::V6, len.strip_prefix('_')?.parse().ok()?),
        _ => return None,
    };
    (len <= family.width() && ban_set_name(family, len) == name).then_some((family, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_there_are_can_be_used() {
        let layout = Layout {
            queue_base: u16::MAX - 3,
            log_base: u16::MAX - 1,
            workers: 2,
            seed: 0,
        };
        assert_eq!(layout.queues().collect::<Vec<_>>(), [65532, 65533, 65534, 65535]);
        assert_eq!((layout.odd_queue(1), layout.log_group(1)), (65535, 65535));
    }

    #[test]
    fn names_of_ban_sets_are_read_as_they_are_written() {
        for family in Family::ALL {
            for len in 0..=family.width() {
                let name = ban_set_name(family, len);
                assert_eq!(parse_ban_set_name(&name), Some((family, len)), "{name}");
            }
        }
        for name in [
            "banned",
            "banned5",
            "banned4_33",
            "banned4_032",
            "banned4_32",
            "trusted4",
            "banned6_",
        ] {
            assert_eq!(parse_ban_set_name(name), None, "{name}");
        }
    }
}
