//! Distributed attacks as the engine meets them: attempts and a moved time in, what began, offended and ended out.
#![allow(clippy::unwrap_used)] // a test may

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use verdictd::core::attack::{
    Attack, Attacks, Attempt, Baseline, Counting, DAYS, Distributed, Outcome, PortBaseline, PortThresholds,
    SOURCES_LISTED, Wants,
};
use verdictd::core::ladder::Ladder;
use verdictd::core::policy::{Mode, OtherProtocols, Policy};
use verdictd::core::ports::PortSet;
use verdictd::core::prefix::{Prefix, PrefixSet};
use verdictd::core::scan::ScanKind;
use verdictd::core::verdict::{BanReason, Proto, Weight};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Tolerated on any port but 22, 80 and 443.
const TOLERATED: u32 = 10;

/// The presets' numbers for `standard`.
fn standard(counting: Counting) -> Policy {
    Policy {
        mode: Mode::DetectionOnly,
        preset: "standard".into(),
        enforce: true,
        ports_threshold: 7,
        udp_ports_threshold: 28,
        stealth_threshold: 3,
        count_completed: false,
        window: Duration::from_secs(2 * HOUR),
        ladder: Ladder::new(vec![Duration::from_secs(600)]).unwrap(),
        forgive_after: Duration::from_secs(30 * DAY),
        jitter: false,
        unproven_cap: None,
        distributed: Distributed {
            thresholds: PortThresholds {
                default: TOLERATED,
                ports: BTreeMap::from([(80, 2), (443, 2), (22, 3)]),
            },
            counting,
            ..Distributed::default()
        },
        max_bans_per_minute: 600,
        tcp_allowed: PortSet::default(),
        udp_allowed: PortSet::default(),
        other_protocols: OtherProtocols::Pass,
        trusted: PrefixSet::default(),
        v6_prefix: 64,
        max_sources: 1000,
    }
}

fn addr(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

fn attempt(source: u32, port: u16, now: Instant) -> Attempt {
    Attempt {
        seen: addr(source),
        src_port: 40_000,
        dst: addr(0),
        port,
        source: Prefix::host(addr(source)),
        first_seen: now,
        proven: false,
        at: now,
    }
}

/// The counter and the time, which moves by hand.
struct Bench {
    attacks: Attacks,
    policy: Policy,
    now: Instant,
    sources: u32,
}

impl Bench {
    fn new(counting: Counting) -> Bench {
        Bench {
            attacks: Attacks::new(),
            policy: standard(counting),
            now: Instant::now(),
            sources: 1000,
        }
    }

    fn without_baseline(counting: Counting) -> Bench {
        let mut bench = Bench::new(counting);
        bench.policy.distributed.baseline_factor = 0;
        bench
    }

    fn wait(&mut self, seconds: u64) -> Vec<Attack> {
        self.now += Duration::from_secs(seconds);
        self.attacks.expire(&self.policy, self.now)
    }

    fn from(&mut self, source: u32, port: u16) -> Outcome {
        let attempt = attempt(source, port, self.now);
        self.attacks.count(&attempt, &self.policy, self.now)
    }

    /// One attempt of each of `count` sources that were never there before.
    fn others(&mut self, count: u32, port: u16) -> Vec<Outcome> {
        (0..count)
            .map(|_| {
                self.sources += 1;
                self.from(self.sources, port)
            })
            .collect()
    }

    fn under_way(&self) -> Vec<u16> {
        self.attacks.under_way().map(|attack| attack.port).collect()
    }
}

fn quiet(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| *outcome == Outcome::default())
}

fn offends(outcome: &Outcome) -> bool {
    outcome.offence.is_some()
}

