//! Protection without a usable configuration, and without an engine.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, mknodat};

use crate::common::command::Output;
use crate::common::engine::{Engine, FIREWALL, Home, table};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab, NEIGHBOUR};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::watch::set_elements;
use crate::common::{secs, within};

/// `verdictd restore` of what is at `home`.
fn restore(ns: &Namespace, home: &Home) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    command.arg("restore").arg("--config").arg(home.config());
    command.arg("--state-dir").arg(home.state());
    ns.run(&mut command, secs(60))
}

fn degraded(engine: &Engine<'_>) -> String {
    engine.json("status")["degraded"].to_string()
}

#[test]
fn a_file_that_cannot_be_used_is_made_up_for_by_what_was_last_in_force() {
    let spoil: [fn(&Path); 3] = [
        |file| fs::write(file, FIREWALL.replace("[22, 80, 443]", "[22, 80, 443")).expect("ours"),
        |file| fs::write(file, FIREWALL.replace("22, 80", "22, 70000")).expect("ours"),
        |file| fs::remove_file(file).expect("ours"),
    ];
    let words = ["verdictd.toml:", "70000", "no such file"];
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let mut home = Engine::start(&lab.host, FIREWALL).stop();
    for (spoil, words) in spoil.iter().zip(words) {
        spoil(&home.config());
        let engine = Engine::start_in(&lab.host, home, &[]);
        assert!(
            degraded(&engine).contains(words),
            "{words}: {}",
            degraded(&engine)
        );
        assert_eq!(engine.ctl(&["status"]).code(), 4, "{}", engine.log());
        assert!(talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306));

        // A file that is still no good changes nothing, a mended one is what is in force from then on.
        assert_eq!(engine.ctl(&["reload"]).code(), 1);
        engine.home().write_config(FIREWALL);
        engine.must(&["reload"]);
        assert_eq!(degraded(&engine), "[]", "{}", engine.log());
        home = engine.stop();
    }
}

#[test]
fn what_was_never_in_force_is_no_fallback() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine
        .home()
        .write_config(&FIREWALL.replace("tcp = [22", "tcp = [2222"));
    let home = engine.stop();
    // What was edited and neither reloaded nor started from is not what it goes back to.
    let good = fs::read_to_string(home.state().join("config.good")).expect("kept");
    assert_eq!(good, FIREWALL);

    let never = Home::new("[firewall\n");
    assert_eq!(Engine::refuse(&lab.host, &never).code(), 2);
    let output = restore(&lab.host, &never);
    assert_eq!(output.code(), 2, "{}", output.text());
    assert!(output.stderr.contains("verdictd.toml:1:"), "{}", output.text());
}

#[test]
fn rules_and_bans_are_back_without_an_engine_and_the_next_one_adopts_them() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    engine.must(&["ban", NEIGHBOUR, "--for", "1h"]);
    engine.must(&["ban", "203.0.113.0/24", "--for", "30m"]);

    let running = restore(&lab.host, engine.home());
    assert_eq!(running.code(), 1, "{}", running.text());
    assert!(
        running.stderr.contains("another engine runs"),
        "{}",
        running.text()
    );

    let home = engine.kill9();
    let state = files(&home.state());
    lab.host.nft("delete table inet verdictd");
    for _ in 0..2 {
        // The first makes the table, the second finds it.
        let output = restore(&lab.host, &home);
        assert_eq!(output.code(), 0, "{}", output.text());
        assert!(
            output.stdout.contains("mode firewall, 3 bans"),
            "{}",
            output.text()
        );
        assert!(!talks(&lab.attacker, HOST, 80), "{}", table(&lab.host));
        assert!(talks(lab.client(), HOST, 80) && !talks(lab.client(), HOST, 3306));
    }
    assert_eq!(files(&home.state()), state, "it only looks at the state");
    let mut banned = set_elements(&lab.host, "verdictd", "banned4");
    banned.sort_unstable();
    assert_eq!(banned, [ATTACKER, NEIGHBOUR]);

    let engine = Engine::start_in(&lab.host, home, &[]);
    assert_eq!(degraded(&engine), "[]", "{}", engine.log());
    assert_eq!(engine.bans().len(), 3, "{}", engine.log());
    let remaining = engine.ban_of(ATTACKER).expect("a ban")["remaining_seconds"].as_u64();
    assert!(
        remaining.is_some_and(|left| left > 3000 && left <= 3600),
        "{remaining:?}"
    );
    assert!(within(secs(10), || talks(lab.client(), HOST, 80)));
}

/// The folder of the state is the engine's, who may be taken over; root restores from it.
#[test]
fn what_lies_in_the_place_of_the_lock_leads_root_nowhere() {
    let ns = Namespace::new("host");
    let plant: [fn(&Path); 2] = [
        |lock| symlink("elsewhere", lock).expect("ours"),
        |lock| mknodat(CWD, lock, FileType::Fifo, 0o600.into(), 0).expect("ours"),
    ];
    for plant in plant {
        let home = Home::new(FIREWALL);
        plant(&home.state().join("lock"));
        let output = restore(&ns, &home);
        assert_eq!(output.code(), 0, "{}", output.text());
        assert!(!home.state().join("elsewhere").exists());
        let lock = fs::symlink_metadata(home.state().join("lock")).expect("a lock");
        assert!(lock.is_file() && table(&ns).contains("chain"));
    }
    // A second name of a file of root's, which the engine is not given.
    let home = Home::new(FIREWALL);
    let secret = home.state().join("secret");
    fs::write(&secret, "root's").expect("ours");
    fs::hard_link(&secret, home.state().join("lock")).expect("ours");
    chown(home.state(), Some(12345), Some(12345)).expect("root may");
    assert_eq!(restore(&ns, &home).code(), 0);
    assert_eq!(fs::metadata(&secret).expect("ours").uid(), 0);
    assert_eq!(fs::read(&secret).expect("ours"), b"root's");

    let home = Home::new(FIREWALL);
    chown(home.state(), Some(12345), Some(12345)).expect("root may");
    assert_eq!(restore(&ns, &home).code(), 0);
    let lock = fs::metadata(home.state().join("lock")).expect("a lock");
    assert_eq!(lock.uid(), 12345, "the engine could not open it");
}

/// Names and contents, but for the lock.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut all: Vec<_> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect();
    all.sort();
    all
}
