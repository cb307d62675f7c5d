//! The whole engine, killed in the middle of its work, its table taken away, and started again.

use std::time::Duration;

use crate::common::engine::{Engine, Home};
use crate::common::lab::{HOST, Lab};
use crate::common::wire::Gun;
use crate::common::{count, ms, secs, within};
use crate::points::{CALLS, Injection, draw, seed_of};
use crate::promises::{Fate, Promises, monotonic};
use crate::subject::{CONFIG, Subject, files, quick, verify, wipe};

/// One state directory, the engines that follow each other on it, and what they promised.
struct Story {
    lab: Lab,
    home: Option<Home>,
    promises: Promises,
    /// Who was banned for a scan, which a NOTICE line told.
    scanners: Vec<String>,
    rounds: usize,
    kills: usize,
}

impl Story {
    fn new() -> Story {
        Story {
            lab: Lab::new(),
            home: Some(Home::below(&quick(), CONFIG)),
            promises: Promises::default(),
            scanners: Vec::new(),
            rounds: 0,
            kills: 0,
        }
    }

    fn home(&self) -> &Home {
        self.home
            .as_ref()
            .expect("it is lent to an engine only within a round")
    }

    /// An engine under `injection` that is killed after `patience` at the latest, some words with it, and what the next one
    /// knows of them. Says whether the injection killed it.
    fn round(&mut self, injection: Option<&Injection>, patience: Duration) -> bool {
        let mut command = self.home().command();
        if let Some(injection) = injection {
            command = injection.around(&command);
        }
        let mut subject = Subject::start(&self.lab.host, self.home(), &mut command);
        let mut end = monotonic() + patience;
        let mut seed = seed_of(self.rounds);
        // Now and then it is killed while it starts.
        if (injection.is_some() || draw(&mut seed, 4) != 0) && subject.ready() {
            end = monotonic() + patience;
            let mut words = 0;
            while subject.alive() && monotonic() < end && words < WORDS {
                self.word(&mut subject, &mut seed);
                words += 1;
            }
        }
        if injection.is_none() {
            // At any moment, also between two words.
            std::thread::sleep(end.saturating_sub(monotonic()).min(ms(20)));
        }
        let killed = !subject.alive();
        subject.kill();
        wipe(&self.lab.host);
        self.rounds += 1;
        self.kills += usize::from(killed || injection.is_none());
        let what = format!("round {}, {injection:?}", self.rounds - 1);
        let home = self.home.take().expect("just used");
        let engine = Engine::start_in(&self.lab.host, home, &[]);
        verify(&engine, &self.lab.host, &self.promises, &what);
        self.home = Some(engine.kill9());
        wipe(&self.lab.host);
        killed
    }

    /// Something asked of the engine, and its answer written down.
    fn word(&mut self, subject: &mut Subject, seed: &mut u64) {
        let number = draw(seed, 200);
        match draw(seed, 10) {
            0..4 => self.ban(&format!("198.51.100.{number}"), seed),
            4 => self.ban(&format!("2001:db8:7:{number:x}::/64"), seed),
            5 => self.ban(&format!("203.0.{number}.0/24"), seed),
            6..8 => self.unban(seed),
            8 => self.scan(subject),
            _ => drop(self.home().ctl(&["snapshot"])),
        }
    }

    fn ban(&mut self, target: &str, seed: &mut u64) {
        let length = secs(600 + draw(seed, 3000));
        let from = monotonic() + length;
        let answer = self
            .home()
            .ctl(&["ban", target, "--for", &format!("{}s", length.as_secs())]);
        self.keep(target, Fate::Until(from, monotonic() + length), answer.code());
    }

    /// Of what is banned, or of what is not.
    fn unban(&mut self, seed: &mut u64) {
        let target = format!("198.51.100.{}", draw(seed, 200));
        let answer = self.home().ctl(&["unban", &target]);
        if answer.code() == 0 || !answer.text().contains("not banned") {
            self.keep(&target, Fate::Free, answer.code());
        }
    }

    fn keep(&mut self, target: &str, fate: Fate, code: i32) {
        match code {
            0 => self.promises.must(target, fate),
            _ => self.promises.may(target, fate),
        }
    }

    /// Somebody new comes and scans: acknowledged by the line that tells of the ban.
    fn scan(&mut self, subject: &mut Subject) {
        let nth = self.rounds * WORDS + self.scanners.len();
        let source = format!("10.88.{}.{}", nth % 250, 1 + nth / 250 % 250);
        let from = monotonic() + FIRST_STEP;
        Gun::new(&self.lab.attacker, &source, HOST).syns(5001..=5012);
        let line = format!("NOTICE [port_scanning] Ban {source}\n");
        let mut told = false;
        within(secs(10), || {
            told = self.home().log().contains(&line);
            told || !subject.alive()
        });
        let fate = Fate::Until(from, monotonic() + FIRST_STEP);
        // What it said with its last breath counts.
        told = told || self.home().log().contains(&line);
        self.keep(&source, fate, i32::from(!told));
        if told {
            self.scanners.push(source);
        }
    }

    /// Who was banned once takes the second step, however often everybody was killed since.
    fn second_offences(&mut self) {
        let home = self.home.take().expect("no engine runs");
        let engine = Engine::start_in(&self.lab.host, home, &[]);
        self.scanners.dedup();
        assert!(!self.scanners.is_empty(), "no scan was banned in any round");
        for source in self.scanners.iter().rev().take(20) {
            engine.must(&["unban", source]);
            assert!(engine.wait_free(source, secs(10)));
            Gun::new(&self.lab.attacker, source, HOST).syns(6001..=6012);
            let ban = engine.wait_ban(source);
            assert_eq!((&ban["step"], &ban["offences"]), (&2.into(), &2.into()), "{ban}");
        }
        self.home = Some(engine.stop());
    }

    fn told(&self, what: &str) {
        println!(
            "{what}: {} engines killed in {} rounds, {} targets promised, {} scanners take their second step",
            self.kills,
            self.rounds,
            self.promises.len(),
            self.scanners.len().min(20)
        );
    }
}

#[test]
fn an_engine_killed_at_any_call_that_touches_its_state_loses_nothing_it_acknowledged() {
    let mut story = Story::new();
    for call in CALLS {
        let mut nth = 1;
        loop {
            let paths = files(story.home().state(), 40);
            if !story.round(Some(&Injection::kill(call, nth, &paths)), secs(20)) {
                break;
            }
            // Each in a soak; here ever fewer, since the first ones are those of a start.
            nth += count(1 + nth / 2, 1);
        }
    }
    story.second_offences();
    story.told("killed at calls");
    assert!(story.kills >= count(8, 100), "{} kills", story.kills);
}

#[test]
fn an_engine_killed_at_random_moments_loses_nothing_it_acknowledged() {
    let mut story = Story::new();
    for round in 0..count(12, 400) {
        let mut seed = seed_of(round + 100_000);
        story.round(None, ms(draw(&mut seed, 600)));
    }
    story.second_offences();
    story.told("killed at random");
}

/// Words with one engine.
const WORDS: usize = 14;
const FIRST_STEP: Duration = Duration::from_secs(20 * 60);
