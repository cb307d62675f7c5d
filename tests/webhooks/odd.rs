//! Bad luck in combination: one bad event among good ones, changes in the middle of something, disks that fail.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use verdictd::webhook::Webhooks;
use verdictd::webhook::config::WebhookConfig;
use verdictd::webhook::status::Circuit;
use verdictd::webhook::wire::EventType;

use crate::rig::{QUICK, Receiver, Request, answer, config, of, ok, publish, to, until};

fn numbers(request: &Request) -> Vec<u64> {
    let number = |event: &serde_json::Value| event["data"]["n"].as_u64().unwrap();
    request.events().iter().map(number).collect()
}

/// Numbers of everything that was taken, in order.
fn taken(receiver: &Receiver, refused: impl Fn(&Request) -> bool) -> Vec<u64> {
    let requests = receiver.requests();
    requests
        .iter()
        .filter(|request| !refused(request))
        .flat_map(numbers)
        .collect()
}

#[test]
fn one_bad_event_does_not_bury_the_good_ones_of_its_batch() {
    let bad = |request: &Request| numbers(request).contains(&3);
    let receiver = Receiver::judging(move |_, request| match bad(request) {
        true => answer("400 Bad Request", ""),
        false => ok(),
    });
    let folder = tempfile::tempdir().unwrap();
    let (webhooks, outbox) = Webhooks::start(&to(&receiver, QUICK, ""), folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 10);
    let status = until(20, &webhooks, "all but one", |status| {
        of(status, "soc").delivered + of(status, "soc").dead_letters == 10
    });
    let soc = of(&status, "soc");
    assert_eq!(
        (soc.delivered, soc.dead_letters, soc.circuit),
        (9, 1, Circuit::Closed)
    );
    assert_eq!(taken(&receiver, bad), [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    // The next batch goes as a whole again, after as few requests as it takes to believe it.
    publish(&outbox, EventType::IpUnblocked, 2);
    until(20, &webhooks, "the next", |status| {
        of(status, "soc").delivered == 11
    });
}

#[test]
fn a_batch_that_is_too_large_goes_in_parts() {
    let large = |request: &Request| request.body.len() > 2_000;
    let receiver = Receiver::judging(move |_, request| match large(request) {
        true => answer("413 Content Too Large", ""),
        false => ok(),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = to(&receiver, &format!("{QUICK}\nbatch_size = 10000"), "");
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 200);
    let status = until(60, &webhooks, "all", |status| of(status, "soc").delivered == 200);
    assert_eq!(of(&status, "soc").dead_letters, 0);
    assert_eq!(taken(&receiver, large), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_dead_letter_that_is_refused_again_holds_up_no_other() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = std::sync::Arc::clone(&broken);
    let bad = |request: &Request| numbers(request).contains(&0);
    let receiver = Receiver::judging(move |_, request| {
        match seen.load(std::sync::atomic::Ordering::Relaxed) || bad(request) {
            true => answer("422 Unprocessable Content", ""),
            false => ok(),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (webhooks, outbox) = Webhooks::start(&to(&receiver, QUICK, ""), folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 10);
    until(20, &webhooks, "all refused", |status| {
        of(status, "soc").dead_letters == 10
    });
    // Whoever refuses everything is not asked for each event by itself.
    assert!(receiver.requests().len() < 10, "{}", receiver.requests().len());
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    webhooks.retry(None);
    let status = until(20, &webhooks, "all but one", |status| {
        of(status, "soc").dead_letters == 1
    });
    assert_eq!(of(&status, "soc").delivered, 9);
    // It was tried once, and is not tried for ever.
    thread::sleep(Duration::from_millis(300));
    let requests = receiver.requests().len();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(receiver.requests().len(), requests);
}

#[test]
fn a_rare_event_behind_many_others_is_found() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let closed = "http://127.0.0.1:1/";
    let rare = "events = { include = [\"block_error\"] }";
    let with = |url: &str| config(QUICK, &[("all", closed, ""), ("rare", url, rare)]);
    let (webhooks, outbox) = Webhooks::start(&with(closed), folder.path()).unwrap();
    for round in 1..=10 {
        publish(&outbox, EventType::IpUnblocked, 1_000);
        until(20, &webhooks, "written", |status| status.spooled == round * 1_000);
    }
    let ids = publish(&outbox, EventType::BlockError, 1);
    until(20, &webhooks, "written", |status| of(status, "rare").waiting == 1);
    webhooks.stop(Instant::now() + Duration::from_secs(5));
    let url = format!("http://{}/", receiver.address);
    let (webhooks, _outbox) = Webhooks::start(&with(&url), folder.path()).unwrap();
    until(20, &webhooks, "found", |status| of(status, "rare").delivered == 1);
    assert_eq!(receiver.ids(), ids);
}

#[test]
fn a_changed_endpoint_is_tried_at_once_and_by_its_new_filter() {
    let (silent, fine) = (
        Receiver::start(|_| answer("503 Service Unavailable", "retry-after: 3600\r\n")),
        Receiver::fine(),
    );
    let folder = tempfile::tempdir().unwrap();
    let (mut webhooks, outbox) = Webhooks::start(&to(&silent, QUICK, ""), folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 3);
    until(20, &webhooks, "it failed", |status| of(status, "soc").failed == 1);
    let errors = publish(&outbox, EventType::BlockError, 2);
    until(20, &webhooks, "written", |status| of(status, "soc").waiting == 5);
    let only = "events = { include = [\"block_error\"] }";
    webhooks.reload(&to(&fine, QUICK, only)).unwrap();
    let status = until(20, &webhooks, "the new address", |status| {
        of(status, "soc").delivered == 2
    });
    assert_eq!((fine.ids(), of(&status, "soc").waiting), (errors, 0));
    assert_eq!(silent.requests().len(), 1);
}

#[test]
fn nothing_is_given_up_that_was_not_tried() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    // Older than spool_max_age before its batch is due.
    let mut config = to(&receiver, "batch_timeout = 3", "");
    config.spool_max_age = Duration::from_secs(1);
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    publish(&outbox, EventType::IpUnblocked, 2);
    until(20, &webhooks, "taken", |status| of(status, "soc").delivered == 2);
    // Older after a restart, or by a clock that was set meanwhile.
    let mut unreachable = crate::rig::config(QUICK, &[("soc", "http://127.0.0.1:1/", "")]);
    unreachable.spool_max_age = Duration::from_secs(3_600);
    webhooks.stop(Instant::now() + Duration::from_secs(5));
    let (webhooks, outbox) = Webhooks::start(&unreachable, folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 2);
    until(20, &webhooks, "written", |status| of(status, "soc").waiting == 2);
    webhooks.stop(Instant::now() + Duration::from_secs(5));
    thread::sleep(Duration::from_millis(1_200));
    let (webhooks, _outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let status = until(20, &webhooks, "taken", |status| of(status, "soc").delivered == 2);
    assert_eq!(of(&status, "soc").dead_letters, 0);
}

#[test]
fn a_spool_that_could_not_be_opened_is_opened_by_a_reload() {
    let receiver = Receiver::fine();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("webhooks");
    fs::write(&place, "in the way").unwrap();
    let (mut webhooks, outbox) = Webhooks::start(&WebhookConfig::default(), &place).unwrap();
    let config = to(&receiver, QUICK, "");
    assert!(webhooks.reload(&config).is_err());
    let said = webhooks.status().last_error.unwrap();
    assert!(said.contains("spool of webhooks"), "{said}");
    fs::remove_file(&place).unwrap();
    webhooks.reload(&config).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    until(20, &webhooks, "taken", |status| of(status, "soc").delivered == 1);
}

#[test]
fn a_dead_letter_that_cannot_be_kept_is_counted() {
    let receiver = Receiver::start(|_| answer("410 Gone", ""));
    let folder = tempfile::tempdir().unwrap();
    let (webhooks, outbox) = Webhooks::start(&to(&receiver, QUICK, ""), folder.path()).unwrap();
    publish(&outbox, EventType::IpBlocked, 1);
    until(20, &webhooks, "kept", |status| {
        of(status, "soc").dead_letters == 1
    });
    let letters = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .unwrap();
    fs::remove_file(&letters).unwrap();
    fs::create_dir(&letters).unwrap();
    publish(&outbox, EventType::IpBlocked, 2);
    let status = until(20, &webhooks, "counted", |status| of(status, "soc").dropped == 2);
    assert!(status.last_error.is_some() && of(&status, "soc").waiting == 0);
}
