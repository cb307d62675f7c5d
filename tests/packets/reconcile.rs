//! The kernel's table against what it should be: whatever somebody does to it is put right, counted, and told with who
//! did it; but an operator who deletes the element of a ban is obeyed.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use verdictd::core::prefix::Prefix;
use verdictd::kernel::sets::{BanSets, LiveBan};

use crate::common::engine::{DETECTION, Engine, Home};
use crate::common::namespace::Namespace;
use crate::common::{count, secs, within};

/// Looks unasked come too late to do what notices should.
const HEARS_ONLY: &str = "\n[engine]\nreconcile_every = \"1h\"\n";
const LIMIT: Duration = secs(20);

/// An engine in `ns` that holds `bans` bans of addresses from 20.0.0.1 up, as one finds them that takes over a table.
fn engine_with<'a>(ns: &'a Namespace, config: &str, bans: u32) -> Engine<'a> {
    let home = Engine::start(ns, config).stop();
    load(
        ns,
        &home,
        "add",
        (0..bans).map(|n| format!("{} timeout 10h", addr(n))),
    );
    let engine = Engine::start_in(ns, home, &[]);
    assert_eq!(held(ns).len(), bans as usize, "{}", engine.log());
    engine
}

fn addr(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x1400_0001 + n)
}

/// `nft -f` of one transaction that adds or deletes elements of `banned4`.
fn load(ns: &Namespace, home: &Home, verb: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    let text = format!(
        "{verb} element inet verdictd banned4 {{ {} }}\n",
        elements.join(", ")
    );
    run(ns, home, &text);
}

fn run(ns: &Namespace, home: &Home, text: &str) {
    let file = home.state().join("operator.nft");
    fs::write(&file, text).expect("a file of ours");
    ns.must("nft", &["-f", &file.display().to_string()]);
}

/// What the kernel holds, by netlink: `nft list` of many elements takes too long.
fn held(ns: &Namespace) -> Vec<LiveBan> {
    ns.inside(|| BanSets::open().and_then(|mut sets| sets.dump()))
        .expect("a dump")
}

fn repairs(engine: &Engine<'_>, what: &str) -> u64 {
    engine.json("stats")["repairs"][what]
        .as_u64()
        .unwrap_or_else(|| panic!("no {what}: {}", engine.json("stats")))
}

/// Wipes, bans that were missing, foreign elements, wrong times, bans ended by hand.
fn counted(engine: &Engine<'_>) -> [u64; 5] {
    let stats = engine.json("stats");
    ["wipes", "missing", "foreign", "mistimed", "deleted"]
        .map(|what| stats["repairs"][what].as_u64().expect("a number"))
}

fn gap(engine: &Engine<'_>) -> f64 {
    engine.json("stats")["enforcement_gap_seconds"]
        .as_f64()
        .expect("a number")
}

fn first_rule(ns: &Namespace, chain: &str) -> String {
    let listing = ns.nft_list(&["-a", "list", "chain", "inet", "verdictd", chain]);
    let rule = listing
        .lines()
        .find(|line| line.contains("comment") && line.contains("# handle"));
    let rule = rule.unwrap_or_else(|| panic!("no rule in {listing}"));
    rule.rsplit(' ').next().expect("a handle").to_owned()
}

