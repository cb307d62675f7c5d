//! The sockets of this host: who listens (what a port filter would close is said before it is closed), and which
//! TCP connections are open (whose SSH session a new policy would cut off).

use std::net::{IpAddr, SocketAddr};

use super::netlink::{Builder, Netlink, NetlinkError};
use crate::core::verdict::Proto;

/// A socket that strangers can reach: listening TCP, or UDP without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// TCP or UDP.
    pub proto: Proto,
    /// The local port.
    pub port: u16,
    /// The local address; unspecified: any. `::` usually takes IPv4 too.
    pub addr: IpAddr,
}

impl Listener {
    /// Whether only this host itself can reach it.
    pub fn is_loopback(&self) -> bool {
        self.addr.to_canonical().is_loopback()
    }
}

/// An established TCP connection, whoever opened it; addresses are IPv4 where IPv4 is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The end of this host.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The number by which `/proc/PID/fd` names the socket; 0: no process holds it.
    pub inode: u32,
}

/// The listeners of the calling thread's network namespace, in order, each once.
///
/// A UDP socket that a client bound to ask one question looks the same as a server's.
///
/// # Errors
/// If the kernel does not tell (no inet_diag in it).
pub fn listeners() -> Result<Vec<Listener>, NetlinkError> {
    let mut listeners: Vec<Listener> = held_listeners()?
        .into_iter()
        .map(|(listener, _)| listener)
        .collect();
    listeners.dedup();
    Ok(listeners)
}

/// As [`listeners`], each with the socket's inode; sockets that share a port are all there.
///
/// # Errors
/// As [`listeners`].
pub fn held_listeners() -> Result<Vec<(Listener, u32)>, NetlinkError> {
    let mut found = Vec::new();
    for (proto, states) in [(Proto::Tcp, TCP_LISTEN), (Proto::Udp, UDP_UNCONNECTED)] {
        found.extend(dump(proto, states)?.into_iter().map(|socket| {
            let (port, addr) = (socket.local.port(), socket.local.ip());
            (Listener { proto, port, addr }, socket.inode)
        }));
    }
    found.sort_unstable();
    Ok(found)
}

/// The established TCP connections of the calling thread's network namespace, in order.
///
/// # Errors
/// As [`listeners`].
pub fn connections() -> Result<Vec<Connection>, NetlinkError> {
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let mut found: Vec<Connection> = dump(Proto::Tcp, TCP_ESTABLISHED)?
        .into_iter()
        .map(|socket| Connection {
            local: canonical(socket.local),
            peer: canonical(socket.peer),
            inode: socket.inode,
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

fn dump(proto: Proto, states: u32) -> Result<Vec<Connection>, NetlinkError> {
    let mut netlink = Netlink::open(mnl::Bus::SockDiag)?;
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = request(netlink.take_seqs(1).start, family, proto, states);
        let asked = netlink.dump_whole(request.bytes(), |found: &mut Vec<_>, _, payload| {
            found.extend(read(payload));
        });
        match asked {
            Ok(found) => sockets.extend(found),
            // This family or protocol is not in this kernel: nobody speaks it.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// struct inet_diag_req_v2: family, protocol, extensions, padding, states, socket id (all zero: any).
fn request(seq: u32, family: i32, proto: Proto, states: u32) -> Builder {
    let protocol = match proto {
        Proto::Tcp => libc::IPPROTO_TCP,
        Proto::Udp => libc::IPPROTO_UDP,
    };
    let mut fixed = [0; INET_DIAG_REQ_V2];
    fixed[0] = family as u8;
    fixed[1] = protocol as u8;
    fixed[4..8].copy_from_slice(&states.to_ne_bytes());
    let mut request = Builder::new();
    request
        .raw(SOCK_DIAG_BY_FAMILY, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, seq)
        .fixed(&fixed);
    request
}

/// struct inet_diag_msg: family, state, timer, retransmissions, the socket id (ports, addresses, interface,
/// cookie), expiry, queues, owner, inode.
fn read(payload: &[u8]) -> Option<Connection> {
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(*payload.get(port..)?.first_chunk()?);
        let addr = match i32::from(*payload.first()?) {
            libc::AF_INET => IpAddr::from(*payload.get(address..)?.first_chunk::<4>()?),
            libc::AF_INET6 => IpAddr::from(*payload.get(address..)?.first_chunk::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(addr, port))
    };
    let local = end(4, 8)?;
    let peer = end(6, 24)?;
    let inode = u32::from_ne_bytes(*payload.get(INODE..)?.first_chunk()?);
    (local.port() != 0).then_some(Connection { local, peer, inode })
}

// include/uapi/linux/sock_diag.h, inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_V2: usize = 56;
/// Place of idiag_inode in struct inet_diag_msg.
const INODE: usize = 68;
/// Bits of include/net/tcp_states.h.
const TCP_ESTABLISHED: u32 = 1 << 1;
const TCP_LISTEN: u32 = 1 << 10;
/// Bit of TCP_CLOSE, the state of a UDP socket without a peer.
const UDP_UNCONNECTED: u32 = 1 << 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: i32, local: (u16, &[u8]), peer: (u16, &[u8]), inode: u32) -> Vec<u8> {
        let mut bytes = vec![0; 72];
        bytes[0] = family as u8;
        bytes[4..6].copy_from_slice(&local.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&peer.0.to_be_bytes());
        bytes[8..8 + local.1.len()].copy_from_slice(local.1);
        bytes[24..24 + peer.1.len()].copy_from_slice(peer.1);
        bytes[68..].copy_from_slice(&inode.to_ne_bytes());
        bytes
    }

    #[test]
    fn both_families_are_read() {
        let v4 = message(
            libc::AF_INET,
            (22, &[192, 0, 2, 1]),
            (50_000, &[198, 51, 100, 7]),
            99,
        );
        let expected = Connection {
            local: "192.0.2.1:22".parse().unwrap(),
            peer: "198.51.100.7:50000".parse().unwrap(),
            inode: 99,
        };
        assert_eq!(read(&v4), Some(expected));
        let mut loopback = [0; 16];
        loopback[15] = 1;
        let v6 = read(&message(libc::AF_INET6, (53, &loopback), (0, &[0; 16]), 7)).unwrap();
        assert_eq!(v6.local, "[::1]:53".parse().unwrap());
    }

    #[test]
    fn what_is_no_socket_is_left_out() {
        assert_eq!(read(&message(libc::AF_INET, (0, &[]), (0, &[]), 1)), None);
        assert_eq!(read(&message(libc::AF_UNIX, (53, &[]), (0, &[]), 1)), None);
        let whole = message(libc::AF_INET6, (53, &[1; 16]), (1, &[2; 16]), 1);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
    }
}
