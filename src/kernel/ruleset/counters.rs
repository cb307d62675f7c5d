//! What the rules of our table counted since they were loaded: packets of banned sources, by set, and of refused ports.

use std::collections::BTreeMap;

use super::readback::{Loaded, LoadedRule, expressions};
use super::spec::parse_ban_set_name;
use super::uapi::{NFTA_COUNTER_PACKETS, NFTA_LOOKUP_SET};
use crate::kernel::netlink::{Attributes, be64, string};

/// Packets that the kernel dropped by itself since the rules were loaded; a rule that is made anew counts from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Because their source is in this set of bans. While observing, one number for all sets, under [`ANY`].
    pub by_set: BTreeMap<String, u64>,
    /// Because policy refuses their port or protocol; none where nothing is refused.
    pub refused: Option<u64>,
}

impl Loaded {
    /// What its rules counted.
    pub fn dropped(&self) -> Dropped {
        let mut dropped = Dropped::default();
        for rule in ["raw", "pre"].into_iter().flat_map(|chain| self.rules_of(chain)) {
            if let (Some(set), Some(count)) = (set_of_bans(rule), counted(rule)) {
                *dropped.by_set.entry(set.to_owned()).or_default() += count;
            }
        }
        // Told apart by flags there, after all sets were looked into.
        for count in self.rules_of("cut").iter().filter_map(counted) {
            *dropped.by_set.entry(ANY.to_owned()).or_default() += count;
        }
        dropped.refused = self.rules_of("refuse").iter().find_map(counted);
        dropped
    }

    fn rules_of(&self, chain: &str) -> &[LoadedRule] {
        self.rules.get(chain).map_or(&[], Vec::as_slice)
    }
}

fn set_of_bans(rule: &LoadedRule) -> Option<&str> {
    let (_, lookup) = expressions(&rule.expressions).find(|(name, _)| *name == "lookup")?;
    let (_, set) = Attributes::new(lookup).find(|(kind, _)| *kind == NFTA_LOOKUP_SET)?;
    string(set).filter(|set| parse_ban_set_name(set).is_some())
}

fn counted(rule: &LoadedRule) -> Option<u64> {
    let (_, counter) = expressions(&rule.expressions).find(|(name, _)| *name == "counter")?;
    let (_, packets) = Attributes::new(counter).find(|(kind, _)| *kind == NFTA_COUNTER_PACKETS)?;
    be64(packets)
}

/// The name under which stands what cannot be told apart by set.
pub const ANY: &str = "any";

#[cfg(test)]
mod tests {
    use super::super::uapi::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM};
    use super::*;
    use crate::kernel::netlink::Builder;

    /// A rule that looks `set` up, if there is one, and counted `packets`.
    fn rule(set: Option<&str>, packets: u64) -> LoadedRule {
        let mut builder = Builder::new();
        builder.raw(0, 0, 0);
        let mut expression = |name: &str, data: &mut dyn FnMut(&mut Builder)| {
            let element = builder.open(NFTA_LIST_ELEM);
            builder.put_str(NFTA_EXPR_NAME, name);
            let body = builder.open(NFTA_EXPR_DATA);
            data(&mut builder);
            builder.close(body);
            builder.close(element);
        };
        if let Some(set) = set {
            expression("lookup", &mut |builder| {
                builder.put_str(NFTA_LOOKUP_SET, set);
            });
        }
        expression("counter", &mut |builder| {
            builder.put_be64(NFTA_COUNTER_PACKETS, packets);
        });
        LoadedRule {
            // Behind the header of a message.
            expressions: builder.bytes()[16..].to_vec(),
            userdata: Vec::new(),
        }
    }

    #[test]
    fn packets_are_summed_up_by_the_set_that_their_rule_looks_into() {
        let mut table = Loaded::default();
        let mut chain = |name: &str, rules: Vec<LoadedRule>| {
            table.rules.insert(name.into(), rules);
        };
        chain("raw", vec![rule(Some("banned4"), 5), rule(Some("banned6"), 0)]);
        chain(
            "pre",
            vec![
                rule(Some("banned4"), 7),
                rule(Some("banned4_24"), 1),
                rule(Some("trusted4"), 100),
                rule(None, 100),
            ],
        );
        let count = |name: &str, count| (name.to_owned(), count);
        let by_set = [count("banned4", 12), count("banned4_24", 1), count("banned6", 0)];
        assert_eq!(table.dropped().by_set, by_set.into());
        assert_eq!(table.dropped().refused, None);
        table
            .rules
            .insert("refuse".into(), vec![rule(None, 9), rule(None, 100)]);
        table
            .rules
            .insert("cut".into(), vec![rule(None, 1), rule(None, 2)]);
        assert_eq!(table.dropped().refused, Some(9));
        assert_eq!(table.dropped().by_set[ANY], 3);
    }
}
