//! One worker's shard: decides on every packet of the sources that the kernel's hash gives to this worker.
//!
//! Pure and alone on its data: no lock, no clock, and no allocation for a packet of a source that is known.
//! What must be known of other shards (live bans) is told from outside.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bounded::{BoundedMap, HIGHEST, Place};
use super::policy::Policy;
use super::prefix::{Prefix, PrefixSet};
use super::prefix_map::PrefixMap;
use super::probe::{Probe, Unparsed};
use super::source::{Limits, Source, Touch};
use super::verdict::{BanReason, Class, Offence, Proto, Reason, Verdict, Weight};

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
}

/// Some of the sources of a shard, as the state keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Each with what is in its window, oldest first.
    pub sources: Vec<(Prefix, Vec<Touch>)>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}

/// One shard. Its sources are bounded by its capacity, its bans by the ledger that tells them.
#[derive(Debug)]
pub struct Judge {
    policy: Arc<Policy>,
    guard: Arc<Guard>,
    limits: Limits,
    sources: BoundedMap<Prefix, Record>,
    /// Live bans, and whether the kernel enforces them.
    bans: PrefixMap<bool>,
}

#[derive(Debug)]
enum Record {
    Watched(Source),
    /// It crossed a threshold, and the analyst has not answered.
    Accused {
        offence: Box<Offence>,
        sent: bool,
    },
}

impl Judge {
    /// A shard that remembers at most `capacity` sources.
    pub fn new(policy: Arc<Policy>, guard: Arc<Guard>, capacity: usize) -> Judge {
        let limits = Limits::of(&policy);
        Judge {
            policy,
            guard,
            limits,
            sources: BoundedMap::reserved(capacity),
            bans: PrefixMap::default(),
        }
    }

