//! Counters as atomics: one struct, one place to read them all.
//!
//! Each worker writes its own [`WorkerStats`] and nobody else's, so that counting is a plain load and store in a
//! cache line that no other core writes. [`Stats::snapshot`] reads them all without stopping anybody: numbers of
//! one snapshot may be a few packets apart from each other, never torn in themselves.

mod tiers;
mod upkeep;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use self::tiers::{TIERS, Tiers};
pub use self::upkeep::{Upkeep, Wipe};

use crate::core::scan::ScanKind;
use crate::core::verdict::{BanReason, Class, Reason, Verdict};

/// A counter with exactly one writing thread and any number of readers.
///
/// Two writers would lose counts (never tear them): use [`Tally`] where more than one thread counts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value: for numbers that are measured and not counted, such as table sizes.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter that any thread may write: costs a locked instruction, hence not for packets.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts. Single writer: the worker itself.
// 128 and not 64: the adjacent-line prefetcher of x86 pulls lines in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Held packets answered with accept, by reason, in the order of [`Reason::ALL`].
    pub accept: [Counter; Reason::ALL.len()],
    /// Held packets answered with drop, likewise.
    pub drop: [Counter; Reason::ALL.len()],
    /// Packets by reason, in the order of [`Reason::ALL`]; copies are counted here as well.
    pub reasons: [Counter; Reason::ALL.len()],
    /// Packets that are evidence, by what they look like, in the order of [`ScanKind::ALL`].
    pub kinds: [Counter; ScanKind::ALL.len()],
    /// Held packets that conntrack calls new.
    pub new: Counter,
    /// Held packets that conntrack calls invalid or untracked.
    pub odd: Counter,
    /// Copies of packets that the kernel refused.
    pub refused: Counter,
    /// Copies of packets that passed: what is evidence while observing, and other protocols.
    pub observed: Counter,
    /// Times the receive buffer overflowed (ENOBUFS): packets were lost unseen.
    pub enobufs: Counter,
    /// Netlink messages that could not be understood.
    pub parse_errors: Counter,
    /// Verdicts that the kernel did not take (ENOENT: the packet was gone already).
    pub verdict_errors: Counter,
    /// Facts for the analyst that found the channel full; the next packet of the source carries them again.
    pub facts_dropped: Counter,
    /// Refusals for the log that found its channel full.
    pub refusals_lost: Counter,
    /// Attempts that nobody could be told of, because the channel was full.
    pub attempts_lost: Counter,
    /// What speaks for or against sources and was not handed to the journal: it is in the next snapshot.
    pub activity_lost: Counter,
    /// Sources remembered now.
    pub tracked: Counter,
    /// Sources forgotten because the table was full.
    pub evicted: Counter,
    /// Batches received.
    pub batches: Counter,
    /// Orders to give a sign of life that were carried out.
    pub pulses: Counter,
    /// From the receive call's return to the sending of the verdict.
    pub latency: Histogram,
}

impl WorkerStats {
    /// Counts one packet: how it came, why it was decided so and, if it was held, what was answered.
    pub fn count(&self, class: Class, verdict: Verdict, reason: Reason) {
        self.class(class).add(1);
        self.reasons[index_of(reason)].add(1);
        if class.is_held() {
            match verdict {
                Verdict::Accept => self.accept[index_of(reason)].add(1),
                Verdict::Drop => self.drop[index_of(reason)].add(1),
            }
        }
    }

    /// Counts one packet that is evidence.
    pub fn evidence(&self, kind: ScanKind) {
        self.kinds[kind as usize].add(1);
    }

    fn class(&self, class: Class) -> &Counter {
        match class {
            Class::New => &self.new,
            Class::Odd => &self.odd,
            Class::Refused => &self.refused,
            Class::Observed => &self.observed,
        }
    }
}

fn index_of(reason: Reason) -> usize {
    match reason {
        Reason::Trusted => 0,
        Reason::Banned => 1,
        Reason::Offence => 2,
        Reason::Counted => 3,
        Reason::Repeated => 4,
        Reason::Harmless => 5,
        Reason::Unparsed => 6,
        Reason::Unlogged => 7,
    }
}

