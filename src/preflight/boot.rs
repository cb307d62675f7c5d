//! Findings about what nft loads at boot.

use super::boot_files::{Boot, Place};
use super::facts::Facts;
use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::kernel::ruleset::Backend;

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let xt = matches!(facts.trial.backend, Ok(Backend::Xt));
    boot(&facts.boot, config.engine.manage_ruleset, xt)
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
                format!(
                    "cut that table out of the file (the engine loads it by itself and keeps its bans in /var/lib/verdictd), \
                     then: {}",
                    try_out(boot)
                ),
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
            format!(
                "try it: {}; save such rules with iptables-save instead, and cut them out there",
                try_out(boot)
            ),
        ));
    }
    for why in &boot.unread {
        findings.push(Finding::note(
            Code::BootTable,
            format!("a file that nft loads could not be read: {why}"),
            format!(
                "try whether nft takes it ({}: it loads nothing of a file that includes what is missing), and look for \"table \
                 inet verdictd\" in it, which should not stand there",
                try_out(boot)
            ),
        ));
    }
    findings.extend(flush(boot, manages));
    findings
}

/// The command that has nft read what is loaded at boot, and change nothing.
fn try_out(boot: &Boot) -> String {
    let first = boot
        .files
        .first()
        .map_or("/etc/nftables.conf".into(), |path| path.display().to_string());
    format!("nft -c -f {first}")
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

#[cfg(test)]
mod tests {
    use super::super::boot_files::Unread;
    use super::super::finding::Level;
    use super::*;

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
            unread: vec![Unread::Folders("*/x".into())],
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
}
