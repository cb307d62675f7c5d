//! A confined engine does all of its work, whoever starts it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::command::{Running, run};
use crate::common::engine::{CORPORATE, Engine};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::service::Echo;
use crate::common::wire::Gun;
use crate::common::{secs, within};
use crate::{NOBODY, Who};

/// A receiver with a certificate for the name localhost, which believes what is rightly signed and notes its events.
struct Receiver {
    folder: tempfile::TempDir,
    _server: Running,
    port: u16,
}

impl Receiver {
    fn start(lab: &Lab) -> Receiver {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let path = |name: &str| folder.path().join(name);
        let mut make = Command::new("openssl");
        make.args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
                .split(' '),
        )
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(path("key"))
        .arg("-out")
        .arg(path("cert"));
        assert_eq!(run(&mut make, secs(20)).code(), 0);
        fs::write(path("server.py"), SERVER).expect("ours");
        let mut server = Command::new("/usr/bin/python3");
        server.arg(path("server.py")).arg(folder.path()).arg(SECRET);
        let server = lab.host.start(&mut server);
        let mut port = None;
        within(secs(15), || {
            port = fs::read_to_string(path("port"))
                .ok()
                .and_then(|text| text.parse().ok());
            port.is_some()
        });
        Receiver {
            _server: server,
            port: port.expect("a receiver"),
            folder,
        }
    }

    fn heard(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert")
    }
}

/// Takes TLS connections one after the other; writes the types of what is rightly signed to "events".
const SERVER: &str = r#"
import hashlib, hmac, http.server, json, os, ssl, sys
folder, secret = sys.argv[1], sys.argv[2].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        good = hmac.compare_digest(wanted, self.headers["X-Firewall-Signature"] or "")
        with open(folder + "/events", "a") as events:
            for event in json.loads(body)["events"]:
                events.write((event["event_type"] if good else "unsigned") + "\n")
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/cert", folder + "/key")
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(folder + "/port.new", "w") as port:
    port.write(str(server.server_address[1]))
os.rename(folder + "/port.new", folder + "/port")
server.serve_forever()
"#;
const SECRET: &str = "a-secret-of-this-test";

fn config(receiver: &Receiver, secret: &Path, ports: &str) -> String {
    format!(
        "{}\n[audit]\nmax_bytes = 65536\nkeep = 50\n[webhooks]\nenabled = true\nbatch_timeout = 1\n\
         [[webhooks.endpoints]]\nname = \"soc\"\nurl = \"https://localhost:{}/hook\"\nsecret_file = {secret:?}\n\
         [webhooks.endpoints.events]\nexclude = [\"connection_attempt\"]\n",
        CORPORATE.replace("22, 80, 443", ports),
        receiver.port
    )
}

/// As an editor or a tool of configuration management writes it.
fn replace(engine: &Engine<'_>, config: &str) {
    let path = engine.home().config();
    let new = path.with_extension("new");
    fs::write(&new, config).expect("ours");
    fs::rename(new, path).expect("ours");
}

fn secret(folder: &Path) -> PathBuf {
    let path = folder.join("soc.secret");
    fs::write(&path, SECRET).expect("ours");
    let mut chown = Command::new("chown");
    assert_eq!(run(chown.arg(NOBODY.to_string()).arg(&path), secs(5)).code(), 0);
    let mut chmod = Command::new("chmod");
    assert_eq!(run(chmod.arg("0600").arg(&path), secs(5)).code(), 0);
    path
}

