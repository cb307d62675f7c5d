//! Who listens on this host: what a port filter would close is said before it is closed.

use std::net::IpAddr;

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

/// The listeners of the calling thread's network namespace, in order, each once.
///
/// A UDP socket that a client bound to ask one question looks the same as a server's.
///
/// # Errors
/// If the kernel does not tell (no inet_diag in it).
pub fn listeners() -> Result<Vec<Listener>, NetlinkError> {
    let mut netlink = Netlink::open(mnl::Bus::SockDiag)?;
    let mut listeners = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (proto, states) in [(Proto::Tcp, TCP_LISTEN), (Proto::Udp, UDP_UNCONNECTED)] {
            let request = request(netlink.take_seqs(1).start, family, proto, states);
            let asked = netlink.dump_whole(request.bytes(), |found: &mut Vec<_>, _, payload| {
                found.extend(read(proto, payload));
            });
            match asked {
                Ok(found) => listeners.extend(found),
                // This family or protocol is not in this kernel: nobody listens on it.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    listeners.sort_unstable();
    listeners.dedup();
    Ok(listeners)
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

/// struct inet_diag_msg: family, state, timer, retransmissions, then the socket id: ports, addresses, …
fn read(proto: Proto, payload: &[u8]) -> Option<Listener> {
    let port = u16::from_be_bytes(*payload.get(4..)?.first_chunk()?);
    let addr = match i32::from(*payload.first()?) {
        libc::AF_INET => IpAddr::from(*payload.get(8..)?.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(*payload.get(8..)?.first_chunk::<16>()?),
        _ => return None,
    };
    (port != 0).then_some(Listener { proto, port, addr })
}

// include/uapi/linux/sock_diag.h, inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_V2: usize = 56;
/// Bit of TCP_LISTEN (include/net/tcp_states.h).
const TCP_LISTEN: u32 = 1 << 10;
/// Bit of TCP_CLOSE, the state of a UDP socket without a peer.
const UDP_UNCONNECTED: u32 = 1 << 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: i32, port: u16, addr: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 72];
        bytes[0] = family as u8;
        bytes[4..6].copy_from_slice(&port.to_be_bytes());
        bytes[8..8 + addr.len()].copy_from_slice(addr);
        bytes
    }

    #[test]
    fn both_families_are_read() {
        let v4 = read(Proto::Tcp, &message(libc::AF_INET, 22, &[192, 0, 2, 1]));
        let (proto, port) = (Proto::Tcp, 22);
        let addr = "192.0.2.1".parse().unwrap();
        assert_eq!(v4, Some(Listener { proto, port, addr }));
        let mut loopback = [0; 16];
        loopback[15] = 1;
        let v6 = read(Proto::Udp, &message(libc::AF_INET6, 53, &loopback)).unwrap();
        assert!(v6.is_loopback());
        assert_eq!(v6.port, 53);
    }

    #[test]
    fn what_is_no_listener_is_left_out() {
        assert_eq!(read(Proto::Udp, &message(libc::AF_INET, 0, &[])), None);
        assert_eq!(read(Proto::Udp, &message(libc::AF_UNIX, 53, &[])), None);
        let whole = message(libc::AF_INET6, 53, &[1; 16]);
        for length in 0..24 {
            assert_eq!(read(Proto::Udp, &whole[..length]), None, "{length}");
        }
    }
}
