//! Journals beside their snapshots: what a start makes of generations, damage, leftovers and strangers' files, and what
//! a disk does that does not take everything.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;
use verdictd::core::prefix::Prefix;
use verdictd::core::source::Touch;
use verdictd::core::verdict::{Asked, Ban, BanReason, Proto};
use verdictd::state::{
    self, Boot, Journal, Loaded, Moment, Place, Record, Snapshot, forget_journals_before, wake,
};

#[path = "common/folder.rs"]
mod folder;

const SAVED_AT: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
const HOUR: Duration = Duration::from_secs(3600);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A state directory, and the engine that keeps it.
struct Home {
    dir: TempDir,
    start: Instant,
    /// How long it runs.
    up: Duration,
}

impl Home {
    fn new() -> Home {
        Home {
            dir: TempDir::new().unwrap(),
            start: Instant::now(),
            up: Duration::ZERO,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self) -> Place {
        Place::new(self.dir.path(), None)
    }

    fn now(&self) -> Instant {
        self.start + self.up
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: SAVED_AT + self.up,
            boot: Some(Boot {
                id: "3b2b3c0e-0000-4000-8000-000000000000".into(),
                up: HOUR + self.up,
            }),
        }
    }

    fn begin(&self, generation: u64) -> Journal {
        Journal::begin(&self.place(), generation, &self.moment(), self.now()).unwrap()
    }

    /// A ban for an hour, journaled and synced.
    fn ban(&mut self, journal: &mut Journal, source: &str) {
        let ban = self.a_ban(source);
        self.add(journal, &[Record::Ban(ban)]);
        journal.sync().unwrap();
        self.up += Duration::from_secs(2);
    }

    fn a_ban(&self, source: &str) -> Ban {
        Ban {
            source: prefix(source),
            reason: BanReason::PortScanning,
            step: 1,
            offences: 1,
            since: self.now(),
            until: Some(self.now() + HOUR),
            enforced: true,
            note: None,
        }
    }

    fn add(&self, journal: &mut Journal, records: &[Record]) {
        journal.append(records, &self.moment(), self.now()).unwrap();
    }

    /// A snapshot with these bans, told by its seed.
    fn save(&self, generation: u64, bans: &[Ban]) {
        let mut snapshot = Snapshot::begin(&self.place(), &self.moment(), self.now(), 1, generation).unwrap();
        bans.iter().for_each(|ban| snapshot.ban(ban).unwrap());
        snapshot.commit().unwrap();
    }

    fn load(&self) -> Loaded {
        state::load(&self.place(), 1000)
    }

    /// Who is banned after a start.
    fn banned(&self, loaded: Loaded) -> Vec<String> {
        let bans = loaded
            .state
            .map(|state| wake(state, &self.moment(), self.now()).bans);
        let bans = bans.into_iter().flatten();
        let mut bans: Vec<String> = bans.map(|ban| ban.source.to_string()).collect();
        bans.sort();
        bans
    }

    fn files(&self) -> Vec<String> {
        folder::names(self.dir.path())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        folder::write_private(&self.path(name), bytes);
    }

    fn damage(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        bytes[at] ^= 0x10;
        fs::write(self.path(name), bytes).unwrap();
    }
}

#[test]
fn what_was_journaled_is_there_after_a_kill_with_what_remains() {
    let mut home = Home::new();
    let loaded = home.load();
    assert_eq!((loaded.generation, loaded.next_generation), (None, 1));
    let mut journal = home.begin(1);
    let name = "state.toml.journal-1";
    let facts = fs::metadata(home.path(name)).unwrap();
    assert_eq!(
        (facts.permissions().mode() & 0o7777, facts.len()),
        (0o600, journal.bytes())
    );
    home.save(1, &[home.a_ban("192.0.2.1")]);
    home.ban(&mut journal, "192.0.2.2");
    home.ban(&mut journal, "192.0.2.3");
    let lift = Record::Lift {
        source: prefix("192.0.2.1"),
        at: home.now(),
    };
    home.add(&mut journal, &[lift]);
    assert_eq!(fs::metadata(home.path(name)).unwrap().len(), journal.bytes());
    home.up += Duration::from_secs(60);
    let loaded = home.load();
    assert_eq!((&loaded.troubles, &loaded.notes), (&vec![], &vec![]));
    assert_eq!((loaded.generation, loaded.next_generation), (Some(1), 2));
    // Three batches, each with its clocks.
    assert_eq!(
        (loaded.journals, loaded.records, loaded.bytes),
        (1, 6, journal.bytes())
    );
    let bans = wake(loaded.state.unwrap(), &home.moment(), home.now()).bans;
    let left: Vec<u64> = bans
        .iter()
        .map(|ban| ban.remaining(home.now()).unwrap().as_secs())
        .collect();
    assert_eq!(left, [3600 - 64, 3600 - 62]);
}

