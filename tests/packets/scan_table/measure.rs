//! One scan against one engine, and what of it is counted, by whom.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use serde_json::Value;

use super::kinds::{How, Kind, Speaks};
use crate::common::engine::Engine;
use crate::common::lab::{HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::set_elements;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

/// TCP ports that are open; the first three are allowed in firewall mode.
pub(super) const OPEN: [u16; 5] = [22, 80, 443, 3306, 8080];

/// Packets of our own.
pub(super) struct Shot {
    pub(super) flags: u8,
    /// For readers.
    pub(super) told: &'static str,
    /// Milliseconds between two.
    pub(super) pause: u64,
}

/// A lab with services, and witnesses of what comes back.
pub(super) struct Ground {
    pub(super) lab: Lab,
    _echo: Echo,
}

/// What a scan met.
#[derive(Debug)]
pub(super) struct Met {
    /// Packets that the engine counted as evidence, the one of the offence included.
    pub(super) until: u64,
    /// Ports that ever answered: SYN+ACK, RST, a datagram, or "unreachable".
    pub(super) answered: u64,
    /// The reason of the ban.
    pub(super) ban: Option<String>,
    enforced: bool,
}

impl Met {
    /// Whether it is what must come of it.
    pub(super) fn fits(&self, speaks: &Speaks) -> bool {
        match speaks {
            Speaks::No => self.ban.is_none(),
            Speaks::Within {
                probes,
                answers,
                reason,
            } => {
                self.ban.as_deref() == Some(reason)
                    && (1..=*probes).contains(&self.until)
                    && self.answered <= *answers
            }
        }
    }

    /// Three cells of the table.
    pub(super) fn cells(&self) -> String {
        let (until, ban) = match &self.ban {
            Some(reason) if self.enforced => (self.until.to_string(), reason.clone()),
            Some(reason) => (self.until.to_string(), format!("would be: {reason}")),
            None => ("–".into(), "**no**".into()),
        };
        format!("{until} | {} | {ban}", self.answered)
    }
}

/// The machine, the kernel, the tools and the day.
pub(super) fn setting() -> String {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let version = said("nmap", &["--version"]);
    let nmap = version.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let (kernel, machine) = (said("uname", &["-r"]), said("uname", &["-m"]));
    format!(
        "{}; Linux {kernel}, {machine}, {cpus} CPUs; {nmap}; preset standard.",
        said("date", &["+%F"])
    )
}

impl Ground {
    pub(super) fn new() -> Ground {
        let lab = Lab::new();
        lab.attacker
            .ip(&["-6", "route", "add", "local", "fd66::/16", "dev", "lo"]);
        // nmap -sT -6 binds to addresses that the route alone makes its own.
        lab.attacker.sysctl("net/ipv6/ip_nonlocal_bind", "1");
        lab.host
            .ip(&["-6", "route", "add", "fd66::/16", "via", "fd77::fe"]);
        watch(&lab.attacker);
        let _echo = Echo::both(&lab.host, &OPEN, &[53]);
        Ground { lab, _echo }
    }

    /// Does one scan after the other, from ever other addresses; `first` is the number of the first.
    pub(super) fn meet(&self, engine: &Engine<'_>, kinds: &[Kind], first: usize) -> Vec<Met> {
        let numbers = first + 1..;
        kinds
            .iter()
            .zip(numbers)
            .map(|(kind, number)| self.scan(engine, kind, number))
            .collect()
    }

    fn scan(&self, engine: &Engine<'_>, kind: &Kind, number: usize) -> Met {
        let v6 = matches!(kind.how, How::Nmap6(_));
        let (source, banned_as) = match v6 {
            false => (format!("10.88.{number}.1"), format!("10.88.{number}.1")),
            true => (format!("fd66:{number}::1"), format!("fd66:{number}::/64")),
        };
        let before = evidence(engine);
        let bans = engine.bans().len();
        self.send(kind, &source);
        // A copy or a ban may still be on its way: an offence waits `core::judge::HOLD` for handshakes.
        let wants = kind.speaks.iter().any(|speaks| !matches!(speaks, Speaks::No));
        within(if wants { ms(2500) } else { ms(1300) }, || {
            engine.ban_of(&banned_as).is_some()
        });
        let ban = engine.ban_of(&banned_as);
        // Decoys are banned like the scanner, each for probes of its own.
        let sources = (engine.bans().len() - bans).max(1) as u64;
        Met {
            until: (evidence(engine) - before) / sources,
            answered: answered(&self.lab.attacker, &source),
            enforced: ban.as_ref().is_some_and(|ban| ban["enforced"] == true),
            ban: ban.and_then(|ban| ban["reason"].as_str().map(str::to_owned)),
        }
    }

    fn send(&self, kind: &Kind, source: &str) {
        let (open, closed) = kind.targets();
        let ports = || open.iter().chain(&closed);
        let (args, host) = match &kind.how {
            How::Shots(shot) => {
                let mut gun = Gun::new(&self.lab.attacker, source, HOST);
                for port in ports() {
                    gun.tcp(*port, shot.flags);
                    thread::sleep(ms(shot.pause));
                }
                return;
            }
            How::Nmap(args) => ((*args).to_owned(), HOST),
            How::Nmap6(args) => (format!("-6 {args}"), HOST6),
        };
        let list: Vec<String> = ports().map(u16::to_string).collect();
        let mut nmap = Command::new("nmap");
        nmap.args(["-n", "-Pn", "-e", "lan0", "-S", source, "-p", &list.join(",")]);
        nmap.args(args.split_whitespace()).arg(host);
        let output = self.lab.attacker.run(&mut nmap, secs(60));
        assert!(output.status.success(), "nmap {args}: {}", output.text());
    }
}

/// Packets that spoke against somebody so far.
fn evidence(engine: &Engine<'_>) -> u64 {
    let reasons = engine.json("stats")["reasons"].clone();
    ["counted", "offence"]
        .iter()
        .filter_map(|reason| reasons[reason].as_u64())
        .sum()
}

/// Notes, in the attacker's namespace, which ports answered which of its addresses.
fn watch(ns: &Namespace) {
    let mut text = String::from("add table inet answers; ");
    for (family, address) in [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")] {
        text += &format!(
            "add set inet answers tcp_{family} {{ type {address} . inet_service; flags dynamic; size 65536; }}; \
             add set inet answers udp_{family} {{ type {address} . inet_service; flags dynamic; size 65536; }}; \
             add set inet answers icmp_{family} {{ type {address}; flags dynamic; counter; size 65536; }}; "
        );
    }
    text += "add chain inet answers seen { type filter hook prerouting priority -400; policy accept; }; ";
    for (family, icmp) in [("ip", "icmp"), ("ip6", "icmpv6")] {
        for flags in ["tcp flags & (syn|ack) == (syn|ack)", "tcp flags & rst == rst"] {
            text += &format!(
                "add rule inet answers seen {flags} add @tcp_{family} {{ {family} daddr . tcp sport }}; "
            );
        }
        text += &format!(
            "add rule inet answers seen meta l4proto udp add @udp_{family} {{ {family} daddr . udp sport }}; \
             add rule inet answers seen {icmp} type destination-unreachable update @icmp_{family} {{ {family} daddr }}; "
        );
    }
    ns.nft(&text);
}

/// How many ports answered `source`.
fn answered(ns: &Namespace, source: &str) -> u64 {
    let family = if source.contains(':') { "ip6" } else { "ip" };
    let of_source = format!("\"{source}\"");
    let ports = ["tcp", "udp"].map(|proto| {
        let elements = set_elements(ns, "answers", &format!("{proto}_{family}"));
        elements
            .iter()
            .filter(|element| element.contains(&of_source))
            .count() as u64
    });
    ports.iter().sum::<u64>()
        + tally(ns, &format!("icmp_{family}"))
            .get(source)
            .copied()
            .unwrap_or(0)
}

/// The counters of a set's elements.
fn tally(ns: &Namespace, set: &str) -> BTreeMap<String, u64> {
    let text = ns.nft_list(&["-j", "list", "set", "inet", "answers", set]);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = json["nftables"].as_array().cloned().unwrap_or_default();
    let elements = objects
        .iter()
        .find_map(|object| object["set"]["elem"].as_array().cloned());
    let count = |element: &Value| {
        let element = &element["elem"];
        Some((
            element["val"].as_str()?.to_owned(),
            element["counter"]["packets"].as_u64()?,
        ))
    };
    elements.unwrap_or_default().iter().filter_map(count).collect()
}