#[test]
fn each_kind_of_damage_is_put_right_once_and_told_with_who_did_it() {
    let ns = Namespace::new("host");
    let bans = count(2_000, 20_000) as u32;
    let engine = engine_with(&ns, &format!("{DETECTION}{HEARS_ONLY}"), bans);
    engine.must(&["ban", "21.0.0.0/24", "--for", "1h"]);
    engine.must(&["ban", "2001:db8::/64", "--for", "1h"]);
    let before = engine.table().lines().count();
    let table = "inet verdictd";
    let damages: [(&str, String); 11] = [
        ("it is gone", format!("delete table {table}")),
        ("it is gone", "flush ruleset".into()),
        (
            "set \"banned4\" is missing",
            format!("flush chain {table} raw; flush chain {table} pre; delete set {table} banned4"),
        ),
        (
            "chain \"raw\" is missing",
            format!("flush chain {table} raw; delete chain {table} raw"),
        ),
        ("rules instead of", String::new()),
        ("chain \"pre\" has 0 rules", format!("flush chain {table} pre")),
        ("rules instead of", format!("insert rule {table} pre accept")),
        (
            "policy other than accept",
            format!("add chain {table} raw {{ policy drop; }}"),
        ),
        ("dormant", format!("add table {table} {{ flags dormant; }}")),
        ("\"banned4\" was emptied", format!("flush set {table} banned4")),
        (
            "set \"mine\" is not ours",
            format!("add set {table} mine {{ type mark; }}"),
        ),
    ];
    for (round, (found, damage)) in (1..).zip(&damages) {
        let damage = match damage.is_empty() {
            false => damage.clone(),
            true => format!("delete rule {table} raw handle {}", first_rule(&ns, "raw")),
        };
        ns.nft(&damage);
        let whole = || repairs(&engine, "wipes") == round && engine.ctl(&["status"]).code() == 0;
        assert!(
            within(LIMIT, whole),
            "{damage}: {:?}\n{}",
            counted(&engine),
            engine.log()
        );
        assert_eq!(held(&ns).len(), bans as usize + 2, "{damage}\n{}", engine.log());
        let wipe = &engine.json("status")["last_wipe"];
        let told = wipe["found"].as_str().unwrap_or_default();
        assert!(told.contains(found), "{damage}: {wipe}");
        let by = wipe["by"].as_str().unwrap_or_default();
        assert!(by.starts_with("nft (pid "), "{damage}: {wipe}");
        assert!(wipe["gap_ms"].is_u64(), "{damage}: {wipe}");
    }
    thread::sleep(secs(2));
    assert_eq!(
        counted(&engine),
        [damages.len() as u64, 0, 0, 0, 0],
        "{}",
        engine.log()
    );
    let lines = engine.table().lines().count();
    assert!(
        lines.abs_diff(before) <= 2,
        "{before} lines became {lines}: {}",
        engine.table()
    );
    let spent = gap(&engine);
    assert!(spent > 0.0, "{spent}");
    let log = engine.log();
    assert!(
        log.contains("somebody changed table inet verdictd, by nft (pid "),
        "{log}"
    );
}

#[test]
fn an_operators_delete_of_an_element_ends_the_ban() {
    let ns = Namespace::new("host");
    let config = format!("{DETECTION}{HEARS_ONLY}[audit]\nenabled = true\n");
    let engine = engine_with(&ns, &config, 3);
    engine.must(&["ban", "20.9.9.9", "--for", "1h"]);
    ns.nft("delete element inet verdictd banned4 { 20.9.9.9 }");
    assert!(engine.wait_free("20.9.9.9", LIMIT), "{}", engine.log());
    assert_eq!(counted(&engine), [0, 0, 0, 0, 1], "{}", engine.log());
    assert_eq!((held(&ns).len(), engine.bans().len()), (3, 3));
    assert_eq!(gap(&engine), 0.0, "nothing that should be in force was missing");
    let log = engine.log();
    for line in ["NOTICE [manual] Unban 20.9.9.9", "for nft (pid "] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    let audit = || fs::read_to_string(engine.home().logs().join("audit.jsonl")).unwrap_or_default();
    let written = || {
        let lines: Vec<Value> = audit()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let of = |kind: &str| {
            lines
                .iter()
                .find(|line| line["kind"] == kind)
                .cloned()
                .unwrap_or_default()
        };
        of("unban")["source"] == "20.9.9.9" && of("ruleset")["sources"][0] == "20.9.9.9"
    };
    assert!(within(LIMIT, written), "{}", audit());

    // Nor is the last one a wipe, when it was the only one.
    let home = engine.stop();
    let engine = Engine::start_in(&ns, home, &[]);
    assert!(
        engine.ban_of("20.9.9.9").is_none(),
        "it is back: {:?}",
        engine.bans()
    );
    for n in 0..3 {
        ns.nft(&format!("delete element inet verdictd banned4 {{ {} }}", addr(n)));
    }
    assert!(within(LIMIT, || engine.bans().is_empty()), "{:?}", engine.bans());
    assert_eq!(counted(&engine), [0, 0, 0, 0, 3], "{}", engine.log());
}

