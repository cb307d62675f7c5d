//! What the kernel announces by itself: a netlink socket that only listens, and becomes readable when something
//! changed. What changed is read elsewhere, afresh: an announcement is a reason to look, never a fact.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, sockopt};

use super::netlink::{Message, Messages};
use super::sys::{self, Instruction};

/// A listening socket in the network namespace of the thread that opened it.
pub(crate) struct Notices {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Notices {
    /// Listens to the multicast groups in `groups` (a bit each) of `protocol`, NETLINK_ROUTE if none is given.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Notices> {
        Notices::bind(Notices::socket(protocol)?, groups)
    }

    /// The same, with room for `bytes` of them, of those only that `program` lets through.
    pub(crate) fn open_filtered(
        protocol: Protocol,
        groups: u32,
        bytes: usize,
        program: &[Instruction],
    ) -> io::Result<Notices> {
        let socket = Notices::socket(Some(protocol))?;
        // Past net.core.rmem_max; in a user namespace that is refused and the limit stands.
        sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, bytes))?;
        // Before it joins the group, so that nothing comes in unfiltered.
        sys::attach_filter(socket.as_fd(), program)?;
        Notices::bind(socket, groups)
    }

    fn socket(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        Ok(socket)
    }

    fn bind(socket: OwnedFd, groups: u32) -> io::Result<Notices> {
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Notices {
            socket,
            buffer: vec![0; NOTICE_BYTES].into(),
        })
    }

    /// Reads what is there, without waiting; whether any of it `matters`. Lost notices count as if they did.
    pub(crate) fn drain(&mut self, matters: impl Fn(&Message<'_>) -> bool) -> bool {
        let mut changed = false;
        self.read(|notice| changed |= notice.is_none_or(|notice| matters(&notice)));
        changed
    }

    /// Hands what is there to `each`, without waiting; none: here some were lost.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Option<Message<'_>>)) {
        loop {
            // MSG_TRUNC as a flag: the length that a notice had, also if the buffer is shorter.
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, 0)) | Err(rustix::io::Errno::AGAIN) => return,
                Ok((_, length)) => match self.buffer.get(..length) {
                    Some(notices) => Messages::new(notices).for_each(|notice| each(Some(notice))),
                    None => each(None),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => each(None),
                Err(_) => return each(None),
            }
        }
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Notices are a few hundred bytes, one about a link can be some KiB.
const NOTICE_BYTES: usize = 32 << 10;
