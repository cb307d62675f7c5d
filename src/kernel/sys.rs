//! The system calls that no safe crate offers, each block argued for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Sets an integer socket option.
pub(crate) fn setsockopt_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives across the call; the kernel only reads it.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One instruction of classic BPF: code, jumps if true and if false, operand.
pub(crate) type Instruction = libc::sock_filter;

/// Has the kernel throw away, before it takes room in the receive buffer, what `program` does not let through.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let count = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog {
        len: count,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` and the `count` instructions it points to live across the call, and the kernel copies
    // both without writing to either; it verifies the program before it runs it.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A netlink socket that may be opened by one thread and served by another.
pub(crate) struct Line(mnl::Socket);

// SAFETY: libmnl's socket is a heap block holding a descriptor and an address; it knows no thread. `Line` can
// be moved but not shared (it is not `Sync`), so that no two threads are ever inside libmnl with it.
unsafe impl Send for Line {}

impl Line {
    /// Opens a socket on `bus` in the network namespace of the calling thread.
    ///
    /// libmnl leaves it open across exec; a child that kept it would keep the queues bound after our death.
    pub(crate) fn open(bus: mnl::Bus) -> io::Result<Line> {
        let line = Line(mnl::Socket::new(bus)?);
        rustix::io::fcntl_setfd(&line, rustix::io::FdFlags::CLOEXEC)?;
        Ok(line)
    }

    /// The kernel's name for this socket.
    pub(crate) fn portid(&self) -> u32 {
        self.0.portid()
    }

    /// Sends whole messages to the kernel, which has acted on them when this returns.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(|_| ())
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the socket, which the returned lifetime borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// The most datagrams that one [`recvmmsg`] takes.
pub(crate) const BATCH: usize = 64;

/// What was received into one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Bytes written to the slot.
    pub(crate) length: usize,
    /// The datagram was longer than the slot; the rest is gone.
    pub(crate) cut: bool,
}

/// Receives what is there, at most [`BATCH`] datagrams, one into each slot of `stride` bytes of `arena`; never
/// waits. `WouldBlock` when there is nothing.
pub(crate) fn recvmmsg(
    fd: BorrowedFd<'_>,
    arena: &mut [u8],
    stride: usize,
    datagrams: &mut [Datagram; BATCH],
) -> io::Result<usize> {
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let slots = arena.chunks_exact_mut(stride).take(BATCH);
    let mut count = 0;
    for (vector, slot) in vectors.iter_mut().zip(slots) {
        vector.iov_base = slot.as_mut_ptr().cast();
        vector.iov_len = slot.len();
        count += 1;
    }
    // SAFETY: mmsghdr is plain integers and pointers, for all of which zero is a valid value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (header, vector) in headers.iter_mut().zip(&mut vectors) {
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers each point to one vector, each vector to its own slot of `arena`, with
    // its length; all three outlive the call, and nothing else reads or writes them meanwhile. No name, no
    // control data and no timeout are asked for, so that those null pointers are never followed.
    let rc = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(rc).map_err(|_| io::Error::last_os_error())?;
    for (datagram, header) in datagrams.iter_mut().zip(&headers).take(received) {
        *datagram = Datagram {
            length: (header.msg_len as usize).min(stride),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
    }
    Ok(received)
}
