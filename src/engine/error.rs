//! Why the engine did not start, or ended.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::lockout::Lockout;
use crate::config::ConfigError;
use crate::control::server::ServerError;
use crate::kernel::host::HostError;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::preflight::PreflightError;
use crate::kernel::queue::{FeedError, Numbered};
use crate::kernel::ruleset::RulesetError;

/// Why the engine did not start, or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A directory cannot be made or used.
    #[error("cannot use directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another engine has this state directory.
    #[error("another engine runs on state directory {}; stop it, or give --state-dir another directory", .0.display())]
    Running(PathBuf),
    /// The operator loads the table, and has not.
    #[error(
        "engine.manage_ruleset = false, and table inet verdictd is not loaded: write it with \"verdictd ruleset --config FILE > \
         /etc/verdictd/verdictd.nft\", include that file in /etc/nftables.conf and load it"
    )]
    NotLoaded,
    /// The operator's table leads packets where nobody would read them.
    #[error(
        "engine.manage_ruleset = false, and the loaded table inet verdictd does not fit the configuration ({}): packets would go where \
         nobody reads them; write the table again with \"verdictd ruleset\" and load it, or correct the configuration",
        .0.join("; ")
    )]
    Misfit(Vec<String>),
    /// Another process answers for our table.
    #[error("table inet verdictd is served by another process: {0}")]
    Served(FeedError),
    /// The same, by the first number of the table.
    #[error("table inet verdictd is served by another process ({kind} {number} is taken), stop that engine first", kind = .0.word(), number = .1)]
    Answered(Numbered, u16),
    /// Queues or log groups.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The policy would lock somebody out.
    #[error(transparent)]
    Lockout(#[from] Lockout),
    /// The kernel cannot do what is needed.
    #[error("preflight: {0}")]
    Preflight(#[from] PreflightError),
    /// The table.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Addresses and routes.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// Threads, event descriptors, signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A thread that must not end did.
    #[error("{0} ended unexpectedly; the kernel keeps bans and port filter, on_loss decides about the rest")]
    Lost(String),
}
