//! What one rule of somebody else's can do to a packet. Only that is read which an admin has to know; whatever else stands
//! in it is passed over.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::{Key, Published};
use crate::core::verdict::Proto;
use crate::kernel::netlink::{Attributes, be32, string};

/// What the rules of a chain can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) drops: bool,
    pub(super) accepts: bool,
    /// Verdicts come out of a map, which is not read.
    pub(super) by_map: bool,
    pub(super) leads_to: BTreeSet<String>,
    pub(super) queues: BTreeSet<u16>,
    pub(super) published: BTreeSet<Published>,
}

impl Effects {
    pub(super) fn add(&mut self, other: Effects) {
        self.drops |= other.drops;
        self.accepts |= other.accepts;
        self.by_map |= other.by_map;
        self.leads_to.extend(other.leads_to);
        self.queues.extend(other.queues);
        self.published.extend(other.published);
    }
}

/// The chain of a rule, and what it can do.
pub(super) fn read(payload: &[u8]) -> Option<(Key, Effects)> {
    let (mut table, mut chain, mut effects) = (None, None, Effects::default());
    for (kind, value) in Attributes::after_nfgen(payload) {
        match kind {
            NFTA_RULE_TABLE => table = string(value),
            NFTA_RULE_CHAIN => chain = string(value),
            NFTA_RULE_EXPRESSIONS => effects = Reader::default().read(value),
            _ => {}
        }
    }
    let key = (*payload.first()?, table?.to_owned(), chain?.to_owned());
    Some((key, effects))
}

