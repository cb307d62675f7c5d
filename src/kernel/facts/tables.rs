//! The tables of other programs: which of their chains see what comes in, before or after ours, whether they can drop or
//! let pass, what they publish and queue. Read by netlink; nft may not be installed.

mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::rule::Effects;
use crate::core::verdict::Proto;
use crate::kernel::host;
use crate::kernel::netlink::{Attributes, Builder, Netlink, NetlinkError, be32, nfnl_type, string};
use crate::kernel::ruleset::TABLE;

/// Where packets meet a chain on their way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// As they leave the device, before everything else.
    Ingress,
    /// Before routing, where ours are.
    Prerouting,
    /// On the way to a socket of this host.
    Input,
    /// On the way through to another machine or a container.
    Forward,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
        })
    }
}

/// A base chain of another program that packets from the network meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// nft's word for the family.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Where.
    pub hook: Hook,
    /// Lower ones come first.
    pub priority: i32,
    /// Whether it, or a chain that it leads to, can drop or reject.
    pub drops: bool,
    /// Whether it can end its own table's judgement by letting pass.
    pub accepts: bool,
    /// The queues that it hands packets to.
    pub queues: BTreeSet<u16>,
    /// Whose it is, as names of tables and chains tell.
    pub programs: BTreeSet<&'static str>,
}

impl Base {
    /// As nft would be asked for it.
    pub fn title(&self) -> String {
        format!("chain {} {} {}", self.family, self.table, self.chain)
    }
}

/// A port that is translated to another machine or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// TCP or UDP; `None`: the rule does not say.
    pub proto: Option<Proto>,
    /// First and last port; `None`: in a set, or every.
    pub ports: Option<(u16, u16)>,
}

/// What others have loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Base chains on the way in, in the order in which a packet meets them.
    pub bases: Vec<Base>,
    /// Ports that are translated (DNAT), in order, each once.
    pub published: Vec<Published>,
    /// Tables of the old iptables that have been used here (`iptables-legacy`); what is in them nobody tells.
    pub legacy: Vec<String>,
}

impl Tables {
    /// Reads them in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel does not tell (no CAP_NET_ADMIN, no nf_tables).
    pub fn look(netlink: &mut Netlink) -> Result<Tables, NetlinkError> {
        let mut found = Found::default();
        let seq = netlink.take_seqs(1).start;
        let request = dump(libc::NFT_MSG_GETCHAIN, seq);
        found.chains = netlink.dump_whole(request.bytes(), |chains: &mut BTreeMap<_, _>, _, payload| {
            chains.extend(read_chain(payload));
        })?;
        let seq = netlink.take_seqs(1).start;
        let request = dump(libc::NFT_MSG_GETRULE, seq);
        found.rules = netlink.dump_whole(request.bytes(), |rules: &mut Rules, _, payload| {
            if let Some((key, effects)) = rule::read(payload) {
                rules.entry(key).or_default().add(effects);
            }
        })?;
        let mut tables = found.tables();
        tables.legacy = LEGACY
            .iter()
            .flat_map(|(path, word)| legacy(path, word))
            .collect();
        Ok(tables)
    }
}

/// Family number, table, chain.
type Key = (u8, String, String);
/// Of a base chain its hook and priority, and whether its policy is drop.
type Station = Option<(u32, i32, bool)>;
type Rules = BTreeMap<Key, Effects>;

#[derive(Default)]
struct Found {
    chains: BTreeMap<Key, Station>,
    rules: Rules,
}

impl Found {
    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        let mut published = BTreeSet::new();
        for (key, base) in &self.chains {
            let (Some((hook, priority, policy)), Some(family)) = (base, family(key.0)) else {
                continue;
            };
            let (Some(hook), false) = (hook_of(key.0, *hook), is_ours(key)) else {
                continue;
            };
            let all = self.reached(key);
            if hook == Hook::Prerouting {
                published.extend(&all.published);
            }
            tables.bases.push(Base {
                family,
                table: key.1.clone(),
                chain: key.2.clone(),
                hook,
                priority: *priority,
                drops: *policy || all.drops,
                accepts: all.accepts,
                queues: all.queues,
                programs: self.programs(key),
            });
        }
        tables.published = published.into_iter().collect();
        tables
            .bases
            .sort_by_key(|base| (base.hook, base.priority, base.title()));
        tables
    }

    /// What the rules of a chain and of every chain that they lead to can do.
    fn reached(&self, base: &Key) -> Effects {
        let mut all = Effects::default();
        let mut seen = BTreeSet::new();
        let mut next = vec![base.clone()];
        while let Some(key) = next.pop() {
            if !seen.insert(key.clone()) {
                continue;
            }
            let Some(effects) = self.rules.get(&key) else {
                continue;
            };
            let at = |chain: &String| (key.0, key.1.clone(), chain.clone());
            next.extend(effects.leads_to.iter().map(at));
            if effects.by_map {
                // A map of verdicts may lead to any chain of the table.
                let regular = self.chains.iter().filter(|(_, base)| base.is_none());
                let there = regular.filter(|((family, table, _), _)| (*family, table) == (key.0, &key.1));
                next.extend(there.map(|(key, _)| key.clone()));
            }
            all.add(effects.clone());
        }
        all
    }

    fn programs(&self, base: &Key) -> BTreeSet<&'static str> {
        let chains = self.chains.keys();
        let names = chains.filter(|(family, table, _)| (*family, table) == (base.0, &base.1));
        let by_chain = names.filter_map(|(_, _, chain)| known(&CHAINS, chain));
        by_chain.chain(known(&TABLES, &base.1)).collect()
    }
}

