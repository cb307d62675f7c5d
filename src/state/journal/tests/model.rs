//! Whatever happens, told to a journal and to a model that is as simple as can be: what is folded is what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::super::{SavedBan, SavedSource, SavedStanding, State};
use super::super::*;
use super::{Clocks, GENERATION, Paper, WHAT, ban, count, fold, fold_all, ms, prefix};
use crate::core::attack::Baseline;
use crate::core::verdict::{Asked, BanReason, Proto};

/// One thing that happens to the model and to the journal.
#[derive(Clone, Debug)]
enum Step {
    Ban(usize, Option<u64>, bool),
    Lift(usize),
    Standing(usize, Option<u32>, Option<u32>),
    Touch(usize, usize, u16, u64),
    Completed(usize, u16),
    Reset,
    Wait(u64),
    Sleep(u64),
    Clock(i64),
}

const WHO: [&str; 7] = [
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.7",
    "192.0.2.0/24",
    "2001:db8::/64",
    "2001:db8::/48",
    "2001:db8:0:1::/64",
];
const YEAR: i64 = 365 * 86_400;

fn step() -> impl Strategy<Value = Step> {
    let who = 0..WHO.len();
    prop_oneof![
        4 => (who.clone(), prop::option::of(1..100_000_000u64), any::<bool>()).prop_map(|(who, left, enforced)| Step::Ban(who, left, enforced)),
        2 => who.clone().prop_map(Step::Lift),
        2 => (who.clone(), prop::option::of(any::<u32>()), prop::option::of(any::<u32>()))
            .prop_map(|(who, real, would_be)| Step::Standing(who, real, would_be)),
        6 => (who.clone(), 0..WHAT.len(), 0..9u16, 0..3000u64).prop_map(|(who, what, stealth, late)| Step::Touch(who, what, stealth, late)),
        3 => (who, prop_oneof![Just(22), Just(80), Just(443)]).prop_map(|(who, port)| Step::Completed(who, port)),
        1 => Just(Step::Reset),
        8 => (0..5000u64).prop_map(Step::Wait),
        1 => (1000..100_000u64).prop_map(Step::Sleep),
        2 => prop_oneof![Just(YEAR), Just(-YEAR), Just(-(56 * YEAR)), Just(12 * YEAR), -1000..1000i64].prop_map(Step::Clock),
    ]
}

/// What is remembered, in the times of a clock that never lies (the boot's), as simply as can be.
#[derive(Default)]
struct Model {
    bans: BTreeMap<Prefix, (Duration, Option<Duration>, bool)>,
    ladder: BTreeMap<Prefix, (Option<u32>, Option<u32>, Duration)>,
    ended: Vec<(Prefix, Duration)>,
    touches: Vec<(Prefix, Asked, u16, Duration)>,
    completed: Vec<(Prefix, u16, Duration)>,
}

impl Model {
    fn windows(&self, now: Duration) -> Vec<SavedSource> {
        let ago = |at: Duration| now.saturating_sub(at);
        let mut windows: BTreeMap<Prefix, SavedSource> = BTreeMap::new();
        let seen = self.touches.iter().map(|touch| (touch.0, touch.3));
        for (source, at) in seen.chain(self.completed.iter().map(|done| (done.0, done.2))) {
            let saved = windows.entry(source).or_insert_with(|| SavedSource {
                source,
                age: ago(at),
                idle: ago(at),
                completed: None,
                touches: Vec::new(),
            });
            (saved.age, saved.idle) = (saved.age.max(ago(at)), saved.idle.min(ago(at)));
        }
        for (source, port, _) in &self.completed {
            let known = windows.get_mut(source).unwrap().completed.get_or_insert_default();
            known.retain(|other| other != port);
            known.push(*port);
        }
        for (source, what, stealth, at) in &self.touches {
            let newer = |other: &&(Prefix, Asked, u16, Duration)| {
                other.0 == *source && other.1 == *what && other.3 >= *at
            };
            // The last of the newest.
            let newest = self.touches.iter().filter(newer).max_by_key(|other| other.3);
            let is_newest = newest == Some(&(*source, *what, *stealth, *at));
            let consumed = self
                .ended
                .iter()
                .any(|(who, until)| who.covers(source) && *at <= *until);
            let served = self.completed.iter().any(|(who, port, done)| {
                who == source && *what == Asked::Port(Proto::Tcp, *port) && at <= done
            });
            let entries = &mut windows.get_mut(source).unwrap().touches;
            if is_newest && !consumed && !served && !entries.contains(&(*what, *stealth, ago(*at))) {
                entries.push((*what, *stealth, ago(*at)));
            }
        }
        let mut windows: Vec<SavedSource> = windows.into_values().collect();
        windows.retain(|saved| saved.completed.is_some() || !saved.touches.is_empty());
        for saved in &mut windows {
            saved
                .touches
                .sort_by_key(|(what, _, age)| (std::cmp::Reverse(*age), *what));
        }
        windows
    }

