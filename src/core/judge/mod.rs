//! One worker's shard: decides on every packet of the sources that the kernel's hash gives to this worker.
//!
//! Pure and alone on its data: no lock, no clock, and no allocation for a packet of a source that is known.
//! What must be known of other shards (live bans) is told from outside.

mod record;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::record::{Acquaintance, MOST_COMPLETED, Memory};
use self::record::{Completed, PROVEN, Record, Standing, Told};
use crate::core::attack::Attempt;
use crate::core::bounded::{BoundedMap, HIGHEST, Place};
use crate::core::policy::Policy;
use crate::core::prefix::{Prefix, PrefixSet};
use crate::core::prefix_map::PrefixMap;
use crate::core::probe::{Probe, Transport, Unparsed};
use crate::core::recent::Recent;
use crate::core::scan::{ScanKind, classify};
use crate::core::services::Services;
use crate::core::source::{Crossed, Limits, Touch};
use crate::core::verdict::{Asked, BanReason, Class, Offence, Proto, Reason, Verdict, Weight};

/// Whom no packet can get banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Neither counted nor banned.
    pub trusted: PrefixSet,
    /// Counted, never banned.
    pub protected: PrefixSet,
}

/// What is done with one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// What the kernel is told, if it waits.
    pub verdict: Verdict,
    /// Why; the packet is counted under it.
    pub reason: Reason,
    /// What the analyst is to be told: on the packet that crosses, and again on a later one if the first
    /// telling was [`Judge::unsent`].
    pub offence: Option<Box<Offence>>,
    /// What the packet is, if it is an attempt on a TCP port and the first of its flow.
    pub attempt: Option<Attempt>,
}

/// One source as `stats` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Who.
    pub source: Prefix,
    /// Distinct ports in the window.
    pub ports: u32,
    /// When a port of it was touched last.
    pub last_seen: Instant,
    /// Whether it is banned, or about to be.
    pub banned: bool,
}

/// One source as `explain` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDetail {
    /// Who.
    pub source: Prefix,
    /// What is in its window, oldest first.
    pub touches: Vec<Touch>,
    /// Whether it is banned, or about to be.
    pub banned: bool,
    /// How well it is known, if at all.
    pub known: Option<Acquaintance>,
}

/// Some of the sources of a shard, as the state keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// What is to be remembered of each.
    pub sources: Vec<Memory>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}

/// One shard. Its sources are bounded by its capacity, its bans by the ledger that tells them.
#[derive(Debug)]
pub struct Judge {
    policy: Arc<Policy>,
    guard: Arc<Guard>,
    limits: Limits,
    /// Whether it matters when a source was first seen.
    by_sight: bool,
    services: Arc<Services>,
    sources: BoundedMap<Prefix, Record>,
    /// Flows that were counted a moment ago.
    recent: Recent,
    /// Live bans, and whether the kernel enforces them.
    bans: PrefixMap<bool>,
    /// Accusations that wait to be told, and until when.
    held: VecDeque<(Instant, Prefix)>,
}

/// What speaks against the sender of a packet.
#[derive(Clone, Copy)]
struct Evidence {
    what: Asked,
    stealth: bool,
}

impl Judge {
    /// A shard that remembers at most `capacity` sources, from `now` on.
    pub fn new(policy: Arc<Policy>, guard: Arc<Guard>, capacity: usize, now: Instant) -> Judge {
        let limits = Limits::of(&policy);
        let by_sight = policy.distributed.asks_since_when();
        Judge {
            policy,
            guard,
            limits,
            by_sight,
            services: Arc::default(),
            sources: BoundedMap::reserved(capacity),
            recent: Recent::new(FLOWS, now),
            bans: PrefixMap::default(),
            held: VecDeque::new(),
        }
    }

    /// From the next packet on this policy holds, also for what was counted before.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.limits = Limits::of(&policy);
        self.by_sight = policy.distributed.asks_since_when();
        self.policy = policy;
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// From the next packet on these are trusted and protected; who is accused and now among them is not any
    /// more.
    pub fn set_guard(&mut self, guard: Arc<Guard>) {
        self.guard = guard;
        let accused = self
            .sources
            .worthiest()
            .take_while(|(_, record, _)| record.is_accused());
        let spared = accused
            .map(|(source, ..)| *source)
            .filter(|source| self.guard.spares(source));
        for source in spared.collect::<Vec<_>>() {
            self.pardon_source(&source);
        }
    }

