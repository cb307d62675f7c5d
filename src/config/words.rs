//! Settings of detection in the words of `check` and of what a reload tells.

use std::collections::BTreeMap;

use crate::core::attack::{Counting, Distributed, PortThresholds};
use crate::core::ports::PortSet;

/// `80, 443: 2; 22: 3; any other: 10`, the lowest first. Ports that have the threshold of any other are among those.
pub fn thresholds_text(thresholds: &PortThresholds) -> String {
    let own = thresholds
        .ports
        .iter()
        .map(|(port, tolerated)| (*tolerated, *port));
    let mut parts = by_value(own.filter(|(tolerated, _)| *tolerated != thresholds.default));
    parts.push(("any other".to_owned(), thresholds.default));
    joined(parts)
}

/// `22: new_sources; any other: incomplete`, or the one word that holds for all.
pub fn counting_text(distributed: &Distributed) -> String {
    let place = |counting| Counting::ALL.iter().position(|one| *one == counting);
    let own = distributed
        .by_port
        .iter()
        .filter(|(_, counting)| **counting != distributed.counting);
    let parts = by_value(own.map(|(port, counting)| (place(*counting), *port)));
    if parts.is_empty() {
        return distributed.counting.word().to_owned();
    }
    let worded =
        |(ports, place): (String, Option<usize>)| (ports, place.map_or("", |at| Counting::ALL[at].word()));
    let mut parts: Vec<_> = parts.into_iter().map(worded).collect();
    parts.push(("any other".to_owned(), distributed.counting.word()));
    joined(parts)
}

/// The ports of each value, in the order of the values.
fn by_value<V: Ord>(pairs: impl Iterator<Item = (V, u16)>) -> Vec<(String, V)> {
    let mut of: BTreeMap<V, Vec<u16>> = BTreeMap::new();
    for (value, port) in pairs {
        of.entry(value).or_default().push(port);
    }
    let told = |(value, ports): (V, Vec<u16>)| {
        let set: PortSet = ports.into_iter().map(|port| port..=port).collect();
        (set.to_string(), value)
    };
    of.into_iter().map(told).collect()
}

fn joined(parts: Vec<(String, impl ToString)>) -> String {
    let told = |(ports, value): (String, _)| format!("{ports}: {}", ToString::to_string(&value));
    parts.into_iter().map(told).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_grouped_by_what_holds_for_them() {
        let thresholds = PortThresholds {
            default: 10,
            ports: [(22, 3), (80, 2), (443, 2), (8000, 10), (6000, 3), (6001, 3)].into(),
        };
        assert_eq!(
            thresholds_text(&thresholds),
            "80, 443: 2; 22, 6000-6001: 3; any other: 10"
        );
        let mut distributed = Distributed::default();
        assert_eq!(thresholds_text(&distributed.thresholds), "any other: 10");
        assert_eq!(counting_text(&distributed), "incomplete");
        distributed.by_port = [
            (22, Counting::NewSources),
            (25, Counting::Incomplete),
            (80, Counting::All),
        ]
        .into();
        assert_eq!(
            counting_text(&distributed),
            "22: new_sources; 80: all; any other: incomplete"
        );
    }
}
