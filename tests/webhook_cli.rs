//! `verdictctl webhook`: the built program, and its questions answered from a script, against the built receiver and
//! against an engine that answers from a script.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use verdictd::cli::{self, Ask, AskError, Screen, Style};
use verdictd::config;
use verdictd::control::server::{Handler, Peer, Server};
use verdictd::control::wire::{Reply, Request, WebhookEndpointView, WebhookView};
use verdictd::webhook::wire::EventType;

#[path = "common/folder.rs"]
mod folder;

const KEY: &str = "hunter2-the-webhook-secret";

/// What a run of the program left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends(&self, code: i32) -> &Ran {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(&self, words: &[&str]) -> &Ran {
        for word in words {
            let text = format!("{}{}", self.out, self.err);
            assert!(text.contains(word), "no \"{word}\" in: {text}");
        }
        self
    }
}

/// A folder for a configuration, secrets and a control socket.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn with(config: &str) -> Place {
        let place = Place::new();
        fs::write(place.config(), config).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("verdictd.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    /// Every name in the folder.
    fn names(&self) -> Vec<String> {
        folder::names(self.folder.path())
    }

    fn secret_file(&self, name: &str) -> String {
        let path = self.path(name);
        folder::write_private(&path, format!("{KEY}\n"));
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command
            .arg("webhook")
            .args(args)
            .env("VERDICTD_SOCKET", self.path("control.sock"));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// With `--config` behind `args`.
    fn on_config(&self, args: &[&str]) -> Ran {
        let config = self.config();
        self.run(&[args, &["--config", config.to_str().unwrap()]].concat())
    }

    fn setup(&self, args: &[&str]) -> Ran {
        self.on_config(&[&["setup", "--non-interactive"], args].concat())
    }

    /// `setup` with its questions answered.
    fn answered(&self, answers: &[Answer]) -> Ran {
        let mut script = Script {
            answers: answers.to_vec().into(),
            asked: Vec::new(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let screen = Screen {
            out: &mut out,
            err: &mut err,
            style: Style::default(),
        };
        let socket = self.path("control.sock");
        let args: Vec<OsString> = vec![
            "verdictctl".into(),
            "--socket".into(),
            socket.into(),
            "webhook".into(),
            "setup".into(),
            "--config".into(),
            self.config().into(),
        ];
        let exit = cli::run(args, screen, &mut script);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(out), text(err));
        assert!(
            script.answers.is_empty(),
            "left over: {:?} {out}{err}",
            script.answers
        );
        Ran {
            code: exit as i32,
            out,
            err,
        }
    }
}

#[derive(Clone, Debug)]
enum Answer {
    /// The option that holds this.
    One(&'static str),
    Several(Vec<&'static str>),
    Text(String),
    Yes(bool),
    Out,
}

fn text(text: impl Into<String>) -> Answer {
    Answer::Text(text.into())
}

struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<String>,
}

impl Script {
    fn next(&mut self, question: &str) -> Answer {
        self.asked.push(question.to_owned());
        let answer = self.answers.pop_front();
        answer.unwrap_or_else(|| panic!("nothing to answer: {:?}", self.asked))
    }
}

impl Ask for Script {
    fn one(&mut self, question: &str, options: &[String]) -> Result<usize, AskError> {
        match self.next(question) {
            Answer::One(word) => {
                let found = options.iter().position(|option| option.contains(word));
                Ok(found.unwrap_or_else(|| panic!("{question} {options:?} has no {word}")))
            }
            Answer::Out => Err(AskError::Cancelled),
            other => panic!("{question}: {other:?}"),
        }
    }

    fn several(&mut self, question: &str, options: &[String], _: &[usize]) -> Result<Vec<usize>, AskError> {
        match self.next(question) {
            Answer::Several(words) if words == ["all"] => Ok((0..options.len()).collect()),
            Answer::Several(words) => Ok(words
                .iter()
                .map(|word| options.iter().position(|option| option == word).unwrap())
                .collect()),
            other => panic!("{question}: {other:?}"),
        }
    }

    fn text(&mut self, question: &str, _: &str) -> Result<String, AskError> {
        match self.next(question) {
            Answer::Text(text) => Ok(text),
            other => panic!("{question}: {other:?}"),
        }
    }

    fn yes(&mut self, question: &str, _: bool) -> Result<bool, AskError> {
        match self.next(question) {
            Answer::Yes(yes) => Ok(yes),
            Answer::Out => Err(AskError::Cancelled),
            other => panic!("{question}: {other:?}"),
        }
    }
}

/// `verdict-receiver test-server` on a free port.
struct Receiver {
    child: Child,
    out: BufReader<ChildStdout>,
    url: String,
}

impl Receiver {
    fn start(secret_file: &str, args: &[&str]) -> Receiver {
        let mut child = Command::new(env!("CARGO_BIN_EXE_verdict-receiver"))
            .args(["test-server", "--port", "0", "--secret-file", secret_file])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = format!("{}/", line.trim().strip_prefix("listening on ").unwrap());
        Receiver { child, out, url }
    }

    /// What it printed about one request.
    fn request(&mut self) -> String {
        let mut text = String::new();
        while !text.contains("  answering") {
            assert!(self.out.read_line(&mut text).unwrap() > 0, "{text}");
        }
        text
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const COMMENTED: &str = r#"# The engine's configuration.
[firewall]   # how it filters
firewall_mode = "detection_only"   # the default

[webhooks]   # where events go
enabled = false   # not yet
#batch_size = 10

# The operations centre.
[[webhooks.endpoints]]
name = "SOC"    # as they call it
url = "https://soc.example.com/hooks/token"
secret = "hush-hush"
  [webhooks.endpoints.headers]   # whose we are
  "X-Org" = "42"

[bans]
enforce = true # as decided

# The end.
"#;

#[test]
fn a_new_endpoint_changes_nothing_else() {
    let place = Place::with(COMMENTED);
    fs::set_permissions(place.config(), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(place.config(), Some(0), Some(0)).unwrap();
    let ran = place.setup(&[
        "--name",
        "SIEM 2",
        "--url",
        "https://siem.example.com/in?key=hush",
        "--include",
        "ip_blocked,ip_unblocked",
    ]);
    ran.ends(0).says(&[
        "wrote a new secret to",
        "siem-2.secret",
        "verdictctl reload",
        ".bak",
    ]);
    let secret = place.path("siem-2.secret");
    let expected = format!(
        "{}\n[[webhooks.endpoints]]\nname = \"SIEM 2\"\nurl = \"https://siem.example.com/in?key=hush\"\nsecret_file = {:?}\n\n\
         [webhooks.endpoints.events]\ninclude = [\"ip_blocked\", \"ip_unblocked\"]\n",
        COMMENTED.replace("enabled = false", "enabled = true"),
        secret
    );
    assert_eq!(place.text(), expected);
    assert_eq!(
        fs::read_to_string(place.path("verdictd.toml.bak")).unwrap(),
        COMMENTED
    );
    for (name, mode) in [
        ("verdictd.toml", 0o640),
        ("verdictd.toml.bak", 0o640),
        ("siem-2.secret", 0o600),
    ] {
        assert_eq!(
            fs::metadata(place.path(name)).unwrap().mode() & 0o7777,
            mode,
            "{name}"
        );
    }
    assert_eq!(
        place.names(),
        ["siem-2.secret", "verdictd.toml", "verdictd.toml.bak"]
    );
    let made = fs::read_to_string(&secret).unwrap();
    assert_eq!(made.trim().len(), 64);
    assert!(!ran.out.contains(made.trim()) && !ran.err.contains(made.trim()));
    let config = config::load(&place.config()).unwrap();
    let siem = &config.webhooks.endpoints[1];
    assert!(config.webhooks.enabled && siem.secret.read().unwrap().is_some());
    assert!(siem.filter.wants(EventType::IpBlocked) && !siem.filter.wants(EventType::BanStorm));

    // Once more the same: nothing to do.
    let again = place.setup(&[
        "--name",
        "SIEM 2",
        "--url",
        "https://siem.example.com/in?key=hush",
    ]);
    again.ends(0).says(&["nothing was changed"]);
    assert_eq!(place.text(), expected);
    // A change of the first one leaves the second.
    place
        .setup(&["--name", "SOC", "--exclude", "connection_attempt"])
        .ends(0);
    let (before, after) = (expected.split_once("\n[bans]").unwrap(), place.text());
    assert!(
        after.starts_with(before.0.trim_end()) && after.ends_with(before.1),
        "{after}"
    );
    assert!(after.contains("exclude = [\"connection_attempt\"]"), "{after}");
}

#[test]
fn the_shipped_configuration_takes_an_endpoint() {
    let shipped = include_str!("../config/verdictd.toml");
    let place = Place::with(shipped);
    place
        .setup(&["--name", "a", "--url", "https://a.example.com/"])
        .ends(0);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(shipped), lines(&place.text()));
    let mut rest = new.iter();
    assert!(
        old.iter().all(|line| rest.any(|other| other == line)),
        "{}",
        place.text()
    );
    assert!(new.len() <= old.len() + 7, "{}", place.text());
}

#[test]
fn what_is_refused_changes_nothing() {
    let place = Place::with(COMMENTED);
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        place.setup(args).ends(code).says(words);
        assert_eq!(place.text(), COMMENTED, "{args:?}");
        assert_eq!(place.names(), ["verdictd.toml"], "{args:?}");
    };
    refused(
        &["--name", "x", "--url", "gopher://x/"],
        2,
        &["webhooks.endpoints", "not a web address"],
    );
    refused(
        &["--name", "x", "--url", "http://169.254.169.254/"],
        2,
        &["metadata service"],
    );
    refused(
        &["--name", "x", "--url", "http://198.51.100.7/"],
        2,
        &["public address", "allow_http"],
    );
    refused(&["--name", "x"], 2, &["new endpoint", "--url"]);
    refused(&["--url", "https://x/"], 2, &["--name"]);
    refused(
        &["--name", "\u{1b}[2J", "--url", "https://x/"],
        2,
        &["is not a name"],
    );
    refused(
        &["--name", "x", "--url", "https://x/", "--include", "ip_bloked"],
        2,
        &["ip_blocked"],
    );
    refused(
        &[
            "--name",
            "x",
            "--url",
            "https://x/",
            "--secret-file",
            "/nowhere/at/all",
        ],
        1,
        &["/nowhere/at/all"],
    );
    let open = Place::new();
    fs::write(open.path("open"), KEY).unwrap();
    fs::set_permissions(open.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let file = open.path("open");
    let file = file.to_str().unwrap();
    refused(
        &["--name", "x", "--url", "https://x/", "--secret-file", file],
        2,
        &["every user"],
    );
    // Without a terminal nobody is asked.
    place
        .on_config(&["setup"])
        .ends(2)
        .says(&["no terminal", "--non-interactive"]);
    assert_eq!(place.text(), COMMENTED);
}

#[test]
fn a_bad_or_missing_configuration_is_left_alone() {
    let bad = "[webhooks]\nenabled = 1\nsecret = \"hush\"\n";
    let place = Place::with(bad);
    let ran = place.setup(&["--name", "x", "--url", "https://x/"]);
    ran.ends(2).says(&[
        "verdictd.toml:2: webhooks.enabled",
        "verdictd.toml:3: webhooks.secret",
    ]);
    assert!(!ran.err.contains("hush"), "{}", ran.err);
    assert_eq!((place.text().as_str(), place.names().len()), (bad, 1));
    Place::new()
        .setup(&["--name", "x", "--url", "https://x/"])
        .ends(2)
        .says(&["no such file"]);
    let mixed = "[webhooks]\r\nenabled = true\n";
    let place = Place::with(mixed);
    place
        .setup(&["--name", "x", "--url", "https://x/"])
        .ends(1)
        .says(&["by hand"]);
    assert_eq!((place.text().as_str(), place.names().len()), (mixed, 1));
}

#[test]
fn behind_a_link_the_file_is_replaced_and_not_the_link() {
    let place = Place::new();
    fs::write(place.path("real.toml"), "# mine\n").unwrap();
    symlink(place.path("real.toml"), place.config()).unwrap();
    place
        .setup(&["--name", "x", "--url", "https://x/", "--no-secret"])
        .ends(0);
    assert!(fs::symlink_metadata(place.config()).unwrap().is_symlink());
    assert!(
        fs::read_to_string(place.path("real.toml"))
            .unwrap()
            .starts_with("# mine\n")
    );
    assert_eq!(place.names(), ["real.toml", "real.toml.bak", "verdictd.toml"]);
}

#[test]
fn a_test_event_arrives_signed_and_is_answered() {
    let place = Place::with("# short\n");
    let secret = place.secret_file("soc.secret");
    let mut receiver = Receiver::start(&secret, &[]);
    let ran = place.setup(&[
        "--name",
        "SOC",
        "--url",
        &receiver.url,
        "--secret-file",
        &secret,
        "--test",
    ]);
    ran.ends(0).says(&[
        "SOC (http://127.0.0.1:",
        "sent: firewall_started",
        "signed",
        "200 OK",
        "good:",
    ]);
    let seen = receiver.request();
    assert!(
        seen.contains("good X-Firewall-Signature-V2") && seen.contains("firewall_started"),
        "{seen}"
    );

    place.on_config(&["test"]).ends(0).says(&["200 OK"]);
    receiver.request();
    place.on_config(&["test", "--endpoint", "SOC"]).ends(0);
    receiver.request();
    place
        .run(&["test", "--url", &receiver.url, "--secret-file", &secret])
        .ends(0);
    receiver.request();
    let shown = place.run(&["test", "--url", &receiver.url, "--secret", KEY]);
    shown.ends(0).says(&["list of processes"]);
    assert!(!shown.out.contains(KEY) && !shown.err.contains(KEY));
    receiver.request();
    place
        .on_config(&["send", "ip_blocked"])
        .ends(0)
        .says(&["ip_blocked", "200 OK"]);
    let seen = receiver.request();
    assert!(seen.contains("ip_blocked ip=192.0.2.1"), "{seen}");
}

#[test]
fn what_is_wrong_is_said_in_plain_words() {
    let place = Place::new();
    let secret = place.secret_file("soc.secret");
    let receiver = Receiver::start(&secret, &[]);
    let test = |url: &str, more: &[&str], words: &[&str]| {
        let ran = place.run(&[&["test", "--url", url], more].concat());
        ran.ends(1).says(words);
    };
    test(
        &receiver.url,
        &["--secret", "another"],
        &["401 Unauthorized", "secrets of the two sides differ"],
    );
    test(&receiver.url, &[], &["401 Unauthorized", "no secret"]);
    let failing = Receiver::start(&secret, &["--fail", "503"]);
    test(
        &failing.url,
        &["--secret-file", &secret],
        &["503 Service Unavailable", "trouble of its own"],
    );
    let redirecting = Receiver::start(&secret, &["--fail", "302"]);
    test(
        &redirecting.url,
        &[],
        &["302 Found", "redirects are never followed"],
    );
    test(
        "http://169.254.169.254/",
        &[],
        &["not sent", "nothing is ever sent there", "metadata"],
    );
    test(
        "http://198.51.100.7/",
        &[],
        &["not sent", "is public", "write another url"],
    );
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    test(
        &format!("http://{closed}/"),
        &[],
        &["nobody takes the connection"],
    );
    test(&receiver.url.replace("http:", "https:"), &[], &["certificate"]);
    test("https://no-such-host.invalid/", &[], &["name"]);
}

#[test]
fn a_silent_receiver_is_left_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let place = Place::with(&format!(
        "[webhooks]\n[[webhooks.endpoints]]\nname = \"slow\"\nurl = \"{url}\"\ntimeout = 1\n"
    ));
    let ran = place.on_config(&["test"]);
    ran.ends(1)
        .says(&["no answer within 1 s", "silent", "webhooks.enabled is not true"]);
    // What is no HTTP at all.
    let talker = thread::spawn(move || {
        // The first connection is that of the silent test.
        for stream in silent.incoming().take(2).flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    place
        .run(&["test", "--url", &url])
        .ends(1)
        .says(&["something else than a web server"]);
    talker.join().unwrap();
}

#[test]
fn filters_hold_unless_an_endpoint_is_named() {
    let place = Place::new();
    let secret = place.secret_file("soc.secret");
    let mut receiver = Receiver::start(&secret, &[]);
    let endpoint = |name: &str, rest: &str| {
        format!(
            "[[webhooks.endpoints]]\nname = \"{name}\"\nurl = \"{}\"\nsecret_file = \"{secret}\"\n{rest}\n",
            receiver.url
        )
    };
    let config = [
        "[webhooks]\nenabled = true\n",
        &endpoint("blocks", "events = { include = [\"ip_blocked\"] }"),
        &endpoint("off", "enabled = false"),
    ];
    fs::write(place.config(), config.concat()).unwrap();
    let ran = place.on_config(&["send", "ip_blocked"]);
    assert!(
        ran.ends(0).out.contains("blocks (") && !ran.out.contains("off ("),
        "{}",
        ran.out
    );
    receiver.request();
    place
        .on_config(&["send", "ban_storm"])
        .ends(1)
        .says(&["no enabled endpoint wants ban_storm"]);
    place
        .on_config(&["send", "ban_storm", "--endpoint", "off"])
        .ends(0);
    assert!(receiver.request().contains("ban_storm"));
    place
        .on_config(&["send", "ban_storm", "--endpoint", "blcks"])
        .ends(2)
        .says(&["did you mean \"blocks\""]);
    place
        .on_config(&["send", "ip_bloked"])
        .ends(2)
        .says(&["ip_blocked"]);
    for kind in EventType::ALL {
        place
            .on_config(&["send", kind.name(), "--endpoint", "off"])
            .ends(0);
        let seen = receiver.request();
        assert!(seen.contains(kind.name()) && !seen.contains("  note"), "{seen}");
    }
    let credential =
        "[[webhooks.endpoints]]\nname = \"c\"\nurl = \"https://c/\"\nsecret_credential = \"soc\"\n";
    let place = Place::with(credential);
    place
        .on_config(&["test"])
        .ends(1)
        .says(&["not sent", "--secret-file"]);
}

#[test]
fn the_questions_lead_to_a_configuration_that_works() {
    use Answer::{One, Several, Yes};
    let place = Place::with(COMMENTED);
    let secret = place.secret_file("given.secret");
    let mut receiver = Receiver::start(&secret, &[]);
    let ran = place.answered(&[
        One("Add"),
        text(""),
        text("SOC"),
        text("Lab"),
        text("ftp://x/"),
        text("http://169.254.169.254/"),
        text(&receiver.url),
        One("Use the secret"),
        text("relative"),
        text("/nowhere"),
        text(secret.as_str()),
        Several(vec![]),
        Several(vec!["ip_blocked", "ban_storm"]),
        One("Change SOC"),
        One("Disable"),
        One("Save"),
        Yes(true),
    ]);
    ran.ends(0).says(&[
        "an endpoint needs a name",
        "name of another endpoint",
        "nothing is ever sent there",
        "200 OK",
    ]);
    ran.says(&["SOC: https://soc.example.com/…, secret in the configuration, every event"]);
    assert!(!ran.out.contains("hush") && !ran.out.contains(KEY), "{}", ran.out);
    assert!(receiver.request().contains("good X-Firewall-Signature"));
    let new = place.text();
    let lab = format!(
        "\n[[webhooks.endpoints]]\nname = \"Lab\"\nurl = \"{}\"\nsecret_file = \"{secret}\"\n\n[webhooks.endpoints.events]\ninclude = [\"ip_blocked\", \"ban_storm\"]\n",
        receiver.url
    );
    let expected = COMMENTED
        .replace("enabled = false", "enabled = true")
        .replace("\"hush-hush\"\n", "\"hush-hush\"\nenabled = false\n");
    assert_eq!(new, expected + &lab);

    // And away with it again; a secret made for what is then removed is not left behind.
    let ran = place.answered(&[
        One("Change Lab"),
        One("Its secret"),
        One("recommended"),
        One("Change Lab"),
        One("Remove"),
        Yes(false),
        One("Change Lab"),
        One("Remove"),
        Yes(true),
        One("Save"),
    ]);
    ran.ends(0).says(&["verdictctl reload"]);
    assert!(!place.path("lab.secret").exists());
    assert_eq!(place.text().trim_end(), new.replace(&lab, "").trim_end());
}

#[test]
fn leaving_changes_nothing_and_a_made_secret_is_shown_once() {
    use Answer::{One, Out, Several, Yes};
    let place = Place::with("");
    let add = [
        One("Add"),
        text("x"),
        text("http://x.example.com/"),
        Yes(false),
        One("show it once"),
        Several(vec!["all"]),
    ];
    place
        .answered(&[&add[..], &[One("Leave")]].concat())
        .ends(0)
        .says(&["nothing was changed"]);
    place
        .answered(&[&add[..], &[Out]].concat())
        .ends(1)
        .says(&["cancelled, nothing was changed"]);
    assert_eq!((place.text().as_str(), place.names().len()), ("", 1));
    let ran = place.answered(&[&add[..], &[One("Save"), Yes(false)]].concat());
    ran.ends(0).says(&["shown this once"]);
    let text = place.text();
    let secret = text
        .split("secret = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(secret.len() == 64 && ran.out.contains(secret), "{}", ran.out);
    assert!(!text.contains("events"), "{text}");
    // Who has saved and then wants out has saved.
    let place = Place::with("");
    let ran = place.answered(&[&add[..], &[One("Save"), Out]].concat());
    ran.ends(0).says(&["shown this once", "verdictctl reload"]);
    assert!(!ran.err.contains("nothing was changed"), "{}", ran.err);
    assert!(place.text().contains("http://x.example.com/"));
}

/// An engine with webhooks.
#[derive(Default)]
struct Engine {
    view: WebhookView,
    asked: Mutex<Vec<Request>>,
}

impl Handler for Engine {
    fn handle(&self, request: Request, _: Peer) -> Reply {
        self.asked.lock().unwrap().push(request.clone());
        match request {
            Request::Webhooks {} => Reply::Webhooks(Box::new(self.view.clone())),
            Request::WebhookRetry { endpoint: None } => Reply::WebhooksRetried(2),
            Request::WebhookRetry { endpoint: Some(name) } => {
                Reply::WebhooksRetried(u64::from(name == "SOC"))
            }
            Request::Reload {} => Reply::Reloaded(vec!["webhooks: 1 endpoint more".into()]),
            Request::Status {} => Reply::Status(Box::default()),
            _ => Reply::refused("not in this test"),
        }
    }
}

fn view() -> WebhookView {
    let endpoint = |name: &str, circuit: &str| WebhookEndpointView {
        name: name.into(),
        url: "https://soc.example.com/…".into(),
        enabled: true,
        delivered: 1_234,
        attempts: 200,
        failed: 1,
        success_rate: Some(0.995),
        circuit: circuit.into(),
        ..WebhookEndpointView::default()
    };
    let mut bad = endpoint("Bad\u{1b}[2J", "open");
    bad.last_error = Some("it answers 503 Service Unavailable".into());
    bad.last_error_at = Some("2026-03-01T12:00:00Z".into());
    bad.dead_letters = 7;
    WebhookView {
        enabled: true,
        spooled: 5,
        spool_bytes: 4_096,
        endpoints: vec![endpoint("SOC", "closed"), bad],
        ..WebhookView::default()
    }
}

#[test]
fn status_and_retry_ask_the_engine() {
    let place = Place::new();
    place.run(&["status"]).ends(3).says(&["no engine runs"]);
    let engine = Arc::new(Engine {
        view: view(),
        ..Engine::default()
    });
    let server = Server::start(&place.path("control.sock"), Arc::<Engine>::clone(&engine)).unwrap();
    let ran = place.run(&["status"]);
    ran.ends(0).says(&[
        "TROUBLE: 1 of 2 endpoints",
        "99.5 %",
        "circuit open",
        "1,234",
        "last error 2026-03-01T12:00:00Z: it answers 503",
        "4,096 bytes on disk",
    ]);
    assert!(!ran.out.contains('\u{1b}'), "{:?}", ran.out);
    let json: Value = serde_json::from_str(&place.run(&["status", "--json"]).ends(0).out).unwrap();
    assert_eq!(json["endpoints"][1]["dead_letters"], 7);
    assert_eq!(json["endpoints"][0]["success_rate"], 0.995);
    place.run(&["retry"]).ends(0).says(&["2 endpoints"]);
    place.run(&["retry", "SOC"]).ends(0).says(&["1 endpoint"]);
    place
        .run(&["retry", "soc"])
        .ends(1)
        .says(&["no enabled endpoint is called \"soc\""]);
    place
        .run(&["retry", &"x".repeat(101)])
        .ends(2)
        .says(&["101 characters"]);
    fs::write(place.config(), "").unwrap();
    place
        .setup(&["--name", "x", "--url", "https://x/", "--reload"])
        .ends(0)
        .says(&["reloaded:", "1 endpoint more"]);
    assert!(engine.asked.lock().unwrap().contains(&Request::Reload {}));
    server.stop();
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let place = Place::new();
    let ran = place.run(&["service"]);
    let unit = &ran.ends(0).out;
    assert_eq!(
        unit,
        include_str!("../packaging/systemd/verdict-receiver.service")
    );
    for line in [
        "Alias=firewall-webhook.service",
        "ExecStart=/usr/bin/verdict-receiver serve",
        "LoadCredential=webhook_secret:/etc/verdictd/receiver.secret",
        "DynamicUser=yes",
        "StateDirectory=verdict-receiver",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
    ] {
        assert!(unit.lines().any(|other| other == line), "no {line}");
    }
    let settings = unit.lines().filter(|line| !line.starts_with('#'));
    for word in ["SECRET", "PASS", "TOKEN", "SLACK"] {
        let mut settings = settings
            .clone()
            .filter(|line| line.starts_with("Environment=") || line.starts_with("Exec"));
        assert!(!settings.any(|line| line.to_uppercase().contains(word)), "{word}");
    }
}

#[test]
fn only_verdictctl_asks_questions() {
    let holds = |program: &str, word: &str| {
        let bytes = fs::read(Path::new(program)).unwrap();
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    for word in ["/inquire-0.", "/crossterm-0."] {
        assert!(
            holds(env!("CARGO_BIN_EXE_verdictctl"), word),
            "{word}: this test looks for the wrong thing"
        );
        for program in [
            env!("CARGO_BIN_EXE_verdictd"),
            env!("CARGO_BIN_EXE_verdict-receiver"),
        ] {
            assert!(!holds(program, word), "{program} holds {word}");
        }
    }
}
