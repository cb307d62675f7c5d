//! Ban storms: offences beyond the blast radius, told once when one begins and once when it is over.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// The storm that is going on, if any.
#[derive(Debug, Default)]
pub struct Storms {
    now: Option<Storm>,
}

#[derive(Debug)]
struct Storm {
    last: Instant,
    refused: u64,
}

impl Storms {
    /// One more offence was not turned into a ban, with so many allowed a minute; whether a storm begins with it.
    pub fn refuse(&mut self, allowed: u32, now: Instant) -> bool {
        if let Some(storm) = &mut self.now {
            storm.last = now;
            storm.refused += 1;
            return false;
        }
        self.now = Some(Storm {
            last: now,
            refused: 1,
        });
        warn!(
            event = "ban_storm",
            "ban storm: more offences than bans.max_bans_per_minute = {allowed} allows (or than one neighbourhood \
             may cause); offenders are dropped packet by packet, no ban is added for them"
        );
        true
    }

    /// Says so if it is over; how many offences it was.
    pub fn tell_calm(&mut self, now: Instant) -> Option<u64> {
        let over = |storm: &mut Storm| now.saturating_duration_since(storm.last) >= QUIET;
        let refused = self.now.take_if(over)?.refused;
        info!(
            event = "ban_storm_ended",
            "the ban storm is over: {refused} offences were not turned into bans"
        );
        Some(refused)
    }

    /// When it is over if nothing more comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.now.as_ref().map(|storm| storm.last + QUIET)
    }
}

/// A storm is over when nothing was refused for so long.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_over_a_minute_after_its_last_refusal_and_the_next_is_another() {
        let (mut storms, start) = (Storms::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((storms.next_deadline(), storms.tell_calm(start)), (None, None));
        for second in [0, 1, 50] {
            storms.refuse(600, at(second));
        }
        assert_eq!(storms.next_deadline(), Some(at(110)));
        assert_eq!(
            (storms.tell_calm(at(109)), storms.tell_calm(at(110))),
            (None, Some(3))
        );
        assert_eq!(storms.tell_calm(at(999)), None, "told once");
        storms.refuse(600, at(1000));
        assert_eq!(storms.tell_calm(at(1060)), Some(1));
    }
}
