//! The state file: written, read back, damaged in every way, and found in a directory as crashes and strangers
//! leave it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and does not see helpers of tests as such"
)]

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;
use verdictd::core::attack::{Baseline, PortBaseline};
use verdictd::core::judge::Memory;
use verdictd::core::ledger::Standing;
use verdictd::core::prefix::Prefix;
use verdictd::core::source::Touch;
use verdictd::core::verdict::{Asked, Ban, BanReason, Proto};
use verdictd::state::{self, Awake, Boot, Encoder, Loaded, Moment, Place, Snapshot, State, Unreadable, wake};

#[path = "common/folder.rs"]
mod folder;

const SAVED_AT: OffsetDateTime = datetime!(2026-03-01 12:00:00.25 UTC);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn moment(wall: OffsetDateTime, up: Duration) -> Moment {
    let id = "3b2b3c0e-0000-4000-8000-000000000000".into();
    Moment {
        wall,
        boot: Some(Boot { id, up }),
    }
}

fn saved() -> Moment {
    moment(SAVED_AT, HOUR)
}

/// What the tests save: one record of each kind and shape.
fn sample(now: Instant) -> Awake {
    let ban = |source, reason, left: Option<Duration>, enforced, note: Option<&str>| Ban {
        source: prefix(source),
        reason,
        step: 2,
        offences: 3,
        since: now - HOUR,
        until: left.map(|left| now + left),
        enforced,
        note: note.map(Into::into),
    };
    let touch = |what, stealth, age| Touch {
        what,
        stealth,
        at: now - Duration::from_millis(age),
    };
    let memory = |source, completed, touches: Vec<Touch>| Memory {
        source: prefix(source),
        first_seen: now - 2 * HOUR,
        last_seen: touches.last().map_or(now - HOUR, |touch| touch.at),
        completed,
        touches,
    };
    let standing = |source, real: Option<u64>, would_be: Option<u64>| Standing {
        source: prefix(source),
        offences: real.map_or(0, |_| 3),
        last: real.map(|age| now - Duration::from_secs(age)),
        would_be: would_be.map_or(0, |_| 1),
        would_be_last: would_be.map(|age| now - Duration::from_secs(age)),
    };
    Awake {
        sources: vec![
            memory("198.51.100.77", Some(vec![80, 443]), vec![]),
            memory(
                "192.0.2.7",
                None,
                vec![
                    touch(Asked::Port(Proto::Tcp, 22), 0, 7200),
                    touch(Asked::Port(Proto::Udp, 53), 0, 60),
                    touch(Asked::Protocol(47), 1, 30),
                    touch(Asked::Port(Proto::Tcp, 0), 300, 4),
                ],
            ),
            memory(
                "2001:db8::/64",
                Some(vec![]),
                vec![touch(Asked::Port(Proto::Tcp, 65535), 0, 0)],
            ),
        ],
        standings: vec![
            standing("198.51.100.1", None, Some(90_000)),
            standing("203.0.113.9", Some(7200), Some(3600)),
            standing("2001:db8:1::/64", Some(60), None),
        ],
        usual: Baseline {
            into_day: 5400,
            observed: [5400, 86_400, 86_400, 0, 0, 0, 0],
            ports: [(22, 3), (443, 500)]
                .map(|(port, count)| PortBaseline {
                    port,
                    counted: [count, 2 * count, 0, 0, 0, 0, 0],
                })
                .into(),
        },
        away: Duration::ZERO,
        bans: vec![
            ban(
                "10.0.0.0/8",
                BanReason::Manual,
                None,
                true,
                Some("\"quoted\" \\ back, äöü ]"),
            ),
            ban(
                "203.0.113.9",
                BanReason::PortScanning,
                Some(Duration::from_millis(593_412)),
                true,
                None,
            ),
            ban(
                "2001:db8:1::/64",
                BanReason::DistributedAttack,
                Some(364 * DAY),
                true,
                None,
            ),
            ban(
                "198.51.100.1",
                BanReason::SuspiciousScanning,
                Some(HOUR),
                false,
                Some(""),
            ),
        ],
    }
}

