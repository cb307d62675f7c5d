//! How the table in the kernel differs from the one that was asked for. Rules are compared attribute by
//! attribute with what was sent: the kernel tells more than it was told, but all that we said must be there.

use std::collections::{BTreeMap, BTreeSet};

use super::Ruleset;
use super::alive;
use super::apply::rule_messages;
use super::messages::{Bound, bounds};
use super::model::{Chain, Set, SetKind};
use super::readback::{Loaded, LoadedChain, LoadedRule, LoadedSet, comment, expressions, loaded_rule};
use super::scratch::SCRATCH;
use super::uapi::*;
use crate::kernel::netlink::{Attributes, Messages, nfnl_type, string};

impl Loaded {
    /// How the table differs from `ruleset`, in words; nothing if it does the same.
    ///
    /// Sizes of sets of bans do not count: they are kept as they are found, and [`super::apply`] tells.
    pub fn differences(&self, ruleset: &Ruleset) -> Vec<String> {
        let mut found = Vec::new();
        if self.flags & NFT_TABLE_F_DORMANT != 0 {
            found.push("the table is dormant: none of its rules runs".into());
        }
        for set in &ruleset.sets {
            found.extend(self.set_difference(set));
        }
        let mut wanted: BTreeSet<&str> = ruleset.sets.iter().map(|set| set.name.as_str()).collect();
        // A self-test's, which no rule of ours looks at; a rule of somebody's that does is told below.
        wanted.insert(SCRATCH);
        found.extend(surplus(self.sets.keys(), &wanted).map(|name| format!("set \"{name}\" is not ours")));
        for chain in &ruleset.chains {
            found.extend(self.chain_difference(chain));
        }
        let wanted = ruleset.chains.iter().map(|chain| chain.name.as_str()).collect();
        let chains = surplus(self.chains.keys(), &wanted).filter(|name| !self.is_idle(name));
        found.extend(chains.map(|name| format!("chain \"{name}\" is not ours")));
        found.extend(self.rule_differences(ruleset));
        found
    }

    fn set_difference(&self, set: &Set) -> Option<String> {
        let name = &set.name;
        let Some(loaded) = self.sets.get(name) else {
            return Some(format!("set \"{name}\" is missing"));
        };
        if !loaded.fits(set) {
            return Some(format!(
                "set \"{name}\" is of another type, or has other flags or timeouts"
            ));
        }
        match &set.kind {
            SetKind::Filter(intervals) => {
                let wanted = bounds(intervals)
                    .into_iter()
                    .map(|bound: Bound| (bound.key, bound.end))
                    .collect();
                let same = meaning(&loaded.bounds) == meaning(&wanted);
                (!same).then(|| format!("set \"{name}\" has other elements"))
            }
            _ => None,
        }
    }

    fn chain_difference(&self, chain: &Chain) -> Option<String> {
        let name = &chain.name;
        match (self.chains.get(name), chain.priority) {
            (None, _) => Some(format!("chain \"{name}\" is missing")),
            (Some(loaded), wanted) if !loaded.fits(wanted) => {
                Some(format!("chain \"{name}\" has another hook or priority"))
            }
            (Some(loaded), Some(_)) if loaded.policy != Some(libc::NF_ACCEPT as u32) => {
                Some(format!("chain \"{name}\" has a policy other than accept"))
            }
            _ => None,
        }
    }

    fn rule_differences(&self, ruleset: &Ruleset) -> Vec<String> {
        let bytes = rule_messages(ruleset);
        let rule = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_NEWRULE);
        let mut wanted: BTreeMap<String, Vec<LoadedRule>> = BTreeMap::new();
        for message in Messages::new(&bytes).filter(|message| message.kind == rule) {
            let (chain, rule) = loaded_rule(message.payload);
            wanted.entry(chain).or_default().push(rule);
        }
        let none = Vec::new();
        let differences = ruleset.chains.iter().flat_map(|chain| {
            let wanted = wanted.get(&chain.name).unwrap_or(&none);
            let loaded = self.rules.get(&chain.name).unwrap_or(&none);
            rules_difference(chain, wanted, loaded)
        });
        differences.collect()
    }

    /// A base chain of somebody's with nothing in it: harmless, and not deleted for the sake of waiting packets.
    fn is_idle(&self, chain: &str) -> bool {
        let accepts =
            |chain: &LoadedChain| chain.hook.is_some() && chain.policy == Some(libc::NF_ACCEPT as u32);
        self.chains.get(chain).is_some_and(accepts) && !self.rules.contains_key(chain)
    }
}

impl LoadedSet {
    /// Whether it is the kind of set that is asked for (sizes of bans and elements aside).
    pub(super) fn fits(&self, set: &Set) -> bool {
        let timeout = match set.kind {
            SetKind::Limits => Some(u64::from(super::LIMIT_TIMEOUT_SECONDS) * 1000),
            SetKind::Alive { .. } => Some(alive::millis(alive::BEAT_LASTS)),
            _ => None,
        };
        let size = match set.kind {
            SetKind::Limits => self.size == Some(super::LIMIT_SET_SIZE),
            SetKind::Alive { .. } => self.size == Some(alive::SIZE),
            _ => true,
        };
        self.key == set.key.kind() && self.flags == set.kind.flags() && self.timeout == timeout && size
    }
}