#[test]
fn it_bans_reloads_saves_rotates_and_sends() {
    let lab = Lab::new();
    for who in [Who::Root, Who::User, Who::Alone] {
        let receiver = Receiver::start(&lab);
        let home = who.home("");
        let secret = match who {
            // Another user's file, which root reads by no right of its own any more: in its folder, as root's.
            Who::Root => {
                let path = home.config().with_file_name("soc.secret");
                fs::write(&path, SECRET).expect("ours");
                run(Command::new("chmod").arg("0600").arg(&path), secs(5));
                path
            }
            _ => secret(home.config().parent().expect("a folder")),
        };
        home.write_config(&config(&receiver, &secret, "22, 80"));
        let engine = Engine::start_by(&lab.host, home, |command| {
            command.env("SSL_CERT_FILE", receiver.certificate());
            who.command(command);
        });
        let _echo = Echo::tcp(&lab.host, &[80, 8080]);
        let heard = |kind: &str| {
            let found = within(secs(15), || receiver.heard().iter().any(|heard| heard == kind));
            assert!(
                found,
                "{who:?}: {kind}: {:?}\n{}",
                engine.must(&["webhook", "status"]),
                engine.log()
            );
        };

        heard("firewall_started");
        Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
        engine.wait_ban(ATTACKER);
        heard("ip_blocked");
        engine.must(&["unban", ATTACKER]);

        assert!(!talks(&lab.attacker, HOST, 8080));
        replace(&engine, &config(&receiver, &secret, "22, 80, 8080"));
        engine.must(&["reload"]);
        assert!(talks(&lab.attacker, HOST, 8080), "{who:?}");

        for number in 0..250 {
            let target = format!("203.0.113.{number}");
            engine.must(&["ban", &target, "--for", "1h"]);
        }
        let rotated = engine.home().logs().join("audit.jsonl.1");
        assert!(rotated.exists(), "{who:?}\n{}", engine.log());
        assert!(engine.must(&["snapshot"]).contains("saved"));
        assert!(
            engine.home().state().join("state.toml.1").exists()
                || engine.must(&["snapshot"]).contains("saved")
        );
        let verified = engine.ctl(&["audit", "verify"]);
        assert_eq!(verified.code(), 0, "{who:?}: {}", verified.text());

        let status = engine.json("status");
        assert_eq!(
            (&status["protected"], &status["degraded"]),
            (&true.into(), &json!([])),
            "{who:?}"
        );
        let queue = &engine.json("stats")["queues"][0];
        let known = queue["waiting"].is_u64() && queue["kernel_dropped"].is_u64();
        // The file is root's and its group's (0440).
        assert_eq!(known, who != Who::Alone, "{who:?}: {queue}");
        assert!(
            !engine.log().contains("Operation not permitted"),
            "{}",
            engine.log()
        );
        let home = engine.stop();
        assert!(within(secs(5), || receiver
            .heard()
            .iter()
            .any(|heard| heard == "firewall_stopped")));
        assert!(receiver.heard().iter().all(|heard| heard != "unsigned"));

        // And the next one has it all, from files that the confined one wrote.
        let engine = Engine::start_by(&lab.host, home, |command| who.command(command));
        assert_eq!(engine.bans().len(), 250, "{who:?}\n{}", engine.log());
        for number in 0..250 {
            engine.must(&["unban", &format!("203.0.113.{number}")]);
        }
        engine.stop();
    }
}

/// One line to the control socket as user `uid`; the answer.
fn ask(engine: &Engine<'_>, uid: u32, request: &Value) -> Value {
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.settimeout(15)\ns.sendall(sys.argv[2].encode()+b'\\n')\nprint(s.makefile().readline())";
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-c", script])
        .arg(engine.home().socket())
        .arg(request.to_string());
    python.uid(uid).gid(uid).stdin(Stdio::null());
    let output = run(&mut python, secs(20));
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.text()))
}

/// What only root may ask for is not for the engine's own user either.
#[test]
fn who_asks_is_told_apart_as_ever() {
    let lab = Lab::new();
    let engine = Who::User.start(&lab.host, CORPORATE);
    let begin = json!({"request": "selftest_begin", "source": "192.0.2.7", "witness": "192.0.2.8"});
    let refused = ask(&engine, NOBODY, &begin).to_string();
    assert!(
        refused.contains("only root may do that, and uid 65534 asks"),
        "{refused}"
    );
    let note = json!({"request": "audit_note", "kind": "integrity", "result": "failed", "detail": "x"});
    assert!(ask(&engine, NOBODY, &note).to_string().contains("root"));
    assert_eq!(ask(&engine, 0, &note)["body"]["written"], true);

    let mut selftest = Command::new(env!("CARGO_BIN_EXE_verdictd"));
    selftest
        .args(["selftest", "--socket"])
        .arg(engine.home().socket());
    let output = lab.host.run(&mut selftest, secs(60));
    assert_eq!(output.code(), 0, "{}\n{}", output.text(), engine.log());
}

