//! Through which connection somebody typed what this process was started by: who changes the rules of the way in must
//! not cut it, and who says that it still works must have come by it after they changed.
//!
//! sshd has a process for each connection, and whatever is typed in it descends from that one. Its age is the age of
//! the connection, also where many sessions share one (ControlMaster). A terminal multiplexer outlives the connection
//! that it was started in, and descends from no sshd; there the environment says which connection that was.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::netlink::NetlinkError;
use super::processes::{self, Status};
use super::sessions::is_sshd_name;
use super::sockets::{self, Connection};
use crate::core::verdict::Proto;

/// How somebody came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// By no SSH connection: the console, a job of the system.
    Local,
    /// Nothing tells: a window of this host, or one of a terminal multiplexer or a web console, which may be looked into
    /// from anywhere.
    Window,
    /// By this SSH connection.
    Ssh(Way),
    /// By an SSH connection that is no longer there; its addresses as SSH_CONNECTION told them.
    Gone(String),
}

/// An SSH connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The end of this host.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// When sshd took it, since boot; `None` if that cannot be told.
    pub since: Option<Duration>,
}

impl Way {
    /// Whether it begins on this host itself, and so passes every filter.
    pub fn is_of_this_host(&self) -> bool {
        self.peer.ip().is_loopback() || self.peer.ip() == self.local.ip()
    }
}

/// How this process's operator came in.
///
/// # Errors
/// If the kernel does not tell which connections there are.
pub fn way_in() -> Result<WayIn, NetlinkError> {
    let ancestors = ancestors(std::process::id(), processes::status);
    let sockets = Sockets::look()?;
    // The outermost first: what a session calls sshd inside itself is no way in.
    for (pid, _) in ancestors
        .iter()
        .rev()
        .filter(|(_, status)| is_sshd_name(&status.name))
    {
        if let Some(open) = sockets.accepted_for(&processes::held_by(*pid)) {
            return Ok(WayIn::Ssh(way(open, processes::started_at(*pid))));
        }
    }
    let told = ancestors
        .iter()
        .find_map(|(pid, _)| processes::variable(*pid, "SSH_CONNECTION"));
    let Some(told) = told.filter(|told| !told.is_empty()) else {
        return Ok(match processes::has_pseudo_terminal(std::process::id()) {
            true => WayIn::Window,
            false => WayIn::Local,
        });
    };
    Ok(match sockets.told(&told) {
        Some(open) => WayIn::Ssh(way(open, taken_at(open))),
        None => WayIn::Gone(told),
    })
}

fn way(open: &Connection, since: Option<Duration>) -> Way {
    Way {
        local: open.local,
        peer: open.peer,
        since,
    }
}

/// When the first of sshd's processes that hold it started.
fn taken_at(open: &Connection) -> Option<Duration> {
    let mut holders = processes::holders_named(&BTreeSet::from([open.inode]), is_sshd_name);
    let holders = holders.remove(&open.inode)?;
    holders
        .iter()
        .filter_map(|process| processes::started_at(process.pid))
        .min()
}

/// This process and those it descends from, as far as they can be seen.
fn ancestors(pid: u32, status: impl Fn(u32) -> Option<Status>) -> Vec<(u32, Status)> {
    let mut found: Vec<(u32, Status)> = Vec::new();
    let mut next = pid;
    while found.len() < DEEPEST
        && next != 0
        && let Some(told) = status(next)
    {
        let parent = told.parent;
        found.push((next, told));
        next = parent;
    }
    found
}

/// The TCP sockets of this host.
struct Sockets {
    connections: Vec<Connection>,
    /// Listening ones: port and inode.
    listening: Vec<(u16, u32)>,
}

impl Sockets {
    fn look() -> Result<Sockets, NetlinkError> {
        let listeners = sockets::held_listeners()?.into_iter();
        Ok(Sockets {
            connections: sockets::connections()?,
            listening: listeners
                .filter(|(listener, _)| listener.proto == Proto::Tcp)
                .map(|(listener, inode)| (listener.port, inode))
                .collect(),
        })
    }