/// Everything the engine counts.
#[derive(Debug)]
pub struct Stats {
    /// One for each worker, by worker number.
    pub workers: Box<[WorkerStats]>,
    /// Enforced bans granted since the start, in the order of [`BanReason::ALL`].
    pub bans_total: [Tally; BanReason::ALL.len()],
    /// Enforced bans that are live now, by family and step of the ladder.
    pub tiers: Tiers,
    /// Enforced bans that are live now.
    pub bans_active: Tally,
    /// Would-be bans that are live now (`enforce = false`).
    pub bans_observed: Tally,
    /// Set changes that the kernel refuses and that are tried again and again.
    pub bans_refused: Tally,
    /// Set changes that the kernel refused.
    pub enforcement_errors: Tally,
    /// Offences that were not turned into bans because of `max_bans_per_minute`.
    pub storm_refusals: Tally,
    /// Handshakes that strangers completed.
    pub completions: Tally,
    /// Times that completed handshakes were lost; they are learned from conntrack afterwards.
    pub completions_lost: Tally,
    /// Attempts that conntrack was not asked about, because there were too many.
    pub attempts_unasked: Tally,
    /// The same that the journal had no room for.
    pub activity_unwritten: Tally,
    /// Packets that passed unjudged because their worker did not beat, as far as they were counted by now.
    pub unjudged: Tally,
    /// Repairs of the kernel's copy of rules and bans.
    pub upkeep: Upkeep,
    /// When the engine started.
    pub started: Instant,
}

impl Stats {
    /// All zero, for `workers` workers of an engine that started at `started`.
    pub fn new(workers: usize, started: Instant) -> Stats {
        Stats {
            workers: (0..workers).map(|_| WorkerStats::default()).collect(),
            bans_total: Default::default(),
            tiers: Tiers::default(),
            bans_active: Tally::default(),
            bans_observed: Tally::default(),
            bans_refused: Tally::default(),
            enforcement_errors: Tally::default(),
            storm_refusals: Tally::default(),
            completions: Tally::default(),
            completions_lost: Tally::default(),
            attempts_unasked: Tally::default(),
            activity_unwritten: Tally::default(),
            unjudged: Tally::default(),
            upkeep: Upkeep::default(),
            started,
        }
    }

    /// Counts an enforced ban that was granted.
    pub fn banned(&self, reason: BanReason) {
        self.bans_total[reason as usize].add(1);
    }

    /// All counters, summed over the workers.
    pub fn snapshot(&self, now: Instant) -> StatsReport {
        let mut report = StatsReport {
            uptime: now.saturating_duration_since(self.started),
            bans_total: self.bans_total.iter().map(Tally::get).sum(),
            bans_by_reason: std::array::from_fn(|reason| self.bans_total[reason].get()),
            tiers: self.tiers.get(),
            bans_active: self.bans_active.get(),
            bans_observed: self.bans_observed.get(),
            enforcement_errors: self.enforcement_errors.get(),
            storm_refusals: self.storm_refusals.get(),
            completions: self.completions.get(),
            completions_lost: self.completions_lost.get(),
            attempts_unasked: self.attempts_unasked.get(),
            activity_unsaved: self.activity_unwritten.get(),
            unjudged: self.unjudged.get(),
            wipes: self.upkeep.wipes.get(),
            drift_missing: self.upkeep.missing.get(),
            drift_foreign: self.upkeep.foreign.get(),
            drift_mistimed: self.upkeep.mistimed.get(),
            deleted: self.upkeep.deleted.get(),
            gaps: self.upkeep.gaps(now),
            ..StatsReport::default()
        };
        for worker in &self.workers {
            report.add(worker);
        }
        report
    }
}

/// A snapshot of [`Stats`]: plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented where it is counted")]
pub struct StatsReport {
    /// Since the engine started.
    pub uptime: Duration,
    pub accept: u64,
    pub drop: u64,
    /// In the order of [`Reason::ALL`].
    pub accepts: [u64; Reason::ALL.len()],
    /// In the order of [`Reason::ALL`].
    pub drops: [u64; Reason::ALL.len()],
    /// In the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// In the order of [`ScanKind::ALL`].
    pub kinds: [u64; ScanKind::ALL.len()],
    pub new: u64,
    pub odd: u64,
    pub refused: u64,
    pub observed: u64,
    pub enobufs: u64,
    pub parse_errors: u64,
    pub verdict_errors: u64,
    pub facts_dropped: u64,
    pub refusals_lost: u64,
    pub tracked: u64,
    pub evicted: u64,
    pub batches: u64,
    pub bans_total: u64,
    /// In the order of [`BanReason::ALL`].
    pub bans_by_reason: [u64; BanReason::ALL.len()],
    /// By family (IPv4, IPv6) and step.
    pub tiers: [[u64; TIERS]; 2],
    pub bans_active: u64,
    pub bans_observed: u64,
    pub enforcement_errors: u64,
    pub storm_refusals: u64,
    pub completions: u64,
    pub completions_lost: u64,
    pub attempts_unasked: u64,
    pub attempts_lost: u64,
    pub activity_unsaved: u64,
    pub unjudged: u64,
    pub wipes: u64,
    pub drift_missing: u64,
    pub drift_foreign: u64,
    pub drift_mistimed: u64,
    pub deleted: u64,
    /// Time in which something that should have been in force was not.
    pub gaps: Duration,
    pub latency: Latencies,
}

