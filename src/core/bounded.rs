//! A map with a capacity and an eviction order: every table that a stranger can fill is one of these.
//!
//! It knows nothing of bans; the owner says how much each entry is worth (its rank) and when it was last
//! touched. Keys are chosen by strangers, so they are hashed with std's keyed hash. All work is O(1): the
//! buckets are made up front and chained through the slots, so that there is never a pause to rehash.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

/// A map of at most `capacity` entries. What must go when it is full: of the lowest rank the entry that was
/// not touched for longest.
///
/// Rank 0 is spared while it holds less than 1/[`NURSERY`] of the entries, and the next rank pays instead:
/// else a table full of worthier entries would push out each newcomer before its second packet, and whoever
/// fills the table would blind the engine to everybody else.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    hasher: RandomState,
    /// First slot of each chain; a power of two of them.
    buckets: Box<[Link]>,
    slots: Vec<Slot<K, V>>,
    free: Link,
    ranks: [Queue; RANKS],
    capacity: usize,
    evicted: u64,
}

/// Where an entry lies, good until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// Index of a slot plus one; 0 ends a list.
type Link = u32;

#[derive(Debug)]
struct Slot<K, V> {
    entry: Option<(K, V)>,
    touched: Instant,
    rank: u8,
    bucket: u32,
    chain: Link,
    older: Link,
    newer: Link,
}

/// Entries of one rank, by when they were touched.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    oldest: Link,
    newest: Link,
    len: usize,
}

impl<K: Hash + Eq, V> BoundedMap<K, V> {
    /// What one entry takes, apart from what it points to; up to one more [`Link`] of buckets, which are a power of two.
    pub const BYTES: usize = size_of::<Slot<K, V>>() + size_of::<Link>();

    /// An empty map. The buckets are made at once (4 bytes an entry), the slots as they fill.
    ///
    /// A capacity of 0 is taken as 1, one beyond 2³⁰ as 2³⁰.
    pub fn new(capacity: usize) -> BoundedMap<K, V> {
        let capacity = capacity.clamp(1, MOST);
        BoundedMap {
            hasher: RandomState::new(),
            buckets: vec![0; capacity.next_power_of_two()].into_boxed_slice(),
            slots: Vec::new(),
            free: 0,
            ranks: [Queue::default(); RANKS],
            capacity,
            evicted: 0,
        }
    }

    /// The same with its slots reserved: memory that the kernel hands out only as it is used, and no pause to
    /// move entries while the map grows.
    pub fn reserved(capacity: usize) -> BoundedMap<K, V> {
        let mut map = BoundedMap::new(capacity);
        map.slots.reserve_exact(map.capacity);
        map
    }

