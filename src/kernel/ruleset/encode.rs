//! The table as the kernel takes it: steps to expressions, sets and chains to messages.
//!
//! Every sequence of expressions is the one that nft itself makes of the same words (`nft --debug=netlink`),
//! so that nft lists our rules as they are written in [`super::text`].

use std::ffi::{CStr, CString};

use nftnl::nftnl_sys as ffi;

use super::model::{Chain, Interval, Key, Set, SetKind, Source, Step, mask};
use super::spec::{Backend, Family};
use super::sys::{Expression, Message, Value};
use super::text::VITAL6;
use super::uapi::*;
use super::{BAN_GC_SECONDS, LIMIT_BURST, LIMIT_PER_SECOND, LIMIT_SET_SIZE, LIMIT_TIMEOUT_SECONDS};
use super::{LOG_THRESHOLD, MARK, SNAPLEN, TABLE};
use crate::core::verdict::Proto;
use crate::kernel::netlink::{Builder, nfnl_type};

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
            Step::NotTcpOrUdp => {
                out.push(meta(libc::NFT_META_L4PROTO));
                let protos = [TCP, UDP].map(|proto| vec![proto]);
                let set = self.anonymous(TYPE_INET_PROTOCOL, 1, &protos);
                let inverted = set.lookup().with(ffi::NFTNL_EXPR_LOOKUP_FLAGS, INVERTED);
                rule.expressions.push(inverted);
                rule.sets.extend(set.messages);
            }
            Step::OverLimit(source, set) => {
                out.extend(source_to(R1, *source));
                out.push(over_limit(set));
            }
            Step::Counter => out.push(Expression::new(c"counter")),
            Step::Log(group) => out.push(log(*group)),
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

/// The table itself, marked as ours. Carries no flags, which wakes it if somebody made it dormant.
pub(super) fn add_table(table: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
    builder.put_str(NFTA_TABLE_NAME, table);
    builder.put_be32(NFTA_TABLE_FLAGS, 0);
    builder.put(NFTA_TABLE_USERDATA, &comment(UDATA_COMMENT, MARK));
    Message::new(builder.bytes())
}

pub(super) fn delete_table(table: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_DELTABLE, 0);
    builder.put_str(NFTA_TABLE_NAME, table);
    Message::new(builder.bytes())
}

/// Adds a chain, or leaves it as it is with its policy set back to accept.
pub(super) fn add_chain(chain: &Chain) -> Message {
    let mut builder = message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE);
    builder.put_str(NFTA_CHAIN_TABLE, TABLE);
    builder.put_str(NFTA_CHAIN_NAME, &chain.name);
    if let Some(priority) = chain.priority {
        let hook = builder.open(NFTA_CHAIN_HOOK);
        builder.put_be32(NFTA_HOOK_HOOKNUM, libc::NF_INET_PRE_ROUTING as u32);
        builder.put_be32(NFTA_HOOK_PRIORITY, priority as u32);
        builder.close(hook);
        builder.put_be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32);
        builder.put_str(NFTA_CHAIN_TYPE, "filter");
    }
    builder.put(NFTA_CHAIN_USERDATA, &comment(UDATA_COMMENT, &chain.comment));
    Message::new(builder.bytes())
}

pub(super) fn delete_chain(name: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_DELCHAIN, 0);
    builder.put_str(NFTA_CHAIN_TABLE, TABLE);
    builder.put_str(NFTA_CHAIN_NAME, name);
    Message::new(builder.bytes())
}

/// Takes every rule out of a chain.
pub(super) fn flush_chain(name: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_DELRULE, 0);
    builder.put_str(NFTA_RULE_TABLE, TABLE);
    builder.put_str(NFTA_RULE_CHAIN, name);
    Message::new(builder.bytes())
}

