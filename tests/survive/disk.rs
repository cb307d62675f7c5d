//! A disk that is full, read-only, failing or hung: protection goes on, the last good file stays, one alert, and all is
//! well again by itself.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
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
use crate::subject::{CONFIG, enforced, files, quick, verify, wipe};

/// A host with its engine, whose state is on a disk of 8 MB, and a receiver of alerts.
struct Ground {
    lab: Lab,
    _echo: Echo,
    good: Good,
    mounts: Mounts,
    config: String,
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
        }
    }

    /// A home with a disk under its state.
    fn home(&self) -> Home {
        let home = Home::below(&quick(), &self.config);
        let image = image(&home);
        self.mounts.must("truncate", &["-s", "8M", &image]);
        self.mounts.must("mkfs.ext4", &["-q", &image]);
        self.mount(&home);
        home
    }

    fn mount(&self, home: &Home) {
        let state = home.state();
        let options = [
            "-t",
            "ext4",
            "-o",
            "loop",
            &image(home),
            state.to_str().expect("a plain path"),
        ];
        self.mounts.must("mount", &options);
    }

    /// What ext4 does when it finds itself damaged: nothing is written any more, also not to open files.
    fn abort(&self, home: &Home) {
        let state = home.state();
        self.mounts.must(
            "mount",
            &["-o", "remount,abort", state.to_str().expect("a plain path")],
        );
    }

    /// What an administrator does about it. The engine still has files open on what is taken away.
    fn repair(&self, home: &Home) {
        let state = home.state();
        self.mounts
            .must("umount", &["-l", state.to_str().expect("a plain path")]);
        let copy = image(home) + ".copy";
        self.mounts.must("cp", &[&image(home), &copy]);
        self.mounts.must("mv", &[&copy, &image(home)]);
        self.mount(home);
    }

    fn start(&self, home: Home, change: impl FnOnce(&mut Command)) -> Engine<'_> {
        Engine::start_by(&self.lab.host, home, |command| {
            change(command);
            *command = self.mounts.inside(command);
        })
    }

    /// The state as we see it.
    fn folder(&self, home: &Home) -> PathBuf {
        self.mounts.see(&home.state())
    }

    fn alerts(&self) -> usize {
        self.good.heard("state_degraded").len()
    }
}

fn image(home: &Home) -> String {
    home.config().with_file_name("image").display().to_string()
}

/// An operator's ban of an hour, which the kernel enforces whatever the disk does. Promised if it is acknowledged and
/// nothing is said to be wrong.
fn ban(ground: &Ground, engine: &Engine, promises: &mut Promises, target: &str) {
    let from = monotonic() + secs(3600);
    let answer = engine.ctl(&["ban", target, "--for", "1h"]);
    let fate = Fate::Until(from, monotonic() + secs(3600));
    match answer.code() == 0 && degraded(engine).is_empty() {
        true => promises.must(target, fate),
        false => promises.may(target, fate),
    }
    let there = || enforced(&ground.lab.host).contains_key(target);
    assert!(
        within(secs(10), there),
        "{target} is not in the kernel\n{}",
        engine.log()
    );
}

/// Somebody scans, and the kernel cuts him off; says when that ends.
fn scan(lab: &Lab, engine: &Engine, source: &str) -> (Fate, Duration) {
    let (begun, from) = (Instant::now(), monotonic() + FIRST_STEP);
    Gun::new(&lab.attacker, source, HOST).syns(5001..=5012);
    let there = || enforced(&lab.host).contains_key(source);
    assert!(
        within(secs(10), there),
        "{source} is not in the kernel\n{}",
        engine.log()
    );
    (Fate::Until(from, monotonic() + FIRST_STEP), begun.elapsed())
}

/// What is wrong with the state, in the words of `status`.
fn degraded(engine: &Engine) -> Vec<String> {
    let status = engine.json("status");
    let lines = status["degraded"].as_array().expect("an array").iter();
    lines
        .map(|line| line.as_str().expect("words").to_owned())
        .collect()
}

/// Lines of the log that an operator would be woken by.
fn errors(engine: &Engine) -> Vec<String> {
    let log = engine.home().log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.map(str::to_owned).collect()
}

/// From `trouble` to `relief`, seen from outside.
fn goes_on(what: &str, trouble: impl FnOnce(&Ground, &Home), relief: impl FnOnce(&Ground, &Home)) {
    let ground = Ground::new();
    let engine = ground.start(ground.home(), |_| {});
    let mut promises = Promises::default();
    ban(&ground, &engine, &mut promises, "198.51.100.1");
    engine.must(&["snapshot"]);
    trouble(&ground, engine.home());
    let file = ground.folder(engine.home()).join("state.toml");
    let good = fs::read(&file).expect("a snapshot");

    // Protection goes on: by an operator's word, by itself, and for who is honest.
    let begun = Instant::now();
    let (fate, _) = scan(&ground.lab, &engine, "10.88.1.7");
    ban(&ground, &engine, &mut promises, "198.51.100.2");
    let until = monotonic() + secs(3600);
    assert!(
        talks(&ground.lab.attacker, HOST, 80),
        "{what}: who is honest is not served"
    );
    let told = within(secs(20), || !degraded(&engine).is_empty());
    assert!(told, "{what}: nobody notices\n{}", engine.log());
    let noticed = begun.elapsed();
    // Some snapshots are tried, and each fails: it is told once.
    std::thread::sleep(secs(4));
    let reasons = degraded(&engine);
    assert!(
        (1..=2).contains(&reasons.len()),
        "{what}: journal and snapshot: {reasons:?}"
    );
    assert_eq!(errors(&engine).len(), 1, "{what}\n{}", engine.log());
    let heard = within(secs(10), || ground.alerts() > 0);
    assert!(
        heard && ground.alerts() == 1,
        "{what}: {} alerts\n{}",
        ground.alerts(),
        engine.log()
    );
    assert_eq!(
        fs::read(&file).expect("it is there"),
        good,
        "{what}: the last good file stays"
    );

    let begun = Instant::now();
    relief(&ground, engine.home());
    let well = within(secs(30), || degraded(&engine).is_empty());
    assert!(well, "{what}: {:?}\n{}", degraded(&engine), engine.log());
    let recovered = begun.elapsed();
    assert_eq!(
        (errors(&engine).len(), ground.alerts()),
        (1, 1),
        "{what}\n{}",
        engine.log()
    );
    // What was banned meanwhile is safe now, and what is acknowledged from now on.
    ban(&ground, &engine, &mut promises, "198.51.100.3");
    promises.must("10.88.1.7", fate);
    promises.must("198.51.100.2", Fate::Until(until - secs(20), until));
    let home = engine.kill9();
    wipe(&ground.lab.host);
    let engine = ground.start(home, |_| {});
    verify(&engine, &ground.lab.host, &promises, what);
    engine.stop();
    println!(
        "{what}: noticed within {:.1} s, one line and one event in {} s, well again within {:.1} s, {} bans kept",
        noticed.as_secs_f64(),
        4,
        recovered.as_secs_f64(),
        promises.len()
    );
}

