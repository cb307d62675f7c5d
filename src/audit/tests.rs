//! The log as a whole: written by the store, spoiled in every way, read by the verifier.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::AuditConfig;
use super::record::What;
use super::store::{Entry, Store};
use super::verify::{Checker, Options, Report, verify};

struct Logs {
    folder: TempDir,
    config: AuditConfig,
}

impl Logs {
    fn new(max_bytes: u64, keep: u32) -> Logs {
        Logs {
            folder: tempfile::tempdir().unwrap(),
            config: AuditConfig {
                max_bytes,
                keep,
                ..AuditConfig::default()
            },
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log/audit.jsonl")
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("log/audit.jsonl.{number}"))
    }

    fn head(&self) -> PathBuf {
        self.folder.path().join("audit.head")
    }

    fn open(&self) -> Store {
        Store::open(&self.log(), &self.head(), &self.config).unwrap()
    }

    /// Writes so many records, in batches of three.
    fn write(&self, count: usize) -> Store {
        let mut store = self.open();
        write_into(&mut store, count);
        store
    }

    fn options(&self) -> Options {
        Options {
            log: self.log(),
            head: Some(self.head()),
            from: None,
        }
    }

    fn verify(&self) -> Report {
        verify(&self.options()).unwrap()
    }

    fn sound(&self) -> Report {
        let report = self.verify();
        assert!(report.is_sound(), "{:#?}", report.faults);
        report
    }

    fn text(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }
}

fn write_into(store: &mut Store, count: usize) {
    let entries: Vec<Entry> = (0..count).map(entry).collect();
    entries.chunks(3).for_each(|batch| store.append(batch).unwrap());
}

fn entry(number: usize) -> Entry {
    let what = match number % 3 {
        0 => What::unseen(number as u64),
        1 => What::Stop {
            why: format!("it is “{number}”\n"),
        },
        _ => What::Failure {
            source: "203.0.113.9".into(),
            error: "no room".into(),
        },
    };
    (
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + number as u64),
        what,
    )
}

fn told(report: &Report) -> Vec<String> {
    report
        .faults
        .iter()
        .map(|fault| format!("{}: {}", fault.line, fault.what))
        .collect()
}

fn says(report: &Report, words: &str) -> bool {
    told(report).iter().any(|fault| fault.contains(words))
}

#[test]
fn what_was_written_is_sound_and_the_chain_goes_on() {
    let logs = Logs::new(1 << 20, 3);
    let (empty, none) = (
        logs.verify(),
        Options {
            head: None,
            ..logs.options()
        },
    );
    assert!(
        empty.is_sound() && empty.notes[0].contains("nothing was written"),
        "{empty:?}"
    );
    for round in 1..=5 {
        logs.write(20).close();
        let report = logs.sound();
        assert_eq!((report.lines, report.last), (20 * round, 20 * round));
    }
    let report = logs.sound();
    assert_eq!(
        (report.files.len(), report.notes.len()),
        (1, 0),
        "{:?}",
        report.notes
    );
    assert!(verify(&none).unwrap().notes[0].contains("without a head"));
}

#[test]
fn every_flipped_byte_is_found() {
    let logs = Logs::new(1 << 20, 3);
    logs.write(100).close();
    let good = fs::read(logs.log()).unwrap();
    let line_of = |at: usize| 1 + good[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(logs.log(), &bad).unwrap();
        let report = logs.verify();
        let line = line_of(at);
        let named = report
            .faults
            .iter()
            .any(|fault| fault.line == line || fault.line + 1 == line);
        assert!(named, "byte {at} of line {line}: {:?}", told(&report));
    }
    fs::write(logs.log(), &good).unwrap();
    logs.sound();
}

