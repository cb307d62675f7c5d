//! Pid files that lie: whoever is named in one is never hit, and who runs is found all the same.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::fs::{CWD, FileType, FlockOperation, flock, mknodat};

use crate::common::engine::DETECTION;
use crate::common::{secs, within};
use crate::rig::{LIMIT, Rig, lives};

/// A process that nobody may end.
struct Bystander(Child);

impl Bystander {
    fn new() -> Bystander {
        Bystander(Command::new("sleep").arg("600").spawn().expect("sleep runs"))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let ended = self.0.try_wait().expect("a child of ours");
        let _ = self.0.kill();
        let _ = self.0.wait();
        assert!(
            ended.is_none(),
            "a process that was only named was ended: {ended:?}"
        );
    }
}

/// Puts something else in the place of a pid file.
type Plant = Box<dyn Fn(&Path)>;

/// Each with its name.
fn plants(bystander: u32) -> Vec<(&'static str, Plant)> {
    let named = move |text: String| -> Plant {
        Box::new(move |path: &Path| fs::write(path, &text).expect("a file of ours"))
    };
    vec![
        ("missing", Box::new(|_: &Path| {})),
        ("foreign", named(format!("{bystander}\n"))),
        ("of a dead process", named("4194304\n".into())),
        ("process 1", named("1\n".into())),
        (
            "garbage",
            named("\u{0}\u{1b}[2J -1 999999999999999999999\n".into()),
        ),
        ("negative", named("-1\n".into())),
        ("empty", named(String::new())),
        (
            "a link",
            Box::new(|path| symlink("/proc/self/stat", path).expect("a link of ours")),
        ),
        (
            "a fifo",
            Box::new(|path| mknodat(CWD, path, FileType::Fifo, 0o600.into(), 0).expect("a fifo of ours")),
        ),
    ]
}

#[test]
fn an_engine_is_found_by_its_socket_and_nobody_else_is_hit() {
    let rig = Rig::new(DETECTION);
    let bystander = Bystander::new();
    let path = rig.place("run/verdictd.pid");
    for (what, plant) in plants(bystander.0.id()) {
        rig.must("start", &[]);
        let engine = rig.engine().unwrap_or_else(|| panic!("{what}: no engine"));
        fs::remove_file(&path).unwrap();
        plant(&path);
        let said = rig.must("start", &[]);
        let already = format!("the engine runs already, pid {}", engine.as_raw_nonzero());
        assert!(said.contains(&already), "{what}: {said}");
        let said = rig.must("stop", &[]);
        assert!(said.contains("engine stopped"), "{what}: {said}");
        assert!(!lives(engine), "{what}");
    }
}

#[test]
fn without_an_engine_nobody_is_hit_and_one_can_be_started() {
    let rig = Rig::new(DETECTION);
    let bystander = Bystander::new();
    fs::create_dir(rig.place("run-monitor")).unwrap();
    for name in ["run/verdictd.pid", "run-monitor/monitor.pid"] {
        let path = rig.place(name);
        for (what, plant) in plants(bystander.0.id()) {
            let _ = fs::remove_file(&path);
            plant(&path);
            // Somebody locks it too, which makes it no more true.
            let locked = (what == "foreign")
                .then(|| File::open(&path).expect("a file of ours"))
                .map(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file));
            let said = rig.must("stop", &[]);
            assert!(said.contains("no engine runs"), "{what}: {said}");
            drop(locked);
        }
    }
    let said = rig.must("monitor", &[]);
    assert!(
        said.contains("engine started") && said.contains("monitor started"),
        "{said}"
    );
    assert!(rig.engine().is_some() && rig.monitor().is_some());
}

#[test]
fn a_monitor_whose_pid_file_is_taken_away_writes_it_again() {
    let rig = Rig::new(DETECTION);
    rig.must("monitor", &["--every=1s"]);
    let monitor = rig.monitor();
    fs::remove_file(rig.place("run-monitor/monitor.pid")).unwrap();
    rig.wait_log("somebody removed our pid file");
    assert_eq!(rig.monitor(), monitor);
}

/// The engine's user rules over its directory: he can have the socket lead to a daemon of root.
#[test]
fn a_socket_that_leads_to_somebody_else_has_nobody_ended_and_nobody_held_up() {
    let rig = Rig::new(DETECTION);
    let elsewhere = rig.place("elsewhere.sock");
    // It answers each question drop by drop, for ever.
    let script = "import socket, sys, threading, time\n\
                  s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(64)\n\
                  def drip(c):\n    \
                  try:\n        \
                  while True: c.send(b' '); time.sleep(0.2)\n    \
                  except OSError: pass\n\
                  while True: threading.Thread(target=drip, args=(s.accept()[0],), daemon=True).start()\n";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script]).arg(&elsewhere);
    let _bystander = Bystander(command.spawn().expect("python3 runs"));
    assert!(within(LIMIT, || elsewhere.exists()), "it listens");
    symlink(&elsewhere, rig.place("run/control.sock")).unwrap();
    let begun = Instant::now();
    let said = rig.must("stop", &["--force"]);
    assert!(said.contains("no engine runs"), "{said}");
    let monitor = rig.foreground();
    rig.wait_view("a start is tried", |view| {
        view["findings"].to_string().contains("cannot be started")
    });
    drop(monitor);
    assert!(begun.elapsed() < secs(60), "somebody was held up");
}
