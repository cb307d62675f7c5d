//! Notices when somebody touches our table (`nft flush ruleset`, a restarted nftables.service) and has it put right:
//! the ledger is the truth, the kernel's table a copy of it.

use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;

use super::enforcer::Job;
use crate::kernel::ruleset::TableWatch;

/// Asks the enforcer to verify the table whenever it was touched, until `stop` becomes readable.
pub fn follow(mut watch: TableWatch, jobs: Sender<Job>, stop: Arc<OwnedFd>) {
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        // EINTR and everything else lead back here.
        let _ = poll(&mut ready, None);
        if ready[1].revents().contains(PollFlags::IN) || (watch.drain() && jobs.send(Job::Verify).is_err()) {
            return;
        }
    }
}
