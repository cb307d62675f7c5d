//! Whose session it is typed in: that must not be cut, and it proves nothing about who comes later.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::cli::span;
use crate::config::Config;
use crate::core::prefix::Prefix;
use crate::engine::lockout;
use crate::kernel::host::{self, Why};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::way_in::{Way, WayIn, way_in};

/// The way in of whoever types this would close: the TCP port that he came in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut(u16);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.0;
        write!(
            f,
            "you came in through TCP port {port}, which would be refused from now on: add {port} to allowed_ports.tcp, or \
             say --force if you have another way in"
        )
    }
}

/// What `new` would do to the way in of whoever types this, if it would close it.
pub(super) fn cut(old: &Config, new: &Config) -> Option<Cut> {
    let way = match way_in() {
        Ok(WayIn::Ssh(way)) => way,
        // A terminal that outlived its connection: the next one comes to the same port.
        Ok(WayIn::Gone(told)) => {
            return told_ends(&told).and_then(|(peer, port)| closed(old, new, peer, port));
        }
        Ok(WayIn::Local | WayIn::Window) | Err(_) => return None,
    };
    match way.is_of_this_host() {
        true => None,
        false => closed(old, new, way.peer.ip(), way.local.port()),
    }
}

fn closed(old: &Config, new: &Config, peer: IpAddr, port: u16) -> Option<Cut> {
    let closes = lockout::keeps_out(new, peer, port) && !lockout::keeps_out(old, peer, port);
    closes.then_some(Cut(port))
}

/// The first and the last of the four words of SSH_CONNECTION: who came, and to which port.
fn told_ends(told: &str) -> Option<(IpAddr, u16)> {
    let mut words = told.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.nth(2)?.parse().ok()?))
}

/// That whoever types this came in by what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Proof {
    /// Over no network.
    Local,
    /// He says so.
    Here,
    /// After the switch: from where, and through which TCP port.
    Ssh(IpAddr, u16),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Local => f.write_str("typed on this host itself, over no SSH connection"),
            Proof::Here => f.write_str("typed in a window of this host, as you say"),
            Proof::Ssh(peer, port) => write!(f, "{peer} came in through TCP port {port} after the switch"),
        }
    }
}

/// Why it is not proved.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NoProof {
    #[error("through which connection this was typed cannot be told: {0}")]
    Unknown(#[from] NetlinkError),
    #[error(
        "this terminal may be looked into from anywhere, by a web console or by a connection that is older than the \
         switch: {NEW}; or say --here if you sit in front of this host"
    )]
    Window,
    #[error(
        "this terminal was started in an SSH connection that is no longer there ({0}), so it proves nothing: {NEW}"
    )]
    Gone(String),
    #[error("this connection comes from the host itself, which no policy refuses: {NEW}")]
    OwnHost,
    #[error("this connection comes from {0} on an internal interface, where no filter holds: {NEW}")]
    Inside(IpAddr),
    #[error("this connection is older than the switch by {}, and goes on whatever the policy: {NEW}", span::spoken(.0.as_secs().max(1)))]
    Older(Duration),
    #[error("how old this connection is cannot be told: {NEW}")]
    Ageless,
}

/// Whether whoever types this came in after `since` (since boot). `here`: he says that he sits in front of it.
pub(in crate::cli) fn proof(since: Duration, config: Option<&Config>, here: bool) -> Result<Proof, NoProof> {
    let way = way_in()?;
    let inside = |way: &Way| config.is_some_and(|config| lockout::is_internal(way.peer.ip(), config));
    if here && matches!(way, WayIn::Window) {
        return Ok(Proof::Here);
    }
    judge(&way, since, &own_addresses(), inside)
}

fn judge(
    way: &WayIn,
    since: Duration,
    own: &[Prefix],
    inside: impl Fn(&Way) -> bool,
) -> Result<Proof, NoProof> {
    let way = match way {
        WayIn::Local => return Ok(Proof::Local),
        WayIn::Window => return Err(NoProof::Window),
        WayIn::Gone(told) => return Err(NoProof::Gone(told.clone())),
        WayIn::Ssh(way) => way,
    };
    let peer = way.peer.ip();
    if way.is_of_this_host() || own.iter().any(|own| own.contains(peer)) {
        return Err(NoProof::OwnHost);
    }
    if inside(way) {
        return Err(NoProof::Inside(peer));
    }
    match way.since {
        Some(taken) if taken > since => Ok(Proof::Ssh(peer, way.local.port())),
        Some(taken) => Err(NoProof::Older(since.saturating_sub(taken))),
        None => Err(NoProof::Ageless),
    }
}

fn own_addresses() -> Vec<Prefix> {
    let facts = host::gather().map(|facts| facts.protected).unwrap_or_default();
    let own = |(prefix, why): (Prefix, Why)| matches!(why, Why::OwnAddress { .. }).then_some(prefix);
    facts.into_iter().filter_map(own).collect()
}

/// What to do about it.
const NEW: &str = "open a NEW ssh connection (a new one, not one shared by ControlMaster) and type there: sudo verdictctl confirm";

#[cfg(test)]
mod tests {
    use super::*;

    /// Documentation (RFC 5737): on no network of this host.
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    fn ssh(peer: &str, since: Option<u64>) -> WayIn {
        WayIn::Ssh(Way {
            local: "192.0.2.1:2222".parse().unwrap(),
            peer: format!("{peer}:50000").parse().unwrap(),
            since: since.map(Duration::from_secs),
        })
    }

    fn judged(way: &WayIn) -> Result<String, String> {
        let own = [Prefix::host("192.0.2.77".parse().unwrap())];
        let inside = |way: &Way| way.peer.ip().to_string().starts_with("172.17.");
        let judged = judge(way, Duration::from_secs(100), &own, inside);
        judged
            .map(|proof| proof.to_string())
            .map_err(|why| why.to_string())
    }

    #[test]
    fn only_who_came_in_by_the_new_policy_proves_that_it_lets_in() {
        assert!(
            judged(&ssh("198.51.100.7", Some(101)))
                .unwrap()
                .contains("port 2222")
        );
        assert!(judged(&WayIn::Local).is_ok());
        for (way, why) in [
            (ssh("198.51.100.7", Some(99)), "older than the switch by 1s"),
            (ssh("198.51.100.7", Some(100)), "older than the switch"),
            (ssh("198.51.100.7", None), "cannot be told"),
            (ssh("192.0.2.1", Some(101)), "the host itself"),
            (ssh("192.0.2.77", Some(101)), "the host itself"),
            (ssh("127.0.0.1", Some(101)), "the host itself"),
            (ssh("172.17.0.2", Some(101)), "internal interface"),
            (
                WayIn::Gone("198.51.100.7 1 192.0.2.1 22".into()),
                "no longer there",
            ),
            (WayIn::Window, "--here"),
        ] {
            let refused = judged(&way).unwrap_err();
            assert!(
                refused.contains(why) && refused.contains("NEW ssh connection"),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_port_of_a_way_in_that_would_close_is_named() {
        let config = |text: &str| crate::config::parse(text, "f.toml".as_ref()).unwrap();
        let old = config("");
        let new = config("[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n");
        assert!(
            closed(&old, &new, PEER, 2222)
                .unwrap()
                .to_string()
                .contains("add 2222 to allowed_ports.tcp")
        );
        assert_eq!(closed(&old, &new, PEER, 22), None);
        assert_eq!(closed(&new, &new, PEER, 2222), None, "it is closed already");
        assert_eq!(told_ends("198.51.100.7 50000 192.0.2.1 2222"), Some((PEER, 2222)));
        assert_eq!(told_ends("x"), None);
    }
}
