//! No lock-out: a policy that would refuse the port of somebody's SSH session is not put into force.
//!
//! Logins are recorded in a file of utmp made here, which the engine finds in a /run of its own; the connection that
//! it goes by is a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use crate::common::command::Output;
use crate::common::engine::{Engine, FIREWALL, Home, table};
use crate::common::flow::{connect, echoes, talks};
use crate::common::lab::{CLIENT, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::{secs, within};

/// A record of glibc's utmp: a login from `host` that this process let in.
fn login(host: &str) -> Vec<u8> {
    let mut record = vec![0; if cfg!(target_arch = "aarch64") { 400 } else { 384 }];
    record[0] = 7;
    record[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
    record[8..13].copy_from_slice(b"pts/0");
    record[76..76 + host.len()].copy_from_slice(host.as_bytes());
    record
}

/// `command` with a /run that holds nothing but `records` as utmp.
fn with_logins(command: &Command, records: &Path) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "sh", "-ec"])
        .arg("mount -t tmpfs none /run; ln -s \"$0\" /run/utmp; exec \"$@\"")
        .arg(records)
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

/// Where the logins of these hosts are recorded.
fn records(home: &Home, hosts: &[&str]) -> PathBuf {
    let path = home.state().join("utmp");
    let all: Vec<u8> = hosts.iter().flat_map(|host| login(host)).collect();
    fs::write(&path, all).expect("a file of ours");
    path
}

fn refusal(ns: &Namespace, home: &Home, hosts: &[&str]) -> Output {
    ns.run(&mut with_logins(&home.command(), &records(home, hosts)), secs(20))
}

#[test]
fn a_start_that_would_refuse_a_sessions_port_changes_nothing() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[22, 2222, 2223]);
    let mut session = connect(lab.client(), HOST, 2222).expect("nothing is filtered yet");
    let mut other = connect(&lab.attacker, HOST6, 2223).expect("nothing is filtered yet");
    let from = other.local_addr().expect("an end").ip().to_string();
    let home = Home::new(FIREWALL);
    let output = refusal(&lab.host, &home, &[CLIENT, &from, "198.51.100.7"]);
    assert_eq!(output.code(), 1, "{}", output.text());
    for words in [
        &*format!("{CLIENT} is logged in through TCP port 2222"),
        &*format!("{from} is logged in through TCP port 2223"),
        "nothing was changed",
        "add 2222 to allowed_ports.tcp, or write allow_lockout = true under [engine]",
    ] {
        assert!(
            output.stderr.contains(words),
            "{words} is missing: {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("198.51.100.7"), "{}", output.stderr);
    assert_eq!(table(&lab.host), "");
    assert!(echoes(&mut session) && echoes(&mut other) && talks(lab.client(), HOST, 2222));

    // The same is foretold by check, which refuses nothing.
    let mut check = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    check.arg("check").arg("--config").arg(home.config());
    let told = lab
        .host
        .run(&mut with_logins(&check, &records(&home, &[CLIENT])), secs(20));
    assert_eq!(told.code(), 0, "{}", told.text());
    assert!(
        told.stdout
            .contains(&format!("refuse this configuration: {CLIENT}")),
        "{}",
        told.stdout
    );
}

/// Internal interfaces are not filtered: who comes in there is not locked out.
#[test]
fn a_guests_session_stops_no_start() {
    started(
        &format!("{FIREWALL}\n[engine]\ninternal_interfaces = [\"lan1\"]\n"),
        |lab, _| assert!(talks(lab.client(), HOST, 2222)),
    );
}

#[test]
fn a_reload_that_would_refuse_a_sessions_port_changes_nothing() {
    let open = FIREWALL.replace("22, 80", "22, 2222, 80");
    started(&open, |lab, home| {
        let before = table(&lab.host);
        home.write_config(FIREWALL);
        let refused = home.ctl(&["reload"]);
        assert_eq!(refused.code(), 1, "{}", refused.text());
        let words = format!("{CLIENT} is logged in through TCP port 2222");
        assert!(refused.text().contains(&words), "{}", refused.text());
        assert_eq!(table(&lab.host), before);
        assert!(talks(lab.client(), HOST, 2222));

        // Who has logged out is locked out of nothing.
        records(home, &[]);
        let done = home.ctl(&["reload"]);
        assert_eq!(done.code(), 0, "{}", done.text());
        assert!(!talks(lab.client(), HOST, 2222));
    });
}

/// Starts the engine with `CLIENT` logged in through 2222, runs `look` while it is up, and lets it end with the test.
fn started(config: &str, look: impl FnOnce(&Lab, &Home)) {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[22, 2222]);
    let mut session = connect(lab.client(), HOST, 2222).expect("nothing is filtered yet");
    let home = Home::new(config);
    let running = lab
        .host
        .start(&mut with_logins(&home.command(), &records(&home, &[CLIENT])));
    assert!(
        within(secs(15), || home.ctl(&["list"]).code() == 0),
        "not up: {}",
        running.finish(secs(1)).text()
    );
    look(&lab, &home);
    assert!(echoes(&mut session), "an open session goes on");
}

#[test]
fn a_policy_that_leaves_the_port_open_starts() {
    started(&FIREWALL.replace("22, 80", "22, 2222, 80"), |lab, _| {
        assert!(talks(lab.client(), HOST, 2222));
    });
}

#[test]
fn a_lockout_that_is_meant_starts_and_open_sessions_go_on() {
    started(
        &format!("{FIREWALL}\n[engine]\nallow_lockout = true\n"),
        |lab, _| {
            assert!(!talks(lab.client(), HOST, 2222) && talks(lab.client(), HOST, 22));
        },
    );
}

#[test]
fn a_connection_that_nobody_logged_in_through_stops_no_start() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[2222]);
    let mut open = connect(lab.client(), HOST, 2222).expect("nothing is filtered yet");
    let engine = Engine::start(&lab.host, FIREWALL);
    thread::sleep(secs(1));
    assert!(
        echoes(&mut open) && !talks(lab.client(), HOST, 2222),
        "{}",
        engine.log()
    );
}