    /// From the next packet on the host answers on these ports.
    pub fn set_services(&mut self, services: Arc<Services>) {
        self.services = services;
    }

    /// `addr` completed a handshake on TCP port `port`, which no longer speaks against it (unless the policy says
    /// that it does). Saying it again changes nothing; the source, if it was not known to have completed one there.
    pub fn complete(&mut self, addr: IpAddr, port: u16, now: Instant) -> Option<Prefix> {
        if self.guard.trusted.contains(addr) {
            return None;
        }
        let source = self.source_of(addr);
        let place = self.sources.find(&source);
        let place = place.unwrap_or_else(|| self.newcomer(source, now));
        let keep_counting = self.policy.count_completed;
        let record = self.sources.at_mut(place)?;
        let news = !record.has_completed(Asked::Port(Proto::Tcp, port));
        record.complete(port);
        if !keep_counting {
            record.clear(port, &self.limits, now);
        }
        let rank = record.rank();
        self.sources.touch(place, rank, now);
        news.then_some(source)
    }

    /// What the source of `addr` did last, if that counts toward an offence.
    pub fn latest(&self, addr: IpAddr) -> Option<(Prefix, Touch)> {
        let source = self.source_of(addr);
        match &self.sources.get(&source)?.standing {
            Standing::Watched(window) => window.latest().map(|touch| (source, touch)),
            Standing::Accused { .. } => None,
        }
    }

    /// Decides on one packet. What the kernel refused or copied counts as well, and its verdict is not used.
    pub fn judge(&mut self, probe: &Result<Probe, Unparsed>, class: Class, now: Instant) -> Decision {
        let Ok(probe) = probe else {
            // Accuses nobody; but what the host would read and we cannot is no way around us: fails closed.
            return Decision::new(drop_if(self.policy.enforce), Reason::Unparsed);
        };
        if self.guard.trusted.contains(probe.src) {
            return Decision::new(Verdict::Accept, Reason::Trusted);
        }
        if let Some(enforced) = self.banned(probe.src) {
            return Decision::new(drop_if(enforced), Reason::Banned);
        }
        let source = self.source_of(probe.src);
        let place = self.sources.find(&source);
        if let Some(decision) = place.and_then(|place| self.accused(place, now)) {
            return decision;
        }
        let Some(evidence) = self.evidence(probe, now) else {
            return Decision::new(Verdict::Accept, Reason::Harmless);
        };
        if self.is_repeated(probe, now) {
            return Decision::new(Verdict::Accept, Reason::Repeated);
        }
        let place = place.unwrap_or_else(|| self.newcomer(source, now));
        Decision {
            // What is refused nobody answers: many attempts on it are no attack on a service.
            attempt: (class != Class::Refused)
                .then(|| self.attempt(probe, source, place, now))
                .flatten(),
            ..self.count(probe, evidence, source, place, now)
        }
    }

    /// What becomes of `decision` while nothing can be written down: what would begin something new is dropped, unless
    /// its sender must not be shut out, or nothing is ever dropped here. What is open goes on.
    pub fn shut_out(&self, decision: Decision, probe: &Result<Probe, Unparsed>, class: Class) -> Decision {
        let Ok(probe) = probe else { return decision };
        let begins = match probe.transport {
            Transport::Tcp { flags, .. } => classify(flags) == ScanKind::Syn,
            _ => true,
        };
        let spared = decision.reason == Reason::Trusted || self.guard.protected.contains(probe.src);
        if class != Class::New
            || decision.verdict == Verdict::Drop
            || !begins
            || spared
            || !self.policy.enforce
        {
            return decision;
        }
        Decision {
            attempt: None,
            verdict: Verdict::Drop,
            reason: Reason::Unlogged,
            ..decision
        }
    }

    /// The analyst's word: `source` is banned until it is released. What it did before is consumed.
    pub fn ban(&mut self, source: Prefix, enforced: bool) {
        self.bans.insert(source, enforced);
        self.forget(source);
    }

