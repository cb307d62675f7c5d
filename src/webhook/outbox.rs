//! Where events are handed over, and the thread that writes them to disk. Handing over never waits.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::config::Filter;
use super::event::{self, Now};
use super::merge::{Merger, Sighting};
use super::spool::Spool;
use super::steady::Steady;
use super::wire::{Event, EventType};
use crate::core::probe::Probe;

/// Takes events from whoever sees them happen. Cheap to clone, and never waits for anybody.
#[derive(Clone, Debug)]
pub struct Outbox {
    events: Sender<Event>,
    sightings: Sender<Sighting>,
    shared: Arc<Shared>,
}

impl Outbox {
    /// Hands `event` over to be written and sent. It is counted and dropped if events come faster than the disk takes
    /// them, and simply dropped if no endpoint wants its kind.
    pub fn publish(&self, event: Event) {
        let Ok(kind) = event.event_type.parse() else {
            return;
        };
        if self.wants(kind) && self.events.try_send(event).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands over that `probe`, the first packet of its flow, came at `at`: a `connection_attempt`, if any endpoint
    /// wants them. For the verdict path: no allocation, and what it becomes is built by the thread that writes it.
    pub fn saw(&self, probe: &Probe, at: Instant) {
        if self.wants(EventType::ConnectionAttempt) {
            let sighting = Sighting { probe: *probe, at };
            if self.sightings.try_send(sighting).is_err() {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn wants(&self, kind: EventType) -> bool {
        Filter::from_bits(self.shared.wanted.load(Ordering::Relaxed)).wants(kind)
    }
}

/// Attempts travel apart from everything else: there can be so many that nothing else would get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Main,
    Bulk,
}

impl Lane {
    pub(super) const ALL: [Lane; 2] = [Lane::Main, Lane::Bulk];
}

/// What the threads share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// One a lane, while anything is sent at all.
    pub(super) spools: Mutex<Option<[Spool; 2]>>,
    /// Notified when something was written, or somebody has to stop.
    pub(super) changed: Condvar,
    /// What any endpoint wants.
    pub(super) wanted: AtomicU32,
    pub(super) dropped: AtomicU64,
    pub(super) spooled: AtomicU64,
    pub(super) merged: AtomicU64,
    /// The last trouble with the disk, and when such a thing was last told.
    pub(super) last_error: Mutex<Option<(String, Instant)>>,
    pub(super) clock: Steady,
    /// Set once, at the end: write what is there, send what still goes until then.
    pub(super) deadline: OnceLock<Instant>,
    /// Everything that was handed over is on disk, and nothing follows.
    pub(super) written: AtomicBool,
}

impl Shared {
    /// A panic elsewhere is no reason to stop sending: no half-done change of a spool is worse than a crash.
    pub(super) fn spools(&self) -> MutexGuard<'_, Option<[Spool; 2]>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full disk refuses every write: it is said once a minute.
    pub(super) fn note_error(&self, error: &std::io::Error) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let told = last.as_ref().is_some_and(|(_, told)| told.elapsed() < TELL_EVERY);
        let at = last
            .as_ref()
            .filter(|_| told)
            .map_or_else(Instant::now, |(_, at)| *at);
        *last = Some((error.to_string(), at));
        if !told {
            tracing::warn!(%error, "the spool of webhooks fails");
        }
    }
}

/// The outbox, and the writer behind it. `Receiver<()>`: whoever holds the other end wakes the writer.
pub(super) fn pair(shared: &Arc<Shared>, wake: Receiver<()>) -> (Outbox, Writer) {
    let (to_events, events) = bounded(QUEUED);
    let (to_sightings, sightings) = bounded(QUEUED);
    let outbox = Outbox {
        events: to_events,
        sightings: to_sightings,
        shared: Arc::clone(shared),
    };
    let writer = Writer {
        events,
        sightings,
        wake,
        shared: Arc::clone(shared),
        merger: Merger::new(Instant::now()),
        unsynced_since: None,
        rests_until: Instant::now(),
    };
    (outbox, writer)
}

/// Writes what was handed over, in the order of each lane.
pub(super) struct Writer {
    events: Receiver<Event>,
    sightings: Receiver<Sighting>,
    wake: Receiver<()>,
    shared: Arc<Shared>,
    merger: Merger,
    unsynced_since: Option<Instant>,
    /// Until then no sighting wakes it: else each would cost the thread that decides a system call.
    rests_until: Instant,
}

impl Writer {
    /// Until told to stop, and then until nothing is left.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.shared.deadline.get().is_some();
            let events = self.events.try_iter().take(AT_ONCE).collect();
            let batches = [events, self.attempts(stopping)];
            let idle = batches.iter().all(Vec::is_empty);
            if !idle {
                self.write(batches);
                self.unsynced_since.get_or_insert_with(Instant::now);
            }
            self.sync(stopping);
            if idle && stopping {
                // Under the lock, or a thread between its look and its wait would miss it.
                let _spools = self.shared.spools();
                self.shared.written.store(true, Ordering::Release);
                self.shared.changed.notify_all();
                return;
            }
            if idle {
                self.wait();
            }
        }
    }

    /// What was seen, as events.
    fn attempts(&mut self, stopping: bool) -> Vec<Event> {
        let now = Now::read();
        let (mut events, mut seen) = (Vec::new(), false);
        for sighting in self.sightings.try_iter().take(AT_ONCE) {
            seen = true;
            events.extend(
                self.merger
                    .offer(sighting)
                    .map(|sighting| told(now, &sighting, 1)),
            );
        }
        if seen {
            self.rests_until = now.at + REST;
        }
        let due = self.merger.due(now.at, stopping);
        events.extend(due.iter().map(|(sighting, count)| told(now, sighting, *count)));
        self.shared.merged.store(self.merger.merged(), Ordering::Relaxed);
        events
    }

    fn write(&self, batches: [Vec<Event>; 2]) {
        let written = self.shared.clock.millis(Instant::now());
        let mut spools = self.shared.spools();
        let Some(spools) = spools.as_mut() else { return };
        for (spool, events) in spools.iter_mut().zip(batches) {
            let count = events.len();
            let (done, result) = spool.append(events, written);
            self.shared.spooled.fetch_add(done as u64, Ordering::Relaxed);
            if let Err(error) = result {
                self.shared
                    .dropped
                    .fetch_add((count - done) as u64, Ordering::Relaxed);
                self.shared.note_error(&error);
            }
        }
        self.shared.changed.notify_all();
    }

    /// Every second at most: a loss of power costs no more than that, and a disk is not worn out by a storm.
    fn sync(&mut self, at_once: bool) {
        let due = self
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= SYNC_EVERY);
        if !due && !at_once {
            return;
        }
        self.unsynced_since = None;
        let files: Vec<_> = match self.shared.spools().as_mut() {
            Some(spools) => spools.iter_mut().filter_map(Spool::unsynced).collect(),
            None => return,
        };
        for file in files {
            if let Err(error) = file.sync_data() {
                self.shared.note_error(&error);
            }
        }
    }

    /// For more, for the end of a second, or for somebody who wakes it.
    fn wait(&self) {
        let sync = self.unsynced_since.map(|since| since + SYNC_EVERY);
        let rests = (Instant::now() < self.rests_until).then_some(self.rests_until);
        let mut select = Select::new();
        select.recv(&self.events);
        select.recv(&self.wake);
        if rests.is_none() {
            select.recv(&self.sightings);
        }
        match [sync, rests, self.merger.next()].into_iter().flatten().min() {
            Some(until) => drop(select.ready_deadline(until)),
            None => drop(select.ready()),
        }
        let _ = self.wake.try_recv();
    }
}

fn told(now: Now, sighting: &Sighting, count: u64) -> Event {
    event::connection_attempt(now, &sighting.probe, sighting.at, count)
}

/// Events of one lane between happening and the disk: a second of more than any endpoint takes in a minute.
const QUEUED: usize = 4_096;
/// Events that are written under one lock.
const AT_ONCE: usize = 256;
const SYNC_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// 4,096 sightings in that time are 80,000 a second: more than a disk takes.
const REST: Duration = Duration::from_millis(50);
