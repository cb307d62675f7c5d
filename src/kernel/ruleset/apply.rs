//! One atomic batch from whatever is there to the table that is asked for.
//!
//! Base chains and sets of bans are never deleted nor flushed: deleting a base chain drops every packet that
//! waits in any queue, and a ban is not ours to forget. Everything else is flushed and made anew in the same
//! transaction, so that every packet meets either the old table or the new one.

use std::ops::Range;

use nftnl::{Batch, MsgType, ProtoFamily, Rule, Table};

use super::alive;
use super::encode::Encoder;
use super::expression::c_string;
use super::mend::{First, look, put};
use super::messages;
use super::model::{Chain, SetKind, Step};
use super::readback::{Loaded, read};
use super::spec::{Backend, Family};
use super::sys::Message;
use super::uapi::{NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST};
use super::{Ruleset, RulesetError, TABLE};
use crate::kernel::netlink::{Messages, Netlink, NetlinkError};

/// What became of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// There was none before.
    pub created: bool,
    /// Sets of bans that keep another size than asked for: making them anew would lose their bans.
    pub kept: Vec<KeptSet>,
    /// Sets of bans of prefixes that were found and stay in force, though they were not asked for.
    pub adopted: Vec<(Family, u8)>,
}

/// A set of bans with another size than asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSet {
    /// Its name.
    pub name: String,
    /// The size it keeps; none: no limit.
    pub size: Option<u32>,
    /// The size asked for.
    pub wanted: u32,
}

