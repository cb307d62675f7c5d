//! What the monitor has the engine write down and tell: into the audit log, and as events to the webhooks. Kept while
//! no engine answers, a bounded number of them.

use std::collections::VecDeque;

use tracing::debug;

use super::check::ANSWER;
use super::places::Places;
use crate::control::wire::{NoteKind, NoteResult, Request};

/// Notes that wait for an engine.
#[derive(Debug, Default)]
pub(super) struct Notes(VecDeque<Request>);

impl Notes {
    /// Adds one; the oldest gives way when nobody takes them.
    pub(super) fn add(&mut self, kind: NoteKind, result: NoteResult, detail: &str) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Request::note(kind, result, detail));
    }

    /// Hands over what waits, as long as somebody takes it.
    pub(super) fn tell(&mut self, places: &Places) {
        let client = places.client().within(ANSWER);
        while let Some(note) = self.0.front() {
            if let Err(error) = client.ask(note) {
                debug!("a note for the engine waits: {error}");
                return;
            }
            self.0.pop_front();
        }
    }
}

/// An hour of an engine that cannot be started, at five minutes a try, and room to spare.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_fit_the_wire() {
        let mut notes = Notes::default();
        (0..MOST + 5).for_each(|n| notes.add(NoteKind::Monitor, NoteResult::Failed, &format!("{n}")));
        assert_eq!(notes.0.len(), MOST);
        assert!(matches!(&notes.0[0], Request::AuditNote { detail, .. } if detail == "5"));
        notes.add(NoteKind::Selftest, NoteResult::Ok, &"a\nb".repeat(1000));
        assert_eq!(notes.0[MOST - 1].check(), Ok(()));
    }
}
