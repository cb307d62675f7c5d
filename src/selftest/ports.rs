//! Which ports the scanner knocks at: those that count whatever the mode, as many as the threshold wants, and of those
//! rather one where nobody listens. A knock at a real service is a half-open connection for it, and where one of the ports answers, the
//! engine gives handshakes 0.9 s to come true before it bans.

use std::collections::BTreeSet;

use crate::control::wire::SelftestPlan;

/// The ports of one self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// Where an answer may be had, the best first: no more than a witness may touch.
    pub(super) candidates: Vec<u16>,
    served: BTreeSet<u16>,
}

impl Ports {
    /// For the engine of `plan` on a host that listens on `served`.
    pub(super) fn choose(plan: &SelftestPlan, served: BTreeSet<u16>) -> Ports {
        let wanted: Vec<u16> = match plan.filters {
            true => plan.allowed.clone(),
            false => USUAL.to_vec(),
        };
        let (busy, quiet): (Vec<u16>, Vec<u16>) = wanted.into_iter().partition(|port| served.contains(port));
        let most = usize::try_from(plan.threshold)
            .unwrap_or(usize::MAX)
            .min(CANDIDATES);
        Ports {
            candidates: quiet.into_iter().chain(busy).take(most).collect(),
            served,
        }
    }

    /// Whether somebody listens there.
    pub(super) fn is_served(&self, port: u16) -> bool {
        self.served.contains(&port)
    }

    /// As many ports as are tolerated, `last` (which crosses the line) not among them.
    pub(super) fn tolerated(&self, plan: &SelftestPlan, last: u16) -> Vec<u16> {
        let all = USUAL.into_iter().chain(MORE).chain(10_001..=u16::MAX);
        let mut seen = BTreeSet::new();
        let harmless = |port: &u16| !self.is_served(*port) || is_refused(plan, *port);
        all.filter(|port| *port != last && seen.insert(*port) && harmless(port))
            .take(usize::try_from(plan.threshold).unwrap_or(usize::MAX))
            .collect()
    }

    /// A port to cross the line with where none is known to answer: one that the queues see, if there is any.
    pub(super) fn silent_last(&self, plan: &SelftestPlan) -> u16 {
        match plan.filters {
            true => plan.allowed.first().copied().unwrap_or(USUAL[0]),
            false => USUAL[0],
        }
    }
}

fn is_refused(plan: &SelftestPlan, port: u16) -> bool {
    plan.filters && !plan.allowed.contains(&port)
}

/// Those that the Python system's monitor knocked at.
const USUAL: [u16; 8] = [80, 443, 22, 8000, 3306, 5432, 21, 25];
/// What scanners ask for next.
const MORE: [u16; 16] = [
    23, 110, 111, 135, 139, 143, 445, 993, 1433, 3389, 5900, 6379, 8080, 8443, 9200, 27017,
];
/// Each that does not answer costs time.
const CANDIDATES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(threshold: u32, allowed: &[u16]) -> SelftestPlan {
        SelftestPlan {
            threshold,
            filters: !allowed.is_empty(),
            allowed: allowed.to_vec(),
            ..SelftestPlan::default()
        }
    }

    fn choose(plan: &SelftestPlan, served: &[u16]) -> Ports {
        Ports::choose(plan, served.iter().copied().collect())
    }

    #[test]
    fn in_standard_they_are_the_usual_eight() {
        let plan = plan(7, &[]);
        let ports = choose(&plan, &[]);
        assert_eq!(ports.candidates, [80, 443, 22, 8000]);
        let mut all = ports.tolerated(&plan, 80);
        all.push(80);
        all.sort_unstable();
        assert_eq!(all, [21, 22, 25, 80, 443, 3306, 5432, 8000]);
    }

    #[test]
    fn where_somebody_listens_nobody_knocks_unless_it_is_refused_anyway() {
        let detection = plan(7, &[]);
        let ports = choose(&detection, &[22, 80]);
        assert_eq!(ports.candidates, [443, 8000, 3306, 5432]);
        let tolerated = ports.tolerated(&detection, 443);
        assert_eq!(tolerated, [8000, 3306, 5432, 21, 25, 23, 110]);
        let firewall = plan(7, &[22, 80, 443]);
        let ports = choose(&firewall, &[22, 80, 3306]);
        assert_eq!(
            ports.candidates,
            [443, 22, 80],
            "the one that nobody serves first"
        );
        let tolerated = ports.tolerated(&firewall, 443);
        assert_eq!(tolerated, [8000, 3306, 5432, 21, 25, 23, 110], "3306 is refused");
    }

    #[test]
    fn a_witness_never_touches_more_than_is_tolerated() {
        assert_eq!(choose(&plan(1, &[]), &[]).candidates, [80]);
        let many: Vec<u16> = (1000..1100).collect();
        let ports = choose(&plan(15, &many), &many);
        assert_eq!(ports.candidates, [1000, 1001, 1002, 1003]);
    }

    #[test]
    fn any_threshold_finds_its_ports() {
        for threshold in [1, 3, 7, 15, 200, 5000] {
            let plan = plan(threshold, &[]);
            let tolerated = choose(&plan, &[]).tolerated(&plan, 80);
            let distinct: BTreeSet<u16> = tolerated.iter().copied().collect();
            assert_eq!(
                (tolerated.len(), distinct.len()),
                (threshold as usize, threshold as usize)
            );
            assert!(!distinct.contains(&80));
        }
    }
}
