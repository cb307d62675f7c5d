//! Many bans, put where the engine finds them: a state file as it would have saved it itself.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use verdictd::core::verdict::{Ban, BanReason};
use verdictd::engine::clock;
use verdictd::state::{Place, Snapshot};

/// How many bans there are, those of the probes among them. A debug build takes ten times as long for each.
pub(crate) const BANS: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
/// The same where an engine starts each round: in a debug build rather more rounds than bans.
pub(crate) const BANS_TO_START_FROM: usize = if cfg!(debug_assertions) { 2_000 } else { BANS };
/// Banned last; one of the thousand hottest.
pub(crate) const NEWEST: &str = "10.88.0.1";
/// Its like among the /64s, and an address in it.
pub(crate) const NEWEST6: (&str, &str) = ("fd66::/64", "fd66::1");
/// Banned first; whatever order a repair has, it comes late.
pub(crate) const OLDEST: &str = "10.88.0.2";

/// Leaves a state of `bans` in `directory`, saved at this moment.
pub(crate) fn save(directory: &Path, bans: usize) {
    let (place, now) = (Place::new(directory, None), Instant::now());
    // Generation 0: no journal goes with it.
    let mut snapshot = Snapshot::begin(&place, &clock::moment(), now, 24_301, 0).unwrap();
    for (nth, source) in sources(bans).enumerate() {
        let ban = Ban {
            source: source.parse().unwrap(),
            reason: BanReason::PortScanning,
            step: 3,
            offences: 3,
            // The newest was banned a minute ago, each before it a second earlier.
            since: now
                .checked_sub(Duration::from_secs(60 + nth as u64))
                .unwrap_or(now),
            until: Some(now + Duration::from_secs(LEFT)),
            enforced: true,
            note: None,
        };
        snapshot.ban(&ban).unwrap();
    }
    snapshot.commit().unwrap();
}

/// Newest first: both families begin with the one that probes, the last one of all probes too.
fn sources(bans: usize) -> impl Iterator<Item = String> {
    let own = [NEWEST.to_owned(), NEWEST6.0.to_owned()];
    let of_family6 = bans / 10;
    // 198.18.0.0/15 is set aside for such tests (RFC 2544), 2001:db8::/32 for examples (RFC 3849).
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let of_v4 = (0..(bans - of_family6 - 2) as u32).map(move |nth| Ipv4Addr::from(first + nth).to_string());
    let of_v6 = (0..of_family6 - 1).map(|nth| format!("2001:db8:{nth:x}::/64"));
    let others = of_v6.chain(of_v4);
    own.into_iter().chain(others).chain([OLDEST.to_owned()])
}

/// Thirty days: longer than any run of these tests.
const LEFT: u64 = 30 * 86_400;

#[test]
fn the_bans_are_as_many_as_said_and_each_another() {
    let all: std::collections::BTreeSet<String> = sources(BANS).collect();
    assert_eq!(all.len(), BANS);
    assert_eq!(
        all.iter().filter(|source| source.contains(':')).count(),
        BANS / 10
    );
    assert_eq!(sources(BANS).last().as_deref(), Some(OLDEST));
}
