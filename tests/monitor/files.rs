//! Files that are not what they were.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::engine::{CORPORATE, DETECTION};
use crate::common::secs;
use crate::rig::{Rig, lives};

/// Replaces a file by one in which one bit is another; what runs keeps its own.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    let mode = fs::metadata(path).unwrap().permissions().mode();
    let fresh = path.with_extension("flipped");
    fs::write(&fresh, bytes).unwrap();
    fs::set_permissions(&fresh, Permissions::from_mode(mode)).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[test]
fn a_flipped_byte_in_the_program_ends_the_monitor_and_is_never_started() {
    let rig = Rig::sealed(DETECTION);
    rig.must("start", &[]);
    let engine = rig.engine().expect("an engine");
    let monitor = rig.foreground();
    rig.wait_view("a look", |view| view["integrity"]["sealed"] == true);
    flip(&rig.program(), 100_000);
    let ended = monitor.finish(secs(40));
    assert_eq!(ended.code(), 5, "{}", ended.text());
    let words = format!("INTEGRITY VIOLATED: {} was changed", rig.program().display());
    assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    assert!(
        lives(engine) && rig.engine() == Some(engine),
        "the engine goes on"
    );
    let status = rig.status();
    assert_eq!(status.code(), 4, "{}", status.text());
    assert!(status.stdout.contains(&words), "{}", status.text());
    for verb in ["start", "restart", "monitor"] {
        let refused = rig.control(verb, &[]);
        assert_eq!(refused.code(), 1, "{verb}: {}", refused.text());
        assert!(refused.stderr.contains("verdictd"), "{verb}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("verdictctl harden"),
            "{verb}: {}",
            refused.stderr
        );
    }
    assert_eq!(rig.engine(), Some(engine));
    flip(&rig.program(), 100_000);
    rig.must("monitor", &["--every=1s"]);
    rig.wait_view("no violation", |view| {
        view["integrity"]["violations"] == serde_json::json!([])
    });
    assert_eq!(rig.status().code(), 0, "{}", rig.status().text());
}

#[test]
fn a_changed_configuration_and_a_lost_manifest_end_it_too() {
    let rig = Rig::sealed(DETECTION);
    rig.must("start", &[]);
    flip(&rig.home.config(), 1);
    let ended = rig.foreground().finish(secs(40));
    assert_eq!(ended.code(), 5, "{}", ended.text());
    assert!(
        ended.stderr.contains("verdictd.toml was changed"),
        "{}",
        ended.stderr
    );
    flip(&rig.home.config(), 1);
    let monitor = rig.foreground();
    rig.wait_view("a look", |view| {
        view["integrity"]["violations"] == serde_json::json!([])
    });
    fs::remove_file(rig.place("sums")).unwrap();
    let ended = monitor.finish(secs(40));
    assert_eq!(ended.code(), 5, "{}", ended.text());
    assert!(ended.stderr.contains("sums is missing"), "{}", ended.stderr);
    rig.seal();
    let monitor = rig.foreground();
    rig.wait_view("a look", |view| {
        view["integrity"]["violations"] == serde_json::json!([])
    });
    drop(monitor);
}

#[test]
fn a_flipped_byte_in_the_audit_log_is_named_and_the_watch_goes_on() {
    let rig = Rig::new(CORPORATE);
    rig.must("monitor", &["--every=1s"]);
    for address in ["203.0.113.9", "203.0.113.10"] {
        assert_eq!(rig.home.ctl(&["ban", address]).code(), 0);
    }
    let engine = rig.engine();
    rig.wait_view("a look", |view| view["last_check"].is_string());
    assert_eq!(rig.view()["integrity"]["audit"], serde_json::json!([]));
    // In place: the engine has the file open.
    let path = rig.home.logs().join("audit.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("203.0.113.9").expect("the order is written down");
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"8", at as u64 + 10).unwrap();
    let faulty = |view: &serde_json::Value| view["integrity"]["audit"].to_string().contains("audit.jsonl:");
    rig.wait_view("the line is named", faulty);
    let status = rig.status();
    assert_eq!(status.code(), 4, "{}", status.text());
    assert!(status.stdout.contains("INTEGRITY VIOLATED: ") && status.stdout.contains("audit.jsonl:"));
    assert!(rig.monitor().is_some());
    assert_eq!(rig.engine(), engine);
    let told = rig.monitor_log().matches("INTEGRITY VIOLATED").count();
    let looks = rig.view()["last_check"].clone();
    rig.wait_view("more looks", |view| view["last_check"] != looks);
    assert_eq!(
        rig.monitor_log().matches("INTEGRITY VIOLATED").count(),
        told,
        "told once"
    );
}
