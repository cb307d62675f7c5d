//! Hears when somebody else changes our table: `flush ruleset`, a deleted chain, a reloaded nftables.conf, an element
//! put into or taken out of a set of bans.
//!
//! Notices are reasons to look, but for one: that an element was deleted cannot be read off the table afterwards, so
//! it is taken from the notice. The kernel sends those of one transaction together and ends them with a message that
//! says which process it was.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::alive::ALIVE;
use super::scratch::SCRATCH;
use super::uapi::{NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID, NFTA_SET_ELEM_LIST_SET, NFTA_SET_NAME};
use super::{TABLE, parse_ban_set_name};
use crate::core::prefix::Prefix;
use crate::kernel::netlink::{Attributes, Message, be32, string};
use crate::kernel::notices::Notices;
use crate::kernel::setelem;
use crate::kernel::sys::Instruction;

/// Becomes readable when somebody else changes nftables in this network namespace.
pub struct TableWatch {
    notices: Notices,
    /// The transaction that is being told.
    open: Touch,
}

/// What one transaction of somebody else did to our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// When we heard of it.
    pub at: Instant,
    /// Who it was.
    pub by: Option<Culprit>,
    /// Table, chains, rules, sets, or what the sets of policy hold.
    pub structure: bool,
    /// Table, a chain or a set was deleted.
    pub removal: bool,
    /// Elements of sets of bans in the order in which they were added (true) or deleted.
    pub elements: Vec<(Prefix, bool)>,
    /// Some notices are missing: anything may have happened.
    pub lost: bool,
}

/// A process, as the kernel saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its number, in the first namespace of processes.
    pub pid: u32,
    /// Its name, at most 15 bytes; a process chooses it by itself.
    pub name: String,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl TableWatch {
    /// Listens from now on, in the network namespace of the calling thread, to all but what the socket with
    /// netlink port `ours` does: the kernel keeps that from us, or our own batches would fill the socket.
    ///
    /// # Errors
    /// If no netlink socket is to be had.
    pub fn open(ours: u32) -> io::Result<TableWatch> {
        let protocol = rustix::net::netlink::NETFILTER;
        let notices = Notices::open_filtered(protocol, GROUP, RECEIVE_BUFFER, &all_but(ours))?;
        Ok(TableWatch {
            notices,
            open: Touch::nothing(),
        })
    }

    /// Reads what is there; the transactions that are told to their end and concern us.
    pub fn drain(&mut self) -> Vec<Touch> {
        let mut touches = Vec::new();
        let TableWatch { notices, open } = self;
        notices.read(|notice| match notice {
            Some(notice) if is_end(&notice) => {
                open.by = culprit(&notice);
                touches.extend(open.take());
            }
            Some(notice) => open.note(&notice),
            None => open.lose(),
        });
        // The end of what was lost may be lost too.
        if self.open.lost {
            touches.extend(self.open.take());
        }
        touches
    }

    /// Whether the end of a transaction that concerns us is still to come.
    pub fn is_open(&self) -> bool {
        self.open.concerns_us()
    }

    /// The transaction whose end did not come: nobody knows what else was in it.
    pub fn give_up(&mut self) -> Option<Touch> {
        let open = self.open.take()?;
        Some(Touch { lost: true, ..open })
    }
}

impl AsFd for TableWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

impl Touch {
    fn nothing() -> Touch {
        Touch {
            at: Instant::now(),
            by: None,
            structure: false,
            removal: false,
            elements: Vec::new(),
            lost: false,
        }
    }

    fn concerns_us(&self) -> bool {
        self.structure || self.lost || !self.elements.is_empty()
    }

    fn take(&mut self) -> Option<Touch> {
        let touch = std::mem::replace(self, Touch::nothing());
        Some(touch).filter(Touch::concerns_us)
    }

    fn begin(&mut self) {
        if !self.concerns_us() {
            self.at = Instant::now();
        }
    }

    fn lose(&mut self) {
        self.begin();
        self.lost = true;
        self.elements = Vec::new();
    }

