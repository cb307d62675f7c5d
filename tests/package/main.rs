//! The packages as dpkg meets them, in a Debian that is thrown away: installed, run, removed, upgraded, downgraded,
//! purged, and over what others left. Needs root.
//!
//! systemd as the first process, with the real units, is tests/vm's; here it is one that notes what it is asked.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../common/mod.rs"]
#[allow(dead_code)] // what other tests use
mod common;
mod debs;
mod host;
mod sealed;
mod services;
mod words;

use std::collections::BTreeSet;

use host::Host;

/// Owner, group and mode of what the engine needs.
const DRESSED: [(&str, &str); 10] = [
    ("/etc/verdictd", "root:verdictd 750"),
    ("/etc/verdictd/verdictd.toml", "root:verdictd 640"),
    ("/etc/verdictd/verdictd.nft", "root:verdictd 640"),
    ("/var/lib/verdictd", "verdictd:verdictd 750"),
    ("/var/log/verdictd", "verdictd:verdictd 750"),
    ("/usr/bin/verdictd", "root:root 755"),
    ("/usr/bin/verdictctl", "root:root 755"),
    ("/usr/lib/verdictd/seal-fits", "root:root 755"),
    ("/usr/lib/systemd/system/verdictd.service", "root:root 644"),
    (
        "/usr/lib/systemd/system/verdictd-monitor.service",
        "root:root 644",
    ),
];

#[test]
fn installed_it_observes_and_what_it_holds_goes_as_it_came() {
    let host = Host::new();
    let before = host.files();

    let said = host.dpkg("-i /debs/verdictd_1.deb");
    assert!(said.contains("OBSERVING: nothing is dropped"), "{said}");
    for (path, dressed) in DRESSED {
        assert_eq!(
            host.must(&format!("stat -c '%U:%G %a' {path}")).trim(),
            dressed,
            "{path}"
        );
    }
    let user = host.must("getent passwd verdictd");
    assert!(user.ends_with(":/var/lib/verdictd:/usr/sbin/nologin\n"), "{user}");
    assert!(host.must("verdictd check").starts_with("OBSERVING"));
    assert!(!host.has_table(), "nothing runs without systemd, or an operator");
    assert_eq!(
        host.must("dpkg --verify verdictd"),
        "",
        "but for owners, as it was packed"
    );

    host.must("verdictctl start");
    assert!(host.must("verdictctl status | head -n 3").contains("OBSERVING"));
    host.must("grep -m1 OBSERVING /var/log/verdictd/verdictd.log");
    host.must("verdictctl ban 203.0.113.9 --for 2h");
    assert!(
        host.must("nft list set inet verdictd banned4")
            .contains("203.0.113.9")
    );

    // Removed: out of the kernel, the engine ended, what is remembered stays.
    host.dpkg("-r verdictd");
    assert!(!host.has_table());
    assert!(!host.holds("pidof verdictd"), "the engine ended");
    assert!(host.holds("test -s /var/lib/verdictd/state.toml -a -s /etc/verdictd/verdictd.toml"));

    // Installed again: the ban is back, for what remains of it.
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must("verdictctl start");
    assert!(
        host.must("nft list set inet verdictd banned4")
            .contains("203.0.113.9")
    );

    // Purged while it runs.
    host.dpkg("-P verdictd");
    assert!(!host.has_table());
    assert!(!host.holds("getent passwd verdictd || getent group verdictd"));
    assert_eq!(left(&before, &host.files()), Vec::<String>::new());
}

