//! An engine that hangs, whole or in part: what passes, what does not, and that it is noticed and told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::command::run;
use crate::common::engine::{DETECTION, Engine, FIREWALL, Home};
use crate::common::flow::{connect, connect_from, echoes, talks};
use crate::common::lab::{ATTACKER, HOST, HOST6, Lab, NEIGHBOUR};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::counter;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

/// A SYN is sent again after 1 s (RFC 6298, 2.1), which is the second and has to do; the rest is a busy machine's.
const ONE_RETRANSMISSION: Duration = Duration::from_millis(1900);

/// How long a connection from inside `ns` takes to come about and to echo.
fn time_to_talk(ns: &Namespace, address: &str, port: u16) -> io::Result<Duration> {
    let to = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port);
    let begun = Instant::now();
    let mut stream = ns.inside(|| TcpStream::connect_timeout(&to, secs(6)))?;
    stream.set_read_timeout(Some(secs(3)))?;
    match echoes(&mut stream) {
        true => Ok(begun.elapsed()),
        false => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Counts the SYNs that leave `ns` toward port 80.
fn count_syns(ns: &Namespace) {
    ns.nft(
        "add table inet witness; add counter inet witness syns; \
         add chain inet witness sent { type filter hook output priority 0; }; \
         add rule inet witness sent tcp dport 80 tcp flags & (syn|ack) == syn counter name syns",
    );
}

fn health(home: &Home) -> Value {
    let mut stream = UnixStream::connect(home.socket()).expect("a control socket");
    stream.set_read_timeout(Some(secs(2))).expect("a timeout");
    stream
        .write_all(b"{\"request\":\"health\"}\n")
        .expect("room for a line");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer within 2 s");
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!(reply["reply"], "health", "{reply}");
    reply["body"].clone()
}

fn unjudged(engine: &Engine<'_>) -> u64 {
    engine.json("stats")["losses"]["unjudged"]
        .as_u64()
        .expect("a count")
}

fn accepted(engine: &Engine<'_>) -> u64 {
    engine.json("stats")["verdicts"]["accept"]
        .as_u64()
        .expect("a count")
}

/// SIGSTOP, which each thread obeys when it comes to it.
fn stop(engine: &mut Engine<'_>) {
    let tasks = format!("/proc/{}/task", pid(engine));
    engine.signal(Signal::STOP);
    let stands = |task: io::Result<std::fs::DirEntry>| {
        let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    };
    let all = || std::fs::read_dir(&tasks).expect("its threads").all(stands);
    assert!(within(secs(10), all), "it does not stop");
}

#[test]
fn a_hung_engine_is_passed_by_within_one_retransmission() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", NEIGHBOUR, "--for", "1h"]);
    assert!(talks(&lab.attacker, HOST, 80) && talks(&lab.attacker, HOST6, 80));
    assert_eq!(unjudged(&engine), 0);
    let before = accepted(&engine);
    count_syns(&lab.attacker);

    stop(&mut engine);
    let took = thread::scope(|scope| {
        // At once, so that the first SYN waits in the queue, and at moments around the end of a worker's time.
        let tries = [0, 300, 600, 850, 950, 1300].map(|after| {
            [HOST, HOST6].map(|host| {
                let lab = &lab;
                scope.spawn(move || {
                    thread::sleep(ms(after));
                    time_to_talk(&lab.attacker, host, 80)
                })
            })
        });
        tries.map(|two| two.map(|one| one.join().expect("a client")))
    });
    for took in took.iter().flatten() {
        assert!(matches!(took, Ok(took) if *took < ONE_RETRANSMISSION), "{took:?}");
    }
    let syns = counter(&lab.attacker, "witness", "syns");
    assert!(syns <= 24, "{syns} SYNs for 12 connections");
    // What the kernel holds by itself goes on.
    assert!(!talks(&lab.attacker, HOST, 3306), "a refused port");
    assert!(
        connect_from(&lab.attacker, NEIGHBOUR, HOST, 80).is_err(),
        "a banned source"
    );
    assert!(time_to_talk(&lab.attacker, HOST, 80).expect("it passes") < ms(900));

    engine.signal(Signal::CONT);
    assert!(
        within(secs(10), || unjudged(&engine) >= 13),
        "{}",
        unjudged(&engine)
    );
    let passed = unjudged(&engine);
    let status = engine.ctl(&["status"]);
    assert!(
        status.code() == 4 && status.stdout.contains("packets passed unjudged"),
        "{}",
        status.text()
    );
    for _ in 0..20 {
        assert!(talks(&lab.attacker, HOST, 80) && talks(&lab.attacker, HOST6, 80));
    }
    assert!(accepted(&engine) >= before + 40, "judged again");
    assert_eq!(unjudged(&engine), passed, "and nothing but judged");
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5010);
    engine.wait_ban(ATTACKER);
    assert!(
        within(secs(20), || engine.ctl(&["status"]).code() == 0),
        "{}",
        engine.ctl(&["status"]).text()
    );
    let told = || engine.log().contains("packets passed unjudged");
    assert!(within(secs(10), told), "{}", engine.log());
}

