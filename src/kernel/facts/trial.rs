//! What this kernel can do, found out by doing it: in a network namespace of our own, where the right to make one is
//! there; else by transactions that leave nothing, which shows less.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::kernel::apart::apart;
use crate::kernel::netlink::Netlink;
use crate::kernel::preflight;
use crate::kernel::queue::free_queues;
use crate::kernel::ruleset::{
    self, Backend, Feature, Ruleset, RulesetError, probe_backend, probe_feature, probe_owner, scratch,
};

/// What was tried; each `Err` says in words why it did not come off.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Why it was not done in a network namespace of its own, if so: what is `None` was not tried then.
    pub not_apart: Option<String>,
    /// Whether nothing could be tried for want of CAP_NET_ADMIN.
    pub forbidden: bool,
    /// Which rule hands packets to a queue; `Err`: none does, or nobody may ask.
    pub backend: Result<Backend, String>,
    /// Whether a packet was queued, dropped by one verdict and accepted by another.
    pub packet: Option<Result<(), String>>,
    /// Whether the whole table of the configuration loads and reads back.
    pub table: Option<Result<(), String>>,
    /// Copies to a log group.
    pub log: Result<(), String>,
    /// The look for a socket of this host.
    pub socket: Result<(), String>,
    /// Tables with an owner that outlive it (Linux 6.9).
    pub owner: Result<bool, String>,
    /// Whether queued packets can tell what conntrack holds of them (NFQA_CT).
    pub queue_conntrack: Option<Result<bool, String>>,
    /// Whether an element that is there takes another timeout (Linux 6.12).
    pub refresh: Option<Result<bool, String>>,
}

impl Trial {
    /// Tries everything; `table` makes the table of the configuration for a way of queueing.
    pub fn run(table: impl Fn(Backend) -> Ruleset + Send + Sync) -> Trial {
        match apart(|| Trial::here(Some(&table))) {
            Ok(trial) => trial,
            Err(error) => Trial {
                not_apart: Some(error.to_string()),
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
        let backend = told(probed);
        let apart = table.is_some();
        // Before anything waits in a queue there, and before a table of ours could meet the packet.
        let packet = apart.then(|| told(preflight::judge_one_packet()).map(|_| ()));
        let loaded = table.and_then(|make| Some(load(&make(backend.clone().ok()?))));
        let refresh = matches!(loaded, Some(Ok(()))).then(refresh);
        Trial {
            not_apart: None,
            forbidden,
            backend,
            packet,
            table: loaded,
            log: feature(Feature::Log),
            socket: feature(Feature::Socket),
            owner: netlink().and_then(|mut netlink| told(probe_owner(&mut netlink))),
            queue_conntrack: apart.then(queue_conntrack),
            refresh,
        }
    }
}

fn load(table: &Ruleset) -> Result<(), String> {
    let mut netlink = netlink()?;
    told(ruleset::apply(&mut netlink, table)).map(|_| ())
}

fn feature(feature: Feature) -> Result<(), String> {
    match told(probe_feature(&mut netlink()?, feature))? {
        None => Ok(()),
        Some(error) => Err(words(&error)),
    }
}

/// Gives an element of a set that no rule looks at two timeouts, one after the other.
fn refresh() -> Result<bool, String> {
    let mut netlink = netlink()?;
    let try_out = |netlink: &mut Netlink| -> Result<bool, RulesetError> {
        scratch::create(netlink)?;
        scratch::add(netlink, ELEMENT, SHORT)?;
        scratch::add(netlink, ELEMENT, SHORT * 4)?;
        Ok(scratch::lasts(netlink)?.is_some_and(|lasts| lasts > SHORT))
    };
    told(try_out(&mut netlink))
}

/// Asks a throw-away queue for it through the `nfq` crate, as the first packet did.
fn queue_conntrack() -> Result<bool, String> {
    let number = told(free_queues(QUEUE, 1))?;
    let mut queue = told(nfq::Queue::open())?;
    told(queue.bind(number))?;
    let mut asked = queue.set_recv_conntrack(number, true);
    // The kernel has just loaded the module behind it: to be asked again.
    if matches!(&asked, Err(error) if error.raw_os_error() == Some(libc::EAGAIN)) {
        asked = queue.set_recv_conntrack(number, true);
    }
    let able = match asked {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error.to_string()),
    };
    told(queue.unbind(number))?;
    able
}

fn netlink() -> Result<Netlink, String> {
    told(Netlink::open(mnl::Bus::Netfilter))
}

fn told<T, E: Error>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| words(&error))
}

fn words(error: &dyn Error) -> String {
    error.to_string()
}

/// Of a documentation range (RFC 5737); nobody looks at the set that it is in.
const ELEMENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Far longer than two requests take.
const SHORT: Duration = Duration::from_secs(100);
/// In a namespace of our own any number will do.
const QUEUE: u16 = 64_100;
