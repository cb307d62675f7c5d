//! What another configuration changes, in plain words: for who reads it before saying yes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::cli::check::{closed_among, closing_lines};
use crate::cli::print::{counted, plain};
use crate::config::Config;
use crate::control::wire::BanView;
use crate::core::policy::{OtherProtocols, Policy};
use crate::core::ports::PortSet;
use crate::core::prefix::Prefix;
use crate::core::verdict::Proto;
use crate::engine::{lockout, reload};
use crate::kernel::facts::services::{self, Service};
use crate::kernel::host;
use crate::kernel::sockets::{self, Connection};

/// What is the case on this host now, as far as it can be told.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) listeners: Vec<Service>,
    pub(super) connections: Vec<Connection>,
    pub(super) local_ports: Option<RangeInclusive<u16>>,
    pub(super) bans: Vec<BanView>,
    /// What cannot be told, and why.
    pub(super) unknown: Vec<String>,
}

/// What changes.
#[derive(Debug, Default, Serialize)]
pub(super) struct Difference {
    /// The mode that is in force.
    pub(super) from: String,
    /// The mode that comes.
    pub(super) to: String,
    /// Ports that strangers no longer reach.
    pub(super) closes: Vec<String>,
    /// Ports that they reach from now on.
    pub(super) opens: Vec<String>,
    /// Listeners of this host behind ports that close, with their programs.
    pub(super) listeners_closed: Vec<String>,
    /// The same behind ports that open.
    pub(super) listeners_opened: Vec<String>,
    /// Who is connected to ports that close, and goes on until the connection ends.
    pub(super) connected: Vec<String>,
    /// Networks that are neither counted nor banned from now on.
    pub(super) trusted_added: Vec<String>,
    /// Networks that are counted and banned from now on.
    pub(super) trusted_removed: Vec<String>,
    /// Recorded offenders that are banned from now on.
    pub(super) bans_begin: Vec<String>,
    /// Bans that are only recorded from now on.
    pub(super) bans_end: u64,
    /// Every setting that changes, but for mode, ports and trusted networks.
    pub(super) settings: Vec<String>,
    /// What the engine takes up at its next start only.
    pub(super) at_next_start: Vec<String>,
    /// What could not be looked at.
    pub(super) unknown: Vec<String>,
    /// Whether anything that passes now is refused then, or may be: who is banned or no longer trusted.
    pub(super) narrows: bool,
}

impl World {
    /// Looks around in the network namespace of the calling thread.
    pub(super) fn look(bans: Vec<BanView>) -> World {
        let mut world = World {
            bans,
            ..World::default()
        };
        let unknown = &mut world.unknown;
        let mut told = |what: &str, error: &dyn std::error::Error| unknown.push(format!("{what}: {error}"));
        match services::services() {
            Ok(listeners) => world.listeners = listeners,
            Err(error) => told("which listeners close", &error),
        }
        match sockets::connections() {
            Ok(connections) => world.connections = connections,
            Err(error) => told("who is connected", &error),
        }
        match host::gather() {
            Ok(facts) => world.local_ports = Some(facts.local_ports),
            Err(error) => told("which ports this host's own connections use", &error),
        }
        world
    }
}

impl Difference {
    /// From `old` to `new`.
    pub(super) fn between(old: &Config, new: &Config, world: World) -> Difference {
        let (before, after) = (&old.policy, &new.policy);
        let local_ports = world.local_ports.clone().unwrap_or(0..=0);
        let between = |from: &Policy, to: &Policy| {
            let mut open = world.listeners.clone();
            open.retain(|service| !lockout::closes(from, &service.listener, &local_ports));
            closing_lines(&closed_among(&open, to, &local_ports))
        };
        let (settings, at_next_start) = settings(old, new);
        let ports = |from: &Policy, to: &Policy| {
            let protos = [Proto::Tcp, Proto::Udp];
            protos
                .into_iter()
                .filter_map(|proto| narrowed(from, to, proto))
                .collect::<Vec<String>>()
        };
        let closing = ports(before, after);
        let other =
            |policy: &Policy| policy.mode.filters_ports() && policy.other_protocols == OtherProtocols::Drop;
        let (added, removed) = exchanged(before, after);
        let begin = match (before.enforce, after.enforce) {
            (false, true) => begin(&world),
            _ => Vec::new(),
        };
        let shuts_out = (other(after) && !other(before)) || shuts_out_guests(old, new);
        Difference {
            from: before.mode.to_string(),
            to: after.mode.to_string(),
            narrows: shuts_out || [&closing, &removed, &begin].iter().any(|of| !of.is_empty()),
            closes: closing,
            opens: ports(after, before),
            listeners_closed: between(before, after),
            listeners_opened: between(after, before),
            connected: connected(before, after, &world),
            trusted_added: added,
            trusted_removed: removed,
            bans_begin: begin,
            bans_end: match (before.enforce, after.enforce) {
                (true, false) => world
                    .bans
                    .iter()
                    .filter(|ban| ban.enforced && ban.reason != "manual")
                    .count() as u64,
                _ => 0,
            },
            settings,
            at_next_start,
            unknown: world.unknown,
        }
    }

