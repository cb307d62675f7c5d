//! A machine on which the engine runs.

use crate::common::count;
use crate::common::engine::{Engine, FIREWALL};
use crate::common::flow::{Stream, connect, talks};
use crate::common::lab::{HOST, Lab};
use crate::common::service::Echo;
use crate::machine::{Files, Findings};

#[test]
fn a_running_engine_is_known_as_such_and_comes_to_no_harm() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let config = format!("{FIREWALL}[engine]\nworkers = 2\nqueue_base = 4100\nlog_base = 4100\n");
    let engine = Engine::start(&lab.host, &config);
    engine.must(&["ban", "203.0.113.9"]);
    let table = engine.table();
    let stream = Stream::tcp(connect(&lab.attacker, HOST, 80).unwrap());
    let files = Files::new(&config);
    for round in 0..count(3, 100) {
        let found = Findings::of(&lab.host, files.command_for(&engine.home().config()));
        assert_eq!((found.code, found.acts()), (0, vec![]), "{found}");
        assert_eq!(
            found.what("queues"),
            "no other program holds a queue; the running engine holds 4 queues"
        );
        assert_eq!(
            found.what("log-groups"),
            "no other program holds a log group; the running engine holds 2 log groups"
        );
        assert_eq!(found.what("ct-listeners"), "nobody else listens to conntrack");
        assert!(talks(&lab.attacker, HOST, 80), "round {round}");
    }
    assert!(stream.runs(), "a connection that was open is open");
    assert_eq!(engine.table(), table, "the table is as it was");
    assert_eq!(engine.kernel_bans("banned4"), ["203.0.113.9"]);
    let repairs = &engine.json("stats")["repairs"];
    let none = repairs.as_object().unwrap().values().all(|count| count == 0);
    assert!(none, "nothing had to be put back: {repairs}");
}
