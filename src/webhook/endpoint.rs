//! The thread of one endpoint: takes events from the spool, puts them together, sends them, and steps back where that
//! fails. What one endpoint does to its thread no other notices.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::dead::DeadLetters;
use super::handle::{Handle, Setup};
use super::http::{Client, Outcome};
use super::outbox::{Lane, Shared};
use super::pace::{Bucket, Circuit, Portion, Retry};
use super::spool::{Record, Spool, Taken};
use super::wire::{Batch, Event, EventType, Severity};

/// Events that go together.
#[derive(Debug, Default)]
struct Held {
    records: Vec<Record>,
    bytes: u64,
    since: Option<Instant>,
    urgent: bool,
    /// It was tried: nothing more is added to it.
    sealed: bool,
}

impl Held {
    fn add(&mut self, taken: Taken, now: Instant) {
        self.bytes += taken.bytes;
        for record in taken.records {
            let severity = record.event.event_type.parse().map(EventType::severity);
            self.urgent |= severity.is_ok_and(|severity| severity > Severity::Informational);
            self.since.get_or_insert(now);
            self.records.push(record);
        }
    }

    /// Takes the first `count` out.
    fn release(&mut self, count: usize) -> Vec<Record> {
        let rest = self.records.split_off(count);
        let first = std::mem::replace(&mut self.records, rest);
        if self.records.is_empty() {
            *self = Held::default();
        }
        first
    }

    /// When it is to go.
    fn due(&self, setup: &Setup, at_once: bool) -> Option<Instant> {
        let since = self.since?;
        let delivery = &setup.endpoint.delivery;
        let full = self.records.len() >= delivery.batch_size || self.bytes >= LARGEST_BATCH;
        Some(match () {
            () if full || self.sealed || at_once => since,
            () if self.urgent => since + LINGER.min(delivery.batch_timeout),
            () => since + delivery.batch_timeout,
        })
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.records.iter().map(|record| &record.event)
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Send(Lane),
    /// The oldest dead letters.
    Again,
    /// Events of this lane are too old.
    Expire(Lane),
    Wait(Option<Instant>),
    Stop,
}

/// The thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    setup: Arc<Setup>,
    client: Client,
    bucket: Bucket,
    retry: Retry,
    portion: Portion,
    held: [Held; 2],
    dead: DeadLetters,
    revival: Option<Revival>,
    chance: RandomState,
}

