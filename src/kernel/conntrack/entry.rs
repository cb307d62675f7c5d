//! One conntrack message as the kernel writes it: attributes to an entry, and a flow to the attributes that ask
//! for it. Anything cut, nested wrongly or not TCP is no entry.

use std::net::{IpAddr, SocketAddr};

use super::{Completed, Flow};
use crate::kernel::netlink::{Attributes, Builder, be32};

/// What conntrack says about one TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first packet's way.
    pub(super) orig: Tuple,
    /// The way of the answers, after translation.
    pub(super) reply: Tuple,
    /// IPS_… bits.
    pub(super) status: u32,
    /// TCP_CONNTRACK_… number; `None` in messages that do not tell.
    pub(super) state: Option<u8>,
    /// Conntrack took it up midway and does not check its sequence numbers.
    pub(super) picked_up: bool,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
}

impl Entry {
    /// Reads what follows a message's header.
    pub(super) fn read(payload: &[u8]) -> Option<Entry> {
        let (mut orig, mut reply, mut status, mut tcp) = (None, None, 0, Tcp::default());
        for (kind, value) in Attributes::after_nfgen(payload) {
            match kind {
                CTA_TUPLE_ORIG => orig = Tuple::read(value),
                CTA_TUPLE_REPLY => reply = Tuple::read(value),
                CTA_STATUS => status = be32(value)?,
                CTA_PROTOINFO => tcp = Tcp::read(value),
                _ => {}
            }
        }
        Some(Entry {
            orig: orig?,
            reply: reply?,
            status,
            state: tcp.state,
            picked_up: tcp.liberal,
        })
    }

    /// The completed connection, if its handshake was seen and conntrack counts it as finished.
    ///
    /// An entry taken up midway proves nothing: whoever sends ACKs in a stranger's name makes one, without a guess.
    pub(super) fn completed(&self) -> Option<Completed> {
        let finished = self.state.is_some_and(|state| OPENED.contains(&state));
        (finished && self.status & IPS_ASSURED != 0 && !self.picked_up).then_some(Completed {
            client: self.orig.src.ip(),
            client_port: self.orig.src.port(),
            server: self.orig.dst.ip(),
            port: self.orig.dst.port(),
            ends_at: self.reply.src,
        })
    }

    /// Whether this is the entry of `flow`, and not of one that the server opened to the client.
    pub(super) fn is_of(&self, flow: &Flow) -> bool {
        self.orig.src == SocketAddr::new(flow.client, flow.client_port)
            && self.orig.dst == SocketAddr::new(flow.server, flow.port)
    }
}

impl Tuple {
    fn read(bytes: &[u8]) -> Option<Tuple> {
        let (mut ends, mut ports) = (None, None);
        for (kind, value) in Attributes::new(bytes) {
            match kind {
                CTA_TUPLE_IP => ends = addresses(value),
                CTA_TUPLE_PROTO => ports = tcp_ports(value),
                _ => {}
            }
        }
        let ((src, dst), (from, to)) = (ends?, ports?);
        Some(Tuple {
            src: SocketAddr::new(src, from),
            dst: SocketAddr::new(dst, to),
        })
    }
}

fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (mut src, mut dst) = (None, None);
    for (kind, value) in Attributes::new(bytes) {
        match kind {
            CTA_IP_V4_SRC => src = Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
            CTA_IP_V4_DST => dst = Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
            CTA_IP_V6_SRC => src = Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
            CTA_IP_V6_DST => dst = Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
            _ => {}
        }
    }
    let (src, dst) = (src?, dst?);
    (src.is_ipv4() == dst.is_ipv4()).then_some((src, dst))
}

fn tcp_ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let (mut protocol, mut src, mut dst) = (None, None, None);
    for (kind, value) in Attributes::new(bytes) {
        let port = || value.try_into().map(u16::from_be_bytes).ok();
        match kind {
            CTA_PROTO_NUM => protocol = value.first(),
            CTA_PROTO_SRC_PORT => src = port(),
            CTA_PROTO_DST_PORT => dst = port(),
            _ => {}
        }
    }
    (*protocol? == libc::IPPROTO_TCP as u8).then_some((src?, dst?))
}

/// CTA_PROTOINFO of a TCP entry.
#[derive(Clone, Copy, Debug, Default)]
struct Tcp {
    state: Option<u8>,
    liberal: bool,
}

impl Tcp {
    fn read(bytes: &[u8]) -> Tcp {
        let mut tcp = Tcp::default();
        let nested = Attributes::new(bytes).find(|(kind, _)| *kind == CTA_PROTOINFO_TCP);
        for (kind, value) in Attributes::new(nested.map_or(&[], |(_, value)| value)) {
            match kind {
                CTA_PROTOINFO_TCP_STATE => tcp.state = value.first().copied(),
                CTA_PROTOINFO_TCP_FLAGS_ORIGINAL | CTA_PROTOINFO_TCP_FLAGS_REPLY => {
                    tcp.liberal |= value.first().is_some_and(|flags| flags & BE_LIBERAL != 0);
                }
                _ => {}
            }
        }
        tcp
    }
}