/// Reads expressions in turn; remembers what the register was loaded with.
#[derive(Default)]
struct Reader {
    effects: Effects,
    loaded: Loaded,
    proto: Option<Proto>,
    first: Option<u16>,
    last: Option<u16>,
    /// The rule is for what is addressed to loopback, which comes from no network.
    loopback: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Loaded {
    #[default]
    Other,
    Protocol,
    Port,
    To4,
    To6,
}

impl Reader {
    fn read(mut self, expressions: &[u8]) -> Effects {
        for (_, element) in Attributes::new(expressions) {
            let (mut name, mut data) = (None, &[][..]);
            for (kind, value) in Attributes::new(element) {
                match kind {
                    NFTA_EXPR_NAME => name = string(value),
                    NFTA_EXPR_DATA => data = value,
                    _ => {}
                }
            }
            self.expression(name.unwrap_or_default(), data);
        }
        self.effects
    }

    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "immediate" => self.immediate(data),
            "reject" => self.effects.drops = true,
            "queue" => {
                let number = attribute(data, NFTA_QUEUE_NUM).and_then(|value| value.first_chunk());
                self.effects
                    .queues
                    .extend(number.map(|bytes| u16::from_be_bytes(*bytes)));
            }
            "target" => self.target(data),
            "match" => self.xt_ports(data),
            // Without a register for the value there is one for a verdict (NFT_REG_VERDICT), or none: a mere look.
            "lookup" => {
                let register = attribute(data, NFTA_LOOKUP_DREG).and_then(be32);
                self.effects.by_map |= register == Some(NFT_REG_VERDICT);
            }
            "nat" if attribute(data, NFTA_NAT_TYPE).and_then(be32) == Some(NFT_NAT_DNAT) => self.publish(),
            "meta" => {
                let key = attribute(data, NFTA_META_KEY).and_then(be32);
                self.loaded = match key == Some(libc::NFT_META_L4PROTO as u32) {
                    true => Loaded::Protocol,
                    false => Loaded::Other,
                };
            }
            "payload" => self.loaded = loaded(data),
            "cmp" => self.compare(data),
            "range" => self.within(data),
            _ => {}
        }
        if self.effects.by_map {
            // Its verdicts may be any.
            (self.effects.drops, self.effects.accepts) = (true, true);
        }
    }

    fn immediate(&mut self, data: &[u8]) {
        let data = attribute(data, NFTA_IMMEDIATE_DATA).unwrap_or_default();
        let Some(verdict) = attribute(data, NFTA_DATA_VERDICT) else {
            return;
        };
        match attribute(verdict, NFTA_VERDICT_CODE)
            .and_then(be32)
            .map(|code| code as i32)
        {
            Some(libc::NF_DROP) => self.effects.drops = true,
            Some(libc::NF_ACCEPT) => self.effects.accepts = true,
            Some(libc::NFT_JUMP | libc::NFT_GOTO) => {
                let chain = attribute(verdict, NFTA_VERDICT_CHAIN).and_then(string);
                self.effects.leads_to.extend(chain.map(str::to_owned));
            }
            _ => {}
        }
    }

    /// A target of xtables, in the tables of iptables-nft.
    fn target(&mut self, data: &[u8]) {
        let info = attribute(data, NFTA_TARGET_INFO).unwrap_or_default();
        match attribute(data, NFTA_TARGET_NAME).and_then(string) {
            Some("REJECT" | "DROP" | "TARPIT") => self.effects.drops = true,
            Some("ACCEPT") => self.effects.accepts = true,
            Some("DNAT") => self.publish(),
            Some("NFQUEUE") => {
                let number = info.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
                self.effects.queues.extend(number);
            }
            _ => {}
        }
    }

    /// struct xt_tcp and xt_udp both begin with first and last source port, first and last destination port.
    fn xt_ports(&mut self, data: &[u8]) {
        let proto = match attribute(data, NFTA_MATCH_NAME).and_then(string) {
            Some("tcp") => Proto::Tcp,
            Some("udp") => Proto::Udp,
            _ => return,
        };
        let info = attribute(data, NFTA_MATCH_INFO).unwrap_or_default();
        let port = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        self.proto = Some(proto);
        if let (Some(first), Some(last)) = (port(4), port(6))
            && (first, last) != (0, u16::MAX)
        {
            (self.first, self.last) = (Some(first), Some(last));
        }
    }

    fn compare(&mut self, data: &[u8]) {
        let operator = attribute(data, NFTA_CMP_OP).and_then(be32);
        let value = attribute(data, NFTA_CMP_DATA).and_then(|data| attribute(data, NFTA_DATA_VALUE));
        let (Some(operator), Some(value)) = (operator, value) else {
            return;
        };
        match (self.loaded, operator as i32, value) {
            (Loaded::Protocol, libc::NFT_CMP_EQ, [number, ..]) => {
                self.proto = match i32::from(*number) {
                    libc::IPPROTO_TCP => Some(Proto::Tcp),
                    libc::IPPROTO_UDP => Some(Proto::Udp),
                    _ => self.proto,
                };
            }
            (Loaded::Port, operator, [high, low, ..]) => {
                let port = u16::from_be_bytes([*high, *low]);
                match operator {
                    libc::NFT_CMP_EQ => (self.first, self.last) = (Some(port), Some(port)),
                    libc::NFT_CMP_GTE => self.first = Some(port),
                    libc::NFT_CMP_LTE => self.last = Some(port),
                    _ => {}
                }
            }
            (Loaded::To4, libc::NFT_CMP_EQ, value) => self.loopback |= value.first() == Some(&127),
            (Loaded::To6, libc::NFT_CMP_EQ, value) => {
                self.loopback |= value == Ipv6Addr::LOCALHOST.octets();
            }
            _ => {}
        }
    }

    /// iptables-nft's way to say it of ports.
    fn within(&mut self, data: &[u8]) {
        let port = |kind| {
            let value = attribute(attribute(data, kind)?, NFTA_DATA_VALUE)?;
            value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
        };
        let inside = attribute(data, NFTA_RANGE_OP).and_then(be32) == Some(NFT_RANGE_EQ);
        if self.loaded == Loaded::Port && inside {
            (self.first, self.last) = (port(NFTA_RANGE_FROM_DATA), port(NFTA_RANGE_TO_DATA));
        }
    }

    fn publish(&mut self) {
        if self.loopback {
            return;
        }
        self.effects.published.insert(Published {
            proto: self.proto,
            ports: self.first.zip(self.last),
        });
    }
}

