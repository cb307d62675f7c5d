//! Completed handshakes at full speed: of each the engine hears.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::{nobody_banned, visit};
use crate::common::engine::{DETECTION, Engine};
use crate::common::lab::{ATTACKER, Lab};
use crate::common::{ms, secs, within};

const PORTS: [u16; 3] = [22, 80, 443];
const LIMIT: Duration = secs(6);

/// As many connections as this machine makes in a few seconds, each ended by the client as soon as the server has said
/// a word. (Of clients that end in the same breath as they connect about one in 20,000 goes unheard: the RST overtakes
/// the ACK on another processor, and conntrack announces only the end.)
#[test]
fn fewer_than_one_completed_handshake_in_ten_thousand_is_lost() {
    let lab = Lab::new();
    let listen = |port| TcpListener::bind(("0.0.0.0", port)).expect("a free port");
    let listeners = lab.host.inside(|| PORTS.map(listen));
    let engine = Engine::start(&lab.host, DETECTION);
    thread::sleep(ms(500)); // what was open before is taken over

    let (over, began) = (AtomicBool::new(false), Instant::now());
    let client = |port| {
        let works = |_: &usize| visit(ATTACKER, port).is_ok_and(|stream| hears_and_resets(stream).is_ok());
        let count = || {
            (0..20_000)
                .take_while(|_| began.elapsed() < LIMIT)
                .filter(works)
                .count()
        };
        lab.attacker.inside(count)
    };
    let made: usize = thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| greet(listener, &over));
        }
        let client = &client;
        let clients = PORTS.map(|port| scope.spawn(move || client(port)));
        let made = clients
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .sum();
        over.store(true, Ordering::Relaxed);
        made
    });
    let took = began.elapsed();

    let count = |name: &str| {
        engine.json("stats")["handshakes"][name]
            .as_u64()
            .expect("a number") as usize
    };
    within(secs(3), || count("completed") >= made);
    let (heard, lost) = (count("completed"), count("lost"));
    println!("{made} connections in {took:?}, {heard} completions heard, {lost} losses told");
    assert!(made > 3000, "only {made} connections in {took:?}");
    assert!(
        heard <= made || lost > 0,
        "{heard} completions of {made} connections"
    );
    let missing = made.saturating_sub(heard);
    assert!(
        missing * 10_000 < made,
        "{missing} of {made} are missing\n{}",
        engine.log()
    );
    nobody_banned(&engine);
}

/// Says a word to whoever comes.
fn greet(listener: &TcpListener, over: &AtomicBool) {
    listener.set_nonblocking(true).expect("a socket of ours");
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => drop(stream.write_all(b"x")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(50)),
            Err(_) => {}
        }
    }
}

fn hears_and_resets(mut stream: impl Read + std::os::fd::AsFd) -> std::io::Result<()> {
    stream.read_exact(&mut [0])?;
    Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
}
