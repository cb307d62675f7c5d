//! What may stand in the log. Field names are a contract: more may be added, none is renamed.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use super::who::Who;
use crate::core::verdict::{Ban, Offence, Proto};
use crate::notify::refusals::{Share, Target};

/// One thing that happened. Absent fields are not written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "fields are what their variant's sentence says, and docs/audit.md says more"
)]
pub enum What {
    /// The engine began, with this configuration.
    Start {
        version: String,
        pid: u32,
        mode: String,
        enforce: bool,
        config: String,
        config_sha256: String,
        /// Bans that it knew already.
        bans: u64,
    },
    /// The engine ends, of its own accord.
    Stop { why: String },
    /// A source is banned from now on (`enforced`), or would be.
    Ban {
        source: String,
        reason: String,
        step: u32,
        offences: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<String>,
        enforced: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ports: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A ban ended: by time, by an operator, or because its source is protected now.
    Unban {
        source: String,
        reason: String,
        step: u32,
        enforced: bool,
        why: String,
    },
    /// The kernel did not take a change of its sets of bans.
    Failure { source: String, error: String },
    /// Somebody changed the table or its elements past the engine, which put it right or obeyed.
    Ruleset {
        found: String,
        /// Which process, if the kernel told.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        sources: Vec<String>,
        /// Bans that were put back, or elements that it is about.
        bans: u64,
        repaired: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        gap_ms: Option<u64>,
    },
    /// Packets that the port filter refused.
    Refusal(Refused),
    /// Somebody asked the engine for something by the control socket.
    Operator {
        request: String,
        #[serde(skip_serializing_if = "no_arguments")]
        arguments: Value,
        who: Who,
        result: Outcome,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// So many more orders of somebody who has no right to them; the first ones have a record each.
    Denied {
        /// Absent: of several.
        #[serde(skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        orders: u64,
    },
    /// The configuration was read again.
    Config {
        /// `SIGHUP` or `control socket`.
        by: &'static str,
        result: Outcome,
        before_sha256: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        after_sha256: Option<String>,
        /// What changed, in words; never a secret.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        changes: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Files of the program were compared with their sums.
    Integrity(Note),
    /// The self-test ran.
    Selftest(Note),
    /// The monitor found something, or did something.
    Monitor(Note),
    /// So many records came faster than they could be written, and are lost.
    Gap { lost: u64 },
    /// Nothing could be written for a while; what was recorded meanwhile follows.
    Resumed { seconds: u64, error: String },
    /// The file before this one was full. With what was removed to make room, if anything.
    Rotate {
        closed: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        removed: Option<Removed>,
    },
    /// Somebody took the file away; the chain goes on in this one.
    Reopen { why: String },
    /// The last line was not whole: the engine was killed while it wrote. Nothing that was confirmed is missing.
    Torn { bytes: u64, fragment: String },
    /// The log is not as the engine left it.
    Broken { why: String },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet: recorded before it is tried, under `on_audit_failure = "closed"`.
    Asked,
    /// Done.
    Done,
    /// Not done.
    Refused,
}

/// What another part of the program found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// `ok` or `failed`.
    pub result: String,
    /// In words.
    pub detail: String,
    /// Who says so.
    pub who: Who,
}

/// Refused packets: of one source to one target, or summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "docs/audit.md")]
pub struct Refused {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    pub packets: u64,
    /// Of how many ports they are the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<u64>,
    /// Of how many sources they are the sum, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<u64>,
    /// They came too fast to be looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
}

/// Files that went to make room: the chain's first line is now the one after this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Number of the last line that was removed.
    pub through: u64,
    /// Its hash.
    pub sha256: String,
}

impl What {
    /// `ban` began, until `until` as people read it.
    pub fn ban(ban: &Ban, offence: Option<&Offence>, until: Option<String>) -> What {
        let ports = offence.map_or(&[][..], |offence| &offence.ports);
        What::Ban {
            source: ban.source.to_string(),
            reason: ban.reason.to_string(),
            step: ban.step,
            offences: ban.offences,
            until,
            enforced: ban.enforced,
            ports: ports
                .iter()
                .take(MOST_PORTS)
                .map(|(proto, port)| format!("{proto}/{port}"))
                .collect(),
            note: ban.note.as_deref().map(str::to_owned),
        }
    }

    /// `ban` ended.
    pub fn unban(ban: &Ban, why: &str) -> What {
        What::Unban {
            source: ban.source.to_string(),
            reason: ban.reason.to_string(),
            step: ban.step,
            enforced: ban.enforced,
            why: why.to_owned(),
        }
    }

    /// Packets were refused.
    pub fn refusal(share: &Share) -> What {
        let (mut proto, mut port, mut protocol) = (None, None, None);
        match share.target {
            Some(Target::Port(Proto::Tcp, number)) => (proto, port) = (Some("tcp"), Some(number)),
            Some(Target::Port(Proto::Udp, number)) => (proto, port) = (Some("udp"), Some(number)),
            Some(Target::Protocol(number)) => protocol = Some(number),
            None => {}
        }
        What::Refusal(Refused {
            source: share.source.map(|source| source.to_string()),
            proto,
            port,
            protocol,
            packets: share.packets,
            targets: share.targets,
            sources: share.sources,
            unseen: false,
        })
    }

    /// Packets were refused that nobody looked at.
    pub fn unseen(packets: u64) -> What {
        What::Refusal(Refused {
            packets,
            unseen: true,
            ..Refused::default()
        })
    }

    /// Whether it is one of those that strangers can cause at any rate: these yield to the others.
    pub fn is_common(&self) -> bool {
        matches!(self, What::Refusal(_))
    }
}

fn no_arguments(arguments: &Value) -> bool {
    arguments.as_object().is_none_or(serde_json::Map::is_empty)
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time_text(at: SystemTime) -> String {
    let shape = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let nanoseconds = i128::try_from(since.as_nanos()).unwrap_or_default();
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(&shape).unwrap_or_else(|_| EPOCH.to_owned())
}

/// A line stays short: a scan of many ports is told by its first.
const MOST_PORTS: usize = 64;
/// A clock beyond every calendar.
const EPOCH: &str = "1970-01-01T00:00:00.000Z";
