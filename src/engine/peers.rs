//! Who is protected for administering this host by SSH, over time: those who are logged in, and those who were until
//! a moment ago.
//!
//! The end of a session is no reason to forget at once who it was. A connection that breaks (bad wifi, a suspended
//! laptop, a reboot) is followed by the next attempt, and whoever scans in this name in between would lock the
//! administrator out, for a week on the last step. So a peer stays protected for ten minutes more. It fails open: for
//! that long an address that passed on to somebody else may probe without a ban; it is counted meanwhile, and what
//! it does after that is judged with what it did.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::core::prefix::Prefix;
use crate::kernel::host::Why;
use crate::kernel::sessions::How;
use crate::kernel::ssh_peers::Peer;

/// The peers of SSH sessions, 32 at most. Lost at a restart, but for the sessions that are open then.
#[derive(Debug, Default)]
pub struct Peers {
    known: BTreeMap<IpAddr, Known>,
    /// Said once, not at every look.
    crowded: bool,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Present(How),
    /// Protected until then.
    Gone(Instant),
}

impl Peers {
    /// These are logged in at `now`, and nobody else is. Of too many those who were known before stay, so that
    /// nobody's login ends the protection of another.
    pub fn see(&mut self, peers: &[Peer], now: Instant) {
        let present: BTreeMap<IpAddr, How> = peers.iter().map(|peer| (peer.addr, peer.how)).collect();
        for (addr, known) in &mut self.known {
            match (present.get(addr), *known) {
                (Some(how), _) => *known = Known::Present(*how),
                (None, Known::Present(_)) => *known = Known::Gone(now + GRACE),
                (None, Known::Gone(_)) => {}
            }
        }
        let left_out = present
            .iter()
            .filter(|(addr, how)| !self.admit(**addr, **how))
            .count();
        if left_out > 0 && !self.crowded {
            warn!(
                "SSH sessions come from more than {MOST_PEERS} addresses: {left_out} of them are not protected from bans"
            );
        }
        self.crowded = left_out > 0;
    }

    /// Forgets those who have been gone for long enough.
    pub fn expire(&mut self, now: Instant) {
        self.known
            .retain(|_, known| !matches!(known, Known::Gone(until) if *until <= now));
    }

    /// When the next one is to be forgotten.
    pub fn next_end(&self) -> Option<Instant> {
        self.known.values().filter_map(Known::end).min()
    }

    /// Each with its reason, in order.
    pub fn reasons(&self) -> impl Iterator<Item = (Prefix, Why)> {
        self.known.iter().map(|(addr, known)| {
            let why = match known {
                Known::Present(how) => Why::SshPeer { how: *how },
                Known::Gone(_) => Why::FormerSshPeer,
            };
            (Prefix::host(*addr), why)
        })
    }

    /// Whether there is room for `addr`; who left first makes some.
    fn admit(&mut self, addr: IpAddr, how: How) -> bool {
        if !self.known.contains_key(&addr) && self.known.len() >= MOST_PEERS {
            let gone = self
                .known
                .iter()
                .filter_map(|(addr, known)| Some((known.end()?, *addr)));
            let Some((_, first)) = gone.min() else {
                return false;
            };
            self.known.remove(&first);
        }
        self.known.insert(addr, Known::Present(how));
        true
    }
}

impl Known {
    fn end(&self) -> Option<Instant> {
        match self {
            Known::Present(_) => None,
            Known::Gone(until) => Some(*until),
        }
    }
}

/// Nobody administers a host from more places at once; who could make more could fill a table.
const MOST_PEERS: usize = 32;
/// Longer than it takes to come back after a broken connection, shorter than addresses take to change hands.
/// [`Why::FormerSshPeer`] names it.
const GRACE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(last: impl IntoIterator<Item = u8>) -> Vec<Peer> {
        let how = How::Utmp;
        let peer = |last| Peer {
            addr: [192, 0, 2, last].into(),
            how,
        };
        last.into_iter().map(peer).collect()
    }

    /// The last bytes of those who are protected, and whether they are there.
    fn told(peers: &Peers) -> Vec<(u8, bool)> {
        let last = |prefix: Prefix| match prefix.addr() {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(_) => 0,
        };
        peers
            .reasons()
            .map(|(prefix, why)| (last(prefix), why != Why::FormerSshPeer))
            .collect()
    }

    #[test]
    fn who_logs_out_is_protected_for_ten_minutes_more() {
        let (mut known, start) = (Peers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        known.see(&peers([1, 2]), at(0));
        assert_eq!(
            (told(&known), known.next_end()),
            (vec![(1, true), (2, true)], None)
        );
        known.see(&peers([2]), at(100));
        known.see(&peers([2]), at(130));
        assert_eq!(told(&known), [(1, false), (2, true)]);
        assert_eq!(known.next_end(), Some(at(700)));
        known.expire(at(699));
        assert_eq!(told(&known).len(), 2);
        known.expire(at(700));
        assert_eq!((told(&known), known.next_end()), (vec![(2, true)], None));
    }

    #[test]
    fn who_comes_back_is_there_again() {
        let (mut known, now) = (Peers::default(), Instant::now());
        known.see(&peers([1]), now);
        known.see(&[], now);
        known.see(&peers([1]), now + Duration::from_secs(599));
        known.expire(now + Duration::from_secs(9_999));
        assert_eq!(told(&known), [(1, true)]);
    }

    #[test]
    fn of_too_many_the_first_stay_and_the_gone_make_room() {
        let (mut known, now) = (Peers::default(), Instant::now());
        known.see(&peers(100..132), now);
        known.see(&peers(0..132), now);
        assert_eq!(
            told(&known),
            (100..132).map(|last| (last, true)).collect::<Vec<_>>()
        );
        known.see(&peers(101..132), now);
        assert_eq!(told(&known)[0], (100, false));
        known.see(&peers([99].into_iter().chain(101..132)), now);
        assert_eq!((told(&known).len(), told(&known)[0]), (32, (99, true)));
        assert_eq!(told(&known)[1], (101, true));
    }
}
