//! Findings about the tables of others: which of their chains drop what comes in, before or after ours, and who bans.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::finding::{Code, Finding, listed};
use crate::kernel::facts::tables::{Base, Hook, Tables};

/// All of them.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    match &facts.tables {
        Ok(tables) => self::tables(tables),
        Err(why) => vec![Finding::note(
            Code::Before,
            format!("which other tables drop what comes in is not known: {why}"),
            "run this again as root",
        )],
    }
}

fn tables(tables: &Tables) -> Vec<Finding> {
    let dropping = || {
        tables
            .bases
            .iter()
            .filter(|base| base.drops && base.hook != Hook::Forward)
    };
    let mut findings = before(dropping().filter(|base| is_before(base)));
    // What only bans is told as such; there is no port to be opened there.
    let firewalls = dropping().filter(|base| !is_before(base) && !only_bans(base));
    findings.extend(after(firewalls));
    if findings.is_empty() {
        let mut what = "no other nft table drops what comes in".to_owned();
        let bans = by_table(dropping()).into_iter().map(|(title, _)| title);
        let bans = listed(bans, 4);
        if !bans.is_empty() {
            what += &format!(" but by bans of its own: {bans}");
        }
        findings.push(Finding::fine(Code::Before, what));
    }
    findings.extend(accepting(tables));
    findings.extend(legacy(&tables.legacy));
    findings.extend(other_bans(tables));
    findings
}

/// Whether it is the table of a program that bans and does nothing else.
fn only_bans(base: &Base) -> bool {
    let bans = |program: &&str| UNBAN.iter().any(|(name, _)| name == program) && *program != CSF;
    !base.programs.is_empty() && base.programs.iter().all(bans)
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

/// Whose accepts come first and are not the last word.
fn accepting(tables: &Tables) -> Option<Finding> {
    let first = tables.bases.iter().filter(|base| base.accepts && is_before(base));
    let titles = by_table(first).into_iter().map(|(title, _)| title);
    let titles: Vec<String> = titles.collect();
    (!titles.is_empty()).then(|| {
        let what = format!(
            "{} can let pass before the engine, which judges it all the same: an accept ends one chain and no other",
            listed(titles, 4)
        );
        Finding::fine(Code::Before, what)
    })
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
    match bases {
        [] => String::new(),
        [base] => format!("nft list {}", base.title()),
        [base, ..] => format!("nft list table {} {}", base.family, base.table),
    }
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
        let raw = match tables.iter().any(|table| table.ends_with(" raw")) {
            true => {
                "its raw table (-300) can drop before the engine's judgement, what else it has comes after it"
            }
            false => "what it drops it drops after the engine",
        };
        Finding::note(
            Code::Legacy,
            format!("the old iptables is in use beside nft: {raw}"),
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

/// Where the engine's table drops banned sources and where it judges (see ARCHITECTURE.md).
const BANS: i32 = -310;
const JUDGES: i32 = -190;
/// Who bans, and how a host is let in again there.
const UNBAN: [(&str, &str); 4] = [
    ("fail2ban", "fail2ban-client unban ADDR"),
    ("CrowdSec", "cscli decisions delete --ip ADDR"),
    ("sshguard", "systemctl restart sshguard"),
    (CSF, "csf -tr ADDR"),
];
/// Filters ports too.
const CSF: &str = "CSF";

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;

    fn base(hook: Hook, priority: i32, drops: bool, programs: &[&'static str]) -> Base {
        Base {
            drops,
            programs: programs.iter().copied().collect(),
            ..sample::base(hook, priority)
        }
    }

    fn judged(bases: Vec<Base>) -> Vec<Finding> {
        let others = Tables {
            bases,
            ..Tables::default()
        };
        tables(&others)
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
    fn an_accept_before_us_is_told_to_be_harmless() {
        let accepting = |hook, priority| {
            let base = Base {
                accepts: true,
                ..sample::base(hook, priority)
            };
            judged(vec![base])
        };
        let found = accepting(Hook::Prerouting, -300);
        assert!(
            found[1].what.starts_with("table ip filter can let pass before"),
            "{found:?}"
        );
        assert!(found.iter().all(|one| one.level == Level::Fine), "{found:?}");
        assert_eq!(accepting(Hook::Input, 0).len(), 1);
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
        assert!(found.iter().all(|one| one.code != Code::After), "{found:?}");
        assert!(
            found[0]
                .what
                .ends_with("but by bans of its own: table ip filter (CrowdSec and fail2ban)"),
            "{found:?}"
        );
        let csf = judged(vec![base(Hook::Input, 0, true, &["CSF"])]);
        assert_eq!(csf[0].code, Code::After);
        let bans = sample::one(found, Code::Bans);
        assert!(bans.what.ends_with(": fail2ban and CrowdSec"), "{bans:?}");
        assert!(
            bans.remedy.contains("fail2ban-client unban ADDR; cscli"),
            "{bans:?}"
        );
    }

    #[test]
    fn old_tables_are_told() {
        let others = Tables {
            legacy: vec!["iptables-legacy -t filter".into()],
            ..Tables::default()
        };
        let found = sample::one(tables(&others), Code::Legacy);
        assert!(found.what.ends_with("it drops after the engine"), "{found:?}");
        let raw = legacy(&["ip6tables-legacy -t raw".into()]).unwrap();
        assert!(raw.what.contains("raw table (-300) can drop before"), "{raw:?}");
        assert!(
            found.remedy.ends_with("iptables-legacy -t filter -S"),
            "{found:?}"
        );
    }

    #[test]
    fn tables_that_cannot_be_read_are_not_passed_over() {
        let mut facts = sample::facts();
        facts.tables = Err(sample::unknown("not permitted"));
        let finding = sample::one(judge(&facts), Code::Before);
        assert_eq!(finding.level, Level::Note);
    }
}
