//! Facts about this host that decide who is never banned: its own addresses, its gateways and resolvers, and
//! what is no source at all. Each comes with its reason, which `status` and a refused `ban` show.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::netlink::{Netlink, NetlinkError};
use super::notices::Notices;
use super::route;
use super::sessions::How;
use crate::core::prefix::{Prefix, PrefixSet};
use crate::files;

/// Why an address or network is never banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// This host talking to itself.
    Loopback,
    /// Neighbours on the same wire: routers and neighbour discovery live there.
    LinkLocal,
    /// Never a source.
    Multicast,
    /// Never a source, but what a host without an address sends from (DHCP, duplicate address detection).
    Unspecified,
    /// Never a source.
    Broadcast,
    /// An address of this host; a ban would hit its own packets.
    OwnAddress {
        /// The interface that has it.
        interface: String,
    },
    /// The next hop of a route.
    Gateway,
    /// A DNS server of this host.
    Resolver,
    /// Somebody who is authenticated administers this host from there.
    SshPeer {
        /// How that is known.
        how: How,
    },
    /// Somebody did until a moment ago.
    FormerSshPeer,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Loopback => "loopback",
            Why::LinkLocal => "link-local",
            Why::Multicast => "multicast",
            Why::Unspecified => "unspecified",
            Why::Broadcast => "broadcast",
            Why::OwnAddress { interface } => return write!(f, "own address on {interface}"),
            Why::Gateway => "gateway",
            Why::Resolver => "resolver",
            Why::SshPeer { how } => return how.fmt(f),
            Why::FormerSshPeer => "SSH session ended less than 10 min ago",
        })
    }
}

/// What was found out about this host, at one moment, in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who is never banned and why, in ascending order; an address can have several reasons.
    pub protected: Vec<(Prefix, Why)>,
    /// Ports from which the host's own connections start (net.ipv4.ip_local_port_range).
    pub local_ports: RangeInclusive<u16>,
    /// What could not be read, in words; the rest still holds.
    pub notes: Vec<String>,
}

