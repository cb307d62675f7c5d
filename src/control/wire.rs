//! Request and reply: all that the engine and `verdictctl` share.
//!
//! A connection carries one request and one reply, each one line of JSON. A request is hostile until decoded:
//! its size and its strings are bounded, fields nobody knows are refused. Field names are a contract (scripts read
//! them through `--json`): more may be added, none is renamed.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::apply_view::{ApplyState, ApplyView, GoneBack};
pub use super::health_view::{AS_EXPECTED, HealthView, QueueHealth, WorkerHealth};
pub use super::selftest_view::{SelftestPlan, SelftestState};
pub use super::state_view::*;
pub use super::views::*;
pub use super::webhook_view::*;
use crate::notify::text::plain;
use crate::webhook::config::MAX_NAME_CHARS;

/// The longest request, its newline included.
pub const MAX_REQUEST_BYTES: usize = 4096;
/// The longest reason an operator may give for a ban, in characters.
pub const MAX_REASON_CHARS: usize = 200;
/// The longest address or prefix: 39 characters for IPv6, 4 for the length, and room for a teaching error.
pub const MAX_TARGET_CHARS: usize = 64;
/// The longest finding for the audit log, in characters.
pub const MAX_DETAIL_CHARS: usize = 900;
/// The most sources that `stats` lists.
pub const MAX_TOP: usize = 1000;
/// The longest ban an operator may ask for: a year, as for a step of the ladder.
pub const MAX_BAN: Duration = Duration::from_secs(365 * 86_400);

/// What may be asked.
// Empty braces, not units: serde ignores unknown fields beside an internally tagged unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the engine is and what it does.
    Status {},
    /// Whether its parts live; answered within two seconds.
    Health {},
    /// The counters.
    Stats {
        /// How many of the busiest sources to list.
        #[serde(default)]
        top: usize,
    },
    /// Every live ban.
    List {},
    /// Ban an address or a prefix, enforced in every mode.
    Ban {
        /// Address or prefix, as typed.
        target: String,
        /// Length; absent: the first step of the ladder.
        #[serde(default)]
        duration_seconds: Option<u64>,
        /// The operator's words.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Read the configuration again.
    Reload {},
    /// Put the candidate beside the configuration file in force; root only.
    Try {
        /// SHA-256 of the configuration that is in force, as whoever asks looked it through.
        from: String,
        /// SHA-256 of the candidate, likewise.
        sha256: String,
        /// When it goes back unless it is confirmed, in milliseconds since boot; absent: never.
        #[serde(default)]
        until_ms: Option<u64>,
        /// Also if it locks somebody out.
        #[serde(default)]
        force: bool,
    },
    /// What is on trial stays; asked again once the configuration file holds it. Root only.
    Confirm {},
    /// What is on trial goes, or is confirmed and not yet saved; root only.
    GoBack {
        /// Only what goes back at this time anyway, in milliseconds since boot, and is not confirmed.
        #[serde(default)]
        until_ms: Option<u64>,
    },
    /// Lift the ban of an address or a prefix.
    Unban {
        /// Address or prefix, as typed.
        target: String,
    },
    /// Save the state now.
    Snapshot {},
    /// Write into the audit log what another part of the program found out; root only.
    AuditNote {
        /// `integrity`, `selftest` or `monitor`.
        kind: NoteKind,
        /// `ok` or `failed`.
        result: NoteResult,
        /// In words.
        detail: String,
    },
    /// How the sending of events goes.
    Webhooks {},
    /// Try waiting events again at once, and dead letters once more.
    WebhookRetry {
        /// The endpoint's name; absent: every one.
        #[serde(default)]
        endpoint: Option<String>,
    },
    /// A self-test begins (root only): what comes from these two is judged, and told and remembered nowhere.
    SelftestBegin {
        /// Who scans; of a documentation range.
        source: IpAddr,
        /// Who looks on; of one too.
        witness: IpAddr,
    },
    /// How far it is.
    SelftestLook {
        /// Who scans.
        source: IpAddr,
    },
    /// It is over.
    SelftestEnd {},
    /// What is kept, where, and what the last start found.
    State {},
    /// Forget everything: bans, ladder positions, half-done scans, what is usual.
    StateReset {},
    /// Take over what another system knew, a part at a time.
    StateImport(ImportPart),
}