#[test]
fn what_is_tolerated_is_no_attack_and_one_more_is() {
    for (port, tolerated) in [(80, 2), (443, 2), (22, 3), (8080, TOLERATED)] {
        let mut bench = Bench::new(Counting::Incomplete);
        assert!(quiet(&bench.others(tolerated, port)), "{port}");
        let last = bench.others(1, port).remove(0);
        let attack = last.began.unwrap();
        assert_eq!(
            (attack.port, attack.threshold, attack.attempts),
            (port, tolerated, tolerated + 1)
        );
        assert_eq!((attack.seen, attack.began), (addr(bench.sources), bench.now));
        assert_eq!((attack.counting, last.offence), (Counting::Incomplete, None));
        assert_eq!(
            (attack.distinct, attack.sources.len()),
            (tolerated + 1, tolerated as usize + 1)
        );
        assert_eq!(attack.sources.last(), Some(&attack.source));
        assert!(quiet(&bench.others(50, port)), "one beginning");
        assert_eq!(bench.under_way(), [port]);
    }
}

#[test]
fn ports_are_counted_apart() {
    let mut bench = Bench::new(Counting::Incomplete);
    for port in 1000..2000 {
        assert!(quiet(&bench.others(TOLERATED, port)));
    }
    assert!(bench.others(1, 1500)[0].began.is_some());
    assert_eq!(bench.under_way(), [1500]);
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut bench = Bench::without_baseline(Counting::Incomplete);
    bench.others(TOLERATED, 9);
    bench.wait(2 * HOUR);
    assert!(quiet(&bench.others(TOLERATED, 9)));
    bench.wait(2 * HOUR - 240); // the window less the bucket that it can lose
    assert!(bench.others(1, 9)[0].began.is_some());
}

#[test]
fn which_attempts_are_wanted() {
    let mut distributed = standard(Counting::Incomplete).distributed;
    distributed.by_port = BTreeMap::from([(22, Counting::NewSources), (80, Counting::All)]);
    let now = Instant::now() + Duration::from_secs(DAY);
    let wants = |port, known, proven| {
        let attempt = Attempt {
            first_seen: now - Duration::from_secs(known),
            proven,
            ..attempt(1, port, now)
        };
        distributed.wants(&attempt, now)
    };
    assert_eq!([wants(443, 0, false), wants(443, DAY, false)], [Wants::Later; 2]);
    assert_eq!([wants(443, 0, true), wants(443, DAY, true)], [Wants::Not; 2]);
    assert_eq!([wants(22, 0, false), wants(22, HOUR - 1, true)], [Wants::Now; 2]);
    assert_eq!([wants(22, HOUR, false), wants(22, DAY, true)], [Wants::Not; 2]);
    assert_eq!([wants(80, 0, false), wants(80, DAY, true)], [Wants::Now; 2]);
    let future = Attempt {
        first_seen: now + Duration::from_secs(5),
        ..attempt(1, 22, now)
    };
    assert_eq!(distributed.wants(&future, now), Wants::Now);
}

#[test]
fn failing_twice_under_attack_is_an_offence_and_once_is_not() {
    let mut bench = Bench::new(Counting::Incomplete);
    for _ in 0..=TOLERATED {
        assert!(
            !offends(&bench.from(1, 9)),
            "what led to the attack accuses nobody"
        );
    }
    assert_eq!(bench.under_way(), [9]);
    assert!(!offends(&bench.from(1, 9)) && !offends(&bench.from(2, 9)));
    bench.wait(30);
    let offence = bench.from(1, 9).offence.unwrap();
    assert_eq!((offence.seen, offence.source), (addr(1), Prefix::host(addr(1))));
    assert_eq!(
        (offence.reason, offence.weight, offence.kind),
        (BanReason::DistributedAttack, Weight::OneOfMany, ScanKind::Syn)
    );
    assert_eq!(
        (&*offence.ports, offence.threshold),
        (&[(Proto::Tcp, 9)][..], TOLERATED)
    );
    assert_eq!((offence.proven, offence.at), (false, bench.now));
    assert!(!offends(&bench.from(2, 10)), "another port is not under attack");
    assert!(offends(&bench.from(2, 9)));
    assert_eq!(bench.attacks.under_way().next().unwrap().offences, 2);
}

#[test]
fn an_offender_is_told_once_a_minute_and_not_for_what_was_on_its_way() {
    let mut bench = Bench::new(Counting::Incomplete);
    bench.others(TOLERATED + 1, 9);
    let told: Vec<u64> = (0..150)
        .filter(|_| {
            bench.wait(1);
            offends(&bench.from(1, 9))
        })
        .collect();
    assert_eq!(told, [1, 62, 123]);
}

