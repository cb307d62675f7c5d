//! The slow path's one decision maker: owner of the ledger. Offences, operators' commands, refusals of the kernel
//! and deadlines come in one at a time; orders to workers and jobs for the enforcer go out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, after, never, select_biased};
use tracing::{debug, error, info, warn};

use super::enforcer::{Answer, Failure, Job, RETRY, Work};
use super::keeper::Errand;
use super::protect::Protection;
use super::worker::{Handle, Order};
use crate::control::wire::{BanView, Reply};
use crate::core::ledger::{Ledger, Refusal, Standing};
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::shard::shard_of;
use crate::core::verdict::{Ban, Offence};
use crate::kernel::sets::Change;
use crate::stats::Stats;

/// What others ask of the analyst.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Command {
    /// An operator's ban; the reply comes when the kernel has the element.
    Ban {
        target: Prefix,
        length: Option<Duration>,
        note: Option<Box<str>>,
        to: Sender<Reply>,
    },
    /// Lift whatever bans `target`.
    Unban { target: Prefix, to: Sender<Reply> },
    /// Every live ban.
    List { to: Sender<Reply> },
    /// Other protected addresses from now on.
    Protect(Protection),
    /// The protected addresses as they are now.
    Protected { to: Sender<Protection> },
    /// Ladder positions, for the snapshot; see [`Ledger::standings`].
    Standings {
        cursor: usize,
        limit: usize,
        to: Sender<(Vec<Standing>, Option<usize>)>,
    },
    /// Who is banned, for the snapshot.
    Targets { to: Sender<Vec<Prefix>> },
    /// The bans of these, as far as they are still live.
    Bans { of: Box<[Prefix]>, to: Sender<Vec<Ban>> },
    /// Leave.
    Stop,
}

/// What the analyst listens to.
pub struct Inbox {
    /// From the workers, bounded.
    pub offences: Receiver<Box<Offence>>,
    /// From control socket and protector.
    pub commands: Receiver<Command>,
    /// From the enforcer.
    pub failures: Receiver<Failure>,
}

/// The analyst before it runs; see [`Analyst::run`].
pub struct Analyst {
    policy: Arc<Policy>,
    protection: Protection,
    ledger: Ledger,
    workers: Box<[Handle]>,
    seed: u32,
    jobs: Sender<Job>,
    stats: Arc<Stats>,
    /// Bans that the kernel refused, and when they are tried again.
    refused: BTreeSet<Prefix>,
    retry_at: Option<Instant>,
    storm_told: Option<Instant>,
    keeper: Option<Sender<Errand>>,
}

impl Analyst {
    /// An analyst with an empty ledger over `workers`, among which sources are spread by `seed`.
    pub fn new(
        policy: Arc<Policy>,
        protection: Protection,
        workers: Box<[Handle]>,
        seed: u32,
        jobs: Sender<Job>,
        stats: Arc<Stats>,
    ) -> Analyst {
        Analyst {
            policy,
            protection,
            ledger: Ledger::new(),
            workers,
            seed,
            jobs,
            stats,
            refused: BTreeSet::new(),
            retry_at: None,
            storm_told: None,
            keeper: None,
        }
    }

    /// Tells `keeper` when something is wrong that calls for a snapshot.
    pub fn with_keeper(self, keeper: Sender<Errand>) -> Analyst {
        Analyst {
            keeper: Some(keeper),
            ..self
        }
    }

    /// Takes over ladder positions and bans of before; workers and kernel know of them already.
    pub fn restore(&mut self, standings: &[Standing], bans: Vec<Ban>) {
        self.ledger.restore(standings, bans);
        self.count();
    }

