//! The filters of both architectures, run as the kernel would run them: they are classic BPF over `struct seccomp_data`.

use super::*;

const PID: u32 = 4711;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allow,
    Errno(i32),
    Kill,
}
use Answer::{Allow, Errno, Kill};

/// include/uapi/linux/audit.h
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_I386: u32 = 0x4000_0003;

struct Machine {
    programs: [BpfProgram; 2],
    audit: u32,
}

impl Machine {
    fn new(arch: TargetArch) -> Machine {
        let audit = match arch {
            TargetArch::x86_64 => AUDIT_X86_64,
            _ => AUDIT_AARCH64,
        };
        let programs = programs(arch, PID).unwrap();
        Machine { programs, audit }
    }

    /// Of all filters the sternest answer counts; of two errors the one of the filter that came last.
    fn call(&self, number: u32, args: [u64; 6]) -> Answer {
        let answers = self
            .programs
            .each_ref()
            .map(|program| run(program, self.audit, number, args));
        match answers {
            [Kill, _] | [_, Kill] => Kill,
            [_, Errno(error)] | [Errno(error), Allow] => Errno(error),
            [Allow, Allow] => Allow,
        }
    }

    fn plain(&self, number: u32) -> Answer {
        self.call(number, [0; 6])
    }
}

/// Linux' BPF machine, as far as filters of seccomp use it (man 2 seccomp, linux/bpf_common.h).
fn run(program: &BpfProgram, audit: u32, number: u32, args: [u64; 6]) -> Answer {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(audit.to_ne_bytes());
    data.extend([0; 8]); // the instruction's address
    args.iter().for_each(|arg| data.extend(arg.to_ne_bytes()));
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |truth: bool| usize::from(if truth { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let offset = step.k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => {
                return match step.k & 0xffff_0000 {
                    0x7fff_0000 => Allow,
                    0x0005_0000 => Errno((step.k & 0xffff) as i32),
                    0x8000_0000 | 0 => Kill,
                    other => panic!("return {other:#x}"),
                };
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Numbers of (x86_64, aarch64).
fn both(check: impl Fn(&Machine, &dyn Fn(u32, u32) -> u32)) {
    check(&Machine::new(TargetArch::x86_64), &|x86_64, _| x86_64);
    check(&Machine::new(TargetArch::aarch64), &|_, aarch64| aarch64);
}

#[test]
fn what_an_intruder_wants_is_refused() {
    both(|machine, of| {
        for (name, number) in [
            ("execve", of(59, 221)),
            ("execveat", of(322, 281)),
            ("ptrace", of(101, 117)),
            ("process_vm_readv", of(310, 270)),
            ("process_vm_writev", of(311, 271)),
            ("bpf", of(321, 280)),
            ("mount", of(165, 40)),
            ("move_mount", of(429, 429)),
            ("unshare", of(272, 97)),
            ("setns", of(308, 268)),
            ("chroot", of(161, 51)),
            ("pivot_root", of(155, 41)),
            ("keyctl", of(250, 219)),
            ("io_uring_setup", of(425, 425)),
            ("userfaultfd", of(323, 282)),
            ("perf_event_open", of(298, 241)),
            ("init_module", of(175, 105)),
            ("finit_module", of(313, 273)),
            ("kexec_load", of(246, 104)),
            ("listen", of(50, 201)),
            ("setuid", of(105, 146)),
            ("capset", of(126, 91)),
            ("seccomp", of(317, 277)),
            ("memfd_create", of(319, 279)),
            ("pidfd_getfd", of(438, 438)),
            ("open_by_handle_at", of(304, 265)),
            ("mknodat", of(259, 33)),
            ("fchownat", of(260, 54)),
            ("reboot", of(169, 142)),
            ("sethostname", of(170, 161)),
        ] {
            assert_eq!(machine.plain(number), Errno(libc::EPERM), "{name}");
        }
    });
}

#[test]
fn what_the_engine_does_is_allowed() {
    both(|machine, of| {
        for (name, number) in [
            ("read", of(0, 63)),
            ("write", of(1, 64)),
            ("openat", of(257, 56)),
            ("recvmmsg", of(299, 243)),
            ("sendmsg", of(46, 211)),
            ("futex", of(202, 98)),
            ("renameat2", of(316, 276)),
            ("fsync", of(74, 82)),
            ("getrandom", of(318, 278)),
            ("connect", of(42, 203)),
            ("rt_sigreturn", of(15, 139)),
            ("exit_group", of(231, 94)),
        ] {
            assert_eq!(machine.plain(number), Allow, "{name}");
        }
    });
}

#[test]
fn of_sockets_those_of_the_engine_alone() {
    both(|machine, of| {
        let socket = |family: i32, kind: i32, protocol: i32| {
            machine.call(
                of(41, 198),
                [family as u64, kind as u64, protocol as u64, 0, 0, 0],
            )
        };
        let (stream, datagram) = (
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::SOCK_DGRAM | libc::SOCK_NONBLOCK,
        );
        for (family, kind, protocol) in [
            (libc::AF_UNIX, stream, 0),
            (libc::AF_INET, stream, 0),
            (libc::AF_INET6, stream, libc::IPPROTO_TCP),
            (libc::AF_INET, datagram, 0),
            (libc::AF_INET6, datagram, libc::IPPROTO_UDP),
            (
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            ),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
            (libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_SOCK_DIAG),
        ] {
            assert_eq!(
                socket(family, kind, protocol),
                Allow,
                "{family} {kind:#x} {protocol}"
            );
        }
        for (family, kind, protocol) in [
            (libc::AF_PACKET, libc::SOCK_RAW, 0x300),
            (libc::AF_PACKET, libc::SOCK_DGRAM, 0),
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
            (
                libc::AF_INET6,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::IPPROTO_ICMPV6,
            ),
            (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            (libc::AF_INET, libc::SOCK_SEQPACKET, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
            (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            (libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
            (44, libc::SOCK_RAW, 0), // AF_XDP
        ] {
            assert_eq!(
                socket(family, kind, protocol),
                Errno(libc::EPERM),
                "{family} {kind:#x} {protocol}"
            );
        }
    });
}

#[test]
fn threads_are_made_and_processes_not() {
    both(|machine, of| {
        let thread =
            (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD)
                as u64;
        let clone = |flags: u64| machine.call(of(56, 220), [flags, 0, 0, 0, 0, 0]);
        assert_eq!(clone(thread), Allow);
        assert_eq!(clone(libc::SIGCHLD as u64), Errno(libc::EPERM), "fork");
        assert_eq!(
            clone((libc::CLONE_VM | libc::CLONE_VFORK) as u64),
            Errno(libc::EPERM)
        );
        assert_eq!(
            machine.plain(435),
            Errno(libc::ENOSYS),
            "clone3: its flags cannot be seen"
        );
    });
    let x86_64 = Machine::new(TargetArch::x86_64);
    assert_eq!([57, 58].map(|fork| x86_64.plain(fork)), [Errno(libc::EPERM); 2]);
}

#[test]
fn memory_is_written_or_executed() {
    both(|machine, of| {
        let (read, write, execute) = (
            libc::PROT_READ as u64,
            libc::PROT_WRITE as u64,
            libc::PROT_EXEC as u64,
        );
        for number in [of(9, 222), of(10, 226)] {
            let protect = |protection| machine.call(number, [0, 4096, protection, 0, 0, 0]);
            for protection in [0, read, read | write, read | execute] {
                assert_eq!(protect(protection), Allow, "{protection}");
            }
            assert_eq!(protect(read | write | execute), Errno(libc::EPERM));
        }
    });
}

#[test]
fn only_itself_is_signalled_and_slowed_down() {
    both(|machine, of| {
        let kill =
            |pid: i32, signal: i32| machine.call(of(62, 129), [pid as u32 as u64, signal as u64, 0, 0, 0, 0]);
        assert_eq!([kill(1, 0), kill(PID as i32, 6)], [Allow; 2]);
        for pid in [1, 0, -1, -(PID as i32)] {
            assert_eq!(kill(pid, libc::SIGKILL), Errno(libc::EPERM), "{pid}");
        }
        let tgkill = |group: u64| machine.call(of(234, 131), [group, 5, 6, 0, 0, 0]);
        assert_eq!([tgkill(PID.into()), tgkill(1)], [Allow, Errno(libc::EPERM)]);
        let nice = |kind: u64, who: u64| machine.call(of(141, 140), [kind, who, 10, 0, 0, 0]);
        assert_eq!(
            [nice(0, 0), nice(0, 1), nice(2, 0)],
            [Allow, Errno(libc::EPERM), Errno(libc::EPERM)]
        );
        let limit = |new: u64| machine.call(of(302, 261), [0, 7, new, 0, 0, 0]);
        assert_eq!([limit(0), limit(1 << 40)], [Allow, Errno(libc::EPERM)]);
        let prctl = |option: i32| machine.call(of(157, 167), [option as u64, 1, 0, 0, 0, 0]);
        assert_eq!(prctl(libc::PR_SET_NAME), Allow);
        assert_eq!(prctl(libc::PR_SET_DUMPABLE), Errno(libc::EPERM));
        let ioctl = |request: libc::c_ulong| machine.call(of(16, 29), [0, request, 0, 0, 0, 0]);
        assert_eq!(
            [ioctl(libc::TCGETS as _), ioctl(libc::TIOCSTI as _)],
            [Allow, Errno(libc::EPERM)]
        );
    });
}

#[test]
fn another_architecture_is_the_end_and_x32_is_refused() {
    let x86_64 = Machine::new(TargetArch::x86_64);
    for number in [0, 1, 59, 41] {
        assert_eq!(
            x86_64.plain(0x4000_0000 | number),
            Errno(libc::EPERM),
            "x32 {number}"
        );
    }
    for program in &x86_64.programs {
        assert_eq!(run(program, AUDIT_I386, 11, [0; 6]), Kill);
    }
    assert!(architecture("riscv64").is_none() && architecture(std::env::consts::ARCH).is_some());
}

#[test]
fn no_name_stands_twice() {
    let mut names: Vec<&str> = PLAIN.iter().chain(&OF_X86_64).copied().collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
