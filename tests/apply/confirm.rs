//! What is confirmed stays, in the file and under the seal too.

use std::fs;
use std::process::Command;

use verdictd::control::client::Client;
use verdictd::control::wire::{Reply, Request};

use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::namespace::Namespace;
use crate::common::secs;
use crate::rig::Desk;

#[test]
fn what_is_confirmed_stays_over_a_restart_and_is_sealed_anew() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let seal = |_: ()| {
        let sums = Command::new("sha256sum")
            .args([desk.at("verdictd.toml"), desk.at("other")])
            .output();
        fs::write(desk.at("sums"), sums.expect("sha256sum").stdout).expect("a file of ours");
    };
    fs::write(desk.at("other"), "genuine").expect("a file of ours");
    seal(());
    fs::write(desk.at("other"), "somebody's").expect("a file of ours");
    desk.apply(&["--yes", "--confirm", "1h"]);
    let tried = desk.table();
    let confirmed = desk.at_console("confirm", &[]);
    assert_eq!(confirmed.code(), 0, "{}", confirmed.text());
    for words in ["typed on this host itself", "CONFIRMED", "sealed anew"] {
        assert!(confirmed.stdout.contains(words), "{words}: {}", confirmed.text());
    }
    assert_eq!(desk.state(), "");
    for (name, text) in [
        ("verdictd.toml", FIREWALL),
        ("verdictd.toml.before-apply", DETECTION),
        ("verdictd.toml.in-force", FIREWALL),
        ("state/config.good", FIREWALL),
    ] {
        assert_eq!(desk.read(name).as_deref(), Some(text), "{name}");
    }
    assert!(
        crate::common::within(secs(30), || desk.watchers().is_empty()),
        "nobody stands by"
    );
    // What else differs from the seal goes on differing.
    let verify = Command::new("sha256sum")
        .arg("-c")
        .arg(desk.at("sums"))
        .output()
        .expect("sha256sum");
    let verify = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert!(
        verify.contains("verdictd.toml: OK") && verify.contains("other: FAILED"),
        "{verify}"
    );
    // Twice there is nothing to confirm.
    let again = desk.at_console("confirm", &[]);
    assert!(
        again.code() == 1 && again.stderr.contains("nothing is on trial"),
        "{}",
        again.text()
    );
    let engine = Engine::start_in(&ns, engine.stop(), &[]);
    assert_eq!(desk.table(), tried);
    drop(engine);
}

#[test]
fn for_good_needs_no_confirm_and_json_tells_all_of_it() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let file = desk.at("firewall.toml").display().to_string();
    let output = desk.ctl("apply", &["--yes", "--no-confirm", "--json", &file]);
    assert_eq!(output.code(), 0, "{}", output.text());
    let told: serde_json::Value = serde_json::from_str(&output.stdout).expect("one object");
    assert_eq!(
        (&told["applied"], &told["confirm_until"]),
        (&true.into(), &serde_json::Value::Null)
    );
    assert_eq!(told["difference"]["closes"][0], "tcp: every port but 22, 80, 443");
    assert_eq!(
        (desk.state().as_str(), desk.status()["mode"].as_str()),
        ("", Some("firewall"))
    );
    assert_eq!(desk.read("verdictd.toml").as_deref(), Some(FIREWALL));
    assert!(desk.watchers().is_empty());
    // What only opens asks for no confirm.
    fs::write(desk.at("open.toml"), FIREWALL.replace("22, 80", "22, 25, 80")).expect("a file of ours");
    let file = desk.at("open.toml").display().to_string();
    let output = desk.ctl("apply", &["--yes", &file]);
    assert_eq!(output.code(), 0, "{}", output.text());
    assert!(
        output.stdout.contains("ports that open:\n  tcp 25"),
        "{}",
        output.text()
    );
    assert_eq!(desk.state(), "");
}

#[test]
fn a_candidate_that_was_written_to_is_not_confirmed() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    desk.apply(&["--yes", "--confirm", "1h"]);
    fs::write(desk.at("verdictd.toml.candidate"), FIREWALL.replace("22, ", "")).expect("a file of ours");
    let refused = desk.at_console("confirm", &[]);
    assert_eq!(refused.code(), 1, "{}", refused.text());
    assert!(
        refused.stderr.contains("it was changed meanwhile"),
        "{}",
        refused.text()
    );
    assert_eq!(desk.state(), "pending");
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
    desk.must_be_back(&before, "told to");
}

