//! What the engine knew comes back: after a stop, a crash, a wiped table, a damaged state file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, OBSERVING, with_ladder};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, ATTACKER6, ATTACKER6_NET, HOST, HOST6, Lab, NEIGHBOUR};
use crate::common::service::Echo;
use crate::common::watch::set_elements;
use crate::common::wire::Gun;
use crate::common::{count, ms, secs, within};

fn probe(lab: &Lab, ports: impl IntoIterator<Item = u16>) {
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(ports);
}

fn left(ban: &Value) -> u64 {
    ban["remaining_seconds"].as_u64().expect("it ends")
}

/// What a reboot or an unwitting administrator does.
fn wipe(lab: &Lab) {
    lab.host.nft("delete table inet verdictd");
}

fn degraded(engine: &Engine) -> String {
    let status = engine.json("status");
    let sentences = status["degraded"].as_array().expect("an array");
    sentences.iter().map(|sentence| format!("{sentence}\n")).collect()
}

#[test]
fn bans_come_back_with_what_remained_when_the_table_is_gone() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    engine.must(&["ban", NEIGHBOUR, "--for", "30m", "--reason", "abuse \"desk\""]);
    engine.must(&["ban", "10.88.0.0/24", "--for", "1h"]);
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5012);
    engine.wait_ban(ATTACKER6_NET);
    let (before, at) = (engine.bans(), Instant::now());

    let home = engine.stop();
    wipe(&lab);
    assert!(within(secs(1), || talks(&lab.attacker, HOST, 80)));
    thread::sleep(ms(1500));
    let engine = Engine::start_in(&lab.host, home, &[]);
    let (after, passed) = (engine.bans(), at.elapsed().as_secs());
    assert_eq!(after.len(), 4, "{after:?}");
    for (old, new) in before.iter().zip(&after) {
        for field in ["source", "reason", "step", "offences", "note", "enforced"] {
            assert_eq!(old[field], new[field], "{field}: {old} {new}");
        }
        assert!(
            (left(new) + passed).abs_diff(left(old)) <= 1,
            "after {passed} s: {old} {new}"
        );
    }
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER, NEIGHBOUR]);
    assert_eq!(engine.kernel_bans("banned4_24"), ["10.88.0.0"]);
    assert!(!talks(&lab.attacker, HOST, 80), "listed, and not enforced");
    assert_eq!(engine.kernel_bans("banned6"), ["fd66::"]);
    assert_eq!(degraded(&engine), "");
}

#[test]
fn the_kernel_keeps_the_time_and_the_state_the_rest() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    probe(&lab, 5001..=5012);
    let before = engine.wait_ban(ATTACKER);
    let home = engine.stop();
    // Somebody shortened it while we were away.
    lab.host.nft(&format!(
        "delete element inet verdictd banned4 {{ {ATTACKER} }}; add element inet verdictd banned4 {{ {ATTACKER} timeout 100s }}"
    ));
    let engine = Engine::start_in(&lab.host, home, &[]);
    let after = engine.ban_of(ATTACKER).expect("it is banned");
    assert!((98..=100).contains(&left(&after)), "{after}");
    assert_eq!(
        (&after["reason"], &after["step"]),
        (&before["reason"], &before["step"])
    );
}

#[test]
fn the_second_offence_after_a_restart_takes_the_second_step() {
    let lab = Lab::new();
    let config = with_ladder(DETECTION, &["1s", "1h", "2h"]);
    let engine = Engine::start(&lab.host, &config);
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    assert!(engine.wait_free(ATTACKER, secs(4)));
    let home = engine.stop();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(engine.bans().is_empty(), "an ended ban came back");
    probe(&lab, 6001..=6012);
    let ban = engine.wait_ban(ATTACKER);
    assert_eq!((&ban["step"], &ban["offences"]), (&2.into(), &2.into()));
}

