//! The feed on the real kernel: every test in a network namespace of its own, on packets that it sends itself.
//!
//! Packets are diverted on their way out, where `send` returns only after the packet was queued or dropped: all
//! counts are exact and nothing is raced.

#![allow(clippy::unwrap_used)]

mod feed {
    pub(crate) mod ground;
}

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use feed::ground::{self, Ground, RawSender, Sniffers, run, wait_for};
use verdictd::core::verdict::{Class, Verdict};
use verdictd::kernel::preflight::{Backend, PreflightError, judge_one_packet};
use verdictd::kernel::queue::{
    COPY_RANGE, Feed, FeedConfig, FeedError, Numbered, QueueCounters, free_groups, free_queues,
    queue_counters,
};

const NEW: u16 = 100;
const ODD: u16 = 101;
const GROUP: u16 = 100;

fn config() -> FeedConfig {
    FeedConfig {
        new_queue: Some(NEW),
        odd_queue: Some(ODD),
        log_group: GROUP,
        log_class: Class::Refused,
        queue_length: 1024,
        fail_open: false,
        copy_range: COPY_RANGE,
    }
}

/// Serves until nothing more is there; says how many packets were judged.
fn serve_all(feed: &mut Feed, mut judge: impl FnMut(&[u8]) -> Verdict) -> u32 {
    let mut packets = 0;
    loop {
        let served = feed.serve(|packet| judge(packet.payload)).unwrap();
        assert_eq!(served.packets, served.held, "only queues here");
        packets += served.packets;
        if served.packets == 0 && !served.more {
            return packets;
        }
    }
}

fn counters(number: u16) -> QueueCounters {
    let queues = queue_counters().expect("readable for root");
    *queues.iter().find(|queue| queue.number == number).expect("bound")
}

#[test]
fn packets_are_accepted_and_dropped_one_by_one() {
    for family in [Ground::v4, Ground::v6] {
        run(move || {
            let ground = family();
            let mut feed = Feed::open(&config()).unwrap();
            ground.queue_udp(NEW);
            for number in 0..200 {
                ground.send(number);
            }
            let mut seen = Vec::new();
            let judged = serve_all(&mut feed, |payload| {
                let number = ground.number(payload);
                seen.push(number);
                if number % 3 == 0 {
                    Verdict::Drop
                } else {
                    Verdict::Accept
                }
            });
            assert_eq!(judged, 200);
            assert_eq!(seen, (0..200).collect::<Vec<_>>(), "in the order they were sent");
            let passed: Vec<_> = (0..200).filter(|number| number % 3 != 0).collect();
            assert_eq!(ground.receive(passed.len()), passed);
            assert_eq!(feed.counters(), Default::default());
            let kernel = counters(NEW);
            assert_eq!(
                (kernel.waiting, kernel.kernel_dropped, kernel.user_dropped),
                (0, 0, 0)
            );
            assert_eq!((kernel.id_sequence, kernel.copy_mode), (200, 2));
        });
    }
}

#[test]
fn the_number_tells_the_class() {
    run(|| {
        let ground = Ground::v4();
        let mut feed = Feed::open(&config()).unwrap();
        ground.queue_udp(ODD);
        ground.copy_udp(GROUP);
        ground.send(1);
        let mut classes = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(2);
        while classes.len() < 2 && Instant::now() < deadline {
            let served = feed
                .serve(|packet| {
                    classes.push((packet.class, ground.number(packet.payload), packet.in_interface));
                    Verdict::Accept
                })
                .unwrap();
            assert!(served.held <= 1);
        }
        // The copy is gathered for 10 ms, the held packet is not; on its way out a packet came in nowhere.
        assert_eq!(classes, [(Class::Odd, 1, None), (Class::Refused, 1, None)]);
        assert_eq!(ground.receive(1), [1]);
    });
}

#[test]
fn the_prefix_of_a_copy_tells_its_class() {
    let cases = [
        ("", Class::Refused),
        ("prefix \"somebody's\"", Class::Refused),
        ("prefix \"refused\"", Class::Refused),
        ("prefix \"passed\"", Class::Observed),
    ];
    for (words, class) in cases {
        run(move || {
            let ground = Ground::v4();
            let mut feed = Feed::open(&config()).unwrap();
            ground.copy_udp_as(GROUP, words);
            ground.send(1);
            let mut classes = Vec::new();
            wait_for(|| {
                let served = feed.serve(|packet| {
                    classes.push(packet.class);
                    Verdict::Accept
                });
                served.unwrap().packets > 0
            });
            assert_eq!(classes, [class], "{words}");
        });
    }
}

