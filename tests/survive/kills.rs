//! The state room alone, killed ten thousand times: at every call by which it writes, and at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use verdictd::core::verdict::Asked;
use verdictd::engine::clock;
use verdictd::state::{self, Place};

use crate::common::count;
use crate::points::{CALLS, Injection, draw, seed_of};
use crate::promises::{Fate, Found, Margin, Promises, monotonic};
use crate::subject::{files, quick};
use crate::writer::writer;

/// What a writer said, and what must therefore be found.
#[derive(Default)]
pub(crate) struct World {
    bans: Promises,
    standings: BTreeMap<String, BTreeSet<u32>>,
    /// Whether it is on the disk for certain; or was only handed to the kernel; or was only tried.
    touches: BTreeMap<(String, u16), Sure>,
    /// Of the last journal that was spoken of: its generation, and what of it is on the disk.
    mark: Option<(u64, u64)>,
    /// Committed snapshots.
    snapshots: usize,
    troubles: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    Perhaps,
    /// As below, in a journal that no sync reaches any more.
    UntilTheSnapshot,
    UnlessPowerFails,
    Certainly,
}

impl World {
    /// A line of a writer.
    pub(crate) fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [">", "try", ref what @ ..] => self.settle(what, false),
            [">", "done", ref what @ ..] => self.settle(what, true),
            [">", "soft", "touch", source, port] => {
                self.touch(source, port, Sure::UnlessPowerFails);
            }
            [">", "turned"] => self.turned(),
            [">", "committed"] => self.committed(),
            [">", "mark", generation, bytes] => {
                self.certain();
                self.mark = Some((generation.parse().unwrap(), bytes.parse().unwrap()));
            }
            [">", "trouble", ..] => self.troubles += line,
            _ => {}
        }
    }

    fn settle(&mut self, what: &[&str], done: bool) {
        let keep = |bans: &mut Promises, target: &str, fate| match done {
            true => bans.must(target, fate),
            false => bans.may(target, fate),
        };
        match *what {
            ["ban", target, "never"] => keep(&mut self.bans, target, Fate::Forever),
            ["ban", target, until] => {
                let until = Duration::from_millis(until.parse().unwrap());
                keep(&mut self.bans, target, Fate::Until(until, until));
            }
            ["lift", target] => keep(&mut self.bans, target, Fate::Free),
            ["standing", source, offences] => {
                let known = self.standings.entry(source.into()).or_insert_with(|| [0].into());
                if done {
                    known.clear();
                }
                known.insert(offences.parse().unwrap());
            }
            ["touch", source, port] => self.touch(source, port, Sure::Perhaps),
            _ => panic!("{what:?}"),
        }
    }

    fn touch(&mut self, source: &str, port: &str, sure: Sure) {
        let touch = (source.into(), port.parse().unwrap());
        let known = self.touches.entry(touch).or_insert(sure);
        *known = sure.max(*known);
    }

    /// What was handed to the kernel for this journal is on the disk now.
    fn certain(&mut self) {
        self.promote(Sure::UnlessPowerFails);
    }

    /// Another journal was begun. What was handed over for the one before is not synced with it.
    fn turned(&mut self) {
        let handed = self
            .touches
            .values_mut()
            .filter(|sure| **sure == Sure::UnlessPowerFails);
        handed.for_each(|sure| *sure = Sure::UntilTheSnapshot);
    }

    /// The snapshot holds what was handed over before it.
    fn committed(&mut self) {
        self.snapshots += 1;
        self.promote(Sure::UntilTheSnapshot);
    }

    fn promote(&mut self, from: Sure) {
        let known = self.touches.values_mut().filter(|sure| **sure == from);
        known.for_each(|sure| *sure = Sure::Certainly);
    }

    /// Loads what is in `folder` and compares; empty if all is well. `power`: whether what was not synced may be gone.
    pub(crate) fn broken(&self, folder: &Path, power: bool) -> String {
        let loaded = state::load(&Place::new(folder, None), 1000);
        let mut said = self.troubles.clone() + &loaded.troubles.join("\n");
        let (now, from) = (Instant::now(), monotonic());
        let awake = loaded
            .state
            .map(|state| state::wake(state, &clock::moment(), now));
        let awake = awake.unwrap_or_default();
        let bans = awake
            .bans
            .iter()
            .filter(|ban| ban.until.is_none_or(|until| until > now));
        let bans: Found = bans
            .map(|ban| (ban.source.to_string(), ban.remaining(now)))
            .collect();
        said += &self.bans.broken(&bans, from, monotonic(), CLOSE);
        let standings = awake.standings.iter();
        let standings: BTreeMap<_, _> = standings.map(|it| (it.source.to_string(), it.offences)).collect();
        for (source, offences) in &self.standings {
            let found = standings.get(source).copied().unwrap_or(0);
            if !offences.contains(&found) {
                said += &format!("{source}: {found} offences, and it may have {offences:?}\n");
            }
        }
        let mut touches = BTreeSet::new();
        for memory in &awake.sources {
            for touch in &memory.touches {
                if let Asked::Port(_, port) = touch.what {
                    touches.insert((memory.source.to_string(), port));
                }
            }
        }
        let least = if power {
            Sure::Certainly
        } else {
            Sure::UntilTheSnapshot
        };
        for (touch, _) in self.touches.iter().filter(|(_, sure)| **sure >= least) {
            if !touches.contains(touch) {
                said += &format!("{touch:?} is forgotten\n");
            }
        }
        for touch in touches.iter().filter(|touch| !self.touches.contains_key(*touch)) {
            said += &format!("{touch:?} was never there\n");
        }
        said
    }

    /// What was not on the disk for certain is not promised any more.
    pub(crate) fn lost_power(&mut self) {
        let soft = self.touches.values_mut().filter(|sure| **sure < Sure::Certainly);
        soft.for_each(|sure| *sure = Sure::Perhaps);
    }

    /// Of its words those that are promises.
    pub(crate) fn promised(&self) -> usize {
        self.bans.len() + self.standings.len() + self.touches.len()
    }

    pub(crate) fn snapshots(&self) -> usize {
        self.snapshots
    }
}

