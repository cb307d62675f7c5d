//! What `verdictctl state show` asks of the running engine: what the start found, the last snapshot and the next one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use super::protect::Protection;
use super::restore::Restored;
use crate::control::views::timestamp;
use crate::control::wire::{LastSnapshot, SnapshotView, Spared, StateCounts, StateStart, StateView};
use crate::core::attack::Baseline;
use crate::state::{Place, survey};
use crate::webhook::event::Ended;

/// Kept beside what is wrong with the state.
#[derive(Debug, Default)]
pub struct Facts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    start: StateStart,
    last: Option<LastSnapshot>,
    next: Option<Instant>,
}

impl Facts {
    /// The engine starts from this.
    pub fn began(&self, start: StateStart) {
        self.known().start = StateStart {
            at: timestamp(SystemTime::now()),
            ..start
        };
    }

    /// A snapshot is on the disk.
    pub fn saved(&self, view: &SnapshotView) {
        self.known().last = Some(LastSnapshot {
            at: timestamp(SystemTime::now()),
            bytes: view.bytes,
            duration_ms: view.duration_ms,
        });
    }

    /// When the next one is due.
    pub fn next(&self, at: Instant) {
        self.known().next = Some(at);
    }

    /// What lies at `place`, and how it came about.
    pub fn view(&self, place: &Place, counts: StateCounts, troubles: Vec<String>, now: Instant) -> StateView {
        let (saved_at, generation) = survey::head(place);
        let (files, notes) = match survey::files(place) {
            Ok(files) => (files, Vec::new()),
            Err(error) => (Vec::new(), vec![format!("the folder cannot be listed: {error}")]),
        };
        let known = self.known();
        StateView {
            path: place.path().display().to_string(),
            generation,
            saved_at,
            files,
            counts,
            start: Some(known.start.clone()),
            last_snapshot: known.last.clone(),
            next_snapshot_seconds: known.next.map(|at| at.saturating_duration_since(now).as_secs()),
            troubles,
            notes,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to what loading told of a `start` what became of it all.
pub(super) fn restored(
    start: &mut StateStart,
    restored: &Restored,
    ladder: usize,
    sources: usize,
    usual: &Baseline,
) {
    start.restored = StateCounts {
        bans: restored.ledger.active() as u64,
        would_be: restored.ledger.observed() as u64,
        ladder: ladder as u64,
        sources: sources as u64,
        baseline_ports: usual.ports.len() as u64,
    };
    let expired = restored.ended.iter().filter(|(_, why)| *why == Ended::Timeout);
    start.expired = expired.count() as u64;
}

/// Who was banned and is protected by now, and why.
pub(super) fn spared(restored: &Restored, protection: &Protection) -> Vec<Spared> {
    let protected = restored.ended.iter().filter(|(_, why)| *why == Ended::Protected);
    let spared = protected.filter_map(|(ban, _)| {
        Some(Spared {
            source: ban.source.to_string(),
            reason: protection.forbids(&ban.source)?,
        })
    });
    spared.take(MOST_SPARED).collect()
}

const MOST_SPARED: usize = 1000;
