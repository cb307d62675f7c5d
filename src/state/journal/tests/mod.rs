//! Journals as bytes: cut, spoiled and mixed up in every way, and held against what they were made from.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use time::macros::datetime;

use super::super::fold::Fold;
use super::super::{Boot, SavedBan, SavedSource, State};
use super::read::{Reader, Told as ReadTold};
use super::record::{Beginning, HEADER};
use super::*;
use crate::core::verdict::{Asked, BanReason, Proto};

mod model;

const GENERATION: u64 = 7;
const SAVED_AT: time::OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

/// What is asked for.
const WHAT: [Asked; 4] = [
    Asked::Port(Proto::Tcp, 22),
    Asked::Port(Proto::Tcp, 80),
    Asked::Port(Proto::Udp, 80),
    Asked::Protocol(47),
];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// The clocks of a machine, moved by hand.
#[derive(Clone)]
struct Clocks {
    zero: Instant,
    /// Of the process: stands still while the machine sleeps.
    process: Duration,
    /// Of the boot.
    up: Duration,
    wall: time::OffsetDateTime,
    boot: &'static str,
}

impl Clocks {
    fn new() -> Clocks {
        Clocks {
            // Room for what happened before.
            zero: Instant::now() + Duration::from_secs(86_400),
            process: Duration::ZERO,
            up: Duration::from_secs(5000),
            wall: SAVED_AT,
            boot: "a",
        }
    }

    fn now(&self) -> Instant {
        self.zero + self.process
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.wall,
            boot: Some(Boot {
                id: self.boot.into(),
                up: self.up,
            }),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.process += time;
        self.sleep(time);
    }

    fn sleep(&mut self, time: Duration) {
        self.up += time;
        self.wall += time;
    }
}

/// A journal that is written into memory, the way [`Journal`] writes it into its file.
struct Paper {
    bytes: Vec<u8>,
    begun: Instant,
    told: Option<(Moment, Instant)>,
    /// Where records begin, and where the last one ends.
    bounds: Vec<usize>,
}

impl Paper {
    fn new(clocks: &Clocks) -> Paper {
        Paper {
            bytes: header(GENERATION, &clocks.moment()),
            begun: clocks.now(),
            told: None,
            bounds: vec![HEADER],
        }
    }

    fn add(&mut self, record: &Record, clocks: &Clocks) {
        let (moment, now) = (clocks.moment(), clocks.now());
        let told = self.told.take();
        let is_news = is_news(told.as_ref(), &moment, now);
        let mut writer = Writer {
            out: &mut self.bytes,
            salt: Salt::of(GENERATION),
            begun: self.begun,
        };
        if is_news {
            writer.clock(&moment, now);
            self.bounds.push(writer.out.len());
        }
        writer.put(record);
        self.bounds.push(self.bytes.len());
        self.told = if is_news { Some((moment, now)) } else { told };
    }
}

/// What a load makes of these bytes on top of `state`.
fn fold(bytes: &[u8], state: Option<State>) -> (State, ReadTold) {
    fold_all(&[bytes], state, 1000)
}

fn fold_all(files: &[&[u8]], state: Option<State>, most_sources: usize) -> (State, ReadTold) {
    let mut fold = Fold::onto(state.as_ref().map(|state| &state.saved), most_sources);
    let mut told = ReadTold::default();
    for bytes in files {
        let (mut reader, beginning) = Reader::of(Cursor::new(bytes), GENERATION).unwrap();
        fold.begin(match &beginning {
            Beginning::Moment(moment) => Some(moment),
            _ => None,
        });
        while let Some(entry) = reader.next().unwrap() {
            entry.into_iter().for_each(|entry| fold.take(entry));
        }
        told = reader.told();
    }
    (fold.finish(state), told)
}

fn ban(source: &str, clocks: &Clocks, left: Option<Duration>) -> Ban {
    Ban {
        source: prefix(source),
        reason: BanReason::PortScanning,
        step: 2,
        offences: 3,
        since: clocks.now(),
        until: left.map(|left| clocks.now() + left),
        enforced: true,
        note: None,
    }
}

