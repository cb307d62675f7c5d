//! The table as a value: sets, chains, rules, and what rules are made of. Every step of a rule has exactly two
//! renderings, in [`super::text`] and in [`super::encode`]; nothing else in this room knows nft's grammar or
//! the kernel's expressions.

use std::net::IpAddr;

use super::alive;
use super::spec::Family;
use crate::core::ports::PortSet;
use crate::core::prefix::{Prefix, PrefixSet};
use crate::core::verdict::Proto;
use crate::kernel::log::Fate;

/// A named set.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) kind: SetKind,
    pub(super) comment: String,
}

/// What a set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Addr(Family),
    Port,
    Mark,
}

/// What a set is for, which settles its flags and who fills it.
#[derive(Clone, Debug)]
pub(super) enum SetKind {
    /// Bans: elements come and go by netlink and by their timeouts; never flushed, never deleted.
    Bans { size: u32 },
    /// Fixed by the configuration: flushed and filled whenever the table is applied.
    Filter(Vec<Interval>),
    /// Filled by rules, one rate limit an element.
    Limits,
    /// The workers that have let hear of themselves; kept alive by rules, given so many at first.
    Alive { workers: u16 },
}

/// First and last value of a range, in network byte order, as wide as the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
}

/// A chain; a base chain if it has a priority (always prerouting, always `policy accept`).
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) priority: Option<i32>,
    pub(super) comment: String,
    pub(super) rules: Vec<Rule>,
}

/// Steps are carried out in turn; the first that does not match ends the rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) steps: Vec<Step>,
    pub(super) comment: String,
}

/// A source's address, masked to the length of what counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) family: Family,
    pub(super) len: u8,
}

