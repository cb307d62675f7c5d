//! Upgrades of a host that "verdictctl harden" sealed.

use crate::host::Host;

const SEAL: &str = "verdictctl harden --yes --quiet";

#[test]
fn a_seal_that_fitted_fits_after_the_upgrade() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(SEAL);
    host.dpkg("-i /debs/verdictd_2.deb");
    host.must("verdictctl verify");
    assert!(
        host.must("cat /etc/verdictd/verdictd.toml").contains("# of 99"),
        "a conffile of the package too"
    );
    let sealed = host.must("cat /etc/verdictd/integrity.sha256");
    assert!(
        sealed.contains("  /usr/lib/verdictd/of-99\n"),
        "a file that is new: {sealed}"
    );
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must("verdictctl verify; ! grep of-99 /etc/verdictd/integrity.sha256");
    // Another package is none of its business.
    host.dpkg("-i /debs/verdict-receiver_1.deb");
    host.must("verdictctl verify; ! grep verdict-receiver /etc/verdictd/integrity.sha256");
    assert!(!host.holds("test -e /run/verdictd-upgrade"));
    // Without its programs it seals nothing: the next installation begins as the first one did.
    let said = host.dpkg("-r verdictd");
    assert!(said.contains("the seal went with the programs"), "{said}");
    host.dpkg("-i /debs/verdictd_1.deb");
    assert!(!host.holds("test -e /etc/verdictd/integrity.sha256"));
}

#[test]
fn what_did_not_fit_before_is_not_sealed_by_an_upgrade() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(SEAL);
    host.must("echo '# an attacker' >> /etc/verdictd/verdictd.toml");
    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_2.deb");
    assert!(said.contains("/etc/verdictd/verdictd.toml was changed"), "{said}");
    assert!(said.contains("is not sealed by it"), "{said}");
    let found = host.sh("verdictctl verify").text();
    assert!(
        found.contains("CHANGED: 1 difference"),
        "the package's own are sealed: {found}"
    );
    // By what the units ask before a start.
    host.must(
        "grep -E '^[0-9a-f]{64}  .*/(verdictd|verdictctl)$' /etc/verdictd/integrity.sha256 | sha256sum -c",
    );
    // The operator looks, and says that it is hers; then upgrades seal again.
    host.must(SEAL);
    host.dpkg("--force-confdef --force-confold -i /debs/verdictd_1.deb");
    host.must("verdictctl verify");
}

/// Between unpacking and configuring days may go by, by whoever's hand: what changes then is sealed neither.
#[test]
fn what_changes_in_the_middle_of_an_upgrade_is_not_sealed_by_it() {
    let host = Host::new();
    host.write(
        "/etc/systemd/system/verdictd.service.d/x.conf",
        "[Service]\nNice=1\n",
    );
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(SEAL);
    host.dpkg("--unpack /debs/verdictd_2.deb");
    host.must(
        "echo '# an attacker' >> /etc/systemd/system/verdictd.service.d/x.conf; echo >> /usr/bin/verdictd; \
         echo '# an attacker' >> /usr/lib/systemd/system/verdictd.service",
    );
    let said = host.dpkg("--force-confdef --force-confnew --configure verdictd");
    assert!(said.contains("is not sealed by it"), "{said}");
    let found = host.sh("verdictctl verify").text();
    for changed in ["x.conf", "/usr/bin/verdictd", "/system/verdictd.service"] {
        assert!(
            found.contains(&format!("{changed} was changed")),
            "{changed}: {found}"
        );
    }
    assert!(found.contains("CHANGED: 3 differences"), "{found}");
    assert!(
        !host.holds("/usr/lib/verdictd/seal-fits"),
        "no unit starts that program"
    );
}

/// A verdictctl that calls anything sound is no witness.
#[test]
fn a_replaced_verdictctl_is_not_asked() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(SEAL);
    host.must("echo '# an attacker' >> /etc/verdictd/verdictd.toml");
    host.write("/usr/bin/verdictctl", "#!/bin/sh\nexit 0\n");
    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_2.deb");
    assert!(said.contains("is not sealed by it"), "{said}");
    assert!(!host.holds("verdictctl verify"));
}

/// As when no packed file is found any more: "harden" without a file would seal all.
#[test]
fn where_no_file_is_as_packed_nothing_is_sealed() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must(SEAL);
    let sealed = host.must("cat /etc/verdictd/integrity.sha256");
    host.write("/usr/local/bin/md5sum", "#!/bin/sh\nexit 1\n");
    host.must("chmod 755 /usr/local/bin/md5sum");
    let said = host.dpkg("-i /debs/verdictd_2.deb");
    assert!(said.contains("no file is as it was packed"), "{said}");
    assert_eq!(host.must("cat /etc/verdictd/integrity.sha256"), sealed);
}

#[test]
fn a_seal_that_fails_says_what_to_run_then() {
    let host = Host::new();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.write("/etc/verdictd/integrity.sha256", "no seal\n");
    let said = host.dpkg("-i /debs/verdictd_2.deb");
    assert!(
        said.contains("then: systemctl restart verdictd; systemctl start verdictd-monitor"),
        "{said}"
    );
    assert!(said.contains("the monitor stays down"), "{said}");
}

/// Older versions sealed the receiver too, whose own upgrades do not seal.
#[test]
fn an_upgrade_takes_the_receiver_out_of_the_seal() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb /debs/verdict-receiver_1.deb");
    host.must(SEAL);
    host.must(
        "cd /etc/verdictd; sed -n 's,/usr/bin/verdictctl$,/usr/bin/verdict-receiver,p' integrity.sha256 > /tmp/line; \
         test -s /tmp/line; cat /tmp/line >> integrity.sha256",
    );
    host.dpkg("-i /debs/verdictd_2.deb");
    host.must("! grep verdict-receiver /etc/verdictd/integrity.sha256; verdictctl verify");
}

#[test]
fn nothing_is_sealed_that_was_not() {
    let host = Host::new();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.dpkg("-i /debs/verdictd_2.deb");
    assert!(!host.holds("test -e /etc/verdictd/integrity.sha256"));
}