    /// The ban ended, or the analyst refused it: the source is judged anew, with an empty window.
    pub fn release(&mut self, source: Prefix) {
        self.bans.remove(&source);
        self.forget(source);
    }

    /// As if `source` had never been here.
    pub fn erase(&mut self, source: Prefix) {
        self.bans.remove(&source);
        self.sources.remove(&source);
    }

    /// As if nobody had ever been here. Policy, guard and what the host answers stay.
    pub fn erase_all(&mut self) {
        self.sources = BoundedMap::reserved(self.sources.capacity());
        self.bans = PrefixMap::default();
        self.held.clear();
    }

    /// Takes in what another system saw of a source, unless it was seen here.
    pub fn learn(&mut self, memory: &Memory) {
        if self.sources.find(&memory.source).is_none() {
            self.restore(memory);
        }
    }

    /// The offence could not be told (channel full): the next packet of the source carries it again.
    pub fn unsent(&mut self, source: Prefix) {
        if let Some(place) = self.sources.find(&source)
            && let Some(Standing::Accused { told, .. }) = self.standing_mut(place)
        {
            *told = Told::Unsent;
        }
    }

    /// An offence that was held back for [`HOLD`], if none of what it is made of was completed meanwhile. To be asked
    /// again until there is none.
    pub fn due(&mut self, now: Instant) -> Option<Box<Offence>> {
        while let Some((_, source)) = self.held.front().copied().filter(|(due, _)| *due <= now) {
            self.held.pop_front();
            if let Some(place) = self.sources.find(&source)
                && let Some(Standing::Accused { offence, told }) = self.standing_mut(place)
                && *told == Told::Held
                // Else it was cleared meanwhile, and accused anew: that has its own turn.
                && now.saturating_duration_since(offence.at) >= HOLD
            {
                *told = Told::Sent;
                return Some(offence.clone());
            }
        }
        None
    }

