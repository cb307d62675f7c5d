//! It goes back, whoever is dead.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use verdictd::control::client::Client;
use verdictd::control::wire::{GoneBack, Reply, Request};

use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::namespace::Namespace;
use crate::common::{count, secs, within};
use crate::rig::{Desk, LIMIT, SOON};

#[test]
fn what_nobody_confirms_goes_back_by_itself() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    let told = desk.apply(SOON);
    for words in [
        "mode: detection_only → firewall",
        "tcp: every port but 22, 80, 443",
        "it goes back by itself in 5s",
        "open a NEW ssh connection and type: sudo verdictctl confirm",
    ] {
        assert!(told.contains(words), "{words} is missing in {told}");
    }
    assert_ne!(desk.table(), before);
    assert_eq!(
        (desk.state().as_str(), desk.status()["mode"].as_str()),
        ("pending", Some("firewall"))
    );
    // Nothing else meanwhile.
    for (verb, args) in [("reload", &[][..]), ("apply", SOON)] {
        let refused = desk.ctl(verb, args);
        assert_eq!(refused.code(), 1, "{verb}");
        assert!(
            refused.stderr.contains("is being tried out"),
            "{}",
            refused.text()
        );
    }
    assert!(
        desk.ctl("status", &[])
            .stdout
            .contains("ON TRIAL (detection_only → firewall)")
    );
    desk.must_be_back(&before, "left alone");
    assert!(within(LIMIT, || desk.state() == "went_back"));
    assert!(within(LIMIT, || desk
        .read("verdictd.toml.unconfirmed")
        .as_deref()
        == Some(FIREWALL)));
    assert_eq!(desk.read("verdictd.toml.candidate"), None);
    let late = desk.at_console("confirm", &[]);
    assert!(
        late.code() == 1 && late.stderr.contains("too late: it went back"),
        "{}",
        late.text()
    );
    // And again, from where it is kept.
    let kept = desk.at("verdictd.toml.unconfirmed").display().to_string();
    assert_eq!(desk.ctl("apply", &["--yes", "--confirm", "60s", &kept]).code(), 0);
    let back = desk.ctl("go-back", &[]);
    assert!(
        back.code() == 0 && back.stdout.contains("the old policy is in force"),
        "{}",
        back.text()
    );
    desk.must_be_back(&before, "told to");
}

/// Who is killed while the policy is on trial.
#[derive(Clone, Copy, Debug)]
enum Death {
    Nobodys,
    Engines,
    Watchers,
    Shells,
    EnginesAndShells,
    EngineStopped,
    /// As one that hangs in its stop: the socket is gone, the lock is not.
    EngineLingers,
    EngineStartedAgain,
}

#[test]
fn it_goes_back_whoever_dies() {
    let deaths = [
        Death::Engines,
        Death::EngineStopped,
        Death::EngineLingers,
        Death::EnginesAndShells,
        Death::Watchers,
        Death::Shells,
        Death::EngineStartedAgain,
        Death::Nobodys,
    ];
    // At once: each waits for its deadline most of the time.
    let all = count(8, 100);
    for round in (0..all).step_by(8) {
        thread::scope(|scope| {
            for death in deaths.into_iter().take(all - round) {
                scope.spawn(move || dies(death));
            }
        });
    }
}

fn dies(death: Death) {
    let ns = Namespace::new("trial");
    let mut engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    let how = format!("{death:?}");
    let by_shell = matches!(death, Death::Shells | Death::EnginesAndShells);
    match by_shell {
        false => drop(desk.apply(SOON)),
        // The terminal hangs up on all that was started in it, then its shell is killed.
        true => {
            let file = desk.at("firewall.toml").display().to_string();
            let line = desk.line("apply", &[SOON, &[&file]].concat());
            let script = format!("{line}; kill -HUP 0; kill -KILL $$");
            let shell = ns.run(Command::new("setsid").args(["sh", "-c", &script]), secs(60));
            assert!(!shell.status.success(), "{how}: {}", shell.text());
        }
    }
    assert_ne!(desk.table(), before, "{how}");
    assert_eq!(desk.watchers().len(), 1, "{how}: one stands by");
    match death {
        Death::Nobodys | Death::Shells => {}
        Death::Watchers => desk.kill_watchers(),
        Death::EngineStopped => engine.signal(Signal::STOP),
        Death::EngineLingers => {
            engine.signal(Signal::STOP);
            std::fs::remove_file(engine.home().socket()).expect("it listens there");
        }
        Death::Engines | Death::EnginesAndShells => {
            let _home = engine.kill9();
            desk.must_be_back(&before, &how);
            assert!(desk.read("verdictd.toml.unconfirmed").is_some(), "{how}: kept");
            return;
        }
        Death::EngineStartedAgain => {
            let engine = Engine::start_in(&ns, engine.kill9(), &[]);
            desk.must_be_back(&before, &how);
            assert_eq!(desk.state(), "");
            drop(engine);
            return;
        }
    }
    desk.must_be_back(&before, &how);
    if let Death::EngineStopped | Death::EngineLingers = death {
        let (_home, status) = engine.ended(LIMIT);
        assert!(!status.success(), "{how}: it was killed");
    }
}

