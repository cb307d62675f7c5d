//! A disk that is full, read-only, failing or hung: protection goes on, the last good file stays, one alert, and all is
//! well again by itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::engine::{Engine, Home};
use crate::common::flow::talks;
use crate::common::lab::{HOST, Lab};
use crate::common::peers::Good;
use crate::common::service::Echo;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};
use crate::mounts::Mounts;
use crate::points::Injection;
use crate::promises::{Fate, Promises, monotonic};
use crate::subject::{CONFIG, enforced, files, verify, wipe};

/// A host with its engine, whose state is on a disk of 8 MB, and a receiver of alerts.
struct Ground {
    lab: Lab,
    _echo: Echo,
    good: Good,
    mounts: Mounts,
    config: String,
    promises: Promises,
}

impl Ground {
    fn new() -> Ground {
        let lab = Lab::new();
        let echo = Echo::tcp(&lab.host, &[80]);
        let good = lab.host.inside(Good::start);
        let config = format!(
            "{CONFIG}[webhooks]\nenabled = true\nrate_limit = 100000\nbatch_timeout = 1\n\
             [[webhooks.endpoints]]\nname = \"soc\"\nurl = \"http://{}/\"\n",
            good.address
        );
        Ground {
            lab,
            _echo: echo,
            good,
            mounts: Mounts::new(),
            config,
            promises: Promises::default(),
        }
    }

    /// With a disk under the state of a new home.
    fn home(&self) -> Home {
        let home = Home::new(&self.config);
        let state = home.state();
        let state = state.to_str().expect("a plain path");
        let image = format!("{state}.image");
        self.mounts.must("truncate", &["-s", "8M", &image]);
        self.mounts.must("mkfs.ext4", &["-q", &image]);
        self.mounts
            .must("mount", &["-t", "ext4", "-o", "loop", &image, state]);
        home
    }

    fn start(&self, home: Home) -> Engine<'_> {
        Engine::start_by(&self.lab.host, home, |command| {
            *command = self.mounts.inside(command)
        })
    }

    fn remount(&self, home: &Home, how: &str) {
        let state = home.state();
        self.mounts.must(
            "mount",
            &["-o", &format!("remount,{how}"), state.to_str().expect("plain")],
        );
    }

    /// An operator's ban of an hour: promised only if it is acknowledged, in the kernel in any case.
    fn ban(promises: &mut Promises, engine: &Engine, target: &str) {
        let from = monotonic() + secs(3600);
        let answer = engine.ctl(&["ban", target, "--for", "1h"]);
        let fate = Fate::Until(from, monotonic() + secs(3600));
        match answer.code() {
            0 => promises.must(target, fate),
            _ => promises.may(target, fate),
        }
    }

    /// Killed, the table wiped, started again: everything that `promises` holds must be there.
    fn survives(&self, engine: Engine, what: &str) {
        let home = engine.kill9();
        wipe(&self.lab.host);
        let engine = self.start(home);
        verify(&engine, &self.lab.host, &self.promises, what);
        engine.stop();
    }
}

/// What is wrong with the state, in the words of `status`.
fn degraded(engine: &Engine) -> Vec<String> {
    let status = engine.json("status");
    let lines = status["degraded"].as_array().expect("an array");
    lines
        .iter()
        .map(|line| line.as_str().expect("words").to_owned())
        .collect()
}

/// Lines of the log that an operator would be woken by.
fn alerts(engine: &Engine) -> Vec<String> {
    let log = engine.home().log();
    log.lines()
        .filter(|line| line.contains("ERROR"))
        .map(str::to_owned)
        .collect()
}

