//! Authenticated SSH sessions: who administers this host right now, and through which port. A policy that would refuse
//! such a port locks its own author out; who decides about that is elsewhere, here are the facts.
//!
//! Who is logged in comes from utmp and logind, the port from the kernel's list of connections. Where neither tells of
//! anybody, connections that a process named sshd has held for ten minutes count: unauthenticated ones do not live so
//! long (LoginGraceTime).
//!
//! In doubt somebody is logged in: a session too many costs a refused reload. Whom a login protects from bans is
//! decided more strictly, in [`super::ssh_peers`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tracing::warn;

use super::logins::{self, Login};
use super::processes::{self, Process};
use super::sockets::{self, Connection};

/// An SSH session from another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Where it comes from.
    pub peer: IpAddr,
    /// The port of this host that it uses.
    pub local_port: u16,
    /// How it is known to be authenticated.
    pub how: How,
}

/// How a session is known to be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// logind lists it.
    Logind,
    /// utmp lists it.
    Utmp,
    /// sshd has held the connection for ten minutes or more.
    Age,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Logind => "SSH session listed by logind",
            How::Utmp => "SSH session listed in utmp",
            How::Age => "SSH connection older than 10 min",
        })
    }
}

/// Where logins are recorded.
#[derive(Clone, Debug)]
pub struct Records {
    /// Files of utmp; the first that holds a record counts.
    pub utmp: Vec<PathBuf>,
    /// The directory of logind's sessions.
    pub logind: PathBuf,
}

impl Records {
    /// Every file and directory in which a login is recorded.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.utmp.iter().chain([&self.logind]).cloned()
    }
}

impl Default for Records {
    fn default() -> Records {
        Records {
            utmp: vec!["/run/utmp".into(), "/var/run/utmp".into()],
            logind: "/run/systemd/sessions".into(),
        }
    }
}

/// The authenticated SSH sessions into the calling thread's network namespace, each peer and port once, at most 32.
///
/// Best effort: what cannot be read is left out.
pub fn ssh_sessions() -> Vec<Session> {
    ssh_sessions_by(&Records::default())
}

/// As [`ssh_sessions`], by the records of another place.
pub fn ssh_sessions_by(records: &Records) -> Vec<Session> {
    let (connections, listeners) = match (sockets::connections(), sockets::listeners()) {
        (Ok(connections), Ok(listeners)) => (connections, listeners),
        (Err(error), _) | (_, Err(error)) => {
            warn!("cannot list this host's connections, SSH sessions are not known: {error}");
            return Vec::new();
        }
    };
    let connections: Vec<Connection> = connections.into_iter().filter(is_foreign).collect();
    let inodes = connections
        .iter()
        .map(|open| open.inode)
        .filter(|inode| *inode != 0);
    let hosts = Sockets {
        holders: processes::holders(&inodes.collect()),
        listening: listeners.iter().map(|listener| listener.port).collect(),
        connections,
    };
    let logind = logins::of_logind(&records.logind);
    let utmp = logins::of_utmp(&records.utmp);
    if logind.is_none() && utmp.is_none() {
        return limited(hosts.aged());
    }
    let with = |how| move |login| (login, how);
    let logins = logind.unwrap_or_default().into_iter().map(with(How::Logind));
    let logins = logins.chain(utmp.unwrap_or_default().into_iter().map(with(How::Utmp)));
    limited(
        logins
            .filter(|(login, _)| alive(login.pid))
            .flat_map(|(login, how)| hosts.of_login(login, how))
            .collect(),
    )
}

/// Whether the other end is another host.
pub(super) fn is_foreign(open: &Connection) -> bool {
    !open.peer.ip().is_loopback() && open.peer.ip() != open.local.ip()
}

/// In order, each peer and port once.
fn limited(mut sessions: Vec<Session>) -> Vec<Session> {
    sessions.sort_unstable();
    sessions.dedup_by_key(|session| (session.peer, session.local_port));
    sessions.truncate(MOST_SESSIONS);
    sessions
}

/// Whether a process runs: utmp keeps the records of those that were killed.
pub(super) fn alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// The sockets of this host, as far as it tells.
struct Sockets {
    connections: Vec<Connection>,
    holders: BTreeMap<u32, Vec<Process>>,
    listening: BTreeSet<u16>,
}

impl Sockets {
    /// The connection of a login: the one that its process holds. Where that cannot be seen (another user's process,
    /// an engine without privileges), those of its peer that sshd holds, else that use port 22, else all inbound ones:
    /// rather one port too many is spared than the author locked out.
    fn of_login(&self, login: Login, how: How) -> Vec<Session> {
        let held = self.select(|open| {
            self.held_by(open, |process| process.pid == login.pid)
                && login.peer.is_none_or(|peer| open.peer.ip() == peer)
        });
        let from_peer = |open: &Connection| {
            login.peer == Some(open.peer.ip()) && self.listening.contains(&open.local.port())
        };
        let choices = [
            held,
            self.select(|open| from_peer(open) && self.held_by(open, is_sshd)),
            self.select(|open| from_peer(open) && open.local.port() == SSH),
            self.select(from_peer),
        ];
        let chosen = choices
            .into_iter()
            .find(|choice| !choice.is_empty())
            .unwrap_or_default();
        chosen.into_iter().map(|open| session(open, how)).collect()
    }

