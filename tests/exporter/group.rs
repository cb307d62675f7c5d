//! Who may look and who may order: members of the socket's group, the engine's user, strangers.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use verdictd::control::client::Client;
use verdictd::control::wire::{Reply, Request};
use verdictd::monitor::places::Places;

use crate::common::command::run;
use crate::common::engine::{CORPORATE, Engine, FIREWALL, Home, unprivileged};
use crate::common::namespace::Namespace;
use crate::common::secs;
use crate::rig::{Copy, Exporter, GROUP, STRANGER, for_the_group, open};

#[test]
fn the_exporter_needs_no_right_but_the_group_s() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    for_the_group(engine.home());
    let copy = Copy::new();
    let socket = engine.home().socket();
    let start = |groups: &str| {
        let mut command = copy.command(STRANGER, groups, &socket);
        command.args(["exporter", "--listen", "127.0.0.1:0", "--state-dir"]);
        Exporter::start_by(&ns, command.arg(engine.home().state()))
    };
    let member = start(&GROUP.to_string());
    let all = member.scrape();
    assert_eq!(all.get("verdictd_up"), Some(1.0), "{all:?}");
    assert_eq!(all.get("verdictd_protected"), Some(1.0), "{all:?}");
    for part in ["stats", "status", "state", "webhooks"] {
        let series = format!("verdictd_scrape_success{{part=\"{part}\"}}");
        assert_eq!(all.get(&series), Some(1.0), "{part}");
    }
    assert_eq!(member.status("CapEff"), 0);
    assert_eq!(member.stop(), 0);
    // Who is not in the group cannot even ask.
    let stranger = start(&STRANGER.to_string());
    assert_eq!(stranger.scrape().get("verdictd_up"), Some(0.0));
}

/// What the unit's `InaccessiblePaths` hides; that systemd does so is systemd's.
#[test]
fn the_unit_hides_what_the_group_may_read_and_nothing_is_missed() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/systemd/verdictd-exporter.service"
    );
    let unit = std::fs::read_to_string(unit).unwrap();
    let hidden: Vec<&Path> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("InaccessiblePaths="))
        .flat_map(str::split_whitespace)
        .map(|path| Path::new(path.trim_start_matches('-')))
        .collect();
    let is_hidden = |path: &Path| hidden.iter().any(|folder| path.starts_with(folder));
    let places = Places::default();
    for secret in [
        &places.config,
        &places.manifest,
        &places.state_dir,
        &places.log_dir,
    ] {
        assert!(is_hidden(secret), "{secret:?}");
    }
    assert!(!is_hidden(&places.socket()) && !is_hidden(&places.report()));

    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    for_the_group(engine.home());
    let config = engine.home().config();
    chown(&config, None, Some(GROUP)).unwrap();
    open(&config, 0o640);
    let (copy, socket) = (Copy::new(), engine.home().socket());
    let hide = |command: &Command| {
        let mut hiding = Command::new("unshare");
        hiding.args(["--mount", "--propagation", "private", "sh", "-ec", HIDE, "sh"]);
        hiding
            .arg(engine.home().state())
            .arg(engine.home().logs())
            .arg(&config);
        hiding.arg(command.get_program()).args(command.get_args());
        hiding
    };
    let mut reader = Command::new("setpriv");
    let (uid, gid) = (STRANGER.to_string(), GROUP.to_string());
    reader.args(["--reuid", &uid, "--regid", &uid, "--groups", &gid, "cat"]);
    reader.arg(&config);
    assert!(
        run(&mut reader, secs(20)).stdout.contains("[firewall]"),
        "the group reads it"
    );
    assert_eq!(run(&mut hide(&reader), secs(20)).stdout, "");
    let mut exporter = copy.command(STRANGER, &gid, &socket);
    exporter.args(["exporter", "--listen", "127.0.0.1:0", "--state-dir"]);
    exporter.arg(engine.home().state());
    let exporter = Exporter::start_by(&ns, &mut hide(&exporter));
    let all = exporter.scrape();
    for part in ["stats", "status", "state", "webhooks"] {
        let series = format!("verdictd_scrape_success{{part=\"{part}\"}}");
        assert_eq!(all.get(&series), Some(1.0), "{part}: {all:?}");
    }
    assert!(
        all.get("verdictd_state_file_bytes{kind=\"journal\"}") > Some(0.0),
        "{all:?}"
    );
}

