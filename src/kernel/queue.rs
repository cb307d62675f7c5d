//! A worker's one socket: its verdict queues and its log group, received in batches and answered in batches.
//!
//! One socket for all three keeps their packets in order and lets the worker wait in one place. The number of the
//! queue, or the log prefix of the rule that made the copy, tells a packet's [`Class`]. Nothing is decided here, and nothing is allocated per packet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use thiserror::Error;

use super::bind::{Binder, open_line};
pub use super::bind::{free_groups, free_queues};
use super::netlink::Messages;
pub use super::queue_proc::{Numbered, QueueCounters, queue_counters};
use super::queue_wire::{self, Answers, Setup};
use super::{log, sys};
use crate::core::verdict::{Class, Verdict};

/// What one worker listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedConfig {
    /// Queue of packets that conntrack calls `new`; none when only observing.
    pub new_queue: Option<u16>,
    /// Queue of packets that conntrack calls `invalid` or `untracked`; none when only observing.
    pub odd_queue: Option<u16>,
    /// Log group of the copies.
    pub log_group: u16,
    /// What copies are whose rule does not say it by its prefix, as in a table of an earlier version:
    /// [`Class::Refused`] or [`Class::Observed`].
    pub log_class: Class,
    /// The most packets each queue holds for a verdict.
    pub queue_length: u32,
    /// Whether packets pass (true) or are dropped when a queue or the socket's buffer is full.
    pub fail_open: bool,
    /// The most bytes of a packet that are copied to us; [`COPY_RANGE`] holds every header we read.
    pub copy_range: u32,
}

impl FeedConfig {
    fn queues(&self) -> impl Iterator<Item = u16> {
        [self.new_queue, self.odd_queue].into_iter().flatten()
    }

    fn setup(&self) -> Setup {
        Setup {
            length: self.queue_length,
            copy_range: self.copy_range,
            fail_open: self.fail_open,
        }
    }
}

/// One worker's socket, its queues and its log group bound. Dropping it unbinds them; the kernel then drops what
/// waits in them.
pub struct Feed {
    line: sys::Line,
    config: FeedConfig,
    arena: Box<[u8]>,
    stride: usize,
    early: Vec<Vec<u8>>,
    /// Queues this socket holds; `config` names those that rules lead to.
    bound: Vec<u16>,
    answers: Answers,
    counters: FeedCounters,
}

/// One packet, as [`Feed::serve`] hands it to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// How it came to us.
    pub class: Class,
    /// Its bytes from the IP header on, cut at the copy range; empty if the kernel copied none.
    pub payload: &'a [u8],
    /// Index of the interface it came in on.
    pub in_interface: Option<u32>,
}

/// What one [`Feed::serve`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Served {
    /// Packets judged.
    pub packets: u32,
    /// Those of them that the kernel held, and that were answered.
    pub held: u32,
    /// The batch was full: more may wait, serve again before polling.
    pub more: bool,
}

/// What went wrong on a feed without stopping it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Times the receive buffer overflowed. From an overflow until it is read empty the kernel puts nothing more
    /// in; how many held packets that cost is in [`QueueCounters::user_dropped`].
    pub enobufs: u64,
    /// Verdicts that the kernel did not take: the packet was gone (its chain or interface was removed).
    pub verdict_errors: u64,
    /// Messages that could not be read, and packets that came without a payload.
    pub malformed: u64,
}

/// Why a feed cannot be opened or served.
#[derive(Debug, Error)]
pub enum FeedError {
    /// Somebody else holds a number.
    #[error("{} {number} is taken{}, choose a free one", .kind.word(), taken_by(.holder.as_deref(), *.portid))]
    Taken {
        /// A queue or a log group.
        kind: Numbered,
        /// The number.
        number: u16,
        /// Netlink port of its holder, where it can be read.
        portid: Option<u32>,
        /// Name and pid of its holder, where they can be found.
        holder: Option<String>,
    },
    /// Not enough consecutive free numbers.
    #[error("no {count} consecutive free numbers from {} {base} up to 65535, choose a lower base", .kind.word())]
    Exhausted {
        /// Queues or log groups.
        kind: Numbered,
        /// Where the search began.
        base: u16,
        /// How many were asked for.
        count: u16,
    },
    /// The process may not bind anything.
    #[error(
        "binding a queue needs CAP_NET_ADMIN in this network namespace, run as root or with that capability"
    )]
    NoCapability,
    /// The kernel lacks what is needed.
    #[error("this kernel has no {}, load that module or use a kernel built with it", module(*.kind))]
    Unsupported {
        /// Queues or log groups.
        kind: Numbered,
    },
    /// The kernel refused a number for another reason.
    #[error("the kernel refused {} {number}: {error}", .kind.word())]
    Refused {
        /// A queue or a log group.
        kind: Numbered,
        /// The number.
        number: u16,
        /// The kernel's reason.
        error: io::Error,
    },
    /// The acknowledgement of a bind was lost.
    #[error("the kernel did not confirm a bind, its acknowledgement is lost")]
    Unconfirmed,
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
}

