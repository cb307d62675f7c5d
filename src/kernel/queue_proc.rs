//! What /proc tells about netfilter's numbers and sockets: the kernel's own counters of queues, who holds which queue or log
//! group, who hears conntrack; with the programs behind them, as far as this process may see them. Text in, values out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::{fmt, fs};

use super::host;
use super::processes::{self, Process};

/// The kernel's counters of one bound queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounters {
    /// The queue's number.
    pub number: u16,
    /// Netlink port of the socket that bound it.
    pub portid: u32,
    /// Packets that wait for a verdict.
    pub waiting: u32,
    /// 0 nothing is copied (everything is dropped), 1 metadata, 2 packets.
    pub copy_mode: u8,
    /// Packets dropped because the queue was full. Zero for ever where the queue fails open.
    pub kernel_dropped: u32,
    /// Packets dropped because the socket's receive buffer was full. Zero for ever where the queue fails open.
    pub user_dropped: u32,
    /// Number of the last packet; wraps.
    pub id_sequence: u32,
}

/// The counters of every queue bound in the calling thread's network namespace; `None` where they cannot be
/// read (the file is 0440 root:root) or nfnetlink_queue is absent.
pub fn queue_counters() -> Option<Vec<QueueCounters>> {
    Some(parse_queues(&fs::read_to_string(QUEUES).ok()?))
}

fn parse_queues(text: &str) -> Vec<QueueCounters> {
    text.lines().filter_map(parse_queue).collect()
}

/// nfnetlink_queue.c, seq_show: number, portid, total, mode, range, dropped, user dropped, sequence, 1.
fn parse_queue(line: &str) -> Option<QueueCounters> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let portid = words.next()?.parse().ok()?;
    let waiting = words.next()?.parse().ok()?;
    let copy_mode = words.next()?.parse().ok()?;
    let mut rest = words.skip(1);
    Some(QueueCounters {
        number,
        portid,
        waiting,
        copy_mode,
        kernel_dropped: rest.next()?.parse().ok()?,
        user_dropped: rest.next()?.parse().ok()?,
        id_sequence: rest.next()?.parse().ok()?,
    })
}

/// The two kinds of numbers that a socket can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// A verdict queue.
    Queue,
    /// A log group.
    LogGroup,
}

impl Numbered {
    /// The word used in messages.
    pub fn word(self) -> &'static str {
        match self {
            Numbered::Queue => "queue number",
            Numbered::LogGroup => "log group",
        }
    }
}

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

/// Who holds a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Netlink port of the holding socket.
    pub(crate) portid: Option<u32>,
    /// The program behind it, if it can be seen.
    pub(crate) program: Option<Program>,
    /// Whether a process lives that may be behind it.
    pub(crate) lives: bool,
}

impl Holder {
    /// Who holds `number`, as far as this process may know.
    pub(crate) fn of(kind: Numbered, number: u16) -> Holder {
        let held = numbers_held(kind).unwrap_or_default();
        let holding = held.into_iter().find(|(found, _)| *found == number);
        let Some((_, portid)) = holding else {
            return Holder::default();
        };
        let sockets = netlink_sockets().unwrap_or_default();
        let program = programs(&sockets, &[portid].into()).remove(&portid);
        // A process's first socket has its pid for a port; later ones have numbers above 2^31.
        let program = program.or_else(|| {
            processes::status(portid).map(|status| Program {
                name: status.name,
                pid: portid,
            })
        });
        Holder {
            portid: Some(portid),
            lives: program.as_ref().is_some_and(|program| is_alive(program.pid)),
            program,
        }
    }
}

/// Which numbers of a kind are held in the calling thread's network namespace, each with its holder's netlink port.
///
/// # Errors
/// If the kernel does not tell: only root may ask. Where the module is not loaded nothing is held.
pub(super) fn numbers_held(kind: Numbered) -> io::Result<Vec<(u16, u32)>> {
    Ok(numbers(&read(match kind {
        Numbered::Queue => QUEUES,
        Numbered::LogGroup => LOG_GROUPS,
    })?))
}

/// Both files begin each line with the number and its holder's port.
fn numbers(text: &str) -> Vec<(u16, u32)> {
    let two = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(two).collect()
}

