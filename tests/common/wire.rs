//! Packets made by hand: any flags, any source, also broken ones.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::namespace::Namespace;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const URG: u8 = 0x20;
/// No flag at all.
pub(crate) const NULL: u8 = 0;
/// FIN, PSH and URG: nmap's -sX.
pub(crate) const XMAS: u8 = FIN | PSH | URG;

static GUNS: AtomicU16 = AtomicU16::new(0);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Sends packets with headers of our own from inside a namespace.
pub(crate) struct Gun {
    v4: OwnedFd,
    v6: OwnedFd,
    src: IpAddr,
    dst: IpAddr,
    next_port: u16,
    /// Two guns never send the same flow: what was sent before would be a retransmission.
    number: u16,
}

impl Gun {
    /// Aims from `src` (not necessarily an address of `ns`) at `dst`.
    pub(crate) fn new(ns: &Namespace, src: &str, dst: &str) -> Gun {
        let raw = |family| socket(family, SocketType::RAW, Some(ipproto::RAW)).expect("a raw socket");
        let (v4, v6) = ns.inside(|| (raw(AddressFamily::INET), raw(AddressFamily::INET6)));
        let [src, dst] = [src, dst].map(|text| text.parse().expect("an address"));
        let number = GUNS.fetch_add(1, Ordering::Relaxed);
        Gun {
            v4,
            v6,
            src,
            dst,
            next_port: 40_000 + number.wrapping_mul(997) % 20_000,
            number,
        }
    }

    /// From here on it sends in the name of `src`, of the same family.
    #[allow(dead_code, reason = "not every test program forges sources")]
    pub(crate) fn forge(&mut self, src: IpAddr) {
        self.src = src;
    }

    /// One TCP packet with these flags, each a flow of its own.
    pub(crate) fn tcp(&mut self, port: u16, flags: u8) {
        let segment = self.segment(port, flags);
        self.ip(TCP, &segment);
    }

    /// What [`tcp`](Self::tcp) sends behind its IP header.
    pub(crate) fn segment(&mut self, port: u16, flags: u8) -> Vec<u8> {
        let [s, d] = [self.fresh_port().to_be_bytes(), port.to_be_bytes()];
        let gun = self.number.to_be_bytes();
        // Sequence number: of this gun and port; data offset 5 words; window 1024 as nmap sends it.
        let segment = [
            s[0], s[1], d[0], d[1], s[0], s[1], gun[0], gun[1], 0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0,
        ];
        self.summed(TCP, &segment, 16)
    }

    /// A SYN to each of these ports.
    pub(crate) fn syns(&mut self, ports: impl IntoIterator<Item = u16>) {
        ports.into_iter().for_each(|port| self.tcp(port, SYN));
    }

    /// One UDP datagram of four bytes, each a flow of its own.
    pub(crate) fn udp(&mut self, port: u16) {
        let [s, d] = [self.fresh_port().to_be_bytes(), port.to_be_bytes()];
        let datagram = [s[0], s[1], d[0], d[1], 0, 12, 0, 0, b'p', b'i', b'n', b'g'];
        self.ip(UDP, &self.summed(UDP, &datagram, 6));
    }

    /// A TCP segment as given, but for its checksum.
    #[allow(dead_code, reason = "not every test program forges handshakes")]
    pub(crate) fn given(&self, segment: &[u8]) {
        self.ip(TCP, &self.summed(TCP, segment, 16));
    }

    /// `payload` behind an IP header that says `protocol`, whatever the payload is.
    pub(crate) fn ip(&self, protocol: u8, payload: &[u8]) {
        let length = payload.len() as u16;
        let packet = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // Length, identification and checksum are the kernel's to fill in (raw(7)).
                let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
                packet[2..4].copy_from_slice(&(length + 20).to_be_bytes());
                packet.extend(src.octets().into_iter().chain(dst.octets()));
                packet
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
                packet[4..6].copy_from_slice(&length.to_be_bytes());
                packet.extend(src.octets().into_iter().chain(dst.octets()));
                packet
            }
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        };
        self.bytes(&[&packet, payload].concat());
    }

    /// These very bytes, from the IP header on. What the sending kernel itself refuses is lost: fine.
    pub(crate) fn bytes(&self, packet: &[u8]) {
        let fd = if self.dst.is_ipv4() { &self.v4 } else { &self.v6 };
        let _ = sendto(fd, packet, SendFlags::empty(), &SocketAddr::new(self.dst, 0));
    }

    fn fresh_port(&mut self) -> u16 {
        self.next_port = if self.next_port == u16::MAX {
            40_000
        } else {
            self.next_port + 1
        };
        self.next_port
    }

    fn summed(&self, protocol: u8, segment: &[u8], checksum_at: usize) -> Vec<u8> {
        let mut segment = segment.to_vec();
        let sum = checksum(&self.pseudo_header(protocol, segment.len() as u16), &segment);
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    /// RFC 9293 3.1 and RFC 8200 8.1: the sums are the same, the zeros stand elsewhere.
    fn pseudo_header(&self, protocol: u8, length: u16) -> Vec<u8> {
        let octets = |address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let [high, low] = length.to_be_bytes();
        [octets(self.src), octets(self.dst), vec![0, protocol, high, low]].concat()
    }
}

/// The Internet checksum (RFC 1071) over both parts; each but the last has an even length.
fn checksum(head: &[u8], body: &[u8]) -> u16 {
    let words = head.chunks(2).chain(body.chunks(2));
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
