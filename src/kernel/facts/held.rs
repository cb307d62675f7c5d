//! Who else works with netfilter's numbers here: queues, log groups, and conntrack's announcements; with the names of the
//! programs behind their sockets, as far as this process may see them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};

use crate::kernel::host::read_up_to;
use crate::kernel::processes::{self, Process};
use crate::kernel::queue::Numbered;
use crate::kernel::queue_proc::{LOG_GROUPS, NETLINK_NETFILTER, QUEUES, SOCKETS, first_two};

/// The process behind a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Its name, which it chose itself.
    pub name: String,
    /// Its number.
    pub pid: u32,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// A number that some socket holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The number of the queue or log group.
    pub number: u16,
    /// The holding socket's netlink port.
    pub portid: u32,
    /// Who has it open, if that can be seen.
    pub program: Option<Program>,
}

/// Who holds what in the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Verdict queues; `None`: the kernel tells only root.
    pub queues: Option<Vec<Holding>>,
    /// Log groups; `None` as above.
    pub groups: Option<Vec<Holding>>,
    /// Who listens to conntrack's announcements: netlink port and program; `None`: not to be read.
    pub listeners: Option<Vec<(u32, Option<Program>)>>,
}

impl Held {
    /// Looks.
    pub fn look() -> Held {
        let sockets = read(SOCKETS).ok().map(|text| netlink_sockets(&text));
        let known = sockets.clone().unwrap_or_default();
        let numbers = |path| Some(numbers(&read(path).ok()?));
        let (queues, groups) = (numbers(QUEUES), numbers(LOG_GROUPS));
        let ports = [&queues, &groups].into_iter().flatten().flatten();
        let mut wanted: BTreeSet<u32> = ports.map(|(_, portid)| *portid).collect();
        wanted.extend(
            known
                .iter()
                .filter(|one| one.hears_conntrack())
                .map(|one| one.portid),
        );
        let programs = programs(&known, &wanted);
        let holdings = |all: Vec<(u16, u32)>| -> Vec<Holding> {
            let holding = |(number, portid)| Holding {
                number,
                portid,
                program: programs.get(&portid).cloned(),
            };
            all.into_iter().map(holding).collect()
        };
        Held {
            queues: queues.map(holdings),
            groups: groups.map(holdings),
            listeners: sockets.map(|sockets| {
                let hearing = sockets.iter().filter(|one| one.hears_conntrack());
                hearing
                    .map(|one| (one.portid, programs.get(&one.portid).cloned()))
                    .collect()
            }),
        }
    }

    /// The holdings of one kind.
    pub fn of(&self, kind: Numbered) -> Option<&[Holding]> {
        match kind {
            Numbered::Queue => self.queues.as_deref(),
            Numbered::LogGroup => self.groups.as_deref(),
        }
    }
}

/// The text of a file of /proc; nothing where the module behind it is not loaded, which nobody can hold anything of.
fn read(path: &str) -> io::Result<String> {
    match read_up_to(path, PROC_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

fn numbers(text: &str) -> Vec<(u16, u32)> {
    let fits = |(number, portid)| Some((u16::try_from(number).ok()?, portid));
    first_two(text).filter_map(fits).collect()
}

/// The programs that have these netlink ports open; of several, the first.
fn programs(sockets: &[NetlinkSocket], ports: &BTreeSet<u32>) -> BTreeMap<u32, Program> {
    let inodes: BTreeMap<u32, u32> = sockets
        .iter()
        .filter(|socket| ports.contains(&socket.portid))
        .map(|socket| (socket.inode, socket.portid))
        .collect();
    let program = |Process { name, pid, .. }: Process| Program { name, pid };
    let holders = processes::holders(&inodes.keys().copied().collect());
    holders
        .into_iter()
        .filter_map(|(inode, found)| {
            Some((
                *inodes.get(&inode)?,
                program(found.into_iter().min_by_key(|one| one.pid)?),
            ))
        })
        .collect()
}

/// A socket of NETLINK_NETFILTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NetlinkSocket {
    portid: u32,
    /// Bit n-1: member of multicast group n.
    groups: u32,
    inode: u32,
}

impl NetlinkSocket {
    fn hears_conntrack(&self) -> bool {
        self.groups & CONNTRACK_GROUPS != 0
    }
}

/// af_netlink.c, netlink_native_seq_show: sk, protocol, portid, groups, rmem, wmem, dump, locks, drops, inode.
fn netlink_sockets(text: &str) -> Vec<NetlinkSocket> {
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (*words.get(1)? == NETLINK_NETFILTER).then_some(())?;
        Some(NetlinkSocket {
            portid: words.get(2)?.parse().ok()?,
            groups: u32::from_str_radix(words.get(3)?, 16).ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    };
    text.lines().filter_map(socket).collect()
}

/// NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY of include/uapi/linux/netfilter/nfnetlink_compat.h are 1, 2 and 3.
const CONNTRACK_GROUPS: u32 = 0b111;
/// Far more than 10,000 sockets need.
const PROC_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKETS: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
        00000000e69573e8 0   4242       00000007 0        0        0     2        0        11\n\
        00000000e69573e9 12  4242       00000000 0        0        0     2        0        12\n\
        00000000e69573ea 12  2147487890 00000005 0        0        0     2        7        13\n";

    #[test]
    fn sockets_of_netfilter_are_read_with_their_groups() {
        let sockets = netlink_sockets(SOCKETS);
        assert_eq!(sockets.len(), 2);
        assert_eq!((sockets[0].portid, sockets[0].inode), (4242, 12));
        assert!(!sockets[0].hears_conntrack());
        assert!(sockets[1].hears_conntrack());
    }

    #[test]
    fn the_kernels_lines_of_groups_are_read() {
        assert_eq!(
            numbers("  100   4242    17 2   256     3\n    5 2147487890     0 2 65535    100  1\n"),
            [(100, 4242), (5, 2_147_487_890)]
        );
    }

    #[test]
    fn hostile_bytes_are_left_out() {
        for text in [
            "",
            "\n\n",
            "12 12 12",
            "x 12 y z 0 0 0 0 0 q",
            "70000 1",
            "1",
            "\0\u{fffd} 12 1 ffffffffff",
        ] {
            assert_eq!(netlink_sockets(text), [], "{text:?}");
        }
        assert_eq!(numbers("70000 1 2\n-1 5\nx y\n99999999999 1\n"), []);
        for cut in 0..SOCKETS.len() {
            let _ = netlink_sockets(&SOCKETS[..cut]);
        }
    }
}
