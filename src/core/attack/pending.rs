//! Attempts whose time for a handshake is not over yet: who completes one takes his attempts out, the others are to
//! be asked about once it is.

use std::net::IpAddr;
use std::time::Instant;

use super::super::bounded::BoundedMap;
use super::super::prefix::Prefix;
use super::{Attempt, HANDSHAKE_LIMIT};

/// Attempts that wait, bounded.
///
/// What comes while it is full is not taken, and is counted: were the oldest to give way, a flood would push out
/// each attempt before its time, and nobody would be asked about at all. So of a flood a share is asked about, which
/// is enough to see it.
#[derive(Debug)]
pub struct Pending {
    attempts: BoundedMap<Flow, Attempt>,
    /// Sources that completed something lately, which their attempts of before did not know.
    arrived: BoundedMap<Prefix, ()>,
    v6_prefix: u8,
    left_out: u64,
}

/// Client and its port, server and its port.
type Flow = (IpAddr, u16, IpAddr, u16);

impl Pending {
    /// Room for `capacity` attempts; sources are IPv6 prefixes of this length.
    pub fn new(capacity: usize, v6_prefix: u8) -> Pending {
        Pending {
            attempts: BoundedMap::new(capacity),
            arrived: BoundedMap::new(capacity),
            v6_prefix,
            left_out: 0,
        }
    }

    /// Keeps an attempt. Of one flow the first counts: a retransmission does not put off the question.
    pub fn add(&mut self, attempt: Attempt) {
        let flow = flow(&attempt);
        if self.attempts.find(&flow).is_some() {
            return;
        }
        if self.attempts.len() >= self.attempts.capacity() {
            self.left_out += 1;
            return;
        }
        self.attempts.insert(flow, attempt, 0, attempt.at);
    }

    /// `client` completed a handshake from that port with that port of `server`. It is not asked about any more for
    /// what it began before.
    pub fn complete(&mut self, client: IpAddr, client_port: u16, server: IpAddr, port: u16, now: Instant) {
        self.attempts.remove(&(client, client_port, server, port));
        let source = self.source_of(client);
        self.arrived.insert(source, (), 0, now);
    }

    /// Takes out attempts whose time is over, `most` of them at most: those of sources that completed nothing since.
    pub fn due(&mut self, most: usize, now: Instant) -> Vec<Attempt> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((_, attempt)) = self.attempts.pop_idle(HANDSHAKE_LIMIT, now)
        {
            // Not `attempt.source`: that is narrower where the prefix holds someone protected.
            if self.arrived.find(&self.source_of(attempt.seen)).is_none() {
                due.push(attempt);
            }
        }
        self.arrived.expire(|_| 2 * HANDSHAKE_LIMIT, now, most);
        due
    }

    /// How many attempts wait.
    pub fn len(&self) -> usize {
        self.attempts.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// How many attempts found no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn source_of(&self, addr: IpAddr) -> Prefix {
        Prefix::source_of(addr, self.v6_prefix)
    }
}

fn flow(attempt: &Attempt) -> Flow {
    (attempt.seen, attempt.src_port, attempt.dst, attempt.port)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn attempt(seen: &str, src_port: u16, at: Instant) -> Attempt {
        let seen = seen.parse().unwrap();
        Attempt {
            seen,
            src_port,
            dst: "192.0.2.1".parse().unwrap(),
            port: 443,
            source: Prefix::host(seen),
            first_seen: at,
            proven: false,
            at,
        }
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    fn complete(pending: &mut Pending, attempt: &Attempt, now: Instant) {
        pending.complete(attempt.seen, attempt.src_port, attempt.dst, attempt.port, now);
    }

    #[test]
    fn who_did_not_come_within_ten_seconds_is_asked_about_once() {
        let (mut pending, start) = (Pending::new(16, 64), Instant::now());
        let lost = attempt("198.51.100.1", 1, start);
        pending.add(lost);
        pending.add(attempt("198.51.100.1", 1, after(start, 7000)));
        assert_eq!(pending.due(10, after(start, 9_999)), []);
        assert_eq!(pending.due(10, after(start, 10_000)), [lost]);
        assert_eq!(
            (pending.due(10, after(start, 99_000)), pending.is_empty()),
            (vec![], true)
        );
    }

    #[test]
    fn whoever_completes_one_is_not_asked_about_for_the_others() {
        let (mut pending, start) = (Pending::new(16, 64), Instant::now());
        let lost = attempt("198.51.100.1", 1, start);
        let came = attempt("198.51.100.1", 2, start);
        let other = attempt("198.51.100.2", 3, start);
        [lost, came, other].into_iter().for_each(|one| pending.add(one));
        complete(&mut pending, &came, after(start, 50));
        assert_eq!(pending.len(), 2);
        assert_eq!(pending.due(10, after(start, 10_000)), [other]);
    }

    #[test]
    fn a_neighbour_of_someone_protected_counts_as_having_come_too() {
        let (mut pending, start) = (Pending::new(16, 64), Instant::now());
        let lost = attempt("2001:db8::7", 1, start);
        assert_eq!(
            lost.source.len(),
            128,
            "narrower than the prefix that is its source elsewhere"
        );
        pending.add(lost);
        complete(&mut pending, &attempt("2001:db8::7", 2, start), after(start, 50));
        assert_eq!(pending.due(10, after(start, 10_000)), []);
    }

    #[test]
    fn of_a_flood_a_share_is_asked_about_every_ten_seconds() {
        let (mut pending, start) = (Pending::new(100, 64), Instant::now());
        let mut asked = [0; 4];
        for second in 0..40u64 {
            for n in 0..1000u32 {
                let at = after(start, second * 1000 + u64::from(n));
                asked[(second / 10) as usize] += pending.due(10, at).len();
                let seen = IpAddr::from((second as u32 * 1000 + n).to_be_bytes());
                pending.add(attempt(&seen.to_string(), 1, at));
            }
        }
        assert_eq!(asked, [0, 100, 100, 100]);
        assert_eq!((pending.len(), pending.left_out()), (100, 40_000 - 400));
    }
}
