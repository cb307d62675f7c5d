//! Table, chains, sets and elements as netlink messages. `nftnl` has types for some of them, but none that
//! carries a comment, a timeout or a size, and its sets are added exclusively.

use super::alive;
use super::mend::First;
use super::model::{Chain, Interval, Key, Set, SetKind};
use super::spec::{Family, parse_ban_set_name};
use super::sys::Message;
use super::uapi::*;
use super::{BAN_GC_SECONDS, LIMIT_SET_SIZE, LIMIT_TIMEOUT_SECONDS, MARK, TABLE};
use crate::core::prefix::Prefix;
use crate::kernel::netlink::{Builder, nfnl_type};
use crate::kernel::setelem;

/// The table itself, marked as ours. `flags` never say dormant, which wakes it if somebody made it so.
pub(super) fn add_table(table: &str, flags: u32) -> Message {
    let mut builder = message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE);
    builder.put_str(NFTA_TABLE_NAME, table);
    builder.put_be32(NFTA_TABLE_FLAGS, flags);
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
        SetKind::Alive { .. } => {
            put_size(&mut builder, alive::SIZE);
            builder.put_be32(NFTA_SET_GC_INTERVAL, alive::GC_SECONDS * 1000);
            builder.put_be64(NFTA_SET_TIMEOUT, alive::millis(alive::BEAT_LASTS));
        }
        SetKind::Filter(_) => {}
    }
    let userdata = set_userdata(set.key.order(), Some(&set.comment));
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

/// Those of `bans` that belong into the set of bans called `name`, in messages of bounded size.
pub(super) fn first_bans(name: &str, bans: First<'_>) -> Vec<Message> {
    let Some((family, len)) = parse_ban_set_name(name) else {
        return Vec::new();
    };
    let set = |target: &Prefix| (Family::of(target), target.len()) == (family, len);
    let bans: Vec<_> = bans.iter().copied().filter(|(target, _)| set(target)).collect();
    setelem::messages(&bans)
        .map(|bytes| Message::new(&bytes))
        .collect()
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
            Key::Mark => (TYPE_MARK, 4),
        }
    }

    fn order(self) -> u32 {
        match self {
            Key::Addr(_) | Key::Port => BIG_ENDIAN,
            Key::Mark => HOST_ENDIAN,
        }
    }
}

impl SetKind {
    pub(super) fn flags(&self) -> u32 {
        let flags = match self {
            SetKind::Bans { .. } => libc::NFT_SET_TIMEOUT,
            SetKind::Filter(_) => libc::NFT_SET_INTERVAL,
            SetKind::Limits | SetKind::Alive { .. } => libc::NFT_SET_EVAL | libc::NFT_SET_TIMEOUT,
        };
        flags as u32
    }
}

pub(super) fn message(kind: i32, flags: i32) -> Builder {
    let mut builder = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, kind);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags;
    builder.nfnetlink(kind, flags, 0, libc::NFPROTO_INET, 0);
    builder
}

pub(super) fn put_key(builder: &mut Builder, key: &[u8]) {
    let nest = builder.open(NFTA_SET_ELEM_KEY);
    builder.put(NFTA_DATA_VALUE, key);
    builder.close(nest);
}

pub(super) fn put_size(builder: &mut Builder, size: u32) {
    let description = builder.open(NFTA_SET_DESC);
    builder.put_be32(NFTA_SET_DESC_SIZE, size);
    builder.close(description);
}

/// nft's notes on a set: the byte order of its keys, and a comment.
pub(super) fn set_userdata(order: u32, text: Option<&str>) -> Vec<u8> {
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

/// A bound of an IPv6 set takes 40 bytes; a nested attribute holds 64 KiB.
const BOUNDS_PER_MESSAGE: usize = 1000;
