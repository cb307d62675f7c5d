//! Who is protected because he administers this host by SSH: the peers of authenticated sessions, beyond doubt.
//!
//! Being protected means never being banned, so that in doubt nobody is (closed): a connection to port 22 proves nothing,
//! and anybody can hold some open without a password. What counts is what sshd, running as root, did:
//! - logind's record, which only root can have made, while its leading process runs;
//! - utmp's record, if the process that it names is sshd's own. Local users can write records too (utempter,
//!   screen), of processes of theirs;
//! - where neither is, a connection that root's sshd has held for ten minutes, is done authenticating, and does not
//!   itself listen there (the one that accepts holds every newcomer for a moment).
//!
//! In each case there must be an open connection of that peer in this network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::logins::{self, Login};
use super::netlink::NetlinkError;
use super::processes::{self, Process, Status};
use super::sessions::{AUTHENTICATED_AFTER, How, Records, alive, is_foreign, is_sshd_name};
use super::sockets::{self, Connection};
use crate::core::verdict::Proto;

/// Where an authenticated session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The other end.
    pub addr: IpAddr,
    /// How it is known.
    pub how: How,
}

/// The peers of authenticated SSH sessions into the calling thread's network namespace, in order, each once.
///
/// Records are read whole, processes only those that they name; all of `/proc` is looked through only where nothing
/// records logins.
///
/// # Errors
/// If the kernel does not list its connections.
pub fn ssh_peers(records: &Records) -> Result<Vec<Peer>, NetlinkError> {
    let logind = logins::of_logind(&records.logind);
    let utmp = logins::of_utmp(&records.utmp);
    let mut peers = if logind.is_none() && utmp.is_none() {
        Sockets::look()?.aged()
    } else {
        let logind = logind.into_iter().flatten();
        let logind = logind.filter(|login| alive(login.pid));
        let utmp = utmp.into_iter().flatten();
        let utmp = utmp.filter(|login| is_of_sshd(login.pid, processes::status));
        let mut logins: Vec<(Login, How)> = logind.map(|login| (login, How::Logind)).collect();
        logins.extend(utmp.map(|login| (login, How::Utmp)));
        recorded(&logins)?
    };
    peers.sort_unstable();
    peers.dedup_by_key(|peer| peer.addr);
    Ok(peers)
}

fn recorded(logins: &[(Login, How)]) -> Result<Vec<Peer>, NetlinkError> {
    if logins.is_empty() {
        return Ok(Vec::new()); // spares a busy host the listing of its connections
    }
    let sockets = Sockets::look()?;
    let connected: BTreeSet<IpAddr> = sockets.connections.iter().map(|open| open.peer.ip()).collect();
    let peers = logins.iter().flat_map(|(login, how)| {
        let peers: Vec<IpAddr> = match login.peer {
            Some(peer) => connected.get(&peer).copied().into_iter().collect(),
            // Only a name was recorded (UseDNS yes), which proves nothing.
            None => sockets.peers_of(&processes::held_by(login.pid)),
        };
        peers.into_iter().map(|addr| Peer { addr, how: *how })
    });
    Ok(peers.collect())
}

/// Whether a login's process is one that sshd answers for: root's sshd itself, or a child of it that runs as root or
/// under sshd's name (the user's half of OpenSSH). Whatever else a user starts is no child of root's sshd.
fn is_of_sshd(pid: u32, status: impl Fn(u32) -> Option<Status>) -> bool {
    let is_root = |process: &Status| process.uid == 0;
    let is_sshd = |process: &Status| is_sshd_name(&process.name);
    let Some(process) = status(pid) else {
        return false; // gone, or hidden from us
    };
    let own = is_root(&process) && is_sshd(&process);
    let child = is_root(&process) || is_sshd(&process);
    own || child && status(process.parent).is_some_and(|parent| is_root(&parent) && is_sshd(&parent))
}

/// The TCP sockets of this host.
struct Sockets {
    /// Established ones, to other hosts.
    connections: Vec<Connection>,
    /// Listening ones: inode and port.
    listening: BTreeMap<u32, u16>,
}