fn text(awake: &Awake, now: Instant) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), &saved(), now, 24301).unwrap();
    let sources = awake.sources.iter();
    sources.for_each(|memory| encoder.source(memory).unwrap());
    awake
        .standings
        .iter()
        .for_each(|standing| encoder.standing(standing).unwrap());
    encoder.usual(&awake.usual).unwrap();
    awake.bans.iter().for_each(|ban| encoder.ban(ban).unwrap());
    encoder.finish().unwrap().0
}

fn decode(bytes: &[u8]) -> Result<State, Unreadable> {
    state::decode(Cursor::new(bytes), 1000)
}

/// `body` with a digest that fits: what an attacker with the right to write would leave.
fn signed(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = body.as_ref().to_vec();
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bytes.extend_from_slice(format!("# sha256 {digest}\n").as_bytes());
    bytes
}

/// A good head and these lines after it.
fn with_lines(lines: &str) -> Vec<u8> {
    signed(format!("version = 1\nsaved_at = 2026-03-01T12:00:00Z\n{lines}"))
}

#[test]
fn what_is_saved_comes_back_as_it_was() {
    let now = Instant::now();
    let bytes = text(&sample(now), now);
    let state = decode(&bytes).unwrap();
    assert_eq!(
        (state.saved.clone(), state.seed, state.skipped),
        (saved(), Some(24301), 0)
    );
    assert_eq!(wake(state, &saved(), now), sample(now));
}

#[test]
fn the_file_is_toml_that_a_person_can_read() {
    let now = Instant::now();
    let text = String::from_utf8(text(&sample(now), now)).unwrap();
    let whole: toml::Table = text.parse().unwrap();
    assert_eq!(whole["version"].as_integer(), Some(1));
    assert_eq!(whole["saved_at"].to_string(), "2026-03-01T12:00:00.25Z");
    let ban = &whole["bans"][1];
    assert_eq!(ban["until"].to_string(), "2026-03-01T12:09:53Z");
    assert_eq!(ban["since"].to_string(), "2026-03-01T11:00:00Z");
    assert_eq!(ban["remaining_seconds"].as_float(), Some(593.412));
    assert_eq!(
        whole["bans"][0]["note"].as_str(),
        Some("\"quoted\" \\ back, äöü ]")
    );
    assert_eq!(
        whole["sources"][1]["ports"].to_string(),
        r#"["tcp/22", "udp/53", "ip/47", "tcp/0"]"#
    );
    assert_eq!(whole["sources"][0]["completed"].to_string(), "[80, 443]");
    assert_eq!(whole["usual"][2]["port"].as_integer(), Some(443));
    assert_eq!(
        whole["ladder"][1]["last_offence"].to_string(),
        "2026-03-01T10:00:00Z"
    );
    assert!(text.lines().all(|line| line.len() < 300), "{text}");
    let empty = Encoder::new(Vec::new(), &saved(), now, 0)
        .unwrap()
        .finish()
        .unwrap()
        .0;
    assert!(decode(&empty).unwrap().bans.is_empty());
    assert!(String::from_utf8(empty).unwrap().parse::<toml::Table>().is_ok());
}

