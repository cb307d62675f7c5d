//! Where a program is killed: at the nth call of some kind that touches some files, by strace's injection.

use std::path::PathBuf;
use std::process::Command;

/// Calls by which a state gets to the disk. Not every one is made; one that is not made is asked for once.
pub(crate) const CALLS: [&str; 11] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "renameat",
    "renameat2",
    "unlinkat",
    "linkat",
    "ftruncate",
];

/// Something done to a program at some of its calls.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// Names of calls, with commas.
    pub(crate) calls: String,
    /// As strace has it: `signal=KILL:when=3`.
    pub(crate) what: String,
    /// Only calls that touch one of these.
    pub(crate) paths: Vec<PathBuf>,
}

impl Injection {
    /// SIGKILL at the nth of these calls, before it does anything. strace counts each kind for itself.
    pub(crate) fn kill(call: &str, nth: usize, paths: &[PathBuf]) -> Injection {
        Injection {
            calls: call.into(),
            what: format!("signal=KILL:when={nth}"),
            paths: paths.into(),
        }
    }

    /// `command` under it. strace runs as its grandchild: who waits for the command and signals it means the command itself.
    pub(crate) fn around(&self, command: &Command) -> Command {
        let mut traced = Command::new("strace");
        traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]);
        traced.arg(format!("trace={}", self.calls));
        traced
            .arg("-e")
            .arg(format!("inject={}:{}", self.calls, self.what));
        for path in &self.paths {
            traced.arg("-P").arg(path);
        }
        traced.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(key, value),
                None => traced.env_remove(key),
            };
        }
        traced
    }
}

/// A number drawn from `seed`, which it steps (Marsaglia's xorshift64): rounds can be repeated by their number.
pub(crate) fn draw(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below
}

/// A seed that differs from round to round and is never zero.
pub(crate) fn seed_of(round: usize) -> u64 {
    let mut seed = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    draw(&mut seed, 2);
    seed
}
