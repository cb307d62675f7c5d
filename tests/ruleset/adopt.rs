//! From any table of ours to any other: bans stay, packets are not lost, what was found is read back.

use std::time::Duration;

use verdictd::core::policy::OnLoss;
use verdictd::kernel::ruleset::{Backend, Family, KeptSet, Layout, Spec, probe_backend};

use crate::common::flow::{Stream, connect, talks, udp, udp_echoes};
use crate::common::lab::{HOST, Lab};
use crate::common::service::Echo;
use crate::common::watch::set_elements;
use crate::listing::with_marks;
use crate::rig::{Rig, detection, firewall, netlink, networks, observing};

fn ban(rig: &Rig, set: &str, element: &str) {
    let _ = rig
        .ns
        .nft(&format!("add element inet verdictd {set} {{ {element} }}"));
}

#[test]
fn a_ban_keeps_its_time_through_every_shape() {
    let mut rig = Rig::new();
    rig.apply(&firewall());
    ban(&rig, "banned4", "203.0.113.9 timeout 1h expires 20m");
    ban(&rig, "banned4", "203.0.113.10 timeout 0s");
    ban(&rig, "banned6", "2001:db8:1:2:: timeout 1h expires 20m");
    let more_workers = Spec {
        layout: Layout {
            workers: 5,
            queue_base: 5200,
            log_base: 5300,
            seed: 7,
        },
        on_loss: OnLoss::Closed,
        ..firewall()
    };
    let other_ports = Spec {
        tcp_allowed: std::iter::once(2222..=2222).collect(),
        trusted: networks(&["198.51.100.0/24"]),
        ..firewall()
    };
    for spec in [observing(), other_ports, more_workers, detection(), firewall()] {
        let applied = rig.apply(&spec);
        assert!(!applied.created && applied.kept.is_empty(), "{applied:?}");
        assert_eq!(rig.differences(&spec), [""; 0]);
        let bans = rig.ns.nft_list(&["list", "set", "inet", "verdictd", "banned4"]);
        assert!(bans.contains("203.0.113.9 timeout 1h expires 19m"), "{bans}");
        assert!(bans.contains("203.0.113.10"), "{bans}");
        let bans = rig.ns.nft_list(&["list", "set", "inet", "verdictd", "banned6"]);
        assert!(bans.contains("2001:db8:1:2:: timeout 1h expires 19m"), "{bans}");
    }
}

#[test]
fn the_numbers_of_a_table_are_read_back() {
    let mut rig = Rig::new();
    assert!(
        verdictd::kernel::ruleset::read(&mut rig.netlink)
            .expect("an answer")
            .is_none()
    );
    let layout = Layout {
        queue_base: 5200,
        log_base: 5300,
        workers: 5,
        seed: 0xfeed_0001,
    };
    let otherwise = Layout {
        queue_base: 1,
        log_base: 2,
        workers: 3,
        seed: 4,
    };
    rig.apply(&Spec { layout, ..firewall() });
    let loaded = rig.read();
    assert_eq!(loaded.layout(otherwise), layout);
    assert_eq!(
        loaded.backend,
        Some(probe_backend(&mut rig.netlink).expect("a backend"))
    );
    assert!(!loaded.observing);

    rig.apply(&Spec {
        layout,
        ..observing()
    });
    let loaded = rig.read();
    assert_eq!(
        loaded.layout(otherwise),
        Layout {
            queue_base: otherwise.queue_base,
            ..layout
        }
    );
    assert!(loaded.observing && loaded.backend.is_none() && loaded.queue_base.is_none());

    rig.apply(&Spec {
        layout,
        ..detection()
    });
    let loaded = rig.read();
    assert_eq!((loaded.queue_base, loaded.log_base), (Some(5200), Some(5300)));
    assert!(!loaded.observing);
}

/// An update of the package meets the table of the version before: copies had no prefix then, and those that passed
/// went through the chains of the refused.
#[test]
fn a_table_of_an_earlier_version_is_taken_over_with_its_bans() {
    let earlier = with_marks(include_str!("../data/table_before_prefixes.nft"));
    for spec in [firewall(), detection(), observing()] {
        let mut rig = Rig::new();
        let _ = rig.ns.nft(&earlier);
        ban(&rig, "banned4", "203.0.113.9 timeout 1h expires 20m");
        let found = rig.read();
        let numbers = (found.log_base, found.workers, found.seed);
        assert_eq!(numbers, (Some(4100), Some(2), Some(0x5eed)));
        assert!(!found.observing);
        assert!(!rig.apply(&spec).created);
        assert_eq!(rig.differences(&spec), [""; 0]);
        let bans = rig.ns.nft_list(&["list", "set", "inet", "verdictd", "banned4"]);
        assert!(bans.contains("203.0.113.9 timeout 1h expires 19m"), "{bans}");
    }
}

