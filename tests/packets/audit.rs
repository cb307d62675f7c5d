//! The audit log of corporate mode: what happened is in it, nobody can change it unnoticed, and what becomes of the
//! host while it cannot be written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::command::{Output, run};
use crate::common::engine::{CORPORATE, Engine, Home};
use crate::common::flow::{connect, connect_from, echoes, talks};
use crate::common::lab::{ATTACKER, CLIENT, HOST, Lab};
use crate::common::service::Echo;
use crate::common::wire::Gun;
use crate::common::{count, ms, secs, within};

const GATEWAY: &str = "10.77.0.254";

/// Every line of a log.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn of<'r>(records: &'r [Value], kind: &str) -> Vec<&'r Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

fn log_of(home: &Home) -> PathBuf {
    home.logs().join("audit.jsonl")
}

/// What `verdictctl audit verify` says of an engine's log, whether or not it runs.
fn verify(home: &Home, log: &Path) -> Output {
    let head = home.state().join("audit.head");
    home.ctl(&[
        "audit",
        "verify",
        log.to_str().expect("a plain path"),
        "--head",
        head.to_str().expect("a plain path"),
    ])
}

fn sound(home: &Home, log: &Path) {
    let output = verify(home, log);
    assert_eq!(output.code(), 0, "{}", output.text());
    assert!(output.stdout.contains("SOUND"), "{}", output.text());
}

