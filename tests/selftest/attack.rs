//! Beside an attack.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::wire::{Gun, SYN};
use crate::common::{count, within};
use crate::rig;

/// SYNs from ten thousand forged sources to many ports, some 2,000 a second, until told to stop.
fn flood(lab: &Lab, stop: &AtomicBool) {
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    let mut number: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            number = number.wrapping_add(1);
            gun.forge(Ipv4Addr::from(
                0x0a58_0000 + number.wrapping_mul(2_654_435_761) % 10_000,
            ));
            gun.tcp((number % 40_000) as u16 + 1, SYN);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_run_in_a_row_is_proved_under_attack() {
    for config in [DETECTION, FIREWALL, OBSERVING] {
        let lab = Lab::new();
        let engine = Engine::start(&lab.host, config);
        let stop = AtomicBool::new(false);
        let worst = thread::scope(|scope| {
            scope.spawn(|| flood(&lab, &stop));
            let runs = (0..count(10, 100)).map(|run| {
                let output = rig::run(&lab.host, &engine);
                if output.code() != 0 {
                    stop.store(true, Ordering::Relaxed);
                    panic!("run {run}: {}\n{config}", output.text());
                }
                let proof = rig::json(&output);
                rig::ms(&proof, if config == OBSERVING { "recorded" } else { "banned" })
            });
            let worst = runs.fold(0.0, f64::max);
            stop.store(true, Ordering::Relaxed);
            worst
        });
        println!("worst {worst} ms");
        assert!(worst < 1000.0, "{worst} ms\n{config}");
        let named = |text: &str| rig::RANGES.iter().any(|range| text.contains(range));
        assert!(!named(&engine.json("list").to_string()));
        assert!(within(Duration::from_secs(10), || !named(
            &lab.host.nft_list(&["list", "ruleset"])
        )));
        rig::nothing_is_written(&engine);
        let total = engine.json("stats")["bans"]["total"].as_u64().expect("a number");
        let announced = engine.log().matches("] Ban ").count() as u64;
        assert_eq!(total, announced, "bans of the attack alone");
    }
}
