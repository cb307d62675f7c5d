//! Everything that is looked at before it is judged: typed values, no judgement.

use std::ops::RangeInclusive;
use std::path::Path;

use super::boot_files::Boot;
use crate::core::prefix::Prefix;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::facts::Unknown;
use crate::kernel::facts::held::Held;
use crate::kernel::facts::release::Release;
use crate::kernel::facts::services::{self, Client, Service};
use crate::kernel::facts::tables::Tables;
use crate::kernel::facts::trial::Trial;
use crate::kernel::host::{self, number};
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::{self, Backend, Loaded, Ruleset};

/// What was found out, at one moment, in the network namespace of the calling thread.
#[derive(Debug)]
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
    pub ours: Result<Option<Loaded>, Unknown>,
    /// The tables of others.
    pub tables: Result<Tables, Unknown>,
    /// What nft loads at boot.
    pub boot: Boot,
    /// The networks on this host's own links, each with its interface.
    pub networks: Vec<(Prefix, String)>,
    /// Where this host's own connections start.
    pub local_ports: RangeInclusive<u16>,
    /// Who listens.
    pub services: Result<Vec<Service>, Unknown>,
    /// Who is connected.
    pub clients: Result<Vec<Client>, Unknown>,
}

impl Facts {
    /// Looks; the files of other programs below `root` (`/` but in tests). `table` makes the table of the configuration.
    ///
    /// Changes nothing that lasts: what has to be tried is tried in a network namespace of its own. Modules that the
    /// kernel loads for it stay loaded, as they would when the engine starts.
    pub fn gather(root: &Path, table: impl Fn(Backend) -> Ruleset + Send + Sync) -> Facts {
        // Before the trial, whose sockets are not to be seen here.
        let held = Held::look();
        let services = services::services();
        let clients = services::clients(services.as_deref().unwrap_or_default());
        Facts {
            root: rustix::process::geteuid().is_root(),
            release: Release::running(),
            // First: that loads its module, and with it the two files below.
            conntrack: Conntrack::look(),
            events: number("/proc/sys/net/netfilter/nf_conntrack_events"),
            loose: number("/proc/sys/net/netfilter/nf_conntrack_tcp_loose"),
            held,
            ours: ours(),
            tables: tables(),
            boot: Boot::read(root),
            // Unknown ones are nobody's: a guest is taken for a stranger rather than the other way round.
            networks: host::networks().unwrap_or_default(),
            local_ports: host::local_ports(&mut Vec::new()),
            services: services.map_err(Unknown::from),
            clients: clients.map_err(Unknown::from),
            trial: Trial::run(table),
        }
    }
}

fn ours() -> Result<Option<Loaded>, Unknown> {
    Ok(ruleset::read(&mut Netlink::open(mnl::Bus::Netfilter)?)?)
}

fn tables() -> Result<Tables, Unknown> {
    Ok(Tables::look(&mut Netlink::open(mnl::Bus::Netfilter)?)?)
}
