//! What replies hold: the engine's state in words and numbers that scripts read.
//!
//! Apart from [`super::wire`], which decides what may be asked. Field names are a contract.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::apply_view::ApplyView;
use super::monitor_view::MonitorView;
use super::upkeep_view::WipeView;
use crate::core::attack::Attack;
use crate::core::verdict::Ban;
use crate::state::survey::second;

/// How the engine is and what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// The engine's version.
    pub version: String,
    /// The engine's process.
    pub pid: u32,
    /// Since the engine started.
    pub uptime_seconds: u64,
    /// The configuration in force; none when built-in defaults run.
    pub config: Option<String>,
    /// SHA-256 of its text.
    pub config_sha256: String,
    /// The last `verdictctl apply`, as long as there is something to say about it.
    pub apply: Option<ApplyView>,
    /// The word of the mode.
    pub mode: String,
    /// The preset's name.
    pub preset: String,
    /// Whether offenders are banned, or only recorded.
    pub enforce: bool,
    /// Whether the host is protected now: what policy wants dropped is dropped.
    pub protected: bool,
    /// `open` or `closed`.
    pub on_loss: String,
    /// `nft queue`, `xt NFQUEUE` or `none (observing)`.
    pub backend: String,
    /// The table and its state, such as `inet verdictd: loaded, 41 rules`.
    pub table: String,
    /// The last time that somebody damaged the table; none: never since the start.
    pub last_wipe: Option<WipeView>,
    /// How many workers judge packets.
    pub workers: u32,
    /// Bound verdict queues, by number.
    pub queues: Vec<u16>,
    /// Bound log groups, by number.
    pub log_groups: Vec<u16>,
    /// Seed of the source hash.
    pub seed: u32,
    /// What is never banned, each with its reason.
    pub protected_sources: Vec<ProtectedSource>,
    /// Networks that are neither counted nor banned.
    pub trusted: Vec<String>,
    /// Enforced bans that are live now, and all since the start.
    pub bans: BanCounts,
    /// Ports on which many sources together attack, now.
    pub attacks: Vec<AttackView>,
    /// What the engine cannot know as it runs now, in words: empty unless it only watches copies.
    pub blind: Vec<String>,
    /// What holds the engine itself, and what does not and why.
    pub confinement: String,
    /// The audit log; none where nothing is written down.
    pub audit: Option<AuditView>,
    /// What is not as it should be, in words; empty when all is well.
    pub degraded: Vec<String>,
    /// The monitor; put there by `verdictctl`, none if there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorView>,
}

/// The audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditView {
    /// The file.
    pub path: String,
    /// The file that says how far it goes.
    pub head: String,
    /// Number of its last line.
    pub seq: u64,
    /// That line's hash.
    pub sha256: String,
    /// Records that were lost since the start.
    pub lost: u64,
    /// `continue` or `closed`.
    pub on_failure: String,
}

/// An address or network that is never banned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedSource {
    /// The address or prefix.
    pub source: String,
    /// Why it is protected.
    pub reason: String,
}

/// An attack of many sources on one TCP port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackView {
    /// The port.
    pub port: u16,
    /// Which attempts count: `incomplete`, `new_sources` or `all`.
    pub counting: String,
    /// Attempts that counted in the window.
    pub attempts: u32,
    /// How many are tolerated.
    pub threshold: u32,
    /// How many sources they came from.
    pub sources: u32,
    /// Since it began.
    pub seconds: u64,
}

/// How many bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCounts {
    /// Enforced and live now.
    pub active: u64,
    /// Enforced since the start.
    pub total: u64,
    /// Would-be bans that are live now: recorded, nothing is dropped.
    #[serde(default)]
    pub observed: u64,
}

/// One ban, as `list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanView {
    /// The banned address or prefix.
    pub source: String,
    /// The word of the reason.
    pub reason: String,
    /// Position on the ladder, from 1; 0 for an operator's own duration.
    pub step: u32,
    /// Offences that count toward the ladder.
    pub offences: u32,
    /// When it began: RFC 3339, UTC.
    pub since: String,
    /// When it ends; null for a ban without end.
    pub until: Option<String>,
    /// Time left, rounded up; null for a ban without end.
    pub remaining_seconds: Option<u64>,
    /// Whether the kernel drops the source.
    pub enforced: bool,
    /// The operator's words.
    #[serde(default)]
    pub note: Option<String>,
}

impl AttackView {
    /// `attack` as it is at `now`.
    pub fn of(attack: &Attack, now: Instant) -> AttackView {
        AttackView {
            port: attack.port,
            counting: attack.counting.word().to_owned(),
            attempts: attack.attempts,
            threshold: attack.threshold,
            sources: attack.distinct,
            seconds: now.saturating_duration_since(attack.began).as_secs(),
        }
    }
}

impl BanView {
    /// `ban` as seen at `now`, which `clock` calls by the wall clock's name.
    pub fn of(ban: &Ban, now: Instant, clock: SystemTime) -> BanView {
        BanView {
            source: ban.source.to_string(),
            reason: ban.reason.word().to_owned(),
            step: ban.step,
            offences: ban.offences,
            since: timestamp(wall(ban.since, now, clock)),
            until: ban.until.map(|until| timestamp(wall(until, now, clock))),
            remaining_seconds: ban.remaining(now).map(seconds_up),
            enforced: ban.enforced,
            note: ban.note.as_deref().map(str::to_owned),
        }
    }
}

/// A snapshot of the state that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// The file.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Live bans in it, would-be ones included.
    pub bans: u64,
    /// Ladder positions in it.
    pub ladder: u64,
    /// Half-done scans in it.
    pub sources: u64,
    /// How long it took, its way to the disk included.
    pub duration_ms: u64,
    /// What could not be had, one sentence each.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// RFC 3339 in UTC, whole seconds: `2026-03-01T12:00:00Z`.
pub fn timestamp(at: SystemTime) -> String {
    second(at.into())
}

fn wall(at: Instant, now: Instant, clock: SystemTime) -> SystemTime {
    let then = match at.checked_duration_since(now) {
        Some(ahead) => clock.checked_add(ahead),
        None => clock.checked_sub(now.saturating_duration_since(at)),
    };
    then.unwrap_or(clock)
}

/// Up, so that a live ban never shows zero seconds.
fn seconds_up(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::prefix::Prefix;
    use crate::core::verdict::BanReason;

    fn ban(since: Instant, length: Option<Duration>) -> Ban {
        Ban {
            source: Prefix::host("203.0.113.9".parse().unwrap()),
            reason: BanReason::PortScanning,
            step: 2,
            offences: 2,
            since,
            until: length.map(|length| since + length),
            enforced: true,
            note: None,
        }
    }

    #[test]
    fn a_ban_has_the_fields_and_times_of_the_contract() {
        let since = Instant::now();
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        let now = since + Duration::from_millis(1500);
        let view = BanView::of(&ban(since, Some(Duration::from_secs(600))), now, clock);
        assert_eq!(
            serde_json::to_value(view).unwrap(),
            json!({
                "source": "203.0.113.9", "reason": "port_scanning", "step": 2, "offences": 2,
                "since": "2026-03-01T11:59:58Z", "until": "2026-03-01T12:09:58Z",
                "remaining_seconds": 599, "enforced": true, "note": null,
            })
        );
    }

    #[test]
    fn a_ban_without_end_has_null_times() {
        let now = Instant::now();
        let view = BanView::of(&ban(now, None), now, SystemTime::now());
        assert_eq!((view.until, view.remaining_seconds), (None, None));
    }
}
