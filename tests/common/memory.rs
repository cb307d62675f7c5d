//! What an engine needs of memory, as the kernel counts it.

use std::fs;

use super::engine::Engine;

/// The memory of one engine's process, in KiB.
pub(crate) struct Memory(String);

impl Memory {
    pub(crate) fn of(engine: &Engine<'_>) -> Memory {
        let pid = engine.json("status")["pid"].as_u64().expect("a process number");
        Memory(format!("/proc/{pid}/status"))
    }

    fn line(&self, key: &str) -> u64 {
        let text = fs::read_to_string(&self.0).expect("a running engine");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("a line of proc(5)");
        line.split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number")
    }

    /// Resident now.
    pub(crate) fn now(&self) -> u64 {
        self.line("VmRSS:")
    }

    /// Resident at most so far.
    pub(crate) fn peak(&self) -> u64 {
        self.line("VmHWM:")
    }
}
