//! What a policy would shut that is in use now: the port of somebody's SSH session, the listeners of this host. Said
//! before it is done.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use thiserror::Error;
use tracing::warn;

use crate::config::{Config, InterfaceName};
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::verdict::Proto;
use crate::kernel::host;
use crate::kernel::sessions::{self, Session};
use crate::kernel::sockets::Listener;

/// A policy that is not put into force: it would refuse the ports of these SSH sessions, one sentence each.
#[derive(Debug, Error)]
#[error("nothing was changed: {}", .0.join("; "))]
pub struct Lockout(pub Vec<String>);

/// Refuses a configuration that would lock out who is logged in by SSH and whom the `running` one does not refuse,
/// unless that is meant.
pub fn spare_sessions(config: &Config, running: Option<&Config>) -> Result<(), Lockout> {
    let locked = newly_locked_out(config, running);
    if config.engine.allow_lockout || locked.is_empty() {
        locked.iter().for_each(|who| warn!("allow_lockout = true: {who}"));
        return Ok(());
    }
    Err(Lockout(locked))
}

/// Each SSH session whose port `config` would refuse and the `running` one does not, in words as [`locked_out`] has them.
pub fn newly_locked_out(config: &Config, running: Option<&Config>) -> Vec<String> {
    let mut sessions = filtered_sessions(config);
    sessions.retain(|session| !running.is_some_and(|old| keeps_out(old, session.peer, session.local_port)));
    locked_out(&config.policy, &sessions)
}

/// Whether `config` refuses `peer` at that TCP port: not on internal interfaces, which another configuration may name
/// otherwise.
pub fn keeps_out(config: &Config, peer: IpAddr, port: u16) -> bool {
    config.policy.refuses(Proto::Tcp, port) && !peer.is_loopback() && !is_internal(peer, config)
}

/// The SSH sessions that a port filter concerns: all but those of guests, which come in on internal interfaces.
pub fn filtered_sessions(config: &Config) -> Vec<Session> {
    let mut sessions = sessions::ssh_sessions();
    if !sessions.is_empty() {
        // Unknown networks are nobody's: rather one session too many is spared.
        let networks = host::networks().unwrap_or_default();
        sessions.retain(|session| !is_guest(session.peer, &networks, &config.engine.internal_interfaces));
    }
    sessions
}

/// Whether what comes from `peer` comes in on an internal interface, where no filter holds.
pub fn is_internal(peer: IpAddr, config: &Config) -> bool {
    let networks = host::networks().unwrap_or_default();
    is_guest(peer, &networks, &config.engine.internal_interfaces)
}

/// Whether `peer` lives on a network of an internal interface; of several networks the closest counts.
pub fn is_guest(peer: IpAddr, networks: &[(Prefix, String)], internal: &[InterfaceName]) -> bool {
    let around = networks.iter().filter(|(network, _)| network.contains(peer));
    let closest = around.max_by_key(|(network, _)| network.len());
    closest.is_some_and(|(_, interface)| internal.iter().any(|name| name.matches(interface)))
}

/// Each session whose port `policy` would refuse, in words that say what to write; empty: nobody is locked out.
///
/// An open session goes on, whatever the policy; what would be refused is its next connection.
pub fn locked_out(policy: &Policy, sessions: &[Session]) -> Vec<String> {
    sessions
        .iter()
        .filter(|session| refuses(policy, session))
        .map(|Session { peer, local_port, how }| {
            format!(
                "{peer} is logged in through TCP port {local_port} ({how}), which mode \"{}\" would refuse from now on; \
                 add {local_port} to allowed_ports.tcp, or write allow_lockout = true under [engine]",
                policy.mode
            )
        })
        .collect()
}

fn refuses(policy: &Policy, session: &Session) -> bool {
    policy.refuses(Proto::Tcp, session.local_port) && !session.peer.is_loopback()
}

