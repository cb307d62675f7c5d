//! Bans as set elements of table `inet verdictd`: changes are coalesced, sent in transactions whose every
//! acknowledgement is read, and what the kernel refuses is narrowed down to the elements it refuses.
//!
//! nftnl's own sets know no timeouts, and the kernel keeps the old timeout of an element that is added again
//! (before 6.12, silently); hence elements of our own, renewed by add, delete, add in one transaction, and read back:
//! an acknowledgement alone is no proof of a timeout.

mod read_back;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::netlink::{Builder, Netlink, NetlinkError};
pub use super::setelem::LiveBan;
use super::setelem::{self, ELEMENTS_PER_MESSAGE, SetId, Verb};
use crate::core::prefix::Prefix;

/// The set that bans of `target` are in: `banned4` for IPv4 addresses, `banned6` for /64s, one set for each
/// other length (`banned4_24`, `banned6_128`), because a prefix in a set without intervals bans one host.
pub fn set_name(target: &Prefix) -> String {
    SetId::of(target).name()
}

/// One change of the kernel's bans. A timeout of `None` is a ban without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A ban that the kernel does not hold yet. If it does, it is renewed as soon as that is read back; among more
    /// than [`READ_BACK`] changes only some are.
    Add {
        /// Who is banned.
        target: Prefix,
        /// For how long.
        timeout: Option<Duration>,
    },
    /// A ban whose time counts anew from now, whether the kernel holds it or not.
    Renew {
        /// Who is banned.
        target: Prefix,
        /// For how long, from now on.
        timeout: Option<Duration>,
    },
    /// The end of a ban; none there is fine too.
    Remove {
        /// Who is free.
        target: Prefix,
    },
}

impl Change {
    /// Who is concerned.
    pub fn target(&self) -> Prefix {
        match *self {
            Change::Add { target, .. } | Change::Renew { target, .. } | Change::Remove { target } => target,
        }
    }

    fn set(&self) -> SetId {
        SetId::of(&self.target())
    }

    /// How long the ban lasts in the kernel from now on: what the kernel could not hold is cut. A removal lasts not at
    /// all, a ban without end for ever (`None`).
    pub fn lasts(&self) -> Option<Duration> {
        match *self {
            Change::Add { timeout, .. } | Change::Renew { timeout, .. } => timeout.map(setelem::as_held),
            Change::Remove { .. } => Some(Duration::ZERO),
        }
    }

    /// Whether it ends a ban.
    pub fn is_removal(&self) -> bool {
        matches!(self, Change::Remove { .. })
    }
}

/// Why one change was not made; what was there before still is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// The set holds as many elements as its `size`; expired ones count until the kernel collects them.
    #[error("set \"{set}\" is full, its size in the table has to be larger")]
    Full {
        /// Name of the set.
        set: String,
    },
    /// The set, or the table, is not there.
    #[error("set \"{set}\" does not exist in table inet verdictd")]
    MissingSet {
        /// Name of the set.
        set: String,
    },
    /// Anything else the kernel says.
    #[error("element for set \"{set}\": {reason}")]
    Refused {
        /// Name of the set.
        set: String,
        /// The kernel's errno.
        errno: i32,
        /// The same in words.
        reason: String,
    },
    /// The kernel said yes, and holds something else, also after a second time.
    #[error("set \"{set}\" does not hold it as asked: {found} instead of {asked}")]
    Otherwise {
        /// Name of the set.
        set: String,
        /// Time left by the kernel's clock, in words.
        found: String,
        /// What it was to be.
        asked: String,
    },
    /// Not known whether the change was made: the exchange with the kernel itself failed.
    #[error("element for set \"{set}\": {reason}")]
    Unknown {
        /// Name of the set.
        set: String,
        /// What failed.
        reason: String,
    },
}

/// The kernel's ban sets, in the network namespace of the thread that opened them.
pub struct BanSets {
    netlink: Netlink,
}

impl BanSets {
    /// Opens a netlink socket of its own; the table need not exist yet.
    ///
    /// # Errors
    /// If no netlink socket is to be had.
    pub fn open() -> Result<BanSets, NetlinkError> {
        Ok(BanSets::over(Netlink::open(mnl::Bus::Netfilter)?))
    }

