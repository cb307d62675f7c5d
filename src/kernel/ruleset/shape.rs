//! Which sets, chains and rules a table has: the two shapes of DESIGN §2, rule by rule, in the order in which
//! packets meet them.
//!
//! The order is the policy: answers to what the host began pass before any ban, a ban holds before anything
//! else passes, and what is refused is dropped here in the kernel, whether or not an engine runs.

use super::alive;
use super::model::{Chain, CtState, Rule, Set, Source, Step};
use super::spec::{Family, Spec, ban_set_name};
use super::{INVALID_BURST, INVALID_PER_SECOND};
use crate::core::policy::{OnLoss, OtherProtocols};
use crate::core::probe::TcpFlags;
use crate::core::verdict::Proto;
use crate::kernel::log::Fate;

/// Sets of the table, in the order in which they are made.
pub(super) fn sets(spec: &Spec) -> Vec<Set> {
    let bans = spec.ban_sets().into_iter().map(|(family, len)| {
        let what = if len == family.width() {
            "banned addresses".into()
        } else {
            format!("banned prefixes of length {len}")
        };
        Set::bans(ban_set_name(family, len), family, spec.ban_set_size, what)
    });
    let mut sets: Vec<Set> = bans.collect();
    for (family, name) in [(Family::V4, "trusted4"), (Family::V6, "trusted6")] {
        sets.push(Set::networks(
            name,
            family,
            &spec.trusted,
            "neither counted nor banned",
        ));
    }
    if spec.filter_ports {
        sets.push(Set::ports("tcp_allowed", &spec.tcp_allowed, "open TCP ports"));
        sets.push(Set::ports("udp_allowed", &spec.udp_allowed, "open UDP ports"));
    }
    for family in Family::ALL {
        let evidence = Limit::Evidence.set(family);
        sets.push(Set::limits(evidence, family, "rate of evidence, per source"));
    }
    if passes_other_protocols(spec) {
        for family in Family::ALL {
            let other = Limit::OtherProtocols.set(family);
            sets.push(Set::limits(other, family, "rate of other protocols, per source"));
        }
    }
    if spec.has_switch() {
        sets.push(Set::alive(spec.layout.workers));
    }
    sets
}

fn passes_other_protocols(spec: &Spec) -> bool {
    !spec.filter_ports || spec.other_protocols == OtherProtocols::Pass
}

/// Chains of the table, those that are gone to before those that go.
pub(super) fn chains(spec: &Spec) -> Vec<Chain> {
    if spec.observing {
        observing(spec)
    } else {
        enforcing(spec)
    }
}

fn enforcing(spec: &Spec) -> Vec<Chain> {
    let workers = 0..spec.layout.workers;
    let mut chains = Vec::new();
    if spec.has_switch() {
        chains.extend([unjudged(), pulse()]);
    }
    chains.extend(
        workers
            .clone()
            .map(|w| queue(spec, "q", w, spec.layout.new_queue(w), "new flows")),
    );
    chains.extend(
        workers
            .clone()
            .map(|w| queue(spec, "i", w, spec.layout.odd_queue(w), "odd packets")),
    );
    chains.push(ask_new(spec));
    chains.push(ask_odd(spec));
    if spec.filter_ports {
        chains.extend(workers.clone().map(|w| copy(spec, w, Fate::Refused)));
        chains.push(refuse(spec));
    }
    if passes_other_protocols(spec) {
        chains.extend(workers.map(|w| copy(spec, w, Fate::Passed)));
        chains.push(other(spec));
    }
    chains.push(raw(spec));
    chains.push(pre_enforcing(spec));
    chains
}

fn observing(spec: &Spec) -> Vec<Chain> {
    let mut chains: Vec<Chain> = (0..spec.layout.workers)
        .map(|w| copy(spec, w, Fate::Passed))
        .collect();
    chains.push(watch(spec));
    chains.push(other(spec));
    chains.push(cut(spec));
    chains.push(raw(spec));
    chains.push(pre_observing(spec));
    chains
}

