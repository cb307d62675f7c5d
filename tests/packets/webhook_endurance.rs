//! At least once from the packet to the receiver's database, and there once: the way between fails three times in
//! ten, and the engine is killed twenty times.
//!
//! Ten thousand events in `make test`, a hundred thousand in `make soak`. Of what happened one line is printed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::common::engine::{DETECTION, Engine, Home};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::peers::{events_of, read_request};
use crate::common::wire::{Gun, SYN};
use crate::common::{count, ms, secs, within};

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the receiver's tests use the rest, and unwrap as tests do"
)]
#[path = "../receiver/rig.rs"]
mod rig;

use rig::{KEY, Site};

const KILLS: usize = 20;

#[test]
fn every_attempt_is_stored_once_though_the_engine_is_killed_twenty_times() {
    let (events, began) = (count(10_000, 100_000), Instant::now());
    let (lab, site) = (wide_lab(), Site::new());
    let receiver = lab.host.inside(|| site.start());
    let proxy = Proxy::start(&lab.host, receiver.address);
    let mut home = Home::new(&config(proxy.address, events / 20));
    // Those of whom neither a spool nor the receiver knew when an engine was dead: they are sent again.
    let mut unheard: BTreeSet<Ipv4Addr> = (0..events).map(source).collect();
    let (mut spooled, mut again) = (HashMap::new(), 0);
    for _ in 0..KILLS {
        let block: Vec<_> = unheard.iter().copied().take(events / KILLS).collect();
        home = killed_amid(&lab, home, &block);
        let waiting = waiting(&home);
        let known: HashSet<_> = waiting
            .values()
            .copied()
            .chain(stored(&site).into_values())
            .collect();
        spooled.extend(waiting);
        unheard.retain(|source| !known.contains(source));
        again += block.iter().filter(|source| unheard.contains(source)).count();
    }
    let rest: Vec<_> = unheard.into_iter().collect();
    deliver_all(&lab, home, &rest);

    let (stored, passed) = (stored(&site), proxy.passed());
    println!(
        "webhooks: {events} events in {:.1?}, {KILLS} kills, {again} sources died with an engine and came again; {} of \
         {} requests failed, {} events came to the receiver twice or more, {} are stored",
        began.elapsed(),
        passed.failed,
        passed.requests,
        passed.repeated(),
        stored.len(),
    );
    let lost: Vec<_> = spooled.keys().filter(|id| !stored.contains_key(*id)).collect();
    assert!(
        lost.is_empty(),
        "{} were on disk and are lost: {:?}",
        lost.len(),
        lost.first()
    );
    let mut times = HashMap::new();
    stored
        .values()
        .for_each(|source| *times.entry(*source).or_insert(0) += 1);
    let odd: Vec<_> = (0..events)
        .map(source)
        .filter(|source| times.get(source) != Some(&1))
        .collect();
    assert!(
        odd.is_empty(),
        "{} are not there once: {:?}",
        odd.len(),
        odd.first()
    );
    assert_eq!(stored.len(), events, "the receiver has events of strangers");
    assert!(
        passed.events.keys().all(|id| stored.contains_key(id)),
        "what was answered 200 is stored"
    );
    assert!(
        passed.failed * 10 >= passed.requests * 3 - 30 && passed.repeated() > events / 100,
        "{passed:?}"
    );
}

/// An engine hears of `block`, and is killed at some moment after most of it is on disk.
fn killed_amid(lab: &Lab, home: Home, block: &[Ipv4Addr]) -> Home {
    let engine = Engine::start_in(&lab.host, home, &[]);
    // The scope ends with the last shot: what comes too late for this engine does not come to the next.
    thread::scope(|scope| {
        scope.spawn(|| shoot(&lab.attacker, block));
        spools(&engine, block.len() * chance(50..=95) / 100);
        thread::sleep(ms(chance(0..=50) as u64));
        engine.kill9()
    })
}

/// An engine hears of the `rest`, and may live until everything is delivered.
fn deliver_all(lab: &Lab, home: Home, rest: &[Ipv4Addr]) {
    let engine = Engine::start_in(&lab.host, home, &[]);
    shoot(&lab.attacker, rest);
    spools(&engine, rest.len());
    let waits = || status(&engine)["endpoints"][0]["waiting"] != 0;
    assert!(within(secs(180), || !waits()), "{}", status(&engine));
    engine.stop();
}

/// Waits until `count` events are on disk, and none was given up.
fn spools(engine: &Engine<'_>, count: usize) {
    let mut last = Value::Null;
    let enough = within(secs(30), || {
        last = status(engine);
        let (endpoint, none) = (&last["endpoints"][0], &Value::from(0));
        for given_up in [
            &last["dropped"],
            &last["merged"],
            &endpoint["dropped"],
            &endpoint["dead_letters"],
        ] {
            assert_eq!(given_up, none, "{last}");
        }
        last["spooled"].as_u64() >= Some(count as u64)
    });
    assert!(
        enough,
        "{count} events do not get to the disk: {last}\n{}",
        engine.json("stats")
    );
}