#[test]
fn without_the_current_snapshot_the_previous_one_and_both_journals_lose_nothing() {
    let mut home = Home::new();
    let first = home.a_ban("192.0.2.1");
    let mut journal = home.begin(1);
    home.save(1, std::slice::from_ref(&first));
    home.ban(&mut journal, "192.0.2.2");
    let mut journal = home.begin(2);
    home.ban(&mut journal, "192.0.2.3"); // while the snapshot is being written
    home.save(2, &[first, home.a_ban("192.0.2.2"), home.a_ban("192.0.2.3")]);
    assert_eq!(forget_journals_before(&home.place(), 1).unwrap(), 0);
    home.ban(&mut journal, "192.0.2.4");
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let loaded = home.load();
    assert_eq!(
        (&loaded.troubles, loaded.generation, loaded.journals),
        (&vec![], Some(2), 1)
    );
    assert_eq!(home.banned(loaded), all);

    home.damage("state.toml", 200);
    let loaded = home.load();
    assert_eq!(
        (loaded.generation, loaded.next_generation, loaded.journals),
        (Some(1), 3, 2)
    );
    assert_eq!(loaded.troubles.len(), 2, "{:?}", loaded.troubles);
    assert_eq!(home.banned(loaded), all);

    // Neither of them: what the journals tell is still there.
    fs::remove_file(home.path("state.toml.1")).unwrap();
    fs::write(home.path("state.toml"), "").unwrap();
    let loaded = home.load();
    assert!(
        loaded.troubles[1].contains("only 6 records"),
        "{:?}",
        loaded.troubles
    );
    assert_eq!(home.banned(loaded), &all[1..]);

    // After a third snapshot nobody needs the first journal.
    home.begin(3);
    home.save(3, &[]);
    assert_eq!(forget_journals_before(&home.place(), 3).unwrap(), 2);
    assert_eq!(
        home.files(),
        [
            "state.toml",
            "state.toml.bad",
            "state.toml.bad.1",
            "state.toml.journal-3"
        ]
    );
}

#[test]
fn a_journal_that_is_missing_is_told() {
    let home = Home::new();
    home.begin(4);
    home.save(4, &[home.a_ban("192.0.2.1")]);
    assert_eq!(home.load().troubles, Vec::<String>::new());
    fs::remove_file(home.path("state.toml.journal-4")).unwrap();
    let loaded = home.load();
    assert_eq!((loaded.troubles.len(), loaded.next_generation), (1, 5));
    assert!(
        loaded.troubles[0].contains("journal-4 is missing"),
        "{:?}",
        loaded.troubles
    );
    assert_eq!(home.banned(loaded), ["192.0.2.1"]);
}

#[test]
fn torn_writes_are_noted_and_damage_is_trouble_with_a_copy() {
    let mut home = Home::new();
    let mut journal = home.begin(1);
    home.save(1, &[]);
    for host in 1..=9 {
        home.ban(&mut journal, &format!("192.0.2.{host}"));
    }
    let name = "state.toml.journal-1";
    let whole = fs::read(home.path(name)).unwrap();
    fs::write(home.path(name), &whole[..whole.len() - 5]).unwrap();
    let loaded = home.load();
    assert!(
        loaded.troubles.is_empty() && loaded.notes[0].contains("cut short"),
        "{loaded:?}"
    );
    assert_eq!(home.banned(loaded).len(), 8);

    fs::write(home.path(name), &whole).unwrap();
    home.damage(name, whole.len() / 2);
    let spoiled = fs::read(home.path(name)).unwrap();
    for _ in 0..3 {
        let loaded = home.load();
        let words = &loaded.troubles[0];
        assert!(words.contains("in 1 places of it are damaged"), "{words}");
        assert!(words.ends_with(&format!(
            "a copy is kept as {}",
            home.path("state.toml.bad").display()
        )));
        assert_eq!(home.banned(loaded).len(), 8);
    }
    // Still needed where it is, and one copy is enough.
    assert_eq!(home.files(), ["state.toml", "state.toml.bad", name]);
    assert_eq!(fs::read(home.path("state.toml.bad")).unwrap(), spoiled);

    // Of this one nothing is a record, and the second one is of a version to come.
    fs::remove_file(home.path(name)).unwrap();
    home.write(name, vec![0x55; 3000]);
    let mut future = whole;
    future[8] = 2;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&future[..112]);
    future[112..120].copy_from_slice(&digest[..8]);
    home.write("state.toml.journal-2", future);
    let loaded = home.load();
    assert!(
        loaded.troubles[0].contains("nothing in it is a record"),
        "{loaded:?}"
    );
    assert!(loaded.troubles[1].contains("format version 2"), "{loaded:?}");
    assert_eq!(
        home.files(),
        [
            "state.toml",
            "state.toml.bad",
            "state.toml.bad.1",
            "state.toml.bad.2"
        ]
    );
    assert_eq!(fs::read(home.path("state.toml.bad")).unwrap(), vec![0x55; 3000]);
    assert_eq!(fs::read(home.path("state.toml.bad.2")).unwrap(), spoiled);
}

