//! What journals tell, made one with what the snapshot holds.
//!
//! The records are gathered first, the last word on each ban, ladder position and window, and go over the state in one
//! pass at the end: its length costs what going through it once costs. Bans and ladder positions go by the order of
//! the records, windows by their times, since workers and analyst write side by side.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::decode::LONGEST_REMAINDER;
use super::journal::record::{BanEntry, Entry, Millis};
use super::timeline::{CLOCK_LAG, Timeline};
use super::window::{Seen, ago, before};
use super::{MOST_BANS, MOST_STANDINGS, Moment, SavedBan, SavedSource, SavedStanding, State};
use crate::core::attack::Baseline;
use crate::core::prefix::Prefix;

/// What was gathered so far. All times are the timeline's.
pub(super) struct Fold {
    timeline: Timeline,
    most_sources: usize,
    fates: HashMap<Prefix, Fate>,
    ladder: HashMap<Prefix, Position>,
    sources: HashMap<Prefix, Seen>,
    /// When everything before was forgotten.
    reset: Option<Millis>,
    /// Records for which there was no room.
    pub(super) skipped: u64,
}

/// What became of a target.
struct Fate {
    /// Live, by the last record about it.
    ban: Option<BanEntry>,
    /// What was asked for until then was answered by a ban.
    consumed: Millis,
    /// When the last record about it was written, or a little later.
    told: Millis,
}

/// Where a source stands, and when.
struct Position {
    real: Option<(u32, Millis)>,
    would_be: Option<(u32, Millis)>,
}

impl Fold {
    /// Onto a state of that moment, or onto none.
    pub(super) fn onto(saved: Option<&Moment>, most_sources: usize) -> Fold {
        Fold {
            timeline: Timeline::from(saved),
            most_sources,
            fates: HashMap::new(),
            ladder: HashMap::new(),
            sources: HashMap::new(),
            reset: None,
            skipped: 0,
        }
    }

    /// The next file begins; at which moment, if that can be read.
    pub(super) fn begin(&mut self, moment: Option<&Moment>) {
        self.timeline.begin(moment);
    }

    /// Takes in a record.
    pub(super) fn take(&mut self, entry: Entry) {
        let line = &mut self.timeline;
        match entry {
            Entry::Clock { at, moment } => line.clock(at, &moment),
            Entry::Ban(mut ban) => {
                ban.since = line.past(ban.since);
                ban.until = ban.until.map(|until| line.place(until));
                self.fate(ban.source, ban.since, Some(ban));
            }
            Entry::Lift { source, at } => {
                let at = line.past(at);
                self.fate(source, at, None);
            }
            Entry::Standing {
                source,
                real,
                would_be,
            } => {
                let mut placed =
                    |count: Option<(u32, Millis)>| count.map(|(offences, last)| (offences, line.past(last)));
                let (real, would_be) = (placed(real), placed(would_be));
                let room = self.ladder.len() < MOST_STANDINGS;
                match self.ladder.entry(source) {
                    Slot::Vacant(_) if !room => self.skipped += 1,
                    slot => drop(slot.insert_entry(Position { real, would_be })),
                }
            }
            Entry::Touch {
                source,
                what,
                stealth,
                at,
            } => {
                let at = line.past(at);
                self.seen(source, at).touch(what, stealth, at);
            }
            Entry::Completed { source, port, at } => {
                let at = line.past(at);
                self.seen(source, at).complete(port, at);
            }
            Entry::Reset => {
                self.fates.clear();
                self.ladder.clear();
                self.sources.clear();
                self.reset = Some(self.timeline.now());
            }
        }
    }

    fn fate(&mut self, target: Prefix, consumed: Millis, ban: Option<BanEntry>) {
        let (told, room) = (
            self.timeline.now().saturating_add(CLOCK_LAG),
            self.fates.len() < MOST_FATES,
        );
        match self.fates.entry(target) {
            Slot::Vacant(_) if !room => self.skipped += 1,
            Slot::Vacant(slot) => drop(slot.insert(Fate { ban, consumed, told })),
            Slot::Occupied(mut slot) => {
                let fate = slot.get_mut();
                fate.consumed = fate.consumed.max(consumed);
                (fate.ban, fate.told) = (ban, told);
            }
        }
    }

    fn seen(&mut self, source: Prefix, at: Millis) -> &mut Seen {
        if self.sources.len() >= self.most_sources.saturating_mul(2).max(1) {
            self.forget_oldest();
        }
        let seen = self.sources.entry(source).or_insert_with(|| Seen::new(at));
        (seen.first, seen.last) = (seen.first.min(at), seen.last.max(at));
        seen
    }