fn is_ours(key: &Key) -> bool {
    key.0 == libc::NFPROTO_INET as u8 && key.1 == TABLE
}

/// A program whose name for things `name` begins with.
fn known(names: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    names
        .iter()
        .find(|(start, _)| name.starts_with(start))
        .map(|(_, program)| *program)
}

fn family(number: u8) -> Option<&'static str> {
    match i32::from(number) {
        libc::NFPROTO_INET => Some("inet"),
        libc::NFPROTO_IPV4 => Some("ip"),
        libc::NFPROTO_IPV6 => Some("ip6"),
        libc::NFPROTO_NETDEV => Some("netdev"),
        _ => None, // ARP and bridges: nothing that is addressed to this host's sockets
    }
}

fn hook_of(family: u8, number: u32) -> Option<Hook> {
    match (i32::from(family), number as i32) {
        (libc::NFPROTO_NETDEV, libc::NF_NETDEV_INGRESS) | (libc::NFPROTO_INET, libc::NF_INET_INGRESS) => {
            Some(Hook::Ingress)
        }
        (libc::NFPROTO_NETDEV, _) => None,
        (_, libc::NF_INET_PRE_ROUTING) => Some(Hook::Prerouting),
        (_, libc::NF_INET_LOCAL_IN) => Some(Hook::Input),
        (_, libc::NF_INET_FORWARD) => Some(Hook::Forward),
        _ => None,
    }
}

fn dump(message: i32, seq: u32) -> Builder {
    let mut request = Builder::new();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, message);
    request.nfnetlink(kind, flags, seq, libc::AF_UNSPEC, 0);
    request
}

fn read_chain(payload: &[u8]) -> Option<(Key, Station)> {
    let (mut table, mut name, mut hook, mut drops) = (None, None, None, false);
    for (kind, value) in Attributes::after_nfgen(payload) {
        match kind {
            NFTA_CHAIN_TABLE => table = string(value),
            NFTA_CHAIN_NAME => name = string(value),
            NFTA_CHAIN_HOOK => hook = read_hook(value),
            NFTA_CHAIN_POLICY => drops = be32(value) == Some(libc::NF_DROP as u32),
            _ => {}
        }
    }
    let base = hook.map(|(number, priority)| (number, priority, drops));
    Some(((*payload.first()?, table?.to_owned(), name?.to_owned()), base))
}

fn read_hook(value: &[u8]) -> Option<(u32, i32)> {
    let number = |wanted| {
        let found = Attributes::new(value).find(|(kind, _)| *kind == wanted);
        found.and_then(|(_, value)| be32(value))
    };
    Some((number(NFTA_HOOK_HOOKNUM)?, number(NFTA_HOOK_PRIORITY)? as i32))
}

/// The tables that `/proc` names, one a line, as their command names them.
fn legacy(path: &str, command: &str) -> Vec<String> {
    let text = host::read(path).unwrap_or_default();
    legacy_names(&text, command)
}

fn legacy_names(text: &str, command: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| format!("{command} -t {name}"))
        .collect()
}

