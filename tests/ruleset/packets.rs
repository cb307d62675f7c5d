//! What the table does to packets by itself, with no engine anywhere.

use std::net::{Ipv4Addr, TcpListener};

use verdictd::core::policy::{OnLoss, OtherProtocols};
use verdictd::kernel::netlink::Netlink;
use verdictd::kernel::ruleset::{Ruleset, Spec, apply, probe_backend};

use crate::common::flow::{connect, echoes, pings, talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, ATTACKER6, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::set_elements;
use crate::common::wire::{FIN, Gun, NULL, SYN, XMAS};
use crate::rig::{detection, firewall, netlink, networks, observing};

/// A lab whose host has the table of `spec` and serves on allowed and other ports.
struct Host {
    lab: Lab,
    netlink: Netlink,
    _echo: Echo,
}

impl Host {
    fn new(spec: &Spec) -> Host {
        let mut host = Host::bare();
        host.apply(spec);
        host
    }

    fn bare() -> Host {
        let lab = Lab::new();
        let _echo = Echo::both(&lab.host, &[80, 8080], &[53, 5353]);
        let netlink = netlink(&lab.host);
        Host { lab, netlink, _echo }
    }

    fn apply(&mut self, spec: &Spec) {
        let backend = probe_backend(&mut self.netlink).expect("a backend");
        let spec = Spec {
            backend,
            ..spec.clone()
        };
        apply(&mut self.netlink, &Ruleset::build(&spec)).expect("a table");
    }

    fn ban(&self, set: &str, element: &str) {
        let _ = self.ns().nft(&format!(
            "add element inet verdictd {set} {{ {element} timeout 1h }}"
        ));
    }

    fn ns(&self) -> &Namespace {
        &self.lab.host
    }

    fn attacker(&self) -> &Namespace {
        &self.lab.attacker
    }

    /// Packets counted by the rules of `chain` whose line contains `words`.
    fn counted(&self, chain: &str, words: &str) -> u64 {
        let listing = self.ns().nft_list(&["list", "chain", "inet", "verdictd", chain]);
        let packets = listing
            .lines()
            .filter(|line| line.contains(words))
            .filter_map(|line| {
                let (_, rest) = line.split_once("counter packets ")?;
                rest.split(' ').next()?.parse::<u64>().ok()
            });
        packets.sum()
    }

    /// A later chain of somebody's that counts the TCP packets to `port` with exactly these flags.
    fn witness(&self, port: u16, flags: u8) {
        let _ = self.ns().nft(&format!(
            "table inet witness {{ chain late {{ type filter hook prerouting priority 0; tcp dport {port} tcp flags & \
             (fin|syn|rst|psh|ack|urg) == {flags} counter; }}; }}"
        ));
    }

    fn witnessed(&self) -> u64 {
        let listing = self.ns().nft_list(&["list", "chain", "inet", "witness", "late"]);
        let (_, rest) = listing.split_once("counter packets ").expect("a counter");
        rest.split(' ')
            .next()
            .expect("a number")
            .parse()
            .expect("a number")
    }
}

#[test]
fn with_nobody_listening_open_lets_allowed_ports_through_and_refuses_the_others() {
    let host = Host::new(&firewall());
    for address in [HOST, HOST6] {
        assert!(talks(host.attacker(), address, 80), "{address}");
        assert!(connect(host.attacker(), address, 8080).is_err(), "{address}");
        assert!(udp_echoes(&udp(host.attacker(), address, 53)), "{address}");
        assert!(!udp_echoes(&udp(host.attacker(), address, 5353)), "{address}");
        assert!(pings(host.attacker(), address, 3), "{address}");
    }
    assert!(host.counted("refuse", "comment \"refused\"") >= 4);
}

#[test]
fn with_nobody_listening_closed_lets_nothing_new_through() {
    let mut host = Host::new(&firewall());
    let mut old = connect(host.attacker(), HOST, 80).expect("an open port");
    host.apply(&Spec {
        on_loss: OnLoss::Closed,
        ..firewall()
    });
    assert!(echoes(&mut old));
    for address in [HOST, HOST6] {
        assert!(connect(host.attacker(), address, 80).is_err(), "{address}");
        assert!(connect(host.attacker(), address, 8080).is_err(), "{address}");
        assert!(!udp_echoes(&udp(host.attacker(), address, 53)), "{address}");
    }
    // What the host begins is not asked about.
    let _echo = Echo::tcp(host.attacker(), &[9000]);
    assert!(talks(host.ns(), ATTACKER, 9000));
    // Nor loopback.
    assert!(talks(host.ns(), "127.0.0.1", 80));
}

#[test]
fn detection_refuses_no_port() {
    let host = Host::new(&detection());
    for port in [80, 8080] {
        assert!(talks(host.attacker(), HOST, port));
    }
    assert!(
        connect(host.attacker(), HOST, 81)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    );
}

#[test]
fn a_ban_cuts_what_the_source_began_and_nothing_that_the_host_began() {
    for (address, of, set, element) in [
        (HOST, ATTACKER, "banned4", ATTACKER),
        (HOST6, ATTACKER6, "banned6", "fd66::"),
    ] {
        let host = Host::new(&firewall());
        let _theirs = Echo::both(host.attacker(), &[9000], &[9001]);
        if address == HOST6 {
            // The /64 of its own, not the one on the host's link.
            host.attacker()
                .ip(&["-6", "route", "add", "fd77::2", "dev", "lan0", "src", "fd66::1"]);
        }
        let mut tcp = connect(host.attacker(), address, 80).expect("an open port");
        let datagrams = udp(host.attacker(), address, 53);
        assert!(
            echoes(&mut tcp) && udp_echoes(&datagrams) && pings(host.attacker(), address, 1),
            "{address}"
        );
        let mut own = connect(host.ns(), of, 9000).expect("the host's own connection");
        let own_datagrams = udp(host.ns(), of, 9001);
        assert!(echoes(&mut own) && udp_echoes(&own_datagrams));

        host.ban(set, element);
        assert!(!echoes(&mut tcp), "{address}");
        assert!(!udp_echoes(&datagrams), "{address}");
        assert!(!pings(host.attacker(), address, 1), "{address}");
        assert!(connect(host.attacker(), address, 80).is_err(), "{address}");
        assert!(echoes(&mut own) && udp_echoes(&own_datagrams), "{address}");
        assert!(pings(host.ns(), of, 1) && talks(host.ns(), of, 9000), "{address}");
        assert!(host.counted("raw", "@banned") > 0 && host.counted("pre", "@banned") > 0);
    }
}

#[test]
fn a_ban_of_a_prefix_holds_for_all_in_it() {
    let spec = Spec {
        prefix_sets: [(verdictd::kernel::ruleset::Family::V4, 24)].into(),
        ..firewall()
    };
    let host = Host::new(&spec);
    assert!(talks(host.attacker(), HOST, 80));
    host.ban("banned4_24", "10.77.0.0");
    assert!(connect(host.attacker(), HOST, 80).is_err());
    assert!(!pings(host.attacker(), HOST, 1));
}

/// FAULTS row 28: whoever is banned, neighbours are still found.
#[test]
fn fault_28_no_ban_stops_neighbour_discovery() {
    let host = Host::new(&Spec {
        other_protocols: OtherProtocols::Drop,
        ..firewall()
    });
    host.ban("banned6", "fe80::");
    host.ban("banned6", "fd77::");
    for ns in [host.ns(), host.attacker()] {
        ns.ip(&["-6", "neighbour", "flush", "dev", "lan0"]);
    }
    let _theirs = Echo::tcp(host.attacker(), &[9000]);
    assert!(talks(host.ns(), "fd77::1", 9000));
}

#[test]
fn trusted_sources_skip_the_queues_but_not_the_port_filter() {
    let host = Host::new(&Spec {
        on_loss: OnLoss::Closed,
        trusted: networks(&["10.77.0.0/24", "fd77::/64"]),
        ..firewall()
    });
    for address in [HOST, HOST6] {
        assert!(talks(host.attacker(), address, 80), "{address}");
        assert!(connect(host.attacker(), address, 8080).is_err(), "{address}");
    }
}

#[test]
fn other_protocols_are_closed_on_demand() {
    let mut host = Host::new(&firewall());
    let gun = Gun::new(host.attacker(), ATTACKER, HOST);
    let count = |host: &Host| host.counted("pre", "other protocols");
    gun.ip(132, &[0; 12]);
    assert!(pings(host.attacker(), HOST, 1));
    assert!(count(&host) >= 2);
    host.apply(&Spec {
        other_protocols: OtherProtocols::Drop,
        ..firewall()
    });
    assert!(!pings(host.attacker(), HOST, 1) && !pings(host.attacker(), HOST6, 1));
    assert!(count(&host) >= 2);
    assert!(pings(host.ns(), ATTACKER, 1), "what the host asks is answered");
}

#[test]
fn guests_are_not_filtered_but_bans_hold() {
    let host = Host::new(&Spec {
        internal_interfaces: vec!["lan*".into()],
        on_loss: OnLoss::Closed,
        ..firewall()
    });
    assert!(talks(host.attacker(), HOST, 8080));
    host.ban("banned4", ATTACKER);
    assert!(connect(host.attacker(), HOST, 8080).is_err());
}

#[test]
fn connections_older_than_conntrack_go_on_and_odd_packets_to_a_bound_address_are_asked_about() {
    let mut host = Host::bare();
    let theirs = TcpListenerOf::new(host.attacker());
    let own = connect(host.ns(), ATTACKER, theirs.port()).expect("a connection of the host's own");
    let bound: Ipv4Addr = HOST.parse().expect("an address");
    let _listener = host
        .ns()
        .inside(|| TcpListener::bind((bound, 443)))
        .expect("a free port");
    host.apply(&Spec {
        on_loss: OnLoss::Closed,
        ..firewall()
    });
    // The server speaks first.
    theirs.say(b"hello");
    let mut own = own;
    let mut heard = [0; 5];
    std::io::Read::read_exact(&mut own, &mut heard).expect("what the server said");

    let mut gun = Gun::new(host.attacker(), ATTACKER, HOST);
    for flags in [NULL, FIN, XMAS] {
        host.witness(443, flags);
        gun.tcp(443, flags);
        assert!(pings(host.attacker(), HOST, 1), "the probe has arrived");
        assert_eq!(host.witnessed(), 0, "flags {flags:#x}");
        let _ = host.ns().nft("delete table inet witness");
    }
}

/// A listener of the attacker's that accepted one connection.
struct TcpListenerOf(TcpListener);

impl TcpListenerOf {
    fn new(ns: &Namespace) -> TcpListenerOf {
        TcpListenerOf(ns.inside(|| TcpListener::bind("0.0.0.0:0")).expect("a listener"))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    fn say(&self, words: &[u8]) {
        let (mut stream, _) = self.0.accept().expect("the host's connection");
        std::io::Write::write_all(&mut stream, words).expect("a connection");
        // Closed only after the other side has read, by the end of the test.
        std::mem::forget(stream);
    }
}

#[test]
fn evidence_is_bounded_per_source_and_the_packet_is_dropped_all_the_same() {
    let host = Host::new(&firewall());
    let mut gun = Gun::new(host.attacker(), ATTACKER, HOST);
    host.witness(8080, SYN);
    (0..200).for_each(|_| gun.tcp(8080, SYN));
    assert!(pings(host.attacker(), HOST, 1), "the probes have arrived");
    assert_eq!(host.witnessed(), 0);
    assert_eq!(host.counted("refuse", "comment \"refused\""), 200);
    let over = host.counted("refuse", "over the rate of evidence");
    assert!((100..=180).contains(&over), "{over}");
}

/// Forged sources can fill the set of limits. Whoever comes then has no limit: more copies are made, and what is
/// dropped and what passes stays the same.
#[test]
fn a_full_set_of_limits_lets_more_copies_through_and_never_the_packet() {
    let host = Host::new(&firewall());
    fill(host.ns(), "evidence_limit4");
    let mut gun = Gun::new(host.attacker(), ATTACKER, HOST);
    host.witness(8080, SYN);
    (0..200).for_each(|_| gun.tcp(8080, SYN));
    assert!(pings(host.attacker(), HOST, 1), "the probes have arrived");
    assert_eq!(host.witnessed(), 0);
    assert_eq!(host.counted("refuse", "comment \"refused\""), 200);
    assert_eq!(host.counted("refuse", "over the rate of evidence"), 0);

    let _ = host.ns().nft("delete table inet witness");
    host.witness(80, FIN);
    (0..200).for_each(|_| gun.tcp(80, FIN));
    assert!(pings(host.attacker(), HOST, 1), "the probes have arrived");
    assert_eq!(host.witnessed(), 200, "they go to the queue, which is bypassed");
    assert_eq!(host.counted("ask_odd", "over the rate of evidence"), 0);
    assert!(talks(host.attacker(), HOST, 80));
}

/// Makes every element that a set of limits has room for, none of them an address of the lab.
fn fill(ns: &Namespace, set: &str) {
    let elements = (0..=u16::MAX).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("203.0.{high}.{low} timeout 1h")
    });
    let elements: Vec<String> = elements.collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!("add element inet verdictd {set} {{ {} }}", elements.join(", "));
    std::fs::write(&file, text).expect("a file of ours");
    ns.must("nft", &["-f", &file.path().display().to_string()]);
    assert_eq!(set_elements(ns, "verdictd", set).len(), 1 << 16);
}

