//! docs/migrating.md: each item of the Python system's documents has a row, and each command of the page is run.

use std::collections::BTreeSet;

use crate::common::command::Output;
use crate::common::{secs, within};
use crate::mission;
use crate::pages::{code, read, rows};
use crate::sandbox::Sandbox;

const PAGE: &str = "docs/migrating.md";

/// Where a command of the page is run.
enum Ground {
    /// On a machine of its own where nothing runs.
    Alone,
    /// There too; it serves until SIGTERM, after which it ends well.
    Serves,
    /// There too, on a terminal where these keys are typed.
    Typed(&'static str),
    /// On one machine after each other, in the order of this list. Nothing runs at first.
    InTurn,
    /// On a machine where an engine runs, test servers on ports 8080 (with a secret) and 8081, a receiver on port 5000.
    Beside,
    /// Beside an engine in corporate mode.
    Corporate,
}

use Ground::{Alone, Beside, Corporate, InTurn, Serves, Typed};

/// Every command of the page: where it is run, how it ends, a word of what it says.
const RUN: [(&str, Ground, i32, &str); 52] = [
    ("verdictd --version", Alone, 0, "verdictd 0."),
    ("verdict-receiver --version", Alone, 0, " 0."),
    (
        "verdictd check --config firewall_config.toml",
        Alone,
        0,
        "firewall_config.toml: fine",
    ),
    ("verdictd check", Alone, 0, "/etc/verdictd/verdictd.toml: fine"),
    ("verdictctl reload", Beside, 0, "reloaded"),
    ("verdictd run", Serves, 0, "ready"),
    ("verdictd run --ephemeral", Serves, 0, "ready"),
    ("verdictd ruleset", Alone, 0, "table inet verdictd"),
    ("verdictd selftest", Beside, 0, "PROVED"),
    ("verdictctl status", Beside, 0, "OBSERVING ONLY"),
    ("verdictctl status --json", Beside, 0, "\"mode\""),
    ("verdictctl list", Beside, 0, "no bans"),
    ("verdictctl stats", Beside, 0, "verdicts"),
    ("verdictctl snapshot", Beside, 0, "/var/lib/verdictd/state.toml"),
    ("cat /var/lib/verdictd/state.toml", Beside, 0, "ladder = ["),
    ("verdictctl state show", Beside, 0, "/var/lib/verdictd/state.toml"),
    ("verdictctl state export", Beside, 0, "# sha256 "),
    ("verdictctl state export --json", Beside, 0, "verdictd-state"),
    (
        "verdictctl state import firewall_state.toml",
        Beside,
        0,
        "taken: ",
    ),
    ("verdictctl state reset", Typed("y\r"), 3, "nothing was forgotten"),
    ("verdictctl ban 203.0.113.9 --for 2h", Beside, 0, "203.0.113.9"),
    ("verdictctl unban 203.0.113.9", Beside, 0, "203.0.113.9"),
    ("rm -f /var/lib/verdictd/state.toml*", Alone, 0, ""),
    ("verdictctl audit verify", Corporate, 0, "SOUND"),
    ("verdictctl harden --dry-run", InTurn, 0, "nothing was changed"),
    ("verdictctl harden", InTurn, 0, "SEALED"),
    ("verdictctl verify", InTurn, 0, "SOUND"),
    (
        "sha256sum -c /etc/verdictd/integrity.sha256",
        InTurn,
        0,
        "verdictd.toml: OK",
    ),
    ("verdictctl start", InTurn, 0, "engine started"),
    ("verdictctl restart", InTurn, 0, "engine started"),
    ("verdictctl monitor", InTurn, 0, "monitor started"),
    ("verdictctl stop", InTurn, 0, "monitor stopped"),
    (
        "verdictctl stop --remove-rules",
        InTurn,
        0,
        "no rule and no ban holds",
    ),
    ("verdictctl harden --yes", InTurn, 0, "SEALED"),
    ("verdictd monitor", Serves, 0, "watching"),
    (
        "verdictctl webhook setup",
        Typed("\x1b[B\x1b[B\r"),
        0,
        "nothing was changed",
    ),
    (
        "verdictctl webhook setup --non-interactive --name SOC --url https://soc.example.com/webhooks/firewall",
        Alone,
        0,
        "soc.secret",
    ),
    (
        "verdictctl webhook test --url http://localhost:8081",
        Beside,
        0,
        "good: the event was taken",
    ),
    ("verdictctl webhook test", Beside, 0, "good: the event was taken"),
    (
        "verdictctl webhook test --url http://localhost:8080 --secret your-secret",
        Beside,
        0,
        "good: the event was taken",
    ),
    (
        "verdictctl webhook send ip_blocked",
        Beside,
        0,
        "good: the event was taken",
    ),
    (
        "verdictctl webhook send connection_attempt",
        Beside,
        0,
        "good: the event was taken",
    ),
    ("verdictctl webhook status", Beside, 0, "SOC"),
    ("verdictctl webhook retry", Beside, 0, ""),
    (
        "verdictctl webhook service > /etc/systemd/system/verdict-receiver.service",
        Alone,
        0,
        "",
    ),
    (
        "verdict-receiver test-server",
        Serves,
        0,
        "listening on http://127.0.0.1:8080",
    ),
    (
        "verdict-receiver test-server --port 8080 --secret your-secret",
        Serves,
        0,
        "listening on http://127.0.0.1:8080",
    ),
    ("verdict-receiver serve", Alone, 2, "webhook_secret"),
    (
        "WEBHOOK_SECRET=your-secret verdict-receiver serve",
        Serves,
        0,
        "listening on http://127.0.0.1:5000",
    ),
    (
        "LOG_FILE=webhook_handler.log WEBHOOK_SECRET=your-secret verdict-receiver serve",
        Serves,
        0,
        "listening on http://127.0.0.1:5000",
    ),
    ("curl -s http://localhost:5000/health", Beside, 0, "healthy"),
    ("curl -s http://localhost:5000/stats", Beside, 0, "event_counts"),
];

/// What a command begins with on a page; with one word alone it is only named.
const PROGRAMS: [&str; 7] = [
    "verdictd",
    "verdictctl",
    "verdict-receiver",
    "curl",
    "cat",
    "rm",
    "sha256sum",
];

#[test]
fn every_item_of_the_documents_has_a_row() {
    let page = read(PAGE);
    let rows = rows(&page);
    let left: BTreeSet<&str> = rows.iter().flat_map(|[left, _]| code(left)).collect();
    let items = mission::items();
    let missing: Vec<_> = items
        .iter()
        .filter(|item| !left.contains(item.as_str()))
        .collect();
    assert!(missing.is_empty(), "{PAGE} has no row for {missing:#?}");
    let strange: Vec<_> = left.iter().filter(|item| !items.contains(**item)).collect();
    assert!(strange.is_empty(), "no document names {strange:#?}");
    assert!(rows.iter().all(|[_, right]| !right.trim().is_empty()));
}

#[test]
fn every_command_of_the_page_is_run_by_this_test() {
    let page = read(PAGE);
    let shown = commands(&page);
    let run: BTreeSet<&str> = RUN.iter().map(|(command, ..)| *command).collect();
    assert_eq!(run.len(), RUN.len(), "a command is here twice");
    assert_eq!(shown, run, "left: what {PAGE} shows; right: what is run");
}

/// All commands of the page, but those that are the Python system's.
fn commands(page: &str) -> BTreeSet<&str> {
    let text = page.lines().map(|line| match line.strip_prefix("| ") {
        Some(row) => row.split_once(" | ").map_or(row, |(_, right)| right),
        None => line,
    });
    let spans = text.flat_map(code);
    spans.filter(|span| is_command(span)).collect()
}

fn is_command(span: &str) -> bool {
    let mut words = span
        .split(' ')
        .skip_while(|word| word.contains('=') && !word.starts_with('['));
    let program = words.next().is_some_and(|word| PROGRAMS.contains(&word));
    let is_command = program && words.next().is_some();
    let is_setting = span.contains(" = ") || span.contains(": ");
    let is_one_word = !span.contains(' ');
    assert!(
        is_command || is_setting || is_one_word,
        "a command or not? {span:?}"
    );
    is_command
}

#[test]
fn what_is_a_command_is_known() {
    assert!(is_command("verdictctl status") && is_command("A=b verdictd run"));
    assert!(!is_command("verdictctl") && !is_command("mode = \"custom\"") && !is_command("/health"));
    assert!(std::panic::catch_unwind(|| is_command("systemctl start verdictd")).is_err());
}

/// Those of some ground.
fn on(
    wanted: impl Fn(&Ground) -> bool,
) -> impl Iterator<Item = &'static (&'static str, Ground, i32, &'static str)> {
    RUN.iter().filter(move |(_, ground, ..)| wanted(ground))
}