/// `verdictctl confirm` is killed between the engine's yes and the file: nothing goes back, and it can be said again.
#[test]
fn a_confirm_that_was_broken_off_is_said_again() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    desk.apply(&["--yes", "--confirm", "5s"]);
    let tried = desk.table();
    let kept = Client::find(Some(engine.home().socket())).ask(&Request::Confirm {});
    assert!(matches!(kept, Ok(Reply::Confirmed { saved: false })), "{kept:?}");
    assert_eq!(desk.state(), "unsaved");
    let told = desk.ctl("status", &[]);
    assert!(
        told.code() == 4 && told.stdout.contains("\"verdictctl confirm\" saves it"),
        "{}",
        told.text()
    );
    let file = desk.at("firewall.toml").display().to_string();
    for (verb, args) in [("reload", &[][..]), ("apply", &["--yes", &file])] {
        let refused = desk.ctl(verb, args);
        assert!(
            refused.code() == 1 && refused.stderr.contains("verdictctl confirm"),
            "{}",
            refused.text()
        );
    }
    assert!(
        crate::common::within(secs(30), || desk.watchers().is_empty()),
        "nothing to go back from"
    );
    assert_eq!((desk.table(), desk.state()), (tried, "unsaved".to_owned()));
    let saved = desk.ctl("confirm", &[]);
    assert_eq!(saved.code(), 0, "{}", saved.text());
    assert_eq!(desk.read("verdictd.toml").as_deref(), Some(FIREWALL));
    assert_eq!(desk.state(), "");
}

/// The same, and the candidate is gone: what cannot be saved can be given up.
#[test]
fn what_cannot_be_saved_any_more_can_be_given_up() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    desk.apply(&["--yes", "--confirm", "1h"]);
    let kept = Client::find(Some(engine.home().socket())).ask(&Request::Confirm {});
    assert!(matches!(kept, Ok(Reply::Confirmed { saved: false })), "{kept:?}");
    fs::remove_file(desk.at("verdictd.toml.candidate")).expect("a file of ours");
    let lost = desk.at_console("confirm", &[]);
    assert!(
        lost.code() == 1 && lost.stderr.contains("cannot be saved") && lost.stderr.contains("go-back"),
        "{}",
        lost.text()
    );
    let back = desk.ctl("go-back", &[]);
    assert_eq!(back.code(), 0, "{}", back.text());
    desk.must_be_back(&before, "given up");
    assert_eq!(desk.state(), "went_back");
    desk.apply(&["--yes", "--confirm", "1h"]);
    assert_eq!(desk.ctl("go-back", &[]).code(), 0);
}

/// Killed when the file has it and the engine was not told: the file would bring it back at the next start.
#[test]
fn what_a_broken_off_confirm_wrote_is_given_up_in_the_file_too() {
    let ns = Namespace::new("trial");
    let engine = Engine::start(&ns, DETECTION);
    let desk = Desk::of(&ns, engine.home());
    let before = desk.table();
    desk.apply(&["--yes", "--confirm", "1h"]);
    let kept = Client::find(Some(engine.home().socket())).ask(&Request::Confirm {});
    assert!(matches!(kept, Ok(Reply::Confirmed { saved: false })), "{kept:?}");
    let [config, candidate] = ["verdictd.toml", "verdictd.toml.candidate"].map(|name| desk.at(name));
    fs::rename(candidate, &config).expect("a file of ours");
    let known = desk.at("verdictd.toml.in-force");
    fs::rename(&known, desk.at("known")).expect("a file of ours");
    let nowhere = desk.ctl("go-back", &[]);
    assert!(
        nowhere.code() == 1 && nowhere.stderr.contains("lies nowhere beside it"),
        "{}",
        nowhere.text()
    );
    fs::rename(desk.at("known"), known).expect("a file of ours");
    let back = desk.ctl("go-back", &[]);
    assert_eq!(back.code(), 0, "{}", back.text());
    desk.must_be_back(&before, "given up");
    assert_eq!(desk.read("verdictd.toml.unconfirmed").as_deref(), Some(FIREWALL));
    let engine = Engine::start_in(&ns, engine.kill9(), &[]);
    desk.must_be_back(&before, "started anew");
    drop(engine);
}