fn touch(source: &str, what: Asked, clocks: &Clocks) -> Record {
    let touch = Touch {
        what,
        stealth: 1,
        at: clocks.now(),
    };
    Record::Touch {
        source: prefix(source),
        touch,
    }
}

/// So many records of every kind over some minutes, with a sleep and two steps of the wall clock.
fn paper(clocks: &mut Clocks) -> Paper {
    let mut paper = Paper::new(clocks);
    for nth in 0..count(140, 200) as u64 {
        clocks.wait(ms(nth * 37 % 300));
        let host = format!("10.0.{}.{}", nth % 3, nth % 11);
        let port = Asked::Port(Proto::Tcp, (nth % 9) as u16);
        let record = match nth % 10 {
            0 | 1 => Record::Ban(ban(&host, clocks, Some(ms(60_000 + nth * 5000)))),
            2 => Record::Ban(Ban {
                note: Some("an operator's word".into()),
                reason: BanReason::Manual,
                ..ban(&format!("2001:db8:{nth}::/64"), clocks, None)
            }),
            3 => Record::Lift {
                source: prefix(&host),
                at: clocks.now(),
            },
            4 => Record::Standing(Standing {
                source: prefix(&host),
                offences: nth as u32,
                last: Some(clocks.now()),
                would_be: 0,
                would_be_last: None,
            }),
            5 => Record::Completed {
                source: prefix(&host),
                port: (nth % 7) as u16,
                at: clocks.now(),
            },
            _ => touch(&host, port, clocks),
        };
        paper.add(&record, clocks);
        match nth {
            60 => clocks.wall += 365 * Duration::from_secs(86_400),
            90 => clocks.sleep(Duration::from_secs(600)),
            120 => clocks.wall = time::OffsetDateTime::UNIX_EPOCH,
            _ => {}
        }
    }
    paper
}

#[test]
fn wherever_it_is_cut_the_whole_records_before_count() {
    let paper = paper(&mut Clocks::new());
    let bounds = paper.bounds.windows(2);
    for bound in bounds {
        let (whole, told) = fold(&paper.bytes[..bound[0]], None);
        assert_eq!((told.torn, told.holes, told.is_headed), (0, 0, true));
        for length in bound[0] + 1..bound[1] {
            let (state, told) = fold(&paper.bytes[..length], None);
            assert_eq!(state, whole, "the first {length} bytes");
            assert_eq!((told.torn, told.holes), ((length - bound[0]) as u64, 0));
        }
    }
    for length in 0..HEADER {
        let (state, told) = fold(&paper.bytes[..length], None);
        assert_eq!((state.bans.len(), told.records), (0, 0));
        assert!(!told.is_headed);
    }
}

#[test]
fn a_spoiled_byte_costs_the_record_that_it_is_in() {
    let paper = paper(&mut Clocks::new());
    let whole = fold(&paper.bytes, None).0;
    for at in 0..HEADER {
        let mut spoiled = paper.bytes.clone();
        spoiled[at] ^= 1;
        let (state, told) = fold(&spoiled, None);
        assert_eq!((state, told.holes), (whole.clone(), 0), "byte {at} of the header");
    }
    for bound in paper.bounds.windows(2) {
        let without = [&paper.bytes[..bound[0]], &paper.bytes[bound[1]..]].concat();
        let expected = fold(&without, None).0;
        let is_last = bound[1] == paper.bytes.len();
        // The bytes that say how long it is and what it is, and some of the others.
        for at in (bound[0]..bound[1]).filter(|at| at - bound[0] < 4 || at % 5 == 0) {
            let mut spoiled = paper.bytes.clone();
            spoiled[at] ^= 1 << (at % 8);
            let (state, told) = fold(&spoiled, None);
            assert_eq!(state, expected, "with byte {at} changed");
            assert_eq!(
                (told.holes, told.torn > 0),
                (u64::from(!is_last), is_last),
                "{at}"
            );
        }
    }
}