impl Sockets {
    fn look() -> Result<Sockets, NetlinkError> {
        let listeners = sockets::held_listeners()?.into_iter();
        let listeners = listeners.filter(|(listener, _)| listener.proto == Proto::Tcp);
        Ok(Sockets {
            connections: sockets::connections()?.into_iter().filter(is_foreign).collect(),
            listening: listeners
                .map(|(listener, inode)| (inode, listener.port))
                .collect(),
        })
    }

    /// The other ends of what a process holds that it neither opened nor accepted itself. (A session holds what is
    /// forwarded through it as well: its own connections, and with -R those of strangers.)
    fn peers_of(&self, held: &BTreeSet<u32>) -> Vec<IpAddr> {
        let came_in = |open: &&Connection| {
            held.contains(&open.inode) && self.listens(open.local.port(), |inode| !held.contains(&inode))
        };
        let own = |open: &&Connection| self.listens(open.local.port(), |inode| held.contains(&inode));
        let open = self.connections.iter().filter(came_in);
        open.filter(|open| !own(open))
            .map(|open| open.peer.ip())
            .collect()
    }

    fn listens(&self, port: u16, which: impl Fn(u32) -> bool) -> bool {
        let mut listening = self.listening.iter();
        listening.any(|(inode, at)| *at == port && which(*inode))
    }

    fn aged(&self) -> Vec<Peer> {
        let inodes = self.connections.iter().map(|open| open.inode);
        let inodes = inodes
            .filter(|inode| *inode != 0)
            .chain(self.listening.keys().copied());
        self.aged_among(
            &processes::holders_named(&inodes.collect(), is_sshd_name),
            processes::title,
        )
    }

    fn aged_among(
        &self,
        holders: &BTreeMap<u32, Vec<Process>>,
        title: impl Fn(u32) -> Option<String>,
    ) -> Vec<Peer> {
        let of = |inode: &u32| holders.get(inode).map_or(&[][..], |held| held);
        let accepts: BTreeSet<(u16, u32)> = self
            .listening
            .iter()
            .flat_map(|(inode, port)| of(inode).iter().map(|process| (*port, process.pid)))
            .collect();
        let proves = |open: &Connection, process: &Process| {
            process.uid == Some(0)
                && process.age.is_some_and(|age| age >= AUTHENTICATED_AFTER)
                && !accepts.contains(&(open.local.port(), process.pid))
        };
        let authenticated = |open: &&Connection| {
            let held = of(&open.inode);
            held.iter().any(|process| proves(open, process))
                && !held
                    .iter()
                    .any(|process| is_authenticating(process, title(process.pid)))
        };
        let how = How::Age;
        let old = self.connections.iter().filter(authenticated);
        old.map(|open| Peer {
            addr: open.peer.ip(),
            how,
        })
        .collect()
    }
}

/// Whether a process of sshd is one that waits for a password, however long (LoginGraceTime 0 lets it wait for ever):
/// OpenSSH says so in its name since 10.0, before in its title.
fn is_authenticating(process: &Process, title: Option<String>) -> bool {
    let Some(title) = title else {
        return true; // gone meanwhile
    };
    process.name == "sshd-auth" || AUTHENTICATING.iter().any(|words| title.contains(words))
}

