//! Who really completed a handshake: what conntrack announces, each claim put before TCP at once, and again a
//! little later where TCP had not decided yet.
//!
//! What TCP no longer knows when it is first asked, or a moment later, is believed: a health check, or a client that
//! resets, is over within a millisecond. To forge that takes tens of thousands of ACKs for each handshake, and buys its sender
//! nothing: only that a stranger is dealt with more mildly.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::Completed;
use super::events::Completions;
use super::proof::{Prover, Standing};
use crate::kernel::netlink::NetlinkError;

/// A listener for completed handshakes that believes no claim without a proof.
pub struct Handshakes {
    completions: Completions,
    prover: Prover,
    claims: Vec<Completed>,
    waiting: Waiting,
}

/// On whose word a handshake counts as completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A socket of this host: nobody gets there blindly.
    Socket,
    /// Conntrack alone: the connection is over already, or its port is published elsewhere (a container's socket
    /// cannot be asked for). A blind sender gets there with 65,000 ACKs, all but one of which conntrack calls invalid.
    Conntrack,
}

/// What one [`Handshakes::serve`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Served {
    /// Announcements read.
    pub read: usize,
    /// Handshakes told.
    pub completed: u32,
    /// Claims given up: TCP never confirmed them.
    pub unproven: u32,
    /// Announcements are missing, or claims that were not decided found no room:
    /// [`completed_flows`](super::dump::completed_flows) and [`Handshakes::claim`] make up for it.
    pub lost: bool,
    /// More may be there: serve again before polling.
    pub more: bool,
}

/// Why handshakes cannot be listened to.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The listening socket.
    #[error("cannot listen to conntrack: {0}")]
    Listen(#[from] io::Error),
    /// The question to TCP.
    #[error("cannot ask for TCP sockets: {0}")]
    Ask(#[from] NetlinkError),
}

impl Handshakes {
    /// Listens from now on, in the network namespace of the calling thread; wakes nothing.
    pub fn open() -> Result<Handshakes, HandshakeError> {
        Ok(Handshakes {
            completions: Completions::open()?,
            prover: Prover::open()?,
            claims: Vec::new(),
            waiting: Waiting::default(),
        })
    }

    /// Adds claims from elsewhere (a dump), to be put before TCP by the next [`Handshakes::serve`].
    pub fn claim(&mut self, claims: impl IntoIterator<Item = Completed>) {
        self.claims.extend(claims);
    }

    /// Looks at a connection that nobody announced, in a moment: where conntrack sleeps TCP knows all the same. One that
    /// is over by then is not believed, for nobody said that it ever was one. False if there is no room.
    pub fn watch(&mut self, attempt: Completed, now: Instant) -> bool {
        self.waiting.put(now, ROUND_OF_WATCHED, attempt)
    }

    /// Hands what completed to `each`, at most once a connection, without waiting. Of what is announced only the
    /// `wanted` is looked at: conntrack follows what the host opens and forwards too.
    ///
    /// # Errors
    /// If TCP does not answer; the claims of this call are then gone.
    pub fn serve(
        &mut self,
        now: Instant,
        wanted: impl Fn(&Completed) -> bool,
        mut each: impl FnMut(Completed, Proof),
    ) -> Result<Served, HandshakeError> {
        let drained = self.completions.drain(|completed| self.claims.push(completed));
        let mut served = Served {
            read: drained.read,
            lost: drained.lost,
            more: drained.read >= Completions::MOST,
            ..Served::default()
        };
        let mut fresh = std::mem::take(&mut self.claims);
        fresh.retain(wanted);
        self.decide(now, 0, fresh, &mut served, &mut each)?;
        for round in 1..=PATIENCE.len() {
            let due = self.waiting.due(now, round);
            self.decide(now, round, due, &mut served, &mut each)?;
        }
        Ok(served)
    }

    /// When [`Handshakes::serve`] is to be called though nothing was announced.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.next()
    }

    /// Puts claims before TCP; `round` is how often that was done with them before.
    fn decide(
        &mut self,
        now: Instant,
        round: usize,
        claims: Vec<Completed>,
        served: &mut Served,
        each: &mut impl FnMut(Completed, Proof),
    ) -> Result<(), HandshakeError> {
        for (claim, standing) in claims.iter().zip(self.prover.standings(&claims)?) {
            let proof = match standing {
                Standing::Proven => Some(Proof::Socket),
                // Whoever was still opening for longer than a moment and is gone was never through.
                Standing::Absent if round < ROUND_OF_WATCHED || claim.is_translated() => {
                    Some(Proof::Conntrack)
                }
                Standing::Opening if round < PATIENCE.len() => {
                    served.lost |= !self.waiting.put(now, round + 1, *claim);
                    continue;
                }
                Standing::Opening | Standing::Absent => None,
            };
            match proof {
                Some(proof) => {
                    served.completed += 1;
                    each(*claim, proof);
                }
                None => served.unproven += 1,
            }
        }
        Ok(())
    }
}