impl Feed {
    /// Binds the queues and the log group of `config`, in the network namespace of the calling thread.
    ///
    /// A number whose holder has just died is waited for, up to a second.
    pub fn open(config: &FeedConfig) -> Result<Feed, FeedError> {
        let line = open_line()?;
        let mut binder = Binder::on(&line)?;
        grow_receive_buffer(&line, config)?;
        for number in config.queues() {
            binder.queue(number, &config.setup())?;
        }
        binder.log_group(config.log_group, config.copy_range)?;
        let early = binder.finish();
        let stride = stride(config.copy_range);
        Ok(Feed {
            line,
            bound: config.queues().collect(),
            config: config.clone(),
            arena: vec![0; stride * sys::BATCH].into(),
            stride,
            early,
            answers: Answers::with_capacity(sys::BATCH),
            counters: FeedCounters::default(),
        })
    }

    /// Whether what is for its queues is to pass where it does not answer.
    pub fn fails_open(&self) -> bool {
        self.config.fail_open && self.config.new_queue.is_some()
    }

    /// Goes over to `config` while packets flow: queues that are not bound yet are bound, those that are get the
    /// new settings, and none is let go of (what waits in it would be lost; without a rule nothing comes).
    ///
    /// Log group and copy range stay as they were opened.
    ///
    /// # Errors
    /// As [`Feed::open`]; the feed then goes on as before.
    pub fn retune(&mut self, config: &FeedConfig) -> Result<(), FeedError> {
        let mut binder = Binder::on(&self.line)?;
        grow_receive_buffer(&self.line, config)?;
        let mut outcome = Ok(());
        for number in config.queues() {
            outcome = outcome.and_then(|()| match self.bound.contains(&number) {
                true => binder.tune(number, &config.setup()),
                false => binder
                    .queue(number, &config.setup())
                    .map(|()| self.bound.push(number)),
            });
        }
        self.early.extend(binder.finish());
        outcome?;
        self.config = FeedConfig {
            new_queue: config.new_queue.or(self.config.new_queue),
            odd_queue: config.odd_queue.or(self.config.odd_queue),
            log_group: self.config.log_group,
            copy_range: self.config.copy_range,
            ..config.clone()
        };
        Ok(())
    }

    /// Receives what is there (at most 64 datagrams, without waiting), has `judge` decide about each packet in
    /// order, and sends the verdicts together. What `judge` says about a copy is not used.
    ///
    /// # Errors
    /// Only when the socket is beyond use; whatever costs single packets is counted.
    pub fn serve(&mut self, mut judge: impl FnMut(Packet<'_>) -> Verdict) -> Result<Served, FeedError> {
        let mut served = Served::default();
        let mut reader = Reader {
            config: &self.config,
            answers: &mut self.answers,
            counters: &mut self.counters,
            served: &mut served,
        };
        for datagram in self.early.drain(..) {
            reader.datagram(&datagram, &mut judge);
        }
        let mut datagrams = [sys::Datagram::default(); sys::BATCH];
        let count = match sys::recvmmsg(self.line.as_fd(), &mut self.arena, self.stride, &mut datagrams) {
            Ok(count) => count,
            Err(error) => reader.shortage(error)?,
        };
        for (datagram, slot) in datagrams
            .iter()
            .take(count)
            .zip(self.arena.chunks_exact(self.stride))
        {
            reader.counters.malformed += u64::from(datagram.cut);
            reader.datagram(&slot[..datagram.length], &mut judge);
        }
        served.more |= count == sys::BATCH;
        self.answer()?;
        Ok(served)
    }

    /// What went wrong so far.
    pub fn counters(&self) -> FeedCounters {
        self.counters
    }

    /// The receive buffer that the kernel granted, in bytes of its own accounting.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(rustix::net::sockopt::socket_recv_buffer_size(&self.line)?)
    }