#[test]
fn a_scan_that_was_half_done_is_finished_after_the_restart() {
    for (config, workers) in [(DETECTION, 1), (FIREWALL, 3)] {
        let lab = Lab::new();
        let config = format!("{config}\n[engine]\nworkers = {workers}\n");
        let engine = Engine::start(&lab.host, &config);
        probe(&lab, 5001..=5005);
        Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5005);
        assert!(within(secs(2), || engine.json("stats")["sources"]["tracked"] == 2));
        let home = engine.stop();
        wipe(&lab);
        let engine = Engine::start_in(&lab.host, home, &[]);
        probe(&lab, 5001..=5007);
        Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5007);
        thread::sleep(ms(300));
        assert!(
            engine.bans().is_empty(),
            "seven ports are tolerated: {:?}",
            engine.bans()
        );
        probe(&lab, [5008]);
        Gun::new(&lab.attacker, ATTACKER6, HOST6).syns([5008]);
        engine.wait_ban(ATTACKER);
        engine.wait_ban(ATTACKER6_NET);
    }
}

#[test]
fn would_be_bans_come_back_as_such_and_follow_a_switch_of_enforcement() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, OBSERVING);
    probe(&lab, 5001..=5012);
    let before = engine.wait_ban(ATTACKER);
    let engine = Engine::start_in(&lab.host, engine.stop(), &[]);
    let after = engine.ban_of(ATTACKER).expect("it is still listed");
    assert_eq!(
        (&after["enforced"], &after["since"]),
        (&false.into(), &before["since"])
    );
    assert!(engine.kernel_bans("banned4").is_empty());

    let home = engine.stop();
    home.write_config(DETECTION);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);
    let ban = engine.ban_of(ATTACKER).expect("it is banned");
    assert_eq!((&ban["enforced"], &ban["step"]), (&true.into(), &1.into()));

    let home = engine.stop();
    home.write_config(OBSERVING);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(engine.kernel_bans("banned4").is_empty(), "observing drops nobody");
    assert_eq!(engine.ban_of(ATTACKER).expect("it is listed")["enforced"], false);
}

#[test]
fn a_protected_address_is_not_banned_by_an_old_state() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    for wiped in [false, true] {
        let home = Home::new(&format!("{FIREWALL}\n[trusted]\nips = [\"{ATTACKER}\"]\n"));
        assert_eq!(engine.ctl(&["snapshot"]).code(), 0);
        fs::copy(
            engine.home().state().join("state.toml"),
            home.state().join("state.toml"),
        )
        .expect("a copy");
        let other = Lab::new();
        if !wiped {
            let kept = Engine::start(&other.host, FIREWALL);
            kept.must(&["ban", ATTACKER]);
            kept.stop();
        }
        let engine = Engine::start_in(&other.host, home, &[]);
        assert!(engine.bans().is_empty(), "{:?}", engine.bans());
        assert!(engine.kernel_bans("banned4").is_empty());
    }
}

#[test]
fn a_snapshot_is_taken_when_asked_for_and_by_the_interval() {
    let lab = Lab::new();
    let aggressive = FIREWALL.replace("\"standard\"", "\"custom\"")
        + "[custom]\nstate_save_interval = 1\nunique_ports_threshold = 7\n";
    let engine = Engine::start(&lab.host, &aggressive);
    engine.must(&["ban", ATTACKER]);
    let said = engine.must(&["snapshot"]);
    assert!(said.contains("state.toml") && said.contains("1 ban,"), "{said}");
    let view = engine.json("snapshot");
    let text = fs::read_to_string(engine.home().state().join("state.toml")).expect("it is there");
    assert_eq!(view["bytes"], text.len());
    assert!(text.contains(ATTACKER), "{text}");

    engine.must(&["ban", NEIGHBOUR]);
    let holds = || {
        let text = fs::read_to_string(engine.home().state().join("state.toml"));
        text.is_ok_and(|text| text.contains(NEIGHBOUR))
    };
    assert!(within(secs(3), holds), "no snapshot by the interval");
    let home = engine.kill9();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER, NEIGHBOUR]);
}

#[test]
fn what_was_acknowledged_outlives_a_kill_and_a_reboot_at_once() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h", "--reason", "desk 4711"]);
    engine.must(&["ban", NEIGHBOUR, "--for", "1h"]);
    engine.must(&["ban", "198.51.100.0/24"]);
    engine.must(&["unban", NEIGHBOUR]);
    let home = engine.kill9();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    let bans = engine.bans();
    assert_eq!(bans.len(), 2, "{bans:?}");
    assert_eq!(bans[0]["note"], "desk 4711");
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);
    assert_eq!(engine.kernel_bans("banned4_24"), ["198.51.100.0"]);
    assert_eq!(degraded(&engine), "", "a journal is no damage");
}

