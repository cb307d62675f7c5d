//! What is not ours or not allowed is refused in clear words, and left as it was.

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use verdictd::kernel::netlink::{Builder, Netlink, nfnl_type};
use verdictd::kernel::ruleset::{Ruleset, RulesetError, Spec, apply, delete, probe_backend, read};

use crate::rig::{Rig, firewall, netlink};

#[test]
fn a_foreign_table_is_refused_and_left_alone() {
    for mark in ["", "comment \"my own table\";"] {
        let mut rig = Rig::new();
        let _ = rig.ns.nft(&format!(
            "table inet verdictd {{ {mark} chain pre {{ type filter hook input priority 0; tcp dport 1 drop; }}; }}"
        ));
        let before = rig.list();
        let errors = [
            rig.try_apply(&firewall()).expect_err("it is not ours"),
            delete(&mut rig.netlink).expect_err("it is not ours"),
            read(&mut rig.netlink).map(drop).expect_err("it is not ours"),
        ];
        for error in errors {
            assert!(matches!(error, RulesetError::Foreign), "{error}");
            assert!(
                error.to_string().contains("nft delete table inet verdictd"),
                "{error}"
            );
        }
        assert_eq!(rig.list(), before);
    }
}

#[test]
fn tables_of_other_names_are_never_touched() {
    let mut rig = Rig::new();
    let _ = rig
        .ns
        .nft("table inet other { set banned4 { type ipv4_addr; }; chain pre { tcp dport 1 drop; }; }");
    let list = |rig: &Rig| rig.ns.nft_list(&["list", "table", "inet", "other"]);
    let before = list(&rig);
    rig.apply(&firewall());
    rig.apply(&firewall());
    delete(&mut rig.netlink).expect("ours is gone");
    assert_eq!(list(&rig), before);
    assert_eq!(rig.ns.nft_list(&["list", "tables"]), "table inet other\n");
}

#[test]
fn deleting_what_is_not_there_is_fine() {
    let mut rig = Rig::new();
    delete(&mut rig.netlink).expect("nothing to do");
    rig.apply(&firewall());
    delete(&mut rig.netlink).expect("ours is gone");
    assert_eq!(rig.ns.nft_list(&["list", "tables"]), "");
}

#[test]
fn a_table_with_an_owner_names_the_owner() {
    for mark in ["verdictd: owned", "somebody's own"] {
        let mut rig = Rig::new();
        let mut owner = netlink(&rig.ns);
        own_table(&mut owner, mark);
        let errors = [
            rig.try_apply(&firewall()).expect_err("it has an owner"),
            delete(&mut rig.netlink).expect_err("it has an owner"),
        ];
        for error in errors {
            let portid = owner.portid();
            let named = matches!(error, RulesetError::Owned { portid: named } if named == portid);
            assert!(
                named && error.to_string().contains(&portid.to_string()),
                "{error}"
            );
        }
        assert_eq!(rig.ns.nft_list(&["list", "chains"]), "table inet verdictd {\n}\n");
    }
}

/// A table that only `owner` may change (NFT_TABLE_F_OWNER).
fn own_table(owner: &mut Netlink, mark: &str) {
    let seqs = owner.take_seqs(1);
    let mut batch = Builder::new();
    batch.batch_begin(0);
    let kind = nfnl_type(libc::NFNL_SUBSYS_NFTABLES, libc::NFT_MSG_NEWTABLE);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    batch.nfnetlink(kind, flags, seqs.start, libc::NFPROTO_INET, 0);
    batch.put_str(1, "verdictd").put_be32(2, 2);
    let comment = [&[0, mark.len() as u8 + 1], mark.as_bytes(), &[0]].concat();
    batch.put(6, &comment);
    batch.batch_end(0);
    owner
        .transact(batch.bytes(), seqs)
        .expect("a table with an owner");
}

#[test]
fn without_the_capability_the_error_says_which() {
    let rig = Rig::new();
    let errors = rig.ns.inside(|| {
        // Of this thread alone, which ends here.
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).expect("fewer capabilities");
        let mut netlink = Netlink::open(mnl::Bus::Netfilter).expect("a netlink socket");
        [
            apply(&mut netlink, &Ruleset::build(&firewall()))
                .map(drop)
                .expect_err("not permitted"),
            delete(&mut netlink).expect_err("not permitted"),
            read(&mut netlink).map(drop).expect_err("not permitted"),
            probe_backend(&mut netlink).map(drop).expect_err("not permitted"),
        ]
    });
    for error in errors {
        assert_eq!(
            error.to_string(),
            "cannot change nftables: this needs CAP_NET_ADMIN (run as root, or give the unit \
             AmbientCapabilities=CAP_NET_ADMIN)"
        );
    }
}

#[test]
fn a_set_of_bans_of_another_kind_is_not_replaced() {
    let mut rig = Rig::new();
    let _ = rig.ns.nft(
        "table inet verdictd { comment \"verdictd: by hand\"; set banned4 { type ipv4_addr; flags interval; \
         elements = { 203.0.113.0/24 }; }; }",
    );
    let before = rig.list();
    let error = rig.try_apply(&firewall()).expect_err("bans are in it");
    assert!(
        error.to_string().starts_with("set \"banned4\" of table"),
        "{error}"
    );
    assert_eq!(rig.list(), before);
}

#[test]
fn a_chain_of_another_hook_is_not_replaced() {
    let mut rig = Rig::new();
    let _ = rig.ns.nft(
        "table inet verdictd { comment \"verdictd: by hand\"; chain pre { type filter hook input priority 0; }; }",
    );
    let before = rig.list();
    let error = rig
        .try_apply(&firewall())
        .expect_err("base chains are not deleted");
    assert!(error.to_string().starts_with("chain \"pre\" of table"), "{error}");
    assert_eq!(rig.list(), before);
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let mut rig = Rig::new();
    let spec = Spec {
        internal_interfaces: vec!["*".into()],
        ..firewall()
    };
    let error = rig.try_apply(&spec).expect_err("nothing to compare");
    assert!(
        error.to_string().contains("rule `iifname \"*\" accept"),
        "{error}"
    );
    assert_eq!(rig.list(), "");
}