    fn answer(&mut self) -> Result<(), FeedError> {
        for piece in self.answers.pieces(sys::BATCH) {
            match send(&self.line, piece) {
                Ok(()) => {}
                Err(error) if is_shortage(&error) => {
                    self.counters.verdict_errors += queue_wire::answers_in(piece) as u64;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.answers.clear();
        Ok(())
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

/// The parts of a feed that reading a datagram touches, while its bytes are borrowed.
struct Reader<'a> {
    config: &'a FeedConfig,
    answers: &'a mut Answers,
    counters: &'a mut FeedCounters,
    served: &'a mut Served,
}

impl Reader<'_> {
    #[inline]
    fn datagram(&mut self, bytes: &[u8], judge: &mut impl FnMut(Packet<'_>) -> Verdict) {
        let mut readable = false;
        for message in Messages::new(bytes) {
            readable = true;
            match message.kind {
                QUEUED => self.held(message.payload, judge),
                LOGGED => self.copied(message.payload, judge),
                END => {}
                _ => match message.error() {
                    Some((errno, _)) => self.counters.verdict_errors += u64::from(errno != 0),
                    None => self.counters.malformed += 1,
                },
            }
        }
        self.counters.malformed += u64::from(!readable);
    }

    #[inline]
    fn held(&mut self, message: &[u8], judge: &mut impl FnMut(Packet<'_>) -> Verdict) {
        let Some(held) = queue_wire::held(message) else {
            // Without an id it cannot be answered; the kernel holds it until the queue is unbound.
            self.counters.malformed += 1;
            return;
        };
        let class = if self.config.odd_queue == Some(held.queue) {
            Class::Odd
        } else {
            Class::New
        };
        self.counters.malformed += u64::from(held.payload.is_none());
        let verdict = judge(Packet {
            class,
            payload: held.payload.unwrap_or_default(),
            in_interface: held.in_interface,
        });
        self.answers.push(held.queue, held.id, verdict);
        self.served.packets += 1;
        self.served.held += 1;
    }

    #[inline]
    fn copied(&mut self, message: &[u8], judge: &mut impl FnMut(Packet<'_>) -> Verdict) {
        let Some(copied) = log::copied(message) else {
            self.counters.malformed += 1;
            return;
        };
        let _unused = judge(Packet {
            class: copied.fate.map_or(self.config.log_class, log::Fate::class),
            payload: copied.payload,
            in_interface: copied.in_interface,
        });
        self.served.packets += 1;
    }

    /// Nothing received: nothing there, or something was lost. Says whether the feed lives on.
    fn shortage(&mut self, error: io::Error) -> io::Result<usize> {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Ok(0);
        }
        if !is_shortage(&error) {
            return Err(error);
        }
        self.counters.enobufs += u64::from(error.raw_os_error() == Some(libc::ENOBUFS));
        // The error stood in front of whatever was received before it.
        self.served.more = true;
        Ok(0)
    }
}

/// The kernel is out of room for now, or was disturbed: to be counted, not to die of.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOBUFS | libc::ENOMEM | libc::EINTR)
    )
}

fn send(line: &sys::Line, bytes: &[u8]) -> io::Result<()> {
    loop {
        match line.send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// SO_RCVBUFFORCE goes past net.core.rmem_max; in a user namespace it is refused and the limit stands.
fn grow_receive_buffer(line: &sys::Line, config: &FeedConfig) -> io::Result<()> {
    let bytes = receive_buffer(config);
    // The kernel doubles what it is given, and counts truesize against the double.
    let asked = (bytes / 2).min(i32::MAX as usize / 2);
    rustix::net::sockopt::set_socket_recv_buffer_size_force(line, asked)
        .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(line, asked))?;
    Ok(())
}

/// Room for every packet that the queues may hold, and for the copies beside them.
fn receive_buffer(config: &FeedConfig) -> usize {
    let packets = config
        .queues()
        .count()
        .saturating_mul(config.queue_length as usize);
    packets
        .saturating_mul(truesize(config.copy_range))
        .saturating_add(LOG_BUFFER)
}

/// What one queued packet of full copy range counts in the receive buffer: its bytes, up to 180 of metadata and
/// 320 of skb_shared_info in a power-of-two slab object, and struct sk_buff in another. Measured on 6.18 (buffer
/// size by packets that fit): 1,280 bytes at ranges 256 and 512, 832 for packets of 60 bytes, 2,304 at 1024.
/// `tests/queue.rs` fills two queues to the brim against this figure.
fn truesize(copy_range: u32) -> usize {
    (effective(copy_range) + 180 + 320).next_power_of_two() + 256
}

/// Bytes from one receive slot to the next: the largest datagram, plus one cache line so that the beginnings of
/// 64 slots do not all fall into the same cache set.
fn stride(copy_range: u32) -> usize {
    let largest = (effective(copy_range) + 512).max(log::DATAGRAM_BYTES);
    // The kernel fills an skb to the end of its slab object, not just to the size it was asked for.
    (largest + 320).next_power_of_two() + 64
}

/// The kernel takes 0, and anything larger, for this most (NFQNL_MAX_COPY_RANGE).
fn effective(copy_range: u32) -> usize {
    match copy_range {
        0 => MAX_COPY_RANGE,
        range => (range as usize).min(MAX_COPY_RANGE),
    }
}

fn taken_by(holder: Option<&str>, portid: Option<u32>) -> String {
    match (holder, portid) {
        (Some(holder), _) => format!(" by {holder}"),
        (None, Some(portid)) => format!(" by the netlink socket with port {portid}"),
        (None, None) => " by another process".to_owned(),
    }
}

fn module(kind: Numbered) -> &'static str {
    match kind {
        Numbered::Queue => "nfnetlink_queue",
        Numbered::LogGroup => "nfnetlink_log",
    }
}

/// Bytes copied of each packet unless configured: a whole Ethernet frame's, since IPv6 extension headers may fill one
/// and the ports come last. Most first packets are far shorter, and cost what they did.
pub const COPY_RANGE: u32 = 1500;
/// 65535 less an attribute header.
const MAX_COPY_RANGE: usize = 65531;
/// About 1,500 datagrams of up to 16 copies.
const LOG_BUFFER: usize = 4 << 20;
const QUEUED: u16 = super::netlink::nfnl_type(libc::NFNL_SUBSYS_QUEUE, libc::NFQNL_MSG_PACKET);
const LOGGED: u16 = super::netlink::nfnl_type(libc::NFNL_SUBSYS_ULOG, libc::NFULNL_MSG_PACKET);
const END: u16 = libc::NLMSG_DONE as u16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_cover_what_was_measured() {
        assert_eq!(truesize(256), 1280);
        assert_eq!(truesize(1024), 2304);
        assert_eq!(truesize(COPY_RANGE), 2304);
        let config = FeedConfig {
            new_queue: Some(1),
            odd_queue: Some(2),
            log_group: 1,
            log_class: Class::Refused,
            queue_length: u32::MAX,
            fail_open: false,
            copy_range: 0,
        };
        assert!(
            receive_buffer(&config) > 4096 * 2304,
            "no overflow at the largest figures"
        );
        let copies_only = FeedConfig {
            new_queue: None,
            odd_queue: None,
            ..config
        };
        assert_eq!(receive_buffer(&copies_only), LOG_BUFFER);
    }

    #[test]
    fn slots_hold_any_datagram_and_begin_in_different_cache_sets() {
        for range in [0, 1, COPY_RANGE, 4096, 65535, u32::MAX] {
            let stride = stride(range);
            assert!(
                stride > effective(range) + 512 && stride > log::DATAGRAM_BYTES,
                "{range}"
            );
            assert_eq!(stride / 64 % 2, 1, "{range}");
        }
    }

    #[test]
    fn errors_name_number_holder_and_remedy() {
        let taken = |portid, holder: Option<&str>| FeedError::Taken {
            kind: Numbered::Queue,
            number: 100,
            portid,
            holder: holder.map(str::to_owned),
        };
        for (error, words) in [
            (
                taken(Some(7), Some("suricata (pid 7)")),
                "queue number 100 is taken by suricata (pid 7)",
            ),
            (
                taken(Some(4_000_000_000), None),
                "by the netlink socket with port 4000000000",
            ),
            (
                taken(None, None),
                "is taken by another process, choose a free one",
            ),
            (FeedError::NoCapability, "needs CAP_NET_ADMIN"),
            (
                FeedError::Unsupported {
                    kind: Numbered::LogGroup,
                },
                "has no nfnetlink_log",
            ),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
