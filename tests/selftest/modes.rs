//! What is proved in each mode and preset.

use crate::common::engine::{CORPORATE, DETECTION, Engine, FIREWALL};
use crate::common::namespace::Namespace;
use crate::common::service::Echo;
use crate::rig::{self, Traces};

const PRESETS: [(&str, u64); 3] = [("aggressive", 3), ("standard", 7), ("lenient", 15)];
const ENFORCING: [&str; 7] = [
    "engine", "device", "answers", "counted", "banned", "crossing", "dropped",
];
const RECORDING: [&str; 7] = [
    "engine", "device", "answers", "counted", "recorded", "passes", "scratch",
];

fn with_preset(config: &str, preset: &str) -> String {
    config.replace("mode = \"standard\"", &format!("mode = \"{preset}\""))
}

#[test]
fn every_mode_is_proved_with_every_preset() {
    for config in [DETECTION, FIREWALL, CORPORATE] {
        for (preset, threshold) in PRESETS {
            for enforce in [true, false] {
                let text =
                    with_preset(config, preset).replace("enforce = true", &format!("enforce = {enforce}"));
                let ns = Namespace::new("self");
                ns.sysctl("net/ipv4/conf/all/rp_filter", "1");
                let engine = Engine::start(&ns, &text);
                let before = Traces::of(&ns, &engine);
                let proof = rig::proved(&ns, &engine);
                assert_eq!(proof["engine"]["threshold"], threshold, "{proof}");
                let steps = rig::steps(&proof);
                let expected = if enforce { ENFORCING } else { RECORDING };
                assert_eq!(steps[..7], expected, "{text}{proof}");
                assert_eq!(steps.last(), Some(&"gone"));
                let found = if enforce { "banned" } else { "recorded" };
                assert!(rig::ms(&proof, found) < 1000.0, "{proof}");
                assert_eq!(Traces::of(&ns, &engine), before, "{text}");
                // A worker's beats (UDP to port 9) have an entry, where they are.
                let flows = ns.must("conntrack", &["-L"]);
                let ours = flows
                    .lines()
                    .filter(|flow| !flow.contains("dst=127.0.0.1") || !flow.contains("dport=9 "));
                assert_eq!(ours.count(), 0, "{text}{flows}");
                rig::nothing_is_written(&engine);
            }
        }
    }
}

#[test]
fn where_every_allowed_port_is_served_the_ban_waits_for_handshakes() {
    let ns = Namespace::new("self");
    let _echo = Echo::tcp(&ns, &[22, 80, 443]);
    let engine = Engine::start(&ns, FIREWALL);
    let proof = rig::proved(&ns, &engine);
    let took = rig::ms(&proof, "banned");
    assert!((900.0..1900.0).contains(&took), "{proof}");
}

#[test]
fn a_served_port_is_left_alone_where_another_does() {
    let ns = Namespace::new("self");
    let _echo = Echo::tcp(&ns, &[22, 80]);
    let engine = Engine::start(&ns, DETECTION);
    let proof = rig::proved(&ns, &engine);
    assert!(rig::ms(&proof, "banned") < 1000.0, "{proof}");
    let text = proof["steps"].to_string();
    assert!(
        !text.contains(" 22 ") && text.contains("port 443 answers"),
        "{text}"
    );
}

#[test]
fn another_table_that_lets_nothing_in_is_no_failure() {
    for config in [DETECTION, FIREWALL] {
        let ns = Namespace::new("self");
        ns.nft(
            "add table inet other; \
             add chain inet other input { type filter hook input priority 0; policy drop; }; \
             add rule inet other input iif lo accept",
        );
        let engine = Engine::start(&ns, config);
        let proof = rig::proved(&ns, &engine);
        let steps = rig::steps(&proof);
        assert!(
            steps.contains(&"note") && steps.contains(&"banned") && !steps.contains(&"dropped"),
            "{proof}"
        );
    }
}

#[test]
fn a_thousand_ports_are_tried_where_packets_are_held() {
    let custom = "\n[custom]\nunique_ports_threshold = 1000\n";
    let ns = Namespace::new("self");
    let engine = Engine::start(&ns, &(with_preset(DETECTION, "custom") + custom));
    let proof = rig::proved(&ns, &engine);
    assert_eq!(proof["engine"]["threshold"], 1000);
    drop(engine);
    let engine = Engine::start(&ns, &(with_preset(FIREWALL, "custom") + custom));
    let failed = rig::failed(&ns, &engine);
    assert_eq!(failed["step"], "ports", "{failed}");
    drop(engine);
    let engine = Engine::start(
        &ns,
        &(with_preset(FIREWALL, "custom") + &custom.replace("1000", "60")),
    );
    rig::proved(&ns, &engine);
}
