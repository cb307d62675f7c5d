//! What is retried, when, and what becomes of the rest.

use std::thread;
use std::time::{Duration, Instant};

use verdictd::core::probe::{Probe, TcpFlags, Transport};
use verdictd::webhook::Webhooks;
use verdictd::webhook::status::Circuit;
use verdictd::webhook::wire::EventType;

use crate::rig::{QUICK, Receiver, answer, config, of, ok, publish, to, until};

#[test]
fn what_is_urgent_goes_at_once_and_the_rest_waits_for_its_batch() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, "batch_timeout = 3", "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let start = Instant::now();
    let quiet = publish(&outbox, EventType::IpUnblocked, 2);
    thread::sleep(Duration::from_millis(1_200));
    assert!(receiver.requests().is_empty());
    until(3, &webhooks, "what waited is sent", |status| {
        of(status, "soc").delivered == 2
    });
    assert!(
        start.elapsed() > Duration::from_millis(2_900),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(receiver.ids(), quiet);
    for kind in [EventType::IpBlocked, EventType::BlockError] {
        let (before, told) = (receiver.ids().len(), Instant::now());
        publish(&outbox, EventType::IpUnblocked, 1);
        publish(&outbox, kind, 1);
        until(1, &webhooks, "urgent", |_| receiver.ids().len() == before + 2);
        assert!(told.elapsed() < Duration::from_secs(1));
    }
    // a full batch does not wait either
    publish(&outbox, EventType::IpUnblocked, 10);
    until(1, &webhooks, "full", |status| of(status, "soc").delivered == 16);
}

#[test]
fn a_retried_batch_is_the_same_batch_and_retry_after_is_honoured() {
    let receiver = Receiver::start(|number| match number {
        0 => answer("503 Service Unavailable", "retry-after: 3\r\n"),
        1 => answer("429 Too Many Requests", ""),
        _ => ok(),
    });
    let folder = tempfile::tempdir().unwrap();
    let (webhooks, outbox) = Webhooks::start(&to(&receiver, QUICK, ""), folder.path()).unwrap();
    let first = publish(&outbox, EventType::IpBlocked, 3);
    thread::sleep(Duration::from_millis(1_000));
    let later = publish(&outbox, EventType::IpBlocked, 1);
    let status = until(15, &webhooks, "it is taken", |status| {
        of(status, "soc").delivered == 4
    });
    let requests = receiver.requests();
    let ids: Vec<_> = requests.iter().map(|request| request.ids()).collect();
    assert_eq!(ids, [first.clone(), first.clone(), first, later]);
    let wait = |n: usize| requests[n + 1].at - requests[n].at;
    assert!(wait(0) >= Duration::from_secs(3), "{:?}", wait(0));
    assert!(wait(1) >= Duration::from_millis(1_500), "{:?}", wait(1));
    let soc = of(&status, "soc");
    assert_eq!((soc.attempts, soc.failed, soc.success_rate()), (4, 2, Some(0.5)));
    assert_eq!(
        soc.last_error.as_deref(),
        Some("it answers 429 Too Many Requests")
    );
}

#[test]
fn the_circuit_opens_and_an_operator_closes_it() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&well);
    let receiver = Receiver::start(move |_| match seen.load(std::sync::atomic::Ordering::Relaxed) {
        true => ok(),
        false => answer("500 Internal Server Error", ""),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, &format!("{QUICK}\nretry_attempts = 1"), "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let ids = publish(&outbox, EventType::IpBlocked, 1);
    until(10, &webhooks, "it opens", |status| {
        of(status, "soc").circuit == Circuit::Open
    });
    assert_eq!(receiver.requests().len(), 2);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(receiver.requests().len(), 2);
    well.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((webhooks.retry(Some("nobody")), webhooks.retry(None)), (0, 1));
    let status = until(5, &webhooks, "it is taken", |status| {
        of(status, "soc").delivered == 1
    });
    assert_eq!(of(&status, "soc").circuit, Circuit::Closed);
    assert_eq!(receiver.ids()[2..], ids);
}

#[test]
fn what_is_refused_is_a_dead_letter_until_it_is_asked_for() {
    let receiver = Receiver::start(|number| if number == 0 { answer("410 Gone", "") } else { ok() });
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, QUICK, "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let ids = publish(&outbox, EventType::IpBlocked, 2);
    let status = until(5, &webhooks, "dead letters", |status| {
        of(status, "soc").dead_letters == 2
    });
    assert_eq!((of(&status, "soc").waiting, receiver.requests().len()), (0, 1));
    drop(outbox);
    webhooks.stop(Instant::now() + Duration::from_secs(2));
    let (webhooks, _outbox) = Webhooks::start(&config, folder.path()).unwrap();
    until(5, &webhooks, "they are kept", |status| {
        of(status, "soc").dead_letters == 2
    });
    webhooks.retry(Some("soc"));
    until(5, &webhooks, "they are sent", |status| {
        of(status, "soc").dead_letters == 0
    });
    assert_eq!(receiver.requests()[1].ids(), ids);
}

#[test]
fn what_grew_too_old_is_a_dead_letter() {
    let receiver = Receiver::start(|_| answer("500 Internal Server Error", ""));
    let folder = tempfile::tempdir().unwrap();
    let mut config = to(&receiver, QUICK, "");
    config.spool_max_age = Duration::from_secs(1);
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 25);
    let status = until(10, &webhooks, "it gives up", |status| {
        of(status, "soc").dead_letters == 25
    });
    assert_eq!((of(&status, "soc").waiting, of(&status, "soc").delivered), (0, 0));
}