#[test]
fn a_ban_that_was_told_outlives_a_kill_and_so_do_its_step_and_what_was_half_done() {
    let lab = Lab::new();
    let config = with_ladder(FIREWALL, &["1s", "1h", "2h"]);
    let engine = Engine::start(&lab.host, &config);
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    assert!(engine.wait_free(ATTACKER, secs(10)));
    assert!(within(secs(10), || engine.log().contains("Unban")));
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5001..=5005);
    assert!(within(secs(10), || engine.json("stats")["kinds"]["SYN_SCAN"]
        .as_u64()
        >= Some(13)));
    let home = engine.kill9();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(
        engine.bans().is_empty(),
        "an ended ban came back: {:?}",
        engine.bans()
    );
    probe(&lab, 6001..=6012);
    let ban = engine.wait_ban(ATTACKER);
    assert_eq!((&ban["step"], &ban["offences"]), (&2.into(), &2.into()));
    Gun::new(&lab.attacker, ATTACKER6, HOST6).syns(5005..=5008);
    engine.wait_ban(ATTACKER6_NET);
}

#[test]
fn a_completed_handshake_outlives_a_kill() {
    let lab = Lab::new();
    let ports: Vec<u16> = (7001..=7006).collect();
    let _echo = Echo::tcp(&lab.host, &ports);
    let engine = Engine::start(&lab.host, DETECTION);
    for port in &ports {
        assert!(talks(&lab.attacker, HOST, *port));
    }
    assert!(within(
        secs(10),
        || engine.json("stats")["handshakes"]["completed"].as_u64() >= Some(6)
    ));
    // From conntrack's announcement over worker and journal to the file.
    thread::sleep(secs(1));
    let home = engine.kill9();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    // With what it completed there would be thirteen ports.
    probe(&lab, 5001..=5007);
    assert!(within(secs(10), || engine.json("stats")["kinds"]["SYN_SCAN"]
        .as_u64()
        >= Some(7)));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
}

#[test]
fn the_seed_outlives_the_table() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    let seed = engine.json("status")["seed"].clone();
    let home = engine.stop();
    wipe(&lab);
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert_eq!(engine.json("status")["seed"], seed);
}

#[test]
fn state_file_renames_and_moves_the_snapshot() {
    let lab = Lab::new();
    let elsewhere = Home::new("");
    for (file, at) in [
        ("firewall_state.toml".into(), None),
        (
            elsewhere.state().join("moved.toml").display().to_string(),
            Some(elsewhere.state().join("moved.toml")),
        ),
    ] {
        let config = FIREWALL.replace("[firewall]", &format!("[firewall]\nstate_file = \"{file}\""));
        let home = Engine::start(&lab.host, &config).stop();
        let at = at.unwrap_or_else(|| home.state().join(&file));
        assert!(at.is_file(), "{} is not there", at.display());
        assert!(!home.state().join("state.toml").exists());
    }
}

#[test]
fn a_damaged_state_falls_back_to_the_previous_one_and_says_so() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h", "--reason", "remember me"]);
    engine.must(&["snapshot"]);
    let home = engine.stop();
    let file = home.state().join("state.toml");
    let text = fs::read(&file).expect("it was saved");
    fs::write(&file, &text[..text.len() / 2]).expect("ours");
    let engine = Engine::start_in(&lab.host, home, &[]);
    let ban = engine.ban_of(ATTACKER).expect("the previous generation had it");
    assert_eq!(ban["note"], "remember me");
    let words = degraded(&engine);
    assert!(
        words.contains("cut off") && words.contains("previous generation"),
        "{words}"
    );
    assert_eq!(engine.ctl(&["status"]).code(), 4);
    assert!(engine.home().state().join("state.toml.bad").is_file());

    let home = engine.stop();
    fs::remove_file(home.state().join("state.toml.1")).expect("ours");
    fs::write(file_of(&home), "\0\0\0").expect("ours");
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(
        degraded(&engine).contains("no saved state"),
        "{}",
        degraded(&engine)
    );
    let ban = engine.ban_of(ATTACKER).expect("the kernel had it");
    assert_eq!(ban["reason"], "manual");
    let engine = Engine::start_in(&lab.host, engine.stop(), &[]);
    assert_eq!(degraded(&engine), "", "the next start is healthy");
}

fn file_of(home: &Home) -> std::path::PathBuf {
    home.state().join("state.toml")
}