/// Which part of the program found something out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// Files against their sums.
    Integrity,
    /// The self-test.
    Selftest,
    /// The monitor.
    Monitor,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteResult {
    /// Well.
    Ok,
    /// Not well.
    Failed,
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No newline within [`MAX_REQUEST_BYTES`].
    #[error("request is longer than {MAX_REQUEST_BYTES} bytes")]
    Oversized,
    /// Its end did not come in time.
    #[error("request did not arrive within a second")]
    Late,
    /// Not the JSON of any request.
    #[error("not a request: {0}")]
    Malformed(String),
    /// A string or number outside its bounds.
    #[error("{0}")]
    OutOfBounds(String),
}

impl Request {
    /// A finding for the audit log, cut to what fits and without anything a reader would act on.
    pub fn note(kind: NoteKind, result: NoteResult, detail: &str) -> Request {
        let plain = plain(detail);
        let mut detail: String = plain.chars().take(MAX_DETAIL_CHARS).collect();
        if detail.len() < plain.len() {
            detail.pop();
            detail.push('…');
        }
        Request::AuditNote { kind, result, detail }
    }

    /// Reads one line (with or without its newline) and checks all bounds.
    pub fn decode(line: &[u8]) -> Result<Request, RequestError> {
        if line.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::Oversized);
        }
        // serde would take an array for a tagged object as well.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(RequestError::Malformed("not a JSON object".into()));
        }
        let request: Request =
            serde_json::from_slice(line).map_err(|error| RequestError::Malformed(error.to_string()))?;
        request.check()?;
        Ok(request)
    }

    /// The line that [`Request::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        line_of(self)
    }

    /// Whether every string and number is within its bounds; both ends ask.
    pub fn check(&self) -> Result<(), RequestError> {
        self.bounds().map_err(RequestError::OutOfBounds)
    }

    fn bounds(&self) -> Result<(), String> {
        match self {
            Request::Status {}
            | Request::Health {}
            | Request::List {}
            | Request::Reload {}
            | Request::Confirm {}
            | Request::GoBack { .. }
            | Request::Snapshot {}
            | Request::Webhooks {}
            | Request::SelftestBegin { .. }
            | Request::SelftestLook { .. }
            | Request::SelftestEnd {}
            | Request::State {}
            | Request::StateReset {} => Ok(()),
            Request::StateImport(part) => part
                .sources()
                .try_for_each(|source| check_text("source", source, MAX_TARGET_CHARS)),
            Request::WebhookRetry { endpoint } => endpoint
                .as_deref()
                .map_or(Ok(()), |name| check_text("endpoint", name, MAX_NAME_CHARS)),
            Request::AuditNote { detail, .. } => check_text("detail", detail, MAX_DETAIL_CHARS),
            Request::Try { from, sha256, .. } => {
                check_text("from", from, MAX_TARGET_CHARS)?;
                check_text("sha256", sha256, MAX_TARGET_CHARS)
            }
            Request::Stats { top } => check_top(*top),
            Request::Unban { target } => check_text("target", target, MAX_TARGET_CHARS),
            Request::Ban {
                target,
                duration_seconds,
                reason,
            } => {
                check_text("target", target, MAX_TARGET_CHARS)?;
                duration_seconds.map_or(Ok(()), check_duration)?;
                reason
                    .as_deref()
                    .map_or(Ok(()), |text| check_text("reason", text, MAX_REASON_CHARS))
            }
        }
    }
}

fn check_top(top: usize) -> Result<(), String> {
    if top > MAX_TOP {
        return Err(format!("top is {top}, at most {MAX_TOP} sources are listed"));
    }
    Ok(())
}