pub(super) fn add_set(set: &Set, id: u32) -> Message {
    let mut builder = message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE);
    let (kind, width) = set.key.kind();
    builder.put_str(NFTA_SET_TABLE, TABLE);
    builder.put_str(NFTA_SET_NAME, &set.name);
    builder.put_be32(NFTA_SET_FLAGS, set.kind.flags());
    builder.put_be32(NFTA_SET_KEY_TYPE, kind);
    builder.put_be32(NFTA_SET_KEY_LEN, width);
    builder.put_be32(NFTA_SET_ID, id);
    match set.kind {
        SetKind::Bans { size } => {
            put_size(&mut builder, size);
            builder.put_be32(NFTA_SET_GC_INTERVAL, BAN_GC_SECONDS * 1000);
        }
        SetKind::Limits => {
            put_size(&mut builder, LIMIT_SET_SIZE);
            let timeout = u64::from(LIMIT_TIMEOUT_SECONDS) * 1000;
            builder.put_be64(NFTA_SET_TIMEOUT, timeout);
        }
        SetKind::Filter(_) => {}
    }
    let userdata = set_userdata(BIG_ENDIAN, Some(&set.comment));
    builder.put(NFTA_SET_USERDATA, &userdata);
    Message::new(builder.bytes())
}

pub(super) fn delete_set(name: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_DELSET, 0);
    builder.put_str(NFTA_SET_TABLE, TABLE);
    builder.put_str(NFTA_SET_NAME, name);
    Message::new(builder.bytes())
}

/// Takes every element out of a set.
pub(super) fn flush_set(name: &str) -> Message {
    let mut builder = message(libc::NFT_MSG_DELSETELEM, 0);
    builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    builder.put_str(NFTA_SET_ELEM_LIST_SET, name);
    Message::new(builder.bytes())
}

/// Fills an interval set, in messages of bounded size.
pub(super) fn fill_set(name: &str, intervals: &[Interval]) -> Vec<Message> {
    let bounds: Vec<Bound> = bounds(intervals);
    let messages = bounds.chunks(BOUNDS_PER_MESSAGE).map(|chunk| {
        let mut builder = message(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE);
        builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
        builder.put_str(NFTA_SET_ELEM_LIST_SET, name);
        let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
        for bound in chunk {
            let element = builder.open(NFTA_LIST_ELEM);
            if bound.end {
                builder.put_be32(NFTA_SET_ELEM_FLAGS, libc::NFT_SET_ELEM_INTERVAL_END as u32);
            }
            put_key(&mut builder, &bound.key);
            if bound.open {
                builder.put(NFTA_SET_ELEM_USERDATA, &OPEN_INTERVAL);
            }
            builder.close(element);
        }
        builder.close(list);
        Message::new(builder.bytes())
    });
    messages.collect()
}

/// Where an interval of an interval set begins or, with `end`, is over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bound {
    pub(super) key: Vec<u8>,
    pub(super) end: bool,
    open: bool,
}

/// The elements that stand for `intervals`: like nft, with an end at zero if nothing begins there.
pub(super) fn bounds(intervals: &[Interval]) -> Vec<Bound> {
    let mut bounds = Vec::with_capacity(2 * intervals.len() + 1);
    if let Some(interval) = intervals.first()
        && interval.first.iter().any(|byte| *byte != 0)
    {
        bounds.push(Bound {
            key: vec![0; interval.first.len()],
            end: true,
            open: false,
        });
    }
    for interval in intervals {
        let after = interval.after();
        bounds.push(Bound {
            key: interval.first.clone(),
            end: false,
            open: after.is_none(),
        });
        bounds.extend(after.map(|key| Bound {
            key,
            end: true,
            open: false,
        }));
    }
    bounds
}

impl Key {
    /// nft's number of the type, and its width.
    pub(super) fn kind(self) -> (u32, u32) {
        match self {
            Key::Addr(Family::V4) => (TYPE_IPADDR, 4),
            Key::Addr(Family::V6) => (TYPE_IP6ADDR, 16),
            Key::Port => (TYPE_INET_SERVICE, 2),
        }
    }
}

