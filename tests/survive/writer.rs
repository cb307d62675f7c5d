//! A small engine without packets: it keeps a state by journal and snapshot as the real one does, says aloud what it is
//! about to do and what is done, and is there to be killed. One start takes some milliseconds, so that ten thousand of
//! its deaths can be looked at.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use verdictd::core::judge::Memory;
use verdictd::core::ledger::Standing;
use verdictd::core::prefix::Prefix;
use verdictd::core::source::Touch;
use verdictd::core::verdict::{Asked, Ban, BanReason, Proto};
use verdictd::engine::clock;
use verdictd::state::{self, Journal, Place, Record, Snapshot};

use crate::points::{draw, seed_of};
use crate::promises::monotonic;

const FOLDER: &str = "VERDICTD_TEST_SURVIVE_FOLDER";
const ROUND: &str = "VERDICTD_TEST_SURVIVE_ROUND";
const WORDS: &str = "VERDICTD_TEST_SURVIVE_WORDS";

/// This program as the writer that keeps its state in `folder`. `round` decides what it writes, `words` how much.
pub(crate) fn writer(folder: &Path, round: usize, words: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "writer::one_that_is_going_to_be_killed", "--nocapture"]);
    command.env(FOLDER, folder);
    command.env(ROUND, round.to_string());
    command.env(WORDS, words.to_string());
    command
}

#[test]
fn one_that_is_going_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return; // only a part of other tests
    };
    let number = |key| std::env::var(key).unwrap().parse().unwrap();
    let mut writer = Writer::begin(&Place::new(Path::new(&folder), None), number(ROUND));
    for _ in 0..number(WORDS) {
        writer.word();
    }
    say("end");
}

fn say(line: &str) {
    say_all([line.to_owned()]);
}

