//! What became of a flow, asked one by one and by the hundred.

use std::time::Instant;

use verdictd::kernel::conntrack::Flow;
use verdictd::kernel::conntrack::ask::{Asker, TcpState};
use verdictd::kernel::conntrack::proof::{Prover, Standing};

use crate::common::lab::{HOST, HOST6};
use crate::common::{ms, within};
use crate::rig::{Forger, SYN, asleep, awake, connect, drain, flow_of, listening, server};

#[test]
fn a_flow_is_known_by_how_far_it_came() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut asker = lab.host.inside(Asker::open).expect("an asker");
    let open = [connect(&lab.attacker, HOST), connect(&lab.attacker, HOST6)];
    let half_open = Forger::new(&lab, 1000);
    half_open.send(SYN, 7, 0, &[]);
    let of = |asker: &mut Asker, flow: &Flow| asker.state(flow).expect("an answer");
    assert_eq!(of(&mut asker, &half_open.flow()), Some(TcpState::SynRecv));
    for stream in open {
        let flow = flow_of(&stream);
        assert_eq!(of(&mut asker, &flow), Some(TcpState::Established));
        let turned = Flow {
            client: flow.server,
            client_port: flow.port,
            server: flow.client,
            port: flow.client_port,
        };
        assert_eq!(of(&mut asker, &turned), None, "nobody opened it from that side");
        let unknown = Flow { port: 1, ..flow };
        assert_eq!(of(&mut asker, &unknown), None);
        drop(stream);
        let ended = || matches!(of(&mut asker, &flow), Some(TcpState::Other(5..=7)));
        assert!(within(ms(1000), ended), "the client's FIN shows");
    }
}

#[test]
fn many_questions_are_answered_in_their_order() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut asker = lab.host.inside(Asker::open).expect("an asker");
    let stream = connect(&lab.attacker, HOST);
    let open = flow_of(&stream);
    let flows: Vec<Flow> = (0..300u16)
        .map(|n| {
            if n % 3 == 0 {
                open
            } else {
                Flow {
                    client_port: n,
                    ..open
                }
            }
        })
        .collect();
    let states = asker.states(&flows).expect("answers");
    assert_eq!(states.len(), flows.len());
    for (n, state) in states.iter().enumerate() {
        assert_eq!(*state, (n % 3 == 0).then_some(TcpState::Established), "{n}");
    }
    assert_eq!(asker.states(&[]).expect("nothing"), []);
}

#[test]
fn where_conntrack_sleeps_nothing_is_known_and_nothing_wakes() {
    let lab = asleep();
    let _server = server(&lab.host);
    let mut asker = lab.host.inside(Asker::open).expect("an asker");
    let stream = connect(&lab.attacker, HOST);
    assert_eq!(asker.state(&flow_of(&stream)).expect("an answer"), None);
    let _second = connect(&lab.attacker, HOST);
    assert_eq!(lab.host.conntrack_count(), 0);
}

#[test]
fn a_connection_is_proven_by_its_socket_in_both_families() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    let mut prover = lab.host.inside(Prover::open).expect("a prover");
    let streams = [connect(&lab.attacker, HOST), connect(&lab.attacker, HOST6)];
    let (claims, _) = drain(&mut completions);
    assert_eq!(prover.standings(&claims).expect("answers"), [Standing::Proven; 2]);
    let mut others = claims.clone();
    others[0].client_port ^= 1;
    others[1].ends_at.set_port(1);
    assert_eq!(prover.standings(&others).expect("answers"), [Standing::Absent; 2]);
    let many: Vec<_> = claims.iter().cycle().take(300).copied().collect();
    assert_eq!(prover.standings(&many).expect("answers"), [Standing::Proven; 300]);
    drop(streams);
}

/// Not an assertion about speed: only that a question is no system call of its own.
#[test]
fn questions_go_by_the_hundred() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut completions = listening(&lab.host);
    let mut asker = lab.host.inside(Asker::open).expect("an asker");
    let mut prover = lab.host.inside(Prover::open).expect("a prover");
    let _stream = connect(&lab.attacker, HOST);
    let (claims, _) = drain(&mut completions);
    let claims = vec![claims[0]; 128];
    let flows: Vec<_> = claims.iter().map(|claim| claim.flow()).collect();
    let unknown: Vec<_> = flows.iter().map(|flow| Flow { port: 1, ..*flow }).collect();
    let time = |what: &str, each: u32, mut work: Box<dyn FnMut() + '_>| {
        let began = Instant::now();
        (0..100).for_each(|_| work());
        println!("{what}: {:?} a question", began.elapsed() / (100 * each));
    };
    time(
        "state, one",
        1,
        Box::new(|| assert!(asker.state(&flows[0]).expect("an answer").is_some())),
    );
    time(
        "state, 128",
        128,
        Box::new(|| assert_eq!(asker.states(&flows).expect("answers").len(), 128)),
    );
    time(
        "state, 128 unknown",
        128,
        Box::new(|| assert_eq!(asker.states(&unknown).expect("answers").len(), 128)),
    );
    time(
        "standing, 128",
        128,
        Box::new(|| assert_eq!(prover.standings(&claims).expect("answers").len(), 128)),
    );
}