impl SetKind {
    pub(super) fn flags(&self) -> u32 {
        let flags = match self {
            SetKind::Bans { .. } => libc::NFT_SET_TIMEOUT,
            SetKind::Filter(_) => libc::NFT_SET_INTERVAL,
            SetKind::Limits => libc::NFT_SET_EVAL | libc::NFT_SET_TIMEOUT,
        };
        flags as u32
    }
}

fn message(kind: i32, flags: i32) -> Builder {
    let mut builder = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, kind);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags;
    builder.nfnetlink(kind, flags, 0, libc::NFPROTO_INET, 0);
    builder
}

fn put_key(builder: &mut Builder, key: &[u8]) {
    let nest = builder.open(NFTA_SET_ELEM_KEY);
    builder.put(NFTA_DATA_VALUE, key);
    builder.close(nest);
}

fn put_size(builder: &mut Builder, size: u32) {
    let description = builder.open(NFTA_SET_DESC);
    builder.put_be32(NFTA_SET_DESC_SIZE, size);
    builder.close(description);
}

/// nft's notes on a set: the byte order of its keys, and a comment.
fn set_userdata(order: u32, text: Option<&str>) -> Vec<u8> {
    let mut userdata = vec![UDATA_SET_KEYBYTEORDER, 4];
    userdata.extend(order.to_ne_bytes());
    if let Some(text) = text {
        userdata.extend(comment(UDATA_SET_COMMENT, text));
    }
    userdata
}

/// A comment among nft's notes: type, length, text, zero.
fn comment(kind: u8, text: &str) -> Vec<u8> {
    let mut userdata = vec![kind, text.len() as u8 + 1];
    userdata.extend(text.as_bytes());
    userdata.push(0);
    userdata
}

fn meta(key: i32) -> Expression {
    Expression::new(c"meta")
        .with(ffi::NFTNL_EXPR_META_KEY, Value::U32(key as u32))
        .with(ffi::NFTNL_EXPR_META_DREG, R1)
}

fn ct(key: i32) -> Expression {
    Expression::new(c"ct")
        .with(ffi::NFTNL_EXPR_CT_KEY, Value::U32(key as u32))
        .with(ffi::NFTNL_EXPR_CT_DREG, R1)
}

fn payload(register: Value, base: i32, offset: u32, length: u32) -> Expression {
    Expression::new(c"payload")
        .with(ffi::NFTNL_EXPR_PAYLOAD_DREG, register)
        .with(ffi::NFTNL_EXPR_PAYLOAD_BASE, Value::U32(base as u32))
        .with(ffi::NFTNL_EXPR_PAYLOAD_OFFSET, Value::U32(offset))
        .with(ffi::NFTNL_EXPR_PAYLOAD_LEN, Value::U32(length))
}

fn transport(offset: u32, length: u32) -> Expression {
    payload(R1, libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, length)
}

fn and(register: Value, mask: &[u8]) -> Expression {
    Expression::new(c"bitwise")
        .with(ffi::NFTNL_EXPR_BITWISE_SREG, register.clone())
        .with(ffi::NFTNL_EXPR_BITWISE_DREG, register)
        .with(ffi::NFTNL_EXPR_BITWISE_LEN, Value::U32(mask.len() as u32))
        .with(ffi::NFTNL_EXPR_BITWISE_MASK, Value::Bytes(mask.into()))
        .with(ffi::NFTNL_EXPR_BITWISE_XOR, Value::Bytes(vec![0; mask.len()]))
}

fn cmp(op: i32, data: &[u8]) -> Expression {
    Expression::new(c"cmp")
        .with(ffi::NFTNL_EXPR_CMP_SREG, R1)
        .with(ffi::NFTNL_EXPR_CMP_OP, Value::U32(op as u32))
        .with(ffi::NFTNL_EXPR_CMP_DATA, Value::Bytes(data.into()))
}

fn eq(data: &[u8]) -> Expression {
    cmp(libc::NFT_CMP_EQ, data)
}

fn ne(data: &[u8]) -> Expression {
    cmp(libc::NFT_CMP_NEQ, data)
}