impl StatsReport {
    fn add(&mut self, worker: &WorkerStats) {
        add_up(&mut self.accepts, &worker.accept);
        add_up(&mut self.drops, &worker.drop);
        self.accept = self.accepts.iter().sum();
        self.drop = self.drops.iter().sum();
        add_up(&mut self.reasons, &worker.reasons);
        add_up(&mut self.kinds, &worker.kinds);
        self.new += worker.new.get();
        self.odd += worker.odd.get();
        self.refused += worker.refused.get();
        self.observed += worker.observed.get();
        self.enobufs += worker.enobufs.get();
        self.parse_errors += worker.parse_errors.get();
        self.verdict_errors += worker.verdict_errors.get();
        self.facts_dropped += worker.facts_dropped.get();
        self.refusals_lost += worker.refusals_lost.get();
        self.attempts_lost += worker.attempts_lost.get();
        self.activity_unsaved += worker.activity_lost.get();
        self.tracked += worker.tracked.get();
        self.evicted += worker.evicted.get();
        self.batches += worker.batches.get();
        worker.latency.add_to(&mut self.latency);
    }
}

fn add_up(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.get();
    }
}

/// A lock-free histogram of durations in nanoseconds, log-linear: exact below 32 ns, within 3.2 % up to a minute.
/// Longer durations count as a minute. Single writer, like [`Counter`].
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter]>,
    /// Of all durations, in nanoseconds.
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: (0..BUCKETS).map(|_| Counter::default()).collect(),
            sum: Counter::default(),
        }
    }
}

impl Histogram {
    /// Records that `n` packets took `ns` nanoseconds each.
    pub fn record(&self, ns: u64, n: u64) {
        self.buckets[bucket_of(ns)].add(n);
        self.sum.add(ns.saturating_mul(n));
    }

    /// The duration in nanoseconds that `share` (0..=1) of all recorded ones do not exceed; see
    /// [`Latencies::percentile`].
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let mut all = Latencies::default();
        self.add_to(&mut all);
        all.percentile(share)
    }

    fn add_to(&self, sum: &mut Latencies) {
        sum.buckets.resize(BUCKETS, 0);
        add_up(&mut sum.buckets, &self.buckets);
        sum.nanoseconds = sum.nanoseconds.wrapping_add(self.sum.get());
    }
}

/// The buckets of one or more [`Histogram`]s, read and added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    buckets: Vec<u64>,
    nanoseconds: u64,
}

impl Latencies {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// How many lasted no longer than `ns` for certain: what lies in a bucket that goes beyond it is not among them, so
    /// that it is never too good by the histogram's coarseness.
    pub fn within(&self, ns: u64) -> u64 {
        let below = self.buckets.iter().enumerate();
        below
            .take_while(|(bucket, _)| upper_edge(*bucket) <= ns)
            .map(|(_, n)| n)
            .sum()
    }

    /// The duration in nanoseconds that `share` (0..=1) of all recorded ones do not exceed: the upper edge of its
    /// bucket, so never too good by the histogram's coarseness. `None` when nothing was recorded.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, n)| {
            seen += n;
            (seen >= wanted).then(|| upper_edge(bucket))
        })
    }
}

/// Linear steps within one power of two, as a power of two: 32 steps, 3.2 % apart.
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
/// Durations from 2^36 ns (68.7 s) on share the last bucket.
const MAX_BITS: u32 = 36;
const BUCKETS: usize = (MAX_BITS - STEP_BITS + 1) as usize * STEPS;

fn bucket_of(ns: u64) -> usize {
    let ns = ns.min((1 << MAX_BITS) - 1);
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let octave = ns.ilog2() - STEP_BITS;
    (octave as usize + 1) * STEPS + ((ns >> octave) as usize - STEPS)
}

