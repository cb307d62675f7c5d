//! Rules as the kernel takes them: steps to expressions, and the anonymous sets that they look up.
//!
//! Every sequence of expressions is the one that nft itself makes of the same words (`nft --debug=netlink`),
//! so that nft lists our rules as they are written in [`super::text`].

use std::ffi::CStr;

use nftnl::nftnl_sys as ffi;

use super::alive;
use super::expression::*;
use super::messages::{message, put_key, put_size, set_userdata};
use super::model::{Source, Step};
use super::spec::{Backend, Family};
use super::sys::{Expression, Message, Value};
use super::text::VITAL6;
use super::uapi::*;
use crate::kernel::netlink::Builder;

/// What one rule needs: anonymous sets that come before it, and its expressions.
#[derive(Default)]
pub(super) struct Encoded {
    pub(super) sets: Vec<Message>,
    pub(super) expressions: Vec<Expression>,
}

/// Encodes rules, and numbers the anonymous sets of one batch.
pub(super) struct Encoder<'a> {
    table: &'a str,
    backend: Backend,
    set_id: u32,
}

impl Encoder<'_> {
    pub(super) fn new(table: &str, backend: Backend) -> Encoder<'_> {
        Encoder {
            table,
            backend,
            set_id: 0,
        }
    }

    pub(super) fn rule(&mut self, steps: &[Step]) -> Encoded {
        let mut rule = Encoded::default();
        for step in steps {
            self.step(step, &mut rule);
        }
        rule
    }

    fn step(&mut self, step: &Step, rule: &mut Encoded) {
        let out = &mut rule.expressions;
        match step {
            Step::Interface(name) => out.extend([meta(libc::NFT_META_IIFNAME), eq(&interface(name))]),
            Step::CtReply => out.extend([ct(libc::NFT_CT_DIRECTION), eq(&[IP_CT_DIR_REPLY])]),
            Step::Ct(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | *state as u32);
                out.extend([ct(libc::NFT_CT_STATE), and(R1, &bits.to_ne_bytes()), ne(&[0; 4])]);
            }
            Step::NotLocal => out.extend([fib_daddr_type(), ne(&RTN_LOCAL.to_ne_bytes())]),
            Step::OwnSocket => out.extend([socket_wildcard(), eq(&[0])]),
            Step::TcpFlags { mask, value } => {
                out.extend(l4(TCP));
                out.extend([transport(13, 1), and(R1, &[*mask]), eq(&[*value])]);
            }
            Step::Dport { proto, range, within } => {
                out.extend(l4(number(*proto)));
                out.push(transport(2, 2));
                let (first, last) = (range.0.to_be_bytes(), range.1.to_be_bytes());
                if *within {
                    out.extend([cmp(libc::NFT_CMP_GTE, &first), cmp(libc::NFT_CMP_LTE, &last)]);
                } else {
                    out.push(outside(&first, &last));
                }
            }
            Step::DportNotIn { proto, set } => {
                out.extend(l4(number(*proto)));
                out.extend([
                    transport(2, 2),
                    lookup(set).with(ffi::NFTNL_EXPR_LOOKUP_FLAGS, INVERTED),
                ]);
            }
            Step::UdpPorts { sport, dport } => {
                out.extend(l4(UDP));
                let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                out.extend([transport(0, 4), eq(&ports)]);
            }
            Step::LinkLocalSource => {
                let source = Source {
                    family: Family::V6,
                    len: 10,
                };
                out.extend(source_to(R1, source));
                out.push(eq(&[&[0xfe, 0x80][..], &[0; 14]].concat()));
            }
            Step::SourceIn(source, set) => {
                out.extend(source_to(R1, *source));
                out.push(lookup(set));
            }
            Step::EchoRequest(family) => {
                out.extend(icmp(*family));
                let kind = match family {
                    Family::V4 => ICMP_ECHO,
                    Family::V6 => ICMPV6_ECHO_REQUEST,
                };
                out.extend([transport(0, 1), eq(&[kind])]);
            }
            Step::FragmentationNeeded => {
                out.extend(icmp(Family::V4));
                out.extend([transport(0, 2), eq(&[ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED])]);
            }
            Step::Vital6 => {
                out.extend(icmp(Family::V6));
                out.push(transport(0, 1));
                let set = self.anonymous(TYPE_ICMP6_TYPE, 1, &VITAL6.map(|(kind, _)| vec![kind]));
                rule.expressions.push(set.lookup());
                rule.sets.extend(set.messages);
            }
            Step::Icmp => {
                out.push(meta(libc::NFT_META_L4PROTO));
                let set = self.protocols([ICMP, ICMPV6]);
                rule.expressions.push(set.lookup());
                rule.sets.extend(set.messages);
            }
            Step::NotTcpOrUdp => {
                out.push(meta(libc::NFT_META_L4PROTO));
                let set = self.protocols([TCP, UDP]);
                let inverted = set.lookup().with(ffi::NFTNL_EXPR_LOOKUP_FLAGS, INVERTED);
                rule.expressions.push(inverted);
                rule.sets.extend(set.messages);
            }
            Step::LaterFragment(family) => out.extend(later_fragment(*family)),
            Step::FirstFragment(family) => {
                out.extend(more_fragments(*family));
                out.extend(l4(TCP));
            }
            Step::OverLimit(source, set) => {
                out.extend(source_to(R1, *source));
                out.push(over_limit(set));
            }
            Step::OverRate { per_second, burst } => out.push(over_rate(*per_second, *burst)),
            Step::Beat => out.extend([
                meta(libc::NFT_META_MARK),
                and(R1, &alive::MARK_MASK.to_ne_bytes()),
                eq(&alive::MARK.to_ne_bytes()),
            ]),
            Step::Revive => out.extend([meta(libc::NFT_META_MARK), update(alive::ALIVE)]),
            Step::Silent(worker) => out.extend([
                meta(libc::NFT_META_MARK),
                constant(&alive::mark(*worker).to_ne_bytes()),
                lookup(alive::ALIVE).with(ffi::NFTNL_EXPR_LOOKUP_FLAGS, INVERTED),
            ]),
            Step::Counter => out.push(Expression::new(c"counter")),
            Step::Log { group, fate } => out.push(log(*group, fate.word())),
            Step::Queue { number, bypass } => out.push(match self.backend {
                Backend::Native => native_queue(*number, *bypass),
                Backend::Xt => xt_queue(*number, *bypass),
            }),
            Step::Split { source, seed, chains } => {
                out.extend(source_to(R2, *source));
                out.push(jhash(source.family, *seed, chains.len() as u32));
                let map = self.verdict_map(chains);
                let verdict = Value::U32(libc::NFT_REG_VERDICT as u32);
                rule.expressions
                    .push(map.lookup().with(ffi::NFTNL_EXPR_LOOKUP_DREG, verdict));
                rule.sets.extend(map.messages);
            }
            Step::Goto(chain) => {
                let chain = Value::Name(c_string(chain));
                out.push(verdict(libc::NFT_GOTO).with(ffi::NFTNL_EXPR_IMM_CHAIN, chain));
            }
            Step::Accept => out.push(verdict(libc::NF_ACCEPT)),
            Step::Drop => out.push(verdict(libc::NF_DROP)),
        }
    }

    fn protocols(&mut self, protocols: [u8; 2]) -> Anonymous {
        self.anonymous(TYPE_INET_PROTOCOL, 1, &protocols.map(|number| vec![number]))
    }

    /// A constant set without a name, for the one rule that looks it up.
    fn anonymous(&mut self, kind: u32, width: u32, values: &[Vec<u8>]) -> Anonymous {
        let flags = libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT;
        let mut set = self.begin(
            c"__set%d",
            flags as u32,
            kind,
            width,
            BIG_ENDIAN,
            values.len(),
            |_| (),
        );
        set.messages
            .push(self.elements(&set, values.len(), |builder, at| {
                put_key(builder, &values[at]);
            }));
        set
    }

    /// A constant map from 0, 1, 2 … to `goto` a chain.
    fn verdict_map(&mut self, chains: &[String]) -> Anonymous {
        let flags = libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT | libc::NFT_SET_MAP;
        let size = chains.len();
        let mut map = self.begin(
            c"__map%d",
            flags as u32,
            TYPE_INTEGER,
            4,
            HOST_ENDIAN,
            size,
            |builder| {
                builder.put_be32(NFTA_SET_DATA_TYPE, libc::NFT_DATA_VERDICT);
                builder.put_be32(NFTA_SET_DATA_LEN, VERDICT_BYTES);
            },
        );
        map.messages.push(self.elements(&map, size, |builder, at| {
            put_key(builder, &(at as u32).to_ne_bytes());
            let data = builder.open(NFTA_SET_ELEM_DATA);
            let verdict = builder.open(NFTA_DATA_VERDICT);
            builder.put_be32(NFTA_VERDICT_CODE, libc::NFT_GOTO as u32);
            builder.put_str(NFTA_VERDICT_CHAIN, &chains[at]);
            builder.close(verdict);
            builder.close(data);
        }));
        map
    }

    #[expect(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        name: &'static CStr,
        flags: u32,
        kind: u32,
        width: u32,
        order: u32,
        size: usize,
        rest: impl FnOnce(&mut Builder),
    ) -> Anonymous {
        self.set_id += 1;
        let mut builder = message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE);
        builder.put_str(NFTA_SET_TABLE, self.table);
        builder.put_str(NFTA_SET_NAME, &name.to_string_lossy());
        builder.put_be32(NFTA_SET_FLAGS, flags);
        builder.put_be32(NFTA_SET_KEY_TYPE, kind);
        builder.put_be32(NFTA_SET_KEY_LEN, width);
        rest(&mut builder);
        builder.put_be32(NFTA_SET_ID, self.set_id);
        put_size(&mut builder, size as u32);
        builder.put(NFTA_SET_USERDATA, &set_userdata(order, None));
        Anonymous {
            name,
            id: self.set_id,
            messages: vec![Message::new(builder.bytes())],
        }
    }

    fn elements(&self, set: &Anonymous, count: usize, each: impl Fn(&mut Builder, usize)) -> Message {
        let mut builder = message(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE);
        builder.put_str(NFTA_SET_ELEM_LIST_TABLE, self.table);
        builder.put_str(NFTA_SET_ELEM_LIST_SET, &set.name.to_string_lossy());
        builder.put_be32(NFTA_SET_ELEM_LIST_SET_ID, set.id);
        let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
        for at in 0..count {
            let element = builder.open(NFTA_LIST_ELEM);
            each(&mut builder, at);
            builder.close(element);
        }
        builder.close(list);
        Message::new(builder.bytes())
    }
}

struct Anonymous {
    name: &'static CStr,
    id: u32,
    messages: Vec<Message>,
}

impl Anonymous {
    fn lookup(&self) -> Expression {
        lookup(&self.name.to_string_lossy()).with(ffi::NFTNL_EXPR_LOOKUP_SET_ID, Value::U32(self.id))
    }
}

/// Width of a verdict as map data: what nft gives (the kernel asks only that it is not zero).
const VERDICT_BYTES: u32 = 16;
