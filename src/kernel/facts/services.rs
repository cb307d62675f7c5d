//! Who serves here, and whom: listeners with the programs behind them, and the connections that strangers opened to them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::core::verdict::Proto;
use crate::kernel::conntrack::dump::completed_flows;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::sessions::is_sshd_name;
use crate::kernel::sockets::{self, Listener};
use crate::kernel::{host, processes};

/// A listener and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it listens.
    pub listener: Listener,
    /// The names of the programs that hold it, as far as they can be seen.
    pub programs: BTreeSet<String>,
}

impl Service {
    /// Whether strangers log in there: by the names of the programs, which anybody can give himself.
    pub fn is_ssh(&self) -> bool {
        let daemon = self.programs.iter().any(|name| is_sshd_name(name));
        // systemd holds the port of ssh.socket; without rights nobody is seen to hold it.
        let by_number =
            self.listener.port == SSH && (self.programs.is_empty() || self.programs.contains("systemd"));
        self.listener.proto == Proto::Tcp && !self.listener.is_loopback() && (daemon || by_number)
    }
}

/// Every listener of the calling thread's network namespace, in order, each once.
///
/// # Errors
/// If the kernel does not tell.
pub fn services() -> Result<Vec<Service>, NetlinkError> {
    let held = sockets::held_listeners()?;
    let holders = processes::holders(&held.iter().map(|(_, inode)| *inode).collect());
    let mut services: Vec<Service> = Vec::new();
    for (listener, inode) in held {
        let names = holders.get(&inode).into_iter().flatten();
        let names = names.map(|process| process.name.clone());
        match services.last_mut() {
            Some(last) if last.listener == listener => last.programs.extend(names),
            _ => services.push(Service {
                listener,
                programs: names.collect(),
            }),
        }
    }
    Ok(services)
}

/// A connection that another machine opened to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// From where.
    pub addr: IpAddr,
    /// To which port, as the client addressed it.
    pub port: u16,
}

/// The established TCP connections that other machines opened, to listeners and to ports that are published elsewhere.
/// What conntrack holds is left out where it cannot be read.
///
/// # Errors
/// If the kernel does not tell its sockets.
pub fn clients(services: &[Service]) -> Result<Vec<Client>, NetlinkError> {
    let own = host::own_addresses();
    let tcp = services
        .iter()
        .filter(|service| service.listener.proto == Proto::Tcp);
    let served: BTreeSet<u16> = tcp.map(|service| service.listener.port).collect();
    let open = sockets::connections()?;
    let direct = open
        .iter()
        .filter(|one| served.contains(&one.local.port()))
        .map(|one| Client {
            addr: one.peer.ip(),
            port: one.local.port(),
        });
    let flows = completed_flows(MAX_FLOWS).unwrap_or_default();
    let published = flows
        .iter()
        .filter(|flow| flow.is_translated() && own.contains(flow.server))
        .map(|flow| Client {
            addr: flow.client,
            port: flow.port,
        });
    let foreign = |client: &Client| !client.addr.is_loopback() && !own.contains(client.addr);
    let mut clients: Vec<Client> = direct.chain(published).filter(foreign).collect();
    clients.sort_unstable();
    Ok(clients)
}

const SSH: u16 = 22;
/// As many as a large machine has at a time; they are looked at, not kept.
const MAX_FLOWS: usize = 1 << 18;
