//! Bytes to [`Probe`]: addresses, ports, flags. Total on any bytes, no allocation.
//!
//! It stands alone because it is the only part of the core that reads what strangers write byte by byte.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, UdpHeaderSlice, ip_number,
};
use thiserror::Error;

use super::scan::{ScanKind, TRACEROUTE_PORTS, classify};
use super::verdict::Proto;

/// What the engine knows about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who sent it, or claims to.
    pub src: IpAddr,
    /// Whom it is for.
    pub dst: IpAddr,
    /// What it carries.
    pub transport: Transport,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP; the options are not read.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// The flag byte.
        flags: TcpFlags,
        /// Sequence number; of a SYN the initial one, which tells a retransmission from a new attempt.
        seq: u32,
    },
    /// UDP.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// A first fragment of TCP that ends within the fixed header, with the ports in it: what comes after them is
    /// in a later fragment. No honest stack cuts there (RFC 1858; RFC 7112; RFC 8200, section 4.5).
    TinyFragment {
        /// Destination port.
        dport: u16,
    },
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
    /// Another protocol, or a fragment that is not the first: the IP protocol number.
    Other(u8),
}

/// The flag byte of a TCP header (byte 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

/// Why a packet could not be read. It accuses nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Unparsed {
    /// No byte at all.
    #[error("the packet is empty")]
    Empty,
    /// Neither IPv4 nor IPv6.
    #[error("ip version {0} is neither 4 nor 6")]
    Version(u8),
    /// The IP header is cut or contradicts itself.
    #[error("the ip header is cut or malformed")]
    IpHeader,
    /// `::ffff:a.b.c.d` as an address on the wire: Linux drops it too (`ip6_rcv_core`), it would name an
    /// IPv4 host that had no part in it.
    #[error("an ipv4-mapped address stands in an ipv6 header")]
    MappedAddress,
    /// An IPv6 extension header is cut or malformed.
    #[error("an ipv6 extension header is cut or malformed")]
    Extension,
    /// More extension headers than [`MAX_EXTENSIONS`].
    #[error("more than {MAX_EXTENSIONS} ipv6 extension headers")]
    ExtensionChain,
    /// The TCP or UDP header is cut, by its sender or by the copy range.
    #[error("the tcp or udp header is cut")]
    TransportCut,
    /// A TCP data offset below 5: no receiver takes it.
    #[error("the tcp data offset is smaller than the header")]
    TcpOffset,
}

/// Reads a packet from the IP header on. It may be cut by the copy range: only headers are read, and of TCP
/// only the fixed 20 bytes.
///
/// # Errors
/// If the headers cannot be read. Such a packet accuses nobody; the judge drops it where offenders are banned.
pub fn parse(packet: &[u8]) -> Result<Probe, Unparsed> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(version) => Err(Unparsed::Version(version)),
        None => Err(Unparsed::Empty),
    }
}

impl Probe {
    /// What it looks like, judged by itself.
    pub fn kind(&self) -> ScanKind {
        match self.transport {
            Transport::Tcp { flags, .. } => classify(flags),
            Transport::Udp { .. } => ScanKind::Udp,
            Transport::TinyFragment { .. } => ScanKind::TinyFragment,
            Transport::Icmp => ScanKind::Icmp,
            Transport::Other(_) => ScanKind::Other,
        }
    }

    /// The port it is for.
    pub fn port(&self) -> Option<(Proto, u16)> {
        match self.transport {
            Transport::Tcp { dport, .. } | Transport::TinyFragment { dport } => Some((Proto::Tcp, dport)),
            Transport::Udp { dport, .. } => Some((Proto::Udp, dport)),
            Transport::Icmp | Transport::Other(_) => None,
        }
    }

    /// The port under which it counts against its source, if it speaks against it at all.
    pub fn evidence(&self) -> Option<(Proto, u16)> {
        let traceroute = |(proto, port)| proto == Proto::Udp && TRACEROUTE_PORTS.contains(&port);
        self.port()
            .filter(|port| self.kind().is_evidence() && !traceroute(*port))
    }
}

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgement number means something.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer means something.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo.
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced.
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: TcpFlags) -> bool {
        self.0 & flag.0 == flag.0
    }
}

