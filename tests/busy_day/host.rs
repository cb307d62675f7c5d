//! The core as the engine puts it together: shards by the hash of the source, one ledger, attacks on ports; and a
//! model of what lies around it: the kernel's bans, the host's answers, and who is asked about when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use verdictd::core::attack::{Attacks, Attempt, HANDSHAKE_LIMIT, Wants};
use verdictd::core::judge::{Guard, HOLD, Judge};
use verdictd::core::ledger::{Ledger, Refusal};
use verdictd::core::policy::Policy;
use verdictd::core::prefix::Prefix;
use verdictd::core::probe::{Probe, TcpFlags, Transport};
use verdictd::core::services::Services;
use verdictd::core::shard::shard_of;
use verdictd::core::verdict::{Ban, Class, Offence, Reason, Verdict};

use crate::crowd::{Act, Fate, OPEN, Random};

const SHARDS: u32 = 4;
const SEED: u32 = 0x5eed;

/// What comes of something that happened before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    /// A client sends its SYN again.
    Again(usize, u8),
    /// The engine hears that a handshake was completed.
    Completed(IpAddr, u16),
    /// Conntrack is asked about an attempt; whether it still waits for the client.
    Asked(usize, bool),
    /// Time for what is due by itself.
    Tick,
}

/// The host and its engine, and what is told of the day.
pub(crate) struct Host {
    policy: Arc<Policy>,
    judges: Vec<Judge>,
    attacks: Attacks,
    ledger: Ledger,
    start: Instant,
    random: Random,
    later: BinaryHeap<Reverse<(Instant, u64, Later)>>,
    queued: u64,
    attempts: Vec<Attempt>,
    arrived: HashMap<Prefix, Instant>,
    /// Every ban that was granted.
    pub(crate) bans: Vec<Ban>,
    /// Who completed a handshake, whether or not the engine heard of it.
    pub(crate) completed: BTreeSet<IpAddr>,
    pub(crate) completions: u64,
    pub(crate) abandoned: u64,
    pub(crate) judged: u64,
    pub(crate) dropped: u64,
    /// Packets dropped of sources that are not banned: what is on its way may be completed; by who sent them.
    pub(crate) waited: BTreeMap<IpAddr, u32>,
    pub(crate) begun: u32,
    pub(crate) ended: u32,
}

impl Host {
    pub(crate) fn new(policy: Policy, start: Instant, random: Random) -> Host {
        let policy = Arc::new(policy);
        let services = Services::new(OPEN.into_iter().collect(), 32_768..=60_999, start);
        let services = Arc::new(services);
        let judge = || {
            let capacity = policy.max_sources / SHARDS as usize;
            let mut judge = Judge::new(Arc::clone(&policy), Arc::new(Guard::default()), capacity, start);
            judge.set_services(Arc::clone(&services));
            judge
        };
        Host {
            judges: (0..SHARDS).map(|_| judge()).collect(),
            attacks: Attacks::new(),
            ledger: Ledger::new(),
            start,
            random,
            later: BinaryHeap::new(),
            queued: 0,
            attempts: Vec::new(),
            arrived: HashMap::new(),
            bans: Vec::new(),
            completed: BTreeSet::new(),
            completions: 0,
            abandoned: 0,
            judged: 0,
            dropped: 0,
            waited: BTreeMap::new(),
            begun: 0,
            ended: 0,
            policy,
        }
    }

    /// Lives through what is planned, and through the hour after it.
    pub(crate) fn live(&mut self, plan: &[(Instant, Act)]) {
        let hours = 24 + 1;
        (0..hours * 60)
            .for_each(|minute| self.after(self.start + Duration::from_secs(minute * 60), Later::Tick));
        let mut planned = plan.iter().enumerate().peekable();
        loop {
            let next = planned.peek().map(|(_, (at, _))| *at);
            let later = self.later.peek().map(|Reverse((at, ..))| *at);
            match (next, later) {
                (Some(at), later) if later.is_none_or(|later| at <= later) => {
                    let (index, (_, act)) = planned.next().unwrap();
                    self.act(index, act, 0, at);
                }
                (_, Some(at)) => {
                    let Reverse((_, _, later)) = self.later.pop().unwrap();
                    self.follow(later, plan, at);
                }
                _ => return,
            }
        }
    }

    fn after(&mut self, at: Instant, later: Later) {
        self.queued += 1;
        self.later.push(Reverse((at, self.queued, later)));
    }

    fn follow(&mut self, later: Later, plan: &[(Instant, Act)], now: Instant) {
        match later {
            Later::Again(index, tries) => self.act(index, &plan[index].1, tries, now),
            Later::Completed(addr, port) => self.hear(addr, port, now),
            Later::Asked(index, waits) => self.answer(index, waits, now),
            Later::Tick => self.tick(now),
        }
    }

