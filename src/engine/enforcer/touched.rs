//! What is made of one transaction of somebody else's: obeyed where an operator deleted the elements of bans, put right
//! in everything else.

use std::collections::HashSet;
use std::time::Instant;

use super::mirror::Judged;
use super::upkeep::Scope;
use super::{Enforcer, Report};
use crate::core::prefix::Prefix;
use crate::kernel::ruleset::{Culprit, Touch};
use crate::kernel::sets;

impl Enforcer {
    /// Somebody else changed the table.
    pub(super) fn touched(&mut self, touch: &Touch) {
        // Emptied with its table or set, a ban was not freed; nor if nobody knows what happened.
        if touch.lost && !self.rounds.may_look_at_all(touch.at) {
            return;
        }
        let flushed = self.flushed(touch);
        let wiped = touch.removal || touch.lost || !flushed.is_empty();
        if !wiped {
            self.obey(touch);
        }
        if touch.structure || wiped {
            let found = flushed.iter().map(|set| format!("set \"{set}\" was emptied"));
            // Else every notice about an element is still to be obeyed: what is missing may have been deleted by one.
            let scope = if wiped { Scope::All } else { Scope::Rules };
            self.put_right(touch.at, touch.by.as_ref(), found.collect(), scope);
        }
        if !wiped {
            self.check_added(touch);
        }
    }

    /// Sets that the transaction emptied, of those that should hold two bans or more. Of many, nine in ten are all: some
    /// may have ended, or come, in that very moment.
    fn flushed(&self, touch: &Touch) -> Vec<String> {
        let gone: HashSet<Prefix> = last_words(touch, false).collect();
        if gone.len() < 2 {
            return Vec::new();
        }
        let now = Instant::now();
        let mut emptied: Vec<String> = Vec::new();
        let mut known = HashSet::new();
        for target in &gone {
            if known.insert((target.is_ipv4(), target.len())) {
                let (held, freed) = self.wanted.share(&gone, target, now);
                let most = freed >= MANY && freed * 10 >= held * 9;
                if held >= 2 && (freed == held || most) {
                    emptied.push(sets::set_name(target));
                }
            }
        }
        emptied.sort_unstable();
        emptied
    }

    /// An operator's `nft delete element`: the ban is lifted.
    fn obey(&mut self, touch: &Touch) {
        let now = Instant::now();
        let deleted: Vec<Prefix> = last_words(touch, false)
            .filter(|target| self.wanted.holds(target, now))
            .collect();
        // A ban that was renewed since then stands.
        let freed: Vec<Prefix> = deleted
            .into_iter()
            .filter(|target| matches!(self.sets.contains(target), Ok(None)))
            .collect();
        if freed.is_empty() {
            return;
        }
        freed.iter().for_each(|target| self.wanted.forget(target));
        self.stats.upkeep.deleted.add(freed.len() as u64);
        self.report(Report::Deleted {
            targets: freed,
            by: touch.by.as_ref().map(Culprit::to_string),
        });
    }

    /// Elements that somebody added, or changed: the ledger knows of none of them.
    fn check_added(&mut self, touch: &Touch) {
        let (mut foreign, mut mistimed) = (Vec::new(), Vec::new());
        for target in last_words(touch, true) {
            let begun = Instant::now();
            let Ok(Some(found)) = self.sets.contains(&target) else {
                continue;
            };
            match self.wanted.judge(&found, begun, Instant::now()) {
                Judged::Right => {}
                Judged::Foreign => foreign.push(target),
                Judged::Mistimed => mistimed.push(target),
            }
        }
        self.remove_foreign(foreign, touch.by.as_ref());
        self.renew(&mistimed, touch.by.as_ref());
    }
}

/// Elements that the transaction leaves there (`added`), or gone.
fn last_words(touch: &Touch, added: bool) -> impl Iterator<Item = Prefix> {
    let mut seen = HashSet::new();
    let last = touch
        .elements
        .iter()
        .rev()
        .filter(move |(target, _)| seen.insert(*target));
    last.filter(move |(_, there)| *there == added)
        .map(|(target, _)| *target)
}

/// More than an operator deletes by name, of all there are.
const MANY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_each_element_counts() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let touch = Touch {
            at: Instant::now(),
            by: None,
            structure: false,
            removal: false,
            elements: vec![
                (prefix("192.0.2.1"), false),
                (prefix("192.0.2.2"), true),
                (prefix("192.0.2.1"), true),
                (prefix("192.0.2.3"), false),
            ],
            lost: false,
        };
        let words = |added| last_words(&touch, added).map(|target| target.to_string());
        assert!(words(false).eq(["192.0.2.3"]));
        assert!(words(true).eq(["192.0.2.1", "192.0.2.2"]));
    }
}
