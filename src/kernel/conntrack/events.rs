//! Completed handshakes as conntrack tells them by itself: a socket in the group of changes, filtered in the
//! kernel down to one message a connection.
//!
//! It needs no rule and hides nothing from other listeners (`ct event set` in a rule would hide NEW and DESTROY
//! from all of them). Unfiltered, a connection makes 3 messages if a RST ends it and 5 or 6 if FINs do, a half-open
//! one makes 1; what is left for the kernel is to write them, 7 % more of what a handshake costs it (measured on
//! 6.18). Nothing ever comes where conntrack sleeps, where its events are off, and of flows for which somebody
//! else's rule asks for neither `assured` nor `protoinfo` events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::entry::Entry;
use super::filter::COMPLETED;
use super::{Completed, IPCTNL_MSG_CT_NEW};
use crate::kernel::netlink::{Messages, nfnl_type};
use crate::kernel::sys;

/// A listener for completed handshakes, in the network namespace of the thread that opened it.
///
/// The kernel (5.19 and later) gives events only to entries that were made while somebody listened. What was open
/// or half open before is in [`completed_flows`](super::dump::completed_flows).
pub struct Completions {
    socket: OwnedFd,
    arena: Box<[u8]>,
}

/// What one [`Completions::drain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Messages read; more may be there if it is [`Completions::MOST`].
    pub read: usize,
    /// Completions are missing: the receive buffer was full, or a message could not be read.
    pub lost: bool,
}

impl Completions {
    /// The most messages one [`Completions::drain`] reads.
    pub const MOST: usize = ROUNDS * sys::BATCH;

    /// Listens from now on. Neither wakes conntrack nor fails where it sleeps; needs CAP_NET_ADMIN.
    pub fn open() -> io::Result<Completions> {
        Completions::open_with(RECEIVE_BUFFER)
    }

    /// As [`Completions::open`], with room for `bytes` in the receive buffer.
    pub fn open_with(bytes: usize) -> io::Result<Completions> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::NETFILTER);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // Past net.core.rmem_max; in a user namespace that is refused and the limit stands.
        sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, bytes))?;
        // Before it joins the group, so that nothing comes in unfiltered.
        sys::attach_filter(socket.as_fd(), &COMPLETED)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, CONNTRACK_UPDATE))?;
        Ok(Completions {
            socket,
            arena: vec![0; SLOT * sys::BATCH].into(),
        })
    }

    /// Hands what is there to `each`, at most [`Completions::MOST`], without waiting.
    ///
    /// After an overflow the kernel puts nothing in until all is read: call again while `read` is at its most.
    pub fn drain(&mut self, mut each: impl FnMut(Completed)) -> Drained {
        let mut drained = Drained::default();
        let mut datagrams = [sys::Datagram::default(); sys::BATCH];
        for _ in 0..ROUNDS {
            match sys::recvmmsg(self.socket.as_fd(), &mut self.arena, SLOT, &mut datagrams) {
                Ok(count) => {
                    drained.read += count;
                    for (datagram, slot) in datagrams.iter().take(count).zip(self.arena.chunks_exact(SLOT)) {
                        drained.lost |= datagram.cut;
                        completions(&slot[..datagram.length]).for_each(&mut each);
                    }
                    if count < sys::BATCH {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS stands in front of what was received before it.
                Err(_) => drained.lost = true,
            }
        }
        drained
    }
}

impl AsFd for Completions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn completions(datagram: &[u8]) -> impl Iterator<Item = Completed> {
    Messages::new(datagram)
        .filter(|message| message.kind == nfnl_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW))
        .filter_map(|message| Entry::read(message.payload)?.completed())
}

/// Bit of NFNLGRP_CONNTRACK_UPDATE (include/uapi/linux/netfilter/nfnetlink_compat.h).
const CONNTRACK_UPDATE: u32 = 2;
/// Rounds of one drain: some 100 µs of work.
const ROUNDS: usize = 16;
/// Longer than a message about an entry with labels, marks, timestamps and a security context.
const SLOT: usize = 2 << 10;
/// The kernel doubles it and counts about 1 KiB a message: some seconds of 5,000 connections a second.
const RECEIVE_BUFFER: usize = 16 << 20;