    fn note(&mut self, notice: &Message<'_>) {
        // The table's name is attribute 1 in all messages about tables and what is in them.
        let attribute = |wanted| {
            let found = Attributes::after_nfgen(notice.payload).find(|(kind, _)| *kind == wanted);
            found.and_then(|(_, value)| string(value))
        };
        if i32::from(notice.kind >> 8) != libc::NFNL_SUBSYS_NFTABLES || attribute(1) != Some(TABLE) {
            return;
        }
        match i32::from(notice.kind & 0xff) {
            libc::NFT_MSG_NEWTABLE
            | libc::NFT_MSG_NEWCHAIN
            | libc::NFT_MSG_NEWRULE
            | libc::NFT_MSG_DELRULE => {
                self.change(false);
            }
            libc::NFT_MSG_DELTABLE | libc::NFT_MSG_DELCHAIN => self.change(true),
            // A self-test comes and goes; a rule that looked at its set would be a notice of its own.
            libc::NFT_MSG_NEWSET | libc::NFT_MSG_DELSET if attribute(NFTA_SET_NAME) == Some(SCRATCH) => {}
            libc::NFT_MSG_NEWSET => self.change(false),
            libc::NFT_MSG_DELSET => self.change(true),
            libc::NFT_MSG_NEWSETELEM => self.change_elements(notice, true),
            libc::NFT_MSG_DELSETELEM => self.change_elements(notice, false),
            _ => {}
        }
    }

    fn change(&mut self, removal: bool) {
        self.begin();
        self.structure = true;
        self.removal |= removal;
    }

    fn change_elements(&mut self, notice: &Message<'_>, added: bool) {
        match setelem::read_notice(notice.payload) {
            Some((_, targets)) if self.elements.len() + targets.len() > MOST_ELEMENTS => {
                drop(targets);
                self.lose();
            }
            Some((_, targets)) => {
                self.begin();
                if !self.lost {
                    self.elements
                        .extend(targets.into_iter().map(|target| (target, added)));
                }
            }
            None if is_policy(notice.payload) => self.change(false),
            None => {}
        }
    }
}

/// Whether these are elements of a set that holds what the configuration says; those of limits and beats come and go,
/// and those of sets without a name belong to rules.
fn is_policy(payload: &[u8]) -> bool {
    let found = Attributes::after_nfgen(payload).find(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_SET);
    let name = found.and_then(|(_, value)| string(value)).unwrap_or_default();
    let passing = name == SCRATCH || name == ALIVE || name.starts_with("__") || name.contains("_limit");
    !passing && parse_ban_set_name(name).is_none()
}

fn is_end(notice: &Message<'_>) -> bool {
    i32::from(notice.kind >> 8) == libc::NFNL_SUBSYS_NFTABLES
        && i32::from(notice.kind & 0xff) == libc::NFT_MSG_NEWGEN
}

fn culprit(notice: &Message<'_>) -> Option<Culprit> {
    let attribute = |wanted| {
        let found = Attributes::after_nfgen(notice.payload).find(|(kind, _)| *kind == wanted);
        found.map(|(_, value)| value)
    };
    let name = attribute(NFTA_GEN_PROC_NAME).and_then(string).unwrap_or("?");
    Some(Culprit {
        pid: attribute(NFTA_GEN_PROC_PID).and_then(be32)?,
        // It goes into logs and onto terminals.
        name: name
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
    })
}

/// Lets pass what a socket other than `portid` did. All notices of one datagram are of one transaction.
const fn all_but(portid: u32) -> [Instruction; 4] {
    const fn op(code: u32, k: u32) -> Instruction {
        Instruction {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        }
    }
    let mut is_ours = op(
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        // The header is in the order of the host, and BPF reads in that of the network.
        u32::from_be_bytes(portid.to_ne_bytes()),
    );
    is_ours.jf = 1;
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NLMSG_PID_AT),
        is_ours,
        op(libc::BPF_RET, 0),
        op(libc::BPF_RET, u32::MAX),
    ]
}

