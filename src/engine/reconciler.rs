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
        let touches = match wait([watch.as_fd(), stop.as_fd()], patience) {
            Woken::ToStop => return,
            Woken::ByNotices => watch.drain(),
            // The end of a transaction was waited for, and never came.
            Woken::ByTime => watch.give_up().into_iter().collect(),
        };
        let lost = touches.iter().any(|touch| touch.lost);
        for touch in touches {
            if jobs.send(Job::Touched(Box::new(touch))).is_err() {
                return;
            }
        }
        // More is lost while everybody's sets are loaded anew, and each loss is a look at all of ours.
        if lost && matches!(wait([stop.as_fd(), stop.as_fd()], Some(&SETTLE)), Woken::ToStop) {
            return;
        }
    }
}

enum Woken {
    ByNotices,
    ByTime,
    ToStop,
}

/// Sleeps until one of them becomes readable or the time is over. EINTR leads back to the caller, which looks for itself.
fn wait([notices, stop]: [BorrowedFd<'_>; 2], timeout: Option<&Timespec>) -> Woken {
    let mut ready = [notices, stop].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut ready, timeout) {
        Ok(0) => Woken::ByTime,
        Ok(_) if ready[1].revents().contains(PollFlags::IN) => Woken::ToStop,
        _ => Woken::ByNotices,
    }
}

/// How long the notices of one transaction may trickle in.
const SETTLE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
