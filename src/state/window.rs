//! The window of one source, from a snapshot and from journals: of two entries that say the same port the newer counts,
//! whatever the order in which they are read.

use std::collections::HashMap;
use std::time::Duration;

use super::SavedSource;
use super::journal::record::Millis;
use crate::core::judge::MOST_COMPLETED;
use crate::core::verdict::{Asked, Proto};

/// What a source did.
pub(super) struct Seen {
    pub(super) first: Millis,
    pub(super) last: Millis,
    touches: Vec<(Asked, u16, Millis)>,
    /// The last one last.
    completed: Vec<(u16, Millis)>,
}

impl Seen {
    pub(super) fn new(at: Millis) -> Seen {
        Seen {
            first: at,
            last: at,
            touches: Vec::new(),
            completed: Vec::new(),
        }
    }

    pub(super) fn saved(saved: &SavedSource, now: Millis) -> Seen {
        let touches = saved.touches.iter();
        Seen {
            first: before(now, saved.age),
            last: before(now, saved.idle),
            touches: touches
                .map(|(what, stealth, age)| (*what, *stealth, before(now, *age)))
                .collect(),
            completed: Vec::new(),
        }
    }

    /// The newer of two that say the same port counts, the later record of two as new.
    pub(super) fn touch(&mut self, what: Asked, stealth: u16, at: Millis) {
        if let Asked::Port(Proto::Tcp, port) = what
            && self
                .completed
                .iter()
                .any(|(known, done)| *known == port && at <= *done)
        {
            return;
        }
        match self.touches.iter_mut().rev().find(|known| known.0 == what) {
            Some(known) if known.2 > at => {}
            Some(known) => *known = (what, stealth, at),
            None => {
                if self.touches.len() >= MOST_TOUCHES && !self.forget_one_before(at) {
                    return;
                }
                self.touches.push((what, stealth, at));
            }
        }
    }

    /// Drops the oldest entry, if it is not newer than that.
    fn forget_one_before(&mut self, at: Millis) -> bool {
        let entries = self.touches.iter().enumerate();
        let oldest = entries
            .min_by_key(|(_, touch)| touch.2)
            .filter(|(_, touch)| touch.2 <= at);
        oldest.map(|(nth, _)| nth).is_some_and(|nth| {
            self.touches.remove(nth);
            true
        })
    }

    pub(super) fn complete(&mut self, port: u16, at: Millis) {
        let known = self.completed.iter().position(|(known, _)| *known == port);
        let before = known.map_or(at, |known| self.completed.remove(known).1);
        if self.completed.len() >= MOST_TOUCHES {
            self.completed.remove(0);
        }
        let at = at.max(before);
        self.completed.push((port, at));
        self.clear(port, at);
    }

    fn clear(&mut self, port: u16, at: Millis) {
        self.touches
            .retain(|(what, _, touched)| *what != Asked::Port(Proto::Tcp, port) || *touched > at);
    }

    /// Adds what the journal tells to what the snapshot held.
    pub(super) fn join(&mut self, news: Seen) {
        (self.first, self.last) = (self.first.min(news.first), self.last.max(news.last));
        for (port, at) in &news.completed {
            self.clear(*port, *at);
        }
        let mut newer: HashMap<Asked, (u16, Millis)> = news
            .touches
            .into_iter()
            .map(|(what, stealth, at)| (what, (stealth, at)))
            .collect();
        for (what, stealth, at) in &mut self.touches {
            if let Some(told) = newer.remove(what)
                && told.1 >= *at
            {
                (*stealth, *at) = told;
            }
        }
        let rest = newer.into_iter();
        self.touches
            .extend(rest.map(|(what, (stealth, at))| (what, stealth, at)));
        self.completed = news.completed;
    }

    pub(super) fn consume(&mut self, until: Option<Millis>) {
        if let Some(until) = until {
            self.touches.retain(|(.., at)| *at > until);
        }
    }

    /// Puts it into `saved`; whether there is anything worth keeping.
    pub(super) fn save(mut self, saved: &mut SavedSource, now: Millis) -> bool {
        self.touches.sort_unstable_by_key(|(what, _, at)| (*at, *what));
        (saved.age, saved.idle) = (ago(now, self.first), ago(now, self.last));
        saved.touches = self
            .touches
            .into_iter()
            .map(|(what, stealth, at)| (what, stealth, ago(now, at)))
            .collect();
        if !self.completed.is_empty() {
            let known = saved.completed.get_or_insert_default();
            for (port, _) in self.completed {
                known.retain(|other| *other != port);
                known.push(port);
            }
            known.drain(..known.len().saturating_sub(MOST_COMPLETED));
        }
        saved.completed.is_some() || !saved.touches.is_empty()
    }
}

/// How long before `now` that was; nothing, if it was not.
pub(super) fn ago(now: Millis, at: Millis) -> Duration {
    Duration::from_millis(now.saturating_sub(at).max(0).unsigned_abs())
}

/// When it was that is so old by `now`.
pub(super) fn before(now: Millis, age: Duration) -> Millis {
    now.saturating_sub(Millis::try_from(age.as_millis()).unwrap_or(Millis::MAX))
}

/// The most ports of one source that journals tell: far above every threshold of the presets (60 UDP ports).
const MOST_TOUCHES: usize = 1024;