    /// Answers until told to stop.
    pub fn run(mut self, inbox: &Inbox) {
        loop {
            let deadline = self
                .deadline()
                .map_or_else(never, |at| after(at.saturating_duration_since(Instant::now())));
            // Commands first: an operator's unban must not wait behind a storm of offences.
            select_biased! {
                recv(inbox.commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => return,
                    Ok(command) => self.obey(command, Instant::now()),
                },
                recv(inbox.failures) -> failure => if let Ok(failure) = failure {
                    self.note_failure(failure, Instant::now());
                },
                recv(inbox.offences) -> offence => match offence {
                    Ok(offence) => self.judge(&offence, Instant::now()),
                    Err(_) => return,
                },
                recv(deadline) -> _ => {},
            }
            self.tick(Instant::now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        [self.ledger.next_deadline(), self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due by time alone.
    fn tick(&mut self, now: Instant) {
        for ban in self.ledger.expire(now) {
            self.announce_end(&ban, "expired");
            self.release(ban.source);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry(now);
        }
        self.count();
    }

    fn judge(&mut self, offence: &Offence, now: Instant) {
        if self.protection.forbids(&offence.source).is_some() {
            self.release(offence.source);
            return;
        }
        match self
            .ledger
            .offence(offence, self.policy.enforce, &self.policy, now)
        {
            Ok(ban) => {
                debug!(ports = ?offence.ports, threshold = offence.threshold, "offence of {}", offence.source);
                self.enact(&ban, now, None);
            }
            // The worker cannot know of it and the kernel let the packet through: say it again to both.
            Err(Refusal::AlreadyBanned) => {
                if let Some(ban) = self.ledger.get(&offence.source).cloned() {
                    self.assert(&ban, now, None);
                }
            }
            Err(Refusal::Storm) => self.tell_storm(now),
        }
    }

    /// A new ban, told to people and to the kernel.
    fn enact(&mut self, ban: &Ban, now: Instant, done: Option<Answer>) {
        let length = ban
            .remaining(now)
            .map_or_else(|| "ever".into(), |left| format!("{}s", left.as_secs()));
        if ban.enforced {
            self.stats.bans_total.add(1);
            info!("NOTICE [{}] Ban {}", ban.reason, ban.source);
            debug!(
                "banned {} for {length}, step {}, offence {}",
                ban.source, ban.step, ban.offences
            );
        } else {
            info!(
                "[{}] {} would be banned for {length} (bans.enforce = false)",
                ban.reason, ban.source
            );
        }
        self.assert(ban, now, done);
    }

    /// Makes kernel and workers agree with the ledger about `ban`.
    fn assert(&mut self, ban: &Ban, now: Instant, done: Option<Answer>) {
        self.tell(&ban.source, || Order::Ban {
            source: ban.source,
            enforced: ban.enforced,
        });
        if ban.enforced {
            let renew = Change::Renew {
                target: ban.source,
                timeout: ban.remaining(now),
            };
            self.submit(vec![renew], done);
        }
    }

    /// No ban beyond the blast radius. The worker needs no answer: it drops the source until its accusation has
    /// gone unanswered for a minute, and then judges it anew.
    fn tell_storm(&mut self, now: Instant) {
        self.stats.storm_refusals.add(1);
        if self
            .storm_told
            .is_some_and(|told| now.duration_since(told) < STORM_QUIET)
        {
            return;
        }
        self.storm_told = Some(now);
        warn!(
            "ban storm: more offences than bans.max_bans_per_minute = {} allows (or than one neighbourhood may \
             cause); offenders are dropped packet by packet, no ban is added for them",
            self.policy.max_bans_per_minute
        );
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Ban {
                target,
                length,
                note,
                to,
            } => self.ban(target, length, note, to, now),
            Command::Unban { target, to } => self.unban(&target, to, now),
            Command::List { to } => {
                let bans = self.ledger.bans().map(|ban| view(ban, now)).collect();
                let _ = to.send(Reply::List(bans));
            }
            Command::Protect(protection) => self.protect(protection),
            Command::Protected { to } => drop(to.send(self.protection.clone())),
            // The keeper may have given up waiting.
            Command::Standings { cursor, limit, to } => drop(to.send(self.ledger.standings(cursor, limit))),
            Command::Targets { to } => drop(to.send(self.ledger.targets())),
            Command::Bans { of, to } => {
                let live = of.iter().filter_map(|target| self.ledger.get(target).cloned());
                drop(to.send(live.collect()));
            }
            Command::Stop => {}
        }
    }

    fn ban(
        &mut self,
        target: Prefix,
        length: Option<Duration>,
        note: Option<Box<str>>,
        to: Sender<Reply>,
        now: Instant,
    ) {
        if let Some(why) = self.protection.forbids(&target) {
            let _ = to.send(Reply::refused(why));
            return;
        }
        let ban = self.ledger.manual(target, length, note, &self.policy, now);
        let reply = Reply::Banned(Box::new(view(&ban, now)));
        self.save_soon();
        self.enact(&ban, now, Some(Answer { to, reply }));
    }

    /// Lifts the ban of `target` itself, else the one that covers it.
    fn unban(&mut self, target: &Prefix, to: Sender<Reply>, now: Instant) {
        let covering = || self.ledger.covering(target.addr()).map(|ban| ban.source);
        let banned = match self.ledger.get(target) {
            Some(_) => Some(*target),
            None if target.is_host() => covering(),
            None => None,
        };
        let Some(ban) = banned.and_then(|source| self.ledger.lift(&source)) else {
            let _ = to.send(Reply::refused(format!("{target} is not banned")));
            return;
        };
        let reply = Reply::Unbanned(vec![view(&ban, now)]);
        self.save_soon();
        self.announce_end(&ban, "manual");
        self.release(ban.source);
        if ban.enforced {
            self.submit(
                vec![Change::Remove { target: ban.source }],
                Some(Answer { to, reply }),
            );
        } else {
            let _ = to.send(reply);
        }
    }

    /// Who becomes protected is unbanned at once.
    fn protect(&mut self, protection: Protection) {
        self.protection = protection;
        for worker in &self.workers {
            worker.order(Order::Guard(Arc::clone(&self.protection.guard)));
        }
        let freed: Vec<Prefix> = self
            .ledger
            .bans()
            .filter(|ban| self.protection.forbids(&ban.source).is_some())
            .map(|ban| ban.source)
            .collect();
        for source in freed {
            if let Some(ban) = self.ledger.lift(&source) {
                self.lift_in_kernel(&ban, "protected");
                self.release(source);
            }
        }
    }

    fn lift_in_kernel(&mut self, ban: &Ban, why: &str) {
        self.announce_end(ban, why);
        if ban.enforced {
            self.submit(vec![Change::Remove { target: ban.source }], None);
        }
    }

    fn announce_end(&self, ban: &Ban, why: &str) {
        if ban.enforced {
            info!("NOTICE [{}] Unban {}", ban.reason, ban.source);
        }
        debug!("the ban of {} ended: {why}", ban.source);
    }

    fn note_failure(&mut self, failure: Failure, now: Instant) {
        self.stats.enforcement_errors.add(1);
        error!(
            "the kernel refused a change for {}: {}",
            failure.target, failure.error
        );
        self.refused.insert(failure.target);
        self.retry_at.get_or_insert(now + RETRY);
        self.save_soon();
    }

    /// What the kernel cannot give back after a crash: why it is so, or that it is no more.
    fn save_soon(&self) {
        if let Some(keeper) = &self.keeper {
            // A full channel holds the same errand already.
            let _ = keeper.try_send(Errand::Soon);
        }
    }

    /// The ledger is the truth: what the kernel refused is asserted again, or removed if it ended meanwhile.
    fn retry(&mut self, now: Instant) {
        self.retry_at = None;
        let changes: Vec<Change> = std::mem::take(&mut self.refused)
            .into_iter()
            .map(
                |target| match self.ledger.get(&target).filter(|ban| ban.enforced) {
                    Some(ban) => Change::Renew {
                        target,
                        timeout: ban.remaining(now),
                    },
                    None => Change::Remove { target },
                },
            )
            .collect();
        self.submit(changes, None);
    }

    fn submit(&self, changes: Vec<Change>, done: Option<Answer>) {
        // The enforcer leaves only after the analyst.
        let _ = self.jobs.send(Job::Change(Work { changes, done }));
    }

    fn release(&self, source: Prefix) {
        self.tell(&source, || Order::Release(source));
    }

    /// Orders go to the worker that owns the source; a prefix wider than a source concerns them all.
    fn tell(&self, target: &Prefix, order: impl Fn() -> Order) {
        let source = self.policy.source_of(target.addr());
        if target.len() < source.len() {
            self.workers.iter().for_each(|worker| worker.order(order()));
            return;
        }
        let shard = shard_of(source, self.seed, self.workers.len() as u32);
        if let Some(worker) = self.workers.get(shard as usize) {
            worker.order(order());
        }
    }

    fn count(&self) {
        let active = self.ledger.active() as u64;
        self.stats.bans_active.set(active);
        self.stats
            .bans_observed
            .set(self.ledger.bans().count() as u64 - active);
    }
}

fn view(ban: &Ban, now: Instant) -> BanView {
    BanView::of(ban, now, SystemTime::now())
}

/// How often a storm that goes on is told.
const STORM_QUIET: Duration = Duration::from_secs(60);
