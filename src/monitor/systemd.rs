//! The way through systemd, where it runs and knows our units.

use std::path::Path;
use std::process::{Command, Stdio};

use super::places::Places;

/// The engine's unit.
pub const ENGINE_UNIT: &str = "verdictd.service";
/// The monitor's unit.
pub const MONITOR_UNIT: &str = "verdictd-monitor.service";

/// Whether the engine of `places` is systemd's: it runs here, has the unit, and the places are those of the package. One
/// that is masked or broken, or a systemd that does not answer, is no reason to go round it: it then says no itself.
pub fn manages(places: &Places) -> bool {
    places.are_packaged() && Path::new(RUNS).is_dir() && state(ENGINE_UNIT, "LoadState") != "not-found"
}

/// Whether an operator wants no engine: with `Restart=always` nobody else leaves its unit so.
pub fn is_stopped() -> bool {
    ["inactive", "deactivating"].contains(&state(ENGINE_UNIT, "ActiveState").as_str())
}

/// How systemd is asked for an engine where none is found. By itself it starts one that died: "start" waits for that,
/// where "restart" would end the one that is just coming up. A unit that is up without an engine needs "restart".
pub fn start_verb() -> &'static str {
    match state(ENGINE_UNIT, "ActiveState").as_str() {
        "active" => "restart",
        _ => "start",
    }
}

/// `systemctl VERB UNITS`.
///
/// # Errors
/// What systemctl said.
pub fn control(verb: &str, units: &[&str]) -> Result<(), String> {
    let ran = Command::new("systemctl")
        .arg("--no-ask-password")
        .arg(verb)
        .args(units)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run systemctl: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!(
            "systemctl {verb} {}: {}",
            units.join(" "),
            String::from_utf8_lossy(&ran.stderr).trim()
        )),
    }
}

/// One property of a unit; empty if it cannot be asked.
pub fn state(unit: &str, property: &str) -> String {
    output(
        "systemctl",
        &["show", "--property", property, "--value", "--", unit],
    )
}

/// The last lines of a unit in the journal.
pub fn last_lines(unit: &str) -> Vec<String> {
    let text = output(
        "journalctl",
        &["--unit", unit, "--lines", "10", "--output", "cat", "--no-pager"],
    );
    text.lines().map(str::to_owned).collect()
}

fn output(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).output();
    ran.map_or_else(
        |_| String::new(),
        |ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned(),
    )
}

/// sd_booted(3).
const RUNS: &str = "/run/systemd/system";
