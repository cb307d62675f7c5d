//! What another system knew, fitted to this one: by the unit that is judged here, the policy's ladder and its switch of
//! enforcement, and without those who are protected. The same at a first start and at `verdictctl state import`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::control::wire::{ImportPart, Spared};
use crate::core::judge::Memory;
use crate::core::ledger::Standing;
use crate::core::policy::Policy;
use crate::core::prefix::Prefix;
use crate::core::source::Touch;
use crate::core::verdict::{Asked, Ban, BanReason, Proto};
use crate::state::Awake;
use crate::state::import::{LONGEST, NOTE};

use super::protect::Protection;

/// Fits `awake`, and says who is not banned and why. Bans follow the switch of enforcement, as they do at a reload.
pub(super) fn settle(awake: &mut Awake, policy: &Policy, protection: &Protection) -> Vec<Spared> {
    let unit = |source: Prefix| match source.is_host() {
        true => protection.guard.source_of(source.addr(), policy),
        false => source,
    };
    let mut refused = BTreeMap::new();
    let mut bans: BTreeMap<Prefix, Ban> = BTreeMap::new();
    for mut ban in awake.bans.drain(..) {
        ban.source = unit(ban.source);
        if let Some(reason) = protection.forbids(&ban.source) {
            refused.insert(ban.source, reason);
            continue;
        }
        ban.enforced = policy.enforce;
        ban.step = policy.ladder.duration(ban.offences.max(1)).0;
        match bans.get(&ban.source) {
            Some(other) if other.until.is_none() || other.until >= ban.until => {}
            _ => drop(bans.insert(ban.source, ban)),
        }
    }
    awake.bans = bans.into_values().collect();
    // Sorted by time: of one unit the highest position counts, and keeps its place.
    awake.standings = highest(awake.standings.drain(..), unit);
    let spared = |source: &Prefix| protection.forbids(source).is_some();
    awake.standings.retain(|standing| !spared(&standing.source));
    for memory in &mut awake.sources {
        memory.source = unit(memory.source);
    }
    awake.sources.retain(|memory| !spared(&memory.source));
    let said = refused.into_iter().map(|(source, reason)| Spared {
        source: source.to_string(),
        reason,
    });
    said.collect()
}

fn highest(standings: impl Iterator<Item = Standing>, unit: impl Fn(Prefix) -> Prefix) -> Vec<Standing> {
    let mut all: BTreeMap<Prefix, Standing> = BTreeMap::new();
    for standing in standings {
        let source = unit(standing.source);
        let known = all.get(&source).map_or(0, |known| known.offences);
        if standing.offences > known {
            all.insert(source, Standing { source, ..standing });
        }
    }
    let mut standings: Vec<Standing> = all.into_values().collect();
    standings.sort_by_key(Standing::latest);
    standings
}

/// A part of an import in terms of this process, whose `now` is `wall_ms` by the wall clock.
///
/// # Errors
/// In words, what makes no sense.
pub(super) fn awake(part: &ImportPart, now: Instant, wall_ms: u64) -> Result<Awake, String> {
    let ago = |age_ms: u64| now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(now);
    let mut awake = Awake::default();
    for ban in &part.bans {
        let left = Duration::from_millis(ban.until_ms.saturating_sub(wall_ms)).min(LONGEST);
        awake.bans.push(Ban {
            source: host(&ban.source)?,
            reason: BanReason::PortScanning,
            step: 0,
            offences: ban.offences,
            since: ago(ban.age_ms),
            until: Some(now + left),
            enforced: true,
            note: Some(NOTE.into()),
        });
    }
    for standing in &part.ladder {
        awake.standings.push(Standing {
            source: host(&standing.source)?,
            offences: standing.offences,
            last: Some(ago(standing.age_ms)),
            would_be: 0,
            would_be_last: None,
        });
    }
    for window in &part.windows {
        let at = ago(window.idle_ms);
        let touch = |port: &u16| Touch {
            what: Asked::Port(Proto::Tcp, *port),
            stealth: 0,
            at,
        };
        awake.sources.push(Memory {
            source: host(&window.source)?,
            first_seen: ago(window.age_ms).min(at),
            last_seen: at,
            completed: None,
            touches: window.ports.iter().map(touch).collect(),
        });
    }
    Ok(awake)
}

fn host(text: &str) -> Result<Prefix, String> {
    match text.parse() {
        Ok(addr) => Ok(Prefix::host(addr)),
        Err(_) => Err(format!("{text:?} is no IPv4 or IPv6 address")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::wire::{ImportedBan, ImportedStanding, ImportedWindow};
    use crate::core::prefix::PrefixSet;
    use crate::kernel::host::Why;

    const WALL: u64 = 1_700_000_000_000;

    fn ban(source: &str, left_ms: u64) -> ImportedBan {
        ImportedBan {
            source: source.into(),
            offences: 7,
            age_ms: 1000,
            until_ms: WALL.saturating_add(left_ms),
        }
    }

    fn standing(source: &str, offences: u32) -> ImportedStanding {
        ImportedStanding {
            source: source.into(),
            offences,
            age_ms: 5,
        }
    }

    fn policy(enforce: bool) -> Arc<Policy> {
        let text = format!("[bans]\nenforce = {enforce}\n");
        let config = crate::config::parse(&text, std::path::Path::new("test")).unwrap();
        Arc::new(config.policy)
    }

    #[test]
    fn imports_are_fitted_to_policy_and_protection() {
        let now = Instant::now();
        let part = ImportPart {
            bans: vec![
                ban("192.0.2.1", 60_000),
                ban("2001:db8::1", 10_000),
                ban("2001:db8::2", 20_000),
                ban("192.0.2.9", u64::MAX),
            ],
            ladder: vec![
                standing("2001:db8::1", 2),
                standing("2001:db8::2", 4),
                standing("192.0.2.1", 7),
            ],
            windows: vec![ImportedWindow {
                source: "198.51.100.7".into(),
                age_ms: 1,
                idle_ms: 2,
                ports: vec![22, 80],
            }],
            ..ImportPart::default()
        };
        let own = ("192.0.2.1".parse().unwrap(), Why::Loopback);
        let protection = Protection::of(vec![own], &PrefixSet::default());
        for enforce in [true, false] {
            let mut awake = awake(&part, now, WALL).unwrap();
            let refused = settle(&mut awake, &policy(enforce), &protection);
            assert_eq!(refused.len(), 1);
            assert!(
                refused[0].reason.starts_with("192.0.2.1 is protected: "),
                "{refused:?}"
            );
            let bans: Vec<(String, u64)> = (awake.bans.iter())
                .map(|ban| (ban.source.to_string(), ban.remaining(now).unwrap().as_secs()))
                .collect();
            let expected = [
                ("192.0.2.9".to_owned(), 376 * 86_400),
                ("2001:db8::/64".into(), 20),
            ];
            assert_eq!(bans, expected);
            assert!(
                awake
                    .bans
                    .iter()
                    .all(|ban| ban.enforced == enforce && ban.step == 4)
            );
            assert_eq!((awake.standings.len(), awake.standings[0].offences), (1, 4));
            assert_eq!(awake.sources[0].touches.len(), 2);
            assert!(awake.sources[0].first_seen <= awake.sources[0].last_seen);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for source in ["192.0.2.0/24", "", "x"] {
            let part = ImportPart {
                bans: vec![ban(source, 1)],
                ..ImportPart::default()
            };
            assert!(
                awake(&part, Instant::now(), WALL)
                    .unwrap_err()
                    .contains("is no IPv4"),
                "{source}"
            );
        }
    }
}
