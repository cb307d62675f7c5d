//! What receivers of webhooks that misbehave cost a verdict and a client: the same load on the same engine without
//! webhooks, with one good receiver, and with eight bad ones beside it, in turn, in one run.
//!
//!     sudo make bench-peers
//!
//! Real packets in network namespaces; the receivers are in the engine's own, and cost the same two cores. Prints a
//! line for each part of each round, and the medians of the ratios of what lies side by side. Nothing is asserted.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/common/mod.rs"]
mod common;

use common::engine::{DETECTION, Engine, Home};
use common::lab::{ATTACKER, HOST, Lab};
use common::memory::Memory;
use common::peers::{BadPeers, Good};
use common::service::Echo;
use common::wire::{Gun, SYN};
use common::{secs, within};

const ROUNDS: usize = 11;
const LOAD: Duration = secs(6);
/// Each a second: real connections, single SYNs of strangers, and scanners, who are banned.
const CONNECTIONS: u32 = 300;
const ATTEMPTS: u32 = 700;
const SCANNERS: u32 = 5;
/// Small enough to be full.
const SPOOL: u64 = 2 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Off,
    Good,
    Bad,
}

const PARTS: [(Part, &str); 3] = [
    (Part::Off, "no webhooks"),
    (Part::Good, "1 good"),
    (Part::Bad, "1 good, 8 bad"),
];

/// What some threads had of the processors.
#[derive(Clone, Copy, Default)]
struct Use {
    milliseconds: f64,
    turns: f64,
    /// How long they stood in line for a turn, in microseconds.
    line: f64,
}

/// What one part of a round came to.
#[derive(Default)]
struct Seen {
    /// The engine's own latency, microseconds.
    verdict: [f64; 3],
    /// What a client waits for its connection, microseconds, p50 and p99.
    connect: [f64; 2],
    workers: Use,
    webhooks: Use,
    /// KiB.
    memory: [u64; 2],
    spool: u64,
    /// From a ban to the good receiver, milliseconds, p99; and how many of the bans it was told of.
    delay: f64,
    told: (usize, u64),
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "peers: this makes network namespaces and loads rules into them, which needs root: sudo make bench-peers"
        );
        std::process::exit(1);
    }
    println!(
        "{:<14} {:^21}  {:^14}  {:^14}  {:^15}  {:^20}  bans told",
        "", "verdict, us", "connect, us", "workers", "webhooks", "memory, disk, KiB"
    );
    println!(
        "{:<14} {:>6} {:>6} {:>7}  {:>6} {:>7}  {:>6} {:>7}  {:>6} {:>8}  {:>6} {:>6} {:>6}  {:>8} {:>7}",
        "",
        "p50",
        "p99",
        "p99.9",
        "p50",
        "p99",
        "ms",
        "line us",
        "ms",
        "turns",
        "start",
        "end",
        "spool",
        "of",
        "p99 ms"
    );
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut seen: [Seen; 3] = Default::default();
        // Each part is first as often as it is last, as far as possible: whatever drifts hits all.
        for turn in 0..PARTS.len() {
            let at = (round + turn) % PARTS.len();
            seen[at] = Ground::new().measure(PARTS[at].0);
            show(PARTS[at].1, &seen[at]);
        }
        rounds.push(seen);
    }
    println!();
    for (what, of) in [
        ("verdict p99", (|seen| seen.verdict[1]) as fn(&Seen) -> f64),
        ("verdict p50", |seen| seen.verdict[0]),
        ("connect p99", |seen| seen.connect[1]),
        ("connect p50", |seen| seen.connect[0]),
    ] {
        let ratio = |than: usize| {
            spread(
                rounds
                    .iter()
                    .map(|round| of(&round[2]) / of(&round[than]))
                    .collect(),
            )
        };
        println!(
            "{what}: 8 bad / 1 good {}, 8 bad / no webhooks {}",
            ratio(1),
            ratio(0)
        );
    }
}

fn show(what: &str, seen: &Seen) {
    let ([p50, p99, p999], [c50, c99]) = (seen.verdict, seen.connect);
    println!(
        "{what:<14} {p50:>6.1} {p99:>6.1} {p999:>7.1}  {c50:>6.0} {c99:>7.0}  {:>6.0} {:>7.0}  {:>6.0} {:>8.0}  {:>6} {:>6} {:>6}  \
         {:>8} {:>7.0}",
        seen.workers.milliseconds,
        seen.workers.line,
        seen.webhooks.milliseconds,
        seen.webhooks.turns,
        seen.memory[0],
        seen.memory[1],
        seen.spool / 1024,
        format!("{}/{}", seen.told.0, seen.told.1),
        seen.delay,
    );
}

/// The median, and what it lies between.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    format!(
        "{:.2} ({:.2} to {:.2})",
        values[last / 2],
        values[0],
        values[last]
    )
}

/// A lab of each part's own: what the kernel remembers of one is not there in the next.
struct Ground {
    lab: Lab,
    good: Good,
    bad: BadPeers,
    _echo: Echo,
    /// No address comes twice.
    next: AtomicU32,
}

impl Ground {
    fn new() -> Ground {
        let lab = Lab::new();
        lab.attacker
            .ip(&["route", "add", "local", "10.89.0.0/16", "dev", "lo"]);
        lab.host
            .ip(&["route", "add", "10.89.0.0/16", "via", "10.77.0.254"]);
        let (good, bad) = lab.host.inside(|| (Good::start(), BadPeers::start()));
        let _echo = Echo::tcp(&lab.host, &[443]);
        Ground {
            lab,
            good,
            bad,
            _echo,
            next: AtomicU32::new(0),
        }
    }

