//! What honest programs do that looks odd: file transfer, names, monitoring, health checks, path tracing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::sockopt::set_socket_linger;
use tempfile::TempDir;

use super::{in_both_modes, spotless, unbanned, visit};
use crate::common::command::Running;
use crate::common::engine::{DETECTION, Engine, FIREWALL};
use crate::common::flow::{talks, udp, udp_echoes};
use crate::common::lab::{ATTACKER, CLIENT, HOST, HOST6, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::wire::{Gun, SYN};
use crate::common::{ms, secs, within};

/// Each listing and each file comes over a connection to another port.
#[test]
fn passive_ftp_uses_a_new_port_for_each_file() {
    let ranges = "tcp = [21]\nranges = [\"50000-50100\"]";
    for config in [
        DETECTION.to_string(),
        FIREWALL.replace("tcp = [22, 80, 443]", ranges),
    ] {
        let lab = Lab::new().with_client();
        let server = Ftp::start(&lab.host);
        let engine = Engine::start(&lab.host, &config);
        for (how, files) in [
            ("", "[1-40]"),
            ("--disable-epsv", "[1-20]"),
            ("--ftp-port -", "[1-5]"),
        ] {
            server.fetch(lab.client(), how, files);
        }
        unbanned(&engine);
        assert!(engine.json("stats")["handshakes"]["completed"].as_u64() > Some(60));
    }
}

/// vsftpd with fifty files for everybody.
struct Ftp {
    _server: Running,
    _files: TempDir,
}

impl Ftp {
    fn start(ns: &Namespace) -> Ftp {
        let files = TempDir::with_prefix("verdictd-test-").expect("a temporary directory");
        let allow = |path: &std::path::Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a directory of ours");
        };
        let part = |name: &str| files.path().join(name);
        allow(files.path());
        for name in ["files", "empty"] {
            fs::create_dir(part(name)).expect("a directory of ours");
            allow(&part(name));
        }
        for n in 1..=50 {
            fs::write(part("files").join(n.to_string()), vec![b'x'; 5000]).expect("a file of ours");
        }
        let config = format!(
            "listen=YES\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\n\
             anon_root={}\nsecure_chroot_dir={}\npasv_min_port=50000\npasv_max_port=50100\nport_enable=YES\n\
             connect_from_port_20=YES\nseccomp_sandbox=NO\n",
            part("files").display(),
            part("empty").display()
        );
        fs::write(part("vsftpd.conf"), config).expect("a file of ours");
        let server = ns.start(Command::new("vsftpd").arg(part("vsftpd.conf")));
        assert!(
            within(secs(5), || crate::common::flow::connect(ns, HOST, 21).is_ok()),
            "vsftpd does not answer"
        );
        Ftp {
            _server: server,
            _files: files,
        }
    }

    fn fetch(&self, client: &Namespace, how: &str, files: &str) {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--output",
            "/dev/null",
        ]);
        curl.args(how.split_whitespace());
        let output = client.run(curl.arg(format!("ftp://{HOST}/{files}")), secs(40));
        assert!(output.status.success(), "curl {how}: {}", output.text());
    }
}

#[test]
fn names_are_asked_for_and_answered_over_udp() {
    let udp_open = "tcp = [22, 80, 443]\nudp = [53]";
    for config in [
        DETECTION.to_string(),
        FIREWALL.replace("tcp = [22, 80, 443]", udp_open),
    ] {
        let lab = Lab::new();
        let _servers = [&lab.host, &lab.attacker].map(|ns| Echo::both(ns, &[], &[53]));
        let engine = Engine::start(&lab.host, &config);
        for (asker, server) in [
            (&lab.attacker, HOST),
            (&lab.host, ATTACKER),
            (&lab.attacker, HOST6),
        ] {
            let answered = (0..200).filter(|_| udp_echoes(&udp(asker, server, 53))).count();
            assert_eq!(answered, 200, "from {server}\n{}", engine.log());
        }
        // Answers to what the host asked before conntrack was emptied.
        let open: Vec<_> = (0..40).map(|_| udp(&lab.host, ATTACKER, 53)).collect();
        open.iter().for_each(|socket| drop(socket.send(b"query")));
        lab.host.must("conntrack", &["-F"]);
        assert!(open.iter().all(udp_echoes), "{}", engine.log());
        spotless(&engine);
    }
}

