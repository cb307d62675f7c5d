//! The units as systemd reads them: nothing in them that it does not know, and a sandbox around the engine that
//! `systemd-analyze security` calls 1.5 at most. Whether they work is shown in the virtual machine (tests/vm).
#![allow(clippy::unwrap_used)] // a test may

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");

fn units() -> Vec<PathBuf> {
    let entries = fs::read_dir(UNITS).unwrap().map(|entry| entry.unwrap().path());
    let mut units: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "service"))
        .collect();
    units.sort();
    units
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(["--no-pager"]).args(arguments).args(units);
    command.output().expect("systemd-analyze: packaging/deps.sh test")
}

fn words(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Highest exposure of each, in tenths; the monitor is root and acts on the whole system, its sandbox is what it has today.
fn most(unit: &Path) -> u8 {
    match unit.file_name().unwrap().to_str().unwrap() {
        "verdictd-monitor.service" => 85,
        _ => 15,
    }
}

#[test]
fn no_unit_is_more_exposed_than_its_work_asks_for() {
    assert!(units().iter().any(|unit| unit.ends_with("verdictd.service")));
    for unit in units() {
        let most = format!("--threshold={}", most(&unit));
        let said = analyze(
            &["security", "--offline=true", &most],
            std::slice::from_ref(&unit),
        );
        assert!(said.status.success(), "{}: {}", unit.display(), words(&said));
    }
}

#[test]
fn systemd_understands_every_line_of_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    // The programs need not be installed.
    let here = Path::new(env!("CARGO_BIN_EXE_verdictd")).parent().unwrap();
    let copies: Vec<PathBuf> = units()
        .iter()
        .map(|unit| {
            let text = fs::read_to_string(unit).unwrap();
            let text = text.replace("/usr/bin/verdict", &format!("{}/verdict", here.display()));
            let text = text.replace(
                "/usr/lib/verdictd",
                concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/lib"),
            );
            let copy = folder.path().join(unit.file_name().unwrap());
            fs::write(&copy, text).unwrap();
            copy
        })
        .collect();
    let said = analyze(&["verify", "--man=no"], &copies);
    assert_eq!((said.status.success(), words(&said).as_str()), (true, ""));
}

/// What runs as root on an operator's host, before any program of ours.
#[test]
fn shellcheck_has_nothing_to_say_about_what_the_packages_run() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let mut scripts = Vec::new();
    for folder in ["lib", "debian/verdictd", "debian/verdict-receiver"] {
        let entries = fs::read_dir(home.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        scripts.extend(paths.filter(|path| fs::read(path).unwrap().starts_with(b"#!/bin/sh\n")));
    }
    assert!(scripts.len() >= 8, "{scripts:?}");
    let said = Command::new("shellcheck").args(&scripts).output();
    let said = said.expect("shellcheck: packaging/deps.sh test");
    assert_eq!((said.status.success(), words(&said).as_str()), (true, ""));
}
