//! seccomp: the system calls that a running engine makes, and of some only the ways in which it makes them. All others
//! end with EPERM and not with the process (open): a need that nobody foresaw is an error in the log, not a dead firewall.
//!
//! The filter is given by names and compiled by `seccompiler` for the architecture that runs; unit tests compile and run
//! it for both that are supported. System calls of another architecture (32 bit) end the process, those of x32 have
//! numbers that are on no list.

use std::collections::HashMap;

use seccompiler::{BpfMap, BpfProgram, TargetArch, apply_filter_all_threads, compile_from_json};
use serde_json::{Value, json};
use thiserror::Error;

/// Why there is no filter.
#[derive(Debug, Error)]
pub(super) enum SeccompError {
    /// Nobody wrote one.
    #[error("there is no filter for {0}, only for x86_64 and aarch64")]
    Architecture(&'static str),
    /// It does not compile.
    #[error("the filter does not compile: {0}")]
    Filter(String),
    /// The kernel said no: without seccomp, or under a filter that forbids filters.
    #[error("the kernel refused it: {0}")]
    Kernel(String),
}

/// Filters every thread of this process, now and for ever.
pub(super) fn apply() -> Result<(), SeccompError> {
    let name = std::env::consts::ARCH;
    let arch = architecture(name).ok_or(SeccompError::Architecture(name))?;
    for program in programs(arch, std::process::id())? {
        apply_filter_all_threads(&program).map_err(|error| SeccompError::Kernel(told(&error)))?;
    }
    Ok(())
}

fn told(error: &seccompiler::Error) -> String {
    use seccompiler::Error::{Prctl, Seccomp};
    match error {
        Prctl(error) | Seccomp(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn architecture(name: &str) -> Option<TargetArch> {
    match name {
        "x86_64" => Some(TargetArch::x86_64),
        "aarch64" => Some(TargetArch::aarch64),
        _ => None,
    }
}

/// In the order in which they are put in force: the second forbids to put another in force. Where one objects, the other's
/// consent does not help.
fn programs(arch: TargetArch, pid: u32) -> Result<[BpfProgram; 2], SeccompError> {
    let all = json!({
        "allowed": {
            "mismatch_action": { "errno": libc::EPERM },
            "match_action": "allow",
            "filter": allowed(arch, pid),
        },
        // A libc then starts threads by clone(), whose flags can be seen.
        "absent": {
            "mismatch_action": "allow",
            "match_action": { "errno": libc::ENOSYS },
            "filter": [{ "syscall": "clone3" }],
        },
    });
    let faulty = |error: String| SeccompError::Filter(error);
    let text = all.to_string();
    let mut programs: BpfMap =
        compile_from_json(text.as_bytes(), arch).map_err(|error| faulty(error.to_string()))?;
    let mut take =
        |name: &str| HashMap::remove(&mut programs, name).ok_or_else(|| faulty(format!("no {name:?}")));
    Ok([take("absent")?, take("allowed")?])
}

/// `{"syscall": …, "args": […]}`, one for each way in which a call may be made.
fn allowed(arch: TargetArch, pid: u32) -> Vec<Value> {
    let old: &[&str] = match arch {
        TargetArch::x86_64 => &OF_X86_64,
        _ => &OF_OTHERS,
    };
    let plain = PLAIN.iter().chain(old).map(|name| json!({ "syscall": name }));
    plain.chain(conditional(pid)).collect()
}

fn conditional(pid: u32) -> impl Iterator<Item = Value> {
    let any_of = |name: &'static str, index: u8, values: &[u32]| {
        let values: Vec<Value> = values
            .iter()
            .map(|value| call(name, &[is(index, *value)]))
            .collect();
        values
    };
    let protections = |name: &'static str| {
        // Memory that can be written and executed is what injected code wants.
        let both = (libc::PROT_WRITE | libc::PROT_EXEC) as u32;
        let ways = [0, libc::PROT_WRITE as u32, libc::PROT_EXEC as u32];
        ways.map(|way| call(name, &[masked(2, both, way)])).to_vec()
    };
    [
        sockets(),
        any_of("socketpair", 0, &[libc::AF_UNIX as u32]),
        protections("mmap"),
        protections("mprotect"),
        // Threads, never a process.
        vec![call(
            "clone",
            &[masked(0, libc::CLONE_THREAD as u32, libc::CLONE_THREAD as u32)],
        )],
        // Whether somebody lives, whoever it is; and ourselves.
        vec![call("kill", &[is(1, 0)]), call("kill", &[is(0, pid)])],
        vec![call("tgkill", &[is(0, pid)])],
        // Our own thread alone.
        vec![call("setpriority", &[is(0, libc::PRIO_PROCESS), is(1, 0)])],
        // Reading limits, no setting of them (the pointer to new ones; 64 bit).
        vec![json!({ "syscall": "prlimit64", "args": [
            { "index": 2, "type": "qword", "op": "eq", "val": 0 },
        ]})],
        any_of("prctl", 0, &PRCTL.map(|option| option as u32)),
        any_of("ioctl", 1, &IOCTL.map(|request| request as u32)),
    ]
    .into_iter()
    .flatten()
}

/// Unix sockets, netlink with rtnetlink, netfilter and sock_diag, TCP and UDP. No raw sockets, packets, and all the
/// families that hardly anybody uses and that have had so many faults.
fn sockets() -> Vec<Value> {
    let netlink = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_SOCK_DIAG,
        libc::NETLINK_NETFILTER,
    ];
    let netlink = netlink.map(|protocol| {
        call(
            "socket",
            &[is(0, libc::AF_NETLINK as u32), is(2, protocol as u32)],
        )
    });
    let mut ways = vec![call("socket", &[is(0, libc::AF_UNIX as u32)])];
    ways.extend(netlink);
    let protocols = [0, libc::IPPROTO_TCP as u32, libc::IPPROTO_UDP as u32];
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            let kind = masked(1, SOCK_TYPE_MASK, kind as u32);
            let way = |protocol| call("socket", &[is(0, family as u32), kind.clone(), is(2, protocol)]);
            ways.extend(protocols.map(way));
        }
    }
    ways
}

