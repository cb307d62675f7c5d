//! Where this host answers: what decides whether a stray ACK is a probe or the end of an honest connection.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::ports::PortSet;

/// TCP ports of this host that may have clients. Unless told otherwise, every port may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    known: Option<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    answering: PortSet,
    local: RangeInclusive<u16>,
    from: Instant,
}

impl Services {
    /// The ports that somebody listens on or completed a handshake with, and those from which the host's own
    /// connections start. What was open before the engine started at `started` is left alone for a while.
    pub fn new(answering: PortSet, local: RangeInclusive<u16>, started: Instant) -> Services {
        let from = started + SETTLING;
        let known = Some(Known {
            answering,
            local,
            from,
        });
        Services { known }
    }

    /// Whether this port is known to answer.
    pub fn answers(&self, port: u16) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.answering.contains(port))
    }

    /// Whether nobody who is honest can have a connection to this port at `now`.
    pub fn is_silent(&self, port: u16, now: Instant) -> bool {
        self.known.as_ref().is_some_and(|known| {
            now >= known.from && !known.answering.contains(port) && !known.local.contains(&port)
        })
    }
}

impl Default for Services {
    /// Nothing is known: every port may have clients.
    fn default() -> Services {
        Services { known: None }
    }
}

/// Connections that conntrack did not see beginning end meanwhile, or go on through the own-socket rule.
pub const SETTLING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_silent_only_when_nothing_speaks_for_it() {
        let start = Instant::now();
        let answering = [22, 80].into_iter().collect();
        let services = Services::new(answering, 32_768..=60_999, start);
        let later = start + SETTLING;
        assert!(!services.is_silent(23, later - Duration::from_millis(1)));
        assert!(services.is_silent(23, later));
        for port in [22, 80, 32_768, 60_999] {
            assert!(!services.is_silent(port, later), "{port}");
        }
        assert!(!Services::default().is_silent(23, later));
    }
}
