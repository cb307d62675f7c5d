//! One worker: receive, decide, answer. It owns its socket and its shard of sources; it shares nothing but
//! atomics, and never waits for another thread.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::herald::Herald;
use crate::audit::gate::Gate;
use crate::core::attack::Attempt;
use crate::core::judge::{Exported, Guard, Judge, Memory, SourceView};
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::probe;
use crate::core::services::Services;
use crate::core::verdict::{Class, Offence, Reason, Verdict};
use crate::kernel::beat::Heart;
use crate::kernel::queue::{Feed, FeedConfig, FeedError, Packet};
use crate::notify::refusals::Refusal;
use crate::state::Record;
use crate::stats::{Stats, WorkerStats};

/// What the slow path tells a worker.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Order {
    /// The source is banned until told otherwise.
    Ban { source: Prefix, enforced: bool },
    /// The source's ban ended: it is judged anew, from an empty window.
    Release(Prefix),
    /// Other thresholds from now on.
    Policy(Arc<Policy>),
    /// Other trusted or protected addresses from now on.
    Guard(Arc<Guard>),
    /// The `n` sources with the most ports, please.
    Top(usize, Sender<Vec<SourceView>>),
    /// A part of the sources, please; see [`Judge::export`].
    Export {
        cursor: usize,
        limit: usize,
        to: Sender<Exported>,
    },
    /// Go over to these queues and settings; how it went.
    Retune(FeedConfig, Sender<Result<(), FeedError>>),
    /// These completed handshakes on these ports.
    Completed(Vec<(IpAddr, u16)>),
    /// The host answers there from now on.
    Services(Arc<Services>),
    /// A self-test from these begins: they are judged, and told nobody but the analyst. Said when that is so.
    Test([Prefix; 2], Sender<()>),
    /// How many ports does this one's window hold?
    Look(IpAddr, Sender<u32>),
    /// It is over, and they were never here.
    Tested,
    /// What another system saw of a source.
    Learn(Box<Memory>),
    /// Nobody was ever here.
    EraseAll,
    /// Send a beat and answer: who does both is alive.
    Pulse(Sender<()>),
    /// Leave.
    Stop,
}

/// The slow path's end of a worker.
#[derive(Clone)]
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<rustix::fd::OwnedFd>,
}

impl Handle {
    /// Hands over an order and wakes the worker. A worker that is gone takes the process with it, so a closed
    /// channel needs no answer here.
    pub fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // EAGAIN: the counter is full, so the worker is awake already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// Where a worker tells what it saw. Bounded, and never waited for.
#[derive(Clone)]
pub struct Ears {
    /// The analyst's.
    pub offences: Sender<Box<Offence>>,
    /// Those of who follows handshakes.
    pub attempts: Sender<Attempt>,
    /// The log's, in corporate mode.
    pub refusals: Sender<Refusal>,
    /// Other systems'.
    pub herald: Herald,
    /// The journal's.
    pub activity: Tap,
    /// Shut while nothing new may begin, because it could not be written down.
    pub gate: Gate,
}

/// The way to the journal for what speaks for or against sources that are not banned: so much a second, whatever comes.
/// What finds no room is in the next snapshot.
#[derive(Clone)]
pub struct Tap {
    to: Sender<Record>,
    left: u32,
    full_at: Instant,
}

impl Tap {
    /// To the journal through `to`.
    pub fn new(to: Sender<Record>, now: Instant) -> Tap {
        Tap {
            to,
            left: MOST_A_SECOND,
            full_at: now + SECOND,
        }
    }

    /// Hands over what `record` makes, which is not made if there is no room; whether there was.
    fn send(&mut self, now: Instant, record: impl FnOnce() -> Option<Record>) -> bool {
        if now >= self.full_at {
            (self.left, self.full_at) = (MOST_A_SECOND, now + SECOND);
        }
        if self.left == 0 {
            return false;
        }
        let Some(record) = record() else { return true };
        self.left -= 1;
        self.to.try_send(record).is_ok()
    }
}

/// A worker before it runs; see [`Worker::run`].
pub struct Worker {
    feed: Feed,
    judge: Judge,
    orders: Receiver<Order>,
    wake: Arc<rustix::fd::OwnedFd>,
    ears: Ears,
    stats: Arc<Stats>,
    index: usize,
    heart: Heart,
    /// When word is to be sent again that this worker lives.
    beat_at: Instant,
    /// Who is made up by a self-test.
    tested: Vec<Prefix>,
    /// When sources whose window is over are looked for again.
    tidy_at: Instant,
}

impl Worker {
    /// Worker number `index` on `feed`, and the handle by which it is told things.
    pub fn new(
        feed: Feed,
        judge: Judge,
        ears: Ears,
        stats: Arc<Stats>,
        index: usize,
    ) -> rustix::io::Result<(Worker, Handle)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (sender, orders) = crossbeam_channel::unbounded();
        let handle = Handle {
            orders: sender,
            wake: Arc::clone(&wake),
        };
        Ok((
            Worker {
                feed,
                judge,
                orders,
                wake,
                ears,
                stats,
                index,
                heart: Heart::open(index as u16),
                beat_at: Instant::now(),
                tested: Vec::new(),
                tidy_at: Instant::now(),
            },
            handle,
        ))
    }