    /// Of the sockets of one process that serves a connection, that connection: not what is forwarded through it, which
    /// it opened itself (-L) or took on a port where it listens itself (-R). The oldest, should there be more.
    fn accepted_for(&self, held: &BTreeSet<u32>) -> Option<&Connection> {
        let listens = |port: u16, own: bool| {
            let mut at = self.listening.iter().filter(|(at, _)| *at == port);
            at.any(|(_, inode)| held.contains(inode) == own)
        };
        let taken = |open: &&Connection| {
            let port = open.local.port();
            held.contains(&open.inode) && listens(port, false) && !listens(port, true)
        };
        self.connections
            .iter()
            .filter(taken)
            .min_by_key(|open| open.inode)
    }

    /// The connection that `SSH_CONNECTION` names: peer and its port, local address and its port.
    fn told(&self, told: &str) -> Option<&Connection> {
        let mut words = told.split_ascii_whitespace();
        let mut end = || {
            let addr: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(addr.to_canonical(), words.next()?.parse().ok()?))
        };
        let (peer, local) = (end()?, end()?);
        let same = |open: &&Connection| open.peer == peer && open.local == local;
        self.connections.iter().find(same)
    }
}

/// Nobody nests shells so deep; who does came by none.
const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(local: &str, peer: &str, inode: u32) -> Connection {
        Connection {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            inode,
        }
    }

    /// sshd listens on 22 (socket 10), a session on 8022 (20), the web server on 80 (30).
    fn sockets() -> Sockets {
        Sockets {
            connections: vec![
                open("192.0.2.1:22", "198.51.100.7:50000", 7),
                open("192.0.2.1:8022", "203.0.113.5:50000", 8),
                open("127.0.0.1:40000", "127.0.0.1:80", 9),
                open("[2001:db8::1]:22", "[2001:db8::9]:50001", 11),
            ],
            listening: vec![(22, 10), (8022, 20), (80, 30)],
        }
    }

    #[test]
    fn the_connection_of_a_session_is_not_what_is_forwarded_through_it() {
        let sockets = sockets();
        let found = |held: &[u32]| {
            sockets
                .accepted_for(&held.iter().copied().collect())
                .map(|open| open.inode)
        };
        assert_eq!(found(&[7, 8, 9, 20]), Some(7));
        assert_eq!(found(&[8, 9, 20]), None, "forwarded only");
        assert_eq!(found(&[10, 7]), None, "who listens serves no connection");
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn what_the_environment_says_counts_only_for_a_connection_that_is_there() {
        let sockets = sockets();
        let found = |told| sockets.told(told).map(|open| open.inode);
        assert_eq!(found("198.51.100.7 50000 192.0.2.1 22"), Some(7));
        assert_eq!(found("::ffff:198.51.100.7 50000 192.0.2.1 22"), Some(7));
        assert_eq!(found("2001:db8::9 50001 2001:db8::1 22"), Some(11));
        for other in [
            "",
            "198.51.100.7 50000 192.0.2.1",
            "198.51.100.7 50001 192.0.2.1 22",
            "x y z w",
            "198.51.100.7 99999 192.0.2.1 22",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn ancestors_end_at_the_first_process_and_never_go_round() {
        let status = |parent| {
            let name = "x".to_owned();
            Some(Status { name, uid: 0, parent })
        };
        let found = ancestors(3, |pid| status(pid - 1));
        assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(ancestors(3, |_| status(3)).len(), DEEPEST);
        assert_eq!(ancestors(3, |_| None), []);
    }

    #[test]
    fn this_process_came_in_somehow() {
        way_in().unwrap();
        assert!(processes::started_at(std::process::id()).unwrap() > Duration::ZERO);
        assert_eq!(processes::variable(std::process::id(), "NO_SUCH_VARIABLE"), None);
    }

    #[test]
    fn a_connection_of_the_host_with_itself_proves_nothing() {
        let way = |local: &str, peer: &str| way(&open(local, peer, 1), None);
        assert!(way("127.0.0.1:22", "127.0.0.1:5").is_of_this_host());
        assert!(way("192.0.2.1:22", "192.0.2.1:5").is_of_this_host());
        assert!(!way("192.0.2.1:22", "192.0.2.2:5").is_of_this_host());
    }
}
