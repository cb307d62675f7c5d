//! The table in nft's own words, for people to read and for `include`.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Ruleset;
use super::alive;
use super::model::{Chain, CtState, Interval, Key, Rule, Set, SetKind, Source, Step, mask};
use super::spec::{Backend, Family};
use super::uapi::{V4_FRAGMENT_OFFSET, V4_MORE_FRAGMENTS};
use crate::core::probe::TcpFlags;

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in ABOUT.lines() {
            writeln!(f, "{}", format!("# {line}").trim_end())?;
        }
        if self.spec.backend == Backend::Xt && !self.spec.observing {
            for line in ABOUT_XT.lines() {
                writeln!(f, "# {line}")?;
            }
        }
        writeln!(f, "table inet {} {{", super::TABLE)?;
        writeln!(f, "\tcomment \"{}\"", super::MARK)?;
        for set in &self.sets {
            write!(f, "\n{set}")?;
        }
        for chain in &self.chains {
            write!(f, "\n{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tset {} {{", self.name)?;
        writeln!(f, "\t\ttype {}", self.key)?;
        match &self.kind {
            SetKind::Bans { size } => {
                writeln!(f, "\t\tsize {size}\n\t\tflags timeout")?;
                writeln!(f, "\t\tgc-interval {}s", super::BAN_GC_SECONDS)?;
            }
            SetKind::Filter(_) => writeln!(f, "\t\tflags interval")?,
            SetKind::Limits => {
                writeln!(f, "\t\tsize {}\n\t\tflags dynamic,timeout", super::LIMIT_SET_SIZE)?;
                writeln!(f, "\t\ttimeout {}s", super::LIMIT_TIMEOUT_SECONDS)?;
            }
            SetKind::Alive { .. } => {
                writeln!(f, "\t\tsize {}\n\t\tflags dynamic,timeout", alive::SIZE)?;
                writeln!(f, "\t\ttimeout {}ms", alive::millis(alive::BEAT_LASTS))?;
                writeln!(f, "\t\tgc-interval {}s", alive::GC_SECONDS)?;
            }
        }
        writeln!(f, "\t\tcomment \"{}\"", self.comment)?;
        if let SetKind::Filter(intervals) = &self.kind
            && !intervals.is_empty()
        {
            let elements: Vec<_> = intervals.iter().map(Interval::to_string).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\tcomment \"{}\"", self.comment)?;
        if let Some(priority) = self.priority {
            writeln!(
                f,
                "\t\ttype filter hook prerouting priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            write!(f, "{step} ")?;
        }
        write!(f, "comment \"{}\"", self.comment)
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Step::Interface(name) => write!(f, "iifname \"{name}\""),
            Step::CtReply => f.write_str("ct direction reply"),
            Step::Ct(states) => {
                let words: Vec<_> = states.iter().map(|state| state.word()).collect();
                write!(f, "ct state {}", words.join(","))
            }
            Step::NotLocal => f.write_str("fib daddr type != local"),
            Step::OwnSocket => f.write_str("socket wildcard 0"),
            Step::TcpFlags { mask, value } => {
                write!(f, "tcp flags & ({}) == {}", flags(*mask), flags(*value))
            }
            Step::Dport { proto, range, within } => {
                let not = if *within { "" } else { "!= " };
                write!(f, "{proto} dport {not}{}-{}", range.0, range.1)
            }
            Step::DportNotIn { proto, set } => write!(f, "{proto} dport != @{set}"),
            Step::UdpPorts { sport, dport } => write!(f, "udp sport {sport} udp dport {dport}"),
            Step::LinkLocalSource => f.write_str("ip6 saddr fe80::/10"),
            Step::SourceIn(source, set) => write!(f, "{source} @{set}"),
            Step::EchoRequest(Family::V4) => f.write_str("icmp type echo-request"),
            Step::EchoRequest(Family::V6) => f.write_str("icmpv6 type echo-request"),
            Step::FragmentationNeeded => {
                f.write_str("icmp type destination-unreachable icmp code frag-needed")
            }
            Step::Vital6 => write!(f, "icmpv6 type {{ {} }}", VITAL6.map(|(_, word)| word).join(", ")),
            Step::Icmp => f.write_str("meta l4proto { icmp, ipv6-icmp }"),
            Step::NotTcpOrUdp => f.write_str("meta l4proto != { tcp, udp }"),
            Step::FirstFragment(Family::V4) => {
                write!(f, "ip frag-off & {V4_MORE_FRAGMENTS} != 0 meta l4proto tcp")
            }
            Step::FirstFragment(Family::V6) => f.write_str("frag more-fragments 1 meta l4proto tcp"),
            Step::LaterFragment(Family::V4) => write!(f, "ip frag-off & {V4_FRAGMENT_OFFSET} != 0"),
            Step::LaterFragment(Family::V6) => f.write_str("frag frag-off != 0"),
            Step::OverLimit(source, set) => {
                let (rate, burst) = (super::LIMIT_PER_SECOND, super::LIMIT_BURST);
                write!(
                    f,
                    "update @{set} {{ {source} limit rate over {rate}/second burst {burst} packets }}"
                )
            }
            Step::OverRate { per_second, burst } => {
                write!(f, "limit rate over {per_second}/second burst {burst} packets")
            }
            Step::Beat => write!(f, "meta mark & {:#x} == {:#x}", alive::MARK_MASK, alive::MARK),
            Step::Revive => write!(f, "update @{} {{ meta mark }}", alive::ALIVE),
            Step::Silent(worker) => {
                let mark = alive::mark(*worker);
                write!(f, "meta mark & 0x0 | {mark:#x} != @{}", alive::ALIVE)
            }
            Step::Counter => f.write_str("counter"),
            Step::Log { group, fate } => {
                let (snaplen, threshold) = (super::SNAPLEN, super::LOG_THRESHOLD);
                write!(
                    f,
                    "log prefix \"{}\" group {group} snaplen {snaplen} queue-threshold {threshold}",
                    fate.word()
                )
            }
            Step::Queue { number, bypass: true } => write!(f, "queue flags bypass to {number}"),
            Step::Queue {
                number,
                bypass: false,
            } => write!(f, "queue to {number}"),
            Step::Split { source, seed, chains } => {
                write!(f, "jhash {source} mod {} seed {seed:#x} vmap {{ ", chains.len())?;
                for (at, chain) in chains.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{at} : goto {chain}")?;
                }
                f.write_str(" }")
            }
            Step::Goto(chain) => write!(f, "goto {chain}"),
            Step::Accept => f.write_str("accept"),
            Step::Drop => f.write_str("drop"),
        }
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let field = match self.family {
            Family::V4 => "ip saddr",
            Family::V6 => "ip6 saddr",
        };
        if self.len == self.family.width() {
            return f.write_str(field);
        }
        let mask = mask(self.len, usize::from(self.family.width() / 8));
        write!(f, "{field} & {}", value(&mask))
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Key::Addr(Family::V4) => "ipv4_addr",
            Key::Addr(Family::V6) => "ipv6_addr",
            Key::Port => "inet_service",
            Key::Mark => "mark",
        })
    }
}