fn upper_edge(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let octave = bucket / STEPS - 1;
    (((bucket % STEPS + STEPS) as u64 + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_bucket_within_the_promised_resolution() {
        let mut last = 0;
        for ns in (0..10_000).chain((0..36).flat_map(|bits| (1u64 << bits)..(1u64 << bits) + 3)) {
            let edge = upper_edge(bucket_of(ns));
            assert!(edge >= ns, "{ns} lies above its edge {edge}");
            assert!((edge - ns) as f64 <= ns as f64 * 0.032, "{ns} is told as {edge}");
        }
        for bucket in 1..BUCKETS {
            assert!(upper_edge(bucket) > last);
            last = upper_edge(bucket);
            assert_eq!(bucket_of(last), bucket);
        }
    }

    #[test]
    fn durations_beyond_a_minute_share_the_last_bucket() {
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(1 << MAX_BITS), BUCKETS - 1);
    }

    #[test]
    fn durations_below_a_bound_are_counted_and_added_up() {
        let histogram = Histogram::default();
        let mut all = Latencies::default();
        histogram.add_to(&mut all);
        assert_eq!((all.within(u64::MAX), all.sum()), (0, Duration::ZERO));
        histogram.record(10, 990);
        histogram.record(1_000, 9);
        histogram.record(1 << 40, 1);
        let mut all = Latencies::default();
        histogram.add_to(&mut all);
        let within = |ns| all.within(ns);
        assert_eq!((within(9), within(10), within(999)), (0, 990, 990));
        // 1,000 lies in the bucket that ends at 1,007.
        assert_eq!((within(1_000), within(1_007)), (990, 999));
        assert_eq!((within(1 << 36), all.count()), (1_000, 1_000));
        assert_eq!(all.sum(), Duration::from_nanos(9_900 + 9_000 + (1 << 40)));
    }

    #[test]
    fn percentiles_are_read_off_weighted_records() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        histogram.record(10, 990);
        histogram.record(1_000, 9);
        histogram.record(1_000_000, 1);
        assert_eq!(histogram.percentile(0.0), Some(10));
        assert_eq!(histogram.percentile(0.5), Some(10));
        assert_eq!(histogram.percentile(0.99), Some(10));
        assert_eq!(histogram.percentile(0.999), Some(1_007));
        assert!((1_000_000..1_032_000).contains(&histogram.percentile(1.0).unwrap()));
    }

    #[test]
    fn a_packet_is_counted_once_by_class_reason_and_verdict() {
        let stats = Stats::new(2, Instant::now());
        stats.workers[0].count(Class::New, Verdict::Accept, Reason::Counted);
        stats.workers[1].count(Class::Odd, Verdict::Drop, Reason::Banned);
        let report = stats.snapshot(stats.started + Duration::from_secs(3));
        assert_eq!((report.accept, report.drop), (1, 1));
        assert_eq!(
            (report.new, report.odd, report.refused, report.observed),
            (1, 1, 0, 0)
        );
        assert_eq!(report.reasons, [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(report.uptime, Duration::from_secs(3));
    }

    #[test]
    fn copies_have_a_reason_and_no_verdict() {
        let stats = Stats::new(1, Instant::now());
        stats.workers[0].count(Class::Refused, Verdict::Drop, Reason::Offence);
        stats.workers[0].count(Class::Observed, Verdict::Accept, Reason::Harmless);
        let report = stats.snapshot(stats.started);
        assert_eq!(
            (report.accept, report.drop, report.refused, report.observed),
            (0, 0, 1, 1)
        );
        assert_eq!(report.reasons, [0, 0, 1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn every_reason_and_kind_has_the_place_of_its_name() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(index_of(reason), place);
        }
        for (place, kind) in ScanKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn a_snapshot_adds_the_workers_up() {
        let stats = Stats::new(3, Instant::now());
        for (n, worker) in (1..).zip(&stats.workers) {
            worker.tracked.set(n);
            worker.evicted.add(10 * n);
            worker.latency.record(100, n);
        }
        (0..7).for_each(|_| stats.banned(BanReason::Prefix));
        let report = stats.snapshot(stats.started);
        assert_eq!((report.tracked, report.evicted, report.bans_total), (6, 60, 7));
        assert_eq!(report.latency.count(), 6);
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerStats>(), 128);
        assert_eq!(size_of::<WorkerStats>() % 128, 0);
    }
}
