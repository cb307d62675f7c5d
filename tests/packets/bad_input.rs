//! Bad input: a clear error, the running policy untouched, nothing lost.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use crate::common::command::Output;
use crate::common::engine::{DETECTION, Engine, FIREWALL, Home, OBSERVING, table};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, ATTACKER6, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

/// Configurations that are refused, each with words that its message must hold.
fn bad_configs() -> Vec<(String, &'static [&'static str])> {
    let allowed = |ports: &str| FIREWALL.replace("tcp = [22, 80, 443]", ports);
    vec![
        (allowed("tcp = [22, 70000]"), &["allowed_ports", "70000", "65535"]),
        (allowed("tcp = \"ssh\""), &["allowed_ports", "tcp", "ssh"]),
        (allowed("tcp = []"), &["allowed_ports", "allow_none"]),
        (
            format!("{FIREWALL}\n[trusted]\nnetworks = [\"10.0.0.0/33\"]\n"),
            &["10.0.0.0/33", "32"],
        ),
        (
            FIREWALL.replace("enforce = true", "enforce = \"yes\""),
            &["enforce", "yes"],
        ),
        (
            FIREWALL.replace("enforce = true", "enfroce = true"),
            &["enfroce", "enforce"],
        ),
        (
            FIREWALL.replace("\"firewall\"\n[allowed", "\"fierwall\"\n[allowed"),
            &["fierwall", "firewall"],
        ),
        ("[firewall\n".into(), &["verdictd.toml:1:"]),
    ]
}

/// A refusal: this exit code, these words, on standard error, without a panic.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code(), code, "{}", output.text());
    assert!(!output.stdout.contains("ready"), "{}", output.text());
    assert!(!output.text().contains("panicked"), "{}", output.text());
    for word in words {
        assert!(
            output.stderr.contains(word),
            "{word:?} is missing: {}",
            output.stderr
        );
    }
}

#[test]
fn bad_configurations_are_refused_and_touch_no_table() {
    let ns = Namespace::new("host");
    for (config, words) in bad_configs() {
        let home = Home::new(&config);
        assert_refused(&Engine::refuse(&ns, &home), 2, words);
        assert_eq!(table(&ns), "", "rules were loaded for {config}");
    }
}

#[test]
fn no_allowed_port_at_all_must_be_meant() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[22]);
    let config = FIREWALL.replace("tcp = [22, 80, 443]", "tcp = []\nallow_none = true");
    let engine = Engine::start(&lab.host, &config);
    assert!(!talks(&lab.attacker, HOST, 22), "{}", engine.log());
}

#[test]
fn a_missing_configuration_is_named() {
    let ns = Namespace::new("host");
    let home = Home::new("");
    fs::remove_file(home.config()).expect("a file of ours");
    let path = home.config().display().to_string();
    assert_refused(&Engine::refuse(&ns, &home), 2, &[&path]);
}

#[test]
fn a_running_policy_is_untouched_by_a_bad_reload() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "10.88.0.7", "--for", "1h"]);
    let before = engine.table();
    for (config, _) in bad_configs() {
        engine.home().write_config(&config);
        engine.signal(Signal::HUP);
        thread::sleep(ms(200));
        assert!(engine.alive(), "a bad reload ended the engine\n{}", engine.log());
        assert_eq!(engine.table(), before, "a bad reload changed the table: {config}");
    }
    assert!(talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306));
    assert_eq!(engine.kernel_bans("banned4"), ["10.88.0.7"]);
    engine.home().write_config(FIREWALL);
}

#[test]
fn without_cap_net_admin_the_error_says_so() {
    let lab = Lab::new();
    let home = Home::new(DETECTION);
    let engine = home.command();
    let mut bare = Command::new("setpriv");
    bare.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    bare.arg(engine.get_program()).args(engine.get_args());
    let output = lab.host.run(&mut bare, secs(15));
    assert_refused(&output, 1, &["CAP_NET_ADMIN"]);
    assert_eq!(table(&lab.host), "");
}

#[test]
fn a_table_owned_by_another_process_is_left_alone() {
    let ns = Namespace::new("host");
    // A table with the flag `owner` belongs to the process that made it until that ends.
    let mut owner = Command::new("nft");
    owner
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut owner = ns.inside(|| owner.spawn()).expect("nft");
    let mut commands = owner.stdin.take().expect("stdin is piped");
    commands
        .write_all(b"add table inet verdictd { flags owner; }\n")
        .expect("a line to nft");
    commands.flush().expect("a line to nft");
    assert!(
        within(secs(5), || table(&ns).contains("owner")),
        "nft made no table"
    );

    let output = Engine::refuse(&ns, &Home::new(DETECTION));
    let still = table(&ns);
    drop(commands);
    let ended = owner.wait();
    assert_refused(&output, 1, &["verdictd", "own"]);
    assert!(still.contains("owner"), "the other's table was touched:\n{still}");
    assert!(ended.is_ok());
}

#[test]
fn a_second_engine_on_the_same_state_directory_is_refused() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    let before = engine.table();
    let state = engine.home().state().display().to_string();
    assert_refused(&Engine::refuse(&lab.host, engine.home()), 1, &[&state]);

    let elsewhere = Namespace::new("elsewhere");
    assert_refused(&Engine::refuse(&elsewhere, engine.home()), 1, &[&state]);

    assert!(engine.alive());
    assert_eq!(engine.table(), before);
    assert_eq!(
        engine.ctl(&["status"]).code(),
        0,
        "the first engine's socket is gone"
    );
    assert!(talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306));
}

