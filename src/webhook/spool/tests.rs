use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use serde_json::{Map, json};
use time::macros::datetime;

use super::*;
use crate::webhook::wire::EventType;

fn event(n: u64, kind: EventType) -> Event {
    let data = Map::from_iter([
        ("n".to_owned(), json!(n)),
        ("fill".to_owned(), json!("x".repeat(400))),
    ]);
    Event::new(n.to_string(), kind, datetime!(2026-03-01 12:00 UTC), data)
}

fn blocked(range: std::ops::Range<u64>) -> Vec<Event> {
    range.map(|n| event(n, EventType::IpBlocked)).collect()
}

fn ids(records: &[Record]) -> Vec<u64> {
    records
        .iter()
        .map(|record| record.event.id.parse().unwrap())
        .collect()
}

fn take_all(spool: &mut Spool, name: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let taken = spool.take(name, 7, 1 << 20);
        if taken.records.is_empty() && !taken.more {
            return all;
        }
        spool.ack(name, &taken.records).unwrap();
        all.extend(ids(&taken.records));
    }
}

fn open(folder: &tempfile::TempDir) -> Spool {
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.serve([("a", Filter::ALL)]).unwrap();
    spool
}

fn first_file(folder: &Path) -> std::path::PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("events-"))
        .collect();
    files.sort();
    files.remove(0)
}

#[test]
fn each_endpoint_has_its_own_place_that_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool
        .serve([("b", Filter::new(&[EventType::IpUnblocked], &[]))])
        .unwrap();
    assert_eq!(spool.append(blocked(0..20), 1).0, 20);
    spool
        .append(vec![event(20, EventType::IpUnblocked)], 1)
        .1
        .unwrap();
    assert_eq!((spool.depth("a"), spool.depth("b")), ((21, 0), (1, 0)));
    let first = spool.take("a", 5, 1 << 20).records;
    assert_eq!(ids(&first), [0, 1, 2, 3, 4]);
    spool.ack("a", &first).unwrap();
    // taken and never acked: handed out again
    spool.take("a", 5, 1 << 20);
    drop(spool);
    let mut spool = open(&folder);
    spool
        .serve([("b", Filter::new(&[EventType::IpUnblocked], &[]))])
        .unwrap();
    assert_eq!((spool.depth("a"), spool.depth("b")), ((16, 0), (1, 0)));
    spool.append(blocked(21..22), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), (5..22).collect::<Vec<_>>());
    assert_eq!(take_all(&mut spool, "b"), [20]);
}

#[test]
fn numbers_go_on_although_every_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..3), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [0, 1, 2]);
    drop(spool);
    for _ in 0..3 {
        let mut spool = open(&folder);
        spool.trim();
        assert_eq!(spool.bytes(), 0);
    }
    let mut spool = open(&folder);
    spool.append(blocked(3..4), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [3]);
}

#[test]
fn when_full_the_oldest_go_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..10), 1).1.unwrap();
    let held = spool.take("a", 3, 1 << 20).records;
    for n in 0..50 {
        spool.append(blocked(10 + n * 100..110 + n * 100), 1).1.unwrap();
    }
    let on_disk: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        spool.bytes() <= 1 << 20 && on_disk <= (1 << 20) + 200,
        "{on_disk}"
    );
    let (waiting, dropped) = spool.depth("a");
    assert_eq!(waiting + dropped, 5_010);
    assert!(dropped > 2_000, "{dropped}");
    spool.ack("a", &held).unwrap();
    let rest = take_all(&mut spool, "a");
    assert_eq!(rest.len() as u64 + dropped + 3, 5_010);
    assert_eq!((*rest.last().unwrap(), spool.depth("a")), (5_009, (0, dropped)));
}

#[test]
fn what_is_torn_or_changed_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..9), 1).1.unwrap();
    drop(spool);
    let path = first_file(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let third = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(1)
        .unwrap()
        .0
        + 100;
    bytes[third] ^= 1;
    bytes.truncate(bytes.len() - 50);
    std::fs::write(&path, &bytes).unwrap();
    let mut spool = open(&folder);
    assert_eq!((spool.damaged(), spool.depth("a")), (2, (7, 0)));
    spool.append(blocked(9..11), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [0, 1, 3, 4, 5, 6, 7, 9, 10]);
    assert_eq!(spool.depth("a"), (0, 0));
}

#[test]
fn every_cut_of_the_file_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..2), 1).1.unwrap();
    drop(spool);
    let path = first_file(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let mut spool = open(&folder);
        spool.append(blocked(7..8), 1).1.unwrap();
        let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count() as u64;
        let expected: Vec<u64> = (0..whole).chain([7]).collect();
        assert_eq!(ids(&spool.take("a", 9, 1 << 20).records), expected, "{cut}");
        drop(spool);
        for segment in Segment::list(folder.path()).unwrap() {
            segment.remove().unwrap();
        }
    }
}

#[test]
fn a_place_that_is_lost_begins_again_and_a_new_one_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..3), 1).1.unwrap();
    spool.serve([("late", Filter::ALL)]).unwrap();
    assert_eq!(take_all(&mut spool, "late"), [0; 0]);
    let first = spool.take("a", 1, 1 << 20).records;
    spool.ack("a", &first).unwrap();
    drop(spool);
    for path in std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
    {
        if path.file_name().unwrap().to_str().unwrap().starts_with("place-") {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all(b"9")
                .unwrap();
        }
    }
    let mut spool = open(&folder);
    assert_eq!(take_all(&mut spool, "a"), [0, 1, 2]);
}

#[test]
fn nothing_goes_before_it_is_said_who_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..3), 1).1.unwrap();
    drop(spool);
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.forget(|name| name == "a");
    spool.serve([("a", Filter::ALL)]).unwrap();
    assert_eq!(take_all(&mut spool, "a"), [0, 1, 2]);
}

