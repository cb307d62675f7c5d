//! SIGHUP while probes come: another policy goes into force as a whole, or the old one stays.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::engine::Engine;
use crate::common::mutate::Dice;
use crate::common::{count, secs, within};
use crate::crowd::BANS;
use crate::probes::{ALLOWED, Kind};
use crate::stage::{Stage, active, firewall};

#[test]
fn nothing_leaks_while_thresholds_ports_and_modes_change() {
    let stage = Stage::set();
    let (mut engine, mark) = stage.engine(&firewall(""), BANS);
    let mut dice = Dice::new(0x4e10);
    let rounds = count(RELOADS, 1000);
    let each = reload(&mut engine, rounds, &mut dice, &["firewall", "corporate"]);
    let what = format!("{rounds} reloads of {each:.0?}");
    stage.nothing_leaked(&what, mark, &Kind::ALL);
    // Without a port filter only bans hold.
    let mark = stage.probes.forget();
    let rounds = count(RELOADS, 1000) / 2;
    reload(&mut engine, rounds, &mut dice, &["firewall", "detection_only"]);
    let what = format!("{rounds} reloads with and without a port filter");
    stage.nothing_leaked(&what, mark, &Kind::OF_BANNED);
    assert_eq!(active(&engine), BANS, "{}", engine.log());
    stage.nobody_was_shut_out("reloads");
    let _home = engine.stop();
    stage.clear();
}

/// One in four is refused. How long one took.
fn reload(engine: &mut Engine<'_>, rounds: usize, dice: &mut Dice, modes: &[&str]) -> Duration {
    let begun = Instant::now();
    for round in 0..rounds {
        let (good, told) = (round % 4 != 3, outcomes(engine));
        let config = match good {
            true => configuration(modes[dice.roll(modes.len())], dice),
            false => BAD[dice.roll(BAD.len())].to_owned(),
        };
        engine.home().write_config(&config);
        engine.signal(Signal::HUP);
        let expected = (told.0 + usize::from(good), told.1 + usize::from(!good));
        let done = within(secs(10), || outcomes(engine) == expected);
        assert!(done, "reload {round} of\n{config}\n{}", engine.log());
    }
    begun.elapsed() / rounds as u32
}

/// How many reloads came into force, and how many were refused.
fn outcomes(engine: &Engine<'_>) -> (usize, usize) {
    let log = engine.home().log();
    let count = |word| log.matches(word).count();
    (
        count("reloaded, settings that changed"),
        count("everything stays as it was"),
    )
}

/// Something else in all that the probes do not depend on.
fn configuration(mode: &str, dice: &mut Dice) -> String {
    let preset = ["aggressive", "standard", "lenient"][dice.roll(3)];
    let port = 5002 + dice.roll(3);
    let ranges = ["", "ranges = [\"6000-6010\", \"7000-7999\"]\n"][dice.roll(2)];
    let trusted = format!("ips = [\"192.0.2.{}\"]", dice.roll(250));
    format!(
        "[firewall]\nmode = \"{preset}\"\nfirewall_mode = \"{mode}\"\n[allowed_ports]\n\
         tcp = [22, {ALLOWED}, {port}]\nudp = [{ALLOWED}, {port}]\n{ranges}[trusted]\n{trusted}\n[bans]\nenforce = true\n"
    )
}

const BAD: [&str; 4] = [
    "[firewall]\nmode = \"strict\"\n",
    "[firewall\n",
    "[allowed_ports]\ntcp = [70000]\n",
    "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\nudp = \"all\"\n",
];
/// Those with a port filter; half as many without.
const RELOADS: usize = 100;
