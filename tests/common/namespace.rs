//! One network namespace: made, entered by threads, gone on drop; leftovers of dead runs are swept.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::{Output, Running, run};

const PREFIX: &str = "vd-";
const LIMIT: Duration = Duration::from_secs(20);

/// A namespace of this test's own, named `vd-<role>-<pid>-<n>`.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with loopback up and without the seconds that duplicate address detection takes.
    pub(crate) fn new(role: &str) -> Namespace {
        need_root();
        sweep_leftovers();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let ns = Namespace {
            name: format!("{PREFIX}{role}-{}-{number}", std::process::id()),
        };
        ip(&["netns", "add", &ns.name]);
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0");
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0");
        ns.ip(&["link", "set", "lo", "up"]);
        ns
    }

    /// Its name, as `ip netns` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside this namespace: sockets it opens stay here, programs it starts too.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(handle_path(&self.name)).expect("the namespace's handle");
        let entered = thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                        .expect("entering a namespace of ours");
                    work()
                })
                .join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a program inside.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        self.inside(|| Running::start(command))
    }

    /// Runs a program inside to its end.
    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Output {
        self.start(command).finish(limit)
    }

    /// Runs a program that must succeed inside; gives its standard output.
    pub(crate) fn must(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(Command::new(program).args(args), LIMIT);
        assert!(
            output.status.success(),
            "{program} {}: {}",
            args.join(" "),
            output.text()
        );
        output.stdout
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, args: &[&str]) {
        let _ = self.must("ip", args);
    }

    /// Loads nft text inside.
    pub(crate) fn nft(&self, text: &str) -> String {
        self.must("nft", &[text])
    }

    /// What `nft list …` says inside; empty when there is no such thing.
    pub(crate) fn nft_list(&self, args: &[&str]) -> String {
        self.run(Command::new("nft").args(args), LIMIT).stdout
    }

    /// Sets one of this namespace's own switches (`net/…`).
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        self.inside(|| fs::write(&path, value))
            .unwrap_or_else(|e| panic!("{key}: {e}"));
    }

    /// Entries in this namespace's conntrack table; 0 also where it never woke up.
    pub(crate) fn conntrack_count(&self) -> u32 {
        let read = || fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        self.inside(read)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Joins two namespaces by a veth pair; both ends are up and have their addresses.
pub(crate) fn join(a: (&Namespace, &str, &[&str]), b: (&Namespace, &str, &[&str])) {
    ip(&[
        "link",
        "add",
        a.1,
        "netns",
        a.0.name(),
        "type",
        "veth",
        "peer",
        "name",
        b.1,
        "netns",
        b.0.name(),
    ]);
    for (ns, device, addresses) in [a, b] {
        for address in addresses {
            ns.ip(&["address", "add", address, "dev", device]);
        }
        ns.ip(&["link", "set", device, "up"]);
    }
}

/// Tests on real packets are never skipped: without root they fail and say what to do.
fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces and loads rules into them, which needs root: run sudo make test"
    );
}

fn ip(args: &[&str]) {
    let output = run(Command::new("ip").args(args), LIMIT);
    assert!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        output.text()
    );
}

fn handle_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Takes down the namespaces of test processes that are gone, with what still runs inside them.
fn sweep_leftovers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if maker(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                remove(&name);
            }
        }
    });
}

/// The process that made a namespace of this rig; `None` for namespaces that are not of its making.
fn maker(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.rsplit('-');
    let _number: u32 = parts.next()?.parse().ok()?;
    parts.next()?.parse().ok()
}

/// Ends what runs in the namespace, by its process number, then removes it. Used on drop: never panics.
fn remove(name: &str) {
    let quiet = |args: &[&str]| {
        let output = Command::new("ip").args(args).output();
        output
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default()
    };
    for pid in quiet(&["netns", "pids", name])
        .lines()
        .filter_map(|line| line.trim().parse::<i32>().ok())
    {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    // A socket that is still open somewhere keeps a namespace alive without its name; its links go now.
    for link in quiet(&["-n", name, "-o", "link", "show", "type", "veth"]).lines() {
        if let Some(device) = link.split([':', '@']).nth(1) {
            quiet(&["-n", name, "link", "delete", device.trim()]);
        }
    }
    quiet(&["netns", "delete", name]);
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_of_this_rig_have_a_maker() {
        assert_eq!(maker("vd-host-1234-7"), Some(1234));
        assert_eq!(maker("vd-two-words-1234-7"), Some(1234));
        for foreign in ["cni-1234-7", "vd-host", "vd-host-x-1", "vd-", "docker"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }
}