#[test]
fn an_upgrade_and_a_downgrade_leave_rules_bans_and_an_edited_configuration() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(
        "verdictctl start; verdictctl ban 203.0.113.9 --for 2h; verdictctl ban 198.51.100.0/24 --for 1d",
    );
    host.must("sed -i s/^mode.*/mode=\\\"lenient\\\"/ /etc/verdictd/verdictd.toml");
    let handle = |host: &Host| host.must("nft -a list table inet verdictd | head -n 1");
    let (table, engine) = (handle(&host), host.must("pidof verdictd"));

    // As apt does it where nobody answers: what an operator edited stays.
    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_2.deb");
    assert!(
        host.must("cat /etc/verdictd/verdictd.toml")
            .contains("mode=\"lenient\""),
        "{said}"
    );
    assert_eq!(handle(&host), table, "the same table, never taken out");
    assert_eq!(
        host.must("pidof verdictd"),
        engine,
        "started by hand, and left to that hand"
    );
    host.must("verdictctl restart");
    assert!(host.must("verdictctl status").contains("lenient"));
    assert!(host.must("verdictctl list").contains("203.0.113.9"));
    assert_eq!(handle(&host), table, "nor by the new engine");

    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_1.deb");
    assert!(said.contains("downgrading"), "{said}");
    host.must("verdictctl restart");
    let listed = host.must("verdictctl list");
    assert!(
        listed.contains("203.0.113.9") && listed.contains("198.51.100.0/24"),
        "{listed}"
    );
    assert!(
        host.must("cat /etc/verdictd/verdictd.toml")
            .contains("mode=\"lenient\"")
    );
    assert_eq!(handle(&host), table);
    host.dpkg("-P verdictd");
    assert!(!host.holds("test -e /etc/verdictd"));
}

/// A state that only a later version can read: told, and kept.
#[test]
fn a_state_of_a_later_version_is_told_and_kept() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_2.deb");
    host.must("verdictctl start; verdictctl ban 203.0.113.9 --for 2h; verdictctl snapshot; verdictctl stop");
    // Its last line is the digest of all before it.
    host.must(
        "cd /var/lib/verdictd; rm -f state.toml.1; sed -i 's/^version = 1$/version = 2/' state.toml; \
         sum=$(sed '$d' state.toml | sha256sum | cut -d' ' -f1); \
         sed -i \"\\$s/[0-9a-f]\\{64\\}/$sum/\" state.toml; tail -n 1 state.toml | grep -q \"$sum\"",
    );
    host.dpkg("--force-confold -i /debs/verdictd_1.deb");
    host.must("verdictctl start");
    let status = host.sh("verdictctl status");
    assert_eq!(status.code(), 4, "{}", status.text());
    assert!(status.text().contains("format version 2"), "{}", status.text());
    assert!(
        host.holds("test -s /var/lib/verdictd/state.toml.bad"),
        "{}",
        status.text()
    );
    // Bans in the kernel are taken over, whatever the state says.
    assert!(host.must("verdictctl list").contains("203.0.113.9"));
}

#[test]
fn what_was_never_configured_can_be_purged() {
    let host = Host::new();
    let before = host.files();
    host.dpkg("--unpack /debs/verdictd_1.deb /debs/verdict-receiver_1.deb");
    host.dpkg("-P verdictd verdict-receiver");
    assert_eq!(left(&before, &host.files()), Vec::<String>::new());
}

#[test]
fn every_generated_file_goes_with_a_purge() {
    let host = Host::new();
    let before = host.files();
    host.dpkg("-i /debs/verdictd_1.deb /debs/verdict-receiver_1.deb");
    host.must("verdictctl start; verdictctl harden --yes --quiet");
    host.must(
        "cd /etc/verdictd; touch verdictd.toml.candidate verdictd.toml.unconfirmed verdictd.toml.before-apply \
         verdictd.toml.edited verdictd.toml.in-force verdictd.toml.lock soc.secret \
         receiver.secret receiver.env; mkdir -p /var/lib/verdictd-monitor /var/lib/private/verdict-receiver; \
         ln -s private/verdict-receiver /var/lib/verdict-receiver; touch /var/lib/verdict-receiver/events.db; \
         rmdir /var/lib/private/x 2>/dev/null || true",
    );
    host.write("/etc/nftables.conf", "include \"/etc/verdictd/verdictd.nft\"\n");
    let said = host.dpkg("-P verdictd");
    assert!(
        said.contains("take the include of /etc/verdictd/ out of /etc/nftables.conf"),
        "{said}"
    );
    assert_eq!(
        host.must("ls /etc/verdictd"),
        "receiver.env\nreceiver.secret\n",
        "another package's"
    );
    assert_eq!(host.must("stat -c '%U:%G %a' /etc/verdictd"), "root:root 755\n");
    host.dpkg("-P verdict-receiver");
    let left = left(&before, &host.files());
    assert!(
        left.iter()
            .all(|file| file.starts_with("/var/lib/private ") || file.starts_with("/etc/nftables.conf ")),
        "{left:?}"
    );
}

