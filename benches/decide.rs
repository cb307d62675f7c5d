//! What one decision costs: bytes to verdict in one worker's shard, for each class of source, nothing of the kernel.
//!
//!     cargo bench --bench decide
//!
//! Prints nanoseconds a packet, the median of several rounds and their spread. Machines are noisy: compare rows of one
//! run, not runs of two machines.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use verdictd::config;
use verdictd::core::judge::{Guard, Judge};
use verdictd::core::probe::parse;
use verdictd::core::verdict::Class;

const ROUNDS: usize = 15;
const PACKETS: u32 = 200_000;

fn main() {
    let known = |judge: &mut Judge, n: u32| judge_one(judge, &syn([192, 0, 2, 1], 1 + (n % 7) as u16, n), n);
    println!(
        "{:<34} {:>8} {:>8} {:>8}   ns a packet",
        "source", "median", "min", "max"
    );
    measure("parse alone", |_, n| {
        let _ = black_box(parse(black_box(&syn([192, 0, 2, 1], n as u16, n))));
    });
    measure("trusted", |judge, n| {
        judge_one(judge, &syn([203, 0, 113, 9], 80, n), n)
    });
    measure("known, a known port", known);
    measure("banned", |judge, n| {
        judge_one(judge, &syn([192, 0, 2, 66], 80, n), n)
    });
    measure("unknown, one of 1,000,000", |judge, n| {
        let [_, a, b, c] = (n.wrapping_mul(0x9e37_79b1) % 1_000_000).to_be_bytes();
        judge_one(judge, &syn([11, a, b, c], 80, n), n);
    });
}

fn judge_one(judge: &mut Judge, packet: &[u8], n: u32) {
    let now = *START + Duration::from_micros(u64::from(n));
    let _ = black_box(judge.judge(&parse(black_box(packet)), Class::New, now).verdict);
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn measure(what: &str, mut work: impl FnMut(&mut Judge, u32)) {
    let (mut judge, mut first) = (judge(), 0);
    let mut round = || {
        let began = Instant::now();
        (first..first + PACKETS).for_each(|n| work(&mut judge, n));
        first += PACKETS; // no flow comes twice
        began.elapsed().as_nanos() as f64 / f64::from(PACKETS)
    };
    round();
    let mut costs: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    costs.sort_by(f64::total_cmp);
    let (median, min, max) = (costs[ROUNDS / 2], costs[0], costs[ROUNDS - 1]);
    println!("{what:<34} {median:>8.1} {min:>8.1} {max:>8.1}");
}

/// A shard of the standard preset with three trusted networks, a few protected addresses and one ban.
fn judge() -> Judge {
    let text = "[trusted]\nnetworks = [\"203.0.113.0/24\", \"10.0.0.0/8\", \"2001:db8::/32\"]\n";
    let policy = config::parse(text, Path::new("bench.toml"))
        .expect("a good configuration")
        .policy;
    let protected = ["198.51.100.1", "127.0.0.0/8", "fe80::/10"].map(|text| text.parse().expect("a prefix"));
    let guard = Guard {
        trusted: policy.trusted.clone(),
        protected: protected.into_iter().collect(),
    };
    let mut judge = Judge::new(Arc::new(policy), Arc::new(guard), 1_000_000, Instant::now());
    judge.ban("192.0.2.66".parse().expect("an address"), true);
    judge
}

/// A bare SYN to 198.51.100.1, the first packet of flow number `flow`.
fn syn(source: [u8; 4], port: u16, flow: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&[198, 51, 100, 1]);
    packet[20..22].copy_from_slice(&[0x9c, 0x40]);
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&flow.to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, 2]);
    packet
}
