//! How much conntrack holds in this network namespace, and how much it would get to hold: read before the first
//! rule that wakes it.

use super::host::{number, read};
use super::netlink::{Builder, Netlink, NetlinkError, nfnl_type};

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
/// include/uapi/linux/netfilter/nfnetlink_conntrack.h
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