/// struct nlmsghdr
const NLMSG_PID_AT: u32 = 12;
/// Group NFNLGRP_NFTABLES (7) as a bit.
const GROUP: u32 = 1 << 6;
/// The kernel doubles it. A flushed set is told element by element, some 250 bytes each with what the kernel counts
/// beside them.
const RECEIVE_BUFFER: usize = 16 << 20;
/// More in one transaction than an operator deletes by name: then the table itself is asked.
const MOST_ELEMENTS: usize = 200_000;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::super::uapi::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_TABLE};
    use super::*;
    use crate::kernel::netlink::{Builder, Messages, nfnl_type};
    use crate::kernel::sys::attach_filter;

    fn notice(kind: i32, put: impl FnOnce(&mut Builder)) -> Vec<u8> {
        let mut builder = Builder::new();
        builder.nfnetlink(
            nfnl_type(libc::NFNL_SUBSYS_NFTABLES, kind),
            0,
            1,
            libc::NFPROTO_INET,
            0,
        );
        put(&mut builder);
        builder.bytes().to_vec()
    }

    fn told(notices: &[Vec<u8>]) -> Touch {
        let mut touch = Touch::nothing();
        for bytes in notices {
            Messages::new(bytes).for_each(|notice| touch.note(&notice));
        }
        touch
    }

    fn element(kind: i32, set: &str, addr: [u8; 4]) -> Vec<u8> {
        notice(kind, |builder| {
            builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
            builder.put_str(NFTA_SET_ELEM_LIST_SET, set);
            let list = builder.open(NFTA_SET_ELEM_LIST_ELEMENTS);
            let element = builder.open(1);
            let key = builder.open(1);
            builder.put(1, &addr);
            builder.close(key);
            builder.close(element);
            builder.close(list);
        })
    }

    #[test]
    fn what_concerns_us_is_told_apart() {
        let named = |kind, table: &str, set: &str| {
            notice(kind, |builder| {
                builder.put_str(1, table).put_str(2, set);
            })
        };
        let of = |bytes| {
            let touch = told(&[bytes]);
            (touch.structure, touch.removal)
        };
        assert_eq!(of(named(libc::NFT_MSG_DELTABLE, TABLE, "")), (true, true));
        assert_eq!(of(named(libc::NFT_MSG_NEWTABLE, TABLE, "")), (true, false));
        assert_eq!(of(named(libc::NFT_MSG_DELTABLE, "other", "")), (false, false));
        assert_eq!(of(named(libc::NFT_MSG_DELSET, TABLE, "banned4")), (true, true));
        assert_eq!(of(named(libc::NFT_MSG_DELSET, TABLE, SCRATCH)), (false, false));
        assert_eq!(of(named(libc::NFT_MSG_DELRULE, TABLE, "pre")), (true, false));
        let element = |set| element(libc::NFT_MSG_NEWSETELEM, set, [192, 0, 2, 1]);
        for (set, structure) in [
            ("trusted4", true),
            ("alive", false),
            ("evidence_limit4", false),
            ("__set0", false),
        ] {
            assert_eq!(of(element(set)), (structure, false), "{set}");
        }
    }

    #[test]
    fn elements_of_bans_are_told_in_their_order() {
        let touch = told(&[
            element(libc::NFT_MSG_DELSETELEM, "banned4", [192, 0, 2, 1]),
            element(libc::NFT_MSG_NEWSETELEM, "banned4_24", [198, 51, 100, 0]),
            element(libc::NFT_MSG_NEWSETELEM, "banned4_24", [198, 51, 100, 9]),
        ]);
        let targets: Vec<_> = touch
            .elements
            .iter()
            .map(|(t, added)| (t.to_string(), *added))
            .collect();
        assert_eq!(
            targets,
            [("192.0.2.1".into(), false), ("198.51.100.0/24".into(), true)]
        );
        assert!(!touch.structure && !touch.lost);
    }

    #[test]
    fn the_end_names_who_it_was() {
        let end = notice(libc::NFT_MSG_NEWGEN, |builder| {
            builder.put_be32(NFTA_GEN_PROC_PID, 42);
            builder.put_str(NFTA_GEN_PROC_NAME, "n\x1bft");
        });
        let message = Messages::new(&end).next().unwrap();
        assert!(is_end(&message));
        assert_eq!(culprit(&message).unwrap().to_string(), "n?ft (pid 42)");
        assert_eq!(
            culprit(
                &Messages::new(&notice(libc::NFT_MSG_NEWGEN, |_| {}))
                    .next()
                    .unwrap()
            ),
            None
        );
    }

    #[test]
    fn what_was_lost_forgets_what_was_told_and_cut_notices_tell_nothing_wrong() {
        let mut touch = told(&[element(libc::NFT_MSG_DELSETELEM, "banned4", [192, 0, 2, 1])]);
        touch.lose();
        assert!(touch.lost && touch.elements.is_empty());
        let whole = element(libc::NFT_MSG_DELSETELEM, "banned4", [192, 0, 2, 1]);
        for length in 0..whole.len() {
            assert!(told(&[whole[..length].to_vec()]).elements.is_empty());
        }
    }

    #[test]
    fn the_kernel_keeps_our_own_doings_from_us() {
        let (near, far) = UnixDatagram::pair().unwrap();
        attach_filter(far.as_fd(), &all_but(0x1234_5678)).unwrap();
        far.set_nonblocking(true).unwrap();
        let passes = |portid: u32| {
            let mut message = notice(libc::NFT_MSG_NEWGEN, |_| {});
            message[12..16].copy_from_slice(&portid.to_ne_bytes());
            near.send(&message).unwrap();
            far.recv(&mut [0; 64]).is_ok()
        };
        assert!(!passes(0x1234_5678));
        assert!(passes(0x7856_3412) && passes(0) && passes(u32::MAX));
    }
}