fn call(name: &str, args: &[Value]) -> Value {
    json!({ "syscall": name, "args": args })
}

/// The kernel looks at 32 bits of these arguments, and so do we.
fn is(index: u8, value: u32) -> Value {
    json!({ "index": index, "type": "dword", "op": "eq", "val": value })
}

fn masked(index: u8, mask: u32, value: u32) -> Value {
    json!({ "index": index, "type": "dword", "op": { "masked_eq": mask }, "val": value })
}

/// include/linux/net.h: what is above are flags (SOCK_CLOEXEC, SOCK_NONBLOCK).
const SOCK_TYPE_MASK: u32 = 0xf;
/// Names of threads and of the allocator's memory.
const PRCTL: [i32; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
/// Whether it is a terminal and how wide, what can be read, interfaces by name. Not TIOCSTI, by which whoever holds a
/// terminal types on it.
const IOCTL: [libc::c_ulong; 7] = [
    libc::TCGETS as _,
    libc::TIOCGWINSZ as _,
    libc::FIONREAD as _,
    libc::FIONBIO as _,
    libc::FIOCLEX as _,
    libc::SIOCGIFINDEX as _,
    libc::SIOCGIFNAME as _,
];

/// In every way. By rooms: files, memory, threads and time, signals, waiting, sockets, who and where.
#[rustfmt::skip]
const PLAIN: [&str; 118] = [
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "lseek", "close", "close_range",
    "fstat", "newfstatat", "statx", "statfs", "fstatfs", "openat", "faccessat", "faccessat2", "readlinkat", "getdents64",
    "mkdirat", "unlinkat", "renameat", "renameat2", "linkat", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range",
    "fchmod", "fcntl", "flock", "dup", "dup3", "pipe2", "umask", "getcwd", "fadvise64", "sendfile", "copy_file_range",
    "splice", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    "munmap", "mremap", "madvise", "brk", "membarrier",
    "futex", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "clone3", "gettid", "exit", "exit_group",
    "sched_yield", "sched_getaffinity", "getpriority", "getcpu", "restart_syscall",
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "timerfd_create", "timerfd_settime",
    "timerfd_gettime",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending", "sigaltstack",
    "ppoll", "pselect6", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "eventfd2",
    "connect", "bind", "accept", "accept4", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown",
    "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
    "getrandom", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    "getpgid", "getsid", "capget", "uname", "sysinfo", "getrusage", "times",
];
/// Older forms, which glibc and musl still call there.
const OF_X86_64: [&str; 16] = [
    "open",
    "stat",
    "lstat",
    "access",
    "readlink",
    "poll",
    "select",
    "epoll_wait",
    "pipe",
    "dup2",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "getdents",
    "time",
];
const OF_OTHERS: [&str; 0] = [];

#[cfg(test)]
mod tests;
