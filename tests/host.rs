//! Facts about a host, each host a network namespace of its own: addresses and routes are seen, and their
//! changes are announced.

#[allow(dead_code, unreachable_pub)]
mod common;

use common::namespace::{Namespace, join};
use common::{secs, within};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verdictd::kernel::conntrack::Conntrack;
use verdictd::kernel::host::{self, Facts, Watch, Why};

fn gather(ns: &Namespace) -> Facts {
    ns.inside(host::gather).expect("facts")
}

fn protects(facts: &Facts, target: &str, why: &Why) -> bool {
    facts
        .protected
        .contains(&(target.parse().expect("a prefix"), why.clone()))
}

fn own(interface: &str) -> Why {
    Why::OwnAddress {
        interface: interface.to_owned(),
    }
}

/// Two hosts on one wire: `vd0` here, with an address of each family.
fn wired() -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new("host"), Namespace::new("peer"));
    join(
        (&here, "vd0", &["10.77.0.1/24", "2001:db8:77::1/64"]),
        (&there, "vd1", &["10.77.0.2/24", "2001:db8:77::2/64"]),
    );
    // It comes when both ends of the link are up, in the kernel's own time.
    assert!(within(secs(5), || has_link_local(&gather(&here))));
    (here, there)
}

fn has_link_local(facts: &Facts) -> bool {
    facts.protected.iter().any(|(prefix, why)| {
        prefix.is_host() && prefix.addr().to_string().starts_with("fe80:") && *why == own("vd0")
    })
}

/// Whether the watch becomes readable and then reports a change.
fn fires(watch: &mut Watch) -> bool {
    let wait = Timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    let mut ready = [PollFd::new(&*watch, PollFlags::IN)];
    poll(&mut ready, Some(&wait)).expect("poll") == 1 && watch.drain()
}

/// Reads until it has been quiet for a while: duplicate address detection has its own pace.
fn settle(watch: &mut Watch) {
    let quiet = Timespec {
        tv_sec: 0,
        tv_nsec: 300_000_000,
    };
    while poll(&mut [PollFd::new(&*watch, PollFlags::IN)], Some(&quiet)).expect("poll") > 0 {
        watch.drain();
    }
}

#[test]
fn own_addresses_are_protected_as_hosts() {
    let (here, _there) = wired();
    let facts = gather(&here);
    for (target, interface) in [
        ("10.77.0.1", "vd0"),
        ("2001:db8:77::1", "vd0"),
        ("127.0.0.1", "lo"),
        ("::1", "lo"),
    ] {
        assert!(
            protects(&facts, target, &own(interface)),
            "{target}: {:?}",
            facts.protected
        );
    }
    assert!(
        has_link_local(&facts),
        "its link-local address: {:?}",
        facts.protected
    );
    assert!(
        !protects(&facts, "10.77.0.2", &own("vd0")),
        "the neighbour is not"
    );
    assert!(facts.protected.is_sorted());
}

#[test]
fn the_near_end_of_a_tunnel_is_the_own_address() {
    let (here, _there) = wired();
    here.ip(&["address", "add", "10.88.0.1", "peer", "10.88.0.2", "dev", "vd0"]);
    let facts = gather(&here);
    assert!(protects(&facts, "10.88.0.1", &own("vd0")));
    assert!(!protects(&facts, "10.88.0.2", &own("vd0")));
}

#[test]
fn every_gateway_of_every_route_is_protected() {
    let (here, _there) = wired();
    let gateway = |facts: &Facts, target: &str| protects(facts, target, &Why::Gateway);
    assert!(
        !gather(&here)
            .protected
            .iter()
            .any(|(_, why)| *why == Why::Gateway)
    );
    here.ip(&["route", "add", "default", "via", "10.77.0.2"]);
    here.ip(&["route", "add", "10.90.0.0/16", "via", "10.77.0.3"]);
    here.ip(&["route", "add", "10.91.0.0/16", "via", "10.77.0.4", "table", "77"]);
    here.ip(&[
        "route",
        "add",
        "10.92.0.0/16",
        "nexthop",
        "via",
        "10.77.0.5",
        "nexthop",
        "via",
        "10.77.0.6",
    ]);
    here.ip(&["route", "add", "10.93.0.0/16", "via", "inet6", "2001:db8:77::3"]);
    here.ip(&["-6", "route", "add", "default", "via", "2001:db8:77::4"]);
    here.ip(&[
        "-6",
        "route",
        "add",
        "2001:db8:99::/48",
        "nexthop",
        "via",
        "2001:db8:77::5",
        "nexthop",
        "via",
        "2001:db8:77::6",
    ]);
    here.ip(&["nexthop", "add", "id", "7", "via", "10.77.0.7", "dev", "vd0"]);
    here.sysctl("net/ipv4/nexthop_compat_mode", "0");
    here.ip(&["route", "add", "10.94.0.0/16", "nhid", "7"]);
    let facts = gather(&here);
    for target in [
        "10.77.0.2",
        "10.77.0.3",
        "10.77.0.4",
        "10.77.0.5",
        "10.77.0.6",
        "10.77.0.7",
        "2001:db8:77::3",
        "2001:db8:77::4",
        "2001:db8:77::5",
        "2001:db8:77::6",
    ] {
        assert!(gateway(&facts, target), "{target}: {:?}", facts.protected);
    }
    assert_eq!(
        facts
            .protected
            .iter()
            .filter(|(_, why)| *why == Why::Gateway)
            .count(),
        10
    );
}