#[test]
fn a_source_that_completed_a_handshake_is_nothing_to_incomplete() {
    let mut bench = Bench::new(Counting::Incomplete);
    let proven = |bench: &mut Bench| {
        let attempt = Attempt {
            proven: true,
            ..attempt(1, 9, bench.now)
        };
        bench.attacks.count(&attempt, &bench.policy, bench.now)
    };
    for _ in 0..100 {
        assert_eq!(proven(&mut bench), Outcome::default());
    }
    bench.others(TOLERATED + 1, 9);
    for _ in 0..100 {
        assert_eq!(proven(&mut bench), Outcome::default());
    }
    assert_eq!(bench.attacks.under_way().next().unwrap().counted, 1);
}

#[test]
fn with_new_sources_and_all_each_attempt_under_attack_is_an_offence() {
    for counting in [Counting::NewSources, Counting::All] {
        let mut bench = Bench::new(counting);
        assert!(quiet(&bench.others(TOLERATED, 9)));
        let crossing = bench.others(1, 9).remove(0);
        assert!(
            crossing.began.is_some() && offends(&crossing),
            "one more than tolerated"
        );
        assert!(bench.others(20, 9).iter().all(offends));
        assert!(!offends(&bench.from(bench.sources, 9)), "told already");
        bench.wait(60);
        assert!(offends(&bench.from(bench.sources, 9)));
        let proven = Attempt {
            proven: true,
            ..attempt(1, 9, bench.now)
        };
        let offence = bench.attacks.count(&proven, &bench.policy, bench.now).offence;
        assert!(offence.unwrap().proven);
    }
}

#[test]
fn a_port_can_have_its_own_counting() {
    let mut bench = Bench::new(Counting::Incomplete);
    bench.policy.distributed.by_port = BTreeMap::from([(22, Counting::NewSources)]);
    let outcomes = bench.others(5, 22);
    assert_eq!(outcomes[3].began.as_ref().unwrap().counting, Counting::NewSources);
    assert!(offends(&outcomes[4]));
    assert!(!bench.others(99, 9).iter().any(offends));
}

/// A bench whose port 9 had `each` an hour for `hours`, and no attack from it.
fn used_to(each: u32, hours: u32) -> Bench {
    let mut bench = Bench::new(Counting::Incomplete);
    let saved = Baseline {
        into_day: HOUR as u32,
        observed: [HOUR as u32, 0, 0, 0, 0, 0, 0],
        ports: vec![PortBaseline {
            port: 9,
            counted: [each, 0, 0, 0, 0, 0, 0],
        }],
    };
    bench.attacks.restore(&saved, Duration::ZERO, bench.now);
    for _ in 1..hours {
        assert!(quiet(&bench.others(each, 9)));
        bench.wait(HOUR);
    }
    bench
}

#[test]
fn what_is_usual_on_a_port_is_no_attack() {
    for (factor, most) in [(5, 100), (1, 20), (20, 400)] {
        let mut bench = used_to(20, 72);
        bench.policy.distributed.baseline_factor = factor;
        assert!(quiet(&bench.others(most, 9)), "{factor}");
        assert!(bench.others(1, 9)[0].began.is_some(), "{factor}");
    }
    let mut bench = used_to(20, 72);
    assert!(quiet(&bench.others(60, 9)));
    assert!(
        bench.others(TOLERATED + 1, 10)[10].began.is_some(),
        "another port has nothing"
    );
}

#[test]
fn without_a_factor_only_the_threshold_counts() {
    let mut bench = used_to(20, 72);
    bench.policy.distributed.baseline_factor = 0;
    assert!(bench.others(1, 9)[0].began.is_some());
}

#[test]
fn below_the_threshold_nothing_is_unusual_enough() {
    let mut bench = used_to(0, 7 * 24);
    assert!(quiet(&bench.others(TOLERATED, 9)));
}

#[test]
fn what_was_usual_is_forgotten_in_seven_days() {
    let mut bench = used_to(1000, 48);
    bench.wait(5 * DAY);
    assert!(
        quiet(&bench.others(11, 9)),
        "{:?}",
        bench.attacks.baseline(bench.now)
    );
    bench.wait(2 * DAY);
    assert!(bench.others(11, 9)[10].began.is_some());
}