/// Raw request on the control socket, for what `verdictctl` has no verb for.
fn request(home: &Home, request: &Value) -> Value {
    use std::io::{BufRead, BufReader};
    let mut stream = std::os::unix::net::UnixStream::connect(home.socket()).expect("a running engine");
    writeln!(stream, "{request}").expect("it listens");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn everything_that_happened_is_in_it_with_who_did_it() {
    let lab = Lab::new();
    let mut engine = Engine::start(&lab.host, CORPORATE);
    let log = log_of(engine.home());
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5020);
    engine.wait_ban(ATTACKER);
    engine.must(&["unban", ATTACKER]);
    assert_eq!(engine.ctl(&["ban", HOST]).code(), 1);
    engine.must(&["ban", "203.0.113.9", "--for", "1h", "--reason", "told to"]);
    engine
        .home()
        .write_config(&CORPORATE.replace("443]", "443, 8080]"));
    engine.must(&["reload"]);
    engine.home().write_config("[firewall\n");
    engine.signal(Signal::HUP);
    assert!(within(secs(5), || of(&records(&log), "config").len() == 2));
    let note = json!({"request": "audit_note", "kind": "integrity", "result": "failed", "detail": "/usr/bin/verdictd was changed"});
    assert_eq!(request(engine.home(), &note)["body"]["written"], true);
    let status = engine.json("status");
    assert_eq!(status["audit"]["path"], log.to_str().unwrap());
    let copies = engine.json("stats")["copies"]["refused"].clone();
    let running = engine.ctl(&["audit", "verify"]);
    assert_eq!(running.code(), 0, "{}", running.text());
    let home = engine.stop();
    sound(&home, &log);

    let all = records(&log);
    let kinds = all.iter().map(|record| record["kind"].as_str().unwrap());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    kinds.for_each(|kind| *counts.entry(kind).or_default() += 1);
    let exact = [
        ("start", 1),
        ("stop", 1),
        ("ban", 2),
        ("unban", 1),
        ("operator", 4),
        ("config", 2),
        ("integrity", 1),
    ];
    for (kind, number) in exact {
        assert_eq!(counts.get(kind), Some(&number), "{kind}: {all:#?}");
    }
    assert_eq!(
        (all[0]["kind"].as_str(), all.last().unwrap()["why"].as_str()),
        (Some("start"), Some("SIGTERM"))
    );
    for (at, record) in all.iter().enumerate() {
        assert_eq!(record["seq"], at + 1);
        let time = record["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    let ban = of(&all, "ban")[0];
    assert_eq!(
        (&ban["source"], &ban["reason"], &ban["step"], &ban["enforced"]),
        (&ATTACKER.into(), &"port_scanning".into(), &1.into(), &true.into())
    );
    assert_eq!(ban["ports"].as_array().unwrap().len(), 8, "{ban}");
    assert!(ban["until"].is_string());
    assert_eq!(of(&all, "unban")[0]["why"], "manual");
    let orders = of(&all, "operator");
    let told: Vec<_> = orders
        .iter()
        .map(|o| (o["request"].as_str().unwrap(), o["result"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("unban", "done"),
            ("ban", "refused"),
            ("ban", "done"),
            ("reload", "done")
        ]
    );
    assert_eq!(orders[2]["arguments"]["reason"], "told to");
    for order in &orders {
        assert_eq!(
            (&order["who"]["uid"], &order["who"]["login"]),
            (&0.into(), &"root".into()),
            "{order}"
        );
    }
    let configs = of(&all, "config");
    assert_eq!(configs[0]["before_sha256"], of(&all, "start")[0]["config_sha256"]);
    assert!(
        configs[0]["changes"][0]
            .as_str()
            .unwrap()
            .contains("allowed_ports.tcp"),
        "{}",
        configs[0]
    );
    assert_eq!(
        (&configs[1]["by"], &configs[1]["result"]),
        (&"SIGHUP".into(), &"refused".into())
    );
    let refused = of(&all, "refusal");
    assert_eq!(
        (&refused[0]["source"], &refused[0]["port"]),
        (&ATTACKER.into(), &5001.into())
    );
    let packets: u64 = refused
        .iter()
        .filter_map(|record| record["packets"].as_u64())
        .sum();
    // Some of the twenty came after the ban, and met that.
    assert_eq!(Some(packets), copies.as_u64(), "{refused:#?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&log), 0o640);
}

#[test]
fn a_changed_byte_is_named_by_file_and_line() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, CORPORATE);
    for host in 1..20 {
        engine.must(&["ban", &format!("203.0.113.{host}"), "--for", "1h"]);
    }
    let home = engine.stop();
    let log = log_of(&home);
    sound(&home, &log);
    let good = fs::read_to_string(&log).unwrap();
    let changed: Vec<String> = good
        .lines()
        .map(|line| line.replace("\"203.0.113.7\"", "\"203.0.113.8\""))
        .collect();
    let line = 1 + good
        .lines()
        .position(|line| line.contains("\"203.0.113.7\""))
        .expect("it is there");
    fs::write(&log, changed.join("\n") + "\n").unwrap();
    let output = verify(&home, &log);
    assert_eq!(output.code(), 1);
    let name = format!("{}:{line}: was changed", log.display());
    assert!(output.stdout.contains(&name), "{name}\n{}", output.text());
    // The next start leaves it as it is, and neither hides nor repeats it.
    fs::write(&log, &good[..good.len() - 200]).unwrap();
    let engine = Engine::start_in(&lab.host, home, &[]);
    let home = engine.stop();
    let output = verify(&home, &log);
    assert!(
        output.stdout.contains("missing") && output.code() == 1,
        "{}",
        output.text()
    );
    assert_eq!(of(&records(&log), "broken").len(), 1);
}

/// Bans, refusals, orders, and a kill at any moment.
#[test]
fn killed_in_the_middle_again_and_again_the_chain_holds() {
    let lab = Lab::new();
    let config = format!("{CORPORATE}\n[audit]\nmax_bytes = 65536\nkeep = 100\n");
    let mut home = Home::new(&config);
    let log = log_of(&home);
    for round in 0..count(6, 60) {
        let engine = Engine::start_in(&lab.host, home, &[]);
        let killed = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
                for n in 0..600u16 {
                    gun.forge([10, 88, (n >> 8) as u8, n as u8]);
                    gun.syns([3306, 3307]);
                }
            });
            for host in 0..round + 3 {
                engine.must(&["ban", &format!("203.0.{round}.{host}"), "--for", "1h"]);
            }
            let home = engine.kill9();
            load.join().expect("the load");
            home
        });
        home = killed;
        let output = verify(&home, &log);
        assert_eq!(output.code(), 0, "round {round}: {}", output.text());
        // What was confirmed to an operator is there.
        let all = fs::read_dir(home.logs())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        let text: String = all.collect();
        let last = format!("203.0.{round}.{}", round + 2);
        let order =
            |line: &str| line.contains("\"operator\"") && line.contains(&last) && line.contains("\"done\"");
        assert!(text.lines().any(order), "{last}");
    }
    let engine = Engine::start_in(&lab.host, home, &[]);
    let home = engine.stop();
    sound(&home, &log);
}