#[test]
fn a_full_queue_drops_or_passes_as_configured() {
    for (fail_open, passed_unseen, kernel_dropped) in [(false, 0, 400), (true, 400, 0)] {
        run(move || {
            let ground = Ground::v4();
            let mut feed = Feed::open(&FeedConfig {
                queue_length: 100,
                fail_open,
                ..config()
            })
            .unwrap();
            ground.queue_udp(NEW);
            for number in 0..500 {
                ground.send(number);
            }
            assert_eq!(counters(NEW).waiting, 100);
            assert_eq!(ground.receive(passed_unseen).len(), passed_unseen);
            assert_eq!(serve_all(&mut feed, |_| Verdict::Accept), 100);
            assert_eq!(ground.receive(100), (0..100).collect::<Vec<_>>());
            assert_eq!(counters(NEW).kernel_dropped, kernel_dropped);
            assert_eq!(counters(NEW).user_dropped, 0);
        });
    }
}

#[test]
fn an_overflowing_receive_buffer_is_counted_and_survived() {
    run(|| {
        let ground = Ground::v4();
        let mut feed = Feed::open(&config()).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&feed, 16 << 10).unwrap();
        ground.queue_udp(NEW);
        for number in 0..500 {
            ground.send(number);
        }
        let held = counters(NEW).waiting;
        assert!(
            (10..100).contains(&held),
            "32 KiB hold a few dozen packets, not {held}"
        );
        assert_eq!(serve_all(&mut feed, |_| Verdict::Accept), held);
        assert_eq!(ground.receive(held as usize).len() as u32, held);
        assert_eq!(counters(NEW).user_dropped, 500 - held);
        assert_eq!(
            feed.counters().enobufs,
            1,
            "one overflow, however many packets it cost"
        );
        assert_eq!(
            (feed.counters().verdict_errors, feed.counters().malformed),
            (0, 0)
        );
        for number in 0..10 {
            ground.send(number);
        }
        assert_eq!(serve_all(&mut feed, |_| Verdict::Accept), 10, "it goes on");
        assert_eq!(ground.receive(10).len(), 10);
    });
}

#[test]
fn the_receive_buffer_holds_two_full_queues_of_large_packets() {
    run(|| {
        let ground = Ground::v4();
        let mut feed = Feed::open(&FeedConfig {
            queue_length: 2000,
            ..config()
        })
        .unwrap();
        for queue in [NEW, ODD] {
            ground.flush();
            ground.queue_udp(queue);
            for number in 0..2000 {
                ground.send_padded(number, 2000);
            }
            assert_eq!((counters(queue).waiting, counters(queue).user_dropped), (2000, 0));
        }
        let mut longest = 0;
        let judged = serve_all(&mut feed, |payload| {
            longest = longest.max(payload.len());
            Verdict::Drop
        });
        assert_eq!((judged, longest), (4000, COPY_RANGE as usize));
        assert_eq!(feed.counters(), Default::default());
    });
}

#[test]
fn ten_thousand_packets_are_accounted_for_to_the_last() {
    const SENT: u32 = 10_000;
    run(|| {
        let ground = Ground::v4();
        // Short enough that a sender on the other processor outruns the worker now and then.
        let mut feed = Feed::open(&FeedConfig {
            queue_length: 256,
            ..config()
        })
        .unwrap();
        ground.queue_udp(NEW);
        let mut judged = [0u32; 2];
        let mut judge = |feed: &mut Feed| {
            serve_all(feed, |payload| {
                let odd = ground.number(payload) % 2;
                judged[odd as usize] += 1;
                if odd == 0 { Verdict::Accept } else { Verdict::Drop }
            });
        };
        let mut arrived = 0;
        std::thread::scope(|scope| {
            let sender = ground.sender();
            let sending = scope.spawn(move || (0..SENT).for_each(|number| sender.send(number)));
            while !sending.is_finished() {
                judge(&mut feed);
                arrived += ground.arrived().len() as u32;
            }
        });
        judge(&mut feed);
        let [accepted, dropped] = judged;
        arrived += ground.receive((accepted - arrived) as usize).len() as u32;
        let kernel = counters(NEW);
        assert_eq!(
            accepted + dropped + kernel.kernel_dropped + kernel.user_dropped,
            SENT
        );
        assert_eq!(arrived, accepted);
        assert_eq!(feed.counters().verdict_errors, 0);
        assert_eq!(feed.counters().malformed, 0);
    });
}

