//! Eight receivers that misbehave, beside one that does not: they cost the others, the disk and the memory little, and
//! the verdicts nothing that a client sees. What they cost a verdict is measured by `make bench-peers`.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::memory::Memory;
use crate::common::peers::{BadPeers, Good};
use crate::common::service::Echo;
use crate::common::wire::{Gun, SYN};
use crate::common::{count, ms, secs, within};

/// What may lie on disk. The least that can be said, so that it is full within seconds.
const SPOOL: u64 = 1 << 20;
/// Growth that a full table of flows, nine threads and their connections explain, in KiB (seen: 25 MiB in 100,000
/// attempts, most of it in the first 20,000).
const FLAT: u64 = 48 * 1024;

#[test]
fn receivers_that_misbehave_cost_others_little() {
    let seconds = count(10, 120) as u64;
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[443]);
    let (good, bad) = lab.host.inside(|| (Good::start(), BadPeers::start()));
    let engine = Engine::start(&lab.host, &config(&good, &bad));
    let (memory, over, attempts) = (Memory::of(&engine), AtomicBool::new(false), AtomicUsize::new(0));
    let before = memory.now();
    let [worker, webhook] = ["worker", "webhook"].map(|name| nice(&engine, name));
    let further = worker.iter().map(|nice| 19.min(nice + 10)).collect();
    assert_eq!(webhook, further, "workers: {worker:?}");
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| visit(&lab, &over, &attempts));
        let stop = StopOnDrop(&over); // also when an assertion fails
        let end = Instant::now() + secs(seconds);
        for scanner in (0..).map(|n| Ipv4Addr::from_bits(Ipv4Addr::new(10, 88, 0, 9).to_bits() + (n << 8))) {
            Gun::new(&lab.attacker, &scanner.to_string(), HOST).syns(5001..=5008);
            let began = Instant::now();
            let told = || {
                good.heard("ip_blocked")
                    .iter()
                    .any(|(_, event)| event["data"]["ip"] == scanner.to_string())
            };
            assert!(
                within(secs(5), told),
                "{scanner}: {}\n{}",
                status(&engine),
                engine.log()
            );
            slowest = slowest.max(began.elapsed());
            assert!(talks(lab.client(), HOST, 443), "{}", engine.log());
            assert!(
                status(&engine)["spool_bytes"].as_u64() <= Some(SPOOL),
                "{}",
                status(&engine)
            );
            if Instant::now() > end {
                break;
            }
        }
        drop(stop);
    });
    let (after, peak, attempts) = (memory.now(), memory.peak(), attempts.into_inner());
    println!(
        "bad peers: {attempts} attempts in {seconds} s, the good one told of a ban within {slowest:.0?}; memory \
         {before}, {after}, at most {peak} KiB"
    );
    assert!(
        attempts > 2_000 && peak < before + FLAT,
        "{attempts} attempts, {before} KiB grew to {peak}"
    );
    assert!(
        within(secs(20), || each_bad_one_failed(&status(&engine))),
        "{}",
        status(&engine)
    );
    assert_eq!(
        (bad.followed(), status(&engine)["endpoints"][0]["failed"].as_u64()),
        (0, Some(0))
    );
    let stopped = Instant::now();
    engine.stop();
    assert!(stopped.elapsed() < secs(8), "{:?}", stopped.elapsed());
}

/// How far threads whose names begin so step back behind others (proc(5), stat: field 19).
fn nice(engine: &Engine<'_>, name: &str) -> BTreeSet<i32> {
    let pid = &engine.json("status")["pid"];
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running engine");
    let stats = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    let named = stats.filter(|stat| {
        stat.split_once('(')
            .is_some_and(|(_, rest)| rest.starts_with(name))
    });
    // Behind the name, which may hold anything, state is field 3.
    let fields = named.filter_map(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok());
    fields.collect()
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One SYN from ever another source, some thousand a second, until it is over.
fn visit(lab: &Lab, over: &AtomicBool, sent: &AtomicUsize) {
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    while !over.load(Ordering::Relaxed) {
        for _ in 0..10 {
            let number = sent.fetch_add(1, Ordering::Relaxed) as u32;
            gun.forge(Ipv4Addr::from_bits(
                Ipv4Addr::new(10, 88, 128, 0).to_bits() + number % (1 << 15),
            ));
            gun.tcp(80, SYN);
        }
        thread::sleep(ms(10));
    }
}

fn config(good: &Good, bad: &BadPeers) -> String {
    let mut text = format!(
        "{DETECTION}[webhooks]\nenabled = true\nrate_limit = 100000\nbatch_timeout = 1\nretry_delay = 1\n\
         retry_attempts = 100\ntimeout = 2\nspool_max_bytes = {SPOOL}\n"
    );
    let good = ("good", format!("http://{}/", good.address));
    for (name, url) in [good].iter().chain(&bad.urls) {
        text += &format!("[[webhooks.endpoints]]\nname = {name:?}\nurl = {url:?}\n");
    }
    text
}

fn status(engine: &Engine<'_>) -> Value {
    let text = engine.must(&["webhook", "status", "--json"]);
    serde_json::from_str(&text).expect("JSON")
}

/// All but the one whose answer begins well and never ends.
fn each_bad_one_failed(status: &Value) -> bool {
    let endpoints = status["endpoints"].as_array().expect("endpoints");
    let bad = endpoints
        .iter()
        .filter(|endpoint| endpoint["name"] != "good" && endpoint["name"] != "endless");
    bad.into_iter()
        .all(|endpoint| endpoint["failed"].as_u64() > Some(0) && endpoint["delivered"] == 0)
}