/// Loads `ruleset` in place of what there is of our table, in one transaction, and reads it back.
///
/// # Errors
/// In every case but [`RulesetError::ReadBack`] and a [`RulesetError::Netlink`] that calls the kernel's state
/// unknown, nothing was changed.
pub fn apply(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<Applied, RulesetError> {
    apply_if(netlink, ruleset, &[], |_| true)
}

/// The same; sets of bans that are made hold the `first` of them at once.
///
/// # Errors
/// As [`apply`].
pub fn apply_with(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    first: First<'_>,
) -> Result<Applied, RulesetError> {
    apply_if(netlink, ruleset, first, |_| true)
}

/// The same, but only over the table that the caller has `seen` and made its plans upon; sets of bans that are made
/// hold the `first` of them at once.
///
/// # Errors
/// [`RulesetError::Overtaken`] if by now its numbers are others: two engines that start at the same moment both
/// see no table, and only one may have it. Else as [`apply`].
pub fn apply_over(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    seen: Option<&Loaded>,
    first: First<'_>,
) -> Result<Applied, RulesetError> {
    let seen = seen.map(Loaded::numbers);
    apply_if(netlink, ruleset, first, |found| {
        found.map(Loaded::numbers) == seen
    })
}

fn apply_if(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    first: First<'_>,
    expected: impl Fn(Option<&Loaded>) -> bool,
) -> Result<Applied, RulesetError> {
    let mut tries = 0;
    loop {
        match apply_once(netlink, ruleset, first, &expected) {
            // Somebody changed the table between our look and our batch.
            Err(RulesetError::Refused { source, .. }) if tries < TRIES && overtaken(&source) => tries += 1,
            result => return result,
        }
    }
}

pub(super) fn overtaken(error: &NetlinkError) -> bool {
    matches!(
        error.errno(),
        Some(libc::ERESTART | libc::ENOENT | libc::EEXIST | libc::EBUSY)
    )
}

fn apply_once(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    first: First<'_>,
    expected: impl Fn(Option<&Loaded>) -> bool,
) -> Result<Applied, RulesetError> {
    let look = look(netlink)?;
    if !expected(look.found.as_ref()) {
        return Err(RulesetError::Overtaken);
    }
    let applied = put(netlink, ruleset, &look, first, true)?;
    let now = read(netlink)?.unwrap_or_default();
    let differences = now.differences(&ruleset.with_ban_sets(&applied.adopted));
    if differences.is_empty() {
        Ok(applied)
    } else {
        Err(RulesetError::ReadBack(differences))
    }
}

/// Whether this kernel has tables that belong to a socket and outlive it (flags owner and persist, Linux 6.9); tried
/// in a table that is made and deleted within one transaction, so that nobody ever sees it.
///
/// # Errors
/// If it could not be tried.
pub fn probe_owner(netlink: &mut Netlink) -> Result<bool, RulesetError> {
    let name = format!("{TABLE}_probe_{}", std::process::id());
    let mut batch = Transaction::new();
    let part = || "a table with an owner".to_owned();
    batch.add(&messages::add_table(&name, OWNED), part);
    batch.add(&messages::delete_table(&name), part);
    match batch.send(netlink) {
        Ok(()) => Ok(true),
        Err(RulesetError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes our table out, bans and all; packets that wait in a queue are dropped by the kernel.
///
/// # Errors
/// If it is another's, or the kernel refuses.
pub fn delete(netlink: &mut Netlink) -> Result<(), RulesetError> {
    if read_to_change(netlink)?.is_none() {
        return Ok(());
    }
    let mut batch = Transaction::new();
    batch.add(&messages::delete_table(TABLE), || {
        format!("delete table inet {TABLE}")
    });
    batch.send(netlink)
}

/// Which way of queueing packets this kernel has, the native one first.
///
/// Tried in a table that is made and deleted within one transaction, so that nobody ever sees it.
///
/// # Errors
/// [`RulesetError::NoQueue`] if it has neither.
pub fn probe_backend(netlink: &mut Netlink) -> Result<Backend, RulesetError> {
    let native = match probe(netlink, Backend::Native) {
        Ok(()) => return Ok(Backend::Native),
        Err(error) => refusal(error)?,
    };
    match probe(netlink, Backend::Xt) {
        Ok(()) => Ok(Backend::Xt),
        Err(error) => Err(RulesetError::NoQueue {
            native,
            xt: refusal(error)?,
        }),
    }
}

fn refusal(error: RulesetError) -> Result<NetlinkError, RulesetError> {
    match error {
        RulesetError::Refused { source, .. } => Ok(source),
        other => Err(other),
    }
}

fn probe(netlink: &mut Netlink, backend: Backend) -> Result<(), RulesetError> {
    let step = Step::Queue {
        number: u16::MAX,
        bypass: true,
    };
    probe_step(netlink, backend, step, || {
        format!("a rule that queues ({backend})")
    })
}

/// Tries a rule of this one step in a table that is made and deleted within one transaction.
pub(super) fn probe_step(
    netlink: &mut Netlink,
    backend: Backend,
    step: Step,
    part: impl Fn() -> String,
) -> Result<(), RulesetError> {
    let name = format!("{TABLE}_probe_{}", std::process::id());
    let table = Table::new(c_string(&name), ProtoFamily::Inet);
    let chain = nftnl::Chain::new(c"probe", &table);
    let mut rule = Rule::new(&chain);
    for expression in Encoder::new(&name, backend).rule(&[step]).expressions {
        rule.add_expr(&expression);
    }
    let mut batch = Transaction::new();
    batch.add(&messages::add_table(&name, 0), &part);
    batch.add(&chain, &part);
    batch.add(&rule, &part);
    batch.add(&messages::delete_table(&name), &part);
    batch.send(netlink)
}

pub(super) fn read_to_change(netlink: &mut Netlink) -> Result<Option<Loaded>, RulesetError> {
    let found = read(netlink)?;
    match found.as_ref().and_then(|found| found.owner) {
        Some(portid) if portid != netlink.portid() => Err(RulesetError::Owned { portid }),
        _ => Ok(found),
    }
}

/// The ruleset with every set of bans that is already there, or the bans in it would hold no more.
pub(super) fn adopting(ruleset: &Ruleset, found: &Loaded, applied: &mut Applied) -> Ruleset {
    let wanted = ruleset.spec.ban_sets();
    applied.adopted = found.ban_sets.difference(&wanted).copied().collect();
    if applied.adopted.is_empty() {
        return ruleset.clone();
    }
    ruleset.with_ban_sets(&applied.adopted)
}

/// What is there and stays must be usable; what differs only in size is kept and told.
pub(super) fn keep(
    ruleset: &Ruleset,
    found: &Loaded,
    spare: bool,
    applied: &mut Applied,
) -> Result<(), RulesetError> {
    for set in &ruleset.sets {
        let (SetKind::Bans { size }, Some(there)) = (&set.kind, found.sets.get(&set.name)) else {
            continue;
        };
        if !there.fits(set) {
            if !spare {
                continue;
            }
            let what = format!("set \"{}\"", set.name);
            return Err(RulesetError::Shape { what });
        }
        if there.size != Some(*size) {
            applied.kept.push(KeptSet {
                name: set.name.clone(),
                size: there.size,
                wanted: *size,
            });
        }
    }
    for chain in &ruleset.chains {
        if found
            .chains
            .get(&chain.name)
            .is_some_and(|there| !there.fits(chain.priority))
        {
            let what = format!("chain \"{}\"", chain.name);
            return Err(RulesetError::Shape { what });
        }
    }
    Ok(())
}

/// The transaction that makes `ruleset` of what was found.
pub(super) fn replace(ruleset: &Ruleset, found: &Loaded, flags: u32, first: First<'_>) -> Transaction {
    let mut batch = Transaction::new();
    batch.add(&messages::add_table(TABLE, flags), || {
        format!("table inet {TABLE}")
    });
    for chain in &ruleset.chains {
        batch.add(&messages::add_chain(chain), || {
            format!("chain \"{}\"", chain.name)
        });
    }
    for name in found.chains.keys() {
        batch.add(&messages::flush_chain(name), || format!("flush chain \"{name}\""));
    }
    add_sets(&mut batch, ruleset, found, first);
    add_rules(&mut batch, ruleset);
    for (name, chain) in &found.chains {
        let wanted = ruleset.chains.iter().any(|chain| chain.name == *name);
        if !wanted && chain.hook.is_none() {
            batch.add(&messages::delete_chain(name), || {
                format!("delete chain \"{name}\"")
            });
        }
    }
    for name in found.sets.keys() {
        if !ruleset.sets.iter().any(|set| set.name == *name) {
            batch.add(&messages::delete_set(name), || format!("delete set \"{name}\""));
        }
    }
    batch
}

fn add_sets(batch: &mut Transaction, ruleset: &Ruleset, found: &Loaded, first: First<'_>) {
    for (set, id) in ruleset.sets.iter().zip(NAMED_SET_IDS..) {
        let part = || format!("set \"{}\"", set.name);
        let there = found.sets.get(&set.name);
        let stays = there.is_some_and(|there| there.fits(set));
        if there.is_some() && !stays {
            batch.add(&messages::delete_set(&set.name), part);
        }
        if !stays {
            batch.add(&messages::add_set(set, id), part);
            for message in messages::first_bans(&set.name, first) {
                batch.add(&message, part);
            }
        }
        if let SetKind::Filter(intervals) = &set.kind {
            if stays {
                batch.add(&messages::flush_set(&set.name), part);
            }
            for message in messages::fill_set(&set.name, intervals) {
                batch.add(&message, part);
            }
        }
        if let SetKind::Alive { workers } = &set.kind {
            batch.add(&alive::given(0..*workers, alive::GIVEN), part);
        }
    }
}

fn add_rules(batch: &mut Transaction, ruleset: &Ruleset) {
    let table = Table::new(c_string(TABLE), ProtoFamily::Inet);
    let mut encoder = Encoder::new(TABLE, ruleset.spec.backend);
    for chain in &ruleset.chains {
        add_rules_of(batch, &table, chain, &mut encoder);
    }
}

fn add_rules_of(batch: &mut Transaction, table: &Table, chain: &Chain, encoder: &mut Encoder<'_>) {
    let parent = nftnl::Chain::new(c_string(&chain.name), table);
    for rule in &chain.rules {
        let part = || format!("rule `{rule}` of chain \"{}\"", chain.name);
        let encoded = encoder.rule(&rule.steps);
        for message in &encoded.sets {
            batch.add::<Message>(message, part);
        }
        let mut made = Rule::new(&parent);
        for expression in &encoded.expressions {
            made.add_expr(expression);
        }
        made.set_comment(c_string(&rule.comment))
            .expect("comments of rules are short");
        batch.add(&made, part);
    }
}

/// The rules of `ruleset` as they are sent, to compare them with what is read back.
pub(super) fn rule_messages(ruleset: &Ruleset) -> Vec<u8> {
    let mut batch = Transaction::new();
    add_rules(&mut batch, ruleset);
    batch.finish().0
}

/// A batch under construction that knows which message stands for what.
pub(super) struct Transaction {
    batch: Batch,
    parts: Vec<String>,
}

impl Transaction {
    pub(super) fn new() -> Transaction {
        Transaction {
            batch: Batch::new(),
            parts: Vec::new(),
        }
    }

    pub(super) fn add<M: nftnl::NlMsg>(&mut self, message: &M, part: impl FnOnce() -> String) {
        self.batch.add(message, MsgType::Add);
        self.parts.push(part());
    }

    fn finish(self) -> (Vec<u8>, Range<u32>, Vec<String>) {
        let batch = self.batch.finalize();
        (
            batch.iter().collect::<Vec<_>>().concat(),
            batch.sequence_numbers(),
            self.parts,
        )
    }

    pub(super) fn send(self, netlink: &mut Netlink) -> Result<(), RulesetError> {
        self.send_at(netlink, None)
    }

    /// Sends it; if a `generation` is given, the kernel refuses (ERESTART) if its ruleset is another by now.
    pub(super) fn send_at(self, netlink: &mut Netlink, generation: Option<u32>) -> Result<(), RulesetError> {
        let (mut bytes, seqs, parts) = self.finish();
        if let Some(generation) = generation {
            tie(&mut bytes, generation);
        }
        // Behind the message that begins the batch.
        let first = Messages::new(&bytes).nth(1).map_or(0, |message| message.seq);
        netlink.transact(&bytes, seqs).map_err(|error| match error {
            error if error.errno() == Some(libc::EPERM) => RulesetError::NotPermitted,
            NetlinkError::Refused { seq, .. } => {
                let at = seq.checked_sub(first).and_then(|at| parts.get(at as usize));
                RulesetError::Refused {
                    part: at.map_or("the transaction", String::as_str).into(),
                    source: error,
                }
            }
            error => error.into(),
        })
    }
}

/// Makes the message that begins the batch name the `generation` that it is for; nftnl knows no such attribute.
fn tie(batch: &mut Vec<u8>, generation: u32) {
    let mut attribute = [0; 8];
    attribute[..2].copy_from_slice(&8u16.to_ne_bytes());
    attribute[2..4].copy_from_slice(&NFNL_BATCH_GENID.to_ne_bytes());
    attribute[4..].copy_from_slice(&generation.to_be_bytes());
    batch[..4].copy_from_slice(&(BATCH_BEGIN + attribute.len() as u32).to_ne_bytes());
    batch.splice(BATCH_BEGIN as usize..BATCH_BEGIN as usize, attribute);
}

/// The flags of a table that is to have an owner.
pub(super) const OWNED: u32 = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;
/// Bytes of the message that begins a batch: struct nlmsghdr and struct nfgenmsg.
const BATCH_BEGIN: u32 = 20;
/// linux/netfilter/nfnetlink.h, enum nfnl_batch_attributes.
const NFNL_BATCH_GENID: u16 = 1;
/// How often an apply that was overtaken by another's change is begun anew: some milliseconds each, while a
/// container runtime may change its own tables a hundred times a second.
const TRIES: u32 = 50;
/// Identifiers of named sets within a batch, clear of those of anonymous ones.
const NAMED_SET_IDS: u32 = 1 << 16;
