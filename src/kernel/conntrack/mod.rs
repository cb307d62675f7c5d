//! Conntrack asked and listened to: how much it holds and would get to hold (read before the first rule that wakes
//! it), who completed a handshake ([`events`], [`dump`]), whether that is true ([`proof`], both together [`handshakes`]), and what became of a
//! flow ([`ask`]). Nothing here needs a rule, and nothing here wakes conntrack.

pub mod ask;
pub mod dump;
mod entry;
pub mod events;
mod filter;
pub mod forget;
pub mod handshakes;
pub mod proof;

use std::net::{IpAddr, SocketAddr};

use super::host::{number, read};
use super::netlink::{Builder, Netlink, NetlinkError, nfnl_type};

/// One TCP connection as its client addressed it: before the host translated anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Who opened it.
    pub client: IpAddr,
    /// From which port.
    pub client_port: u16,
    /// To which address.
    pub server: IpAddr,
    /// To which port.
    pub port: u16,
}

/// A handshake that conntrack holds for finished. A blind sender can bring that about without ever seeing an
/// answer: [`proof::Prover`] tells who did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Completed {
    /// Who opened the connection; also this host itself, for what it opened.
    pub client: IpAddr,
    /// From which port.
    pub client_port: u16,
    /// To which address, before any translation.
    pub server: IpAddr,
    /// To which port, before any translation.
    pub port: u16,
    /// Where it ends after translation: another machine or container if the port is published there.
    pub ends_at: SocketAddr,
}

impl Completed {
    /// The connection itself.
    pub fn flow(&self) -> Flow {
        Flow {
            client: self.client,
            client_port: self.client_port,
            server: self.server,
            port: self.port,
        }
    }

    /// Whether the host translated the destination (a port published by a container, or redirected).
    pub fn is_translated(&self) -> bool {
        self.ends_at != SocketAddr::new(self.server, self.port)
    }
}

/// Whether conntrack announces nothing in this network namespace: it sleeps, or its events are off.
pub fn is_silent() -> bool {
    sleeps() || is_muted()
}

/// Whether it follows nothing here: no rule woke it, or nothing came since.
fn sleeps() -> bool {
    number("/proc/sys/net/netfilter/nf_conntrack_count").is_none_or(|flows| flows == 0)
}

/// Whether somebody turned its events off here (`nf_conntrack_events`: 0; 2 is "while somebody listens").
pub fn is_muted() -> bool {
    number("/proc/sys/net/netfilter/nf_conntrack_events").is_some_and(|mode| mode == 0)
}

/// Conntrack and the sockets that it would have to follow, at one moment, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// The most flows it holds (net.netfilter.nf_conntrack_max), for all namespaces alike.
    pub max: u32,
    /// Flows that it holds here now; 0 also where no rule has woken it.
    pub flows: u32,
    /// TCP and UDP sockets in use here, listening ones included; 0 where they cannot be counted.
    pub sockets: u32,
}

impl Conntrack {
    /// Looks, in the network namespace of the calling thread; `None` where there is no conntrack to ask.
    pub fn look() -> Option<Conntrack> {
        // A fresh machine has the module on disk only. Loading it wakes nothing: that takes a rule.
        let _absent = load_module();
        Some(Conntrack {
            max: number("/proc/sys/net/netfilter/nf_conntrack_max")?,
            flows: number("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(0),
            sockets: SOCKSTAT
                .iter()
                .map(|path| sockets_in_use(&read(path).unwrap_or_default()))
                .fold(0, u32::saturating_add),
        })
    }
}

/// The kernel loads the module behind a netlink subsystem that is asked for the first time.
fn load_module() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
    let seq = netlink.take_seqs(1).start;
    let mut question = Builder::new();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let kind = nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS);
    question.nfnetlink(kind, flags, seq, libc::AF_UNSPEC, 0);
    netlink.transact(question.bytes(), seq..seq + 1)
}

/// The `inuse` figures of TCP and UDP in the text of a sockstat or sockstat6.
fn sockets_in_use(text: &str) -> u32 {
    let figures = text.lines().filter_map(|line| {
        let (protocol, rest) = line.split_once(": inuse ")?;
        let counted = matches!(protocol, "TCP" | "UDP" | "TCP6" | "UDP6");
        rest.split_whitespace()
            .next()
            .filter(|_| counted)?
            .parse::<u32>()
            .ok()
    });
    figures.fold(0, u32::saturating_add)
}

const SOCKSTAT: [&str; 2] = [
    "/proc/thread-self/net/sockstat",
    "/proc/thread-self/net/sockstat6",
];
// enum cntl_msg_types of include/uapi/linux/netfilter/nfnetlink_conntrack.h
const IPCTNL_MSG_CT_NEW: i32 = 0;
const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;
const IPCTNL_MSG_CT_GET_STATS: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_tcp_and_udp_are_counted() {
        let text = "sockets: used 210\nTCP: inuse 31 orphan 2 tw 9 alloc 40 mem 7\nUDP: inuse 4 mem 1\n\
            UDPLITE: inuse 8\nRAW: inuse 16\nFRAG: inuse 0 memory 0\n";
        assert_eq!(sockets_in_use(text), 35);
        let six = "TCP6: inuse 100\nUDP6: inuse 20\nUDPLITE6: inuse 3\nRAW6: inuse 1\n";
        assert_eq!(sockets_in_use(six), 120);
        for nothing in ["", "TCP: inuse", "TCP: inuse many\n", "TCP: orphan 3\n"] {
            assert_eq!(sockets_in_use(nothing), 0, "{nothing}");
        }
        assert_eq!(sockets_in_use("TCP: inuse 4294967295\nUDP: inuse 5\n"), u32::MAX);
    }
}