#[test]
fn time_goes_on_while_nobody_runs_whatever_the_clock_does() {
    let (saved_in, now) = (Instant::now(), Instant::now() + HOUR);
    let bytes = text(&sample(saved_in), saved_in);
    let left = |moment: Moment| -> Vec<Option<u64>> {
        let bans = wake(decode(&bytes).unwrap(), &moment, now).bans;
        bans.iter()
            .map(|ban| ban.remaining(now).map(|left| left.as_secs()))
            .collect()
    };
    let (year, minute) = (31_536_000 - 86_400, Duration::from_secs(60));
    for step in [Duration::ZERO, 365 * DAY] {
        for wall in [
            SAVED_AT + step,
            SAVED_AT - step,
            OffsetDateTime::UNIX_EPOCH,
            datetime!(2038-01-19 3:14:08 UTC),
        ] {
            assert_eq!(
                left(moment(wall, HOUR + minute)),
                [None, Some(533), Some(year - 60), Some(3540)],
                "{wall}"
            );
        }
    }
    let rebooted = |wall| Moment {
        wall,
        boot: Some(Boot {
            id: "another".into(),
            up: Duration::from_secs(10),
        }),
    };
    assert_eq!(
        left(rebooted(SAVED_AT + minute)),
        [None, Some(533), Some(year - 60), Some(3540)]
    );
    assert_eq!(
        left(rebooted(SAVED_AT + HOUR)),
        [None, Some(0), Some(year - 3600), Some(0)]
    );
    for wall in [
        SAVED_AT - 365 * DAY,
        SAVED_AT + 365 * DAY,
        OffsetDateTime::UNIX_EPOCH,
        datetime!(2038-01-19 3:14:08 UTC),
    ] {
        assert_eq!(
            left(rebooted(wall)),
            [None, Some(583), Some(year - 10), Some(3590)],
            "{wall}"
        );
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_is_refused() {
    let now = Instant::now();
    let bytes = text(&sample(now), now);
    for length in 0..bytes.len() {
        assert!(
            decode(&bytes[..length]).is_err(),
            "the first {length} bytes are a state"
        );
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(decode(&damaged).is_err(), "with byte {at} changed it is a state");
    }
}

#[test]
fn hostile_files_with_a_good_digest_are_refused_or_thinned_out() {
    let deep = format!("x = {}", "[".repeat(20_000));
    let wide = format!("x = \"{}\"", "y".repeat(5 << 20));
    for head in [
        "",
        "version = 2\nsaved_at = 2026-03-01T12:00:00Z",
        "version = 1",
        "\0\0\0",
        "version = nan",
        "version = 1\nsaved_at = 2026-03-01T12:00:00",
        "version = 1\nsaved_at = 12:00:00",
        "version = 1\nversion = 1\nsaved_at = 2026-03-01T12:00:00Z",
        &deep,
        &wide,
    ] {
        assert!(
            decode(&signed(format!("{head}\n"))).is_err(),
            "{}",
            &head[..head.len().min(80)]
        );
    }
    let ban = |fields: &str| with_lines(&format!("bans = [\n{{ {fields} }},\n]\n"));
    let good =
        "source = \"192.0.2.7\", reason = \"manual\", step = 1, offences = 1, age = 1.0, enforced = true";
    assert_eq!(decode(&ban(good)).unwrap().bans.len(), 1);
    assert_eq!(
        decode(&ban(&format!("{good}, colour = \"red\"")))
            .unwrap()
            .bans
            .len(),
        1
    );
    let until = "until = 2026-03-02T00:00:00Z";
    for bad in [
        good.replace("192.0.2.7", "192.0.2.7/24"),
        good.replace("192.0.2.7", "::ffff:192.0.2.7"),
        good.replace("manual", "spite"),
        good.replace("step = 1", "step = -1"),
        good.replace("offences = 1", "offences = 99999999999"),
        good.replace("age = 1.0", "age = -1.0"),
        good.replace("age = 1.0", "age = nan"),
        good.replace("age = 1.0", "age = inf"),
        good.replace("age = 1.0", "age = 1e300"),
        good.replace("enforced = true", "enforced = \"yes\""),
        format!("{good}, {until}"),
        format!("{good}, remaining_seconds = 5.0"),
        format!("{good}, {until}, remaining_seconds = -5.0"),
        format!("{good}, until = 99999-03-02T00:00:00Z, remaining_seconds = 5.0"),
        format!("{good}, step = 1"),
        format!("{good}, x = {}", "[".repeat(20_000)),
        format!("{good}, x = {}", "{a=".repeat(20_000)),
    ] {
        let state = decode(&ban(&bad)).unwrap();
        assert_eq!(
            (state.bans.len(), state.skipped),
            (0, 1),
            "{}",
            &bad[..bad.len().min(200)]
        );
    }
    let long = decode(&ban(&format!("{good}, {until}, remaining_seconds = 1e9"))).unwrap();
    assert!(long.bans[0].remaining < Some(400 * DAY), "longer than any ban");
    let note = decode(&ban(&format!("{good}, note = \"a\\u001b[2Jb\""))).unwrap();
    assert_eq!(note.bans[0].note, None);
}

#[test]
fn counts_are_capped_and_unknown_arrays_passed_over() {
    let line = |nth: usize| {
        format!(
            "{{ source = \"10.0.{}.{}\", ports = [\"tcp/1\"], ages = [1.0] }},\n",
            nth / 256,
            nth % 256
        )
    };
    let lines: String = (0..1500).map(line).collect();
    let file = with_lines(&format!(
        "future = [\n{{ a = 1 }},\nnonsense\n]\nsources = [\n{lines}]\nsoon = 1\n"
    ));
    let state = decode(&file).unwrap();
    assert_eq!((state.sources.len(), state.skipped), (1000, 500));
    let torn = with_lines(
        "sources = [\n{ source = \"10.0.0.1\", ports = [\"tcp/1\"], ages = [] },\n{ source = \"10.0.0.1\", ports = [\"icmp/1\"], ages = [1.0] },\n",
    );
    assert_eq!(decode(&torn).unwrap().skipped, 2);
}

proptest! {
    // No file of past failures: tests leave nothing behind in the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), sign in any::<bool>()) {
        let _ = decode(&if sign { signed(&bytes) } else { bytes });
    }

    #[test]
    fn no_damage_under_a_good_digest_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let now = Instant::now();
        let mut body = text(&sample(now), now);
        body.truncate(body.len() - 74);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len()).max(body.len() / 2));
        if let Ok(state) = decode(&signed(&body)) {
            let _ = wake(state, &saved(), now);
        }
    }

    #[test]
    fn any_state_comes_back(
        bans in prop::collection::vec((any::<u32>(), 0..=32u8, 0..40_000_000_000u64, 0..5usize, any::<bool>(), ".{0,40}"), 0..20),
    ) {
        let now = Instant::now();
        let bans = bans.into_iter().map(|(addr, len, left, reason, enforced, note)| Ban {
            source: Prefix::new(std::net::Ipv4Addr::from(addr).into(), len).unwrap(),
            reason: BanReason::ALL[reason],
            step: addr % 7,
            offences: addr,
            since: now - Duration::from_millis(left / 2),
            until: (left % 7 != 0).then(|| now + Duration::from_millis(left % (365 * 86_400_000))),
            enforced,
            note: (!note.chars().any(char::is_control)).then(|| note.into()),
        });
        let before = Awake { bans: bans.collect(), ..Awake::default() };
        let state = decode(&text(&before, now)).unwrap();
        prop_assert_eq!(state.skipped, 0);
        prop_assert_eq!(wake(state, &saved(), now), before);
    }
}

