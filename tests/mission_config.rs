//! What the documents of the Python system say in TOML, block by block, and what it means here; and the examples that
//! give the effect which those documents promise under their titles.
#![allow(clippy::unwrap_used)] // a test may

use std::fs;
use std::path::Path;
use std::time::Duration;

use verdictd::config::{Config, load, parse};
use verdictd::core::attack::Counting;
use verdictd::core::policy::Mode;
use verdictd::webhook::wire::EventType;

/// Name, text and blocks of a document: each by the line of its fence, with what is expected of it.
type Document = (&'static str, &'static str, &'static [(usize, Expected)]);

/// Name of an example, all that is said of it, its effect.
type Example = (&'static str, &'static [&'static str], fn(&Config));

enum Expected {
    /// It loads, says exactly this, and has this effect.
    Loads(&'static [&'static str], fn(&Config)),
    /// A fragment: refused with exactly these messages; with a header before it, it loads and has this effect.
    Under(&'static str, &'static [&'static str], fn(&Config)),
    /// A fragment that lacks more than a header: refused with exactly these messages.
    Refused(&'static [&'static str]),
}

use Expected::{Loads, Refused, Under};

const DOCUMENTS: [Document; 2] = [
    (
        "mission_firewall_README.md",
        include_str!("data/mission_firewall_README.md"),
        &[
            // Detection only mode: a line without its section.
            (
                63,
                Under(
                    "[firewall]",
                    &["1: firewall_mode: no such key; belongs under [firewall]"],
                    |config| {
                        assert_eq!(config.policy.mode, Mode::DetectionOnly);
                        assert!(config.policy.enforce && !config.policy.mode.filters_ports());
                    },
                ),
            ),
            // Firewall mode: the same, and the ports below it.
            (
                71,
                Under(
                    "[firewall]",
                    &["1: firewall_mode: no such key; belongs under [firewall]"],
                    |config| web_and_ssh_only(config, Mode::Firewall),
                ),
            ),
            // Corporate mode.
            (
                81,
                Under(
                    "[firewall]",
                    &["1: firewall_mode: no such key; belongs under [firewall]"],
                    |config| web_and_ssh_only(config, Mode::Corporate),
                ),
            ),
            // Firewall replacement setup.
            (
                128,
                Loads(&[], |config| {
                    web_and_ssh_only(config, Mode::Firewall);
                    preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
                }),
            ),
            // Corporate environment setup.
            (
                145,
                Loads(
                    &[
                        "line 17: webhooks.endpoints.secret is one of the documentation: everybody can sign with it",
                    ],
                    |config| {
                        corporate(config);
                        told(config, &["Security Operations Center"]);
                    },
                ),
            ),
            // Small office.
            (
                226,
                Loads(&[], |config| {
                    preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
                    trusts(config, &["192.168.1.1", "192.168.1.200"], &["192.168.2.1"]);
                }),
            ),
            // Enterprise: as written the thresholds are without effect, which is said; the example has the effect.
            (
                236,
                Loads(
                    &[
                        "line 5: custom.port_thresholds.80 = 150 has no effect: mode is \"lenient\" (100); \
                         write mode = \"custom\", base = \"lenient\"",
                        "line 6: custom.port_thresholds.443 = 150 has no effect: mode is \"lenient\" (100); \
                         write mode = \"custom\", base = \"lenient\"",
                    ],
                    |config| {
                        preset(config, "lenient", 15, 24, ["30m", "4h", "2d", "14d"]);
                        attempts(config, [(80, 100), (443, 100)]);
                        trusts(config, &["10.9.8.7", "172.31.0.1"], &["192.168.1.1"]);
                    },
                ),
            ),
            // Development environment: the same.
            (
                249,
                Loads(
                    &[
                        "line 5: custom.unique_ports_threshold = 20 has no effect: mode is \"lenient\" (15); \
                         write mode = \"custom\", base = \"lenient\"",
                        "line 6: custom.activity_window_hours = 48 has no effect: mode is \"lenient\" (24); \
                         write mode = \"custom\", base = \"lenient\"",
                    ],
                    |config| preset(config, "lenient", 15, 24, ["30m", "4h", "2d", "14d"]),
                ),
            ),
            // Configuration file structure: every section there is.
            (
                380,
                Loads(
                    &[
                        "line 13: custom.unique_ports_threshold = 7 has no effect: mode is \"standard\" (7); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 14: custom.default_port_threshold = 10 has no effect: mode is \"standard\" (10); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 15: custom.activity_window_hours = 2 has no effect: mode is \"standard\" (2); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 16: custom.block_durations = [\"10m\", \"2h\", \"1d\", \"7d\"] has no effect: mode is \
                         \"standard\" ([\"10m\", \"2h\", \"1d\", \"7d\"]); write mode = \"custom\", base = \"standard\"",
                        "line 17: custom.state_save_interval = 60 has no effect: mode is \"standard\" (120); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 20: custom.port_thresholds.80 = 2 has no effect: mode is \"standard\" (2); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 21: custom.port_thresholds.443 = 2 has no effect: mode is \"standard\" (2); \
                         write mode = \"custom\", base = \"standard\"",
                        "line 22: custom.port_thresholds.22 = 3 has no effect: mode is \"standard\" (3); \
                         write mode = \"custom\", base = \"standard\"",
                    ],
                    |config| {
                        assert_eq!(config.policy.mode, Mode::DetectionOnly);
                        preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
                        assert_eq!(config.engine.snapshot_every, Duration::from_secs(120));
                        attempts(config, [(80, 2), (443, 2), (22, 3), (25, 10)]);
                        trusts(
                            config,
                            &["127.0.0.1", "192.168.77.1", "10.0.0.1"],
                            &["172.16.0.1"],
                        );
                    },
                ),
            ),
            // Webhooks by hand.
            (
                488,
                Loads(
                    &[
                        "line 9: webhooks.endpoints.secret is one of the documentation: everybody can sign with it",
                    ],
                    |config| {
                        untouched_by_webhooks(config);
                        told(config, &["Security Operations Center"]);
                        let [endpoint] = &config.webhooks.endpoints[..] else {
                            panic!("{config:?}")
                        };
                        let delivery = endpoint.delivery;
                        assert_eq!((delivery.batch_size, delivery.rate_limit), (10, 100));
                        let wants = [EventType::IpBlocked, EventType::IpUnblocked]
                            .map(|kind| endpoint.filter.wants(kind));
                        assert_eq!(wants, [true, false]);
                    },
                ),
            ),
        ],
    ),
    (
        "mission_webhook_README.md",
        include_str!("data/mission_webhook_README.md"),
        &[
            // Configure webhooks.
            (
                31,
                Loads(
                    &[
                        "line 7: webhooks.endpoints.secret is one of the documentation: everybody can sign with it",
                    ],
                    |config| {
                        untouched_by_webhooks(config);
                        told(config, &["Security Operations Center"]);
                    },
                ),
            ),
            // Rate limiting.
            (111, Loads(&[], untouched_by_webhooks)),
            // Event filtering: what belongs to an endpoint, without the endpoint's name and address.
            (
                119,
                Refused(&[
                    "1: webhooks.endpoints.name: missing; write name = \"…\" for this endpoint",
                    "1: webhooks.endpoints.url: missing; write url = \"…\" for this endpoint",
                ]),
            ),
        ],
    ),
];

#[test]
fn every_block_of_the_documents_does_what_is_stated_here() {
    for (name, text, expected) in DOCUMENTS {
        let blocks = blocks(text);
        let found: Vec<usize> = blocks.iter().map(|(line, _)| *line).collect();
        let stated: Vec<usize> = expected.iter().map(|(line, _)| *line).collect();
        assert_eq!(found, stated, "{name}: a block is new, gone or elsewhere");
        for ((line, block), (_, expected)) in blocks.iter().zip(expected) {
            eprintln!("{name}:{line}");
            meets(block, expected);
        }
    }
}

fn meets(block: &str, expected: &Expected) {
    match expected {
        Loads(notes, effect) => {
            let config = good(block);
            assert_eq!(said(&config), *notes);
            effect(&config);
        }
        Under(header, messages, effect) => {
            assert_eq!(refusals(block), *messages);
            effect(&good(&format!("{header}\n{block}")));
        }
        Refused(messages) => assert_eq!(refusals(block), *messages),
    }
}

/// Each block between ```` ```toml ```` and ```` ``` ````, with the line of its fence.
fn blocks(document: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (at, line) in document.lines().enumerate() {
        match (inside, line.trim()) {
            (false, "```toml") => {
                blocks.push((at + 1, String::new()));
                inside = true;
            }
            (true, "```") => inside = false,
            (true, _) => {
                let (_, block) = blocks.last_mut().unwrap();
                *block += line;
                *block += "\n";
            }
            (false, _) => {}
        }
    }
    assert!(!inside, "a block is never closed");
    blocks
}

#[test]
fn blocks_are_found_by_their_fences() {
    let found = blocks("x\n```toml\na = 1\n\n```\n```bash\nb\n```\n  ```toml\n```\n");
    assert_eq!(found, [(2, "a = 1\n\n".to_owned()), (9, String::new())]);
}

#[test]
fn the_examples_give_what_their_titles_promise() {
    const STATED: [Example; 7] = [
        (
            "corporate.toml",
            &["line 21: webhooks.endpoints.secret is one of the documentation: everybody can sign with it"],
            |config| {
                corporate(config);
                told(config, &["Security Operations Center"]);
            },
        ),
        ("detection.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::DetectionOnly);
            preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
        }),
        ("development.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::DetectionOnly);
            preset(config, "custom", 20, 48, ["30m", "4h", "2d", "14d"]);
            attempts(
                config,
                [
                    (22, 20),
                    (80, 100),
                    (3306, 50),
                    (8000, 200),
                    (8080, 200),
                    (25, 50),
                ],
            );
            assert_eq!(config.engine.snapshot_every, Duration::from_secs(300));
        }),
        ("enterprise.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::DetectionOnly);
            preset(config, "custom", 15, 24, ["30m", "4h", "2d", "14d"]);
            attempts(config, [(80, 150), (443, 150), (22, 20), (8080, 200), (25, 50)]);
            assert_eq!(config.engine.snapshot_every, Duration::from_secs(300));
            trusts(
                config,
                &["10.200.1.1", "172.16.5.5"],
                &["172.32.0.1", "192.168.0.1"],
            );
        }),
        ("firewall.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::Firewall);
            assert_eq!(config.policy.tcp_allowed.to_string(), "22, 80, 443");
            assert_eq!(config.policy.udp_allowed.to_string(), "443");
            trusts(config, &["192.0.2.200"], &["198.51.100.1"]);
        }),
        ("small-office.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::DetectionOnly);
            preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
            attempts(config, [(80, 20), (443, 20), (22, 3), (8080, 10), (25, 10)]);
            trusts(
                config,
                &["192.168.1.1", "192.168.1.77"],
                &["192.168.2.1", "10.0.0.1"],
            );
        }),
        ("ssh-bastion.toml", &[], |config| {
            assert_eq!(config.policy.mode, Mode::Firewall);
            assert_eq!(config.policy.tcp_allowed.to_string(), "22");
            preset(config, "custom", 3, 2, ["10m", "2h", "1d", "7d"]);
            attempts(config, [(22, 20), (25, 10)]);
            let policy = &config.policy;
            assert_eq!(policy.stealth_threshold, 1);
            assert_eq!(policy.unproven_cap, Some(Duration::from_secs(86_400)));
            let distributed = &policy.distributed;
            assert_eq!(distributed.counting_of(22), Counting::NewSources);
            assert_eq!(distributed.counting_of(25), Counting::Incomplete);
            assert_eq!(distributed.known_after, Duration::from_secs(86_400));
            trusts(config, &["192.0.2.9"], &["198.51.100.1"]);
        }),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, STATED.map(|(name, _, _)| name));
    for (name, notes, effect) in STATED {
        eprintln!("{name}");
        let config = load(&folder.join(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said(&config), notes);
        assert!(config.policy.enforce);
        effect(&config);
    }
}