fn outside(first: &[u8], last: &[u8]) -> Expression {
    Expression::new(c"range")
        .with(ffi::NFTNL_EXPR_RANGE_SREG, R1)
        .with(ffi::NFTNL_EXPR_RANGE_OP, Value::U32(libc::NFT_RANGE_NEQ as u32))
        .with(ffi::NFTNL_EXPR_RANGE_FROM_DATA, Value::Bytes(first.into()))
        .with(ffi::NFTNL_EXPR_RANGE_TO_DATA, Value::Bytes(last.into()))
}

fn lookup(set: &str) -> Expression {
    Expression::new(c"lookup")
        .with(ffi::NFTNL_EXPR_LOOKUP_SREG, R1)
        .with(ffi::NFTNL_EXPR_LOOKUP_SET, Value::Name(c_string(set)))
}

fn verdict(code: i32) -> Expression {
    let register = Value::U32(libc::NFT_REG_VERDICT as u32);
    Expression::new(c"immediate")
        .with(ffi::NFTNL_EXPR_IMM_DREG, register)
        .with(ffi::NFTNL_EXPR_IMM_VERDICT, Value::U32(code as u32))
}

fn fib_daddr_type() -> Expression {
    Expression::new(c"fib")
        .with(ffi::NFTNL_EXPR_FIB_DREG, R1)
        .with(ffi::NFTNL_EXPR_FIB_RESULT, Value::U32(NFT_FIB_RESULT_ADDRTYPE))
        .with(ffi::NFTNL_EXPR_FIB_FLAGS, Value::U32(NFTA_FIB_F_DADDR))
}

fn socket_wildcard() -> Expression {
    Expression::new(c"socket")
        .with(ffi::NFTNL_EXPR_SOCKET_KEY, Value::U32(NFT_SOCKET_WILDCARD))
        .with(ffi::NFTNL_EXPR_SOCKET_DREG, R1)
}

fn jhash(family: Family, seed: u32, modulus: u32) -> Expression {
    Expression::new(c"hash")
        .with(ffi::NFTNL_EXPR_HASH_SREG, R2)
        .with(ffi::NFTNL_EXPR_HASH_DREG, R1)
        .with(
            ffi::NFTNL_EXPR_HASH_LEN,
            Value::U32(u32::from(family.width() / 8)),
        )
        .with(ffi::NFTNL_EXPR_HASH_MODULUS, Value::U32(modulus))
        .with(ffi::NFTNL_EXPR_HASH_SEED, Value::U32(seed))
        .with(ffi::NFTNL_EXPR_HASH_TYPE, Value::U32(NFT_HASH_JENKINS))
}

fn over_limit(set: &str) -> Expression {
    let limit = Expression::new(c"limit")
        .with(ffi::NFTNL_EXPR_LIMIT_RATE, Value::U64(LIMIT_PER_SECOND))
        .with(ffi::NFTNL_EXPR_LIMIT_UNIT, Value::U64(1))
        .with(ffi::NFTNL_EXPR_LIMIT_BURST, Value::U32(LIMIT_BURST))
        .with(
            ffi::NFTNL_EXPR_LIMIT_TYPE,
            Value::U32(libc::NFT_LIMIT_PKTS as u32),
        )
        .with(
            ffi::NFTNL_EXPR_LIMIT_FLAGS,
            Value::U32(libc::NFT_LIMIT_F_INV as u32),
        );
    Expression::new(c"dynset")
        .with(ffi::NFTNL_EXPR_DYNSET_SREG_KEY, R1)
        .with(
            ffi::NFTNL_EXPR_DYNSET_OP,
            Value::U32(libc::NFT_DYNSET_OP_UPDATE as u32),
        )
        .with(ffi::NFTNL_EXPR_DYNSET_SET_NAME, Value::Name(c_string(set)))
        .with(ffi::NFTNL_EXPR_DYNSET_EXPR, Value::Inner(limit.into()))
}