    /// A packet arrives.
    fn act(&mut self, index: usize, act: &Act, tries: u8, now: Instant) {
        let src = act.src;
        // Established flows of a guest are cut too; here only what is new is followed.
        if self.ledger.covering(src).is_some_and(|ban| ban.enforced) {
            return;
        }
        let port = act.port();
        let filtered = self.policy.mode.filters_ports();
        let tcp_refused = filtered && port.is_some_and(|port| !self.policy.tcp_allowed.contains(port));
        let class = match (tcp_refused, self.policy.observes_only()) {
            (true, _) => Class::Refused,
            (_, true) => Class::Observed,
            _ => Class::New,
        };
        let probe = Probe {
            src,
            dst: Ipv4Addr::new(198, 51, 100, 1).into(),
            transport: act.transport,
        };
        let shard = self.shard_of(src);
        let decision = self.judges[shard].judge(&Ok(probe), class, now);
        self.judged += 1;
        if matches!(decision.reason, Reason::Offence | Reason::Banned) {
            *self.waited.entry(src).or_default() += 1;
        }
        let passes = decision.verdict == Verdict::Accept;
        if class != Class::Refused {
            self.dropped += u64::from(!passes);
        }
        if decision.reason == Reason::Offence && decision.offence.is_none() {
            self.after(now + HOLD, Later::Tick);
        }
        let served = passes && class != Class::Refused && port.is_some_and(|port| OPEN.contains(&port));
        if let Some(fate) = act.fate {
            self.go_on(index, act, fate, served, tries, now);
        }
        if let Some(attempt) = decision.attempt {
            let waits = served && act.fate == Some(Fate::Abandoned);
            self.note(attempt, waits, now);
        }
        if let Some(offence) = decision.offence {
            self.accuse(&offence, now);
        }
    }

    /// What becomes of a connection attempt.
    fn go_on(&mut self, index: usize, act: &Act, fate: Fate, served: bool, tries: u8, now: Instant) {
        let port = act.port().unwrap_or(0);
        match fate {
            // RFC 6298: after 1 s, then 3.
            _ if !served && fate != Fate::Once && tries < 2 => {
                self.after(
                    now + Duration::from_secs(1 << tries),
                    Later::Again(index, tries + 1),
                );
            }
            Fate::Completed { after, lost } if served => {
                if tries < lost {
                    // Our SYN+ACK was lost on its way.
                    self.after(
                        now + Duration::from_secs(1 << tries),
                        Later::Again(index, tries + 1),
                    );
                    return;
                }
                self.completions += 1;
                self.completed.insert(act.src);
                // The engine hears of it a moment later, sometimes of many at once.
                let heard = now + after + Duration::from_millis(self.random.below(15));
                self.after(heard, Later::Completed(act.src, port));
            }
            Fate::Abandoned if served => self.abandoned += u64::from(tries == 0),
            _ => {}
        }
    }

    /// As the thread that follows handshakes does.
    fn note(&mut self, attempt: Attempt, waits: bool, now: Instant) {
        match self.policy.distributed.wants(&attempt, now) {
            Wants::Now => self.count(&attempt, now),
            Wants::Later => {
                self.attempts.push(attempt);
                self.after(
                    now + HANDSHAKE_LIMIT,
                    Later::Asked(self.attempts.len() - 1, waits),
                );
            }
            Wants::Not => {}
        }
    }

    fn hear(&mut self, addr: IpAddr, port: u16, now: Instant) {
        self.arrived.insert(self.policy.source_of(addr), now);
        let shard = self.shard_of(addr);
        self.judges[shard].complete(addr, port, now);
    }

    fn answer(&mut self, index: usize, waits: bool, now: Instant) {
        let attempt = self.attempts[index];
        let arrived = self.arrived.get(&attempt.source);
        let lately = arrived.is_some_and(|at| now.saturating_duration_since(*at) < 2 * HANDSHAKE_LIMIT);
        if waits && !lately {
            self.count(&attempt, now);
        }
    }

    fn count(&mut self, attempt: &Attempt, now: Instant) {
        let outcome = self.attacks.count(attempt, &self.policy, now);
        self.begun += u32::from(outcome.began.is_some());
        if let Some(offence) = outcome.offence {
            self.accuse(&offence, now);
        }
    }

    /// As the analyst does.
    fn accuse(&mut self, offence: &Offence, now: Instant) {
        let draw = self.random.below(u32::MAX.into()) as u32;
        match self
            .ledger
            .offence(offence, self.policy.enforce, &self.policy, draw, now)
        {
            Ok(ban) => {
                let shard = self.shard_of(offence.seen);
                self.judges[shard].ban(ban.source, ban.enforced);
                self.bans.push(ban);
            }
            Err(Refusal::AlreadyBanned) => {}
            Err(Refusal::Storm) => panic!("a storm on a busy day: {offence:?}"),
        }
    }

    fn tick(&mut self, now: Instant) {
        for ban in self.ledger.expire(now) {
            let shard = self.shard_of(ban.source.addr());
            self.judges[shard].release(ban.source);
        }
        for shard in 0..self.judges.len() {
            self.judges[shard].expire(now);
            while let Some(offence) = self.judges[shard].due(now) {
                self.accuse(&offence, now);
            }
        }
        self.ended += self.attacks.expire(&self.policy, now).len() as u32;
    }

    fn shard_of(&self, addr: IpAddr) -> usize {
        shard_of(self.policy.source_of(addr), SEED, SHARDS) as usize
    }
}

impl Act {
    fn port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp { dport, .. } => Some(dport),
            _ => None,
        }
    }

    /// A TCP packet of a flow of its own.
    pub(crate) fn tcp(src: IpAddr, port: u16, flags: u8, number: u32, fate: Option<Fate>) -> Act {
        Act {
            src,
            transport: Transport::Tcp {
                sport: 32_768 + (number % 28_000) as u16,
                dport: port,
                flags: TcpFlags(flags),
                seq: number.wrapping_mul(2_654_435_761),
            },
            fate,
        }
    }
}