#[test]
fn an_unwritable_directory_is_said_once_and_protection_goes_on() {
    let lab = Lab::new();
    let disk = Disk::new();
    let file = disk.0.state().join("state.toml");
    let config = FIREWALL.replace(
        "[firewall]",
        &format!("[firewall]\nstate_file = \"{}\"", file.display()),
    );
    let engine = Engine::start(&lab.host, &config);
    engine.must(&["snapshot"]);
    let good = fs::read(&file).expect("it was saved");
    let cover = disk.cover();
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    for _ in 0..3 {
        let output = engine.ctl(&["snapshot"]);
        assert_eq!(output.code(), 1);
        assert!(
            output.text().contains("the state is not saved"),
            "{}",
            output.text()
        );
    }
    assert!(degraded(&engine).contains("the state is not saved"));
    assert_eq!(
        engine.log().matches("the state is not saved").count(),
        1,
        "{}",
        engine.log()
    );
    drop(cover);
    assert_eq!(fs::read(&file).expect("it is there"), good);

    let filler = disk.0.state().join("filler");
    assert!(
        fs::write(&filler, vec![1; 2 << 20]).is_err(),
        "the disk is not full"
    );
    assert_eq!(engine.ctl(&["snapshot"]).code(), 1);
    assert_eq!(fs::read(&file).expect("it is there"), good);
    fs::remove_file(filler).expect("ours");
    engine.must(&["snapshot"]);
    assert_eq!(degraded(&engine), "");
    assert!(engine.log().contains("saved again"));
    assert!(fs::read_to_string(&file).is_ok_and(|text| text.contains(ATTACKER)));
}

/// A small file system under a home's state directory; gone when dropped, also by a panic.
struct Disk(Home);

impl Disk {
    fn new() -> Disk {
        let disk = Disk(Home::new(""));
        disk.mount("size=1m");
        disk
    }

    fn mount(&self, options: &str) {
        let state = self.0.state();
        let mut command = Command::new("mount");
        let done = command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(state)
            .status();
        assert!(done.expect("mount runs").success(), "mount -o {options}");
    }
}

impl Disk {
    /// Nothing can be made there until it is dropped.
    fn cover(&self) -> Cover {
        self.mount("ro");
        Cover(self.0.state())
    }
}

struct Cover(PathBuf);

impl Drop for Cover {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.state()).status();
    }
}

#[test]
fn killed_at_any_moment_of_a_snapshot_it_starts_healthy() {
    let lab = Lab::new();
    let mut home = Home::new(FIREWALL);
    let mut engine = Engine::start_in(&lab.host, home, &[]);
    engine.must(&["ban", ATTACKER, "--for", "1h", "--reason", "remember me"]);
    engine.must(&["snapshot"]);
    for round in 0..count(8, 200) {
        let socket = engine.home().socket();
        let asking = thread::spawn(move || {
            let ask = || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
                command.arg("--socket").arg(&socket).arg("snapshot").output()
            };
            // Until the engine is gone.
            while ask().is_ok_and(|output| output.status.success()) {}
        });
        thread::sleep(ms(3 * (round as u64 % 40)));
        home = engine.kill9();
        asking.join().expect("verdictctl ends");
        engine = Engine::start_in(&lab.host, home, &[]);
        assert_eq!(degraded(&engine), "", "round {round}\n{}", engine.log());
        let ban = engine.ban_of(ATTACKER).expect("it is banned");
        assert_eq!(ban["note"], "remember me");
        assert!(!engine.home().state().join("state.toml.bad").exists());
    }
}

#[test]
fn a_ban_that_the_kernel_refuses_outlives_a_kill() {
    let lab = Lab::new();
    let config = format!("{FIREWALL}\n[engine]\nban_set_size = 1\n");
    let engine = Engine::start(&lab.host, &config);
    let file = file_of(engine.home());
    engine.must(&["ban", NEIGHBOUR, "--for", "1h"]);
    probe(&lab, 5001..=5012);
    engine.wait_ban(ATTACKER);
    assert!(
        within(secs(10), || engine.log().contains("Ban 10.77.0.1")),
        "{}",
        engine.log()
    );
    assert_eq!(set_elements(&lab.host, "verdictd", "banned4"), [NEIGHBOUR]);
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
    assert!(engine.ban_of(ATTACKER).is_some(), "{:?}", engine.bans());
}