#[test]
fn who_is_no_longer_served_holds_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.serve([("b", Filter::ALL)]).unwrap();
    for n in 0..10 {
        spool.append(blocked(n * 100..n * 100 + 100), 1).1.unwrap();
    }
    assert_eq!(take_all(&mut spool, "a").len(), 1_000);
    assert!(spool.bytes() > 500_000);
    spool.forget(|name| name == "a");
    assert!(spool.bytes() < 70_000, "{}", spool.bytes());
    drop(spool);
    let mut spool = open(&folder);
    spool.serve([("b", Filter::ALL)]).unwrap();
    assert_eq!(take_all(&mut spool, "b"), [0; 0]);
}

#[test]
fn files_that_somebody_removed_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    spool.append(blocked(0..300), 1).1.unwrap();
    for segment in Segment::list(folder.path()).unwrap() {
        segment.remove().unwrap();
    }
    assert_eq!(take_all(&mut spool, "a"), [0; 0]);
    spool.append(blocked(300..301), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [300]);
    let kinds: BTreeSet<_> = spool.places.keys().cloned().collect();
    assert_eq!(kinds.len(), 1);
}

#[test]
fn who_looked_at_much_in_vain_is_told_that_there_is_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(&folder);
    let rare = Filter::new(&[EventType::BlockError], &[]);
    spool.serve([("rare", rare)]).unwrap();
    spool.append(blocked(0..1_500), 1).1.unwrap();
    assert!(!spool.take("rare", 9, 1 << 20).more);
    let many = Spool::open(&folder.path().join("many"), 64 << 20).unwrap();
    let mut spool = many;
    spool.serve([("rare", rare), ("all", Filter::ALL)]).unwrap();
    spool.append(blocked(0..LOOKED_AT as u64 + 10), 1).1.unwrap();
    spool.append(vec![event(7, EventType::BlockError)], 1).1.unwrap();
    let first = spool.take("rare", 9, 1 << 20);
    assert!(first.records.is_empty() && first.more);
    assert_eq!(take_all(&mut spool, "rare"), [7]);
}

/// A file system that ends soon; taken away also when the test fails.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(kilobytes: u32) -> SmallDisk {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kilobytes}k");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let done = Command::new("mount")
            .args(args)
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(done.success(), "a file system of its own needs root");
        SmallDisk(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_what_is_newest_is_kept_and_read_back() {
    let disk = SmallDisk::new(400);
    let mut spool = open(&disk.0);
    let mut written = 0;
    for n in 0..40 {
        written += spool.append(blocked(n * 50..n * 50 + 50), 1).0;
    }
    // All of it would be twice what the disk holds.
    assert_eq!(written, 2_000);
    let got = take_all(&mut spool, "a");
    let (waiting, dropped) = spool.depth("a");
    assert_eq!((got.len() as u64 + dropped, waiting), (2_000, 0));
    assert_eq!(*got.last().unwrap(), 1_999);
    spool.append(blocked(2_000..2_001), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [2_000]);
}

#[test]
fn links_that_somebody_planted_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine\n").unwrap();
    let spool = folder.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    for name in [
        "events-00000000000000000001".to_owned(),
        format!("place-{:016x}.new", hash("a")),
    ] {
        std::os::unix::fs::symlink(&victim, spool.join(name)).unwrap();
    }
    let mut spool = Spool::open(&spool, 1 << 20).unwrap();
    // The one is replaced, the other refused.
    spool.serve([("a", Filter::ALL)]).unwrap();
    assert!(spool.append(blocked(0..1), 1).1.is_err());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine\n");
}

/// As [`take_all`], where the place in the spool cannot be saved either.
fn take_all_unsaved(spool: &mut Spool, name: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let taken = spool.take(name, 7, 1 << 20);
        if taken.records.is_empty() && !taken.more {
            return all;
        }
        let _ = spool.ack(name, &taken.records);
        all.extend(ids(&taken.records));
    }
}

#[test]
fn what_a_full_disk_does_not_take_is_held_in_memory_and_delivered() {
    let disk = SmallDisk::new(400);
    let mut spool = open(&disk.0);
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![1; 500 << 10]).unwrap_err();
    for n in 0..30 {
        let (done, result) = spool.append(blocked(n * 10..n * 10 + 10), 1);
        assert!(done == 10 && result.is_err(), "{done} {result:?}");
    }
    assert_eq!(take_all_unsaved(&mut spool, "a"), (0..300).collect::<Vec<_>>());
    spool.append(blocked(300..301), 1).1.unwrap_err();
    std::fs::remove_file(&filler).unwrap();
    spool.append(blocked(301..302), 1).1.unwrap();
    assert_eq!(take_all(&mut spool, "a"), [300, 301]);
    spool.append(blocked(302..303), 1).1.unwrap();
    drop(spool);
    assert_eq!(
        take_all(&mut open(&disk.0), "a"),
        [302],
        "what is on the disk stays there"
    );
}

/// What there is no room for in memory either is told, and it is the newest: what began it is known.
#[test]
fn what_is_held_in_memory_is_bounded() {
    let disk = SmallDisk::new(400);
    let mut spool = open(&disk.0);
    std::fs::write(disk.0.path().join("filler"), vec![1; 500 << 10]).unwrap_err();
    let append = |n: u64| spool.append(blocked(n * 50..n * 50 + 50), 1).0;
    let done: usize = (0..400).map(append).sum();
    assert!(
        done < 1_000 && spool.bytes() <= MOST_HELD,
        "{done} {}",
        spool.bytes()
    );
    let got = take_all_unsaved(&mut spool, "a");
    assert_eq!((got.len(), got[0]), (done, 0));
}