/// A volume of its own cannot be removed: it is emptied.
#[test]
fn what_is_a_mount_of_its_own_is_left_empty_by_a_purge() {
    const VOLUMES: [&str; 3] = [
        "/var/lib/verdictd",
        "/var/log/verdictd",
        "/var/lib/private/verdict-receiver",
    ];
    let host = Host::new();
    for volume in VOLUMES {
        host.must(&format!("mkdir -p {volume}; mount -t tmpfs tmpfs {volume}"));
    }
    host.dpkg("-i /debs/verdictd_1.deb /debs/verdict-receiver_1.deb");
    host.must("verdictctl start; verdictctl ban 203.0.113.9 --for 2h");
    for volume in VOLUMES {
        host.must(&format!("mkdir {volume}/folder; touch {volume}/folder/file"));
    }
    host.dpkg("-P verdictd verdict-receiver");
    for volume in VOLUMES {
        assert_eq!(host.must(&format!("ls -A {volume}")), "", "{volume}");
    }
    assert!(!host.holds("getent passwd verdictd || getent group verdictd"));
}

#[test]
fn an_installation_by_hand_is_taken_over() {
    let host = Host::new();
    let config = include_str!("../data/mission_firewall_config.toml");
    host.write("/etc/verdictd/verdictd.toml", config);
    host.write(
        "/etc/systemd/system/verdictd.service",
        "[Service]\nExecStart=/usr/local/bin/verdictd run\n",
    );
    host.must("install -d -m 0755 /var/lib/verdictd /var/log/verdictd");
    host.write(
        "/var/lib/verdictd/state.toml",
        include_str!("../data/mission_firewall_state.toml"),
    );
    host.must("chmod 600 /var/lib/verdictd/state.toml");
    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_1.deb");
    assert!(
        said.contains("/etc/systemd/system/verdictd.service is used instead of the package's"),
        "{said}"
    );
    assert_eq!(
        host.must("cat /etc/verdictd/verdictd.toml"),
        config,
        "whose it was it is"
    );
    for (path, dressed) in DRESSED {
        assert_eq!(
            host.must(&format!("stat -c '%U:%G %a' {path}")).trim(),
            dressed,
            "{path}"
        );
    }
    assert_eq!(
        host.must("stat -c %U /var/lib/verdictd/state.toml"),
        "verdictd\n",
        "the engine can read it"
    );
    host.must("verdictd check");
}

/// A policy that forbids to touch services, and a chroot, whose kernel is that of the host around it.
#[test]
fn a_removal_that_may_stop_nothing_leaves_rules_where_they_are() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must("verdictctl start");
    host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    host.must("chmod 755 /usr/sbin/policy-rc.d");
    let said = host.dpkg("-r verdictd");
    assert!(said.contains("left alone: policy-rc.d forbids"), "{said}");
    assert!(host.has_table() && host.holds("pidof verdictd"));

    // The same in a chroot of that host, without a policy.
    host.must("rm /usr/sbin/policy-rc.d; dpkg -i /debs/verdictd_1.deb");
    host.must("mkdir /in; for f in bin sbin lib lib64 usr etc var run proc dev debs; do mkdir -p /in/$f; mount --rbind /$f /in/$f; done; mkdir -p /in/tmp");
    let said = host.must("chroot /in dpkg -r verdictd");
    assert!(said.contains("left alone: this is a chroot"), "{said}");
    assert!(host.has_table() && host.holds("pidof verdictd"));
}

/// What is there now and was not before, or is otherwise than it was.
fn left(before: &[String], after: &[String]) -> Vec<String> {
    let before: BTreeSet<&String> = before.iter().collect();
    let new = after.iter().filter(|file| !before.contains(file));
    new.cloned().collect()
}