/// Whether strangers can reach `listener` now and could not under `policy`. `local_ports`: where the host's own
/// connections start.
pub fn closes(policy: &Policy, listener: &Listener, local_ports: &RangeInclusive<u16>) -> bool {
    let port = listener.port;
    if !policy.refuses(listener.proto, port) || listener.is_loopback() {
        return false;
    }
    match listener.proto {
        Proto::Tcp => true,
        Proto::Udp => {
            // The table lets pass what goes to a socket that is bound to one address in that range, and DHCP answers.
            let own = local_ports.contains(&port) && !listener.addr.is_unspecified();
            !own && !DHCP_CLIENTS.contains(&port)
        }
    }
}

/// Ports at which DHCP clients get their answers (RFC 2131, RFC 8415).
const DHCP_CLIENTS: [u16; 2] = [68, 546];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::kernel::sessions::How;

    fn policy(mode: &str) -> Policy {
        let text = format!("[firewall]\nfirewall_mode = \"{mode}\"\n[allowed_ports]\ntcp = [22]\nudp = [53]");
        config::parse(&text, Path::new("f.toml")).unwrap().policy
    }

    fn session(peer: &str, local_port: u16) -> Session {
        let (peer, how) = (peer.parse().unwrap(), How::Utmp);
        Session {
            peer,
            local_port,
            how,
        }
    }

    #[test]
    fn only_a_refused_port_locks_out() {
        let sessions = [
            session("192.0.2.9", 22),
            session("2001:db8::9", 2222),
            session("127.0.0.1", 2222),
        ];
        assert_eq!(locked_out(&policy("detection_only"), &sessions), [""; 0]);
        assert_eq!(
            locked_out(&policy("firewall"), &sessions),
            [
                "2001:db8::9 is logged in through TCP port 2222 (SSH session listed in utmp), which mode \"firewall\" \
                 would refuse from now on; add 2222 to allowed_ports.tcp, or write allow_lockout = true under [engine]"
            ]
        );
    }

    #[test]
    fn guests_on_internal_networks_are_not_locked_out() {
        let config = config::parse("", Path::new("f.toml")).unwrap();
        let networks = [
            ("10.0.0.0/8", "eth0"),
            ("10.1.0.0/16", "virbr0"),
            ("192.0.2.0/24", "br-lan"),
        ]
        .map(|(text, name)| (Prefix::parse(text).unwrap().0, name.to_owned()));
        let guest = |peer: &str| {
            is_guest(
                peer.parse().unwrap(),
                &networks,
                &config.engine.internal_interfaces,
            )
        };
        assert!(guest("10.1.2.3") && guest("192.0.2.9"));
        assert!(!guest("10.2.2.3") && !guest("198.51.100.1"));
    }

    #[test]
    fn listeners_close_by_protocol_port_and_reach() {
        let firewall = policy("firewall");
        let closed = |proto, port, addr: &str| {
            let addr = addr.parse().unwrap();
            closes(&firewall, &Listener { proto, port, addr }, &(32768..=60999))
        };
        for (proto, port, addr, expected) in [
            (Proto::Tcp, 22, "::", false),
            (Proto::Tcp, 23, "::", true),
            (Proto::Tcp, 53, "0.0.0.0", true),
            (Proto::Tcp, 23, "127.0.0.1", false),
            (Proto::Tcp, 23, "::ffff:127.0.0.1", false),
            (Proto::Tcp, 40000, "192.0.2.1", true),
            (Proto::Udp, 53, "0.0.0.0", false),
            (Proto::Udp, 22, "0.0.0.0", true),
            (Proto::Udp, 68, "0.0.0.0", false),
            (Proto::Udp, 40000, "192.0.2.1", false),
            (Proto::Udp, 40000, "::", true),
        ] {
            assert_eq!(closed(proto, port, addr), expected, "{proto} {port} {addr}");
        }
        let (proto, port, addr) = (Proto::Tcp, 23, "::".parse().unwrap());
        let telnet = Listener { proto, port, addr };
        assert!(!closes(&policy("detection_only"), &telnet, &(32768..=60999)));
    }
}
