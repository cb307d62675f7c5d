//! Engines end in every way and start again; what they hold stays held meanwhile.

use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::common::engine::Engine;
use crate::common::mutate::Dice;
use crate::common::{count, ms};
use crate::crowd::BANS_TO_START_FROM as BANS;
use crate::probes::Kind;
use crate::stage::{Stage, active, firewall};

#[test]
fn nothing_leaks_while_engines_are_stopped_and_started() {
    let stage = Stage::set();
    let (mut engine, mark) = stage.engine(&firewall(""), BANS);
    let rounds = count(RESTARTS, 1000);
    let begun = Instant::now();
    for _ in 0..rounds {
        engine = Engine::start_in(&stage.lab.host, engine.stop(), &[]);
    }
    let each = begun.elapsed() / rounds as u32;
    stage.nothing_leaked(&format!("{rounds} restarts of {each:.0?}"), mark, &Kind::ALL);
    ends_well(&stage, engine);
}

/// Within 200 ms after it was ready, while it reloads, and before it was ready at all.
#[test]
fn nothing_leaks_while_engines_are_killed_and_started() {
    let stage = Stage::set();
    let (mut engine, mark) = stage.engine(&firewall(""), BANS);
    let (rounds, mut dice, mut early) = (count(KILLS, 1000), Dice::new(0x6a95), 0);
    let (begun, mut start) = (Instant::now(), ms(200));
    for round in 0..rounds {
        match round % 3 {
            0 => thread::sleep(ms(dice.roll(200) as u64)),
            1 => {
                engine.home().write_config(&firewall(["", OTHERWISE][round % 2]));
                engine.signal(Signal::HUP);
                thread::sleep(ms(dice.roll(40) as u64));
            }
            _ => {
                early += 1;
                engine = Engine::spawn(&stage.lab.host, engine.kill9(), |_| {});
                thread::sleep(start.mul_f64(dice.roll(100) as f64 / 100.0));
            }
        }
        let (home, begun) = (engine.kill9(), Instant::now());
        engine = Engine::start_in(&stage.lab.host, home, &[]);
        start = begun.elapsed();
    }
    let each = begun.elapsed() / rounds as u32;
    let what = format!("{rounds} times kill -9 and start of {each:.0?}, {early} of them before it was ready");
    stage.nothing_leaked(&what, mark, &Kind::ALL);
    ends_well(&stage, engine);
}

/// What an upgrade does to a table: other workers, queues, groups and seed than the engine before had.
#[test]
fn nothing_leaks_while_an_engine_of_other_numbers_takes_the_table_over() {
    let stage = Stage::set();
    let (mut engine, mark) = stage.engine(&firewall(""), BANS);
    let rounds = count(TAKEOVERS, 200);
    for round in 0..rounds {
        let numbers = NUMBERS[round % NUMBERS.len()];
        engine
            .home()
            .write_config(&firewall(&format!("[engine]\n{numbers}\n")));
        let home = if round % 2 == 0 {
            engine.stop()
        } else {
            engine.kill9()
        };
        engine = Engine::start_in(&stage.lab.host, home, &[]);
    }
    let what = format!("{rounds} starts over a table of other numbers");
    stage.nothing_leaked(&what, mark, &Kind::ALL);
    ends_well(&stage, engine);
}

/// Every ban is live, nobody was shut out, and without the table every probe gets through.
fn ends_well(stage: &Stage, engine: Engine<'_>) {
    assert_eq!(active(&engine), BANS, "{}", engine.log());
    stage.nobody_was_shut_out("restarts");
    let _home = engine.stop();
    stage.clear();
}

/// Nothing that the probes meet.
const OTHERWISE: &str = "[trusted]\nips = [\"203.0.113.77\"]\n[engine]\non_loss = \"open\"\n";
const NUMBERS: [&str; 5] = [
    "workers = 3",
    "workers = 1\nqueue_base = 5200",
    "workers = 4\nqueue_base = 4101\nlog_base = 4102",
    "workers = 2\nseed = 7",
    "workers = 2\nqueue_base = 4100\nlog_base = 4100\nseed = 8",
];
/// In a debug build a start and a stop take most of a second.
const RESTARTS: usize = 20;
const KILLS: usize = 30;
const TAKEOVERS: usize = 5;
