//! What `verdictctl` makes of an engine that lies, wavers, or dies at the wrong moment: one that only answers, by a script.
//! Root writes files of the administrator's on its word, so that matters.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use verdictd::cli::{self, Ask, AskError, Screen, Style};
use verdictd::config::digest;
use verdictd::control::server::{Handler, Peer, Server};
use verdictd::control::wire::{ApplyState, ApplyView, Reply, Request, StatusReport};

use crate::common::engine::{DETECTION, FIREWALL};

/// What it answers to a try.
#[derive(Clone, Copy)]
enum Try {
    Takes,
    Refuses,
    Wavers,
}

struct Script {
    /// Which file it says it runs.
    config: PathBuf,
    on_try: Try,
    /// After the first confirm it starts anew, with this.
    starts_anew: Option<&'static str>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    sha256: String,
    apply: Option<ApplyView>,
    confirms: u32,
}

impl Handler for Script {
    fn handle(&self, request: Request, _: Peer) -> Reply {
        let mut now = self.now.lock().expect("nobody panics with it");
        match request {
            Request::Status {} => Reply::Status(Box::new(StatusReport {
                pid: std::process::id(),
                config: Some(self.config.display().to_string()),
                config_sha256: now.sha256.clone(),
                apply: now.apply.clone(),
                ..StatusReport::default()
            })),
            Request::List {} => Reply::List(Vec::new()),
            Request::Try { sha256, .. } => match self.on_try {
                Try::Refuses => Reply::refused("not today"),
                Try::Wavers => Reply::undecided("who knows"),
                Try::Takes => {
                    now.apply = Some(ApplyView {
                        state: ApplyState::Unsaved,
                        sha256: sha256.clone(),
                        ..ApplyView::default()
                    });
                    now.sha256 = sha256;
                    Reply::Reloaded(Vec::new())
                }
            },
            Request::Confirm {} => {
                now.confirms += 1;
                if let (Some(text), true) = (self.starts_anew, now.confirms > 1) {
                    *now = Now {
                        sha256: digest(text),
                        ..Now::default()
                    };
                }
                if now.apply.is_none() {
                    return Reply::refused("nothing is on trial");
                }
                let saved = fs::read_to_string(&self.config).is_ok_and(|text| digest(&text) == now.sha256);
                now.apply = now.apply.take().filter(|_| !saved);
                Reply::Confirmed { saved }
            }
            _ => Reply::refused("not in the script"),
        }
    }
}

/// Answers every question so, or is no terminal.
struct Says(Option<bool>);

impl Ask for Says {
    fn one(&mut self, _: &str, _: &[String]) -> Result<usize, AskError> {
        Err(AskError::NoTerminal)
    }
    fn several(&mut self, _: &str, _: &[String], _: &[usize]) -> Result<Vec<usize>, AskError> {
        Err(AskError::NoTerminal)
    }
    fn text(&mut self, _: &str, _: &str) -> Result<String, AskError> {
        Err(AskError::NoTerminal)
    }
    fn yes(&mut self, _: &str, default: bool) -> Result<bool, AskError> {
        assert!(!default);
        self.0.ok_or(AskError::NoTerminal)
    }
}

struct Stage {
    folder: TempDir,
    server: Server,
}

impl Stage {
    /// The engine says it runs what is in `running`, from the file here.
    fn of(running: &str, change: impl FnOnce(&mut Script)) -> Stage {
        let folder = tempfile::tempdir().expect("a folder of ours");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("verdictd.toml", running), ("firewall.toml", FIREWALL)] {
            fs::write(at(name), text).expect("a file of ours");
        }
        let mut script = Script {
            config: at("verdictd.toml"),
            on_try: Try::Takes,
            starts_anew: None,
            now: Mutex::new(Now {
                sha256: digest(running),
                ..Now::default()
            }),
        };
        change(&mut script);
        let server = Server::start(&at("control.sock"), Arc::new(script)).expect("a socket of ours");
        Stage { folder, server }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("a file of ours");
    }

    /// How it ended, what it printed, and what it complained of.
    fn ctl(&self, words: &[&str], says: Option<bool>) -> (i32, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let screen = Screen {
            out: &mut out,
            err: &mut err,
            style: Style::default(),
        };
        let places = [
            ("--socket", self.server.path().to_owned()),
            ("--config", self.at("verdictd.toml")),
            ("--manifest", self.at("sums")),
        ];
        let known = if words[0] == "go-back" { 2 } else { 3 };
        let places = places
            .into_iter()
            .take(known)
            .flat_map(|(name, path)| [name.into(), path.into_os_string()]);
        let first = ["verdictctl", words[0]].map(OsString::from);
        let rest = words[1..].iter().map(OsString::from);
        let exit = cli::run(
            first.into_iter().chain(places).chain(rest),
            screen,
            &mut Says(says),
        );
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (exit as i32, text(out), text(err))
    }

    /// For good: what stands by for less is the built program's, not ours.
    fn apply(&self, words: &[&str], says: Option<bool>) -> (i32, String, String) {
        let state = self.at("state").display().to_string();
        let usual = ["apply", "--no-confirm", "--force", "--state-dir", &state];
        self.ctl(&[&usual[..], words].concat(), says)
    }

    fn firewall(&self) -> String {
        self.at("firewall.toml").display().to_string()
    }
}