#[test]
fn an_observing_table_of_an_earlier_version_tells_its_numbers() {
    let mut rig = Rig::new();
    let _ = rig.ns.nft(
        "table inet verdictd { comment \"verdictd: verdicts on what is new\"; \
         chain l0 { log group 4300 snaplen 256 queue-threshold 16 accept; }; \
         chain watch { jhash ip saddr mod 1 seed 0x7 vmap { 0 : goto l0 }; }; }",
    );
    let found = rig.read();
    let numbers = (found.log_base, found.workers, found.seed, found.observing);
    assert_eq!(numbers, (Some(4300), Some(1), Some(7), true));
    rig.apply(&observing());
    assert_eq!(rig.differences(&observing()), [""; 0]);
}

#[test]
fn what_another_shape_left_behind_is_gone() {
    let mut rig = Rig::new();
    rig.apply(&Spec {
        layout: Layout {
            workers: 9,
            ..firewall().layout
        },
        ..firewall()
    });
    rig.apply(&observing());
    let listing = rig.list();
    for name in [
        "chain q",
        "chain i",
        "chain l",
        "chain p2",
        "chain ask",
        "chain refuse",
        "set tcp_allowed",
    ] {
        assert!(!listing.contains(name), "{name}: {listing}");
    }
}

#[test]
fn a_set_of_bans_of_another_size_is_kept_and_told() {
    let mut rig = Rig::new();
    rig.apply(&Spec {
        ban_set_size: 100,
        ..firewall()
    });
    ban(&rig, "banned4", "203.0.113.9 timeout 1h");
    let applied = rig.apply(&firewall());
    let kept = |name: &str| KeptSet {
        name: name.into(),
        size: Some(100),
        wanted: 1 << 16,
    };
    assert_eq!(applied.kept, [kept("banned4"), kept("banned6")]);
    assert_eq!(set_elements(&rig.ns, "verdictd", "banned4").len(), 1);
}

#[test]
fn bans_of_prefixes_that_nobody_asked_for_stay_in_force() {
    let mut rig = Rig::new();
    rig.apply(&Spec {
        prefix_sets: [(Family::V4, 16), (Family::V6, 48)].into(),
        ..firewall()
    });
    ban(&rig, "banned4_16", "203.0.0.0 timeout 1h");
    let applied = rig.apply(&observing());
    assert_eq!(applied.adopted, [(Family::V4, 16), (Family::V6, 48)]);
    assert!(rig.read().ban_sets.contains(&(Family::V4, 16)));
    assert_eq!(set_elements(&rig.ns, "verdictd", "banned4_16").len(), 1);
    assert!(rig.list().contains("ip saddr & 255.255.0.0 == @banned4_16"));
}

#[test]
fn what_somebody_changed_is_named_and_repaired() {
    let mut rig = Rig::new();
    let spec = firewall();
    rig.apply(&spec);
    assert_eq!(rig.differences(&spec), [""; 0]);
    let changes = [
        (
            "flush chain inet verdictd pre",
            "chain \"pre\" has 0 rules instead of",
        ),
        ("insert rule inet verdictd pre accept", "chain \"pre\" has"),
        (
            "add element inet verdictd tcp_allowed { 23 }",
            "set \"tcp_allowed\" has other elements",
        ),
        (
            "flush set inet verdictd trusted4",
            "set \"trusted4\" has other elements",
        ),
        ("add chain inet verdictd theirs", "chain \"theirs\" is not ours"),
        (
            "add set inet verdictd theirs { type ipv4_addr; }",
            "set \"theirs\" is not ours",
        ),
        (
            "add chain inet verdictd raw { policy drop; }",
            "chain \"raw\" has a policy other than accept",
        ),
        (
            "flush ruleset; table inet verdictd { comment \"verdictd: empty\"; }",
            "chain \"pre\" is missing",
        ),
    ];
    for (change, word) in changes {
        let _ = rig.ns.nft(change);
        let found = rig.differences(&spec);
        assert!(
            found.iter().any(|text| text.contains(word)),
            "{change}: {found:?}"
        );
        rig.apply(&spec);
        assert_eq!(rig.differences(&spec), [""; 0], "{change}");
    }
}

