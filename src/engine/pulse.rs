//! Whether every worker lives: each is asked for a sign of life once a second, and the kernel's set of workers that beat
//! is read, because everything would pass unjudged where beats get lost on their way.
//!
//! A worker that ends by itself ends the process at once (`daemon`). One that hangs is passed by (`on_loss =
//! "open"`) or a wall ("closed"), and after [`GIVE_UP`] rounds the process ends, for whoever supervises it to start
//! it anew. A round counts only if this thread itself ran during it: a suspended machine and SIGSTOP are no
//! hang of a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{error, info, warn};

use super::enforcer::{Expected, Job};
use super::worker::{Handle, Order};
use crate::kernel::netlink::Netlink;
use crate::kernel::ruleset::alive::{self, BEAT_LASTS, GIVEN};
use crate::notify::systemd::notify;
use crate::stats::Stats;

/// What is not well with the workers, for `status`.
#[derive(Debug, Default)]
pub struct Vitals(Mutex<Signs>);

#[derive(Debug, Default)]
struct Signs {
    /// Workers whose beats do not arrive though they answer.
    lost: Vec<u16>,
    /// What the kernel's counter said last.
    counted: u64,
    /// When it last said more than before.
    grew: Option<Instant>,
}

impl Vitals {
    /// Everything that is wrong, one sentence each.
    pub fn degraded(&self, stats: &Stats) -> Vec<String> {
        let signs = self.signs();
        let grows = signs.grew.is_some_and(|at| at.elapsed() < RECENT);
        let unjudged = grows.then(|| {
            format!(
                "{} packets passed unjudged since the start, the last of them within {} s, for their worker hung or \
                 was starved of CPU",
                stats.unjudged.get(),
                RECENT.as_secs()
            )
        });
        let lost = (!signs.lost.is_empty()).then(|| beats_lost(&signs.lost));
        unjudged.into_iter().chain(lost).collect()
    }

    /// Tells what passed by the table that is found, before this engine began; `kept`: its counter goes on.
    pub fn inherit(&self, netlink: &mut Netlink, kept: bool) {
        let found = alive::unjudged(netlink).ok().flatten().unwrap_or(0);
        if found > 0 {
            warn!(
                "{found} packets passed unjudged by the table that is taken over, while no engine answered"
            );
        }
        self.signs().counted = if kept { found } else { 0 };
    }

    /// Reads the kernel's counter. It begins anew with its rule; what was not read until then is not known.
    pub fn count(&self, netlink: &mut Netlink, stats: &Stats) {
        let Ok(Some(now)) = alive::unjudged(netlink) else {
            return;
        };
        let mut signs = self.signs();
        let more = now.checked_sub(signs.counted).unwrap_or(now);
        signs.counted = now;
        if more == 0 {
            return;
        }
        stats.unjudged.add(more);
        let told = signs.grew.is_some_and(|at| at.elapsed() < RECENT);
        signs.grew = Some(Instant::now());
        if !told {
            warn!(
                "{} packets passed unjudged: their worker hung or was starved of CPU (on_loss = \"open\")",
                stats.unjudged.get()
            );
        }
    }