/// What nobody answers comes at any rate: it has a limit of its own, so that it hides nothing else of its source.
#[test]
fn other_protocols_pass_whatever_their_rate_and_use_up_no_evidence() {
    for spec in [firewall(), detection(), observing()] {
        let host = Host::new(&spec);
        let gun = Gun::new(host.attacker(), ATTACKER, HOST);
        let _ = host.ns().nft(
            "table inet witness { chain late { type filter hook prerouting priority 0; meta l4proto 47 counter; }; }",
        );
        (0..200).for_each(|_| gun.ip(47, &[0; 8]));
        assert!(pings(host.attacker(), HOST, 1), "the probes have arrived");
        assert_eq!(host.witnessed(), 200);
        let over = host.counted("other", "over the rate of evidence");
        assert!((100..=180).contains(&over), "{over}");
        let sets =
            ["evidence_limit4", "other_limit4"].map(|set| set_elements(host.ns(), "verdictd", set).len());
        assert_eq!(sets, [0, 1], "one source, and not the one that only pinged");
    }
}

#[test]
fn trusted_sources_are_not_copied() {
    let trusted = networks(&["10.77.0.0/24"]);
    for spec in [firewall(), observing()] {
        let host = Host::new(&Spec {
            trusted: trusted.clone(),
            ..spec
        });
        Gun::new(host.attacker(), ATTACKER, HOST).ip(47, &[0; 8]);
        assert!(pings(host.attacker(), HOST, 1), "the probe has arrived");
        assert!(set_elements(host.ns(), "verdictd", "other_limit4").is_empty());
    }
}

