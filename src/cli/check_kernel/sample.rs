//! A machine on which all is well, for tests to spoil.

use super::finding::{Code, Finding};
use crate::config::{self, Config};
use crate::kernel::conntrack::Conntrack;
use crate::kernel::facts::Facts;
use crate::kernel::facts::boot::Boot;
use crate::kernel::facts::held::Held;
use crate::kernel::facts::release::{Release, Version};
use crate::kernel::facts::tables::Tables;
use crate::kernel::facts::trial::Trial;
use crate::kernel::ruleset::Backend;

pub(super) fn facts() -> Facts {
    Facts {
        root: true,
        release: Some(Release {
            version: Version(6, 1, 140),
            name: "6.1.0-37-amd64".into(),
            vendor: Some("Debian"),
        }),
        trial: Trial {
            not_apart: None,
            forbidden: false,
            backend: Ok(Backend::Native),
            packet: Some(Ok(())),
            table: Some(Ok(())),
            log: Ok(()),
            socket: Ok(()),
            owner: Ok(true),
            queue_conntrack: Some(Ok(true)),
            refresh: Some(Ok(true)),
        },
        conntrack: Some(Conntrack {
            max: 262_144,
            flows: 10,
            sockets: 20,
        }),
        events: Some(2),
        loose: Some(1),
        held: Held {
            queues: Some(Vec::new()),
            groups: Some(Vec::new()),
            listeners: Some(Vec::new()),
        },
        ours: Ok(None),
        tables: Ok(Tables::default()),
        boot: Boot::default(),
        networks: Vec::new(),
        local_ports: 32_768..=60_999,
        services: Ok(Vec::new()),
        clients: Ok(Vec::new()),
    }
}

pub(super) fn config(text: &str) -> Config {
    config::parse(text, "f.toml".as_ref()).expect("a good configuration")
}

/// The only finding with this code.
pub(super) fn one(findings: Vec<Finding>, code: Code) -> Finding {
    let mut found: Vec<Finding> = findings
        .into_iter()
        .filter(|finding| finding.code == code)
        .collect();
    assert_eq!(found.len(), 1, "{code:?}: {found:?}");
    found.remove(0)
}