/// Fills the disk to the last byte.
fn fill(folder: &Path) {
    let mut file = fs::File::create(folder.join("filler")).expect("a file");
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    // What does not get to the disk is no loss.
    let _ = file.sync_all();
}

#[test]
fn on_a_full_disk_protection_goes_on_and_it_is_well_again_by_itself() {
    goes_on(
        "a full disk",
        |ground, home| fill(&ground.folder(home)),
        |ground, home| fs::remove_file(ground.folder(home).join("filler")).expect("ours"),
    );
}

#[test]
fn on_a_disk_that_became_read_only_protection_goes_on_and_it_is_well_again_by_itself() {
    goes_on("a read-only disk", Ground::abort, Ground::repair);
}

/// Some calls fail, and what follows them does not: no ban is without effect, and none is lost that was said to be safe.
fn failing(call: &str, error: &str, when: &str) {
    let ground = Ground::new();
    let home = ground.home();
    let injection = Injection {
        calls: call.into(),
        what: format!("error={error}:when={when}"),
        paths: files(home.state(), 60),
    };
    let engine = ground.start(home, |command| *command = injection.around(command));
    let mut promises = Promises::default();
    let mut nth = 0;
    let mut seen = false;
    let end = Instant::now() + secs(60);
    while !(seen && degraded(&engine).is_empty()) {
        assert!(
            Instant::now() < end,
            "{call} {error}, seen: {seen}\n{}",
            engine.log()
        );
        nth += 1;
        ban(
            &ground,
            &engine,
            &mut promises,
            &format!("198.51.{}.{}", 100 + nth / 250, 1 + nth % 250),
        );
        seen |= !degraded(&engine).is_empty();
    }
    ban(&ground, &engine, &mut promises, "192.0.2.1");
    assert_eq!(errors(&engine).len(), 1, "{call} {error}\n{}", engine.log());
    let home = engine.kill9();
    wipe(&ground.lab.host);
    let engine = ground.start(home, |_| {});
    verify(&engine, &ground.lab.host, &promises, call);
    engine.stop();
    println!(
        "{error} of {call}: {} bans, all enforced, those kept that were acknowledged",
        promises.len()
    );
}

#[test]
fn a_sync_that_fails_costs_no_ban() {
    failing("fdatasync", "EIO", "4..8");
    failing("fsync", "EIO", "8..14");
}

#[test]
fn a_write_that_fails_costs_no_ban() {
    failing("write", "EIO", "10..16");
    failing("write", "ENOSPC", "10..16");
}

#[test]
fn a_name_that_is_not_given_costs_no_ban() {
    failing("renameat", "EIO", "3..5");
    failing("openat", "ENOSPC", "20..40");
}

/// Whoever waits for a disk waits alone.
#[test]
fn while_the_disk_hangs_scans_are_banned_and_status_answers() {
    let lab = Lab::new();
    let home = Home::below(&quick(), CONFIG);
    let injection = Injection {
        calls: "fsync,fdatasync".into(),
        what: "delay_enter=8000000:when=10+".into(),
        paths: files(home.state(), 60),
    };
    let engine = Engine::start_by(&lab.host, home, |command| *command = injection.around(command));
    let (mut slowest, mut seen) = ((Duration::ZERO, Duration::ZERO), false);
    for nth in 1..=12 {
        // Something to write down, for which nobody waits.
        let source = format!("10.88.{nth}.7");
        let (_, banned) = scan(&lab, &engine, &source);
        let begun = Instant::now();
        let status = engine.ctl(&["status"]);
        assert!([0, 4].contains(&status.code()), "{}", status.text());
        seen |= status.text().contains("waiting for the disk");
        slowest = (slowest.0.max(banned), slowest.1.max(begun.elapsed()));
        std::thread::sleep(ms(300));
    }
    println!(
        "a disk that takes 8 s a sync: a scan is banned within {:?}, status answers within {:?}",
        slowest.0, slowest.1
    );
    assert!(
        slowest.0 < secs(6) && slowest.1 < secs(6),
        "{slowest:?}\n{}",
        engine.log()
    );
    let waits = || seen || engine.ctl(&["status"]).text().contains("waiting for the disk");
    assert!(within(secs(15), waits), "no sync was delayed: {}", engine.log());
    drop(engine.kill9());
}

const FIRST_STEP: Duration = Duration::from_secs(20 * 60);