#[test]
fn a_journal_that_was_just_begun_is_no_trouble() {
    let home = Home::new();
    home.begin(1);
    home.save(1, &[home.a_ban("192.0.2.1")]);
    for length in [0, 1, 119] {
        let header = fs::read(home.path("state.toml.journal-1")).unwrap();
        home.write("state.toml.journal-2", &header[..length]);
        let loaded = home.load();
        assert_eq!((&loaded.troubles, loaded.notes.len()), (&vec![], 1), "{loaded:?}");
        assert_eq!(loaded.next_generation, 3);
    }
}

#[test]
fn links_pipes_directories_and_other_peoples_journals_are_refused_and_untouched() {
    let mut home = Home::new();
    let mut journal = home.begin(1);
    home.save(1, &[home.a_ban("192.0.2.1")]);
    home.ban(&mut journal, "192.0.2.2");
    let elsewhere = home.path("elsewhere");
    fs::copy(home.path("state.toml.journal-1"), &elsewhere).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    let planted = home.path("state.toml.journal-2");
    type Plant = fn(&Path, &Path);
    let plants: [(Plant, &str); 5] = [
        (|at, to| symlink(to, at).unwrap(), "symbolic link"),
        (
            |at, _| {
                rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()
            },
            "regular",
        ),
        (|at, _| fs::create_dir(at).unwrap(), "regular"),
        (
            |at, to| {
                fs::copy(to, at).unwrap();
                fs::set_permissions(at, fs::Permissions::from_mode(0o622)).unwrap();
            },
            "others can write",
        ),
        (
            |at, to| {
                fs::copy(to, at).unwrap();
                chown(at, Some(12345), None).unwrap();
            },
            "owner 12345",
        ),
    ];
    for (plant, why) in plants {
        plant(&planted, &elsewhere);
        let was = fs::symlink_metadata(&planted).unwrap();
        let loaded = home.load();
        assert!(loaded.troubles[0].contains(why), "{why}: {:?}", loaded.troubles);
        assert!(
            loaded.troubles[0].contains("left where it is"),
            "{:?}",
            loaded.troubles
        );
        assert_eq!((loaded.troubles.len(), loaded.next_generation), (1, 3));
        assert_eq!(home.banned(loaded), ["192.0.2.1", "192.0.2.2"], "{why}");
        let journal = home.begin(2);
        assert_eq!(journal.generation(), 3, "{why}: the next number is taken");
        let is = fs::symlink_metadata(&planted).unwrap();
        assert_eq!(
            (is.ino(), is.mode(), is.uid()),
            (was.ino(), was.mode(), was.uid())
        );
        fs::remove_file(home.path("state.toml.journal-3")).unwrap();
        fs::remove_file(&planted)
            .or_else(|_| fs::remove_dir(&planted))
            .unwrap();
    }
    assert_eq!(
        fs::read(&elsewhere).unwrap(),
        before,
        "something was written through a link"
    );
}

#[test]
fn names_that_are_none_of_ours_are_nobodys_journals() {
    let home = Home::new();
    for name in [
        "state.toml.journal-",
        "state.toml.journal-01",
        "state.toml.journal-x",
        "state.toml.journal-18446744073709551615",
        "other.journal-7",
    ] {
        fs::write(home.path(name), "").unwrap();
    }
    let loaded = home.load();
    assert_eq!(
        (loaded.next_generation, loaded.troubles.len(), loaded.notes.len()),
        (1, 0, 0)
    );
    assert_eq!(forget_journals_before(&home.place(), 100).unwrap(), 0);
    assert_eq!(home.files().len(), 5);
}

#[test]
fn a_leftover_is_never_opened_and_what_is_below_is_forgotten() {
    let mut home = Home::new();
    let mut left = home.begin(5);
    home.ban(&mut left, "192.0.2.1");
    let journal = home.begin(5);
    assert_eq!(journal.generation(), 6);
    fs::create_dir(home.path("state.toml.journal-2")).unwrap();
    assert_eq!(forget_journals_before(&home.place(), 6).unwrap(), 1);
    assert_eq!(home.files(), ["state.toml.journal-2", "state.toml.journal-6"]);
    let nowhere = Place::new(Path::new("/nonexistent-directory"), None);
    let error = Journal::begin(&nowhere, 1, &home.moment(), home.now()).unwrap_err();
    assert!(
        error.to_string().contains("cannot open directory /nonexistent"),
        "{error}"
    );
    assert_eq!(forget_journals_before(&nowhere, 1).unwrap(), 0);
    assert_eq!(state::load(&nowhere, 10).next_generation, 1);
}