/// A state directory, and what a start finds in it.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn place(&self) -> Place {
        Place::new(self.0.path(), None)
    }

    /// A generation that is told by its seed. Its number is 0, that of a snapshot without a journal.
    fn save(&self, seed: u32) {
        let now = Instant::now();
        let mut snapshot = Snapshot::begin(&self.place(), &saved(), now, seed, 0).unwrap();
        sample(now).bans.iter().for_each(|ban| snapshot.ban(ban).unwrap());
        let saved = snapshot.commit().unwrap();
        assert_eq!((saved.counts.bans, saved.path), (4, self.path("state.toml")));
        assert_eq!(fs::metadata(self.path("state.toml")).unwrap().len(), saved.bytes);
    }

    fn load(&self) -> (Option<u32>, Vec<String>) {
        let Loaded {
            state,
            troubles,
            notes,
            ..
        } = state::load(&self.place(), 1000);
        assert!(notes.is_empty(), "{notes:?}");
        (state.and_then(|state| state.seed), troubles)
    }

    fn files(&self) -> Vec<String> {
        folder::names(self.0.path())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        folder::write_private(&self.path(name), bytes);
    }
}

#[test]
fn the_previous_generation_is_kept_and_used_when_the_current_one_is_gone() {
    let home = Home::new();
    assert_eq!(home.load(), (None, vec![]));
    home.save(1);
    assert_eq!(home.files(), ["state.toml"]);
    home.save(2);
    home.save(3);
    assert_eq!(home.files(), ["state.toml", "state.toml.1"]);
    assert_eq!(home.load(), (Some(3), vec![]));
    assert_eq!(
        fs::metadata(home.path("state.toml"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    fs::remove_file(home.path("state.toml")).unwrap();
    let (seed, troubles) = home.load();
    assert_eq!((seed, troubles.len()), (Some(2), 1));
    assert!(
        troubles[0].contains("previous generation") && troubles[0].contains("2026-03-01"),
        "{troubles:?}"
    );
}

#[test]
fn bad_generations_are_set_aside_and_three_of_them_kept() {
    let home = Home::new();
    home.save(1);
    home.save(2);
    for round in 0..5 {
        home.write("state.toml", format!("torn {round}"));
        let (seed, troubles) = home.load();
        assert_eq!((seed, troubles.len()), (Some(1), 2), "{troubles:?}");
        assert!(
            troubles[0].contains("cut off") && troubles[0].contains("kept as"),
            "{troubles:?}"
        );
    }
    assert_eq!(
        home.files(),
        [
            "state.toml.1",
            "state.toml.bad",
            "state.toml.bad.1",
            "state.toml.bad.2"
        ]
    );
    assert_eq!(
        fs::read_to_string(home.path("state.toml.bad.2")).unwrap(),
        "torn 2"
    );
    home.write("state.toml", "");
    home.write("state.toml.1", "x");
    let (seed, troubles) = home.load();
    assert_eq!((seed, troubles.len()), (None, 3));
    assert!(troubles[2].contains("no saved state"), "{troubles:?}");
    // Each is where its sentence says.
    for (trouble, name, text) in [
        (&troubles[0], "state.toml.bad", ""),
        (&troubles[1], "state.toml.bad.1", "x"),
    ] {
        assert!(
            trouble.ends_with(&format!("kept as {}", home.path(name).display())),
            "{trouble}"
        );
        assert_eq!(fs::read_to_string(home.path(name)).unwrap(), text);
    }
    assert_eq!(
        fs::read_to_string(home.path("state.toml.bad.2")).unwrap(),
        "torn 4"
    );
    home.save(9);
    assert_eq!(home.load(), (Some(9), vec![]));
}

#[test]
fn links_pipes_directories_and_other_peoples_files_are_refused_and_untouched() {
    let home = Home::new();
    home.save(1);
    let elsewhere = home.path("elsewhere");
    fs::rename(home.path("state.toml"), &elsewhere).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant, &str); 5] = [
        ("link", |at, to| symlink(to, at).unwrap(), "symbolic link"),
        (
            "pipe",
            |at, _| {
                rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()
            },
            "regular",
        ),
        ("directory", |at, _| fs::create_dir(at).unwrap(), "regular"),
        (
            "writable",
            |at, to| {
                fs::copy(to, at).unwrap();
                fs::set_permissions(at, fs::Permissions::from_mode(0o622)).unwrap();
            },
            "others can write",
        ),
        (
            "sparse",
            |at, _| fs::File::create(at).unwrap().set_len(2 << 30).unwrap(),
            "too many",
        ),
    ];
    for (what, plant, why) in plants {
        plant(&home.path("state.toml"), &elsewhere);
        let (seed, troubles) = home.load();
        assert!(
            seed.is_none() && troubles[0].contains(why),
            "{what}: {troubles:?}"
        );
        assert!(!home.files().contains(&"state.toml".into()), "{what}");
    }
    for name in ["state.toml", "state.toml.new", "state.toml.1"] {
        symlink(&elsewhere, home.path(name)).unwrap();
    }
    home.save(7);
    home.save(8);
    assert_eq!(
        fs::read(&elsewhere).unwrap(),
        before,
        "something was written through a link"
    );
    assert_eq!(home.load(), (Some(8), vec![]));
}

#[test]
fn what_a_killed_writer_left_is_in_nobodys_way() {
    let home = Home::new();
    home.save(1);
    home.write("state.toml.new", "half a st");
    assert_eq!(home.load(), (Some(1), vec![]));
    home.save(2);
    assert_eq!(home.files(), ["state.toml", "state.toml.1"]);
    let now = Instant::now();
    drop(Snapshot::begin(&home.place(), &saved(), now, 3, 0).unwrap());
    assert_eq!((home.load(), home.files().len()), ((Some(2), vec![]), 2));
}

#[test]
fn a_full_disk_leaves_the_last_good_file() {
    let nowhere = Place::new(Path::new("/nonexistent-directory"), None);
    let error = Snapshot::begin(&nowhere, &saved(), Instant::now(), 1, 0)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("cannot open directory /nonexistent-directory"),
        "{error}"
    );
    let home = Home::new();
    home.save(1);
    fs::create_dir_all(home.path("state.toml.new/full")).unwrap();
    let error = Snapshot::begin(&home.place(), &saved(), Instant::now(), 2, 0)
        .err()
        .unwrap();
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert_eq!(home.load(), (Some(1), vec![]));
}