#[test]
fn elements_of_strangers_and_changed_times_are_no_word() {
    let ns = Namespace::new("host");
    let engine = engine_with(&ns, &format!("{DETECTION}{HEARS_ONLY}"), 3);
    let table = "inet verdictd banned4";
    ns.nft(&format!(
        "add element {table} {{ 20.9.9.9 timeout 1h, 20.9.9.8 }}"
    ));
    assert!(
        within(LIMIT, || repairs(&engine, "foreign") == 2),
        "{}",
        engine.log()
    );
    assert!(within(LIMIT, || held(&ns).len() == 3), "{:?}", held(&ns));

    for (mistimed, time) in [(1, "timeout 1h"), (2, "timeout 20h"), (3, "")] {
        let first = addr(0);
        ns.nft(&format!(
            "delete element {table} {{ {first} }}; add element {table} {{ {first} {time} }}"
        ));
        assert!(
            within(LIMIT, || repairs(&engine, "mistimed") == mistimed),
            "{}",
            engine.log()
        );
        let bans = held(&ns);
        let left = bans[0].remaining.expect("it ends");
        assert!(left > secs(9 * 3600) && left <= secs(10 * 3600), "{bans:?}");
    }
    assert_eq!(counted(&engine), [0, 0, 2, 3, 0], "{}", engine.log());
    let log = engine.log();
    assert!(
        log.contains("use verdictctl ban") && log.contains("by nft (pid "),
        "{log}"
    );
}

/// 100 by hand out, 100 in, in one go, of 20,000: all is as it should be within a minute, and stays so.
#[test]
fn a_hundred_deleted_and_a_hundred_added_by_hand_leave_no_drift() {
    let ns = Namespace::new("host");
    let bans = 20_000;
    let engine = engine_with(
        &ns,
        &format!("{DETECTION}\n[engine]\nreconcile_every = \"1s\"\n"),
        bans,
    );
    let begun = Instant::now();
    let every = bans / 100;
    let out: Vec<u32> = (0..100).map(|n| n * every + n % every).collect();
    load(
        &ns,
        engine.home(),
        "delete",
        out.iter().map(|n| addr(*n).to_string()),
    );
    load(
        &ns,
        engine.home(),
        "add",
        (0..100).map(|n| format!("30.0.0.{n} timeout 1h")),
    );
    let settled = || counted(&engine) == [0, 0, 100, 0, 100];
    assert!(
        within(secs(60), settled),
        "{:?}\n{}",
        counted(&engine),
        engine.log()
    );
    let agrees = || {
        let in_kernel: Vec<Prefix> = held(&ns).iter().map(|ban| ban.target).collect();
        let mut listed: Vec<Prefix> = engine
            .bans()
            .iter()
            .map(|ban| ban["source"].as_str().expect("text").parse().expect("a prefix"))
            .collect();
        listed.sort_unstable();
        in_kernel.len() == bans as usize - 100 && in_kernel == listed
    };
    assert!(within(secs(60), agrees), "{}", engine.log());
    eprintln!(
        "100 deleted and 100 added: no drift after {} ms",
        begun.elapsed().as_millis()
    );
    // Several looks later nothing else was found.
    thread::sleep(secs(5));
    assert_eq!(counted(&engine), [0, 0, 100, 0, 100], "{}", engine.log());

    ns.nft("flush ruleset");
    let whole = || repairs(&engine, "wipes") == 1 && held(&ns).len() == bans as usize - 100;
    assert!(within(LIMIT, whole), "{}", engine.log());
    thread::sleep(secs(5));
    assert_eq!(counted(&engine), [1, 0, 100, 0, 100], "{}", engine.log());
    assert!(gap(&engine) < 10.0, "{}", engine.log());
}

