//! The slow path's one decision maker: owner of the ledger. Offences, operators' commands, refusals of the kernel
//! and deadlines come in one at a time; orders to workers and jobs for the enforcer go out.

mod import;
mod reset;
mod trial;
mod upkeep;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, after, never, select_biased};
use tracing::{debug, error, info};

pub use self::trial::{NONE, Question, is_leftover};

use self::trial::Trial;
use super::attack_lines::AttackLines;
use super::enforcer::{Answer, Failure, Job, Report, Work};
use super::handshakes::Word;
use super::herald::Herald;
use super::notice::Notice;
use super::protect::Protection;
use super::storm::Storms;
use super::unmade::Unmade;
use super::worker::{Handle, Order};
use crate::audit::log::Audit;
use crate::audit::record::What;
use crate::control::wire::{AttackView, BanView, ImportOutcome, ImportPart, Reply};
use crate::core::attack::{Attacks, Attempt, Baseline};
use crate::core::ledger::{Ledger, Refusal, Standing};
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::shard::shard_of;
use crate::core::verdict::{Ban, BanReason, Offence, Weight};
use crate::kernel::host::Why;
use crate::kernel::sets::Change;
use crate::notify::throttle::Throttle;
use crate::state::Record;
use crate::stats::Stats;
use crate::webhook::event::{self, Ended};

/// Whom an operator means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The source that an address belongs to.
    Address(IpAddr),
    /// Just this.
    Prefix(Prefix),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(addr) => addr.fmt(f),
            Target::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

/// What others ask of the analyst.
#[allow(missing_docs, reason = "fields are what their variant's sentence says")]
pub enum Command {
    /// An operator's ban; the reply comes when the kernel has the element.
    Ban {
        target: Target,
        length: Option<Duration>,
        note: Option<Box<str>>,
        to: Sender<Reply>,
    },
    /// Lift whatever bans `target`.
    Unban { target: Target, to: Sender<Reply> },
    /// Every live ban.
    List { to: Sender<Reply> },
    /// The first `count` bans since then (would-be bans too) that are still live.
    BannedSince {
        since: Instant,
        count: usize,
        to: Sender<Vec<(Prefix, BanReason)>>,
    },
    /// These addresses are protected from now on, and why.
    Protect(Vec<(Prefix, Why)>),
    /// Another policy from now on.
    Policy(Arc<Policy>),
    /// Attacks that are under way.
    Attacks { to: Sender<Vec<AttackView>> },
    /// The protected addresses as they are now.
    Protected { to: Sender<Protection> },
    /// Ladder positions, for the snapshot; see [`Ledger::standings`].
    Standings {
        cursor: usize,
        limit: usize,
        to: Sender<(Vec<Standing>, Option<usize>)>,
    },
    /// What is usual on each port, for the snapshot.
    Baseline { to: Sender<Baseline> },
    /// Who is banned, for the snapshot.
    Targets { to: Sender<Vec<Prefix>> },
    /// The bans of these, as far as they are still live.
    Bans { of: Box<[Prefix]>, to: Sender<Vec<Ban>> },
    /// How many ladder positions there are, and ports of which is known what is usual.
    Tally { to: Sender<(u64, u64)> },
    /// Take over what another system knew; see [`Analyst::import`].
    Import {
        part: Box<ImportPart>,
        to: Sender<Reply>,
    },
    /// Forget everything; the reply comes when the kernel has forgotten it too.
    Reset { to: Sender<Reply> },
    /// Of a self-test.
    Selftest(Question),
    /// Leave.
    Stop,
}

