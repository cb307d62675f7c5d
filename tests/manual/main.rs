//! The manual pages and completions that the package brings, against the programs: they are made of the same definition
//! of the command line, and of the commented default configuration.
//!
//! `VERDICTD_WRITE=1 cargo test --test manual` writes them.
#![allow(clippy::unwrap_used)] // a test may

mod page;
#[path = "../../src/bin/verdict-receiver/args.rs"]
#[allow(dead_code, unreachable_pub)] // its values are read by the program alone
mod receiver;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{ArgGroup, Command, CommandFactory};
use clap_complete::Shell;

/// A program's name, its command line, the program as built.
fn programs() -> [(&'static str, Command, &'static str); 3] {
    [
        (
            "verdictd",
            verdictd::cli::engine::command(),
            env!("CARGO_BIN_EXE_verdictd"),
        ),
        (
            "verdictctl",
            verdictd::cli::command(),
            env!("CARGO_BIN_EXE_verdictctl"),
        ),
        (
            "verdict-receiver",
            receiver::Args::command(),
            env!("CARGO_BIN_EXE_verdict-receiver"),
        ),
    ]
}

#[test]
fn pages_of_the_programs_are_those_of_the_code() {
    for (name, command, _) in programs() {
        let parts = read(&format!("packaging/man/parts/{name}.8"));
        same(&format!("packaging/man/{name}.8"), &page::of(command, &parts));
    }
}

#[test]
fn the_page_of_the_configuration_is_the_commented_default() {
    let made = reference::page(
        &read("config/verdictd.toml"),
        &read("packaging/man/parts/verdictd.toml.5"),
    );
    same("packaging/man/verdictd.toml.5", &made);
}

#[test]
fn every_key_that_is_known_is_in_the_page_with_its_default_and_no_other() {
    reference::compare_with_the_parser(&read("config/verdictd.toml"));
}

#[test]
fn completions_are_those_of_the_code() {
    for (name, command, _) in programs() {
        let mut command = shown(&command);
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            let mut made = Vec::new();
            clap_complete::generate(shell, &mut command, name, &mut made);
            let made = String::from_utf8(made).unwrap();
            let made: String = made
                .lines()
                .map(|line| format!("{}\n", line.trim_end()))
                .collect();
            same(&format!("packaging/completions/{file}"), &made);
        }
    }
}

/// Without what help does not show: clap_complete would offer it.
fn shown(command: &Command) -> Command {
    let mut shown = Command::new(leak(command.get_name()));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown
            .version(leak(version))
            .propagate_version(command.is_propagate_version_set());
    }
    let args: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    for group in command.get_groups() {
        let members = group
            .get_args()
            .filter(|id| args.iter().any(|arg| arg.get_id() == *id));
        shown = shown.group(ArgGroup::new(group.get_id().clone()).args(members).multiple(true));
    }
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.args(args).subcommands(below.map(self::shown))
}

/// clap takes names for the life of the program.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

/// Also those verbs that the definition gets from elsewhere.
#[test]
fn what_help_names_is_in_the_pages() {
    for (name, _, program) in programs() {
        let help = Process::new(program).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let verbs: Vec<&str> = verbs
            .take_while(|line| line.starts_with("  "))
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|verb| *verb != "help")
            .collect();
        assert!(verbs.len() >= 2, "{name}: {help}");
        let page = read(&format!("packaging/man/{name}.8")).replace('\\', "");
        for verb in verbs {
            assert!(
                page.contains(&format!("\"{name} {verb}")),
                "{name}(8) has no {verb}"
            );
        }
    }
}

/// That the pages are without fault says lintian, which the package's tests run; that they end where they should, this.
#[test]
fn no_page_changes_with_the_day() {
    for page in [
        "verdictd.8",
        "verdictctl.8",
        "verdict-receiver.8",
        "verdictd.toml.5",
    ] {
        let text = read(&format!("packaging/man/{page}"));
        let head = text.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(head.contains(" \"\" "), "{page} has a date: {head}");
    }
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The committed file is what was made; or becomes it.
#[track_caller]
fn same(path: &str, made: &str) {
    let file = root().join(path);
    let there = fs::read_to_string(&file).unwrap_or_default();
    if std::env::var_os("VERDICTD_WRITE").is_some() && there != made {
        fs::write(&file, made).unwrap();
        return;
    }
    let differs = || {
        there
            .lines()
            .zip(made.lines())
            .find(|(there, made)| there != made)
    };
    assert!(
        there == made,
        "{path} is not what the code gives, first in {:?}; write it with: VERDICTD_WRITE=1 cargo test --test manual",
        differs()
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