/// From `trouble` to `relief`, seen from outside.
fn goes_on(what: &str, trouble: impl FnOnce(&Ground, &Home), relief: impl FnOnce(&Ground, &Home)) {
    let ground = Ground::new();
    let engine = {
        let home = ground.home();
        // An engine borrows the lab for as long as it lives, and the ground is used beside it.
        let ground: &Ground = &ground;
        let engine = ground.start(home);
        engine.kill9()
    };
    let file = ground.mounts.see(&engine.state().join("state.toml"));
    let mut promises = Promises::default();
    let alerts_at;
    let (recovered, noticed);
    let home = {
        let lab = &ground.lab;
        let engine = Engine::start_by(&lab.host, engine, |command| {
            *command = ground.mounts.inside(command)
        });
        Ground::ban(&mut promises, &engine, "198.51.100.1");
        engine.must(&["snapshot"]);
        let good = fs::read(&file).expect("a snapshot");
        trouble(&ground, engine.home());
        let begun = Instant::now();
        assert!(
            within(secs(20), || !degraded(&engine).is_empty()),
            "{what}: nobody notices\n{}",
            engine.log()
        );
        noticed = begun.elapsed();
        let reasons = degraded(&engine);
        assert_eq!(reasons.len(), 1, "{what}: one sentence says it: {reasons:?}");
        // Protection goes on: by an operator's word and by itself.
        Ground::ban(&mut promises, &engine, "198.51.100.2");
        assert!(within(secs(10), || enforced(&lab.host).contains_key("198.51.100.2")));
        Gun::new(&lab.attacker, "10.88.1.7", HOST).syns(5001..=5012);
        assert!(within(secs(10), || enforced(&lab.host).contains_key("10.88.1.7")));
        let from = monotonic();
        promises.may(
            "10.88.1.7",
            Fate::Until(from.saturating_sub(secs(10)) + FIRST_STEP, from + FIRST_STEP),
        );
        assert!(
            talks(&lab.attacker, HOST, 80),
            "{what}: an honest client is served"
        );
        // Some snapshots are tried, and each fails: nothing of that is told again.
        std::thread::sleep(secs(4));
        assert_eq!(
            fs::read(&file).expect("it is there"),
            good,
            "{what}: the last good file stays"
        );
        alerts_at = alerts(&engine);
        assert_eq!(alerts_at.len(), 1, "{what}\n{}", engine.log());
        let heard = || ground.good.heard("state_degraded").len();
        assert!(
            within(secs(10), || heard() == 1),
            "{what}: {} alerts\n{}",
            heard(),
            engine.log()
        );
        let begun = Instant::now();
        relief(&ground, engine.home());
        assert!(
            within(secs(30), || degraded(&engine).is_empty()),
            "{what}: {:?}\n{}",
            degraded(&engine),
            engine.log()
        );
        recovered = begun.elapsed();
        // Well again: what is acknowledged from now on, and what was banned meanwhile, is kept.
        Ground::ban(&mut promises, &engine, "198.51.100.3");
        let now = monotonic();
        promises.must("198.51.100.2", Fate::Until(now + secs(3500), now + secs(3600)));
        promises.must(
            "10.88.1.7",
            Fate::Until((now + FIRST_STEP).saturating_sub(secs(100)), now + FIRST_STEP),
        );
        assert_eq!(ground.good.heard("state_degraded").len(), 1);
        assert_eq!(alerts(&engine), alerts_at, "{what}");
        engine.kill9()
    };
    wipe(&ground.lab.host);
    let engine = ground.start(home);
    verify(&engine, &ground.lab.host, &promises, what);
    engine.stop();
    println!(
        "{what}: noticed within {:.1} s, one alert, well again within {:.1} s, {} bans kept through a kill",
        noticed.as_secs_f64(),
        recovered.as_secs_f64(),
        promises.len()
    );
}

/// Fills the disk to the last byte.
fn fill(folder: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(folder.join("filler")).expect("a file");
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    let _ = file.sync_all();
}

#[test]
fn on_a_full_disk_protection_goes_on_and_it_is_well_again_by_itself() {
    goes_on(
        "a full disk",
        |ground, home| fill(&ground.mounts.see(&home.state())),
        |ground, home| fs::remove_file(ground.mounts.see(&home.state()).join("filler")).expect("ours"),
    );
}