fn parse_v4(packet: &[u8]) -> Result<Probe, Unparsed> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| Unparsed::IpHeader)?;
    let header_len = header.slice().len();
    let mut payload = within(packet, header_len, header.total_len().into())?;
    payload.is_first_fragment = header.more_fragments();
    // An AH inside IPv4 stays `Other`: nftables matches the protocol of the header as well.
    let protocol = header.protocol();
    let transport = match protocol {
        _ if header.fragments_offset().value() != 0 => Transport::Other(protocol.0),
        ip_number::ICMP => Transport::Icmp,
        _ => parse_transport(protocol, &payload)?,
    };
    let (src, dst) = (header.source_addr(), header.destination_addr());
    Ok(Probe {
        src: IpAddr::V4(src),
        dst: IpAddr::V4(dst),
        transport,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Probe, Unparsed> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Unparsed::IpHeader)?;
    let (src, dst) = (header.source_addr(), header.destination_addr());
    if is_mapped(src) || is_mapped(dst) {
        return Err(Unparsed::MappedAddress);
    }
    let header_len = header.slice().len();
    let total = match header.payload_length() {
        0 => usize::MAX, // a jumbogram, or nothing: what is there is read
        length => header_len + usize::from(length),
    };
    let payload = within(packet, header_len, total)?;
    let transport = match skip_extensions(header.next_header(), payload)? {
        Upper::Whole(ip_number::IPV6_ICMP, _) => Transport::Icmp,
        Upper::Whole(protocol, payload) => parse_transport(protocol, &payload)?,
        Upper::LaterFragment(protocol) => Transport::Other(protocol.0),
    };
    Ok(Probe {
        src: IpAddr::V6(src),
        dst: IpAddr::V6(dst),
        transport,
    })
}

/// What comes after the IP header, as far as it was copied to us.
struct Payload<'a> {
    bytes: &'a [u8],
    /// Whether the packet had more than was copied.
    is_cut: bool,
    /// Whether other fragments go on where it ends.
    is_first_fragment: bool,
}

/// What comes after the IPv6 extension headers.
enum Upper<'a> {
    Whole(IpNumber, Payload<'a>),
    /// Its bytes are the middle of something.
    LaterFragment(IpNumber),
}

fn skip_extensions(mut next: IpNumber, mut payload: Payload<'_>) -> Result<Upper<'_>, Unparsed> {
    for _ in 0..=MAX_EXTENSIONS {
        let rest = payload.bytes;
        let (length, after) = match next {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                let slice = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| Unparsed::Extension)?;
                (slice.slice().len(), slice.next_header())
            }
            ip_number::AUTH => {
                let slice = IpAuthHeaderSlice::from_slice(rest).map_err(|_| Unparsed::Extension)?;
                (slice.slice().len(), slice.next_header())
            }
            ip_number::IPV6_FRAG => {
                let slice = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| Unparsed::Extension)?;
                if slice.fragment_offset().value() != 0 {
                    return Ok(Upper::LaterFragment(slice.next_header()));
                }
                payload.is_first_fragment |= slice.more_fragments();
                (slice.slice().len(), slice.next_header())
            }
            upper => return Ok(Upper::Whole(upper, payload)),
        };
        next = after;
        payload.bytes = rest.get(length..).ok_or(Unparsed::Extension)?;
    }
    Err(Unparsed::ExtensionChain)
}

fn parse_transport(protocol: IpNumber, payload: &Payload<'_>) -> Result<Transport, Unparsed> {
    match protocol {
        ip_number::TCP => parse_tcp(payload),
        ip_number::UDP => {
            let udp = UdpHeaderSlice::from_slice(payload.bytes).map_err(|_| Unparsed::TransportCut)?;
            Ok(Transport::Udp {
                sport: udp.source_port(),
                dport: udp.destination_port(),
            })
        }
        other => Ok(Transport::Other(other.0)),
    }
}

/// Reads the fixed part by hand: etherparse wants the options as well, which the copy range may cut off.
fn parse_tcp(payload: &Payload<'_>) -> Result<Transport, Unparsed> {
    let Some(header) = payload.bytes.first_chunk::<20>() else {
        return tiny_fragment(payload).ok_or(Unparsed::TransportCut);
    };
    let &[s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, flags, ..] = header;
    if offset >> 4 < 5 {
        return Err(Unparsed::TcpOffset);
    }
    Ok(Transport::Tcp {
        sport: u16::from_be_bytes([s0, s1]),
        dport: u16::from_be_bytes([d0, d1]),
        flags: TcpFlags(flags),
        seq: u32::from_be_bytes([q0, q1, q2, q3]),
    })
}

/// Reads less than a TCP header, if it was its sender who cut it.
fn tiny_fragment(payload: &Payload<'_>) -> Option<Transport> {
    let &[_, _, d0, d1] = payload.bytes.first_chunk()?;
    let dport = u16::from_be_bytes([d0, d1]);
    (payload.is_first_fragment && !payload.is_cut).then_some(Transport::TinyFragment { dport })
}

