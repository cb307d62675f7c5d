//! Many connections, many users behind one address, and those that began before the engine did.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;

use super::{carries, firewall, in_both_modes, spotless, unbanned, visit};
use crate::common::engine::{DETECTION, Engine};
use crate::common::flow::echoes;
use crate::common::lab::{CLIENT, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::{ms, secs};

/// What an office behind one address uses of a host that is its web and mail server.
const OFFICE: [u16; 9] = [25, 80, 110, 143, 443, 465, 587, 993, 995];

#[test]
fn ten_thousand_connections_of_one_address_to_three_ports() {
    const PORTS: [u16; 3] = [22, 80, 443];
    in_both_modes(&PORTS, |lab, engine, _services| {
        let one = |count: usize| {
            let port = |n: usize| PORTS[n % PORTS.len()];
            let works = |n: &usize| visit(CLIENT, port(*n)).is_ok_and(|mut stream| echoes(&mut stream));
            lab.client().inside(|| (0..count).filter(works).count())
        };
        let worked: usize = thread::scope(|scope| {
            let users: Vec<_> = (0..4).map(|_| scope.spawn(|| one(2500))).collect();
            users.into_iter().map(|user| user.join().expect("a user")).sum()
        });
        assert_eq!(worked, 10_000, "{}", engine.log());
        spotless(engine);
    });
}

#[test]
fn a_browsers_thirty_connections_at_once() {
    in_both_modes(&[443], |lab, engine, _services| {
        for _ in 0..5 {
            let mut open = at_once(lab.client(), CLIENT, &[443; 30]);
            assert!(open.iter_mut().all(echoes), "{}", engine.log());
        }
        spotless(engine);
    });
}

/// Connections from one address to these ports, all begun at the same moment.
fn at_once(ns: &Namespace, from: &str, ports: &[u16]) -> Vec<TcpStream> {
    let barrier = Barrier::new(ports.len());
    let one = |port: u16| {
        ns.inside(|| {
            barrier.wait();
            visit(from, port).unwrap_or_else(|error| panic!("{from} to port {port}: {error}"))
        })
    };
    thread::scope(|scope| {
        let users: Vec<_> = ports.iter().map(|port| scope.spawn(|| one(*port))).collect();
        users
            .into_iter()
            .map(|user| user.join().expect("a user"))
            .collect()
    })
}

#[test]
fn an_office_uses_nine_ports_one_after_another() {
    in_both_modes(&OFFICE, |lab, engine, _services| {
        for _ in 0..3 {
            for port in OFFICE {
                let works = || visit("10.77.1.1", port).is_ok_and(|mut stream| echoes(&mut stream));
                assert!(lab.client().inside(works), "port {port}\n{}", engine.log());
            }
        }
        unbanned(engine);
    });
}

/// `nf_conntrack_events = 0`, as some tune a busy host: then TCP says who completed a handshake.
#[test]
fn an_office_where_conntrack_announces_nothing() {
    let lab = Lab::new().with_client();
    let _services = Echo::tcp(&lab.host, &OFFICE);
    lab.host.sysctl("net/netfilter/nf_conntrack_events", "0");
    let engine = Engine::start(&lab.host, &firewall(&OFFICE));
    let status = engine.ctl(&["status"]);
    assert!(
        status.code() == 4 && status.text().contains("nf_conntrack_events=1"),
        "{}",
        status.text()
    );
    let open = |ports: &[u16]| at_once(lab.client(), "10.77.1.1", ports);
    let mut early = open(&OFFICE[..7]);
    thread::sleep(secs(2)); // TCP is asked after one
    let mut late = open(&OFFICE[7..]);
    assert!(early.iter_mut().chain(&mut late).all(echoes), "{}", engine.log());
    unbanned(&engine);
}

/// Nine connections before the first answer: what is on its way may yet be completed.
#[test]
fn the_users_of_an_office_come_at_the_same_moment() {
    in_both_modes(&OFFICE, |lab, engine, _services| {
        for office in ["10.88.1.1", "10.88.2.2", "10.88.3.3", "10.88.4.4", "10.88.5.5"] {
            for _ in 0..2 {
                let mut open = at_once(&lab.attacker, office, &OFFICE);
                assert!(open.iter_mut().all(echoes), "{office}\n{}", engine.log());
            }
        }
        thread::sleep(secs(1));
        unbanned(engine);
    });
}

/// Connections from `one` to `port` of `other`, both ends in hand.
fn pairs(one: &Namespace, other: &Namespace, address: &str, port: u16) -> Vec<(TcpStream, TcpStream)> {
    let server = other
        .inside(|| TcpListener::bind(("0.0.0.0", port)))
        .expect("a free port");
    let to = SocketAddr::new(address.parse().expect("an address"), port);
    let pair = || {
        let ours = TcpStream::connect_timeout(&to, secs(2)).expect("no engine in the way");
        let theirs = server.accept().expect("the connection just made").0;
        for stream in [&ours, &theirs] {
            stream.set_read_timeout(Some(secs(3))).expect("a timeout");
            stream.set_nodelay(true).expect("an option");
        }
        (ours, theirs)
    };
    one.inside(|| (0..50).map(|_| pair()).collect())
}

#[test]
fn a_hundred_connections_older_than_the_engine_go_on_both_ways() {
    for config in [DETECTION.to_string(), super::firewall(&[22])] {
        let lab = Lab::new().with_client();
        let mut open = pairs(lab.client(), &lab.host, HOST, 22);
        open.extend(pairs(&lab.host, lab.client(), CLIENT, 6667));
        let engine = Engine::start(&lab.host, &config);
        for round in 0..3 {
            // Now this end speaks first, now that one.
            for (n, (ours, theirs)) in open.iter_mut().enumerate() {
                let (first, second) = if (n + round) % 2 == 0 {
                    (ours, theirs)
                } else {
                    (theirs, ours)
                };
                let goes_on = carries(first, second) && carries(second, first);
                assert!(goes_on, "connection {n}, round {round}\n{}", engine.log());
            }
            lab.host.must("conntrack", &["-F"]);
        }
        drop(open);
        thread::sleep(ms(300));
        spotless(&engine);
    }
}
