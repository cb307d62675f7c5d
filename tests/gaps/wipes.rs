//! Somebody else flushes, deletes or silences our table while probes come: how long until it holds again.
//!
//! Until then there is nothing that could hold a probe, so that what leaks is measured, by kind, and only bounded
//! loosely: the figures come from a release build on a machine that does nothing else.

use std::time::{Duration, Instant};

use crate::common::engine::Engine;
use crate::common::mutate::Dice;
use crate::common::namespace::Namespace;
use crate::common::{count, ms, secs, within};
use crate::crowd::BANS;
use crate::probes::{Kind, Leaks};
use crate::stage::{Stage, active, firewall, percentile};

#[test]
fn a_flushed_ruleset_holds_again_soon() {
    let stage = Stage::set();
    let (engine, _) = stage.engine(&firewall(""), BANS);
    let gaps = wiped(&stage, &engine, Wipe::Flush, count(FLUSHES, 1000));
    tell(Wipe::Flush, &gaps, &stage);
    bounded(Wipe::Flush, &gaps);
    ends_well(&stage, engine);
}

#[test]
fn a_table_that_is_damaged_otherwise_holds_again_soon() {
    let stage = Stage::set();
    let (engine, _) = stage.engine(&firewall(""), BANS);
    for wipe in Wipe::OTHERS {
        let gaps = wiped(&stage, &engine, wipe, count(OTHERS, 100));
        tell(wipe, &gaps, &stage);
        bounded(wipe, &gaps);
    }
    ends_well(&stage, engine);
}

/// What is done to our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wipe {
    Flush,
    /// And again while that is repaired.
    FlushTwice,
    Table,
    Set,
    Chain,
    Rule,
    Dormant,
}

impl Wipe {
    pub(crate) const ALL: [Wipe; 6] = [
        Wipe::Flush,
        Wipe::Table,
        Wipe::Set,
        Wipe::Chain,
        Wipe::Rule,
        Wipe::Dormant,
    ];
    /// All but the usual one.
    const OTHERS: [Wipe; 6] = [
        Wipe::FlushTwice,
        Wipe::Table,
        Wipe::Set,
        Wipe::Chain,
        Wipe::Rule,
        Wipe::Dormant,
    ];

    /// What an administrator would type.
    pub(crate) fn command(self, ns: &Namespace) -> String {
        match self {
            Wipe::Flush | Wipe::FlushTwice => "flush ruleset".into(),
            Wipe::Table => "delete table inet verdictd".into(),
            // A set that rules look into cannot be deleted.
            Wipe::Set => "flush chain inet verdictd raw; flush chain inet verdictd pre; \
                          delete set inet verdictd banned4"
                .into(),
            Wipe::Chain => "flush chain inet verdictd pre; delete chain inet verdictd pre".into(),
            Wipe::Rule => format!("delete rule inet verdictd pre handle {}", rule_of_bans(ns)),
            Wipe::Dormant => "add table inet verdictd { flags dormant; }".into(),
        }
    }
}

/// The rule that drops whatever comes from a banned address.
fn rule_of_bans(ns: &Namespace) -> String {
    let chain = ns.nft_list(&["-a", "-t", "list", "chain", "inet", "verdictd", "pre"]);
    let rule = chain.lines().find(|line| line.contains("ip saddr @banned4"));
    let handle = rule.and_then(|rule| rule.split("# handle ").nth(1));
    handle.expect("a rule about banned4").trim().to_owned()
}

/// Of each time what leaked.
fn wiped(stage: &Stage, engine: &Engine<'_>, wipe: Wipe, rounds: usize) -> Vec<Gaps> {
    let (host, mut dice) = (&stage.lab.host, Dice::new(0xf1a5));
    let whole = shape(host);
    let round = |nth| {
        let command = wipe.command(host);
        let mark = stage.probes.forget();
        // Never in step with anything.
        std::thread::sleep(ms(20 + dice.roll(40) as u64));
        let before = stage.probes.leaks(mark);
        assert!(
            before.is_empty(),
            "before {wipe:?} {nth}: {}",
            stage.in_words(&before)
        );
        let begun = Instant::now();
        host.nft(&command);
        if wipe == Wipe::FlushTwice {
            std::thread::sleep(ms(dice.roll(60) as u64));
            host.nft(&command);
        }
        let back = within(LIMIT, || stage.probes.quiet(ms(60)) && shape(host) == whole);
        let leaks = stage.probes.leaks(mark);
        let told = || {
            format!(
                "{wipe:?} {nth}, {:?} ago: {}",
                begun.elapsed(),
                stage.in_words(&leaks)
            )
        };
        assert!(back, "{}\n{}", told(), engine.log());
        Gaps::of(&leaks, stage)
    };
    (0..rounds).map(round).collect()
}

/// The table without elements, counters and handles, in whatever order its parts are listed.
pub(crate) fn shape(host: &Namespace) -> Vec<String> {
    let listing = host.nft_list(&["-s", "-t", "list", "table", "inet", "verdictd"]);
    let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// How long each kind leaked in one round, in the order of [`Kind::ALL`].
struct Gaps([Duration; Kind::ALL.len()]);

impl Gaps {
    fn of(leaks: &Leaks, stage: &Stage) -> Gaps {
        let length = |kind| leaks.get(&kind).map(|ticks| stage.probes.length(ticks));
        Gaps(Kind::ALL.map(|kind| length(kind).unwrap_or_default()))
    }
}

fn of(kind: Kind, gaps: &[Gaps]) -> Vec<Duration> {
    let nth = Kind::ALL.iter().position(|each| *each == kind).unwrap();
    gaps.iter().map(|gaps| gaps.0[nth]).collect()
}

/// One line: policy, the hottest bans, all of them.
fn tell(wipe: Wipe, gaps: &[Gaps], stage: &Stage) {
    let line = |kind| {
        let times = of(kind, gaps);
        let [p50, p99, most] = [50, 99, 100].map(|p| percentile(&times, p).as_secs_f64() * 1e3);
        format!("{kind:?} {p50:.1}/{p99:.1}/{most:.1}")
    };
    let kinds = Kind::ALL.map(line).join(", ");
    println!(
        "{} times {wipe:?} with {BANS} bans, leaked for p50/p99/max ms: {kinds}; {}",
        gaps.len(),
        stage.client_in_words()
    );
}

/// Generous: a debug build, on a machine that does other things.
fn bounded(wipe: Wipe, gaps: &[Gaps]) {
    for kind in Kind::ALL {
        let p99 = percentile(&of(kind, gaps), 99);
        assert!(p99 < LIMIT, "{wipe:?}: {kind:?} leaked for {p99:?}");
    }
}

fn ends_well(stage: &Stage, engine: Engine<'_>) {
    let all = within(secs(10), || active(&engine) == BANS);
    assert!(all, "{} bans\n{}", active(&engine), engine.log());
    stage.nobody_was_shut_out("wipes");
    let _home = engine.stop();
    stage.clear();
}

/// Shorter than the 30 s after which the engine looks unasked: what nobody told it of does not pass for repaired.
const LIMIT: Duration = secs(20);
const FLUSHES: usize = 20;
const OTHERS: usize = 3;