/// A secret that a reload names in another folder cannot be read: it says so, and what to do.
#[test]
fn what_was_not_named_at_the_start_needs_a_restart() {
    let lab = Lab::new();
    let receiver = Receiver::start(&lab);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let path = elsewhere.path().join("soc.secret");
    fs::write(&path, SECRET).expect("ours");
    run(Command::new("chmod").arg("0600").arg(&path), secs(5));
    let engine = Who::Root.start(&lab.host, CORPORATE);
    replace(&engine, &config(&receiver, &path, "22"));
    let told = engine.must(&["reload"]);
    let words = format!("{} cannot be read: the confined engine", path.display());
    assert!(
        told.contains(&words) && told.contains("restart the engine"),
        "{told}"
    );
    assert!(receiver.heard().is_empty(), "nothing is sent unsigned");
    let home = engine.stop();
    let engine = Engine::start_by(&lab.host, home, |command| {
        command.env("SSL_CERT_FILE", receiver.certificate());
    });
    assert!(within(secs(15), || receiver
        .heard()
        .iter()
        .any(|heard| heard == "firewall_started")));
    engine.stop();
}

/// Root who starts it by hand on a host where it runs as a user else: what it cannot do without is kept, and said.
#[test]
fn roots_engine_writes_in_another_users_state_directory() {
    let lab = Lab::new();
    let home = Who::Root.home(CORPORATE);
    let state = home.state();
    run(Command::new("chown").arg("65534:65534").arg(&state), secs(5));
    run(Command::new("chmod").arg("0700").arg(&state), secs(5));
    let engine = Engine::start_in(&lab.host, home, &[]);
    let status = engine.json("status");
    let words = status["confinement"].as_str().expect("words");
    let kept = format!(
        "capabilities net_admin and dac_override ({} is another user's)",
        state.display()
    );
    assert!(words.ends_with(&kept), "{words}");
    assert!(engine.must(&["snapshot"]).contains("saved"));
    assert_eq!(status["degraded"], json!([]));
    engine.stop();
}

/// Root's engine reads the files of /etc one by one: of one that was replaced it says that it cannot read the new one.
#[test]
fn a_file_of_the_resolver_that_was_replaced_is_told_of() {
    let lab = Lab::new();
    let etc = tempfile::tempdir().expect("a folder");
    run(Command::new("chmod").arg("0755").arg(etc.path()), secs(5));
    let mut copy = Command::new("cp");
    copy.args([
        "-a",
        "/etc/hosts",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/etc/ssl",
    ])
    .arg(etc.path());
    assert_eq!(run(&mut copy, secs(20)).code(), 0);
    for (who, told) in [(Who::Root, 1), (Who::User, 0)] {
        let home = who.home(CORPORATE);
        let engine = Engine::start_by(&lab.host, home, |command| {
            who.command(command);
            let mut wrapped = Command::new("unshare");
            wrapped
                .args(["--mount", "sh", "-ec", "mount --bind \"$0\" /etc; exec \"$@\""])
                .arg(etc.path())
                .arg(command.get_program())
                .args(command.get_args());
            *command = wrapped;
        });
        assert_eq!(engine.json("status")["degraded"], json!([]), "{who:?}");
        fs::write(etc.path().join("new"), "127.0.0.1 localhost other\n").expect("ours");
        fs::rename(etc.path().join("new"), etc.path().join("hosts")).expect("ours");
        let degraded = engine.json("status")["degraded"].clone();
        let lines = degraded.as_array().expect("lines");
        assert_eq!(lines.len(), told, "{who:?}: {degraded}");
        let words = "/etc/hosts was replaced since the start, and the confined engine cannot read it: restart the engine";
        assert!(lines.iter().all(|line| line == words), "{degraded}");
        engine.stop();
    }
}
