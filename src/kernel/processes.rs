//! Which process holds a socket, from `/proc`: for names beside ports, and to tell an SSH session from any other
//! connection. Best effort: without CAP_SYS_PTRACE the descriptors of other users' processes cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name; any local user can choose it, so nothing is granted by it alone and it is escaped where shown.
    pub name: String,
    /// Its effective user; `None` if that cannot be read.
    pub uid: Option<u32>,
    /// How long it has run; `None` if that cannot be read.
    pub age: Option<Duration>,
}

/// What every process tells of itself, unless /proc is mounted with hidepid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) name: String,
    /// Its effective user.
    pub(super) uid: u32,
    pub(super) parent: u32,
}

/// The processes that hold each of the sockets `inodes`; a socket that nobody visible holds is missing.
pub fn holders(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Vec<Process>> {
    holders_named(inodes, |_| true)
}

/// As [`holders`], of those processes whose name is `wanted`: the descriptors of all others are not read, which on a
/// busy host are nearly all.
pub(super) fn holders_named(
    inodes: &BTreeSet<u32>,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<u32, Vec<Process>> {
    let mut holders: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    if inodes.is_empty() {
        return holders;
    }
    let uptime = read(Path::new("/proc/uptime")).and_then(|text| seconds(&text));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let name = read(&entry.path().join("comm")).unwrap_or_default();
        let name = name.trim_end();
        if !wanted(name) {
            continue;
        }
        let held: BTreeSet<u32> = sockets(&entry.path())
            .filter(|inode| inodes.contains(inode))
            .collect();
        if held.is_empty() {
            continue;
        }
        let process = Process {
            pid,
            name: name.to_owned(),
            uid: read(&entry.path().join("status")).and_then(|status| effective_user(&status)),
            age: age(&entry.path(), uptime),
        };
        for inode in held {
            holders.entry(inode).or_default().push(process.clone());
        }
    }
    holders
}

/// The sockets that process `pid` holds; none if that is not ours to see.
pub(super) fn held_by(pid: u32) -> BTreeSet<u32> {
    sockets(&of(pid)).collect()
}

/// What process `pid` tells of itself.
pub(super) fn status(pid: u32) -> Option<Status> {
    read_status(&read(&of(pid).join("status"))?)
}

/// When process `pid` started, since boot; to 10 ms, and never later than it was.
pub(super) fn started_at(pid: u32) -> Option<Duration> {
    started(&read(&of(pid).join("stat"))?)
}

/// Whether process `pid` works in the network namespace of the calling thread; `None` if that cannot be told.
pub fn shares_network(pid: u32) -> Option<bool> {
    let network = |of: PathBuf| fs::read_link(of.join("ns/net")).ok();
    Some(network(of(pid))? == network("/proc/thread-self".into())?)
}

/// Whether process `pid` has a pseudo-terminal: of a window, a terminal multiplexer, or a connection.
pub(super) fn has_pseudo_terminal(pid: u32) -> bool {
    read(&of(pid).join("stat")).is_some_and(|stat| is_pseudo(&stat))
}

/// By field 7 of `/proc/PID/stat`: the majors of Unix98 ptys (admin-guide/devices.txt).
fn is_pseudo(stat: &str) -> bool {
    let after_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    let device = after_name.split_ascii_whitespace().nth(7 - 3);
    let device: Option<u32> = device.and_then(|device| device.parse().ok());
    device.is_some_and(|device| (136..=143).contains(&(device >> 8 & 0xfff)))
}

/// The value of `name` in the environment that process `pid` was started with.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = read(&of(pid).join("environ"))?;
    let mut variables = environment.split('\0');
    variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// What process `pid` calls itself in lists of processes, any of its words; it can say what it likes.
pub(super) fn title(pid: u32) -> Option<String> {
    read(&of(pid).join("cmdline"))
}

fn of(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn read_status(text: &str) -> Option<Status> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
    };
    Some(Status {
        name: value("Name")?.to_owned(),
        uid: effective_user(text)?,
        parent: value("PPid")?.parse().ok()?,
    })
}

/// The inodes of the sockets that the process at `path` holds.
fn sockets(path: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| inode(fs::read_link(entry.path()).ok()?.to_str()?))
}