    /// From the next packet on this policy holds, also for what was counted before.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.limits = Limits::of(&policy);
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
            self.sources.remove(&source);
        }
    }

    /// Decides on one packet. Its class changes nothing: what the kernel refused or copied counts as well, and
    /// its verdict is not used.
    pub fn judge(&mut self, probe: &Result<Probe, Unparsed>, _class: Class, now: Instant) -> Decision {
        let Ok(probe) = probe else {
            return Decision::new(Verdict::Accept, Reason::Unparsed); // fails open: it accuses nobody
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
        match probe.evidence() {
            Some(port) => {
                let place = place.unwrap_or_else(|| self.newcomer(source, now));
                self.count(probe, port, source, place, now)
            }
            None => Decision::new(Verdict::Accept, Reason::Harmless),
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

    /// The offence could not be told (channel full): the next packet of the source carries it again.
    pub fn unsent(&mut self, source: Prefix) {
        if let Some(place) = self.sources.find(&source)
            && let Some(Record::Accused { sent, .. }) = self.sources.at_mut(place)
        {
            *sent = false;
        }
    }

    /// Forgets some sources whose window is over; to be called now and then, also while no packet comes.
    pub fn expire(&mut self, now: Instant) {
        self.sources.expire(self.limits.window, now, 1000);
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
        })
    }

    /// Copies sources from `cursor` on (0 at first), until `limit` of them or of their ports are looked at: small
    /// enough a `limit` and no verdict waits.
    pub fn export(&self, cursor: usize, limit: usize, now: Instant) -> Exported {
        let (mut sources, mut looked_at, mut at) = (Vec::new(), 0, cursor);
        while looked_at < limit.max(1) && at < self.sources.slots() {
            let known = self.sources.slot(at);
            let touches = known.map_or_else(Vec::new, |(_, record)| record.touches(self.limits.window, now));
            looked_at += touches.len().max(1);
            at += 1;
            if let (Some((source, _)), false) = (known, touches.is_empty()) {
                sources.push((*source, touches));
            }
        }
        Exported {
            sources,
            next: (at < self.sources.slots()).then_some(at),
        }
    }

    /// Takes back what a shard exported before: `touches` oldest first. A source that is banned, trusted, or
    /// judged as part of another prefix by now is left out. Nothing here makes an offence; the next packet may.
    pub fn restore(&mut self, source: Prefix, touches: &[Touch]) {
        let addr = source.addr();
        let judged = self.source_of(addr) == source && !self.guard.trusted.contains(addr);
        let (true, None, Some(last)) = (judged, self.banned(addr), touches.last()) else {
            return;
        };
        let (mut record, mut rank) = (Record::default(), 0);
        for touch in touches {
            rank = record.touch(touch.port, &self.limits, touch.at).1;
        }
        self.sources.insert(source, record, rank, last.at);
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

    fn source_of(&self, addr: IpAddr) -> Prefix {
        self.guard.source_of(addr, &self.policy)
    }

    /// Drops what an accused source sends, whatever it is, until the analyst answers, and counts nothing of it.
    /// `None` if the source is not accused (any more).
    fn accused(&mut self, place: Place, now: Instant) -> Option<Decision> {
        let enforce = self.policy.enforce;
        let Some(Record::Accused { offence, sent }) = self.sources.at_mut(place) else {
            return None;
        };
        if now.saturating_duration_since(offence.at) >= UNANSWERED {
            self.watch_anew(place, now);
            return None;
        }
        let again = (!std::mem::replace(sent, true)).then(|| offence.clone());
        Some(Decision {
            offence: again,
            ..Decision::new(drop_if(enforce), Reason::Banned)
        })
    }

    fn watch_anew(&mut self, place: Place, now: Instant) {
        if let Some(record) = self.sources.at_mut(place) {
            *record = Record::default();
            self.sources.touch(place, 0, now);
        }
    }

    fn count(
        &mut self,
        probe: &Probe,
        port: (Proto, u16),
        source: Prefix,
        place: Place,
        now: Instant,
    ) -> Decision {
        let Some(record) = self.sources.at_mut(place) else {
            return Decision::new(Verdict::Accept, Reason::Counted);
        };
        let (crossed, rank) = record.touch(port, &self.limits, now);
        if !crossed || self.guard.protected.contains(probe.src) {
            self.sources.touch(place, rank, now);
            return Decision::new(Verdict::Accept, Reason::Counted);
        }
        let offence = Box::new(self.offence(probe, port.0, source, place, now));
        if let Some(record) = self.sources.at_mut(place) {
            *record = Record::Accused {
                offence: offence.clone(),
                sent: true,
            };
        }
        self.sources.touch(place, HIGHEST, now);
        Decision {
            offence: Some(offence),
            ..Decision::new(drop_if(self.policy.enforce), Reason::Offence)
        }
    }

    fn newcomer(&mut self, source: Prefix, now: Instant) -> Place {
        // Two for each one that comes: the table shrinks without a pause.
        self.sources.expire(self.limits.window, now, 2);
        self.sources.insert(source, Record::default(), 0, now)
    }

    fn offence(&self, probe: &Probe, proto: Proto, source: Prefix, place: Place, now: Instant) -> Offence {
        Offence {
            seen: probe.src,
            source,
            reason: BanReason::PortScanning,
            kind: probe.kind(),
            ports: self
                .sources
                .at(place)
                .map_or_else(Box::default, |record| record.ports(proto)),
            threshold: self.limits.tolerated(proto),
            weight: if proto == Proto::Udp {
                Weight::UdpOnly
            } else {
                Weight::Full
            },
            proven: false,
            at: now,
        }
    }

    /// Empties the window of `source`, and of every source inside it if it is wider than one.
    fn forget(&mut self, source: Prefix) {
        self.sources.remove(&source);
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
            self.sources.remove(&inside);
        }
    }

    fn view(&self, source: &Prefix, record: &Record, now: Instant) -> SourceView {
        let touches = record.within(self.limits.window, now);
        let (ports, last_seen) = match record {
            Record::Accused { offence, .. } => (offence.ports.len(), offence.at),
            Record::Watched(_) => (touches.len(), touches.last().map_or(now, |touch| touch.at)),
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
        }
    }
}

impl Default for Record {
    fn default() -> Record {
        Record::Watched(Source::default())
    }
}

