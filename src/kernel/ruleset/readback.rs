//! The table as the kernel holds it: what an engine adopts, and how it differs from what was asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::spec::{Backend, Family, Layout, parse_ban_set_name};
use super::uapi::*;
use super::{MARK_WORD, RulesetError, TABLE};
use crate::kernel::netlink::{Attributes, Builder, Netlink, NetlinkError, be32, be64, nfnl_type, string};

/// Our table as it was found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Seed of the hash that gives a source its worker, if a rule has one.
    pub seed: Option<u32>,
    /// How many workers the hash gives to.
    pub workers: Option<u16>,
    /// Worker 0's queue of new flows; none while observing.
    pub queue_base: Option<u16>,
    /// Worker 0's log group; none where nothing is copied.
    pub log_base: Option<u16>,
    /// How packets get into queues; none while observing.
    pub backend: Option<Backend>,
    /// It holds and refuses nothing.
    pub observing: bool,
    /// Sets of bans that are there, by the length of the prefixes that are their elements.
    pub ban_sets: BTreeSet<(Family, u8)>,
    /// Netlink port of the only process that may change it, if it has the owner flag.
    pub owner: Option<u32>,
    pub(super) flags: u32,
    pub(super) sets: BTreeMap<String, LoadedSet>,
    pub(super) chains: BTreeMap<String, LoadedChain>,
    pub(super) rules: BTreeMap<String, Vec<LoadedRule>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadedSet {
    pub(super) flags: u32,
    pub(super) key: (u32, u32),
    pub(super) size: Option<u32>,
    pub(super) timeout: Option<u64>,
    pub(super) bounds: BTreeSet<(Vec<u8>, bool)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadedChain {
    /// Hook number and priority of a base chain.
    pub(super) hook: Option<(u32, i32)>,
    pub(super) policy: Option<u32>,
}

/// Expressions and notes of a rule, as netlink attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedRule {
    pub(super) expressions: Vec<u8>,
    pub(super) userdata: Vec<u8>,
}

/// Reads our table back; `None` if there is none.
///
/// # Errors
/// [`RulesetError::Foreign`] or [`RulesetError::Owned`] if a table of our name is not marked as ours.
pub fn read(netlink: &mut Netlink) -> Result<Option<Loaded>, RulesetError> {
    let mut tries = 0;
    loop {
        match read_once(netlink) {
            // Changed under our eyes.
            Err(RulesetError::Netlink(error)) if tries < TRIES && interrupted(&error) => tries += 1,
            result => return result,
        }
    }
}

/// The number of the kernel's ruleset, which every change of any table makes another.
pub(super) fn generation(netlink: &mut Netlink) -> Result<u32, RulesetError> {
    let request = request(netlink, libc::NFT_MSG_GETGEN, libc::NLM_F_ACK, |_| {});
    let mut generation = 0;
    let asked = netlink.dump(&request, |_, payload| {
        let id = Attributes::after_nfgen(payload).find(|(kind, _)| *kind == NFTA_GEN_ID);
        generation = id.and_then(|(_, value)| be32(value)).unwrap_or_default();
        Ok(())
    });
    match asked {
        Ok(()) => Ok(generation),
        Err(error) if error.errno() == Some(libc::EPERM) => Err(RulesetError::NotPermitted),
        Err(error) => Err(error.into()),
    }
}

fn interrupted(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(libc::EINTR | libc::ENOENT))
}

fn read_once(netlink: &mut Netlink) -> Result<Option<Loaded>, RulesetError> {
    let mut loaded = Loaded::default();
    match read_table(netlink, &mut loaded) {
        Ok(true) => {}
        Ok(false) => return Err(not_ours(netlink, &loaded)),
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        Err(error) if error.errno() == Some(libc::EPERM) => return Err(RulesetError::NotPermitted),
        Err(error) => return Err(error.into()),
    }
    read_chains(netlink, &mut loaded)?;
    read_sets(netlink, &mut loaded)?;
    read_rules(netlink, &mut loaded)?;
    loaded.learn();
    Ok(Some(loaded))
}

/// Who could remove a table that is not ours: its owner alone, or anybody.
fn not_ours(netlink: &Netlink, loaded: &Loaded) -> RulesetError {
    match loaded.owner {
        Some(portid) if portid != netlink.portid() => RulesetError::Owned { portid },
        _ => RulesetError::Foreign,
    }
}