/// As after a power loss: nobody is left, and the next start or `verdictd restore` finds the old text.
#[test]
fn with_everybody_dead_the_file_brings_the_old_policy_back() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    desk.apply(&["--yes", "--confirm", "1h"]);
    let tried = desk.table();
    desk.kill_watchers();
    let home = engine.kill9();
    assert_eq!(desk.table(), tried);
    let mut restore = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    restore
        .arg("restore")
        .arg("--config")
        .arg(home.config())
        .arg("--state-dir")
        .arg(home.state());
    let restored = ns.run(&mut restore, secs(60));
    assert_eq!(restored.code(), 0, "{}", restored.text());
    assert_eq!(desk.table(), before);
    // What is left over is told and kept at the next apply.
    let engine = Engine::start_in(&ns, home, &[]);
    let file = desk.at("firewall.toml").display().to_string();
    let again = desk.ctl("apply", &["--yes", "--confirm", "1h", &file]);
    assert_eq!(again.code(), 0, "{}", again.text());
    assert!(again.stderr.contains("broken off"), "{}", again.text());
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
    desk.must_be_back(&before, "told to");
    drop(engine);
}

/// When `verdictctl apply` is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Started,
    LaidOut,
    WatcherStandsBy,
    Switched,
    /// After this part of the time that it takes.
    After(f64),
}

/// `kill -9` of `verdictctl apply` at any moment: the old policy stays in force or comes back, and the file holds it.
#[test]
fn a_kill_of_apply_at_any_moment_leaves_the_old_policy_or_brings_it_back() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    let began = Instant::now();
    desk.apply(&["--confirm", "1h", "--yes"]);
    let takes = began.elapsed();
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
    desk.must_be_back(&before, "told to");
    let steps = [
        Moment::Started,
        Moment::LaidOut,
        Moment::WatcherStandsBy,
        Moment::Switched,
    ];
    let others = count(2, 56);
    let others = (1..=others).map(|nth| Moment::After(nth as f64 / others as f64));
    let (mut kills, mut switched) = (0, 0);
    for moment in steps.into_iter().chain(others) {
        let had = killed(&desk, moment, &before, takes);
        switched += usize::from(had);
        kills += 1;
        assert!(within(LIMIT, || desk.state() != "pending"), "{moment:?}");
        desk.must_be_back(&before, &format!("{moment:?}"));
    }
    eprintln!("{switched} of {kills} kills came after the switch, which takes {takes:?} in all");
    assert!(0 < switched && switched < kills, "{switched} of {kills}");
}

/// Whether it had switched by then.
fn killed(desk: &Desk<'_>, moment: Moment, before: &str, takes: Duration) -> bool {
    let file = desk.at("firewall.toml").display().to_string();
    let mut command = desk.command("apply", &[SOON, &[&file]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = desk.ns.inside(|| command.spawn()).expect("the built program");
    let came = match moment {
        Moment::Started => true,
        Moment::LaidOut => within(LIMIT, || desk.at("verdictd.toml.candidate").exists()),
        Moment::WatcherStandsBy => within(LIMIT, || !desk.watchers().is_empty()),
        Moment::Switched => within(LIMIT, || desk.table() != before),
        Moment::After(part) => {
            thread::sleep(takes.mul_f64(part));
            true
        }
    };
    let _ = kill_process(Pid::from_child(&child), Signal::KILL);
    child.wait().expect("a child of ours");
    assert!(came, "{moment:?} never came");
    desk.table() != before
}

/// One that slept through the end of its trial finds the next one under way, of the same text.
#[test]
fn an_old_watcher_leaves_a_newer_trial_alone() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let began = Instant::now();
    desk.apply(SOON);
    let old = desk.watchers();
    assert_eq!(old.len(), 1);
    kill_process(old[0], Signal::STOP).expect("started by this test");
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
    desk.apply(&["--yes", "--confirm", "1h"]);
    thread::sleep(secs(6).saturating_sub(began.elapsed()));
    kill_process(old[0], Signal::CONT).expect("started by this test");
    assert!(
        within(LIMIT, || !desk.watchers().contains(&old[0])),
        "it has ended"
    );
    assert_eq!(desk.state(), "pending");
    // Nor would the engine listen to it.
    let asked = Client::find(Some(engine.home().socket())).ask(&Request::GoBack { until_ms: Some(1) });
    assert!(
        matches!(asked, Ok(Reply::GoneBack(GoneBack::Another))),
        "{asked:?}"
    );
    assert_eq!(desk.state(), "pending");
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
    assert!(within(LIMIT, || desk.watchers().is_empty()));
}

#[test]
fn an_edit_in_its_place_comes_into_force_and_goes_back_with_the_file() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    desk.knows_what_is_in_force();
    engine.home().write_config(FIREWALL);
    let output = desk.ctl("apply", SOON);
    assert_eq!(output.code(), 0, "{}", output.text());
    assert_eq!(
        desk.read("verdictd.toml").as_deref(),
        Some(DETECTION),
        "a reboot goes back"
    );
    assert_eq!(desk.read("verdictd.toml.candidate").as_deref(), Some(FIREWALL));
    desk.must_be_back(&before, "edited");
    assert!(within(LIMIT, || desk
        .read("verdictd.toml.unconfirmed")
        .as_deref()
        == Some(FIREWALL)));
}

/// Who takes the rules out while a policy is on trial wants none back.
#[test]
fn rules_that_were_taken_out_do_not_come_back() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    desk.apply(SOON);
    let _home = engine.kill9();
    ns.nft("delete table inet verdictd");
    assert!(within(LIMIT, || desk.watchers().is_empty()));
    assert_eq!(desk.table(), "");
    assert_eq!(desk.read("verdictd.toml").as_deref(), Some(DETECTION));
}
