//! A wall clock that is stepped by years, before, while and after an engine runs: what remains of a ban does not follow it.
//!
//! The clock is stepped for the engine alone, by libfaketime, which stands between it and `clock_gettime` of the C library.
//! The clocks that have no steps are the kernel's own. A reboot is a boot id and a boot clock of one's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::common::command::run;
use crate::common::engine::{Engine, Home};
use crate::common::lab::{HOST, Lab};
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};
use crate::mounts::Mounts;
use crate::promises::{Fate, Margin, Promises, monotonic};
use crate::subject::{CONFIG, MARGIN, quick, verify_bans, verify_within, wipe};

/// Where the engine's wall clock is, in seconds from the true one.
struct Clock {
    folder: tempfile::TempDir,
}

impl Clock {
    fn new() -> Clock {
        let clock = Clock {
            folder: tempfile::tempdir().unwrap(),
        };
        clock.step(0);
        clock
    }

    fn step(&self, offset: i64) {
        // By a rename: it is read at each look at the clock, also in the middle of a write.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{offset:+}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// `command` that goes by this clock.
    fn rules(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library());
        command.env("FAKETIME_TIMESTAMP_FILE", self.file());
        command.env("FAKETIME_NO_CACHE", "1");
        // Both names, of older and newer versions.
        command
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// A killed program leaves what libfaketime shares with its children: a semaphore and a page, by its process number.
impl Drop for Clock {
    fn drop(&mut self) {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = ["faketime_shm_", "sem.faketime_sem_"]
                .iter()
                .find_map(|start| name.strip_prefix(start)?.parse::<u32>().ok());
            if number.is_some_and(|number| !PathBuf::from(format!("/proc/{number}")).exists()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| path.exists());
    found.expect("libfaketime (sudo make test installs what is missing)")
}

/// Steps that no repair of a clock makes, and their names.
fn steps() -> [(&'static str, i64); 4] {
    let to = |there: OffsetDateTime| (there - OffsetDateTime::now_utc()).whole_seconds();
    const YEAR: i64 = 365 * 86_400;
    [
        ("a year ahead", YEAR),
        ("a year back", -YEAR),
        ("to 1970", to(datetime!(1970-01-01 0:01 UTC))),
        ("to 2038", to(datetime!(2038-01-19 3:14:00 UTC))),
    ]
}

/// Bans by an operator and by the engine, and what was promised of them.
struct Bans<'l> {
    lab: &'l Lab,
    promises: Promises,
    number: u8,
}

impl Bans<'_> {
    fn add(&mut self, engine: &Engine) {
        self.number += 1;
        let target = format!("198.51.100.{}", self.number);
        let from = monotonic() + secs(3600);
        engine.must(&["ban", &target, "--for", "1h"]);
        self.promises
            .must(&target, Fate::Until(from, monotonic() + secs(3600)));
        let source = format!("10.88.{}.7", self.number);
        let from = monotonic() + secs(20 * 60);
        Gun::new(&self.lab.attacker, &source, HOST).syns(5001..=5012);
        let line = format!("NOTICE [port_scanning] Ban {source}\n");
        assert!(
            within(secs(10), || engine.home().log().contains(&line)),
            "{}",
            engine.log()
        );
        self.promises
            .must(&source, Fate::Until(from, monotonic() + secs(20 * 60)));
    }

    fn verify(&self, engine: &Engine, what: &str) {
        verify_bans(engine, &self.lab.host, &self.promises, what);
    }
}

/// A clock that says so is what the rest of this file stands on.
#[test]
fn the_clock_of_a_program_is_stepped_while_it_runs() {
    let clock = Clock::new();
    for (name, offset) in steps() {
        clock.step(offset);
        let mut command = Command::new("date");
        clock.rules(command.arg("+%s"));
        let said: i64 = run(&mut command, secs(10)).stdout.trim().parse().unwrap();
        let meant = OffsetDateTime::now_utc().unix_timestamp() + offset;
        assert!((said - meant).abs() <= 2, "{name}: {said} {meant}");
    }
}

#[test]
fn a_stepped_clock_neither_frees_nor_prolongs() {
    let clock = Clock::new();
    let lab = Lab::new();
    let mut bans = Bans {
        lab: &lab,
        promises: Promises::default(),
        number: 0,
    };
    let start = |home| Engine::start_by(&lab.host, home, |command| clock.rules(command));
    let mut home = Home::below(&quick(), CONFIG);
    for (name, offset) in steps() {
        // While it runs: by the log, whose lines have the time, the step is seen.
        let engine = start(home);
        bans.add(&engine);
        clock.step(offset);
        bans.add(&engine);
        bans.verify(&engine, &format!("{name}, running"));
        assert_year(&engine, offset);
        home = engine.kill9();
        wipe(&lab.host);
        let engine = start(home);
        bans.verify(&engine, &format!("{name}, killed after the step"));
        clock.step(0);
        bans.verify(&engine, &format!("{name}, stepped back"));
        home = engine.stop();
        wipe(&lab.host);
        // Stepped while nobody looks, both ways.
        for offset in [offset, 0] {
            clock.step(offset);
            let engine = start(home);
            bans.verify(&engine, &format!("{name}, stepped between two engines"));
            assert!(
                engine.home().log().len() < 1 << 20,
                "a clock that jumps is no reason to flood the log"
            );
            home = if offset == 0 {
                engine.kill9()
            } else {
                engine.stop()
            };
            wipe(&lab.host);
        }
    }
    println!(
        "4 steps, each before, while and after an engine ran: {} bans within 2 s",
        bans.promises.len()
    );
}

/// The snapshot has the time as the engine sees it.
fn assert_year(engine: &Engine, offset: i64) {
    engine.must(&["snapshot"]);
    let text = fs::read_to_string(engine.home().state().join("state.toml")).unwrap();
    let there = OffsetDateTime::now_utc() + time::Duration::seconds(offset);
    assert!(
        text.contains(&format!("saved_at = {}-", there.year())),
        "the engine does not see the step: {}",
        &text[..200.min(text.len())]
    );
}

/// One boot after the other, in a mount and a time namespace.
struct Boots {
    mounts: Mounts,
    id: tempfile::NamedTempFile,
}

impl Boots {
    fn new() -> Boots {
        let boots = Boots {
            mounts: Mounts::new(),
            id: tempfile::NamedTempFile::new().unwrap(),
        };
        let id = boots.id.path().to_str().unwrap();
        boots.must_be(0);
        boots
            .mounts
            .must("mount", &["--bind", id, "/proc/sys/kernel/random/boot_id"]);
        boots
    }

    fn must_be(&self, number: u32) {
        fs::write(
            self.id.path(),
            format!("{number:08}-0000-4000-8000-000000000000\n"),
        )
        .unwrap();
    }

    /// `command` in boot `number`, which began `up` ago.
    fn inside(&self, command: &Command, number: u32, up: Duration) -> Command {
        self.must_be(number);
        let boottime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
        let offset = boottime.as_secs().saturating_sub(up.as_secs());
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--time", "--boottime", &format!("-{offset}")]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            wrapped.env(key, value.unwrap_or_default());
        }
        self.mounts.inside(&wrapped)
    }
}

/// After a reboot the boot's clock begins anew, and a machine without a battery begins in 1970.
#[test]
fn after_a_reboot_a_stepped_clock_neither_frees_nor_prolongs() {
    let clock = Clock::new();
    let lab = Lab::new();
    let boots = Boots::new();
    let (mut number, mut kept) = (0, 0);
    for (name, offset) in [("by a right clock", 0)].into_iter().chain(steps()) {
        for (before, after) in [(0, offset), (offset, offset), (offset, 0)] {
            // A state of its own each: what cannot be known of the time between two boots adds up.
            let mut bans = Bans {
                lab: &lab,
                promises: Promises::default(),
                number: number as u8,
            };
            let home = Home::below(&quick(), CONFIG);
            let start = |home: Home, number, offset| {
                clock.step(offset);
                Engine::start_by(&lab.host, home, |command| {
                    clock.rules(command);
                    *command = boots.inside(command, number, ms(200));
                })
            };
            let engine = start(home, number, before);
            bans.add(&engine);
            let killed = Instant::now();
            let home = engine.kill9();
            wipe(&lab.host);
            number += 1;
            let engine = start(home, number, after);
            // How long it was down is what a clock that is not believed cannot tell.
            let margin = Margin {
                over: MARGIN.over + killed.elapsed(),
                ..MARGIN
            };
            let what = format!("{name}: {before} before the reboot, {after} after it");
            verify_within(&engine, &lab.host, &bans.promises, &what, margin);
            engine.stop();
            wipe(&lab.host);
            number += 1;
            kept += bans.promises.len();
        }
    }
    println!("{number} boots: {kept} bans within 2 s");
}
