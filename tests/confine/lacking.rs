//! A kernel, or a container, that does not have what confinement is made of.

use std::os::unix::process::CommandExt;

use seccompiler::{TargetArch, apply_filter, compile_from_json};

use crate::Who;
use crate::common::engine::{Engine, FIREWALL};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::wire::Gun;

/// An engine whose calls named in `filter` end otherwise, as under the filter of a container's runtime.
fn start<'a>(lab: &'a Lab, filter: &str) -> Engine<'a> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("x86_64 or aarch64");
    let filter = format!(r#"{{"all": {{"mismatch_action": "allow", {filter}}}}}"#);
    let mut programs = compile_from_json(filter.as_bytes(), arch).expect("a good filter");
    let program = programs.remove("all").expect("just made");
    Engine::start_by(&lab.host, Who::Root.home(FIREWALL), |command| {
        let apply = move || apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into());
        // SAFETY: between fork and exec two system calls are made, on memory that was there before.
        unsafe { command.pre_exec(apply) };
    })
}

fn protects(lab: &Lab, engine: &Engine<'_>, words: &str) {
    let status = engine.json("status");
    assert_eq!(status["confinement"], words);
    assert_eq!(
        (&status["protected"], &status["degraded"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert!(engine.must(&["status"]).contains(words));
    assert!(
        engine.log().contains("WARN confinement: not confined by "),
        "{}",
        engine.log()
    );
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5008);
    engine.wait_ban(ATTACKER);
    engine.must(&["unban", ATTACKER]);
}

#[test]
fn what_a_kernel_lacks_is_said_and_protection_goes_on() {
    let lab = Lab::new();
    let landlock = r#"{"syscall": "landlock_create_ruleset"}"#;
    for (filter, words) in [
        (
            format!(r#""match_action": {{"errno": 38}}, "filter": [{landlock}]"#),
            "seccomp, capabilities net_admin; missing: landlock (this kernel is built without it)",
        ),
        (
            format!(r#""match_action": {{"errno": 95}}, "filter": [{landlock}]"#),
            "seccomp, capabilities net_admin; missing: landlock (this kernel does not enable it: see its lsm= parameter)",
        ),
        (
            r#""match_action": {"errno": 1}, "filter": [{"syscall": "seccomp"}, {"syscall": "capset"}]"#
                .to_owned(),
            "landlock (ABI 7); missing: seccomp (the kernel refused it: Operation not permitted (os error 1)), \
             capabilities (Operation not permitted (os error 1))",
        ),
    ] {
        let engine = start(&lab, &filter);
        let abi = engine.json("status")["confinement"]
            .as_str()
            .map(str::to_owned)
            .unwrap_or_default();
        // The kernel's number is what it is.
        let abi = abi
            .split("(ABI ")
            .nth(1)
            .and_then(|text| text.split(')').next())
            .map(str::to_owned);
        let words = words.replace("(ABI 7)", &format!("(ABI {})", abi.unwrap_or_default()));
        protects(&lab, &engine, &words);
        engine.stop();
    }
}