#[test]
fn segmentation_offload_passes_whole() {
    run(|| {
        let ground = Ground::v4();
        let mut feed = Feed::open(&config()).unwrap();
        ground.queue_tcp(NEW);
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let (mut longest, mut received) = (0, Vec::new());
        std::thread::scope(|scope| {
            let data = &sent;
            scope.spawn(move || {
                io::Write::write_all(&mut std::net::TcpStream::connect(to).unwrap(), data).unwrap()
            });
            let reading = scope.spawn(move || {
                let mut received = Vec::new();
                io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut received).unwrap();
                received
            });
            while !reading.is_finished() {
                serve_all(&mut feed, |payload| {
                    longest = longest.max(u16::from_be_bytes([payload[2], payload[3]]));
                    Verdict::Accept
                });
            }
            received = reading.join().unwrap();
        });
        assert!(received == sent);
        assert!(
            longest > 9000,
            "a packet larger than any frame came as one, longest {longest}"
        );
        assert_eq!(feed.counters(), Default::default());
    });
}

#[test]
fn copies_come_and_hold_nothing() {
    run(|| {
        let ground = Ground::v6();
        let config = FeedConfig {
            new_queue: None,
            odd_queue: None,
            log_class: Class::Observed,
            ..config()
        };
        let mut feed = Feed::open(&config).unwrap();
        ground.copy_udp(GROUP);
        for number in 0..100 {
            ground.send_padded(number, 2000);
        }
        assert_eq!(
            ground.receive(100).len(),
            100,
            "they passed before anybody looked"
        );
        let mut seen = Vec::new();
        wait_for(|| {
            let served = feed
                .serve(|packet| {
                    assert_eq!(
                        (packet.class, packet.payload.len()),
                        (Class::Observed, COPY_RANGE as usize)
                    );
                    seen.push(ground.number(packet.payload));
                    Verdict::Drop
                })
                .unwrap();
            assert_eq!(served.held, 0);
            seen.len() == 100
        });
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(feed.counters(), Default::default());
        assert_eq!(queue_counters().unwrap(), []);
    });
}

#[test]
fn a_verdict_that_comes_too_late_is_counted() {
    run(|| {
        let ground = Ground::v4();
        let mut feed = Feed::open(&config()).unwrap();
        ground.queue_udp(NEW);
        for number in 0..5 {
            ground.send(number);
        }
        // Removing a base chain drops what waits in the queues (DESIGN §7).
        ground.flush_tables();
        assert_eq!(serve_all(&mut feed, |_| Verdict::Accept), 5);
        assert_eq!(feed.counters().verdict_errors, 5);
        ground.queue_udp(NEW);
        ground.send(7);
        assert_eq!(serve_all(&mut feed, |_| Verdict::Accept), 1);
        assert_eq!(ground.receive(1), [7]);
    });
}