/// One match or statement of a rule.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Came in on this interface; a trailing `*` stands for any ending.
    Interface(String),
    /// Goes in the direction of answers to what this host (or a guest) began.
    CtReply,
    /// Conntrack's word for it is one of these.
    Ct(&'static [CtState]),
    /// Not addressed to this host.
    NotLocal,
    /// A socket of this host is bound to exactly this address (connected, usually).
    OwnSocket,
    /// TCP, and of the flags in the mask exactly these are set.
    TcpFlags {
        mask: u8,
        value: u8,
    },
    /// Destination port within, or outside, a range.
    Dport {
        proto: Proto,
        range: (u16, u16),
        within: bool,
    },
    /// Destination port not in a set.
    DportNotIn {
        proto: Proto,
        set: &'static str,
    },
    /// UDP between these ports.
    UdpPorts {
        sport: u16,
        dport: u16,
    },
    /// IPv6 source is link-local.
    LinkLocalSource,
    /// Source (masked) in a set.
    SourceIn(Source, String),
    /// ICMP echo request.
    EchoRequest(Family),
    /// ICMP fragmentation needed: path-MTU discovery of IPv4.
    FragmentationNeeded,
    /// Neighbour discovery, multicast listener discovery and packet-too-big of IPv6.
    Vital6,
    /// ICMP or ICMPv6.
    Icmp,
    /// Neither TCP nor UDP.
    NotTcpOrUdp,
    /// A fragment that does not begin its packet: it has no ports and no flags, and nft may read something else
    /// as such in it.
    LaterFragment(Family),
    /// TCP, in a fragment that others follow.
    FirstFragment(Family),
    /// This source came more often than its limit; limits are kept in a set.
    OverLimit(Source, &'static str),
    /// More come than so many a second, from whomever.
    OverRate {
        per_second: u64,
        burst: u32,
    },
    /// Carries the mark of a worker's beat.
    Beat,
    /// The worker of the beat lives.
    Revive,
    /// Nothing was heard of this worker for a while.
    Silent(u16),
    Counter,
    /// A copy to a log group, and what becomes of the packet.
    Log {
        group: u16,
        fate: Fate,
    },
    /// To a verdict queue.
    Queue {
        number: u16,
        bypass: bool,
    },
    /// To the chain of the source's worker.
    Split {
        source: Source,
        seed: u32,
        chains: Vec<String>,
    },
    Goto(&'static str),
    Accept,
    Drop,
}

/// Words of conntrack (include/uapi/linux/netfilter/nf_conntrack_common.h, as bits of nft's `ct state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CtState {
    Invalid = 1,
    Established = 2,
    Related = 4,
    New = 8,
    Untracked = 64,
}

impl Rule {
    pub(super) fn new(comment: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Rule {
        Rule {
            steps: steps.into_iter().collect(),
            comment: comment.into(),
        }
    }
}

impl Set {
    pub(super) fn bans(name: String, family: Family, size: u32, comment: String) -> Set {
        Set {
            name,
            key: Key::Addr(family),
            kind: SetKind::Bans { size },
            comment,
        }
    }

    pub(super) fn limits(name: &str, family: Family, comment: &str) -> Set {
        Set {
            name: name.into(),
            key: Key::Addr(family),
            kind: SetKind::Limits,
            comment: comment.into(),
        }
    }

    pub(super) fn alive(workers: u16) -> Set {
        Set {
            name: alive::ALIVE.into(),
            key: Key::Mark,
            kind: SetKind::Alive { workers },
            comment: "workers that beat".into(),
        }
    }

    pub(super) fn ports(name: &str, ports: &PortSet, comment: &str) -> Set {
        let intervals = ports.ranges().iter().map(|(first, last)| Interval {
            first: first.to_be_bytes().into(),
            last: last.to_be_bytes().into(),
        });
        Set {
            name: name.into(),
            key: Key::Port,
            kind: SetKind::Filter(intervals.collect()),
            comment: comment.into(),
        }
    }

    pub(super) fn networks(name: &str, family: Family, networks: &PrefixSet, comment: &str) -> Set {
        let intervals = networks
            .iter()
            .filter(|prefix| prefix.is_ipv4() == (family == Family::V4))
            .map(|prefix| Interval::of(&prefix))
            .collect();
        Set {
            name: name.into(),
            key: Key::Addr(family),
            kind: SetKind::Filter(merged(intervals)),
            comment: comment.into(),
        }
    }
}

impl Interval {
    fn of(prefix: &Prefix) -> Interval {
        let first = match prefix.addr() {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let host = mask(prefix.len(), first.len()).into_iter().map(|byte| !byte);
        let last = first.iter().zip(host).map(|(byte, host)| byte | host).collect();
        Interval { first, last }
    }

    /// The first value behind the interval; `None` if it ends with the last there is.
    pub(super) fn after(&self) -> Option<Vec<u8>> {
        let mut after = self.last.clone();
        for byte in after.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(after);
            }
        }
        None
    }
}

/// The netmask of `len` bits, `bytes` wide.
pub(super) fn mask(len: u8, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            let bits = usize::from(len).saturating_sub(8 * at).min(8);
            !(0xff_u16 >> bits) as u8
        })
        .collect()
}

/// Sorted, with overlapping and adjacent intervals made one: the kernel refuses overlaps.
fn merged(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort();
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        match merged.last_mut() {
            Some(previous) if previous.after().is_none_or(|after| interval.first <= after) => {
                previous.last = interval.last.max(std::mem::take(&mut previous.last));
            }
            _ => merged.push(interval),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(prefixes: &[&str]) -> Vec<Interval> {
        merged(
            prefixes
                .iter()
                .map(|text| Interval::of(&text.parse().unwrap()))
                .collect(),
        )
    }

    #[test]
    fn masks_of_every_length() {
        assert_eq!(mask(0, 4), [0; 4]);
        assert_eq!(mask(9, 4), [255, 128, 0, 0]);
        assert_eq!(mask(32, 4), [255; 4]);
        assert_eq!(mask(64, 16)[..9], [255, 255, 255, 255, 255, 255, 255, 255, 0]);
    }

    #[test]
    fn nested_and_adjacent_networks_become_one() {
        let made = intervals(&[
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.7",
            "10.0.2.0",
            "10.0.9.0/24",
        ]);
        assert_eq!(made.len(), 2);
        assert_eq!(made[0].first, [10, 0, 0, 0]);
        assert_eq!(made[0].last, [10, 0, 2, 0]);
    }

    #[test]
    fn the_last_address_has_nothing_behind_it() {
        let made = intervals(&["255.255.255.255", "255.0.0.0/8", "0.0.0.0"]);
        assert_eq!(made.len(), 2);
        assert_eq!(made[1].after(), None);
        assert_eq!(made[0].after(), Some(vec![0, 0, 0, 1]));
    }
}