/// What a payload expression loads, if that is the destination's port or address (of a network only its first bytes).
fn loaded(data: &[u8]) -> Loaded {
    let number = |kind| attribute(data, kind).and_then(be32);
    let place = (
        number(NFTA_PAYLOAD_BASE),
        number(NFTA_PAYLOAD_OFFSET),
        number(NFTA_PAYLOAD_LEN),
    );
    let (Some(base), Some(offset), Some(length)) = place else {
        return Loaded::Other;
    };
    match (base as i32, offset, length) {
        (libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2) => Loaded::Port,
        (libc::NFT_PAYLOAD_NETWORK_HEADER, 16, 1..=4) => Loaded::To4,
        (libc::NFT_PAYLOAD_NETWORK_HEADER, 24, 16) => Loaded::To6,
        _ => Loaded::Other,
    }
}

fn attribute(data: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes::new(data)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

// include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_META_KEY: u16 = 2;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_RANGE_OP: u16 = 2;
const NFTA_RANGE_FROM_DATA: u16 = 3;
const NFTA_RANGE_TO_DATA: u16 = 4;
const NFT_RANGE_EQ: u32 = 0;
const NFTA_QUEUE_NUM: u16 = 1;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_TARGET_INFO: u16 = 3;
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
const NFT_REG_VERDICT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::Builder;

    type Fill = fn(&mut Builder);

    fn rule(expressions: &[(&str, Fill)]) -> Vec<u8> {
        let mut builder = Builder::new();
        builder
            .nfnetlink(0, 0, 0, libc::NFPROTO_IPV4, 0)
            .put_str(NFTA_RULE_TABLE, "nat")
            .put_str(NFTA_RULE_CHAIN, "DOCKER");
        let list = builder.open(NFTA_RULE_EXPRESSIONS);
        for (name, fill) in expressions {
            let element = builder.open(1);
            builder.put_str(NFTA_EXPR_NAME, name);
            let data = builder.open(NFTA_EXPR_DATA);
            fill(&mut builder);
            builder.close(data).close(element);
        }
        builder.close(list);
        builder.bytes()[16..].to_vec()
    }

    fn is(builder: &mut Builder, operator: i32, value: &[u8]) {
        builder.put_be32(NFTA_CMP_OP, operator as u32);
        let data = builder.open(NFTA_CMP_DATA);
        builder.put(NFTA_DATA_VALUE, value).close(data);
    }

    const PROTOCOL: (&str, Fill) = ("meta", |b| {
        b.put_be32(NFTA_META_KEY, libc::NFT_META_L4PROTO as u32);
    });
    const TCP: (&str, Fill) = ("cmp", |b| is(b, libc::NFT_CMP_EQ, &[6]));
    const PORT: (&str, Fill) = ("payload", |b| {
        b.put_be32(NFTA_PAYLOAD_BASE, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32)
            .put_be32(NFTA_PAYLOAD_OFFSET, 2)
            .put_be32(NFTA_PAYLOAD_LEN, 2);
    });
    const IS_8080: (&str, Fill) = ("cmp", |b| is(b, libc::NFT_CMP_EQ, &8080_u16.to_be_bytes()));
    const DNAT: (&str, Fill) = ("target", |b| {
        b.put_str(NFTA_TARGET_NAME, "DNAT");
    });
    const NAT: (&str, Fill) = ("nat", |b| {
        b.put_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
    });

    fn published(expressions: &[(&str, Fill)]) -> Vec<Published> {
        let (_, effects) = read(&rule(expressions)).unwrap();
        effects.published.into_iter().collect()
    }

    #[test]
    fn published_ports_are_read_in_every_dialect() {
        let tcp = Some(Proto::Tcp);
        let port = Some((8080, 8080));
        assert_eq!(
            published(&[PROTOCOL, TCP, PORT, IS_8080, DNAT]),
            [Published {
                proto: tcp,
                ports: port
            }]
        );
        assert_eq!(
            published(&[PROTOCOL, TCP, PORT, IS_8080, NAT]),
            [Published {
                proto: tcp,
                ports: port
            }]
        );
        let xt: (&str, Fill) = ("match", |b| {
            let ports = [0_u16, 65535, 8000, 8010].map(u16::to_ne_bytes).concat();
            b.put_str(NFTA_MATCH_NAME, "udp").put(NFTA_MATCH_INFO, &ports);
        });
        assert_eq!(
            published(&[xt, DNAT]),
            [Published {
                proto: Some(Proto::Udp),
                ports: Some((8000, 8010))
            }]
        );
        let from: (&str, Fill) = ("cmp", |b| is(b, libc::NFT_CMP_GTE, &1_u16.to_be_bytes()));
        let to: (&str, Fill) = ("cmp", |b| is(b, libc::NFT_CMP_LTE, &9_u16.to_be_bytes()));
        assert_eq!(
            published(&[PORT, from, to, NAT]),
            [Published {
                proto: None,
                ports: Some((1, 9))
            }]
        );
        let range: (&str, Fill) = ("range", |b| {
            b.put_be32(NFTA_RANGE_OP, NFT_RANGE_EQ);
            for (kind, port) in [(NFTA_RANGE_FROM_DATA, 100_u16), (NFTA_RANGE_TO_DATA, 110)] {
                let data = b.open(kind);
                b.put(NFTA_DATA_VALUE, &port.to_be_bytes()).close(data);
            }
        });
        let ranged = Published {
            proto: tcp,
            ports: Some((100, 110)),
        };
        assert_eq!(published(&[PROTOCOL, TCP, PORT, range, DNAT]), [ranged]);
        // A comparison of something else is no port.
        let mark: (&str, Fill) = ("meta", |b| {
            b.put_be32(NFTA_META_KEY, libc::NFT_META_MARK as u32);
        });
        assert_eq!(
            published(&[mark, IS_8080, NAT]),
            [Published {
                proto: None,
                ports: None
            }]
        );
        let snat: (&str, Fill) = ("nat", |b| {
            b.put_be32(NFTA_NAT_TYPE, 0);
        });
        assert_eq!(published(&[PORT, IS_8080, snat]), []);
    }

    #[test]
    fn verdicts_and_queues_are_read() {
        fn verdict(builder: &mut Builder, code: i32, chain: Option<&str>) {
            let data = builder.open(NFTA_IMMEDIATE_DATA);
            let verdict = builder.open(NFTA_DATA_VERDICT);
            builder.put_be32(NFTA_VERDICT_CODE, code as u32);
            if let Some(chain) = chain {
                builder.put_str(NFTA_VERDICT_CHAIN, chain);
            }
            builder.close(verdict).close(data);
        }
        let effects = |expression: (&str, Fill)| read(&rule(&[expression])).unwrap().1;
        assert!(effects(("immediate", |b| verdict(b, libc::NF_DROP, None))).drops);
        assert!(effects(("immediate", |b| verdict(b, libc::NF_ACCEPT, None))).accepts);
        let led = effects(("immediate", |b| verdict(b, libc::NFT_GOTO, Some("x"))));
        assert_eq!(led.leads_to, BTreeSet::from(["x".to_owned()]));
        assert!(effects(("reject", |_| ())).drops);
        let native = effects(("queue", |b| {
            b.put(NFTA_QUEUE_NUM, &7_u16.to_be_bytes());
        }));
        assert_eq!(native.queues, BTreeSet::from([7]));
        let xt = effects(("target", |b| {
            b.put_str(NFTA_TARGET_NAME, "NFQUEUE")
                .put(NFTA_TARGET_INFO, &9_u16.to_ne_bytes());
        }));
        assert_eq!(xt.queues, BTreeSet::from([9]));
        let map = effects(("lookup", |b| {
            b.put_be32(NFTA_LOOKUP_DREG, 0);
        }));
        assert!(map.by_map && map.drops && map.accepts);
        assert!(!effects(("lookup", |_| ())).by_map);
    }

    #[test]
    fn hostile_bytes_are_read_to_their_end() {
        let whole = rule(&[PROTOCOL, TCP, PORT, IS_8080, DNAT, NAT]);
        for cut in 0..whole.len() {
            let _ = read(&whole[..cut]);
            let mut spoiled = whole.clone();
            spoiled[cut] ^= 0xff;
            let _ = read(&spoiled);
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0xff; 256]), None);
    }
}