    fn measure(&self, part: Part) -> Seen {
        let home = Home::new(&self.config(part));
        let engine = Engine::start_in(&self.lab.host, home, &[]);
        let memory = Memory::of(&engine);
        let before = memory.now();
        let mut waits = self.load();
        let stats = engine.json("stats");
        let bans = stats["bans"]["total"].as_u64().unwrap_or_default();
        let blocked = || self.good.heard("ip_blocked");
        if part != Part::Off {
            within(secs(5), || blocked().len() as u64 >= bans);
        }
        let (spool, after) = (spool_bytes(&engine), memory.now());
        let pid = engine.json("status")["pid"].as_u64().expect("a process number");
        let [workers, webhooks] = ["worker", "webhook"].map(|name| processor(pid, name));
        engine.stop();
        let mut delays: Vec<f64> = blocked().iter().map(|(at, event)| delay(*at, event)).collect();
        let latency = &stats["verdict_latency_us"];
        Seen {
            verdict: ["p50", "p99", "p999"].map(|share| latency[share].as_f64().unwrap_or(f64::NAN)),
            connect: [percentile(&mut waits, 0.5), percentile(&mut waits, 0.99)],
            workers,
            webhooks,
            memory: [before, after],
            spool,
            delay: percentile(&mut delays, 0.99),
            told: (delays.len(), bans),
        }
    }

    fn config(&self, part: Part) -> String {
        let mut text = DETECTION.to_owned();
        if part != Part::Off {
            text += &format!(
                "[webhooks]\nenabled = true\nrate_limit = 100000\nbatch_size = 100\nbatch_timeout = 1\nretry_delay = 1\n\
                 retry_attempts = 100\ntimeout = 2\nspool_max_bytes = {SPOOL}\n"
            );
        }
        let good = ("good", format!("http://{}/", self.good.address));
        let bad = if part == Part::Bad {
            self.bad.urls.as_slice()
        } else {
            &[]
        };
        for (name, url) in [good].iter().filter(|_| part != Part::Off).chain(bad) {
            text += &format!("[[webhooks.endpoints]]\nname = {name:?}\nurl = {url:?}\n");
        }
        text
    }

    /// Everybody who comes; what the real clients waited for their connections, in microseconds.
    fn load(&self) -> Vec<f64> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.shoot(ATTEMPTS, 10, &over, |gun| gun.tcp(80, SYN)));
            scope.spawn(|| self.shoot(SCANNERS, 1, &over, |gun| gun.syns(5001..=5008)));
            let clients = scope.spawn(|| self.lab.attacker.inside(|| self.connect(&over)));
            thread::sleep(LOAD);
            over.store(true, Ordering::Relaxed);
            clients.join().expect("the clients")
        })
    }

    fn shoot(&self, a_second: u32, at_once: u32, over: &AtomicBool, mut act: impl FnMut(&mut Gun)) {
        let mut gun = Gun::new(&self.lab.attacker, ATTACKER, HOST);
        let mut pace = Pace::new(a_second / at_once);
        while !over.load(Ordering::Relaxed) {
            for _ in 0..at_once {
                gun.forge(self.source());
                act(&mut gun);
            }
            pace.wait();
        }
    }

    fn connect(&self, over: &AtomicBool) -> Vec<f64> {
        let (mut pace, mut waits) = (Pace::new(CONNECTIONS), Vec::new());
        while !over.load(Ordering::Relaxed) {
            let socket =
                rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
            rustix::net::bind(&socket, &SocketAddr::from((self.source(), 0))).expect("an address of ours");
            let to: SocketAddr = format!("{HOST}:443").parse().expect("an address");
            let began = Instant::now();
            rustix::net::connect(&socket, &to).expect("the host answers");
            waits.push(began.elapsed().as_secs_f64() * 1e6);
            pace.wait();
        }
        waits
    }

    /// Each of another /24 than the one before: bans of neighbours are few a minute.
    fn source(&self) -> Ipv4Addr {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % (1 << 17);
        let (network, host) = (number % (1 << 9), number >> 9);
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 88, 0, 0).to_bits() + (network << 8) + host)
    }
}

/// The same distance between one and the next, however long each takes.
struct Pace {
    next: Instant,
    step: Duration,
}

impl Pace {
    fn new(a_second: u32) -> Pace {
        Pace {
            next: Instant::now(),
            step: secs(1) / a_second,
        }
    }

    fn wait(&mut self) {
        self.next += self.step;
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
    }
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// From the moment that an event tells to its arrival, in milliseconds.
fn delay(arrived: SystemTime, event: &Value) -> f64 {
    let text = event["timestamp"].as_str().expect("every event has a timestamp");
    let happened = OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339");
    (OffsetDateTime::from(arrived) - happened).as_seconds_f64() * 1e3
}

fn spool_bytes(engine: &Engine<'_>) -> u64 {
    let text = engine.ctl(&["webhook", "status", "--json"]).stdout;
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    status["spool_bytes"].as_u64().unwrap_or_default()
}

/// What the threads whose names begin so had until now (proc(5), schedstat).
fn processor(pid: u64, name: &str) -> Use {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("a running engine")
        .flatten();
    let mut sums = [0.0; 3];
    for task in tasks.map(|task| task.path()) {
        let named = fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        if named && let Ok(text) = fs::read_to_string(task.join("schedstat")) {
            let numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0.0));
            sums.iter_mut()
                .zip(numbers)
                .for_each(|(sum, number): (&mut f64, f64)| *sum += number);
        }
    }
    let [ran, stood, turns] = sums;
    Use {
        milliseconds: ran / 1e6,
        turns,
        line: stood / turns.max(1.0) / 1e3,
    }
}