#[test]
fn root_writes_no_file_that_the_engine_names() {
    let victim = TempDir::new().expect("a folder of ours");
    let victim = victim.path().join("victim.toml");
    fs::write(&victim, DETECTION).expect("a file of ours");
    let stage = Stage::of(DETECTION, |script| script.config.clone_from(&victim));
    let file = stage.firewall();
    for words in [
        &["apply", "--yes", "--no-confirm", "--force", &file][..],
        &["confirm"],
        &["go-back"],
    ] {
        let (code, _, err) = stage.ctl(words, Some(true));
        assert_eq!(code, 1, "{err}");
        assert!(
            err.contains("victim.toml\", not") && err.contains("name it with --config"),
            "{err}"
        );
    }
    assert_eq!(fs::read_to_string(&victim).ok().as_deref(), Some(DETECTION));
    assert_eq!(stage.read("verdictd.toml").as_deref(), Some(DETECTION));
    let here = fs::read_dir(victim.parent().expect("a folder")).expect("a folder of ours");
    assert_eq!(here.count(), 1, "nothing was laid out");
}

#[test]
fn a_file_that_others_may_change_is_not_used() {
    let stage = Stage::of(DETECTION, |_| {});
    chown(stage.at("verdictd.toml"), Some(65534), None).expect("a file of ours");
    let (code, _, err) = stage.apply(&["--yes", &stage.firewall()], None);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("belongs to uid 65534") && err.contains("chown root"),
        "{err}"
    );
    assert_eq!(stage.read("verdictd.toml").as_deref(), Some(DETECTION));
}

