//! `verdictd check` and `verdictd ruleset` as built: what they say, what they end with, on good, bad and mangled files.

#[allow(dead_code, unreachable_pub)]
mod common;

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use common::command::{Output, run};
use common::mutate::{Dice, mutated};
use common::namespace::Namespace;
use common::{secs, within};
use tempfile::TempDir;

const MISSION: &str = include_str!("data/mission_firewall_config.toml");
const SHIPPED: &str = include_str!("../config/verdictd.toml");
const CORPORATE: &str = include_str!("../config/examples/corporate.toml");
const ENTERPRISE: &str = include_str!("../config/examples/enterprise.toml");

const BASTION: &str = include_str!("../config/examples/ssh-bastion.toml");

/// A configuration in a folder of its own.
struct File(TempDir);

impl File {
    fn new(text: impl AsRef<[u8]>) -> File {
        let file = File(tempfile::tempdir().expect("a folder"));
        fs::write(file.0.path().join("f.toml"), text).expect("a file of ours");
        file
    }

    /// `verdictd VERB` on it, from inside the folder, so that the file is called by its bare name.
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictd"));
        command
            .args([verb, "--config", "f.toml"])
            .current_dir(self.0.path());
        command
    }

    fn check(&self) -> Output {
        run(&mut self.command("check"), secs(20))
    }
}

#[test]
fn a_fine_file_is_told_in_plain_words() {
    let output = File::new(SHIPPED).check();
    assert_eq!((output.code(), &*output.stderr), (0, ""));
    let mut lines = output.stdout.lines();
    assert!(
        lines.next().expect("a line").starts_with("OBSERVING: "),
        "{}",
        output.stdout
    );
    assert_eq!(lines.last(), Some("f.toml: fine"));
}

#[test]
fn what_detection_does_is_told_with_the_numbers_in_force() {
    let told = |text: &str, expected: &[&str]| {
        let output = File::new(text).check();
        assert_eq!((output.code(), &*output.stderr), (0, ""));
        for line in expected {
            assert!(
                output.stdout.lines().any(|told| told.trim() == *line),
                "{line}\n{}",
                output.stdout
            );
        }
        output.stdout
    };
    let mission = told(
        MISSION,
        &[
            "port scan: 7 TCP and 28 UDP ports of one source; a port on which it completed a handshake does not count",
            "distributed attack: over all sources, attempts on TCP port 80, 443: 2; 22: 3; 3306, 5432: 5; any other: 10",
            "counted: those that this host answered and nobody completed within 10s",
        ],
    );
    assert!(!mission.contains("unknown while nothing is held"), "{mission}");
    let shipped = told(SHIPPED, &[]);
    assert!(
        shipped.contains("unknown while nothing is held: UDP is not seen"),
        "{shipped}"
    );
    told(
        BASTION,
        &[
            "on 22: all of sources first seen less than 1d ago, completed or not",
            "at most 1d for a source that never completed a handshake here (unproven_cap)",
        ],
    );
}