    /// The same over a socket that is open already.
    pub fn over(netlink: Netlink) -> BanSets {
        BanSets { netlink }
    }

    /// The socket, for what else is to be done by the same one: a table that has an owner obeys no other.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// The socket alone.
    pub fn into_netlink(self) -> Netlink {
        self.netlink
    }

    /// Makes `changes` in their order, the last word on each target counting, in transactions of at most 5,000
    /// targets; if there are more, the first 1,000 are in force a moment earlier. Returns those that the kernel refused; all others are in force.
    ///
    /// After each transaction it is read back how long the kernel holds what was banned: every target of up to
    /// [`READ_BACK`] changes, else as many of them, evenly spread, and all of a transaction in which one is wrong.
    ///
    /// Removing what is not there, even from a set that is not there, is no error.
    pub fn apply(&mut self, changes: &[Change]) -> Vec<(Prefix, SetError)> {
        let mut refused = Vec::new();
        let mut full = BTreeSet::new();
        let changes = coalesce(changes);
        let every = changes.len().div_ceil(READ_BACK);
        for batch in transactions(&changes) {
            let (asked_at, known) = (Instant::now(), refused.len());
            self.settle(batch, &mut full, &mut refused);
            let bans = read_back::bans(batch, &refused[known..]);
            self.make_true(&bans, every, asked_at, &mut refused);
        }
        refused
    }

    /// Every live ban of the table, in order. A table that does not exist holds none.
    ///
    /// A live ban can be missing if the kernel collects expired ones during the dump (it does so once in a
    /// gc-interval): before something is done about a missing one, [`BanSets::contains`] knows for sure.
    ///
    /// # Errors
    /// If the kernel refuses, or the sets change so fast that no attempt sees them whole.
    pub fn dump(&mut self) -> Result<Vec<LiveBan>, NetlinkError> {
        let mut bans = Vec::new();
        for set in self.sets()? {
            bans.extend(self.dump_set(set)?);
        }
        bans.sort_unstable_by_key(|ban| ban.target);
        Ok(bans)
    }

