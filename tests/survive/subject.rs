//! An engine that is going to be killed, and what is to be seen of one that was started after it.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::engine::{Engine, Home};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};
use crate::promises::{Found, Margin, Promises, monotonic};

/// Firewall mode, a ladder without jitter, a snapshot each second, and no confinement: a filter of system calls and a tracer
/// do not go together.
pub(crate) const CONFIG: &str = r#"
[firewall]
mode = "custom"
firewall_mode = "firewall"
[allowed_ports]
tcp = [22, 80, 443]
[bans]
enforce = true
jitter = false
[engine]
confine = false
workers = 1
[custom]
unique_ports_threshold = 7
block_durations = ["20m", "2h", "1d"]
state_save_interval = 1
"#;

/// What the list rounds up, and what a loaded machine takes between a decision and its record.
pub(crate) const MARGIN: Margin = Margin {
    over: Duration::from_secs(1),
    under: Duration::from_secs(2),
};

/// A process of which nothing is expected; killed when dropped.
pub(crate) struct Subject {
    child: Child,
    lines: Receiver<String>,
}

impl Subject {
    /// `command`, whose standard output is its own and whose errors go to the log of `home`.
    pub(crate) fn start(ns: &Namespace, home: &Home, command: &mut Command) -> Subject {
        let (child, lines) = home.launch(ns, command);
        Subject { child, lines }
    }

    /// Waits until it is ready; `false`: it died before.
    pub(crate) fn ready(&mut self) -> bool {
        let end = Instant::now() + secs(30);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.trim() == "ready" => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("neither ready nor dead after 30 s"),
            }
        }
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a sync costs nothing: what is tested here is what a kill leaves, and that is the same on every file system.
pub(crate) fn quick() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// What a power cut does to the rules.
pub(crate) fn wipe(ns: &Namespace) {
    // Of an engine that died before it loaded any there are none.
    ns.nft("add table inet verdictd; delete table inet verdictd");
}

/// The files of a state, and the journals that are going to be written beside it.
pub(crate) fn files(folder: PathBuf, journals: u64) -> Vec<PathBuf> {
    let newest = generation(&folder);
    let journals =
        (newest.saturating_sub(1)..newest + journals).map(|nth| format!("state.toml.journal-{nth}"));
    let names = ["state.toml", "state.toml.new", "state.toml.1"];
    let names = names.into_iter().map(str::to_owned).chain(journals);
    let files: Vec<_> = names.map(|name| folder.join(name)).collect();
    [vec![folder], files].concat()
}

/// Of the newest journal there; 0: there is none.
pub(crate) fn generation(folder: &std::path::Path) -> u64 {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let generation = |name: std::ffi::OsString| {
        let name = name.into_string().ok()?;
        name.rsplit_once(".journal-")?.1.parse().ok()
    };
    names
        .filter_map(|entry| generation(entry.file_name()))
        .max()
        .unwrap_or(0)
}

/// The bans that are listed.
pub(crate) fn listed(engine: &Engine) -> Found {
    let bans = engine.bans().into_iter();
    bans.map(|ban| {
        let who = ban["source"].as_str().expect("a source").to_owned();
        (who, ban["remaining_seconds"].as_u64().map(secs))
    })
    .collect()
}

/// The bans that the kernel enforces, as the list names them.
pub(crate) fn enforced(ns: &Namespace) -> Found {
    let text = ns.nft_list(&["-j", "list", "table", "inet", "verdictd"]);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = json["nftables"].as_array().cloned().unwrap_or_default();
    let sets = objects
        .iter()
        .map(|object| &object["set"])
        .filter(|set| set.is_object());
    sets.flat_map(|set| {
        let name = set["name"].as_str().unwrap_or_default().to_owned();
        let elements = set["elem"].as_array().cloned().unwrap_or_default();
        elements.into_iter().filter_map(move |element| {
            let suffix = suffix(&name)?;
            let value = element["elem"]["val"].as_str().or(element.as_str())?;
            Some((
                format!("{value}{suffix}"),
                element["elem"]["expires"].as_u64().map(secs),
            ))
        })
    })
    .collect()
}

/// What the elements of a set lack to be written as the list has them; `None`: it is not a set of bans.
fn suffix(set: &str) -> Option<String> {
    Some(match set.strip_prefix("banned")? {
        "4" | "6_128" => String::new(),
        "6" => "/64".into(),
        prefix => format!("/{}", prefix.split_once('_')?.1),
    })
}

/// Fails unless list, kernel and status are as promised.
pub(crate) fn verify(engine: &Engine, ns: &Namespace, promises: &Promises, what: &str) {
    // Under strace a beat may come late, which is said until the next one.
    let is_well = || engine.json("status")["degraded"] == serde_json::json!([]);
    assert!(
        within(secs(10), is_well),
        "{what}: {}\n{}",
        engine.json("status"),
        engine.log()
    );
    verify_bans(engine, ns, promises, what);
}

/// Fails unless list and kernel are as promised.
pub(crate) fn verify_bans(engine: &Engine, ns: &Namespace, promises: &Promises, what: &str) {
    verify_within(engine, ns, promises, what, MARGIN);
}

/// The same with another margin.
pub(crate) fn verify_within(
    engine: &Engine,
    ns: &Namespace,
    promises: &Promises,
    what: &str,
    margin: Margin,
) {
    let from = monotonic();
    let broken = promises.broken(&listed(engine), from, monotonic(), margin);
    assert!(broken.is_empty(), "{what}, listed:\n{broken}{}", engine.log());
    let mut broken = String::new();
    let agrees = || {
        let from = monotonic();
        let found = enforced(ns);
        broken = promises.broken(&found, from, monotonic(), margin);
        broken.is_empty()
    };
    assert!(
        within(secs(5), agrees),
        "{what}, in the kernel:\n{broken}{}",
        engine.log()
    );
}
