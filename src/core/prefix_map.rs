//! Prefixes to values, with "which of them holds this address": live bans, of sources and of wider prefixes.
//!
//! One keyed hash lookup for each length that is in use; a host has few (32, 64, and what an operator bans).

use std::collections::HashMap;
use std::net::IpAddr;

use super::prefix::Prefix;

/// A map from prefixes that also finds by address. Unbounded: its owner bounds it.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    values: HashMap<Prefix, V>,
    /// Lengths in use with how many prefixes have them; longest first, families apart.
    v4: Vec<(u8, usize)>,
    v6: Vec<(u8, usize)>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> PrefixMap<V> {
        PrefixMap {
            values: HashMap::new(),
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<V> PrefixMap<V> {
    /// Puts a value in; the one it replaces is returned.
    pub fn insert(&mut self, prefix: Prefix, value: V) -> Option<V> {
        let replaced = self.values.insert(prefix, value);
        if replaced.is_none() {
            let lengths = self.lengths(&prefix);
            match lengths.binary_search_by(|(len, _)| prefix.len().cmp(len)) {
                Ok(at) => lengths[at].1 += 1,
                Err(at) => lengths.insert(at, (prefix.len(), 1)),
            }
        }
        replaced
    }

    /// Takes the value of exactly this prefix out.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<V> {
        let removed = self.values.remove(prefix)?;
        let lengths = self.lengths(prefix);
        if let Ok(at) = lengths.binary_search_by(|(len, _)| prefix.len().cmp(len)) {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
        Some(removed)
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: &Prefix) -> Option<&V> {
        self.values.get(prefix)
    }

    /// The prefixes that hold `addr` with their values, longest first.
    pub fn covering(&self, addr: IpAddr) -> impl Iterator<Item = (&Prefix, &V)> {
        let addr = addr.to_canonical();
        let lengths = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().filter_map(move |(len, _)| {
            let prefix = Prefix::new(addr, *len).ok()?;
            self.values.get_key_value(&prefix)
        })
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Prefix, &V)> {
        self.values.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn lengths(&mut self, prefix: &Prefix) -> &mut Vec<(u8, usize)> {
        if prefix.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn covering(map: &PrefixMap<u32>, addr: &str) -> Vec<u32> {
        map.covering(addr.parse().unwrap())
            .map(|(_, value)| *value)
            .collect()
    }

    #[test]
    fn an_address_finds_every_prefix_that_holds_it_longest_first() {
        let mut map = PrefixMap::default();
        for (value, text) in (1..).zip([
            "10.0.0.0/8",
            "10.1.2.3",
            "10.1.0.0/16",
            "2001:db8::/64",
            "10.9.9.9",
        ]) {
            assert_eq!(map.insert(prefix(text), value), None);
        }
        assert_eq!(covering(&map, "10.1.2.3"), [2, 3, 1]);
        assert_eq!(covering(&map, "10.2.0.0"), [1]);
        assert_eq!(covering(&map, "2001:db8::9"), [4]);
        assert_eq!(covering(&map, "2001:db8:1::9"), [] as [u32; 0]);
        assert_eq!(map.insert(prefix("10.1.2.3"), 9), Some(2));
        assert_eq!(map.remove(&prefix("10.1.2.3")), Some(9));
        assert_eq!(covering(&map, "10.9.9.9"), [5, 1]);
        assert_eq!(map.remove(&prefix("10.9.9.9")), Some(5));
        assert_eq!(map.remove(&prefix("10.9.9.9")), None);
        assert_eq!((covering(&map, "10.9.9.9"), map.len()), (vec![1], 3));
    }
}
