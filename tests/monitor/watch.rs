//! Whatever becomes of the engine, it comes back; bans and rules never leave the kernel meanwhile.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use rustix::net::{SendFlags, send};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use crate::common::engine::{DETECTION, FIREWALL};
use crate::common::{ms, secs, within};
use crate::rig::{LIMIT, Rig, lives, signal};

/// An engine under watch, with one ban in the kernel.
fn watched(config: &str) -> (Rig, Pid) {
    let rig = Rig::new(config);
    rig.must("monitor", &["--every=1s"]);
    let engine = rig.engine().expect("an engine");
    let banned = rig.home.ctl(&["ban", "203.0.113.9", "--for", "1h"]);
    assert_eq!(banned.code(), 0, "{}", banned.text());
    // A test takes the kernel's copy away too: this one is on the disk.
    assert_eq!(rig.home.ctl(&["snapshot"]).code(), 0);
    rig.wait_view("a first look", |view| view["selftest"]["passed"] == true);
    (rig, engine)
}

/// Looks at the kernel's set all the time while `work` runs; how often the ban was not in it.
fn without_ban(rig: &Rig, work: impl FnOnce()) -> u32 {
    let (done, missing) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let there = rig.kernel_bans().iter().any(|ban| ban.contains("203.0.113.9"));
                missing.fetch_add(u32::from(!there), Ordering::Relaxed);
                thread::sleep(ms(20));
            }
        });
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Done(&done);
        work();
    });
    missing.into_inner()
}

#[test]
fn fault_10_a_killed_engine_is_back_in_seconds_and_its_bans_never_left() {
    let (rig, engine) = watched(FIREWALL);
    let missing = without_ban(&rig, || {
        let killed = Instant::now();
        signal(engine, Signal::KILL);
        rig.wait_engine(Some(engine));
        assert!(
            killed.elapsed() < secs(20),
            "{:?}\n{}",
            killed.elapsed(),
            rig.logs()
        );
    });
    assert_eq!(missing, 0);
    let view = rig.wait_view("one start", |view| view["restarts"] == 1);
    assert!(
        view["last_restart"].to_string().contains("ended unexpectedly"),
        "{view}"
    );
    assert!(rig.home.ctl(&["list"]).stdout.contains("203.0.113.9"));
    assert!(
        rig.status().stdout.contains("1 start of the engine"),
        "{}",
        rig.status().stdout
    );
}

#[test]
fn fault_05_a_hung_engine_is_killed_and_started_again() {
    let (rig, engine) = watched(FIREWALL);
    let missing = without_ban(&rig, || {
        signal(engine, Signal::STOP);
        rig.wait_engine(Some(engine));
    });
    assert_eq!(missing, 0);
    assert!(!lives(engine));
    assert!(
        rig.monitor_log().contains("the engine does not answer"),
        "{}",
        rig.logs()
    );
}

#[test]
fn a_hung_engine_whose_table_is_gone_gets_both_back() {
    let (rig, engine) = watched(DETECTION);
    signal(engine, Signal::STOP);
    rig.ns.nft("delete table inet verdictd");
    rig.wait_engine(Some(engine));
    assert!(
        rig.kernel_bans().iter().any(|ban| ban.contains("203.0.113.9")),
        "{}",
        rig.logs()
    );
    assert!(
        rig.monitor_log().contains("table inet verdictd is gone"),
        "{}",
        rig.logs()
    );
}

#[test]
fn a_deleted_table_rule_or_set_is_repaired_by_the_engine_itself() {
    let (rig, engine) = watched(FIREWALL);
    // What is loaded again stands in another order.
    let whole = || {
        let text = rig.ns.nft_list(&["-s", "list", "table", "inet", "verdictd"]);
        let lines = text.lines().filter(|line| !line.contains("elements"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = whole();
    let damages = [
        "delete table inet verdictd",
        "flush chain inet verdictd pre",
        "flush chain inet verdictd raw",
        "flush chain inet verdictd raw; flush chain inet verdictd pre; delete set inet verdictd banned4",
        "add table inet verdictd { flags dormant; }",
    ];
    for damage in damages {
        rig.ns.nft(damage);
        assert!(within(LIMIT, || whole() == before), "{damage}: {:?}", whole());
        let well = within(LIMIT, || rig.status().code() == 0);
        assert!(well, "{damage}: {}", rig.status().text());
    }
    assert_eq!(rig.engine(), Some(engine), "{}", rig.logs());
    assert!(rig.kernel_bans().iter().any(|ban| ban.contains("203.0.113.9")));
}

/// The engine's own socket, borrowed through its pidfd, gives the queue up: as a bug in the engine would.
#[test]
fn fault_07_a_queue_that_nobody_reads_is_noticed() {
    let (rig, engine) = watched(&format!(
        "{DETECTION}\n[engine]\nworkers = 1\nqueue_base = 4100\n"
    ));
    let proc_file = "/proc/thread-self/net/netfilter/nfnetlink_queue";
    let queues = || {
        rig.ns
            .inside(|| fs::read_to_string(proc_file).unwrap_or_default())
    };
    let portid = |text: &str| -> u32 {
        let line = text.lines().find(|line| line.trim().starts_with("4100 "));
        let word = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        word.and_then(|word| word.parse().ok())
            .expect("queue 4100 is bound")
    };
    let socket = socket_of(&rig, engine, portid(&queues()));
    send(&socket, &unbind(4100), SendFlags::empty()).expect("a netlink socket");
    drop(socket);
    assert!(within(secs(5), || !queues().contains(" 4100 ")), "{}", queues());
    rig.wait_engine(Some(engine));
    assert!(
        rig.monitor_log().contains("nobody reads queue 4100"),
        "{}",
        rig.logs()
    );
    assert!(queues().contains(" 4100 "));
}

/// The netfilter socket of `pid` with that port.
fn socket_of(rig: &Rig, pid: Pid, portid: u32) -> OwnedFd {
    let table = rig
        .ns
        .inside(|| fs::read_to_string("/proc/thread-self/net/netlink"))
        .unwrap();
    let inode = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|words| words[1] == "12" && words[2] == portid.to_string())
        .map(|words| words[9].to_owned())
        .expect("the socket is listed");
    let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let number = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .find(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|link| link.as_os_str() == format!("socket:[{inode}]").as_str())
        })
        .and_then(|entry| entry.file_name().to_str()?.parse().ok())
        .expect("the engine has it open");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("root may");
    assert!(socket.as_raw_fd() > 2);
    socket
}

