//! The dead man's switch that the kernel holds: the set of workers that beat, read, and written where beats do not
//! come through.
//!
//! A beat refreshes its element in the packet path, without a transaction. What is written here gets a longer time: at
//! the load, so that nothing passes unjudged before the first beat, and where something between socket and
//! rule (another firewall, no lo) swallows beats. What remains of an element's time tells the two apart.

use std::collections::BTreeMap;
use std::time::Duration;

use super::apply::Transaction;
use super::messages::{message, put_key};
use super::readback::{expressions, loaded_rule};
use super::sys::Message;
use super::uapi::*;
use super::{RulesetError, TABLE};
use crate::kernel::netlink::{Attributes, Builder, Netlink, NetlinkError, be64, nfnl_type};

/// The set of workers that beat.
pub(super) const ALIVE: &str = "alive";
/// The chain of what passes because its worker does not.
pub(super) const UNJUDGED: &str = "unjudged";

/// How long a worker counts as alive after a beat: with the 250 ms between two, a SYN that met a worker just after it
/// had stopped passes by its first retransmission, a second later (RFC 6298, 2.1).
pub const BEAT_LASTS: Duration = Duration::from_millis(900);
/// How long a worker counts as alive because it was written so. It is also what a worker that stops takes to be
/// passed by where no beat comes through.
pub const GIVEN: Duration = Duration::from_secs(10);

/// The mark of a worker's beats.
pub fn mark(worker: u16) -> u32 {
    MARK | u32::from(worker)
}

/// What remains of the time of each worker in the set; none if there is no such set.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn remaining(netlink: &mut Netlink) -> Result<Option<BTreeMap<u16, Duration>>, NetlinkError> {
    let request = dump(netlink, libc::NFT_MSG_GETSETELEM, |builder| {
        builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
        builder.put_str(NFTA_SET_ELEM_LIST_SET, ALIVE);
    });
    let all = netlink.dump_whole(&request, |all: &mut BTreeMap<u16, Duration>, _, payload| {
        let lists = Attributes::after_nfgen(payload).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
        all.extend(
            lists
                .flat_map(|(_, list)| Attributes::new(list))
                .filter_map(|(_, element)| entry(element)),
        );
    });
    absent_is_none(all)
}

/// Packets that passed because their worker did not beat, since their chain was made; none if there is no such chain.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn unjudged(netlink: &mut Netlink) -> Result<Option<u64>, NetlinkError> {
    let request = dump(netlink, libc::NFT_MSG_GETRULE, |builder| {
        builder.put_str(NFTA_RULE_TABLE, TABLE);
        builder.put_str(NFTA_RULE_CHAIN, UNJUDGED);
    });
    let count = netlink.dump_whole(&request, |count: &mut Option<u64>, _, payload| {
        let (chain, rule) = loaded_rule(payload);
        let mut counters = expressions(&rule.expressions).filter(|(name, _)| *name == "counter");
        if let (UNJUDGED, Some((_, data))) = (chain.as_str(), counters.next()) {
            *count = packets(data);
        }
    });
    absent_is_none(count).map(Option::flatten)
}

/// Has these workers count as alive for `time` from now on, whatever the set says.
///
/// # Errors
/// If the kernel refuses.
pub fn give(netlink: &mut Netlink, workers: &[u16], time: Duration) -> Result<(), RulesetError> {
    let mut batch = Transaction::new();
    let part = || format!("workers {workers:?} of set \"{ALIVE}\"");
    // Added again, an element keeps its time before Linux 6.12.
    batch.add(&given(workers.iter().copied(), time), part);
    batch.add(
        &elements(libc::NFT_MSG_DELSETELEM, 0, workers.iter().copied(), None),
        part,
    );
    batch.add(&given(workers.iter().copied(), time), part);
    batch.send(netlink)
}

/// The message that does so for workers that are not in the set.
pub(super) fn given(workers: impl Iterator<Item = u16>, time: Duration) -> Message {
    elements(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, workers, Some(time))
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn elements(kind: i32, flags: i32, workers: impl Iterator<Item = u16>, time: Option<Duration>) -> Message {
    let mut builder = message(kind, flags);
    builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    builder.put_str(NFTA_SET_ELEM_LIST_SET, ALIVE);
    let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    for worker in workers {
        let element = builder.open(NFTA_LIST_ELEM);
        put_key(&mut builder, &mark(worker).to_ne_bytes());
        if let Some(time) = time {
            builder.put_be64(NFTA_SET_ELEM_TIMEOUT, millis(time));
        }
        builder.close(element);
    }
    builder.close(list);
    Message::new(builder.bytes())
}

fn dump(netlink: &mut Netlink, kind: i32, rest: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut builder = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, kind);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    builder.nfnetlink(kind, flags, netlink.take_seqs(1).start, libc::NFPROTO_INET, 0);
    rest(&mut builder);
    builder.bytes().to_vec()
}

fn entry(element: &[u8]) -> Option<(u16, Duration)> {
    let (mut key, mut expires) = (None, None);
    for (kind, value) in Attributes::new(element) {
        match kind {
            NFTA_SET_ELEM_KEY => key = Attributes::new(value).find(|(kind, _)| *kind == NFTA_DATA_VALUE),
            NFTA_SET_ELEM_EXPIRATION => expires = be64(value),
            _ => {}
        }
    }
    let mark = u32::from_ne_bytes(*key?.1.first_chunk()?);
    let worker = u16::try_from(mark & !MARK_MASK).ok()?;
    // Without a time, as an operator may write it: for ever.
    let left = expires.map_or(Duration::MAX, Duration::from_millis);
    (mark & MARK_MASK == MARK).then_some((worker, left))
}

fn packets(counter: &[u8]) -> Option<u64> {
    let found = Attributes::new(counter).find(|(kind, _)| *kind == NFTA_COUNTER_PACKETS);
    be64(found?.1)
}

fn absent_is_none<T>(asked: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// "vd", clear of the bits that Docker, Kubernetes, Tailscale and wg-quick mark with; the number of the worker follows.
pub(super) const MARK: u32 = 0x7664_0000;
/// 64 workers at most.
pub(super) const MARK_MASK: u32 = !63;
/// Expired elements count until they are collected: one a worker and hang.
pub(super) const SIZE: u32 = 1024;
pub(super) const GC_SECONDS: u32 = 10;
