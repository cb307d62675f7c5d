//! What it costs to remember: a start with 100,000 and a million bans, from the file to the kernel's sets, and a
//! snapshot of a million half-done scans, by itself and in a running engine.
//!
//!     cargo bench --bench state
//!
//! Real sets in network namespaces of their own (root). Prints milliseconds: the median of several rounds, least and
//! most, and the processor time of the median round, which other programs disturb less. The last part starts an
//! engine. `state 100k`, `1m`, `sources` or `engine` runs one part alone.

use std::fs::File;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use verdictd::config;
use verdictd::core::attack::Baseline;
use verdictd::core::judge::{Judge, Memory};
use verdictd::core::ledger::Standing;
use verdictd::core::policy::Policy;
use verdictd::core::prefix::Prefix;
use verdictd::core::source::Touch;
use verdictd::core::verdict::{Asked, Ban, BanReason, Proto};
use verdictd::engine::clock;
use verdictd::engine::open;
use verdictd::engine::protect::{Follower, Protection};
use verdictd::engine::restore::Kept;
use verdictd::kernel::netlink::Netlink;
use verdictd::kernel::ruleset::{self, Backend, Layout, Ruleset};
use verdictd::kernel::sets::{BanSets, LiveBan};
use verdictd::state::{Encoder, Place, Snapshot};

#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/common/mod.rs"]
mod common;

use common::engine::{DETECTION, Engine, Home, OBSERVING};
use common::lab::{ATTACKER, HOST, Lab};
use common::namespace::Namespace;
use common::secs;
use common::wire::{Gun, SYN};

const SEED: u32 = 24301;
const WORKERS: usize = 2;
const SOURCES: u32 = 1_000_000;
/// As the keeper asks a worker.
const SHARE: usize = 256;

fn main() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("state: this makes network namespaces and loads sets into them, which needs root");
        std::process::exit(1);
    }
    let only = std::env::args().nth(1).filter(|word| !word.starts_with("--"));
    let wanted = |part: &str| only.as_deref().is_none_or(|word| word == part);
    about_this_machine();
    println!(
        "{:<52} {:>9} {:>9} {:>9} {:>9}   ms",
        "", "median", "min", "max", "cpu"
    );
    if wanted("100k") {
        restore(100_000, 7);
    }
    if wanted("1m") {
        restore(1_000_000, 3);
    }
    if wanted("sources") {
        sources(5);
    }
    if wanted("engine") {
        engine();
    }
}

fn about_this_machine() {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("?");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let date = clock::moment().wall.date();
    println!("{cores} x {model}, Linux {}, {date}", kernel.trim());
}

/// A start with `count` bans and as many ladder positions: into an empty table, and beside a full one.
fn restore(count: u32, rounds: usize) {
    let directory = TempDir::new().expect("a directory of ours");
    let place = Place::new(directory.path(), None);
    let mut rows = Rows::default();
    for _ in 0..rounds {
        rows.time("snapshot of bans and ladder, synced", || save(&place, 0, count));
    }
    for _ in 0..rounds {
        let rig = Rig::new();
        let (mut sets, live) = rig.start(&place, &[], "empty table", &mut rows);
        assert_eq!(live, 0);
        let found = rows.time("dump of the full sets", || sets.dump().expect("a dump"));
        assert_eq!(found.len(), count as usize);
        let (_, live) = rig.start(&place, &found, "full table", &mut rows);
        assert_eq!(live, count as usize);
    }
    println!("{count} bans, {} MB", megabytes(&place));
    rows.print();
}

/// A namespace with the table as the engine loads it.
struct Rig {
    ns: Namespace,
    policy: Arc<Policy>,
    protection: Protection,
}

impl Rig {
    fn new() -> Rig {
        let ns = Namespace::new("bench");
        let parse = |text| config::parse(text, Path::new("bench.toml")).expect("a good configuration");
        let config = parse(DETECTION);
        let (_, facts) = ns.inside(Follower::open).expect("what this host is");
        let rig = Rig {
            policy: Arc::new(config.policy.clone()),
            protection: Protection::of(facts.protected, &config.policy.trusted),
            ns,
        };
        // One that needs no queue, which not every kernel has; the sets are the same.
        let layout = Layout {
            queue_base: 4100,
            log_base: 4100,
            workers: 2,
            seed: SEED,
        };
        let spec = open::spec(&parse(OBSERVING), layout, Backend::Native, 32_768..=60_999);
        let load = || {
            let mut netlink = Netlink::open(mnl::Bus::Netfilter)?;
            Ok::<_, ruleset::RulesetError>(ruleset::apply(&mut netlink, &Ruleset::build(&spec))?.created)
        };
        assert!(rig.ns.inside(load).expect("a table"));
        rig
    }