    fn bans(&self, now: Duration) -> Vec<SavedBan> {
        let bans = self.bans.iter();
        bans.map(|(source, (since, until, enforced))| SavedBan {
            source: *source,
            reason: BanReason::PortScanning,
            step: 2,
            offences: 3,
            age: now.saturating_sub(*since),
            remaining: until.map(|until| until.saturating_sub(now.max(*since))),
            enforced: *enforced,
            note: None,
        })
        .collect()
    }

    fn ladder(&self, now: Duration) -> Vec<SavedStanding> {
        let ladder = self.ladder.iter();
        let standings = ladder.map(|(source, (real, would_be, at))| SavedStanding {
            source: *source,
            real: real.map(|count| (count, now.saturating_sub(*at))),
            would_be: would_be.map(|count| (count, now.saturating_sub(*at))),
        });
        standings
            .filter(|standing| standing.real.is_some() || standing.would_be.is_some())
            .collect()
    }
}

/// Has it happen to both.
fn play(steps: &[Step], clocks: &mut Clocks, paper: &mut Paper, model: &mut Model) {
    for step in steps {
        let (now, up) = (clocks.now(), clocks.up);
        let record = match *step {
            Step::Ban(who, left, enforced) => {
                let source = prefix(WHO[who]);
                model
                    .bans
                    .insert(source, (up, left.map(|left| up + ms(left)), enforced));
                model.ended.push((source, up));
                Record::Ban(Ban {
                    enforced,
                    ..ban(WHO[who], clocks, left.map(ms))
                })
            }
            Step::Lift(who) => {
                let source = prefix(WHO[who]);
                model.bans.remove(&source);
                model.ended.push((source, up));
                Record::Lift { source, at: now }
            }
            Step::Standing(who, real, would_be) => {
                let source = prefix(WHO[who]);
                model.ladder.insert(source, (real, would_be, up));
                Record::Standing(Standing {
                    source,
                    offences: real.unwrap_or(0),
                    last: real.map(|_| now),
                    would_be: would_be.unwrap_or(0),
                    would_be_last: would_be.map(|_| now),
                })
            }
            Step::Touch(who, what, stealth, late) => {
                // A boot that has just begun has nothing to be late with.
                let (source, what, late) = (prefix(WHO[who]), WHAT[what], ms(late).min(up));
                model.touches.push((source, what, stealth, up - late));
                let at = now - late;
                Record::Touch {
                    source,
                    touch: Touch { what, stealth, at },
                }
            }
            Step::Completed(who, port) => {
                let source = prefix(WHO[who]);
                model.completed.push((source, port, up));
                Record::Completed {
                    source,
                    port,
                    at: now,
                }
            }
            Step::Reset => {
                *model = Model::default();
                Record::Reset
            }
            Step::Wait(time) => {
                clocks.wait(ms(time));
                continue;
            }
            Step::Sleep(time) => {
                clocks.sleep(ms(time));
                continue;
            }
            Step::Clock(seconds) => {
                clocks.wall += time::Duration::seconds(seconds);
                continue;
            }
        };
        paper.add(&record, clocks);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: count(400, 20_000) as u32,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_folded_is_what_happened(steps in prop::collection::vec(step(), 0..60)) {
        let (mut clocks, mut model) = (Clocks::new(), Model::default());
        let mut paper = Paper::new(&clocks);
        play(&steps, &mut clocks, &mut paper, &mut model);
        let (state, told) = fold(&paper.bytes, None);
        prop_assert_eq!((told.torn, told.holes), (0, 0));
        // As of the last clocks in the file, less than a second ago unless nothing was written since.
        let at = state.saved.boot.as_ref().unwrap().up;
        prop_assert_eq!(&state.bans, &model.bans(at));
        prop_assert_eq!(&state.ladder, &model.ladder(at));
        prop_assert_eq!(&state.sources, &model.windows(at));
        // Twice the same is the same, and a start goes on from there whatever the wall clock says.
        let (again, _) = fold_all(&[&paper.bytes, &paper.bytes], None, 1000);
        prop_assert_eq!(&again, &state);
        prop_assert_eq!(clocks.moment().since(&state.saved), clocks.up - at);
    }

    #[test]
    fn onto_a_snapshot_and_in_two_files_it_is_the_same(
        before in prop::collection::vec(step(), 0..40), meanwhile in prop::collection::vec(step(), 0..20),
        after in prop::collection::vec(step(), 0..40),
    ) {
        // A journal, a second one, and a snapshot somewhere in it: what the snapshot has of it already changes nothing.
        let (mut clocks, mut model) = (Clocks::new(), Model::default());
        let mut first = Paper::new(&clocks);
        play(&before, &mut clocks, &mut first, &mut model);
        clocks.wait(ms(3001)); // no touch is told so late that its ban is in the file before
        let mut second = Paper::new(&clocks);
        play(&meanwhile, &mut clocks, &mut second, &mut model);
        clocks.wait(ms(1));
        let snapshot = State {
            saved: clocks.moment(),
            generation: Some(GENERATION),
            seed: Some(1),
            sources: model.windows(clocks.up),
            ladder: model.ladder(clocks.up),
            usual: Baseline::default(),
            bans: model.bans(clocks.up),
            skipped: 0,
        };
        clocks.wait(ms(1));
        play(&after, &mut clocks, &mut second, &mut model);
        let last = [Step::Wait(1500), Step::Standing(0, None, None)];
        play(&last, &mut clocks, &mut second, &mut model);
        let (mut state, _) = fold(&second.bytes, Some(snapshot));
        state.bans.sort_by_key(|ban| ban.source);
        state.ladder.sort_by_key(|standing| standing.source);
        state.sources.sort_by_key(|source| source.source);
        let without = fold_all(&[&first.bytes, &second.bytes], None, 1000).0;
        let at = clocks.up;
        for (state, name) in [(state, "snapshot and journal"), (without, "two journals")] {
            prop_assert_eq!(state.saved, clocks.moment(), "{}", name);
            prop_assert_eq!(state.bans, model.bans(at), "{}", name);
            prop_assert_eq!(state.ladder, model.ladder(at), "{}", name);
            let windows = model.windows(at);
            prop_assert_eq!(state.sources.len(), windows.len(), "{}", name);
            for (found, wanted) in state.sources.iter().zip(&windows) {
                // How long it is known, and the order of its ports, may be of before the snapshot.
                prop_assert_eq!((&found.source, &found.touches), (&wanted.source, &wanted.touches), "{}", name);
            }
        }
    }

    #[test]
    fn across_boots_nothing_lasts_longer_than_granted(
        steps in prop::collection::vec(step(), 1..40), more in prop::collection::vec(step(), 0..20),
        down in 0..10_000_000u64, stepped in prop_oneof![Just(0), Just(YEAR), Just(-YEAR), Just(-56 * YEAR), Just(12 * YEAR)],
    ) {
        let (mut clocks, mut model) = (Clocks::new(), Model::default());
        let mut first = Paper::new(&clocks);
        play(&steps, &mut clocks, &mut first, &mut model);
        let mut granted = model.bans(fold(&first.bytes, None).0.saved.boot.unwrap().up);
        // The power is gone; another boot goes on, with a clock that may be wrong.
        let stopped = clocks.up;
        clocks.wait(ms(down));
        clocks.wall += time::Duration::seconds(stepped);
        (clocks.boot, clocks.up) = ("b", ms(down).min(ms(20_000)));
        let booted = clocks.up;
        let mut second = Paper::new(&clocks);
        let mut news = Model::default();
        play(&more, &mut clocks, &mut second, &mut news);
        let was_reset = more.iter().any(|step| matches!(step, Step::Reset));
        let lifted = |who: &Prefix| more.iter().any(|step| matches!(step, Step::Lift(nth) if prefix(WHO[*nth]) == *who));
        granted.retain(|ban| !was_reset && !news.bans.contains_key(&ban.source) && !lifted(&ban.source));
        let state = fold_all(&[&first.bytes, &second.bytes], None, 1000).0;
        let moment = clocks.moment();
        let since = moment.since(&state.saved);
        prop_assert_eq!(state.bans.len(), granted.len() + news.bans.len());
        for ban in state.bans {
            let left = ban.remaining.map(|left| left.saturating_sub(since));
            let wanted = match news.bans.get(&ban.source) {
                Some((_, until, _)) => until.map(|until| until.saturating_sub(clocks.up)),
                None => granted.iter().find(|old| old.source == ban.source).unwrap().remaining
                    .map(|left| left.saturating_sub(clocks.up - booted)),
            };
            prop_assert!(left <= wanted, "{:?} of {:?}: {:?}, stopped at {:?}", left, wanted, ban, stopped);
            prop_assert_eq!(left.is_none(), wanted.is_none());
        }
    }
}
