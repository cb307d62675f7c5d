use jiff::tz::TimeZone;

use super::*;

/// What the Python system wrote of itself after two scans.
/// The file that the Python system left.
fn mission() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/mission_firewall_state.toml"
    );
    std::fs::read_to_string(path).unwrap()
}

fn clock(now: &str) -> Clock {
    Clock {
        now: now.parse().unwrap(),
        zone: TimeZone::UTC,
    }
}

fn read(text: &str) -> Import {
    import(text.as_bytes(), &clock("2026-11-22T10:00:00Z")).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    import(bytes, &clock("2026-11-22T10:00:00Z"))
        .unwrap_err()
        .to_string()
}

/// Line, outcome and words of each entry.
fn told(import: &Import) -> Vec<String> {
    let entries = import.report.entries.iter();
    entries
        .map(|entry| {
            let line = entry.line.map_or("-".into(), |line| line.to_string());
            format!("{line} {}: {}", entry.outcome.words(), entry.text)
        })
        .collect()
}

fn bans(import: &Import) -> Vec<(String, u32, u64)> {
    let seconds = |ban: &SavedBan| ban.remaining.unwrap().as_secs();
    let bans = import.bans.iter();
    bans.map(|ban| (ban.source.to_string(), ban.offences, seconds(ban)))
        .collect()
}

#[test]
fn the_missions_file_is_two_bans_to_their_latest_times() {
    let import = read(&mission());
    let to = 6 * 86_400 + 9 * 3600 + 39 * 60 + 10;
    let expected = [("10.77.0.1".to_owned(), 7, to), ("10.77.0.2".to_owned(), 10, to)];
    assert_eq!(bans(&import), expected);
    assert!(import.bans.iter().all(|ban| ban.enforced && ban.step == 0));
    let age = Duration::from_nanos(51_649_221_941_000);
    assert_eq!(import.ladder[1].real, Some((10, age)));
    assert_eq!(import.sources, []);
    let report = &import.report;
    assert_eq!(
        (
            report.bans,
            report.ladder,
            report.merged,
            report.past,
            report.refused,
            report.left_out
        ),
        (2, 2, 19, 0, 0, 2 + 2 + 10)
    );
    assert_eq!(
        told(&import),
        [
            "- left out: scan_types of 2 sources: what kind a packet was is not counted by source here",
            "10 merged: 10.77.0.1: 8 more entries for it, the latest time counts",
            "10 taken: 10.77.0.1: banned until 2026-11-28T19:39:10Z",
            "21 merged: 10.77.0.2: 11 more entries for it, the latest time counts",
            "21 taken: 10.77.0.2: banned until 2026-11-28T19:39:10Z",
            "25 taken: 10.77.0.2: block_count = 10 is its number of offences, the last at 2026-11-21T19:39:10Z",
            "25 left out: 10.77.0.2: its 9 ports were answered by a block, its window starts empty",
            "46 taken: 10.77.0.1: block_count = 7 is its number of offences, the last at 2026-11-21T19:39:10Z",
            "46 left out: 10.77.0.1: its 1 ports were answered by a block, its window starts empty",
            "58 left out: port_access_tracker of 10 ports: what is usual on a port is a mean of days here, and \
             learnt anew",
        ]
    );
}

#[test]
fn what_is_past_is_dropped_and_the_ladder_stays() {
    let import = import(mission().as_bytes(), &clock("2026-11-29T00:00:00Z")).unwrap();
    assert_eq!(
        (import.bans.len(), import.ladder.len(), import.report.past),
        (0, 2, 2)
    );
}

#[test]
fn a_ban_is_never_longer_than_the_file_says_whatever_the_clock_says() {
    let long_ago = import(mission().as_bytes(), &clock("1970-01-01T00:00:00Z")).unwrap();
    let week = 7 * 86_400;
    for (source, _, left) in bans(&long_ago) {
        assert!((week - 1..=week).contains(&left), "{source} {left}");
    }
    let far = "unblock_tasks = [{ ip = \"192.0.2.1\", unblock_time = \"9999-01-01T00:00:00\" }]";
    assert_eq!(bans(&read(far)), [("192.0.2.1".to_owned(), 0, 376 * 86_400)]);
    assert!(told(&read(far))[0].contains("cut to 376 days"));
}

#[test]
fn a_source_that_was_never_blocked_has_a_window() {
    let import = read(
        "[ip_activity.\"2001:db8::7\"]\nunique_ports = [22, 80, 22, 443]\nfirst_seen = 2026-11-22T09:00:00Z\n\
         last_seen = \"2026-11-22T09:59:00\"\nblock_count = 0\n",
    );
    let source = &import.sources[0];
    assert_eq!(
        (source.source.to_string(), source.touches.len()),
        ("2001:db8::7".into(), 3)
    );
    assert_eq!((source.age.as_secs(), source.idle.as_secs()), (3600, 60));
    assert_eq!(source.touches[2], (Asked::Port(Proto::Tcp, 443), 0, source.idle));
    assert_eq!((import.bans.len(), import.ladder.len()), (0, 0));
}

