//! A worker's beat: a datagram to this host itself that says "I live" to a rule of our table, see `ruleset::alive`.

use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::ruleset::alive::mark;
use super::sys::setsockopt_int;

/// What sends the beats of one worker.
pub struct Heart(Option<OwnedFd>);

impl Heart {
    /// In the network namespace of the calling thread. It never fails: who has no heart is noticed by the
    /// beats that do not arrive.
    pub fn open(worker: u16) -> Heart {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
            // Needs CAP_NET_ADMIN, since Linux 5.17 CAP_NET_RAW does too: whoever has one of them can keep a hung
            // engine's queues in use.
            setsockopt_int(
                socket.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_MARK,
                mark(worker) as i32,
            )?;
            Ok(socket)
        };
        Heart(
            open()
                .inspect_err(|error: &std::io::Error| tracing::warn!("no beats: {error}"))
                .ok(),
        )
    }

    /// Sends one; never waits. What becomes of it is seen in the table.
    pub fn beat(&self) {
        if let Some(socket) = &self.0 {
            // Not connected: without our rule a refusal of the port would come back as an error of the next beat.
            let _ = sendto(socket, b"beat", SendFlags::DONTWAIT, &DISCARD);
        }
    }
}

/// The discard service (RFC 863): where our rule is missing, nobody minds.
const DISCARD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
