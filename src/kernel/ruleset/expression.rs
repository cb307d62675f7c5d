//! The kernel's expressions, one function each, in libnftnl's attributes.

use std::ffi::CString;

use nftnl::nftnl_sys as ffi;

use super::model::{Source, mask};
use super::spec::Family;
use super::sys::{Expression, Value};
use super::uapi::*;
use super::{LIMIT_BURST, LIMIT_PER_SECOND, LOG_THRESHOLD, SNAPLEN};
use crate::core::verdict::Proto;

pub(super) fn meta(key: i32) -> Expression {
    Expression::new(c"meta")
        .with(ffi::NFTNL_EXPR_META_KEY, Value::U32(key as u32))
        .with(ffi::NFTNL_EXPR_META_DREG, R1)
}

pub(super) fn ct(key: i32) -> Expression {
    Expression::new(c"ct")
        .with(ffi::NFTNL_EXPR_CT_KEY, Value::U32(key as u32))
        .with(ffi::NFTNL_EXPR_CT_DREG, R1)
}

pub(super) fn payload(register: Value, base: i32, offset: u32, length: u32) -> Expression {
    Expression::new(c"payload")
        .with(ffi::NFTNL_EXPR_PAYLOAD_DREG, register)
        .with(ffi::NFTNL_EXPR_PAYLOAD_BASE, Value::U32(base as u32))
        .with(ffi::NFTNL_EXPR_PAYLOAD_OFFSET, Value::U32(offset))
        .with(ffi::NFTNL_EXPR_PAYLOAD_LEN, Value::U32(length))
}

pub(super) fn transport(offset: u32, length: u32) -> Expression {
    payload(R1, libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, length)
}

pub(super) fn and(register: Value, mask: &[u8]) -> Expression {
    Expression::new(c"bitwise")
        .with(ffi::NFTNL_EXPR_BITWISE_SREG, register.clone())
        .with(ffi::NFTNL_EXPR_BITWISE_DREG, register)
        .with(ffi::NFTNL_EXPR_BITWISE_LEN, Value::U32(mask.len() as u32))
        .with(ffi::NFTNL_EXPR_BITWISE_MASK, Value::Bytes(mask.into()))
        .with(ffi::NFTNL_EXPR_BITWISE_XOR, Value::Bytes(vec![0; mask.len()]))
}

/// Whatever the register holds, it holds this from here on: an `immediate` that nft has words for.
pub(super) fn constant(value: &[u8]) -> Expression {
    let nothing = vec![0; value.len()];
    and(R1, &nothing).with(ffi::NFTNL_EXPR_BITWISE_XOR, Value::Bytes(value.into()))
}

pub(super) fn cmp(op: i32, data: &[u8]) -> Expression {
    Expression::new(c"cmp")
        .with(ffi::NFTNL_EXPR_CMP_SREG, R1)
        .with(ffi::NFTNL_EXPR_CMP_OP, Value::U32(op as u32))
        .with(ffi::NFTNL_EXPR_CMP_DATA, Value::Bytes(data.into()))
}

pub(super) fn eq(data: &[u8]) -> Expression {
    cmp(libc::NFT_CMP_EQ, data)
}

pub(super) fn ne(data: &[u8]) -> Expression {
    cmp(libc::NFT_CMP_NEQ, data)
}

pub(super) fn outside(first: &[u8], last: &[u8]) -> Expression {
    Expression::new(c"range")
        .with(ffi::NFTNL_EXPR_RANGE_SREG, R1)
        .with(ffi::NFTNL_EXPR_RANGE_OP, Value::U32(libc::NFT_RANGE_NEQ as u32))
        .with(ffi::NFTNL_EXPR_RANGE_FROM_DATA, Value::Bytes(first.into()))
        .with(ffi::NFTNL_EXPR_RANGE_TO_DATA, Value::Bytes(last.into()))
}

pub(super) fn lookup(set: &str) -> Expression {
    Expression::new(c"lookup")
        .with(ffi::NFTNL_EXPR_LOOKUP_SREG, R1)
        .with(ffi::NFTNL_EXPR_LOOKUP_SET, Value::Name(c_string(set)))
}

pub(super) fn verdict(code: i32) -> Expression {
    let register = Value::U32(libc::NFT_REG_VERDICT as u32);
    Expression::new(c"immediate")
        .with(ffi::NFTNL_EXPR_IMM_DREG, register)
        .with(ffi::NFTNL_EXPR_IMM_VERDICT, Value::U32(code as u32))
}

pub(super) fn fib_daddr_type() -> Expression {
    Expression::new(c"fib")
        .with(ffi::NFTNL_EXPR_FIB_DREG, R1)
        .with(ffi::NFTNL_EXPR_FIB_RESULT, Value::U32(NFT_FIB_RESULT_ADDRTYPE))
        .with(ffi::NFTNL_EXPR_FIB_FLAGS, Value::U32(NFTA_FIB_F_DADDR))
}

pub(super) fn socket_wildcard() -> Expression {
    Expression::new(c"socket")
        .with(ffi::NFTNL_EXPR_SOCKET_KEY, Value::U32(NFT_SOCKET_WILDCARD))
        .with(ffi::NFTNL_EXPR_SOCKET_DREG, R1)
}