#[test]
fn under_closed_nothing_passes_a_hung_engine() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let closed = format!("{FIREWALL}\n[engine]\non_loss = \"closed\"\n");
    let mut engine = Engine::start(&lab.host, &closed);
    assert!(talks(&lab.attacker, HOST, 80));
    assert!(!engine.table().contains("alive"), "{}", engine.table());
    stop(&mut engine);
    let refused = thread::scope(|scope| {
        let tries = [HOST, HOST6].map(|host| {
            let lab = &lab;
            scope.spawn(move || {
                let to = SocketAddr::new(host.parse().expect("an address"), 80);
                lab.attacker.inside(|| TcpStream::connect_timeout(&to, ms(2500)))
            })
        });
        tries.map(|one| one.join().expect("a client").is_err())
    });
    engine.signal(Signal::CONT);
    assert_eq!(refused, [true, true]);
    assert!(within(secs(10), || talks(&lab.attacker, HOST, 80)));
    assert_eq!(unjudged(&engine), 0);
    assert_eq!(engine.ctl(&["status"]).code(), 0);

    // Another word of the operator's, and the switch is there, without a moment in which something passes.
    let home = engine.home();
    home.write_config(FIREWALL);
    engine.must(&["reload"]);
    assert!(talks(&lab.attacker, HOST, 80));
    thread::sleep(secs(2));
    assert!(talks(&lab.attacker, HOST, 80) && unjudged(&engine) == 0);
    let status = engine.ctl(&["status"]);
    assert_eq!(status.code(), 0, "{}", status.text());
    stop(&mut engine);
    let took = time_to_talk(&lab.attacker, HOST, 80);
    engine.signal(Signal::CONT);
    assert!(matches!(took, Ok(took) if took < ONE_RETRANSMISSION), "{took:?}");
}

#[test]
fn an_engine_that_is_well_lets_nothing_pass_unjudged() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, DETECTION);
    for round in 0..60 {
        assert!(talks(&lab.attacker, HOST, 80));
        thread::sleep(ms(50));
        match round {
            20 => drop(engine.must(&["reload"])),
            // Somebody's wipe, which the engine makes good.
            40 => drop(lab.host.nft("delete table inet verdictd")),
            _ => {}
        }
    }
    assert_eq!(unjudged(&engine), 0, "{}", engine.log());
    assert_eq!(engine.ctl(&["status"]).code(), 0, "{}", engine.log());

    let first = health(engine.home());
    assert_eq!(first["table"], "as expected", "{first}");
    assert_eq!(first["notes"], serde_json::json!([]), "{first}");
    let all = |view: &Value, list: &str, key: &str| {
        let list = view[list].as_array().expect("a list");
        !list.is_empty() && list.iter().all(|one| one[key] == true)
    };
    assert!(
        all(&first, "workers", "answered") && all(&first, "queues", "bound"),
        "{first}"
    );
    let second = health(engine.home());
    let progress = |view: &Value| view["workers"][0]["progress"].as_u64().expect("a count");
    assert!(progress(&second) > progress(&first), "{first} {second}");
}