impl Record {
    fn is_accused(&self) -> bool {
        matches!(self, Record::Accused { .. })
    }

    /// Whether that was too much, and what the source is worth remembering: the more ports, the more.
    fn touch(&mut self, port: (Proto, u16), limits: &Limits, now: Instant) -> (bool, u8) {
        let Record::Watched(source) = self else {
            return (false, HIGHEST);
        };
        let crossed = source.touch(port, limits, now);
        let more = source.len().saturating_sub(1);
        (
            crossed,
            u8::try_from(more).map_or(HIGHEST - 1, |more| more.min(HIGHEST - 1)),
        )
    }

    fn within(&self, window: Duration, now: Instant) -> &[Touch] {
        match self {
            Record::Watched(source) => source.within(window, now),
            Record::Accused { .. } => &[],
        }
    }

    fn touches(&self, window: Duration, now: Instant) -> Vec<Touch> {
        match self {
            Record::Watched(source) => source.within(window, now).to_vec(),
            Record::Accused { offence, .. } => offence
                .ports
                .iter()
                .map(|port| Touch {
                    port: *port,
                    at: offence.at,
                })
                .collect(),
        }
    }

    fn ports(&self, proto: Proto) -> Box<[(Proto, u16)]> {
        match self {
            Record::Watched(source) => source.ports(proto).collect(),
            Record::Accused { offence, .. } => offence.ports.clone(),
        }
    }
}

fn drop_if(enforced: bool) -> Verdict {
    if enforced { Verdict::Drop } else { Verdict::Accept }
}