#[test]
fn entries_that_make_no_sense_are_left_out_with_their_line() {
    let import = read(
        "unblock_tasks = [\n\
         { ip = \"192.0.2.300\", unblock_time = \"2026-11-23T00:00:00\" },\n\
         { ip = 7, unblock_time = \"2026-11-23T00:00:00\" },\n\
         { ip = \"192.0.2.3\" },\n\
         { ip = \"192.0.2.4\", unblock_time = nan },\n\
         { ip = \"192.0.2.5\", unblock_time = \"tomorrow\" },\n\
         \"192.0.2.6\",\n\
         { ip = \"::ffff:192.0.2.7\", unblock_time = \"2026-11-22T10:00:01\" },\n\
         ]\n\
         extra = 1\n\
         [ip_activity.\"192.0.2.8\"]\n\
         unique_ports = [-1, 65536, 22, nan, \"80\"]\n\
         block_count = -4\n\
         first_seen = nan\n\
         last_seen = \"2026-11-22T12:00:00\"\n\
         colour = \"red\"\n\
         [ip_activity.\"nobody\"]\n\
         [ip_activity.\"192.0.2.9\"]\n\
         block_count = 4294967296\n\
         [ip_activity.\"192.0.2.10\"]\n\
         block_count = 3\n",
    );
    assert_eq!(bans(&import), [("192.0.2.7".to_owned(), 0, 1)]);
    assert_eq!(import.sources[0].idle, Duration::ZERO, "of the future is of now");
    assert_eq!(import.ladder, []);
    let expected = [
        "2 refused: unblock_tasks: \"192.0.2.300\" is no IPv4 or IPv6 address",
        "3 refused: unblock_tasks: \"7\" is no IPv4 or IPv6 address",
        "4 refused: unblock_tasks: an entry without unblock_time",
        "5 refused: unblock_tasks: unblock_time is nan, not a time",
        "6 refused: unblock_tasks: unblock_time is \"tomorrow\", not a time such as 2026-11-21T19:49:10",
        "7 refused: unblock_tasks: an entry without ip",
        "12 refused: 192.0.2.8: unique_ports holds -1, not a port",
        "13 refused: 192.0.2.8: block_count is -4, not a count",
        "16 refused: 192.0.2.8: \"colour\" is not known",
        "17 refused: ip_activity: \"nobody\" is no IPv4 or IPv6 address",
        "19 refused: 192.0.2.9: block_count is 4294967296, not a count",
        "10 left out: \"extra\" is no part of a state of the Python system",
        "20 left out: 192.0.2.10: block_count = 3, and nothing says when: no ladder position",
    ];
    let told = told(&import);
    for line in expected {
        assert!(told.iter().any(|told| told == line), "{line} is not in {told:#?}");
    }
    assert_eq!((import.report.refused, import.report.unsaid), (15, 0));
}

#[test]
fn hostile_files_are_refused_in_words() {
    let nested = format!("unblock_tasks = {}", "[".repeat(20_000));
    let twice = "[ip_activity.\"192.0.2.1\"]\nblock_count = 1\nblock_count = 2\n";
    for (bytes, words) in [
        (nested.as_bytes(), "line 1: "),
        (twice.as_bytes(), "line 3: duplicate key"),
        (b"\xff\xfe", "byte 0 is no UTF-8 text"),
        (
            b"",
            "it holds none of unblock_tasks, ip_activity, port_access_tracker",
        ),
        (b"x = 1\n", "it holds none of"),
        (
            b"version = 1\nsaved_at = 2026-03-01T12:00:00Z\n",
            "it is a state of verdictd",
        ),
        (b"\0\0\0\0", "line 1: "),
        (b"unblock_tasks = [", "line 1: "),
    ] {
        let said = refusal(bytes);
        assert!(said.starts_with(words), "{said}");
    }
    let endless = io::repeat(b'\n');
    let error = import(endless, &clock("2026-11-22T10:00:00Z")).unwrap_err();
    assert!(matches!(error, NotImported::TooLarge), "{error}");
}

#[test]
fn every_cut_and_every_flipped_byte_is_answered() {
    let text = mission();
    let bytes = text.as_bytes();
    let clock = clock("2026-11-22T10:00:00Z");
    for at in 0..bytes.len() {
        let _ = import(&bytes[..at], &clock);
        let mut spoiled = bytes.to_vec();
        spoiled[at] ^= 1 << (at % 8);
        if let Ok(import) = import(spoiled.as_slice(), &clock) {
            assert!(import.bans.iter().all(|ban| ban.remaining.unwrap() <= LONGEST));
        }
    }
}

#[test]
fn a_report_is_bounded() {
    let tasks = "{ ip = \"x\", unblock_time = \"\" },".repeat(MOST_ENTRIES + 7);
    let import = read(&format!("unblock_tasks = [{tasks}]"));
    assert_eq!(
        (import.report.entries.len(), import.report.unsaid),
        (MOST_ENTRIES, 7)
    );
    assert_eq!(import.report.refused, MOST_ENTRIES as u64 + 7);
}
