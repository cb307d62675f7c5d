//! What runs is what is written: the table loaded by netlink and the text loaded by nft list the same.
//!
//! nft cannot load `queue` on a kernel without nft_queue, and our own table has the xt target there. So the
//! text is loaded with a mark in the place of each `queue`, and both listings are brought back to its words.
//! `tests/vm/run` compares the two as they are, on a kernel that has it.

use std::fs;
use std::path::Path;

use verdictd::config;
use verdictd::core::policy::{OnLoss, OtherProtocols};
use verdictd::core::ports::PortSet;
use verdictd::kernel::ruleset::{Backend, Family, Layout, Ruleset, Spec};

use crate::common::engine::is_beat;
use crate::common::namespace::Namespace;
use crate::rig::{Rig, detection, firewall, networks, observing};

#[test]
fn every_shape_lists_as_its_text_does() {
    for (what, spec) in shapes() {
        let mut rig = Rig::new();
        rig.apply(&spec);
        let loaded = Namespace::new("text");
        loaded.nft(&with_marks(&Ruleset::build(&spec).text()));

        let ours = in_words(&rig.list());
        let theirs = in_words(&loaded.nft_list(&["list", "table", "inet", "verdictd"]));
        assert!(!ours.is_empty(), "{what}");
        assert_eq!(ours, theirs, "{what}");
        assert_eq!(bytecode(&rig.ns), bytecode(&loaded), "{what}");
    }
}

#[test]
fn applied_twice_lists_the_same() {
    for (what, spec) in shapes() {
        let mut rig = Rig::new();
        assert!(rig.apply(&spec).created, "{what}");
        let once = in_words(&rig.list());
        let again = rig.apply(&spec);
        assert_eq!(once, in_words(&rig.list()), "{what}");
        assert!(
            !again.created && again.kept.is_empty() && again.adopted.is_empty(),
            "{what}: {again:?}"
        );
    }
}

#[test]
fn observing_knows_no_conntrack_and_no_queue() {
    let text = Ruleset::build(&observing()).text();
    let rules: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    for word in ["ct ", "queue flags", "queue to", "socket"] {
        let found: Vec<_> = rules.iter().filter(|rule| rule.contains(word)).collect();
        assert!(found.is_empty(), "{word}: {found:?}");
    }
}

#[test]
fn everything_carries_a_comment() {
    for (what, spec) in shapes() {
        let text = Ruleset::build(&spec).text();
        let things = text.split("\n\n").skip(1);
        for thing in things {
            assert!(thing.contains("comment \""), "{what}: {thing}");
            if thing.trim_start().starts_with("chain") {
                let bare = thing
                    .lines()
                    .filter(|line| line.starts_with("\t\t") && !line.contains(" comment \""));
                let bare: Vec<_> = bare
                    .filter(|line| {
                        !line.trim_start().starts_with("comment") && !line.contains("policy accept")
                    })
                    .collect();
                assert!(bare.is_empty(), "{what}: {bare:?}");
            }
            for line in thing
                .lines()
                .filter(|line| line.contains(" drop ") && line.contains("@banned"))
            {
                assert!(line.contains("counter"), "{what}: {line}");
            }
        }
    }
}

#[test]
fn the_text_in_nft_is_that_of_the_example_config() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = config::load(&root.join("config/examples/firewall.toml")).expect("the example");
    let spec = Spec {
        backend: Backend::Native,
        on_loss: config.engine.on_loss,
        trusted: config.policy.trusted.clone(),
        tcp_allowed: config.policy.tcp_allowed.clone(),
        udp_allowed: config.policy.udp_allowed.clone(),
        other_protocols: config.policy.other_protocols,
        internal_interfaces: config
            .engine
            .internal_interfaces
            .iter()
            .map(ToString::to_string)
            .collect(),
        v6_prefix: config.policy.v6_prefix,
        ban_set_size: config.engine.ban_set_size,
        ..firewall()
    };
    let made = Ruleset::build(&spec).text();
    let path = root.join("nft/verdictd.nft");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if made != kept {
        let fresh = std::env::temp_dir().join("verdictd.nft");
        fs::write(&fresh, &made).expect("a file in the temporary folder");
        panic!(
            "nft/verdictd.nft is not what the engine makes; if that is meant: cp {} nft/",
            fresh.display()
        );
    }
}