#[test]
fn a_second_engine_in_the_same_namespace_disturbs_nothing() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "10.88.0.7", "--for", "1h"]);
    let before = engine.table();
    assert_refused(
        &Engine::refuse(&lab.host, &Home::new(DETECTION)),
        1,
        &["verdictd"],
    );
    assert!(engine.alive());
    assert_eq!(engine.table(), before);
    assert_eq!(engine.kernel_bans("banned4"), ["10.88.0.7"]);
    assert!(talks(&lab.attacker, HOST, 80) && !talks(&lab.attacker, HOST, 3306));
}

#[test]
fn a_second_engine_takes_no_table_whatever_it_would_make_of_it() {
    let lab = Lab::new();
    let two_workers = |config: &str| format!("{config}[engine]\nworkers = 2\n");
    for first in [DETECTION, OBSERVING] {
        let mut engine = Engine::start(&lab.host, &two_workers(first));
        let before = engine.table();
        let one_worker = format!("{FIREWALL}[engine]\nworkers = 1\n");
        for second in [DETECTION, OBSERVING, FIREWALL, &one_worker] {
            let second = match second.contains("workers") {
                true => second.to_owned(),
                false => two_workers(second),
            };
            let output = Engine::refuse(&lab.host, &Home::new(&second));
            assert_refused(&output, 1, &["served by another process"]);
        }
        assert!(engine.alive());
        assert_eq!(engine.table(), before);
        engine.stop();
    }
}

#[test]
fn without_a_control_socket_no_rule_is_loaded() {
    let lab = Lab::new();
    let home = Home::new(FIREWALL);
    fs::write(home.socket(), "in the way").expect("a file of ours");
    assert_refused(&Engine::refuse(&lab.host, &home), 1, &["is not a socket"]);
    let tables = lab.host.nft_list(&["list", "tables"]);
    assert!(!tables.contains("verdictd"), "{tables}");
}

#[test]
fn broken_and_random_packets_disturb_nobody() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80]);
    for config in [DETECTION, FIREWALL] {
        let mut engine = Engine::start(&lab.host, config);
        for (source, target) in [("10.88.0.66", HOST), (ATTACKER6, HOST6)] {
            let gun = Gun::new(&lab.attacker, source, target);
            let mut random = Xorshift(0x5eed);
            for length in 0..200 {
                let bytes: Vec<u8> = (0..length).map(|_| random.byte()).collect();
                // TCP, UDP, ICMP, fragments, extension headers, protocols that nobody knows.
                for protocol in [6, 17, 1, 58, 0, 43, 44, 60, 132, 136, random.byte()] {
                    gun.ip(protocol, &bytes);
                }
                gun.bytes(&[&[0x45 ^ random.byte() & 0x0f][..], &bytes].concat());
            }
        }
        thread::sleep(ms(300));
        assert!(engine.alive(), "{}", engine.log());
        assert!(!engine.log().contains("panicked"), "{}", engine.log());
        assert!(talks(lab.client(), HOST, 80), "{}", engine.log());
        assert_eq!(engine.ctl(&["status"]).code(), 0);
        engine.stop();
    }
}

#[test]
fn oversized_and_broken_requests_harm_nobody_else() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    let megabyte = vec![b'{'; 1 << 20];
    let requests: [&[u8]; 5] = [
        &megabyte,
        b"\n",
        b"\0\xff\xfe\n",
        b"{\"request\":\"ban\"}\n",
        b"no end",
    ];
    for request in requests {
        let mut stream = UnixStream::connect(engine.home().socket()).expect("the control socket");
        stream.set_read_timeout(Some(secs(5))).expect("a timeout");
        // The engine may hang up before it has read everything.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.take(1 << 16).read_to_end(&mut reply);
        assert!(reply.len() < 4096, "a long reply to a broken request");
    }
    let _silent: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(engine.home().socket()).expect("the socket"))
        .collect();
    assert!(engine.ban_of(ATTACKER).is_some());
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);
}

#[test]
fn verdictctl_tells_wrong_use_from_refusal_and_from_no_engine() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, DETECTION);
    for wrong in [&["bna", ATTACKER][..], &["ban"], &["list", "--jsno"]] {
        assert_eq!(engine.ctl(wrong).code(), 2, "{wrong:?}");
    }
    for (args, word) in [
        (&["ban", "10.0.0.0/33"][..], "33"),
        (&["ban", "ten.example"], "ten.example"),
        (&["ban", ATTACKER, "--for", "3 fortnights"], "fortnights"),
        (&["ban", ATTACKER, "--for", "0s"], "0"),
    ] {
        let answer = engine.ctl(args);
        assert!([1, 2].contains(&answer.code()), "{args:?}: {}", answer.text());
        assert!(answer.stderr.contains(word), "{args:?}: {}", answer.stderr);
    }
    assert!(engine.bans().is_empty());
    let home = engine.stop();
    let answer = home.ctl(&["status"]);
    assert_eq!(answer.code(), 3, "{}", answer.text());
}

/// Random enough for broken packets, the same on every run.
struct Xorshift(u64);

impl Xorshift {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }
}