/// SYNs of banned sources end before conntrack sees them: a flood costs almost nothing.
fn raw(spec: &Spec) -> Chain {
    let rules = banned(spec).map(|(source, set)| {
        let steps = [bare_syn(), Step::SourceIn(source, set), Step::Counter, Step::Drop];
        Rule::new("banned", steps)
    });
    Chain {
        name: "raw".into(),
        priority: Some(RAW_PRIORITY),
        comment: "before conntrack".into(),
        rules: rules.collect(),
    }
}

fn pre_enforcing(spec: &Spec) -> Chain {
    use Step::*;
    let mut rules = match spec.has_switch() {
        true => always_passes(Goto("pulse")),
        false => always_passes(Accept),
    };
    rules.push(Rule::new(
        "answers to what this host or a guest began",
        [CtReply, Accept],
    ));
    rules.extend(
        banned(spec).map(|(source, set)| Rule::new("banned", [SourceIn(source, set), Counter, Drop])),
    );
    let open = &[CtState::Established, CtState::Related];
    rules.push(Rule::new("judged when it began", [Step::Ct(open), Accept]));
    rules.push(not_local());
    rules.extend(internal(spec));
    rules.extend(own_sockets(spec));
    rules.extend(dhcp());
    if spec.filter_ports {
        for (proto, set) in [(Proto::Tcp, "tcp_allowed"), (Proto::Udp, "udp_allowed")] {
            rules.push(Rule::new(
                "port not allowed",
                [DportNotIn { proto, set }, Goto("refuse")],
            ));
        }
    }
    rules.push(if passes_other_protocols(spec) {
        other_protocols_pass()
    } else {
        Rule::new("other protocols: refused", [NotTcpOrUdp, Counter, Goto("refuse")])
    });
    rules.extend(trusted());
    rules.push(Rule::new(
        "to the verdict queues",
        [Step::Ct(&[CtState::New]), Goto("ask_new")],
    ));
    let odd = &[CtState::Invalid, CtState::Untracked];
    rules.push(Rule::new(
        "to the verdict queues",
        [Step::Ct(odd), Goto("ask_odd")],
    ));
    pre("after conntrack", rules)
}

/// No conntrack here: the first ct rule of a namespace switches it on, and on a machine at its limit that
/// alone cuts connections. Nor are fragments put together. What is evidence is told by flags, and a first fragment of
/// TCP may hide them; UDP cannot be told from answers and is left out.
fn pre_observing(spec: &Spec) -> Chain {
    use Step::*;
    let mut rules = always_passes(Accept);
    rules.push(not_local());
    rules.extend(later_fragments());
    rules.extend(dhcp());
    rules.extend(banned(spec).map(|(source, set)| Rule::new("banned", [SourceIn(source, set), Goto("cut")])));
    rules.extend(internal(spec));
    rules.extend(trusted());
    let syn = flags(SYN | ACK, SYN);
    let bare = flags(SYN | RST | ACK, 0);
    rules.push(Rule::new("SYN, SYN+FIN, SYN+RST", [syn, Goto("watch")]));
    for (name, third) in [("SYN+FIN+ACK", FIN), ("SYN+RST+ACK", RST)] {
        let all = flags(SYN | ACK | third, SYN | ACK | third);
        rules.push(Rule::new(name, [all, Goto("watch")]));
    }
    rules.push(Rule::new("NULL, FIN, XMAS", [bare, Goto("watch")]));
    rules.extend(Family::ALL.map(|family| {
        Rule::new(
            "flags in a later fragment",
            [FirstFragment(family), Goto("watch")],
        )
    }));
    rules.push(other_protocols_pass());
    pre("without conntrack: nothing is held, nothing refused", rules)
}

