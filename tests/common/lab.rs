//! The networks of the tests: an attacker, the protected host, and where a test asks for it an honest client
//! and a third machine behind the host.
//!
//! ```text
//! attacker 10.77.0.1 fd77::1 ──── host 10.77.0.2 fd77::2
//! client   10.77.1.1 fd77:1::1 ── host 10.77.1.2 fd77:1::2
//! behind   10.77.2.1 fd77:2::1 ── host 10.77.2.2 fd77:2::2
//! ```
//! Every address of 10.88.0.0/16 is the attacker's too, and fd66::/64 is its own /64.
//! The host has no default route; its only gateway is 10.77.0.254 (fd77::fe) at the attacker's, from where nothing
//! scans (gateways are protected from bans).

use super::flow::pings;
use super::namespace::{Namespace, join};
use super::{secs, within};

/// The attacker's address.
pub(crate) const ATTACKER: &str = "10.77.0.1";
/// A second address of the attacker, in the same /24.
pub(crate) const NEIGHBOUR: &str = "10.77.0.9";
/// The protected host's address, from all sides.
pub(crate) const HOST: &str = "10.77.0.2";
/// The honest client's address.
pub(crate) const CLIENT: &str = "10.77.1.1";
/// The machine behind the host.
pub(crate) const BEHIND: &str = "10.77.2.1";
/// The attacker on the host's own IPv6 link.
pub(crate) const ATTACKER6_ON_LINK: &str = "fd77::1";
/// The attacker's neighbour on that link: another machine in the host's own /64.
pub(crate) const NEIGHBOUR6_ON_LINK: &str = "fd77::9";
/// The attacker on a /64 of its own.
pub(crate) const ATTACKER6: &str = "fd66::1";
/// A second address in that /64.
pub(crate) const ATTACKER6_TWIN: &str = "fd66::2";
/// The attacker's /64 as it is banned.
pub(crate) const ATTACKER6_NET: &str = "fd66::/64";
/// The protected host's IPv6 address.
pub(crate) const HOST6: &str = "fd77::2";

/// The namespaces of one test; gone when it is dropped, also by a panic.
pub(crate) struct Lab {
    /// Where probes come from.
    pub(crate) attacker: Namespace,
    /// Where the engine runs.
    pub(crate) host: Namespace,
    client: Option<Namespace>,
    behind: Option<Namespace>,
}

impl Lab {
    /// Attacker and host.
    pub(crate) fn new() -> Lab {
        let attacker = Namespace::new("attacker");
        let host = Namespace::new("host");
        let theirs = [
            "10.77.0.1/24",
            "10.77.0.9/24",
            // The way to the attacker's other networks: one neighbour entry for them all, since the kernel's
            // table of neighbours is shared by every namespace. As a gateway it is protected; nothing scans from it.
            "10.77.0.254/24",
            "fd77::1/64",
            "fd77::9/64",
            "fd77::fe/64",
            "fd66::1/64",
            "fd66::2/64",
        ];
        join(
            (&attacker, "lan0", &theirs),
            (&host, "lan0", &["10.77.0.2/24", "fd77::2/64"]),
        );
        host.ip(&["-6", "route", "add", "fd66::/64", "via", "fd77::fe"]);
        attacker.ip(&["route", "add", "local", "10.88.0.0/16", "dev", "lo"]);
        host.ip(&["route", "add", "10.88.0.0/16", "via", "10.77.0.254"]);
        // A new link carries IPv6 only when the kernel's link watch has seen its carrier, up to a second later.
        assert!(
            within(secs(10), || pings(&attacker, HOST6, 1)
                && pings(&attacker, HOST, 1)),
            "the link between attacker and host does not come up"
        );
        Lab {
            attacker,
            host,
            client: None,
            behind: None,
        }
    }

    /// Adds an honest client on a link of its own; it reaches the host under the same address.
    pub(crate) fn with_client(mut self) -> Lab {
        let client = Namespace::new("client");
        join(
            (&client, "lan1", &["10.77.1.1/24", "fd77:1::1/64"]),
            (&self.host, "lan1", &["10.77.1.2/24", "fd77:1::2/64"]),
        );
        client.ip(&["route", "add", "10.77.0.0/24", "via", "10.77.1.2"]);
        self.client = Some(client);
        self
    }

    /// Adds a machine behind the host, which forwards between it and the attacker.
    pub(crate) fn with_behind(mut self) -> Lab {
        let behind = Namespace::new("behind");
        join(
            (&behind, "lan2", &["10.77.2.1/24"]),
            (&self.host, "lan2", &["10.77.2.2/24"]),
        );
        behind.ip(&["route", "add", "default", "via", "10.77.2.2"]);
        self.attacker
            .ip(&["route", "add", "10.77.2.0/24", "via", "10.77.0.2"]);
        self.host.sysctl("net/ipv4/ip_forward", "1");
        self.behind = Some(behind);
        self
    }

    /// The honest client.
    pub(crate) fn client(&self) -> &Namespace {
        self.client.as_ref().expect("the lab was made with_client")
    }

    /// The machine behind the host.
    pub(crate) fn behind(&self) -> &Namespace {
        self.behind.as_ref().expect("the lab was made with_behind")
    }
}