    /// In lines, the most important first.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.from == self.to {
            true => lines.push(format!("mode: {} (as before)", self.to)),
            false => lines.push(format!("mode: {} → {}", self.from, self.to)),
        }
        let mut told = |title: &str, items: &[String]| {
            if !items.is_empty() {
                lines.push(format!("{title}:"));
                lines.extend(items.iter().map(|item| format!("  {}", plain(item))));
            }
        };
        told("ports that close, for trusted sources too", &self.closes);
        told(
            "listeners of this host behind them, closed but to internal interfaces",
            &self.listeners_closed,
        );
        told(
            "connected to ports that close: what is open goes on, a new connection is refused",
            &self.connected,
        );
        told("ports that open", &self.opens);
        told("listeners of this host behind them", &self.listeners_opened);
        told(
            "trusted from now on, neither counted nor banned; their bans are lifted",
            &self.trusted_added,
        );
        told("no longer trusted", &self.trusted_removed);
        told("recorded offenders that are banned from now on", &self.bans_begin);
        if self.bans_end > 0 {
            let bans = counted(self.bans_end, "ban");
            told(
                "no longer enforced",
                &[format!("{bans}, only recorded from now on")],
            );
        }
        told("settings that change", &self.settings);
        told(
            "taken up at the next start of the engine only (verdictctl restart)",
            &self.at_next_start,
        );
        told("what could not be found out", &self.unknown);
        lines
    }
}

/// Settings that change now, and those that change at the next start. What is told apart is not told twice.
fn settings(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let apart = [
        "firewall.firewall_mode",
        "allowed_ports.tcp",
        "allowed_ports.udp",
        "trusted",
    ];
    let later = " (at the next start)";
    let changes = reload::changes(old, new).into_iter();
    let (then, now): (Vec<String>, Vec<String>) = changes
        .filter(|line| !apart.iter().any(|key| line.starts_with(&format!("{key}: "))))
        .partition(|line| line.ends_with(later));
    (now, then.iter().map(|line| line.replace(later, "")).collect())
}

/// Whether a network whose guests no filter concerned is filtered from now on.
fn shuts_out_guests(old: &Config, new: &Config) -> bool {
    let stays = |name| new.engine.internal_interfaces.contains(name);
    new.policy.mode.filters_ports() && !old.engine.internal_interfaces.iter().all(stays)
}

/// The ports of `proto` that `from` lets in and `to` refuses.
fn narrowed(from: &Policy, to: &Policy, proto: Proto) -> Option<String> {
    let closed: PortSet = (0..=u16::MAX)
        .filter(|port| to.refuses(proto, *port) && !from.refuses(proto, *port))
        .collect();
    if closed.is_empty() {
        return None;
    }
    if from.mode.filters_ports() {
        return Some(format!("{proto} {closed}"));
    }
    let open = match proto {
        Proto::Tcp => &to.tcp_allowed,
        Proto::Udp => &to.udp_allowed,
    };
    Some(match open.is_empty() {
        true => format!("{proto}: every port"),
        false => format!("{proto}: every port but {open}"),
    })
}

fn exchanged(before: &Policy, after: &Policy) -> (Vec<String>, Vec<String>) {
    let of = |policy: &Policy| policy.trusted.iter().collect::<BTreeSet<Prefix>>();
    let (before, after) = (of(before), of(after));
    let words = |prefixes: std::collections::btree_set::Difference<'_, Prefix>| {
        prefixes.map(ToString::to_string).collect()
    };
    (words(after.difference(&before)), words(before.difference(&after)))
}

