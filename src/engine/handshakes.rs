//! Who came through the door, and who rang and was not there: the thread that follows handshakes.
//!
//! Conntrack tells of completed ones by itself; of attempts that nobody completed it is asked once the time for a
//! handshake is over. Where it is silent (it sleeps, since an engine that only observes does not wake it, or its
//! events are off) TCP is asked for both. Workers hear of the former, the analyst of attempts that count. Nothing
//! waits for this thread: what does not fit into its tables is not counted, and is told as a number.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use tracing::{debug, warn};

use super::worker::{Handle, Order};
use crate::core::attack::{Attempt, Pending, Wants};
use crate::core::policy::Policy;
use crate::core::prefix::PrefixSet;
use crate::core::recent::Recent;
use crate::core::services::Services;
use crate::core::shard::shard_of;
use crate::core::verdict::Proto;
use crate::kernel::conntrack::ask::{Asker, TcpState};
use crate::kernel::conntrack::dump::completed_flows;
use crate::kernel::conntrack::handshakes::Handshakes as Door;
use crate::kernel::conntrack::proof::{Prover, Standing};
use crate::kernel::conntrack::{self, Completed, Flow};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::sockets;
use crate::notify::throttle::Throttle;
use crate::stats::Stats;

/// What the slow path tells this thread.
pub enum Word {
    /// Another policy from now on.
    Policy(Arc<Policy>),
    /// This host's own addresses from now on.
    Own(PrefixSet),
}

/// The sockets it works with.
pub struct Eyes {
    door: Door,
    asker: Asker,
    prover: Prover,
}

impl Eyes {
    /// Opens them in the network namespace of the calling thread; nothing here wakes conntrack. Opened before the
    /// first rule, so that no handshake is missed.
    ///
    /// # Errors
    /// If this kernel does not have them: handshakes are unknown then.
    pub fn open() -> Result<Eyes, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Eyes {
            door: Door::open()?,
            asker: Asker::open()?,
            prover: Prover::open()?,
        })
    }
}

/// What the thread is made of; see [`Handshakes::begin`].
pub struct Handshakes {
    /// Its sockets; without them handshakes are unknown, and only attempts that count whatever becomes of them do.
    pub eyes: Option<Eyes>,
    /// From the workers, bounded.
    pub attempts: Receiver<Attempt>,
    /// From the analyst.
    pub words: Receiver<Word>,
    /// The workers, among which sources are spread by `seed`.
    pub workers: Box<[Handle]>,
    /// The seed.
    pub seed: u32,
    /// To the analyst, bounded.
    pub counted: Sender<Box<[Attempt]>>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The policy to begin with.
    pub policy: Arc<Policy>,
    /// This host's addresses to begin with.
    pub own: PrefixSet,
    /// The ports from which the host's own connections start.
    pub local_ports: (u16, u16),
    /// Becomes readable when it is to leave.
    pub stop: Arc<OwnedFd>,
}

/// The thread before it runs, and what it keeps while it does; see [`Following::run`].
pub struct Following {
    context: Handshakes,
    /// Attempts that nobody completed yet.
    pending: Pending,
    /// Attempts that count and that the analyst had no room for.
    unheard: u64,
    /// More is to be asked about than was.
    behind: bool,
    failures: Throttle,
    /// Connections that were announced or learned a moment ago.
    known: Recent,
    /// Ports on which somebody completed a handshake.
    served: BTreeSet<u16>,
    answering: BTreeSet<u16>,
    /// Conntrack knows nothing here; TCP is asked in its place.
    silent: bool,
    started: Instant,
    look_at: Instant,
    learn_at: Option<Instant>,
}

impl Handshakes {
    /// Takes over what is open already. That takes some 20 ms, in which the thread would be deaf to the first clients.
    pub fn begin(self) -> Following {
        let mut following = Following {
            pending: Pending::new(PENDING, self.policy.v6_prefix),
            unheard: 0,
            known: Recent::new(PENDING, Instant::now()),
            behind: false,
            failures: Throttle::new(FAILURE_LINES, FAILURE_PAUSE),
            served: BTreeSet::new(),
            answering: BTreeSet::new(),
            silent: conntrack::is_silent(),
            started: self.stats.started,
            look_at: Instant::now() + LOOK_EVERY, // workers know what `services` told
            learn_at: None,
            context: self,
        };
        following.learn(Instant::now());
        following
    }
}