    /// When the next offence that was held back is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.front().map(|(due, _)| *due)
    }

    /// Forgets some sources whose window is over; to be called now and then, also while no packet comes.
    pub fn expire(&mut self, now: Instant) {
        let lifetime = self.lifetime();
        self.sources.expire(lifetime, now, 1000);
    }

    /// The `n` sources with the most ports, most first.
    pub fn top(&self, n: usize, now: Instant) -> Vec<SourceView> {
        let looked_at = self.sources.worthiest().take(n.max(LOOKED_AT));
        let mut views: Vec<SourceView> = looked_at
            .map(|(source, record, _)| self.view(source, record, now))
            .collect();
        views.retain(|view| view.ports > 0);
        views.sort_by(|a, b| b.ports.cmp(&a.ports).then(a.source.cmp(&b.source)));
        views.truncate(n);
        views
    }

    /// What is known of the source that `addr` belongs to.
    pub fn source(&self, addr: IpAddr, now: Instant) -> Option<SourceDetail> {
        let source = self.source_of(addr);
        let banned = self.banned(addr).is_some();
        let record = self.sources.get(&source);
        if record.is_none() && !banned {
            return None;
        }
        let touches = record.map_or_else(Vec::new, |record| record.touches(self.limits.window, now));
        let accused = record.is_some_and(Record::is_accused);
        Some(SourceDetail {
            source,
            touches,
            banned: banned || accused,
            known: record.map(Record::acquaintance),
        })
    }

    /// Copies sources from `cursor` on (0 at first), until `limit` of them or of their ports are looked at: small
    /// enough a `limit` and no verdict waits.
    pub fn export(&self, cursor: usize, limit: usize, now: Instant) -> Exported {
        let (mut sources, mut looked_at, mut at) = (Vec::new(), 0, cursor);
        while looked_at < limit.max(1) && at < self.sources.slots() {
            let known = self.sources.slot(at);
            let memory =
                known.map(|(source, record, seen)| record.memory(*source, seen, self.limits.window, now));
            looked_at += memory.as_ref().map_or(1, |memory| memory.touches.len().max(1));
            at += 1;
            sources.extend(memory.filter(|memory| self.by_sight || memory.is_worth_keeping()));
        }
        Exported {
            sources,
            next: (at < self.sources.slots()).then_some(at),
        }
    }

    /// Takes back what a shard exported before. The evidence of a source that is banned is not taken; nor is a source
    /// that is trusted, or judged as part of another prefix by now. Nothing here makes an offence; the next packet
    /// may. Sources come in the order in which they were seen.
    pub fn restore(&mut self, memory: &Memory) {
        let (source, addr) = (memory.source, memory.source.addr());
        if self.source_of(addr) != source || self.guard.trusted.contains(addr) {
            return;
        }
        let touches = match self.banned(addr) {
            Some(_) => &[][..],
            None => &memory.touches,
        };
        if touches.is_empty() && memory.completed.is_none() && !self.by_sight {
            return;
        }
        let mut record = Record::new(memory.first_seen);
        record.completed = memory
            .completed
            .as_deref()
            .map(|ports| Box::new(Completed::of(ports)));
        if let Standing::Watched(window) = &mut record.standing {
            let touches = touches.iter();
            touches.for_each(|touch| window.restore(*touch, &self.limits));
        }
        let rank = record.rank();
        self.sources.insert(source, record, rank, memory.last_seen);
    }

    /// How many sources are remembered.
    pub fn tracked(&self) -> usize {
        self.sources.len()
    }

    /// How many sources had to be forgotten because there were too many.
    pub fn evicted(&self) -> u64 {
        self.sources.evicted()
    }

    /// Whether `addr` is under a live ban, and if so whether one of them is enforced.
    fn banned(&self, addr: IpAddr) -> Option<bool> {
        self.bans
            .covering(addr)
            .map(|(_, enforced)| *enforced)
            .reduce(|one, other| one || other)
    }

    /// What is judged and banned for `addr`.
    fn source_of(&self, addr: IpAddr) -> Prefix {
        self.guard.source_of(addr, &self.policy)
    }

    /// Drops what an accused source sends, whatever it is, until the analyst answers, and counts nothing of it.
    /// `None` if the source is not accused (any more).
    fn accused(&mut self, place: Place, now: Instant) -> Option<Decision> {
        let enforce = self.policy.enforce;
        let Some(Standing::Accused { offence, told }) = self.standing_mut(place) else {
            return None;
        };
        if now.saturating_duration_since(offence.at) >= UNANSWERED {
            self.pardon(place);
            return None;
        }
        let again = (*told == Told::Unsent).then(|| {
            *told = Told::Sent;
            offence.clone()
        });
        Some(Decision {
            offence: again,
            ..Decision::new(drop_if(enforce), Reason::Banned)
        })
    }

    fn standing_mut(&mut self, place: Place) -> Option<&mut Standing> {
        self.sources.at_mut(place).map(|record| &mut record.standing)
    }

    /// The source's window is empty from now on; how well it is known stays.
    fn pardon(&mut self, place: Place) {
        if let Some(record) = self.sources.at_mut(place) {
            record.standing = Standing::default();
            let rank = record.rank();
            self.sources.rerank(place, rank);
        }
    }

    /// What speaks against the sender of `probe`, if anything.
    fn evidence(&self, probe: &Probe, now: Instant) -> Option<Evidence> {
        if let Transport::Other(number) = probe.transport {
            let asked = is_sweepable(number).then_some(Asked::Protocol(number));
            return asked.map(|what| Evidence { what, stealth: true });
        }
        let kind = probe.kind();
        let port = match kind.is_late() {
            true => probe.port().filter(|(_, port)| self.is_out_of_place(*port, now)),
            false => probe.evidence(),
        };
        port.map(|(proto, port)| Evidence {
            what: Asked::Port(proto, port),
            stealth: kind.is_stealth(),
        })
    }

    /// Whether no honest client that lost its conntrack entry can have sent an ACK or FIN to this TCP port.
    fn is_out_of_place(&self, port: u16, now: Instant) -> bool {
        let allowed = self.policy.mode.filters_ports() && self.policy.tcp_allowed.contains(port);
        !allowed && self.services.is_silent(port, now)
    }

    /// Whether the flow was seen before: by address, ports and, for TCP, sequence number.
    fn is_repeated(&mut self, probe: &Probe, now: Instant) -> bool {
        let flow = (probe.src, probe.dst, probe.transport);
        // An IP protocol has no flows; each of its numbers counts once anyway.
        probe.port().is_some() && self.recent.seen(flow, now)
    }

    fn attempt(&self, probe: &Probe, source: Prefix, place: Place, now: Instant) -> Option<Attempt> {
        let Transport::Tcp {
            sport, dport, flags, ..
        } = probe.transport
        else {
            return None;
        };
        let known = self.sources.at(place).map(Record::acquaintance)?;
        (classify(flags) == ScanKind::Syn).then_some(Attempt {
            seen: probe.src,
            src_port: sport,
            dst: probe.dst,
            port: dport,
            source,
            first_seen: known.first_seen,
            proven: known.proven,
            at: now,
        })
    }

    fn count(
        &mut self,
        probe: &Probe,
        evidence: Evidence,
        source: Prefix,
        place: Place,
        now: Instant,
    ) -> Decision {
        let keep_counting = self.policy.count_completed;
        let Some(record) = self.sources.at_mut(place) else {
            return Decision::new(Verdict::Accept, Reason::Counted);
        };
        if !keep_counting && !evidence.stealth && record.has_completed(evidence.what) {
            let rank = record.rank();
            self.sources.touch(place, rank, now);
            return Decision::new(Verdict::Accept, Reason::Harmless);
        }
        let crossed = match &mut record.standing {
            Standing::Watched(source) => source.touch(evidence.what, evidence.stealth, &self.limits, now),
            Standing::Accused { .. } => None,
        };
        let rank = record.rank();
        self.sources.touch(place, rank, now);
        match crossed {
            Some(crossed) if !self.guard.protected.contains(probe.src) => {
                self.accuse(probe, crossed, source, place, now)
            }
            _ => Decision::new(Verdict::Accept, Reason::Counted),
        }
    }

    fn accuse(
        &mut self,
        probe: &Probe,
        crossed: Crossed,
        source: Prefix,
        place: Place,
        now: Instant,
    ) -> Decision {
        let offence = Box::new(self.offence(probe, crossed, source, place, now));
        let held = self.may_have_come(&offence) && self.held.len() < MOST_HELD;
        if held {
            self.held.push_back((now + HOLD, source));
        }
        if let Some(standing) = self.standing_mut(place) {
            *standing = Standing::Accused {
                offence: offence.clone(),
                told: if held { Told::Held } else { Told::Sent },
            };
        }
        self.sources.touch(place, HIGHEST, now);
        Decision {
            offence: (!held).then_some(offence),
            ..Decision::new(drop_if(self.policy.enforce), Reason::Offence)
        }
    }

    /// Whether handshakes may be on their way that take a port out of this offence: to be told of one takes a round
    /// trip and some milliseconds, and whoever opens eight services at once is no scanner.
    ///
    /// Who is served already may be on the way to any port: passive FTP opens one for each file, and listens on it for a
    /// moment.
    fn may_have_come(&self, offence: &Offence) -> bool {
        let answers = |port| offence.proven || self.services.answers(port);
        let may_come = |(proto, port): &(Proto, u16)| {
            *proto == Proto::Tcp && !self.policy.refuses(*proto, *port) && answers(*port)
        };
        offence.reason == BanReason::PortScanning
            && !self.policy.count_completed
            && offence.ports.iter().any(may_come)
    }

    /// How long a source of some rank is remembered after its last sign of life.
    fn lifetime(&self) -> impl Fn(u8) -> Duration + use<> {
        let proven = self.policy.forgive_after.max(self.limits.window);
        // Twice: one that comes back within the hour would else never be known for longer than an hour.
        let known = match self.by_sight {
            true => self.policy.distributed.known_after.saturating_mul(2),
            false => Duration::ZERO,
        };
        let others = self.limits.window.max(known);
        move |rank| if rank == PROVEN { proven } else { others }
    }

    fn newcomer(&mut self, source: Prefix, now: Instant) -> Place {
        // Two for each one that comes: the table shrinks without a pause.
        let lifetime = self.lifetime();
        self.sources.expire(lifetime, now, 2);
        self.sources.insert(source, Record::new(now), 0, now)
    }

    fn offence(
        &self,
        probe: &Probe,
        crossed: Crossed,
        source: Prefix,
        place: Place,
        now: Instant,
    ) -> Offence {
        let record = self.sources.at(place);
        let ports: Box<[(Proto, u16)]> = record.map_or_else(Box::default, |record| record.ports(crossed));
        let proven = record.is_some_and(|record| record.completed.is_some());
        let completed = |port: &(Proto, u16)| {
            record.is_some_and(|record| record.has_completed(Asked::Port(port.0, port.1)))
        };
        let weight = match crossed {
            Crossed::Ports(Proto::Udp) => Weight::UdpOnly,
            _ if proven && !ports.iter().any(completed) => Weight::PossiblyForged,
            _ => Weight::Full,
        };
        Offence {
            seen: probe.src,
            source,
            reason: match crossed {
                Crossed::Ports(_) => BanReason::PortScanning,
                Crossed::Stealth => BanReason::SuspiciousScanning,
            },
            kind: probe.kind(),
            ports,
            threshold: self.limits.tolerated(crossed),
            weight,
            proven,
            at: now,
        }
    }

    /// Empties the window of `source`, and of every source inside it if it is wider than one. How well they are
    /// known stays.
    fn forget(&mut self, source: Prefix) {
        self.pardon_source(&source);
        let one_source = self.policy.source_of(source.addr()).covers(&source) && !self.guard.spares(&source);
        if source.is_host() || one_source {
            return;
        }
        let inside = self
            .sources
            .worthiest()
            .map(|(inside, ..)| *inside)
            .filter(|inside| source.covers(inside));
        for inside in inside.collect::<Vec<_>>() {
            self.pardon_source(&inside);
        }
    }

    fn pardon_source(&mut self, source: &Prefix) {
        if let Some(place) = self.sources.find(source) {
            self.pardon(place);
        }
    }

    fn view(&self, source: &Prefix, record: &Record, now: Instant) -> SourceView {
        let touches = record.within(self.limits.window, now);
        let (ports, last_seen) = match &record.standing {
            Standing::Accused { offence, .. } => (offence.ports.len(), offence.at),
            Standing::Watched(_) => (touches.len(), touches.last().map_or(now, |touch| touch.at)),
        };
        SourceView {
            source: *source,
            ports: u32::try_from(ports).unwrap_or(u32::MAX),
            last_seen,
            banned: record.is_accused() || self.banned(source.addr()).is_some(),
        }
    }
}

