//! What the control script of the Python system did.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getsid};

use crate::common::engine::{DETECTION, FIREWALL};
use crate::common::{secs, within};
use crate::rig::{Rig, lives, signal};

#[test]
fn an_engine_is_started_once_shown_restarted_and_stopped() {
    let rig = Rig::new(DETECTION);
    let none = rig.status();
    assert_eq!(none.code(), 3, "{}", none.text());
    let said = rig.must("start", &[]);
    assert!(
        said.contains("engine started, pid ") && said.contains("logs/verdictd.log"),
        "{said}"
    );
    let first = rig.engine().expect("an engine");
    assert_eq!(
        getsid(Some(first)).ok(),
        Some(first),
        "it has a session of its own"
    );
    let comm = fs::read_to_string(format!("/proc/{}/comm", first.as_raw_nonzero())).unwrap();
    assert_eq!(comm.trim(), "verdictd");
    assert!(rig.must("start", &[]).contains("the engine runs already, pid "));
    let status = rig.status();
    assert_eq!(status.code(), 0, "{}", status.text());
    assert!(
        status.stdout.contains("monitor      not running"),
        "{}",
        status.stdout
    );
    rig.must("restart", &[]);
    let second = rig.wait_engine(Some(first));
    assert!(!lives(first) && lives(second));
    let said = rig.must("stop", &[]);
    assert!(
        said.contains("engine stopped") && said.contains("rules and bans stay"),
        "{said}"
    );
    assert!(!lives(second));
    assert!(rig.ns.nft_list(&["list", "tables"]).contains("verdictd"));
    assert!(rig.must("stop", &[]).contains("no engine runs"));
    rig.must("stop", &["--remove-rules"]);
    assert!(!rig.ns.nft_list(&["list", "tables"]).contains("verdictd"));
}

#[test]
fn twenty_starts_at_once_make_one_engine() {
    let rig = Rig::new(DETECTION);
    let starts: Vec<_> = (0..20)
        .map(|_| rig.ns.start(&mut rig.command("start", &[])))
        .collect();
    let said: Vec<String> = starts
        .into_iter()
        .map(|start| {
            let output = start.finish(secs(120));
            assert_eq!(output.code(), 0, "{}", output.text());
            output.stdout
        })
        .collect();
    let fresh = said.iter().filter(|said| said.contains("engine started")).count();
    let already = said.iter().filter(|said| said.contains("runs already")).count();
    assert_eq!((fresh, already), (1, 19), "{said:?}");
}

