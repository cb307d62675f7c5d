//! Findings about who is served here: published ports, proxies in front, what a port filter would close.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::check::{closed_among, closing_lines};
use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::core::policy::{Mode, Policy};
use crate::core::ports::PortSet;
use crate::core::verdict::Proto;
use crate::engine::lockout;
use crate::kernel::facts::Facts;
use crate::kernel::facts::services::{Client, Service};
use crate::kernel::facts::tables::{Published, Tables};
use crate::kernel::sessions::Session;

/// All of them. Where the configuration filters no port yet, what a filter would do is told beforehand.
pub(super) fn judge(facts: &Facts, config: &Config, sessions: &[Session]) -> Vec<Finding> {
    let filters = config.policy.mode.filters_ports();
    let mut filtering = config.policy.clone();
    if !filters {
        filtering.mode = Mode::Firewall;
    }
    let mut findings = Vec::new();
    let services = facts.services.as_deref().unwrap_or_default();
    if let Ok(tables) = &facts.tables {
        findings.extend(published(tables, services, &filtering, filters));
    }
    match &facts.clients {
        Ok(clients) => findings.extend(in_front(&strangers(clients, facts, config), &config.policy)),
        Err(why) => findings.push(Finding::note(
            Code::Proxy,
            format!("who is connected is not known: {why}"),
            "run this again as root",
        )),
    }
    findings.push(match &facts.services {
        Ok(services) => {
            let closing = closed_among(services, &filtering, &facts.local_ports);
            listeners(closing_lines(&closing), filters)
        }
        Err(why) => Finding::note(
            Code::Listeners,
            format!("which listeners a port filter closes is not known: {why}"),
            "run this again as root",
        ),
    });
    findings.extend(ssh_port(services, &filtering, filters));
    let locked = lockout::locked_out(&filtering, sessions);
    findings.extend(
        locked
            .iter()
            .map(|words| ssh_session(words, filters, config.engine.allow_lockout)),
    );
    findings
}

fn published(tables: &Tables, services: &[Service], policy: &Policy, filters: bool) -> Option<Finding> {
    let proxied = services
        .iter()
        .filter(|service| !service.listener.is_loopback())
        .filter(|service| service.programs.iter().any(|name| is_port_proxy(name)));
    let mut all: BTreeSet<Published> = tables.published.iter().copied().collect();
    all.extend(proxied.map(|service| Published {
        proto: Some(service.listener.proto),
        ports: Some((service.listener.port, service.listener.port)),
    }));
    if all.is_empty() {
        return None;
    }
    let names = listed(all.iter().map(title), 8);
    let closed: Vec<String> = all
        .iter()
        .filter(|one| is_refused(one, policy))
        .map(title)
        .collect();
    let what = format!(
        "containers or other machines serve {names} through this host: bans and the port filter hold for them, since the \
         engine sees the client's own address before it is translated (programs inside may see a proxy's instead)"
    );
    if closed.is_empty() {
        return Some(Finding::fine(Code::Published, what));
    }
    let closed = listed(closed, 8);
    Some(match filters {
        true => Finding::act(
            Code::Published,
            format!("{what}; this configuration closes {closed}"),
            "add what is meant to be reached to [allowed_ports], or publish it on 127.0.0.1 alone",
        ),
        false => Finding::note(
            Code::Published,
            format!("{what}; firewall mode would close {closed}"),
            "add what is meant to be reached to [allowed_ports] before you switch",
        ),
    })
}

/// "tcp 8080", "udp 1-9", "ports of a set".
fn title(published: &Published) -> String {
    let proto = published
        .proto
        .map_or("port".to_owned(), |proto| proto.to_string());
    match published.ports {
        Some((first, last)) if first == last => format!("{proto} {first}"),
        Some((first, last)) => format!("{proto} {first}-{last}"),
        None => "ports that a rule does not name one by one".into(),
    }
}

fn is_refused(published: &Published, policy: &Policy) -> bool {
    let Some((first, last)) = published.ports else {
        return false; // unknown
    };
    let proto = published.proto.unwrap_or(Proto::Tcp);
    (first..=last).any(|port| policy.refuses(proto, port))
}

/// Programs that stand in for a container's port.
fn is_port_proxy(name: &str) -> bool {
    PORT_PROXIES.iter().any(|proxy| name.starts_with(proxy))
}