#[test]
fn a_taken_number_is_an_error_that_names_the_holder() {
    run(|| {
        let _ground = Ground::v4();
        let _first = Feed::open(&FeedConfig {
            odd_queue: None,
            ..config()
        })
        .unwrap();
        let me = format!("(pid {})", std::process::id());
        for (second, kind, number) in [
            (
                FeedConfig {
                    new_queue: Some(99),
                    odd_queue: Some(NEW),
                    log_group: 1,
                    ..config()
                },
                Numbered::Queue,
                NEW,
            ),
            (
                FeedConfig {
                    new_queue: None,
                    odd_queue: None,
                    ..config()
                },
                Numbered::LogGroup,
                GROUP,
            ),
        ] {
            let error = Feed::open(&second).err().expect("taken");
            assert!(
                error
                    .to_string()
                    .contains(&format!("{} {number} is taken by ", kind.word())),
                "{error}"
            );
            assert!(error.to_string().contains(&me), "{error}");
            let FeedError::Taken {
                kind: found,
                number: taken,
                portid,
                ..
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!((found, taken), (kind, number));
            assert_eq!(portid, Some(counters(NEW).portid));
        }
        assert!(
            Feed::open(&FeedConfig {
                new_queue: Some(99),
                log_group: 1,
                ..config()
            })
            .is_ok(),
            "all let go of"
        );
    });
}

#[test]
fn free_numbers_are_found_around_taken_ones() {
    run(|| {
        let _ground = Ground::v4();
        let _taken = Feed::open(&config()).unwrap();
        assert_eq!(free_queues(96, 4).unwrap(), 96);
        assert_eq!(free_queues(98, 3).unwrap(), 102);
        assert_eq!(free_groups(98, 2).unwrap(), 98);
        assert_eq!(free_groups(98, 3).unwrap(), 101);
        assert!(matches!(
            free_queues(65535, 2),
            Err(FeedError::Exhausted {
                base: 65535,
                count: 2,
                ..
            })
        ));
        assert_eq!(queue_counters().unwrap().len(), 2, "and let go of again");
    });
}

#[test]
fn packets_that_come_while_binding_are_judged() {
    run(|| {
        let ground = Ground::v4();
        ground.queue_udp(NEW);
        let (stop, sender) = (AtomicBool::new(false), ground.sender());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let numbers = (0..u32::MAX).take_while(|_| !stop.load(Ordering::Relaxed));
                numbers.for_each(|number| sender.send(number));
            });
            std::thread::sleep(Duration::from_millis(5));
            let mut feed = Feed::open(&FeedConfig {
                queue_length: 100_000,
                ..config()
            })
            .unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            while counters(NEW).id_sequence == 0 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            sending.join().unwrap();
            let queued = counters(NEW).id_sequence;
            assert!(queued > 0, "some came");
            assert_eq!(serve_all(&mut feed, |_| Verdict::Drop), queued);
            assert_eq!(counters(NEW).waiting, 0, "none is held for ever");
            assert_eq!(feed.counters(), Default::default());
        });
    });
}

#[test]
fn a_killed_predecessor_is_waited_for() {
    run(|| {
        let _ground = Ground::v4();
        for _ in 0..50 {
            all_let_go();
            let mut holder = holder();
            let predecessor = counters(NEW).portid;
            holder.kill().unwrap();
            let feed = Feed::open(&config()).unwrap();
            assert_ne!(counters(NEW).portid, predecessor);
            holder.wait().unwrap();
            drop(feed);
        }
    });
}

/// A child that another test is just starting may keep a closed socket open until it execs.
fn all_let_go() {
    wait_for(|| queue_counters().unwrap().is_empty());
}

/// This test binary once more, as a process of its own that holds the queue until it is killed.
fn holder() -> std::process::Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_for_another_test", "--nocapture"])
        .env("VERDICTD_TEST_HOLD", "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| queue_counters().unwrap().len() == 2);
    child
}

