//! What the packages' scripts ask of systemd.

use crate::host::Host;

#[test]
fn engine_and_monitor_run_once_installed_and_are_started_anew_by_an_upgrade() {
    let host = Host::new();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdictd_1.deb");
    assert_eq!(
        started(&host),
        ["start verdictd.service", "start verdictd-monitor.service"]
    );
    for unit in ["verdictd", "verdictd-monitor"] {
        assert!(
            host.holds(&format!(
                "test -L /etc/systemd/system/multi-user.target.wants/{unit}.service"
            )),
            "{unit}"
        );
    }
    // The monitor rests while files change; the engine is not stopped for it.
    host.dpkg("-i /debs/verdictd_2.deb");
    let anew = [
        "stop verdictd-monitor.service",
        "restart verdictd.service",
        "start verdictd-monitor.service",
    ];
    assert_eq!(started(&host), anew);
    // Removed: who starts it again first.
    host.dpkg("-r verdictd");
    let asked = started(&host);
    assert!(
        asked[0].starts_with("stop ") && asked[0].contains("verdictd-monitor.service verdictd.service"),
        "{asked:?}"
    );
    // Installed again it runs again, though dpkg has an older version to tell of.
    host.dpkg("-i /debs/verdictd_2.deb");
    assert_eq!(
        started(&host),
        ["start verdictd.service", "start verdictd-monitor.service"]
    );
    host.dpkg("-P verdictd");
    assert!(!host.holds("find /etc/systemd /var/lib/systemd | grep verdictd"));
}

/// dpkg killed after the preinst, which had stopped the monitor.
#[test]
fn an_upgrade_that_was_cut_short_brings_the_monitor_back_when_repeated() {
    let host = Host::new();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.dpkg("--unpack /debs/verdictd_2.deb");
    host.asked();
    host.dpkg("-i /debs/verdictd_2.deb");
    assert_eq!(
        started(&host),
        ["restart verdictd.service", "start verdictd-monitor.service"]
    );
    assert!(!host.holds("test -e /run/verdictd-upgrade"));
}

#[test]
fn what_an_operator_stopped_stays_stopped() {
    let host = Host::new();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.must("systemctl stop verdictd-monitor.service verdictd.service");
    host.asked();
    host.dpkg("-i /debs/verdictd_2.deb");
    assert_eq!(started(&host), [""; 0]);
}

#[test]
fn a_start_that_fails_is_told_and_leaves_the_package_configured() {
    let host = Host::new();
    host.pretend_systemd();
    host.must("touch /tmp/fails-verdictd.service");
    let said = host.dpkg("-i /debs/verdictd_1.deb");
    assert!(
        said.contains("verdictd.service did not start, the package is installed all the same"),
        "{said}"
    );
    assert!(said.contains("journalctl -b -u verdictd"), "{said}");
    assert_eq!(
        started(&host),
        ["start verdictd.service"],
        "nobody watches what never ran"
    );
    assert_eq!(status(&host, "verdictd"), "installed");
    // One that failed is tried by the next version.
    host.must("rm /tmp/fails-verdictd.service");
    host.dpkg("-i /debs/verdictd_2.deb");
    assert_eq!(started(&host), ["start verdictd.service"]);
}

#[test]
fn an_engine_that_would_not_start_again_is_left_running() {
    let host = Host::new();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdictd_1.deb");
    host.asked();
    host.must("echo 'no_such_key = 1' >> /etc/verdictd/verdictd.toml");
    let said = host.dpkg("--force-confdef --force-confold -i /debs/verdictd_2.deb");
    assert!(
        said.contains("the engine that runs is left alone") && said.contains("no_such_key"),
        "{said}"
    );
    assert_eq!(
        started(&host),
        ["stop verdictd-monitor.service", "start verdictd-monitor.service"]
    );
    assert_eq!(status(&host, "verdictd"), "installed");
}

#[test]
fn a_policy_forbids_starts() {
    let host = Host::new();
    host.pretend_systemd();
    host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    host.must("chmod 755 /usr/sbin/policy-rc.d");
    host.dpkg("-i /debs/verdictd_1.deb /debs/verdict-receiver_1.deb");
    assert_eq!(started(&host), [""; 0]);
}

#[test]
fn the_receiver_stays_down_until_somebody_wants_it() {
    let host = Host::new();
    let before = host.files();
    host.pretend_systemd();
    host.dpkg("-i /debs/verdict-receiver_1.deb");
    assert_eq!(started(&host), [""; 0]);
    assert!(!host.holds("find /etc/systemd | grep receiver"));
    host.must("verdict-receiver --version; systemctl start verdict-receiver.service");
    // As systemctl enable does.
    host.must("cd /etc/systemd/system; ln -s /usr/lib/systemd/system/verdict-receiver.service firewall-webhook.service; \
               mkdir -p multi-user.target.wants; ln -s /usr/lib/systemd/system/verdict-receiver.service multi-user.target.wants/");
    host.asked();
    host.dpkg("-i /debs/verdict-receiver_2.deb");
    assert_eq!(started(&host), ["restart verdict-receiver.service"]);
    host.dpkg("-P verdict-receiver");
    assert_eq!(started(&host), ["stop verdict-receiver.service"]);
    host.must("rm /usr/local/bin/systemctl; rm -r /run/systemd");
    assert_eq!(crate::left(&before, &host.files()), Vec::<String>::new());
}

fn started(host: &Host) -> Vec<String> {
    let asked = host.asked().into_iter();
    asked.filter(|line| line != "daemon-reload").collect()
}

fn status(host: &Host, package: &str) -> String {
    host.must(&format!(
        "dpkg-query --show --showformat '${{db:Status-Status}}' {package}"
    ))
}