fn judge(command: &str, output: &Output, exit: i32, word: &str) {
    eprintln!("{command}: {}", output.code());
    let text = output.text();
    assert_eq!(output.code(), exit, "{command}: {text}");
    assert!(text.contains(word), "{command} does not say {word:?}: {text}");
}

#[test]
fn commands_that_need_nothing_do_what_is_said() {
    for (command, ground, exit, word) in on(|ground| matches!(ground, Alone | Typed(_))) {
        let sandbox = Sandbox::new();
        if command.contains("> /etc/systemd/system") {
            sandbox.must("mkdir -p /etc/systemd/system");
        }
        let output = match ground {
            Typed(keys) => sandbox.type_into(command, keys),
            _ => sandbox.run(command),
        };
        judge(command, &output, *exit, word);
    }
}

#[test]
fn commands_that_serve_start_and_end_well() {
    for (command, _, exit, word) in on(|ground| matches!(ground, Serves)) {
        let sandbox = Sandbox::new();
        let words = match command.split_once("verdict-receiver") {
            // What `exec` starts may not begin with variables.
            Some((variables, _)) if !variables.is_empty() => format!("env {command}"),
            _ => (*command).to_owned(),
        };
        let service = sandbox.serve(&words, word);
        let (code, said) = service.stop();
        eprintln!("{command}: {code}");
        assert_eq!(code, *exit, "{command}: {said}");
    }
}

