//! About how many different sources there were, in 256 bytes: who floods from forged addresses makes no list grow.

/// An estimate of how many different hashes were put in: HyperLogLog with 256 registers, whose standard error is
/// 1.04/√256 = 6.5 % (Flajolet, Fusy, Gandouet, Meunier 2007). The hashes must be keyed, or whoever chooses the
/// sources chooses the estimate.
#[derive(Clone, Debug)]
pub(super) struct Distinct(Box<[u8; REGISTERS]>);

impl Distinct {
    pub(super) fn new() -> Distinct {
        Distinct(Box::new([0; REGISTERS]))
    }

    /// Puts one in; whether that can have changed the estimate.
    pub(super) fn put(&mut self, hash: u64) -> bool {
        let register = usize::try_from(hash % REGISTERS as u64).unwrap_or(0);
        let rest = hash / REGISTERS as u64;
        let rank = u8::try_from((rest | 1 << RANK_BITS).trailing_zeros() + 1).unwrap_or(u8::MAX);
        let held = &mut self.0[register];
        let higher = rank > *held;
        *held = rank.max(*held);
        higher
    }

    /// The estimate. Below 2.5 a register the count of untouched registers says more.
    pub(super) fn estimate(&self) -> u32 {
        let registers = REGISTERS as f64;
        let sum: f64 = self.0.iter().map(|rank| 0.5f64.powi(i32::from(*rank))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let untouched = self.0.iter().filter(|rank| **rank == 0).count();
        let estimate = if raw <= 2.5 * registers && untouched > 0 {
            registers * (registers / untouched as f64).ln()
        } else {
            raw
        };
        estimate.round() as u32 // saturates
    }
}

const REGISTERS: usize = 256;
/// What is left of a hash when its lowest 8 bits chose the register.
const RANK_BITS: u32 = 56;

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn it_is_near_the_truth_from_one_to_a_million() {
        let hasher = RandomState::new();
        let (mut distinct, mut put) = (Distinct::new(), 0u32);
        assert_eq!(distinct.estimate(), 0);
        for truth in [1u32, 10, 100, 1000, 10_000, 100_000, 1_000_000] {
            while put < truth {
                distinct.put(hasher.hash_one(put));
                distinct.put(hasher.hash_one(put / 2));
                put += 1;
            }
            // Five standard errors: one run in two million is further off.
            let off = distinct.estimate().abs_diff(truth);
            assert!(off <= 2 + truth / 3, "{} instead of {truth}", distinct.estimate());
        }
    }

    #[test]
    fn the_same_ones_change_nothing() {
        let mut distinct = Distinct::new();
        assert!(distinct.put(77) && !distinct.put(77) && distinct.put(0) && !distinct.put(0));
        assert_eq!(distinct.estimate(), 2);
        (0..256).for_each(|register| _ = distinct.put(register));
        assert_eq!(distinct.0.iter().max(), Some(&57));
    }
}