#[test]
fn a_table_that_is_not_ours_to_load_is_told_until_it_is_back() {
    let ns = Namespace::new("host");
    let numbers =
        "[engine]\nworkers = 1\nqueue_base = 4100\nlog_base = 4100\nseed = 1\nreconcile_every = \"1s\"\n";
    let home = Home::new(&format!("{DETECTION}{numbers}manage_ruleset = false\n"));
    let text = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_verdictd"));
        ns.run(command.arg("ruleset").arg("--config").arg(home.config()), LIMIT)
            .stdout
    };
    // This kernel may have no `queue` expression: what the engine would load itself does as well.
    let own = Home::new(&format!("{DETECTION}{numbers}"));
    let loader = Engine::start_in(&ns, own, &[]);
    for prefix in ["20.1.0.0/24", "2001:db8::/48", "2001:db8::1/128"] {
        loader.must(&["ban", prefix, "--for", "1h"]);
        loader.must(&["unban", prefix]);
    }
    drop(loader.stop());
    assert!(text.contains("table inet verdictd"), "{text}");
    let engine = Engine::start_in(&ns, home, &[]);
    engine.must(&["ban", "20.0.0.1", "--for", "1h"]);
    assert_eq!(
        engine.ctl(&["status"]).code(),
        0,
        "{}",
        engine.ctl(&["status"]).text()
    );

    ns.nft("add table inet verdictd { flags dormant; }");
    let told = || engine.ctl(&["status"]);
    assert!(
        within(LIMIT, || repairs(&engine, "wipes") == 1),
        "{}",
        engine.log()
    );
    thread::sleep(secs(3));
    let status = told();
    assert!(
        status.code() == 4 && status.stdout.contains("dormant"),
        "{}",
        status.text()
    );
    assert_eq!(engine.json("status")["protected"], false);
    assert_eq!(engine.json("status")["last_wipe"]["gap_ms"], Value::Null);
    let so_far = gap(&engine);
    assert!(so_far >= 3.0, "{so_far}");
    assert_eq!(counted(&engine), [1, 0, 0, 0, 0], "told once\n{}", engine.log());

    ns.nft("add table inet verdictd");
    assert!(within(LIMIT, || told().code() == 0), "{}", told().text());
    let spent = gap(&engine);
    assert!(spent >= so_far, "{spent}");
    thread::sleep(secs(2));
    assert_eq!(gap(&engine), spent, "it is over");
    assert!(engine.json("status")["last_wipe"]["gap_ms"].is_u64());

    ns.nft("delete table inet verdictd");
    assert!(
        within(LIMIT, || repairs(&engine, "wipes") == 2),
        "{}",
        engine.log()
    );
    assert_eq!(told().code(), 4);
    assert!(told().stdout.contains("is gone"), "{}", told().text());
}