/// The mission's table of attempts per port, column by column: all ports it lists, and one that it does not.
const ATTEMPTS: [(&str, [(u16, u32); 8]); 3] = [
    (
        "aggressive",
        [
            (80, 1),
            (443, 1),
            (22, 2),
            (8000, 3),
            (8080, 3),
            (3306, 2),
            (5432, 2),
            (25, 5),
        ],
    ),
    (
        "standard",
        [
            (80, 2),
            (443, 2),
            (22, 3),
            (8000, 10),
            (8080, 10),
            (3306, 5),
            (5432, 5),
            (25, 10),
        ],
    ),
    (
        "lenient",
        [
            (80, 100),
            (443, 100),
            (22, 20),
            (8000, 200),
            (8080, 200),
            (3306, 50),
            (5432, 50),
            (25, 50),
        ],
    ),
];

#[test]
fn the_missions_thresholds_by_port_are_in_force_in_every_preset() {
    let mission = include_str!("data/mission_firewall_config.toml");
    for (mode, expected) in ATTEMPTS {
        let chosen = format!("mode = \"{mode}\"\n");
        let written = good(&mission.replacen("mode = \"standard\"\n", &chosen, 1));
        let built_in = good(&format!("[firewall]\n{chosen}"));
        let custom = good(&format!(
            "[firewall]\nmode = \"custom\"\n[custom]\nbase = \"{mode}\"\n"
        ));
        for config in [written, built_in, custom] {
            attempts(&config, expected);
            let distributed = &config.policy.distributed;
            assert_eq!(distributed.thresholds.ports.len(), 7, "{mode}");
            assert_eq!(distributed.counting, Counting::Incomplete);
            assert!(config.notes.iter().all(|note| !note.text.contains("not counted")));
        }
    }
}