#[test]
fn a_snapshot_of_an_older_version_takes_no_older_journal() {
    let mut home = Home::new();
    let mut journal = home.begin(1);
    home.ban(&mut journal, "192.0.2.1");
    // An older version ran meanwhile; its snapshot names no journal.
    home.save(0, &[home.a_ban("192.0.2.2")]);
    let loaded = home.load();
    assert_eq!((loaded.generation, loaded.next_generation), (Some(0), 2));
    assert!(
        loaded.troubles.is_empty() && loaded.notes[0].contains("older than the state"),
        "{loaded:?}"
    );
    assert_eq!(home.banned(loaded), ["192.0.2.2"]);
    // Then this one again, killed before its first snapshot.
    home.up += Duration::from_secs(1);
    let mut journal = home.begin(2);
    home.ban(&mut journal, "192.0.2.3");
    let loaded = home.load();
    assert_eq!(loaded.journals, 1);
    assert_eq!(home.banned(loaded), ["192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_look_changes_nothing() {
    let mut home = Home::new();
    let mut journal = home.begin(1);
    home.save(1, &[home.a_ban("192.0.2.1")]);
    home.ban(&mut journal, "192.0.2.2");
    home.ban(&mut journal, "192.0.2.3");
    fs::copy(home.path("state.toml"), home.path("state.toml.1")).unwrap();
    home.damage("state.toml", 200);
    home.damage("state.toml.journal-1", 200);
    let facts = |home: &Home| -> Vec<(String, u64, Vec<u8>)> {
        let names = home.files().into_iter();
        names
            .map(|name| {
                let (facts, bytes) = (fs::metadata(home.path(&name)), fs::read(home.path(&name)));
                (name, facts.unwrap().ino(), bytes.unwrap())
            })
            .collect()
    };
    let before = facts(&home);
    let looked = state::peek(&home.place(), 1000);
    assert_eq!(facts(&home), before);
    assert_eq!(looked.troubles.len(), 3, "{:?}", looked.troubles);
    assert!(
        looked.troubles[0].ends_with("left where it is"),
        "{:?}",
        looked.troubles
    );
    let loaded = home.load();
    assert_eq!((&loaded.state, loaded.records), (&looked.state, looked.records));
    assert_ne!(facts(&home), before);
}

#[test]
fn a_touch_takes_thirty_bytes() {
    let home = Home::new();
    let mut journal = home.begin(1);
    let touch = |port| Record::Touch {
        source: prefix("192.0.2.1"),
        touch: Touch {
            what: Asked::Port(Proto::Tcp, port),
            stealth: 0,
            at: home.now(),
        },
    };
    let empty = journal.bytes();
    home.add(&mut journal, &[touch(1)]);
    let with_clock = journal.bytes();
    home.add(&mut journal, &[touch(2)]);
    assert_eq!(journal.bytes() - with_clock, 30);
    assert!(with_clock - empty < 120);
    home.add(&mut journal, &[]);
    assert_eq!(journal.bytes() - with_clock, 30);
}

/// A small file system at a home; gone when dropped, also by a panic.
struct Disk(Home);

impl Disk {
    fn new() -> Disk {
        let disk = Disk(Home::new());
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"]);
        let done = command.arg(disk.0.dir.path()).status();
        assert!(
            done.unwrap().success(),
            "this test mounts a file system and needs root"
        );
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.dir.path()).status();
    }
}

#[test]
fn a_full_disk_takes_whole_batches_or_nothing() {
    let disk = Disk::new();
    let home = &disk.0;
    let mut journal = home.begin(1);
    let batch: Vec<Record> = (0..200)
        .map(|host| Record::Ban(home.a_ban(&format!("198.51.100.{host}"))))
        .collect();
    let mut good = 0;
    let error = loop {
        match journal.append(&batch, &home.moment(), home.now()) {
            Ok(()) => good = journal.bytes(),
            Err(error) => break error,
        }
        assert!(good < 1 << 17, "the disk is not full");
    };
    assert!(error.to_string().contains("state.toml.journal-1"), "{error}");
    let length = || fs::metadata(home.path("state.toml.journal-1")).unwrap().len();
    assert_eq!(
        (length(), journal.bytes(), journal.is_broken()),
        (good, good, false)
    );
    // One that fits goes on where it was.
    journal.append(&batch[..1], &home.moment(), home.now()).unwrap();
    journal.sync().unwrap();
    assert!(length() > good);
    let loaded = home.load();
    assert!(
        loaded.troubles.is_empty() && loaded.notes.is_empty(),
        "{loaded:?}"
    );
    assert_eq!(loaded.state.unwrap().bans.len(), 200);
}
