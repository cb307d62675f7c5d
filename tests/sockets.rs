//! Listeners of a host, each host a network namespace of its own.

#[allow(dead_code, unreachable_pub)]
mod common;

use std::net::{TcpListener, TcpStream, UdpSocket};

use common::namespace::Namespace;
use common::{secs, within};
use verdictd::core::verdict::Proto;
use verdictd::kernel::sockets::{Listener, connections, listeners};

fn listener(proto: Proto, addr: &str, port: u16) -> Listener {
    Listener {
        proto,
        port,
        addr: addr.parse().expect("an address"),
    }
}

#[test]
fn whoever_can_be_reached_is_listed_and_nobody_else() {
    let here = Namespace::new("listen");
    assert_eq!(here.inside(listeners).expect("an answer"), []);
    let open = here.inside(|| {
        let tcp = ["0.0.0.0:80", "127.0.0.1:81", "[::]:443", "[::1]:444"]
            .map(|at| TcpListener::bind(at).expect("a listener"));
        let udp = ["0.0.0.0:53", "[::1]:54"].map(|at| UdpSocket::bind(at).expect("a socket"));
        let client = TcpStream::connect("127.0.0.1:81").expect("a connection");
        let connected = UdpSocket::bind("127.0.0.1:5000").expect("a socket");
        connected.connect("127.0.0.1:53").expect("a peer");
        (tcp, udp, client, connected)
    });
    let found = here.inside(listeners).expect("an answer");
    assert_eq!(
        found,
        [
            listener(Proto::Tcp, "0.0.0.0", 80),
            listener(Proto::Tcp, "127.0.0.1", 81),
            listener(Proto::Tcp, "::", 443),
            listener(Proto::Tcp, "::1", 444),
            listener(Proto::Udp, "0.0.0.0", 53),
            listener(Proto::Udp, "::1", 54),
        ]
    );
    let reachable: Vec<u16> = found
        .iter()
        .filter(|l| !l.is_loopback())
        .map(|l| l.port)
        .collect();
    assert_eq!(reachable, [80, 443, 53]);
    drop(open);
    // A child that another test just began may hold them for a moment longer.
    let left = || here.inside(listeners).expect("an answer");
    assert!(within(secs(10), || left().is_empty()), "{:?}", left());
}

#[test]
fn open_connections_are_listed_from_both_ends() {
    let here = Namespace::new("open");
    let (_listeners, clients) = here.inside(|| {
        let listeners = ["0.0.0.0:80", "[::]:443"].map(|at| TcpListener::bind(at).expect("a listener"));
        let clients =
            ["127.0.0.1:80", "127.0.0.1:443", "[::1]:443"].map(|at| TcpStream::connect(at).expect("a port"));
        (listeners, clients)
    });
    let found = here.inside(connections).expect("an answer");
    assert_eq!(found.len(), 6, "{found:?}");
    for client in &clients {
        let (ours, theirs) = (
            client.local_addr().expect("an end"),
            client.peer_addr().expect("an end"),
        );
        let end = |local, peer| found.iter().find(|open| open.local == local && open.peer == peer);
        assert_ne!(end(ours, theirs).expect("the client's end").inode, 0);
        // Not accepted yet, hence held by no process.
        assert_eq!(end(theirs, ours).expect("the server's end").inode, 0);
    }
}