#[test]
fn a_flood_of_refusals_is_a_bounded_number_of_lines_and_every_packet_is_counted() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, CORPORATE);
    let log = log_of(engine.home());
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    for n in 0..100_000u32 {
        gun.forge([10, 88, (n >> 8) as u8, n as u8]);
        gun.syns([1000 + (n % 5) as u16]);
    }
    let refused = || {
        engine.json("stats")["copies"]["refused"]
            .as_u64()
            .unwrap_or_default()
    };
    let mut before = refused();
    within(secs(20), || {
        thread::sleep(ms(500));
        std::mem::replace(&mut before, refused()) == refused()
    });
    let copies = refused();
    assert!(copies > 50_000, "{copies}");
    let home = engine.stop();
    sound(&home, &log);
    let all = records(&log);
    let lines = of(&all, "refusal");
    let packets: u64 = lines.iter().filter_map(|record| record["packets"].as_u64()).sum();
    assert_eq!(packets, copies, "{} lines", lines.len());
    // Twice at most, should a minute end in between.
    assert!(lines.len() <= 2 * 373, "{}", lines.len());
}

#[test]
fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, CORPORATE);
    let log = log_of(engine.home());
    for round in 0..5 {
        engine.must(&["ban", &format!("203.0.113.{round}"), "--for", "1h"]);
        fs::rename(&log, log.with_extension(format!("jsonl-2026112{round}"))).expect("it is there");
        engine.must(&["unban", &format!("203.0.113.{round}")]);
        assert_eq!(of(&records(&log), "reopen").len(), 1);
    }
    let home = engine.stop();
    sound(&home, &log);
    // One of them is away: that is named.
    fs::remove_file(log.with_extension("jsonl-20261122")).unwrap();
    let output = verify(&home, &log);
    assert_eq!(output.code(), 1);
    assert!(
        output.stdout.contains("jsonl-20261123:1: before it lines "),
        "{}",
        output.text()
    );
}

/// A small disk of its own, filled and emptied at will.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> SmallDisk {
        let folder = TempDir::with_prefix("verdictd-disk-").expect("a temporary directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=512k,mode=0755", "tmpfs"])
            .arg(folder.path());
        let output = run(&mut mount, secs(10));
        assert_eq!(output.code(), 0, "{}", output.text());
        SmallDisk(folder)
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    fn fill(&self) {
        let mut file = File::create(self.0.path().join("fill")).expect("a file");
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("fill")).expect("it is there");
    }

    fn config(&self, more: &str) -> String {
        let engine = CORPORATE.replace(
            "[bans]",
            &format!("[engine]\n{more}\n[trusted]\nips = [\"{CLIENT}\"]\n[bans]"),
        );
        format!("{engine}\n[audit]\npath = {:?}\n", self.log())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.0.path()), secs(10));
    }
}

/// Fills the disk until the engine notices; what `status` says of it.
fn until_full(engine: &Engine<'_>, disk: &SmallDisk) -> String {
    disk.fill();
    let mut host = 0;
    let mut told = String::new();
    let full = within(secs(20), || {
        host += 1;
        engine.ctl(&[
            "ban",
            &format!("198.51.{}.{}", host / 250, host % 250),
            "--for",
            "1h",
        ]);
        let status = engine.ctl(&["status"]);
        told = status.text();
        status.code() == 4 && told.contains("audit log")
    });
    assert!(full, "the disk was never full: {told}\n{}", engine.log());
    told
}

fn until_well(engine: &Engine<'_>, disk: &SmallDisk) {
    disk.empty();
    assert!(
        within(secs(10), || engine.ctl(&["status"]).code() == 0),
        "{}",
        engine.log()
    );
}

#[test]
fn a_full_disk_is_said_and_nothing_else_changes() {
    let lab = Lab::new();
    let disk = SmallDisk::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, &disk.config(""));
    let told = until_full(&engine, &disk);
    assert!(
        told.contains("No space left on device") && told.contains("\"continue\""),
        "{told}"
    );
    assert!(talks(&lab.attacker, HOST, 80), "{}", engine.log());
    engine.must(&["ban", "203.0.113.77", "--for", "1h"]);
    until_well(&engine, &disk);
    let home = engine.stop();
    sound(&home, &disk.log());
    let all = records(&disk.log());
    let resumed = of(&all, "resumed");
    assert_eq!(resumed.len(), 1);
    assert!(
        resumed[0]["error"].as_str().unwrap().contains("No space left"),
        "{}",
        resumed[0]
    );
    // What happened meanwhile was kept, with its own time.
    let ban = all
        .iter()
        .find(|record| record["kind"] == "ban" && record["source"] == "203.0.113.77");
    assert!(ban.expect("it was banned")["time"].as_str() < resumed[0]["time"].as_str());
}

