//! The log's options as a person or a service manager meets them; no packets, no root.
#![allow(clippy::unwrap_used)] // a test may

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs an engine that logs a warning (a note about its configuration) and an error (no state directory).
fn run(args: &[&str], prepare: impl FnOnce(&mut Command, &Path)) -> Output {
    let folder = TempDir::with_prefix("verdictd-log-").unwrap();
    let config = folder.path().join("verdictd.toml");
    fs::write(&config, "[firewall]\nsleep_interval = 5\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    command.arg("run").arg("--config").arg(&config);
    command.args(["--state-dir", "/dev/null/state"]).args(args);
    command.env_remove("VERDICTD_LOG").env_remove("JOURNAL_STREAM");
    prepare(&mut command, folder.path());
    let mut output = command.output().unwrap();
    if let Ok(written) = fs::read(folder.path().join("stderr")) {
        output.stderr = written;
    }
    output
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_person_gets_time_level_and_words() {
    for args in [&[][..], &["--log-format", "human"], &["--log-format", "auto"]] {
        let output = run(args, |_, _| ());
        assert_eq!(output.status.code(), Some(1));
        let lines = lines(&output);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("Z  WARN ") && lines[0].contains("sleep_interval"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("Z ERROR cannot use directory /dev/null/state"),
            "{lines:?}"
        );
        assert!(
            !lines.concat().contains('\x1b'),
            "no colours where no terminal is"
        );
    }
}

#[test]
fn a_program_gets_json() {
    let output = run(&["--log-format", "json"], |_, _| ());
    let levels: Vec<String> = lines(&output)
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["level"].to_string())
        .collect();
    assert_eq!(levels, ["\"warn\"", "\"error\""]);
}

#[test]
fn the_journal_gets_priorities_when_it_is_the_journal() {
    let starts = |output: &Output| -> Vec<String> {
        lines(output)
            .iter()
            .filter_map(|line| line.get(..3).filter(|start| start.starts_with('<')))
            .map(str::to_owned)
            .collect()
    };
    let journal = ["<4>", "<3>"];
    assert_eq!(starts(&run(&["--log-format", "journald"], |_, _| ())), journal);
    let to_file = |args: &[&str], named: fn(&fs::Metadata) -> String| {
        run(args, |command, folder| {
            let file = File::create(folder.join("stderr")).unwrap();
            command.env("JOURNAL_STREAM", named(&file.metadata().unwrap()));
            command.stderr(file); // as systemd connects it
        })
    };
    let itself = |file: &fs::Metadata| format!("{}:{}", file.dev(), file.ino());
    assert_eq!(starts(&to_file(&[], itself)), journal);
    assert_eq!(starts(&to_file(&["--log-format", "human"], itself)), [""; 0]);
    // Inherited from a service, and redirected since.
    let another = |file: &fs::Metadata| format!("{}:{}", file.dev(), file.ino() + 1);
    assert_eq!(starts(&to_file(&[], another)), [""; 0]);
}

#[test]
fn the_level_is_an_option_and_a_variable_and_must_be_one() {
    assert_eq!(lines(&run(&["--log-level", "error"], |_, _| ())).len(), 1);
    assert_eq!(lines(&run(&["--log-level", "off"], |_, _| ())).len(), 0);
    let by_variable = |level: &'static str, args: &[&str]| {
        run(args, move |command, _| {
            command.env("VERDICTD_LOG", level);
        })
    };
    assert_eq!(lines(&by_variable("error", &[])).len(), 1);
    assert_eq!(lines(&by_variable("error", &["--log-level", "info"])).len(), 2);
    assert_eq!(lines(&by_variable("", &[])).len(), 2);
    for output in [run(&["--log-level", "loud"], |_, _| ()), by_variable("loud", &[])] {
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(
            lines(&output),
            ["verdictd: log level \"loud\" cannot be read; write error, warn, info, debug or trace"]
        );
    }
    assert_eq!(run(&["--log-format", "xml"], |_, _| ()).status.code(), Some(2));
}