    fn signs(&self) -> std::sync::MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn beats_lost(workers: &[u16]) -> String {
    let workers: Vec<String> = workers.iter().map(u16::to_string).collect();
    format!(
        "beats of workers {} do not arrive over lo (is it up, and does no other firewall drop UDP to 127.0.0.1 port 9?): \
         should they hang, new connections wait for {} s instead of 1 s",
        workers.join(", "),
        GIVEN.as_secs()
    )
}

/// Asks each worker for a sign of life and waits for at most `patience`; who gave one.
pub fn ask(workers: &[Handle], patience: Duration) -> Vec<bool> {
    let deadline = Instant::now() + patience;
    let asked: Vec<_> = workers.iter().map(question).collect();
    let answered = |answer: &Receiver<()>| answer.recv_deadline(deadline).is_ok();
    asked.iter().map(answered).collect()
}

fn question(worker: &Handle) -> Receiver<()> {
    let (to, answer) = bounded(1);
    worker.order(Order::Pulse(to));
    answer
}

/// The thread before it runs; see [`Pulse::run`].
pub struct Pulse {
    /// Who is asked.
    pub workers: Box<[Handle]>,
    /// What the table should be.
    pub expected: Expected,
    /// A socket of its own, which only reads.
    pub netlink: Netlink,
    /// To the enforcer.
    pub jobs: Sender<Job>,
    /// Where it is told.
    pub vitals: Arc<Vitals>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Readable, or closed, when it is to leave.
    pub stop: Receiver<()>,
    /// Workers that were not heard of at the last look.
    pub suspects: Vec<u16>,
    /// Ends the process; told why.
    pub give_up: Box<dyn Fn(String) + Send>,
}

impl Pulse {
    /// Before anybody relies on it: whether the beats of all workers arrive. What the table says of them by then was
    /// written by netlink, so that nothing passes unjudged meanwhile.
    pub fn begin(&mut self) {
        let answered = ask(&self.workers, ROUND);
        // An operator's table holds nothing of ours.
        let unheard = self.unheard();
        self.renew(&answered, &unheard);
        let deadline = Instant::now() + ROUND;
        while !self.unheard().is_empty() && Instant::now() < deadline {
            std::thread::sleep(ROUND / 100);
        }
        self.suspects = self.unheard().into_keys().collect();
        self.judge(self.suspects.clone());
    }