    /// The live ban of exactly `target`, if the kernel holds one.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn contains(&mut self, target: &Prefix) -> Result<Option<LiveBan>, NetlinkError> {
        let mut request = Builder::new();
        setelem::put_get(&mut request, self.netlink.take_seqs(1).start, target);
        let mut found = None;
        let asked = self.netlink.dump(request.bytes(), |_, payload| {
            found = setelem::read_elements(SetId::of(target), payload).next();
            Ok(())
        });
        absent_is_empty(asked)?;
        Ok(found)
    }

    /// Applies one batch; where the kernel refuses, halves it until the refused elements stand alone.
    fn settle(
        &mut self,
        batch: &[Change],
        full: &mut BTreeSet<SetId>,
        refused: &mut Vec<(Prefix, SetError)>,
    ) {
        let (mut open, mut again) = (vec![batch.to_vec()], EXPIRING);
        while let Some(mut batch) = open.pop() {
            self.set_aside_for_full_sets(&mut batch, full, refused);
            let Err(refusal) = self.commit(&batch) else {
                continue;
            };
            match refusal.kind(batch.len()) {
                Kind::MissingSet(set) => {
                    let (gone, rest): (Vec<_>, Vec<_>) = batch.iter().partition(|change| change.set() == set);
                    refuse(&gone, refused, |set| SetError::MissingSet { set });
                    open.push(rest);
                }
                Kind::Again if again > 0 => {
                    again -= 1;
                    open.push(batch);
                }
                Kind::Again | Kind::Halve if batch.len() > 1 => {
                    let second = batch.split_off(batch.len() / 2);
                    open.extend([second, batch]);
                }
                Kind::Full => {
                    full.insert(batch[0].set());
                    refuse(&batch, refused, |set| SetError::Full { set });
                }
                Kind::Again | Kind::Halve => refuse(&batch, refused, |set| SetError::Unknown {
                    set,
                    reason: refusal.error.to_string(),
                }),
                Kind::Refused(errno) => refuse(&batch, refused, |set| SetError::Refused {
                    set,
                    errno,
                    reason: refusal.error.to_string(),
                }),
                Kind::Unknown => refuse(&batch, refused, |set| SetError::Unknown {
                    set,
                    reason: refusal.error.to_string(),
                }),
            }
        }
    }

    /// Takes out of `batch` what a full set has no room for, so that each need not be tried alone: a refused
    /// transaction costs the kernel an RCU grace period (milliseconds), a question only microseconds.
    fn set_aside_for_full_sets(
        &mut self,
        batch: &mut Vec<Change>,
        full: &mut BTreeSet<SetId>,
        refused: &mut Vec<(Prefix, SetError)>,
    ) {
        if full.is_empty() {
            return;
        }
        let (asked, others): (Vec<_>, Vec<_>) = batch.iter().partition(|change| full.contains(&change.set()));
        *batch = others;
        let (live, absent): (Vec<_>, Vec<_>) = asked.into_iter().partition(|change| self.may_be_live(change));
        // Whatever leaves a set makes room in it.
        for change in live.iter().filter(|change| change.is_removal()) {
            full.remove(&change.set());
        }
        let (hopeless, worth_trying): (Vec<_>, Vec<_>) = absent
            .into_iter()
            .partition(|change| change.is_removal() || full.contains(&change.set()));
        refuse(&hopeless, refused, |set| SetError::Full { set });
        batch.extend(live);
        batch.extend(worth_trying);
    }

    /// Whether the kernel may hold the target; in doubt it does, and the transaction will tell.
    fn may_be_live(&mut self, change: &Change) -> bool {
        !matches!(self.contains(&change.target()), Ok(None))
    }

    /// One transaction, as a whole or not at all.
    fn commit(&mut self, batch: &[Change]) -> Result<(), Refusal> {
        if batch.is_empty() {
            return Ok(());
        }
        let messages = plan(batch);
        let seqs = self.netlink.take_seqs(messages.len() as u32 + 2);
        let acks = seqs.start + 1..seqs.end - 1;
        let mut bytes = Builder::new();
        bytes.batch_begin(seqs.start);
        for (message, seq) in messages.iter().zip(acks.clone()) {
            setelem::put_message(&mut bytes, message.verb, seq, message.set, &message.elements);
        }
        bytes.batch_end(acks.end);
        self.netlink
            .transact(bytes.bytes(), acks.clone())
            .map_err(|error| {
                let refused = match error {
                    NetlinkError::Refused { seq, .. } => seq.checked_sub(acks.start),
                    _ => None,
                };
                let message = refused.and_then(|index| messages.get(index as usize));
                Refusal {
                    error,
                    message: message.map(|message| (message.verb, message.set)),
                }
            })
    }

    fn sets(&mut self) -> Result<BTreeSet<SetId>, NetlinkError> {
        let mut request = Builder::new();
        setelem::put_dump_sets(&mut request, self.netlink.take_seqs(1).start);
        let asked = self
            .netlink
            .dump_whole(request.bytes(), |sets: &mut BTreeSet<_>, _, payload| {
                sets.extend(setelem::read_set(payload));
            });
        absent_is_empty(asked)
    }

    /// The kernel dumps a set in portions and finds its place again by counting. When it rearranges its hash
    /// table meanwhile (it does for a while after many additions, and does not tell), elements are missed and
    /// as many others come twice: then the set is read again and what was found is put together.
    fn dump_set(&mut self, set: SetId) -> Result<impl Iterator<Item = LiveBan>, NetlinkError> {
        let mut found: HashMap<Prefix, LiveBan> = HashMap::new();
        for _ in 0..DUMP_ATTEMPTS {
            let mut request = Builder::new();
            setelem::put_dump(&mut request, self.netlink.take_seqs(1).start, &set.name());
            let asked = self
                .netlink
                .dump_whole(request.bytes(), |bans: &mut Vec<_>, _, payload| {
                    bans.extend(setelem::read_elements(set, payload));
                });
            let bans = absent_is_empty(asked)?;
            let distinct: HashSet<Prefix> = bans.iter().map(|ban| ban.target).collect();
            let whole = distinct.len() == bans.len();
            found.extend(bans.into_iter().map(|ban| (ban.target, ban)));
            if whole {
                break;
            }
        }
        Ok(found.into_values())
    }
}

/// A refused transaction, and what the refused message was about, if it was one message.
struct Refusal {
    error: NetlinkError,
    message: Option<(Verb, SetId)>,
}