    /// Judges packets until told to stop.
    ///
    /// # Errors
    /// When the socket fails for good. Lost messages and refused verdicts are counted and survived.
    pub fn run(mut self) -> Result<(), FeedError> {
        loop {
            self.wait();
            // Before packets: who completed a handshake by now has less against him.
            if !self.obey() {
                return Ok(());
            }
            let now = Instant::now();
            self.beat(now);
            self.tidy(now);
            self.tell_due(now);
            while self.serve()? {
                if !self.obey() {
                    return Ok(());
                }
            }
        }
    }

    /// One batch; whether more is waiting.
    fn serve(&mut self) -> Result<bool, FeedError> {
        let Worker {
            feed,
            judge,
            ears,
            tested,
            ..
        } = self;
        let stats = &self.stats.workers[self.index];
        let received = Instant::now();
        let served = feed.serve(|packet| answer(judge, ears, tested, stats, &packet, received))?;
        if served.packets > 0 {
            let nanoseconds = u64::try_from(received.elapsed().as_nanos()).unwrap_or(u64::MAX);
            stats.latency.record(nanoseconds, u64::from(served.held));
            publish(stats, feed);
        }
        self.beat(received);
        Ok(served.more)
    }

    /// Carries out what the slow path asked for; `false`: stop.
    fn obey(&mut self) -> bool {
        for order in self.orders.try_iter() {
            match order {
                Order::Ban { source, enforced } => self.judge.ban(source, enforced),
                Order::Release(source) => self.judge.release(source),
                Order::Policy(policy) => self.judge.set_policy(policy),
                Order::Guard(guard) => self.judge.set_guard(guard),
                // The asker may have given up waiting.
                Order::Top(count, reply) => drop(reply.send(self.judge.top(count, Instant::now()))),
                Order::Export { cursor, limit, to } => {
                    let mut exported = self.judge.export(cursor, limit, Instant::now());
                    exported
                        .sources
                        .retain(|memory| !self.tested.contains(&memory.source));
                    drop(to.send(exported));
                }
                Order::Retune(config, reply) => drop(reply.send(self.feed.retune(&config))),
                Order::Completed(all) => {
                    let at = Instant::now();
                    for (addr, port) in all {
                        let source = self.judge.complete(addr, port, at);
                        let news = source.filter(|source| !self.tested.contains(source));
                        let record = |source| Record::Completed { source, port, at };
                        if news.is_some() && !self.ears.activity.send(at, || news.map(record)) {
                            self.stats.workers[self.index].activity_lost.add(1);
                        }
                    }
                }
                Order::Services(services) => self.judge.set_services(services),
                Order::Test(sources, ready) => {
                    self.tested = sources.into();
                    // The asker may have given up waiting.
                    let _ = ready.send(());
                }
                Order::Look(addr, to) => {
                    let known = self.judge.source(addr, Instant::now());
                    let ports = known.map_or(0, |known| known.touches.len());
                    let _ = to.send(u32::try_from(ports).unwrap_or(u32::MAX));
                }
                Order::Tested => self.tested.drain(..).for_each(|source| self.judge.erase(source)),
                Order::Learn(memory) => self.judge.learn(&memory),
                Order::EraseAll => self.judge.erase_all(),
                Order::Pulse(to) => {
                    if self.feed.fails_open() {
                        self.heart.beat();
                    }
                    self.stats.workers[self.index].pulses.add(1);
                    // The asker may have given up waiting.
                    let _ = to.send(());
                }
                Order::Stop => return false,
            }
        }
        let stats = &self.stats.workers[self.index];
        stats.tracked.set(self.judge.tracked() as u64);
        stats.evicted.set(self.judge.evicted());
        true
    }

    /// Sends word that this worker lives, if it is time: also under a flood, when it never sleeps.
    fn beat(&mut self, now: Instant) {
        if now >= self.beat_at && self.feed.fails_open() {
            self.heart.beat();
            self.beat_at = now + BEAT_EVERY;
        }
    }

