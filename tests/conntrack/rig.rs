//! The lab with conntrack awake in the host, connections to it, and packets in a silent stranger's name.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use verdictd::kernel::conntrack::events::Completions;
use verdictd::kernel::conntrack::{Completed, Flow};

use crate::common::lab::{HOST, Lab};
use crate::common::ms;
use crate::common::namespace::Namespace;
use crate::common::wire::Gun;

/// Where the host listens.
pub(crate) const PORT: u16 = 8080;
/// Routed to the attacker's machine, where nobody has it: no RST ever comes from there.
pub(crate) const SILENT: &str = "10.99.0.1";

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
/// RFC 2385: a signature that nobody agreed on. TCP drops the segment without a word, conntrack does not mind.
pub(crate) const MD5: [u8; 20] = [19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// Attacker and host, conntrack asleep.
pub(crate) fn asleep() -> Lab {
    let lab = Lab::new();
    lab.host
        .ip(&["route", "add", "10.99.0.0/16", "via", "10.77.0.254"]);
    lab
}

/// Attacker and host; a rule wakes conntrack in the host, as the engine's table would.
pub(crate) fn awake() -> Lab {
    let lab = asleep();
    wake(&lab.host);
    lab
}

/// Wakes conntrack in `ns`.
pub(crate) fn wake(ns: &Namespace) {
    ns.nft(
        "add table inet wake; \
         add chain inet wake pre { type filter hook prerouting priority -190; policy accept; }; \
         add rule inet wake pre ct state new counter",
    );
}

/// A listener whose connections wait in its backlog, open.
pub(crate) fn server(ns: &Namespace) -> TcpListener {
    ns.inside(|| TcpListener::bind(("::", PORT)))
        .expect("a free port")
}

/// A listener for completions.
pub(crate) fn listening(ns: &Namespace) -> Completions {
    ns.inside(Completions::open).expect("a listener for completions")
}

/// An open connection.
pub(crate) fn connect(ns: &Namespace, to: &str) -> TcpStream {
    connect_to(ns, to, PORT)
}

/// An open connection to some port.
pub(crate) fn connect_to(ns: &Namespace, to: &str, port: u16) -> TcpStream {
    let to = SocketAddr::new(to.parse::<IpAddr>().expect("an address"), port);
    ns.inside(|| TcpStream::connect_timeout(&to, ms(3000)))
        .expect("a connection")
}

/// The flow of an open connection, from the client's end.
pub(crate) fn flow_of(stream: &TcpStream) -> Flow {
    let (from, to) = (
        stream.local_addr().expect("an end"),
        stream.peer_addr().expect("an end"),
    );
    Flow {
        client: from.ip(),
        client_port: from.port(),
        server: to.ip(),
        port: to.port(),
    }
}

/// What completes until nothing did for 150 ms, and how many messages that took; nothing may be lost.
pub(crate) fn drain(completions: &mut Completions) -> (Vec<Completed>, usize) {
    let (mut all, mut read) = (Vec::new(), 0);
    let mut last = Instant::now();
    while last.elapsed() < ms(150) {
        let drained = completions.drain(|completed| all.push(completed));
        assert!(!drained.lost, "nothing may be lost here");
        read += drained.read;
        if drained.read > 0 {
            last = Instant::now();
        }
        std::thread::sleep(ms(5));
    }
    (all, read)
}

/// TCP segments from one port of [`SILENT`] to the host's [`PORT`].
pub(crate) struct Forger {
    gun: Gun,
    port: u16,
}

impl Forger {
    /// From `port` on.
    pub(crate) fn new(lab: &Lab, port: u16) -> Forger {
        Forger {
            gun: Gun::new(&lab.attacker, SILENT, HOST),
            port,
        }
    }

    /// One segment without data.
    pub(crate) fn send(&self, flags: u8, seq: u32, ack: u32, options: &[u8]) {
        let length = 20 + options.len();
        let mut segment = Vec::with_capacity(length);
        segment.extend(self.port.to_be_bytes());
        segment.extend(PORT.to_be_bytes());
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        segment.extend([(length as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        self.gun.given(&segment);
    }

    /// The flow as conntrack would name it.
    pub(crate) fn flow(&self) -> Flow {
        Flow {
            client: SILENT.parse().expect("an address"),
            client_port: self.port,
            server: HOST.parse().expect("an address"),
            port: PORT,
        }
    }
}