fn status(engine: &Engine<'_>) -> Value {
    let text = engine.must(&["webhook", "status", "--json"]);
    serde_json::from_str(&text).expect("JSON")
}

/// A lab in which the attacker has 131,072 addresses.
fn wide_lab() -> Lab {
    let lab = Lab::new();
    lab.attacker
        .ip(&["route", "add", "local", "10.89.0.0/16", "dev", "lo"]);
    lab.host
        .ip(&["route", "add", "10.89.0.0/16", "via", "10.77.0.254"]);
    lab
}

/// Number `n` of the attacker's addresses.
fn source(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 88, 1, 0).to_bits() + n as u32)
}

/// One SYN from each source to a port that is not refused, some two thousand a second.
fn shoot(ns: &Namespace, sources: &[Ipv4Addr]) {
    let mut gun = Gun::new(ns, ATTACKER, HOST);
    for some in sources.chunks(50) {
        for source in some {
            gun.forge(*source);
            gun.tcp(80, SYN);
        }
        thread::sleep(ms(25));
    }
}

fn config(receiver: SocketAddr, batch_size: usize) -> String {
    format!(
        "{DETECTION}[webhooks]\nenabled = true\nrate_limit = 1000000\nbatch_size = {batch_size}\nbatch_timeout = 1\n\
         retry_delay = 1\nretry_attempts = 100\nspool_max_bytes = 1073741824\n\
         [[webhooks.endpoints]]\nname = \"soc\"\nurl = \"http://{receiver}/webhook\"\nsecret = {KEY:?}\n\
         [webhooks.endpoints.events]\ninclude = [\"connection_attempt\"]\n"
    )
}

/// Ids and sources of the events that a dead engine left on disk: whole lines of `number milliseconds checksum json`.
fn waiting(home: &Home) -> HashMap<String, Ipv4Addr> {
    let folder = home.state().join("webhooks/attempts");
    let files = fs::read_dir(folder).expect("a spool").flatten();
    let files = files.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"events-"));
    let texts = files.map(|entry| fs::read_to_string(entry.path()).expect("a file of the spool"));
    let one = |line: &str| {
        let event: Value = serde_json::from_str(line.splitn(4, ' ').nth(3)?).ok()?;
        let ip = event["data"]["ip"].as_str()?.parse().ok()?;
        Some((event["id"].as_str()?.to_owned(), ip))
    };
    texts
        .flat_map(|text| text.lines().filter_map(one).collect::<Vec<_>>())
        .collect()
}

/// Ids and sources of the attempts in the receiver's database, where ids are unique.
fn stored(site: &Site) -> HashMap<String, Ipv4Addr> {
    let db =
        Connection::open_with_flags(site.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
    let mut rows = db
        .prepare("SELECT id, ip FROM events WHERE event_type = 'connection_attempt'")
        .expect("a table of events");
    let rows = rows
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .expect("rows");
    rows.map(|row| {
        row.map(|(id, ip)| (id, ip.parse().expect("an address")))
            .expect("a row")
    })
    .collect()
}

/// A number out of `range`, each time another.
fn chance(range: RangeInclusive<usize>) -> usize {
    let (least, most) = range.into_inner();
    least + RandomState::new().hash_one(0) as usize % (most - least + 1)
}

/// What stands between the engine and its receiver: of ten requests one does not get through, and of two the answer
/// does not come back.
struct Proxy {
    address: SocketAddr,
    passed: Arc<Mutex<Passed>>,
}

/// What came to the proxy.
#[derive(Debug, Default)]
struct Passed {
    requests: usize,
    failed: usize,
    /// How often each event was passed on and taken, by its id.
    events: HashMap<String, u32>,
}

impl Passed {
    fn repeated(&self) -> usize {
        self.events.values().filter(|times| **times > 1).count()
    }
}

impl Proxy {
    fn start(ns: &Namespace, receiver: SocketAddr) -> Proxy {
        let passed = Arc::<Mutex<Passed>>::default();
        let account = Arc::clone(&passed);
        let address = ns.inside(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("its address");
            // Ends with the test program: nobody can close a listener that somebody waits on. One at a time, as they come.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A peer that was killed is no fault of the proxy's.
                    let _ = pass(&stream, receiver, &account);
                }
            });
            address
        });
        Proxy { address, passed }
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pass(mut stream: &TcpStream, receiver: SocketAddr, passed: &Mutex<Passed>) -> std::io::Result<()> {
    let (request, body) = read_request(stream)?;
    let number = {
        let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.requests += 1;
        passed.failed += usize::from([0, 3, 6].contains(&(passed.requests % 10)));
        passed.requests
    };
    if number % 10 == 3 {
        return stream.write_all(UNAVAILABLE);
    }
    let mut answer = Vec::new();
    let mut onward = TcpStream::connect(receiver)?;
    onward.write_all(&request)?;
    onward.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") {
        let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events_of(&body) {
            let id = event["id"].as_str().expect("every event has an id");
            *passed.events.entry(id.to_owned()).or_default() += 1;
        }
    }
    match number % 10 {
        6 => stream.write_all(UNAVAILABLE),
        0 => Ok(()), // hangs up
        _ => stream.write_all(&answer),
    }
}

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
