//! Packets by hand, and what is made of them.

use std::net::Ipv4Addr;

use super::*;
use crate::core::attack::{Counting, Distributed};
use crate::core::ladder::Ladder;
use crate::core::policy::{Mode, OtherProtocols};
use crate::core::ports::PortSet;
use crate::core::probe::{TcpFlags, Transport};
use crate::core::scan::ScanKind;
use crate::core::services::SETTLING;

const SCANNER: &str = "192.0.2.7";
const HOUR: Duration = Duration::from_secs(3600);

/// A judge and the time, which moves by hand.
struct Bench {
    judge: Judge,
    policy: Policy,
    now: Instant,
    seq: u32,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Policy)) -> Bench {
        Bench::guarded(change, &[], &[])
    }

    fn guarded(change: impl FnOnce(&mut Policy), trusted: &[&str], protected: &[&str]) -> Bench {
        let mut policy = standard();
        change(&mut policy);
        let now = Instant::now();
        let guard = Arc::new(guard(trusted, protected));
        let judge = Judge::new(Arc::new(policy.clone()), guard, 64, now);
        Bench {
            judge,
            policy,
            now,
            seq: 0,
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

    /// Each is a flow of its own.
    fn tcp(&mut self, src: &str, port: u16, flags: TcpFlags) -> Decision {
        self.seq += 1;
        let seq = self.seq;
        self.send(src, tcp(port, flags, seq))
    }

    fn syn(&mut self, src: &str, port: u16) -> Decision {
        self.tcp(src, port, TcpFlags::SYN)
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

    fn complete(&mut self, src: &str, port: u16) {
        self.judge.complete(src.parse().unwrap(), port, self.now);
    }

    /// The engine has run for a while, and services answer on these ports.
    fn settle(&mut self, answering: &[u16]) {
        let answering = answering.iter().copied().collect();
        let services = Services::new(answering, 32_768..=60_999, self.now);
        self.judge.set_services(Arc::new(services));
        self.now += SETTLING;
    }

    /// Scans ports from 1 on until one is an offence.
    fn scan(&mut self, src: &str) -> Box<Offence> {
        let offence = (1..100).find_map(|port| self.syn(src, port).offence);
        let due = || self.judge.due(self.now + HOLD);
        offence.or_else(due).expect("100 ports are an offence")
    }
}

fn tcp(dport: u16, flags: TcpFlags, seq: u32) -> Transport {
    Transport::Tcp {
        sport: 40000,
        dport,
        flags,
        seq,
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
const HARMLESS: (Verdict, Reason) = (Verdict::Accept, Reason::Harmless);
const REPEATED: (Verdict, Reason) = (Verdict::Accept, Reason::Repeated);
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
fn the_fourth_stealth_probe_is_the_offence_also_on_one_port() {
    for ports in [[1, 2, 3, 4], [80, 80, 80, 80]] {
        for flags in [0x00, 0x01, 0x29, 0x03, 0x06].map(TcpFlags) {
            let mut bench = Bench::new(|_| ());
            for port in &ports[..3] {
                assert_eq!(outcome(&bench.tcp(SCANNER, *port, flags)), COUNTED);
            }
            let offence = bench.tcp(SCANNER, ports[3], flags).offence.unwrap();
            assert_eq!(
                (offence.reason, offence.threshold, offence.weight),
                (BanReason::SuspiciousScanning, 3, Weight::Full)
            );
        }
    }
}

#[test]
fn answers_are_no_evidence() {
    let mut bench = Bench::new(|_| ());
    bench.settle(&[]);
    for flags in [TcpFlags(0x12), TcpFlags(0x04), TcpFlags(0x14)] {
        for port in 1..100 {
            let decision = bench.tcp(SCANNER, port, flags);
            assert_eq!(outcome(&decision), HARMLESS);
        }
    }
}

#[test]
fn late_packets_are_evidence_only_where_nothing_answers_and_after_a_while() {
    for flags in [TcpFlags::ACK, TcpFlags(0x11), TcpFlags(0x18)] {
        let mut bench = Bench::new(|_| ());
        bench.settle(&[22, 80]);
        for port in [22, 80, 40_000, 50_000] {
            assert_eq!(outcome(&bench.tcp(SCANNER, port, flags)), HARMLESS);
        }
        for port in 1..=7 {
            assert_eq!(outcome(&bench.tcp(SCANNER, port, flags)), COUNTED, "{port}");
        }
        let offence = bench.tcp(SCANNER, 8, flags).offence.unwrap();
        assert_eq!(offence.reason, BanReason::PortScanning);
    }
    let mut early = Bench::new(|_| ());
    assert_eq!(outcome(&early.tcp(SCANNER, 1, TcpFlags::ACK)), HARMLESS);
    early.judge.set_services(Arc::new(Services::new(
        PortSet::default(),
        32_768..=60_999,
        early.now,
    )));
    early.now += SETTLING - Duration::from_secs(1);
    assert_eq!(outcome(&early.tcp(SCANNER, 1, TcpFlags::ACK)), HARMLESS);
}

#[test]
fn a_late_packet_to_an_allowed_port_is_none_also_while_its_service_is_down() {
    let mut bench = Bench::new(|policy| {
        policy.mode = Mode::Firewall;
        policy.tcp_allowed = [443].into_iter().collect();
    });
    bench.settle(&[]);
    assert_eq!(outcome(&bench.tcp(SCANNER, 443, TcpFlags(0x11))), HARMLESS);
    assert_eq!(outcome(&bench.tcp(SCANNER, 444, TcpFlags(0x11))), COUNTED);
}

#[test]
fn a_sweep_over_ip_protocols_is_an_offence_and_a_tunnel_is_none() {
    let mut bench = Bench::new(|_| ());
    for _ in 0..100 {
        assert_eq!(outcome(&bench.send(SCANNER, Transport::Other(47))), COUNTED);
    }
    for number in [1, 6, 17, 58] {
        assert_eq!(outcome(&bench.send(SCANNER, Transport::Other(number))), HARMLESS);
    }
    for number in [50, 132] {
        assert_eq!(outcome(&bench.send(SCANNER, Transport::Other(number))), COUNTED);
    }
    let offence = bench.send(SCANNER, Transport::Other(2)).offence.unwrap();
    assert_eq!(
        (offence.reason, offence.ports.len()),
        (BanReason::SuspiciousScanning, 0)
    );
}

#[test]
fn one_flow_is_one_probe() {
    let mut bench = Bench::new(|_| ());
    let null = |seq| tcp(80, TcpFlags(0), seq);
    assert_eq!(outcome(&bench.send(SCANNER, null(1))), COUNTED);
    for _ in 0..50 {
        assert_eq!(outcome(&bench.send(SCANNER, null(1))), REPEATED);
    }
    let first = bench.send(SCANNER, tcp(22, TcpFlags::SYN, 7));
    let again = bench.send(SCANNER, tcp(22, TcpFlags::SYN, 7));
    assert!(first.attempt.is_some() && again.attempt.is_none());
    assert_eq!((outcome(&first), outcome(&again)), (COUNTED, REPEATED));
    let other = bench.send(SCANNER, tcp(22, TcpFlags::SYN, 8));
    assert!(other.attempt.is_some());
    assert_eq!(bench.udp(SCANNER, 53).reason, Reason::Counted);
    assert_eq!(bench.udp(SCANNER, 53).reason, Reason::Repeated);
}

#[test]
fn a_port_with_a_completed_handshake_speaks_against_nobody() {
    let mut bench = Bench::new(|_| ());
    let office = [25, 80, 110, 143, 443, 465, 587, 993, 995];
    for _ in 0..3 {
        for port in office {
            assert!(matches!(outcome(&bench.syn(SCANNER, port)), COUNTED | HARMLESS));
            bench.complete(SCANNER, port);
        }
        bench.now += 3 * HOUR;
    }
    for port in 1..=7 {
        assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED, "{port}");
    }
    assert_eq!(bench.syn(SCANNER, 8).offence, None, "it may be on its way there");
    let offence = bench.judge.due(bench.now + HOLD).unwrap();
    assert_eq!((offence.weight, offence.proven), (Weight::PossiblyForged, true));
}

#[test]
fn an_offence_waits_for_handshakes_where_a_service_answers() {
    let ports = [25, 80, 110, 143, 443, 465, 587, 993];
    let mut bench = Bench::new(|_| ());
    bench.settle(&ports);
    for port in ports {
        assert_eq!(bench.syn(SCANNER, port).offence, None);
    }
    assert_eq!(outcome(&bench.syn(SCANNER, 995)), (Verdict::Drop, Reason::Banned));
    assert!(bench.judge.next_due().is_some());
    bench.complete(SCANNER, 80);
    assert_eq!(outcome(&bench.syn(SCANNER, 25)), COUNTED, "seven are left");
    let told = bench.judge.due(bench.now + 2 * HOLD);
    assert_eq!((told, bench.judge.next_due()), (None, None));
}

#[test]
fn who_is_cleared_and_accused_anew_has_the_whole_time_again() {
    let mut bench = Bench::new(|_| ());
    bench.settle(&[80, 81]);
    (80..88).for_each(|port| assert_eq!(bench.syn(SCANNER, port).offence, None));
    let first = bench.now + HOLD;
    bench.now += HOLD / 2;
    bench.complete(SCANNER, 80);
    assert_eq!(
        outcome(&bench.syn(SCANNER, 9000)),
        (Verdict::Drop, Reason::Offence)
    );
    assert_eq!(bench.judge.due(first), None);
    assert!(bench.judge.due(bench.now + HOLD).is_some());
}

/// Files by passive FTP, faster than the engine hears of their connections.
#[test]
fn who_is_served_may_be_on_the_way_to_any_port_that_is_not_refused() {
    for (mode, held) in [(Mode::DetectionOnly, true), (Mode::Firewall, false)] {
        let mut bench = Bench::new(|policy| policy.mode = mode);
        bench.settle(&[21]);
        bench.complete(SCANNER, 21);
        (50_001..50_008).for_each(|port| assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED));
        let eighth = bench.syn(SCANNER, 50_008);
        assert_eq!(
            (eighth.verdict, eighth.offence.is_none()),
            (Verdict::Drop, held),
            "{mode}"
        );
        (50_001..50_008).for_each(|port| bench.complete(SCANNER, port));
        assert_eq!(bench.judge.due(bench.now + HOLD), None);
        let expected = if held {
            COUNTED
        } else {
            (Verdict::Drop, Reason::Banned)
        };
        assert_eq!(outcome(&bench.syn(SCANNER, 50_008)), expected, "{mode}");
    }
}

#[test]
fn who_completes_nothing_is_told_a_moment_later_and_dropped_meanwhile() {
    let mut bench = Bench::new(|_| ());
    bench.settle(&[80]);
    (80..88).for_each(|port| assert_eq!(bench.syn(SCANNER, port).offence, None));
    assert_eq!(bench.judge.due(bench.now), None);
    bench.now += HOLD / 2;
    assert_eq!(
        outcome(&bench.syn(SCANNER, 9000)),
        (Verdict::Drop, Reason::Banned)
    );
    bench.now += HOLD / 2;
    let offence = bench.judge.due(bench.now).unwrap();
    assert_eq!((offence.ports.len(), offence.weight), (8, Weight::Full));
    assert_eq!(
        (bench.judge.due(bench.now), bench.syn(SCANNER, 9001).offence),
        (None, None)
    );
    bench.complete(SCANNER, 80);
    assert_eq!(
        outcome(&bench.syn(SCANNER, 9002)),
        (Verdict::Drop, Reason::Banned),
        "too late"
    );
    bench.judge.unsent(offence.source);
    assert!(bench.syn(SCANNER, 9003).offence.is_some());
}

#[test]
fn the_python_systems_arithmetic_counts_completed_ports_too() {
    let mut bench = Bench::new(|policy| policy.count_completed = true);
    for port in 1..=7 {
        assert_eq!(outcome(&bench.syn(SCANNER, port)), COUNTED);
        bench.complete(SCANNER, port);
    }
    let offence = bench.syn(SCANNER, 8).offence.unwrap();
    assert_eq!((offence.weight, offence.proven), (Weight::Full, true));
}

#[test]
fn who_completed_a_handshake_is_remembered_through_a_ban_and_past_the_window() {
    let mut bench = Bench::new(|_| ());
    bench.complete(SCANNER, 80);
    let source = bench.scan(SCANNER).source;
    bench.judge.ban(source, true);
    bench.judge.release(source);
    bench.now += 719 * HOUR;
    bench.judge.expire(bench.now);
    assert_eq!(outcome(&bench.syn(SCANNER, 80)), HARMLESS);
    assert!(bench.syn(SCANNER, 81).attempt.unwrap().proven);
    bench.now += 720 * HOUR;
    bench.judge.expire(bench.now);
    assert!(!bench.syn(SCANNER, 81).attempt.unwrap().proven);
}

#[test]
fn when_a_source_was_first_seen_is_remembered_where_it_matters() {
    let mut bench = Bench::new(|policy| policy.distributed.counting = Counting::NewSources);
    let first = bench.syn(SCANNER, 22).attempt.unwrap();
    for _ in 0..5 {
        bench.now += Duration::from_secs(5 * 60);
        bench.judge.expire(bench.now);
        let known = bench.syn(SCANNER, 22).attempt.unwrap();
        assert_eq!(known.first_seen, first.first_seen);
    }
}

#[test]
fn what_is_refused_is_no_attempt_on_a_service() {
    let mut bench = Bench::new(|_| ());
    let probe = Probe {
        src: SCANNER.parse().unwrap(),
        dst: Ipv4Addr::new(198, 51, 100, 1).into(),
        transport: tcp(22, TcpFlags::SYN, 1),
    };
    let decision = bench.judge.judge(&Ok(probe), Class::Refused, bench.now);
    assert_eq!((decision.reason, decision.attempt), (Reason::Counted, None));
}

#[test]
fn while_nothing_can_be_written_down_nothing_new_begins_but_for_who_must_not_be_shut_out() {
    let udp = Transport::Udp {
        sport: 40000,
        dport: 53,
    };
    let syn = tcp(22, TcpFlags::SYN, 1);
    let ack = tcp(22, TcpFlags::ACK, 2);
    for (src, transport, class, enforce, passes) in [
        (SCANNER, syn, Class::New, true, false),
        (SCANNER, udp, Class::New, true, false),
        (SCANNER, ack, Class::New, true, true), // of a connection older than conntrack
        (SCANNER, syn, Class::Odd, true, true),
        (SCANNER, syn, Class::New, false, true),
        ("10.0.0.1", syn, Class::New, true, true),
        ("10.0.0.2", udp, Class::New, true, true),
    ] {
        let mut bench = Bench::guarded(|policy| policy.enforce = enforce, &["10.0.0.1"], &["10.0.0.2"]);
        let probe = Ok(Probe {
            src: src.parse().unwrap(),
            dst: Ipv4Addr::new(198, 51, 100, 1).into(),
            transport,
        });
        let decision = bench.judge.judge(&probe, class, bench.now);
        let before = outcome(&decision);
        let after = bench.judge.shut_out(decision, &probe, class);
        let expected = if passes {
            before
        } else {
            (Verdict::Drop, Reason::Unlogged)
        };
        assert_eq!(
            outcome(&after),
            expected,
            "{src} {transport:?} {class:?} {enforce}"
        );
        assert!(passes || after.attempt.is_none());
    }
    // Who scans is found out all the same.
    let mut bench = Bench::new(|_| ());
    let offence = (1..=8).find_map(|port| {
        let decision = bench.syn(SCANNER, port);
        bench
            .judge
            .shut_out(decision, &Err(Unparsed::Empty), Class::New)
            .offence
    });
    assert!(offence.is_some());
}

#[test]
fn what_cannot_be_read_passes_only_where_nothing_is_enforced() {
    for (enforce, verdict) in [(true, Verdict::Drop), (false, Verdict::Accept)] {
        let mut bench = Bench::new(|policy| policy.enforce = enforce);
        let decision = bench.judge.judge(&Err(Unparsed::Empty), Class::Odd, bench.now);
        assert_eq!(outcome(&decision), (verdict, Reason::Unparsed));
        assert_eq!(bench.judge.tracked(), 0);
    }
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
fn exported(judge: &Judge, limit: usize, now: Instant) -> Vec<Memory> {
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
                .map(|memory| memory.touches.len())
                .collect::<Vec<_>>(),
            [5, 1]
        );
    }
    let before = exported(&bench.judge, 1, bench.now);
    bench.judge = Bench::new(|_| ()).judge;
    before.iter().for_each(|memory| bench.judge.restore(memory));
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
    bench.judge.restore(&before[0]);
    assert_eq!(bench.syn(SCANNER, 8).reason, Reason::Offence);
}

#[test]
fn what_is_banned_trusted_or_judged_otherwise_by_now_does_not_come_back() {
    let mut bench = Bench::guarded(|_| (), &["10.0.0.0/8"], &["2001:db8::1"]);
    bench.judge.ban(prefix("192.0.2.0/24"), true);
    let touches = vec![Touch {
        what: Asked::Port(Proto::Tcp, 22),
        stealth: 0,
        at: bench.now,
    }];
    let now = bench.now;
    let memory = |source: &str, touches: &[Touch]| Memory {
        source: prefix(source),
        first_seen: now,
        last_seen: now,
        completed: None,
        touches: touches.to_vec(),
    };
    for source in [
        "192.0.2.7",
        "10.0.0.1",
        "2001:db8::/64",
        "2001:db8:1::/56",
        "198.51.100.0/24",
    ] {
        bench.judge.restore(&memory(source, &touches));
    }
    bench.judge.restore(&memory("198.51.100.1", &[]));
    assert_eq!(bench.judge.tracked(), 0);
    for source in ["2001:db8::2", "2001:db8:1::/64", "198.51.100.1"] {
        bench.judge.restore(&memory(source, &touches));
    }
    assert_eq!(bench.judge.tracked(), 3);
}

/// What a stranger can make the engine hold, in bytes: README, ARCHITECTURE and docs/detection.md tell it.
#[test]
fn a_source_takes_no_more_memory_than_the_docs_say() {
    assert_eq!(BoundedMap::<Prefix, Record>::BYTES, 124, "known by one port");
    assert_eq!(
        size_of::<Touch>(),
        24,
        "each port of those that asked for several"
    );
    assert_eq!(size_of::<Completed>(), 24, "if it ever completed a handshake");
}

#[test]
fn who_is_erased_was_never_here() {
    let mut bench = Bench::new(|_| {});
    let source: Prefix = SCANNER.parse().unwrap();
    let offence = bench.scan(SCANNER);
    assert_eq!(offence.ports.len(), 8);
    bench.judge.ban(source, true);
    assert_eq!(bench.syn(SCANNER, 80).reason, Reason::Banned);
    bench.judge.erase(source);
    assert_eq!(bench.judge.tracked(), 0);
    assert_eq!(bench.judge.source(source.addr(), bench.now), None);
    assert_eq!(bench.judge.export(0, 1000, bench.now).sources, []);
    assert_eq!(bench.syn(SCANNER, 80).reason, Reason::Counted);
    assert_eq!(
        bench.judge.due(bench.now + HOLD),
        None,
        "nothing was held back for it"
    );
}
