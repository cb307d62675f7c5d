//! nmap, as an attacker runs it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use super::namespace::Namespace;

/// Runs nmap without names and host discovery; gives what it lists: `"22/tcp"` to `"open"`.
pub(crate) fn nmap(ns: &Namespace, args: &str, limit: Duration) -> BTreeMap<String, String> {
    let args = args.split_whitespace();
    let output = ns.run(Command::new("nmap").args(["-n", "-Pn"]).args(args), limit);
    assert!(output.status.success(), "nmap: {}", output.text());
    output.stdout.lines().filter_map(listed).collect()
}

/// `22/tcp   open     ssh` and nothing else.
fn listed(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let port = words
        .next()
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('/'))?;
    Some((port.to_string(), words.next()?.to_string()))
}
