//! Which lines a stream of refused packets becomes: one a source and port, bounded, the rest summed up.
//!
//! Pure: time is an argument. A scan of every port, or a flood of forged sources, is a handful of lines a minute.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::text::grouped;
use super::throttle::Throttle;
use crate::core::probe::{Probe, Transport};
use crate::core::verdict::Proto;

/// One packet that the port filter refused: small and of fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who sent it, or claims to.
    pub source: IpAddr,
    /// What it was for.
    pub target: Target,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A port.
    Port(Proto, u16),
    /// A whole protocol, by its number (`other_protocols = "drop"`).
    Protocol(u8),
}

impl From<&Probe> for Refusal {
    fn from(probe: &Probe) -> Refusal {
        let target = match probe.transport {
            Transport::Tcp { dport, .. } | Transport::TinyFragment { dport } => {
                Target::Port(Proto::Tcp, dport)
            }
            Transport::Udp { dport, .. } => Target::Port(Proto::Udp, dport),
            Transport::Icmp if probe.src.is_ipv4() => Target::Protocol(1),
            Transport::Icmp => Target::Protocol(58),
            Transport::Other(number) => Target::Protocol(number),
        };
        Refusal {
            source: probe.src,
            target,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Port(proto, port) => write!(f, "{proto}/{port}"),
            Target::Protocol(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What the audit log writes down: packets of one source to one target, or summed up. All shares of a minute and its
/// [`Line::Refused`] together are every packet that was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Who; `None`: several.
    pub source: Option<IpAddr>,
    /// For what; `None`: several.
    pub target: Option<Target>,
    /// How many.
    pub packets: u64,
    /// Of how many targets, at least, where there are several.
    pub targets: Option<u64>,
    /// Of how many sources, at least, where there are several.
    pub sources: Option<u64>,
}

/// A line to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first refusal of this source and target within a minute.
    Refused(Refusal),
    /// What else one source sent.
    More {
        /// Who.
        source: IpAddr,
        /// Packets without a line of their own.
        packets: u64,
        /// Targets without a line of their own.
        targets: u64,
    },
    /// What all other sources sent.
    Others {
        /// Packets without a line of their own.
        packets: u64,
        /// Of how many sources, at least.
        sources: u64,
    },
    /// Facts that found no room on their way here.
    Lost(u64),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Refused(refusal) => write!(f, "refused {} from {}", refusal.target, refusal.source),
            Line::More {
                source,
                packets,
                targets: 0,
            } => write!(f, "refused … and {} more from {source}", grouped(*packets)),
            Line::More {
                source,
                packets,
                targets,
            } => write!(
                f,
                "refused … and {} more from {source}, on {} more ports",
                grouped(*packets),
                grouped(*targets)
            ),
            Line::Others { packets, sources } => write!(
                f,
                "refused … and {} more from {} other sources",
                grouped(*packets),
                grouped(*sources)
            ),
            Line::Lost(count) => write!(
                f,
                "refused … and {} more that came too fast to be looked at",
                grouped(*count)
            ),
        }
    }
}

/// What was refused within the running minute.
#[derive(Debug)]
pub struct Refusals {
    sources: HashMap<IpAddr, Source>,
    /// What was refused already, and how many packets of it had no line of their own.
    seen: HashMap<(IpAddr, Target), u64>,
    lines: Throttle,
    /// Of sources for which there was no room.
    beyond: u64,
    closes_at: Option<Instant>,
}

#[derive(Debug)]
struct Source {
    lines: Throttle,
    packets: u64,
    targets: u64,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            // std's keyed hash: strangers choose the keys.
            sources: HashMap::new(),
            seen: HashMap::new(),
            lines: Throttle::new(ALL_LINES, PERIOD / ALL_LINES),
            beyond: 0,
            closes_at: None,
        }
    }
}

impl Refusals {
    /// Takes note of one refusal; the line that it is worth, if it is worth one.
    pub fn note(&mut self, refusal: Refusal, now: Instant) -> Option<Line> {
        self.closes_at.get_or_insert(now + PERIOD);
        if !self.sources.contains_key(&refusal.source) && self.sources.len() >= MAX_SOURCES {
            self.beyond += 1;
            return None;
        }
        let source = self.sources.entry(refusal.source).or_insert_with(Source::new);
        let key = (refusal.source, refusal.target);
        let is_new = !self.seen.contains_key(&key);
        if is_new && self.seen.len() < MAX_SEEN {
            self.seen.insert(key, 0);
        }
        // The source's own bound first: what it may not say takes nothing from the others.
        if is_new && source.lines.take(now) && self.lines.take(now) {
            return Some(Line::Refused(refusal));
        }
        source.packets += 1;
        source.targets += u64::from(is_new);
        self.seen.entry(key).and_modify(|untold| *untold += 1);
        None
    }