/// Why the facts could not be gathered.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel does not tell this host's addresses.
    #[error("cannot list this host's addresses: {0}")]
    Addresses(#[source] NetlinkError),
    /// The kernel does not tell this host's routes.
    #[error("cannot list this host's routes: {0}")]
    Routes(#[source] NetlinkError),
    /// Changes cannot be followed.
    #[error("cannot follow changes of addresses and routes: {0}")]
    Watch(#[from] io::Error),
}

/// Finds out, in the network namespace of the calling thread.
///
/// # Errors
/// If the kernel does not list addresses or routes. Files that are missing are no error; those that cannot be
/// read are noted.
pub fn gather() -> Result<Facts, HostError> {
    let mut netlink = Netlink::open(mnl::Bus::Route).map_err(HostError::Addresses)?;
    let mut notes = Vec::new();
    let mut protected = constants();
    protected.extend(own_with_interfaces(&mut netlink)?);
    let gateways = route::gateways(&mut netlink).map_err(HostError::Routes)?;
    protected.extend(
        gateways
            .into_iter()
            .map(|addr| (Prefix::host(addr), Why::Gateway)),
    );
    let resolvers = resolvers(&mut notes);
    protected.extend(
        resolvers
            .into_iter()
            .map(|addr| (Prefix::host(addr), Why::Resolver)),
    );
    protected.sort();
    protected.dedup();
    Ok(Facts {
        protected,
        local_ports: local_ports(&mut notes),
        notes,
    })
}

/// The files that name resolvers; they change without a word of the kernel.
pub fn resolver_files() -> impl Iterator<Item = PathBuf> {
    RESOLV_CONF.iter().map(PathBuf::from)
}

/// Tells that addresses or routes of this network namespace changed, so that they are gathered anew.
///
/// It becomes readable on a change. Resolvers are none of the kernel's business: see [`resolver_files`].
pub struct Watch(Notices);

impl Watch {
    /// Follows the network namespace of the calling thread from now on: open it before gathering.
    ///
    /// # Errors
    /// If no netlink socket is to be had.
    pub fn open() -> Result<Watch, HostError> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        Ok(Watch(Notices::open(None, groups as u32)?))
    }

    /// Reads what is there, without waiting; whether any of it matters. Lost notices count as a change.
    pub fn drain(&mut self) -> bool {
        self.0.drain(|notice| route::matters(notice.kind, notice.payload))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is protected on every host.
fn constants() -> Vec<(Prefix, Why)> {
    let constants = [
        ("127.0.0.0/8", Why::Loopback),
        ("::1", Why::Loopback),
        ("169.254.0.0/16", Why::LinkLocal),
        ("fe80::/10", Why::LinkLocal),
        ("224.0.0.0/4", Why::Multicast),
        ("ff00::/8", Why::Multicast),
        ("0.0.0.0/8", Why::Unspecified),
        ("::", Why::Unspecified),
        ("255.255.255.255", Why::Broadcast),
    ];
    constants
        .map(|(text, why)| (text.parse().expect("a literal prefix"), why))
        .into()
}

/// This host's own addresses; none if the kernel does not tell.
pub fn own_addresses() -> PrefixSet {
    let netlink = Netlink::open(mnl::Bus::Route);
    let own = netlink.and_then(|mut netlink| route::addresses(&mut netlink));
    own.unwrap_or_default()
        .into_iter()
        .map(|(_, addr)| Prefix::host(addr))
        .collect()
}

fn own_with_interfaces(netlink: &mut Netlink) -> Result<Vec<(Prefix, Why)>, HostError> {
    let addresses = route::addresses(netlink).map_err(HostError::Addresses)?;
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let own = addresses.into_iter().map(|(index, addr)| {
        let name = names
            .entry(index)
            .or_insert_with(|| interface_name(netlink, index));
        let interface = name.clone();
        (Prefix::host(addr), Why::OwnAddress { interface })
    });
    Ok(own.collect())
}

/// The networks on this host's own links, each with the name of its interface.
///
/// # Errors
/// If the kernel does not list addresses.
pub fn networks() -> Result<Vec<(Prefix, String)>, HostError> {
    let mut netlink = Netlink::open(mnl::Bus::Route).map_err(HostError::Addresses)?;
    let networks = route::networks(&mut netlink).map_err(HostError::Addresses)?;
    let named = |(index, prefix)| (prefix, interface_name(&netlink, index));
    Ok(networks.into_iter().map(named).collect())
}

/// The name of an interface; its number, if it is gone by now.
/// The IPv4 networks that this host's routes lead to in particular, its own among them.
///
/// # Errors
/// If the kernel does not list routes.
pub fn destinations() -> Result<Vec<Prefix>, HostError> {
    let mut netlink = Netlink::open(mnl::Bus::Route).map_err(HostError::Routes)?;
    route::destinations(&mut netlink).map_err(HostError::Routes)
}

fn interface_name(netlink: &Netlink, index: u32) -> String {
    rustix::net::netdevice::index_to_name(netlink, index).unwrap_or_else(|_| format!("interface {index}"))
}

/// The DNS servers that this host asks, directly or through a local stub.
fn resolvers(notes: &mut Vec<String>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for path in RESOLV_CONF {
        match read(path) {
            Ok(text) => found.extend(nameservers(&text, path, notes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => notes.push(format!("{path}: {error}; the resolvers in it are not protected")),
        }
    }
    found
}

/// The `nameserver` lines of a resolv.conf; what cannot be read is noted, the rest of the file ignored.
fn nameservers(text: &str, path: &str, notes: &mut Vec<String>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|w| !w.is_empty());
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        // Without a comment glued to it, and without the interface of a scoped address (fe80::1%eth0).
        let bare = word.split(['#', ';', '%']).next().unwrap_or_default();
        match bare.parse() {
            Ok(addr) => found.push(addr),
            Err(_) => notes.push(format!(
                "{path}: nameserver \"{word}\" is not an address, it is not protected"
            )),
        }
    }
    found
}

pub(crate) fn local_ports(notes: &mut Vec<String>) -> RangeInclusive<u16> {
    let text = read(LOCAL_PORTS).unwrap_or_default();
    port_range(&text).unwrap_or_else(|| {
        notes.push(format!(
            "{LOCAL_PORTS}: \"{}\" is not a range, the kernel's default is assumed",
            text.trim()
        ));
        LOCAL_PORTS_DEFAULT
    })
}

/// Two numbers, first not above last.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first <= last && numbers.next().is_none()).then_some(first..=last)
}

/// The number that a file of one number holds.
pub(crate) fn number(path: &str) -> Option<u32> {
    read(path).ok()?.trim().parse().ok()
}

/// The beginning of a file that may hold anything.
pub(super) fn read(path: &str) -> io::Result<String> {
    read_up_to(path, FILE_BYTES)
}

/// As [`read`], with a limit of one's own.
pub(super) fn read_up_to(path: &str, bytes: u64) -> io::Result<String> {
    let read = files::read_up_to(Path::new(path), bytes)?;
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// Where resolvers are: the file that programs read, and those in which a local stub keeps the servers that it
/// asks itself (systemd-resolved; NetworkManager with dnsmasq).
const RESOLV_CONF: [&str; 3] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Documentation/networking/ip-sysctl.rst
const LOCAL_PORTS_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
/// Far more than any resolv.conf needs.
const FILE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Vec<String>, usize) {
        let mut notes = Vec::new();
        let found = nameservers(text, "resolv.conf", &mut notes);
        (found.iter().map(IpAddr::to_string).collect(), notes.len())
    }

    #[test]
    fn nameservers_are_found_among_everything_else() {
        let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch example.org\noptions edns0 trust-ad\n\
            nameserver 192.0.2.3\n  nameserver\t2001:db8::53  # comment\r\nnameserver fe80::1%eth0\n\
            nameserver 192.0.2.4#glued\nnameservers 192.0.2.5\noptions nameserver 192.0.2.6\n";
        let expected = ["192.0.2.3", "2001:db8::53", "fe80::1", "192.0.2.4"].map(str::to_owned);
        assert_eq!(found(text), (expected.into(), 0));
    }

    #[test]
    fn what_is_no_address_is_noted() {
        assert_eq!(found(""), (vec![], 0));
        assert_eq!(found("nameserver"), (vec![], 1));
        assert_eq!(
            found("nameserver localhost\nnameserver 1.2.3\nnameserver %eth0"),
            (vec![], 3)
        );
        assert_eq!(
            found("\0\u{fffd}\nnameserver\x00192.0.2.1\n"),
            (vec!["192.0.2.1".to_owned()], 0)
        );
    }

    #[test]
    fn port_ranges_are_two_numbers_in_order() {
        assert_eq!(port_range("32768\t60999\n"), Some(32_768..=60_999));
        for bad in ["", "1", "2 1", "1 70000", "1 2 3", "a b", "-1 5"] {
            assert_eq!(port_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn reasons_read_well() {
        let interface = "eth0".to_owned();
        assert_eq!(Why::OwnAddress { interface }.to_string(), "own address on eth0");
        let how = How::Logind;
        assert_eq!(Why::SshPeer { how }.to_string(), "SSH session listed by logind");
        assert!(constants().iter().any(|(prefix, why)| {
            prefix.contains("127.0.0.53".parse().unwrap()) && why.to_string() == "loopback"
        }));
    }
}