#[test]
fn a_rule_that_was_replaced_is_named() {
    let mut rig = Rig::new();
    rig.apply(&firewall());
    let chain = rig
        .ns
        .nft_list(&["-a", "list", "chain", "inet", "verdictd", "raw"]);
    let handle = chain
        .lines()
        .find(|line| line.contains("@banned4 "))
        .and_then(|line| line.rsplit(' ').next());
    let handle = handle.expect("a handle");
    let change = format!(
        "replace rule inet verdictd raw handle {handle} tcp flags & (fin|syn|rst|ack) == syn ip saddr @banned4 \
         counter accept comment \"banned\""
    );
    let _ = rig.ns.nft(&change);
    let found = rig.differences(&firewall());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("rule 1 of chain \"raw\" is not `tcp flags"),
        "{found:?}"
    );
}

/// FAULTS row 59: a dormant table runs nothing.
#[test]
fn fault_59_a_dormant_table_is_named_and_woken() {
    let mut rig = Rig::new();
    rig.apply(&firewall());
    let _ = rig.ns.nft("add table inet verdictd { flags dormant; }");
    let found = rig.differences(&firewall());
    assert!(found.iter().any(|text| text.contains("dormant")), "{found:?}");
    rig.apply(&firewall());
    assert_eq!(rig.differences(&firewall()), [""; 0]);
    assert!(!rig.list().contains("dormant"));
}

/// FAULTS row 24: no base chain is deleted when a table is applied over another, and no packet meets a moment
/// without policy.
#[test]
fn fault_24_applying_loses_no_connection() {
    let lab = Lab::new();
    let _echo = Echo::both(&lab.host, &[80], &[53]);
    let mut netlink = netlink(&lab.host);
    let mut rig = |spec: &Spec| {
        let backend = probe_backend(&mut netlink).expect("a backend");
        let spec = Spec {
            backend,
            ..spec.clone()
        };
        let ruleset = verdictd::kernel::ruleset::Ruleset::build(&spec);
        verdictd::kernel::ruleset::apply(&mut netlink, &ruleset).expect("a table");
    };
    rig(&firewall());
    let old = Stream::tcp(connect(&lab.attacker, HOST, 80).expect("an open port"));
    let datagrams = udp(&lab.attacker, HOST, 53);
    assert!(udp_echoes(&datagrams));
    let other = Spec {
        tcp_allowed: [80..=80, 8080..=8080].into_iter().collect(),
        ..firewall()
    };
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| (0..200).filter(|_| talks(&lab.attacker, HOST, 80)).count());
        while !asked.is_finished() {
            rig(&other);
            rig(&firewall());
        }
        assert_eq!(asked.join().expect("the connections"), 200);
    });
    assert!(udp_echoes(&datagrams));
    std::thread::sleep(Duration::from_millis(50));
    assert!(old.runs());
}

#[test]
fn thousands_of_networks_fit() {
    let mut rig = Rig::new();
    let many: Vec<String> = (0..5000)
        .flat_map(|at| {
            [
                format!("10.{}.{}.0/25", at >> 8, at & 255),
                format!("2001:db8:{at:x}:1::/64"),
            ]
        })
        .collect();
    let spec = Spec {
        trusted: networks(&many.iter().map(String::as_str).collect::<Vec<_>>()),
        ..firewall()
    };
    rig.apply(&spec);
    rig.apply(&spec);
    assert_eq!(rig.differences(&spec), [""; 0]);
    let one = rig.ns.nft_list(&[
        "get",
        "element",
        "inet",
        "verdictd",
        "trusted4",
        "{ 10.19.135.100 }",
    ]);
    assert!(one.contains("10.19.135.0/25"), "{one}");
}

#[test]
fn probing_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let backend = probe_backend(&mut rig.netlink).expect("a backend");
    assert!(matches!(backend, Backend::Native | Backend::Xt));
    assert_eq!(rig.ns.nft_list(&["list", "tables"]), "");
}