/// What to do about a refused transaction.
enum Kind {
    MissingSet(SetId),
    /// An element ended between the message that made sure of it and the one that deletes it.
    Again,
    Halve,
    Full,
    Refused(i32),
    Unknown,
}

impl Refusal {
    fn kind(&self, targets: usize) -> Kind {
        let NetlinkError::Refused { errno, .. } = self.error else {
            return Kind::Unknown;
        };
        match (errno, self.message) {
            (libc::ENOENT, Some((Verb::New, set))) => Kind::MissingSet(set),
            (libc::ENOENT, Some((Verb::Delete, _))) => Kind::Again,
            // Not about any one element.
            (libc::EPERM, _) => Kind::Refused(errno),
            _ if targets > 1 => Kind::Halve,
            (libc::ENFILE, _) => Kind::Full,
            _ => Kind::Refused(errno),
        }
    }
}

/// Reports `changes` as refused; what should be gone from a set that is full of others or missing, is gone.
fn refuse(changes: &[Change], refused: &mut Vec<(Prefix, SetError)>, error: impl Fn(String) -> SetError) {
    for change in changes {
        let error = error(change.set().name());
        let gone = matches!(error, SetError::Full { .. } | SetError::MissingSet { .. });
        if !(gone && change.is_removal()) {
            refused.push((change.target(), error));
        }
    }
}

/// The last word on each target, in order. A ban that follows other words on its target becomes a renewal:
/// the kernel may hold that target by then, or still.
fn coalesce(changes: &[Change]) -> Vec<Change> {
    let mut kept: Vec<Change> = Vec::with_capacity(changes.len());
    let mut places = HashMap::with_capacity(changes.len());
    for change in changes.iter().rev() {
        match places.entry(change.target()) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(*change);
            }
            Entry::Occupied(place) => {
                let last = &mut kept[*place.get()];
                if let Change::Add { target, timeout } = *last {
                    *last = Change::Renew { target, timeout };
                }
            }
        }
    }
    kept.reverse();
    kept
}

/// As few as are good for speed; what matters most does not wait for the rest of a large one.
fn transactions(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    let first = match changes.len() > TARGETS_PER_TRANSACTION {
        true => TARGETS_IN_A_HURRY,
        false => 0,
    };
    let (first, rest) = changes.split_at(first);
    let first = (!first.is_empty()).then_some(first);
    first.into_iter().chain(rest.chunks(TARGETS_PER_TRANSACTION))
}

/// One message of a transaction.
struct Message {
    verb: Verb,
    set: SetId,
    elements: Vec<(Prefix, Option<Duration>)>,
}

/// The messages that carry out `batch`. What is to be deleted is added first, so that deleting it cannot fail;
/// what is to be added comes after the deletions, so that it finds their room and gets its own timeout.
fn plan(batch: &[Change]) -> Vec<Message> {
    let old = |change: &Change| match *change {
        Change::Add { .. } => None,
        Change::Renew { target, .. } | Change::Remove { target } => Some((target, None)),
    };
    let new = |change: &Change| match *change {
        Change::Add { target, timeout } | Change::Renew { target, timeout } => Some((target, timeout)),
        Change::Remove { .. } => None,
    };
    let mut messages = messages(Verb::New, batch.iter().filter_map(old));
    messages.append(&mut self::messages(Verb::Delete, batch.iter().filter_map(old)));
    messages.append(&mut self::messages(Verb::New, batch.iter().filter_map(new)));
    messages
}

fn messages(verb: Verb, elements: impl Iterator<Item = (Prefix, Option<Duration>)>) -> Vec<Message> {
    let mut sets: BTreeMap<SetId, Vec<_>> = BTreeMap::new();
    for element in elements {
        sets.entry(SetId::of(&element.0)).or_default().push(element);
    }
    let chunked = sets.iter().flat_map(|(set, elements)| {
        let chunks = elements.chunks(ELEMENTS_PER_MESSAGE);
        chunks.map(|chunk| Message {
            verb,
            set: *set,
            elements: chunk.to_vec(),
        })
    });
    chunked.collect()
}

/// A table, set or element that does not exist holds nothing.
fn absent_is_empty<T: Default>(asked: Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    match asked {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(T::default()),
        asked => asked,
    }
}

