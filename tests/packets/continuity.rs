//! Nothing is lost when the engine dies, starts late or stops: the kernel holds the policy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::common::engine::{DETECTION, Engine, FIREWALL, table, with_ladder};
use crate::common::flow::{connect, echoes, pings, talks};
use crate::common::lab::{ATTACKER, HOST, Lab, NEIGHBOUR};
use crate::common::service::Echo;
use crate::common::watch::{Witness, set_elements};
use crate::common::wire::Gun;
use crate::common::{ms, secs, within};

/// Ten connections from the host to a server at the attacker's, both ends in hand.
fn outbound(lab: &Lab) -> Vec<(TcpStream, TcpStream)> {
    let server = lab
        .attacker
        .inside(|| TcpListener::bind("0.0.0.0:6667"))
        .expect("a free port");
    let to: SocketAddr = format!("{ATTACKER}:6667").parse().expect("an address");
    let pair = |_| {
        let ours = lab
            .host
            .inside(|| TcpStream::connect_timeout(&to, secs(2)))
            .expect("no engine in the way");
        let theirs = server.accept().expect("the connection just made").0;
        for stream in [&ours, &theirs] {
            stream.set_read_timeout(Some(secs(3))).expect("a timeout");
            stream.set_nodelay(true).expect("an option");
        }
        (ours, theirs)
    };
    (0..10).map(pair).collect()
}

/// How many of the connections carry a line of the server and the host's answer.
fn alive(pairs: &mut [(TcpStream, TcpStream)]) -> usize {
    let speak = |(ours, theirs): &mut &mut (TcpStream, TcpStream)| {
        let mut line = [0; 4];
        let heard = theirs.write_all(b"PING").is_ok() && ours.read_exact(&mut line).is_ok();
        heard && ours.write_all(b"PONG").is_ok() && theirs.read_exact(&mut line).is_ok()
    };
    pairs
        .iter_mut()
        .filter_map(|mut pair| speak(&mut pair).then_some(()))
        .count()
}

#[test]
fn connections_older_than_the_engine_go_on_when_the_server_speaks_first() {
    for config in [FIREWALL, DETECTION] {
        let lab = Lab::new();
        let mut pairs = outbound(&lab);
        let engine = Engine::start(&lab.host, config);
        assert_eq!(alive(&mut pairs), 10, "after the first start\n{}", engine.log());

        lab.host.must("conntrack", &["-F"]);
        assert_eq!(alive(&mut pairs), 10, "after conntrack -F\n{}", engine.log());

        assert!(engine.bans().is_empty(), "{:?}", engine.bans());
        let stats = engine.json("stats");
        assert!(
            !stats.to_string().contains(ATTACKER),
            "the server is in somebody's window: {stats}"
        );
        assert_eq!(stats["verdicts"]["drop"], 0, "{stats}");
    }
}

#[test]
fn after_kill_9_bans_and_refusals_hold_and_on_loss_decides_the_rest() {
    for (on_loss, open) in [("open", true), ("closed", false)] {
        let lab = Lab::new().with_client();
        let _echo = Echo::tcp(&lab.host, &[80, 3306]);
        let engine = Engine::start(
            &lab.host,
            &format!("{FIREWALL}\n[engine]\non_loss = \"{on_loss}\"\n"),
        );
        engine.must(&["ban", ATTACKER, "--for", "1h"]);
        assert!(talks(lab.client(), HOST, 80));

        let _home = engine.kill9();
        assert!(
            !talks(&lab.attacker, HOST, 80),
            "{on_loss}: the ban died with the engine"
        );
        assert!(
            !talks(lab.client(), HOST, 3306),
            "{on_loss}: a refused port opened"
        );
        assert_eq!(talks(lab.client(), HOST, 80), open, "{on_loss}: an allowed port");
        assert_eq!(set_elements(&lab.host, "verdictd", "banned4"), [ATTACKER]);
    }
}

#[test]
fn the_next_start_adopts_what_kill_9_left() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let engine = Engine::start(&lab.host, FIREWALL);
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    engine.wait_ban(ATTACKER);
    engine.must(&["ban", NEIGHBOUR, "--for", "30m"]);
    engine.must(&["ban", "203.0.113.0/24", "--for", "30m"]);
    let (before, sets) = (seeds(&engine.table()), set_handles(&lab));
    assert!(
        !before.is_empty(),
        "no source hash in the table:\n{}",
        engine.table()
    );

    let engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
    assert_eq!(
        seeds(&engine.table()),
        before,
        "another seed shuffles sources between workers"
    );
    assert_eq!(set_handles(&lab), sets, "the sets were made anew");
    for source in [ATTACKER, NEIGHBOUR, "203.0.113.0/24"] {
        let ban = engine
            .ban_of(source)
            .unwrap_or_else(|| panic!("{source} is forgotten\n{}", engine.log()));
        assert!(
            ban["remaining_seconds"]
                .as_u64()
                .is_some_and(|left| left > 500 && left <= 1800),
            "{ban}"
        );
    }
    assert_eq!(engine.json("stats")["bans"]["active"], 3);
    engine.must(&["status"]); // the set of a prefix that was adopted is as it should be
    assert!(!talks(&lab.attacker, HOST, 80));
    assert!(!talks(lab.client(), HOST, 3306));
    assert!(talks(lab.client(), HOST, 80));

    engine.must(&["unban", ATTACKER]);
    assert!(talks(&lab.attacker, HOST, 80), "an adopted ban can be lifted");
}

