//! docs/differences.md: what it quotes is in the Python system's documents, its settings load and have the effect that
//! it says, and the tests that it names are there.

use std::path::Path;
use std::time::Duration;

use verdictd::config::{Config, parse};
use verdictd::core::attack::Counting;
use verdictd::core::policy::OtherProtocols;

use crate::mission;
use crate::pages::{blocks, code, read};

const PAGE: &str = "docs/differences.md";

/// A heading of the page, and what its setting brings about.
type Effect = (&'static str, fn(&Config) -> bool);

const EFFECTS: [Effect; 18] = [
    ("Whether offenders are banned", |c| {
        c.policy.enforce && !c.policy.mode.filters_ports()
    }),
    ("The 8th port", |c| c.policy.ports_threshold == 6),
    ("Ports on which a client was served", |c| c.policy.count_completed),
    ("One scan is one offence", |c| {
        c.policy.ladder.steps() == [Duration::from_secs(7 * DAY)]
    }),
    ("Offences are forgiven", |c| {
        c.policy.forgive_after == Duration::from_secs(3650 * DAY)
    }),
    ("Bans are a little longer", |c| !c.policy.jitter),
    ("[custom] beside another mode", |c| {
        let thresholds = &c.policy.distributed.thresholds;
        c.policy.ports_threshold == 15 && thresholds.of(80) == 150 && thresholds.of(22) == 20
    }),
    ("Distributed counting", counts_all),
    ("Immediate blocking on sensitive ports", |c| {
        counts_all(c) && c.policy.distributed.thresholds.of(443) == 1
    }),
    ("Stealth scans", |c| c.policy.stealth_threshold == 1),
    ("How many bans a minute", |c| {
        c.policy.max_bans_per_minute == 1_000_000
    }),
    ("IPv6", |c| c.policy.v6_prefix == 128),
    ("UDP", |c| c.policy.udp_allowed.to_string() == "53, 123"),
    ("Other protocols", |c| {
        c.policy.other_protocols == OtherProtocols::Drop
    }),
    ("What is not filtered", |c| {
        c.engine.internal_interfaces.is_empty()
    }),
    ("What is refused instead of done", |c| {
        c.engine.allow_lockout && c.policy.tcp_allowed.is_empty()
    }),
    ("Where the state is", |c| {
        c.engine.state_file.as_deref() == Some(Path::new("firewall_state.toml"))
    }),
    ("Plain http", |c| {
        c.webhooks.live().all(|endpoint| endpoint.allow_http)
    }),
];

const DAY: u64 = 86_400;

fn counts_all(config: &Config) -> bool {
    let distributed = &config.policy.distributed;
    distributed.counting == Counting::All && distributed.baseline_factor == 0
}

/// Headings with what stands below each.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("\n## ").skip(1);
    let parts = parts.map(|part| part.split("\n# ").next().unwrap());
    parts
        .map(|part| part.split_once('\n').expect("a heading and a text"))
        .collect()
}

#[test]
fn what_is_quoted_stands_in_the_documents() {
    let page = read(PAGE);
    for (heading, text) in sections(&page) {
        let quotes: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("> ")).collect();
        assert!(
            !quotes.is_empty(),
            "{heading}: the documents' words are not quoted"
        );
        for quote in quotes {
            assert!(mission::says(quote), "{heading}: no document says {quote:?}");
        }
    }
}

#[test]
fn every_setting_loads_and_does_what_is_said() {
    let page = read(PAGE);
    for (heading, text) in sections(&page) {
        let settings = blocks(text, "toml");
        let effects: Vec<_> = EFFECTS.iter().filter(|(of, _)| *of == heading).collect();
        assert_eq!(
            settings.is_empty(),
            effects.is_empty(),
            "{heading}: a setting and no effect, or the other way"
        );
        for (_, setting) in settings {
            let config = parse(setting, Path::new(heading)).unwrap_or_else(|error| panic!("{error}"));
            assert!(
                effects.iter().all(|(_, effect)| effect(&config)),
                "{heading}: {config:?}"
            );
            let without = config.notes.iter().filter(|note| note.text.contains("no effect"));
            assert_eq!(without.count(), 0, "{heading}: {:?}", config.notes);
        }
    }
    let page = sections(&page);
    assert!(
        EFFECTS
            .iter()
            .all(|(heading, _)| page.iter().any(|(of, _)| of == heading))
    );
}

#[test]
fn the_tests_that_are_named_are_there() {
    let page = read(PAGE);
    let mut named = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("Shown by ")) {
        let mut file = String::new();
        for span in code(line) {
            if span.ends_with(".rs") {
                file = read(span);
                continue;
            }
            assert!(
                file.contains(&format!("fn {span}()")),
                "no test {span} for {line:?}"
            );
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