#[test]
fn the_file_of_the_python_system_is_imported_once_and_kept() {
    let home = Home::new();
    let python = "unblock_tasks = [\n]\n\n[ip_activity.\"10.77.0.2\"]\nlast_seen = 2026-11-21T19:39:10\nblock_count = 10\n";
    for kept in ["state.toml.python", "state.toml.python.1"] {
        home.write("state.toml", python);
        let loaded = state::load(&home.place(), 1000);
        assert!(loaded.troubles.is_empty(), "{loaded:?}");
        let ladder = loaded.state.expect("it is a state").ladder;
        assert_eq!((ladder.len(), ladder[0].real.expect("offences").0), (1, 10));
        assert!(
            loaded.notes[0].contains("is of the Python system, kept as"),
            "{:?}",
            loaded.notes
        );
        assert_eq!(loaded.imported.expect("a report").ladder, 1);
        assert_eq!(fs::read_to_string(home.path(kept)).unwrap(), python);
    }
    assert_eq!(home.files(), ["state.toml.python", "state.toml.python.1"]);
    // Until there is a snapshot: the first one may never have come to its end.
    assert!(state::load(&home.place(), 1000).imported.is_some());
    home.save(7);
    assert_eq!(home.load(), (Some(7), vec![]), "once");
}

#[test]
fn what_looks_like_the_python_systems_and_is_none_is_kept_too() {
    let home = Home::new();
    home.write("state.toml", "unblock_tasks = [\n");
    let loaded = state::load(&home.place(), 1000);
    assert!(loaded.state.is_none() && loaded.imported.is_none());
    assert!(
        loaded.troubles[0].contains("cannot be imported: line "),
        "{loaded:?}"
    );
    assert_eq!(home.files(), ["state.toml.python"]);
    home.save(1);
    home.save(2);
    home.write("state.toml", "[ip_activity]\n");
    let loaded = state::load(&home.place(), 1000);
    assert_eq!(loaded.state.expect("the one before").seed, Some(1));
    assert!(
        loaded.notes[0].contains("it is not imported"),
        "{:?}",
        loaded.notes
    );
}