/// Nothing comes of them without the first one, and in these nft would read ports and flags where none are
/// (6.18: of IPv6 in the IP header itself).
fn later_fragments() -> [Rule; 2] {
    Family::ALL.map(|family| {
        Rule::new(
            "judged by the first fragment",
            [Step::LaterFragment(family), Step::Accept],
        )
    })
}

fn other_protocols_pass() -> Rule {
    use Step::*;
    Rule::new("other protocols: pass", [NotTcpOrUdp, Counter, Goto("other")])
}

fn pre(comment: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: "pre".into(),
        priority: Some(PRE_PRIORITY),
        comment: comment.into(),
        rules,
    }
}

/// What no policy and no ban may stop: without it the host loses its network.
fn always_passes(loopback: Step) -> Vec<Rule> {
    use Step::*;
    vec![
        Rule::new("loopback", [Interface("lo".into()), loopback]),
        Rule::new("neighbours, multicast listeners, path MTU", [Vital6, Accept]),
        Rule::new("path MTU", [FragmentationNeeded, Accept]),
    ]
}

/// Forwarded and bridged packets, broadcast and multicast. Published ports are still addressed to the host
/// here, before DNAT.
fn not_local() -> Rule {
    Rule::new("not addressed to this host", [Step::NotLocal, Step::Accept])
}

fn internal(spec: &Spec) -> impl Iterator<Item = Rule> + '_ {
    let names = spec.internal_interfaces.iter();
    names.map(|name| {
        Rule::new(
            "guests and containers",
            [Step::Interface(name.clone()), Step::Accept],
        )
    })
}

/// Connections that the host opened before conntrack woke (first start, `conntrack -F`), told by their socket.
/// ACK is asked for: a listener bound to one address is no wildcard either, and NULL, FIN or XMAS toward it
/// are to be judged.
fn own_sockets(spec: &Spec) -> [Rule; 2] {
    use Step::*;
    let older = flags(SYN | ACK, ACK);
    let answer = Dport {
        proto: Proto::Udp,
        range: spec.ephemeral,
        within: true,
    };
    [
        Rule::new("connections older than conntrack", [older, OwnSocket, Accept]),
        Rule::new("answers older than conntrack", [answer, OwnSocket, Accept]),
    ]
}

fn dhcp() -> [Rule; 2] {
    use Step::*;
    let v4 = UdpPorts { sport: 67, dport: 68 };
    let v6 = UdpPorts {
        sport: 547,
        dport: 546,
    };
    [
        Rule::new("DHCP answers", [v4, Accept]),
        Rule::new("DHCPv6 answers", [LinkLocalSource, v6, Accept]),
    ]
}

fn trusted() -> [Rule; 2] {
    [(Family::V4, "trusted4"), (Family::V6, "trusted6")].map(|(family, set)| {
        let whole = Source {
            family,
            len: family.width(),
        };
        Rule::new("trusted", [Step::SourceIn(whole, set.into()), Step::Accept])
    })
}

/// Drops what a port filter refuses; a bounded number of copies is evidence. A full set of limits lets more
/// copies through, never the packet.
fn refuse(spec: &Spec) -> Chain {
    let mut rules = vec![Rule::new("refused", [Step::Counter])];
    let limit = Limit::Evidence;
    rules.extend(over_limit(
        spec,
        limit,
        None,
        "refused, over the rate of evidence",
        Step::Drop,
    ));
    rules.extend(split(spec, "l"));
    rules.push(Rule::new("refused, whatever became of its copy", [Step::Drop]));
    chain(
        "refuse",
        "refused ports: a copy to the engine, the packet dropped",
        rules,
    )
}

fn watch(spec: &Spec) -> Chain {
    let limit = Limit::Evidence;
    let mut rules = over_limit(
        spec,
        limit,
        None,
        "passes, over the rate of evidence",
        Step::Accept,
    );
    rules.extend(split(spec, "p"));
    chain(
        "watch",
        "evidence: a copy to the engine, the packet passes",
        rules,
    )
}