/// OpenSSH's sshd.c and monitor.c, in the order in which a connection goes through them.
const AUTHENTICATING: [&str; 4] = ["[accepted]", "[net]", "[preauth]", "unknown [priv]"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn open(local: &str, peer: &str, inode: u32) -> Connection {
        Connection {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            inode,
        }
    }

    fn process(pid: u32, name: &str, uid: u32, minutes: u64) -> Process {
        Process {
            pid,
            name: name.into(),
            uid: Some(uid),
            age: Some(Duration::from_secs(60 * minutes)),
        }
    }

    /// sshd (1) listens on 22 with inode 10 and on nothing else; a session (2) listens on 8022 with 20.
    fn sockets(connections: Vec<Connection>) -> Sockets {
        Sockets {
            connections,
            listening: [(10, 22), (20, 8022)].into(),
        }
    }

    fn aged(holders: &[(u32, Process)], titles: &[(u32, &str)]) -> usize {
        let sockets = sockets(vec![
            open("192.0.2.1:22", "198.51.100.7:50000", 7),
            open("192.0.2.1:8022", "203.0.113.5:50000", 8),
        ]);
        let mut held: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
        for (inode, process) in holders {
            held.entry(*inode).or_default().push(process.clone());
        }
        let title = |pid| {
            let found = titles.iter().find(|(of, _)| *of == pid);
            Some(found.map_or("sshd: admin@pts/0", |(_, title)| title).to_owned())
        };
        sockets.aged_among(&held, title).len()
    }

    #[test]
    fn age_proves_a_session_of_roots_sshd() {
        let monitor = || (7, process(2, "sshd", 0, 10));
        assert_eq!(aged(&[monitor(), (7, process(3, "sshd", 1000, 10))], &[]), 1);
        assert_eq!(aged(&[(7, process(2, "sshd-session", 0, 10))], &[]), 1);
        assert_eq!(aged(&[(7, process(2, "sshd", 0, 9))], &[]), 0);
        assert_eq!(aged(&[(7, process(2, "sshd", 1000, 99))], &[]), 0, "anybody's");
        assert_eq!(aged(&[], &[]), 0, "nobody's whom we see");
    }

    #[test]
    fn however_old_nothing_counts_before_it_has_authenticated() {
        let monitor = || (7, process(2, "sshd", 0, 999));
        for (name, title) in [
            ("sshd", "sshd: [net]"),
            ("sshd", "sshd: root [net]"),
            ("sshd-session", "sshd-session: [accepted]"),
            ("sshd-auth", "whatever"),
        ] {
            assert_eq!(
                aged(&[monitor(), (7, process(3, name, 105, 999))], &[(3, title)]),
                0,
                "{title}"
            );
        }
        assert_eq!(aged(&[monitor()], &[(2, "sshd: [accepted]")]), 0);
        assert_eq!(aged(&[monitor()], &[(2, "sshd: unknown [priv]")]), 0);
    }

    #[test]
    fn who_accepts_a_connection_proves_nothing_by_holding_it() {
        let listener = process(1, "sshd", 0, 9_999);
        assert_eq!(aged(&[(10, listener.clone()), (7, listener.clone())], &[]), 0);
        // What root's session forwards to it (-R) is a stranger's.
        let session = process(2, "sshd", 0, 99);
        assert_eq!(aged(&[(20, session.clone()), (8, session.clone())], &[]), 0);
        // The session itself is one, whatever it forwards.
        assert_eq!(
            aged(&[(20, session.clone()), (8, session.clone()), (7, session)], &[]),
            1
        );
    }

    #[test]
    fn a_session_without_a_recorded_address_is_what_came_in_for_it() {
        let sockets = sockets(vec![
            open("192.0.2.1:22", "198.51.100.7:50000", 7),
            open("192.0.2.1:8022", "203.0.113.5:50000", 8),
            open("192.0.2.1:40000", "203.0.113.6:443", 9),
        ]);
        let held = BTreeSet::from([7, 8, 9, 20]);
        assert_eq!(
            sockets.peers_of(&held),
            ["198.51.100.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(sockets.peers_of(&BTreeSet::new()), [] as [IpAddr; 0]);
    }

    #[test]
    fn a_record_counts_if_sshd_answers_for_its_process() {
        let status = |pid| {
            let told = |name: &str, uid, parent| {
                let name = name.to_owned();
                Some(Status { name, uid, parent })
            };
            match pid {
                1 => told("systemd", 0, 0),
                10 => told("sshd", 0, 1),
                11 => told("sshd", 0, 10),
                12 => told("sshd-session", 1000, 11),
                13 => told("bash", 1000, 12),
                14 => told("sshd", 1000, 13),
                15 => told("sshd", 1000, 1),
                16 => told("bash", 0, 11),
                17 => told("login", 0, 1),
                18 => told("bash", 1000, 11),
                _ => None,
            }
        };
        for (pid, counts, what) in [
            (11, true, "root's half"),
            (12, true, "the user's half"),
            (16, true, "root's shell"),
            (13, false, "what the user runs"),
            (14, false, "what the user calls sshd"),
            (15, false, "what the user calls sshd and leaves behind"),
            (17, false, "another way in"),
            (18, false, "a user's shell"),
            (99, false, "nobody"),
        ] {
            assert_eq!(is_of_sshd(pid, status), counts, "{what}");
        }
    }
}