#[test]
fn multicast_and_broadcast_pass() {
    let host = Host::new(&firewall());
    let _ = host.ns().nft(
        "table inet witness { chain late { type filter hook prerouting priority 0; udp dport 1900 counter; }; }",
    );
    for address in ["239.255.255.250", "10.77.0.255", "ff02::c"] {
        let before = host.witnessed();
        multicast(host.attacker(), address);
        let arrived = || host.witnessed() > before;
        assert!(
            crate::common::within(crate::common::secs(3), arrived),
            "{address}"
        );
    }
}

fn multicast(ns: &Namespace, address: &str) {
    ns.inside(|| {
        let any = if address.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = std::net::UdpSocket::bind(any).expect("a socket");
        socket.set_broadcast(true).expect("an option");
        if address.contains(':') {
            let scope = std::fs::read_to_string("/sys/class/net/lan0/ifindex").ok();
            let scope = scope.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let to = std::net::SocketAddrV6::new(address.parse().expect("an address"), 1900, 0, scope);
            let _ = socket.send_to(b"hello", to);
        } else {
            rustix::net::sockopt::set_ip_multicast_if(&socket, &ATTACKER.parse().expect("an address"))
                .expect("an option");
            socket.send_to(b"hello", (address, 1900)).expect("a route");
        }
    });
}

