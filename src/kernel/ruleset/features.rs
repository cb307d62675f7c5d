//! What else than queues a rule of ours needs from the kernel, tried one by one, so that a kernel that lacks something is
//! told by name before it refuses the whole table.

use super::RulesetError;
use super::apply::probe_step;
use super::model::Step;
use super::spec::Backend;
use crate::kernel::log::Fate;
use crate::kernel::netlink::{Netlink, NetlinkError};

/// A part of rules that a kernel can be built without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Copies of packets to a log group (nft_log, nfnetlink_log).
    Log,
    /// Whether a packet belongs to a socket of this host (nft_socket).
    Socket,
}

/// What the kernel says to it; `None`: it has it. Tried in a table that is made and deleted within one transaction, so
/// that nobody ever sees it.
///
/// # Errors
/// If it could not be tried.
pub fn probe_feature(netlink: &mut Netlink, feature: Feature) -> Result<Option<NetlinkError>, RulesetError> {
    let (step, part) = match feature {
        Feature::Log => {
            let (group, fate) = (u16::MAX, Fate::Refused);
            (Step::Log { group, fate }, "a rule that copies to a log group")
        }
        Feature::Socket => (Step::OwnSocket, "a rule that looks for a socket"),
    };
    match probe_step(netlink, Backend::Native, step, || part.to_owned()) {
        Ok(()) => Ok(None),
        Err(RulesetError::Refused { source, .. }) if source.errno() != Some(libc::EPERM) => Ok(Some(source)),
        Err(RulesetError::Refused { .. }) => Err(RulesetError::NotPermitted),
        Err(error) => Err(error),
    }
}
