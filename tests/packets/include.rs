//! Include mode (`manage_ruleset = false`): the table is the operator's. On this kernel nft cannot load a text with
//! `queue`, so an engine that manages its table makes it here; tests/vm/guest_include.sh has the real nftables.conf.

use crate::common::engine::{Engine, FIREWALL, Home, OBSERVING};
use crate::common::flow::talks;
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::service::Echo;
use crate::common::wire::Gun;

const NUMBERS: &str = "[engine]\nworkers = 2\nqueue_base = 4300\nlog_base = 4300\nseed = 77\n";

/// `base` with the numbers of the table, not to be managed.
fn included(base: &str) -> String {
    format!("{base}\n{NUMBERS}manage_ruleset = false\n")
}

/// Leaves the table of `base` in the host's namespace, and nobody who answers for it.
fn leave_table(lab: &Lab, base: &str) {
    let engine = Engine::start(&lab.host, &format!("{base}\n{NUMBERS}"));
    engine.must(&["ban", "198.51.100.0/24", "--for", "1s"]);
    engine.must(&["ban", "2001:db8::/48", "--for", "1s"]);
    engine.must(&["ban", "2001:db8::1/128", "--for", "1s"]);
    engine.stop();
}

#[test]
fn the_operators_table_is_served_and_never_changed() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    leave_table(&lab, FIREWALL);
    let handles = || {
        lab.host
            .nft_list(&["-a", "list", "chain", "inet", "verdictd", "pre"])
    };
    let before = handles();
    let engine = Engine::start(&lab.host, &included(FIREWALL));
    let rules = |listing: &str| {
        let lines = listing.lines().filter_map(|line| line.split_once("# handle"));
        lines.map(|(_, handle)| handle.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rules(&handles()), rules(&before), "every rule is the same rule");
    assert_eq!(engine.ctl(&["status"]).code(), 0, "{}", engine.must(&["status"]));
    assert!(talks(&lab.attacker, HOST, 80));
    assert!(!talks(&lab.attacker, HOST, 3306));
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5020);
    engine.wait_ban(ATTACKER);
    assert!(engine.kernel_bans("banned4").contains(&ATTACKER.to_owned()));
    let refused = engine.ctl(&["ban", "20.0.0.0/9", "--for", "1h"]);
    assert_eq!(
        refused.code(),
        1,
        "no set is added to an operator's table: {}",
        refused.text()
    );
    assert_eq!(rules(&handles()), rules(&before));

    // Somebody changes a rule: told, not repaired.
    lab.host
        .nft("insert rule inet verdictd pre tcp dport 3306 accept");
    assert_eq!(engine.ctl(&["status"]).code(), 4);
    assert!(engine.must(&["list"]).contains(ATTACKER));
}

#[test]
fn a_table_that_is_missing_or_does_not_fit_is_refused() {
    let lab = Lab::new();
    let refusal = |config: &str| {
        let output = Engine::refuse(&lab.host, &Home::new(config));
        assert_eq!(output.code(), 1, "{}", output.text());
        output.text()
    };
    let text = refusal(&included(FIREWALL));
    assert!(text.contains("verdictd ruleset"), "{text}");
    assert!(!lab.host.nft_list(&["list", "tables"]).contains("verdictd"));

    leave_table(&lab, FIREWALL);
    for (config, word) in [
        (
            included(FIREWALL).replace("seed = 77", "seed = 78"),
            "seed is 77 there and 78 here",
        ),
        (
            included(FIREWALL).replace("workers = 2", "workers = 3"),
            "workers is 2 there and 3 here",
        ),
        (
            included(FIREWALL).replace("queue_base = 4300", "queue_base = 4400"),
            "queue_base is 4300",
        ),
        (included(OBSERVING), "it holds packets"),
    ] {
        let text = refusal(&config);
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}