#[test]
fn an_adopted_ban_still_ends_by_itself() {
    let lab = Lab::new();
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "4s"]);
    let engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
    assert!(engine.ban_of(ATTACKER).is_some(), "{}", engine.log());
    assert!(engine.wait_free(ATTACKER, secs(6)));
    assert!(within(secs(1), || engine.kernel_bans("banned4").is_empty()));
}

#[test]
fn bans_hold_while_one_engine_follows_the_other() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let witness = Witness::new(&lab.attacker);
    let mut engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    let mut gun = Gun::new(&lab.attacker, ATTACKER, HOST);
    let mut gone = false;
    thread::scope(|scope| {
        let restarts = scope.spawn(|| {
            for _ in 0..3 {
                engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
            }
            engine
        });
        while !gone {
            gone = restarts.is_finished();
            gun.syns([80, 3306]);
            thread::sleep(ms(1));
        }
        restarts.join().expect("three restarts");
    });
    assert!(
        witness.answered().is_empty(),
        "a banned source was answered during a restart"
    );
}

#[test]
fn a_stopped_engine_leaves_its_bans_and_an_ephemeral_one_leaves_nothing() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    let home = engine.stop();
    assert_eq!(
        set_elements(&lab.host, "verdictd", "banned4"),
        [ATTACKER],
        "stopping removes no ban"
    );
    assert!(!talks(&lab.attacker, HOST, 80));

    let engine = Engine::start_in(&lab.host, home, &["--ephemeral"]);
    assert!(engine.ban_of(ATTACKER).is_some());
    engine.stop();
    assert_eq!(table(&lab.host), "", "an ephemeral engine takes its table along");
    assert!(talks(&lab.attacker, HOST, 80));
}

#[test]
fn an_open_connection_of_a_client_survives_a_restart() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let mut stream = connect(lab.client(), HOST, 80).expect("an allowed port");
    assert!(echoes(&mut stream));
    let home = engine.kill9();
    assert!(echoes(&mut stream), "without an engine");
    let engine = Engine::start_in(&lab.host, home, &[]);
    assert!(echoes(&mut stream), "with the next engine\n{}", engine.log());
}

#[test]
fn would_be_bans_never_become_real_ones_by_a_restart() {
    let lab = Lab::new();
    let observing = with_ladder(DETECTION, &["1h"]).replace("enforce = true", "enforce = false");
    let engine = Engine::start(&lab.host, &observing);
    Gun::new(&lab.attacker, ATTACKER, HOST).syns(5001..=5012);
    assert_eq!(engine.wait_ban(ATTACKER)["enforced"], false);
    let engine = Engine::start_in(&lab.host, engine.kill9(), &[]);
    assert!(engine.kernel_bans("banned4").is_empty());
    assert!(pings(&lab.attacker, HOST, 2));
}

/// The hash statements of the table: they hold the seed.
fn seeds(table: &str) -> Vec<String> {
    table
        .lines()
        .filter(|line| line.contains("jhash"))
        .map(|line| line.trim().to_string())
        .collect()
}

/// Name and handle of each of our sets: a set that was made anew has another handle.
fn set_handles(lab: &Lab) -> Vec<String> {
    let listing = lab
        .host
        .nft_list(&["-a", "-t", "list", "table", "inet", "verdictd"]);
    let sets = listing
        .lines()
        .filter(|line| line.trim_start().starts_with("set banned"));
    sets.map(|line| line.trim().to_string()).collect()
}

#[test]
fn a_table_that_somebody_wipes_comes_back_with_its_bans() {
    let lab = Lab::new().with_client();
    let _echo = Echo::tcp(&lab.host, &[80, 3306]);
    let engine = Engine::start(&lab.host, FIREWALL);
    engine.must(&["ban", ATTACKER, "--for", "1h"]);
    engine.must(&["ban", "198.51.100.0/24", "--for", "1h"]);
    let whole = engine.table();
    for wipe in [
        &["flush", "ruleset"][..],
        &["delete", "table", "inet", "verdictd"],
        &["flush", "table", "inet", "verdictd"],
        &["flush", "chain", "inet", "verdictd", "pre"],
        &["flush", "ruleset"],
    ] {
        lab.host.must("nft", wipe);
        let back = || {
            engine.kernel_bans("banned4") == [ATTACKER]
                && engine.kernel_bans("banned4_24").len() == 1
                && engine.json("status")["protected"] == true
        };
        assert!(within(secs(2), back), "after nft {wipe:?}\n{}", engine.log());
        assert!(!talks(&lab.attacker, HOST, 80), "after nft {wipe:?}");
        assert!(!talks(lab.client(), HOST, 3306), "after nft {wipe:?}");
        assert!(talks(lab.client(), HOST, 80), "after nft {wipe:?}");
    }
    let rules = |table: &str| table.lines().filter(|line| line.contains("comment")).count();
    assert_eq!(rules(&engine.table()), rules(&whole));
}
