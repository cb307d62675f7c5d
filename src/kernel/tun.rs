//! A tun device: packets that are written to its descriptor come in from the network as far as the kernel is
//! concerned, and what the kernel sends that way is read from it. The self-test knocks through one.
//!
//! The device is not persistent: it goes with its descriptor, whatever happens to the process, and its address and route
//! go with it.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::netlink::{Builder, Netlink, NetlinkError};

/// Why there is no device.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel has no tun, or the container no node for it.
    #[error(
        "cannot open {DEVICE}: {0}; it needs root, the module tun (modprobe tun) and, in a container, the device itself"
    )]
    Open(#[source] io::Error),
    /// No device was made.
    #[error("cannot make a tun device: {0}; it needs CAP_NET_ADMIN")]
    Make(#[source] io::Error),
    /// It has no number.
    #[error("device {name:?} is not to be found: {source}")]
    Index {
        /// What the kernel called it.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// It got no address.
    #[error("device {name:?} does not take its address: {source}")]
    Address {
        /// What the kernel called it.
        name: String,
        /// What it said.
        source: NetlinkError,
    },
    /// It does not come up.
    #[error("device {name:?} does not come up: {source}")]
    Up {
        /// What the kernel called it.
        name: String,
        /// What it said.
        source: NetlinkError,
    },
}

/// A tun device that is up.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Makes a device in the network namespace of the calling thread, with `addr`/`len` as its address, and brings it
    /// up. `%d` in `pattern` becomes the first number that is free.
    ///
    /// # Errors
    /// If the kernel refuses any of it; nothing is left then.
    pub fn open(pattern: &str, addr: Ipv4Addr, len: u8) -> Result<Tun, TunError> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(TunError::Open)?;
        let name = attach(&file, pattern).map_err(TunError::Make)?;
        let tun = Tun { file, name };
        tun.quieten();
        tun.bring_up(addr, len)?;
        Ok(tun)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has `packet`, from its IP header on, come in.
    ///
    /// # Errors
    /// If the kernel refuses it (ENOBUFS: it has no room now).
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write_all(packet)
    }

    /// What the kernel sent this way, from the IP header on; none within `limit`: 0 bytes.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn receive(&self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        let mut ready = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::IN)];
        let limit = Timespec::try_from(limit).unwrap_or_default();
        match poll(&mut ready, Some(&limit)) {
            // A signal: the caller looks what it was.
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(0),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match (&self.file).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Without IPv6 the kernel has nothing of its own to say here (neighbours, routers, multicast listeners); a host
    /// without IPv6 has no such switch, which is fine.
    fn quieten(&self) {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), "1");
    }

    fn bring_up(&self, addr: Ipv4Addr, len: u8) -> Result<(), TunError> {
        let name = || self.name.clone();
        let address = |source| TunError::Address { name: name(), source };
        let mut netlink = Netlink::open(mnl::Bus::Route).map_err(address)?;
        let index =
            rustix::net::netdevice::name_to_index(&netlink, &self.name).map_err(|error| TunError::Index {
                name: name(),
                source: error.into(),
            })?;
        let seq = netlink.take_seqs(1);
        let request = new_address(seq.start, index, addr, len);
        netlink.transact(request.bytes(), seq).map_err(address)?;
        let seq = netlink.take_seqs(1);
        let request = link_up(seq.start, index);
        netlink
            .transact(request.bytes(), seq)
            .map_err(|source| TunError::Up { name: name(), source })
    }
}

/// Makes the descriptor that of a new device; the name it got.
fn attach(file: &File, pattern: &str) -> io::Result<String> {
    // SAFETY: ifreq is plain integers and bytes, for all of which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1; // the last stays the zero that ends the name
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(pattern.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call; the descriptor is
    // open for as long as `file`.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    Ok(name.map(|byte| char::from(*byte as u8)).collect())
}

fn new_address(seq: u32, index: u32, addr: Ipv4Addr, len: u8) -> Builder {
    // struct ifaddrmsg: family, prefix length, flags, scope (0: universe), interface.
    let mut header = vec![libc::AF_INET as u8, len, 0, 0];
    header.extend(index.to_ne_bytes());
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Builder::new();
    request
        .raw(libc::RTM_NEWADDR, flags, seq)
        .fixed(&header)
        .put(libc::IFA_LOCAL, &addr.octets())
        .put(libc::IFA_ADDRESS, &addr.octets());
    request
}

/// The request that brings interface number `index` up.
pub(super) fn link_up(seq: u32, index: u32) -> Builder {
    // struct ifinfomsg: family, padding, type (2 bytes), interface, flags, which of them to change.
    let mut header = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend((libc::IFF_UP as u32).to_ne_bytes());
    header.extend((libc::IFF_UP as u32).to_ne_bytes());
    let mut request = Builder::new();
    request
        .raw(libc::RTM_NEWLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, seq)
        .fixed(&header);
    request
}

const DEVICE: &str = "/dev/net/tun";