fn check_duration(seconds: u64) -> Result<(), String> {
    if !(1..=MAX_BAN.as_secs()).contains(&seconds) {
        return Err(format!(
            "ban of {seconds} seconds, must be between 1 second and 365 days"
        ));
    }
    Ok(())
}

fn check_text(what: &str, text: &str, longest: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length > longest {
        return Err(format!(
            "{what} has {length} characters, at most {longest} are taken"
        ));
    }
    if let Some(hostile) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "{what} holds the control character {:?}, plain text is taken",
            hostile
        ));
    }
    Ok(())
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "body", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Health`].
    Health(Box<HealthView>),
    /// To [`Request::Stats`].
    Stats(Box<StatsView>),
    /// To [`Request::List`], ordered by source.
    List(Vec<BanView>),
    /// To [`Request::Ban`]: the ban as it now stands.
    Banned(Box<BanView>),
    /// To [`Request::Unban`]: what was lifted.
    Unbanned(Vec<BanView>),
    /// To [`Request::Reload`] and [`Request::Try`]: what changed, in words.
    Reloaded(Vec<String>),
    /// To [`Request::Confirm`]: it stays.
    Confirmed {
        /// The configuration file holds it.
        saved: bool,
    },
    /// To [`Request::GoBack`].
    GoneBack(GoneBack),
    /// To [`Request::Snapshot`], once it is on the disk.
    Snapshot(Box<SnapshotView>),
    /// To [`Request::Webhooks`].
    Webhooks(Box<WebhookView>),
    /// To [`Request::WebhookRetry`]: how many endpoints were told to try.
    WebhooksRetried(u64),
    /// To [`Request::SelftestBegin`].
    Selftest(Box<SelftestPlan>),
    /// To [`Request::SelftestLook`].
    SelftestState(Box<SelftestState>),
    /// To [`Request::SelftestEnd`], once the kernel has forgotten it.
    SelftestEnded {},
    /// To [`Request::State`].
    State(Box<StateView>),
    /// To [`Request::StateReset`], once the kernel has forgotten it too.
    StateReset(ForgottenView),
    /// To [`Request::StateImport`], once the kernel has its bans.
    StateImported(Box<ImportOutcome>),
    /// To [`Request::AuditNote`]: whether there is an audit log, and it is on the disk there.
    Noted {
        /// On the disk.
        written: bool,
    },
    /// To anything: it was not done, and why.
    Refused {
        /// One sentence, lower case, no full stop.
        message: String,
    },
    /// To an order: it may have been done, or be done later; in the same words.
    Undecided {
        /// One sentence, lower case, no full stop.
        message: String,
    },
}

impl Reply {
    /// A refusal in words.
    pub fn refused(message: impl ToString) -> Reply {
        Reply::Refused {
            message: message.to_string(),
        }
    }

    /// Whether it was done is not known, in words.
    pub fn undecided(message: impl ToString) -> Reply {
        Reply::Undecided {
            message: message.to_string(),
        }
    }

    /// Reads one line.
    pub fn decode(line: &[u8]) -> Result<Reply, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The line that [`Reply::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        line_of(self)
    }
}

fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(message).expect("string keys only, no map or number that JSON cannot hold");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(line: &str) -> String {
        Request::decode(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn requests_survive_the_wire() {
        let ban = |duration_seconds, reason: Option<&str>| Request::Ban {
            target: "203.0.113.9".into(),
            duration_seconds,
            reason: reason.map(str::to_owned),
        };
        let requests = [
            Request::Status {},
            Request::Health {},
            Request::Stats { top: 10 },
            Request::List {},
            ban(None, None),
            ban(Some(7200), Some("said \"no\" — twice")),
            Request::Unban {
                target: "2001:db8::/64".into(),
            },
            Request::AuditNote {
                kind: NoteKind::Integrity,
                result: NoteResult::Failed,
                detail: "/usr/bin/verdictd was changed".into(),
            },
            Request::Webhooks {},
            Request::WebhookRetry { endpoint: None },
            Request::SelftestBegin {
                source: [192, 0, 2, 1].into(),
                witness: [192, 0, 2, 2].into(),
            },
            Request::SelftestEnd {},
            Request::WebhookRetry {
                endpoint: Some("Security Operations Center".into()),
            },
        ];
        for request in requests {
            let line = request.encode();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Request::decode(&line), Ok(request));
        }
    }

    #[test]
    fn the_wire_is_what_scripts_write() {
        assert_eq!(
            Request::decode(br#"{"request":"status"}"#),
            Ok(Request::Status {})
        );
        assert_eq!(
            Request::decode(br#"{"request":"stats"}"#),
            Ok(Request::Stats { top: 0 })
        );
        let refused = Reply::refused("no");
        assert_eq!(
            refused.encode(),
            b"{\"reply\":\"refused\",\"body\":{\"message\":\"no\"}}\n"
        );
        assert_eq!(
            Reply::List(vec![]).encode(),
            b"{\"reply\":\"list\",\"body\":[]}\n"
        );
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for line in [
            r#"{"request":"status","extra":1}"#,
            r#"{"request":"list","x":null}"#,
            r#"{"request":"unban","target":"192.0.2.1","force":true}"#,
            r#"{"request":"reboot"}"#,
            r#"{"request":"ban"}"#,
            r#"{"request":"selftest_begin","source":"192.0.2.0/24","witness":"192.0.2.2"}"#,
            r#"{"request":"stats","top":-1}"#,
            r#"{"request":"status"}{"request":"status"}"#,
            r#"["status"]"#,
            "null",
            "",
            "\u{0}",
        ] {
            assert!(
                refusal(line).starts_with("not a request: "),
                "{line} gives {}",
                refusal(line)
            );
        }
        assert!(Request::decode(b"\xff\xfe").is_err());
        assert!(refusal(&"[".repeat(4000)).contains("not a request"));
    }

    #[test]
    fn strings_and_numbers_are_bounded() {
        let long = "x".repeat(201);
        assert_eq!(
            refusal(&format!(
                r#"{{"request":"ban","target":"192.0.2.1","reason":"{long}"}}"#
            )),
            "reason has 201 characters, at most 200 are taken"
        );
        assert!(
            Request::decode(
                format!(
                    r#"{{"request":"ban","target":"192.0.2.1","reason":"{}"}}"#,
                    "ü".repeat(200)
                )
                .as_bytes()
            )
            .is_ok()
        );
        assert!(
            refusal(r#"{"request":"ban","target":"a\u001b[2Jb"}"#).contains("control character '\\u{1b}'")
        );
        assert!(refusal(r#"{"request":"ban","target":"192.0.2.1","reason":"a\nb"}"#).contains("'\\n'"));
        assert!(
            refusal(r#"{"request":"ban","target":"192.0.2.1","duration_seconds":0}"#).contains("0 seconds")
        );
        assert!(
            refusal(r#"{"request":"ban","target":"192.0.2.1","duration_seconds":31536001}"#).contains("365")
        );
        let name = format!(
            r#"{{"request":"webhook_retry","endpoint":"{}"}}"#,
            "x".repeat(101)
        );
        assert!(refusal(&name).contains("endpoint has 101 characters"));
        assert!(refusal(r#"{"request":"stats","top":1001}"#).contains("at most 1000"));
        assert_eq!(
            Request::decode(&vec![b' '; MAX_REQUEST_BYTES + 1]),
            Err(RequestError::Oversized)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Request::decode(&bytes);
            let _ = Reply::decode(&bytes);
        }

        #[test]
        fn what_is_decoded_can_be_sent_again(target in "[0-9a-f:./]{0,64}", reason in "[^\\p{Cc}]{0,200}") {
            let request = Request::Ban { target, duration_seconds: Some(1), reason: Some(reason) };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }
}