/// A writer whose words are listened to; killed when dropped.
pub(crate) struct Listened {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listened {
    pub(crate) fn start(command: &mut Command) -> Listened {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace and this program start");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Listened { child, lines }
    }

    /// Hears it to its end, or kills it `after` so many lines and a moment; whether it did all that it wanted to do.
    pub(crate) fn hear(mut self, world: &mut World, after: Option<(u64, Duration)>) -> bool {
        let mut ended = false;
        let mut heard = 0;
        while let Some(Ok(line)) = self.lines.next() {
            world.hear(&line);
            ended |= line == "> end";
            heard += u64::from(line.starts_with("> "));
            if let Some((_, moment)) = after.filter(|(lines, _)| heard == *lines) {
                std::thread::sleep(moment);
                let _ = self.child.kill();
            }
        }
        let status = self.child.wait().unwrap();
        // It is killed or it ends well: it has no errors of its own.
        assert!(ended || status.code().is_none(), "the writer ended with {status}");
        ended
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that outlives its writers.
struct Ground {
    folder: tempfile::TempDir,
    world: World,
    rounds: usize,
    kills: usize,
    torn: usize,
    begun: Instant,
}

impl Ground {
    fn new() -> Ground {
        Ground {
            folder: tempfile::tempdir_in(quick()).unwrap(),
            world: World::default(),
            rounds: 0,
            kills: 0,
            torn: 0,
            begun: Instant::now(),
        }
    }

    /// One writer under an injection; whether it was killed.
    fn inject(&mut self, call: &str, nth: usize) -> bool {
        let paths = files(self.folder.path().into(), 8);
        let command = writer(self.folder.path(), self.rounds % DIFFERENT, FEW);
        let command = Injection::kill(call, nth, &paths).around(&command);
        self.run(command, None, &format!("{call} {nth}"))
    }

    fn run(&mut self, mut command: Command, after: Option<(u64, Duration)>, what: &str) -> bool {
        self.clear();
        let ended = Listened::start(&mut command).hear(&mut self.world, after);
        self.kills += usize::from(!ended);
        self.check(what, false);
        self.rounds += 1;
        !ended
    }

    /// Writers that are killed before they forget leave journals, and the next one forgets them all: not to chase the last
    /// of ever more calls, one is left alone now and then.
    fn clear(&mut self) {
        let names = fs::read_dir(self.folder.path()).unwrap();
        if names.count() > 12 {
            let mut command = writer(self.folder.path(), self.rounds + 7, 1);
            assert!(Listened::start(&mut command).hear(&mut self.world, None));
        }
    }

    fn check(&self, what: &str, power: bool) {
        let broken = self.world.broken(self.folder.path(), power);
        let names = || {
            let names = fs::read_dir(self.folder.path()).unwrap().flatten();
            names.map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        assert!(
            broken.is_empty(),
            "round {}, {what}: {:?}\n{broken}",
            self.rounds,
            names()
        );
    }

    /// The end of the journal as a power cut may leave it: of what was not synced some, and zeros or garbage after it.
    fn tear(&mut self, seed: &mut u64) {
        let Some((generation, certain)) = self.world.mark else {
            return;
        };
        let path = self
            .folder
            .path()
            .join(format!("state.toml.journal-{generation}"));
        let Ok(file) = File::options().append(true).open(&path) else {
            return; // no writer came that far since
        };
        let all = file.metadata().unwrap().len();
        file.set_len(certain + draw(seed, all.saturating_sub(certain) + 1))
            .unwrap();
        let byte = |seed: &mut u64| draw(seed, 256) as u8;
        let more = draw(seed, 60);
        let tail: Vec<u8> = match draw(seed, 3) {
            0 => vec![0; more as usize * 80],
            1 => (0..more).map(|_| byte(seed)).collect(),
            _ => Vec::new(),
        };
        (&file).write_all(&tail).unwrap();
        self.world.lost_power();
        self.torn += 1;
        self.check("torn", true);
    }

    fn told(&self, what: &str) {
        println!(
            "{what}: {} of {} writers killed, {} journals torn, {} snapshots, {} promises kept, {:.1} s",
            self.kills,
            self.rounds,
            self.torn,
            self.world.snapshots,
            self.world.promised(),
            self.begun.elapsed().as_secs_f64()
        );
    }
}

/// Every point once for each seed. What a writer does differs from seed to seed, and so does the number of its calls.
fn at_every_call(share: usize) {
    let mut ground = Ground::new();
    // Two tests share them, so that they run side by side.
    let mine = CALLS.iter().skip(share).step_by(2);
    let mut never: Vec<&str> = Vec::new();
    for round in 0..count(1, 12) {
        for call in mine.clone() {
            if never.contains(call) {
                continue;
            }
            let mut nth = 1;
            while ground.inject(call, nth) {
                nth += 1;
            }
            if nth == 1 && round == 0 {
                never.push(call);
            }
        }
    }
    ground.told(&format!("kill -9 at calls, except {never:?}, which are not made"));
    assert!(ground.kills > count(30, 350), "{} kills", ground.kills);
}

#[test]
fn killed_at_every_call_that_writes_nothing_is_lost_and_nothing_made_longer_first_half() {
    at_every_call(0);
}

#[test]
fn killed_at_every_call_that_writes_nothing_is_lost_and_nothing_made_longer_second_half() {
    at_every_call(1);
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_a_torn_tail_is_normal() {
    let mut ground = Ground::new();
    for round in 0..count(500, 7000) {
        let mut seed = seed_of(round);
        let after = (
            1 + draw(&mut seed, 150),
            Duration::from_micros(draw(&mut seed, 1500)),
        );
        let command = writer(ground.folder.path(), round, MANY);
        ground.run(command, Some(after), "a random kill");
        if draw(&mut seed, 2) == 0 {
            ground.tear(&mut seed);
        }
    }
    ground.told("kill -9 at random");
    assert!(ground.torn > ground.rounds / 4, "{}", ground.torn);
}

/// What one writer has to say: for all its calls to be gone through; and so much that it does not come to an end.
const FEW: usize = 30;
const MANY: usize = 100_000;
/// Two writers under the same call differ, or they would do the same to the same targets.
const DIFFERENT: usize = 1 << 20;
/// How far the end of a ban may be off: a record's time and the moment it was told are read one after the other.
const CLOSE: Margin = Margin {
    over: Duration::from_secs(1),
    under: Duration::from_secs(1),
};