#[test]
fn observing_drops_nothing_and_wakes_no_conntrack() {
    let host = Host::new(&observing());
    for address in [HOST, HOST6] {
        for port in [80, 8080] {
            assert!(talks(host.attacker(), address, port), "{address} {port}");
        }
        assert!(udp_echoes(&udp(host.attacker(), address, 5353)), "{address}");
        assert!(pings(host.attacker(), address, 1), "{address}");
    }
    let mut gun = Gun::new(host.attacker(), ATTACKER, HOST);
    for flags in [SYN, NULL, FIN, XMAS, SYN | FIN] {
        host.witness(8080, flags);
        (0..100).for_each(|_| gun.tcp(8080, flags));
        assert!(pings(host.attacker(), HOST, 1), "the probes have arrived");
        assert_eq!(host.witnessed(), 100, "flags {flags:#x}");
        let _ = host.ns().nft("delete table inet witness");
    }
    assert!(host.counted("watch", "over the rate of evidence") > 300);
    assert_eq!(host.ns().conntrack_count(), 0);
}

#[test]
fn observing_an_operators_ban_cuts_what_the_source_began() {
    let host = Host::new(&observing());
    let _theirs = Echo::both(host.attacker(), &[9000], &[9001]);
    let mut tcp = connect(host.attacker(), HOST, 80).expect("an open port");
    let datagrams = udp(host.attacker(), HOST, 53);
    let mut own = connect(host.ns(), ATTACKER, 9000).expect("the host's own connection");
    let own_datagrams = udp(host.ns(), ATTACKER, 9001);
    assert!(echoes(&mut tcp) && udp_echoes(&datagrams) && echoes(&mut own) && udp_echoes(&own_datagrams));

    host.ban("banned4", ATTACKER);
    assert!(!echoes(&mut tcp) && !udp_echoes(&datagrams) && !pings(host.attacker(), HOST, 1));
    assert!(connect(host.attacker(), HOST, 80).is_err());
    let mut gun = Gun::new(host.attacker(), ATTACKER, HOST);
    for flags in [NULL, FIN, XMAS, SYN | FIN] {
        host.witness(40_000, flags);
        gun.tcp(40_000, flags);
        assert!(pings(host.ns(), ATTACKER, 1), "the probe has arrived");
        assert_eq!(host.witnessed(), 0, "flags {flags:#x}");
        let _ = host.ns().nft("delete table inet witness");
    }
    assert!(echoes(&mut own) && udp_echoes(&own_datagrams));
    assert!(pings(host.ns(), ATTACKER, 1) && talks(host.ns(), ATTACKER, 9000));
    assert_eq!(host.ns().conntrack_count(), 0);
}