/// The configuration file was edited, and what was in it before only the engine still has.
#[test]
fn what_only_the_engine_vouches_for_is_looked_at_before_root_writes_it() {
    let stage = Stage::of(DETECTION, |_| {});
    stage.write("verdictd.toml", FIREWALL);
    fs::create_dir(stage.at("state")).expect("a folder of ours");
    stage.write("state/config.good", &format!("{DETECTION}# not what it runs\n"));
    let (code, _, err) = stage.apply(&["--yes"], None);
    assert!(code == 1 && err.contains("nothing could go back to it"), "{err}");

    stage.write("state/config.good", DETECTION);
    for (words, says, why) in [
        (&["--yes"][..], Some(true), "has to be looked at once"),
        (&[], None, "has to be looked at once"),
        (&[], Some(false), "nothing was changed"),
    ] {
        let (code, _, err) = stage.apply(words, says);
        assert!(code == 1 && err.contains(why), "{err}");
        assert_eq!(stage.read("verdictd.toml").as_deref(), Some(FIREWALL));
        assert_eq!(stage.read("verdictd.toml.candidate"), None);
    }
    let (code, out, err) = stage.apply(&[], Some(true));
    assert_eq!(code, 0, "{out}{err}");
    for line in DETECTION.lines() {
        assert!(
            out.contains(&format!("\n  {line}\n")),
            "{line} is missing in {out}"
        );
    }
    assert_eq!(stage.read("verdictd.toml").as_deref(), Some(FIREWALL));
    assert_eq!(
        stage.read("verdictd.toml.before-apply").as_deref(),
        Some(DETECTION)
    );

    // From now on root has a copy of his own.
    stage.write("state/config.good", "gone");
    stage.write("verdictd.toml", DETECTION);
    let (code, _, err) = stage.apply(&["--yes"], None);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn what_was_sealed_is_known() {
    let stage = Stage::of(DETECTION, |_| {});
    stage.write("verdictd.toml", FIREWALL);
    fs::create_dir(stage.at("state")).expect("a folder of ours");
    stage.write("state/config.good", DETECTION);
    let line = format!("{}  {}\n", digest(DETECTION), stage.at("verdictd.toml").display());
    stage.write("sums", &line);
    let (code, _, err) = stage.apply(&["--yes"], None);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn what_is_refused_leaves_nothing_and_what_is_undecided_all_of_it() {
    let refusing = Stage::of(DETECTION, |script| script.on_try = Try::Refuses);
    let (code, _, err) = refusing.apply(&["--yes", &refusing.firewall()], None);
    assert!(code == 1 && err.contains("refused: not today"), "{err}");
    assert_eq!(refusing.read("verdictd.toml.candidate"), None);

    // A configuration file that was not there is not there afterwards either; while it is, the engine may read it.
    refusing.write("verdictd.toml.in-force", DETECTION);
    fs::remove_file(refusing.at("verdictd.toml")).expect("a file of ours");
    let (code, _, err) = refusing.apply(&["--yes", &refusing.firewall()], None);
    assert!(code == 1 && err.contains("refused: not today"), "{err}");
    assert_eq!(refusing.read("verdictd.toml"), None);
    assert_eq!(refusing.read("verdictd.toml.candidate"), None);

    let wavering = Stage::of(DETECTION, |script| script.on_try = Try::Wavers);
    wavering.write("verdictd.toml.in-force", DETECTION);
    fs::remove_file(wavering.at("verdictd.toml")).expect("a file of ours");
    let (code, _, err) = wavering.apply(&["--yes", &wavering.firewall()], None);
    assert!(
        code == 1 && err.contains("who knows") && !err.contains("refused"),
        "{err}"
    );
    assert_eq!(wavering.read("verdictd.toml").as_deref(), Some(DETECTION));
    assert_eq!(
        wavering.read("verdictd.toml.candidate").as_deref(),
        Some(FIREWALL)
    );
    let made = fs::metadata(wavering.at("verdictd.toml")).expect("it is there");
    assert_eq!(made.mode() & 0o7777, 0o640);
}

/// Between the engine's yes and the file, the engine was started anew.
#[test]
fn the_file_says_what_runs_also_if_the_engine_dies_while_it_is_confirmed() {
    let old = Stage::of(DETECTION, |script| script.starts_anew = Some(DETECTION));
    let (code, _, err) = old.apply(&["--yes", &old.firewall()], None);
    assert!(
        code == 1 && err.contains("started anew meanwhile and runs the old policy"),
        "{err}"
    );
    assert_eq!(old.read("verdictd.toml").as_deref(), Some(DETECTION));
    assert_eq!(old.read("verdictd.toml.unconfirmed").as_deref(), Some(FIREWALL));

    // Or after the file: then it runs the new one.
    let new = Stage::of(DETECTION, |script| script.starts_anew = Some(FIREWALL));
    let (code, out, err) = new.apply(&["--yes", &new.firewall()], None);
    assert!(code == 0 && out.contains("CONFIRMED"), "{out}{err}");
    assert_eq!(new.read("verdictd.toml").as_deref(), Some(FIREWALL));

    let third = Stage::of(DETECTION, |script| script.starts_anew = Some(""));
    let (code, _, err) = third.apply(&["--yes", &third.firewall()], None);
    assert!(
        code == 1 && err.contains("what is in force is something else"),
        "{err}"
    );
}

/// `verdictctl confirm` was killed when only the engine had not looked into the file yet.
#[test]
fn a_confirm_that_only_had_to_be_told_is_said_again() {
    let unsaved = Stage::of(FIREWALL, |script| {
        let now = script.now.get_mut().expect("nobody else has it");
        now.apply = Some(ApplyView {
            state: ApplyState::Unsaved,
            sha256: digest(FIREWALL),
            ..ApplyView::default()
        });
    });
    let (code, out, err) = unsaved.ctl(&["confirm"], None);
    assert!(code == 0 && out.contains("CONFIRMED"), "{out}{err}");
}