/// Whether the table is marked as ours.
fn read_table(netlink: &mut Netlink, loaded: &mut Loaded) -> Result<bool, NetlinkError> {
    let mut ours = false;
    let request = request(netlink, libc::NFT_MSG_GETTABLE, libc::NLM_F_ACK, |builder| {
        builder.put_str(NFTA_TABLE_NAME, TABLE);
    });
    netlink.dump(&request, |_, payload| {
        for (kind, value) in Attributes::after_nfgen(payload) {
            match kind {
                NFTA_TABLE_FLAGS => loaded.flags = be32(value).unwrap_or_default(),
                NFTA_TABLE_OWNER => loaded.owner = be32(value),
                NFTA_TABLE_USERDATA => ours = comment(value).is_some_and(|text| text.starts_with(MARK_WORD)),
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(ours)
}

fn read_chains(netlink: &mut Netlink, loaded: &mut Loaded) -> Result<(), NetlinkError> {
    let request = request(netlink, libc::NFT_MSG_GETCHAIN, libc::NLM_F_DUMP, |_| ());
    netlink.dump(&request, |_, payload| {
        let mut chain = LoadedChain::default();
        let (mut table, mut name) = (None, None);
        for (kind, value) in Attributes::after_nfgen(payload) {
            match kind {
                NFTA_CHAIN_TABLE => table = string(value),
                NFTA_CHAIN_NAME => name = string(value),
                NFTA_CHAIN_HOOK => chain.hook = hook(value),
                NFTA_CHAIN_POLICY => chain.policy = be32(value),
                _ => {}
            }
        }
        if let (Some(TABLE), Some(name)) = (table, name) {
            loaded.chains.insert(name.into(), chain);
        }
        Ok(())
    })
}

fn hook(value: &[u8]) -> Option<(u32, i32)> {
    let number = |wanted| {
        Attributes::new(value)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| be32(value))
    };
    Some((number(NFTA_HOOK_HOOKNUM)?, number(NFTA_HOOK_PRIORITY)? as i32))
}

fn read_sets(netlink: &mut Netlink, loaded: &mut Loaded) -> Result<(), NetlinkError> {
    let request = request(netlink, libc::NFT_MSG_GETSET, libc::NLM_F_DUMP, |builder| {
        builder.put_str(NFTA_SET_TABLE, TABLE);
    });
    netlink.dump(&request, |_, payload| {
        let (name, set) = loaded_set(payload);
        if set.flags & libc::NFT_SET_ANONYMOUS as u32 == 0 {
            loaded.sets.extend(name.map(|name| (name, set)));
        }
        Ok(())
    })?;
    for (name, set) in &mut loaded.sets {
        if set.flags & libc::NFT_SET_INTERVAL as u32 != 0 {
            set.bounds = read_bounds(netlink, name)?;
        }
    }
    Ok(())
}

fn loaded_set(payload: &[u8]) -> (Option<String>, LoadedSet) {
    let mut set = LoadedSet::default();
    let mut name = None;
    for (kind, value) in Attributes::after_nfgen(payload) {
        match kind {
            NFTA_SET_NAME => name = string(value).map(str::to_owned),
            NFTA_SET_FLAGS => set.flags = be32(value).unwrap_or_default(),
            NFTA_SET_KEY_TYPE => set.key.0 = be32(value).unwrap_or_default(),
            NFTA_SET_KEY_LEN => set.key.1 = be32(value).unwrap_or_default(),
            NFTA_SET_TIMEOUT => set.timeout = be64(value),
            NFTA_SET_DESC => {
                let size = Attributes::new(value).find(|(kind, _)| *kind == NFTA_SET_DESC_SIZE);
                set.size = size.and_then(|(_, value)| be32(value));
            }
            _ => {}
        }
    }
    (name, set)
}

fn read_bounds(netlink: &mut Netlink, set: &str) -> Result<BTreeSet<(Vec<u8>, bool)>, NetlinkError> {
    let mut bounds = BTreeSet::new();
    let request = request(netlink, libc::NFT_MSG_GETSETELEM, libc::NLM_F_DUMP, |builder| {
        builder.put_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
        builder.put_str(NFTA_SET_ELEM_LIST_SET, set);
    });
    netlink.dump(&request, |_, payload| {
        let list = Attributes::after_nfgen(payload).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
        for (_, element) in list.flat_map(|(_, list)| Attributes::new(list)) {
            bounds.extend(bound(element));
        }
        Ok(())
    })?;
    Ok(bounds)
}

fn bound(element: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (mut key, mut flags) = (None, 0);
    for (kind, value) in Attributes::new(element) {
        match kind {
            NFTA_SET_ELEM_KEY => key = Attributes::new(value).find(|(kind, _)| *kind == NFTA_DATA_VALUE),
            NFTA_SET_ELEM_FLAGS => flags = be32(value)?,
            _ => {}
        }
    }
    Some((
        key?.1.to_vec(),
        flags & libc::NFT_SET_ELEM_INTERVAL_END as u32 != 0,
    ))
}

fn read_rules(netlink: &mut Netlink, loaded: &mut Loaded) -> Result<(), NetlinkError> {
    let request = request(netlink, libc::NFT_MSG_GETRULE, libc::NLM_F_DUMP, |builder| {
        builder.put_str(NFTA_RULE_TABLE, TABLE);
    });
    netlink.dump(&request, |_, payload| {
        let (chain, rule) = loaded_rule(payload);
        loaded.rules.entry(chain).or_default().push(rule);
        Ok(())
    })
}

pub(super) fn loaded_rule(payload: &[u8]) -> (String, LoadedRule) {
    let mut rule = LoadedRule::default();
    let mut chain = String::new();
    for (kind, value) in Attributes::after_nfgen(payload) {
        match kind {
            NFTA_RULE_CHAIN => chain = string(value).unwrap_or_default().into(),
            NFTA_RULE_EXPRESSIONS => rule.expressions = value.into(),
            NFTA_RULE_USERDATA => rule.userdata = value.into(),
            _ => {}
        }
    }
    (chain, rule)
}

fn request(netlink: &mut Netlink, kind: i32, flags: i32, rest: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let seq = netlink.take_seqs(1).start;
    let mut builder = Builder::new();
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, kind);
    builder.nfnetlink(kind, libc::NLM_F_REQUEST | flags, seq, libc::NFPROTO_INET, 0);
    rest(&mut builder);
    builder.bytes().to_vec()
}

impl Loaded {
    /// What tells this table from one that another engine made.
    pub(super) fn numbers(&self) -> (Option<u32>, Option<u16>, Option<u16>, Option<u16>) {
        (self.seed, self.workers, self.queue_base, self.log_base)
    }

    /// Whether it can have an owner: only a table that was made so can.
    pub fn outlives_its_owner(&self) -> bool {
        self.flags & NFT_TABLE_F_PERSIST != 0
    }

    /// The numbers of the table; what it does not tell is taken from `otherwise`.
    pub fn layout(&self, otherwise: Layout) -> Layout {
        Layout {
            queue_base: self.queue_base.unwrap_or(otherwise.queue_base),
            log_base: self.log_base.unwrap_or(otherwise.log_base),
            workers: self.workers.unwrap_or(otherwise.workers),
            seed: self.seed.unwrap_or(otherwise.seed),
        }
    }

    /// Reads out of the rules what a new engine has to go on with.
    fn learn(&mut self) {
        self.ban_sets = self
            .sets
            .keys()
            .filter_map(|name| parse_ban_set_name(name))
            .collect();
        self.observing = self.chains.contains_key("watch");
        let rules = std::mem::take(&mut self.rules);
        for (chain, rule) in rules
            .iter()
            .flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain, rule)))
        {
            for (name, data) in expressions(&rule.expressions) {
                self.learn_from(chain, name, data);
            }
        }
        self.rules = rules;
    }

    fn learn_from(&mut self, chain: &str, name: &str, data: &[u8]) {
        let attribute = |wanted| {
            Attributes::new(data)
                .find(|(kind, _)| *kind == wanted)
                .map(|(_, value)| value)
        };
        let be16 = |value: &[u8]| value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        match (chain, name) {
            ("ask_new" | "watch", "hash") => {
                self.seed = attribute(NFTA_HASH_SEED).and_then(be32);
                self.workers = attribute(NFTA_HASH_MODULUS)
                    .and_then(be32)
                    .and_then(|count| count.try_into().ok());
            }
            ("q0", "queue") => {
                self.queue_base = attribute(NFTA_QUEUE_NUM).and_then(be16);
                self.backend = Some(Backend::Native);
            }
            ("q0", "target") => {
                let number = |info: &[u8]| info.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
                self.queue_base = attribute(NFTA_TARGET_INFO).and_then(number);
                self.backend = Some(Backend::Xt);
            }
            ("l0" | "p0", "log") => self.log_base = attribute(NFTA_LOG_GROUP).and_then(be16),
            _ => {}
        }
    }
}

/// Name and data of each expression of a rule.
pub(super) fn expressions(list: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    Attributes::new(list).map(|(_, expression)| {
        let (mut name, mut data) = ("", &[][..]);
        for (kind, value) in Attributes::new(expression) {
            match kind {
                NFTA_EXPR_NAME => name = string(value).unwrap_or_default(),
                NFTA_EXPR_DATA => data = value,
                _ => {}
            }
        }
        (name, data)
    })
}

/// The comment among nft's notes on a table or rule.
pub(super) fn comment(mut userdata: &[u8]) -> Option<&str> {
    loop {
        let [kind, length, rest @ ..] = userdata else {
            return None;
        };
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return string(value);
        }
        userdata = &rest[usize::from(*length)..];
    }
}

/// How often a dump that was disturbed is begun anew.
const TRIES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_found_behind_other_notes() {
        assert_eq!(comment(b"\x01\x01\x07\x00\x03hi\x00"), Some("hi"));
        assert_eq!(comment(b"\x00\x03hi\x00"), Some("hi"));
        assert_eq!(comment(b"\x00\x09hi\x00"), None);
        assert_eq!(comment(b"\x00"), None);
    }
}
