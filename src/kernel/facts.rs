//! Facts about the machine that an admin should know before the engine holds its packets: typed values, no judgement.
//! What is read from `/proc` and `/etc` is text of others, and may hold anything.
//!
//! Looking changes nothing that lasts: what has to be tried is tried in a network namespace of its own. Modules that the
//! kernel loads for it stay loaded, as they would when the engine starts.

pub mod boot;
pub mod held;
pub mod release;
pub mod services;
pub mod tables;
pub mod trial;

use std::error::Error;
use std::ops::RangeInclusive;
use std::path::Path;

use self::boot::Boot;
use self::held::Held;
use self::release::Release;
use self::services::{Client, Service};
use self::tables::Tables;
use self::trial::Trial;
use super::conntrack::Conntrack;
use super::host::{self, number};
use super::netlink::Netlink;
use super::ruleset::{self, Backend, Loaded, Ruleset};
use crate::core::prefix::Prefix;

/// Everything that was found out, at one moment, in the network namespace of the calling thread. An `Err` says in words
/// why it is not known.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether this is root, who may see everything.
    pub root: bool,
    /// The kernel.
    pub release: Option<Release>,
    /// What it can do.
    pub trial: Trial,
    /// Room in conntrack; `None`: there is none.
    pub conntrack: Option<Conntrack>,
    /// `net.netfilter.nf_conntrack_events`; `None`: this kernel has no such events.
    pub events: Option<u32>,
    /// `net.netfilter.nf_conntrack_tcp_loose`.
    pub loose: Option<u32>,
    /// Who holds netfilter's numbers.
    pub held: Held,
    /// Our own table, if it is loaded.
    pub ours: Result<Option<Loaded>, String>,
    /// The tables of others.
    pub tables: Result<Tables, String>,
    /// What nft loads at boot.
    pub boot: Boot,
    /// The networks on this host's own links, each with its interface.
    pub networks: Vec<(Prefix, String)>,
    /// Where this host's own connections start.
    pub local_ports: RangeInclusive<u16>,
    /// Who listens.
    pub services: Result<Vec<Service>, String>,
    /// Who is connected.
    pub clients: Result<Vec<Client>, String>,
}

impl Facts {
    /// Looks; the files of other programs below `root` (`/` but in tests). `table` makes the table of the configuration.
    pub fn gather(root: &Path, table: impl Fn(Backend) -> Ruleset + Send + Sync) -> Facts {
        // Before the trial, whose sockets are not to be seen here.
        let held = Held::look();
        let services = told(services::services());
        let clients = services
            .clone()
            .and_then(|services| told(services::clients(&services)));
        let conntrack = Conntrack::look();
        Facts {
            root: rustix::process::geteuid().is_root(),
            release: Release::running(),
            events: number("/proc/sys/net/netfilter/nf_conntrack_events"),
            loose: number("/proc/sys/net/netfilter/nf_conntrack_tcp_loose"),
            conntrack,
            held,
            ours: netlink().and_then(|mut netlink| told(ruleset::read(&mut netlink))),
            tables: netlink().and_then(|mut netlink| told(Tables::look(&mut netlink))),
            boot: Boot::read(root),
            // Unknown ones are nobody's: a guest is taken for a stranger rather than the other way round.
            networks: host::networks().unwrap_or_default(),
            local_ports: host::local_ports(&mut Vec::new()),
            services,
            clients,
            trial: Trial::run(table),
        }
    }
}

fn netlink() -> Result<Netlink, String> {
    told(Netlink::open(mnl::Bus::Netfilter))
}

fn told<T, E: Error>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
