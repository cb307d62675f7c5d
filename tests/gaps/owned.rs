//! With `own_table = true` nobody but the engine changes its table: whoever tries gets an error or is passed over.

use std::process::Command;

use crate::common::engine::Engine;
use crate::common::{count, secs};
use crate::crowd::BANS;
use crate::probes::Kind;
use crate::stage::{Stage, active, firewall};
use crate::wipes::{Wipe, shape};

#[test]
fn nothing_leaks_whoever_flushes_a_table_that_is_ours_alone() {
    let stage = Stage::set();
    let (mut engine, mark) = stage.engine(&firewall("[engine]\nown_table = true\n"), BANS);
    let (host, whole) = (&stage.lab.host, shape(&stage.lab.host));
    let rounds = count(FLUSHES, 1000);
    let mut refused = 0;
    for _ in 0..rounds {
        for wipe in Wipe::ALL {
            let tried = host.run(Command::new("nft").arg(wipe.command(host)), secs(10));
            refused += usize::from(!tried.status.success());
            assert_eq!(shape(host), whole, "after {wipe:?}\n{}", engine.log());
        }
    }
    let what = format!("{rounds} times each of {:?}, {refused} refused", Wipe::ALL);
    stage.nothing_leaked(&what, mark, &Kind::ALL);
    // The table outlives its owner, and the next engine becomes it.
    let rounds = count(RESTARTS, 100);
    for round in 0..rounds {
        let home = if round % 2 == 0 {
            engine.stop()
        } else {
            engine.kill9()
        };
        engine = Engine::start_in(host, home, &[]);
    }
    stage.nothing_leaked(&format!("{rounds} restarts of a table's owner"), mark, &Kind::ALL);
    assert_eq!(active(&engine), BANS, "{}", engine.log());
    stage.nobody_was_shut_out("an owned table");
    let _home = engine.stop();
    stage.clear();
}

const FLUSHES: usize = 10;
const RESTARTS: usize = 4;