#[test]
fn zeros_and_noise_at_the_end_are_a_torn_write() {
    let paper = paper(&mut Clocks::new());
    let whole = fold(&paper.bytes, None).0;
    let noise: Vec<u8> = (0..5000u32)
        .map(|nth| (nth.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for tail in [
        vec![0; 3],
        vec![0; 100_000],
        noise,
        paper.bytes[..HEADER].to_vec(),
    ] {
        let (state, told) = fold(&[&paper.bytes[..], &tail[..]].concat(), None);
        assert_eq!(state, whole);
        assert_eq!((told.torn, told.holes), (tail.len() as u64, 0));
    }
    // A record after zeros is found, also one without a body, which begins with two of them.
    let mut reset = Vec::new();
    let mut writer = Writer {
        out: &mut reset,
        salt: Salt::of(GENERATION),
        begun: paper.begun,
    };
    writer.put(&Record::Reset);
    for zeros in [1, 511, 512, 513, 1024, 70_000] {
        let (state, told) = fold(&[&paper.bytes[..], &vec![0; zeros], &reset].concat(), None);
        assert_eq!((state.bans.len(), told.holes, told.lost), (0, 1, zeros as u64));
    }
    // Of another generation they are no records.
    let (mut reader, _) = Reader::of(Cursor::new(&paper.bytes), GENERATION + 1).unwrap();
    assert_eq!(reader.next().unwrap(), None);
}

/// How many: the second in the long tests.
fn count(usual: usize, long: usize) -> usize {
    match std::env::var_os("VERDICTD_SOAK") {
        Some(_) => long,
        None => usual,
    }
}

/// A small generator of numbers that only have to differ (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

#[test]
fn no_damage_makes_it_panic_grow_or_ban_anybody_for_longer() {
    let mut clocks = Clocks::new();
    let mut paper = Paper::new(&clocks);
    let mut granted: BTreeMap<Prefix, Vec<Duration>> = BTreeMap::new();
    for nth in 0..6u64 {
        clocks.wait(ms(nth * 313 % 1500));
        let host = format!("10.0.0.{}", nth % 5);
        let record = match nth % 4 {
            0 | 1 => {
                let left = ms(60_000 + nth * 5000);
                granted.entry(prefix(&host)).or_default().push(clocks.up + left);
                Record::Ban(ban(&host, &clocks, Some(left)))
            }
            2 => Record::Lift {
                source: prefix(&host),
                at: clocks.now(),
            },
            _ => touch(&host, Asked::Protocol(47), &clocks),
        };
        paper.add(&record, &clocks);
    }
    let mut dice = Dice(88_172_645_463_325_252);
    for round in 0..count(100_000, 1_000_000) {
        let bytes = spoil(&paper.bytes, &mut dice);
        let (state, told) = fold(&bytes, None);
        assert!(
            told.records as usize <= bytes.len() / 11 && state.sources.len() <= 5,
            "round {round}"
        );
        // By the boot's clock; without it (no clock survived) nothing is known of when.
        let up = state.saved.boot.map_or(Duration::ZERO, |boot| boot.up);
        for ban in state.bans {
            let ends = up + ban.remaining.unwrap();
            let known = granted
                .get(&ban.source)
                .unwrap_or_else(|| panic!("round {round}: {ban:?}"));
            assert!(
                known.iter().any(|end| ends <= *end),
                "round {round}: {ban:?} at {up:?}, {known:?}"
            );
        }
    }
}

/// A copy with bytes changed, pieces doubled, moved, cut out, and its end cut off.
fn spoil(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut spoiled = bytes.to_vec();
    for _ in 0..=dice.roll(4) {
        let (one, other) = (dice.roll(spoiled.len()), dice.roll(spoiled.len()));
        let (from, to) = (one.min(other), one.max(other));
        match dice.roll(6) {
            0 => spoiled.truncate(to),
            1 => drop(spoiled.drain(from..to.min(from + 100))),
            2 => {
                let piece = spoiled[from..to.min(from + 300)].to_vec();
                let at = dice.roll(spoiled.len());
                spoiled.splice(at..at, piece);
            }
            _ if spoiled.is_empty() => {}
            3 => spoiled[from] = 0,
            4 => spoiled[from] ^= 1 << dice.roll(8),
            _ => spoiled[from] = dice.roll(256) as u8,
        }
    }
    spoiled
}

#[test]
fn what_a_reader_holds_is_bounded_whatever_the_file_is() {
    let endless = std::io::repeat(0xff).take(1 << 20);
    let (mut reader, beginning) = Reader::of(endless, GENERATION).unwrap();
    assert_eq!(beginning, Beginning::Damaged);
    assert_eq!(reader.next().unwrap(), None);
    assert!(reader.held() < 1 << 18, "{}", reader.held());
    // Every byte of it may be the beginning of a record: it gives up.
    let hostile = std::io::repeat(1).take(8 << 20);
    let (mut reader, _) = Reader::of(hostile, GENERATION).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    assert!(reader.told().gave_up && reader.told().bytes < 1 << 20);
}

#[test]
fn counts_are_capped() {
    let mut clocks = Clocks::new();
    let mut paper = Paper::new(&clocks);
    for port in 0..3000u16 {
        clocks.wait(ms(1));
        paper.add(
            &touch("192.0.2.1", Asked::Port(Proto::Tcp, port), &clocks),
            &clocks,
        );
        let done = Record::Completed {
            source: prefix("192.0.2.2"),
            port,
            at: clocks.now(),
        };
        paper.add(&done, &clocks);
        let host = format!("10.1.{}.{}", port / 256, port % 256);
        paper.add(&touch(&host, Asked::Protocol(47), &clocks), &clocks);
    }
    let (state, _) = fold_all(&[&paper.bytes], None, 100);
    assert_eq!(state.sources.len(), 100);
    let of = |who: &str| state.sources.iter().find(|saved| saved.source == prefix(who));
    let scanner = &of("192.0.2.1").unwrap().touches;
    assert_eq!(scanner.len(), 1024);
    assert_eq!(scanner.last().unwrap().0, Asked::Port(Proto::Tcp, 2999));
    let known = of("192.0.2.2").unwrap().completed.as_ref().unwrap();
    assert_eq!((known.len(), known.last()), (16, Some(&2999)));
    assert!(of("10.1.11.183").is_some(), "the last one seen is kept");
    // Folding it twice changes nothing.
    let (twice, _) = fold_all(&[&paper.bytes, &paper.bytes], None, 100);
    assert_eq!(twice, state);
}

#[test]
fn a_damaged_record_does_not_outdo_a_newer_snapshot() {
    let mut clocks = Clocks::new();
    let mut paper = Paper::new(&clocks);
    paper.add(
        &Record::Ban(ban("192.0.2.1", &clocks, Some(ms(600_000)))),
        &clocks,
    );
    let lift = Record::Lift {
        source: prefix("192.0.2.1"),
        at: clocks.now(),
    };
    paper.add(&lift, &clocks);
    clocks.wait(ms(5000));
    // The record of the second ban is lost; the snapshot has it.
    let since = clocks.up;
    clocks.wait(ms(5000));
    let saved = SavedBan {
        source: prefix("192.0.2.1"),
        reason: BanReason::Manual,
        step: 0,
        offences: 0,
        age: clocks.up - since,
        remaining: Some(ms(70_000)),
        enforced: true,
        note: None,
    };
    let mut snapshot = fold(&Paper::new(&clocks).bytes, None).0;
    snapshot.saved = clocks.moment();
    snapshot.bans = vec![saved.clone()];
    assert_eq!(fold(&paper.bytes, Some(snapshot.clone())).0.bans, [saved]);
    // What the journal says later counts.
    clocks.wait(ms(10));
    paper.add(&lift, &clocks);
    assert_eq!(fold(&paper.bytes, Some(snapshot)).0.bans, []);
}

#[test]
fn a_million_sources_are_aged_and_little_else() {
    let mut clocks = Clocks::new();
    let source = |nth: u32| SavedSource {
        source: Prefix::host(std::net::Ipv4Addr::from(nth).into()),
        age: ms(1000),
        idle: ms(1000),
        completed: None,
        touches: vec![(WHAT[0], 0, ms(1000))],
    };
    let mut snapshot = fold(&Paper::new(&clocks).bytes, None).0;
    snapshot.saved = clocks.moment();
    snapshot.sources = (0..count(20_000, 1_000_000) as u32).map(source).collect();
    let sources = snapshot.sources.len();
    let mut paper = Paper::new(&clocks);
    clocks.wait(ms(5000));
    paper.add(&touch("0.0.0.7", WHAT[1], &clocks), &clocks);
    paper.add(&Record::Ban(ban("0.0.0.8/31", &clocks, None)), &clocks);
    let begun = Instant::now();
    let (state, _) = fold_all(&[&paper.bytes], Some(snapshot), sources);
    println!("{sources} sources, folded in {:?}", begun.elapsed());
    assert_eq!(state.sources.len(), sources - 2);
    assert_eq!(state.sources[6].touches, [(WHAT[0], 0, ms(6000))]);
    assert_eq!(
        state.sources[7].touches,
        [(WHAT[0], 0, ms(6000)), (WHAT[1], 1, ms(0))]
    );
}

#[test]
fn the_page_shows_the_bytes() {
    let mut clocks = Clocks::new();
    clocks.up = Duration::from_secs(3600);
    clocks.boot = "3b2b3c0e-0000-4000-8000-000000000000";
    let mut paper = Paper::new(&clocks);
    clocks.wait(ms(1500));
    let touched = Touch {
        what: Asked::Port(Proto::Tcp, 22),
        stealth: 0,
        at: clocks.now() - ms(10),
    };
    let source = prefix("203.0.113.9");
    let records = [
        Record::Touch {
            source,
            touch: touched,
        },
        Record::Lift {
            source,
            at: clocks.now(),
        },
    ];
    records.iter().for_each(|record| paper.add(record, &clocks));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/state.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (nth, row) in paper.bytes.chunks(16).enumerate() {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("    {:04x}  {}", nth * 16, hex.join(" "));
        assert!(page.contains(&line), "{line}");
    }
}

/// A journal on something that is no file.
fn journal_on(path: &str) -> Journal {
    Journal {
        file: File::options().write(true).open(path).unwrap(),
        path: path.into(),
        generation: GENERATION,
        salt: Salt::of(GENERATION),
        begun: Instant::now(),
        told: None,
        bytes: 0,
        broken: false,
        buffer: Vec::new(),
    }
}

#[test]
fn after_a_failed_sync_or_a_write_that_cannot_be_undone_it_is_broken_for_good() {
    let clocks = Clocks::new();
    let add = |journal: &mut Journal| journal.append(&[Record::Reset], &clocks.moment(), clocks.now());
    let mut journal = journal_on("/dev/null"); // takes everything, and cannot be synced
    add(&mut journal).unwrap();
    assert!(!journal.is_broken());
    assert!(journal.sync().is_err() && journal.is_broken());
    assert!(
        add(&mut journal)
            .unwrap_err()
            .to_string()
            .contains("before this one")
    );
    assert!(journal.sync().is_err());
    let mut journal = journal_on("/dev/full"); // takes nothing, and cannot be cut
    assert!(add(&mut journal).is_err() && journal.is_broken());
    assert_eq!(journal.bytes(), 0);
}

#[test]
fn from_some_length_on_half_done_scans_are_left_out() {
    let clocks = Clocks::new();
    let mut journal = journal_on("/dev/null");
    journal.bytes = MOST_ACTIVITY_BYTES;
    let records = [touch("192.0.2.1", WHAT[0], &clocks)];
    journal.append(&records, &clocks.moment(), clocks.now()).unwrap();
    assert_eq!(journal.bytes(), MOST_ACTIVITY_BYTES);
    let records = [Record::Ban(ban("192.0.2.1", &clocks, None))];
    journal.append(&records, &clocks.moment(), clocks.now()).unwrap();
    assert!(journal.bytes() > MOST_ACTIVITY_BYTES);
    journal.bytes = MOST_JOURNAL_BYTES;
    let error = journal
        .append(&records, &clocks.moment(), clocks.now())
        .unwrap_err();
    assert!(
        error.to_string().contains("it is full") && !journal.is_broken(),
        "{error}"
    );
}
