//! Notices when somebody else changes our table: `flush ruleset`, a deleted chain, a reloaded nftables.conf.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::TABLE;
use super::scratch::SCRATCH;
use super::uapi::NFTA_SET_NAME;
use crate::kernel::netlink::{Attributes, Message, string};
use crate::kernel::notices::Notices;

/// Becomes readable when tables, chains, rules or sets of this network namespace change.
///
/// Elements are not watched: our own bans come and go all the time.
pub struct TableWatch {
    notices: Notices,
    ours: u32,
}

impl TableWatch {
    /// Listens from now on, in the network namespace of the calling thread, to all but what the socket with
    /// netlink port `ours` does.
    ///
    /// # Errors
    /// If no netlink socket is to be had.
    pub fn open(ours: u32) -> io::Result<TableWatch> {
        let notices = Notices::open(Some(rustix::net::netlink::NETFILTER), GROUP)?;
        Ok(TableWatch { notices, ours })
    }

    /// Reads what is there; whether our table was touched, or may have been (lost notices).
    pub fn drain(&mut self) -> bool {
        self.notices
            .drain(|notice| notice.portid != self.ours && concerns_us(notice))
    }
}

impl AsFd for TableWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

fn concerns_us(notice: &Message<'_>) -> bool {
    let subsystem = i32::from(notice.kind >> 8);
    let structural = matches!(
        i32::from(notice.kind & 0xff),
        libc::NFT_MSG_NEWTABLE
            | libc::NFT_MSG_DELTABLE
            | libc::NFT_MSG_NEWCHAIN
            | libc::NFT_MSG_DELCHAIN
            | libc::NFT_MSG_NEWRULE
            | libc::NFT_MSG_DELRULE
            | libc::NFT_MSG_NEWSET
            | libc::NFT_MSG_DELSET
    );
    // The table's name is attribute 1 in messages about tables, chains, rules and sets alike.
    let attribute = |wanted| Attributes::after_nfgen(notice.payload).find(|(kind, _)| *kind == wanted);
    let is_called = |wanted, name| attribute(wanted).is_some_and(|(_, value)| string(value) == Some(name));
    let about_set = matches!(
        i32::from(notice.kind & 0xff),
        libc::NFT_MSG_NEWSET | libc::NFT_MSG_DELSET
    );
    subsystem == libc::NFNL_SUBSYS_NFTABLES
        && structural
        && is_called(1, TABLE)
        // A self-test comes and goes; a rule that looked at its set would be a notice of its own.
        && !(about_set && is_called(NFTA_SET_NAME, SCRATCH))
}

/// Group NFNLGRP_NFTABLES (7) as a bit.
const GROUP: u32 = 1 << 6;
