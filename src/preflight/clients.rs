//! Findings about who is served here: whether strangers can be told apart, or a proxy stands before them all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::Facts;
use super::finding::{Code, Finding};
use crate::config::Config;
use crate::core::policy::Policy;
use crate::engine::lockout;
use crate::kernel::facts::services::Client;

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    match &facts.clients {
        Ok(clients) => in_front(&strangers(clients, facts, config), &config.policy),
        Err(why) => vec![Finding::note(
            Code::Proxy,
            format!("who is connected is not known: {why}"),
            "run this again as root",
        )],
    }
}

/// Connections of other machines, without administrators (SSH) and guests on internal interfaces.
fn strangers(clients: &[Client], facts: &Facts, config: &Config) -> Vec<IpAddr> {
    let services = facts.services.as_deref().unwrap_or_default().iter();
    let ssh: BTreeSet<u16> = services
        .filter(|one| one.is_ssh())
        .map(|one| one.listener.port)
        .collect();
    let guest = |addr| lockout::is_guest(addr, &facts.networks, &config.engine.internal_interfaces);
    let strange = clients
        .iter()
        .filter(|one| !ssh.contains(&one.port) && !guest(one.addr));
    strange.map(|one| one.addr).collect()
}

/// What all come from one address or a trusted one would mean.
fn in_front(strangers: &[IpAddr], policy: &Policy) -> Vec<Finding> {
    let total = strangers.len();
    if total < ENOUGH {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let trusted = strangers
        .iter()
        .filter(|addr| policy.trusted.contains(**addr))
        .count();
    if nearly_all(trusted, total) {
        findings.push(Finding::act(
            Code::Trusted,
            format!(
                "{trusted} of {total} connections come from trusted addresses, which are neither counted nor banned: behind a \
                 proxy or load balancer the engine then protects from nobody"
            ),
            "if strangers come through that address, let the proxy or the service behind it ban (the engine does not read the \
             proxy protocol or X-Forwarded-For), or run the engine on the proxy; if all are yours, it is as it should be",
        ));
        return findings;
    }
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    strangers
        .iter()
        .for_each(|addr| *counts.entry(*addr).or_default() += 1);
    let busiest = counts.into_iter().max_by_key(|(_, count)| *count);
    if let Some((addr, count)) = busiest.filter(|(_, count)| nearly_all(*count, total)) {
        // Not to act on: one stranger who holds connections open looks the same, and must not be trusted for it.
        findings.push(Finding::note(
            Code::Proxy,
            format!(
                "{count} of {total} connections come from {addr}: if it is a proxy or load balancer of yours, the real clients \
                 are not seen behind it, and a ban would shut them all out"
            ),
            format!(
                "only if you know it as your own: add \"{addr}\" to ips under [trusted], and run the engine on the proxy itself \
                 to ban strangers (the proxy protocol and X-Forwarded-For are not read here); else it is one client that holds \
                 connections"
            ),
        ));
    } else {
        let what = format!("{total} connections come from many addresses: no proxy is in front of this host");
        findings.push(Finding::fine(Code::Proxy, what));
    }
    findings
}

fn nearly_all(part: usize, total: usize) -> bool {
    part * 100 >= total * NEARLY_ALL_PERCENT
}

/// Fewer connections than this tell nothing of where strangers come from.
const ENOUGH: usize = 10;
const NEARLY_ALL_PERCENT: usize = 90;

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample::{self, service};
    use super::*;

    fn many(addr: &str, count: usize) -> Vec<IpAddr> {
        vec![addr.parse().unwrap(); count]
    }

    #[test]
    fn one_address_before_all_others_is_a_proxy() {
        let policy = sample::config("[trusted]\nips = [\"192.0.2.0/24\"]\n").policy;
        assert_eq!(in_front(&many("198.51.100.1", 9), &policy), [], "too few to tell");
        let proxy = in_front(&many("198.51.100.1", 10), &policy);
        assert_eq!((proxy[0].code, proxy[0].level), (Code::Proxy, Level::Note));
        assert!(
            proxy[0]
                .remedy
                .contains("only if you know it as your own: add \"198.51.100.1\" to ips under [trusted]"),
            "{proxy:?}"
        );
        let mut mixed = many("198.51.100.1", 89);
        mixed.extend((0..11).map(|last| IpAddr::from([203, 0, 113, last])));
        assert_eq!(in_front(&mixed, &policy)[0].level, Level::Fine);
        mixed.truncate(95);
        assert_eq!(in_front(&mixed, &policy)[0].level, Level::Note);
    }

    #[test]
    fn trusting_nearly_everybody_is_told() {
        let policy = sample::config("[trusted]\nips = [\"192.0.2.0/24\"]\n").policy;
        let mut all: Vec<IpAddr> = (0..19).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        all.extend(many("203.0.113.9", 1));
        let found = in_front(&all, &policy);
        assert_eq!((found[0].code, found[0].level), (Code::Trusted, Level::Act));
        assert!(
            found[0]
                .what
                .starts_with("19 of 20 connections come from trusted"),
            "{found:?}"
        );
    }

    #[test]
    fn administrators_and_guests_are_no_strangers() {
        let mut facts = sample::facts();
        facts.services = Ok(vec![service(22, "::", &["sshd"]), service(80, "::", &["nginx"])]);
        facts.networks = vec![("10.1.0.0/16".parse().unwrap(), "virbr0".into())];
        let client = |addr: &str, port| Client {
            addr: addr.parse().unwrap(),
            port,
        };
        let clients = [
            client("192.0.2.1", 22),
            client("10.1.2.3", 80),
            client("192.0.2.2", 80),
        ];
        let left = strangers(&clients, &facts, &sample::config(""));
        assert_eq!(left, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        facts.clients = Err(sample::unknown("no inet_diag"));
        let found = judge(&facts, &sample::config(""));
        assert_eq!(sample::one(found, Code::Proxy).level, Level::Note);
    }
}