/// Puts `flow` as the tuple `kind`.
pub(super) fn put_flow(builder: &mut Builder, kind: u16, flow: &Flow) {
    let tuple = builder.open(kind);
    let ip = builder.open(CTA_TUPLE_IP);
    put_address(builder, flow.client, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
    put_address(builder, flow.server, CTA_IP_V4_DST, CTA_IP_V6_DST);
    builder.close(ip);
    let proto = builder.open(CTA_TUPLE_PROTO);
    builder
        .put(CTA_PROTO_NUM, &[libc::IPPROTO_TCP as u8])
        .put(CTA_PROTO_SRC_PORT, &flow.client_port.to_be_bytes())
        .put(CTA_PROTO_DST_PORT, &flow.port.to_be_bytes());
    builder.close(proto);
    builder.close(tuple);
}

fn put_address(builder: &mut Builder, address: IpAddr, four: u16, six: u16) {
    match address {
        IpAddr::V4(v4) => builder.put(four, &v4.octets()),
        IpAddr::V6(v6) => builder.put(six, &v6.octets()),
    };
}

/// The nfgenmsg family of a flow.
pub(super) fn family(flow: &Flow) -> i32 {
    if flow.client.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_PROTOINFO: u16 = 4;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
// nf_conntrack_common.h, nf_conntrack_tcp.h beside it
pub(super) const IPS_ASSURED: u32 = 0x4;
pub(super) const ESTABLISHED: u8 = 3;
/// IP_CT_TCP_FLAG_BE_LIBERAL: set on both sides of an entry whose first packet was no SYN (tcp_new()).
const BE_LIBERAL: u8 = 0x08;
/// ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT; not CLOSE, where a RST ended it.
const OPENED: std::ops::RangeInclusive<u8> = ESTABLISHED..=7;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::netlink::{Messages, nfnl_type};

    fn flow(client: &str, server: &str) -> Flow {
        Flow {
            client: client.parse().unwrap(),
            client_port: 50_000,
            server: server.parse().unwrap(),
            port: 443,
        }
    }

    fn turned(flow: &Flow) -> Flow {
        Flow {
            client: flow.server,
            client_port: flow.port,
            server: flow.client,
            port: flow.client_port,
        }
    }

    fn build(flow: &Flow, status: u32, state: Option<(u8, u8)>) -> Vec<u8> {
        let mut message = Builder::new();
        message.nfnetlink(nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, 0), 0, 0, family(flow), 0);
        put_flow(&mut message, CTA_TUPLE_ORIG, flow);
        put_flow(&mut message, CTA_TUPLE_REPLY, &turned(flow));
        message.put_be32(CTA_STATUS, status);
        if let Some((state, flags)) = state {
            let info = message.open(CTA_PROTOINFO);
            let tcp = message.open(CTA_PROTOINFO_TCP);
            message
                .put(CTA_PROTOINFO_TCP_STATE, &[state])
                .put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, 0])
                .put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &[flags, 0]);
            message.close(tcp);
            message.close(info);
        }
        message.bytes().to_vec()
    }

    /// A message about some connection with this status and TCP state.
    pub(in super::super) fn message(status: u32, state: u8) -> Vec<u8> {
        build(&flow("192.0.2.1", "198.51.100.1"), status, Some((state, 0)))
    }

    /// A message that does not tell the TCP state.
    pub(in super::super) fn message_without_state(status: u32) -> Vec<u8> {
        build(&flow("192.0.2.1", "198.51.100.1"), status, None)
    }

    fn read(bytes: &[u8]) -> Option<Entry> {
        Entry::read(Messages::new(bytes).next()?.payload)
    }

    #[test]
    fn both_families_are_read() {
        for flow in [
            flow("192.0.2.1", "198.51.100.1"),
            flow("2001:db8::1", "2001:db8::2"),
        ] {
            let entry = read(&build(&flow, IPS_ASSURED, Some((ESTABLISHED, 0)))).unwrap();
            let completed = entry.completed().unwrap();
            assert_eq!(completed.flow(), flow);
            assert!(!completed.is_translated());
            assert!(entry.is_of(&flow));
            assert!(
                !entry.is_of(&turned(&flow)),
                "the other direction is another connection"
            );
        }
    }

    #[test]
    fn only_a_finished_handshake_that_was_seen_counts() {
        let counts = |bytes: Vec<u8>| read(&bytes).unwrap().completed().is_some();
        for state in 0..=10 {
            assert_eq!(
                counts(message(IPS_ASSURED, state)),
                (3..=7).contains(&state),
                "{state}"
            );
            assert!(!counts(message(0xffff_fffb, state)), "not assured");
        }
        assert!(!counts(message_without_state(IPS_ASSURED)));
        let some = flow("192.0.2.1", "198.51.100.1");
        assert!(!counts(build(
            &some,
            IPS_ASSURED,
            Some((ESTABLISHED, BE_LIBERAL))
        )));
        assert!(counts(build(&some, IPS_ASSURED, Some((ESTABLISHED, 0x33)))));
    }

    #[test]
    fn whatever_is_cut_or_bent_is_read_without_panic() {
        let whole = build(
            &flow("2001:db8::1", "2001:db8::2"),
            IPS_ASSURED,
            Some((ESTABLISHED, 0)),
        );
        let payload = &whole[16..];
        for length in 0..payload.len() {
            let _ = Entry::read(&payload[..length]);
        }
        for at in 0..payload.len() {
            for byte in [0, 1, 3, 4, 5, 0x7f, 0x80, 0xff] {
                let mut bent = payload.to_vec();
                bent[at] = byte;
                let _ = Entry::read(&bent).map(|entry| entry.completed());
            }
        }
    }

    #[test]
    fn other_protocols_are_no_entries() {
        let mut bytes = message(IPS_ASSURED, ESTABLISHED);
        let attribute = [5, 0, CTA_PROTO_NUM as u8, 0, libc::IPPROTO_TCP as u8];
        let at = bytes.windows(5).position(|window| window == attribute).unwrap();
        bytes[at + 4] = libc::IPPROTO_UDP as u8;
        assert_eq!(read(&bytes), None);
    }
}
