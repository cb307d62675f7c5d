//! Taking queue numbers and log groups: one at a time, each confirmed by the kernel, on a socket to which
//! packets may already come. Asking apart from serving, because here it is allowed to wait.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::netlink::{Builder, Messages};
use super::queue::FeedError;
use super::queue_proc::{Holder, Numbered};
use super::queue_wire::{self, Setup};
use super::{log, sys};

/// A socket that takes numbers. Packets that come before all are taken are kept, not lost: with a table left
/// by a predecessor they flow from the first bind on, and the kernel waits for an answer to each.
pub(crate) struct Binder<'a> {
    line: &'a sys::Line,
    seq: u32,
    buffer: Box<[u8]>,
    early: Vec<Vec<u8>>,
}

/// Opens a socket for taking numbers, in the network namespace of the calling thread.
pub(crate) fn open_line() -> io::Result<sys::Line> {
    sys::Line::open(mnl::Bus::Netfilter)
}

impl Binder<'_> {
    /// Takes numbers on `line`.
    pub(crate) fn on(line: &sys::Line) -> io::Result<Binder<'_>> {
        for (name, value) in [(libc::NETLINK_CAP_ACK, 1), (libc::NETLINK_EXT_ACK, 1)] {
            sys::setsockopt_int(line.as_fd(), libc::SOL_NETLINK, name, value)?;
        }
        Ok(Binder {
            line,
            seq: 0,
            buffer: vec![0; RECEIVE_BYTES].into(),
            early: Vec::new(),
        })
    }

    /// The datagrams that came meanwhile, in order.
    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        self.early
    }

    /// Takes a queue number.
    pub(crate) fn queue(&mut self, number: u16, setup: &Setup) -> Result<(), FeedError> {
        self.patiently(Numbered::Queue, number, |builder, seq| {
            queue_wire::bind(builder, seq, number, setup);
        })
    }

    /// Gives a queue that this socket holds other settings, without a moment unbound.
    pub(crate) fn tune(&mut self, number: u16, setup: &Setup) -> Result<(), FeedError> {
        match self.ask(|builder, seq| queue_wire::tune(builder, seq, number, setup))? {
            0 => Ok(()),
            errno => Err(FeedError::Refused {
                kind: Numbered::Queue,
                number,
                error: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Takes a log group.
    pub(crate) fn log_group(&mut self, number: u16, copy_range: u32) -> Result<(), FeedError> {
        self.patiently(Numbered::LogGroup, number, |builder, seq| {
            log::bind(builder, seq, number, copy_range);
        })
    }

    /// A number whose holder was just killed is free only when the kernel has torn its socket down, a moment
    /// later: worth waiting for, unless somebody is seen to live.
    fn patiently(
        &mut self,
        kind: Numbered,
        number: u16,
        build: impl Fn(&mut Builder, u32),
    ) -> Result<(), FeedError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if self.try_bind(kind, number, &build)? {
                return Ok(());
            }
            let holder = Holder::of(kind, number);
            let patience = if holder.lives { PATIENCE_LIVING } else { PATIENCE };
            if began.elapsed() >= patience {
                return Err(FeedError::Taken {
                    kind,
                    number,
                    portid: holder.portid,
                    holder: holder.program.map(|program| program.to_string()),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try; false if somebody else has the number.
    fn try_bind(
        &mut self,
        kind: Numbered,
        number: u16,
        build: impl FnOnce(&mut Builder, u32),
    ) -> Result<bool, FeedError> {
        match self.ask(build)? {
            0 => Ok(true),
            // The owner is checked first: a stranger's number is EPERM, only one's own is EBUSY. Without
            // CAP_NET_ADMIN everything is EPERM.
            libc::EPERM if !self.is_capable()? => Err(FeedError::NoCapability),
            libc::EPERM | libc::EBUSY => Ok(false),
            libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT => Err(FeedError::Unsupported { kind }),
            errno => Err(FeedError::Refused {
                kind,
                number,
                error: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// One try, undone at once. Closing the socket would undo it too, but in the kernel's own time.
    fn try_for_a_moment(
        &mut self,
        kind: Numbered,
        number: u16,
        bind: impl FnOnce(&mut Builder, u32),
        unbind: impl FnOnce(&mut Builder, u32),
    ) -> Result<bool, FeedError> {
        let free = self.try_bind(kind, number, bind)?;
        if free {
            self.ask(unbind)?;
        }
        Ok(free)
    }

    fn is_capable(&mut self) -> Result<bool, FeedError> {
        Ok(self.ask(queue_wire::knock)? != libc::EPERM)
    }

    /// Sends one request and returns the errno of its acknowledgement, 0 for done.
    fn ask(&mut self, build: impl FnOnce(&mut Builder, u32)) -> Result<i32, FeedError> {
        self.seq += 1;
        let mut builder = Builder::new();
        build(&mut builder, self.seq);
        self.line.send(builder.bytes())?;
        loop {
            let length = match rustix::net::recv(self.line, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                // Requests are carried out while they are sent: what is not there now never comes.
                Err(rustix::io::Errno::AGAIN) => return Err(FeedError::Unconfirmed),
                Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            let bytes = &self.buffer[..length];
            let answer = Messages::new(bytes).find_map(|message| {
                let (errno, _) = message.error()?;
                (message.seq == self.seq).then_some(errno)
            });
            match answer {
                Some(errno) => return Ok(errno),
                None => self.early.push(bytes.to_vec()),
            }
        }
    }
}

/// Finds `count` consecutive queue numbers from `base` on that nobody holds, and returns the first.
///
/// Each is bound for a moment, with length 0 and fail-open: a packet that some rule sends there in that moment
/// passes. Another process may take them before they are bound for good; that shows then.
///
/// # Errors
/// [`FeedError::Exhausted`] if there are none up to 65535; what [`Feed::open`](super::queue::Feed::open) says
/// about capability and kernel.
pub fn free_queues(base: u16, count: u16) -> Result<u16, FeedError> {
    let line = open_line()?;
    let mut binder = Binder::on(&line)?;
    let passing = Setup {
        length: 0,
        copy_range: 1,
        fail_open: true,
    };
    consecutive(Numbered::Queue, base, count, |number| {
        binder.try_for_a_moment(
            Numbered::Queue,
            number,
            |builder, seq| queue_wire::bind(builder, seq, number, &passing),
            |builder, seq| queue_wire::unbind(builder, seq, number),
        )
    })
}

/// Finds `count` consecutive log groups from `base` on that nobody holds, and returns the first.
///
/// # Errors
/// As [`free_queues`].
pub fn free_groups(base: u16, count: u16) -> Result<u16, FeedError> {
    let line = open_line()?;
    let mut binder = Binder::on(&line)?;
    consecutive(Numbered::LogGroup, base, count, |number| {
        binder.try_for_a_moment(
            Numbered::LogGroup,
            number,
            |builder, seq| log::bind(builder, seq, number, 1),
            |builder, seq| log::unbind(builder, seq, number),
        )
    })
}

fn consecutive(
    kind: Numbered,
    base: u16,
    count: u16,
    mut is_free: impl FnMut(u16) -> Result<bool, FeedError>,
) -> Result<u16, FeedError> {
    let mut first = base;
    for number in base..=u16::MAX {
        if !is_free(number)? {
            first = number.wrapping_add(1);
        } else if number - first + 1 >= count {
            return Ok(first);
        }
    }
    Err(FeedError::Exhausted { kind, base, count })
}

/// Longer than any early packet or acknowledgement: a whole packet with its metadata.
const RECEIVE_BYTES: usize = 128 << 10;
/// How long a number may stay taken after its holder is gone. In 1,000 kills of a small process the next bind
/// succeeded after 6 ms (median), 10 ms (longest); a machine under load is given a hundred times that.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long while its holder is seen to live: it may be dying just now.
const PATIENCE_LIVING: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn search(base: u16, count: u16, taken: &[u16]) -> Result<u16, FeedError> {
        consecutive(
            Numbered::Queue,
            base,
            count,
            |number| Ok(!taken.contains(&number)),
        )
    }

    #[test]
    fn the_first_gap_that_is_wide_enough_is_taken() {
        assert_eq!(search(100, 4, &[]).unwrap(), 100);
        assert_eq!(search(100, 4, &[103]).unwrap(), 104);
        assert_eq!(search(100, 1, &[100, 101]).unwrap(), 102);
        assert_eq!(search(100, 2, &[101, 103, 105]).unwrap(), 106);
        assert_eq!(search(65534, 2, &[]).unwrap(), 65534);
    }

    #[test]
    fn the_end_of_the_numbers_is_an_error_that_says_what_was_asked() {
        for (base, count, taken) in [
            (65534, 3, &[][..]),
            (65534, 1, &[65534, 65535]),
            (65535, 1, &[65535]),
        ] {
            let error = search(base, count, taken).unwrap_err();
            assert!(matches!(error, FeedError::Exhausted { .. }), "{error}");
            assert!(error.to_string().contains(&base.to_string()), "{error}");
        }
    }
}