    /// The connections that root's sshd has held long enough to be authenticated: any user can run another by that name.
    fn aged(&self) -> Vec<Session> {
        let old = |process: &Process| {
            is_sshd(process)
                && process.uid == Some(0)
                && process.age.is_some_and(|age| age >= AUTHENTICATED_AFTER)
        };
        let aged = self.select(|open| self.held_by(open, old));
        aged.into_iter().map(|open| session(open, How::Age)).collect()
    }

    fn select(&self, which: impl Fn(&Connection) -> bool) -> Vec<&Connection> {
        self.connections.iter().filter(|open| which(open)).collect()
    }

    fn held_by(&self, open: &Connection, which: impl Fn(&Process) -> bool) -> bool {
        self.holders
            .get(&open.inode)
            .is_some_and(|holders| holders.iter().any(which))
    }
}

fn session(open: &Connection, how: How) -> Session {
    Session {
        peer: open.peer.ip(),
        local_port: open.local.port(),
        how,
    }
}

fn is_sshd(process: &Process) -> bool {
    is_sshd_name(&process.name)
}

/// OpenSSH's processes are sshd, sshd-session and sshd-auth.
pub(super) fn is_sshd_name(name: &str) -> bool {
    name.starts_with("sshd") || name == "dropbear"
}

/// Nobody administers a host from more places at once; who could make more could fill a table.
const MOST_SESSIONS: usize = 32;
/// Five times OpenSSH's LoginGraceTime (120 s), after which it ends what has not authenticated.
pub(super) const AUTHENTICATED_AFTER: Duration = Duration::from_secs(600);
/// The port of SSH.
const SSH: u16 = 22;

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

    fn process(pid: u32, name: &str, minutes: u64) -> Process {
        Process {
            pid,
            name: name.into(),
            uid: Some(0),
            age: Some(Duration::from_secs(60 * minutes)),
        }
    }

    /// A web connection and an SSH session on port 2222 of one peer, one on port 22 of another.
    fn sockets(visible: bool) -> Sockets {
        let holders = [
            (1, vec![process(100, "nginx", 500)]),
            (2, vec![process(200, "sshd", 11), process(201, "sshd-session", 9)]),
            (3, vec![process(300, "sshd", 9)]),
        ];
        Sockets {
            connections: vec![
                open("192.0.2.1:443", "198.51.100.7:50001", 1),
                open("192.0.2.1:2222", "198.51.100.7:50002", 2),
                open("192.0.2.1:22", "198.51.100.8:50003", 3),
                open("192.0.2.1:40000", "198.51.100.8:25", 4),
            ],
            holders: if visible { holders.into() } else { BTreeMap::new() },
            listening: [22, 443, 2222].into(),
        }
    }

    fn ports(sockets: &Sockets, pid: u32, peer: Option<&str>) -> Vec<u16> {
        let peer = peer.map(|peer| peer.parse().unwrap());
        let sessions = sockets.of_login(Login { pid, peer }, How::Utmp);
        sessions.iter().map(|session| session.local_port).collect()
    }

    #[test]
    fn a_login_is_found_by_its_process_also_without_an_address() {
        assert_eq!(ports(&sockets(true), 200, Some("198.51.100.7")), [2222]);
        assert_eq!(ports(&sockets(true), 200, None), [2222]);
        assert_eq!(ports(&sockets(true), 300, None), [22]);
        assert_eq!(ports(&sockets(true), 999, None), [0; 0]);
    }

    #[test]
    fn a_login_whose_process_holds_nothing_is_found_by_sshd() {
        assert_eq!(ports(&sockets(true), 999, Some("198.51.100.7")), [2222]);
    }

    #[test]
    fn unseen_processes_leave_port_22_or_every_inbound_one() {
        assert_eq!(ports(&sockets(false), 200, Some("198.51.100.7")), [443, 2222]);
        assert_eq!(ports(&sockets(false), 300, Some("198.51.100.8")), [22]);
        assert_eq!(ports(&sockets(false), 300, Some("198.51.100.9")), [0; 0]);
    }

    #[test]
    fn age_counts_only_for_sshd_and_from_ten_minutes_on() {
        let aged = sockets(true).aged();
        let how = How::Age;
        let (peer, local_port) = ("198.51.100.7".parse().unwrap(), 2222);
        assert_eq!(
            aged,
            [Session {
                peer,
                local_port,
                how
            }]
        );
        assert_eq!(sockets(false).aged(), []);
        let mut anybodys = sockets(true);
        anybodys
            .holders
            .values_mut()
            .flatten()
            .for_each(|process| process.uid = Some(1000));
        assert_eq!(anybodys.aged(), []);
    }

    #[test]
    fn at_most_32_are_told_each_once() {
        let session = |n: u16| Session {
            peer: "198.51.100.7".parse().unwrap(),
            local_port: 1 + n % 40,
            how: if n < 40 { How::Utmp } else { How::Logind },
        };
        let told = limited((0..200).map(session).collect());
        assert_eq!(told.len(), 32);
        assert!(
            told.windows(2)
                .all(|pair| pair[0].local_port < pair[1].local_port)
        );
    }
}