impl Display for Interval {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, last) = (value(&self.first), value(&self.last));
        if first == last {
            return f.write_str(&first);
        }
        match self.prefix_len() {
            Some(len) if self.first.len() > 2 => write!(f, "{first}/{len}"),
            _ => write!(f, "{first}-{last}"),
        }
    }
}

impl Interval {
    /// The length, if the interval is exactly one prefix.
    fn prefix_len(&self) -> Option<u8> {
        let bits = 8 * self.first.len() as u8;
        let differ = |host: &[u8]| {
            self.first
                .iter()
                .zip(&self.last)
                .zip(host)
                .all(|((a, b), h)| a & h == 0 && a | h == *b)
        };
        (0..=bits).find(|len| {
            let host: Vec<u8> = mask(*len, self.first.len()).iter().map(|byte| !byte).collect();
            differ(&host)
        })
    }
}

impl CtState {
    fn word(self) -> &'static str {
        match self {
            CtState::Invalid => "invalid",
            CtState::Established => "established",
            CtState::Related => "related",
            CtState::New => "new",
            CtState::Untracked => "untracked",
        }
    }
}

/// A key's value as nft writes it.
fn value(bytes: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ipv4Addr::from(octets).to_string()
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ipv6Addr::from(octets).to_string()
    } else {
        bytes
            .iter()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte))
            .to_string()
    }
}

fn flags(flags: u8) -> String {
    let names = [
        (TcpFlags::FIN, "fin"),
        (TcpFlags::SYN, "syn"),
        (TcpFlags::RST, "rst"),
        (TcpFlags::ACK, "ack"),
    ];
    let words: Vec<_> = names
        .iter()
        .filter(|(flag, _)| flags & flag.0 != 0)
        .map(|(_, word)| *word)
        .collect();
    match words.as_slice() {
        [] => "0x0".into(),
        words => words.join("|"),
    }
}

/// ICMPv6 types that no policy stops: packet too big, MLD (RFC 2710, 3810), neighbour discovery (RFC 4861).
pub(super) const VITAL6: [(u8, &str); 9] = [
    (2, "packet-too-big"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (143, "mld2-listener-report"),
];

const ABOUT: &str = "\
The table of verdictd, the NFQUEUE verdict engine, as the engine loads it by netlink.

It holds the policy by itself: a stopped engine changes nothing about what is refused, trusted or banned.
What is new goes to one verdict queue per worker, chosen by a hash of the source. `bypass` lets it pass
while no engine listens; while one listens and hangs, its workers are missing in the set alive, and what
is theirs passes by chain unjudged. Bans are elements with timeouts in the sets banned4 and banned6.

To load it from your own nftables.conf: include this file, and set `manage_ruleset = false` in the section
[engine] of verdictd.toml. Do not change the seed while an engine runs; numbers and seed are read from here.
Never delete a base chain while packets wait: the kernel drops those.";

const ABOUT_XT: &str = "\
This kernel has no `queue` expression: the engine loads the NFQUEUE target of xtables in its place, which nft
can list but not load. This text is for kernels that have it.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_nft_lists_them() {
        let interval = |first: &[u8], last: &[u8]| {
            let (first, last) = (first.to_vec(), last.to_vec());
            Interval { first, last }.to_string()
        };
        assert_eq!(interval(&[10, 0, 0, 0], &[10, 255, 255, 255]), "10.0.0.0/8");
        assert_eq!(interval(&[10, 0, 0, 7], &[10, 0, 0, 7]), "10.0.0.7");
        assert_eq!(interval(&[10, 0, 0, 1], &[10, 0, 0, 2]), "10.0.0.1-10.0.0.2");
        assert_eq!(interval(&[0, 22], &[0, 22]), "22");
        assert_eq!(interval(&[0x17, 0x70], &[0x17, 0x7a]), "6000-6010");
        assert_eq!(interval(&[0, 0], &[255, 255]), "0-65535");
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(flags(0x17), "fin|syn|rst|ack");
        assert_eq!(flags(0x02), "syn");
        assert_eq!(flags(0), "0x0");
    }
}
