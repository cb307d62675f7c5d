//! A set in our table that no rule looks at, for as long as a self-test needs to see that the kernel takes, lists and
//! expires an element there.
//!
//! The engine neither takes it for somebody's change nor is deceived by it: a set that no rule refers to does
//! nothing, and rules are compared one by one whatever this set is called. Who made it removes it; if it cannot (a kill), the
//! engine does when the self-test's time is over.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::apply::Transaction;
use super::messages::{self, message, put_key};
use super::model::{Key, Set, SetKind};
use super::spec::Family;
use super::sys::Message;
use super::uapi::*;
use super::{RulesetError, TABLE};
use crate::kernel::netlink::{Attributes, Builder, Netlink, NetlinkError, be64, nfnl_type};

/// Its name.
pub const SCRATCH: &str = "selftest";

/// Makes the set; it must not be there.
///
/// # Errors
/// If the kernel refuses: no such table, no capability.
pub fn create(netlink: &mut Netlink) -> Result<(), RulesetError> {
    let mut batch = Transaction::new();
    let set = Set {
        name: SCRATCH.into(),
        key: Key::Addr(Family::V4),
        kind: SetKind::Bans { size: 16 },
        comment: "self-test: no rule looks here, gone within 30 s".into(),
    };
    batch.add(&messages::add_set(&set, 1), || format!("set \"{SCRATCH}\""));
    batch.send(netlink)
}

/// Puts `addr` in for `timeout`.
///
/// # Errors
/// If the kernel refuses.
pub fn add(netlink: &mut Netlink, addr: Ipv4Addr, timeout: Duration) -> Result<(), RulesetError> {
    let mut batch = Transaction::new();
    let mut builder = message(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE);
    builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    builder.put_str(NFTA_SET_ELEM_LIST_SET, SCRATCH);
    let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    let element = builder.open(NFTA_LIST_ELEM);
    put_key(&mut builder, &addr.octets());
    builder.put_be64(NFTA_SET_ELEM_TIMEOUT, timeout.as_millis() as u64);
    builder.close(element);
    builder.close(list);
    batch.add(&Message::new(builder.bytes()), || {
        format!("element {addr} of set \"{SCRATCH}\"")
    });
    batch.send(netlink)
}

/// How many live elements the kernel lists there.
///
/// # Errors
/// If there is no such set.
pub fn count(netlink: &mut Netlink) -> Result<usize, NetlinkError> {
    let request = elements(netlink.take_seqs(1).start);
    netlink.dump_whole(request.bytes(), |count: &mut usize, _, payload| {
        let lists = Attributes::after_nfgen(payload).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
        *count += lists
            .map(|(_, list)| Attributes::new(list).count())
            .sum::<usize>();
    })
}

/// How long the longest-lived element there was given to live; none there: `None`.
///
/// # Errors
/// If there is no such set.
pub fn lasts(netlink: &mut Netlink) -> Result<Option<Duration>, NetlinkError> {
    let seq = netlink.take_seqs(1).start;
    let request = elements(seq);
    netlink.dump_whole(request.bytes(), |longest: &mut Option<Duration>, _, payload| {
        let lists = Attributes::after_nfgen(payload).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
        for (_, element) in lists.flat_map(|(_, list)| Attributes::new(list)) {
            let timeout = Attributes::new(element).find(|(kind, _)| *kind == NFTA_SET_ELEM_TIMEOUT);
            let given = timeout
                .and_then(|(_, value)| be64(value))
                .map(Duration::from_millis);
            *longest = given.max(*longest);
        }
    })
}

/// Asks for every element of the set.
fn elements(seq: u32) -> Builder {
    let mut builder = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_GETSETELEM);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    builder.nfnetlink(kind, flags, seq, libc::NFPROTO_INET, 0);
    builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    builder.put_str(NFTA_SET_ELEM_LIST_SET, SCRATCH);
    builder
}

/// Takes `addr` out of the set of limits on evidence, where each of its packets left it for ten seconds; none there is
/// fine, and so is no such set.
///
/// # Errors
/// If the kernel refuses.
pub fn forget_limit(netlink: &mut Netlink, addr: Ipv4Addr) -> Result<(), RulesetError> {
    let mut batch = Transaction::new();
    let mut builder = message(libc::NFT_MSG_DELSETELEM, 0);
    builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    builder.put_str(NFTA_SET_ELEM_LIST_SET, "evidence_limit4");
    let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
    let element = builder.open(NFTA_LIST_ELEM);
    put_key(&mut builder, &addr.octets());
    builder.close(element);
    builder.close(list);
    batch.add(&Message::new(builder.bytes()), || format!("the limit of {addr}"));
    absent_is_fine(batch.send(netlink))
}

fn absent_is_fine(sent: Result<(), RulesetError>) -> Result<(), RulesetError> {
    match sent {
        Err(RulesetError::Refused { source, .. }) if source.errno() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Takes the set out; none there is fine.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(netlink: &mut Netlink) -> Result<(), RulesetError> {
    let mut batch = Transaction::new();
    batch.add(&messages::delete_set(SCRATCH), || format!("set \"{SCRATCH}\""));
    absent_is_fine(batch.send(netlink))
}
