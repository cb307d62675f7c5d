//! Who may ask what over the control socket, and what of it is written down.
//!
//! Whoever may connect (the socket is 0660, of the engine's user and group) may ask how things are; only root and the
//! engine's own user may change anything, and some things are root's alone. So whoever is to look on, the exporter for
//! one, is put into the group and can do no harm. Both lists name every request: a new one is not built before it is in
//! them.

use super::server::Peer;
use super::wire::Request;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// It changes nothing: whoever may connect.
    Ask,
    /// It changes something, or makes the engine write: root, and the engine's own user.
    Order,
    /// It decides what others believe (the audit log, a self-test) or what stands in root's files: root.
    Root,
}

impl Right {
    /// What `request` needs.
    pub fn to(request: &Request) -> Right {
        match request {
            Request::Status {}
            | Request::Health {}
            | Request::Stats { .. }
            | Request::List {}
            | Request::Webhooks {}
            | Request::State {} => Right::Ask,
            Request::Ban { .. }
            | Request::Unban { .. }
            | Request::Reload {}
            | Request::Snapshot {}
            | Request::WebhookRetry { .. }
            | Request::StateReset {}
            | Request::StateImport(_) => Right::Order,
            Request::Try { .. }
            | Request::Confirm {}
            | Request::GoBack { .. }
            | Request::AuditNote { .. }
            | Request::SelftestBegin { .. }
            | Request::SelftestLook { .. }
            | Request::SelftestEnd {} => Right::Root,
        }
    }

    /// Why `peer` has it not, if so; `own` is the engine's user.
    pub fn missing(self, peer: Peer, own: u32) -> Option<String> {
        let uid = peer.uid;
        match self {
            _ if uid == 0 => None,
            Right::Ask => None,
            Right::Order => (uid != own).then(|| {
                format!(
                    "only root may change anything, and uid {uid} asks; whoever is in the socket's group may look"
                )
            }),
            Right::Root => Some(format!("only root may do that, and uid {uid} asks")),
        }
    }
}

/// Whether `request` is an order that goes into the audit log when it is carried out. A self-test and a note write their
/// own record.
pub fn is_audited(request: &Request) -> bool {
    match request {
        Request::Status {}
        | Request::Health {}
        | Request::Stats { .. }
        | Request::List {}
        | Request::Webhooks {}
        | Request::State {}
        | Request::AuditNote { .. }
        | Request::SelftestBegin { .. }
        | Request::SelftestLook { .. }
        | Request::SelftestEnd {} => false,
        Request::Ban { .. }
        | Request::Unban { .. }
        | Request::Reload {}
        | Request::Try { .. }
        | Request::Confirm {}
        | Request::GoBack { .. }
        | Request::Snapshot {}
        | Request::WebhookRetry { .. }
        | Request::StateReset {}
        | Request::StateImport(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;

    /// Whether root, the engine's user and a member of the group may.
    fn may(request: &Request) -> [bool; 3] {
        [0, OWN, 1000].map(|uid| {
            let peer = Peer { uid, gid: 7, pid: 1 };
            Right::to(request).missing(peer, OWN).is_none()
        })
    }

    #[test]
    fn the_group_may_look_the_engine_s_user_may_order_and_the_rest_is_root_s() {
        for question in [Request::Status {}, Request::Stats { top: 3 }, Request::State {}] {
            assert_eq!(may(&question), [true; 3], "{question:?}");
            assert!(!is_audited(&question));
        }
        let target = || "203.0.113.9".to_owned();
        for order in [
            Request::Reload {},
            Request::StateReset {},
            Request::WebhookRetry { endpoint: None },
            Request::Unban { target: target() },
        ] {
            assert_eq!(may(&order), [true, true, false], "{order:?}");
            assert!(is_audited(&order));
        }
        for root in [
            Request::Confirm {},
            Request::GoBack { until_ms: None },
            Request::SelftestEnd {},
        ] {
            assert_eq!(may(&root), [true, false, false], "{root:?}");
        }
    }

    #[test]
    fn who_may_not_reads_who_may_and_who_he_is() {
        let peer = Peer {
            uid: 1000,
            gid: 7,
            pid: 1,
        };
        for right in [Right::Order, Right::Root] {
            let why = right.missing(peer, OWN).unwrap();
            assert!(why.contains("only root") && why.contains("uid 1000"), "{why}");
        }
    }
}
