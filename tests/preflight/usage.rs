//! Bad usage, bad files, few rights.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::command::run;
use crate::common::engine::DETECTION;
use crate::common::namespace::Namespace;
use crate::common::secs;
use crate::machine::{Files, Findings};

#[test]
fn a_bad_configuration_is_2_with_every_problem_as_without_kernel() {
    let files = Files::new("[firewall]\nmode = \"strict\"\nfirewall_mode = 7\n");
    let output = run(&mut files.command(), secs(30));
    assert_eq!(output.code(), 2, "{}", output.text());
    assert!(
        output.stderr.contains("f.toml:2:") && output.stderr.contains("f.toml:3:"),
        "{}",
        output.stderr
    );
    assert_eq!(output.stdout, "");
    let missing = run(&mut files.command_for("/nonexistent/v.toml".as_ref()), secs(30));
    assert_eq!(missing.code(), 2, "{}", missing.text());
}

#[test]
fn json_is_for_the_machine_alone() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    let output = run(command.args(["check", "--json"]), secs(30));
    assert_eq!(output.code(), 2, "{}", output.text());
    assert!(output.stderr.contains("--kernel"), "{}", output.stderr);
}

#[test]
fn text_is_for_people_and_a_reader_may_leave() {
    let ns = Namespace::new("preflight");
    let files = Files::new(DETECTION);
    let output = ns.run(&mut files.command(), secs(60));
    assert_eq!(output.code(), 0, "{}", output.text());
    assert!(
        output.stdout.ends_with("\nnothing to act on\n"),
        "{}",
        output.stdout
    );
    assert!(
        output
            .stdout
            .contains("\nok    packet        one packet was queued and dropped"),
        "{}",
        output.stdout
    );
    assert_eq!(output.stderr, "");
}

#[test]
fn without_rights_it_says_so_and_never_that_all_is_well() {
    let ns = Namespace::new("preflight");
    let files = Files::new(DETECTION);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("verdictd");
    fs::copy(env!("CARGO_BIN_EXE_verdictd"), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.path().join("f.toml");
    fs::write(&config, DETECTION).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&copy)
        .args(["check", "--kernel", "--config"])
        .arg(&config);
    let found = Findings::of(&ns, command);
    assert_eq!(
        (found.code, found.acts()),
        (1, vec!["rights".to_owned()]),
        "{found}"
    );
    // CAP_NET_ADMIN without CAP_SYS_ADMIN, as in a container: less is tried, and nothing is left.
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-sys_admin");
    let whole = files.command();
    command.arg(whole.get_program()).args(whole.get_args());
    let found = Findings::of(&ns, command);
    assert_eq!(
        (found.code, &*found.level("rights"), &*found.level("packet")),
        (0, "note", "note"),
        "{found}"
    );
    assert_eq!(found.level("log"), "fine", "{found}");
    assert_eq!(ns.nft_list(&["list", "ruleset"]), "");
}
