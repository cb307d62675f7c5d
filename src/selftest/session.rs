//! The conversation with the engine: a self-test begun there is ended there, whatever happens here.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::proof::{Cause, Fault, Record};
use super::range::Place;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{Reply, Request, SelftestPlan, SelftestState};

/// A self-test that the engine knows of; ended when dropped.
pub(super) struct Session {
    client: Client,
    pub(super) place: Place,
    pub(super) plan: SelftestPlan,
    /// When the engine last said that it is under way.
    known: Instant,
    open: bool,
}

impl Session {
    /// Begins at the first of `places` that the engine has nothing against.
    pub(super) fn begin(client: Client, places: Vec<Place>, record: &mut Record) -> Result<Session, Fault> {
        let mut refusals: Vec<String> = Vec::new();
        for place in places {
            let asked = Instant::now();
            let begin = Request::SelftestBegin {
                source: place.source.into(),
                witness: place.witness.into(),
            };
            match client.ask(&begin).map_err(|error| unanswered(&error))? {
                Reply::Selftest(plan) => {
                    record.engine = SelftestPlan::clone(&plan);
                    record.add("engine", Some(asked.elapsed()), introduce(&plan));
                    return Ok(Session {
                        client,
                        place,
                        plan: *plan,
                        known: asked,
                        open: true,
                    });
                }
                Reply::Refused { message } | Reply::Undecided { message } => {
                    let about = |addr: Ipv4Addr| message.starts_with(&format!("{addr} "));
                    let elsewhere = about(place.source) || about(place.witness);
                    refusals.push(message);
                    // Whatever else it is, another range does not help.
                    if !elsewhere {
                        break;
                    }
                }
                _ => return Err(other_answer()),
            }
        }
        Err(Fault::new(
            "engine",
            "leave to scan from a documentation range (RFC 5737)",
            format!("the engine refuses: {}", refusals.join("; ")),
            "[trusted] of the configuration, verdictctl list, or another self-test that runs",
        )
        .of_the_test())
    }

    /// Asked before each packet is sent: an engine that was restarted knows of no self-test, and would take what it sees
    /// for the real thing.
    pub(super) fn is_under_way(&mut self) -> Result<(), Fault> {
        for _ in 0..ATTEMPTS {
            if self.known.elapsed() < FRESH {
                return Ok(());
            }
            self.look()?;
        }
        Err(Fault::new(
            "engine",
            format!("an answer within {} ms", FRESH.as_millis()),
            format!("{ATTEMPTS} that took longer"),
            "how busy this host is",
        )
        .of_the_test())
    }

    /// How far the engine is.
    pub(super) fn look(&mut self) -> Result<SelftestState, Fault> {
        let (source, asked) = (self.place.source.into(), Instant::now());
        match self.client.ask(&Request::SelftestLook { source }) {
            Ok(Reply::SelftestState(state)) => {
                self.known = asked;
                Ok(*state)
            }
            Ok(Reply::Refused { message } | Reply::Undecided { message }) => Err(Fault::new(
                "engine",
                "the self-test to be under way",
                format!("the engine refuses: {message}"),
                "its log: was it restarted meanwhile?",
            )
            .of_the_test()),
            Ok(_) => Err(other_answer()),
            Err(error) => Err(unanswered(&error)),
        }
    }

    /// It is over; when this returns the engine has forgotten it.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.open = false;
        match self.client.ask(&Request::SelftestEnd {}) {
            Ok(Reply::SelftestEnded {}) => Ok(()),
            Ok(Reply::Refused { message } | Reply::Undecided { message }) => Err(Fault::new(
                "gone",
                "the engine to forget the self-test",
                format!("it refuses: {message}"),
                "verdictctl list; what is left goes by itself within 30 s",
            )),
            Ok(_) => Err(other_answer()),
            Err(error) => Err(unanswered(&error)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            // The first failure is the one that is told; the engine ends by itself what it is not told of.
            let _ = self.end();
        }
    }
}

fn introduce(plan: &SelftestPlan) -> String {
    let bans = match (plan.enforce, plan.holds) {
        (false, _) => "offenders are recorded, not banned",
        (true, true) => "offenders are banned",
        (true, false) => "offenders are banned, packets judged by copies",
    };
    format!(
        "answers: mode {}, preset {}, {} ports tolerated, {bans}",
        plan.mode, plan.preset, plan.threshold
    )
}

fn unanswered(error: &ClientError) -> Fault {
    Fault {
        cause: match error {
            ClientError::NotRunning { .. } => Cause::NotRunning,
            _ => Cause::Engine,
        },
        ..Fault::new(
            "engine",
            "an answer on the control socket",
            error.to_string(),
            "systemctl status verdictd, its log",
        )
    }
}

fn other_answer() -> Fault {
    Fault::new(
        "engine",
        "an engine of this version",
        "an answer to something else",
        "verdictctl status: was the engine restarted after an upgrade?",
    )
}

/// An engine is not gone and another in its place within this time. An answer that was waiting for us is older than
/// that: it counts from when it was asked for.
const FRESH: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 40;