/// A sweep over IP protocols is seen by copies. Their limit is one of their own: a tunnel without answers is any
/// number of packets a second, and must not use up the looks at what else comes from its end.
fn other(spec: &Spec) -> Chain {
    let mut rules = vec![Rule::new("no evidence", [Step::Icmp, Step::Accept])];
    rules.extend(trusted());
    let limit = Limit::OtherProtocols;
    rules.extend(over_limit(
        spec,
        limit,
        None,
        "passes, over the rate of evidence",
        Step::Accept,
    ));
    rules.extend(split(spec, "p"));
    chain(
        "other",
        "other protocols: a copy to the engine, the packet passes",
        rules,
    )
}

/// A ban without conntrack: what can begin something new is dropped, what may be an answer to the host's own
/// connections passes.
fn cut(spec: &Spec) -> Chain {
    use Step::*;
    let outside = |proto| Dport {
        proto,
        range: spec.ephemeral,
        within: false,
    };
    let dropped = |comment: &str, step: Step| Rule::new(comment, [step, Counter, Drop]);
    let rules = vec![
        dropped("banned, no answer to this host", outside(Proto::Tcp)),
        dropped("banned, no answer to this host", outside(Proto::Udp)),
        dropped("banned: NULL, FIN, XMAS", flags(SYN | RST | ACK, 0)),
        dropped("banned: SYN+FIN", flags(SYN | FIN, SYN | FIN)),
        dropped("banned: flags in a later fragment", FirstFragment(Family::V4)),
        dropped("banned: flags in a later fragment", FirstFragment(Family::V6)),
        dropped("banned: ping", EchoRequest(Family::V4)),
        dropped("banned: ping", EchoRequest(Family::V6)),
    ];
    chain("cut", "banned sources, told without conntrack", rules)
}

fn ask_new(spec: &Spec) -> Chain {
    chain(
        "ask_new",
        "new flows to the queue of their source",
        split(spec, "q"),
    )
}

/// Invalid packets come at any rate from anybody and are worth only so many looks, of one source and in all: forged
/// sources fill the set of limits, and then each of their packets is a new one. Untracked packets may be an
/// operator's `notrack` service; they are never cut, and wait in the same queue.
fn ask_odd(spec: &Spec) -> Chain {
    let invalid = || Step::Ct(&[CtState::Invalid]);
    let limit = Limit::Evidence;
    let mut rules = over_limit(
        spec,
        limit,
        Some(invalid()),
        "invalid, over the rate of evidence",
        Step::Drop,
    );
    let workers = spec.layout.workers;
    let over = Step::OverRate {
        per_second: INVALID_PER_SECOND * u64::from(workers),
        burst: INVALID_BURST * u32::from(workers),
    };
    rules.push(Rule::new(
        "invalid, over the rate of all",
        [invalid(), over, Step::Counter, Step::Drop],
    ));
    rules.extend(split(spec, "i"));
    chain(
        "ask_odd",
        "invalid and untracked packets to the queue of their source",
        rules,
    )
}

fn over_limit(spec: &Spec, limit: Limit, first: Option<Step>, comment: &str, end: Step) -> Vec<Rule> {
    let rule = |family| {
        let len = match family {
            Family::V4 => 32,
            // Longer prefixes would give one owner of a /64 as many limits as it likes.
            Family::V6 => spec.v6_prefix.min(64),
        };
        let over = Step::OverLimit(Source { family, len }, limit.set(family));
        let steps = first.iter().cloned().chain([over, Step::Counter, end.clone()]);
        Rule::new(comment, steps)
    };
    Family::ALL.map(rule).into()
}

fn split(spec: &Spec, to: &str) -> Vec<Rule> {
    let rule = |family| {
        let len = match family {
            Family::V4 => 32,
            Family::V6 => spec.v6_prefix,
        };
        let split = Step::Split {
            source: Source { family, len },
            seed: spec.layout.seed,
            chains: (0..spec.layout.workers).map(|w| format!("{to}{w}")).collect(),
        };
        Rule::new("one worker per source", [split])
    };
    Family::ALL.map(rule).into()
}