/// `socket:[4711]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn age(path: &Path, uptime: Option<Duration>) -> Option<Duration> {
    let started = started(&read(&path.join("stat"))?)?;
    Some(uptime?.saturating_sub(started))
}

/// Field 22 of `/proc/PID/stat` as time since boot. Fields are counted from the last ")": a name can hold anything.
fn started(stat: &str) -> Option<Duration> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let ticks: u64 = after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(Duration::from_millis(ticks.checked_mul(1_000 / USER_HZ)?))
}

/// The second number of `Uid:` in `/proc/PID/status`. (A name cannot forge it: its newlines are escaped there.)
fn effective_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The first number of `/proc/uptime`.
fn seconds(uptime: &str) -> Option<Duration> {
    let seconds = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ticks of `/proc` in a second: 100 on every architecture that this is built for (include/asm-generic/param.h).
const USER_HZ: u64 = 100;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn links_and_numbers_are_read_and_nothing_else() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for other in [
            "",
            "socket:[",
            "socket:[x]",
            "pipe:[4711]",
            "/dev/null",
            "socket:[99999999999]",
        ] {
            assert_eq!(inode(other), None, "{other}");
        }
        assert_eq!(seconds("35.75 12.00\n"), Some(Duration::from_millis(35_750)));
        for other in ["", "x", "-1 2", "nan", "1e300"] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_cannot_forge_its_age() {
        let stat = "77 (sshd) S 1 2) R 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        assert_eq!(started(stat), Some(Duration::from_millis(123_450)));
        for cut in 0..stat.len() - 5 {
            let _ = started(&stat[..cut]);
        }
        assert_eq!(started("77 (sshd"), None);
        assert_eq!(started("77 (sshd) S 1"), None);
        assert_eq!(
            started(&format!("1 (x){}", " 99999999999999999999".repeat(30))),
            None
        );
    }

    #[test]
    fn a_window_is_told_from_a_console() {
        let stat = |device: u32| format!("7 (a) b) S 1 7 7 {device} 7 0");
        assert!(is_pseudo(&stat(136 << 8)) && is_pseudo(&stat((143 << 8) + 5)));
        for other in [0, (4 << 8) + 1, (5 << 8) + 1, 144 << 8, 229 << 8] {
            assert!(!is_pseudo(&stat(other)), "{other}");
        }
        assert!(!is_pseudo("") && !is_pseudo("7 (x"));
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(
            effective_user("Name:\tx\\nUid:\t0\nUid:\t1000\t0\t0\t0\n"),
            Some(0)
        );
        for other in ["", "Uid:", "Uid:\t0", "Uid:\tx\ty"] {
            assert_eq!(effective_user(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_tells_of_itself() {
        let me = status(std::process::id()).unwrap();
        assert_eq!(me.uid, rustix::process::geteuid().as_raw());
        assert_eq!(status(me.parent).map(|_| ()), Some(()), "{me:?}");
        let text = "Name:\tsshd\\nUid:\t0\nPPid:\t7\nUid:\t1000\t1000\t0\t0\n";
        let told = read_status(text).unwrap();
        assert_eq!(
            (told.name.as_str(), told.uid, told.parent),
            ("sshd\\nUid:\t0", 1000, 7)
        );
        for cut in 0..text.len() - 10 {
            assert_ne!(read_status(&text[..cut]).map(|told| told.uid), Some(0));
        }
        assert_eq!(status(u32::MAX), None);
        assert_eq!(shares_network(std::process::id()), Some(true));
        assert_eq!(shares_network(u32::MAX), None);
        assert!(!title(std::process::id()).unwrap().is_empty());
    }

    #[test]
    fn this_process_holds_its_own_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = inode(link.to_str().unwrap()).unwrap();
        let holders = holders(&[inode].into());
        let me = holders[&inode]
            .iter()
            .find(|process| process.pid == std::process::id())
            .unwrap();
        assert!(!me.name.is_empty());
        assert_eq!(me.uid, Some(rustix::process::geteuid().as_raw()));
        assert!(me.age.unwrap() < Duration::from_secs(86_400));
        assert!(held_by(std::process::id()).contains(&inode));
        assert_eq!(holders_named(&[inode].into(), |_| false).len(), 0);
        assert_eq!(super::holders(&BTreeSet::new()).len(), 0);
    }
}