    /// Looks once a second until told to leave.
    pub fn run(mut self) {
        let mut patients: Vec<Patient> = self.workers.iter().map(|_| Patient::default()).collect();
        loop {
            let begun = Instant::now();
            let answered = self.ask_all(&mut patients, begun + ROUND);
            let fair = begun.elapsed() < 2 * ROUND;
            if let Some(worker) = patients.iter_mut().position(|patient| patient.hangs(fair)) {
                self.end(worker);
            }
            // One look may come between a load of the table and the next beat.
            let unheard = self.unheard();
            self.renew(&answered, &unheard);
            let unheard: Vec<u16> = unheard.into_keys().collect();
            let lost = |worker: &u16| answered[usize::from(*worker)] && self.suspects.contains(worker);
            self.judge(unheard.iter().copied().filter(lost).collect());
            self.suspects = unheard;
            self.vitals.count(&mut self.netlink, &self.stats);
            if answered.iter().all(|answered| *answered) {
                feed_watchdog();
            }
            if self.stop.recv_deadline(begun + ROUND) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn ask_all(&self, patients: &mut [Patient], deadline: Instant) -> Vec<bool> {
        for (patient, worker) in patients.iter_mut().zip(&self.workers) {
            patient.asked.get_or_insert_with(|| question(worker));
        }
        patients
            .iter_mut()
            .map(|patient| patient.answers(deadline))
            .collect()
    }

    /// Workers that the set knows only by what was written there, or not at all, with what it says.
    fn unheard(&mut self) -> BTreeMap<u16, Option<Duration>> {
        let expected = Arc::clone(&self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        if !expected.spec().has_switch() {
            return BTreeMap::new();
        }
        // No such set, or none that can be read: `status` says what is wrong with the table.
        let Ok(Some(remaining)) = alive::remaining(&mut self.netlink) else {
            return BTreeMap::new();
        };
        (0..expected.spec().layout.workers)
            .map(|worker| (worker, remaining.get(&worker).copied()))
            .filter(|(_, left)| left.is_none_or(|left| left > BEAT_LASTS))
            .collect()
    }

    /// Where beats do not come through, netlink carries them: slower, and better than nobody judging.
    fn renew(&mut self, answered: &[bool], unheard: &BTreeMap<u16, Option<Duration>>) {
        let short = |left: &Option<Duration>| left.is_none_or(|left| left < GIVEN / 2);
        let workers: Vec<u16> = unheard
            .iter()
            .filter(|(worker, left)| short(left) && answered[usize::from(**worker)])
            .map(|(worker, _)| *worker)
            .collect();
        if workers.is_empty() {
            return;
        }
        // By the one thread that writes the table.
        let _ = self.jobs.send(Job::Give(workers));
    }

    fn judge(&self, lost: Vec<u16>) {
        let mut signs = self.vitals.signs();
        if lost != signs.lost {
            match lost.is_empty() {
                true => info!("the beats of all workers arrive again"),
                false => warn!("{}", beats_lost(&lost)),
            }
            signs.lost = lost;
        }
    }

    fn end(&self, worker: usize) {
        let why = format!("worker {worker} has not answered for {GIVE_UP} s");
        error!(
            "{why}: the engine ends, to be started anew; until then the kernel goes on by on_loss, bans and refused ports hold"
        );
        (self.give_up)(why);
    }
}

/// What is known of one worker.
#[derive(Default)]
struct Patient {
    /// A question that waits for its answer; not asked again before, or questions would pile up.
    asked: Option<Receiver<()>>,
    /// Rounds that it has waited.
    missed: u32,
    waits: bool,
}

impl Patient {
    fn answers(&mut self, deadline: Instant) -> bool {
        let answer = self.asked.as_ref().map(|asked| asked.recv_deadline(deadline));
        self.waits = answer == Some(Err(RecvTimeoutError::Timeout));
        if !self.waits {
            self.asked = None;
        }
        // A worker that is gone takes the process with it, without our doing.
        answer == Some(Ok(()))
    }

    /// Whether it has hung for too long; a round that was not `fair` does not count.
    fn hangs(&mut self, fair: bool) -> bool {
        match (self.waits, fair) {
            (false, _) => self.missed = 0,
            (true, true) => self.missed += 1,
            (true, false) => {}
        }
        self.missed >= GIVE_UP
    }
}

/// systemd restarts us if this stays away for `WatchdogSec=`, for which it has to be set in the unit.
fn feed_watchdog() {
    if std::env::var_os("WATCHDOG_USEC").is_some() {
        let _ = notify("WATCHDOG=1");
    }
}

/// Told to leave by dropping the sender.
pub fn leash() -> (Sender<()>, Receiver<()>) {
    bounded(0)
}

/// How often all are asked, and how long an answer may take.
pub const ROUND: Duration = Duration::from_secs(1);
/// So many rounds without an answer are a hang. The longest that a healthy worker is away is a look through a million
/// sources, some 100 ms.
const GIVE_UP: u32 = 10;
/// How long `status` says that packets passed unjudged.
const RECENT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounds_in_which_we_ran_ourselves_count() {
        let mut patient = Patient {
            waits: true,
            ..Patient::default()
        };
        for _ in 0..100 {
            assert!(!patient.hangs(false), "a suspended machine is no hang");
        }
        assert!((1..GIVE_UP).all(|_| !patient.hangs(true)));
        patient.waits = false;
        assert!(!patient.hangs(true), "it answered");
        patient.waits = true;
        assert!((1..GIVE_UP).all(|_| !patient.hangs(true)));
        assert!(patient.hangs(true));
    }

    #[test]
    fn a_question_is_asked_once_until_it_is_answered() {
        let (to, answer) = bounded(1);
        let mut patient = Patient {
            asked: Some(answer),
            ..Patient::default()
        };
        assert!(!patient.answers(Instant::now()) && patient.waits && patient.asked.is_some());
        to.send(()).unwrap();
        assert!(patient.answers(Instant::now()) && !patient.waits && patient.asked.is_none());
        drop(to);
    }

    #[test]
    fn trouble_is_said_in_words() {
        let (vitals, stats) = (Vitals::default(), Stats::new(1, Instant::now()));
        assert!(vitals.degraded(&stats).is_empty());
        stats.unjudged.add(7);
        *vitals.signs() = Signs {
            lost: vec![0, 2],
            grew: Some(Instant::now()),
            ..Signs::default()
        };
        let told = vitals.degraded(&stats);
        assert!(told[0].starts_with("7 packets passed unjudged"), "{told:?}");
        assert!(
            told[1].starts_with("beats of workers 0, 2 do not arrive over lo"),
            "{told:?}"
        );
    }
}