/// NFQNL_MSG_CONFIG with NFQNL_CFG_CMD_UNBIND (linux/netfilter/nfnetlink_queue.h).
fn unbind(queue: u16) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(28_u32.to_ne_bytes());
    message.extend(0x0302_u16.to_ne_bytes()); // subsystem 3 (queue), message 2 (config)
    message.extend(1_u16.to_ne_bytes()); // NLM_F_REQUEST
    message.extend([0; 8]);
    message.extend([0, 0]);
    message.extend(queue.to_be_bytes());
    message.extend(8_u16.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes()); // NFQA_CFG_CMD
    message.extend([2, 0, 0, 0]);
    message
}

#[test]
fn fault_20_a_broken_configuration_is_tried_with_growing_delay_and_named() {
    let (rig, engine) = watched(DETECTION);
    rig.home.write_config("[firewall]\nmode = \"standart\"\n");
    signal(engine, Signal::KILL);
    // What was last in force is in force again; only without it there is nothing to start from.
    let engine = rig.wait_engine(Some(engine));
    assert!(rig.kernel_bans().iter().any(|ban| ban.contains("203.0.113.9")));
    fs::remove_file(rig.home.state().join("config.good")).expect("kept");
    signal(engine, Signal::KILL);
    let failures = || rig.monitor_log().matches("the engine cannot be started").count();
    assert!(within(LIMIT, || failures() >= 3), "{}", rig.logs());
    let log = rig.monitor_log();
    for words in ["in 1 s", "in 2 s", "in 4 s", "standart"] {
        assert!(log.contains(words), "{words}\n{}", rig.logs());
    }
    assert!(failures() <= 4, "{}", rig.logs());
    rig.home.write_config(DETECTION);
    rig.wait_engine(Some(engine));
    assert!(rig.kernel_bans().iter().any(|ban| ban.contains("203.0.113.9")));
}

#[test]
fn who_stops_the_engine_is_obeyed() {
    let (rig, engine) = watched(DETECTION);
    signal(engine, Signal::TERM);
    rig.wait_log("stopped on purpose (SIGTERM)");
    let looks = rig.view()["last_check"].clone();
    rig.wait_view("more looks", |view| view["last_check"] != looks);
    assert_eq!(rig.engine(), None, "{}", rig.logs());
    let status = rig.status();
    assert_eq!(status.code(), 3, "{}", status.text());
    assert!(status.stdout.contains("stopped on purpose"), "{}", status.text());
    rig.must("start", &[]);
    let engine = rig.wait_engine(None);
    rig.wait_log(&format!("engine {} runs", engine.as_raw_nonzero()));
    signal(engine, Signal::KILL);
    let engine = rig.wait_engine(Some(engine));
    // A restart by hand is no accident either.
    rig.must("restart", &[]);
    rig.wait_engine(Some(engine));
    assert_eq!(rig.view()["restarts"], 1, "{}", rig.logs());
}

#[test]
fn a_second_monitor_says_so_and_a_killed_one_leaves_the_engine_alone() {
    let (rig, engine) = watched(DETECTION);
    let monitor = rig.monitor().expect("a monitor");
    let second = rig.foreground().finish(secs(20));
    assert_eq!(second.code(), 1, "{}", second.text());
    let words = format!("held by process {}", monitor.as_raw_nonzero());
    assert!(second.stderr.contains(&words), "{}", second.text());
    signal(monitor, Signal::KILL);
    assert!(within(secs(10), || rig.monitor().is_none()));
    assert_eq!(rig.engine(), Some(engine));
    assert!(rig.status().stdout.contains("monitor      not running"));
    // Another one takes over, and the self-test of a moment ago counts.
    let last = rig.view()["selftest"]["last"].clone();
    rig.must("monitor", &["--every=1s"]);
    signal(engine, Signal::KILL);
    rig.wait_engine(Some(engine));
    assert_eq!(rig.view()["selftest"]["last"], last);
}
