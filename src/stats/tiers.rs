//! Live enforced bans by family and step, as the analyst last counted them.

use super::Tally;
use crate::core::tiers::Counts;
pub use crate::core::tiers::TIERS;

/// One number for each.
#[derive(Debug, Default)]
pub struct Tiers([[Tally; TIERS]; 2]);

impl Tiers {
    /// They are so many now.
    pub fn set(&self, counts: &Counts) {
        for (tallies, counts) in self.0.iter().zip(counts) {
            for (tally, count) in tallies.iter().zip(counts) {
                tally.set(*count);
            }
        }
    }

    /// How many they are.
    pub fn get(&self) -> Counts {
        std::array::from_fn(|family| std::array::from_fn(|step| self.0[family][step].get()))
    }
}
