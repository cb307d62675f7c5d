//! Who completed a handshake is told once, promptly, and by thousands a second.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use verdictd::kernel::conntrack::events::Completions;
use verdictd::kernel::conntrack::proof::{Prover, Standing};
use verdictd::kernel::conntrack::{dump::completed_flows, is_silent};

use crate::common::lab::{HOST, HOST6, Lab};
use crate::common::ms;
use crate::rig::{
    ACK, Forger, PORT, SYN, asleep, awake, connect, connect_to, drain, flow_of, listening, server, wake,
};

#[test]
fn a_handshake_is_one_message_in_both_families() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    for host in [HOST, HOST6] {
        let stream = connect(&lab.attacker, host);
        let (all, read) = drain(&mut completions);
        assert_eq!((all.len(), read), (1, 1), "{all:?}");
        assert_eq!(all[0].flow(), flow_of(&stream));
        assert!(!all[0].is_translated());
        drop(stream);
        assert_eq!(
            drain(&mut completions),
            (vec![], 0),
            "the end of a connection is none"
        );
    }
}

#[test]
fn what_completes_nothing_is_not_heard() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    let forger = Forger::new(&lab, 1000);
    forger.send(SYN, 7, 0, &[]);
    Forger::new(&lab, 1001).send(ACK, 7, 7, &[]);
    let refused = SocketAddr::new(HOST.parse().expect("an address"), PORT + 1);
    lab.attacker
        .inside(|| TcpStream::connect_timeout(&refused, ms(1500)))
        .expect_err("nobody listens there");
    lab.attacker.run(
        std::process::Command::new("ping").args(["-c", "2", "-i", "0.05", HOST]),
        Duration::from_secs(10),
    );
    assert_eq!(drain(&mut completions), (vec![], 0));
}

#[test]
fn a_published_port_is_told_as_the_client_addressed_it() {
    let lab = Lab::new();
    lab.host.nft(
        "add table ip publish; \
         add chain ip publish pre { type nat hook prerouting priority -100; }; \
         add rule ip publish pre tcp dport 443 redirect to :8080",
    );
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    let stream = connect_to(&lab.attacker, HOST, 443);
    let (all, _) = drain(&mut completions);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].flow(), flow_of(&stream));
    assert!(all[0].is_translated());
    assert_eq!(
        all[0].ends_at,
        SocketAddr::new(HOST.parse().expect("an address"), PORT)
    );
    let mut prover = lab.host.inside(Prover::open).expect("a prover");
    assert_eq!(prover.standings(&all).expect("an answer"), [Standing::Proven]);
}

#[test]
fn listening_neither_wakes_conntrack_nor_needs_it_awake() {
    let lab = asleep();
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    let _first = connect(&lab.attacker, HOST);
    assert_eq!(drain(&mut completions), (vec![], 0));
    assert_eq!(lab.host.conntrack_count(), 0, "still asleep");
    assert_eq!(
        lab.host.inside(|| completed_flows(10)).expect("an empty table"),
        []
    );
    // Woken by somebody's rule, it is heard without being asked again.
    wake(&lab.host);
    let second = connect(&lab.attacker, HOST);
    let (all, _) = drain(&mut completions);
    assert_eq!(
        all.iter().map(|one| one.flow()).collect::<Vec<_>>(),
        [flow_of(&second)]
    );
}

#[test]
fn events_that_are_off_are_known_to_be_off() {
    let lab = awake();
    let _server = server(&lab.host);
    let first = connect(&lab.attacker, HOST);
    assert!(!lab.host.inside(is_silent));
    lab.host.sysctl("net/netfilter/nf_conntrack_events", "0");
    assert!(lab.host.inside(is_silent));
    let mut completions = listening(&lab.host);
    let stream = connect(&lab.attacker, HOST);
    assert_eq!(drain(&mut completions), (vec![], 0));
    // The table itself still knows.
    let known = lab.host.inside(|| completed_flows(10)).expect("a dump");
    let known: Vec<_> = known.iter().map(|one| one.flow()).collect();
    assert!(
        [&first, &stream]
            .iter()
            .all(|stream| known.contains(&flow_of(stream))),
        "{known:?}"
    );
}

