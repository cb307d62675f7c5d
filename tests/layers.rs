//! Reads the sources and holds them to the layers: `core` decides and touches no edge, and `unsafe` stands only
//! under `src/kernel/`.
#![allow(clippy::unwrap_used)] // a test may

use std::fs;
use std::path::{Path, PathBuf};

/// Words that no line of `src/core/` may hold, with the reason that a failure gives.
const FORBIDDEN_IN_CORE: &[(&str, &str)] = &[
    ("std::fs", "files"),
    ("std::io", "input and output"),
    ("std::process", "processes"),
    ("std::env", "the environment"),
    ("std::thread", "threads"),
    ("UdpSocket", "sockets"),
    ("TcpStream", "sockets"),
    ("TcpListener", "sockets"),
    ("Mutex", "locks"),
    ("RwLock", "locks"),
    ("Condvar", "locks"),
    ("mpsc", "channels"),
    ("SystemTime", "clocks"),
    ("Instant::now", "clocks"),
    (".elapsed()", "clocks"),
    ("tracing", "logging"),
    ("println!", "output"),
    ("serde", "formats"),
    ("toml", "formats"),
    ("clap", "the command line"),
    ("libc", "system calls"),
    ("rustix", "system calls"),
    ("signal_hook", "signals"),
    ("mnl", "netlink"),
    ("nftnl", "netlink"),
    ("nfq", "netlink"),
    ("crossbeam", "channels"),
    ("crate::config", "an outer layer"),
    ("crate::kernel", "an outer layer"),
    ("crate::engine", "an outer layer"),
    ("crate::control", "an outer layer"),
    ("crate::notify", "an outer layer"),
    ("crate::cli", "an outer layer"),
    ("crate::stats", "an outer layer"),
    ("crate::state", "an outer layer"),
    ("crate::selftest", "an outer layer"),
    ("crate::audit", "an outer layer"),
    ("crate::integrity", "an outer layer"),
    ("crate::monitor", "an outer layer"),
    ("crate::webhook", "an outer layer"),
    ("crate::preflight", "an outer layer"),
];

/// Outer rooms, and the rooms that may name them.
const OUTER: &[(&str, &[&str])] = &[
    ("engine", &["engine", "preflight", "cli"]),
    ("selftest", &["selftest", "monitor", "cli"]),
    ("integrity", &["integrity", "monitor", "cli"]),
    ("monitor", &["monitor", "cli"]),
    ("preflight", &["preflight", "cli"]),
    ("cli", &["cli"]),
];

