//! The packets of the self-test as bytes: a SYN, and the RST that takes it back.

use std::net::SocketAddrV4;

use etherparse::{IpNumber, Ipv4Header, TcpHeader};

use crate::core::probe::{self, Transport};

/// What the host answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SYN+ACK: somebody listens.
    Open,
    /// RST: nobody does.
    Closed,
}

/// A first packet of a connection from `client` to `server`.
pub(super) fn syn(client: SocketAddrV4, server: SocketAddrV4, seq: u32) -> Vec<u8> {
    let mut header = TcpHeader::new(client.port(), server.port(), seq, WINDOW);
    header.syn = true;
    packet(client, server, header)
}

/// The end of a connection that was answered, so that the host keeps nothing of it.
pub(super) fn rst(client: SocketAddrV4, server: SocketAddrV4, seq: u32) -> Vec<u8> {
    let mut header = TcpHeader::new(client.port(), server.port(), seq, 0);
    header.rst = true;
    packet(client, server, header)
}

fn packet(client: SocketAddrV4, server: SocketAddrV4, mut tcp: TcpHeader) -> Vec<u8> {
    let (src, dst) = (client.ip().octets(), server.ip().octets());
    let length = tcp.header_len() as u16;
    let mut ip = Ipv4Header::new(length, TTL, IpNumber::TCP, src, dst).expect("20 bytes fit an IPv4 packet");
    ip.dont_fragment = true;
    ip.header_checksum = ip.calc_header_checksum();
    tcp.checksum = tcp
        .calc_checksum_ipv4(&ip, &[])
        .expect("20 bytes fit an IPv4 packet");
    [&ip.to_bytes()[..], &tcp.to_bytes()[..]].concat()
}

/// Who is answered from where, if `bytes` are an answer to a SYN.
pub(super) fn read_answer(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, Kind)> {
    let probe = probe::parse(bytes).ok()?;
    let Transport::Tcp {
        sport, dport, flags, ..
    } = probe.transport
    else {
        return None;
    };
    let (std::net::IpAddr::V4(server), std::net::IpAddr::V4(client)) = (probe.src, probe.dst) else {
        return None;
    };
    let kind = match flags.0 & (SYN | RST | ACK) {
        both if both == SYN | ACK => Kind::Open,
        reset if reset & RST != 0 => Kind::Closed,
        _ => return None,
    };
    Some((
        SocketAddrV4::new(client, dport),
        SocketAddrV4::new(server, sport),
        kind,
    ))
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// As a Linux client's.
const TTL: u8 = 64;
const WINDOW: u16 = 64_240;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (SocketAddrV4, SocketAddrV4) {
        (
            "192.0.2.2:40000".parse().unwrap(),
            "192.0.2.1:80".parse().unwrap(),
        )
    }

    #[test]
    fn the_engine_reads_what_is_sent() {
        let (client, server) = ends();
        let bytes = syn(client, server, 7);
        assert_eq!(bytes.len(), 40);
        let probe = probe::parse(&bytes).unwrap();
        assert_eq!(probe.src, std::net::IpAddr::from(*client.ip()));
        assert_eq!(probe.evidence().map(|(_, port)| port), Some(80));
        assert!(matches!(probe.transport, Transport::Tcp { seq: 7, .. }));
        let (ip, tcp) = bytes.split_at(20);
        assert_eq!(sum(ip), 0xffff, "the IP header's checksum");
        let pseudo = [&ip[12..20], &[0, 6, 0, 20], tcp].concat();
        assert_eq!(sum(&pseudo), 0xffff, "the TCP checksum");
    }

    #[test]
    fn answers_are_told_from_all_else() {
        let (client, server) = ends();
        // What a server would send is what a client sends, the other way round.
        let answer = |flags: u8| {
            let mut bytes = syn(server, client, 1);
            bytes[33] = flags;
            read_answer(&bytes)
        };
        assert_eq!(answer(SYN | ACK), Some((client, server, Kind::Open)));
        assert_eq!(answer(RST | ACK), Some((client, server, Kind::Closed)));
        assert_eq!(answer(RST), Some((client, server, Kind::Closed)));
        assert_eq!((answer(SYN), answer(ACK)), (None, None));
        assert_eq!(read_answer(&[0x45, 0, 0]), None);
        assert_eq!(read_answer(&[]), None);
    }

    /// RFC 1071.
    fn sum(bytes: &[u8]) -> u32 {
        let words = bytes
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        (sum & 0xffff) + (sum >> 16)
    }
}