    /// What a start does between the file and the last set element; how many bans the kernel held already.
    fn start(&self, place: &Place, live: &[LiveBan], what: &str, rows: &mut Rows) -> (BanSets, usize) {
        let mut sets = self.ns.inside(BanSets::open).expect("a netlink socket");
        let row = |step: &str| format!("{what}: {step}");
        let (whole, used) = (Instant::now(), processor_time());
        let mut kept: Kept = rows.time(&row("file to records"), || {
            Kept::load(place, self.policy.max_sources)
        });
        assert!(kept.troubles.is_empty(), "{:?}", kept.troubles);
        let restored = rows.time(&row("join with the kernel's"), || {
            kept.join(live, &self.policy, &self.protection, Instant::now())
        });
        let (restored, judges) = rows.time(&row("judges"), || {
            restored.judges(&self.policy, &self.protection, SEED, WORKERS)
        });
        let refused = rows.time(&row("elements into the kernel"), || sets.apply(&restored.changes));
        rows.put(&row("whole restore"), whole.elapsed(), processor_time() - used);
        assert!(refused.is_empty(), "{:?}", refused.first());
        drop((restored, judges));
        (sets, live.len())
    }
}

/// A snapshot of what `sources` and `bans` are numbered; what it took.
fn save(place: &Place, sources: u32, bans: u32) {
    let now = Instant::now();
    let mut snapshot = Snapshot::begin(place, &clock::moment(), now, SEED, 0).expect("room");
    for n in 0..sources {
        snapshot.source(&memory(n, now)).expect("room");
    }
    for n in 0..bans {
        snapshot.standing(&standing(n, now)).expect("room");
    }
    snapshot.usual(&Baseline::default()).expect("room");
    for n in 0..bans {
        snapshot.ban(&ban(n, now)).expect("room");
    }
    let _ = black_box(snapshot.commit().expect("room"));
}

/// Three of four are IPv4, the others /64s.
fn source(n: u32) -> Prefix {
    let scattered = n.wrapping_mul(0x9e37_79b1);
    match n % 4 {
        0 => Prefix::source_of(
            Ipv6Addr::from((0x2001_0db8 << 32 | u128::from(scattered)) << 64).into(),
            64,
        ),
        _ => Prefix::host(Ipv4Addr::from(0x1000_0000 | scattered >> 4).into()),
    }
}

fn ban(n: u32, now: Instant) -> Ban {
    Ban {
        source: source(n),
        reason: BanReason::ALL[n as usize % 4],
        step: 1 + n % 4,
        offences: 1 + n % 9,
        since: now - secs(u64::from(n % 86_400)),
        until: (!n.is_multiple_of(50)).then(|| now + secs(3_600 + u64::from(n % 600_000))),
        enforced: true,
        note: n
            .is_multiple_of(8)
            .then(|| "asked for by \"ops\", ticket 4711".into()),
    }
}

fn standing(n: u32, now: Instant) -> Standing {
    Standing {
        source: source(n),
        offences: 1 + n % 9,
        last: Some(now - secs(u64::from(n % 86_400))),
        would_be: 0,
        would_be_last: None,
    }
}

/// One to eight ports, one source in eight completed a handshake.
fn memory(n: u32, now: Instant) -> Memory {
    let age = |touch: u32| now - Duration::from_millis(u64::from(n % 1_000_000 + 1_000 * (9 - touch)));
    let touches = (0..1 + n % 8).map(|touch| Touch {
        what: Asked::Port(Proto::Tcp, (n.wrapping_mul(31) + touch) as u16),
        stealth: 0,
        at: age(touch),
    });
    Memory {
        source: source(n),
        first_seen: age(0),
        last_seen: age(n % 8),
        completed: n.is_multiple_of(8).then(|| vec![443, 80]),
        touches: touches.collect(),
    }
}