/// Who is connected to TCP ports that close, by port.
fn connected(before: &Policy, after: &Policy, world: &World) -> Vec<String> {
    let listening: BTreeSet<u16> = world
        .listeners
        .iter()
        .filter(|service| service.listener.proto == Proto::Tcp)
        .map(|service| service.listener.port)
        .collect();
    let mut ports: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for open in &world.connections {
        let port = open.local.port();
        let foreign = !open.peer.ip().is_loopback() && open.peer.ip() != open.local.ip();
        let closes = after.refuses(Proto::Tcp, port) && !before.refuses(Proto::Tcp, port);
        if foreign && closes && listening.contains(&port) {
            ports.entry(port).or_default().insert(open.peer.ip());
        }
    }
    let line = |(port, peers): (&u16, &BTreeSet<IpAddr>)| {
        format!("tcp {port}: {}", some_of(peers.iter(), MOST_PEERS))
    };
    ports.iter().map(line).collect()
}

/// Would-be bans that become real: an open connection of such a source is cut.
fn begin(world: &World) -> Vec<String> {
    let peers: BTreeSet<IpAddr> = world.connections.iter().map(|open| open.peer.ip()).collect();
    let is_connected = |ban: &BanView| {
        let source = Prefix::parse(&ban.source).map(|(prefix, _)| prefix);
        source.is_ok_and(|source| peers.iter().any(|peer| source.contains(*peer)))
    };
    let mut would_be: Vec<(bool, &BanView)> = world
        .bans
        .iter()
        .filter(|ban| !ban.enforced)
        .map(|ban| (!is_connected(ban), ban))
        .collect();
    // Who is connected first.
    would_be.sort_by_key(|(away, _)| *away);
    let more = would_be.len().saturating_sub(MOST_BANS);
    let mut lines: Vec<String> = would_be
        .iter()
        .take(MOST_BANS)
        .map(|(away, ban)| match away {
            true => format!("{} ({})", ban.source, ban.reason),
            false => format!(
                "{} ({}), connected now: its connections are cut",
                ban.source, ban.reason
            ),
        })
        .collect();
    if more > 0 {
        lines.push(format!("and {more} more: verdictctl list"));
    }
    lines
}