#[test]
fn a_full_spool_drops_the_oldest_and_says_how_many() {
    let receiver = Receiver::start(|_| answer("500 Internal Server Error", ""));
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, &format!("{QUICK}\nspool_max_bytes = 1048576"), "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    for round in 1..=10 {
        publish(&outbox, EventType::IpBlocked, 500);
        until(5, &webhooks, "written", |status| status.spooled == round * 500);
    }
    let status = until(5, &webhooks, "dropped", |status| of(status, "soc").dropped > 0);
    let soc = of(&status, "soc");
    assert_eq!(soc.waiting + soc.dropped, 5_000);
    assert!(status.spool_bytes <= 1 << 20, "{status:?}");
}

#[test]
fn each_gets_what_it_wants_and_a_reload_changes_that() {
    let (all, some) = (Receiver::fine(), Receiver::fine());
    let url = |receiver: &Receiver| format!("http://{}/", receiver.address);
    let (all_url, some_url) = (url(&all), url(&some));
    let with = |events: &str| config(QUICK, &[("all", &all_url, ""), ("some", &some_url, events)]);
    let folder = tempfile::tempdir().unwrap();
    let only = with(
        "events = { include = [\"ip_blocked\", \"connection_attempt\"], exclude = [\"connection_attempt\"] }",
    );
    let (mut webhooks, outbox) = Webhooks::start(&only, folder.path()).unwrap();
    // What is wanted first comes last: whoever has it has passed over the others, which the next filter wants.
    let kinds = [
        EventType::IpUnblocked,
        EventType::ConnectionAttempt,
        EventType::IpBlocked,
    ];
    let sent = kinds.map(|kind| publish(&outbox, kind, 1).remove(0));
    until(5, &webhooks, "all", |status| of(status, "all").delivered == 3);
    until(5, &webhooks, "some", |status| of(status, "some").delivered == 1);
    assert_eq!(some.ids(), sent[2..]);
    webhooks
        .reload(&with("events = { include = [\"ip_unblocked\"] }"))
        .unwrap();
    let sent = kinds.map(|kind| publish(&outbox, kind, 1).remove(0));
    until(5, &webhooks, "some", |status| of(status, "some").delivered == 2);
    assert_eq!(some.ids()[1..], sent[..1]);
    webhooks.reload(&with("enabled = false")).unwrap();
    publish(&outbox, EventType::IpUnblocked, 1);
    until(5, &webhooks, "all", |status| of(status, "all").delivered == 7);
    assert_eq!(
        (some.ids().len(), of(&webhooks.status(), "some").enabled),
        (2, false)
    );
    webhooks
        .reload(&verdictd::webhook::config::WebhookConfig::default())
        .unwrap();
    assert!(!webhooks.status().enabled);
}

fn syn(src: [u8; 4]) -> Probe {
    let transport = Transport::Tcp {
        sport: 50_000,
        dport: 22,
        flags: TcpFlags(0x02),
        seq: 7,
    };
    Probe {
        src: src.into(),
        dst: [192, 0, 2, 1].into(),
        transport,
    }
}

#[test]
fn attempts_above_ten_a_second_are_merged_and_delay_nothing() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let config = to(
        &receiver,
        "batch_timeout = 1\nrate_limit = 20\nbatch_size = 1000",
        "",
    );
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let now = Instant::now();
    for n in 0..2_000 {
        outbox.saw(&syn([203, 0, 113, 9]), now);
        outbox.saw(&syn([198, 51, 100, n as u8 % 250]), now);
    }
    thread::sleep(Duration::from_millis(500));
    let told = Instant::now();
    let urgent = publish(&outbox, EventType::IpBlocked, 1).remove(0);
    until(1, &webhooks, "urgent", |_| receiver.ids().contains(&urgent));
    assert!(told.elapsed() < Duration::from_secs(1));
    let status = until(5, &webhooks, "merged", |status| status.merged > 1_900);
    assert_eq!(status.dropped, 0);
    until(10, &webhooks, "everything", |status| {
        of(status, "soc").waiting == 0
    });
    let requests = receiver.requests();
    let attempts = requests.iter().flat_map(|request| request.events());
    let of_scanner = attempts.filter(|event| event["data"]["ip"] == "203.0.113.9");
    let counts: Vec<u64> = of_scanner
        .map(|event| event["data"]["count"].as_u64().unwrap())
        .collect();
    assert!(
        counts.len() < 40 && counts.iter().sum::<u64>() == 2_000,
        "{counts:?}"
    );
}

#[test]
fn a_stop_sends_what_waits_and_keeps_what_cannot_be_sent() {
    let receiver = Receiver::start(|number| if number == 0 { ok() } else { answer("500 Oops", "") });
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, "batch_timeout = 3600\nbatch_size = 2", "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let ids = publish(&outbox, EventType::IpUnblocked, 3);
    let start = Instant::now();
    let status = webhooks.stop(start + Duration::from_secs(5));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(
        (of(&status, "soc").delivered, of(&status, "soc").waiting),
        (2, 1),
        "{status:?}"
    );
    let receiver = Receiver::fine();
    let (webhooks, _outbox) = Webhooks::start(&to(&receiver, QUICK, ""), folder.path()).unwrap();
    until(5, &webhooks, "the rest", |status| {
        of(status, "soc").delivered == 1
    });
    assert_eq!(receiver.ids(), ids[2..]);
}
