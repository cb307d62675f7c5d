//! What engine and self-test tell each other. Field names are a contract.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::prefix::Prefix;

/// What a self-test has to know of the engine that it tries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelftestPlan {
    /// What is done with ports: `detection_only`, `firewall`, `corporate`.
    pub mode: String,
    /// The preset.
    pub preset: String,
    /// Whether offenders are banned.
    pub enforce: bool,
    /// Whether packets are held until they are judged; else copies of them are judged, and each passes.
    pub holds: bool,
    /// Distinct ports that are tolerated.
    pub threshold: u32,
    /// Whether ports that are not allowed are refused.
    pub filters: bool,
    /// Some of the TCP ports that are allowed, where others are refused.
    pub allowed: Vec<u16>,
    /// Interfaces whose packets are not judged, as the configuration names them.
    pub internal_interfaces: Vec<String>,
}

/// How far the engine is with the self-test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelftestState {
    /// Distinct ports that the worker of the source has counted; none: it does not answer. A ban empties the count.
    pub counted: Option<u32>,
    /// Whether the source is banned as far as the engine knows, and if so whether that is enforced.
    pub banned: Option<bool>,
    /// What the kernel said when it refused the ban.
    pub refused: Option<String>,
}

/// Whether `addr` is of the ranges of RFC 5737, which nobody on the Internet has. No other source may be tested, so
/// that no ban of anybody else can be hidden as one.
pub fn is_documentation(addr: IpAddr) -> bool {
    DOCUMENTATION
        .into_iter()
        .any(|range| documentation_range(range).contains(addr))
}

/// A range of [`DOCUMENTATION`] as a prefix.
pub fn documentation_range(first: Ipv4Addr) -> Prefix {
    Prefix::new(first.into(), 24).expect("24 is a length of IPv4 prefixes")
}

/// TEST-NET-1, -2 and -3 (RFC 5737), each a /24.
pub const DOCUMENTATION: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 0),
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(203, 0, 113, 0),
];
/// The engine ends a self-test by itself after so long.
pub const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documentation_is_tested() {
        for (addr, may) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("198.51.100.7", true),
            ("203.0.113.9", true),
            ("192.0.3.1", false),
            ("198.51.101.1", false),
            ("203.0.112.255", false),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
            ("::ffff:8.8.8.8", false),
        ] {
            assert_eq!(is_documentation(addr.parse().unwrap()), may, "{addr}");
        }
    }
}
