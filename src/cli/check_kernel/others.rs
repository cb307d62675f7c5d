//! Findings about other programs on this machine: their numbers, what nft loads at boot, their tables.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::engine::open::FIRST_NUMBER;
use crate::kernel::facts::Facts;
use crate::kernel::facts::boot::{Boot, Place};
use crate::kernel::facts::held::Holding;
use crate::kernel::facts::tables::{Base, Hook, Tables};
use crate::kernel::queue::Numbered;
use crate::kernel::ruleset::{Backend, Loaded};

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        numbers(facts, config, Numbered::Queue),
        numbers(facts, config, Numbered::LogGroup),
    ];
    let xt = matches!(facts.trial.backend, Ok(Backend::Xt));
    findings.extend(boot(&facts.boot, config.engine.manage_ruleset, xt));
    match &facts.tables {
        Ok(tables) => findings.extend(self::tables(tables, facts.held.queues.as_deref())),
        Err(why) => findings.push(Finding::note(
            Code::Before,
            format!("which other tables drop what comes in is not known: {why}"),
            "run this again as root",
        )),
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

fn boot(boot: &Boot, manages: bool, xt: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match (boot.ours.is_empty(), manages) {
        (false, true) => {
            let loads = match (xt, boot.enabled) {
                (true, _) => "this kernel does not load it, and with it none of that file",
                (_, true) => "it is loaded at boot beside the engine's own, with the bans of the day it was saved",
                (_, false) => "whoever loads that file loads the bans of the day it was saved",
            };
            Finding::act(
                Code::BootTable,
                format!("table inet verdictd stands in {}: {loads}", places(&boot.ours)),
                "cut that table out of the file (the engine loads it by itself and keeps its bans in /var/lib/verdictd), then: \
                 nft -c -f /etc/nftables.conf",
            )
        }
        (true, false) => Finding::note(
            Code::BootTable,
            "manage_ruleset = false, and none of the files that nft loads at boot has table inet verdictd",
            "include \"/etc/verdictd/verdictd.nft\" in /etc/nftables.conf, or see that something else loads it before the engine \
             starts",
        ),
        (false, false) => Finding::fine(
            Code::BootTable,
            format!("table inet verdictd is loaded from {}, as manage_ruleset = false asks for", places(&boot.ours)),
        ),
        (true, true) => Finding::fine(Code::BootTable, "what nft loads at boot does not hold table inet verdictd"),
    });
    if boot.ours.is_empty() && !boot.xt.is_empty() {
        findings.push(Finding::act_if(
            boot.enabled,
            Code::BootTable,
            format!(
                "a rule with a target of xtables stands in {}: nft refuses that file, and nothing of it is loaded",
                places(&boot.xt)
            ),
            "try it: nft -c -f /etc/nftables.conf; save such rules with iptables-save instead, and cut them out there",
        ));
    }
    for why in &boot.unread {
        findings.push(Finding::note(
            Code::BootTable,
            format!("a file that nft loads could not be read: {why}"),
            "look for \"table inet verdictd\" in it, which should not stand there",
        ));
    }
    findings.extend(flush(boot, manages));
    findings
}

fn flush(boot: &Boot, manages: bool) -> Option<Finding> {
    if boot.flushes.is_empty() {
        return None;
    }
    let what = format!(
        "\"flush ruleset\" in {} takes the engine's table out too, bans and all",
        places(&boot.flushes)
    );
    Some(match manages {
        true => Finding::fine(
            Code::BootFlush,
            format!(
                "{what}: at boot that comes first, since the engine starts after nftables.service, and later the running engine \
                 puts rules and bans back at once"
            ),
        ),
        false => Finding::note(
            Code::BootFlush,
            what,
            "after \"systemctl reload nftables\" reload the engine too (verdictctl reload), which puts its bans back",
        ),
    })
}

fn places(places: &[Place]) -> String {
    listed(
        places
            .iter()
            .map(|place| format!("{}:{}", place.path.display(), place.line)),
        3,
    )
}