#[test]
fn a_busy_server_that_knows_nothing_is_under_attack_for_an_hour_at_most() {
    let mut bench = Bench::new(Counting::Incomplete);
    let (mut began, mut ended) = (0, Vec::new());
    for minute in 0..3 * DAY / 60 {
        began += bench
            .others(5, 9)
            .iter()
            .filter(|one| one.began.is_some())
            .count();
        ended.extend(bench.wait(60).iter().map(|_| minute));
    }
    assert_eq!(began, 1);
    assert!(ended.len() == 1 && ended[0] <= 75, "{ended:?}");
}

#[test]
fn an_attack_is_over_when_it_is_quiet_and_the_next_needs_as_many_attempts() {
    let mut bench = Bench::without_baseline(Counting::Incomplete);
    bench.others(TOLERATED + 1, 9);
    bench.from(1, 9);
    let deadline = bench.attacks.next_deadline(&bench.policy).unwrap();
    assert_eq!(deadline, bench.now + Duration::from_secs(600));
    assert!(bench.wait(599).is_empty());
    bench.from(2, 9);
    assert!(bench.wait(1).is_empty(), "prolonged");
    let ended = bench.wait(600);
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].port, ended[0].counted, ended[0].distinct), (9, 3, 13));
    assert_eq!(ended[0].last, bench.now - Duration::from_secs(601));
    assert_eq!(bench.attacks.next_deadline(&bench.policy), None);
    assert!(bench.wait(DAY).is_empty(), "one end");

    let mut bench = Bench::without_baseline(Counting::Incomplete);
    bench.others(TOLERATED + 1, 9);
    bench.from(1, 9);
    assert_eq!(bench.wait(600).len(), 1);
    assert_eq!(bench.attacks.failing(), 0);
    assert!(quiet(&bench.others(TOLERATED - 1, 9)) && bench.from(1, 9) == Outcome::default());
    assert!(
        bench.from(1, 9).began.is_some(),
        "what led to the first is consumed"
    );
    assert!(!offends(&bench.from(1, 9)), "and so are failures");
    assert!(offends(&bench.from(1, 9)));
}

#[test]
fn what_is_usual_does_not_prolong_an_attack() {
    let mut bench = used_to(20, 72);
    bench.others(1000, 9);
    assert_eq!(bench.under_way(), [9]);
    let mut minutes = 0;
    while bench.wait(60).is_empty() {
        minutes += 1;
        bench.others(u32::from(minutes % 3 == 0), 9); // 20 an hour
    }
    assert!((9..=19).contains(&minutes), "{minutes}");
    for _ in 0..20 {
        bench.wait(180);
        assert!(quiet(&bench.others(1, 9)), "nor does it begin another");
    }
}

#[test]
fn an_attack_that_goes_on_is_one_attack() {
    let mut bench = used_to(20, 72);
    let mut began = 0;
    for _ in 0..6 * 60 {
        began += bench
            .others(20, 9)
            .iter()
            .filter(|one| one.began.is_some())
            .count();
        assert!(bench.wait(60).is_empty());
    }
    assert_eq!(began, 1);
    assert_eq!(bench.wait(600).len(), 1);
}

#[test]
fn a_flood_from_forged_sources_is_one_event_in_bounded_memory() {
    let mut bench = Bench::new(Counting::Incomplete);
    let (mut began, mut offences, mut random) = (0, 0, 1u64);
    for n in 0..1_000_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let outcome = bench.from((random >> 33) as u32, 80);
        (began, offences) = (
            began + u32::from(outcome.began.is_some()),
            offences + u32::from(offends(&outcome)),
        );
        if n % 10_000 == 0 {
            bench.wait(1);
        }
    }
    let attack = bench.attacks.under_way().next().unwrap();
    assert_eq!(
        (began, bench.attacks.ports(), attack.sources.len()),
        (1, 1, SOURCES_LISTED)
    );
    assert!(
        (750_000..1_250_000).contains(&attack.distinct),
        "{}",
        attack.distinct
    );
    assert_eq!(bench.attacks.failing(), 65_536);
    assert!(
        offences < 100,
        "{offences} of a million forged sources were hit twice within 65,536"
    );
    assert!(
        !offends(&bench.from(7, 80)) && offends(&bench.from(7, 80)),
        "a real one is caught in it"
    );
}