#[test]
fn beats_that_another_firewall_drops_are_carried_by_netlink() {
    let lab = Lab::new();
    lab.host
        .nft("table ip theirs { chain out { type filter hook output priority 0; udp dport 9 drop; }; }");
    let engine = Engine::start(&lab.host, FIREWALL);
    // Found before it was ready.
    assert!(engine.log().contains(UNHEARD), "{}", engine.log());
    goes_on_without_beats(&lab, engine, || drop(lab.host.nft("delete table ip theirs")));
}

#[test]
fn beats_without_a_loopback_device_are_carried_by_netlink() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    assert!(!engine.log().contains(UNHEARD), "{}", engine.log());
    lab.host.ip(&["link", "set", "lo", "down"]);
    goes_on_without_beats(&lab, engine, || lab.host.ip(&["link", "set", "lo", "up"]));
}

fn goes_on_without_beats(lab: &Lab, mut engine: Engine<'_>, mend: impl FnOnce()) {
    let _echo = Echo::tcp(&lab.host, &[80]);
    assert!(
        within(secs(10), || engine.log().contains(UNHEARD)),
        "{}",
        engine.log()
    );
    let status = engine.ctl(&["status"]);
    assert!(
        status.code() == 4 && status.stdout.contains(UNHEARD),
        "{}",
        status.text()
    );
    // Judged all the same, for longer than what was written at the start lasts.
    for _ in 0..13 {
        let before = accepted(&engine);
        assert!(talks(&lab.attacker, HOST, 80));
        assert_eq!(accepted(&engine), before + 1, "{}", engine.log());
        thread::sleep(secs(1));
    }
    stop(&mut engine);
    let passes = within(secs(14), || time_to_talk(&lab.attacker, HOST, 80).is_ok());
    engine.signal(Signal::CONT);
    assert!(passes, "the switch is slow now, and there");

    mend();
    assert!(
        within(secs(25), || engine.ctl(&["status"]).code() == 0),
        "{}",
        engine.ctl(&["status"]).text()
    );
    let told = || engine.log().contains("arrive again");
    assert!(within(secs(10), told), "{}", engine.log());
}

const UNHEARD: &str = "do not arrive over lo";

/// An engine of its own, whose program has no debug information: gdb would read all of it.
fn bare(config: &str) -> Home {
    let home = Home::for_anybody(config);
    let copy = home.command().get_program().to_owned();
    let stripped = run(Command::new("strip").arg(copy), secs(20));
    assert_eq!(stripped.code(), 0, "{}", stripped.text());
    home
}

