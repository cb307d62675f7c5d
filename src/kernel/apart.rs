//! A network namespace that nobody else sees, for as long as some work takes: what is tried there changes nothing here.
#![allow(unsafe_code)]

use std::io;
use std::thread;

use rustix::thread::UnshareFlags;

use super::netlink::Netlink;
use super::tun::link_up;

/// Does `work` on a thread of its own in a new network namespace whose loopback is up; the namespace is gone when the
/// thread and the sockets that it opened are.
///
/// # Errors
/// Without CAP_SYS_ADMIN, on a kernel without network namespaces, or if loopback does not come up there.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            leave()?;
            loopback_up()?;
            Ok(work())
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn leave() -> io::Result<()> {
    // SAFETY: only the network namespace of this one thread changes; no descriptor table is unshared, and sockets that
    // other threads hold stay what they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

fn loopback_up() -> io::Result<()> {
    let mut netlink = Netlink::open(mnl::Bus::Route).map_err(io::Error::other)?;
    let seq = netlink.take_seqs(1).start;
    let request = link_up(seq, LOOPBACK);
    netlink
        .transact(request.bytes(), seq..seq + 1)
        .map_err(io::Error::other)
}

/// Loopback is the first interface of every namespace (net/core/dev.c).
const LOOPBACK: u32 = 1;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::UdpSocket;

    use super::*;

    fn here() -> std::path::PathBuf {
        fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn work_is_done_elsewhere_and_this_thread_stays() {
        let before = here();
        let there = apart(|| {
            UdpSocket::bind("127.0.0.1:0").unwrap();
            here()
        })
        .expect("run as root: sudo make test");
        assert_ne!(there, before);
        assert_eq!(here(), before);
    }
}