impl Following {
    /// Follows until told to stop.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            self.listen();
            // Attempts first: an attempt was told before its handshake could be completed.
            let counted = self.take_attempts(now);
            self.tell(counted);
            if self.learn_at.is_some_and(|at| at <= now) {
                self.learn(now);
            }
            self.take_completions(now);
            let incomplete = self.ask(now);
            self.tell(incomplete);
            if self.look_at <= now {
                self.look(now);
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Sleeps until a handshake is completed or something is due; `false`: stop.
    fn wait(&self) -> bool {
        let stop = PollFd::from_borrowed_fd(self.context.stop.as_fd(), PollFlags::IN);
        let eyes = self.context.eyes.as_ref().map(|eyes| eyes.door.as_fd());
        let mut ready = vec![stop];
        ready.extend(eyes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let undecided = self
            .context
            .eyes
            .as_ref()
            .and_then(|eyes| eyes.door.poll_timeout());
        let patience = match self.pending.is_empty() {
            _ if self.behind => Duration::ZERO,
            true => IDLE,
            false => BUSY,
        };
        let patience = undecided.map_or(patience, |at| {
            patience.min(at.saturating_duration_since(Instant::now()))
        });
        let patience = Timespec::try_from(patience).expect("a second fits a timespec");
        let _ = poll(&mut ready, Some(&patience));
        !ready[0].revents().contains(PollFlags::IN)
    }

    fn listen(&mut self) {
        for word in self.context.words.try_iter() {
            match word {
                Word::Policy(policy) => self.context.policy = policy,
                Word::Own(own) => self.context.own = own,
            }
        }
    }

    /// Those that count at once; those that may come to count are kept.
    fn take_attempts(&mut self, now: Instant) -> Vec<Attempt> {
        let mut counted = Vec::new();
        // It may have been woken since; then it tells of them itself.
        self.silent = self.silent && conntrack::is_silent();
        // Of a flood no more at once than the channel holds: completions are waiting.
        for attempt in self.context.attempts.try_iter().take(CHANNEL) {
            if self.silent
                && let Some(eyes) = &mut self.context.eyes
            {
                // Without room its port goes on counting: as if nobody could tell.
                let _ = eyes.door.watch(connection(&attempt), now);
            }
            match self.context.policy.distributed.wants(&attempt, now) {
                Wants::Now => counted.push(attempt),
                Wants::Later => self.pending.add(attempt),
                Wants::Not => {}
            }
        }
        counted
    }

    /// Only connections that strangers opened to this host: what the host opened, or forwards, proves nothing.
    fn take_completions(&mut self, now: Instant) {
        let Some(eyes) = &mut self.context.eyes else {
            return;
        };
        let (own, mut completed) = (&self.context.own, Vec::new());
        let wanted = |claim: &Completed| own.contains(claim.server) && !own.contains(claim.client);
        match eyes.door.serve(now, wanted, |claim, _| completed.push(claim)) {
            Ok(served) => {
                if served.unproven > 0 {
                    debug!("TCP never confirmed {} handshakes", served.unproven);
                }
                if served.lost {
                    self.note_loss(now);
                }
            }
            Err(error) => {
                if let Some(more) = self.failures.pass(now) {
                    warn!(
                        "completed handshakes are not confirmed: {error} ({more} more since the last such line)"
                    );
                }
                self.note_loss(now);
            }
        }
        self.complete(&completed, now);
    }

    fn note_loss(&mut self, now: Instant) {
        self.context.stats.completions_lost.add(1);
        self.learn_at.get_or_insert(now + LEARN_AFTER);
    }

    /// Tells each worker of those whose sources it has.
    fn complete(&mut self, completed: &[Completed], now: Instant) {
        let mut told: Vec<Vec<(IpAddr, u16)>> = vec![Vec::new(); self.context.workers.len()];
        for claim in completed {
            let _ = self.known.seen(claim.flow(), now);
            let source = self.context.policy.source_of(claim.client);
            self.pending
                .complete(claim.client, claim.client_port, claim.server, claim.port, now);
            self.served.insert(claim.port);
            let shard = shard_of(source, self.context.seed, told.len() as u32);
            if let Some(told) = told.get_mut(shard as usize) {
                told.push((claim.client, claim.port));
            }
        }
        self.context.stats.completions.add(completed.len() as u64);
        for (worker, told) in self.context.workers.iter().zip(told) {
            if !told.is_empty() {
                worker.order(Order::Completed(told));
            }
        }
    }

    /// Puts forward what was completed before this thread listened, or while it could not.
    fn learn(&mut self, now: Instant) {
        self.learn_at = None;
        let Some(eyes) = &mut self.context.eyes else {
            return;
        };
        match completed_flows(LEARNED) {
            Ok(mut claims) => {
                // What was announced a moment ago is not counted twice. (A client may well use its port again so soon.)
                claims.retain(|claim| !self.known.seen(claim.flow(), now));
                eyes.door.claim(claims);
            }
            Err(error) => debug!("conntrack does not tell what is open: {error}"),
        }
    }

    /// Asks what became of attempts whose time for a handshake is over; those that the host answered and nobody
    /// completed.
    fn ask(&mut self, now: Instant) -> Vec<Attempt> {
        let due = self.pending.due(ASKED_AT_ONCE, now);
        self.behind = due.len() == ASKED_AT_ONCE;
        let Some(eyes) = self.context.eyes.as_mut().filter(|_| !due.is_empty()) else {
            return Vec::new();
        };
        let flows: Vec<Flow> = due.iter().map(flow_of).collect();
        let states = match eyes.asker.states(&flows) {
            Ok(states) => states,
            Err(error) => {
                if let Some(more) = self.failures.pass(now) {
                    warn!(
                        "conntrack does not answer about {} attempts: {error} ({more} more since the last such line)",
                        due.len()
                    );
                }
                return Vec::new();
            }
        };
        let (answered, unknown): (Vec<_>, Vec<_>) = due
            .into_iter()
            .zip(states)
            .filter(|(_, state)| matches!(state, Some(TcpState::SynRecv) | None))
            .partition(|(_, state)| state.is_some());
        let attempts = |pairs: Vec<(Attempt, _)>| pairs.into_iter().map(|(attempt, _)| attempt);
        let mut incomplete: Vec<Attempt> = attempts(answered).collect();
        if self.silent {
            incomplete.extend(half_open(&mut eyes.prover, attempts(unknown).collect()));
        }
        incomplete
    }

    /// An analyst that has more to do than it can is not waited for, nor are its commands made to wait.
    fn tell(&mut self, counted: Vec<Attempt>) {
        for some in counted.chunks(ASKED_AT_ONCE) {
            if self.context.counted.try_send(some.into()).is_err() {
                self.unheard += some.len() as u64;
            }
        }
        let unasked = self.pending.left_out() + self.unheard;
        self.context.stats.attempts_unasked.set(unasked);
    }

    /// Looks who listens, and tells the workers where the host answers if that changed.
    fn look(&mut self, now: Instant) {
        self.look_at = now + LOOK_EVERY;
        self.silent = conntrack::is_silent();
        let listening = match listening() {
            Ok(ports) => ports,
            Err(error) => {
                warn!("cannot list this host's listeners, no port counts as silent: {error}");
                return;
            }
        };
        // A port that somebody listened on stays: who restarts a service is not to accuse its clients.
        let mut answering = listening;
        answering.extend(&self.served);
        answering.extend(&self.answering);
        if answering == self.answering && !answering.is_empty() {
            return;
        }
        let (first, last) = self.context.local_ports;
        let services = Services::new(answering.iter().copied().collect(), first..=last, self.started);
        let services = Arc::new(services);
        for worker in &self.context.workers {
            worker.order(Order::Services(Arc::clone(&services)));
        }
        self.answering = answering;
    }
}

/// Those of which TCP itself says that it answered and waits.
fn half_open(prover: &mut Prover, mut attempts: Vec<Attempt>) -> Vec<Attempt> {
    let connections: Vec<Completed> = attempts.iter().map(connection).collect();
    let standings = prover.standings(&connections).unwrap_or_default();
    let mut standings = standings.into_iter();
    attempts.retain(|_| standings.next() == Some(Standing::Opening));
    attempts
}

/// The connection that would come of an attempt, if nothing translates it.
fn connection(attempt: &Attempt) -> Completed {
    Completed {
        client: attempt.seen,
        client_port: attempt.src_port,
        server: attempt.dst,
        port: attempt.port,
        ends_at: SocketAddr::new(attempt.dst, attempt.port),
    }
}

/// Where this host answers as it starts, for workers that are to know before their first packet; nowhere, if nobody
/// can tell.
pub fn services(local_ports: (u16, u16), started: Instant) -> Arc<Services> {
    let (first, last) = local_ports;
    let known = |ports: BTreeSet<u16>| Services::new(ports.into_iter().collect(), first..=last, started);
    Arc::new(listening().map_or_else(|_| Services::default(), known))
}

fn listening() -> Result<BTreeSet<u16>, NetlinkError> {
    let listeners = sockets::listeners()?.into_iter();
    let tcp = listeners.filter(|listener| listener.proto == Proto::Tcp);
    Ok(tcp.map(|listener| listener.port).collect())
}

fn flow_of(attempt: &Attempt) -> Flow {
    Flow {
        client: attempt.seen,
        client_port: attempt.src_port,
        server: attempt.dst,
        port: attempt.port,
    }
}

/// Attempts on their way from the workers: what comes in a second, when nothing else wakes this thread.
pub const CHANNEL: usize = 16_384;
/// Attempts that count on their way to the analyst, in rows of [`ASKED_AT_ONCE`] at most: about 6 MB when full.
pub const COUNTED: usize = 64;
/// Attempts that wait for the end of their handshake: 6,500 a second. Of a faster flood a share is asked about, which
/// is enough to see it; about 10 MB when full.
const PENDING: usize = 65_536;
/// Questions in one go, to come back to completions in between.
const ASKED_AT_ONCE: usize = 1024;
/// Completed flows that are taken over at the start.
const LEARNED: usize = 262_144;
/// A flood of completions is not dumped again and again.
const LEARN_AFTER: Duration = Duration::from_secs(5);
/// How often listeners are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Questions that the kernel does not answer are told at once, and then so often.
const FAILURE_LINES: u32 = 2;
const FAILURE_PAUSE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_millis(250);