/// What the analyst listens to.
pub struct Inbox {
    /// From the workers, bounded.
    pub offences: Receiver<Box<Offence>>,
    /// From control socket and protector.
    pub commands: Receiver<Command>,
    /// Attempts that count, from who follows handshakes, bounded.
    pub attempts: Receiver<Box<[Attempt]>>,
    /// From the enforcer.
    pub reports: Receiver<Report>,
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
    unmade: Unmade,
    attacks: Attacks,
    attack_lines: AttackLines,
    storms: Storms,
    watcher: Option<Sender<Word>>,
    herald: Herald,
    audit: Audit,
    failures_told: Throttle,
    trial: Option<Trial>,
    imported: ImportOutcome,
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
            unmade: Unmade::default(),
            attacks: Attacks::new(),
            attack_lines: AttackLines::default(),
            storms: Storms::default(),
            watcher: None,
            herald: Herald::default(),
            audit: Audit::default(),
            failures_told: Throttle::new(FAILURE_LINES, FAILURE_PAUSE),
            trial: None,
            imported: ImportOutcome::default(),
        }
    }

    /// Tells other systems through `herald`.
    pub fn with_herald(self, herald: Herald) -> Analyst {
        Analyst { herald, ..self }
    }

    /// Writes bans and their ends down in `audit`.
    pub fn with_audit(self, audit: Audit) -> Analyst {
        Analyst { audit, ..self }
    }

    /// Tells `watcher`, who follows handshakes, of another policy and other addresses.
    pub fn with_watcher(self, watcher: Sender<Word>) -> Analyst {
        Analyst {
            watcher: Some(watcher),
            ..self
        }
    }

    /// Goes on with a ledger of before, and with what was usual; workers and kernel know of the former already.
    pub fn restore(&mut self, ledger: Ledger, attacks: Attacks) {
        self.ledger = ledger;
        self.attacks = attacks;
        self.count();
    }

    /// Answers until told to stop.
    pub fn run(mut self, inbox: &Inbox) {
        let mut attempts = inbox.attempts.clone();
        loop {
            let deadline = self
                .deadline()
                .map_or_else(never, |at| after(at.saturating_duration_since(Instant::now())));
            // What the kernel said first, before what somebody makes of it; then commands: an operator's unban
            // must not wait behind a storm of offences; and attempts last, of which there are most.
            select_biased! {
                recv(inbox.reports) -> report => if let Ok(report) = report {
                    self.note(report, Instant::now());
                },
                recv(inbox.commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => return,
                    Ok(command) => self.obey(command, Instant::now()),
                },
                recv(inbox.offences) -> offence => match offence {
                    Ok(offence) => self.judge(&offence, Instant::now()),
                    Err(_) => return,
                },
                recv(attempts) -> row => match row {
                    Ok(row) => self.count_attempts(&row, Instant::now()),
                    // Who follows handshakes leaves before we do.
                    Err(_) => attempts = never(),
                },
                recv(deadline) -> _ => {},
            }
            self.tick(Instant::now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.ledger.next_deadline(),
            self.unmade.next_deadline(),
            self.storms.next_deadline(),
            self.attacks.next_deadline(&self.policy),
            self.trial_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What is due by time alone.
    fn tick(&mut self, now: Instant) {
        self.end_stale_trial(now);
        for ban in self.ledger.expire(now) {
            let work = self.ended(&ban, Ended::Timeout, now);
            self.submit(work);
            self.release(ban.source);
        }
        self.retry(now);
        for attack in self.attacks.expire(&self.policy, now) {
            if self.attack_lines.ended(&attack, now) {
                let enforced = self.policy.enforce;
                self.herald
                    .tell(|now| event::distributed_attack_ended(now, &attack, enforced));
            }
        }
        self.storms.tell_calm(now);
        self.count();
    }

    fn judge(&mut self, offence: &Offence, now: Instant) {
        if self.protection.forbids(&offence.source).is_some() {
            self.release(offence.source);
            return;
        }
        let (tested, enforce) = (self.is_tested(&offence.source), self.policy.enforce);
        let outcome = match tested {
            true => self.ledger.trial(offence, enforce, trial::LENGTH, now),
            false => self.ledger.offence(offence, enforce, &self.policy, draw(), now),
        };
        match outcome {
            Ok(ban) if tested => self.enact_trial(&ban, now),
            Ok(ban) => {
                debug!(
                    ports = ?offence.ports, threshold = offence.threshold, weight = ?offence.weight,
                    "offence of {}", offence.source
                );
                if offence.weight == Weight::PossiblyForged {
                    info!(
                        "{} is possibly forged: it completed handshakes here before, and none of these flows; its \
                         ban is the first step",
                        offence.source
                    );
                }
                self.herald.found(offence, &ban);
                self.enact(&ban, Some(offence), now, Work::default());
            }
            // The worker cannot know of it and the kernel let the packet through: say it again to both.
            Err(Refusal::AlreadyBanned) => {
                if let Some(ban) = self.ledger.get(&offence.source).cloned() {
                    self.assert(&ban, Work::default(), now);
                }
            }
            // The worker needs no answer: it drops the source until its accusation has gone unanswered for a
            // minute, and then judges it anew.
            Err(Refusal::Storm) => {
                self.stats.storm_refusals.add(1);
                let most = self.policy.max_bans_per_minute;
                if self.storms.refuse(most, now) {
                    self.herald.tell(|now| event::ban_storm(now, most));
                }
            }
        }
    }

    /// A new ban, told to people and to the kernel.
    fn enact(&mut self, ban: &Ban, offence: Option<&Offence>, now: Instant, work: Work) {
        let port = offence
            .and_then(|offence| offence.ports.first())
            .map(|(_, port)| *port);
        let attack = self.attacks.under_way().find(|attack| Some(attack.port) == port);
        let event = self.herald.blocked(ban, offence, attack);
        let until = view(ban, now).until;
        self.audit.note(|| What::ban(ban, offence, until.clone()));
        let mut work = Work {
            records: self.records_of(ban),
            events: event.map(|event| (ban.source, event)).into_iter().collect(),
            ..work
        };
        let length = ban
            .remaining(now)
            .map_or_else(|| "ever".into(), |left| format!("{}s", left.as_secs()));
        if ban.enforced {
            self.stats.banned(ban.reason);
            work.notices.push(Notice::Ban {
                ban: ban.clone(),
                until,
            });
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
        self.assert(ban, work, now);
    }

    /// What is remembered of a ban: itself, and the step that it took.
    fn records_of(&self, ban: &Ban) -> Vec<Record> {
        let standing = self.ledger.standing(&ban.source).map(Record::Standing);
        standing.into_iter().chain([Record::Ban(ban.clone())]).collect()
    }

    /// Makes kernel and workers agree with the ledger about `ban`; then follows what else `work` is.
    fn assert(&mut self, ban: &Ban, mut work: Work, now: Instant) {
        self.tell(&ban.source, || Order::Ban {
            source: ban.source,
            enforced: ban.enforced,
        });
        if ban.enforced {
            // What the kernel refused before is asserted now.
            let untold = self.unmade.forget(&ban.source);
            if work.events.is_empty() {
                work.events.extend(untold.map(|event| (ban.source, event)));
            }
            work.changes.push(Change::Renew {
                target: ban.source,
                timeout: ban.remaining(now),
            });
        }
        self.submit(work);
    }

    /// Attempts of many sources on one port, each of them harmless by itself.
    fn count_attempts(&mut self, attempts: &[Attempt], now: Instant) {
        for attempt in attempts {
            let outcome = self.attacks.count(attempt, &self.policy, now);
            if let Some(attack) = outcome.began
                && self.attack_lines.began(&attack, now)
            {
                let enforced = self.policy.enforce;
                self.herald
                    .tell(|now| event::distributed_attack_detected(now, &attack, enforced));
            }
            if let Some(offence) = outcome.offence {
                self.judge(&offence, now);
            }
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Ban {
                target,
                length,
                note,
                to,
            } => self.ban(target, length, note, to, now),
            Command::Unban { target, to } => self.unban(target, to, now),
            Command::List { to } => {
                let bans = self.ledger.bans().map(|ban| view(ban, now)).collect();
                let _ = to.send(Reply::List(bans));
            }
            Command::BannedSince { since, count, to } => {
                let _ = to.send(self.banned_since(since, count));
            }
            Command::Protect(reasons) => self.protect(Protection::of(reasons, &self.policy.trusted), now),
            Command::Policy(policy) => self.go_over_to(policy, now),
            Command::Attacks { to } => {
                let attacks = self.attacks.under_way().map(|attack| AttackView::of(attack, now));
                drop(to.send(attacks.collect()));
            }
            Command::Protected { to } => drop(to.send(self.protection.clone())),
            // The keeper may have given up waiting.
            Command::Standings { cursor, limit, to } => drop(to.send(self.ledger.standings(cursor, limit))),
            Command::Baseline { to } => drop(to.send(self.attacks.baseline(now))),
            Command::Targets { to } => {
                let mut targets = self.ledger.targets();
                targets.retain(|target| !self.is_tested(target));
                drop(to.send(targets));
            }
            Command::Bans { of, to } => {
                let live = of.iter().filter_map(|target| self.ledger.get(target).cloned());
                drop(to.send(live.collect()));
            }
            Command::Tally { to } => drop(to.send(self.tally(now))),
            Command::Import { part, to } => self.import(&part, to, now),
            Command::Reset { to } => self.reset(to, now),
            Command::Selftest(question) => self.answer_tester(question, now),
            Command::Stop => {}
        }
    }

    fn banned_since(&self, since: Instant, count: usize) -> Vec<(Prefix, BanReason)> {
        let told = |ban: &&Ban| ban.since >= since && !self.is_tested(&ban.source);
        let mut bans: Vec<&Ban> = self.ledger.bans().filter(told).collect();
        bans.sort_by_key(|ban| (ban.since, ban.source));
        bans.iter()
            .take(count)
            .map(|ban| (ban.source, ban.reason))
            .collect()
    }

    fn ban(
        &mut self,
        target: Target,
        length: Option<Duration>,
        note: Option<Box<str>>,
        to: Sender<Reply>,
        now: Instant,
    ) {
        let target = self.source_of(target);
        if let Some(why) = self.protection.forbids(&target) {
            let _ = to.send(Reply::refused(why));
            return;
        }
        let replaced = self.ledger.get(&target).cloned();
        let ban = self.ledger.manual(target, length, note, &self.policy, now);
        let reply = Reply::Banned(Box::new(view(&ban, now)));
        let work = Work {
            done: Some(Answer { to, reply }),
            replaced: replaced.into_iter().collect(),
            ..Work::default()
        };
        self.enact(&ban, None, now, work);
    }

    /// What is banned when an operator says `target`: the same unit that an offender there is banned as.
    fn source_of(&self, target: Target) -> Prefix {
        match target {
            Target::Address(addr) => self.protection.guard.source_of(addr, &self.policy),
            Target::Prefix(prefix) => prefix,
        }
    }

    /// A prefix means the ban of just that; an address alone means every ban that holds it, so that it is free
    /// afterwards.
    fn unban(&mut self, target: Target, to: Sender<Reply>, now: Instant) {
        let mut lifted = Vec::new();
        match target {
            Target::Prefix(prefix) => lifted.extend(self.ledger.lift(&prefix)),
            Target::Address(addr) => {
                while let Some(source) = self.ledger.covering(addr).map(|ban| ban.source) {
                    lifted.extend(self.ledger.lift(&source));
                }
            }
        }
        if lifted.is_empty() {
            let _ = to.send(Reply::refused(format!("{target} is not banned")));
            return;
        }
        let reply = Reply::Unbanned(lifted.iter().map(|ban| view(ban, now)).collect());
        self.free(&lifted, Some(Answer { to, reply }), now);
    }

    /// Their bans are lifted by an operator: others hear of it, and who asked, once the kernel has done it.
    fn free(&mut self, lifted: &[Ban], done: Option<Answer>, now: Instant) {
        let mut work = Work {
            done,
            ..Work::default()
        };
        for ban in lifted {
            work.join(self.lifted(ban, Ended::Manual, now));
            self.attacks.forget(ban.source);
            self.release(ban.source);
        }
        self.submit(work);
    }

    /// Evidence, ladder and live bans stay; what the new policy would have done with them in the past is not
    /// asked. Bans follow the switch of enforcement.
    fn go_over_to(&mut self, policy: Arc<Policy>, now: Instant) {
        self.policy = policy;
        self.spare_trial();
        for worker in &self.workers {
            worker.order(Order::Policy(Arc::clone(&self.policy)));
        }
        self.tell_watcher(|| Word::Policy(Arc::clone(&self.policy)));
        let protection = Protection::of(self.protection.reasons.to_vec(), &self.policy.trusted);
        self.protect(protection, now);
        for ban in self.ledger.switch(self.policy.enforce, &self.policy, now) {
            match ban.enforced {
                true => self.enact(&ban, None, now, Work::default()),
                false => {
                    self.tell(&ban.source, || Order::Ban {
                        source: ban.source,
                        enforced: false,
                    });
                    // It was in force until now, and is remembered as what would be a ban.
                    let records = self.records_of(&ban);
                    let ended = Ban {
                        enforced: true,
                        ..ban
                    };
                    let work = self.lifted(&ended, Ended::Manual, now);
                    self.submit(Work { records, ..work });
                }
            }
        }
    }

    /// Who becomes protected is unbanned at once.
    fn protect(&mut self, protection: Protection, now: Instant) {
        self.protection = protection;
        for worker in &self.workers {
            worker.order(Order::Guard(Arc::clone(&self.protection.guard)));
        }
        self.tell_watcher(|| Word::Own(self.protection.own()));
        let mut freed = self.ledger.targets();
        freed.retain(|source| self.protection.forbids(source).is_some());
        freed.sort_unstable();
        for source in freed {
            if let Some(ban) = self.ledger.lift(&source) {
                let work = self.lifted(&ban, Ended::Protected, now);
                self.submit(work);
                self.release(source);
            }
        }
    }

    /// What follows from the end of `ban` before its time.
    fn lifted(&mut self, ban: &Ban, why: Ended, now: Instant) -> Work {
        let removal = ban.enforced.then_some(Change::Remove { target: ban.source });
        Work {
            changes: removal.into_iter().collect(),
            ..self.ended(ban, why, now)
        }
    }

    /// What follows from the end of `ban`, of which the kernel knows or is to be told.
    fn ended(&mut self, ban: &Ban, why: Ended, now: Instant) -> Work {
        if self.is_tested(&ban.source) {
            return Work::default();
        }
        let event = self.herald.unblocked(ban, why);
        // Of what the kernel never took nobody heard that it began.
        let began = self.unmade.silence(&ban.source).is_none();
        let why = why.word();
        self.audit.note(|| What::unban(ban, why));
        debug!("the ban of {} ended: {why}", ban.source);
        let notice = ban.enforced.then(|| Notice::Unban {
            ban: ban.clone(),
            why,
        });
        let event = event.filter(|_| began).map(|event| (ban.source, event));
        let (source, at) = (ban.source, now);
        Work {
            records: vec![Record::Lift { source, at }],
            notices: notice.into_iter().collect(),
            events: event.into_iter().collect(),
            ..Work::default()
        }
    }

    fn note(&mut self, report: Report, now: Instant) {
        match report {
            Report::Refused(failure) => self.note_failure(*failure, now),
            Report::Repaired(repair) => self.note_repair(*repair),
            Report::Deleted { targets, by } => self.note_deleted(&targets, by, now),
            Report::Foreign { targets, by } => self.note_foreign(&targets, by),
        }
    }

    fn note_failure(&mut self, failure: Failure, now: Instant) {
        if self.is_tested(&failure.target) {
            return self.note_refusal_of_trial(failure);
        }
        self.stats.enforcement_errors.add(1);
        // A full set refuses a batch of thousands, again and again.
        if let Some(more) = self.failures_told.pass(now) {
            error!(
                "the kernel refused a change for {}: {} ({more} more since the last such line)",
                failure.target, failure.error
            );
            let ban = self.ledger.get(&failure.target);
            self.herald.failed(failure.target, ban, &failure.error);
            self.audit.note(|| What::Failure {
                source: failure.target.to_string(),
                error: failure.error.clone(),
            });
        }
        if failure.withdrawn
            && let Some(ban) = self.ledger.lift(&failure.target)
        {
            let work = self.lifted(&ban, Ended::Manual, now);
            match failure
                .replaced
                .filter(|before| before.until.is_none_or(|until| until > now))
            {
                // It was in force, and was reported: it goes on.
                Some(before) => {
                    self.ledger.take_over(before.clone());
                    let records = vec![Record::Ban(before.clone())];
                    self.assert(
                        &before,
                        Work {
                            records,
                            ..Work::default()
                        },
                        now,
                    );
                }
                // Should the kernel hold an older one, that ends as well: ledger and kernel are to agree.
                None => {
                    self.submit(work);
                    self.release(ban.source);
                }
            }
            return;
        }
        self.unmade.refuse(failure.target, failure.untold, now);
        self.count_refused();
    }

    /// The ledger is the truth: what the kernel refused is asserted again, or removed if it ended meanwhile.
    fn retry(&mut self, now: Instant) {
        // What was not refused again since the last try is in force: status hears of it now.
        let waiting = self.unmade.waiting();
        let Some(due) = self.unmade.take_due(now) else {
            return;
        };
        self.stats.bans_refused.set(waiting as u64);
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        for (target, untold) in due {
            changes.push(match self.ledger.get(&target).filter(|ban| ban.enforced) {
                Some(ban) => Change::Renew {
                    target,
                    timeout: ban.remaining(now),
                },
                None => Change::Remove { target },
            });
            events.extend(untold.map(|event| (target, event)));
        }
        self.submit(Work {
            changes,
            events,
            ..Work::default()
        });
    }

    fn count_refused(&self) {
        self.stats.bans_refused.set(self.unmade.waiting() as u64);
    }

    fn submit(&self, work: Work) {
        // The enforcer leaves only after the analyst.
        let _ = self.jobs.send(Job::Change(work));
    }

    fn tell_watcher(&self, word: impl FnOnce() -> Word) {
        if let Some(watcher) = &self.watcher {
            // A watcher that is gone takes the process with it.
            let _ = watcher.send(word());
        }
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
        self.stats.bans_active.set(self.ledger.active() as u64);
        self.stats.bans_observed.set(self.ledger.observed() as u64);
        self.stats.tiers.set(&self.ledger.tiers());
    }
}

fn view(ban: &Ban, now: Instant) -> BanView {
    BanView::of(ban, now, SystemTime::now())
}

/// A random number for the jitter of a ban; without one (a sandbox may refuse it) there is none, which harms nobody.
fn draw() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => 0,
    }
}

/// Refusals of the kernel that are told at once, and how often one is told after that.
const FAILURE_LINES: u32 = 5;
const FAILURE_PAUSE: Duration = Duration::from_secs(10);