/// The body of [`holder`]'s process; by itself it shows only that a feed is not opened unasked.
#[test]
fn hold_for_another_test() {
    if std::env::var_os("VERDICTD_TEST_HOLD").is_some() {
        let _feed = Feed::open(&config()).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn the_preflight_judges_a_packet_and_leaves_nothing() {
    run(|| {
        let ground = Ground::v4();
        let backend = judge_one_packet().unwrap();
        let native = Command::new("nft")
            .args(["add table t ; add chain t c ; add rule t c queue num 1"])
            .stderr(std::process::Stdio::null())
            .status();
        let expected = if native.unwrap().success() {
            Backend::Native
        } else {
            Backend::Xt
        };
        ground.flush_tables();
        assert_eq!(backend, expected);
        assert_eq!(judge_one_packet().unwrap(), expected, "again");
        assert_eq!(ground.tables(), "");
        assert_eq!(queue_counters().unwrap(), []);
    });
}

#[test]
fn the_preflight_says_what_is_wrong() {
    run(|| {
        let error = judge_one_packet().unwrap_err();
        assert!(
            matches!(error, PreflightError::Loopback(_)),
            "lo is down: {error:?}"
        );
        let ground = Ground::v4();
        ground.nft("add table ip t ; add chain ip t c { type filter hook output priority -10 ; } ; add rule ip t c drop");
        let error = judge_one_packet().unwrap_err();
        assert!(
            matches!(error, PreflightError::Send(_) | PreflightError::NotQueued(_)),
            "{error:?}"
        );
        assert!(
            ground.tables().lines().all(|line| line == "table ip t"),
            "{}",
            ground.tables()
        );
        ground.flush_tables();
        ground.nft("add table ip t ; add chain ip t c { type filter hook input priority -10 ; } ; add rule ip t c drop");
        let error = judge_one_packet().unwrap_err();
        assert!(matches!(error, PreflightError::NotDelivered), "{error:?}");
    });
}

#[test]
fn without_the_capability_the_error_says_so() {
    run(|| {
        let _ground = Ground::v4();
        ground::drop_net_admin();
        for error in [
            Feed::open(&config()).err().unwrap(),
            free_queues(1, 1).unwrap_err(),
        ] {
            assert!(matches!(error, FeedError::NoCapability), "{error:?}");
        }
        let error = judge_one_packet().unwrap_err();
        assert!(
            matches!(error, PreflightError::Queue(FeedError::NoCapability)),
            "{error:?}"
        );
    });
}

#[test]
fn nfq_sees_the_same_packets_and_its_verdicts_do_the_same() {
    run(|| {
        let packets = ground::recorded();
        let ground = Ground::v4();
        ground.queue_raw(NEW);
        let ours = {
            let mut feed = Feed::open(&config()).unwrap();
            replay(&packets, || {
                let mut seen = Vec::new();
                serve_all(&mut feed, |payload| {
                    seen.push(payload.to_vec());
                    if passes(payload) {
                        Verdict::Accept
                    } else {
                        Verdict::Drop
                    }
                });
                seen
            })
        };
        all_let_go();
        let oracle = {
            let mut queue = nfq::Queue::open().unwrap();
            queue.bind(NEW).unwrap();
            queue.set_recv_gso(NEW, true).unwrap();
            queue.set_nonblocking(true);
            replay(&packets, || {
                let mut seen = Vec::new();
                while let Ok(mut message) = queue.recv() {
                    let payload = message.get_payload();
                    let cut = payload[..payload.len().min(COPY_RANGE as usize)].to_vec();
                    let verdict = if passes(&cut) {
                        nfq::Verdict::Accept
                    } else {
                        nfq::Verdict::Drop
                    };
                    seen.push(cut);
                    message.set_verdict(verdict);
                    queue.verdict(message).unwrap();
                }
                seen
            })
        };
        assert_eq!(ours.0.len(), packets.len(), "every packet was seen");
        assert!(ours.0.iter().any(|packet| passes(packet)) && !ours.0.iter().all(|packet| passes(packet)));
        let differs = (0..packets.len()).find(|at| ours.0.get(*at) != oracle.0.get(*at));
        assert_eq!(
            differs.map(|at| (at, ours.0.get(at), oracle.0.get(at))),
            None,
            "the same packets seen"
        );
        assert_eq!(oracle.0.len(), packets.len());
        assert!(!ours.1.is_empty());
        assert!(ours.1 == oracle.1, "the same packets delivered");
    });
}

/// A decision that depends on nothing but the bytes.
fn passes(payload: &[u8]) -> bool {
    payload
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
        % 2
        == 0
}

/// Sends the recording; what was seen in the queue, and what arrived.
fn replay(packets: &[Vec<u8>], mut serve: impl FnMut() -> Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (sender, sniffers) = (RawSender::open(), Sniffers::open());
    let (mut seen, mut delivered) = (Vec::new(), Vec::new());
    // The default receive buffer, which nfq cannot grow, holds about 90 packets of this size.
    for burst in packets.chunks(50) {
        burst.iter().for_each(|packet| sender.send(packet));
        seen.extend(serve());
        let expected = seen
            .iter()
            .filter(|packet| passes(packet) && ground::is_deliverable(packet))
            .count();
        wait_for(|| {
            delivered.extend(sniffers.received());
            delivered.len() >= expected
        });
    }
    delivered.extend(sniffers.received());
    // Two sockets tell nothing of the order between them.
    delivered.sort();
    (seen, delivered)
}

#[test]
fn two_namespaces_do_not_see_each_other() {
    run(|| {
        let _ground = Ground::v4();
        let _outer = Feed::open(&config()).unwrap();
        run(|| {
            let _ground = Ground::v4();
            assert_eq!(queue_counters().unwrap(), []);
            let _inner = Feed::open(&config()).unwrap();
        });
    });
}