/// One write, so that all of it is told or nothing: of two decisions about one target the first is no promise.
fn say_all(lines: impl IntoIterator<Item = String>) {
    // The test harness leaves the cursor in the middle of a line.
    let text: String = lines.into_iter().map(|line| format!("\n> {line}\n")).collect();
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

struct Writer {
    place: Place,
    journal: Journal,
    /// Of the newest whole snapshot.
    newest: Option<u64>,
    bans: BTreeMap<Prefix, Ban>,
    standings: BTreeMap<Prefix, Standing>,
    sources: BTreeMap<Prefix, Memory>,
    seed: u64,
}

impl Writer {
    fn begin(place: &Place, round: usize) -> Writer {
        let loaded = state::load(place, 1000);
        for trouble in &loaded.troubles {
            say(&format!("trouble {trouble}"));
        }
        let now = Instant::now();
        let awake = loaded
            .state
            .map(|state| state::wake(state, &clock::moment(), now));
        let awake = awake.unwrap_or_default();
        let mut writer = Writer {
            place: place.clone(),
            journal: Journal::begin(place, loaded.next_generation, &clock::moment(), now).unwrap(),
            newest: loaded.generation,
            bans: awake.bans.into_iter().map(|ban| (ban.source, ban)).collect(),
            standings: awake.standings.into_iter().map(|it| (it.source, it)).collect(),
            sources: awake.sources.into_iter().map(|it| (it.source, it)).collect(),
            seed: seed_of(round),
        };
        writer
            .bans
            .retain(|_, ban| ban.until.is_none_or(|until| until > now));
        writer.snapshot();
        writer
    }

    fn word(&mut self) {
        match draw(&mut self.seed, 12) {
            0..7 => self.decided(),
            7..10 => self.touched(),
            10 => self.synced(),
            _ => self.rotate(),
        }
    }

    /// Some decisions in one batch, on the disk before they are told.
    fn decided(&mut self) {
        let now = Instant::now();
        let many = 1 + draw(&mut self.seed, 4);
        let (records, words): (Vec<_>, Vec<_>) = (0..many).map(|_| self.decision(now)).unzip();
        say_all(words.iter().map(|word| format!("try {word}")));
        self.journal.append(&records, &clock::moment(), now).unwrap();
        self.journal.sync().unwrap();
        self.mark();
        say_all(words.iter().map(|word| format!("done {word}")));
    }

    fn decision(&mut self, now: Instant) -> (Record, String) {
        let number = draw(&mut self.seed, 60);
        let source: Prefix = match number % 4 {
            0 => format!("2001:db8:0:{number:x}::/64"),
            1 => format!("10.{number}.0.0/16"),
            _ => format!("192.0.2.{number}"),
        }
        .parse()
        .unwrap();
        match draw(&mut self.seed, 8) {
            0..2 => {
                self.bans.remove(&source);
                (Record::Lift { source, at: now }, format!("lift {source}"))
            }
            2..4 => self.offended(now),
            kind => self.banned(source, kind, now),
        }
    }

    fn banned(&mut self, source: Prefix, kind: u64, now: Instant) -> (Record, String) {
        let length = match kind {
            4 => None,
            5 => Some(Duration::from_millis(200 + draw(&mut self.seed, 3000))),
            _ => Some(Duration::from_secs(600 + draw(&mut self.seed, 86_400))),
        };
        let ban = Ban {
            source,
            reason: BanReason::ALL[kind as usize % BanReason::ALL.len()],
            step: 1,
            offences: 1,
            since: now,
            until: length.map(|length| now + length),
            enforced: draw(&mut self.seed, 4) != 0,
            note: (kind == 6).then(|| "desk \"4711\"\n# sha256".into()),
        };
        // The clock of `Instant`, in milliseconds.
        let until = length.map_or_else(
            || "never".into(),
            |length| (monotonic() + length).as_millis().to_string(),
        );
        self.bans.insert(source, ban.clone());
        (Record::Ban(ban), format!("ban {source} {until}"))
    }

    fn offended(&mut self, now: Instant) -> (Record, String) {
        let number = draw(&mut self.seed, 20);
        let source: Prefix = format!("198.51.100.{number}").parse().unwrap();
        let before = self
            .standings
            .get(&source)
            .map_or(0, |standing| standing.offences);
        let standing = Standing {
            source,
            offences: before + 1,
            last: Some(now),
            would_be: 0,
            would_be_last: None,
        };
        self.standings.insert(source, standing);
        (
            Record::Standing(standing),
            format!("standing {source} {}", before + 1),
        )
    }

    /// Evidence below every threshold: appended, and not waited for.
    fn touched(&mut self) {
        let now = Instant::now();
        let source: Prefix = format!("203.0.113.{}", draw(&mut self.seed, 20)).parse().unwrap();
        let port = 1 + draw(&mut self.seed, 30) as u16;
        let touch = Touch {
            what: Asked::Port(Proto::Tcp, port),
            stealth: 0,
            at: now,
        };
        let memory = self.sources.entry(source).or_insert_with(|| Memory {
            source,
            first_seen: now,
            last_seen: now,
            completed: None,
            touches: Vec::new(),
        });
        memory.last_seen = now;
        memory.touches.retain(|known| known.what != touch.what);
        memory.touches.push(touch);
        say(&format!("try touch {source} {port}"));
        let record = Record::Touch { source, touch };
        self.journal.append(&[record], &clock::moment(), now).unwrap();
        say(&format!("soft touch {source} {port}"));
    }

    fn synced(&mut self) {
        self.journal.sync().unwrap();
        self.mark();
    }

    /// How much of the journal the disk has for certain.
    fn mark(&self) {
        say(&format!(
            "mark {} {}",
            self.journal.generation(),
            self.journal.bytes()
        ));
    }

    fn rotate(&mut self) {
        // What was appended to the old journal is as safe as before once the snapshot is: until then it is not forgotten.
        let generation = self.journal.generation() + 1;
        self.journal = Journal::begin(&self.place, generation, &clock::moment(), Instant::now()).unwrap();
        say("turned");
        self.snapshot();
    }

    fn snapshot(&mut self) {
        let generation = self.journal.generation();
        let mut snapshot =
            Snapshot::begin(&self.place, &clock::moment(), Instant::now(), 7, generation).unwrap();
        for memory in self.sources.clone().values() {
            snapshot.source(memory).unwrap();
        }
        self.meanwhile();
        for standing in self.standings.clone().values() {
            snapshot.standing(standing).unwrap();
        }
        self.meanwhile();
        for (nth, ban) in self.bans.clone().values().enumerate() {
            // As the ledger has it at that moment, not as it was when the snapshot began.
            if let Some(ban) = self.bans.get(&ban.source) {
                snapshot.ban(ban).unwrap();
            }
            if nth % 16 == 15 {
                self.meanwhile();
            }
        }
        snapshot.commit().unwrap();
        say("committed");
        let kept = self.newest.replace(generation).unwrap_or(generation);
        state::forget_journals_before(&self.place, kept).unwrap();
    }

    /// Life goes on while a snapshot is written.
    fn meanwhile(&mut self) {
        match draw(&mut self.seed, 3) {
            0 => self.decided(),
            1 => self.touched(),
            _ => {}
        }
    }
}