    /// What had no line of its own, in as many shares as a minute may have; to be asked before [`Refusals::close`].
    pub fn shares(&self) -> Vec<Share> {
        let mut untold: Vec<(IpAddr, Target, u64)> = self
            .seen
            .iter()
            .map(|(key, packets)| (key.0, key.1, *packets))
            .collect();
        untold.retain(|(_, _, packets)| *packets > 0);
        untold.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        untold.truncate(TARGET_SHARES);
        let mut rest: HashMap<IpAddr, (u64, u64)> = self
            .sources
            .iter()
            .map(|(source, had)| (*source, (had.packets, had.targets)))
            .collect();
        for (source, _, packets) in &untold {
            let left = rest.entry(*source).or_default();
            *left = (left.0.saturating_sub(*packets), left.1.saturating_sub(1));
        }
        let mut rest: Vec<(IpAddr, u64, u64)> = rest
            .into_iter()
            .map(|(source, (packets, targets))| (source, packets, targets))
            .collect();
        rest.retain(|(_, packets, _)| *packets > 0);
        rest.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let others = rest.split_off(rest.len().min(SOURCE_SHARES));
        let of_targets = untold.into_iter().map(|(source, target, packets)| Share {
            source: Some(source),
            target: Some(target),
            packets,
            ..Share::default()
        });
        let of_sources = rest.into_iter().map(|(source, packets, targets)| Share {
            source: Some(source),
            packets,
            targets: Some(targets.max(1)),
            ..Share::default()
        });
        let packets = others.iter().map(|(_, packets, _)| packets).sum::<u64>() + self.beyond;
        let of_others = (packets > 0).then(|| Share {
            packets,
            sources: Some(others.len() as u64 + u64::from(self.beyond > 0)),
            ..Share::default()
        });
        of_targets.chain(of_sources).chain(of_others).collect()
    }

    /// When [`Refusals::close`] is to be called; never while nothing was refused.
    pub fn closes_at(&self) -> Option<Instant> {
        self.closes_at
    }

    /// Ends the minute: what had no line of its own, summed up.
    pub fn close(&mut self, now: Instant) -> Vec<Line> {
        let mut quiet: Vec<(IpAddr, u64, u64)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.packets > 0)
            .map(|(address, source)| (*address, source.packets, source.targets))
            .collect();
        quiet.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let others = quiet.split_off(quiet.len().min(SUMMED_UP));
        let mut lines: Vec<Line> = quiet
            .into_iter()
            .map(|(source, packets, targets)| Line::More {
                source,
                packets,
                targets,
            })
            .collect();
        let packets = others.iter().map(|(_, packets, _)| packets).sum::<u64>() + self.beyond;
        if packets > 0 {
            lines.push(Line::Others {
                packets,
                sources: others.len() as u64 + u64::from(self.beyond > 0),
            });
        }
        self.sources.retain(|_, source| source.begin_anew(now));
        self.seen.clear();
        self.beyond = 0;
        self.closes_at = None;
        lines
    }
}

impl Source {
    fn new() -> Source {
        Source {
            lines: Throttle::new(SOURCE_LINES, PERIOD / SOURCE_LINES),
            packets: 0,
            targets: 0,
        }
    }

    /// Whether it is worth remembering beyond the minute.
    fn begin_anew(&mut self, now: Instant) -> bool {
        (self.packets, self.targets) = (0, 0);
        !self.lines.is_full(now)
    }
}

