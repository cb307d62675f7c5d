//! One line of time through a snapshot and the journals after it, over every step of a clock and every boot between
//! them: milliseconds since the snapshot was saved.
//!
//! Within a file the process's own clock leads, and the boot's clock where the machine slept; from file to file
//! [`Moment::since`] says how much time went by. No step is ever longer than the time that went by.

use super::fold::NEVER;
use super::journal::record::Millis;
use super::{Boot, Moment};

/// Where on the line the clocks are.
pub(super) struct Timeline {
    /// The furthest moment that is known of, and where it is.
    latest: Option<(Moment, Millis)>,
    file: Clock,
}

/// What a time of the file is on the line.
struct Clock {
    at: Millis,
    place: Millis,
    boot: Option<Boot>,
    /// The file does not say when it was begun.
    guessed: bool,
}

impl Timeline {
    /// Begins at that moment, or at the first one that is told.
    pub(super) fn from(saved: Option<&Moment>) -> Timeline {
        Timeline {
            latest: saved.map(|saved| (saved.clone(), 0)),
            file: Clock {
                at: 0,
                place: 0,
                boot: None,
                guessed: true,
            },
        }
    }

    /// The next file begins. If it does not say when, then as soon as can be: nothing then lasts longer than it was to.
    pub(super) fn begin(&mut self, moment: Option<&Moment>) {
        let place = match moment {
            Some(moment) => self.after(moment),
            None => self.latest.as_ref().map_or(0, |(_, place)| *place),
        };
        self.file = Clock {
            at: 0,
            place,
            boot: moment.and_then(|moment| moment.boot.clone()),
            guessed: moment.is_none(),
        };
        if let Some(moment) = moment {
            self.reach(moment);
        }
    }

    /// The clocks say `moment` at that time of the file.
    pub(super) fn clock(&mut self, at: Millis, moment: &Moment) {
        if at < self.file.at {
            return; // not as it was written: what comes after it would end later than it was to
        }
        let by_boot = signed(self.file.boot.as_ref(), moment.boot.as_ref()).filter(|passed| *passed >= 0);
        let place = match self.file.guessed {
            true => self.after(moment),
            false => self
                .file
                .place
                .saturating_add(by_boot.unwrap_or(at - self.file.at)),
        };
        self.file = Clock {
            at,
            place,
            boot: moment.boot.clone(),
            guessed: false,
        };
        self.reach(moment);
    }

    /// Where that time of the file is.
    pub(super) fn place(&self, at: Millis) -> Millis {
        self.file.place.saturating_add(at.saturating_sub(self.file.at))
    }

    /// Where the last clocks of the file are.
    pub(super) fn now(&self) -> Millis {
        self.file.place
    }

    /// The furthest moment, and where it is: at the beginning or after.
    pub(super) fn end(&self) -> (Moment, Millis) {
        let never = Moment {
            wall: NEVER,
            boot: None,
        };
        self.latest.clone().unwrap_or((never, 0))
    }

    /// Where a moment is that is told after all others. A journal is begun just before its snapshot: within one boot it
    /// may lie before what is known already.
    fn after(&self, moment: &Moment) -> Millis {
        let Some((latest, place)) = &self.latest else {
            return 0;
        };
        let passed = signed(latest.boot.as_ref(), moment.boot.as_ref())
            .unwrap_or_else(|| Millis::try_from(moment.since(latest).as_millis()).unwrap_or(Millis::MAX));
        place.saturating_add(passed)
    }

    fn reach(&mut self, moment: &Moment) {
        let place = self.file.place;
        if self.latest.as_ref().is_none_or(|(_, latest)| place >= *latest) {
            self.latest = Some((moment.clone(), place));
        }
    }
}

/// From one to the other by the clock of the boot, if it is one.
fn signed(then: Option<&Boot>, now: Option<&Boot>) -> Option<Millis> {
    let (then, now) = then.zip(now).filter(|(then, now)| then.id == now.id)?;
    let millis = |boot: &Boot| Millis::try_from(boot.up.as_millis()).ok();
    millis(now)?.checked_sub(millis(then)?)
}