impl LoadedChain {
    /// Whether it hangs where a chain of ours with `priority` hangs.
    pub(super) fn fits(&self, priority: Option<i32>) -> bool {
        self.hook == priority.map(|priority| (libc::NF_INET_PRE_ROUTING as u32, priority))
    }
}

fn surplus<'a>(
    found: impl Iterator<Item = &'a String>,
    wanted: &BTreeSet<&str>,
) -> impl Iterator<Item = &'a String> {
    found.filter(|name| !wanted.contains(name.as_str()))
}

/// An end at zero, which nft sets down and others leave out, means nothing.
fn meaning(bounds: &BTreeSet<(Vec<u8>, bool)>) -> Vec<&(Vec<u8>, bool)> {
    let nothing = |(key, end): &&(Vec<u8>, bool)| *end && key.iter().all(|byte| *byte == 0);
    bounds.iter().filter(|bound| !nothing(bound)).collect()
}

fn rules_difference(chain: &Chain, wanted: &[LoadedRule], loaded: &[LoadedRule]) -> Option<String> {
    let name = &chain.name;
    if wanted.len() != loaded.len() {
        return Some(format!(
            "chain \"{name}\" has {} rules instead of {}",
            loaded.len(),
            wanted.len()
        ));
    }
    let at = wanted
        .iter()
        .zip(loaded)
        .position(|(wanted, loaded)| !wanted.is_met_by(loaded))?;
    Some(format!(
        "rule {} of chain \"{name}\" is not `{}`",
        at + 1,
        chain.rules[at]
    ))
}

impl LoadedRule {
    fn is_met_by(&self, loaded: &LoadedRule) -> bool {
        let (ours, theirs) = (expressions(&self.expressions), expressions(&loaded.expressions));
        let mut pairs = ours.zip(theirs);
        expressions(&self.expressions).count() == expressions(&loaded.expressions).count()
            && pairs
                .all(|((name, ours), (other, theirs))| name == other && expression_met(name, ours, theirs))
            && comment(&self.userdata) == comment(&loaded.userdata)
    }
}

fn expression_met(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    match name {
        // What it counted.
        "counter" => true,
        "lookup" => flagged(ours).all(|(kind, nested, value)| match kind {
            // Only within a batch.
            NFTA_LOOKUP_SET_ID => true,
            NFTA_LOOKUP_SET => set_met(value, theirs),
            _ => attribute_met(kind, nested, value, theirs),
        }),
        _ => met(ours, theirs),
    }
}

/// The kernel numbers sets without a name.
fn set_met(ours: &[u8], theirs: &[u8]) -> bool {
    let found = Attributes::new(theirs).find(|(kind, _)| *kind == NFTA_LOOKUP_SET);
    let (Some(ours), Some(theirs)) = (string(ours), found.and_then(|(_, value)| string(value))) else {
        return false;
    };
    match ours.strip_suffix("%d") {
        Some(prefix) => theirs.starts_with(prefix),
        None => ours == theirs,
    }
}

/// Whether everything we ask for is there, with the same values; the kernel tells more than it was told.
fn met(ours: &[u8], theirs: &[u8]) -> bool {
    flagged(ours).all(|(kind, nested, value)| attribute_met(kind, nested, value, theirs))
}

fn attribute_met(kind: u16, nested: bool, ours: &[u8], theirs: &[u8]) -> bool {
    let found = Attributes::new(theirs).find(|(other, _)| *other == kind);
    found.is_some_and(|(_, theirs)| if nested { met(ours, theirs) } else { ours == theirs })
}

/// Attributes with the word of their maker (libnftnl, always) whether others are nested in them.
fn flagged(bytes: &[u8]) -> impl Iterator<Item = (u16, bool, &[u8])> {
    let mut at = 0;
    Attributes::new(bytes).map(move |(kind, value)| {
        let raw = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]);
        at += (4 + value.len()).next_multiple_of(4);
        (kind, raw & libc::NLA_F_NESTED as u16 != 0, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::Builder;

    #[test]
    fn more_than_was_asked_for_is_met_and_less_or_other_is_not() {
        let attributes = |put: &dyn Fn(&mut Builder)| {
            let mut builder = Builder::new();
            builder.raw(0, 0, 0);
            put(&mut builder);
            builder.bytes()[16..].to_vec()
        };
        let nested = |inner: u32, more: bool| {
            attributes(&|builder| {
                if more {
                    builder.put_be32(9, 9);
                }
                let nest = builder.open(3);
                builder.put_be32(1, inner);
                builder.close(nest);
            })
        };
        assert!(met(&nested(5, false), &nested(5, true)));
        assert!(!met(&nested(5, true), &nested(5, false)));
        assert!(!met(&nested(5, false), &nested(6, true)));
        assert!(!met(&nested(5, false), &[]));
    }
}