#[test]
fn what_completed_before_is_in_the_table() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut streams = vec![connect(&lab.attacker, HOST), connect(&lab.attacker, HOST6)];
    Forger::new(&lab, 1000).send(SYN, 7, 0, &[]);
    let mut known: Vec<_> = lab.host.inside(|| completed_flows(10)).expect("a dump");
    known.sort();
    let mut expected: Vec<_> = streams.iter().map(flow_of).collect();
    expected.sort();
    assert_eq!(known.iter().map(|one| one.flow()).collect::<Vec<_>>(), expected);
    streams.push(connect(&lab.attacker, HOST));
    assert_eq!(
        lab.host.inside(|| completed_flows(1)).expect("a dump").len(),
        1,
        "at most what is asked for"
    );
}

#[test]
fn what_is_lost_is_said_to_be_lost() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut completions = lab.host.inside(|| Completions::open_with(1)).expect("a listener");
    let streams: Vec<_> = (0..64).map(|_| connect(&lab.attacker, HOST)).collect();
    let mut heard = 0;
    let drained = completions.drain(|_| heard += 1);
    assert!(drained.lost && heard < streams.len(), "{drained:?}");
    // What the table holds makes up for it, and from now on all is heard again.
    assert_eq!(
        lab.host.inside(|| completed_flows(100)).expect("a dump").len(),
        64
    );
    let _ = connect(&lab.attacker, HOST);
    assert_eq!(drain(&mut completions).0.len(), 1);
}

#[test]
fn of_twenty_thousand_connections_each_completion_is_heard() {
    const CONNECTIONS: usize = 20_000;
    const LIMIT: Duration = Duration::from_secs(15);
    const PORTS: [u16; 4] = [9001, 9002, 9003, 9004];
    let lab = awake();
    let mut completions = listening(&lab.host);
    let listeners: Vec<_> = PORTS
        .map(|port| {
            lab.host
                .inside(|| TcpListener::bind(("0.0.0.0", port)))
                .expect("a free port")
        })
        .into();
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut heard, mut lost) = (0, false);
    let (until, lab, count) = (Instant::now() + LIMIT, &lab, &made);
    let began = Instant::now();
    let mut took = LIMIT;
    thread::scope(|scope| {
        let servers: Vec<_> = listeners
            .iter()
            .map(|l| scope.spawn(|| serve(l, &over)))
            .collect();
        let clients: Vec<_> = PORTS
            .map(|port| {
                scope.spawn(move || {
                    lab.attacker
                        .inside(|| hammer(port, CONNECTIONS / 4, until, count))
                })
            })
            .into();
        loop {
            let ended = clients.iter().all(|client| client.is_finished());
            if ended {
                took = took.min(began.elapsed());
            }
            let ready = wait(&completions);
            let drained = completions.drain(|_| heard += 1);
            lost |= drained.lost;
            if ended && !ready {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        servers
            .into_iter()
            .for_each(|server| server.join().expect("a server"));
    });
    let made = made.into_inner();
    println!("{made} connections, {heard} completions heard in {took:?}, lost {lost}");
    assert!(made > CONNECTIONS / 4, "only {made} connections in {LIMIT:?}");
    assert!(heard <= made, "{heard} completions of {made} connections");
    let missing = made - heard;
    assert!(
        missing * 10_000 < made,
        "{missing} of {made} completions are missing"
    );
    assert!(
        missing == 0 || lost,
        "{missing} of {made} are missing without a word"
    );
}

/// Whether there is something to hear within 200 ms.
fn wait(completions: &Completions) -> bool {
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000_000,
    };
    poll(&mut [PollFd::new(completions, PollFlags::IN)], Some(&limit)).expect("a poll") > 0
}

/// Accepts and forgets.
fn serve(listener: &TcpListener, over: &AtomicBool) {
    listener.set_nonblocking(true).expect("a socket of ours");
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(ms(1)),
            _ => {}
        }
    }
}

/// Connects and ends with a RST, so that no port stays taken.
fn hammer(port: u16, count: usize, until: Instant, made: &AtomicUsize) {
    let to = SocketAddr::new(HOST.parse().expect("an address"), port);
    for _ in 0..count {
        if Instant::now() > until {
            break;
        }
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("a connection");
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket of ours");
        made.fetch_add(1, Ordering::Relaxed);
    }
}
