//! Late segments of connections that conntrack has forgotten: no evidence where the host answers, also when the
//! engine has long settled; and the same packets are evidence where nobody could have had a connection.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;

use rustix::net::sockopt::set_socket_linger;

use super::{in_both_modes, unbanned, visit};
use crate::common::engine::Engine;
use crate::common::flow::{echoes, talks};
use crate::common::lab::{ATTACKER, CLIENT, HOST, Lab};
use crate::common::service::Echo;
use crate::common::wire::{FIN, Gun, PSH};
use crate::common::{ms, secs, within};

const ACK: u8 = 0x10;
const RST: u8 = 0x04;
/// With services; on the last one comes and goes.
const PORTS: [u16; 9] = [25, 80, 110, 143, 443, 587, 993, 8080, 22];

/// What the engine sees in its first minute accuses nobody, so this test lasts longer than that.
#[test]
fn late_segments_of_honest_clients_are_no_evidence() {
    in_both_modes(&PORTS, |lab, engine, services| {
        assert!(within(secs(75), || engine.json("stats")["uptime_seconds"]
            .as_u64()
            > Some(61)));

        forgotten_while_open(lab, engine);
        drop(services);
        gone_and_forgotten(lab);
        let _again = Echo::tcp(&lab.host, &PORTS[..8]);
        stray(lab);
        thread::sleep(ms(500));
        unbanned(engine);
        assert!(talks(lab.client(), HOST, 80));

        // The same flags toward ports where nobody answers: an ACK scan.
        let mut scanner = Gun::new(&lab.attacker, ATTACKER, HOST);
        (6001..=6012).for_each(|port| scanner.tcp(port, ACK));
        assert_eq!(engine.wait_ban(ATTACKER)["reason"], "port_scanning");
    });
}

/// Both ends are there: data and the end of the connection arrive after conntrack forgot it.
fn forgotten_while_open(lab: &Lab, engine: &Engine<'_>) {
    let mut open: Vec<TcpStream> = lab.client().inside(|| {
        let all = (0..40).map(|n| visit(CLIENT, PORTS[n % 8]).expect("nothing in the way"));
        all.collect()
    });
    assert!(open.iter_mut().all(echoes));
    lab.host.must("conntrack", &["-D", "-p", "tcp"]);
    assert!(open.iter_mut().take(20).all(echoes), "{}", engine.log());
    lab.host.must("conntrack", &["-F"]);
    for (n, stream) in open.into_iter().enumerate() {
        if n % 2 == 0 {
            set_socket_linger(&stream, Some(secs(0))).expect("a socket of ours"); // ends with a RST
        }
    }
}

/// The server's end is gone and the client does not know: it sends data and FIN+ACK again and again to a port where
/// others are served.
fn gone_and_forgotten(lab: &Lab) {
    let mut server = None;
    assert!(within(secs(3), || {
        server = lab.host.inside(|| TcpListener::bind(("0.0.0.0", 22))).ok();
        server.is_some()
    }));
    let server = server.expect("a free port");
    let mut clients: Vec<TcpStream> = lab.client().inside(|| {
        (0..20)
            .map(|_| visit(CLIENT, 22).expect("nothing in the way"))
            .collect()
    });
    lab.client().nft(
        "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; \
         add rule ip deaf in tcp sport 22 drop",
    );
    for _ in 0..clients.len() {
        let (stream, _) = server.accept().expect("the connection just made");
        set_socket_linger(&stream, Some(secs(0))).expect("a socket of ours");
    }
    lab.host.must("conntrack", &["-F"]);
    clients
        .iter_mut()
        .for_each(|client| client.write_all(b"still there?").expect("it does not know"));
    drop(clients);
    thread::sleep(secs(2)); // retransmissions
    lab.client().nft("delete table ip deaf");
}

/// By hand, each a flow of its own: what conntrack calls new or invalid.
fn stray(lab: &Lab) {
    let mut client = Gun::new(&lab.attacker, "10.88.7.7", HOST);
    for _ in 0..20 {
        for port in PORTS {
            for flags in [FIN | ACK, ACK, PSH | ACK, FIN | PSH | ACK, RST, RST | ACK] {
                client.tcp(port, flags);
            }
        }
    }
    // RST answers what the host sent, to whatever port that came from.
    for port in 1..=300 {
        [RST, RST | ACK]
            .into_iter()
            .for_each(|flags| client.tcp(port * 200, flags));
    }
}
