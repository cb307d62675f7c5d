//! How many enforced bans are live, by family and step of the ladder: kept beside the ledger, so that nobody has to go
//! through a million bans to tell.

use super::verdict::Ban;

/// Live enforced bans: of IPv4, then of IPv6, each by step. Step 0 is an operator's own length.
pub type Counts = [[u64; TIERS]; 2];

/// Counts that go along with every ban that is put into a ledger or taken out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiers(Counts);

impl Tiers {
    /// `ban` is live from now on.
    pub fn enter(&mut self, ban: &Ban) {
        *self.place(ban) += u64::from(ban.enforced);
    }

    /// It is not any more.
    pub fn leave(&mut self, ban: &Ban) {
        let place = self.place(ban);
        *place = place.saturating_sub(u64::from(ban.enforced));
    }

    /// As they are now.
    pub fn counts(&self) -> Counts {
        self.0
    }

    fn place(&mut self, ban: &Ban) -> &mut u64 {
        let step = usize::try_from(ban.step).unwrap_or(usize::MAX);
        &mut self.0[usize::from(!ban.source.is_ipv4())][step.min(TIERS - 1)]
    }
}

/// Steps that are told apart, 0 among them: the last one stands for all above it too. Ladders have four as a rule.
pub const TIERS: usize = 17;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::verdict::BanReason;
    use super::*;

    #[test]
    fn bans_are_counted_by_family_and_step_and_would_be_ones_not_at_all() {
        let ban = |source: &str, step, enforced| Ban {
            source: source.parse().unwrap(),
            reason: BanReason::PortScanning,
            step,
            offences: 1,
            since: Instant::now(),
            until: None,
            enforced,
            note: None,
        };
        let mut tiers = Tiers::default();
        let bans = [
            ban("203.0.113.1", 1, true),
            ban("203.0.113.2", 1, true),
            ban("198.51.100.0/24", 0, true),
            ban("2001:db8::/64", 9_999, true),
            ban("203.0.113.3", 1, false),
        ];
        bans.iter().for_each(|ban| tiers.enter(ban));
        let counts = tiers.counts();
        assert_eq!((counts[0][0], counts[0][1], counts[1][TIERS - 1]), (1, 2, 1));
        assert_eq!(counts.iter().flatten().sum::<u64>(), 4);
        bans.iter().for_each(|ban| tiers.leave(ban));
        assert_eq!(tiers.counts(), Counts::default());
    }
}
