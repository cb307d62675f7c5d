//! Who completed a handshake before we listened, or while announcements were lost: all of conntrack's table, read
//! once.

use super::entry::{CTA_STATUS, Entry, IPS_ASSURED};
use super::{Completed, IPCTNL_MSG_CT_GET};
use crate::kernel::netlink::{Builder, Netlink, NetlinkError, nfnl_type};

/// The completed TCP connections that conntrack holds in the calling thread's network namespace, at most `max`.
///
/// Left out are entries that conntrack took up midway (after `conntrack -F`, or because it was woken late):
/// anybody can make those in a stranger's name. An entry may be told twice while the table changes.
///
/// # Errors
/// If the kernel does not tell (no conntrack in it, no capability).
pub fn completed_flows(max: usize) -> Result<Vec<Completed>, NetlinkError> {
    let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
    let seq = netlink.take_seqs(1).start;
    netlink.dump_whole(request(seq).bytes(), |found: &mut Vec<_>, _, payload| {
        if found.len() < max {
            found.extend(Entry::read(payload).and_then(|entry| entry.completed()));
        }
    })
}

/// A dump of what is ASSURED; kernels that cannot filter it (before 5.15) send everything.
fn request(seq: u32) -> Builder {
    let mut request = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    request
        .nfnetlink(kind, flags, seq, libc::AF_UNSPEC, 0)
        .put_be32(CTA_STATUS, IPS_ASSURED)
        .put_be32(CTA_STATUS_MASK, IPS_ASSURED);
    request
}

/// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_STATUS_MASK: u16 = 26;