#[test]
fn changes_are_announced_and_then_seen() {
    let (here, _there) = wired();
    let mut watch = here.inside(Watch::open).expect("a watch");
    assert!(!watch.drain(), "nothing happened yet");
    let before = gather(&here);

    here.ip(&["address", "add", "10.99.0.1/24", "dev", "vd0"]);
    assert!(fires(&mut watch));
    assert!(within(secs(1), || protects(
        &gather(&here),
        "10.99.0.1",
        &own("vd0")
    )));

    here.ip(&["address", "add", "2001:db8:99::1/64", "dev", "vd0"]);
    assert!(fires(&mut watch));
    assert!(protects(&gather(&here), "2001:db8:99::1", &own("vd0")));

    settle(&mut watch);
    here.ip(&["route", "add", "default", "via", "10.99.0.2"]);
    assert!(fires(&mut watch));
    assert!(protects(&gather(&here), "10.99.0.2", &Why::Gateway));

    here.ip(&["route", "delete", "default"]);
    assert!(fires(&mut watch));
    here.ip(&["address", "delete", "10.99.0.1/24", "dev", "vd0"]);
    assert!(fires(&mut watch));
    here.ip(&["address", "delete", "2001:db8:99::1/64", "dev", "vd0"]);
    assert!(fires(&mut watch));
    assert_eq!(gather(&here), before);
}

#[test]
fn routes_without_a_gateway_are_no_news_but_a_link_is() {
    let (here, _there) = wired();
    here.ip(&["route", "add", "default", "via", "10.77.0.2"]);
    let mut watch = here.inside(Watch::open).expect("a watch");
    settle(&mut watch);
    here.ip(&["route", "add", "10.90.0.0/16", "dev", "vd0"]);
    here.ip(&["route", "add", "blackhole", "10.91.0.0/16"]);
    assert!(!watch.drain());
    // The kernel removes the IPv4 route without saying so.
    here.ip(&["link", "set", "vd0", "down"]);
    assert!(fires(&mut watch));
    assert!(!protects(&gather(&here), "10.77.0.2", &Why::Gateway));
}

#[test]
fn more_changes_than_the_buffer_holds_count_as_a_change() {
    let (here, _there) = wired();
    let mut watch = here.inside(Watch::open).expect("a watch");
    settle(&mut watch);
    let many: String = (0..2_000)
        .map(|n| format!("route add 10.100.{}.{}/32 dev vd0\n", n / 250, n % 250))
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), many).expect("a batch");
    here.ip(&["-batch", file.path().to_str().expect("a path")]);
    assert!(watch.drain(), "some notices were lost");
    assert!(!watch.drain());
}

#[test]
fn ports_and_conntrack_are_those_of_the_namespace() {
    let (here, there) = (Namespace::new("host"), Namespace::new("other"));
    here.sysctl("net/ipv4/ip_local_port_range", "40000 50000");
    assert_eq!(gather(&here).local_ports, 40_000..=50_000);
    assert_ne!(gather(&there).local_ports, 40_000..=50_000);
    let sockets: Vec<_> = there.inside(|| {
        let bind = |_| std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        (0..3).map(bind).collect()
    });
    let [empty, used] = [&here, &there].map(|ns| ns.inside(Conntrack::look).expect("conntrack is there"));
    let max = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").expect("it is loaded now");
    let max = max.trim().parse().expect("a number");
    let conntrack = |sockets| Conntrack {
        max,
        flows: 0,
        sockets,
    };
    assert_eq!((empty, used), (conntrack(0), conntrack(3)), "{sockets:?}");
}

#[test]
fn the_resolvers_of_this_machine_are_protected() {
    let here = Namespace::new("host");
    let facts = gather(&here);
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("nameserver ") {
            assert!(
                protects(&facts, address.trim(), &Why::Resolver),
                "{line}: {:?}",
                facts.protected
            );
        }
    }
    assert_eq!(facts.notes, Vec::<String>::new());
}
