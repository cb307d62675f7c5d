//! What detection tolerates and what follows, in plain words, for `verdictd check`.

use std::fmt::Write as _;

use crate::config::{duration_text, thresholds_text};
use crate::core::attack::{BASELINE_DAYS, Counting, Distributed, HANDSHAKE_LIMIT};
use crate::core::policy::Policy;
use crate::core::ports::PortSet;

/// One paragraph a rule, then what an offence earns.
pub(super) fn words(policy: &Policy) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "preset {}: what is tolerated within {}; one more is an offence",
        policy.preset,
        duration_text(policy.window)
    );
    text += &scans(policy);
    text += &attacks(policy);
    if policy.observes_only() {
        text += UNKNOWN;
    }
    if policy.enforce {
        text += &bans(policy);
    }
    text
}

fn scans(policy: &Policy) -> String {
    let completed = match policy.count_completed {
        true => "counts like any other (count_completed = true)",
        false => "does not count",
    };
    format!(
        "  port scan: {} TCP and {} UDP ports of one source; a port on which it completed a handshake {completed}\n  \
         stealth scan: {} of one source, of packets that nobody honest sends first (NULL, FIN, XMAS, SYN+FIN and kin)\n",
        policy.ports_threshold, policy.udp_ports_threshold, policy.stealth_threshold
    )
}

fn attacks(policy: &Policy) -> String {
    let distributed = &policy.distributed;
    let mut text = format!(
        "  distributed attack: over all sources, attempts on TCP port {}\n",
        thresholds_text(&distributed.thresholds)
    );
    for (ports, counting) in countings(distributed) {
        let _ = writeln!(text, "    {ports}: {}", counted(counting, distributed));
    }
    if distributed.baseline_factor > 0 {
        let _ = writeln!(
            text,
            "    and up to {} times the port's own hourly mean of {BASELINE_DAYS} days",
            distributed.baseline_factor
        );
    }
    let _ = writeln!(
        text,
        "    over when none came for {}",
        duration_text(distributed.attack_quiet)
    );
    text
}

/// Which ports have which counting: those with a word of their own first.
fn countings(distributed: &Distributed) -> Vec<(String, Counting)> {
    let ports = |counting: Counting| -> PortSet {
        let own = distributed.by_port.iter().filter(|(_, one)| **one == counting);
        own.map(|(port, _)| *port..=*port).collect()
    };
    let differ = Counting::ALL
        .into_iter()
        .filter(|one| *one != distributed.counting);
    let mut all: Vec<_> = differ
        .map(|counting| (ports(counting), counting))
        .filter(|(ports, _)| !ports.is_empty())
        .map(|(ports, counting)| (format!("on {ports}"), counting))
        .collect();
    let rest = if all.is_empty() { "counted" } else { "on any other" };
    all.push((rest.to_owned(), distributed.counting));
    all
}

fn counted(counting: Counting, distributed: &Distributed) -> String {
    match counting {
        Counting::Incomplete => format!(
            "those that this host answered and nobody completed within {}",
            duration_text(HANDSHAKE_LIMIT)
        ),
        Counting::NewSources => format!(
            "all of sources first seen less than {} ago, completed or not",
            duration_text(distributed.known_after)
        ),
        Counting::All => "all, of honest visitors too".to_owned(),
    }
}

fn bans(policy: &Policy) -> String {
    let steps = policy.ladder.steps();
    let all: Vec<String> = steps.iter().map(|step| duration_text(*step)).collect();
    let mut text = format!(
        "bans: {} for the first, second, … offence, the last for any further; offences are forgiven after {}\n",
        all.join(", "),
        duration_text(policy.forgive_after)
    );
    if steps.len() > 1 {
        let _ = writeln!(
            text,
            "  only {} where the address may be forged (UDP alone, no completed flow of a source that completed others) \
             or one of many in a distributed attack",
            all[0]
        );
    }
    if let Some(cap) = policy.unproven_cap {
        let _ = writeln!(
            text,
            "  at most {} for a source that never completed a handshake here (unproven_cap)",
            duration_text(cap)
        );
    }
    let _ = writeln!(text, "  at most {} new bans a minute", policy.max_bans_per_minute);
    text
}

/// The same as `status` says of a table that holds nothing.
const UNKNOWN: &str = "  unknown while nothing is held: UDP is not seen; where conntrack sleeps, connections that last less than \
                       a second count as not completed\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn told(text: &str) -> Vec<String> {
        let policy = parse(text, "f.toml".as_ref())
            .expect("a good configuration")
            .policy;
        words(&policy).lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_standard_preset_in_words() {
        assert_eq!(
            told(""),
            [
                "preset standard: what is tolerated within 2h; one more is an offence",
                "  port scan: 7 TCP and 28 UDP ports of one source; a port on which it completed a handshake does not count",
                "  stealth scan: 3 of one source, of packets that nobody honest sends first (NULL, FIN, XMAS, SYN+FIN and kin)",
                "  distributed attack: over all sources, attempts on TCP port 80, 443: 2; 22: 3; 3306, 5432: 5; any other: 10",
                "    counted: those that this host answered and nobody completed within 10s",
                "    and up to 5 times the port's own hourly mean of 7 days",
                "    over when none came for 10m",
                "bans: 10m, 2h, 1d, 7d for the first, second, … offence, the last for any further; offences are forgiven \
                 after 30d",
                "  only 10m where the address may be forged (UDP alone, no completed flow of a source that completed others) \
                 or one of many in a distributed attack",
                "  at most 600 new bans a minute",
            ]
        );
    }

    #[test]
    fn what_is_set_is_told_and_what_is_off_is_not() {
        let told = told(
            "[firewall]\nmode = \"custom\"\ncount_completed = true\n[custom]\nblock_durations = [\"1h\"]\nstealth_threshold = 5\n\
             [bans]\nmax_bans_per_minute = 60\n[distributed]\ncounting = \"all\"\nbaseline_factor = 0\nknown_after = \"30m\"\n\
             attack_quiet = \"5m\"\n[distributed.ports]\n22 = \"new_sources\"\n25 = \"incomplete\"\n26 = \"incomplete\"\n80 = \"all\"\n",
        );
        assert!(told[1].ends_with("counts like any other (count_completed = true)"));
        assert!(told[2].starts_with("  stealth scan: 5 of one source"));
        assert_eq!(
            told[4..],
            [
                "    on 25-26: those that this host answered and nobody completed within 10s",
                "    on 22: all of sources first seen less than 30m ago, completed or not",
                "    on any other: all, of honest visitors too",
                "    over when none came for 5m",
                "bans: 1h for the first, second, … offence, the last for any further; offences are forgiven after 30d",
                "  at most 60 new bans a minute",
            ]
        );
    }

    #[test]
    fn a_cap_is_told_among_the_bans() {
        assert_eq!(
            told("[bans]\nunproven_cap = \"2h\"\n")[9],
            "  at most 2h for a source that never completed a handshake here (unproven_cap)"
        );
    }

    #[test]
    fn watching_says_what_it_cannot_know_and_no_ban() {
        let told = told("[bans]\nenforce = false\n");
        assert!(
            told.last()
                .is_some_and(|line| line.starts_with("  unknown while nothing is held: UDP"))
        );
    }
}
