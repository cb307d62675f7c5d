//! What is not even tried.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, unprivileged};
use crate::common::namespace::Namespace;
use crate::common::within;
use crate::rig::{Desk, LIMIT};

#[test]
fn what_is_refused_changes_nothing() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    let good = desk.at("firewall.toml").display().to_string();
    let bad = desk.at("bad.toml").display().to_string();
    fs::write(&bad, "[firewall]\nmode = \"strict\"\nfirewal_mode = \"x\"\n").expect("a file of ours");
    let ours = desk.at("verdictd.toml").display().to_string();
    for (args, code, words) in [
        (&["--yes", bad.as_str()][..], 2, "bad.toml:2"),
        (&["--yes", bad.as_str()], 2, "bad.toml:3"),
        (&["--yes", "/nonexistent"], 2, "no such file"),
        (&[good.as_str()], 1, "no terminal to ask on; say --yes"),
        (&["--yes"], 1, "is what is in force"),
        (&["--yes", ours.as_str()], 1, "is what is in force"),
        (&["--yes", "--confirm", "4s", good.as_str()], 2, "5s to 1h"),
        (&["--yes", "--confirm", "2h", good.as_str()], 2, "5s to 1h"),
        (&["--yes", "--confirm", "soon", good.as_str()], 2, "5s to 1h"),
        (&["--json", good.as_str()], 2, "say --yes"),
        (
            &["--confirm", "9s", "--no-confirm", good.as_str()],
            2,
            "cannot be used with",
        ),
    ] {
        let refused = desk.ctl("apply", args);
        assert_eq!(refused.code(), code, "{args:?}: {}", refused.text());
        assert!(refused.stderr.contains(words), "{args:?}: {}", refused.text());
    }
    let dry = desk.ctl("apply", &["--dry-run", &good]);
    assert_eq!(dry.code(), 0, "{}", dry.text());
    assert!(
        dry.stdout.contains("nothing was changed (--dry-run)"),
        "{}",
        dry.text()
    );
    for verb in ["confirm", "go-back"] {
        let nothing = desk.at_console(verb, &[]);
        assert!(
            nothing.code() == 1 && nothing.stderr.contains("nothing is on trial"),
            "{}",
            nothing.text()
        );
    }
    assert_eq!(desk.table(), before);
    assert_eq!(desk.read("verdictd.toml").as_deref(), Some(DETECTION));
    assert_eq!(desk.read("verdictd.toml.candidate"), None);
    assert!(desk.watchers().is_empty());
    // The engine works elsewhere: what is seen here is not what it would change.
    let elsewhere = engine.home().ctl(&["apply", "--yes", "--config", &ours, &good]);
    assert!(
        elsewhere.stderr.contains("another network namespace"),
        "{}",
        elsewhere.text()
    );
}

#[test]
fn without_an_engine_there_is_nothing_to_try_it_on() {
    let ns = Namespace::new("trial");
    let home = Home::new(DETECTION);
    let desk = Desk::of(&ns, &home);
    for verb in ["apply", "confirm", "go-back"] {
        let refused = desk.at_console(verb, &[]);
        assert_eq!(refused.code(), 3, "{verb}: {}", refused.text());
    }
}

/// The engine refuses what `verdictctl` could not know of: everything stays as it was, an edit too. Once it may read the
/// file, an engine without privileges tries it like root's.
#[test]
fn what_the_engine_refuses_leaves_the_edit_in_its_place() {
    let ns = Namespace::new("trial");
    let engine = Engine::start_by(&ns, Home::for_anybody(DETECTION), |command| {
        *command = unprivileged(command, &["--clear-groups"]);
    });
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    let allow = |name, mode| fs::set_permissions(desk.at(name), fs::Permissions::from_mode(mode));
    // Where anybody could put a file of his own, root neither reads nor writes one.
    let loose = desk.ctl("apply", &["--yes", "--confirm", "1h"]);
    assert!(
        loose.code() == 1 && loose.stderr.contains("has mode 0777"),
        "{}",
        loose.text()
    );
    allow("", 0o755).expect("a folder of ours");
    desk.knows_what_is_in_force();
    allow("verdictd.toml", 0o600).expect("a file of ours");
    engine.home().write_config(FIREWALL);
    let refused = desk.ctl("apply", &["--yes", "--confirm", "1h"]);
    assert_eq!(refused.code(), 1, "{}", refused.text());
    assert!(refused.stderr.contains("permission denied"), "{}", refused.text());
    assert_eq!(
        desk.read("verdictd.toml").as_deref(),
        Some(FIREWALL),
        "the edit is still there"
    );
    assert_eq!(desk.read("verdictd.toml.candidate"), None);
    assert_eq!((desk.table(), desk.state().as_str()), (before, ""));
    assert!(within(LIMIT, || desk.watchers().is_empty()));

    allow("verdictd.toml", 0o644).expect("a file of ours");
    let taken = desk.ctl("apply", &["--yes", "--confirm", "1h"]);
    assert_eq!(taken.code(), 0, "{}", taken.text());
    assert_eq!(desk.state(), "pending");
    assert_eq!(desk.at_console("confirm", &[]).code(), 0);
    assert_eq!(desk.status()["mode"], "firewall");
}