#[test]
fn on_a_read_only_disk_protection_goes_on_and_it_is_well_again_by_itself() {
    goes_on(
        "a read-only disk",
        // A remount waits for files that are open for writing: the disk itself is what no longer takes anything.
        |ground, home| ground.remount(home, "ro"),
        |ground, home| ground.remount(home, "rw"),
    );
}

/// Some calls fail, one kind after the other, and what follows does not.
#[test]
fn calls_that_fail_cost_no_ban_and_are_over_when_they_are() {
    let mut told = Vec::new();
    for (call, error) in [
        ("fdatasync", "EIO"),
        ("fsync", "EIO"),
        ("write", "EIO"),
        ("write", "ENOSPC"),
        ("renameat", "EIO"),
        ("openat", "ENOSPC"),
    ] {
        told.push(format!("{call} {error}: {}", failing(call, error)));
    }
    println!("failing calls: {}", told.join(", "));
}

fn failing(call: &str, error: &str) -> String {
    let mut ground = Ground::new();
    let home = ground.home();
    let injection = Injection {
        calls: call.into(),
        // Not the first ones: they are those of the start, which must find a state it can use.
        what: format!("error={error}:when=8..20"),
        paths: files(home.state(), 60),
    };
    let mut promises = Promises::default();
    let mut scanned = Promises::default();
    let home = {
        let engine = Engine::start_by(&ground.lab.host, home, |command| {
            *command = ground.mounts.inside(&injection.around(command));
        });
        let mut seen = false;
        let end = Instant::now() + secs(40);
        let mut nth = 0;
        // Until it has failed and is well again.
        while !(seen && degraded(&engine).is_empty()) {
            assert!(
                Instant::now() < end,
                "{call} {error}, seen: {seen}\n{}",
                engine.log()
            );
            nth += 1;
            let target = format!("198.51.100.{nth}");
            Ground::ban(&mut promises, &engine, &target);
            let there = || enforced(&ground.lab.host).contains_key(&target);
            assert!(
                within(secs(10), there),
                "{target} is not in the kernel\n{}",
                engine.log()
            );
            seen |= !degraded(&engine).is_empty();
            std::thread::sleep(ms(50));
        }
        Ground::ban(&mut promises, &engine, "198.51.100.250");
        scanned.must("198.51.100.250", Fate::Forever);
        engine.kill9()
    };
    ground.promises = promises;
    wipe(&ground.lab.host);
    let engine = ground.start(home);
    verify(&engine, &ground.lab.host, &ground.promises, call);
    ground.survives(engine, call);
    format!("{} bans", ground.promises.len())
}

/// Whoever waits for a disk waits alone.
#[test]
fn while_the_disk_hangs_scans_are_banned_and_status_answers() {
    let lab = Lab::new();
    let home = Home::new(CONFIG);
    let injection = Injection {
        calls: "fsync,fdatasync".into(),
        what: "delay_enter=3000000:when=10+".into(),
        paths: files(home.state(), 60),
    };
    let engine = Engine::start_by(&lab.host, home, |command| *command = injection.around(command));
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for nth in 1..=12 {
        // Something to write down, for which nobody waits.
        let source = format!("10.88.{nth}.7");
        let begun = Instant::now();
        Gun::new(&lab.attacker, &source, HOST).syns(5001..=5012);
        assert!(within(secs(10), || enforced(&lab.host).contains_key(&source)));
        let banned = begun.elapsed();
        let begun = Instant::now();
        let status = engine.ctl(&["status"]);
        assert!([0, 4].contains(&status.code()), "{}", status.text());
        slowest = (slowest.0.max(banned), slowest.1.max(begun.elapsed()));
        std::thread::sleep(ms(300));
    }
    println!(
        "a disk that takes 3 s a sync: a scan is banned within {:?}, status answers within {:?}",
        slowest.0, slowest.1
    );
    assert!(
        slowest.0 < secs(2) && slowest.1 < secs(2),
        "{slowest:?}\n{}",
        engine.log()
    );
    drop(engine.kill9());
}

const FIRST_STEP: Duration = Duration::from_secs(20 * 60);
