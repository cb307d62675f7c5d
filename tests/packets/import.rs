//! The Python system's state: taken over at the first start, or when an operator says so; all of the state as a
//! document; all of it forgotten.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use crate::common::engine::{CORPORATE, DETECTION, Engine, FIREWALL, Home, OBSERVING};
use crate::common::lab::{ATTACKER, HOST, Lab, NEIGHBOUR};
use crate::common::wire::Gun;
use crate::common::{secs, within};

/// What the Python system wrote after two scans, as if the second day of its week had begun: the scanner is the lab's
/// attacker, and it banned the host's own address.
fn mission() -> String {
    let text = include_str!("../data/mission_firewall_state.toml");
    let scan: Date = Timestamp::now().in_tz("UTC").expect("UTC").date();
    let scan = scan.checked_sub(Span::new().days(2)).expect("a date");
    let mut text = text.to_owned();
    for (written, days) in [("2026-11-28", 7), ("2026-11-22", 1), ("2026-11-21", 0)] {
        let date = scan.checked_add(Span::new().days(days)).expect("a date");
        text = text.replace(written, &format!("<{date}>"));
    }
    text.replace(['<', '>'], "")
}

fn start<'a>(lab: &'a Lab, home: Home, zone: &str) -> Engine<'a> {
    Engine::start_by(&lab.host, home, |command| {
        command.env("TZ", zone);
    })
}

fn with_state(config: &str, name: &str, text: &str) -> Home {
    let home = Home::new(config);
    fs::write(home.state().join(name), text).expect("a file of ours");
    home
}

fn show(engine: &Engine<'_>) -> Value {
    serde_json::from_str(&engine.must(&["state", "show", "--json"])).expect("JSON")
}

fn left(ban: &Value) -> u64 {
    ban["remaining_seconds"].as_u64().expect("it ends")
}

/// A file for `verdictctl`.
fn file(home: &Home, text: &str) -> String {
    let path = home.logs().join("firewall_state.toml");
    fs::write(&path, text).expect("a file of ours");
    path.display().to_string()
}

fn far(addresses: &[&str]) -> String {
    let tasks = addresses
        .iter()
        .map(|ip| format!("{{ ip = \"{ip}\", unblock_time = 9999-01-01T00:00:00Z }},"));
    format!("unblock_tasks = [{}]\n", tasks.collect::<String>())
}

#[test]
fn the_first_start_takes_the_python_systems_state_over_and_the_second_does_not() {
    let lab = Lab::new();
    let home = with_state(FIREWALL, "state.toml", &mission());
    let engine = start(&lab, home, "UTC");
    let bans = engine.bans();
    assert_eq!(bans.len(), 1, "{bans:?}");
    let ban = &bans[0];
    assert_eq!(
        json!([
            ban["source"],
            ban["reason"],
            ban["step"],
            ban["offences"],
            ban["enforced"]
        ]),
        json!([ATTACKER, "port_scanning", 4, 7, true])
    );
    assert!((4 * 86_400..6 * 86_400).contains(&left(ban)), "{ban}");
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER]);

    let view = show(&engine);
    let start_of = &view["start"];
    assert_eq!(
        json!([
            start_of["imported"]["bans"],
            start_of["imported"]["merged"],
            start_of["imported"]["left_out"],
            start_of["restored"]["ladder"],
            view["counts"]["bans"]
        ]),
        json!([2, 19, 14, 1, 1])
    );
    assert_eq!(start_of["protected"][0]["source"], HOST);
    let reason = start_of["protected"][0]["reason"].as_str().expect("words");
    assert!(reason.contains("is protected: "), "{reason}");
    let text = engine.must(&["state", "show"]);
    for words in [
        "imported   from the Python system: 2 bans",
        "not banned: 10.77.0.2",
        "state.toml.python",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let log = engine.home().log();
    assert!(log.contains("is of the Python system, kept as"), "{log}");
    assert!(
        log.contains("10.77.0.2: its ban is not imported: 10.77.0.2 is protected"),
        "{log}"
    );
    assert!(
        log.contains("9 more entries") || log.contains("8 more entries"),
        "{log}"
    );
    assert!(!log.contains("NOTICE"), "nothing happened now: {log}");
    let kept = engine.home().state().join("state.toml.python");
    assert_eq!(fs::read_to_string(kept).expect("it is kept"), mission());

    lab.host.nft("delete table inet verdictd");
    let engine = start(&lab, engine.stop(), "UTC");
    let again = engine.bans();
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(left(&again[0]).abs_diff(left(ban)) <= 30, "{again:?} {ban}");
    assert_eq!(show(&engine)["start"]["imported"], Value::Null);
    assert_eq!(engine.home().log().matches("is of the Python system").count(), 1);
}

