//! A machine on which all is well, for tests to spoil.

use std::collections::BTreeSet;

use super::boot_files::Boot;
use super::facts::Facts;
use super::finding::{Code, Finding};
use crate::config::{self, Config};
use crate::core::verdict::Proto;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::facts::Unknown;
use crate::kernel::facts::held::Held;
use crate::kernel::facts::release::{Release, Version};
use crate::kernel::facts::services::Service;
use crate::kernel::facts::tables::{Base, Hook, Tables};
use crate::kernel::facts::trial::Trial;
use crate::kernel::ruleset::Backend;
use crate::kernel::sockets::Listener;

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

/// Something that could not be found out.
pub(super) fn unknown(why: &str) -> Unknown {
    std::io::Error::other(why).into()
}

/// A listener on TCP.
pub(super) fn service(port: u16, addr: &str, programs: &[&str]) -> Service {
    Service {
        listener: Listener {
            proto: Proto::Tcp,
            port,
            addr: addr.parse().expect("an address"),
        },
        programs: programs.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A chain that does nothing.
pub(super) fn base(hook: Hook, priority: i32) -> Base {
    Base {
        family: "ip",
        table: "filter".into(),
        chain: "INPUT".into(),
        hook,
        priority,
        drops: false,
        accepts: false,
        queues: BTreeSet::new(),
        programs: BTreeSet::new(),
    }
}