#[test]
fn a_start_that_fails_says_why_in_the_engines_own_words() {
    let rig = Rig::new("[firewall]\nmode = \"standart\"\n");
    let output = rig.control("start", &[]);
    assert_eq!(output.code(), 1, "{}", output.text());
    for words in ["the engine was not started", "standart", "exit status: 2"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    assert_eq!(rig.engine(), None);
    // One that runs is not given up for one that would not.
    rig.home.write_config(DETECTION);
    rig.must("start", &[]);
    let engine = rig.engine();
    rig.home.write_config("[firewall]\nmode = \"standart\"\n");
    let output = rig.control("restart", &[]);
    assert_eq!(output.code(), 2, "{}", output.text());
    assert_eq!(rig.engine(), engine);
}

#[test]
fn a_hung_engine_and_a_hung_monitor_are_killed_and_that_is_said() {
    let rig = Rig::new(DETECTION);
    rig.must("monitor", &[]);
    let both = [rig.monitor(), rig.engine()].map(|pid| pid.expect("both run"));
    both.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let said = rig.must("stop", &[]);
    assert!(
        said.contains("monitor did not end within 10 s and was killed"),
        "{said}"
    );
    assert!(
        said.contains("engine did not end within 10 s and was killed"),
        "{said}"
    );
    assert!(both.iter().all(|pid| !lives(*pid)));
    // Nobody takes that for an accident.
    let monitor = rig.foreground();
    let stopped = || {
        rig.view()["findings"]
            .to_string()
            .contains("stopped on purpose (verdictctl)")
    };
    assert!(within(secs(10), stopped), "{}", rig.view());
    assert_eq!(rig.engine(), None);
    drop(monitor);
}

#[test]
fn under_closed_a_stop_needs_a_word_more() {
    let rig = Rig::new(&format!("{FIREWALL}\n[engine]\non_loss = \"closed\"\n"));
    rig.must("start", &[]);
    let engine = rig.engine();
    let refused = rig.control("stop", &[]);
    assert_eq!(refused.code(), 1, "{}", refused.text());
    assert!(
        refused.stderr.contains("--force") && refused.stderr.contains("on_loss"),
        "{}",
        refused.stderr
    );
    assert_eq!(rig.engine(), engine);
    // Also where it does not answer, by the configuration.
    signal(engine.expect("it runs"), Signal::STOP);
    let hung = rig.control("start", &[]);
    assert_eq!(hung.code(), 1, "{}", hung.text());
    assert!(
        hung.stderr.contains("did not answer within 2 seconds") && hung.stderr.contains("verdictctl restart"),
        "{}",
        hung.stderr
    );
    assert_eq!(rig.control("stop", &[]).code(), 1);
    signal(engine.expect("it runs"), Signal::CONT);
    rig.must("stop", &["--remove-rules"]);
    assert!(!rig.ns.nft_list(&["list", "tables"]).contains("verdictd"));
    rig.must("start", &[]);
    rig.must("stop", &["--force"]);
    assert!(rig.ns.nft_list(&["list", "tables"]).contains("verdictd"));
}

#[test]
fn only_root_may() {
    let rig = Rig::new(DETECTION);
    let anybodys = rig.place("verdictctl");
    fs::copy(env!("CARGO_BIN_EXE_verdictctl"), &anybodys).unwrap();
    fs::set_permissions(rig.place(""), fs::Permissions::from_mode(0o755)).unwrap();
    for verb in ["start", "stop", "restart", "monitor"] {
        let mut command = Command::new(&anybodys);
        let output = rig.ns.run(command.arg(verb).uid(65_534).gid(65_534), secs(20));
        assert_eq!(output.code(), 1, "{verb}: {}", output.text());
        let words = format!("only root may do that: sudo verdictctl {verb}");
        assert!(output.stderr.contains(&words), "{}", output.stderr);
    }
}

/// systemd is not process 1 where tests run: a `systemctl` that writes down what it is asked, under a /run of its own,
/// shows what it would be asked.
#[test]
fn where_systemd_runs_it_is_asked() {
    let rig = Rig::new(DETECTION);
    let script = rig.place("systemctl");
    let asked = rig.place("asked");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\necho \"$@\" >> {}\ncase \"$*\" in *LoadState*) echo loaded;; *ActiveState*) echo inactive;; *fail*) exit 1;; esac\n",
            asked.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let verbs = [
        "start",
        "restart --config /etc/verdictd/verdictd.toml",
        "monitor",
        "stop",
    ];
    let ctl = env!("CARGO_BIN_EXE_verdictctl");
    let lines: Vec<String> = verbs.iter().map(|verb| format!("{ctl} {verb}")).collect();
    let shell = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -p /etc/verdictd && \
         mount -t tmpfs none /etc/verdictd && cp {} /etc/verdictd/verdictd.toml && {}",
        rig.home.config().display(),
        lines.join(" && ")
    );
    let existed = fs::exists("/etc/verdictd").unwrap();
    let mut command = Command::new("unshare");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", rig.place("").display());
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &shell])
        .env("PATH", path)
        .env_remove("VERDICTD_SOCKET");
    let output = rig.ns.run(&mut command, secs(30));
    if !existed {
        let _ = fs::remove_dir("/etc/verdictd");
    }
    assert_eq!(output.code(), 0, "{}", output.text());
    let asked = fs::read_to_string(asked).unwrap();
    let orders: Vec<&str> = asked.lines().filter(|line| !line.starts_with("show")).collect();
    assert_eq!(
        orders,
        [
            "--no-ask-password start verdictd.service",
            "--no-ask-password restart verdictd.service",
            "--no-ask-password start verdictd.service",
            "--no-ask-password start verdictd-monitor.service",
            "--no-ask-password stop verdictd-monitor.service",
            "--no-ask-password stop verdictd.service",
        ]
    );
    assert!(asked.contains("show --property LoadState --value -- verdictd.service"));
}