fn tables(tables: &Tables, queues: Option<&[Holding]>) -> Vec<Finding> {
    let dropping = || {
        tables
            .bases
            .iter()
            .filter(|base| base.drops && base.hook != Hook::Forward)
    };
    let mut findings = before(dropping().filter(|base| is_before(base)));
    findings.extend(after(dropping().filter(|base| !is_before(base))));
    if findings.is_empty() {
        findings.push(Finding::fine(
            Code::Before,
            "no other nft table drops what comes in",
        ));
    }
    findings.extend(legacy(&tables.legacy));
    findings.extend(other_bans(tables));
    findings.extend(queues.and_then(|held| unserved(tables, held)));
    findings
}

/// Of two chains with one priority, which comes first is the order in which they were made.
fn is_before(base: &Base) -> bool {
    match base.hook {
        Hook::Ingress => true,
        Hook::Prerouting => base.priority <= JUDGES,
        Hook::Input | Hook::Forward => false,
    }
}

fn before<'a>(bases: impl Iterator<Item = &'a Base>) -> Vec<Finding> {
    let finding = |(title, bases): (String, Vec<&Base>)| {
        let banned = match bases
            .iter()
            .any(|base| base.priority <= BANS || base.hook == Hook::Ingress)
        {
            true => "before the engine's bans (-310) and judgement (-190)",
            false => "after the engine's bans (-310) and before its judgement (-190)",
        };
        Finding::note(
            Code::Before,
            format!(
                "{title} can drop in {} {banned}: what it drops the engine never sees, scans of it are not counted",
                stations(&bases)
            ),
            format!("look whether that is meant: {}", list_command(&bases)),
        )
    };
    by_table(bases).into_iter().map(finding).collect()
}

fn after<'a>(bases: impl Iterator<Item = &'a Base>) -> Vec<Finding> {
    let finding = |(title, bases): (String, Vec<&Base>)| {
        Finding::note(
            Code::After,
            format!(
                "{title} can drop in {}, after the engine (-310, -190): what it drops stays dropped although the engine lets it \
                 pass, and what it lets pass the engine has let pass before",
                stations(&bases)
            ),
            format!(
                "open a port in both places, here and under [allowed_ports]: {}",
                opening(&bases)
            ),
        )
    };
    by_table(bases).into_iter().map(finding).collect()
}

/// "table ip filter (ufw)" with its chains, in the order in which packets meet them.
fn by_table<'a>(bases: impl Iterator<Item = &'a Base>) -> Vec<(String, Vec<&'a Base>)> {
    let mut tables: Vec<(String, Vec<&Base>)> = Vec::new();
    for base in bases {
        let programs = match base.programs.is_empty() {
            true => String::new(),
            false => format!(" ({})", listed(&base.programs, 4)),
        };
        let title = format!("table {} {}{programs}", base.family, base.table);
        match tables.iter_mut().find(|(other, _)| *other == title) {
            Some((_, all)) => all.push(base),
            None => tables.push((title, vec![base])),
        }
    }
    tables
}

fn stations(bases: &[&Base]) -> String {
    listed(
        bases
            .iter()
            .map(|base| format!("{} {} (priority {})", base.hook, base.chain, base.priority)),
        4,
    )
}

fn list_command(bases: &[&Base]) -> String {
    bases
        .first()
        .map_or(String::new(), |base| format!("nft list {}", base.title()))
}

/// The command by which a port is opened there, for those who have one.
fn opening(bases: &[&Base]) -> String {
    let programs: BTreeSet<&str> = bases
        .iter()
        .flat_map(|base| base.programs.iter().copied())
        .collect();
    if programs.contains("ufw") {
        return "ufw allow 443/tcp".into();
    }
    if programs.contains("firewalld") {
        return "firewall-cmd --permanent --add-port=443/tcp && firewall-cmd --reload".into();
    }
    list_command(bases)
}