/// The payload, without bytes beyond the length that the IP header tells, and without those that the copy
/// range cut off.
fn within(packet: &[u8], header_len: usize, total_len: usize) -> Result<Payload<'_>, Unparsed> {
    let bytes = packet.get(header_len..total_len.min(packet.len()));
    Ok(Payload {
        bytes: bytes.ok_or(Unparsed::IpHeader)?,
        is_cut: packet.len() < total_len,
        is_first_fragment: false,
    })
}

fn is_mapped(addr: Ipv6Addr) -> bool {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    addr.octets().starts_with(&MAPPED)
}

/// Bounds the work on one packet: as many as fit before a TCP header into 1,500 bytes, 8 bytes each, since Linux
/// follows them all. Honest packets have at most one of each kind (RFC 8200, section 4.1: seven).
pub const MAX_EXTENSIONS: usize = (1500 - 40 - 20) / 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TCP_SYN: [u8; 20] = [
        0x9c, 0x40, 0x00, 0x50, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
    ];
    const UDP_DNS: [u8; 8] = [0x9c, 0x40, 0x00, 0x35, 0, 8, 0, 0];

    fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let [t0, t1] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [f0, f1] = fragment.to_be_bytes();
        let mut packet = vec![
            0x45, 0, t0, t1, 0, 1, f0, f1, 64, protocol, 0, 0, 192, 0, 2, 7, 198, 51, 100, 1,
        ];
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let [l0, l1] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, l0, l1, next, 64];
        packet.extend_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(&"2001:db8:1::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(payload);
        packet
    }

    fn chain(links: &[&[u8]]) -> Vec<u8> {
        links.concat()
    }

    fn syn() -> Transport {
        Transport::Tcp {
            sport: 40000,
            dport: 80,
            flags: TcpFlags::SYN,
            seq: 0xdead_beef,
        }
    }

    #[test]
    fn a_syn_is_read_in_both_families() {
        let probe = parse(&v4(6, 0, &TCP_SYN)).unwrap();
        assert_eq!(probe.src, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(probe.dst, IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)));
        assert_eq!((probe.transport, probe.kind()), (syn(), ScanKind::Syn));
        assert_eq!(probe.evidence(), Some((Proto::Tcp, 80)));
        let probe = parse(&v6(6, &TCP_SYN)).unwrap();
        assert_eq!(probe.src, "2001:db8::7".parse::<IpAddr>().unwrap());
        assert_eq!((probe.transport, probe.port()), (syn(), Some((Proto::Tcp, 80))));
    }

    #[test]
    fn udp_is_evidence_but_for_traceroute() {
        let port = |port: u16| {
            let mut udp = UDP_DNS;
            udp[2..4].copy_from_slice(&port.to_be_bytes());
            parse(&v4(17, 0, &udp)).unwrap()
        };
        assert_eq!(
            port(53).transport,
            Transport::Udp {
                sport: 40000,
                dport: 53
            }
        );
        for (dport, counts) in [
            (53, true),
            (33433, true),
            (33434, false),
            (33534, false),
            (33535, true),
        ] {
            assert_eq!(port(dport).evidence().is_some(), counts, "{dport}");
        }
    }

    #[test]
    fn icmp_and_other_protocols_have_no_port() {
        assert_eq!(parse(&v4(1, 0, &[8, 0])).unwrap().transport, Transport::Icmp);
        assert_eq!(parse(&v6(58, &[128, 0])).unwrap().transport, Transport::Icmp);
        assert_eq!(
            parse(&v4(58, 0, &[128, 0])).unwrap().transport,
            Transport::Other(58)
        );
        assert_eq!(parse(&v6(1, &[8, 0])).unwrap().transport, Transport::Other(1));
        assert_eq!(parse(&v4(47, 0, &[])).unwrap().port(), None);
        assert_eq!(parse(&v4(132, 0, &[])).unwrap().kind(), ScanKind::Other);
    }

    #[test]
    fn extension_headers_are_walked_through() {
        let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
        let options = [44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let first_fragment = [6, 0, 0, 1, 0, 0, 0, 9];
        let packet = v6(0, &chain(&[&hop_by_hop, &options, &first_fragment, &TCP_SYN]));
        assert_eq!(parse(&packet).unwrap().transport, syn());
        assert_eq!(parse(&packet[..40 + 4]), Err(Unparsed::Extension));
        assert_eq!(parse(&packet[..40 + 8 + 12]), Err(Unparsed::Extension));
        assert_eq!(
            parse(&packet[..40 + 8 + 16 + 8 + 19]),
            Err(Unparsed::TransportCut)
        );
    }

    #[test]
    fn the_chain_of_extensions_is_bounded() {
        let link = [60, 0, 1, 4, 0, 0, 0, 0];
        let last = [6, 0, 1, 4, 0, 0, 0, 0];
        let packet = |links: usize| v6(60, &chain(&[&link.repeat(links - 1), &last, &TCP_SYN]));
        assert_eq!(parse(&packet(MAX_EXTENSIONS)).unwrap().transport, syn());
        assert_eq!(parse(&packet(MAX_EXTENSIONS + 1)), Err(Unparsed::ExtensionChain));
    }

    #[test]
    fn later_fragments_have_no_port_and_first_ones_are_read() {
        assert_eq!(parse(&v4(6, 5, &TCP_SYN)).unwrap().transport, Transport::Other(6));
        assert_eq!(parse(&v4(6, 0x2000, &TCP_SYN)).unwrap().transport, syn());
        let later = [6, 0, 0, 8, 0, 0, 0, 9];
        assert_eq!(
            parse(&v6(44, &chain(&[&later, &TCP_SYN]))).unwrap().transport,
            Transport::Other(6)
        );
    }

    #[test]
    fn a_first_fragment_that_cuts_the_tcp_header_counts_by_its_port() {
        const MORE: [u8; 8] = [6, 0, 0, 1, 0, 0, 0, 9];
        const ATOMIC: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 9];
        let tiny = Ok(Transport::TinyFragment { dport: 80 });
        let cut = Err(Unparsed::TransportCut);
        for length in 0..20 {
            let expected = if length < 4 { cut } else { tiny };
            let (v4_first, v6_first) = (
                v4(6, 0x2000, &TCP_SYN[..length]),
                v6(44, &chain(&[&MORE, &TCP_SYN[..length]])),
            );
            for packet in [&v4_first, &v6_first] {
                assert_eq!(parse(packet).map(|probe| probe.transport), expected, "{length}");
            }
            // The last of its packet, or the only one, is broken and hides nothing.
            for packet in [
                v4(6, 0, &TCP_SYN[..length]),
                v6(44, &chain(&[&ATOMIC, &TCP_SYN[..length]])),
            ] {
                assert_eq!(parse(&packet), Err(Unparsed::TransportCut), "{length}");
            }
        }
        let probe = parse(&v4(6, 0x2000, &TCP_SYN[..8])).unwrap();
        assert_eq!(probe.kind(), ScanKind::TinyFragment);
        assert_eq!(probe.evidence(), Some((Proto::Tcp, 80)));
    }

    #[test]
    fn what_the_copy_range_cut_is_no_tiny_fragment() {
        let more = [6, 0, 0, 1, 0, 0, 0, 9];
        for packet in [v4(6, 0x2000, &TCP_SYN), v6(44, &chain(&[&more, &TCP_SYN]))] {
            assert_eq!(parse(&packet).unwrap().transport, syn());
            assert_eq!(parse(&packet[..packet.len() - 1]), Err(Unparsed::TransportCut));
        }
        let udp = v4(17, 0x2000, &UDP_DNS[..6]);
        assert_eq!(parse(&udp), Err(Unparsed::TransportCut));
    }

    #[test]
    fn options_may_be_cut_by_the_copy_range() {
        let mut tcp = TCP_SYN;
        tcp[12] = 0xf0;
        assert_eq!(parse(&v4(6, 0, &tcp)).unwrap().transport, syn());
        let mut packet = v4(6, 0, &TCP_SYN);
        packet[2..4].copy_from_slice(&1500u16.to_be_bytes());
        assert_eq!(parse(&packet).unwrap().transport, syn());
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert_eq!(parse(&[]), Err(Unparsed::Empty));
        assert_eq!(parse(&[0x50; 40]), Err(Unparsed::Version(5)));
        assert_eq!(parse(&[0x45; 10]), Err(Unparsed::IpHeader));
        assert_eq!(parse(&[0x60; 39]), Err(Unparsed::IpHeader));
        let mut short = v4(6, 0, &TCP_SYN);
        short[2..4].copy_from_slice(&19u16.to_be_bytes());
        assert_eq!(parse(&short), Err(Unparsed::IpHeader));
        short[2..4].copy_from_slice(&39u16.to_be_bytes());
        assert_eq!(parse(&short), Err(Unparsed::TransportCut));
        let mut tcp = TCP_SYN;
        tcp[12] = 0x40;
        assert_eq!(parse(&v4(6, 0, &tcp)), Err(Unparsed::TcpOffset));
        let mut mapped = v6(6, &TCP_SYN);
        mapped[8..24].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(parse(&mapped), Err(Unparsed::MappedAddress));
    }
}