fn shapes() -> Vec<(&'static str, Spec)> {
    let lengths = |v6_prefix, sets: &[(Family, u8)]| Spec {
        v6_prefix,
        prefix_sets: sets.iter().copied().collect(),
        ..firewall()
    };
    let workers = |workers, seed| Spec {
        layout: Layout {
            workers,
            seed,
            ..firewall().layout
        },
        ..firewall()
    };
    let v4 = [
        (Family::V4, 0),
        (Family::V4, 8),
        (Family::V4, 23),
        (Family::V4, 24),
    ];
    let v6 = [(Family::V6, 32), (Family::V6, 48), (Family::V6, 128)];
    vec![
        ("firewall", firewall()),
        ("detection", detection()),
        ("observing", observing()),
        ("prefixes of IPv4", lengths(64, &v4)),
        ("prefixes of IPv6", lengths(64, &v6)),
        ("sources are /56", lengths(56, &[])),
        ("sources are /128", lengths(128, &[(Family::V4, 24)])),
        ("sources are /3", lengths(3, &[])),
        ("one worker", workers(1, 0)),
        ("many workers", workers(17, u32::MAX)),
        (
            "closed",
            Spec {
                on_loss: OnLoss::Closed,
                other_protocols: OtherProtocols::Drop,
                ..firewall()
            },
        ),
        (
            "empty",
            Spec {
                trusted: networks(&[]),
                tcp_allowed: PortSet::default(),
                udp_allowed: PortSet::default(),
                internal_interfaces: Vec::new(),
                ..firewall()
            },
        ),
        (
            "to the ends",
            Spec {
                trusted: networks(&[
                    "0.0.0.0/5",
                    "224.0.0.0/3",
                    "192.0.2.1",
                    "192.0.2.2",
                    "::/1",
                    "ff00::/8",
                ]),
                tcp_allowed: [0..=22, 65535..=65535].into_iter().collect(),
                udp_allowed: std::iter::once(0..=65535).collect(),
                ephemeral: (1024, 65535),
                ..firewall()
            },
        ),
        (
            "observing, everything",
            Spec {
                v6_prefix: 48,
                prefix_sets: [(Family::V4, 24)].into(),
                layout: Layout {
                    workers: 3,
                    ..observing().layout
                },
                ..observing()
            },
        ),
    ]
}

/// Marks stand for queues where the kernel has none: its number, and whether it is to be bypassed.
const BYPASS: u32 = 1 << 16;

pub(crate) fn with_marks(text: &str) -> String {
    let line = |line: &str| -> String {
        let mark = |words: &str, flag: u32| {
            let (before, rest) = line.split_once(words)?;
            let (number, rest) = rest.split_once(' ')?;
            let number: u32 = number.parse().ok()?;
            Some(format!("{before}meta mark set {} {rest}", number | flag))
        };
        mark("queue flags bypass to ", BYPASS)
            .or_else(|| mark("queue to ", 0))
            .unwrap_or_else(|| line.into())
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn in_words(listing: &str) -> String {
    let line = |line: &str| -> String {
        let queue = |bypass: bool, number: u32, rest: &str| {
            let flags = if bypass {
                "queue flags bypass to"
            } else {
                "queue to"
            };
            format!("\t\t{flags} {number} {rest}")
        };
        if let Some((_, rest)) = line.split_once("queue num ") {
            let (number, rest) = rest.split_once(' ').expect("a comment");
            let number = number.parse().expect("a number");
            match rest.strip_prefix("bypass ") {
                Some(rest) => queue(true, number, rest),
                None => queue(false, number, rest),
            }
        } else if let Some((_, rest)) = line.split_once("meta mark set 0x") {
            let (number, rest) = rest.split_once(' ').expect("a comment");
            let mark = u32::from_str_radix(number, 16).expect("a number");
            queue(mark & BYPASS != 0, mark & 0xffff, rest)
        } else {
            line.into()
        }
    };
    let lines = listing
        .lines()
        .filter(|line| !line.starts_with('#') && !is_beat(line));
    lines.map(|text| line(text) + "\n").collect()
}

/// The kernel's expressions of every rule but those that queue.
fn bytecode(ns: &Namespace) -> Vec<String> {
    let listing = ns.nft_list(&["--debug=netlink", "list", "table", "inet", "verdictd"]);
    let mut rules = Vec::new();
    let mut chain = String::new();
    for line in listing.lines() {
        if let Some(rest) = line.strip_prefix("inet verdictd ") {
            chain = rest.split(' ').next().expect("a chain").into();
        }
        let queues = chain.starts_with(['q', 'i']) && chain[1..].parse::<u16>().is_ok();
        if line.starts_with("  [ ") && !queues {
            rules.push(format!("{chain}: {}", line.trim()));
        }
    }
    assert!(rules.len() > 20, "{listing}");
    rules
}