/// Has gdb call something in the name of worker 0.
fn in_worker(ns: &Namespace, pid: &str, call: &str) -> crate::common::command::Running {
    let tasks = Path::new("/proc").join(pid).join("task");
    let tasks = std::fs::read_dir(tasks).expect("its threads");
    let worker = tasks
        .map(|task| task.expect("a thread").path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker 0"))
        .expect("a worker");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-iex", "set auto-load no", "-iex", "set language c", "-p"]);
    gdb.arg(worker.file_name().expect("its number"))
        .args(["-ex", call]);
    ns.start(&mut gdb)
}

fn pid(engine: &Engine<'_>) -> String {
    engine.json("status")["pid"].to_string()
}

/// The descriptor of worker 0's socket.
fn feed_of(ns: &Namespace, pid: &str) -> String {
    let portid = ns.must("awk", &["NR==1{print $2}", "/proc/net/netfilter/nfnetlink_queue"]);
    let of_port = format!("$2==12 && $3=={} {{print $NF}}", portid.trim());
    let inode = ns.must("awk", &[&of_port, &format!("/proc/{pid}/net/netlink")]);
    let link = format!("socket:[{}]", inode.trim());
    let mut fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let fd = fds.find_map(|fd| {
        let path = fd.ok()?.path();
        (std::fs::read_link(&path).ok()?.to_str()? == link).then_some(path)
    });
    let fd = fd.expect("its descriptor");
    fd.file_name().expect("a number").to_string_lossy().into_owned()
}

#[test]
fn a_worker_that_dies_takes_the_process_with_it_at_once() {
    for policy in ["open", "closed"] {
        let lab = Lab::new();
        let _echo = Echo::tcp(&lab.host, &[80]);
        let config = format!("{FIREWALL}\n[engine]\nworkers = 2\non_loss = \"{policy}\"\n");
        let engine = Engine::start_in(&lab.host, bare(&config), &[]);
        let pid = pid(&engine);
        let call = format!("call (int)close({})", feed_of(&lab.host, &pid));
        let gdb = in_worker(&lab.host, &pid, &call).finish(secs(30));
        let let_go = Instant::now();
        let (home, status) = engine.ended(secs(10));
        assert!(let_go.elapsed() < secs(1), "{:?}", let_go.elapsed());
        let log = format!("{}{}", gdb.text(), home.log());
        assert!(!status.success(), "{log}");
        assert!(log.contains("worker 0 ended unexpectedly"), "{log}");
        assert_eq!(talks(&lab.attacker, HOST, 80), policy == "open", "{log}");
    }
}

#[test]
fn a_worker_that_hangs_is_passed_by_and_ends_the_process() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start_in(
        &lab.host,
        bare(&format!("{FIREWALL}\n[engine]\nworkers = 1\n")),
        &[],
    );
    assert!(talks(&lab.attacker, HOST, 80));
    let pid = pid(&engine);
    let gdb = in_worker(&lab.host, &pid, "call (int)sleep(60)");
    // The others go on.
    let silent = || health(engine.home())["workers"][0]["answered"] == false;
    assert!(within(secs(10), silent), "{}", engine.log());
    let noticed = Instant::now();
    let took = time_to_talk(&lab.attacker, HOST, 80);
    assert!(matches!(took, Ok(took) if took < ONE_RETRANSMISSION), "{took:?}");
    assert!(within(secs(5), || unjudged(&engine) > 0));
    let (home, status) = engine.ended(secs(15));
    assert_eq!(status.code(), Some(1));
    assert!(noticed.elapsed() > secs(6), "{:?}", noticed.elapsed());
    let log = home.log();
    assert!(log.contains("worker 0 has not answered for 10 s"), "{log}");
    drop(gdb);
    // Whoever supervises it starts it anew.
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(talks(&lab.attacker, HOST, 80) && unjudged(&engine) == 0);
    // Nothing that passed meanwhile goes untold.
    let home = engine.kill9();
    assert!(within(secs(10), || {
        connect(&lab.attacker, HOST, 80).is_ok() && passed(&lab.host) > 0
    }));
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(
        engine.log().contains("passed unjudged by the table"),
        "{}",
        engine.log()
    );
    assert_eq!(unjudged(&engine), 0);
    assert!(connect(&lab.attacker, HOST, 80).is_ok());
}

/// What the kernel counted.
fn passed(ns: &Namespace) -> u64 {
    let chain = ns.nft_list(&["list", "chain", "inet", "verdictd", "unjudged"]);
    let count = chain.split("counter packets ").nth(1);
    let count = count.and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect("a counter")
}

/// A debugger, a suspended machine: nobody ran, so nobody hung.
#[test]
fn a_whole_process_that_stood_still_goes_on() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    stop(&mut engine);
    thread::sleep(secs(13));
    engine.signal(Signal::CONT);
    assert!(within(secs(10), || accepted(&engine) > 0
        || !talks(&lab.attacker, HOST, 80)));
    thread::sleep(secs(3));
    assert!(engine.alive(), "{}", engine.log());
    assert!(!engine.log().contains("has not answered"), "{}", engine.log());
}
