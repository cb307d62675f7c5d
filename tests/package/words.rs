//! What the packages are to those who look at them before they install: lintian's opinion, their size, what they need.

use std::process::Command;

use crate::common::command::run;
use crate::common::secs;
use crate::debs;

#[test]
fn lintian_has_nothing_to_say() {
    let mut lintian = Command::new("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
    ]);
    lintian.args(debs::as_built());
    let output = run(&mut lintian, secs(300));
    assert_eq!(output.code(), 0, "{}", output.text());
    assert_eq!(output.stdout, "", "an override that nothing needs, or a tag");
}

/// Debug information is a hundred times the program.
#[test]
fn the_packages_are_of_a_sane_size() {
    for deb in debs::as_built() {
        let size = std::fs::metadata(&deb).unwrap().len();
        assert!(
            (500_000..25_000_000).contains(&size),
            "{}: {size} bytes",
            deb.display()
        );
    }
}

/// Each override has its reason before it.
#[test]
fn every_override_has_its_reason() {
    for name in ["verdictd", "verdict-receiver"] {
        let path = format!(
            "{}/packaging/debian/{name}/lintian-overrides",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).unwrap();
        let mut before = "";
        for line in text.lines() {
            assert!(
                line.starts_with('#') || before.starts_with("# "),
                "without a reason: {line}"
            );
            before = line;
        }
    }
}