/// A million half-done scans: out of a worker's table, into a file, and back.
fn sources(rounds: usize) {
    let directory = TempDir::new().expect("a directory of ours");
    let place = Place::new(directory.path(), None);
    let mut rows = Rows::default();
    let now = Instant::now();
    let memories: Vec<Memory> = (0..SOURCES).map(|n| memory(n, now)).collect();
    for _ in 0..rounds {
        rows.time("encoded alone", || {
            let mut encoder = Encoder::new(std::io::sink(), &clock::moment(), now, SEED).expect("a sink");
            memories
                .iter()
                .for_each(|memory| encoder.source(memory).expect("a sink"));
            let _ = black_box(encoder.finish().expect("a sink"));
        });
        rows.time("encoded, written and synced", || {
            let mut snapshot = Snapshot::begin(&place, &clock::moment(), now, SEED, 0).expect("room");
            memories
                .iter()
                .for_each(|memory| snapshot.source(memory).expect("room"));
            let _ = black_box(snapshot.commit().expect("room"));
        });
    }
    let rig = Rig::new();
    let mut judge = None;
    for _ in 0..rounds {
        judge = Some(rows.time("file to records", || Kept::load(&place, SOURCES as usize)));
    }
    let restored = judge
        .expect("a round")
        .join(&[], &rig.policy, &rig.protection, Instant::now());
    let (_, judges) = rows.time("a worker's table from records", || {
        restored.judges(&rig.policy, &rig.protection, SEED, 1)
    });
    for _ in 0..rounds {
        exported(&judges[0], &mut rows);
    }
    println!("{SOURCES} half-done scans, {} MB", megabytes(&place));
    rows.print();
}

/// All shares of a worker's table, and what single ones cost it.
fn exported(judge: &Judge, rows: &mut Rows) {
    let (mut cursor, mut shares, mut count) = (Some(0), Vec::new(), 0);
    while let Some(at) = cursor {
        let begun = Instant::now();
        let exported = judge.export(at, SHARE, begun);
        shares.push(begun.elapsed());
        count += exported.sources.len();
        cursor = exported.next;
    }
    assert!(count > SOURCES as usize * 9 / 10, "{count}");
    shares.sort_unstable();
    let mut put = |what, took| rows.put(what, took, took);
    put("every share of a worker's table", shares.iter().sum());
    put("one share: median", shares[shares.len() / 2]);
    put(
        "one share: of 1,000 the slowest",
        shares[shares.len() * 999 / 1000],
    );
}

/// The keeper of a real engine saves a million half-done scans while 1,000 packets a second are judged.
fn engine() {
    let lab = Lab::new();
    let config = format!("{DETECTION}\n[engine]\nmax_sources = {}\n", SOURCES + 100_000);
    let home = Home::new(&config);
    save(&Place::new(&home.state(), None), SOURCES, 0);
    let begun = Instant::now();
    let engine = Engine::start_in(&lab.host, home, &[]);
    println!(
        "a real engine with {SOURCES} half-done scans, ready after {:.0} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    for what in ["at rest", "while it saves"] {
        let mut rows = Rows::default();
        let before = engine.json("stats");
        thread::scope(|scope| {
            let shooter = scope.spawn(|| shoot(&lab, secs(8)));
            while !shooter.is_finished() {
                match what {
                    "at rest" => thread::sleep(secs(1)),
                    _ => {
                        let saved = engine.must(&["snapshot", "--json"]);
                        let saved: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
                        let took = saved["duration_ms"].as_u64().expect("a duration");
                        let took = Duration::from_millis(took);
                        rows.put("the keeper's snapshot", took, took);
                    }
                }
            }
        });
        rows.print();
        let after = engine.json("stats");
        println!(
            "  {what}: verdict latency, us, since the start: {} (before: {})",
            after["verdict_latency_us"], before["verdict_latency_us"]
        );
    }
    engine.stop();
}

fn shoot(lab: &Lab, long: Duration) {
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < long {
        for _ in 0..10 {
            n += 1;
            gun.forge(Ipv4Addr::from(0x0b00_0000 + n));
            gun.tcp(80, SYN);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn megabytes(place: &Place) -> u64 {
    let length = File::open(place.path()).and_then(|file| file.metadata());
    length.expect("the file").len() / 1_000_000
}

/// What was measured, in the order in which it came first: from start to end, and on processors.
#[derive(Default)]
struct Rows(Vec<(String, Vec<[f64; 2]>)>);

impl Rows {
    fn time<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        let (begun, used) = (Instant::now(), processor_time());
        let result = work();
        self.put(what, begun.elapsed(), processor_time() - used);
        result
    }

    fn put(&mut self, what: &str, took: Duration, used: Duration) {
        let at = self.0.iter().position(|row| row.0 == what).unwrap_or_else(|| {
            self.0.push((what.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        self.0[at]
            .1
            .push([took, used].map(|time| time.as_secs_f64() * 1e3));
    }

    fn print(mut self) {
        for (what, times) in &mut self.0 {
            times.sort_by(|a, b| a[0].total_cmp(&b[0]));
            let ([median, cpu], least, most) =
                (times[times.len() / 2], times[0][0], times[times.len() - 1][0]);
            println!("  {what:<50} {median:>9.2} {least:>9.2} {most:>9.2} {cpu:>9.2}");
        }
    }
}

/// What this process had of the processors, the kernel's work for it included.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a clock that counts up")
}
