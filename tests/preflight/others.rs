//! Machines with other programs on them.

use std::process::Command;

use crate::common::engine::{DETECTION, FIREWALL};
use crate::common::flow::connect;
use crate::common::lab::{HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::common::{secs, within};
use crate::machine::Files;

#[test]
fn a_bare_machine_can_do_it_and_nothing_is_left_behind() {
    let ns = Namespace::new("preflight");
    let before = ns.nft_list(&["list", "ruleset"]);
    let found = Files::new(FIREWALL).check(&ns);
    assert_eq!((found.code, found.acts()), (0, vec![]), "{found}");
    for word in [
        "packet",
        "table",
        "log",
        "socket",
        "queues",
        "log-groups",
        "boot-table",
        "tables-before",
    ] {
        assert_eq!(found.level(word), "fine", "{word}: {found}");
    }
    assert_eq!(ns.nft_list(&["list", "ruleset"]), before);
    assert_eq!(ns.conntrack_count(), 0);
}

#[test]
fn a_holder_of_queues_and_a_listener_to_conntrack_are_named() {
    let ns = Namespace::new("preflight");
    let mut queue = ns.inside(nfq::Queue::open).unwrap();
    queue.bind(0).unwrap();
    queue.bind(4101).unwrap();
    let listener = ns.start(Command::new("conntrack").args(["-E"]));
    let files = Files::new(&format!("{DETECTION}[engine]\nworkers = 2\nqueue_base = 4100\n"));
    let listens = || files.check(&ns).what("ct-listeners").contains("(conntrack (pid ");
    assert!(within(secs(30), listens), "{}", files.check(&ns));
    let found = files.check(&ns);
    assert_eq!(
        (found.code, found.acts()),
        (1, vec!["queues".to_owned()]),
        "{found}"
    );
    let queues = found.what("queues");
    let me = format!("(pid {}) holds queue 4101", std::process::id());
    assert!(
        queues.starts_with("engine.queue_base = 4100 cannot be had") && queues.ends_with(&me),
        "{queues}"
    );
    drop(listener);
    // Free ones are looked for without that key.
    let found = Files::new(DETECTION).check(&ns);
    assert_eq!(found.level("queues"), "fine", "{found}");
    assert!(
        found
            .what("queues")
            .contains("holds queue 0 and 4101; the engine takes the next free ones"),
        "{found}"
    );
    drop(queue);
}

/// Chains as ufw, Docker and fail2ban call them.
const OTHERS: &str = "
table ip filter {
    chain DOCKER-USER { }
    chain ufw-user-input { tcp dport 22 accept; }
    chain ufw-before-input { ct state established accept; jump ufw-user-input; }
    chain INPUT { type filter hook input priority 0; policy drop; jump ufw-before-input; }
}
table ip nat {
    chain DOCKER {
        tcp dport 8080 dnat to 172.17.0.2:80;
        ip daddr 127.0.0.1 tcp dport 5432 dnat to 172.17.0.3;
        ip daddr 127.0.0.0/8 tcp dport 5433 dnat to 172.17.0.3;
        tcp dport 79-81 dnat to 172.17.0.4;
    }
    chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local jump DOCKER; }
}
table ip6 nat {
    chain PREROUTING {
        type nat hook prerouting priority -100;
        ip6 daddr ::1 tcp dport 5434 dnat to fd00::1;
    }
}
table inet f2b-table {
    chain f2b-chain { type filter hook input priority -1; tcp dport 22 reject; }
}
table ip raw {
    chain PREROUTING { type filter hook prerouting priority -300; ip saddr 198.51.100.0/24 drop; }
}";

#[test]
fn tables_of_others_are_told_by_where_they_stand_and_whose_they_are() {
    let ns = Namespace::new("preflight");
    ns.nft(OTHERS);
    let before = ns.nft_list(&["list", "ruleset"]);
    let found = Files::new(FIREWALL).check(&ns);
    assert_eq!(found.code, 1, "{found}");
    assert_eq!(found.acts(), ["published"], "{found}");
    let raw = found.what("tables-before");
    assert!(
        raw.starts_with(
            "table ip raw can drop in prerouting PREROUTING (priority -300) after the engine's bans"
        ),
        "{raw}"
    );
    let after = found.all("tables-after");
    let ufw = after.iter().find(|one| one[1].contains("(Docker and ufw)"));
    assert!(
        ufw.is_some_and(|one| one[2].ends_with("ufw allow 443/tcp")),
        "{after:?}"
    );
    assert_eq!(
        after.len(),
        1,
        "who only bans has no port to be opened: {after:?}"
    );
    assert!(
        found.one("other-bans")[2].contains("fail2ban-client unban"),
        "{found}"
    );
    let published = found.what("published");
    assert!(
        published.contains("serve tcp 79-81 and tcp 8080 through")
            && published.ends_with("closes tcp 79, tcp 81 and tcp 8080"),
        "{published}"
    );
    assert_eq!(ns.nft_list(&["list", "ruleset"]), before);
}

#[test]
fn our_table_in_what_boot_loads_is_found_through_an_include() {
    let ns = Namespace::new("preflight");
    let files = Files::new(DETECTION);
    files.write(
        "etc/nftables.conf",
        "#!/usr/sbin/nft -f\nflush ruleset\ninclude \"/etc/nftables.d/*.nft\"\n",
    );
    let found = files.check(&ns);
    assert_eq!((found.code, &*found.level("boot-table")), (0, "fine"), "{found}");
    assert!(
        found
            .what("boot-flush")
            .starts_with("\"flush ruleset\" in /etc/nftables.conf:2 "),
        "{found}"
    );
    files.write("etc/nftables.d/saved.nft", include_str!("../../nft/verdictd.nft"));
    let found = files.check(&ns);
    assert_eq!(
        (found.code, found.acts()),
        (1, vec!["boot-table".to_owned()]),
        "{found}"
    );
    assert!(
        found
            .what("boot-table")
            .contains("stands in /etc/nftables.d/saved.nft:"),
        "{found}"
    );
    let meant = Files::new(&format!(
        "{DETECTION}[engine]\nmanage_ruleset = false\nworkers = 2\nqueue_base = 4100\nlog_base = 4100\n"
    ));
    meant.write("etc/nftables.conf", include_str!("../../nft/verdictd.nft"));
    assert_eq!(meant.check(&ns).level("boot-table"), "fine");
}

#[test]
fn one_address_before_all_others_is_seen_and_what_a_filter_closes() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 8088]);
    let open: Vec<_> = (0..12)
        .map(|_| connect(&lab.attacker, HOST, 80).unwrap())
        .collect();
    let found = Files::new(FIREWALL).check(&lab.host);
    // Whoever it is, he is not to be trusted for it.
    assert_eq!(found.level("proxy"), "note", "{found}");
    assert!(
        found
            .what("proxy")
            .starts_with("12 of 12 connections come from 10.77.0.1:"),
        "{found}"
    );
    assert!(found.what("listeners").contains("closes tcp 8088 on"), "{found}");
    let trusting = Files::new(&format!("{FIREWALL}[trusted]\nips = [\"10.77.0.0/24\"]\n"));
    let found = trusting.check(&lab.host);
    assert_eq!(found.acts(), ["trusted"], "{found}");
    drop(open);
}
