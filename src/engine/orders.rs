//! Orders of operators go through here: what changes something is written down with who asked for it, and under
//! `on_audit_failure = "closed"` it is on the disk before it is done.

use serde_json::Value;

use super::handler::Running;
use super::herald::Herald;
use crate::audit::log::Audit;
use crate::audit::record::{Note, Outcome, What};
use crate::audit::who::Who;
use crate::control::server::Peer;
use crate::control::wire::{NoteKind, NoteResult, Reply, Request};
use crate::webhook::event;

/// Has `act` carry out `request` of `peer`, unless it would have to be written down and cannot be.
pub fn recorded(audit: &Audit, request: Request, peer: Peer, act: impl FnOnce(Request) -> Reply) -> Reply {
    let (name, arguments) = parts(&request);
    let is_note = matches!(request, Request::AuditNote { .. }) && peer.uid == 0;
    if !audit.is_on() || is_note || QUESTIONS.contains(&name.as_str()) {
        return act(request);
    }
    let who = Who::of(peer.uid, peer.gid, peer.pid);
    let order = |result, message| What::Operator {
        request: name.clone(),
        arguments: arguments.clone(),
        who: who.clone(),
        result,
        message,
    };
    let first = audit.comes_first();
    let refused = audit.refuses().or_else(|| {
        let unwritten = first && !audit.confirm(order(Outcome::Asked, None));
        unwritten.then(|| audit.refuses().unwrap_or_else(|| UNWRITTEN.to_owned()))
    });
    if let Some(why) = refused {
        audit.note(|| order(Outcome::Refused, Some(why.clone())));
        return Reply::refused(why);
    }
    let reply = act(request);
    let (result, message) = match &reply {
        Reply::Refused { message } => (Outcome::Refused, Some(message.clone())),
        Reply::Undecided { message } => (Outcome::Asked, Some(message.clone())),
        _ => (Outcome::Done, None),
    };
    // Done is done: if this cannot be written now, it is when the log can.
    audit.confirm(order(result, message));
    reply
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
    if peer.uid != 0 {
        return Reply::refused("only root may write into the audit log");
    }
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

/// They change nothing, and some are asked every minute. What is not listed is an order.
const QUESTIONS: [&str; 9] = [
    "status",
    "state",
    "stats",
    "list",
    "webhooks",
    "health",
    "selftest_begin",
    "selftest_look",
    "selftest_end",
];
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
        for question in [
            Request::Status {},
            Request::Health {},
            Request::Stats { top: 1 },
            Request::List {},
            Request::Webhooks {},
        ] {
            assert!(QUESTIONS.contains(&parts(&question).0.as_str()));
        }
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
        let noted = |uid| {
            note(
                &audit,
                &Herald::default(),
                NoteKind::Integrity,
                NoteResult::Ok,
                String::new(),
                Peer { uid, ..peer },
            )
        };
        assert_eq!(noted(0), Reply::Noted { written: false });
        assert!(matches!(noted(7), Reply::Refused { .. }));
    }
}