#[test]
fn closed_lets_nothing_new_begin_and_shuts_nobody_out_who_must_not_be() {
    let lab = Lab::new().with_client();
    let disk = SmallDisk::new();
    let _echo = Echo::tcp(&lab.host, &[80, 443]);
    let engine = Engine::start(&lab.host, &disk.config("on_audit_failure = \"closed\""));
    let mut open = connect(&lab.attacker, HOST, 80).expect("an allowed port");
    assert!(echoes(&mut open));
    let told = until_full(&engine, &disk);
    assert!(told.contains("no new connection is accepted"), "{told}");

    assert!(!talks(&lab.attacker, HOST, 80), "a new connection came about");
    assert!(echoes(&mut open), "what was open was cut");
    assert!(talks(lab.client(), HOST, 80), "trusted is shut out");
    let mut gateway = connect_from(&lab.attacker, GATEWAY, HOST, 80).expect("protected is not shut out");
    assert!(echoes(&mut gateway));
    for order in [
        &["ban", "203.0.113.9"][..],
        &["unban", "198.51.0.1"],
        &["reload"],
        &["snapshot"],
    ] {
        let output = engine.ctl(order);
        assert_eq!(output.code(), 1, "{order:?}: {}", output.text());
        assert!(
            output.stderr.contains("on_audit_failure = \"closed\""),
            "{}",
            output.stderr
        );
    }
    assert!(engine.ban_of("203.0.113.9").is_none());
    engine.must(&["list"]);
    let unlogged = engine.json("stats")["reasons"]["unlogged"].as_u64();
    assert!(unlogged >= Some(1), "{unlogged:?}");
    // A scan is seen all the same.
    Gun::new(&lab.attacker, "10.77.0.9", HOST).syns(5001..=5020);
    engine.wait_ban("10.77.0.9");

    until_well(&engine, &disk);
    assert!(
        within(secs(5), || talks(&lab.attacker, HOST, 80)),
        "{}",
        engine.log()
    );
    engine.must(&["ban", "203.0.113.9", "--for", "1h"]);
    let home = engine.stop();
    sound(&home, &disk.log());
    let all = records(&disk.log());
    let ban: Vec<&str> = of(&all, "operator")
        .iter()
        .filter(|order| order["arguments"]["target"] == "203.0.113.9")
        .filter_map(|order| order["result"].as_str())
        .collect();
    assert_eq!(
        ban,
        ["refused", "asked", "done"],
        "what was refused, and what was done"
    );
}

#[test]
fn a_log_that_cannot_be_opened_stops_no_start_and_observing_never_drops() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    for (enforce, passes) in [("true", false), ("false", true)] {
        let config = CORPORATE
            .replace("enforce = true", &format!("enforce = {enforce}"))
            .replace("[bans]", "[engine]\non_audit_failure = \"closed\"\n[bans]");
        let engine = Engine::start(
            &lab.host,
            &format!("{config}\n[audit]\npath = \"/proc/verdictd.jsonl\"\n"),
        );
        let status = engine.ctl(&["status"]);
        assert_eq!(status.code(), 4);
        assert!(
            status.text().contains("/proc/verdictd.jsonl"),
            "{}",
            status.text()
        );
        assert_eq!(talks(&lab.attacker, HOST, 80), passes, "{}", engine.log());
        assert_eq!(engine.ctl(&["ban", "203.0.113.9"]).code(), 1);
    }
}

#[test]
fn it_begins_and_ends_with_the_mode_by_reload() {
    let lab = Lab::new();
    let firewall = CORPORATE.replace("corporate", "firewall");
    let engine = Engine::start(&lab.host, &firewall);
    let log = log_of(engine.home());
    engine.must(&["ban", "203.0.113.1", "--for", "1h"]);
    assert!(!log.exists() && engine.json("status")["audit"].is_null());
    engine.home().write_config(CORPORATE);
    engine.must(&["reload"]);
    assert!(within(secs(5), || of(&records(&log), "config").len() == 1));
    engine.must(&["ban", "203.0.113.2", "--for", "1h"]);
    engine.home().write_config(&firewall);
    engine.must(&["reload"]);
    engine.must(&["ban", "203.0.113.3", "--for", "1h"]);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("203.0.113.2") && !text.contains("203.0.113.3"),
        "{text}"
    );
    sound(engine.home(), &log);
}