/// A probe of a monitoring system that was never told that the service moved: every minute for a day.
#[test]
fn one_closed_port_again_and_again() {
    in_both_modes(&[22], |lab, engine, _services| {
        let mut probe = Gun::new(&lab.attacker, ATTACKER, HOST);
        for _ in 0..1440 {
            probe.tcp(9999, SYN);
        }
        assert!((0..3).all(|_| crate::common::flow::connect(&lab.attacker, HOST, 9999).is_err()));
        spotless(engine);
    });
}

/// An hour of HAProxy's default check, which ends with a RST in place of the ACK; as many that connect and reset; then a
/// service that is down for a while under load. None of it is a handshake that was left half open.
#[test]
fn health_checks_and_a_service_that_restarts() {
    in_both_modes(&[80], |lab, engine, services| {
        // The kernel has no socket for the answer: SYN, SYN+ACK, RST.
        let mut haproxy = Gun::new(&lab.attacker, "10.88.1.1", HOST);
        for _ in 0..3600 {
            haproxy.tcp(80, SYN);
        }
        let checked = lab
            .client()
            .inside(|| (0..1000).filter(|_| check(CLIENT)).count());
        assert_eq!(checked, 1000, "{}", engine.log());

        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let users: Vec<_> = (0..4)
                .map(|n| scope.spawn(move || format!("10.88.2.{n}")))
                .map(|user| user.join().expect("a user"))
                .map(|user| {
                    let (lab, over) = (&lab, &over);
                    scope.spawn(move || lab.attacker.inside(|| load(&user, over)))
                })
                .collect();
            thread::sleep(ms(500));
            drop(services);
            thread::sleep(secs(3));
            let _again = Echo::tcp(&lab.host, &[80]);
            thread::sleep(secs(1));
            over.store(true, Ordering::Relaxed);
            for user in users {
                let (served, refused) = user.join().expect("a user");
                assert!(
                    served > 100 && refused > 100,
                    "served {served}, refused {refused}"
                );
            }
        });
        // By now conntrack was asked about each of them.
        thread::sleep(ms(11_500));
        spotless(engine);
    });
}

/// Connects and resets.
fn check(from: &str) -> bool {
    visit(from, 80).is_ok_and(|stream| set_socket_linger(&stream, Some(secs(0))).is_ok())
}

/// Connects again and again: how often it was served and refused.
fn load(from: &str, over: &AtomicBool) -> (usize, usize) {
    let (mut served, mut refused) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        match check(from) {
            true => served += 1,
            false => refused += 1,
        }
        thread::sleep(ms(3));
    }
    (served, refused)
}

#[test]
fn a_path_is_traced_to_the_host() {
    in_both_modes(&[80], |lab, engine, _services| {
        for how in ["", "-I", "-T -p 80", "-T -p 443", "-U -p 53", "-N 32 -q 10"] {
            let mut command = Command::new("traceroute");
            command
                .args(["-n", "-w", "1", "-m", "3"])
                .args(how.split_whitespace());
            let output = lab.client().run(command.arg(HOST), secs(30));
            assert!(output.status.success(), "traceroute {how}: {}", output.text());
        }
        assert!(talks(lab.client(), HOST, 80));
        unbanned(engine);
    });
}

/// Answers to a flood that somebody forged in our name, and to the RSTs that the host sends back.
#[test]
fn backscatter_of_a_flood_forged_in_our_name() {
    const SYN_ACK: u8 = SYN | 0x10;
    const RST: u8 = 0x04;
    const RST_ACK: u8 = RST | 0x10;
    in_both_modes(&[80], |lab, engine, _services| {
        for (source, host) in [("10.88.1.1", HOST), ("10.88.2.2", HOST), ("fd66::1", HOST6)] {
            let mut victim = Gun::new(&lab.attacker, source, host);
            for port in 1..=500 {
                [SYN_ACK, RST_ACK, RST]
                    .into_iter()
                    .for_each(|flags| victim.tcp(port * 120, flags));
            }
        }
        thread::sleep(ms(300));
        spotless(engine);
    });
}