/// `corporate` under its title: strict ports, the strictest preset, the corporate subnets trusted.
fn corporate(config: &Config) {
    web_and_ssh_only(config, Mode::Corporate);
    preset(config, "aggressive", 3, 1, ["5m", "1h", "12h", "3d"]);
    attempts(config, [(80, 1), (443, 1), (22, 2), (25, 5)]);
    assert_eq!(config.engine.snapshot_every, Duration::from_secs(30));
    trusts(config, &["192.168.5.5", "10.1.2.3"], &["172.16.0.1"]);
}

fn web_and_ssh_only(config: &Config, mode: Mode) {
    let policy = &config.policy;
    assert_eq!(policy.mode, mode);
    assert_eq!(policy.tcp_allowed.to_string(), "22, 80, 443");
    assert!(policy.udp_allowed.is_empty());
    assert!(policy.enforce && policy.mode.filters_ports());
}

/// A preset's name, its ports, its window in hours, its ladder.
#[track_caller]
fn preset(config: &Config, name: &str, ports: u32, hours: u64, ladder: [&str; 4]) {
    let policy = &config.policy;
    assert_eq!((&*policy.preset, policy.ports_threshold), (name, ports));
    assert_eq!(policy.udp_ports_threshold, 4 * ports);
    assert_eq!(policy.window, Duration::from_secs(hours * 3_600));
    let steps = ladder.map(|step| verdictd::config::parse_duration(step).unwrap());
    assert_eq!(policy.ladder.steps(), steps);
}

