//! `verdictctl state export`: the snapshot as it is, or one JSON document, record by record.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;

use super::{ALL, CliError, Client, ClientError, Exit, FolderArgs, Screen, unreadable, without_engine};
use crate::control::wire::{Reply, Request};
use crate::core::attack::Baseline;
use crate::core::verdict::{Asked, Proto};
use crate::engine::clock;
use crate::notify::text::plain_json;
use crate::state::peek;
use crate::state::survey::{self, second};
use crate::state::{SavedBan, SavedSource, SavedStanding, State};

pub(super) fn run(
    client: &Client,
    folder: &FolderArgs,
    as_json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let (path, none) = match client.ask(&Request::Snapshot {}) {
        Ok(Reply::Snapshot(view)) => (PathBuf::from(view.path), None),
        Ok(other) => return Err(CliError::other(other)),
        Err(none @ ClientError::NotRunning { .. }) => (folder.place().path(), Some(none)),
        Err(error) => return Err(error.into()),
    };
    match &none {
        None => from_file(&path, as_json, screen.out)?,
        Some(_) => at_rest(folder, as_json, screen.out)?,
    }
    none.map_or(Ok(Exit::Fine), |none| without_engine(&none, screen))
}

/// What the engine has just saved.
fn from_file(path: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let (file, state) = survey::read(path).map_err(|error| unreadable(path, error))?;
    write(file, &state, as_json, out)
}

/// What a start would find.
fn at_rest(folder: &FolderArgs, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let place = folder.place();
    let loaded = peek(&place, ALL);
    match (loaded.state, loaded.file) {
        (Some(state), None) if as_json => Ok(document(&state, out)?),
        (Some(state), Some(path)) => {
            let file = crate::files::open_to_read(&path).map_err(|error| unreadable(&path, error))?;
            write(file, &state, as_json, out)
        }
        _ => {
            let mut lines = loaded.troubles;
            lines.extend(loaded.notes);
            lines.push(format!("there is no state at {}", place.path().display()));
            Err(CliError::Lines(lines))
        }
    }
}

fn write(mut file: File, state: &State, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    if as_json {
        return Ok(document(state, out)?);
    }
    file.rewind()?;
    io::copy(&mut file, out)?;
    Ok(())
}

/// One record a line: `grep` finds a source in it, and no more than a record lies in memory twice.
fn document(state: &State, out: &mut dyn Write) -> io::Result<()> {
    let now = clock::moment();
    let times = Times {
        saved: state.saved.wall,
        passed: now.since(&state.saved),
    };
    let head = json!({
        "format": "verdictd-state",
        "version": 1,
        "saved_at": second(state.saved.wall),
        "as_of": second(now.wall),
        "seed": state.seed,
    });
    let head = head.to_string();
    write!(out, "{}", head.strip_suffix('}').unwrap_or(&head))?;
    array(out, "bans", state.bans.iter().map(|ban| times.ban(ban)))?;
    array(
        out,
        "ladder",
        state.ladder.iter().map(|standing| times.standing(standing)),
    )?;
    array(
        out,
        "windows",
        state.sources.iter().map(|source| times.window(source)),
    )?;
    writeln!(out, ",\n\"baseline\":{}}}", baseline(&state.usual))
}

fn array(out: &mut dyn Write, name: &str, records: impl Iterator<Item = impl Serialize>) -> io::Result<()> {
    write!(out, ",\n{name:?}:[")?;
    for (nth, record) in records.enumerate() {
        let comma = if nth > 0 { "," } else { "" };
        let text = serde_json::to_string(&record)?;
        write!(out, "{comma}\n{}", plain_json(&text))?;
    }
    write!(out, "\n]")
}

/// How ages and remainders become times.
struct Times {
    saved: OffsetDateTime,
    passed: Duration,
}

impl Times {
    fn ago(&self, age: Duration) -> Option<String> {
        let age = time::Duration::try_from(age).ok()?;
        self.saved.checked_sub(age).map(second)
    }

