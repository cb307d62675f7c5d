//! Who may ask what over the control socket.
//!
//! Whoever may connect (the socket is 0660, of the engine's user and group) may ask how things are; only root and the
//! engine's own user may change anything. So whoever is to look on, the exporter for one, is put into the group and can
//! do no harm. Fails closed: a request belongs to the orders unless it is listed as a question.

use super::server::Peer;
use super::wire::Request;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// It changes nothing: whoever may connect.
    Ask,
    /// It changes something, or makes the engine write: root, and the engine's own user.
    Order,
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
            | Request::SelftestLook { .. }
            | Request::State {} => Right::Ask,
            _ => Right::Order,
        }
    }

    /// Why `peer` has it not, if so; `own` is the engine's user.
    pub fn missing(self, peer: Peer, own: u32) -> Option<String> {
        let may = self == Right::Ask || peer.uid == 0 || peer.uid == own;
        (!may).then(|| {
            format!(
                "only root may change anything, and uid {} asks; whoever is in the socket's group may look",
                peer.uid
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_look_and_root_and_the_engine_s_user_may_order() {
        let peer = |uid| Peer { uid, gid: 7, pid: 1 };
        let orders = [
            Request::Reload {},
            Request::Snapshot {},
            Request::StateReset {},
            Request::SelftestEnd {},
            Request::WebhookRetry { endpoint: None },
            Request::Unban {
                target: "203.0.113.9".into(),
            },
        ];
        for order in orders {
            let right = Right::to(&order);
            assert_eq!(right.missing(peer(0), 990), None);
            assert_eq!(right.missing(peer(990), 990), None);
            let why = right.missing(peer(1000), 990).unwrap();
            assert!(why.contains("uid 1000"), "{why}");
        }
        for question in [
            Request::Status {},
            Request::Stats { top: 3 },
            Request::List {},
            Request::State {},
        ] {
            assert_eq!(Right::to(&question).missing(peer(1000), 990), None);
        }
    }
}