impl AsFd for Handshakes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.completions.as_fd()
    }
}

/// Claims to be asked for again: a queue a round, each in order of time. When one is full nothing more is taken:
/// a claim that TCP has not decided is most likely forged, and those that wait longest are decided soonest.
#[derive(Debug, Default)]
struct Waiting([VecDeque<(Instant, Completed)>; PATIENCE.len()]);

impl Waiting {
    /// Keeps a claim until its next round; false if there is no room.
    fn put(&mut self, now: Instant, round: usize, claim: Completed) -> bool {
        let queue = &mut self.0[round - 1];
        let room = queue.len() < MOST_WAITING;
        if room {
            queue.push_back((now + PATIENCE[round - 1], claim));
        }
        room
    }

    /// What is to be asked for in this round.
    fn due(&mut self, now: Instant, round: usize) -> Vec<Completed> {
        let queue = &mut self.0[round - 1];
        let count = queue.iter().take_while(|(due, _)| *due <= now).count();
        queue.drain(..count).map(|(_, claim)| claim).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(|queue| Some(queue.front()?.0)).min()
    }
}

/// How long after one question the next. Conntrack announces the ACK before TCP sees it: asked on another processor
/// meanwhile, TCP still waits (of 26,000 short connections 8 were met so, and over a moment later). A listener that
/// opens with the first data (TCP_DEFER_ACCEPT, as nginx and Apache set it) has it within a round trip, a full backlog
/// drains within seconds.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// The first round that is not a moment after the announcement.
const ROUND_OF_WATCHED: usize = 2;
/// A second of 10,000 forged completions, which cost their sender 650 million packets.
const MOST_WAITING: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(port: u16) -> Completed {
        Completed {
            client: "192.0.2.1".parse().unwrap(),
            client_port: port,
            server: "198.51.100.1".parse().unwrap(),
            port: 443,
            ends_at: "198.51.100.1:443".parse().unwrap(),
        }
    }

    #[test]
    fn each_round_comes_in_its_time() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(waiting.next(), None);
        assert!(waiting.put(start, 3, claim(2)));
        assert!(waiting.put(start, 2, claim(1)));
        assert!(waiting.put(after(1), 2, claim(3)));
        assert_eq!(waiting.next(), Some(after(1)));
        assert_eq!(waiting.due(start, 2), []);
        assert_eq!(waiting.due(after(1), 2), [claim(1)]);
        assert_eq!(waiting.due(after(4), 3), []);
        assert_eq!(waiting.next(), Some(after(2)));
        assert_eq!(waiting.due(after(9), 2), [claim(3)]);
        assert_eq!(waiting.due(after(9), 3), [claim(2)]);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        assert!((0..MOST_WAITING).all(|n| waiting.put(now, 1, claim(n as u16))));
        assert!(!waiting.put(now, 1, claim(1)));
        assert!(waiting.put(now, 2, claim(1)), "each round has its own room");
    }
}
