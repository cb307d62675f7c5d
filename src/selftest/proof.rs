//! What was proved, step by step, and what was not: as text for people and as JSON for scripts.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::wire::SelftestPlan;

/// One thing that was shown to be so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its word: `engine`, `device`, `answers`, `counted`, `banned`, `crossing`, `dropped`, `others`, `recorded`,
    /// `passes`, `scratch`, `gone`; `note` is what could not be shown here, and why.
    pub step: &'static str,
    /// What was seen, in words.
    pub seen: String,
    /// How long what it is about took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

/// Everything that was proved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Always true; false in [`Failed`].
    pub proved: bool,
    /// What the engine is and does.
    pub engine: SelftestPlan,
    /// In their order.
    pub steps: Vec<Step>,
    /// How long it all took, in milliseconds.
    pub ms: f64,
}

/// What was not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failed {
    /// Always false.
    pub proved: bool,
    /// The step that failed.
    pub step: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Where to look for the cause.
    pub look_at: String,
    /// Whose failure it is.
    pub cause: Cause,
    /// What was proved before.
    pub steps: Vec<Step>,
}

/// Whose failure a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The engine, or its table, did not do what is expected of it.
    Engine,
    /// No engine runs there.
    NotRunning,
    /// The test could not be made, or not to its end, which says nothing of the engine.
    CannotRun,
}

/// One failure, before the steps are added.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) step: &'static str,
    pub(super) expected: String,
    pub(super) seen: String,
    pub(super) look_at: String,
    pub(super) cause: Cause,
}

impl Fault {
    pub(super) fn new(
        step: &'static str,
        expected: impl Into<String>,
        seen: impl Into<String>,
        look_at: impl Into<String>,
    ) -> Fault {
        Fault {
            step,
            expected: expected.into(),
            seen: seen.into(),
            look_at: look_at.into(),
            cause: Cause::Engine,
        }
    }

    /// The same, where it says nothing of the engine.
    pub(super) fn of_the_test(self) -> Fault {
        Fault {
            cause: Cause::CannotRun,
            ..self
        }
    }

    pub(super) fn interrupted() -> Fault {
        Fault::new(
            "interrupted",
            "to be left alone until the end",
            "a signal",
            "nothing: all is taken away, run it again",
        )
        .of_the_test()
    }
}

/// The steps so far.
#[derive(Debug)]
pub(super) struct Record {
    begun: Instant,
    pub(super) engine: SelftestPlan,
    steps: Vec<Step>,
}

impl Record {
    pub(super) fn new() -> Record {
        Record {
            begun: Instant::now(),
            engine: SelftestPlan::default(),
            steps: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, step: &'static str, took: Option<Duration>, seen: impl Into<String>) {
        self.steps.push(Step {
            step,
            seen: seen.into(),
            ms: took.map(milliseconds),
        });
    }

    pub(super) fn proof(self) -> Proof {
        Proof {
            proved: true,
            engine: self.engine,
            steps: self.steps,
            ms: milliseconds(self.begun.elapsed()),
        }
    }

    pub(super) fn failed(self, fault: Fault) -> Failed {
        Failed {
            proved: false,
            step: fault.step,
            expected: fault.expected,
            seen: fault.seen,
            look_at: fault.look_at,
            cause: fault.cause,
            steps: self.steps,
        }
    }
}

/// To a hundredth: more is noise.
fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 100_000.0).round() / 100.0
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.step == "note" { "  " } else { "ok" };
        write!(f, "{mark}  {:<9} {}", self.step, self.seen)?;
        self.ms.map_or(Ok(()), |ms| write!(f, " ({ms} ms)"))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        let what = match self.engine.enforce {
            true => "a scanner is found out, banned and dropped, and nobody else",
            false => "a scanner is found out and recorded, and nothing is dropped (bans.enforce = false)",
        };
        write!(f, "PROVED in {} ms: {what}", self.ms)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        writeln!(f, "FAILED {}", self.step)?;
        writeln!(f, "    expected: {}", self.expected)?;
        writeln!(f, "    seen:     {}", self.seen)?;
        write!(f, "    look at:  {}", self.look_at)
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_was_proved_before_and_where_to_look() {
        let mut record = Record::new();
        record.add(
            "banned",
            Some(Duration::from_micros(2_504)),
            "192.0.2.10 is in banned4",
        );
        record.add("note", None, "nothing answers");
        let failed = record.failed(Fault::new("dropped", "no answer", "a RST", "the table"));
        assert_eq!(
            failed.to_string(),
            "ok  banned    192.0.2.10 is in banned4 (2.5 ms)\n    note      nothing answers\nFAILED dropped\n    \
             expected: no answer\n    seen:     a RST\n    look at:  the table"
        );
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!(
            (&json["proved"], &json["steps"][0]["ms"]),
            (&false.into(), &2.5.into())
        );
        assert_eq!(json["steps"][1].get("ms"), None);
    }
}
