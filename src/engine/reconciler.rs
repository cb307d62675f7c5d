//! Notices when somebody touches our table (`nft flush ruleset`, a restarted nftables.service) and has it put right:
//! the ledger is the truth, the kernel's table a copy of it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;

use super::enforcer::Job;
use crate::kernel::ruleset::TableWatch;

/// Asks the enforcer to verify the table whenever it was touched, until `stop` becomes readable.
///
/// At once when something is heard, then not again for a moment: one transaction of somebody else is announced
/// piece by piece, and each verification asserts every ban.
pub fn follow(mut watch: TableWatch, jobs: Sender<Job>, stop: Arc<OwnedFd>) {
    while !wait(&[watch.as_fd(), stop.as_fd()], None) {
        if !watch.drain() {
            continue;
        }
        if jobs.send(Job::Verify).is_err() || wait(&[stop.as_fd()], Some(&SETTLE)) {
            return;
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

/// How long the announcements of one transaction may trickle in.
const SETTLE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