#[test]
fn a_scan_over_all_ports_pushes_out_neither_attack_nor_baseline() {
    let mut bench = used_to(20, 72);
    bench.others(TOLERATED + 1, 10);
    bench.others(60, 9);
    let before = bench.attacks.baseline(bench.now).ports[0];
    for port in (0..=u16::MAX).filter(|port| ![9, 10].contains(port)) {
        bench.others(2, port);
    }
    assert_eq!(bench.attacks.baseline(bench.now).ports[9], before);
    assert_eq!((bench.under_way(), bench.attacks.ports()), (vec![10], 65_536));
    assert!(quiet(&bench.others(40, 9)) && bench.others(1, 9)[0].began.is_some());
    bench.wait(8 * DAY);
    bench.others(1, 9);
    assert_eq!(bench.attacks.ports(), 1, "what is forgotten needs no memory");
}

#[test]
fn every_port_can_be_under_attack() {
    let mut bench = Bench::without_baseline(Counting::All);
    bench.policy.distributed.thresholds = PortThresholds {
        default: 1,
        ports: BTreeMap::new(),
    };
    for port in 0..=u16::MAX {
        assert!(bench.others(2, port)[1].began.is_some());
    }
    for source in 0..500_000 {
        bench.from(source, (source % 65_536) as u16);
    }
    let listed: usize = bench.attacks.under_way().map(|attack| attack.sources.len()).sum();
    assert!(listed <= 2 * 65_536, "{listed}");
    assert!(
        bench
            .attacks
            .under_way()
            .all(|attack| (4..=15).contains(&attack.distinct))
    );
    assert_eq!(bench.wait(600).len(), 65_536);
    assert_eq!(bench.attacks.under_way().count(), 0);
}

#[test]
fn a_lifted_ban_starts_anew() {
    let mut bench = Bench::new(Counting::Incomplete);
    bench.others(TOLERATED + 1, 9);
    bench.from(1, 9);
    bench.attacks.forget(Prefix::host(addr(1)));
    assert!(!offends(&bench.from(1, 9)));
    assert!(offends(&bench.from(1, 9)));
}

#[test]
fn a_reload_does_not_lose_an_attack() {
    let mut bench = Bench::without_baseline(Counting::Incomplete);
    bench.others(TOLERATED + 1, 9);
    bench.policy.window = Duration::from_secs(DAY);
    bench.policy.distributed.attack_quiet = Duration::from_secs(60);
    bench.policy.distributed.thresholds.default = 1000;
    assert!(quiet(&bench.others(5, 9)));
    let deadline = bench.attacks.next_deadline(&bench.policy).unwrap();
    assert_eq!(deadline, bench.now + Duration::from_secs(60));
    assert_eq!(bench.wait(60).len(), 1);
}

#[test]
fn clocks_and_spans_at_their_edges() {
    let mut bench = Bench::without_baseline(Counting::NewSources);
    let start = bench.now;
    bench.policy.window = Duration::MAX;
    bench.policy.distributed.attack_quiet = Duration::MAX;
    bench.others(TOLERATED, 9);
    bench.now = start.checked_sub(Duration::from_secs(60)).unwrap_or(start);
    assert!(
        bench.others(1, 9)[0].began.is_some(),
        "a clock that goes back counts as standing still"
    );
    assert_eq!(bench.attacks.next_deadline(&bench.policy), None);
    assert!(bench.wait(1000 * 365 * DAY).is_empty());
    bench.others(1, 9);
    bench.policy.window = Duration::ZERO;
    bench.policy.distributed.attack_quiet = Duration::ZERO;
    bench.others(1, 9);
    assert_eq!(bench.wait(0).len(), 1);
}