#[test]
fn every_deleted_line_is_found_and_named() {
    let logs = Logs::new(1 << 20, 3);
    logs.write(100).close();
    let good = logs.text();
    let lines: Vec<&str> = good.lines().collect();
    for (first, last) in (0..100).map(|n| (n, n)).chain((0..90).map(|n| (n, n + 9))) {
        let left: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n < first || *n > last)
            .map(|(_, l)| *l)
            .collect();
        fs::write(logs.log(), left.join("\n") + "\n").unwrap();
        let report = logs.verify();
        let numbers = match first == last {
            true => format!("line {} is missing", first + 1),
            false => format!("lines {} to {} are missing", first + 1, last + 1),
        };
        assert!(says(&report, &numbers), "{numbers}: {:?}", told(&report));
        assert_eq!(report.faults.len(), 1, "{:?}", told(&report));
    }
}

#[test]
fn every_cut_is_found() {
    let logs = Logs::new(1 << 20, 3);
    logs.write(30).close();
    let good = fs::read(logs.log()).unwrap();
    for length in 0..good.len() {
        fs::write(logs.log(), &good[..length]).unwrap();
        let report = logs.verify();
        assert!(
            says(&report, "missing at the end"),
            "{length}: {:?}",
            told(&report)
        );
    }
    fs::remove_file(logs.log()).unwrap();
    assert!(says(&logs.verify(), "lines 1 to 30 are missing at the end"));
}

#[test]
fn what_is_inserted_moved_or_replaced_is_found_and_named() {
    let logs = Logs::new(1 << 20, 3);
    logs.write(40).close();
    let lines: Vec<String> = logs.text().lines().map(str::to_owned).collect();
    let expect = |changed: Vec<String>, line: u64, words: &str| {
        fs::write(logs.log(), changed.join("\n") + "\n").unwrap();
        let report = logs.verify();
        let found = report
            .faults
            .iter()
            .any(|fault| fault.line == line && fault.what.contains(words));
        assert!(found, "{line} {words}: {:?}", told(&report));
    };
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = lines.clone();
        change(&mut changed);
        changed
    };
    // A line that is well made, but that the engine did not write.
    let mut link = logs.open().link();
    let added = link.append(&entry(1).1, SystemTime::now());
    expect(with(&|l| l.push(added.trim_end().into())), 41, "added at the end");
    expect(with(&|l| l.insert(10, l[5].clone())), 11, "does not belong here");
    expect(
        with(&|l| l.insert(10, "{\"note\":\"hello\"}".into())),
        11,
        "is no record",
    );
    expect(with(&|l| l.insert(10, String::new())), 11, "is no record");
    expect(with(&|l| l.swap(10, 11)), 11, "before it line 11 is missing");
    expect(with(&|l| l.swap(0, 39)), 1, "missing");
    expect(
        with(&|l| l[20] = l[20].replace("203.0.113.9", "203.0.113.8")),
        21,
        "was changed",
    );
    expect(
        with(&|l| l[39] = l[39].replace("2027", "2026")),
        40,
        "was changed",
    );
    // All of it anew, from another beginning: well made in itself.
    let other = Logs::new(1 << 20, 3);
    other.write(40).close();
    let text = other.text();
    let all = || text.lines().map(str::to_owned).collect();
    expect(all(), 40, "was changed");
    expect(all(), 1, "another chain");
}