#[test]
fn the_group_may_look_and_not_order() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    engine.must(&["ban", "203.0.113.9"]);
    for_the_group(engine.home());
    let (copy, socket) = (Copy::new(), engine.home().socket());
    let as_member = |args: &[&str]| copy.run(STRANGER, &GROUP.to_string(), &socket, args);
    for question in ["status", "stats", "list", "state show", "webhook status"] {
        let args: Vec<&str> = question.split(' ').collect();
        let output = as_member(&args);
        assert!([0, 4].contains(&output.code()), "{question}: {}", output.text());
    }
    for order in [
        "ban 203.0.113.10",
        "unban 203.0.113.9",
        "reload",
        "snapshot",
        "state reset --yes",
        "webhook retry",
    ] {
        let args: Vec<&str> = order.split(' ').collect();
        let output = as_member(&args);
        assert_eq!(output.code(), 1, "{order}: {}", output.text());
        let words = format!("only root may change anything, and uid {STRANGER} asks");
        assert!(output.stderr.contains(&words), "{order}: {}", output.text());
    }
    let bans = engine.bans();
    assert_eq!(bans.len(), 1, "{bans:?}");
    // Who is in no group does not get as far.
    let output = copy.run(STRANGER, &STRANGER.to_string(), &socket, &["status"]);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("no permission"), "{}", output.text());
}

#[test]
fn the_group_cannot_fill_the_audit_log() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, CORPORATE);
    for_the_group(engine.home());
    let (copy, socket) = (Copy::new(), engine.home().socket());
    for _ in 0..30 {
        let order = ["unban", "203.0.113.9"];
        assert_eq!(copy.run(STRANGER, &GROUP.to_string(), &socket, &order).code(), 1);
    }
    engine.must(&["ban", "203.0.113.9"]);
    let home = engine.stop();
    let log = std::fs::read_to_string(home.logs().join("audit.jsonl")).unwrap();
    let count = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    assert_eq!(count(&format!("\"uid\":{STRANGER},\"gid\"")), 10, "{log}");
    let rest = format!("\"kind\":\"denied\",\"uid\":{STRANGER},\"orders\":20");
    assert_eq!((count(&rest), count("\"result\":\"done\"")), (1, 1), "{log}");
}

/// Who may only ask takes all the places that he gets; root is answered in the time that the watcher of a trial gives.
#[test]
fn the_group_cannot_keep_root_out() {
    let ns = Namespace::new("host");
    let engine = Engine::start(&ns, FIREWALL);
    for_the_group(engine.home());
    let socket = engine.home().socket();
    let mut flood = Command::new("setpriv");
    let (uid, gid) = (STRANGER.to_string(), GROUP.to_string());
    flood.args([
        "--reuid", &uid, "--regid", &uid, "--groups", &gid, "perl", "-e", FLOOD,
    ]);
    let mut flood = Ended(flood.arg(&socket).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let told = flood.0.stdout.take().expect("piped");
    BufReader::new(told).read_line(&mut line).unwrap();
    assert_eq!(line, "all taken\n");
    let client = Client::find(Some(socket)).within(secs(5));
    for round in 0..10 {
        let health = client.ask(&Request::Health {});
        assert!(matches!(health, Ok(Reply::Health(_))), "{round}: {health:?}");
    }
}

/// Holds as many as it gets for as long as it may, at most half a minute; says when it was turned away.
const FLOOD: &str = r#"
    use IO::Socket::UNIX; use IO::Select; $| = 1;
    my ($held, $told, $end) = (IO::Select->new, 0, time + 30);
    while (time < $end) {
        while ($held->count < 64) {
            my $one = IO::Socket::UNIX->new(Peer => $ARGV[0]) or last;
            $held->add($one);
        }
        for my $one ($held->can_read(0.01)) {
            sysread $one, my $word, 4096;
            print "all taken\n" if $word =~ /too many/ && !$told++;
            $held->remove($one);
        }
    }
"#;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_engine_s_own_user_and_root_may_order() {
    const NOBODY: u32 = 65_534;
    let ns = Namespace::new("host");
    let home = Home::for_anybody(FIREWALL);
    let engine = Engine::start_by(&ns, home, |command| {
        *command = unprivileged(command, &["--clear-groups"]);
    });
    let socket = engine.home().socket();
    let copy = Copy::new();
    engine.must(&["ban", "203.0.113.9"]);
    let own = copy.run(NOBODY, &NOBODY.to_string(), &socket, &["unban", "203.0.113.9"]);
    assert_eq!(own.code(), 0, "{}", own.text());
    chown(&socket, None, Some(GROUP)).unwrap();
    let other = copy.run(STRANGER, &GROUP.to_string(), &socket, &["ban", "203.0.113.9"]);
    assert_eq!(other.code(), 1, "{}", other.text());
    assert!(other.stderr.contains("only root"), "{}", other.text());
}

/// State, logs and configuration, and what to start without them.
const HIDE: &str = r#"
    for folder in "$1" "$2"; do mount -t tmpfs -o mode=0000 none "$folder"; done
    mount --bind /dev/null "$3"
    shift 3
    exec "$@"
"#;
