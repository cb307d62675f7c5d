//! The tester beside the engine, and what must be the same before and after it.

use std::process::Command;

use serde_json::Value;

use crate::common::command::{Output, Running};
use crate::common::engine::Engine;
use crate::common::namespace::Namespace;
use crate::common::secs;

/// Longer than the slowest self-test.
pub(crate) const LIMIT: std::time::Duration = secs(40);

/// Every address that a self-test makes up begins so.
pub(crate) const RANGES: [&str; 3] = ["192.0.2.", "198.51.100.", "203.0.113."];

/// The command line of a self-test of `engine`.
pub(crate) fn command(engine: &Engine<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    command
        .args(["selftest", "--json", "--socket"])
        .arg(engine.home().socket());
    command
}

/// A self-test under way.
pub(crate) fn start(ns: &Namespace, engine: &Engine<'_>) -> Running {
    ns.start(&mut command(engine))
}

/// One self-test, to its end.
pub(crate) fn run(ns: &Namespace, engine: &Engine<'_>) -> Output {
    ns.run(&mut command(engine), LIMIT)
}

/// What it printed.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.text()))
}

/// A self-test that must prove everything; gives the proof.
pub(crate) fn proved(ns: &Namespace, engine: &Engine<'_>) -> Value {
    let output = run(ns, engine);
    assert_eq!(output.code(), 0, "{}\n{}", output.text(), engine.log());
    let proof = json(&output);
    assert_eq!(proof["proved"], true, "{proof}");
    proof
}

/// A self-test that must fail; gives what it says.
pub(crate) fn failed(ns: &Namespace, engine: &Engine<'_>) -> Value {
    let output = run(ns, engine);
    assert_eq!(output.code(), 1, "{}\n{}", output.text(), engine.log());
    json(&output)
}

/// The words of its steps.
pub(crate) fn steps(proof: &Value) -> Vec<&str> {
    let steps = proof["steps"].as_array().expect("steps");
    steps.iter().filter_map(|step| step["step"].as_str()).collect()
}

/// How many milliseconds that step took.
pub(crate) fn ms(proof: &Value, step: &str) -> f64 {
    let steps = proof["steps"].as_array().expect("steps");
    let found = steps.iter().find(|found| found["step"] == step);
    found
        .and_then(|step| step["ms"].as_f64())
        .expect("a measured step")
}

/// Everything of the host that a self-test might leave something in.
#[derive(Debug, PartialEq)]
pub(crate) struct Traces {
    bans: Vec<Value>,
    counts: Value,
    ruleset: String,
    addresses: String,
    routes: String,
}

impl Traces {
    pub(crate) fn of(ns: &Namespace, engine: &Engine<'_>) -> Traces {
        Traces {
            bans: engine.bans(),
            counts: engine.json("stats")["bans"].clone(),
            ruleset: ns.nft_list(&["-s", "list", "ruleset"]),
            addresses: ns.must("ip", &["address"]),
            routes: ns.must("ip", &["route", "show", "table", "all"]),
        }
    }
}

/// No file and no line of the log names an address that was made up.
pub(crate) fn nothing_is_written(engine: &Engine<'_>) {
    engine.must(&["snapshot"]);
    let state = engine.home().state().join("state.toml");
    let state = std::fs::read_to_string(state).expect("a snapshot");
    for (what, text) in [("state.toml", &state), ("the log", &engine.log())] {
        let line = text
            .lines()
            .find(|line| RANGES.iter().any(|range| line.contains(range)));
        assert_eq!(line, None, "{what}");
    }
    assert!(
        !engine.log().contains("somebody changed"),
        "the scratch set is no tampering\n{}",
        engine.log()
    );
}
