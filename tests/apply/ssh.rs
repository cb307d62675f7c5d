//! A real sshd: who came in before the switch proves nothing, who comes after it does.

use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::lab::{HOST, Lab};
use crate::common::ssh::{Files, Sshd};
use crate::common::{secs, within};
use crate::rig::Desk;

#[test]
fn only_a_new_connection_confirms() {
    let lab = Lab::new();
    let files = Files::new();
    let sshd = Sshd::start(&lab.host, &files);
    let engine = Engine::start(&lab.host, DETECTION);
    let desk = Desk::of(&lab.host, engine.home());
    let types = |options: &[&str], line: &str| sshd.does(&lab.attacker, "root", HOST, options, line);
    let file = desk.at("firewall.toml").display().to_string();
    let confirm = desk.line("confirm", &[]);

    // A connection that many sessions share, made before the switch.
    let path = format!("ControlPath={}", desk.at("shared").display());
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        &path,
        "-o",
        "ControlPersist=600",
    ];
    let shared = ["-o", "ControlMaster=no", "-o", &path];
    assert_eq!(types(&master, "true").code(), 0);

    // The session that applies is older than the switch itself.
    let apply = desk.line("apply", &["--yes", "--confirm", "10m", &file]);
    let typed = types(&[], &format!("{apply} && {confirm}"));
    assert_eq!(typed.code(), 1, "{}", typed.text());
    assert!(typed.text().contains("older than the switch"), "{}", typed.text());
    assert_eq!(desk.state(), "pending");

    let multiplexed = types(&shared, &confirm);
    assert_eq!(multiplexed.code(), 1, "{}", multiplexed.text());
    assert!(
        multiplexed.text().contains("older than the switch"),
        "{}",
        multiplexed.text()
    );

    // A new connection, but of the host with itself.
    let inner = sshd.does(&lab.host, "root", HOST, &[], &confirm);
    assert_eq!(inner.code(), 1, "{}", inner.text());
    assert!(inner.text().contains("from the host itself"), "{}", inner.text());

    // A terminal that outlived its connection, as in tmux.
    let (begun, told) = (desk.at("begun"), desk.at("orphan"));
    let (begun, told) = (begun.display(), told.display());
    let orphan = format!(
        "setsid -f sh -c 'touch {begun}; sleep 1; {confirm} > {told} 2>&1'; while [ ! -e {begun} ]; do sleep 0.1; done"
    );
    types(&[], &orphan);
    let refused = within(secs(30), || {
        desk.read("orphan")
            .is_some_and(|text| text.contains("NEW ssh connection"))
    });
    assert!(refused, "{:?}", desk.read("orphan"));
    assert_eq!(desk.state(), "pending");

    let confirmed = types(&[], &confirm);
    assert_eq!(confirmed.code(), 0, "{}", confirmed.text());
    assert!(
        confirmed
            .text()
            .contains("came in through TCP port 22 after the switch"),
        "{}",
        confirmed.text()
    );
    assert_eq!(desk.state(), "");
    types(&["-O", "exit", "-o", &path], "");
}

#[test]
fn the_port_of_ones_own_session_is_not_closed_without_force() {
    let lab = Lab::new();
    let files = Files::new();
    let sshd = Sshd::start(&lab.host, &files);
    let engine = Engine::start(&lab.host, DETECTION);
    let desk = Desk::of(&lab.host, engine.home());
    let before = desk.table();
    let file = desk.at("closed.toml").display().to_string();
    std::fs::write(&file, FIREWALL.replace("22, ", "")).expect("a file of ours");
    let types = |line: &str| sshd.does(&lab.attacker, "root", HOST, &[], line);
    let refused = types(&desk.line("apply", &["--yes", &file]));
    assert_eq!(refused.code(), 1, "{}", refused.text());
    for words in [
        "you came in through TCP port 22",
        "tcp 22 on every",
        "(sshd)",
        "add 22 to allowed_ports.tcp",
    ] {
        assert!(refused.text().contains(words), "{words}: {}", refused.text());
    }
    assert_eq!(desk.table(), before);

    // Meant: then nobody gets in to confirm it, and it goes back.
    let forced = types(&desk.line("apply", &["--yes", "--force", "--confirm", "5s", &file]));
    assert_eq!(forced.code(), 0, "{}", forced.text());
    desk.must_be_back(&before, "locked out");
    assert!(sshd.lets_in(&lab.attacker, "root", HOST));
}