    /// Half of those that were not seen for longest: as seldom as there are many.
    fn forget_oldest(&mut self) {
        let mut times: Vec<Millis> = self.sources.values().map(|seen| seen.last).collect();
        let middle = times.len() / 2;
        let (older, median, _) = times.select_nth_unstable(middle);
        let (median, mut surplus) = (*median, older.len());
        self.sources.retain(|_, seen| {
            let goes = seen.last <= median && surplus > 0;
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// The state as of the last moment that is known of. `state` is that of the moment this was begun with.
    pub(super) fn finish(mut self, state: Option<State>) -> State {
        let (saved, now) = self.timeline.end();
        let mut state = state.unwrap_or_else(|| State::empty(saved.clone()));
        let passed = Duration::from_millis(now.max(0).unsigned_abs());
        state.age(passed);
        state.saved = saved;
        if let Some(reset) = self.reset {
            let survives = |ban: &SavedBan| before(now, ban.age) > reset.saturating_add(CLOCK_LAG);
            state.bans.retain(survives);
            (state.sources, state.ladder) = (Vec::new(), Vec::new());
            state.usual = Baseline::default();
        }
        self.windows(&mut state, now);
        self.positions(&mut state, now);
        self.bans(&mut state, now);
        state
    }

    fn windows(&mut self, state: &mut State, now: Millis) {
        if self.fates.is_empty() && self.sources.is_empty() {
            return;
        }
        let consumed = Consumed::of(&self.fates);
        let mut seen = std::mem::take(&mut self.sources);
        state.sources.retain_mut(|saved| {
            let news = seen.remove(&saved.source);
            let consumed = consumed.of_source(&saved.source);
            if news.is_none() && consumed.is_none() {
                return true;
            }
            let mut whole = Seen::saved(saved, now);
            if let Some(news) = news {
                whole.join(news);
            }
            whole.consume(consumed);
            whole.save(saved, now)
        });
        let mut rest: Vec<(Prefix, Seen)> = seen.into_iter().collect();
        rest.sort_unstable_by_key(|(source, _)| *source);
        for (source, mut seen) in rest {
            let mut saved = SavedSource {
                source,
                age: Duration::ZERO,
                idle: Duration::ZERO,
                completed: None,
                touches: Vec::new(),
            };
            seen.consume(consumed.of_source(&source));
            if seen.save(&mut saved, now) {
                state.sources.push(saved);
            }
        }
        if state.sources.len() > self.most_sources {
            state.sources.sort_by_key(|saved| saved.idle);
            state.sources.truncate(self.most_sources);
        }
    }

    fn positions(&mut self, state: &mut State, now: Millis) {
        state
            .ladder
            .retain(|saved| !self.ladder.contains_key(&saved.source));
        let ago = |count: Option<(u32, Millis)>| count.map(|(offences, last)| (offences, ago(now, last)));
        let mut told: Vec<SavedStanding> = std::mem::take(&mut self.ladder)
            .into_iter()
            .map(|(source, position)| SavedStanding {
                source,
                real: ago(position.real),
                would_be: ago(position.would_be),
            })
            .filter(|standing| standing.real.is_some() || standing.would_be.is_some())
            .collect();
        told.sort_unstable_by_key(|standing| standing.source);
        self.skipped += append(&mut state.ladder, told, MOST_STANDINGS);
    }

    /// What the snapshot holds stands where the journal is silent, or where it began after the journal's last word: the
    /// record of that ban was damaged then.
    fn bans(&mut self, state: &mut State, now: Millis) {
        state
            .bans
            .retain(|saved| match self.fates.get_mut(&saved.source) {
                Some(fate) if before(now, saved.age) > fate.told => {
                    fate.ban = None;
                    true
                }
                Some(_) => false,
                None => true,
            });
        let fates = std::mem::take(&mut self.fates).into_values();
        let mut told: Vec<SavedBan> = fates
            .filter_map(|fate| fate.ban)
            .map(|ban| SavedBan {
                source: ban.source,
                reason: ban.reason,
                step: ban.step,
                offences: ban.offences,
                age: ago(now, ban.since),
                // However far the line reaches: no longer than it was granted for.
                remaining: ban
                    .until
                    .map(|until| ago(until, now.max(ban.since)).min(LONGEST_REMAINDER)),
                enforced: ban.enforced,
                note: ban.note,
            })
            .collect();
        told.sort_unstable_by_key(|ban| ban.source);
        self.skipped += append(&mut state.bans, told, MOST_BANS);
    }
}

/// Until when evidence is consumed, by who was banned: a prefix consumes what everybody in it did.
struct Consumed<'a> {
    fates: &'a HashMap<Prefix, Fate>,
    lengths: BTreeSet<(bool, u8)>,
}

impl Consumed<'_> {
    fn of(fates: &HashMap<Prefix, Fate>) -> Consumed<'_> {
        Consumed {
            fates,
            lengths: fates
                .keys()
                .map(|target| (target.is_ipv4(), target.len()))
                .collect(),
        }
    }

    fn of_source(&self, source: &Prefix) -> Option<Millis> {
        let wider = self
            .lengths
            .range((source.is_ipv4(), 0)..=(source.is_ipv4(), source.len()));
        wider
            .filter_map(|(_, length)| Prefix::new(source.addr(), *length).ok())
            .filter_map(|target| self.fates.get(&target))
            .map(|fate| fate.consumed)
            .max()
    }
}

impl State {
    /// Nothing, as of that moment.
    fn empty(saved: Moment) -> State {
        State {
            saved,
            generation: None,
            seed: None,
            sources: Vec::new(),
            ladder: Vec::new(),
            usual: Baseline::default(),
            bans: Vec::new(),
            skipped: 0,
        }
    }

    /// So much time went by.
    fn age(&mut self, passed: Duration) {
        if passed.is_zero() {
            return;
        }
        let older = |age: &mut Duration| *age = age.saturating_add(passed);
        for source in &mut self.sources {
            older(&mut source.age);
            older(&mut source.idle);
            source.touches.iter_mut().for_each(|touch| older(&mut touch.2));
        }
        for standing in &mut self.ladder {
            let counts = [&mut standing.real, &mut standing.would_be];
            counts.into_iter().flatten().for_each(|(_, age)| older(age));
        }
        for ban in &mut self.bans {
            older(&mut ban.age);
            ban.remaining = ban.remaining.map(|left| left.saturating_sub(passed));
        }
        self.usual.age(passed);
    }
}

/// Adds what there is room for; how many there was none for.
fn append<T>(into: &mut Vec<T>, more: Vec<T>, most: usize) -> u64 {
    let room = most.saturating_sub(into.len());
    let left = more.len().saturating_sub(room);
    into.extend(more.into_iter().take(room));
    left as u64
}

/// The most targets of which a fate is told: as many as there are bans, and as many that ended.
const MOST_FATES: usize = 2 * MOST_BANS;