impl Guard {
    /// Whether a ban of `source` would hit someone who must not be banned.
    pub fn spares(&self, source: &Prefix) -> bool {
        self.protected.overlaps(source) || self.trusted.overlaps(source)
    }

    /// The unit that is judged and banned: not the whole IPv6 prefix if someone in it must not be banned.
    pub fn source_of(&self, addr: IpAddr, policy: &Policy) -> Prefix {
        let source = policy.source_of(addr);
        if source.is_host() || !self.spares(&source) {
            source
        } else {
            Prefix::host(addr)
        }
    }
}

impl Decision {
    fn new(verdict: Verdict, reason: Reason) -> Decision {
        Decision {
            verdict,
            reason,
            offence: None,
            attempt: None,
        }
    }
}

/// Whether an IP protocol beside those with ports is worth counting: ICMP is everybody's, and a later fragment
/// carries the number of what it is the middle of.
fn is_sweepable(number: u8) -> bool {
    use etherparse::ip_number::{ICMP, IPV6_ICMP, TCP, UDP};
    ![ICMP, IPV6_ICMP, TCP, UDP].contains(&number.into())
}

fn drop_if(enforced: bool) -> Verdict {
    if enforced { Verdict::Drop } else { Verdict::Accept }
}

/// An accusation that nobody answered for so long is void: the analyst answers within milliseconds, or refuses
/// because of too many bans in a minute. Without an end, a lost message would cut a source off for ever.
pub const UNANSWERED: Duration = Duration::from_secs(60);
/// How long an offence waits for completed handshakes, its source's packets being dropped: longer than a round trip
/// to anywhere (a satellite's is 0.6 s), and a SYN that was dropped comes again after a second (RFC 6298).
pub const HOLD: Duration = Duration::from_millis(900);
/// Beyond so many offences at once they are told at once.
const MOST_HELD: usize = 4096;
/// Flows that one shard remembers, 12 bytes each: two minutes of 2,000 new connections a second.
const FLOWS: usize = 1 << 18;
/// How many sources `top` looks at, worthiest first, to bound the pause that it makes.
const LOOKED_AT: usize = 4096;