#[test]
fn times_are_read_in_the_hosts_zone() {
    let lab = Lab::new();
    let mut lefts = Vec::new();
    for zone in ["UTC", "EAST-5"] {
        let engine = start(&lab, with_state(FIREWALL, "state.toml", &mission()), zone);
        lefts.push(left(&engine.ban_of(ATTACKER).expect("it is banned")));
        drop(engine);
        lab.host.nft("delete table inet verdictd");
    }
    assert!((lefts[0] - lefts[1]).abs_diff(5 * 3600) <= 60, "{lefts:?}");
}

#[test]
fn without_enforcement_imported_bans_are_would_be_bans_until_it_is_switched_on() {
    let lab = Lab::new();
    let engine = start(&lab, with_state(OBSERVING, "state.toml", &mission()), "UTC");
    let ban = engine.ban_of(ATTACKER).expect("it is listed");
    assert_eq!(ban["enforced"], false);
    assert!(engine.kernel_bans("banned4").is_empty());
    assert!(!engine.home().log().contains("Unban"), "{}", engine.log());
    let mut engine = engine;
    engine.home().write_config(DETECTION);
    engine.must(&["reload"]);
    assert!(within(secs(10), || engine.kernel_bans("banned4") == [ATTACKER]));
    let on = engine.ban_of(ATTACKER).expect("it is banned");
    assert!(left(&on).abs_diff(left(&ban)) <= 30, "the same end: {ban} {on}");
    assert!(engine.alive());
}

#[test]
fn state_file_may_name_the_python_systems_file() {
    let lab = Lab::new();
    let elsewhere = Home::new("");
    let absolute = elsewhere.state().join("firewall_state.toml");
    for (named, at) in [
        ("firewall_state.toml".to_owned(), None),
        (absolute.display().to_string(), Some(absolute)),
    ] {
        let config = FIREWALL.replace("[firewall]", &format!("[firewall]\nstate_file = \"{named}\""));
        let home = Home::new(&config);
        let path = at.unwrap_or_else(|| home.state().join("firewall_state.toml"));
        fs::write(&path, mission()).expect("a file of ours");
        let engine = start(&lab, home, "UTC");
        assert!(engine.ban_of(ATTACKER).is_some(), "{}", engine.log());
        assert!(PathBuf::from(format!("{}.python", path.display())).exists());
        assert_eq!(show(&engine)["path"], path.display().to_string());
        drop(engine);
        lab.host.nft("delete table inet verdictd");
    }
}

#[test]
fn who_has_a_state_of_verdictd_keeps_it() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", NEIGHBOUR, "--for", "1h"]);
    engine.must(&["snapshot"]);
    let home = engine.stop();
    lab.host.nft("delete table inet verdictd");
    fs::write(home.state().join("state.toml"), mission()).expect("a file of ours");
    let engine = start(&lab, home, "UTC");
    assert_eq!(engine.kernel_bans("banned4"), [NEIGHBOUR], "{}", engine.log());
    assert!(
        engine
            .home()
            .log()
            .contains("it is not imported, for there is a state of verdictd already")
    );
    let kept = engine.home().state().join("state.toml.python");
    assert_eq!(
        engine
            .ctl(&["state", "import", &kept.display().to_string()])
            .code(),
        0
    );
    assert_eq!(engine.kernel_bans("banned4"), [ATTACKER, NEIGHBOUR]);
}

#[test]
fn what_is_hostile_is_kept_and_told_and_the_engine_starts() {
    let lab = Lab::new();
    let nested = format!("unblock_tasks = [\n{}", "[".repeat(20_000));
    let twice = "unblock_tasks = [\n]\nunblock_tasks = [\n]\n".to_owned();
    for (text, words) in [(nested, "line 2: "), (twice, "line 3: duplicate key")] {
        let engine = start(&lab, with_state(FIREWALL, "state.toml", &text), "UTC");
        let troubles = show(&engine)["troubles"].to_string();
        assert!(troubles.contains("cannot be imported: "), "{troubles}");
        assert!(troubles.contains(words), "{troubles}");
        assert_eq!(engine.ctl(&["status"]).code(), 4);
        assert!(engine.home().state().join("state.toml.python").exists());
        drop(engine);
        lab.host.nft("delete table inet verdictd");
    }
}

