//! docs/webhooks.md says what is so: its payloads are those that are sent, its examples run and do what they say, its
//! container starts.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

mod actions;
mod docker;
mod pages;
#[path = "../receiver/rig.rs"]
#[allow(dead_code, reason = "the receiver's tests use the rest")]
mod rig;
mod stub;
#[path = "../../docs/examples/webhooks/rust/verify.rs"]
#[allow(
    unreachable_pub,
    reason = "an example is written for a module of its reader's own"
)]
mod verify;
mod verifying;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use time::OffsetDateTime;
use verdictd::webhook::event::{Now, sample};
use verdictd::webhook::wire::{Batch, Event, EventType};

use self::rig::{KEY, Post, Receiver};

/// A path below the top of the source.
fn home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Events as the engine's library makes them, signed by it.
fn batch(events: Vec<Event>) -> Post {
    Post::of(Batch::new(events, OffsetDateTime::now_utc()).body())
}

fn one(kind: EventType) -> Event {
    sample(kind, Now::read())
}

/// A running example and where it keeps things.
struct Example {
    program: Receiver,
    folder: TempDir,
}

impl Example {
    /// Starts `docs/examples/webhooks/<path>` on a free port; `variables` see the folder made for it.
    fn start(path: &str, variables: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> Example {
        Example::start_with(path, &format!("{KEY}\n"), variables)
    }

    /// The same with these secrets, one a line.
    fn start_with(
        path: &str,
        secrets: &str,
        variables: impl FnOnce(&Path) -> Vec<(&'static str, String)>,
    ) -> Example {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, secrets).unwrap();
        let interpreter = match path.rsplit('.').next() {
            // Debian's own: that is where packaging/deps.sh puts Flask.
            Some("py") => "/usr/bin/python3",
            _ => "node",
        };
        let mut command = Command::new(interpreter);
        command
            .arg(home("docs/examples/webhooks").join(path))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PORT", "0")
            .envs(variables(folder.path()));
        match path.ends_with("flask_handler.py") {
            true => command.env("WEBHOOK_SECRET", KEY),
            false => command.env("WEBHOOK_SECRET_FILE", &secret),
        };
        let program = Receiver::start(&mut command, &folder.path().join("stderr"));
        Example { program, folder }
    }

    /// The status it answers with.
    fn post(&self, post: &Post) -> u16 {
        self.program.post(post).status
    }

    /// Stops it; every line it printed.
    fn printed(mut self) -> Vec<String> {
        let _ = self.program.child.kill();
        let stdout = std::io::BufRead::lines(&mut self.program.stdout);
        stdout.map_while(Result::ok).collect()
    }
}
