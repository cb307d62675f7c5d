//! The system calls that no safe crate offers, each block argued for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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

/// The descriptor of `socket`, for as long as the socket lives.
pub(crate) fn socket_fd(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `socket`, which the returned lifetime borrows.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

// SAFETY: an `mnl_socket` is a heap block of libmnl with a descriptor and two addresses; nothing in it belongs
// to the thread that opened it, and only one thread at a time can hold a `Netlink`.
unsafe impl Send for super::netlink::Netlink {}
