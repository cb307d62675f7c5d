//! The file for node_exporter: whole at every moment, readable by others, true also without an engine.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::engine::{Engine, FIREWALL};
use crate::common::namespace::Namespace;
use crate::common::{count, secs, within};
use crate::rig::Samples;

fn read(path: &Path) -> Option<Samples> {
    std::fs::read_to_string(path).ok().map(Samples)
}

#[test]
fn the_file_is_whole_and_says_when_the_engine_is_gone() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("verdictd.prom");
    let name = path.to_str().unwrap();
    let state = engine.home().state();
    let once = [
        "exporter",
        "--textfile",
        name,
        "--state-dir",
        state.to_str().unwrap(),
    ];
    // Whatever lies there already is replaced, and nobody's file is written through a link.
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    engine.must(&once);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    let facts = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!((facts.mode() & 0o7777, facts.is_file()), (0o644, true));
    let all = read(&path).unwrap();
    assert_eq!((all.faults(), all.get("verdictd_up")), (String::new(), Some(1.0)));

    let home = engine.kill9();
    let output = home.ctl(&once);
    assert_eq!(output.code(), 0, "{}", output.text());
    let down = read(&path).unwrap();
    assert_eq!(
        (down.faults(), down.get("verdictd_up")),
        (String::new(), Some(0.0))
    );
    assert_eq!(down.get("verdictd_protected"), None);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "something else was left behind");
}

#[test]
fn it_is_renewed_until_the_end_and_never_half_written() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("verdictd.prom");
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    command.arg("--socket").arg(engine.home().socket());
    command
        .args(["exporter", "--every", "1s", "--textfile"])
        .arg(&path);
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let mut seen = 0;
    let mut last = None;
    let renewed = within(secs(30), || {
        if let Some(all) = read(&path) {
            assert!(
                all.0.ends_with('\n') && all.get("verdictd_workers").is_some(),
                "{all:?}"
            );
            let inode = std::fs::metadata(&path).map(|facts| facts.ino()).ok();
            seen += usize::from(inode != last);
            last = inode;
        }
        seen >= count(3, 30)
    });
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut ended = None;
    within(secs(10), || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let _ = child.kill();
    assert!(renewed, "{seen}");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    assert!(!path.exists(), "what nobody renews is no news");
}
