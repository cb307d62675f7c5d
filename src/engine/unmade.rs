//! Changes that the kernel refused (a full set, most often): kept until it takes them, with what other systems have
//! not heard meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use super::enforcer::RETRY;
use crate::core::prefix::Prefix;
use crate::webhook::wire::Event;

/// What is to be asserted again, and when.
#[derive(Debug, Default)]
pub struct Unmade {
    targets: BTreeMap<Prefix, Option<Event>>,
    retry_at: Option<Instant>,
}

impl Unmade {
    /// The kernel refused a change for `target`; nobody heard of `untold` yet.
    pub fn refuse(&mut self, target: Prefix, untold: Option<Event>, now: Instant) {
        self.targets.insert(target, untold);
        self.retry_at.get_or_insert(now + RETRY);
    }

    /// `target` is asserted anew by something else; what nobody heard of it.
    pub fn forget(&mut self, target: &Prefix) -> Option<Event> {
        self.targets.remove(target).flatten()
    }

    /// What nobody heard of `target`, which is tried again all the same.
    pub fn silence(&mut self, target: &Prefix) -> Option<Event> {
        self.targets.get_mut(target).and_then(Option::take)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.targets.len()
    }

    /// When they are tried again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// All of them, if it is time: whoever is refused once more comes back by [`Unmade::refuse`].
    pub fn take_due(&mut self, now: Instant) -> Option<BTreeMap<Prefix, Option<Event>>> {
        self.retry_at.filter(|at| *at <= now)?;
        // Once more after they are gone, so that somebody counts that none came back.
        self.retry_at = (!self.targets.is_empty()).then(|| now + RETRY);
        Some(std::mem::take(&mut self.targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_due_after_its_time_and_nobody_hears_of_it_twice() {
        let (mut unmade, start) = (Unmade::default(), Instant::now());
        let (one, two) = (
            Prefix::host("203.0.113.1".parse().unwrap()),
            Prefix::host("203.0.113.2".parse().unwrap()),
        );
        let event = crate::webhook::event::sample(
            crate::webhook::wire::EventType::IpBlocked,
            crate::webhook::event::Now::read(),
        );
        assert!(unmade.take_due(start).is_none());
        unmade.refuse(one, Some(event.clone()), start);
        unmade.refuse(two, Some(event.clone()), start + RETRY / 2);
        assert_eq!(
            (unmade.silence(&one), unmade.silence(&one)),
            (Some(event.clone()), None)
        );
        assert!(unmade.take_due(start + RETRY / 2).is_none());
        let due = unmade.take_due(start + RETRY).expect("it is time");
        assert_eq!(due, BTreeMap::from([(one, None), (two, Some(event))]));
        assert_eq!(unmade.waiting(), 0);
        assert_eq!(unmade.next_deadline(), Some(start + RETRY * 2));
        assert!(unmade.take_due(start + RETRY * 2).expect("once more").is_empty());
        assert_eq!(unmade.next_deadline(), None);
        unmade.refuse(two, None, start);
        assert_eq!((unmade.forget(&two), unmade.waiting()), (None, 0));
    }
}
