//! Specs to start from, and a namespace with a netlink socket in it.

use verdictd::core::policy::{OnLoss, OtherProtocols};
use verdictd::core::prefix::PrefixSet;
use verdictd::kernel::netlink::Netlink;
use verdictd::kernel::ruleset::{
    Applied, Backend, Layout, Loaded, Ruleset, RulesetError, Spec, apply, probe_backend, read,
};

use crate::common::namespace::Namespace;

/// Firewall mode: TCP 22, 80 and 443 and UDP 53 are open, 10.9.0.0/16 is trusted.
pub(crate) fn firewall() -> Spec {
    Spec {
        observing: false,
        filter_ports: true,
        layout: Layout {
            queue_base: 4100,
            log_base: 4100,
            workers: 2,
            seed: 0x5eed,
        },
        backend: Backend::Xt,
        on_loss: OnLoss::Open,
        trusted: networks(&["10.9.0.0/16", "2001:db8:9::/48"]),
        tcp_allowed: [22..=22, 80..=80, 443..=443].into_iter().collect(),
        udp_allowed: [53..=53].into_iter().collect(),
        other_protocols: OtherProtocols::Pass,
        internal_interfaces: vec!["docker0".into(), "br-*".into()],
        v6_prefix: 64,
        ban_set_size: 1 << 16,
        prefix_sets: Default::default(),
        ephemeral: (32768, 60999),
    }
}

/// `enforce = false`, no port filter.
pub(crate) fn observing() -> Spec {
    Spec {
        observing: true,
        filter_ports: false,
        ..firewall()
    }
}

/// `detection_only` that bans.
pub(crate) fn detection() -> Spec {
    Spec {
        filter_ports: false,
        ..firewall()
    }
}

pub(crate) fn networks(texts: &[&str]) -> PrefixSet {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// A namespace and a netlink socket in it.
pub(crate) struct Rig {
    pub(crate) ns: Namespace,
    pub(crate) netlink: Netlink,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let ns = Namespace::new("ruleset");
        let netlink = netlink(&ns);
        Rig { ns, netlink }
    }

    /// Loads what `spec` asks for, by the way this kernel has.
    pub(crate) fn apply(&mut self, spec: &Spec) -> Applied {
        self.try_apply(spec).expect("a table")
    }

    pub(crate) fn try_apply(&mut self, spec: &Spec) -> Result<Applied, RulesetError> {
        let backend = probe_backend(&mut self.netlink)?;
        let spec = Spec {
            backend,
            ..spec.clone()
        };
        apply(&mut self.netlink, &Ruleset::build(&spec))
    }

    pub(crate) fn read(&mut self) -> Loaded {
        read(&mut self.netlink).expect("an answer").expect("a table")
    }

    /// How the loaded table differs from what `spec` asks for.
    pub(crate) fn differences(&mut self, spec: &Spec) -> Vec<String> {
        let backend = probe_backend(&mut self.netlink).expect("a backend");
        let spec = Spec {
            backend,
            ..spec.clone()
        };
        self.read().differences(&Ruleset::build(&spec))
    }

    pub(crate) fn list(&self) -> String {
        self.ns.nft_list(&["list", "table", "inet", "verdictd"])
    }
}

pub(crate) fn netlink(ns: &Namespace) -> Netlink {
    ns.inside(|| Netlink::open(mnl::Bus::Netfilter))
        .expect("a netlink socket")
}