fn log(group: u16) -> Expression {
    Expression::new(c"log")
        .with(ffi::NFTNL_EXPR_LOG_GROUP, Value::U16(group))
        .with(ffi::NFTNL_EXPR_LOG_SNAPLEN, Value::U32(SNAPLEN))
        .with(ffi::NFTNL_EXPR_LOG_QTHRESHOLD, Value::U16(LOG_THRESHOLD))
}

pub(super) fn native_queue(number: u16, bypass: bool) -> Expression {
    let flags = if bypass { libc::NFT_QUEUE_FLAG_BYPASS } else { 0 };
    Expression::new(c"queue")
        .with(ffi::NFTNL_EXPR_QUEUE_NUM, Value::U16(number))
        .with(ffi::NFTNL_EXPR_QUEUE_TOTAL, Value::U16(1))
        .with(ffi::NFTNL_EXPR_QUEUE_FLAGS, Value::U16(flags as u16))
}

/// struct xt_NFQ_info_v3: queuenum, queues_total, flags (include/uapi/linux/netfilter/xt_NFQUEUE.h), padded
/// to XT_ALIGN.
pub(super) fn xt_queue(number: u16, bypass: bool) -> Expression {
    let flags = if bypass { NFQ_FLAG_BYPASS } else { 0 };
    let info = [number, 1, flags, 0].map(u16::to_ne_bytes).concat();
    Expression::new(c"target")
        .with(ffi::NFTNL_EXPR_TG_NAME, Value::Name(c"NFQUEUE".into()))
        .with(ffi::NFTNL_EXPR_TG_REV, Value::U32(3))
        .with(ffi::NFTNL_EXPR_TG_INFO, Value::Owned(info))
}

/// Family check, address, mask: what is matched, limited or hashed as one source.
fn source_to(register: Value, source: Source) -> Vec<Expression> {
    let (proto, offset, length) = match source.family {
        Family::V4 => (libc::NFPROTO_IPV4, 12, 4),
        Family::V6 => (libc::NFPROTO_IPV6, 8, 16),
    };
    let address = payload(register.clone(), libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length);
    let mut expressions = vec![meta(libc::NFT_META_NFPROTO), eq(&[proto as u8]), address];
    if source.len != source.family.width() {
        expressions.push(and(register, &mask(source.len, length as usize)));
    }
    expressions
}

fn l4(proto: u8) -> [Expression; 2] {
    [meta(libc::NFT_META_L4PROTO), eq(&[proto])]
}

fn icmp(family: Family) -> Vec<Expression> {
    let (family, proto) = match family {
        Family::V4 => (libc::NFPROTO_IPV4, ICMP),
        Family::V6 => (libc::NFPROTO_IPV6, ICMPV6),
    };
    let mut expressions = vec![meta(libc::NFT_META_NFPROTO), eq(&[family as u8])];
    expressions.extend(l4(proto));
    expressions
}

fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => TCP,
        Proto::Udp => UDP,
    }
}

/// An interface name fills its field; with a trailing `*` only what stands before is compared.
fn interface(name: &str) -> Vec<u8> {
    match name.strip_suffix('*') {
        Some(prefix) => prefix.into(),
        None => {
            let mut field = vec![0; IFNAMSIZ];
            let length = name.len().min(IFNAMSIZ - 1);
            field[..length].copy_from_slice(&name.as_bytes()[..length]);
            field
        }
    }
}

/// Without the zero bytes that no name of ours has.
pub(super) fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
}

const R1: Value = Value::U32(libc::NFT_REG_1 as u32);
const R2: Value = Value::U32(libc::NFT_REG_2 as u32);
const INVERTED: Value = Value::U32(libc::NFT_LOOKUP_F_INV as u32);

/// A bound of an IPv6 set takes 40 bytes; a nested attribute holds 64 KiB.
const BOUNDS_PER_MESSAGE: usize = 1000;
/// Width of a verdict as map data: what nft gives (the kernel asks only that it is not zero).
const VERDICT_BYTES: u32 = 16;