#[test]
fn an_import_merges_and_is_refused_for_the_protected() {
    let lab = Lab::new();
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", "203.0.113.1", "--for", "300d"]);
    engine.must(&["ban", "203.0.113.2", "--for", "1m"]);
    let text = "unblock_tasks = [\n\
         { ip = \"203.0.113.1\", unblock_time = 9999-01-01T00:00:00Z },\n\
         { ip = \"203.0.113.2\", unblock_time = 9999-01-01T00:00:00Z },\n\
         { ip = \"203.0.113.3\", unblock_time = 9999-01-01T00:00:00Z },\n\
         { ip = \"203.0.113.4\", unblock_time = 1999-01-01T00:00:00Z },\n\
         { ip = \"fd66::7\", unblock_time = 9999-01-01T00:00:00Z },\n\
         { ip = \"127.0.0.1\", unblock_time = 9999-01-01T00:00:00Z },\n\
         { ip = \"10.77.0.2\", unblock_time = 9999-01-01T00:00:00Z },\n\
         ]\n\
         [ip_activity.\"10.77.0.1\"]\nunique_ports = [5001, 5002, 5003, 5004, 5005, 5006, 5007]\nlast_seen = 2999-01-01T00:00:00Z\n";
    let path = file(engine.home(), text);
    let before = engine.bans();
    let dry = engine.must(&["state", "import", &path, "--dry-run"]);
    assert!(
        dry.contains("would be taken: 2 bans, 2 made longer, 0 kept"),
        "{dry}"
    );
    assert_eq!(engine.bans().len(), before.len());

    let shorter = file(engine.home(), &text.replace("9999", "2027"));
    let told = engine.must(&["state", "import", &shorter, "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let outcome = &told["engine"];
    let refused: Vec<&Value> = outcome["refused"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["source"])
        .collect();
    assert_eq!(refused, ["10.77.0.2", "127.0.0.1"]);
    assert_eq!(
        json!([
            outcome["banned"],
            outcome["prolonged"],
            outcome["kept"],
            outcome["windows"],
            told["file"]["past"]
        ]),
        json!([2, 1, 1, 1, 1])
    );
    assert_eq!(
        engine.kernel_bans("banned4"),
        ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    );
    assert_eq!(engine.kernel_bans("banned6"), ["fd66::"]);
    assert!(
        engine
            .home()
            .log()
            .contains("imported: 2 bans, 1 made longer, 1 kept"),
        "{}",
        engine.log()
    );
    let again = engine.must(&["state", "import", &shorter]);
    assert!(again.contains("taken: 0 bans, 0 made longer, 4 kept"), "{again}");
    assert!(
        again.contains("not banned: 127.0.0.1: 127.0.0.1 is protected"),
        "{again}"
    );

    // Its seven ports were tolerated there; the eighth is not.
    Gun::new(&lab.attacker, ATTACKER, HOST).syns([5008]);
    engine.wait_ban(ATTACKER);

    let home = engine.home();
    let mut piped = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    piped
        .arg("--socket")
        .arg(home.socket())
        .args(["state", "import", "-"]);
    let stdin = File::open(file(home, &far(&["203.0.113.5"]))).expect("it is there");
    let output = piped.stdin(Stdio::from(stdin)).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(engine.ban_of("203.0.113.5").is_some());

    for (text, words) in [
        ("x = 1\n", "it holds none of unblock_tasks"),
        ("unblock_tasks = [", "line 1: "),
        ("\u{0}", "cannot be imported: "),
    ] {
        let output = engine.ctl(&["state", "import", &file(engine.home(), text)]);
        assert_eq!(output.code(), 1, "{}", output.text());
        assert!(output.stderr.contains(words), "{}", output.text());
    }
    let sparse = engine.home().logs().join("sparse");
    File::create(&sparse)
        .and_then(|file| file.set_len(1 << 30))
        .expect("a sparse file");
    let output = engine.ctl(&["state", "import", &sparse.display().to_string()]);
    assert!(
        output.code() == 1 && output.stderr.contains("more than 16777216 bytes"),
        "{}",
        output.text()
    );
    let own = engine.ctl(&["state", "import", &file(engine.home(), &far(&["127.0.0.1"]))]);
    assert_eq!(own.code(), 1, "nothing was taken: {}", own.text());
    assert!(engine.alive());

    let home = engine.stop();
    let output = home.ctl(&["state", "import", &file(&home, &mission())]);
    assert_eq!(output.code(), 3, "{}", output.text());
    assert!(
        output.stdout.contains("10.77.0.1: banned until"),
        "{}",
        output.text()
    );
}

#[test]
fn a_reset_forgets_everything_in_kernel_and_ledger() {
    let lab = Lab::new();
    let engine = start(&lab, with_state(CORPORATE, "state.toml", &mission()), "UTC");
    engine.must(&["ban", "203.0.113.0/24", "--for", "1h"]);
    Gun::new(&lab.attacker, "10.88.0.7", HOST).syns(5001..=5004);
    assert!(within(secs(10), || show(&engine)["counts"]["sources"] == 1));
    let counts = show(&engine)["counts"].clone();
    assert_eq!(json!([counts["bans"], counts["ladder"]]), json!([2, 1]));

    let output = engine.ctl(&["state", "reset"]);
    assert_eq!(output.code(), 2, "{}", output.text());
    assert!(output.stderr.contains("give --yes"), "{}", output.text());
    assert_eq!(engine.bans().len(), 2);

    let said = engine.must(&["state", "reset", "--yes"]);
    assert!(
        said.contains("forgotten: 2 bans, 0 would-be bans, 1 ladder position"),
        "{said}"
    );
    assert!(engine.bans().is_empty());
    assert!(engine.kernel_bans("banned4").is_empty() && engine.kernel_bans("banned4_24").is_empty());
    let view = show(&engine);
    assert_eq!(
        view["counts"],
        json!({"bans": 0, "would_be": 0, "ladder": 0, "sources": 0, "baseline_ports": 0})
    );
    assert!(
        engine.home().log().contains("Unban 10.77.0.1"),
        "{}",
        engine.log()
    );
    let audit = fs::read_to_string(engine.home().logs().join("audit.jsonl")).expect("an audit log");
    let order = audit
        .lines()
        .rfind(|line| line.contains("state_reset"))
        .expect("it is written down");
    assert!(
        order.contains("\"done\"") && order.contains("\"uid\":0"),
        "{order}"
    );

    // Four ports before do not count any more: seven are tolerated again.
    Gun::new(&lab.attacker, "10.88.0.7", HOST).syns(6001..=6007);
    assert!(within(secs(10), || show(&engine)["counts"]["sources"] == 1));
    assert!(engine.bans().is_empty(), "{:?}", engine.bans());
    let engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
    assert!(engine.bans().is_empty() && show(&engine)["counts"]["ladder"] == 0);

    let home = engine.stop();
    let output = home.ctl(&[
        "state",
        "reset",
        "--yes",
        "--state-dir",
        &home.state().display().to_string(),
    ]);
    assert_eq!(output.code(), 3, "{}", output.text());
    assert!(
        output.stderr.contains("or remove ") && output.stderr.contains("state.toml"),
        "{}",
        output.text()
    );
}

#[test]
fn an_export_holds_the_same_bans_as_the_list() {
    let lab = Lab::new();
    let engine = start(&lab, with_state(FIREWALL, "state.toml", &mission()), "UTC");
    engine.must(&["ban", "203.0.113.0/24", "--reason", "abuse \"desk\""]);
    Gun::new(&lab.attacker, "10.88.0.7", HOST).syns(5001..=5004);
    assert!(within(secs(10), || show(&engine)["counts"]["sources"] == 1));
    let document: Value = serde_json::from_str(&engine.must(&["state", "export", "--json"])).expect("JSON");
    let (bans, listed) = (document["bans"].as_array().expect("a list"), engine.bans());
    assert_eq!(bans.len(), listed.len());
    for ban in bans {
        let same = listed
            .iter()
            .find(|other| other["source"] == ban["source"])
            .expect("it is listed");
        for field in ["reason", "step", "offences", "enforced", "note"] {
            assert_eq!(ban[field], same[field], "{field}: {ban} {same}");
        }
        assert!(left(ban).abs_diff(left(same)) <= 30, "{ban} {same}");
    }
    assert_eq!(document["ladder"][0]["source"], ATTACKER);
    assert_eq!(document["ladder"][0]["offences"], 7);
    assert_eq!(
        document["windows"][0]["touches"].as_array().map(Vec::len),
        Some(4)
    );
    let text = engine.must(&["state", "export"]);
    let saved = fs::read_to_string(engine.home().state().join("state.toml")).expect("it is there");
    assert!(
        text.starts_with(saved.lines().next().expect("a line")) && text.contains("# sha256 "),
        "{text}"
    );

    let home = engine.stop();
    let folder = home.state().display().to_string();
    let output = home.ctl(&["state", "export", "--json", "--state-dir", &folder]);
    assert_eq!(output.code(), 3, "{}", output.text());
    let at_rest: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let sources = |document: &Value| -> Vec<Value> {
        let bans = document["bans"].as_array().expect("a list");
        bans.iter().map(|ban| ban["source"].clone()).collect()
    };
    assert_eq!(sources(&at_rest), sources(&document));
    let output = home.ctl(&["state", "show", "--json", "--state-dir", &folder]);
    assert_eq!(output.code(), 3, "{}", output.text());
    let view: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(
        json!([view["counts"]["bans"], view["counts"]["ladder"]]),
        json!([2, 1])
    );
    assert!(output.stderr.contains("no engine runs"), "{}", output.text());
    let nothing = home.ctl(&["state", "export", "--state-dir", "/nonexistent"]);
    assert_eq!(nothing.code(), 1, "{}", nothing.text());
    fs::write(home.state().join("state.toml"), mission()).expect("a file of ours");
    fs::remove_file(home.state().join("state.toml.1")).expect("it is there");
    let output = home.ctl(&["state", "show", "--state-dir", &folder]);
    assert!(
        output
            .stdout
            .contains("of the Python system: the next start imports it"),
        "{}",
        output.text()
    );
}