/// Connections of other machines, without administrators (SSH) and guests on internal interfaces.
fn strangers(clients: &[Client], facts: &Facts, config: &Config) -> Vec<IpAddr> {
    let services = facts.services.as_deref().unwrap_or_default().iter();
    let ssh: BTreeSet<u16> = services
        .filter(|one| is_ssh(one))
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

fn listeners(closing: Vec<String>, filters: bool) -> Finding {
    match (closing.is_empty(), filters) {
        (true, true) => Finding::fine(
            Code::Listeners,
            "no listener of this host is closed by this configuration",
        ),
        (true, false) => Finding::fine(
            Code::Listeners,
            "no listener of this host would be closed by firewall mode",
        ),
        (false, true) => Finding::note(
            Code::Listeners,
            format!("this configuration closes {} to strangers", listed(closing, 12)),
            "add what is meant to be reached to [allowed_ports]; the rest is as it should be",
        ),
        (false, false) => Finding::note(
            Code::Listeners,
            format!(
                "nothing is closed now; firewall mode would close {}",
                listed(closing, 12)
            ),
            "add what is meant to be reached to [allowed_ports] before you switch",
        ),
    }
}

fn is_ssh(service: &Service) -> bool {
    let daemon = service
        .programs
        .iter()
        .any(|name| name == "sshd" || name == "dropbear");
    // systemd holds the port of ssh.socket; without rights nobody is seen to hold it.
    let by_number =
        service.listener.port == SSH && (service.programs.is_empty() || service.programs.contains("systemd"));
    service.listener.proto == Proto::Tcp && !service.listener.is_loopback() && (daemon || by_number)
}

fn ssh_port(services: &[Service], policy: &Policy, filters: bool) -> Option<Finding> {
    let ports: PortSet = services
        .iter()
        .filter(|one| is_ssh(one))
        .map(|one| one.listener.port..=one.listener.port)
        .collect();
    if ports.is_empty() {
        return None;
    }
    let all = services
        .iter()
        .filter(|one| is_ssh(one))
        .map(|one| one.listener.port);
    let closed: BTreeSet<u16> = all.filter(|port| policy.refuses(Proto::Tcp, *port)).collect();
    if closed.is_empty() {
        return Some(Finding::fine(
            Code::SshPort,
            format!("SSH (port {ports}) is among the allowed ports"),
        ));
    }
    let closed = listed(closed, 4);
    Some(match filters {
        true => Finding::act(
            Code::SshPort,
            format!(
                "this configuration closes port {closed}, on which SSH listens: nobody could log in from outside any more"
            ),
            format!("add {closed} to tcp under [allowed_ports]"),
        ),
        false => Finding::note(
            Code::SshPort,
            format!("SSH listens on port {closed}, which firewall mode would close"),
            format!("add {closed} to tcp under [allowed_ports] before you switch"),
        ),
    })
}

fn ssh_session(words: &str, filters: bool, allowed: bool) -> Finding {
    let (what, remedy) = words
        .rsplit_once("; ")
        .unwrap_or((words, "add its port to [allowed_ports]"));
    match (filters, allowed) {
        (true, false) => Finding::act(
            Code::SshSession,
            format!("{what}: start and reload refuse this configuration"),
            remedy,
        ),
        (true, true) => Finding::note(Code::SshSession, format!("{what} (allow_lockout = true)"), remedy),
        (false, _) => Finding::note(Code::SshSession, format!("{what}, if you switch to it"), remedy),
    }
}

const SSH: u16 = 22;
/// As /proc names them, 15 bytes long at most: Docker, rootless Docker and Podman, and their networks.
const PORT_PROXIES: [&str; 5] = [
    "docker-proxy",
    "rootlessport",
    "rootlesskit",
    "slirp4netns",
    "pasta",
];
/// Fewer connections than this tell nothing of where strangers come from.
const ENOUGH: usize = 10;
const NEARLY_ALL_PERCENT: usize = 90;

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;
    use crate::kernel::sessions::How;
    use crate::kernel::sockets::Listener;

    const FIREWALL: &str = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [80]\n";

    fn service(port: u16, addr: &str, programs: &[&str]) -> Service {
        Service {
            listener: Listener {
                proto: Proto::Tcp,
                port,
                addr: addr.parse().unwrap(),
            },
            programs: programs.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn tcp(first: u16, last: u16) -> Published {
        Published {
            proto: Some(Proto::Tcp),
            ports: Some((first, last)),
        }
    }

    #[test]
    fn published_ports_are_told_with_what_becomes_of_them() {
        let judge = |published: Vec<Published>, services: &[Service], config: &str| {
            let tables = Tables {
                published,
                ..Tables::default()
            };
            let policy = sample::config(config).policy;
            let filters = policy.mode.filters_ports();
            self::published(&tables, services, &policy, filters)
        };
        assert_eq!(judge(vec![], &[service(80, "::", &["nginx"])], FIREWALL), None);
        let open = judge(vec![tcp(80, 80)], &[], FIREWALL).unwrap();
        assert_eq!(open.level, Level::Fine);
        let closed = judge(vec![tcp(80, 80), tcp(8080, 8090)], &[], FIREWALL).unwrap();
        assert_eq!(closed.level, Level::Act);
        assert!(
            closed.what.contains("serve tcp 80 and tcp 8080-8090 through"),
            "{closed:?}"
        );
        assert!(closed.what.ends_with("closes tcp 8080-8090"), "{closed:?}");
        let proxy = judge(vec![], &[service(81, "0.0.0.0", &["docker-proxy"])], FIREWALL).unwrap();
        assert!(proxy.what.ends_with("closes tcp 81"), "{proxy:?}");
        let local = judge(vec![], &[service(81, "127.0.0.1", &["docker-proxy"])], FIREWALL);
        assert_eq!(local, None);
        let unknown = Published {
            proto: None,
            ports: None,
        };
        assert_eq!(judge(vec![unknown], &[], FIREWALL).unwrap().level, Level::Fine);
    }

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
    fn the_port_of_ssh_stays_open() {
        let judge = |services: &[Service], config: &str| {
            let mut policy = sample::config(config).policy;
            let filters = policy.mode.filters_ports();
            policy.mode = Mode::Firewall;
            ssh_port(services, &policy, filters)
        };
        assert_eq!(judge(&[service(22, "127.0.0.1", &["sshd"])], FIREWALL), None);
        assert_eq!(judge(&[service(80, "::", &["nginx"])], FIREWALL), None);
        let shut = judge(&[service(2222, "::", &["sshd"])], FIREWALL).unwrap();
        assert_eq!(
            (shut.level, &*shut.remedy),
            (Level::Act, "add 2222 to tcp under [allowed_ports]")
        );
        let socket = judge(&[service(22, "::", &["systemd"])], FIREWALL).unwrap();
        assert_eq!(socket.level, Level::Act);
        let later = judge(&[service(22, "::", &["sshd"])], "").unwrap();
        assert_eq!(later.level, Level::Note);
        let open = judge(&[service(80, "::", &["sshd"])], FIREWALL).unwrap();
        assert_eq!(open.level, Level::Fine);
    }

    #[test]
    fn who_would_be_locked_out_is_named() {
        let session = Session {
            peer: "192.0.2.9".parse().unwrap(),
            local_port: 22,
            how: How::Utmp,
        };
        let judge = |config: &str| {
            let found = super::judge(
                &sample::facts(),
                &sample::config(config),
                std::slice::from_ref(&session),
            );
            sample::one(found, Code::SshSession)
        };
        let locked = judge(FIREWALL);
        assert_eq!(locked.level, Level::Act);
        assert!(
            locked.what.starts_with("192.0.2.9 is logged in") && locked.remedy.starts_with("add 22 to"),
            "{locked:?}"
        );
        assert_eq!(judge("").level, Level::Note);
        assert_eq!(
            judge(&format!("{FIREWALL}[engine]\nallow_lockout = true\n")).level,
            Level::Note
        );
    }

    #[test]
    fn what_a_filter_closes_is_told_before_it_does() {
        let mut facts = sample::facts();
        facts.services = Ok(vec![
            service(80, "::", &["nginx"]),
            service(3306, "::", &["mysqld"]),
        ]);
        let judge = |facts: &Facts, config: &str| {
            sample::one(super::judge(facts, &sample::config(config), &[]), Code::Listeners)
        };
        let now = judge(&facts, FIREWALL);
        assert_eq!(now.level, Level::Note);
        assert_eq!(
            now.what,
            "this configuration closes tcp 3306 on every address (mysqld) to strangers"
        );
        let later = judge(&facts, "[allowed_ports]\ntcp = [80]\n");
        assert!(
            later
                .what
                .starts_with("nothing is closed now; firewall mode would close tcp 3306 on"),
            "{later:?}"
        );
        facts.services = Ok(vec![service(80, "::", &["nginx"])]);
        assert_eq!(judge(&facts, FIREWALL).level, Level::Fine);
        facts.services = Err("no inet_diag".into());
        assert!(judge(&facts, FIREWALL).what.ends_with("not known: no inet_diag"));
        facts.clients = Err("no inet_diag".into());
        let found = super::judge(&facts, &sample::config(""), &[]);
        assert_eq!(sample::one(found, Code::Proxy).level, Level::Note);
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
    }
}
