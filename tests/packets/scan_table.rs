//! What each kind of scan meets, in each mode: the table of docs/detection.md, measured.
//!
//! Three labs at once, one a mode, and three more for scans so slow that time has to be compressed. Every scan comes
//! from an address of its own, so that one engine meets them all, one after the other. What is printed is what the
//! wire and the engine counted; what must hold is asserted, and the table in the docs is compared with it.
//! `packaging/scan-table.sh` writes it there.

mod kinds;
mod measure;

use std::fmt::Write as _;
use std::thread;
use std::time::Instant;

use self::kinds::{Kind, LATE, PROMPT, SLOW};
use self::measure::{Ground, Met};
use crate::common::engine::{DETECTION, Engine, FIREWALL, OBSERVING};
use crate::common::secs;

/// The modes of the table, in the order of its columns.
const MODES: [(&str, &str); 3] = [
    ("`detection_only`", DETECTION),
    ("`firewall`", FIREWALL),
    ("observing", OBSERVING),
];
/// Time in the slow scans runs faster by so much: the standard preset's 2 h become nearly the shortest window there
/// is (10.8 s; a handshake may take 10).
const FASTER: &str = "667";
/// From then on bare ACK and FIN+ACK count: `core::services::SETTLING`, and a moment.
const SETTLED: std::time::Duration = secs(62);

/// How the script finds the table in what the test prints, and the test in the docs.
const BEGIN: &str = "<!-- scan table: begin -->";
const END: &str = "<!-- scan table: end -->";

#[test]
fn scans_meet_what_the_docs_say() {
    let met = thread::scope(|scope| {
        let modes = MODES.each_ref().map(|(_, config)| {
            let slow = scope.spawn(|| slow_scans(config));
            (scope.spawn(|| quick_scans(config)), slow)
        });
        modes.map(|(quick, slow)| {
            let join = |part: thread::ScopedJoinHandle<'_, Vec<Met>>| {
                part.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let mut met = join(quick);
            met.extend(join(slow));
            met
        })
    });
    let kinds: Vec<&Kind> = PROMPT.iter().chain(LATE).chain(SLOW).collect();
    let table = table(&kinds, &met);
    println!("{BEGIN}\n{table}{END}");
    let wrong: Vec<String> = wrong(&kinds, &met).collect();
    assert!(wrong.is_empty(), "{table}\n{}", wrong.join("\n"));
    let stale = stale(&table);
    assert!(
        stale.is_empty(),
        "run packaging/scan-table.sh; docs/detection.md says otherwise:\n{stale}"
    );
}

fn quick_scans(config: &str) -> Vec<Met> {
    let ground = Ground::new();
    let engine = Engine::start(&ground.lab.host, config);
    let began = Instant::now();
    let mut met: Vec<Met> = ground.meet(&engine, PROMPT, 0);
    thread::sleep(SETTLED.saturating_sub(began.elapsed()));
    met.extend(ground.meet(&engine, LATE, PROMPT.len()));
    met
}

fn slow_scans(config: &str) -> Vec<Met> {
    let ground = Ground::new();
    let window = "[custom]\nactivity_window_hours = 0.003\n";
    let config = config.replace("\"standard\"", "\"custom\"") + window;
    let engine = Engine::start(&ground.lab.host, &config);
    ground.meet(&engine, SLOW, PROMPT.len() + LATE.len())
}

/// What contradicts what must hold.
fn wrong(kinds: &[&Kind], met: &[Vec<Met>; 3]) -> impl Iterator<Item = String> {
    let cells = kinds.iter().enumerate().flat_map(move |(row, kind)| {
        let modes = MODES.iter().zip(met).zip(kind.speaks);
        modes.map(move |(((mode, _), met), speaks)| (kind.told(), speaks, *mode, &met[row]))
    });
    cells
        .filter(|(_, speaks, _, met)| !met.fits(speaks))
        .map(|(how, speaks, mode, met)| format!("{mode}: {how}: {met:?}, expected {speaks:?}"))
}

/// Rows of the docs whose outcome is not the measured one. Counts may differ by a packet; who is banned must not.
fn stale(table: &str) -> String {
    let docs = include_str!("../../docs/detection.md");
    let written = docs.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next());
    let outcomes = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("| "));
        rows.map(outcome).collect()
    };
    let (written, measured) = (outcomes(written.unwrap_or_default()), outcomes(table));
    let differ = |rows: &[String], others: &[String], who: &str| {
        rows.iter()
            .filter(|row| !others.contains(row))
            .fold(String::new(), |mut text, row| {
                let _ = writeln!(text, "{who}: {row}");
                text
            })
    };
    differ(&written, &measured, "docs") + &differ(&measured, &written, "measured")
}

/// A row without what was counted.
fn outcome(row: &str) -> String {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let kept = [1, 2, 6, 9, 12].map(|at| cells.get(at).copied().unwrap_or_default());
    kept.join(" | ")
}

fn table(kinds: &[&Kind], met: &[Vec<Met>; 3]) -> String {
    let mut text = format!("{}\n\n", measure::setting());
    let columns = MODES.map(|(mode, _)| format!("{mode}: until | answered | ban"));
    let _ = writeln!(text, "| scan | how | asked | {} |", columns.join(" | "));
    text += "|---|---|--:|--:|--:|---|--:|--:|---|--:|--:|---|\n";
    for (row, kind) in kinds.iter().enumerate() {
        let cells = met.each_ref().map(|met| met[row].cells());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            kind.name,
            kind.told(),
            kind.ports(),
            cells.join(" | ")
        );
    }
    text
}