    fn ban(&self, ban: &SavedBan) -> impl Serialize + use<> {
        let left = ban
            .remaining
            .map(|left| left.saturating_sub(self.passed).as_secs());
        let until = ban.remaining.and_then(|left| time::Duration::try_from(left).ok());
        json!({
            "source": ban.source.to_string(),
            "reason": ban.reason.word(),
            "step": ban.step,
            "offences": ban.offences,
            "since": self.ago(ban.age),
            "until": until.and_then(|left| self.saved.checked_add(left)).map(second),
            "remaining_seconds": left,
            "enforced": ban.enforced,
            "note": ban.note,
        })
    }

    fn standing(&self, standing: &SavedStanding) -> impl Serialize + use<> {
        let count = |count: Option<(u32, Duration)>| count.map_or(0, |(offences, _)| offences);
        let last = |count: Option<(u32, Duration)>| count.and_then(|(_, age)| self.ago(age));
        json!({
            "source": standing.source.to_string(),
            "offences": count(standing.real),
            "last_offence": last(standing.real),
            "would_be": count(standing.would_be),
            "last_would_be": last(standing.would_be),
        })
    }

    fn window(&self, source: &SavedSource) -> impl Serialize + use<> {
        let touches = source.touches.iter().map(|(what, stealth, age)| {
            let what = match what {
                Asked::Port(Proto::Tcp, port) => format!("tcp/{port}"),
                Asked::Port(Proto::Udp, port) => format!("udp/{port}"),
                Asked::Protocol(number) => format!("ip/{number}"),
            };
            json!({ "asked": what, "at": self.ago(*age), "stealth": stealth })
        });
        json!({
            "source": source.source.to_string(),
            "first_seen": self.ago(source.age),
            "last_seen": self.ago(source.idle),
            "completed": source.completed,
            "touches": touches.collect::<Vec<_>>(),
        })
    }
}

fn baseline(usual: &Baseline) -> String {
    let ports = usual.ports.iter();
    let ports: Vec<_> = ports
        .map(|port| json!({ "port": port.port, "counted": port.counted }))
        .collect();
    let value = json!({
        "into_day_seconds": usual.into_day,
        "observed_seconds": usual.observed,
        "ports": ports,
    });
    value.to_string()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::core::attack::PortBaseline;
    use crate::core::verdict::BanReason;
    use crate::state::Moment;

    #[test]
    fn the_document_names_everything_in_absolute_times() {
        let hour = Duration::from_secs(3600);
        let source = "203.0.113.9".parse().unwrap();
        let state = State {
            saved: Moment {
                wall: datetime!(2026-03-01 12:00 UTC),
                boot: None,
            },
            generation: Some(3),
            seed: Some(7),
            sources: vec![SavedSource {
                source,
                age: hour,
                idle: Duration::ZERO,
                completed: Some(vec![443]),
                touches: vec![
                    (Asked::Port(Proto::Udp, 53), 1, hour),
                    (Asked::Protocol(47), 0, hour),
                ],
            }],
            ladder: vec![SavedStanding {
                source,
                real: Some((2, hour)),
                would_be: None,
            }],
            usual: Baseline {
                ports: vec![PortBaseline {
                    port: 22,
                    counted: Default::default(),
                }],
                ..Baseline::default()
            },
            bans: vec![SavedBan {
                source,
                reason: BanReason::Manual,
                step: 0,
                offences: 2,
                age: hour,
                remaining: None,
                enforced: true,
                note: Some("a\u{202e}b".into()),
            }],
            skipped: 0,
        };
        let mut out = Vec::new();
        document(&state, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\\u202e") && !text.contains('\u{202e}'), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["saved_at"], "2026-03-01T12:00:00Z");
        assert_eq!(value["bans"][0]["since"], "2026-03-01T11:00:00Z");
        assert_eq!(value["bans"][0]["until"], serde_json::Value::Null);
        assert_eq!(value["ladder"][0]["last_offence"], "2026-03-01T11:00:00Z");
        assert_eq!(value["windows"][0]["touches"][0]["asked"], "udp/53");
        assert_eq!(value["windows"][0]["completed"][0], 443);
        assert_eq!(value["baseline"]["ports"][0]["port"], 22);
        let nothing = State {
            sources: Vec::new(),
            ladder: Vec::new(),
            bans: Vec::new(),
            ..state
        };
        let mut out = Vec::new();
        document(&nothing, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["bans"], json!([]));
    }
}