#[test]
fn commands_in_turn_do_what_is_said() {
    let sandbox = Sandbox::new();
    for (command, _, exit, word) in on(|ground| matches!(ground, InTurn)) {
        judge(command, &sandbox.run(command), *exit, word);
    }
}

#[test]
fn commands_beside_a_running_engine_do_what_is_said() {
    let sandbox = Sandbox::new();
    sandbox.configure(
        "[bans]\nenforce = false\n[webhooks]\nenabled = true\n[[webhooks.endpoints]]\nname = \"SOC\"\n\
         url = \"http://127.0.0.1:8080/webhook\"\nsecret = \"your-secret\"",
    );
    let _engine = sandbox.engine();
    let _test_server = sandbox.serve(
        "verdict-receiver test-server --port 8080 --secret your-secret",
        "listening",
    );
    let _open_to_all = sandbox.serve("verdict-receiver test-server --port 8081", "listening");
    let _receiver = sandbox.serve(
        "env WEBHOOK_SECRET=your-secret verdict-receiver serve",
        "listening",
    );
    for (command, _, exit, word) in on(|ground| matches!(ground, Beside)) {
        judge(command, &sandbox.run(command), *exit, word);
    }
}

#[test]
fn the_audit_log_of_corporate_mode_is_verified() {
    let sandbox = Sandbox::new();
    sandbox.configure("[firewall]\nfirewall_mode = \"corporate\"\n[allowed_ports]\ntcp = [22]");
    let _engine = sandbox.engine();
    for (command, _, exit, word) in on(|ground| matches!(ground, Corporate)) {
        let mut output = sandbox.run(command);
        // Its first lines are on the disk a moment after it is ready.
        within(secs(10), || {
            output = sandbox.run(command);
            output.code() == *exit
        });
        judge(command, &output, *exit, word);
    }
}

/// What the page says of a state file of the Python system.
#[test]
fn a_state_of_the_python_system_is_imported_and_kept() {
    let sandbox = Sandbox::new();
    sandbox.must(
        "printf 'unblock_tasks = [\\n{ ip = \"203.0.113.9\", unblock_time = 9999-01-01T00:00:00 },\\n]\\n' \
         > /var/lib/verdictd/state.toml",
    );
    let engine = sandbox.engine();
    sandbox.must("verdictctl snapshot");
    sandbox.must("test -f /var/lib/verdictd/state.toml.python");
    let said = engine.said();
    assert!(said.contains("is of the Python system, kept as"), "{said}");
    sandbox.must("verdictctl list | grep -q 203.0.113.9");
    for key in ["sources", "ladder", "usual", "bans"] {
        sandbox.must(&format!("grep -q '^{key} = \\[' /var/lib/verdictd/state.toml"));
    }
}
