//! Orders of operators go through here: what changes something is written down with who asked for it, and under
//! `on_audit_failure = "closed"` it is on the disk before it is done.

use serde_json::Value;

use super::handler::Running;
use super::herald::Herald;
use crate::audit::log::Audit;
use crate::audit::record::{Note, Outcome, What};
use crate::audit::who::Who;
use crate::control::rights::is_audited;
use crate::control::server::Peer;
use crate::control::wire::{NoteKind, NoteResult, Reply, Request};
use crate::webhook::event;

/// Has `act` carry out `request` of `peer`, who has the right to it, unless it would have to be written down and cannot
/// be.
pub fn recorded(audit: &Audit, request: Request, peer: Peer, act: impl FnOnce(Request) -> Reply) -> Reply {
    if !audit.is_on() || !is_audited(&request) {
        return act(request);
    }
    let order = Order::of(&request, peer);
    let first = audit.comes_first();
    let refused = audit.refuses().or_else(|| {
        let unwritten = first && !audit.confirm(order.ended(Outcome::Asked, None));
        unwritten.then(|| audit.refuses().unwrap_or_else(|| UNWRITTEN.to_owned()))
    });
    if let Some(why) = refused {
        audit.note(|| order.ended(Outcome::Refused, Some(why.clone())));
        return Reply::refused(why);
    }
    let reply = act(request);
    let (result, message) = match &reply {
        Reply::Refused { message } => (Outcome::Refused, Some(message.clone())),
        Reply::Undecided { message } => (Outcome::Asked, Some(message.clone())),
        _ => (Outcome::Done, None),
    };
    // Done is done: if this cannot be written now, it is when the log can.
    audit.confirm(order.ended(result, message));
    reply
}

/// What is written down of an order.
pub(super) struct Order {
    name: String,
    arguments: Value,
    who: Who,
}

impl Order {
    /// `request`, given by `peer`.
    pub(super) fn of(request: &Request, peer: Peer) -> Order {
        let (name, arguments) = parts(request);
        Order {
            name,
            arguments,
            who: Who::of(peer.uid, peer.gid, peer.pid),
        }
    }

    /// With what became of it.
    pub(super) fn ended(&self, result: Outcome, message: Option<String>) -> What {
        What::Operator {
            request: self.name.clone(),
            arguments: self.arguments.clone(),
            who: self.who.clone(),
            result,
            message,
        }
    }
}

/// Writes down what another part of the program found out, and tells other systems of what they should know.
pub fn note(
    audit: &Audit,
    herald: &Herald,
    kind: NoteKind,
    result: NoteResult,
    detail: String,
    peer: Peer,
) -> Reply {
    match (kind, result) {
        (NoteKind::Integrity, NoteResult::Failed) => {
            herald.tell(|now| event::integrity_violation(now, &detail));
        }
        (NoteKind::Selftest, NoteResult::Failed) => herald.tell(|now| event::selftest_failed(now, &detail)),
        _ => {}
    }
    if !audit.is_on() {
        return Reply::Noted { written: false };
    }
    let note = Note {
        result: match result {
            NoteResult::Ok => "ok".into(),
            NoteResult::Failed => "failed".into(),
        },
        detail,
        who: Who::of(peer.uid, peer.gid, peer.pid),
    };
    let written = audit.confirm(match kind {
        NoteKind::Integrity => What::Integrity(note),
        NoteKind::Selftest => What::Selftest(note),
        NoteKind::Monitor => What::Monitor(note),
    });
    Reply::Noted { written }
}

/// What is written down of a reload: `before` and `now` are what was and is in force.
pub fn reloaded(by: &'static str, before: &Running, now: &Running, reply: &Reply) -> What {
    let (result, changes, message) = match reply {
        Reply::Reloaded(changes) => (Outcome::Done, changes.clone(), None),
        Reply::Refused { message } => (Outcome::Refused, Vec::new(), Some(message.clone())),
        _ => (Outcome::Done, Vec::new(), None),
    };
    What::Config {
        by,
        result,
        before_sha256: before.config.sha256.clone(),
        after_sha256: (result == Outcome::Done).then(|| now.config.sha256.clone()),
        changes,
        message,
    }
}

/// The name of a request and what it says besides, as they are on the wire.
fn parts(request: &Request) -> (String, Value) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(request) else {
        return (String::new(), Value::Null);
    };
    let name = fields
        .remove("request")
        .and_then(|name| name.as_str().map(str::to_owned));
    fields.retain(|_, value| !value.is_null());
    (name.unwrap_or_default(), Value::Object(fields))
}

const UNWRITTEN: &str =
    "it could not be written down within 3 s, and on_audit_failure = \"closed\": see verdictctl status";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_name_and_what_it_says() {
        let request = Request::Ban {
            target: "203.0.113.9".into(),
            duration_seconds: Some(60),
            reason: None,
        };
        let (name, arguments) = parts(&request);
        assert_eq!(name, "ban");
        assert_eq!(
            arguments.to_string(),
            "{\"duration_seconds\":60,\"target\":\"203.0.113.9\"}"
        );
    }

    #[test]
    fn without_a_log_everything_is_done_and_nothing_noted() {
        let peer = Peer {
            uid: 7,
            gid: 7,
            pid: 0,
        };
        let audit = Audit::default();
        let done = recorded(&audit, Request::Reload {}, peer, |_| Reply::Reloaded(Vec::new()));
        assert_eq!(done, Reply::Reloaded(Vec::new()));
        let (herald, detail) = (Herald::default(), String::new());
        let noted = note(&audit, &herald, NoteKind::Integrity, NoteResult::Ok, detail, peer);
        assert_eq!(noted, Reply::Noted { written: false });
    }
}