#[test]
fn a_never_ban_list_of_everybody_ends_with_2() {
    let output =
        File::new("[trusted]\nips = [\"192.0.2.1\"]\nnetworks = [\"10.0.0.0/8\", \"0.0.0.0/0\", \"::/0\"]\n")
            .check();
    assert_eq!((output.code(), &*output.stdout), (2, ""));
    let said = |net| {
        format!(
            "f.toml:3: trusted.networks: \"{net}\" is every address there is; write the networks that are meant"
        )
    };
    let expected = ["0.0.0.0/0", "::/0"].map(said);
    assert_eq!(output.stderr.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn keys_without_effect_are_told_in_full_and_are_no_error() {
    let output = File::new("[firewall]\nmode = \"lenient\"\n[custom]\nunique_ports_threshold = 20\n").check();
    assert_eq!(output.code(), 0);
    let told = "f.toml:4: custom.unique_ports_threshold = 20 has no effect: mode is \"lenient\" (15); \
                write mode = \"custom\", base = \"lenient\"";
    assert!(
        output.stdout.lines().any(|line| line == told),
        "{}",
        output.stdout
    );
}

#[test]
fn every_problem_goes_to_standard_error_and_ends_with_2() {
    let output =
        File::new("[allowed_ports]\ntcp = [22, 70000]\n[engine]\nmanage_ruleset = false\nworkers = 2\n")
            .check();
    assert_eq!((output.code(), &*output.stdout), (2, ""));
    let starts = [
        "f.toml:2: allowed_ports.tcp: 70000",
        "f.toml:4: engine.queue_base",
        "f.toml:4: engine.log_base",
    ];
    assert_eq!(output.stderr.lines().count(), starts.len(), "{}", output.stderr);
    for (line, start) in output.stderr.lines().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

/// A thousand files, each with one to twelve mutations of a good one; the same ones in every run.
#[test]
fn a_thousand_mutated_files_name_their_lines_and_nobody_panics() {
    let bases = [MISSION, SHIPPED, CORPORATE, ENTERPRISE, BASTION];
    let folder = File::new("");
    let path = folder.0.path().join("f.toml");
    let (mut dice, mut refused) = (Dice::new(0x5eed), 0);
    for round in 0..1_000 {
        let text = mutated(bases[round % bases.len()], &mut dice);
        fs::write(&path, &text).expect("a file of ours");
        let output = folder.check();
        let text = String::from_utf8_lossy(&text);
        let said = || format!("round {round}: {}\n{text}", output.text());
        assert!(!output.text().contains("panicked"), "{}", said());
        match output.code() {
            0 => assert_eq!(output.stdout.lines().last(), Some("f.toml: fine"), "{}", said()),
            2 => {
                refused += 1;
                assert!(!output.stderr.is_empty(), "{}", said());
                assert!(output.stderr.lines().all(names_a_line), "{}", said());
            }
            _ => panic!("{}", said()),
        }
    }
    assert!((200..1_000).contains(&refused), "{refused} of 1000 were refused");
}

fn names_a_line(said: &str) -> bool {
    let number = said
        .strip_prefix("f.toml:")
        .and_then(|rest| rest.split(':').next());
    number.is_some_and(|number| number.parse::<usize>().is_ok_and(|line| line > 0))
}

#[test]
fn listeners_that_would_close_are_named_with_their_process() {
    let here = Namespace::new("check");
    let open = here.inside(|| {
        let tcp = ["0.0.0.0:22", "[::]:3306", "127.0.0.1:5432"]
            .map(|at| TcpListener::bind(at).expect("a listener"));
        let udp = ["0.0.0.0:53", "[::1]:54"].map(|at| UdpSocket::bind(at).expect("a socket"));
        let client = TcpStream::connect("127.0.0.1:5432").expect("a connection");
        (tcp, udp, client)
    });
    let text = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n";
    let file = File::new(text);
    // Threads of a test are named after it.
    let name = fs::read_to_string("/proc/self/comm").expect("a name");
    let told = format!(
        "2 listeners of this host are closed by it, but to internal interfaces:\n  \
         tcp 3306 on every address ({name})\n  udp 53 on every IPv4 address ({name})\n",
        name = name.trim_end()
    );
    // A program that another test is just starting holds our sockets for a moment, until it is what it will be.
    let mut output = here.run(&mut file.command("check"), secs(20));
    within(secs(10), || {
        let as_expected = output.stdout.contains(&told);
        if !as_expected {
            output = here.run(&mut file.command("check"), secs(20));
        }
        as_expected
    });
    assert_eq!((output.code(), &*output.stderr), (0, ""));
    assert!(output.stdout.contains(&told), "{}", output.stdout);
    drop(open);
    let output = here.run(&mut file.command("check"), secs(20));
    assert!(
        output.stdout.contains("no listener of this host is closed by it"),
        "{}",
        output.stdout
    );
    // Without a port filter nothing closes, and nothing is said of it.
    assert!(!File::new("").check().stdout.contains("listener"));
}

#[test]
fn the_ruleset_for_include_states_the_seed_and_numbers_of_the_file() {
    let numbers = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n[engine]\nmanage_ruleset = false\nworkers = 2\nqueue_base = 5000\nlog_base = 6000\n";
    let printed = |text: &str| {
        let output = run(&mut File::new(text).command("ruleset"), secs(20));
        assert_eq!(output.code(), 0, "{}", output.text());
        output.stdout
    };
    let seeded = printed(&format!("{numbers}seed = 0xCAFE\n"));
    for word in ["mod 2 seed 0xcafe", "to 5000", "to 5003", "group 6001 snaplen"] {
        assert!(seeded.contains(word), "{word} is missing:\n{seeded}");
    }
    let unseeded = printed(numbers);
    assert!(unseeded.contains("mod 2 seed 0x5eed"), "{unseeded}");
    assert_eq!(unseeded, printed(numbers));
}