#[test]
fn an_unfinished_line_is_closed_by_a_record_and_is_no_edit() {
    let logs = Logs::new(1 << 20, 3);
    let mut store = logs.write(9);
    let whole = fs::read(logs.log()).unwrap();
    store.append(&[entry(9), entry(10), entry(11)]).unwrap();
    let all = fs::read(logs.log()).unwrap();
    drop(store);
    // A power cut may leave the announcement of these lines, and any part of them.
    let head = fs::read(logs.head()).unwrap();
    for length in [whole.len() + 5, all.len() - 1, all.len() - 300] {
        let other = Logs::new(1 << 20, 3);
        fs::create_dir(other.log().parent().unwrap()).unwrap();
        fs::write(other.log(), &all[..length]).unwrap();
        // The slot of the confirmation never came to the disk.
        let slots: Vec<&[u8]> = head.chunks(head.len() / 2).collect();
        let confirmed = usize::from(slots[1] > slots[0]);
        let mut torn = head.clone();
        let at = confirmed * head.len() / 2;
        torn[at..at + head.len() / 2].fill(0);
        fs::write(other.head(), torn).unwrap();
        let before = other.sound();
        assert!(before.notes[0].contains("unfinished line"), "{:?}", before.notes);
        other.write(3).close();
        let report = other.sound();
        assert_eq!(report.notes, [""; 0]);
        let text = other.text();
        let torn = text
            .lines()
            .find(|line| line.contains("\"kind\":\"torn\""))
            .expect("a record of it");
        assert!(torn.contains("\"bytes\":"), "{torn}");
    }
}

#[test]
fn what_went_missing_while_the_engine_was_down_stays_missing() {
    for (spoil, words) in [
        ("cut", "lines 11 to 12 are missing"),
        ("last", "its last line, 12, is not the one that was written"),
        ("append", "it ends with line 13; 12 was the last"),
        ("head", "the head in the state directory is gone"),
        ("zero", "the head in the state directory is gone"),
        ("garble", "the head in the state directory is spoiled"),
        ("junk", "its last line is no record"),
    ] {
        let logs = Logs::new(1 << 20, 3);
        let store = logs.write(12);
        let mut link = store.link();
        store.close();
        let text = logs.text();
        match spoil {
            "cut" => fs::write(
                logs.log(),
                text.lines()
                    .take(10)
                    .map(|l| format!("{l}\n"))
                    .collect::<String>(),
            )
            .unwrap(),
            "last" => fs::write(
                logs.log(),
                text.replace("\"seq\":12,\"time\":\"2027", "\"seq\":12,\"time\":\"2026"),
            )
            .unwrap(),
            "append" => fs::write(logs.log(), text + &link.append(&entry(1).1, UNIX_EPOCH)).unwrap(),
            "head" => fs::remove_file(logs.head()).unwrap(),
            "zero" => fs::write(logs.head(), "").unwrap(),
            "garble" => fs::write(logs.head(), "x".repeat(700)).unwrap(),
            _ => fs::write(logs.log(), text + "junk\n").unwrap(),
        }
        logs.write(6).close();
        let report = logs.verify();
        assert!(says(&report, words), "{spoil}: {:?}", told(&report));
        // And later ones: what is known stays, nothing is added.
        let known = report.faults_in_all;
        logs.write(6).close();
        assert_eq!(logs.verify().faults_in_all, known, "{spoil}");
    }
}

#[test]
fn rotation_keeps_the_chain_and_says_what_it_removed() {
    let logs = Logs::new(2000, 3);
    let mut store = logs.open();
    for _ in 0..30 {
        write_into(&mut store, 9);
        let report = logs.sound();
        assert!(report.files.len() <= 4, "{:?}", report.files);
    }
    store.close();
    let report = logs.sound();
    assert!(report.notes[0].contains("audit.keep"), "{:?}", report.notes);
    assert!(!logs.aside(4).exists() && logs.aside(3).exists());
    // Without the oldest, without one between, without the newest that was put aside.
    for (number, words) in [
        (3, "no record says that they were removed"),
        (2, "before it lines"),
        (1, "before it lines"),
    ] {
        let away = fs::read(logs.aside(number)).unwrap();
        fs::remove_file(logs.aside(number)).unwrap();
        let report = logs.verify();
        assert!(says(&report, words), "{number}: {:?}", told(&report));
        fs::write(logs.aside(number), away).unwrap();
    }
    // A byte in a file that was put aside, found also by somebody who looks again and again.
    let mut checker = Checker::new(logs.options());
    assert!(checker.check().unwrap().is_sound() && checker.check().unwrap().is_sound());
    let mut bytes = fs::read(logs.aside(2)).unwrap();
    bytes[100] ^= 4;
    fs::write(logs.aside(2), &bytes).unwrap();
    let report = checker.check().unwrap();
    assert!(
        report.faults[0].file.ends_with("audit.jsonl.2") && report.faults[0].line == 1,
        "{:?}",
        told(&report)
    );
    // What is before a line that was looked into is not asked about again.
    let from = report.files[2].first;
    assert!(
        verify(&Options {
            from,
            ..logs.options()
        })
        .unwrap()
        .is_sound()
    );
}

