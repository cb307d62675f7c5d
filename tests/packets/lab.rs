//! The rig itself: if these fail, the others mean nothing.

use std::fs;
use std::process::Command;

use crate::common::command::run;
use crate::common::flow::{connect, echoes, pings, talks, udp, udp_echoes};
use crate::common::lab::{
    ATTACKER, ATTACKER6, ATTACKER6_TWIN, BEHIND, CLIENT, HOST, HOST6, Lab, NEIGHBOUR, NEIGHBOUR6_ON_LINK,
};
use crate::common::service::Echo;
use crate::common::watch::Witness;
use crate::common::wire::{FIN, Gun, NULL, XMAS};
use crate::common::{secs, within};

#[test]
fn machines_reach_each_other_and_go_away() {
    let lab = Lab::new().with_client().with_behind();
    for (ns, address) in [
        (&lab.attacker, HOST),
        (&lab.attacker, HOST6),
        (&lab.attacker, BEHIND),
        (&lab.host, ATTACKER),
        (&lab.host, NEIGHBOUR),
        (&lab.host, ATTACKER6),
        (&lab.host, ATTACKER6_TWIN),
        (&lab.host, CLIENT),
        (lab.client(), HOST),
        (lab.behind(), ATTACKER),
    ] {
        assert!(pings(ns, address, 2), "{} does not reach {address}", ns.name());
    }
    let names = [&lab.attacker, &lab.host, lab.client(), lab.behind()].map(|ns| ns.name().to_string());
    drop(lab);
    for name in names {
        assert!(
            !fs::exists(format!("/run/netns/{name}")).expect("a readable directory"),
            "{name} is left over"
        );
    }
}

#[test]
fn services_answer_over_both_families_and_protocols() {
    let lab = Lab::new();
    let _echo = Echo::both(&lab.host, &[80, 443], &[53]);
    assert!(talks(&lab.attacker, HOST, 80));
    assert!(talks(&lab.attacker, HOST6, 443));
    assert!(!talks(&lab.attacker, HOST, 81));
    assert!(udp_echoes(&udp(&lab.attacker, HOST, 53)));
    assert!(udp_echoes(&udp(&lab.attacker, HOST6, 53)));
    assert!(echoes(
        &mut connect(&lab.host, HOST, 80).expect("a host reaches itself")
    ));
}

#[test]
fn the_witness_sees_what_answers_packets_made_by_hand() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    for (source, target) in [(ATTACKER, HOST), (ATTACKER6, HOST6)] {
        let witness = Witness::new(&lab.attacker);
        let before = witness.resets();
        let mut gun = Gun::new(&lab.attacker, source, target);
        gun.syns([80, 9000, 9001]);
        [FIN, NULL, XMAS]
            .into_iter()
            .for_each(|flags| gun.tcp(9002, flags));
        assert!(
            within(secs(2), || witness.answered().len() == 4),
            "{:?}",
            witness.answered()
        );
        assert_eq!(
            witness.answered().into_iter().collect::<Vec<_>>(),
            [80, 9000, 9001, 9002]
        );
        assert_eq!(
            witness.resets() - before,
            5,
            "two closed ports and three stealth probes"
        );
        lab.attacker.nft("delete table inet witness");
    }
}

#[test]
fn every_address_of_the_attackers_networks_gets_its_answers() {
    let lab = Lab::new();
    let witness = Witness::new(&lab.attacker);
    for (port, source, target) in [
        (7001, "10.88.0.7", HOST),
        (7002, "10.88.1.200", HOST),
        (7003, ATTACKER6_TWIN, HOST6),
        (7004, NEIGHBOUR6_ON_LINK, HOST6),
    ] {
        Gun::new(&lab.attacker, source, target).syns([port]);
        assert!(within(secs(2), || witness.answered().contains(&port)), "{source}");
    }
}

#[test]
fn a_connection_of_the_host_outlives_a_flushed_conntrack() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.attacker, &[6667]);
    lab.host.nft("add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state new");
    let mut stream = connect(&lab.host, ATTACKER, 6667).expect("nothing in the way");
    assert!(echoes(&mut stream));
    assert_eq!(lab.host.conntrack_count(), 1);
    lab.host.must("conntrack", &["-F"]);
    assert_eq!(lab.host.conntrack_count(), 0);
    assert!(echoes(&mut stream));
}

#[test]
fn a_panic_leaves_no_namespace_behind() {
    let made = std::panic::catch_unwind(|| {
        let lab = Lab::new();
        let name = lab.host.name().to_string();
        std::panic::panic_any(name);
    });
    let name = made
        .expect_err("it panicked")
        .downcast::<String>()
        .expect("the name");
    assert!(
        !run(Command::new("ip").args(["netns", "list"]), secs(5))
            .stdout
            .contains(name.as_str())
    );
}
