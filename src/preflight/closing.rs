//! The listeners of this host that a policy closes, with the programs behind them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::core::policy::Policy;
use crate::core::verdict::Proto;
use crate::engine::lockout;
use crate::kernel::facts::services::Service;
use crate::kernel::sockets::Listener;
use crate::notify::text::plain;

/// A listener that closes, in words when shown: "tcp 3306 on every address (mysqld)".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Where it listens.
    pub listener: Listener,
    /// The programs that hold it, as far as they can be seen, and what else to know; fit for a terminal.
    pub names: BTreeSet<String>,
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { proto, port, addr } = self.listener;
        write!(f, "{proto} {port} on {}", place(addr))?;
        if self.names.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        write!(f, " ({})", names.join(", "))
    }
}

/// Those of `services` that `policy` closes.
pub fn closed_among(
    services: &[Service],
    policy: &Policy,
    local_ports: &RangeInclusive<u16>,
) -> Vec<Closing> {
    let closed = services
        .iter()
        .filter(|service| lockout::closes(policy, &service.listener, local_ports));
    closed
        .map(|Service { listener, programs }| {
            let mut names: BTreeSet<String> = programs.iter().map(|name| plain(name)).collect();
            if listener.proto == Proto::Udp && local_ports.contains(&listener.port) {
                names.insert("perhaps only a client: answers to it pass".into());
            }
            Closing {
                listener: *listener,
                names,
            }
        })
        .collect()
}

/// Each of them in words.
pub fn closing_lines(closing: &[Closing]) -> Vec<String> {
    closing.iter().map(Closing::to_string).collect()
}

fn place(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(v4) if v4.is_unspecified() => "every IPv4 address".into(),
        IpAddr::V6(v6) if v6.is_unspecified() => "every address".into(),
        addr => addr.to_canonical().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_in_words() {
        let closing = |proto, port, addr: &str, names: &[&str]| Closing {
            listener: Listener {
                proto,
                port,
                addr: addr.parse().unwrap(),
            },
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(
            closing_lines(&[
                closing(Proto::Tcp, 3306, "::", &["mysqld"]),
                closing(Proto::Tcp, 25, "0.0.0.0", &[]),
                closing(Proto::Udp, 53, "::ffff:192.0.2.1", &["a", "b"]),
            ]),
            [
                "tcp 3306 on every address (mysqld)",
                "tcp 25 on every IPv4 address",
                "udp 53 on 192.0.2.1 (a, b)",
            ]
        );
    }
}
