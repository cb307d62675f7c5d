//! What is told of attacks on ports. A stranger chooses how many ports he attacks, so lines are bounded: what begins
//! and ends beyond the bound is counted, and `status` shows all that is under way.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::core::attack::Attack;
use crate::notify::throttle::Throttle;

/// The lines about attacks.
#[derive(Debug)]
pub struct AttackLines {
    begun: Throttle,
    ended: Throttle,
}

impl Default for AttackLines {
    fn default() -> AttackLines {
        AttackLines {
            begun: Throttle::new(LINES, PAUSE),
            ended: Throttle::new(LINES, PAUSE),
        }
    }
}

impl AttackLines {
    /// An attack began; whether that was told.
    pub fn began(&mut self, attack: &Attack, now: Instant) -> bool {
        let Some(more) = self.begun.pass(now) else {
            return false;
        };
        warn!(
            event = "distributed_attack", port = attack.port, attempts = attack.attempts,
            threshold = attack.threshold, source = %attack.source,
            "tcp port {} is under attack: {} attempts ({}) of {} sources, {} are tolerated{}",
            attack.port, attack.attempts, attack.counting.word(), attack.distinct, attack.threshold, untold(more)
        );
        true
    }

    /// An attack is over; whether that was told.
    pub fn ended(&mut self, attack: &Attack, now: Instant) -> bool {
        let Some(more) = self.ended.pass(now) else {
            return false;
        };
        info!(
            event = "distributed_attack_ended",
            port = attack.port,
            counted = attack.counted,
            offences = attack.offences,
            "the attack on tcp port {} is over: {} attempts of {} sources, {} offences{}",
            attack.port,
            attack.counted,
            attack.distinct,
            attack.offences,
            untold(more)
        );
        true
    }
}

fn untold(more: u64) -> String {
    match more {
        0 => String::new(),
        more => format!(" ({more} more ports since the last such line)"),
    }
}

/// More services than a host has come under attack at once; a scan over all ports under counting = "all" would else
/// be 65,536 lines.
const LINES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::attack::Counting;
    use crate::core::prefix::Prefix;

    fn attack(port: u16, now: Instant) -> Attack {
        let seen = "192.0.2.7".parse().unwrap();
        Attack {
            port,
            counting: Counting::All,
            threshold: 10,
            attempts: 11,
            seen,
            source: Prefix::host(seen),
            began: now,
            last: now,
            counted: 1,
            offences: 0,
            sources: Vec::new(),
            distinct: 1,
        }
    }

    #[test]
    fn an_attack_on_every_port_is_a_handful_of_lines() {
        let (mut lines, start) = (AttackLines::default(), Instant::now());
        let told = |lines: &mut AttackLines, now| {
            (1..=65_535)
                .filter(|port| lines.began(&attack(*port, now), now))
                .count()
        };
        assert_eq!(told(&mut lines, start), LINES as usize);
        assert_eq!(told(&mut lines, start + PAUSE), 1);
        assert!(
            lines.ended(&attack(1, start), start),
            "ends have a bound of their own"
        );
    }
}