#[test]
fn a_crash_in_the_middle_of_a_rotation_loses_nothing() {
    for crash in 0..3 {
        let logs = Logs::new(1000, 2);
        let mut store = logs.open();
        for _ in 0..4 {
            write_into(&mut store, 9);
        }
        store.close();
        match crash {
            0 => fs::rename(logs.log(), logs.aside(9)).unwrap(), // renamed, not made again
            1 => fs::rename(logs.aside(2), logs.aside(3)).unwrap(), // in the middle of the names
            _ => drop(fs::copy(logs.aside(2), logs.aside(3)).unwrap()), // not removed, and there twice
        }
        if crash == 0 {
            // The order of names is wrong now; that of numbers tells.
            assert!(logs.verify().is_sound());
        }
        if crash == 2 {
            fs::remove_file(logs.aside(3)).unwrap();
        }
        let mut store = logs.open();
        for _ in 0..4 {
            write_into(&mut store, 9);
        }
        store.close();
        logs.sound();
    }
}

#[test]
fn a_file_that_logrotate_moves_is_left_and_the_chain_goes_on_in_a_new_one() {
    let logs = Logs::new(1 << 20, 3);
    let mut store = logs.write(10);
    fs::rename(logs.log(), logs.log().with_extension("jsonl-20261121")).unwrap();
    assert!(store.look());
    write_into(&mut store, 10);
    assert!(
        logs.text()
            .contains("\"kind\":\"reopen\",\"why\":\"the file was moved away or removed\"")
    );
    let report = logs.sound();
    assert_eq!((report.files.len(), report.last), (2, 21));
    // While the engine is down, as well.
    store.close();
    fs::rename(logs.log(), logs.aside(1)).unwrap();
    logs.write(3).close();
    assert_eq!(logs.sound().last, 24);
    // Moved to where nobody looks, it is missing.
    fs::rename(logs.aside(1), logs.folder.path().join("elsewhere")).unwrap();
    assert!(
        says(&logs.verify(), "before it lines 11 to 21 are missing"),
        "{:?}",
        told(&logs.verify())
    );
}

#[test]
fn a_hand_in_the_file_while_it_is_written_is_recorded() {
    for (change, words) in [
        ("cut", "bytes long and is 0"),
        ("add", "is no record"),
        ("head", "head in the state directory was"),
    ] {
        let logs = Logs::new(1 << 20, 3);
        let mut store = logs.write(6);
        match change {
            "cut" => fs::write(logs.log(), "").unwrap(),
            "add" => fs::write(logs.log(), logs.text() + "unfinished").unwrap(),
            _ => fs::remove_file(logs.head()).unwrap(),
        }
        assert!(store.look(), "{change}");
        write_into(&mut store, 6);
        store.close();
        let report = logs.verify();
        assert!(
            says(&report, words) && says(&report, "the engine found the log changed"),
            "{change}: {:?}",
            told(&report)
        );
    }
}

#[test]
fn no_bytes_make_the_verifier_panic() {
    let logs = Logs::new(1 << 20, 3);
    logs.write(3).close();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..300 {
        let bytes: Vec<u8> = (0..round * 11)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state.is_multiple_of(9) {
                    b'\n'
                } else {
                    state as u8
                }
            })
            .collect();
        let path = if round % 2 == 0 { logs.log() } else { logs.head() };
        fs::write(path, bytes).unwrap();
        let _ = logs.verify();
    }
}
