//! What somebody who took the engine over could do with it, and that it can do its work all the same: the built engine
//! between network namespaces, as root starts it and as it is packaged, an unprivileged user with CAP_NET_ADMIN alone.
//!
//! It needs root and fails without it: `sudo make test`.
#![allow(unsafe_code)] // ptrace, and what runs between fork and exec

#[path = "../common/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod common;

mod intruder;
mod lacking;
mod puppet;
mod work;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::engine::{Engine, Home, unprivileged};
use common::namespace::Namespace;

/// Who starts the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Root,
    /// CAP_NET_ADMIN alone, and the group root.
    User,
    /// CAP_NET_ADMIN alone.
    Alone,
}

const NOBODY: u32 = 65_534;

impl Who {
    fn home(self, config: &str) -> Home {
        match self {
            Who::Root => Home::new(config),
            _ => Home::for_anybody(config),
        }
    }

    fn command(self, command: &mut Command) {
        let groups = match self {
            Who::Root => return,
            Who::User => &["--groups", "0"][..],
            Who::Alone => &["--clear-groups"],
        };
        let mut bare = unprivileged(command, groups);
        for (name, value) in command.get_envs() {
            bare.env(name, value.expect("only set"));
        }
        *command = bare;
    }

    fn start<'a>(self, ns: &'a Namespace, config: &str) -> Engine<'a> {
        Engine::start_by(ns, self.home(config), |command| self.command(command))
    }
}

fn pid(engine: &Engine<'_>) -> u32 {
    let pid = engine.json("status")["pid"].as_u64().expect("a number");
    u32::try_from(pid).expect("a process number")
}

/// The value of a line of `/proc/PID/task/TID/status` for every thread, with its name.
fn of_threads(pid: u32, key: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let status = tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("status")));
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        line.unwrap_or_default().to_owned()
    };
    // A thread for a client may be gone meanwhile.
    let status = status.filter_map(Result::ok);
    status
        .map(|text| (value(&text, "Name"), value(&text, key)))
        .collect()
}

fn text(path: &Path) -> Vec<u8> {
    let mut text = path.to_str().expect("a plain path").as_bytes().to_vec();
    text.push(0);
    text
}
