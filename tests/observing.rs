//! With `enforce = false` no set is ever written, whatever happened before: the analyst with everything that can be
//! told to it but an operator's own ban.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use proptest::collection::vec;
use proptest::prelude::*;
use verdictd::config;
use verdictd::core::attack::Attempt;
use verdictd::core::policy::Policy;
use verdictd::core::prefix::Prefix;
use verdictd::core::scan::ScanKind;
use verdictd::core::verdict::{BanReason, Offence, Proto, Weight};
use verdictd::engine::analyst::{Analyst, Command, Inbox, Target};
use verdictd::engine::enforcer::Job;
use verdictd::engine::protect::Protection;
use verdictd::kernel::host::Why;
use verdictd::stats::Stats;

/// What an engine that only observes may be told.
#[derive(Clone, Debug)]
enum Told {
    Offence(IpAddr, BanReason, Weight),
    Attempts(Vec<(IpAddr, u16)>),
    Unban(IpAddr),
    Protect(IpAddr),
    Reload(u32),
}

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..30).prop_map(|host| IpAddr::from([192, 0, 2, host])),
        (0u16..30).prop_map(|net| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, 1])),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    let reason = prop_oneof![
        Just(BanReason::PortScanning),
        Just(BanReason::SuspiciousScanning),
        Just(BanReason::DistributedAttack)
    ];
    let weight = prop_oneof![
        Just(Weight::Full),
        Just(Weight::UdpOnly),
        Just(Weight::PossiblyForged)
    ];
    prop_oneof![
        5 => (addr(), reason, weight).prop_map(|(addr, reason, weight)| Told::Offence(addr, reason, weight)),
        2 => vec((addr(), 20u16..24), 1..30).prop_map(Told::Attempts),
        1 => addr().prop_map(Told::Unban),
        1 => addr().prop_map(Told::Protect),
        1 => (1u32..10).prop_map(Told::Reload),
    ]
}

fn policy(threshold: u32) -> Arc<Policy> {
    let text = format!(
        "[firewall]\nmode = \"custom\"\n[custom]\nunique_ports_threshold = {threshold}\n[bans]\nenforce = false\n\
         [distributed]\ncounting = \"all\"\nbaseline_factor = 0\n"
    );
    Arc::new(config::parse(&text, Path::new("verdictd.toml")).unwrap().policy)
}

fn offence(addr: IpAddr, reason: BanReason, weight: Weight) -> Offence {
    Offence {
        seen: addr,
        source: Prefix::source_of(addr, 64),
        reason,
        kind: ScanKind::Syn,
        ports: [(Proto::Tcp, 22)].into(),
        threshold: 7,
        weight,
        proven: weight == Weight::PossiblyForged,
        at: Instant::now(),
    }
}

fn attempt((addr, port): (IpAddr, u16)) -> Attempt {
    let now = Instant::now();
    Attempt {
        seen: addr,
        src_port: 40_000,
        dst: [198, 51, 100, 1].into(),
        port,
        source: Prefix::source_of(addr, 64),
        first_seen: now,
        proven: false,
        at: now,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_set_is_ever_written(history in vec(told(), 1..80)) {
        let policy = policy(7);
        let protection = Protection::of(Vec::new(), &policy.trusted);
        let (jobs, written) = unbounded();
        let stats = Arc::new(Stats::new(1, Instant::now()));
        let analyst = Analyst::new(policy, protection, Box::new([]), 1, jobs, Arc::clone(&stats));
        // One at a time, in this order: with room for one, the sender waits for the analyst.
        let (offences, offence_inbox) = bounded(0);
        let (commands, command_inbox) = bounded(0);
        let (attempts, attempt_inbox) = bounded(0);
        let (_reports, report_inbox) = unbounded();
        let inbox = Inbox {
            offences: offence_inbox,
            commands: command_inbox,
            attempts: attempt_inbox,
            reports: report_inbox,
        };
        let thread = std::thread::spawn(move || analyst.run(&inbox));
        for told in history {
            match told {
                Told::Offence(addr, reason, weight) => offences.send(Box::new(offence(addr, reason, weight))).unwrap(),
                Told::Attempts(row) => attempts.send(row.into_iter().map(attempt).collect()).unwrap(),
                Told::Unban(addr) => {
                    let (to, _reply) = bounded(1);
                    commands.send(Command::Unban { target: Target::Address(addr), to }).unwrap();
                }
                Told::Protect(addr) => {
                    commands.send(Command::Protect(vec![(Prefix::host(addr), Why::Gateway)])).unwrap();
                }
                Told::Reload(threshold) => commands.send(Command::Policy(another_policy(threshold))).unwrap(),
            }
        }
        commands.send(Command::Stop).unwrap();
        thread.join().unwrap();
        let changes: usize = written.try_iter().map(|job| match job {
            Job::Change(work) => work.changes.len(),
            _ => 0,
        }).sum();
        prop_assert_eq!((changes, stats.bans_active.get(), stats.snapshot(stats.started).bans_total), (0, 0, 0));
    }
}

fn another_policy(threshold: u32) -> Arc<Policy> {
    let mut policy = (*policy(threshold)).clone();
    policy.window = Duration::from_secs(60);
    Arc::new(policy)
}