/// Dead letters are being sent again: each of them once.
#[derive(Debug)]
struct Revival {
    left: usize,
    portion: Portion,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, handle: Arc<Handle>, dead: DeadLetters) -> Worker {
        let setup = handle.setup();
        Worker {
            client: Client::new(&setup.endpoint, &setup.config, Arc::clone(&setup.lookup)),
            bucket: Bucket::new(setup.endpoint.delivery.rate_limit, Instant::now()),
            retry: Retry::default(),
            portion: Portion::default(),
            held: Default::default(),
            dead,
            revival: None,
            chance: RandomState::new(),
            shared,
            handle,
            setup,
        }
    }

    /// Until the endpoint leaves, or the engine stops and nothing more can be sent in time.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut spools = shared.spools();
            if self.handle.leave.load(Ordering::Acquire) {
                return;
            }
            let Some(open) = spools.as_mut() else { return };
            let now = Instant::now();
            self.refresh(open, now);
            let more = self.fill(open, now);
            self.show(now);
            match self.next(now) {
                Next::Wait(_) if more => {} // others had the lock in between
                Next::Wait(None) => drop(shared.changed.wait(spools)),
                Next::Wait(Some(until)) => {
                    drop(
                        shared
                            .changed
                            .wait_timeout(spools, until.saturating_duration_since(now)),
                    );
                }
                Next::Stop => return,
                other => {
                    drop(spools);
                    self.act(other);
                }
            }
        }
    }

    fn act(&mut self, next: Next) {
        match next {
            Next::Send(lane) => self.send(lane),
            Next::Again => self.revive(),
            Next::Expire(lane) => self.expire(lane),
            Next::Wait(_) | Next::Stop => {}
        }
    }

    /// Takes over what a reload changed and an operator wished.
    fn refresh(&mut self, spools: &mut [Spool; 2], now: Instant) {
        let setup = self.handle.setup();
        if !Arc::ptr_eq(&setup, &self.setup) {
            self.change_to(setup, spools, now);
        }
        if self.handle.again.swap(false, Ordering::AcqRel) {
            self.retry.reset();
            self.revival = Some(Revival {
                left: self.dead.kept() as usize,
                portion: Portion::default(),
            });
        }
    }

    fn change_to(&mut self, setup: Arc<Setup>, spools: &mut [Spool; 2], now: Instant) {
        self.client = Client::new(&setup.endpoint, &setup.config, Arc::clone(&setup.lookup));
        self.bucket.set_rate(setup.endpoint.delivery.rate_limit, now);
        if setup.endpoint != self.setup.endpoint {
            // What is changed may be what was wrong.
            self.retry = Retry::default();
            self.portion = Portion::default();
        }
        if setup.endpoint.filter != self.setup.endpoint.filter {
            // A batch may hold what is not wanted any more.
            self.held = Default::default();
            spools
                .iter_mut()
                .for_each(|spool| spool.rewind(&self.handle.name));
        }
        self.setup = setup;
    }

    /// Whether something is left to be looked at, and room for it.
    fn fill(&mut self, spools: &mut [Spool; 2], now: Instant) -> bool {
        let most = self.setup.endpoint.delivery.batch_size;
        let mut more = false;
        for (held, spool) in self.held.iter_mut().zip(spools) {
            let room = most.saturating_sub(held.records.len());
            let bytes = LARGEST_BATCH.saturating_sub(held.bytes);
            if held.sealed || room == 0 || bytes == 0 {
                continue;
            }
            let taken = spool.take(&self.handle.name, room, bytes);
            more |= taken.more && taken.records.len() < room && taken.bytes < bytes;
            held.add(taken, now);
        }
        more
    }

    /// Counts of the spool are added by whoever asks.
    fn show(&self, now: Instant) {
        let mut counts = self.handle.counts();
        counts.circuit = self
            .retry
            .circuit(now, self.setup.endpoint.delivery.retry_attempts);
        counts.dropped = self.dead.dropped();
        counts.dead_letters = self.dead.kept();
    }

    fn next(&mut self, now: Instant) -> Next {
        // Nothing is given up that was not tried: a clock may have been wrong when it was written, or before a restart.
        let failing = self.retry.is_failing();
        for lane in Lane::ALL.into_iter().filter(|_| failing) {
            if self.late(lane, now) > 0 {
                return Next::Expire(lane);
            }
        }
        let ending = self.shared.written.load(Ordering::Acquire);
        let deadline = self.shared.deadline.get().copied();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Next::Stop;
        }
        if ending && deadline.is_some() && self.retry.ready(now) > now {
            return Next::Stop; // who failed is not waited for: the rest stays on disk
        }
        let next = self.earliest(now, ending);
        match (next, deadline) {
            (Next::Wait(None), Some(_)) if ending => Next::Stop,
            (Next::Wait(Some(until)), Some(deadline)) if ending && until >= deadline => Next::Stop,
            (Next::Wait(until), Some(deadline)) => Next::Wait(Some(until.unwrap_or(deadline).min(deadline))),
            (next, _) => next,
        }
    }

    /// What goes first: a lane whose batch is due, the main one before the other, and dead letters last.
    fn earliest(&mut self, now: Instant, at_once: bool) -> Next {
        let back = self.retry.ready(now);
        let mut until: Option<Instant> = None;
        for lane in Lane::ALL {
            let Some(due) = self.held[lane as usize].due(&self.setup, at_once) else {
                continue;
            };
            let at = due.max(back).max(self.bucket.ready(now, lane == Lane::Main));
            if at <= now {
                return Next::Send(lane);
            }
            until = Some(until.map_or(at, |until| until.min(at)));
        }
        if self.revival.is_some() {
            let at = back.max(self.bucket.ready(now, false));
            if at <= now {
                return Next::Again;
            }
            until = Some(until.map_or(at, |until| until.min(at)));
        }
        // Events grow old also while nothing can be tried.
        match until {
            Some(until) => Next::Wait(Some(until.min(now + LOOK_AGAIN))),
            None => Next::Wait(None),
        }
    }

    /// How many events at the head of a batch are too old.
    fn late(&self, lane: Lane, now: Instant) -> usize {
        let most = self.setup.config.spool_max_age;
        let records = self.held[lane as usize].records.iter();
        let age = |record: &Record| self.shared.clock.age(record.written, now);
        records.take_while(|record| age(record) > most).count()
    }

    fn send(&mut self, lane: Lane) {
        let held = &mut self.held[lane as usize];
        held.sealed = true;
        let most = self.setup.endpoint.delivery.batch_size.min(held.records.len());
        let count = self.portion.of(most);
        let events: Vec<Event> = held.events().take(count).cloned().collect();
        match self.attempt(events) {
            Outcome::Delivered => {
                self.portion.taken();
                self.handle.counts().delivered += count as u64;
                self.settle(lane, count);
            }
            Outcome::Unfit(_) if self.portion.refused(count) => {}
            Outcome::Refused(reason) | Outcome::Unfit(reason) => self.bury(lane, &reason, count),
            Outcome::Later(..) => {}
        }
    }

    /// Makes the request, and keeps account of it.
    fn attempt(&mut self, events: Vec<Event>) -> Outcome {
        self.bucket.take(Instant::now());
        let wall = OffsetDateTime::now_utc();
        let body = Batch::new(events, wall).body();
        let outcome = self.client.send(&body, wall);
        let now = Instant::now();
        let delivery = self.setup.endpoint.delivery;
        let before = self.retry.circuit(now, delivery.retry_attempts);
        match &outcome {
            Outcome::Delivered | Outcome::Refused(_) | Outcome::Unfit(_) => self.retry.succeeded(),
            Outcome::Later(_, wish) => {
                let chance = self.chance.hash_one(now) as f64 / u64::MAX as f64;
                self.retry
                    .failed(now, delivery.retry_attempts, delivery.retry_delay, chance, *wish);
            }
        }
        self.account(&outcome, before, now);
        outcome
    }

    fn account(&self, outcome: &Outcome, before: Circuit, now: Instant) {
        let name = self.handle.name.as_str();
        let mut counts = self.handle.counts();
        counts.attempts += 1;
        let retries = self.setup.endpoint.delivery.retry_attempts;
        counts.circuit = self.retry.circuit(now, retries);
        let wall = Some(OffsetDateTime::now_utc());
        match outcome {
            Outcome::Delivered => {
                counts.last_success_at = wall;
                if before != Circuit::Closed {
                    tracing::info!(endpoint = name, "a webhook endpoint takes events again");
                }
            }
            Outcome::Later(error, _) | Outcome::Refused(error) | Outcome::Unfit(error) => {
                counts.failed += 1;
                counts.last_error = Some(error.clone());
                counts.last_error_at = wall;
                if before == Circuit::Closed && counts.circuit != Circuit::Closed {
                    tracing::warn!(
                        endpoint = name,
                        error,
                        "a webhook endpoint takes no events; they are kept"
                    );
                }
            }
        }
    }

    /// The first `count` of the batch are done with.
    fn settle(&mut self, lane: Lane, count: usize) {
        let done = self.held[lane as usize].release(count);
        let mut spools = self.shared.spools();
        let Some(spools) = spools.as_mut() else { return };
        if let Err(error) = spools[lane as usize].ack(&self.handle.name, &done) {
            self.shared.note_error(&error);
        }
    }

    /// The first `count` of the batch become dead letters.
    fn bury(&mut self, lane: Lane, reason: &str, count: usize) {
        let name = self.handle.name.as_str();
        let events = self.held[lane as usize].events().take(count);
        let result = self.dead.put(name, reason, events);
        tracing::warn!(
            endpoint = name,
            reason,
            count,
            "events for a webhook endpoint are dead letters"
        );
        if let Err(error) = result {
            self.shared.note_error(&error);
        }
        self.settle(lane, count);
    }

    /// What waited too long gives way; what is left of the batch goes on.
    fn expire(&mut self, lane: Lane) {
        let late = self.late(lane, Instant::now());
        self.bury(lane, "it could not be delivered within spool_max_age", late);
    }

    /// Sends the oldest dead letters again. Who refuses one again gets the others all the same; who takes none now is
    /// left in peace.
    fn revive(&mut self) {
        let Some(mut revival) = self.revival.take() else {
            return;
        };
        let most = self.setup.endpoint.delivery.batch_size.min(revival.left);
        let events = self.dead.oldest(revival.portion.of(most)).unwrap_or_default();
        let count = events.len();
        if count == 0 {
            return;
        }
        let moved = match self.attempt(events) {
            Outcome::Delivered => {
                revival.portion.taken();
                self.handle.counts().delivered += count as u64;
                self.dead.remove_oldest(count)
            }
            Outcome::Unfit(_) if revival.portion.refused(count) => {
                self.revival = Some(revival);
                return;
            }
            Outcome::Unfit(_) => self.dead.put_last(count),
            Outcome::Refused(_) | Outcome::Later(..) => return,
        };
        match moved {
            Ok(()) => {
                revival.left -= count;
                self.revival = Some(revival);
            }
            // The same would be sent for ever.
            Err(error) => self.shared.note_error(&error),
        }
    }
}

/// How long an urgent event waits for others: many of a burst in one request, and well within a second.
const LINGER: Duration = Duration::from_millis(200);
/// Bytes of events in one request, give or take the last: receivers commonly take a megabyte.
const LARGEST_BATCH: u64 = 512 << 10;
/// How often the age of events is looked at while nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
