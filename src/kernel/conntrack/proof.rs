//! Whether a handshake really finished: asked of TCP itself.
//!
//! Conntrack takes an ACK for the end of a handshake if its number lies within 66,000 of the right one
//! (MAXACKWINCONST), or whatever its number where `nf_conntrack_tcp_be_liberal` is set. A sender who never sees
//! our SYN+ACK gets there with 65,000 ACKs in a stranger's name, and with an option that TCP drops silently (an
//! MD5 signature that nobody asked for) without a RST that would give it away. TCP opens a socket only for the one
//! right number of four billion; so a socket past its handshake is the proof.

use std::net::IpAddr;

use super::Completed;
use super::ask::Answers;
use crate::kernel::netlink::{Builder, Netlink, NetlinkError};

/// What TCP says about a handshake that conntrack holds for finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// There is a socket, and its handshake is behind it: the client saw our SYN+ACK.
    Proven,
    /// The socket still waits for the end of the handshake. Either the ACK was forged, or the listener is one that
    /// opens with the first data (TCP_DEFER_ACCEPT), or its backlog is full: worth asking again.
    Opening,
    /// There is no such socket in this network namespace: the connection ended since, or it ends elsewhere (in a
    /// container, see [`Completed::is_translated`]; on a machine behind this one), or it never was.
    Absent,
}

/// A socket for questions about TCP sockets, in the network namespace of the thread that opened it.
pub struct Prover {
    netlink: Netlink,
    request: Builder,
}

impl Prover {
    /// The most questions that go in one datagram.
    pub const BATCH: usize = 128;

    /// Opens the socket; needs no capability.
    pub fn open() -> Result<Prover, NetlinkError> {
        Ok(Prover {
            netlink: Netlink::open(mnl::Bus::SockDiag)?,
            request: Builder::new(),
        })
    }

    /// What TCP says about each of `claims`, in their order, [`Prover::BATCH`] at a time.
    ///
    /// # Errors
    /// If an answer is missing, or the kernel has no inet_diag.
    pub fn standings(&mut self, claims: &[Completed]) -> Result<Vec<Standing>, NetlinkError> {
        let mut standings = Vec::with_capacity(claims.len());
        for claims in claims.chunks(Prover::BATCH) {
            self.batch(claims, &mut standings)?;
        }
        Ok(standings)
    }

    fn batch(&mut self, claims: &[Completed], standings: &mut Vec<Standing>) -> Result<(), NetlinkError> {
        let seqs = self.netlink.take_seqs(claims.len() as u32);
        self.request.clear();
        for (claim, seq) in claims.iter().zip(seqs.clone()) {
            self.request
                .raw(SOCK_DIAG_BY_FAMILY, libc::NLM_F_REQUEST, seq)
                .fixed(&question(claim));
        }
        let mut answers = Answers::new(seqs.start, claims.len());
        self.netlink
            .exchange(self.request.bytes(), |message| match message.error() {
                Some((0, _)) => {}
                Some((libc::ENOENT, _)) => answers.put(message.seq, |_| Standing::Absent),
                Some((errno, words)) => answers.refuse(message.seq, errno, words),
                None => answers.put(message.seq, |index| standing(&claims[index], message.payload)),
            })?;
        answers.finish(standings)
    }
}

/// struct inet_diag_req_v2 about one socket: family, protocol, extensions, padding, states, then its ports,
/// addresses, interface (any) and cookie (unknown).
fn question(claim: &Completed) -> [u8; INET_DIAG_REQ_V2] {
    let mut question = [0; INET_DIAG_REQ_V2];
    let family = if claim.client.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    question[0] = family as u8;
    question[1] = libc::IPPROTO_TCP as u8;
    question[4..8].fill(0xff);
    question[8..10].copy_from_slice(&claim.ends_at.port().to_be_bytes());
    question[10..12].copy_from_slice(&claim.client_port.to_be_bytes());
    put(&mut question[12..28], claim.ends_at.ip());
    put(&mut question[28..44], claim.client);
    question[48..56].fill(0xff);
    question
}

fn put(place: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => place[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => place.copy_from_slice(&v6.octets()),
    }
}

/// struct inet_diag_msg: family, state, timer, retransmissions, local port, remote port. Where there is no such
/// connection the kernel tells of the listener instead.
fn standing(claim: &Completed, socket: &[u8]) -> Standing {
    let remote = socket.get(6..).and_then(|rest| rest.first_chunk());
    if remote.map(|port| u16::from_be_bytes(*port)) != Some(claim.client_port) {
        return Standing::Absent;
    }
    match socket[1] {
        TCP_ESTABLISHED | TCP_FIN_WAIT1..=TCP_TIME_WAIT | TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING => {
            Standing::Proven
        }
        TCP_SYN_RECV | TCP_NEW_SYN_RECV => Standing::Opening,
        _ => Standing::Absent,
    }
}

// include/uapi/linux/sock_diag.h, inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_V2: usize = 56;
// include/net/tcp_states.h
const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_RECV: u8 = 3;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;
const TCP_NEW_SYN_RECV: u8 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Completed {
        Completed {
            client: "192.0.2.1".parse().unwrap(),
            client_port: 50_000,
            server: "198.51.100.1".parse().unwrap(),
            port: 443,
            ends_at: "198.51.100.1:443".parse().unwrap(),
        }
    }

    fn socket(state: u8, remote: u16) -> Vec<u8> {
        let [high, low] = remote.to_be_bytes();
        [
            &[libc::AF_INET as u8, state, 0, 0, 1, 187, high, low][..],
            &[0; 64],
        ]
        .concat()
    }

    #[test]
    fn only_a_socket_past_its_handshake_proves() {
        let of = |state| standing(&claim(), &socket(state, 50_000));
        for state in [1, 4, 5, 6, 8, 9, 11] {
            assert_eq!(of(state), Standing::Proven, "{state}");
        }
        for state in [3, 12] {
            assert_eq!(of(state), Standing::Opening, "{state}");
        }
        for state in [0, 2, 7, 10, 13, 255] {
            assert_eq!(of(state), Standing::Absent, "{state}");
        }
    }

    #[test]
    fn another_socket_and_a_cut_answer_prove_nothing() {
        assert_eq!(standing(&claim(), &socket(1, 0)), Standing::Absent);
        assert_eq!(standing(&claim(), &socket(1, 50_001)), Standing::Absent);
        for length in 0..8 {
            assert_eq!(standing(&claim(), &socket(1, 50_000)[..length]), Standing::Absent);
        }
    }
}