/// How many targets of one call are read back: 100 take less than a millisecond (debug build), and a large restore is
/// not to be held up.
pub const READ_BACK: usize = 1_000;
/// How often a transaction is tried again because an element expired within it.
const EXPIRING: u32 = 3;
/// 100,000 elements took 50 ms in batches of 1,000 to 5,000, 105–130 ms in one (Linux 6.18).
const TARGETS_PER_TRANSACTION: usize = 5_000;
const TARGETS_IN_A_HURRY: usize = 1_000;
/// How often a set is read until it is seen whole. Rearranging ends within milliseconds of the last addition.
const DUMP_ATTEMPTS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn add(text: &str, seconds: u64) -> Change {
        Change::Add {
            target: prefix(text),
            timeout: Some(Duration::from_secs(seconds)),
        }
    }

    fn renew(text: &str, seconds: u64) -> Change {
        Change::Renew {
            target: prefix(text),
            timeout: Some(Duration::from_secs(seconds)),
        }
    }

    fn remove(text: &str) -> Change {
        Change::Remove { target: prefix(text) }
    }

    #[test]
    fn the_last_word_wins_and_an_add_after_others_renews() {
        let changes = [
            add("10.0.0.1", 1),
            remove("10.0.0.2"),
            add("10.0.0.3", 1),
            add("10.0.0.2", 2),
            remove("10.0.0.1"),
            add("10.0.0.4", 4),
        ];
        let expected = [
            add("10.0.0.3", 1),
            renew("10.0.0.2", 2),
            remove("10.0.0.1"),
            add("10.0.0.4", 4),
        ];
        assert_eq!(coalesce(&changes), expected);
    }

    #[test]
    fn deletions_come_between_their_adds_and_everyone_elses() {
        let batch = [add("10.0.0.1", 1), renew("10.0.0.2", 2), remove("10.0.0.3")];
        let shape: Vec<_> = plan(&batch)
            .iter()
            .map(|message| {
                let hosts = message
                    .elements
                    .iter()
                    .map(|(target, timeout)| (target.to_string(), timeout.is_some()));
                (message.verb, hosts.collect::<Vec<_>>())
            })
            .collect();
        let host = |last: u8, timed| (format!("10.0.0.{last}"), timed);
        assert_eq!(
            shape,
            [
                (Verb::New, vec![host(2, false), host(3, false)]),
                (Verb::Delete, vec![host(2, false), host(3, false)]),
                (Verb::New, vec![host(1, true), host(2, true)]),
            ]
        );
    }

    #[test]
    fn the_first_thousand_of_many_go_first() {
        let lengths = |count: u32| -> Vec<usize> {
            let changes: Vec<Change> = (0..count)
                .map(|n| Change::Remove {
                    target: Prefix::host(std::net::Ipv4Addr::from(n).into()),
                })
                .collect();
            transactions(&changes).map(<[Change]>::len).collect()
        };
        assert!(lengths(0).is_empty());
        assert_eq!(lengths(5_000), [5_000]);
        assert_eq!(lengths(5_001), [1_000, 4_001]);
        assert_eq!(lengths(12_000), [1_000, 5_000, 5_000, 1_000]);
    }

    #[test]
    fn no_message_is_longer_than_32_kib() {
        let batch: Vec<Change> = (0..5_000u32)
            .map(|n| Change::Renew {
                target: Prefix::new(std::net::Ipv6Addr::from((n as u128) << 64).into(), 64).unwrap(),
                timeout: Some(Duration::from_secs(1)),
            })
            .collect();
        let messages = plan(&batch);
        assert_eq!(messages.len(), 3 * 7);
        for message in messages {
            let mut bytes = Builder::new();
            setelem::put_message(&mut bytes, message.verb, 1, message.set, &message.elements);
            assert!(bytes.len() <= 32 << 10, "{}", bytes.len());
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let mut refused = Vec::new();
        let changes = [add("10.0.0.1", 1), remove("10.0.0.2")];
        refuse(&changes, &mut refused, |set| SetError::Full { set });
        assert_eq!(refused.len(), 1, "what should be gone is not in a full set");
        assert_eq!(
            refused[0].1.to_string(),
            "set \"banned4\" is full, its size in the table has to be larger"
        );
    }
}
