//! `[trusted]`: who is never counted and never banned. Stands apart because a slip here switches the engine off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::document::Section;
use super::sections::home_but;
use super::units::{self, Fault, shown};
use crate::core::prefix::{Prefix, PrefixSet};

/// Reads the section.
pub(super) fn read(root: &mut Section<'_>) -> PrefixSet {
    let Some(mut section) = root.section("trusted") else {
        return PrefixSet::default();
    };
    let mut all = Vec::new();
    for key in ["ips", "networks"] {
        for network in networks(&mut section, key) {
            network.note(&section, key);
            all.push((key, network));
        }
    }
    refuse_everybody(&section, &all);
    section.finish(home_but("trusted"));
    all.into_iter().map(|(_, network)| network.prefix).collect()
}

struct Network {
    line: usize,
    prefix: Prefix,
    masked: bool,
    text: String,
}

fn networks(section: &mut Section<'_>, key: &'static str) -> Vec<Network> {
    let right = "write a list, as in [\"192.0.2.7\", \"198.51.100.0/24\"]";
    let read =
        |value: &DeValue<'_>| units::network(value).map(|(prefix, masked)| (prefix, masked, shown(value)));
    let given = section.list(key, right, read).map(|list| list.values);
    let network = |(line, (prefix, masked, text))| Network {
        line,
        prefix,
        masked,
        text,
    };
    given.unwrap_or_default().into_iter().map(network).collect()
}

impl Network {
    fn note(&self, section: &Section<'_>, key: &str) {
        let key = section.full(key);
        let Network {
            line, prefix, text, ..
        } = self;
        if self.masked {
            let masked = format!("{key}: {text} has host bits set; \"{prefix}\" is trusted");
            section.report().note(*line, &key, masked);
        }
        if self.is_wide() {
            let what = match prefix.is_ipv4() {
                true => format!("{} IPv4 addresses", 1u64 << (32 - prefix.len())),
                false => "more than anybody has been given".to_owned(),
            };
            let wide = format!("{key}: \"{prefix}\" is {what}; nobody in it is ever counted or banned");
            section.report().note(*line, &key, wide);
        }
    }

    /// Wider than anybody's own: no registry has given more than a /8, or a /16 of IPv6, to one owner. What is not
    /// handed out to anybody, as fc00::/7, may be as wide as it is.
    fn is_wide(&self) -> bool {
        let own = if self.prefix.is_ipv4() { 8 } else { 16 };
        self.prefix.len() < own
            && global(self.prefix.is_ipv4())
                .iter()
                .any(|part| part.overlaps(&self.prefix))
    }
}

/// Several networks that together hold every address that a stranger can have are a /0 in pieces.
fn refuse_everybody(section: &Section<'_>, all: &[(&str, Network)]) {
    for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
        let of_family = || all.iter().filter(|(_, network)| network.prefix.is_ipv4() == ipv4);
        let set: PrefixSet = of_family().map(|(_, network)| network.prefix).collect();
        let widest = of_family().min_by_key(|(_, network)| network.prefix.len());
        if let Some((key, network)) = widest.filter(|_| global(ipv4).iter().all(|part| held(&set, part))) {
            let wrong = format!("makes, with the others of the list, every {family} address trusted");
            let fault = Fault::new(network.text.clone(), wrong, "write the networks that are meant");
            section.report().problem(network.line, section.full(key), fault);
        }
    }
}

/// Whether every address of `part` is in `set`.
fn held(set: &PrefixSet, part: &Prefix) -> bool {
    if !set.overlaps(part) {
        return false;
    }
    let whole = set
        .matching(part.addr())
        .is_some_and(|holder| holder.covers(part));
    whole || halves(part).is_some_and(|halves| halves.iter().all(|half| held(set, half)))
}

fn halves(part: &Prefix) -> Option<[Prefix; 2]> {
    let len = part.len() + 1;
    let lower = Prefix::new(part.addr(), len).ok()?;
    let upper: IpAddr = match part.addr() {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() | 1 << (32 - len)).into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() | 1 << (128 - len)).into(),
    };
    Some([lower, Prefix::new(upper, len).ok()?])
}

/// What a stranger's address can be: unicast of IPv4 without 0/8 and 127/8 (RFC 6890), and of IPv6 what is handed
/// out (2000::/3, RFC 4291, section 2.4).
fn global(ipv4: bool) -> Vec<Prefix> {
    let net = |first| Prefix::new(Ipv4Addr::new(first, 0, 0, 0).into(), 8);
    let v4 = (1..=223).filter(|first| *first != 127).map(net);
    let v6 = Prefix::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3);
    match ipv4 {
        true => v4.filter_map(Result::ok).collect(),
        false => v6.into_iter().collect(),
    }
}