/// A socket of NETLINK_NETFILTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetlinkSocket {
    pub(super) portid: u32,
    /// Bit n-1: member of multicast group n.
    groups: u32,
    inode: u32,
}

impl NetlinkSocket {
    /// Whether it is a member of a group to which conntrack tells what begins, changes or ends.
    pub(super) fn hears_conntrack(&self) -> bool {
        self.groups & CONNTRACK_GROUPS != 0
    }
}

/// Those of the calling thread's network namespace.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn netlink_sockets() -> io::Result<Vec<NetlinkSocket>> {
    Ok(parse_sockets(&read(SOCKETS)?))
}

/// af_netlink.c, netlink_native_seq_show: sk, protocol, portid, groups, rmem, wmem, dump, locks, drops, inode.
fn parse_sockets(text: &str) -> Vec<NetlinkSocket> {
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

/// The programs that have these netlink ports open; of several, the first.
pub(super) fn programs(sockets: &[NetlinkSocket], ports: &BTreeSet<u32>) -> BTreeMap<u32, Program> {
    let inodes: BTreeMap<u32, u32> = sockets
        .iter()
        .filter(|socket| ports.contains(&socket.portid))
        .map(|socket| (socket.inode, socket.portid))
        .collect();
    let holders = processes::holders(&inodes.keys().copied().collect());
    let first = |(inode, found): (u32, Vec<Process>)| {
        let Process { name, pid, .. } = found.into_iter().min_by_key(|one| one.pid)?;
        Some((*inodes.get(&inode)?, Program { name, pid }))
    };
    holders.into_iter().filter_map(first).collect()
}

/// The text of a file of /proc; nothing where the module behind it is not loaded, which nobody can hold anything of.
fn read(path: &str) -> io::Result<String> {
    match host::read_up_to(path, PROC_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Whether `pid` is a process that is neither dead nor waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold any character; the state follows the last of them.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// /proc/net is /proc/self/net, the namespace of the main thread; ours may be another.
const QUEUES: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";
const LOG_GROUPS: &str = "/proc/thread-self/net/netfilter/nfnetlink_log";
const SOCKETS: &str = "/proc/thread-self/net/netlink";
/// include/uapi/linux/netlink.h, as /proc/net/netlink writes it.
const NETLINK_NETFILTER: &str = "12";
/// NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY of include/uapi/linux/netfilter/nfnetlink_compat.h are 1, 2 and 3.
const CONNTRACK_GROUPS: u32 = 0b111;
/// Far more than 10,000 sockets need.
const PROC_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let text = "  100   4242    17 2   256     3     4    90210  1\n65535 4294967295     0 0     0     0     0        0  1\n";
        let queues = parse_queues(text);
        let first = QueueCounters {
            number: 100,
            portid: 4242,
            waiting: 17,
            copy_mode: 2,
            kernel_dropped: 3,
            user_dropped: 4,
            id_sequence: 90210,
        };
        assert_eq!(queues[0], first);
        assert_eq!((queues[1].number, queues[1].portid), (65535, u32::MAX));
    }

    #[test]
    fn lines_of_another_shape_are_left_out() {
        for text in [
            "",
            "\n",
            "100",
            "100 1 2 3 4 5 6",
            "x 1 2 3 4 5 6 7 8",
            "70000 1 2 2 4 5 6 7 1",
        ] {
            assert_eq!(parse_queues(text), [], "{text:?}");
        }
    }

    const LISTED: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
        00000000e69573e8 0   4242       00000007 0        0        0     2        0        11\n\
        00000000e69573e9 12  4242       00000000 0        0        0     2        0        12\n\
        00000000e69573ea 12  2147487890 00000005 0        0        0     2        7        13\n";

    #[test]
    fn sockets_of_netfilter_are_read_with_their_groups() {
        let sockets = parse_sockets(LISTED);
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
            assert_eq!(parse_sockets(text), [], "{text:?}");
        }
        assert_eq!(numbers("70000 1 2\n-1 5\nx y\n99999999999 1\n"), []);
        for cut in 0..LISTED.len() {
            let _ = parse_sockets(&LISTED[..cut]);
        }
    }
    #[test]
    fn this_process_lives_and_pid_0_does_not() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0));
    }
}