    /// Where `key` is.
    pub fn find(&self, key: &K) -> Option<Place> {
        let mut link = self.buckets[self.bucket_of(key)];
        while let Some(index) = index(link) {
            let slot = &self.slots[index];
            if slot.entry.as_ref().is_some_and(|(held, _)| held == key) {
                return Some(Place(index));
            }
            link = slot.chain;
        }
        None
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).and_then(|place| self.at(place))
    }

    /// The value at a place.
    pub fn at(&self, place: Place) -> Option<&V> {
        self.slots.get(place.0)?.entry.as_ref().map(|(_, value)| value)
    }

    /// The value at a place, to be changed.
    pub fn at_mut(&mut self, place: Place) -> Option<&mut V> {
        self.slots
            .get_mut(place.0)?
            .entry
            .as_mut()
            .map(|(_, value)| value)
    }

    /// Notes that the entry was used at `now` and is worth `rank` (cut to the highest there is).
    pub fn touch(&mut self, place: Place, rank: u8, now: Instant) {
        if self.at(place).is_some() {
            self.unqueue(place.0);
            self.enqueue(place.0, rank, now);
        }
    }

    /// Puts an entry in, replacing one of the same key; if the map is full another one has to go.
    pub fn insert(&mut self, key: K, value: V, rank: u8, now: Instant) -> Place {
        if let Some(place) = self.find(&key) {
            self.touch(place, rank, now);
            self.slots[place.0].entry = Some((key, value));
            return place;
        }
        if self.len() >= self.capacity {
            self.evict();
        }
        let bucket = self.bucket_of(&key);
        let index = self.vacant(now);
        let slot = &mut self.slots[index];
        slot.entry = Some((key, value));
        slot.bucket = u32::try_from(bucket).unwrap_or(0); // below 2^30: `MOST`
        slot.chain = std::mem::replace(&mut self.buckets[bucket], link(index));
        self.enqueue(index, rank, now);
        Place(index)
    }

    /// Changes what an entry is worth, and not when it was touched.
    pub fn rerank(&mut self, place: Place, rank: u8) {
        if let Some(touched) = self.slots.get(place.0).map(|slot| slot.touched) {
            self.touch(place, rank, touched);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.find(key)?;
        self.take(place.0).map(|(_, value)| value)
    }

    /// Takes out entries that were not touched for as long as entries of their rank live, at most `budget` of them.
    pub fn expire(&mut self, lifetime: impl Fn(u8) -> Duration, now: Instant, budget: usize) -> usize {
        let mut gone = 0;
        for rank in 0..=HIGHEST {
            let idle = lifetime(rank);
            while gone < budget
                && let Some(oldest) = index(self.ranks[usize::from(rank)].oldest)
                && now.saturating_duration_since(self.slots[oldest].touched) >= idle
            {
                self.take(oldest);
                gone += 1;
            }
        }
        gone
    }

    /// Takes out the entry of the lowest rank that was not touched for longest, if that is at least `idle`.
    pub fn pop_idle(&mut self, idle: Duration, now: Instant) -> Option<(K, V)> {
        let lowest = self.ranks.iter().find(|queue| queue.len > 0)?;
        let oldest = index(lowest.oldest)?;
        let is_idle = now.saturating_duration_since(self.slots[oldest].touched) >= idle;
        if is_idle { self.take(oldest) } else { None }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ranks.iter().map(|queue| queue.len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many entries had to go because the map was full, since it was made.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The entries with when they were touched: highest rank first, in it the last touched first.
    pub fn worthiest(&self) -> impl Iterator<Item = (&K, &V, Instant)> {
        let newest = self.ranks.iter().rev().map(|queue| queue.newest);
        newest
            .flat_map(move |first| std::iter::successors(index(first), |at| index(self.slots[*at].older)))
            .filter_map(|at| {
                let slot = &self.slots[at];
                slot.entry.as_ref().map(|(key, value)| (key, value, slot.touched))
            })
    }

    /// How many slots there are, filled or not: the end of what [`BoundedMap::slot`] can be asked for.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The entry in slot `at`, if any, and when it was touched. An entry keeps its slot while it is in the map, so that all can be looked
    /// at a few at a time while the map changes.
    pub fn slot(&self, at: usize) -> Option<(&K, &V, Instant)> {
        let slot = self.slots.get(at)?;
        let (key, value) = slot.entry.as_ref()?;
        Some((key, value, slot.touched))
    }

    fn evict(&mut self) {
        let spared = usize::from(self.ranks[0].len <= self.capacity / NURSERY);
        let paying = self.ranks[spared..]
            .iter()
            .find(|queue| queue.len > 0)
            .unwrap_or(&self.ranks[0]);
        if let Some(oldest) = index(paying.oldest) {
            self.evicted += 1;
            self.take(oldest);
        }
    }

    fn take(&mut self, at: usize) -> Option<(K, V)> {
        self.unqueue(at);
        self.unchain(at);
        self.slots[at].chain = std::mem::replace(&mut self.free, link(at));
        self.slots[at].entry.take()
    }

    /// An empty slot.
    fn vacant(&mut self, now: Instant) -> usize {
        if let Some(at) = index(self.free) {
            self.free = self.slots[at].chain;
            return at;
        }
        self.slots.push(Slot {
            entry: None,
            touched: now,
            rank: 0,
            bucket: 0,
            chain: 0,
            older: 0,
            newer: 0,
        });
        self.slots.len() - 1
    }

    fn unchain(&mut self, at: usize) {
        let after = self.slots[at].chain;
        let bucket = self.slots[at].bucket as usize;
        let mut from = self.buckets[bucket];
        if from == link(at) {
            self.buckets[bucket] = after;
            return;
        }
        while let Some(before) = index(from) {
            from = self.slots[before].chain;
            if from == link(at) {
                self.slots[before].chain = after;
                return;
            }
        }
    }

    fn enqueue(&mut self, at: usize, rank: u8, now: Instant) {
        let rank = rank.min(HIGHEST);
        let queue = &mut self.ranks[usize::from(rank)];
        let older = std::mem::replace(&mut queue.newest, link(at));
        queue.len += 1;
        match index(older) {
            Some(older) => self.slots[older].newer = link(at),
            None => queue.oldest = link(at),
        }
        let slot = &mut self.slots[at];
        (slot.rank, slot.touched, slot.older, slot.newer) = (rank, now, older, 0);
    }

    fn unqueue(&mut self, at: usize) {
        let Slot {
            rank, older, newer, ..
        } = self.slots[at];
        let queue = &mut self.ranks[usize::from(rank)];
        queue.len -= 1;
        match index(older) {
            Some(older) => self.slots[older].newer = newer,
            None => queue.oldest = newer,
        }
        match index(newer) {
            Some(newer) => self.slots[newer].older = older,
            None => self.ranks[usize::from(rank)].newest = older,
        }
    }

    fn bucket_of(&self, key: &K) -> usize {
        let mask = self.buckets.len() - 1;
        usize::try_from(self.hasher.hash_one(key) & 0xffff_ffff).map_or(0, |hash| hash & mask)
    }
}

fn index(link: Link) -> Option<usize> {
    usize::try_from(link).ok()?.checked_sub(1)
}

fn link(index: usize) -> Link {
    Link::try_from(index + 1).expect("a map has at most 2^30 slots")
}

/// The highest rank: the last to be evicted.
pub const HIGHEST: u8 = 7;
/// The share of rank 0 that is spared is one part in this many.
pub const NURSERY: usize = 8;
const RANKS: usize = HIGHEST as usize + 1;
const MOST: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(capacity: usize) -> (BoundedMap<u32, &'static str>, Instant) {
        (BoundedMap::new(capacity), Instant::now())
    }

    fn keys<V>(map: &BoundedMap<u32, V>) -> Vec<u32> {
        map.worthiest().map(|(key, ..)| *key).collect()
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out() {
        let (mut map, now) = map(4);
        map.insert(1, "one", 0, now);
        map.insert(2, "two", 0, now);
        assert_eq!(
            (map.get(&1), map.get(&2), map.get(&3)),
            (Some(&"one"), Some(&"two"), None)
        );
        map.insert(1, "uno", 1, now);
        assert_eq!(
            (map.remove(&1), map.remove(&1), map.len()),
            (Some("uno"), None, 1)
        );
        map.insert(3, "three", 0, now);
        assert_eq!((map.get(&3), map.len(), map.evicted()), (Some(&"three"), 2, 0));
    }

    #[test]
    fn the_least_worthy_and_longest_untouched_goes_first() {
        let (mut map, now) = map(4);
        for key in 1..=4 {
            map.insert(key, "", u8::from(key == 1), now);
        }
        let two = map.find(&2).unwrap();
        map.touch(two, 0, now);
        for (key, kept) in [(5, [1, 5, 2, 4]), (6, [1, 6, 5, 2]), (7, [1, 7, 6, 5])] {
            map.insert(key, "", 0, now);
            assert_eq!(keys(&map), kept);
        }
        assert_eq!(map.evicted(), 3);
    }

    #[test]
    fn newcomers_keep_a_share_when_everybody_else_is_worthier() {
        let (mut map, now) = map(16);
        for key in 0..16 {
            map.insert(key, "", 1, now);
        }
        for key in 100..200 {
            map.insert(key, "", 0, now);
        }
        let kept = keys(&map);
        assert_eq!(kept.iter().filter(|key| **key >= 100).count(), 16 / NURSERY + 1);
        assert!(kept.contains(&199) && kept.contains(&198) && kept.contains(&15) && !kept.contains(&0));
    }

    #[test]
    fn idle_entries_end_within_the_budget() {
        let (mut map, start) = map(8);
        let idle = Duration::from_secs(10);
        for key in 0..4 {
            map.insert(key, "", 3, start);
        }
        let late = start + Duration::from_secs(9);
        let two = map.find(&2).unwrap();
        map.touch(two, 5, late);
        assert_eq!(map.expire(|_| idle, late, 9), 0);
        assert_eq!(map.expire(|_| idle, start + idle, 2), 2);
        assert_eq!(map.expire(|_| idle, start + idle, 9), 1);
        assert_eq!(keys(&map), [2]);
    }

    #[test]
    fn slots_show_every_entry_also_while_others_come_and_go() {
        let (mut map, now) = map(8);
        for key in 0..4 {
            map.insert(key, "", 0, now);
        }
        let seen = |map: &BoundedMap<u32, &str>, slots: std::ops::Range<usize>| -> Vec<u32> {
            slots
                .filter_map(|at| map.slot(at))
                .map(|(key, ..)| *key)
                .collect()
        };
        assert_eq!((map.slots(), seen(&map, 0..2)), (4, vec![0, 1]));
        map.remove(&0);
        map.insert(9, "", 5, now);
        map.remove(&2);
        assert_eq!(
            (seen(&map, 2..map.slots()), seen(&map, 0..99)),
            (vec![3], vec![9, 1, 3])
        );
    }

    #[test]
    fn it_agrees_with_a_plain_map_while_nothing_is_evicted() {
        let (now, mut map) = (Instant::now(), BoundedMap::reserved(64));
        let mut model = std::collections::HashMap::new();
        let mut random = 1u32;
        for step in 0..20_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, rank) = ((random >> 8) % 64, (random >> 20) as u8 % 9);
            if random >> 31 == 0 {
                map.insert(key, step, rank, now);
                model.insert(key, step);
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
            assert_eq!(map.len(), model.len());
        }
        let mut held: Vec<_> = map.worthiest().map(|(key, value, _)| (*key, *value)).collect();
        let mut expected: Vec<_> = model.into_iter().collect();
        held.sort_unstable();
        expected.sort_unstable();
        assert_eq!((held, map.evicted()), (expected, 0));
    }
}
