//! Findings about ports: published ones, and what a port filter closes.

use std::collections::BTreeSet;

use super::closing::{closed_among, closing_lines};
use super::facts::Facts;
use super::finding::{Code, Finding, listed};
use crate::config::Config;
use crate::core::policy::{Mode, Policy};
use crate::core::ports::PortSet;
use crate::core::verdict::Proto;
use crate::engine::lockout;
use crate::kernel::facts::services::Service;
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
        .flat_map(|one| refused(one, policy))
        .map(|one| title(&one))
        .collect();
    let what = format!(
        "containers or other machines serve {names} through this host: bans and the port filter hold for them, since the \
         engine sees the client's own address before it is translated (programs inside may see a proxy's instead)"
    );
    if closed.is_empty() && all.iter().any(|one| one.ports.is_none()) {
        let remedy = "look which ports these are, and add what is meant to be reached to [allowed_ports]: nft list ruleset";
        return Some(Finding::note(Code::Published, what, remedy));
    }
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

/// The ports of it that `policy` refuses; none of those that are not known.
fn refused(published: &Published, policy: &Policy) -> Vec<Published> {
    let Some((first, last)) = published.ports else {
        return Vec::new();
    };
    let proto = published.proto.unwrap_or(Proto::Tcp);
    let mut runs: Vec<Published> = Vec::new();
    for port in (first..=last).filter(|port| policy.refuses(proto, *port)) {
        match runs.last_mut().and_then(|run| run.ports.as_mut()) {
            Some((_, end)) if *end + 1 == port => *end = port,
            _ => runs.push(Published {
                ports: Some((port, port)),
                ..*published
            }),
        }
    }
    runs
}

/// Programs that stand in for a container's port.
fn is_port_proxy(name: &str) -> bool {
    PORT_PROXIES.iter().any(|proxy| name.starts_with(proxy))
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

fn ssh_port(services: &[Service], policy: &Policy, filters: bool) -> Option<Finding> {
    let ports: PortSet = services
        .iter()
        .filter(|one| one.is_ssh())
        .map(|one| one.listener.port..=one.listener.port)
        .collect();
    if ports.is_empty() {
        return None;
    }
    let all = services
        .iter()
        .filter(|one| one.is_ssh())
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

/// As /proc names them, 15 bytes long at most: Docker, rootless Docker and Podman, and their networks.
const PORT_PROXIES: [&str; 5] = [
    "docker-proxy",
    "rootlessport",
    "rootlesskit",
    "slirp4netns",
    "pasta",
];

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample::{self, service};
    use super::*;
    use crate::kernel::sessions::How;

    const FIREWALL: &str = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [80]\n";

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
        let partly = judge(vec![tcp(79, 82)], &[], FIREWALL).unwrap();
        assert!(partly.what.ends_with("closes tcp 79 and tcp 81-82"), "{partly:?}");
        assert!(judge(vec![tcp(80, u16::MAX)], &[], FIREWALL).is_some());
        let proxy = judge(vec![], &[service(81, "0.0.0.0", &["docker-proxy"])], FIREWALL).unwrap();
        assert!(proxy.what.ends_with("closes tcp 81"), "{proxy:?}");
        let local = judge(vec![], &[service(81, "127.0.0.1", &["docker-proxy"])], FIREWALL);
        assert_eq!(local, None);
        let unknown = Published {
            proto: None,
            ports: None,
        };
        let unknown = judge(vec![unknown, tcp(80, 80)], &[], FIREWALL).unwrap();
        assert_eq!(unknown.level, Level::Note);
        assert!(unknown.remedy.starts_with("look which ports"), "{unknown:?}");
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
        facts.services = Err(sample::unknown("no inet_diag"));
        assert!(judge(&facts, FIREWALL).what.ends_with("not known: no inet_diag"));
    }
}
