//! Hears when somebody else changes our table (`nft flush ruleset`, a restarted nftables.service, an element deleted by
//! hand) and has the enforcer put it right.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;

use super::enforcer::Job;
use crate::kernel::ruleset::TableWatch;

/// Tells the enforcer of each transaction of somebody else's that concerns our table, until `stop` becomes readable.
pub fn follow(mut watch: TableWatch, jobs: Sender<Job>, stop: Arc<OwnedFd>) {
    loop {
        let patience = watch.is_open().then_some(&SETTLE);
        if wait(&[watch.as_fd(), stop.as_fd()], patience) {
            return;
        }
        let mut touches = watch.drain();
        // Waited for, and it never came: what is known has to do.
        if touches.is_empty() && patience.is_some() {
            touches.extend(watch.give_up());
        }
        for touch in touches {
            if jobs.send(Job::Touched(Box::new(touch))).is_err() {
                return;
            }
        }
    }
}

/// Sleeps until one of `fds` becomes readable or the time is over; whether it was the last one. EINTR and everything
/// else lead back to the caller, which looks for itself.
fn wait(fds: &[BorrowedFd<'_>], timeout: Option<&Timespec>) -> bool {
    let mut ready: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let _ = poll(&mut ready, timeout);
    ready
        .last()
        .is_some_and(|last| last.revents().contains(PollFlags::IN))
}

/// How long the notices of one transaction may trickle in.
const SETTLE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
