//! Facts about this machine that are not ours to change: what its kernel can do, who holds netfilter's numbers, whose
//! tables stand beside ours, who serves whom. Typed values, no judgement; what is read from `/proc` is text of others, and
//! may hold anything.

pub mod held;
pub mod release;
pub mod services;
pub mod tables;
pub mod trial;

use std::io;

use super::netlink::NetlinkError;
use super::preflight::PreflightError;
use super::queue::FeedError;
use super::ruleset::RulesetError;

/// Why a fact is not known, or a trial did not come off.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The kernel did not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A table could not be made or read.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    /// A packet did not fare as it was to.
    #[error(transparent)]
    Packet(#[from] PreflightError),
    /// A number could not be had.
    #[error(transparent)]
    Queue(#[from] FeedError),
    /// A socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