const LEGACY: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];
/// Beginnings of the names of tables that programs make.
const TABLES: [(&str, &str); 15] = [
    ("firewalld", "firewalld"),
    ("f2b-", "fail2ban"),
    ("crowdsec", "CrowdSec"),
    ("sshguard", "sshguard"),
    ("netavark", "Podman"),
    ("docker", "Docker"),
    ("opensnitch", "OpenSnitch"),
    ("libvirt_network", "libvirt"),
    ("lxd", "LXD"),
    ("incus", "Incus"),
    ("kube-proxy", "Kubernetes"),
    ("cni_", "CNI"),
    ("fw4", "OpenWrt"),
    ("miniupnpd", "miniupnpd"),
    ("wg-quick-", "wg-quick"),
];
/// Beginnings of the names of chains in iptables' tables.
const CHAINS: [(&str, &str); 17] = [
    ("ufw-", "ufw"),
    ("ufw6-", "ufw"),
    ("DOCKER", "Docker"),
    ("NETAVARK", "Podman"),
    ("f2b-", "fail2ban"),
    ("fail2ban-", "fail2ban"),
    ("CROWDSEC", "CrowdSec"),
    ("sshguard", "sshguard"),
    ("KUBE-", "Kubernetes"),
    ("cali-", "Calico"),
    ("CNI-", "CNI"),
    ("LIBVIRT_", "libvirt"),
    ("LOCALINPUT", "CSF"),
    ("DENYIN", "CSF"),
    ("IN_public", "firewalld"),
    ("FWD_", "firewalld"),
    ("opensnitch", "OpenSnitch"),
];

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(family: i32, table: &str, chain: &str) -> Key {
        (family as u8, table.into(), chain.into())
    }

    fn leading(chains: &[&str]) -> Effects {
        Effects {
            leads_to: chains.iter().map(|chain| (*chain).to_owned()).collect(),
            ..Effects::default()
        }
    }

    #[test]
    fn what_a_chain_leads_to_counts_as_its_own() {
        let v4 = libc::NFPROTO_IPV4;
        let mut found = Found::default();
        let input = (libc::NF_INET_LOCAL_IN as u32, 0, false);
        found.chains.insert(key(v4, "filter", "INPUT"), Some(input));
        for chain in ["ufw-before-input", "ufw-user-input", "alone"] {
            found.chains.insert(key(v4, "filter", chain), None);
        }
        let drops = Effects {
            drops: true,
            ..leading(&["ufw-before-input"])
        };
        found
            .rules
            .insert(key(v4, "filter", "INPUT"), leading(&["ufw-before-input"]));
        found.rules.insert(
            key(v4, "filter", "ufw-before-input"),
            leading(&["ufw-user-input"]),
        );
        found.rules.insert(key(v4, "filter", "ufw-user-input"), drops);
        let tables = found.tables();
        assert_eq!(tables.bases.len(), 1);
        let base = &tables.bases[0];
        assert_eq!((base.hook, base.drops, base.accepts), (Hook::Input, true, false));
        assert_eq!(base.programs, BTreeSet::from(["ufw"]));
        assert_eq!(base.title(), "chain ip filter INPUT");
        // The same chains, not led to.
        found.rules.remove(&key(v4, "filter", "INPUT"));
        assert!(!found.tables().bases[0].drops);
        // A map of verdicts may lead anywhere.
        let by_map = Effects {
            by_map: true,
            ..Effects::default()
        };
        found.rules.insert(key(v4, "filter", "INPUT"), by_map);
        assert!(found.tables().bases[0].drops);
    }

    #[test]
    fn ours_and_what_is_not_on_the_way_in_is_left_out() {
        let mut found = Found::default();
        for (family, table, hook) in [
            (libc::NFPROTO_INET, TABLE, libc::NF_INET_PRE_ROUTING),
            (libc::NFPROTO_ARP, "a", 0),
            (libc::NFPROTO_BRIDGE, "b", libc::NF_INET_LOCAL_IN),
            (libc::NFPROTO_INET, "o", libc::NF_INET_LOCAL_OUT),
            (libc::NFPROTO_INET, "p", libc::NF_INET_POST_ROUTING),
            (libc::NFPROTO_NETDEV, "e", 1),
        ] {
            let base = (hook as u32, 0, true);
            found.chains.insert(key(family, table, "c"), Some(base));
        }
        assert_eq!(found.tables(), Tables::default());
        let ingress = (libc::NF_NETDEV_INGRESS as u32, -500, true);
        found
            .chains
            .insert(key(libc::NFPROTO_NETDEV, "e", "d"), Some(ingress));
        assert_eq!(found.tables().bases[0].hook, Hook::Ingress);
    }

    #[test]
    fn legacy_tables_are_named_as_they_are_asked_for() {
        assert_eq!(
            legacy_names("filter\n nat \n\n", "iptables-legacy"),
            ["iptables-legacy -t filter", "iptables-legacy -t nat"]
        );
        assert_eq!(legacy_names("", "x"), [""; 0]);
    }

    #[test]
    fn cut_messages_are_no_chains() {
        let mut builder = Builder::new();
        builder
            .nfnetlink(0, 0, 0, libc::NFPROTO_INET, 0)
            .put_str(NFTA_CHAIN_TABLE, "t")
            .put_str(NFTA_CHAIN_NAME, "c");
        let hook = builder.open(NFTA_CHAIN_HOOK);
        builder
            .put_be32(NFTA_HOOK_HOOKNUM, 1)
            .put_be32(NFTA_HOOK_PRIORITY, -310_i32 as u32);
        builder.close(hook);
        let payload = builder.bytes()[16..].to_vec();
        let expected = (key(libc::NFPROTO_INET, "t", "c"), Some((1, -310, false)));
        assert_eq!(read_chain(&payload), Some(expected));
        for cut in 0..payload.len() {
            let _ = read_chain(&payload[..cut]);
        }
        assert_eq!(read_chain(&[0xff; 64]), None);
        assert_eq!(read_chain(&[0; 64]), None);
    }
}
