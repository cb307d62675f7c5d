//! What is gone from our table since it was seen good, for somebody who knows no configuration: the monitor, which
//! has to tell while the engine cannot.

use super::readback::Loaded;
use super::spec::{Family, ban_set_name};
use super::uapi::NFT_TABLE_F_DORMANT;

impl Loaded {
    /// Sets, chains and rules of `before` that are no longer there, in words; and what any table of ours has.
    pub fn lost_since(&self, before: &Loaded) -> Vec<String> {
        let mut found = Vec::new();
        if self.flags & NFT_TABLE_F_DORMANT != 0 {
            found.push("the table is dormant: none of its rules runs".to_owned());
        }
        let always = [(Family::V4, 32), (Family::V6, 64)].map(|(family, len)| ban_set_name(family, len));
        let sets = before
            .sets
            .keys()
            .chain(always.iter().filter(|name| !before.sets.contains_key(*name)));
        let gone = sets.filter(|name| !self.sets.contains_key(*name));
        found.extend(gone.map(|name| format!("set \"{name}\" is missing")));
        if !self.chains.values().any(|chain| chain.hook.is_some()) {
            found.push("no chain hangs in a hook".to_owned());
        }
        let gone = before
            .chains
            .keys()
            .filter(|name| !self.chains.contains_key(*name));
        found.extend(gone.map(|name| format!("chain \"{name}\" is missing")));
        let rules = |of: &Loaded, chain: &String| of.rules.get(chain).map_or(0, Vec::len);
        let fewer = before.chains.keys().filter_map(|chain| {
            let (now, then) = (rules(self, chain), rules(before, chain));
            (self.chains.contains_key(chain) && now < then)
                .then(|| format!("chain \"{chain}\" has {now} rules instead of {then}"))
        });
        found.extend(fewer);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::readback::{LoadedChain, LoadedRule, LoadedSet};
    use super::*;

    fn table() -> Loaded {
        let mut table = Loaded::default();
        for name in ["banned4", "banned6", "trusted4"] {
            table.sets.insert(name.into(), LoadedSet::default());
        }
        let hooked = LoadedChain {
            hook: Some((0, -190)),
            policy: Some(1),
        };
        table.chains.insert("pre".into(), hooked);
        let rules = vec![LoadedRule::default(), LoadedRule::default()];
        table.rules.insert("pre".into(), rules);
        table
    }

    #[test]
    fn nothing_is_lost_from_a_table_that_stayed_or_grew() {
        let mut now = table();
        now.sets.insert("banned4_24".into(), LoadedSet::default());
        assert_eq!(now.lost_since(&table()), Vec::<String>::new());
        assert_eq!(table().lost_since(&Loaded::default()), Vec::<String>::new());
    }

    #[test]
    fn each_loss_is_named() {
        let mut now = table();
        now.sets.remove("trusted4");
        now.rules.get_mut("pre").unwrap().pop();
        now.flags = NFT_TABLE_F_DORMANT;
        assert_eq!(
            now.lost_since(&table()),
            [
                "the table is dormant: none of its rules runs",
                "set \"trusted4\" is missing",
                "chain \"pre\" has 1 rules instead of 2"
            ]
        );
        let mut now = table();
        now.sets.remove("banned6");
        now.chains.clear();
        assert_eq!(
            now.lost_since(&Loaded::default()),
            ["set \"banned6\" is missing", "no chain hangs in a hook"]
        );
        assert!(
            now.lost_since(&table())
                .contains(&"chain \"pre\" is missing".to_owned())
        );
    }
}
