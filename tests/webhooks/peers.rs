//! FAULTS 36: eight peers that misbehave, beside one that does not.

use std::thread;
use std::time::{Duration, Instant};

use verdictd::webhook::Webhooks;
use verdictd::webhook::wire::EventType;

use crate::common::peers::BadPeers;
use crate::rig::{QUICK, Receiver, config, of, publish, until};

/// VmRSS of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn eight_bad_peers_delay_nobody_else_and_cost_little() {
    let good = Receiver::fine();
    let bad = BadPeers::start();
    let good_url = format!("http://{}/", good.address);
    let mut endpoints = vec![("good", good_url.as_str(), "")];
    endpoints.extend(bad.urls.iter().map(|(name, url)| (*name, url.as_str(), "")));
    let folder = tempfile::tempdir().unwrap();
    let config = config(&format!("{QUICK}\nspool_max_bytes = 1048576"), &endpoints);
    let (webhooks, outbox) = Webhooks::start(&config, folder.path()).unwrap();
    let before = memory();
    let mut sent = Vec::new();
    for _ in 0..30 {
        let told = Instant::now();
        sent.extend(publish(&outbox, EventType::IpBlocked, 100));
        assert!(
            told.elapsed() < Duration::from_millis(500),
            "{:?}",
            told.elapsed()
        );
        let status = until(2, &webhooks, "the good one gets everything", |status| {
            of(status, "good").delivered == sent.len() as u64
        });
        assert!(status.spool_bytes <= 1 << 20);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(good.ids(), sent);
    let status = until(20, &webhooks, "each bad one was noticed", |status| {
        let bad = status
            .endpoints
            .iter()
            .filter(|endpoint| !["good", "endless"].contains(&endpoint.name.as_str()));
        bad.into_iter().all(|endpoint| endpoint.failed > 0)
    });
    assert!(memory() < before + 32 * 1024, "{before} {}", memory());
    assert_eq!(bad.followed(), 0, "a redirect was followed");
    for (name, said) in [
        ("silent", "no answer within 2 s"),
        ("drip", "no answer within 2 s"),
        ("reset", ""),
        ("storm", "it answers 503 Service Unavailable"),
        ("long head", "the head of its answer is longer than 16 KiB"),
        ("redirect", "it answers 302 Found, and redirects are not followed"),
        ("tls", "invalid peer certificate"),
    ] {
        let endpoint = of(&status, name);
        let error = endpoint.last_error.as_deref().unwrap();
        assert!(error.contains(said), "{name}: {error}");
        assert_eq!(
            (endpoint.delivered, endpoint.success_rate()),
            (0, Some(0.0)),
            "{name}"
        );
        assert!(
            endpoint.waiting > 0 && endpoint.waiting + endpoint.dropped == 3_000,
            "{endpoint:?}"
        );
    }
    let ended = Instant::now();
    webhooks.stop(ended + Duration::from_secs(3));
    assert!(ended.elapsed() < Duration::from_secs(4), "{:?}", ended.elapsed());
}
