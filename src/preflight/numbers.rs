//! Findings about netfilter's numbers: who else holds queues and log groups, and whether those are free that the engine
//! wants.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::facts::Facts;
use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::engine::open::FIRST_NUMBER;
use crate::kernel::facts::held::Holding;
use crate::kernel::facts::tables::Tables;
use crate::kernel::queue::Numbered;
use crate::kernel::ruleset::Loaded;

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        numbers(facts, config, Numbered::Queue),
        numbers(facts, config, Numbered::LogGroup),
    ];
    if let (Ok(tables), Some(held)) = (&facts.tables, &facts.held.queues) {
        findings.extend(unserved(tables, held));
    }
    findings
}

/// Who holds numbers of one kind, and whether those are free that the engine wants.
fn numbers(facts: &Facts, config: &Config, kind: Numbered) -> Finding {
    let (code, word, key) = match kind {
        Numbered::Queue => (Code::Queues, "queue", "queue_base"),
        Numbered::LogGroup => (Code::LogGroups, "log group", "log_base"),
    };
    let Some(held) = facts.held.of(kind) else {
        let what = format!("who holds which {word} is told to root alone");
        return Finding::note(code, what, "run it again: sudo verdictd check --kernel");
    };
    let ours = facts.ours.as_ref().ok().and_then(Option::as_ref);
    let foreign: Vec<&Holding> = held.iter().filter(|one| !is_ours(one, ours, kind)).collect();
    let own = held.len() - foreign.len();
    let (wanted, fixed) = wanted(config, kind);
    let in_the_way: Vec<&Holding> = foreign
        .iter()
        .copied()
        .filter(|one| wanted.contains(&u32::from(one.number)))
        .collect();
    if fixed && !in_the_way.is_empty() {
        let what = format!(
            "engine.{key} = {} cannot be had, the engine would not start: {}",
            wanted.start,
            holders(&in_the_way, word)
        );
        let remedy = format!(
            "take {key} out of the configuration, so that the engine looks for free ones, or stop that program"
        );
        return Finding::act(code, what, remedy);
    }
    let running = match own {
        0 => String::new(),
        1 => format!("; the running engine holds 1 {word}"),
        many => format!("; the running engine holds {many} {word}s"),
    };
    let what = match (foreign.is_empty(), in_the_way.is_empty()) {
        (true, _) => format!("no other program holds a {word}{running}"),
        (false, true) => format!(
            "{}, which are not in the engine's way{running}",
            holders(&foreign, word)
        ),
        (false, false) => format!(
            "{}; the engine takes the next free ones{running}",
            holders(&foreign, word)
        ),
    };
    Finding::fine(code, what)
}

/// The engine's own: of a number that its table names, held by a program of its name.
fn is_ours(holding: &Holding, ours: Option<&Loaded>, kind: Numbered) -> bool {
    let named = holding
        .program
        .as_ref()
        .is_some_and(|program| program.name == ENGINE);
    let range = ours.and_then(|loaded| {
        let (base, count) = match kind {
            Numbered::Queue => (loaded.queue_base?, 2 * u32::from(loaded.workers?)),
            Numbered::LogGroup => (loaded.log_base?, u32::from(loaded.workers?)),
        };
        Some(u32::from(base)..u32::from(base) + count)
    });
    named && range.is_some_and(|range| range.contains(&u32::from(holding.number)))
}

/// The numbers that the engine would take, and whether it is told to take these and no others.
fn wanted(config: &Config, kind: Numbered) -> (Range<u32>, bool) {
    let engine = &config.engine;
    let (base, count) = match kind {
        Numbered::Queue => (engine.queue_base, 2 * engine.workers as u32),
        Numbered::LogGroup => (engine.log_base, engine.workers as u32),
    };
    let first = u32::from(base.unwrap_or(FIRST_NUMBER));
    (first..first + count, base.is_some())
}

/// "suricata (pid 7) holds queue 0 and 1".
fn holders(held: &[&Holding], word: &str) -> String {
    let mut by_program: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for holding in held {
        let program = match &holding.program {
            Some(program) => program.to_string(),
            None => format!("a program that cannot be seen (netlink port {})", holding.portid),
        };
        by_program.entry(program).or_default().push(holding.number);
    }
    let each = by_program
        .into_iter()
        .map(|(program, numbers)| format!("{program} holds {word} {}", listed(numbers, 8)));
    each.collect::<Vec<_>>().join("; ")
}