/// An accusation that nobody answered for so long is void: the analyst answers within milliseconds, or refuses
/// because of too many bans in a minute. Without an end, a lost message would cut a source off for ever.
pub const UNANSWERED: Duration = Duration::from_secs(60);
/// How many sources `top` looks at, worthiest first, to bound the pause that it makes.
const LOOKED_AT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::attack::Distributed;
    use super::super::ladder::Ladder;
    use super::super::policy::{Mode, OtherProtocols};
    use super::super::ports::PortSet;
    use super::super::probe::{TcpFlags, Transport};
    use super::super::scan::ScanKind;
    use super::*;

    const SCANNER: &str = "192.0.2.7";
    const HOUR: Duration = Duration::from_secs(3600);

    /// A judge and the time, which moves by hand.
    struct Bench {
        judge: Judge,
        policy: Policy,
        now: Instant,
    }

    impl Bench {
        fn new(change: impl FnOnce(&mut Policy)) -> Bench {
            Bench::guarded(change, &[], &[])
        }

        fn guarded(change: impl FnOnce(&mut Policy), trusted: &[&str], protected: &[&str]) -> Bench {
            let mut policy = standard();
            change(&mut policy);
            let judge = Judge::new(Arc::new(policy.clone()), Arc::new(guard(trusted, protected)), 64);
            Bench {
                judge,
                policy,
                now: Instant::now(),
            }
        }

        fn send(&mut self, src: &str, transport: Transport) -> Decision {
            let dst = Ipv4Addr::new(198, 51, 100, 1).into();
            self.now += Duration::from_millis(1);
            self.judge.judge(
                &Ok(Probe {
                    src: src.parse().unwrap(),
                    dst,
                    transport,
                }),
                Class::New,
                self.now,
            )
        }

        fn syn(&mut self, src: &str, port: u16) -> Decision {
            self.send(src, tcp(port, TcpFlags::SYN))
        }

        fn udp(&mut self, src: &str, port: u16) -> Decision {
            self.send(
                src,
                Transport::Udp {
                    sport: 40000,
                    dport: port,
                },
            )
        }

        /// Scans ports from 1 on until one is an offence.
        fn scan(&mut self, src: &str) -> Box<Offence> {
            (1..100)
                .find_map(|port| self.syn(src, port).offence)
                .expect("100 ports are an offence")
        }
    }

    fn tcp(dport: u16, flags: TcpFlags) -> Transport {
        Transport::Tcp {
            sport: 40000,
            dport,
            flags,
            seq: 1,
        }
    }

    fn standard() -> Policy {
        Policy {
            mode: Mode::DetectionOnly,
            preset: "standard".into(),
            enforce: true,
            ports_threshold: 7,
            udp_ports_threshold: 28,
            stealth_threshold: 3,
            count_completed: false,
            window: 2 * HOUR,
            ladder: Ladder::new(vec![HOUR]).unwrap(),
            forgive_after: 720 * HOUR,
            jitter: false,
            unproven_cap: None,
            distributed: Distributed::default(),
            max_bans_per_minute: 600,
            tcp_allowed: PortSet::default(),
            udp_allowed: PortSet::default(),
            other_protocols: OtherProtocols::Pass,
            trusted: PrefixSet::default(),
            v6_prefix: 64,
            max_sources: 64,
        }
    }

    fn guard(trusted: &[&str], protected: &[&str]) -> Guard {
        let set = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect();
        Guard {
            trusted: set(trusted),
            protected: set(protected),
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn outcome(decision: &Decision) -> (Verdict, Reason) {
        (decision.verdict, decision.reason)
    }

    const COUNTED: (Verdict, Reason) = (Verdict::Accept, Reason::Counted);
    const BANNED: (Verdict, Reason) = (Verdict::Drop, Reason::Banned);

    #[test]
    fn the_eighth_port_is_the_offence_and_is_dropped_itself() {
        let mut bench = Bench::new(|_| ());
        for port in 1..=7 {
            assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED, "{port}");
        }
        let decision = bench.syn(SCANNER, 8);
        assert_eq!(outcome(&decision), (Verdict::Drop, Reason::Offence));
        let offence = decision.offence.unwrap();
        assert_eq!(
            offence.ports[..],
            (1..=8).map(|port| (Proto::Tcp, port)).collect::<Vec<_>>()[..]
        );
        assert_eq!(
            (offence.source, offence.seen),
            (prefix(SCANNER), SCANNER.parse().unwrap())
        );
        assert_eq!(
            (offence.threshold, offence.weight, offence.kind),
            (7, Weight::Full, ScanKind::Syn)
        );
        assert_eq!((offence.reason, offence.at), (BanReason::PortScanning, bench.now));
    }

    #[test]
    fn one_scan_is_one_offence_while_it_is_decided_and_while_the_ban_lives() {
        let mut bench = Bench::new(|_| ());
        let offence = bench.scan(SCANNER);
        for port in 100..200 {
            let decision = bench.syn(SCANNER, port);
            assert_eq!((outcome(&decision), decision.offence), (BANNED, None));
        }
        assert_eq!(outcome(&bench.send(SCANNER, Transport::Icmp)), BANNED);
        bench.judge.ban(offence.source, true);
        for port in 200..300 {
            let decision = bench.syn(SCANNER, port);
            assert_eq!((outcome(&decision), decision.offence), (BANNED, None));
        }
        assert_eq!(outcome(&bench.syn("192.0.2.8", 1)), COUNTED);
    }

    #[test]
    fn the_window_is_empty_after_a_ban() {
        let mut bench = Bench::new(|_| ());
        let source = bench.scan(SCANNER).source;
        bench.judge.ban(source, true);
        bench.judge.release(source);
        for port in 1..=7 {
            assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED);
        }
        assert_eq!(bench.syn(SCANNER, 8).reason, Reason::Offence);
        bench.judge.release(source); // refused by the analyst
        assert_eq!(outcome(&bench.syn(SCANNER, 9)), COUNTED);
    }

    #[test]
    fn what_could_not_be_told_is_told_again_once() {
        let mut bench = Bench::new(|_| ());
        let first = bench.scan(SCANNER);
        bench.judge.unsent(first.source);
        let again = bench.send(SCANNER, Transport::Icmp);
        assert_eq!((outcome(&again), again.offence), (BANNED, Some(first)));
        assert_eq!(bench.syn(SCANNER, 99).offence, None);
    }

    #[test]
    fn an_accusation_without_an_answer_ends() {
        let mut bench = Bench::new(|_| ());
        bench.scan(SCANNER);
        bench.now += UNANSWERED - Duration::from_secs(1);
        assert_eq!(outcome(&bench.syn(SCANNER, 1)), BANNED);
        bench.now += Duration::from_secs(1);
        assert_eq!(outcome(&bench.syn(SCANNER, 1)), COUNTED);
        assert_eq!(bench.judge.top(1, bench.now)[0].ports, 1);
    }

    #[test]
    fn nothing_is_dropped_when_nothing_is_enforced() {
        let mut bench = Bench::new(|policy| policy.enforce = false);
        let decision = (1..=8).map(|port| bench.syn(SCANNER, port)).last().unwrap();
        assert_eq!(outcome(&decision), (Verdict::Accept, Reason::Offence));
        assert_eq!(outcome(&bench.syn(SCANNER, 9)), (Verdict::Accept, Reason::Banned));
        bench.judge.ban(prefix(SCANNER), false);
        assert_eq!(
            outcome(&bench.syn(SCANNER, 10)),
            (Verdict::Accept, Reason::Banned)
        );
        bench.judge.ban(prefix("192.0.2.0/24"), true); // an operator's ban holds in every mode
        assert_eq!(outcome(&bench.syn(SCANNER, 10)), BANNED);
    }

    #[test]
    fn trusted_sources_are_not_looked_at_even_when_banned() {
        let mut bench = Bench::guarded(|_| (), &["192.0.2.0/24"], &[]);
        bench.judge.ban(prefix(SCANNER), true);
        for port in 1..100 {
            assert_eq!(
                outcome(&bench.syn(SCANNER, port)),
                (Verdict::Accept, Reason::Trusted)
            );
        }
        assert_eq!(bench.judge.tracked(), 0);
    }

    #[test]
    fn protected_sources_are_counted_and_never_an_offence() {
        let mut bench = Bench::guarded(|_| (), &[], &[SCANNER]);
        for port in 1..100 {
            assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED);
        }
        assert_eq!(bench.judge.top(1, bench.now)[0].ports, 8);
    }

    #[test]
    fn who_becomes_protected_is_not_accused_any_more() {
        let mut bench = Bench::new(|_| ());
        bench.scan(SCANNER);
        bench.scan("192.0.2.8");
        bench.judge.set_guard(Arc::new(guard(&[], &[SCANNER])));
        assert_eq!(outcome(&bench.syn(SCANNER, 1)), COUNTED);
        assert_eq!(outcome(&bench.syn("192.0.2.8", 1)), BANNED);
    }

    #[test]
    fn an_ipv6_source_is_its_prefix_unless_someone_in_it_is_protected() {
        let mut bench = Bench::guarded(|_| (), &[], &["2001:db8:0:2::1"]);
        for port in 1..=7u16 {
            assert_eq!(
                outcome(&bench.syn(&format!("2001:db8:0:1::{port}"), port)),
                COUNTED
            );
            assert_eq!(
                outcome(&bench.syn(&format!("2001:db8:0:2::{port}"), port)),
                COUNTED
            );
        }
        assert_eq!(
            bench.syn("2001:db8:0:1::9", 9).offence.unwrap().source,
            prefix("2001:db8:0:1::/64")
        );
        assert_eq!(outcome(&bench.syn("2001:db8:0:2::9", 9)), COUNTED);
        assert_eq!(bench.scan("2001:db8:0:2::9").source, prefix("2001:db8:0:2::9"));
        assert_eq!(outcome(&bench.syn("2001:db8:0:2::1", 9)), COUNTED);
    }

    #[test]
    fn udp_has_its_own_threshold() {
        let mut bench = Bench::new(|_| ());
        for port in 33434..=33534 {
            assert_eq!(
                outcome(&bench.udp(SCANNER, port)),
                (Verdict::Accept, Reason::Harmless)
            );
        }
        for port in 1..=28 {
            assert_eq!(outcome(&bench.udp(SCANNER, port)), COUNTED);
        }
        let offence = bench.udp(SCANNER, 29).offence.unwrap();
        assert_eq!(
            (offence.weight, offence.threshold, offence.ports.len()),
            (Weight::UdpOnly, 28, 29)
        );
    }

    #[test]
    fn stealth_probes_count_and_answers_do_not() {
        let mut bench = Bench::new(|_| ());
        for flags in [TcpFlags(0x12), TcpFlags(0x10), TcpFlags(0x04), TcpFlags(0x11)] {
            for port in 1..100 {
                let decision = bench.send(SCANNER, tcp(port, flags));
                assert_eq!(outcome(&decision), (Verdict::Accept, Reason::Harmless));
            }
        }
        let last = (1..=8)
            .map(|port| bench.send(SCANNER, tcp(port, TcpFlags(0))))
            .last()
            .unwrap();
        assert_eq!(last.offence.unwrap().kind, ScanKind::Null);
    }

    #[test]
    fn what_cannot_be_read_passes() {
        let mut bench = Bench::new(|_| ());
        let decision = bench.judge.judge(&Err(Unparsed::Empty), Class::Odd, bench.now);
        assert_eq!(outcome(&decision), (Verdict::Accept, Reason::Unparsed));
    }

    #[test]
    fn a_wide_ban_holds_each_address_and_consumes_their_evidence() {
        let mut bench = Bench::new(|_| ());
        for port in 1..=7 {
            let _ = bench.syn(SCANNER, port);
            let _ = bench.syn("192.0.3.7", port);
        }
        bench.judge.ban(prefix("192.0.2.0/24"), true);
        assert_eq!(outcome(&bench.syn(SCANNER, 8)), BANNED);
        assert_eq!(outcome(&bench.syn("192.0.2.200", 8)), BANNED);
        bench.judge.release(prefix("192.0.2.0/24"));
        assert_eq!(outcome(&bench.syn(SCANNER, 8)), COUNTED);
        assert_eq!(bench.syn("192.0.3.7", 8).reason, Reason::Offence);
    }

    #[test]
    fn a_new_policy_holds_from_the_next_packet_on() {
        let mut bench = Bench::new(|_| ());
        for port in 1..=5 {
            let _ = bench.syn(SCANNER, port);
        }
        bench.policy.ports_threshold = 3;
        bench.judge.set_policy(Arc::new(bench.policy.clone()));
        let offence = bench.syn(SCANNER, 5).offence.unwrap();
        assert_eq!((offence.threshold, offence.ports.len()), (3, 4));
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_spares_who_has_more_evidence() {
        let mut bench = Bench::new(|_| ());
        for port in 1..=7 {
            let _ = bench.syn(SCANNER, port);
        }
        let accused = bench.scan("192.0.2.8").source;
        for i in 0..10_000u32 {
            let _ = bench.syn(&Ipv4Addr::from(0x0a00_0000 + i).to_string(), 80);
        }
        assert_eq!(bench.judge.tracked(), 64);
        assert_eq!(bench.judge.evicted(), 10_000 + 2 - 64);
        assert_eq!(bench.syn(SCANNER, 8).reason, Reason::Offence);
        assert_eq!(outcome(&bench.syn(&accused.to_string(), 8)), BANNED);
    }

    #[test]
    fn idle_sources_are_forgotten_as_others_come() {
        let mut bench = Bench::new(|_| ());
        for i in 0..40u8 {
            let _ = bench.syn(&format!("192.0.2.{i}"), 80);
        }
        bench.now += 2 * HOUR;
        for i in 0..20u8 {
            let _ = bench.syn(&format!("198.51.100.{i}"), 80);
        }
        assert_eq!((bench.judge.tracked(), bench.judge.evicted()), (20, 0));
        bench.judge.expire(bench.now + 2 * HOUR);
        assert_eq!(bench.judge.tracked(), 0);
    }

    #[test]
    fn the_top_shows_most_ports_first_and_explain_shows_them_all() {
        let mut bench = Bench::new(|_| ());
        for (source, ports) in [("192.0.2.1", 2), ("192.0.2.2", 5), ("192.0.2.3", 1)] {
            for port in 1..=ports {
                let _ = bench.syn(source, port);
            }
        }
        bench.scan("192.0.2.4");
        let top: Vec<_> = bench
            .judge
            .top(3, bench.now)
            .into_iter()
            .map(|view| (view.ports, view.banned))
            .collect();
        assert_eq!(top, [(8, true), (5, false), (2, false)]);
        let detail = bench
            .judge
            .source("192.0.2.1".parse().unwrap(), bench.now)
            .unwrap();
        assert_eq!((detail.touches.len(), detail.banned), (2, false));
        assert!(
            bench
                .judge
                .source("192.0.2.9".parse().unwrap(), bench.now)
                .is_none()
        );
        bench.judge.ban(prefix("192.0.2.9"), true);
        assert!(
            bench
                .judge
                .source("192.0.2.9".parse().unwrap(), bench.now)
                .unwrap()
                .banned
        );
    }

    /// Everything a shard exports, `limit` at a time.
    fn exported(judge: &Judge, limit: usize, now: Instant) -> Vec<(Prefix, Vec<Touch>)> {
        let (mut sources, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let some = judge.export(at, limit, now);
            sources.extend(some.sources);
            cursor = some.next;
        }
        sources
    }

    #[test]
    fn half_done_scans_go_on_in_the_next_shard() {
        let mut bench = Bench::new(|_| ());
        (1..=5).for_each(|port| drop(bench.syn(SCANNER, port)));
        bench.now += HOUR;
        let _ = bench.udp("192.0.2.8", 53);
        for limit in [1, 2, 1000] {
            let sources = exported(&bench.judge, limit, bench.now);
            assert_eq!(
                sources
                    .iter()
                    .map(|(_, touches)| touches.len())
                    .collect::<Vec<_>>(),
                [5, 1]
            );
        }
        let before = exported(&bench.judge, 1, bench.now);
        bench.judge = Bench::new(|_| ()).judge;
        before
            .iter()
            .for_each(|(source, touches)| bench.judge.restore(*source, touches));
        assert_eq!(exported(&bench.judge, 1, bench.now), before);
        assert_eq!(outcome(&bench.syn(SCANNER, 5)), COUNTED);
        assert_eq!(outcome(&bench.syn(SCANNER, 6)), COUNTED);
        bench.now += HOUR; // ports 1 to 4 leave the window, 5 was renewed
        assert_eq!(outcome(&bench.syn(SCANNER, 7)), COUNTED);
        let offences = (8..20).filter(|port| bench.syn(SCANNER, *port).offence.is_some());
        assert_eq!(offences.take(1).collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn an_unanswered_accusation_comes_back_as_the_ports_that_made_it() {
        let mut bench = Bench::new(|_| ());
        bench.scan(SCANNER);
        let before = exported(&bench.judge, 9, bench.now);
        bench.judge = Bench::new(|_| ()).judge;
        bench.judge.restore(before[0].0, &before[0].1);
        assert_eq!(bench.syn(SCANNER, 8).reason, Reason::Offence);
    }

    #[test]
    fn what_is_banned_trusted_or_judged_otherwise_by_now_does_not_come_back() {
        let mut bench = Bench::guarded(|_| (), &["10.0.0.0/8"], &["2001:db8::1"]);
        bench.judge.ban(prefix("192.0.2.0/24"), true);
        let touches = [Touch {
            port: (Proto::Tcp, 22),
            at: bench.now,
        }];
        for source in [
            "192.0.2.7",
            "10.0.0.1",
            "2001:db8::/64",
            "2001:db8:1::/56",
            "198.51.100.0/24",
        ] {
            bench.judge.restore(prefix(source), &touches);
        }
        bench.judge.restore(prefix("198.51.100.1"), &[]);
        assert_eq!(bench.judge.tracked(), 0);
        for source in ["2001:db8::2", "2001:db8:1::/64", "198.51.100.1"] {
            bench.judge.restore(prefix(source), &touches);
        }
        assert_eq!(bench.judge.tracked(), 3);
    }
}