#[test]
fn an_owned_table_is_closed_to_everybody_else_and_outlives_its_engine() {
    let ns = Namespace::new("host");
    let owned = format!("{DETECTION}[engine]\nreconcile_every = \"1s\"\nown_table = true\n");
    let engine = Engine::start(&ns, &owned);
    let told = |engine: &Engine<'_>| {
        engine.json("status")["table"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        told(&engine).contains("nobody else can change it"),
        "{}",
        told(&engine)
    );
    engine.must(&["ban", "20.0.0.1", "--for", "1h"]);
    engine.must(&["ban", "20.1.0.0/24", "--for", "1h"]);
    ns.nft("flush ruleset");
    for denied in [
        "delete table inet verdictd",
        "delete element inet verdictd banned4 { 20.0.0.1 }",
        "add table inet verdictd { flags dormant; }",
        "flush chain inet verdictd pre",
    ] {
        let output = ns.run(std::process::Command::new("nft").arg(denied), LIMIT);
        assert!(!output.status.success(), "{denied} was done");
    }
    engine.must(&["unban", "20.1.0.0/24"]);
    engine.must(&["ban", "20.2.0.0/16", "--for", "1h"]);
    engine.must(&["reload"]);
    thread::sleep(secs(2));
    let status = engine.ctl(&["status"]);
    assert_eq!(status.code(), 0, "{}", status.text());
    assert_eq!(counted(&engine), [0; 5], "{}", engine.log());

    // A crash leaves the table behind, and the next engine takes it over as it is.
    let home = engine.kill9();
    assert_eq!(held(&ns).len(), 2);
    let engine = Engine::start_in(&ns, home, &[]);
    assert!(
        told(&engine).contains("nobody else can change it"),
        "{}",
        told(&engine)
    );
    assert_eq!((held(&ns).len(), engine.bans().len()), (2, 2));

    // Without the option the same table goes on as one of everybody's.
    let home = engine.stop();
    home.write_config(DETECTION);
    let engine = Engine::start_in(&ns, home, &[]);
    assert!(told(&engine).ends_with("as it should be"), "{}", told(&engine));
    ns.nft("flush ruleset");
    assert!(
        within(LIMIT, || repairs(&engine, "wipes") == 1 && held(&ns).len() == 2),
        "{}",
        engine.log()
    );

    // By now it was made anew, without an owner: that cannot be changed.
    let home = engine.stop();
    home.write_config(&owned);
    let engine = Engine::start_in(&ns, home, &["--ephemeral"]);
    assert!(
        told(&engine).contains("once the table is made anew"),
        "{}",
        told(&engine)
    );
    assert_eq!(engine.ctl(&["status"]).code(), 0);
    let home = engine.stop();
    assert_eq!(crate::common::engine::table(&ns), "");
    let engine = Engine::start_in(&ns, home, &["--ephemeral"]);
    assert!(
        told(&engine).contains("nobody else can change it"),
        "{}",
        told(&engine)
    );
    assert_eq!(held(&ns).len(), 2, "{}", engine.log());
    drop(engine.stop());
    assert_eq!(crate::common::engine::table(&ns), "", "its owner can remove it");
}

/// Some may have ended, or come, or never been taken by the kernel, in the moment of a flush.
#[test]
fn what_leaves_hardly_anything_of_a_set_is_no_operators_word() {
    let ns = Namespace::new("host");
    let engine = engine_with(&ns, &format!("{DETECTION}{HEARS_ONLY}"), 100);
    let delete = |some: std::ops::Range<u32>| {
        load(&ns, engine.home(), "delete", some.map(|n| addr(n).to_string()));
    };
    delete(0..95);
    assert!(within(LIMIT, || held(&ns).len() == 100), "{}", engine.log());
    assert_eq!((engine.bans().len(), repairs(&engine, "deleted")), (100, 0));
    delete(0..80);
    assert!(within(LIMIT, || engine.bans().len() == 20), "{}", engine.log());
    assert_eq!((held(&ns).len(), repairs(&engine, "deleted")), (20, 80));
}

/// Nobody is told that a ban is refused, or that an older one ended, because the table was wiped a moment before.
#[test]
fn what_is_asked_for_while_the_table_is_wiped_is_done() {
    let ns = Namespace::new("host");
    let engine = engine_with(&ns, &format!("{DETECTION}{HEARS_ONLY}"), 100);
    for turn in 0..count(20, 200) {
        let target = addr(turn as u32 % 100).to_string();
        ns.nft("flush ruleset");
        engine.must(&["ban", &target, "--for", "9h"]);
        assert!(
            engine.ban_of(&target).is_some(),
            "{target} is free\n{}",
            engine.log()
        );
    }
    assert!(within(LIMIT, || held(&ns).len() == 100), "{}", engine.log());
    assert_eq!(engine.bans().len(), 100);
}
