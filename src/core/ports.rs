//! A set of ports as sorted ranges: what `[allowed_ports]` means, in the shape the kernel's set wants it.

use std::fmt;
use std::ops::RangeInclusive;

/// Ports as sorted, disjoint, inclusive ranges; neighbours are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Box<[(u16, u16)]>,
}

impl PortSet {
    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= port);
        self.ranges[..after].last().is_some_and(|(_, last)| port <= *last)
    }

    /// The ranges (first, last), ascending.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<RangeInclusive<u16>> for PortSet {
    /// Empty ranges (first after last) hold nothing and are dropped.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> PortSet {
        let mut sorted: Vec<(u16, u16)> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .map(RangeInclusive::into_inner)
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        PortSet {
            ranges: merged.into_boxed_slice(),
        }
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> PortSet {
        ports.into_iter().map(|port| port..=port).collect()
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            if first == last {
                write!(f, "{first}")?
            } else {
                write!(f, "{first}-{last}")?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ranges: &[(u16, u16)]) -> PortSet {
        ranges.iter().map(|(first, last)| *first..=*last).collect()
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        let set = ports(&[(6000, 6010), (22, 22), (80, 80), (6005, 6020), (81, 81), (22, 22)]);
        assert_eq!(set.ranges(), [(22, 22), (80, 81), (6000, 6020)]);
        assert_eq!(set.to_string(), "22, 80-81, 6000-6020");
    }

    #[test]
    fn the_ends_belong_to_a_range() {
        let set = ports(&[(0, 1), (6000, 6010), (65535, 65535)]);
        for inside in [0, 1, 6000, 6005, 6010, 65535] {
            assert!(set.contains(inside), "{inside}");
        }
        for outside in [2, 5999, 6011, 65534] {
            assert!(!set.contains(outside), "{outside}");
        }
    }

    #[test]
    fn nothing_and_everything() {
        #[allow(clippy::reversed_empty_ranges)]
        let none: PortSet = [10..=9].into_iter().collect();
        assert!(none.is_empty() && !none.contains(10) && none.to_string() == "none");
        let all = ports(&[(0, 65535), (5, 7)]);
        assert_eq!(all.ranges(), [(0, 65535)]);
    }
}