#[test]
fn the_baseline_outlives_a_restart() {
    let mut bench = used_to(20, 72);
    let saved = bench.attacks.baseline(bench.now);
    assert_eq!(
        (saved.ports.len(), saved.observed.iter().sum::<u32>()),
        (1, 72 * 3600)
    );
    bench.attacks = Attacks::new();
    assert_eq!(bench.attacks.baseline(bench.now), Baseline::default());
    bench.now += Duration::from_secs(DAY);
    bench.attacks.restore(&saved, Duration::from_secs(DAY), bench.now);
    assert!(quiet(&bench.others(100, 9)) && bench.others(1, 9)[0].began.is_some());
    bench
        .attacks
        .restore(&saved, Duration::from_secs(8 * DAY), bench.now);
    assert_eq!(bench.attacks.baseline(bench.now).observed, [0; DAYS]);
    assert!(bench.others(11, 9)[10].began.is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Count { source: u32, port: u16, proven: bool },
    Wait(u64),
    Back(u64),
    Expire,
    Forget(u32),
    Threshold(u32),
    Window(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0u32..30, 0u16..4, any::<bool>())
            .prop_map(|(source, port, proven)| Step::Count { source, port, proven }),
        8 => (0u64..2000).prop_map(Step::Wait),
        1 => (0u64..1_000_000).prop_map(Step::Wait),
        1 => (0u64..1000).prop_map(Step::Back),
        6 => Just(Step::Expire),
        1 => (0u32..30).prop_map(Step::Forget),
        1 => (0u32..6).prop_map(Step::Threshold),
        1 => any::<u64>().prop_map(Step::Window),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_beginnings_and_ends_alternate_and_nobody_offends_in_peace(
        steps in vec(step(), 0..400),
        factor in 0u32..6,
        quiet in 0u64..2000,
        countings in vec(0usize..3, 4),
    ) {
        let mut bench = Bench::new(Counting::Incomplete);
        bench.policy.distributed.baseline_factor = factor;
        bench.policy.distributed.attack_quiet = Duration::from_secs(quiet);
        bench.policy.distributed.thresholds = PortThresholds { default: 3, ports: BTreeMap::new() };
        bench.policy.distributed.by_port = (0..).zip(countings.iter().map(|one| Counting::ALL[*one])).collect();
        let mut under_way = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Count { source, port, proven } => {
                    let attempt = Attempt { proven, ..attempt(source, port, bench.now) };
                    let outcome = bench.attacks.count(&attempt, &bench.policy, bench.now);
                    if let Some(attack) = outcome.began {
                        prop_assert!(under_way.insert(attack.port));
                        prop_assert!(attack.attempts > attack.threshold);
                        prop_assert_eq!(attack.sources.last(), Some(&attack.source));
                    }
                    if let Some(offence) = outcome.offence {
                        prop_assert!(under_way.contains(&offence.ports[0].1));
                        let counting = bench.policy.distributed.counting_of(port);
                        prop_assert!(!(proven && counting == Counting::Incomplete));
                    }
                }
                Step::Wait(seconds) => bench.now += Duration::from_secs(seconds),
                Step::Back(seconds) => {
                    bench.now = bench.now.checked_sub(Duration::from_secs(seconds)).unwrap_or(bench.now);
                }
                Step::Expire => {
                    let deadline = bench.attacks.next_deadline(&bench.policy);
                    for attack in bench.wait(0) {
                        prop_assert!(under_way.remove(&attack.port));
                        prop_assert!(deadline.is_some_and(|deadline| deadline <= bench.now));
                    }
                    let next = bench.attacks.next_deadline(&bench.policy);
                    prop_assert!(next.is_none_or(|next| next > bench.now || under_way.is_empty()));
                }
                Step::Forget(source) => bench.attacks.forget(Prefix::host(addr(source))),
                Step::Threshold(most) => bench.policy.distributed.thresholds.default = most,
                Step::Window(nanos) => bench.policy.window = Duration::from_nanos(nanos),
                Step::Restart => {
                    let saved = bench.attacks.baseline(bench.now);
                    bench.attacks = Attacks::new();
                    bench.attacks.restore(&saved, Duration::from_secs(30), bench.now);
                    prop_assert_eq!(bench.attacks.baseline(bench.now).ports.len(), saved.ports.len());
                    under_way.clear();
                }
            }
            let told: Vec<u16> = under_way.iter().copied().collect();
            prop_assert_eq!(bench.under_way(), told);
        }
    }
}