#[test]
fn core_imports_no_edge() {
    let faults: Vec<String> = sources("src/core")
        .iter()
        .flat_map(|(path, text)| core_faults(path, text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn outer_rooms_are_named_by_those_around_them_alone() {
    let faults: Vec<String> = sources("src")
        .iter()
        .flat_map(|(path, text)| outer_faults(path, text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (path, line, bad) in [
        ("src/preflight/mod.rs", "use crate::cli::print::plain;", true),
        ("src/engine/open.rs", "use crate::{core, preflight};", true),
        ("src/kernel.rs", "let x = crate::engine::open::FIRST;", true),
        ("src/preflight/mod.rs", "use crate::engine::lockout;", false),
        ("src/kernel/mod.rs", "//! As crate::engine does.", false),
        ("src/kernel/mod.rs", "use super::preflight::Backend;", false),
    ] {
        assert_eq!(!outer_faults(path, line).is_empty(), bad, "{path}: {line}");
    }
}

#[test]
fn unsafe_stands_only_under_kernel() {
    let outside = sources("src")
        .into_iter()
        .filter(|(path, _)| !path.starts_with("src/kernel/"));
    let faults: Vec<String> = outside
        .flat_map(|(path, text)| unsafe_faults(&path, &text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let bad = [
        "use std::fs::File;",
        "use std::{collections::HashMap, fs::File};",
        "use std::net::{IpAddr, UdpSocket};",
        "    let now = Instant::now();",
        "use std::sync::{Arc, Mutex};",
        "use nfq::Queue;",
        "use super::super::engine::worker;",
        "use crate::{config, core};",
        "let seen = tracing::debug!(\"x\");",
    ];
    for line in bad {
        assert_eq!(core_faults("src/core/bad.rs", line).len(), 1, "{line}");
    }
    let good = [
        "use std::net::{IpAddr, Ipv4Addr};",
        "use std::time::{Duration, Instant};",
        "//! The kernel's nfq queue, std::fs and Instant::now() in words.",
        "let decided = 1; // not by libc",
        "let mnlike = nfqueue + toml_like;",
        "use crate::core::prefix::Prefix;",
        "#[cfg(test)]\nmod tests {\n    let now = Instant::now();\n}",
    ];
    for text in good {
        assert_eq!(
            core_faults("src/core/good.rs", text),
            Vec::<String>::new(),
            "{text}"
        );
    }
    assert_eq!(unsafe_faults("src/x.rs", "fn f() {}\nunsafe { g() }").len(), 1);
    assert_eq!(unsafe_faults("src/x.rs", "#![allow(unsafe_code)]").len(), 1);
    assert!(unsafe_faults("src/x.rs", "#![forbid(unsafe_code)]\n// no unsafe here").is_empty());
}

#[test]
fn the_checker_reads_what_is_there() {
    let core: Vec<String> = sources("src/core").into_iter().map(|(path, _)| path).collect();
    assert!(
        core.iter().any(|path| path == "src/core/judge/mod.rs"),
        "{core:?}"
    );
    let tests_elsewhere = "#[cfg(test)]\nmod tests;\nuse std::fs;";
    assert_eq!(core_faults("src/core/judge/mod.rs", tests_elsewhere).len(), 1);
    assert!(core_faults("src/core/judge/tests.rs", "let now = Instant::now();").is_empty());
}

/// What `text` holds that core must not, a line each. The tests at the foot of a file may read a clock: they
/// need a first moment to count from.
fn core_faults(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("/tests.rs") {
        return Vec::new(); // tests in a file of their own, declared `#[cfg(test)] mod tests;`
    }
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    numbered(body)
        .filter_map(|(number, line)| {
            let reason = forbidden(line)?;
            Some(format!(
                "{path}:{number}: core must not touch {reason}: {}",
                line.trim()
            ))
        })
        .collect()
}

fn forbidden(line: &str) -> Option<&'static str> {
    let direct = FORBIDDEN_IN_CORE.iter().find(|(word, _)| has_word(line, word));
    direct
        .map(|(_, reason)| *reason)
        .or_else(|| forbidden_in_group(line))
}

/// `use std::{fs, …}`, `use crate::{config, …}` and `super::super::engine` name the same things apart.
fn forbidden_in_group(line: &str) -> Option<&'static str> {
    let after = ["std::{", "crate::{", "super::super::"]
        .iter()
        .find_map(|start| line.split_once(start))?;
    let paths = FORBIDDEN_IN_CORE.iter().filter_map(|(path, reason)| {
        let last = path
            .strip_prefix("std::")
            .or_else(|| path.strip_prefix("crate::"))?;
        Some((last, *reason))
    });
    paths
        .into_iter()
        .find(|(last, _)| has_word(after.1, last))
        .map(|(_, reason)| reason)
}

/// Outer rooms that `text` names and may not, a line each.
fn outer_faults(path: &str, text: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/");
    let room = inside.split(['/', '.']).next().unwrap_or(inside);
    let mut faults = Vec::new();
    for (number, line) in numbered(text) {
        let group = line.split_once("crate::{").map_or("", |(_, group)| group);
        for (outer, around) in OUTER {
            let named = has_word(line, &format!("crate::{outer}")) || has_word(group, outer);
            if named && !around.contains(&room) {
                faults.push(format!(
                    "{path}:{number}: {room} must not know {outer}: {}",
                    line.trim()
                ));
            }
        }
    }
    faults
}

fn unsafe_faults(path: &str, text: &str) -> Vec<String> {
    numbered(text)
        .filter(|(_, line)| has_word(line, "unsafe") || line.contains("allow(unsafe_code)"))
        .map(|(number, line)| {
            format!(
                "{path}:{number}: unsafe belongs under src/kernel/: {}",
                line.trim()
            )
        })
        .collect()
}

/// Lines with their numbers and without their comments.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(|line| line.split("//").next().unwrap_or(line)))
}

/// Whether `word` stands in `line` and is not a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joined =
            |edge: Option<char>, end: Option<char>| edge.is_some_and(of_name) && end.is_some_and(of_name);
        !joined(before, word.chars().next()) && !joined(after, word.chars().next_back())
    })
}

/// Every Rust source under a folder of the package: path from its top, and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
