//! Every way out that code inside the engine might try.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::common::command::Running;
use crate::common::engine::{CORPORATE, Engine};
use crate::common::lab::Lab;
use crate::common::{secs, within};
use crate::puppet::{Arg, Puppet};
use crate::{Who, of_threads, pid, text};

use Arg::{Bytes, Number};

/// What a call gave, by name.
type Attempt = (&'static str, Result<i64, i32>);

/// What is tried beside the engine's own files.
struct Prey {
    folder: tempfile::TempDir,
    /// A process that sleeps.
    _victim: Running,
    victim_pid: u32,
    /// Listens at an abstract name, in the engine's network namespace.
    _listener: UnixListener,
    name: Vec<u8>,
}

impl Prey {
    fn new(lab: &Lab) -> Prey {
        use std::os::linux::net::SocketAddrExt;
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("ours");
        let file = folder.path().join("for everybody");
        fs::write(&file, "x").expect("ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
        let name = format!("verdictd-test-{}", folder.path().display());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("short enough");
        let listener = lab
            .host
            .inside(|| UnixListener::bind_addr(&address))
            .expect("a free name");
        let pid_file = folder.path().join("pid");
        let script = format!("echo $$ > '{}'; exec sleep 600", pid_file.display());
        let victim = Running::start(Command::new("sh").args(["-c", &script]));
        let mut pid = None;
        crate::common::within(crate::common::secs(10), || {
            pid = fs::read_to_string(&pid_file)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        let mut address = vec![libc::AF_UNIX as u8, 0, 0];
        address.extend(name.bytes());
        Prey {
            folder,
            _victim: victim,
            victim_pid: pid.expect("a process that sleeps"),
            _listener: listener,
            name: address,
        }
    }

    fn path(&self, name: &str) -> Vec<u8> {
        text(&self.folder.path().join(name))
    }
}

fn open(puppet: &mut Puppet, path: &[u8], flags: i32) -> Result<i64, i32> {
    let args = [
        Number(libc::AT_FDCWD.into()),
        Bytes(path),
        Number(flags.into()),
        Number(0o600),
    ];
    puppet.call(libc::SYS_openat, &args)
}

fn socket(puppet: &mut Puppet, family: i32, kind: i32, protocol: i32) -> Result<i64, i32> {
    let args = [family, kind, protocol].map(|number| Number(number.into()));
    puppet.call(libc::SYS_socket, &args)
}

/// Files that a running engine has no business with.
fn files(puppet: &mut Puppet, prey: &Prey, home: &Path) -> Vec<Attempt> {
    let (read, create) = (libc::O_RDONLY, libc::O_CREAT | libc::O_WRONLY);
    let of_victim = |name: &str| text(Path::new(&format!("/proc/{}/{name}", prey.victim_pid)));
    let mut tried = vec![
        ("open /etc/shadow", open(puppet, b"/etc/shadow\0", read)),
        (
            "open a file of everybody's",
            open(puppet, &prey.path("for everybody"), read),
        ),
        (
            "write a file of everybody's",
            open(puppet, &prey.path("for everybody"), libc::O_WRONLY),
        ),
        ("make a file", open(puppet, &prey.path("new"), create)),
        (
            "make a file in /run",
            open(puppet, b"/run/verdictd-test-intruder\0", create),
        ),
        (
            "make a file beside the configuration",
            open(puppet, &text(&home.join("new")), create),
        ),
        (
            "write the configuration",
            open(puppet, &text(&home.join("verdictd.toml")), libc::O_WRONLY),
        ),
        (
            "write /proc/sys",
            open(puppet, b"/proc/sys/net/ipv4/ip_forward\0", libc::O_WRONLY),
        ),
        (
            "write its own memory as a file",
            open(puppet, b"/proc/self/mem\0", libc::O_RDWR),
        ),
        ("open a device", open(puppet, b"/dev/net/tun\0", libc::O_RDWR)),
        (
            "read another's environment",
            open(puppet, &of_victim("environ"), read),
        ),
        ("read another's memory", open(puppet, &of_victim("mem"), read)),
    ];
    let folder = prey.path("folder");
    let mkdir = [Number(libc::AT_FDCWD.into()), Bytes(&folder), Number(0o700)];
    tried.push(("make a folder", puppet.call(libc::SYS_mkdirat, &mkdir)));
    let file = prey.path("for everybody");
    let unlink = [Number(libc::AT_FDCWD.into()), Bytes(&file), Number(0)];
    tried.push(("remove a file", puppet.call(libc::SYS_unlinkat, &unlink)));
    tried
}

/// Programs and processes.
fn processes(puppet: &mut Puppet, prey: &Prey) -> Vec<Attempt> {
    let victim = || Number(prey.victim_pid.into());
    let seize = [
        Number(i64::from(libc::PTRACE_SEIZE)),
        victim(),
        Number(0),
        Number(0),
    ];
    let word = [0u8; 16];
    let reach = [
        victim(),
        Bytes(&word),
        Number(0),
        Bytes(&word),
        Number(0),
        Number(0),
    ];
    vec![
        (
            "execve",
            puppet.call(
                libc::SYS_execve,
                &[Bytes(b"/nonexistent\0"), Number(0), Number(0)],
            ),
        ),
        (
            "execveat",
            puppet.call(
                libc::SYS_execveat,
                &[
                    Number(libc::AT_FDCWD.into()),
                    Bytes(b"/nonexistent\0"),
                    Number(0),
                    Number(0),
                    Number(0),
                ],
            ),
        ),
        (
            "signal another",
            puppet.call(libc::SYS_kill, &[victim(), Number(libc::SIGCONT.into())]),
        ),
        ("ptrace", puppet.call(libc::SYS_ptrace, &seize)),
        (
            "process_vm_readv",
            puppet.call(libc::SYS_process_vm_readv, &reach),
        ),
        (
            "pidfd_open",
            puppet.call(libc::SYS_pidfd_open, &[victim(), Number(0)]),
        ),
        ("unshare", puppet.call(libc::SYS_unshare, &[Number(0)])),
        (
            "mount",
            puppet.call(
                libc::SYS_mount,
                &[
                    Number(0),
                    Bytes(b"/nonexistent\0"),
                    Number(0),
                    Number(0),
                    Number(0),
                ],
            ),
        ),
        (
            "bpf",
            puppet.call(libc::SYS_bpf, &[Number(0), Number(0), Number(0)]),
        ),
        (
            "keyctl",
            puppet.call(libc::SYS_keyctl, &[Number(0), Number(-3), Number(0)]),
        ),
        (
            "io_uring_setup",
            puppet.call(libc::SYS_io_uring_setup, &[Number(1), Number(0)]),
        ),
        (
            "perf_event_open",
            puppet.call(
                libc::SYS_perf_event_open,
                &[Number(0), Number(0), Number(-1), Number(-1), Number(0)],
            ),
        ),
        (
            "personality",
            puppet.call(libc::SYS_personality, &[Number(0xffff_ffff)]),
        ),
    ]
}

/// Sockets.
fn sockets(puppet: &mut Puppet, prey: &Prey) -> Vec<Attempt> {
    let mut tried = vec![
        (
            "packet socket",
            socket(puppet, libc::AF_PACKET, libc::SOCK_RAW, 0),
        ),
        (
            "raw socket",
            socket(puppet, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
        ),
        (
            "raw IPv6 socket",
            socket(puppet, libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP),
        ),
        (
            "uevents",
            socket(
                puppet,
                libc::AF_NETLINK,
                libc::SOCK_RAW,
                libc::NETLINK_KOBJECT_UEVENT,
            ),
        ),
    ];
    // What webhooks need is there, and no more can be done with it.
    let tcp = socket(puppet, libc::AF_INET, libc::SOCK_STREAM, 0).expect("a TCP socket");
    let mut any_port = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    any_port.extend(4321u16.to_be_bytes());
    any_port.extend([0; 12]);
    tried.push((
        "bind",
        puppet.call(libc::SYS_bind, &[Number(tcp), Bytes(&any_port), Number(16)]),
    ));
    tried.push(("listen", puppet.call(libc::SYS_listen, &[Number(tcp), Number(1)])));
    let unix = socket(puppet, libc::AF_UNIX, libc::SOCK_STREAM, 0).expect("a unix socket");
    let length = Number(prey.name.len() as i64);
    let connect = [Number(unix), Bytes(&prey.name), length];
    tried.push((
        "connect to an abstract name",
        puppet.call(libc::SYS_connect, &connect),
    ));
    for socket in [tcp, unix] {
        let _ = puppet.call(libc::SYS_close, &[Number(socket)]);
    }
    tried
}

fn everything(engine: &Engine<'_>, prey: &Prey) -> Vec<Attempt> {
    let config = engine.home().config();
    let home = config.parent().expect("a folder");
    let mut puppet = Puppet::seize(pid(engine));
    let mut tried = files(&mut puppet, prey, home);
    tried.extend(processes(&mut puppet, prey));
    tried.extend(sockets(&mut puppet, prey));
    // What it needs it can do: else all of this would prove nothing.
    for (path, flags) in [
        (
            engine.home().state().join("state.toml"),
            libc::O_RDWR | libc::O_CREAT,
        ),
        (engine.home().logs().join("new"), libc::O_WRONLY | libc::O_CREAT),
        (config.clone(), libc::O_RDONLY),
        ("/etc/hosts".into(), libc::O_RDONLY),
        ("/etc/ssl/certs".into(), libc::O_RDONLY | libc::O_DIRECTORY),
        ("/proc/self/status".into(), libc::O_RDONLY),
    ] {
        let opened = open(&mut puppet, &text(&path), flags);
        let file = opened.unwrap_or_else(|error| panic!("{}: error {error}", path.display()));
        assert!(puppet.call(libc::SYS_close, &[Number(file)]).is_ok());
    }
    tried
}

fn told(tried: &[Attempt]) -> String {
    let line = |(what, outcome): &Attempt| match outcome {
        Ok(value) => format!("{what}: {value}\n"),
        Err(error) => format!("{what}: {}\n", std::io::Error::from_raw_os_error(*error)),
    };
    tried.iter().map(line).collect()
}

fn is_refused(outcome: &Result<i64, i32>) -> bool {
    matches!(outcome, Err(libc::EPERM | libc::EACCES))
}

#[test]
fn whoever_takes_it_over_is_refused_all_that_it_does_not_need() {
    let lab = Lab::new();
    let prey = Prey::new(&lab);
    for who in [Who::Root, Who::User] {
        let engine = who.start(&lab.host, CORPORATE);
        let tried = everything(&engine, &prey);
        println!("{who:?}\n{}", told(&tried));
        let through: Vec<_> = tried.iter().filter(|(_, outcome)| !is_refused(outcome)).collect();
        assert!(through.is_empty(), "{who:?}: {through:?}\n{}", told(&tried));
        for (key, value) in [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapEff", NET_ADMIN),
            ("CapPrm", NET_ADMIN),
            ("CapInh", NOTHING),
            ("CapAmb", NOTHING),
            ("CapBnd", NET_ADMIN),
        ] {
            let threads = of_threads(pid(&engine), key);
            assert!(threads.len() > 10, "{threads:?}");
            assert!(
                threads.iter().all(|(_, has)| has == value),
                "{who:?} {key}: {threads:?}"
            );
        }
        let status = engine.json("status");
        let words = status["confinement"].as_str().expect("words");
        assert!(
            words.starts_with("seccomp, landlock (ABI ") && words.ends_with("), capabilities net_admin"),
            "{words}"
        );
        // Workers were held while this went on, and missed beats.
        let is_well = || engine.json("status")["degraded"] == serde_json::json!([]);
        assert!(within(secs(10), is_well), "{who:?}: {}", engine.json("status"));
        engine.stop(); // and is none the worse for it
    }
}

/// Else the test above would pass on a machine where nothing works.
#[test]
fn without_confinement_the_same_is_possible() {
    let lab = Lab::new();
    let prey = Prey::new(&lab);
    let config = format!("{CORPORATE}[engine]\nconfine = false\n");
    let engine = Who::Root.start(&lab.host, &config);
    let tried = everything(&engine, &prey);
    println!("{}", told(&tried));
    let refused: Vec<_> = tried.iter().filter(|(_, outcome)| is_refused(outcome)).collect();
    assert!(refused.is_empty(), "{refused:?}\n{}", told(&tried));
    let status = engine.json("status");
    assert_eq!(status["confinement"], "none (engine.confine = false)");
    assert!(
        engine
            .log()
            .contains("confine = false: the engine keeps every right")
    );
    let _ = fs::remove_file("/run/verdictd-test-intruder");
    engine.stop();
}

const NET_ADMIN: &str = "0000000000001000";
const NOTHING: &str = "0000000000000000";
