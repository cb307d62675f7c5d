//! Our table as a value: made from the configuration, written as text, loaded as one atomic batch, read back
//! and compared. It touches no table but ours.
//!
//! One typed value ([`model`]) has both renderings, nft's words ([`text`]) and the kernel's expressions
//! ([`encode`]), so that what people read is what runs.

pub mod alive;
mod apply;
mod compare;
mod counters;
mod encode;
mod expression;
mod features;
mod lost;
mod mend;
mod messages;
mod model;
mod readback;
pub mod scratch;
mod shape;
mod spec;
mod sys;
mod text;
mod uapi;
mod watch;

use thiserror::Error;

pub use self::apply::{Applied, KeptSet, apply, apply_over, apply_with, delete, probe_backend, probe_owner};
pub use self::counters::{ANY, Dropped};
pub use self::features::{Feature, probe_feature};
pub use self::mend::{First, Look, look, mend};
pub use self::readback::{Loaded, read};
pub use self::spec::{Backend, Family, Layout, Spec, ban_set_name, parse_ban_set_name};
pub use self::watch::{Culprit, TableWatch, Touch};
use super::netlink::NetlinkError;

/// Name of our table, of family inet.
pub const TABLE: &str = "verdictd";

/// A table as it is to be; made by [`Ruleset::build`].
#[derive(Clone, Debug)]
pub struct Ruleset {
    spec: Spec,
    own: bool,
    sets: Vec<model::Set>,
    chains: Vec<model::Chain>,
}

impl Ruleset {
    /// The same with sets for bans of these lengths too, each with its rules.
    pub fn with_ban_sets<'a>(&self, more: impl IntoIterator<Item = &'a (Family, u8)>) -> Ruleset {
        let mut spec = self.spec.clone();
        spec.prefix_sets.extend(more);
        Ruleset::build(&spec).owned(self.own)
    }

    /// The same as a table that belongs to the socket that writes it (`own`), so that nobody else can change it; or
    /// as one that anybody with the right may change.
    pub fn owned(self, own: bool) -> Ruleset {
        Ruleset { own, ..self }
    }

    /// Whether it is to belong to the socket that writes it.
    pub fn is_owned(&self) -> bool {
        self.own
    }

    /// What of it can be loaded at once after a wipe, if not all: the kernel lets a rule with a target of xtables wait
    /// until every element of the tables that were wiped is freed (nft_compat), which takes a set of 100,000 a tenth of
    /// a second or two. None: all of it.
    pub fn before_queues(&self) -> Option<Ruleset> {
        let queues = |rule: &model::Rule| {
            rule.steps
                .iter()
                .any(|step| matches!(step, model::Step::Queue { .. }))
        };
        let mut rest = self.clone();
        for chain in &mut rest.chains {
            chain.rules.retain(|rule| !queues(rule));
        }
        let waits = self.spec.backend == Backend::Xt
            && self.chains.iter().any(|chain| chain.rules.iter().any(queues));
        waits.then_some(rest)
    }

    /// The flags to write over what was found. A flag that outlives its owner can neither be given to a table that is
    /// there nor taken from it, and who owns it cannot let go; only a table without owner that has it can be owned.
    fn table_flags(&self, found: Option<&Loaded>) -> u32 {
        let wanted = if self.own { apply::OWNED } else { 0 };
        match found.map(|found| found.flags & apply::OWNED) {
            None => wanted,
            Some(0) => 0,
            Some(there) => there | wanted,
        }
    }

    /// The table that does what `spec` asks for.
    pub fn build(spec: &Spec) -> Ruleset {
        Ruleset {
            spec: spec.clone(),
            own: false,
            sets: shape::sets(spec),
            chains: shape::chains(spec),
        }
    }

    /// The table in nft's words, to be read or included; a table of its own, nothing is flushed.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// What the table was built from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
}

/// Why the table is not loaded as asked.
#[derive(Debug, Error)]
pub enum RulesetError {
    /// The process may not.
    #[error(
        "cannot change nftables: this needs CAP_NET_ADMIN (run as root, or give the unit \
         AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    NotPermitted,
    /// A table of our name that we did not make.
    #[error(
        "table \"inet {TABLE}\" exists and is not ours (its comment does not begin with \"{MARK_WORD}\"): rename \
         it, or remove it with \"nft delete table inet {TABLE}\""
    )]
    Foreign,
    /// The kernel lets only one socket change it.
    #[error(
        "table \"inet {TABLE}\" belongs to the process with netlink port {portid} (flag owner): stop that process, \
         the kernel lets nobody else change the table"
    )]
    Owned {
        /// Netlink port of the owner, usually its process id.
        portid: u32,
    },
    /// The table is marked as ours, but something in it cannot be kept and may not be replaced.
    #[error(
        "{what} of table \"inet {TABLE}\" is not as the engine makes it and cannot be changed in place: save your \
         bans, then remove the table with \"nft delete table inet {TABLE}\""
    )]
    Shape {
        /// The set or chain.
        what: String,
    },
    /// Neither way to queue packets exists.
    #[error(
        "this kernel cannot hand packets to a queue: it has neither the nft expression \"queue\" (module nft_queue: \
         {native}) nor the xt target NFQUEUE (modules nft_compat and xt_NFQUEUE: {xt})"
    )]
    NoQueue {
        /// What it said to the expression.
        native: NetlinkError,
        /// What it said to the target.
        xt: NetlinkError,
    },
    /// Another process put another table in place meanwhile; nothing was changed.
    #[error(
        "table \"inet {TABLE}\" was changed by another process since it was read, probably by a second engine \
         that starts at this moment: see that only one runs in this network namespace"
    )]
    Overtaken,
    /// The kernel refused one part; nothing was changed.
    #[error("{part}: {source}")]
    Refused {
        /// What was refused, in nft's words.
        part: String,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// It was applied, and reads back as something else.
    #[error("the table does not read back as it was loaded: {}", .0.join("; "))]
    ReadBack(Vec<String>),
    /// The exchange itself failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// How the comment of our table begins: by it we know it again.
const MARK_WORD: &str = "verdictd:";
/// The comment of our table.
const MARK: &str = "verdictd: verdicts on what is new; made by the engine, changes are overwritten";
/// The default makes a million bans cost 5 % of a core for ever.
const BAN_GC_SECONDS: u32 = 60;
/// Evidence of one source: copies a second, and at once.
const LIMIT_PER_SECOND: u64 = 20;
const LIMIT_BURST: u32 = 20;
/// Packets that conntrack calls invalid, of all sources together, for each worker: far below what one answers (on the
/// build machine a debug build 17,000 a second), so that a flood from forged sources leaves room in its queue.
const INVALID_PER_SECOND: u64 = 10_000;
const INVALID_BURST: u32 = 1000;
/// How many sources have a limit of their own at a time, and for how long.
const LIMIT_SET_SIZE: u32 = 65_536;
const LIMIT_TIMEOUT_SECONDS: u32 = 10;
/// Bytes of a packet that go into a copy: as many as of a held one.
const SNAPLEN: u32 = crate::kernel::queue::COPY_RANGE;
/// Copies that are sent to the engine together.
const LOG_THRESHOLD: u16 = 16;