fn legacy(tables: &[String]) -> Option<Finding> {
    (!tables.is_empty()).then(|| {
        Finding::note(
            Code::Legacy,
            "the old iptables is in use beside nft: its raw table (-300) can drop before the engine's judgement, the others come \
             after it",
            format!(
                "look for what drops: {}",
                tables
                    .iter()
                    .map(|table| format!("{table} -S"))
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
        )
    })
}

fn other_bans(tables: &Tables) -> Option<Finding> {
    let programs: BTreeSet<&str> = tables
        .bases
        .iter()
        .flat_map(|base| base.programs.iter().copied())
        .collect();
    let found: Vec<&(&str, &str)> = UNBAN.iter().filter(|(name, _)| programs.contains(name)).collect();
    (!found.is_empty()).then(|| {
        let names = listed(found.iter().map(|(name, _)| *name), 5);
        let commands: Vec<&str> = found.iter().map(|(_, command)| *command).collect();
        Finding::note(
            Code::Bans,
            format!("others ban here too, by rules of their own that the engine knows nothing of: {names}"),
            format!(
                "let a host in again at both: verdictctl unban ADDR; {}",
                commands.join("; ")
            ),
        )
    })
}

/// Queues that rules of others lead to and nobody serves.
fn unserved(tables: &Tables, held: &[Holding]) -> Option<Finding> {
    let led: BTreeSet<u16> = tables
        .bases
        .iter()
        .flat_map(|base| base.queues.iter().copied())
        .collect();
    let lost: Vec<u16> = led
        .into_iter()
        .filter(|number| held.iter().all(|one| one.number != *number))
        .collect();
    (!lost.is_empty()).then(|| {
        Finding::note(
            Code::Queues,
            format!(
                "rules of another program hand packets to queue {}, which nobody serves: without \"bypass\" they are dropped",
                listed(&lost, 8)
            ),
            "start that program, or take its rules out: nft list ruleset",
        )
    })
}

/// The engine's name among processes.
pub(super) const ENGINE: &str = "verdictd";
/// Where the engine's table drops banned sources and where it judges (see ARCHITECTURE.md).
const BANS: i32 = -310;
const JUDGES: i32 = -190;
/// Who bans, and how a host is let in again there.
const UNBAN: [(&str, &str); 4] = [
    ("fail2ban", "fail2ban-client unban ADDR"),
    ("CrowdSec", "cscli decisions delete --ip ADDR"),
    ("sshguard", "systemctl restart sshguard"),
    ("CSF", "csf -tr ADDR"),
];

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;
    use crate::kernel::facts::held::Program;

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

    fn place(path: &str) -> Vec<Place> {
        let (path, line) = (path.into(), 3);
        vec![Place { path, line }]
    }

    #[test]
    fn our_table_in_what_boot_loads_is_to_act_on_unless_it_is_meant() {
        let saved = Boot {
            ours: place("/etc/nftables.conf"),
            enabled: true,
            ..Boot::default()
        };
        let finding = &boot(&saved, true, false)[0];
        assert_eq!(finding.level, Level::Act);
        assert!(
            finding
                .what
                .contains("/etc/nftables.conf:3: it is loaded at boot"),
            "{finding:?}"
        );
        assert!(
            boot(&saved, true, true)[0]
                .what
                .contains("this kernel does not load it")
        );
        assert_eq!(boot(&saved, false, false)[0].level, Level::Fine);
        assert_eq!(boot(&Boot::default(), false, false)[0].level, Level::Note);
        assert_eq!(boot(&Boot::default(), true, false)[0].level, Level::Fine);
        let dump = Boot {
            xt: place("/etc/nftables.conf"),
            enabled: true,
            ..Boot::default()
        };
        assert_eq!(boot(&dump, true, true)[1].level, Level::Act);
        let unread = Boot {
            unread: vec!["/etc/x: denied".into()],
            ..Boot::default()
        };
        assert_eq!(boot(&unread, true, false)[1].level, Level::Note);
    }

    #[test]
    fn a_flush_is_fine_where_the_engine_puts_its_table_back() {
        let flushing = Boot {
            flushes: place("/etc/nftables.conf"),
            ..Boot::default()
        };
        assert_eq!(flush(&flushing, true).map(|one| one.level), Some(Level::Fine));
        assert_eq!(flush(&flushing, false).map(|one| one.level), Some(Level::Note));
        assert_eq!(flush(&Boot::default(), true), None);
    }

    fn base(hook: Hook, priority: i32, drops: bool, programs: &[&'static str]) -> Base {
        Base {
            family: "ip",
            table: "filter".into(),
            chain: "INPUT".into(),
            hook,
            priority,
            drops,
            accepts: true,
            queues: BTreeSet::new(),
            programs: programs.iter().copied().collect(),
        }
    }

    fn judged(bases: Vec<Base>) -> Vec<Finding> {
        let others = Tables {
            bases,
            ..Tables::default()
        };
        tables(&others, Some(&[]))
    }

    #[test]
    fn what_drops_before_us_is_told_apart_from_what_drops_after() {
        for (hook, priority, code) in [
            (Hook::Ingress, 0, Code::Before),
            (Hook::Prerouting, -400, Code::Before),
            (Hook::Prerouting, -300, Code::Before),
            (Hook::Prerouting, -190, Code::Before),
            (Hook::Prerouting, -189, Code::After),
            (Hook::Input, -400, Code::After),
            (Hook::Input, 0, Code::After),
        ] {
            let found = judged(vec![base(hook, priority, true, &[])]);
            assert_eq!(
                (found.len(), found[0].code, found[0].level),
                (1, code, Level::Note),
                "{hook} {priority}"
            );
        }
        let raw = &judged(vec![base(Hook::Prerouting, -300, true, &[])])[0];
        assert!(raw.what.contains("after the engine's bans (-310)"), "{raw:?}");
        assert!(raw.remedy.ends_with("nft list chain ip filter INPUT"), "{raw:?}");
        for harmless in [
            base(Hook::Input, 0, false, &[]),
            base(Hook::Forward, 0, true, &[]),
        ] {
            assert_eq!(judged(vec![harmless])[0].level, Level::Fine);
        }
    }

    #[test]
    fn firewalls_are_named_with_the_command_that_opens_a_port() {
        let ufw = &judged(vec![base(Hook::Input, 0, true, &["ufw"])])[0];
        assert!(
            ufw.what
                .starts_with("table ip filter (ufw) can drop in input INPUT (priority 0), after"),
            "{ufw:?}"
        );
        assert!(ufw.remedy.ends_with("ufw allow 443/tcp"), "{ufw:?}");
        let firewalld = &judged(vec![base(Hook::Input, 0, true, &["firewalld"])])[0];
        assert!(firewalld.remedy.contains("firewall-cmd"), "{firewalld:?}");
    }

    #[test]
    fn who_bans_too_is_named_with_the_way_out() {
        let found = judged(vec![base(Hook::Input, 0, true, &["fail2ban", "CrowdSec"])]);
        let bans = sample::one(found, Code::Bans);
        assert!(bans.what.ends_with(": fail2ban and CrowdSec"), "{bans:?}");
        assert!(
            bans.remedy.contains("fail2ban-client unban ADDR; cscli"),
            "{bans:?}"
        );
    }

    #[test]
    fn old_tables_and_queues_without_a_listener_are_told() {
        let mut queueing = base(Hook::Input, 0, false, &[]);
        queueing.queues = BTreeSet::from([0, 5]);
        let others = Tables {
            bases: vec![queueing],
            legacy: vec!["iptables-legacy -t filter".into()],
            ..Tables::default()
        };
        let found = tables(&others, Some(&[holding(0, "x")]));
        assert!(
            sample::one(found.clone(), Code::Legacy)
                .remedy
                .ends_with("iptables-legacy -t filter -S")
        );
        let lost = sample::one(found, Code::Queues);
        assert!(lost.what.contains("to queue 5, which nobody serves"), "{lost:?}");
        // Where the queues cannot be seen, nothing is said of them.
        assert!(tables(&others, None).iter().all(|one| one.code != Code::Queues));
    }

    #[test]
    fn tables_that_cannot_be_read_are_not_passed_over() {
        let mut facts = sample::facts();
        facts.tables = Err("not permitted".into());
        let finding = sample::one(judge(&facts, &sample::config("")), Code::Before);
        assert_eq!(finding.level, Level::Note);
    }
}
