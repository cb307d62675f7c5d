//! Netlink over the `mnl` socket: messages built attribute by attribute, transactions whose every
//! acknowledgement is read, dumps. All of `kernel` speaks through here, so that a lost or refused message is
//! noticed in one place.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::RecvFlags;
use thiserror::Error;

use super::sys;

/// One netlink socket of a process; not shared between threads.
pub struct Netlink {
    socket: sys::Line,
    seq: u32,
    buffer: Box<[u8]>,
}

/// Why the kernel did not do what was asked.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused a message; nothing of its transaction was applied.
    #[error("{}", refusal(*.errno, .message))]
    Refused {
        /// Sequence number of the refused message (or of the batch itself).
        seq: u32,
        /// The kernel's errno, positive.
        errno: i32,
        /// The kernel's own words, where it has some.
        message: Option<String>,
    },
    /// Acknowledgements are missing: whether the transaction was applied is unknown.
    #[error("{missing} of {asked} acknowledgements are missing, the kernel's state is unknown")]
    Unconfirmed {
        /// How many were asked for.
        asked: u32,
        /// How many never came.
        missing: u32,
    },
    /// A reply that cannot be read.
    #[error("malformed netlink reply: {0}")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The kernel's errno, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            NetlinkError::Socket(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl Netlink {
    /// Opens a socket on `bus` in the network namespace of the calling thread.
    pub fn open(bus: mnl::Bus) -> Result<Netlink, NetlinkError> {
        let socket = sys::Line::open(bus)?;
        let netlink = Netlink {
            socket,
            seq: 1,
            buffer: vec![0; RECEIVE_BYTES].into(),
        };
        for (level, name, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES),
            (libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1),
            (libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1),
        ] {
            // Without CAP_NET_ADMIN the buffers stay at their defaults; reading still works.
            let _ = sys::setsockopt_int(netlink.as_fd(), level, name, value);
        }
        Ok(netlink)
    }

    /// This socket's netlink port, by which the kernel names it elsewhere.
    pub fn portid(&self) -> u32 {
        self.socket.portid()
    }

    /// `count` sequence numbers that no other message of this socket carries.
    pub fn take_seqs(&mut self, count: u32) -> Range<u32> {
        let first = self.seq;
        self.seq = self.seq.checked_add(count).unwrap_or(1);
        first..first + count
    }

    /// Sends `bytes` (whole messages) and reads one acknowledgement for each sequence number in `acks`.
    ///
    /// Netlink requests are carried out while they are sent, so all answers are there when `send` returns:
    /// none is waited for. The first refusal is returned; the kernel applies a batch as a whole or not at all.
    pub fn transact(&mut self, bytes: &[u8], acks: Range<u32>) -> Result<(), NetlinkError> {
        let asked = acks.end - acks.start;
        let mut seen = 0;
        let mut refusal = None;
        self.exchange(bytes, |message| {
            let Some((errno, words)) = message.error() else {
                return;
            };
            if errno == 0 {
                seen += u32::from(acks.contains(&message.seq));
            } else {
                seen += 1;
                refusal.get_or_insert(NetlinkError::Refused {
                    seq: message.seq,
                    errno,
                    message: words,
                });
            }
        })?;
        match refusal {
            Some(refusal) => Err(refusal),
            None if seen < asked => Err(NetlinkError::Unconfirmed {
                asked,
                missing: asked - seen,
            }),
            None => Ok(()),
        }
    }

    /// Sends `bytes` (whole messages, none of them a dump) and hands every answer to `each`; answers for which
    /// the socket had no room are missing. As in [`Netlink::transact`], none is waited for.
    pub fn exchange(&mut self, bytes: &[u8], mut each: impl FnMut(Message<'_>)) -> Result<(), NetlinkError> {
        self.drain();
        self.socket.send(bytes)?;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(length) => Messages::new(&self.buffer[..length]).for_each(&mut each),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // ENOBUFS: some answers are gone for good; what is left is still read.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a dump request and hands each reply (type, payload after the header) to `each`.
    ///
    /// A table that changes while it is dumped is marked by the kernel; the dump then fails with EINTR and is
    /// to be tried again by the caller, who knows how to start over.
    pub fn dump(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.drain();
        self.socket.send(request)?;
        let mut interrupted = false;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            for message in Messages::new(&self.buffer[..length]) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                if let Some((errno, words)) = message.error() {
                    return match errno {
                        0 => Ok(()),
                        errno => Err(NetlinkError::Refused {
                            seq: message.seq,
                            errno,
                            message: words,
                        }),
                    };
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE if interrupted => {
                        return Err(io::Error::from_raw_os_error(libc::EINTR).into());
                    }
                    libc::NLMSG_DONE => return Ok(()),
                    _ => each(message.kind, message.payload)?,
                }
            }
        }
    }

    /// A dump that is started over when the table changed under it; `each` fills a fresh collection each time.
    pub fn dump_whole<T: Default>(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&mut T, u16, &[u8]),
    ) -> Result<T, NetlinkError> {
        let mut attempts = DUMP_ATTEMPTS;
        loop {
            let mut all = T::default();
            let outcome = self.dump(request, |kind, payload| {
                each(&mut all, kind, payload);
                Ok(())
            });
            attempts -= 1;
            match outcome {
                Ok(()) => return Ok(all),
                Err(error) if error.errno() == Some(libc::EINTR) && attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<usize> {
        let (length, _) = rustix::net::recv(&self.socket, &mut self.buffer[..], flags)?;
        Ok(length)
    }

    /// Throws away what an earlier, failed exchange left unread.
    fn drain(&mut self) {
        while matches!(self.receive(RecvFlags::DONTWAIT), Ok(length) if length > 0) {}
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Netlink messages under construction, one after the other in one buffer.
#[derive(Default)]
pub struct Builder {
    bytes: Vec<u8>,
    message: usize,
}

/// An attribute that is still open; to be handed back to [`Builder::close`].
#[must_use]
pub struct Nest(usize);

impl Builder {
    /// An empty buffer.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Starts a message: header and nfgenmsg (`family`, version 0, `res_id`). It grows until the next begins.
    pub fn nfnetlink(&mut self, kind: u16, flags: i32, seq: u32, family: i32, res_id: u16) -> &mut Self {
        self.raw(kind, flags, seq);
        self.bytes.extend([family as u8, 0]);
        self.bytes.extend(res_id.to_be_bytes());
        self.seal();
        self
    }

    /// Starts a message with nothing but its header.
    pub fn raw(&mut self, kind: u16, flags: i32, seq: u32) -> &mut Self {
        self.message = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags as u16).to_ne_bytes());
        self.bytes.extend(seq.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.seal();
        self
    }

    /// Appends bytes that are not an attribute (a family's own fixed header).
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.pad();
        self.seal();
        self
    }

    /// Appends an attribute.
    ///
    /// # Panics
    /// If `value` does not fit the attribute's 16-bit length; callers split what a stranger can make long.
    pub fn put(&mut self, attribute: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("an attribute's value is under 64 KiB");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(attribute.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self.seal();
        self
    }

    /// Appends a 32-bit number in network byte order.
    pub fn put_be32(&mut self, attribute: u16, value: u32) -> &mut Self {
        self.put(attribute, &value.to_be_bytes())
    }

    /// Appends a 64-bit number in network byte order.
    pub fn put_be64(&mut self, attribute: u16, value: u64) -> &mut Self {
        self.put(attribute, &value.to_be_bytes())
    }

    /// Appends a string with its terminating zero.
    pub fn put_str(&mut self, attribute: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend(value.as_bytes());
        bytes.push(0);
        self.put(attribute, &bytes)
    }

    /// Opens a nested attribute.
    pub fn open(&mut self, attribute: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.bytes
            .extend((attribute | libc::NLA_F_NESTED as u16).to_ne_bytes());
        Nest(at)
    }

    /// Closes a nested attribute; what was put since `open` is inside.
    ///
    /// # Panics
    /// If more than 64 KiB was put inside.
    pub fn close(&mut self, nest: Nest) -> &mut Self {
        let length = u16::try_from(self.bytes.len() - nest.0).expect("a nested attribute is under 64 KiB");
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.seal();
        self
    }

    /// Starts the NFNL_MSG_BATCH_BEGIN of an nftables transaction.
    pub fn batch_begin(&mut self, seq: u32) -> &mut Self {
        self.nfnetlink(
            libc::NFNL_MSG_BATCH_BEGIN as u16,
            libc::NLM_F_REQUEST,
            seq,
            libc::AF_UNSPEC,
            NFTABLES,
        )
    }

    /// Ends the transaction; what stands between is applied as a whole or not at all.
    pub fn batch_end(&mut self, seq: u32) -> &mut Self {
        self.nfnetlink(
            libc::NFNL_MSG_BATCH_END as u16,
            libc::NLM_F_REQUEST,
            seq,
            libc::AF_UNSPEC,
            NFTABLES,
        )
    }

    /// The finished bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes there are so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was built yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.message = 0;
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn seal(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// nlmsg_type: subsystem in the high byte, message in the low.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq.
    pub seq: u32,
    /// nlmsg_pid: in an announcement, the netlink port of who caused it.
    pub portid: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// The errno (0: an acknowledgement) and the kernel's words, if this is an NLMSG_ERROR.
    pub fn error(&self) -> Option<(i32, Option<String>)> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        let errno = self
            .payload
            .first_chunk()
            .map_or(libc::EBADMSG, |bytes| -i32::from_ne_bytes(*bytes));
        Some((errno, self.extended().map(str::to_owned)))
    }

    /// NLMSGERR_ATTR_MSG of an extended acknowledgement (the request is capped to its header).
    fn extended(&self) -> Option<&str> {
        let capped = self.flags & NLM_F_CAPPED != 0;
        let echoed = if capped {
            16
        } else {
            u32::from_ne_bytes(*self.payload.get(4..)?.first_chunk()?) as usize
        };
        let rest = self.payload.get(4 + echoed.next_multiple_of(4)..)?;
        let words = Attributes::new(rest)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?
            .1;
        std::str::from_utf8(words.split(|byte| *byte == 0).next()?).ok()
    }
}

/// The messages in a received buffer; ends at the first that does not fit.
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Reads `bytes` as they came from the socket.
    pub fn new(bytes: &'a [u8]) -> Messages<'a> {
        Messages(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        let header: &[u8; 16] = self.0.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = self.0.get(16..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            portid: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            payload,
        })
    }
}

/// The attributes in a message's payload, flags taken off their type; ends at the first that does not fit.
#[derive(Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads `bytes`, which begin at the first attribute.
    pub fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }

    /// Reads the attributes behind an nfgenmsg.
    pub fn after_nfgen(payload: &'a [u8]) -> Attributes<'a> {
        Attributes(payload.get(4..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let header: &[u8; 4] = self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK, value))
    }
}

/// A 32-bit attribute in network byte order.
#[inline]
pub fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A 64-bit attribute in network byte order.
#[inline]
pub fn be64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A string attribute without its terminating zero; `None` if it is not UTF-8.
pub fn string(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// The message type of `message` in nfnetlink subsystem `subsystem`.
pub const fn nfnl_type(subsystem: i32, message: i32) -> u16 {
    ((subsystem << 8) | message) as u16
}

fn refusal(errno: i32, words: &Option<String>) -> String {
    let error = io::Error::from_raw_os_error(errno);
    match words {
        Some(words) => format!("the kernel refused: {error}: {words}"),
        None => format!("the kernel refused: {error}"),
    }
}

/// NFNL_SUBSYS_NFTABLES, as the res_id of a batch.
const NFTABLES: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// include/uapi/linux/netlink.h
const NLM_F_DUMP_INTR: u16 = 0x10;
/// include/uapi/linux/netlink.h
const NLM_F_CAPPED: u16 = 0x100;
/// include/uapi/linux/netlink.h
const NLMSGERR_ATTR_MSG: u16 = 1;
/// include/uapi/linux/netlink.h: everything but NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// One acknowledgement takes 36 bytes but about 1 KiB of truesize; this holds those of a 5,000-message batch.
const SOCKET_BUFFER_BYTES: i32 = 16 << 20;
/// How often a table may change under a dump before the dump is given up.
const DUMP_ATTEMPTS: u32 = 20;
/// The kernel fills dumps up to 32 KiB (NLMSG_GOODSIZE of a dump with a large reader).
const RECEIVE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let mut builder = Builder::new();
        builder
            .nfnetlink(nfnl_type(10, 1), libc::NLM_F_REQUEST, 7, libc::AF_INET, 5)
            .put_be32(1, 42);
        let nest = builder.open(2);
        builder.put_str(3, "abc");
        builder.close(nest);
        let messages: Vec<_> = Messages::new(builder.bytes()).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].kind, messages[0].seq), (nfnl_type(10, 1), 7));
        let attributes: Vec<_> = Attributes::after_nfgen(messages[0].payload).collect();
        assert_eq!(attributes[0], (1, &42u32.to_be_bytes()[..]));
        let inner: Vec<_> = Attributes::new(attributes[1].1).collect();
        assert_eq!(string(inner[0].1), Some("abc"));
    }

    #[test]
    fn cut_bytes_end_the_reading() {
        let mut builder = Builder::new();
        builder.nfnetlink(1, 0, 1, 0, 0).put_be32(1, 1).put_be32(2, 2);
        for length in 0..builder.len() {
            for message in Messages::new(&builder.bytes()[..length]) {
                assert!(Attributes::after_nfgen(message.payload).count() <= 2);
            }
        }
    }

    #[test]
    fn zero_length_attributes_do_not_loop() {
        assert_eq!(Attributes::new(&[0; 64]).count(), 0);
        assert_eq!(Messages::new(&[0; 64]).count(), 0);
    }
}
