//! What the kernel announces by itself: a netlink socket that only listens, and becomes readable when something
//! changed. What changed is read elsewhere, afresh: an announcement is a reason to look, never a fact.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};

use super::netlink::{Message, Messages};

/// A listening socket in the network namespace of the thread that opened it.
pub(crate) struct Notices {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Notices {
    /// Listens to the multicast groups in `groups` (a bit each) of `protocol`, NETLINK_ROUTE if none is given.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Notices> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Notices {
            socket,
            buffer: vec![0; NOTICE_BYTES].into(),
        })
    }

    /// Reads what is there, without waiting; whether any of it `matters`. Lost notices count as if they did.
    pub(crate) fn drain(&mut self, matters: impl Fn(&Message<'_>) -> bool) -> bool {
        let any_matters = |notices: &[u8]| Messages::new(notices).any(|notice| matters(&notice));
        let mut changed = false;
        loop {
            // MSG_TRUNC as a flag: the length that a notice had, also if the buffer is shorter.
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, 0)) | Err(rustix::io::Errno::AGAIN) => return changed,
                Ok((_, length)) => changed |= self.buffer.get(..length).is_none_or(any_matters),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => changed = true,
                Err(_) => return true,
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