pub(super) fn jhash(family: Family, seed: u32, modulus: u32) -> Expression {
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

pub(super) fn over_rate(per_second: u64, burst: u32) -> Expression {
    Expression::new(c"limit")
        .with(ffi::NFTNL_EXPR_LIMIT_RATE, Value::U64(per_second))
        .with(ffi::NFTNL_EXPR_LIMIT_UNIT, Value::U64(1))
        .with(ffi::NFTNL_EXPR_LIMIT_BURST, Value::U32(burst))
        .with(
            ffi::NFTNL_EXPR_LIMIT_TYPE,
            Value::U32(libc::NFT_LIMIT_PKTS as u32),
        )
        .with(
            ffi::NFTNL_EXPR_LIMIT_FLAGS,
            Value::U32(libc::NFT_LIMIT_F_INV as u32),
        )
}

pub(super) fn over_limit(set: &str) -> Expression {
    let limit = over_rate(LIMIT_PER_SECOND, LIMIT_BURST);
    update(set).with(ffi::NFTNL_EXPR_DYNSET_EXPR, Value::Inner(limit.into()))
}

/// An element for what is in the register: made, or its timeout begun anew.
pub(super) fn update(set: &str) -> Expression {
    Expression::new(c"dynset")
        .with(ffi::NFTNL_EXPR_DYNSET_SREG_KEY, R1)
        .with(
            ffi::NFTNL_EXPR_DYNSET_OP,
            Value::U32(libc::NFT_DYNSET_OP_UPDATE as u32),
        )
        .with(ffi::NFTNL_EXPR_DYNSET_SET_NAME, Value::Name(c_string(set)))
}

pub(super) fn log(group: u16, prefix: &str) -> Expression {
    Expression::new(c"log")
        .with(ffi::NFTNL_EXPR_LOG_PREFIX, Value::Name(c_string(prefix)))
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
pub(super) fn source_to(register: Value, source: Source) -> Vec<Expression> {
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

pub(super) fn l4(proto: u8) -> [Expression; 2] {
    [meta(libc::NFT_META_L4PROTO), eq(&[proto])]
}

/// Its bytes do not begin with the transport header.
pub(super) fn later_fragment(family: Family) -> Vec<Expression> {
    match family {
        Family::V4 => v4_fragment(V4_FRAGMENT_OFFSET),
        Family::V6 => v6_fragment([
            fragment_header(2, 2),
            and(R1, &V6_FRAGMENT_OFFSET.to_be_bytes()),
            ne(&[0; 2]),
        ]),
    }
}

/// It is not the last.
pub(super) fn more_fragments(family: Family) -> Vec<Expression> {
    match family {
        Family::V4 => v4_fragment(V4_MORE_FRAGMENTS),
        Family::V6 => v6_fragment([
            fragment_header(3, 1),
            and(R1, &[V6_MORE_FRAGMENTS]),
            eq(&[V6_MORE_FRAGMENTS]),
        ]),
    }
}

fn v4_fragment(bits: u16) -> Vec<Expression> {
    vec![
        meta(libc::NFT_META_NFPROTO),
        eq(&[libc::NFPROTO_IPV4 as u8]),
        payload(R1, libc::NFT_PAYLOAD_NETWORK_HEADER, 6, 2),
        and(R1, &bits.to_be_bytes()),
        ne(&[0; 2]),
    ]
}

fn v6_fragment(rest: [Expression; 3]) -> Vec<Expression> {
    let mut expressions = vec![meta(libc::NFT_META_NFPROTO), eq(&[libc::NFPROTO_IPV6 as u8])];
    expressions.extend(rest);
    expressions
}

fn fragment_header(offset: u32, length: u32) -> Expression {
    Expression::new(c"exthdr")
        .with(ffi::NFTNL_EXPR_EXTHDR_DREG, R1)
        .with(ffi::NFTNL_EXPR_EXTHDR_TYPE, Value::U8(V6_FRAGMENT_HEADER))
        .with(ffi::NFTNL_EXPR_EXTHDR_OFFSET, Value::U32(offset))
        .with(ffi::NFTNL_EXPR_EXTHDR_LEN, Value::U32(length))
}

pub(super) fn icmp(family: Family) -> Vec<Expression> {
    let (family, proto) = match family {
        Family::V4 => (libc::NFPROTO_IPV4, ICMP),
        Family::V6 => (libc::NFPROTO_IPV6, ICMPV6),
    };
    let mut expressions = vec![meta(libc::NFT_META_NFPROTO), eq(&[family as u8])];
    expressions.extend(l4(proto));
    expressions
}

pub(super) fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => TCP,
        Proto::Udp => UDP,
    }
}

/// An interface name fills its field; with a trailing `*` only what stands before is compared.
pub(super) fn interface(name: &str) -> Vec<u8> {
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

pub(super) const R1: Value = Value::U32(libc::NFT_REG_1 as u32);
pub(super) const R2: Value = Value::U32(libc::NFT_REG_2 as u32);
pub(super) const INVERTED: Value = Value::U32(libc::NFT_LOOKUP_F_INV as u32);
