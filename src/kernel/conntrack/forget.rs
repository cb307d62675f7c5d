//! Takes entries out of conntrack: those of flows that only a self-test made.

use super::entry::{CTA_TUPLE_ORIG, family, put_flow};
use super::{Flow, IPCTNL_MSG_CT_DELETE, sleeps};
use crate::kernel::netlink::{Builder, Netlink, NetlinkError, nfnl_type};

/// Removes the entries of `flows`, in the network namespace of the calling thread; none there is fine.
///
/// # Errors
/// The kernel's first refusal that is not about an entry that is not there.
pub fn forget(flows: &[Flow]) -> Result<(), NetlinkError> {
    if flows.is_empty() || sleeps() {
        return Ok(());
    }
    let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
    let mut refusal = None;
    for flows in flows.chunks(AT_ONCE) {
        let seqs = netlink.take_seqs(flows.len() as u32);
        let mut request = Builder::new();
        for (flow, seq) in flows.iter().zip(seqs) {
            let kind = nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE);
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            request.nfnetlink(kind, flags, seq, family(flow), 0);
            put_flow(&mut request, CTA_TUPLE_ORIG, flow);
        }
        netlink.exchange(request.bytes(), |message| {
            if let Some((errno, message_of_kernel)) = message.error()
                && errno != 0
                && errno != libc::ENOENT
            {
                refusal.get_or_insert(NetlinkError::Refused {
                    seq: message.seq,
                    errno,
                    message: message_of_kernel,
                });
            }
        })?;
    }
    refusal.map_or(Ok(()), Err)
}

/// As many as one datagram of questions holds elsewhere: see [`super::ask::Asker::BATCH`].
const AT_ONCE: usize = super::ask::Asker::BATCH;
