//! Honest traffic on real packets, with enforcement on: whatever it looks like, nobody is banned, nothing is dropped
//! and everything works. And beside it attackers who try to have honest clients banned, or to hide among them.

mod after_a_minute; // first, since it takes longest
mod attacks;
mod handshakes;
mod services;
mod visitors;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::lab::{HOST, Lab};
use crate::common::ms;
use crate::common::service::Echo;

/// How long a visitor waits, for the connection and for each answer: over one retransmission.
const PATIENCE: Duration = ms(2500);

/// Firewall mode with these ports open.
fn firewall(open: &[u16]) -> String {
    FIREWALL.replace("[22, 80, 443]", &format!("{open:?}"))
}

/// Tells the same story to an engine that filters no port and to one that has just these open, side by side, each
/// in a lab of its own with a client and with services on those ports.
fn in_both_modes(open: &[u16], story: impl Fn(&Lab, &Engine<'_>, Echo) + Sync) {
    let story = &story;
    thread::scope(|scope| {
        for config in [DETECTION.to_string(), firewall(open)] {
            scope.spawn(move || {
                let lab = Lab::new().with_client();
                let services = Echo::tcp(&lab.host, open);
                let engine = Engine::start(&lab.host, &config);
                story(&lab, &engine, services);
            });
        }
    });
}

/// Nobody is banned, nowhere.
fn nobody_banned(engine: &Engine<'_>) {
    assert!(engine.bans().is_empty(), "{:?}\n{}", engine.bans(), engine.log());
    for set in ["banned4", "banned6", "banned6_128"] {
        assert!(engine.kernel_bans(set).is_empty(), "{set}\n{}", engine.log());
    }
    assert_eq!(engine.json("stats")["bans"]["total"], 0, "{}", engine.log());
    assert!(!engine.log().contains("] Ban "), "{}", engine.log());
}

/// Nobody is banned, no port is under attack, and not one packet was dropped.
fn spotless(engine: &Engine<'_>) {
    unbanned(engine);
    let stats = engine.json("stats");
    assert_eq!(stats["verdicts"]["drop"], 0, "{stats}\n{}", engine.log());
}

/// Nobody is banned, and no port is under attack. A SYN may have been dropped to wait for handshakes on their way: it
/// comes again a second later.
fn unbanned(engine: &Engine<'_>) {
    nobody_banned(engine);
    no_attack(engine);
}

fn no_attack(engine: &Engine<'_>) {
    assert_eq!(
        engine.json("status")["attacks"],
        serde_json::json!([]),
        "{}",
        engine.log()
    );
    assert!(!engine.log().contains("under attack"), "{}", engine.log());
}

/// Opens a connection to the host from this address, in the namespace of the calling thread.
fn visit(from: &str, port: u16) -> std::io::Result<TcpStream> {
    let address = |text: &str, port| {
        let addr: Ipv4Addr = text.parse().expect("an address");
        SocketAddr::V4(SocketAddrV4::new(addr, port))
    };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let patience = u32::try_from(PATIENCE.as_millis()).expect("a moment");
    sockopt::set_tcp_user_timeout(&socket, patience)?;
    bind(&socket, &address(from, 0))?;
    connect(&socket, &address(HOST, port))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether what is said on one end is heard on the other.
fn carries(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut heard = [0; 4];
    from.write_all(b"line").is_ok() && to.read_exact(&mut heard).is_ok() && &heard == b"line"
}