    /// Forgets sources whose window is over, once a second: also when no packet comes, or only known sources'.
    fn tidy(&mut self, now: Instant) {
        if now >= self.tidy_at {
            self.judge.expire(now);
            self.tidy_at = now + TIDY_EVERY;
        }
    }

    /// Tells offences that were held back.
    fn tell_due(&mut self, now: Instant) {
        while let Some(offence) = self.judge.due(now) {
            tell(
                &mut self.judge,
                &self.ears,
                &self.stats.workers[self.index],
                offence,
            );
        }
    }

    /// Sleeps until a packet or an order comes, an offence or a beat is due, or it is time to tidy up.
    fn wait(&self) {
        let mut ready = [
            PollFd::from_borrowed_fd(self.feed.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
        ];
        // EINTR and everything else lead back to the loop, which looks for itself.
        let beat_at = self.feed.fails_open().then_some(self.beat_at);
        let due = self.judge.next_due().into_iter().chain(beat_at).min();
        let patience = patience(self.judge.tracked(), due);
        let _ = poll(&mut ready, patience.as_ref());
        if ready[1].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
    }
}

/// How long to sleep at most: for ever where there is nothing to forget, so that an idle host stays asleep.
fn patience(tracked: usize, due: Option<Instant>) -> Option<Timespec> {
    let tidy = (tracked > 0).then_some(TIDY_EVERY);
    let due = due.map(|due| due.saturating_duration_since(Instant::now()));
    let longest = tidy.into_iter().chain(due).min()?;
    Timespec::try_from(longest).ok()
}

/// What is measured and not counted packet by packet.
fn publish(stats: &WorkerStats, feed: &Feed) {
    let counters = feed.counters();
    stats.enobufs.set(counters.enobufs);
    stats.verdict_errors.set(counters.verdict_errors);
    stats.parse_errors.set(counters.malformed);
    stats.batches.add(1);
}

/// Parse, decide, count, tell.
fn answer(
    judge: &mut Judge,
    ears: &mut Ears,
    tested: &[Prefix],
    stats: &WorkerStats,
    packet: &Packet<'_>,
    now: Instant,
) -> Verdict {
    let probe = probe::parse(packet.payload);
    let mut decision = judge.judge(&probe, packet.class, now);
    if ears.gate.is_shut() {
        decision = judge.shut_out(decision, &probe, packet.class);
    }
    stats.count(packet.class, decision.verdict, decision.reason);
    if let Ok(probe) = &probe
        && !tested.iter().any(|source| source.contains(probe.src))
    {
        let counted = matches!(decision.reason, Reason::Counted | Reason::Offence);
        if counted {
            stats.evidence(probe.kind());
            let touched = || judge.latest(probe.src);
            let record = |(source, touch)| Record::Touch { source, touch };
            if !ears.activity.send(now, || touched().map(record)) {
                stats.activity_lost.add(1);
            }
        }
        if counted || decision.attempt.is_some() {
            ears.herald.saw(probe, now);
        }
        if let Some(attempt) = decision.attempt
            && ears.attempts.try_send(attempt).is_err()
        {
            stats.attempts_lost.add(1);
        }
        if packet.class == Class::Refused
            && judge.policy().mode.tells_refusals()
            && ears.refusals.try_send(Refusal::from(probe)).is_err()
        {
            stats.refusals_lost.add(1);
        }
    }
    if let Some(offence) = decision.offence {
        tell(judge, ears, stats, offence);
    }
    decision.verdict
}

fn tell(judge: &mut Judge, ears: &Ears, stats: &WorkerStats, offence: Box<Offence>) {
    match ears.offences.try_send(offence) {
        Ok(()) => {}
        // The source stays dropped here, and its next packet carries the offence again.
        Err(TrySendError::Full(offence) | TrySendError::Disconnected(offence)) => {
            judge.unsent(offence.source);
            stats.facts_dropped.add(1);
        }
    }
}

/// Three beats may be late or lost before a worker counts as hung ([`BEAT_LASTS`]): a busy machine must not pass by
/// workers that are only slow.
///
/// [`BEAT_LASTS`]: crate::kernel::ruleset::alive::BEAT_LASTS
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// What a worker tells the journal in a second: far more than honest clients do, and some 100 KB. A forged flood fills
/// it, and what comes beyond it is in the next snapshot.
const MOST_A_SECOND: u32 = 2_000;
const SECOND: Duration = Duration::from_secs(1);
/// A source is forgotten at most so long after its window ended, and a waking costs microseconds.
const TIDY_EVERY: Duration = Duration::from_secs(1);
