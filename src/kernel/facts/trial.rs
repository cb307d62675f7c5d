//! What this kernel can do, found out by doing it: in a network namespace of our own, where the right to make one is
//! there; else by transactions that leave nothing, which shows less.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Unknown;
use crate::kernel::apart::apart;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::preflight;
use crate::kernel::queue::free_queues;
use crate::kernel::ruleset::{
    self, Backend, Feature, Ruleset, RulesetError, probe_backend, probe_feature, probe_owner, scratch,
};

/// What was tried; each `Err` says why it did not come off.
#[derive(Debug)]
pub struct Trial {
    /// Why it was not done in a network namespace of its own, if so: what is `None` was not tried then.
    pub not_apart: Option<io::Error>,
    /// Whether nothing could be tried for want of CAP_NET_ADMIN.
    pub forbidden: bool,
    /// Which rule hands packets to a queue; `Err`: none does, or nobody may ask.
    pub backend: Result<Backend, Unknown>,
    /// Whether a packet was queued, dropped by one verdict and accepted by another.
    pub packet: Option<Result<(), Unknown>>,
    /// Whether the whole table of the configuration loads and reads back.
    pub table: Option<Result<(), Unknown>>,
    /// Copies to a log group.
    pub log: Result<(), Unknown>,
    /// The look for a socket of this host.
    pub socket: Result<(), Unknown>,
    /// Tables with an owner that outlive it (Linux 6.9).
    pub owner: Result<bool, Unknown>,
    /// Whether queued packets can tell what conntrack holds of them (NFQA_CT).
    pub queue_conntrack: Option<Result<bool, Unknown>>,
    /// Whether an element that is there takes another timeout (Linux 6.12).
    pub refresh: Option<Result<bool, Unknown>>,
}

impl Trial {
    /// Tries everything; `table` makes the table of the configuration for a way of queueing.
    pub fn run(table: impl Fn(Backend) -> Ruleset + Send + Sync) -> Trial {
        match apart(|| Trial::here(Some(&table))) {
            Ok(trial) => trial,
            Err(error) => Trial {
                not_apart: Some(error),
                ..Trial::here(None)
            },
        }
    }

    /// Tries in the calling thread's network namespace; with `table`, also what leaves traces in it.
    fn here(table: Option<&dyn Fn(Backend) -> Ruleset>) -> Trial {
        let probed = Netlink::open(mnl::Bus::Netfilter)
            .map_err(RulesetError::from)
            .and_then(|mut netlink| probe_backend(&mut netlink));
        let forbidden = matches!(probed, Err(RulesetError::NotPermitted));
        let apart = table.is_some();
        // Before anything waits in a queue there, and before a table of ours could meet the packet.
        let packet = apart.then(packet);
        let loaded = table.and_then(|make| Some(load(&make(*probed.as_ref().ok()?))));
        let refresh = matches!(loaded, Some(Ok(()))).then(refresh);
        Trial {
            not_apart: None,
            forbidden,
            backend: probed.map_err(Unknown::from),
            packet,
            table: loaded,
            log: feature(Feature::Log),
            socket: feature(Feature::Socket),
            owner: owner(),
            queue_conntrack: apart.then(queue_conntrack),
            refresh,
        }
    }
}

fn load(table: &Ruleset) -> Result<(), Unknown> {
    ruleset::apply(&mut netlink()?, table)?;
    Ok(())
}

fn packet() -> Result<(), Unknown> {
    preflight::judge_one_packet()?;
    Ok(())
}

fn owner() -> Result<bool, Unknown> {
    Ok(probe_owner(&mut netlink()?)?)
}

fn feature(feature: Feature) -> Result<(), Unknown> {
    match probe_feature(&mut netlink()?, feature)? {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

/// Gives an element of a set that no rule looks at two timeouts, one after the other.
fn refresh() -> Result<bool, Unknown> {
    let mut netlink = netlink()?;
    scratch::create(&mut netlink)?;
    scratch::add(&mut netlink, ELEMENT, SHORT)?;
    scratch::add(&mut netlink, ELEMENT, SHORT * 4)?;
    Ok(scratch::lasts(&mut netlink)?.is_some_and(|lasts| lasts > SHORT))
}

/// Asks a throw-away queue for it through the `nfq` crate, as the first packet did.
fn queue_conntrack() -> Result<bool, Unknown> {
    let number = free_queues(QUEUE, 1)?;
    let mut queue = nfq::Queue::open()?;
    queue.bind(number)?;
    let mut asked = queue.set_recv_conntrack(number, true);
    // The kernel has just loaded the module behind it: to be asked again.
    if matches!(&asked, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
        asked = queue.set_recv_conntrack(number, true);
    }
    let able = match asked {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    };
    queue.unbind(number)?;
    able
}

fn netlink() -> Result<Netlink, NetlinkError> {
    Netlink::open(mnl::Bus::Netfilter)
}

/// Of a documentation range (RFC 5737); nobody looks at the set that it is in.
const ELEMENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Far longer than two requests take.
const SHORT: Duration = Duration::from_secs(100);
/// In a namespace of our own any number will do.
const QUEUE: u16 = 64_100;