/// Queues that rules of others lead to and nobody serves.
fn unserved(tables: &Tables, held: &[Holding]) -> Option<Finding> {
    let is_lost = |number: &&u16| held.iter().all(|one| one.number != **number);
    let mut lost: BTreeSet<u16> = BTreeSet::new();
    let mut looks: Vec<String> = Vec::new();
    for base in &tables.bases {
        let here: Vec<u16> = base.queues.iter().filter(is_lost).copied().collect();
        if !here.is_empty() {
            lost.extend(here);
            looks.push(format!("nft list table {} {}", base.family, base.table));
        }
    }
    looks.dedup();
    (!lost.is_empty()).then(|| {
        Finding::note(
            Code::Queues,
            format!(
                "rules of another program hand packets to queue {}, which nobody serves: without \"bypass\" they are dropped",
                listed(&lost, 8)
            ),
            format!("start that program, or take its rules out: {}", looks.join("; ")),
        )
    })
}

/// The engine's name among processes.
pub(super) const ENGINE: &str = "verdictd";

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;
    use crate::kernel::facts::held::Program;
    use crate::kernel::facts::tables::{Base, Hook};

    fn holding(number: u16, name: &str) -> Holding {
        let program = (!name.is_empty()).then(|| Program {
            name: name.into(),
            pid: 7,
        });
        Holding {
            number,
            portid: 9,
            program,
        }
    }

    fn queues(held: Option<Vec<Holding>>, loaded: Option<Loaded>, config: &str) -> Finding {
        let mut facts = sample::facts();
        facts.held.queues = held;
        facts.ours = Ok(loaded);
        numbers(&facts, &sample::config(config), Numbered::Queue)
    }

    #[test]
    fn others_numbers_are_told_with_their_names() {
        assert_eq!(
            queues(Some(vec![]), None, "").what,
            "no other program holds a queue"
        );
        let suricata = queues(
            Some(vec![holding(0, "Suricata-Main"), holding(1, "Suricata-Main")]),
            None,
            "",
        );
        assert_eq!(
            suricata.what,
            "Suricata-Main (pid 7) holds queue 0 and 1, which are not in the engine's way"
        );
        let near = queues(Some(vec![holding(4100, "")]), None, "");
        assert_eq!(near.level, Level::Fine);
        assert!(
            near.what.ends_with("; the engine takes the next free ones"),
            "{near:?}"
        );
        let fixed = queues(
            Some(vec![holding(4101, "x")]),
            None,
            "[engine]\nworkers = 1\nqueue_base = 4100\n",
        );
        assert_eq!(fixed.level, Level::Act);
        assert!(
            fixed.what.contains("engine.queue_base = 4100 cannot be had"),
            "{fixed:?}"
        );
        assert_eq!(queues(None, None, "").level, Level::Note);
    }

    #[test]
    fn a_running_engine_is_not_in_its_own_way() {
        let mut loaded = Loaded::default();
        (loaded.queue_base, loaded.workers) = (Some(4100), Some(1));
        let held = vec![holding(4100, ENGINE), holding(4101, ENGINE)];
        let fixed = "[engine]\nworkers = 1\nqueue_base = 4100\n";
        let own = queues(Some(held.clone()), Some(loaded.clone()), fixed);
        assert_eq!(
            own.what,
            "no other program holds a queue; the running engine holds 2 queues"
        );
        // The name alone, or the number alone, is not enough.
        assert_eq!(queues(Some(held), None, fixed).level, Level::Act);
        let stranger = queues(Some(vec![holding(4100, "x")]), Some(loaded), fixed);
        assert_eq!(stranger.level, Level::Act);
    }

    #[test]
    fn queues_without_a_listener_are_told() {
        let tables = Tables {
            bases: vec![Base {
                queues: BTreeSet::from([0, 5]),
                ..sample::base(Hook::Input, 0)
            }],
            ..Tables::default()
        };
        let lost = unserved(&tables, &[holding(0, "x")]).unwrap();
        assert!(lost.what.contains("to queue 5, which nobody serves"), "{lost:?}");
        assert!(lost.remedy.ends_with(": nft list table ip filter"), "{lost:?}");
        assert_eq!(unserved(&tables, &[holding(0, "x"), holding(5, "y")]), None);
        // Where the queues cannot be seen, nothing is said of them.
        let mut facts = sample::facts();
        (facts.tables, facts.held.queues) = (Ok(tables), None);
        assert_eq!(judge(&facts, &sample::config("")).len(), 2);
    }
}