fn queue(spec: &Spec, prefix: &str, worker: u16, number: u16, what: &str) -> Chain {
    let bypass = spec.on_loss == OnLoss::Open;
    let comment = match spec.on_loss {
        OnLoss::Open => "passes while nobody listens",
        OnLoss::Closed => "dropped while nobody listens",
    };
    let queue = Rule::new(comment, [Step::Queue { number, bypass }]);
    let switch = spec.has_switch().then(|| {
        let steps = [Step::Silent(worker), Step::Goto("unjudged")];
        Rule::new("passes while the worker does not beat", steps)
    });
    Chain {
        name: format!("{prefix}{worker}"),
        priority: None,
        comment: format!("{what} of worker {worker}"),
        rules: switch.into_iter().chain([queue]).collect(),
    }
}

/// The dead man's switch. A queue with a listener holds what comes, even if the listener hangs; `bypass` is of no use
/// then. So each worker has to send word to itself every quarter of a second, over lo and marked as only
/// CAP_NET_ADMIN or CAP_NET_RAW can: that keeps its element in a set, and the kernel queues only for workers that have one.
fn pulse() -> Chain {
    let rules = vec![
        Rule::new("beats of workers", [Step::Beat, Step::Revive, Step::Drop]),
        Rule::new("loopback", [Step::Accept]),
    ];
    chain("pulse", "loopback", rules)
}

fn unjudged() -> Chain {
    let rule = Rule::new("passed unjudged", [Step::Counter, Step::Accept]);
    chain(
        alive::UNJUDGED,
        "what passes while its worker does not beat",
        vec![rule],
    )
}

fn copy(spec: &Spec, worker: u16, fate: Fate) -> Chain {
    let group = spec.layout.log_group(worker);
    let (prefix, end) = match fate {
        Fate::Refused => ("l", Step::Drop),
        Fate::Passed => ("p", Step::Accept),
    };
    Chain {
        name: format!("{prefix}{worker}"),
        priority: None,
        comment: format!("copies of {} packets for worker {worker}", fate.word()),
        rules: vec![Rule::new("copy", [Step::Log { group, fate }, end])],
    }
}

fn chain(name: &str, comment: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        priority: None,
        comment: comment.into(),
        rules,
    }
}

fn banned(spec: &Spec) -> impl Iterator<Item = (Source, String)> {
    let sets = spec.ban_sets().into_iter();
    sets.map(|(family, len)| (Source { family, len }, ban_set_name(family, len)))
}

fn bare_syn() -> Step {
    flags(FIN | SYN | RST | ACK, SYN)
}

fn flags(mask: u8, value: u8) -> Step {
    Step::TcpFlags { mask, value }
}

/// What is limited per source; each has a set for each family.
#[derive(Clone, Copy)]
enum Limit {
    Evidence,
    OtherProtocols,
}

impl Limit {
    fn set(self, family: Family) -> &'static str {
        match (self, family) {
            (Limit::Evidence, Family::V4) => "evidence_limit4",
            (Limit::Evidence, Family::V6) => "evidence_limit6",
            (Limit::OtherProtocols, Family::V4) => "other_limit4",
            (Limit::OtherProtocols, Family::V6) => "other_limit6",
        }
    }
}

/// Before every raw chain (-300) and conntrack (-200), after defragmentation (-400).
const RAW_PRIORITY: i32 = -310;
/// After conntrack (-200), before every mangle chain (-150) and before DNAT (-100).
const PRE_PRIORITY: i32 = -190;

const FIN: u8 = TcpFlags::FIN.0;
const SYN: u8 = TcpFlags::SYN.0;
const RST: u8 = TcpFlags::RST.0;
const ACK: u8 = TcpFlags::ACK.0;
