//! What /proc tells about queues and log groups: the kernel's own counters, and who holds a number that we
//! wanted. Text in, values out; whatever cannot be read is `None`, never an error.

use std::fs;

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

/// Who holds a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Netlink port of the holding socket.
    pub(crate) portid: Option<u32>,
    /// The process behind it, if it lives.
    pub(crate) pid: Option<u32>,
    /// Its name.
    pub(crate) name: Option<String>,
}

impl Holder {
    /// Who holds `number`, as far as this process may know.
    pub(crate) fn of(kind: Numbered, number: u16) -> Holder {
        let portid = portid_of(kind, number);
        let pid = portid.and_then(|portid| {
            // A process's first socket has its pid for a port; later ones have numbers above 2^31.
            process_of(portid).or_else(|| is_alive(portid).then_some(portid))
        });
        let name = pid.and_then(|pid| {
            Some(
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .ok()?
                    .trim()
                    .to_owned(),
            )
        });
        Holder { portid, pid, name }
    }

    /// The name and pid for a message.
    pub(crate) fn title(&self) -> Option<String> {
        Some(format!("{} (pid {})", self.name.as_deref()?, self.pid?))
    }
}

fn portid_of(kind: Numbered, number: u16) -> Option<u32> {
    let text = fs::read_to_string(match kind {
        Numbered::Queue => QUEUES,
        Numbered::LogGroup => LOG_GROUPS,
    });
    first_two(&text.ok()?)
        .find(|(found, _)| *found == u32::from(number))
        .map(|(_, portid)| portid)
}

/// Both files begin each line with the number and its holder's port.
pub(super) fn first_two(text: &str) -> impl Iterator<Item = (u32, u32)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

/// The process that has the netfilter socket with port `portid` open.
fn process_of(portid: u32) -> Option<u32> {
    let inode = inode_of(&fs::read_to_string(SOCKETS).ok()?, portid)?;
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| has_open(*pid, &link))
}

/// af_netlink.c, netlink_native_seq_show: sk, protocol, portid, groups, rmem, wmem, dump, locks, drops, inode.
fn inode_of(text: &str, portid: u32) -> Option<u64> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = *words.get(1)? == NETLINK_NETFILTER && words.get(2)?.parse() == Ok(portid);
        ours.then(|| words.get(9)?.parse().ok()).flatten()
    })
}

fn has_open(pid: u32, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.as_os_str() == link)
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
pub(super) const QUEUES: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";
pub(super) const LOG_GROUPS: &str = "/proc/thread-self/net/netfilter/nfnetlink_log";
pub(super) const SOCKETS: &str = "/proc/thread-self/net/netlink";
/// include/uapi/linux/netlink.h, as /proc/net/netlink writes it.
pub(super) const NETLINK_NETFILTER: &str = "12";

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

    #[test]
    fn a_socket_is_found_by_protocol_and_port() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                    0000000000000000 0   4242       00000000 0        0        0     2        0        11\n\
                    0000000000000000 12  4242       00000000 0        0        0     2        0        12\n";
        assert_eq!(inode_of(text, 4242), Some(12));
        assert_eq!(inode_of(text, 1), None);
    }

    #[test]
    fn this_process_lives_and_pid_0_does_not() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0));
    }
}
