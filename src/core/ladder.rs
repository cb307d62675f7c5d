//! The ladder of ban lengths: each further offence takes the next step, the last step repeats.

use std::time::Duration;

use thiserror::Error;

/// Ban lengths, first offence first: at least one, each from [`SHORTEST`] to [`LONGEST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder(Box<[Duration]>);

/// Why something is not a ladder.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LadderError {
    /// There is no step.
    #[error("the list of ban lengths is empty, give at least one, as in [\"10m\", \"2h\", \"1d\", \"7d\"]")]
    Empty,
    /// A step is too short.
    #[error("ban length {length:?} at step {step} is shorter than 1s")]
    TooShort {
        /// Which, from 1.
        step: usize,
        /// As given.
        length: Duration,
    },
    /// A step is too long.
    #[error("ban length {length:?} at step {step} is longer than a year (365d)")]
    TooLong {
        /// Which, from 1.
        step: usize,
        /// As given.
        length: Duration,
    },
}

impl Ladder {
    /// A ladder of these steps.
    ///
    /// # Errors
    /// If there is none, or one is out of bounds.
    pub fn new(steps: Vec<Duration>) -> Result<Ladder, LadderError> {
        if steps.is_empty() {
            return Err(LadderError::Empty);
        }
        for (step, length) in (1..).zip(steps.iter().copied()) {
            if length < SHORTEST {
                return Err(LadderError::TooShort { step, length });
            }
            if length > LONGEST {
                return Err(LadderError::TooLong { step, length });
            }
        }
        Ok(Ladder(steps.into_boxed_slice()))
    }

    /// Step (from 1) and ban length of the `offences`-th offence (from 1); the last step repeats.
    pub fn duration(&self, offences: u32) -> (u32, Duration) {
        let last = self.0.len() - 1; // never empty: `new`
        let index = usize::try_from(offences.saturating_sub(1)).map_or(last, |index| index.min(last));
        (u32::try_from(index + 1).unwrap_or(u32::MAX), self.0[index])
    }

    /// All steps, first offence first.
    pub fn steps(&self) -> &[Duration] {
        &self.0
    }
}

/// Below this the kernel's garbage collection and our batches blur what a ban means.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// A year: beyond it an address says nothing about who holds it.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(steps: &[u64]) -> Result<Ladder, LadderError> {
        Ladder::new(steps.iter().copied().map(Duration::from_secs).collect())
    }

    #[test]
    fn each_offence_takes_the_next_step_and_the_last_repeats() {
        let ladder = seconds(&[600, 7200, 86400, 604_800]).unwrap();
        let taken: Vec<_> = [1, 2, 3, 4, 5, u32::MAX]
            .map(|n| ladder.duration(n).1.as_secs())
            .to_vec();
        assert_eq!(taken, [600, 7200, 86400, 604_800, 604_800, 604_800]);
        assert_eq!(ladder.duration(3).0, 3);
        assert_eq!(ladder.duration(9).0, 4);
        assert_eq!(ladder.duration(0), ladder.duration(1));
    }

    #[test]
    fn bounds_are_refused_with_the_step() {
        assert_eq!(seconds(&[]), Err(LadderError::Empty));
        assert_eq!(
            seconds(&[1, 0]).unwrap_err().to_string(),
            "ban length 0ns at step 2 is shorter than 1s"
        );
        assert!(seconds(&[365 * 86400]).is_ok());
        assert!(matches!(
            seconds(&[365 * 86400 + 1]),
            Err(LadderError::TooLong { step: 1, .. })
        ));
    }
}