#[track_caller]
fn attempts<const N: usize>(config: &Config, expected: [(u16, u32); N]) {
    assert_eq!(
        expected.map(|(port, _)| (port, config.policy.distributed.thresholds.of(port))),
        expected
    );
}

#[track_caller]
fn trusts(config: &Config, yes: &[&str], no: &[&str]) {
    let trusted = |addr: &str| config.policy.trusted.contains(addr.parse().unwrap());
    assert!(yes.iter().all(|addr| trusted(addr)), "{yes:?}");
    assert!(!no.iter().any(|addr| trusted(addr)), "{no:?}");
}

/// Who is told, by name.
#[track_caller]
fn told(config: &Config, names: &[&str]) {
    let live: Vec<&str> = config
        .webhooks
        .live()
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    assert_eq!(live, names);
}

fn untouched_by_webhooks(config: &Config) {
    assert_eq!(config.policy.mode, Mode::DetectionOnly);
    preset(config, "standard", 7, 2, ["10m", "2h", "1d", "7d"]);
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text, Path::new("f.toml")).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refusals(text: &str) -> Vec<String> {
    let error = parse(text, Path::new("f.toml")).expect_err(text);
    let told = error.to_string();
    told.lines()
        .map(|line| line.strip_prefix("f.toml:").unwrap().to_owned())
        .collect()
}

fn said(config: &Config) -> Vec<String> {
    config.notes.iter().map(ToString::to_string).collect()
}