/// Repetitions within this time are summed up.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines of one source within it: as many as ports are tolerated by the usual preset, and the one that bans.
const SOURCE_LINES: u32 = 8;
/// Lines of all sources within it.
const ALL_LINES: u32 = 120;
/// Shares of a minute that name source and target, and that name a source only.
const TARGET_SHARES: usize = 200;
const SOURCE_SHARES: usize = 50;
/// Sources that are summed up by name.
const SUMMED_UP: usize = 5;
/// Bounds of what strangers can fill: some 10 MB together.
const MAX_SOURCES: usize = 16_384;
const MAX_SEEN: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(source: [u8; 4], port: u16) -> Refusal {
        Refusal {
            source: source.into(),
            target: Target::Port(Proto::Tcp, port),
        }
    }

    fn told(lines: &[Line]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_source_and_port_is_one_line_a_minute() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let first = refusals.note(refusal([203, 0, 113, 9], 3306), start).unwrap();
        assert_eq!(first.to_string(), "refused tcp/3306 from 203.0.113.9");
        for _ in 0..14 {
            assert_eq!(refusals.note(refusal([203, 0, 113, 9], 3306), start), None);
        }
        let end = refusals.closes_at().unwrap();
        assert_eq!(end, start + PERIOD);
        assert_eq!(
            told(&refusals.close(end)),
            ["refused … and 14 more from 203.0.113.9"]
        );
        assert_eq!(refusals.closes_at(), None);
        assert!(refusals.note(refusal([203, 0, 113, 9], 3306), end).is_some());
    }

    #[test]
    fn a_scan_of_every_port_is_a_handful_of_lines() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let lines = (1..=65_535)
            .filter_map(|port| refusals.note(refusal([203, 0, 113, 9], port), now))
            .count();
        assert_eq!(lines, 8);
        assert_eq!(
            told(&refusals.close(now + PERIOD)),
            ["refused … and 65,527 more from 203.0.113.9, on 65,527 more ports"]
        );
    }

    #[test]
    fn a_flood_of_sources_is_bounded_in_lines_and_memory() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let lines = (0..1_000_000u32)
            .filter_map(|number| refusals.note(refusal(number.to_be_bytes(), 22), now))
            .count();
        assert_eq!(lines, ALL_LINES as usize);
        assert!(refusals.sources.len() <= MAX_SOURCES && refusals.seen.len() <= MAX_SEEN);
        let summary = refusals.close(now + PERIOD);
        assert_eq!(summary.len(), SUMMED_UP + 1);
        let Some(Line::Others { packets, .. }) = summary.last() else {
            panic!("{summary:?}")
        };
        assert_eq!(*packets, 1_000_000 - u64::from(ALL_LINES) - SUMMED_UP as u64);
        assert!(refusals.close(now + PERIOD).is_empty());
    }

    #[test]
    fn one_loud_source_leaves_the_others_their_lines() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for port in 1..=10_000 {
            let _ = refusals.note(refusal([203, 0, 113, 9], port), now);
        }
        assert!(refusals.note(refusal([198, 51, 100, 7], 22), now).is_some());
    }

    #[test]
    fn every_packet_is_in_a_line_or_a_share_and_both_are_bounded() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let mut lines = 0;
        let floods =
            (0..50_000u32).map(|n| refusal([10, (n % 7) as u8, (n >> 8) as u8, n as u8], (n % 997) as u16));
        let one = (0..50_000u32).map(|n| refusal([203, 0, 113, 9], (n % 60_000) as u16));
        let few = (0..10_000u32).map(|n| refusal([198, 51, 100, (n % 9) as u8], 22));
        for fact in few.chain(one).chain(floods) {
            lines += u64::from(refusals.note(fact, now).is_some());
        }
        let shares = refusals.shares();
        let packets: u64 = shares.iter().map(|share| share.packets).sum();
        assert_eq!(lines + packets, 110_000);
        assert!(
            shares.len() <= TARGET_SHARES + SOURCE_SHARES + 1,
            "{}",
            shares.len()
        );
        let first = &shares[0];
        assert_eq!(first.target, Some(Target::Port(Proto::Tcp, 22)));
        assert_eq!(first.source, Some([198, 51, 100, 0].into()));
        refusals.close(now);
        assert_eq!(refusals.shares(), []);
    }

    #[test]
    fn protocols_without_ports_are_named_by_number() {
        let probe = |src: &str, transport| Probe {
            src: src.parse().unwrap(),
            dst: src.parse().unwrap(),
            transport,
        };
        for (probe, line) in [
            (
                probe("192.0.2.1", Transport::Other(132)),
                "refused protocol 132 from 192.0.2.1",
            ),
            (
                probe("192.0.2.1", Transport::Icmp),
                "refused protocol 1 from 192.0.2.1",
            ),
            (
                probe("2001:db8::1", Transport::Icmp),
                "refused protocol 58 from 2001:db8::1",
            ),
            (
                probe("2001:db8::1", Transport::Udp { sport: 1, dport: 161 }),
                "refused udp/161 from 2001:db8::1",
            ),
        ] {
            assert_eq!(Line::Refused(Refusal::from(&probe)).to_string(), line);
        }
    }
}