fn some_of<T: ToString>(items: impl ExactSizeIterator<Item = T>, most: usize) -> String {
    let more = items.len().saturating_sub(most);
    let mut words: Vec<String> = items.take(most).map(|item| item.to_string()).collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

/// As many as somebody reads before saying yes.
const MOST_PEERS: usize = 8;
const MOST_BANS: usize = 10;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::kernel::sockets::Listener;

    fn parse(text: &str) -> Config {
        config::parse(text, Path::new("f.toml")).unwrap()
    }

    fn firewall(rest: &str) -> Config {
        parse(&format!("[firewall]\nfirewall_mode = \"firewall\"\n{rest}"))
    }

    fn world() -> World {
        let listener = |proto, port, addr: &str| {
            let addr = addr.parse().unwrap();
            Service {
                listener: Listener { proto, port, addr },
                programs: BTreeSet::new(),
            }
        };
        let open = |local: &str, peer: &str| Connection {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            inode: 0,
        };
        let ban = |source: &str, enforced| BanView {
            source: source.into(),
            reason: "port_scanning".into(),
            enforced,
            ..BanView::default()
        };
        World {
            listeners: vec![
                listener(Proto::Tcp, 22, "0.0.0.0"),
                listener(Proto::Tcp, 3306, "::"),
                listener(Proto::Tcp, 631, "127.0.0.1"),
                listener(Proto::Udp, 53, "0.0.0.0"),
            ],
            connections: vec![
                open("192.0.2.1:22", "198.51.100.7:50000"),
                open("192.0.2.1:3306", "198.51.100.8:50000"),
                open("192.0.2.1:3306", "198.51.100.8:50001"),
                open("127.0.0.1:3306", "127.0.0.1:50001"),
                open("192.0.2.1:40000", "203.0.113.1:443"),
            ],
            local_ports: Some(32768..=60999),
            bans: vec![
                ban("203.0.113.9", false),
                ban("198.51.100.8", false),
                ban("203.0.113.7", true),
            ],
            unknown: Vec::new(),
        }
    }

    #[test]
    fn the_first_switch_says_what_closes_and_who_is_there() {
        let old = parse("[bans]\nenforce = false\n");
        let new = firewall("[allowed_ports]\ntcp = [22]\n[trusted]\nips = [\"10.0.0.0/8\"]\n");
        let found = Difference::between(&old, &new, world());
        assert!(found.narrows);
        assert_eq!(found.closes, ["tcp: every port but 22", "udp: every port"]);
        assert_eq!(
            found.listeners_closed,
            ["tcp 3306 on every address", "udp 53 on every IPv4 address"]
        );
        assert_eq!(found.connected, ["tcp 3306: 198.51.100.8"]);
        assert_eq!(found.trusted_added, ["10.0.0.0/8"]);
        assert_eq!(
            found.bans_begin,
            [
                "198.51.100.8 (port_scanning), connected now: its connections are cut",
                "203.0.113.9 (port_scanning)"
            ]
        );
        let text = found.lines().join("\n");
        assert!(
            text.starts_with("mode: detection_only → firewall\nports that close"),
            "{text}"
        );
        assert!(text.contains("  bans.enforce: false → true"), "{text}");
        assert!(!text.contains("allowed_ports.tcp"), "{text}");
    }

    #[test]
    fn between_two_filters_only_the_ports_that_differ_are_told() {
        let old = firewall("[allowed_ports]\ntcp = [22, 80]\n");
        let new = firewall("[allowed_ports]\ntcp = [22]\nudp = [53]\n[engine]\nworkers = 3\n");
        let found = Difference::between(&old, &new, world());
        assert_eq!(
            (found.closes, found.opens),
            (vec!["tcp 80".to_owned()], vec!["udp 53".to_owned()])
        );
        assert_eq!(found.listeners_opened, ["udp 53 on every IPv4 address"]);
        assert!(
            found.at_next_start[0].starts_with("engine.workers: "),
            "{:?}",
            found.at_next_start
        );
        let guests = |names: &str| {
            firewall(&format!(
                "[allowed_ports]\ntcp = [22]\n[engine]\ninternal_interfaces = [{names}]\n"
            ))
        };
        let between = |from, to| Difference::between(&guests(from), &guests(to), World::default()).narrows;
        assert!(between("\"wg0\"", "\"br-*\"") && !between("\"wg0\"", "\"wg0\", \"br-*\""));
        // Nothing closes, but whom that concerns may be who types it.
        let trusting = firewall("[allowed_ports]\ntcp = [22]\n[trusted]\nips = [\"10.0.0.0/8\"]\n");
        let trusted_by_none = firewall("[allowed_ports]\ntcp = [22]\n");
        assert!(Difference::between(&trusting, &trusted_by_none, World::default()).narrows);
        assert!(!Difference::between(&trusted_by_none, &trusting, World::default()).narrows);
        let observing = firewall("[allowed_ports]\ntcp = [22]\n[bans]\nenforce = false\n");
        assert!(Difference::between(&observing, &trusted_by_none, world()).narrows);
        assert!(!Difference::between(&observing, &trusted_by_none, World::default()).narrows);
        let back = Difference::between(&new, &old, World::default());
        assert!(back.narrows);
        assert_eq!(back.closes, ["udp 53"]);
    }

    #[test]
    fn what_opens_or_only_counts_narrows_nothing() {
        let old = firewall("[allowed_ports]\ntcp = [22]\n");
        for text in ["", "[firewall]\nmode = \"aggressive\"\n"] {
            assert!(
                !Difference::between(&old, &parse(text), world()).narrows,
                "{text}"
            );
        }
        let off = Difference::between(&old, &parse("[bans]\nenforce = false\n"), world());
        assert_eq!(
            (off.bans_end, off.opens),
            (
                1,
                vec!["tcp: every port but 22".to_owned(), "udp: every port".to_owned()]
            )
        );
    }

    #[test]
    fn other_protocols_count_as_closed() {
        let old = firewall("[allowed_ports]\ntcp = [22]\n");
        let new = firewall("other_protocols = \"drop\"\n[allowed_ports]\ntcp = [22]\n");
        let found = Difference::between(&old, &new, World::default());
        assert!(found.narrows && found.closes.is_empty());
        assert_eq!(found.settings, ["firewall.other_protocols: pass → drop"]);
    }
}
