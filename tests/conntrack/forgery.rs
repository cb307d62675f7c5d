//! A sender who never sees our SYN+ACK, in a silent stranger's name: what conntrack can be made to believe, and
//! that none of it is taken for a completed handshake.

use std::thread;
use std::time::{Duration, Instant};

use verdictd::kernel::conntrack::Completed;
use verdictd::kernel::conntrack::ask::{Asker, TcpState};
use verdictd::kernel::conntrack::dump::completed_flows;
use verdictd::kernel::conntrack::events::Completions;
use verdictd::kernel::conntrack::handshakes::{Handshakes, Proof};
use verdictd::kernel::conntrack::proof::{Prover, Standing};

use crate::common::lab::{HOST, HOST6, Lab};
use crate::common::{ms, secs, within};
use crate::rig::{
    ACK, Forger, MD5, PORT, RST, SILENT, SYN, URG, awake, connect, connect_to, drain, flow_of, listening,
    server,
};

/// The host's own window into it all.
struct Eyes<'a> {
    lab: &'a Lab,
    completions: Completions,
    asker: Asker,
    prover: Prover,
}

impl<'a> Eyes<'a> {
    fn new(lab: &'a Lab) -> Eyes<'a> {
        Eyes {
            lab,
            completions: listening(&lab.host),
            asker: lab.host.inside(Asker::open).expect("an asker"),
            prover: lab.host.inside(Prover::open).expect("a prover"),
        }
    }

    fn state(&mut self, forger: &Forger) -> Option<TcpState> {
        self.asker.state(&forger.flow()).expect("an answer")
    }

    fn standing(&mut self, claim: &Completed) -> Standing {
        self.prover.standings(&[*claim]).expect("an answer")[0]
    }

    fn in_the_table(&self) -> Vec<Completed> {
        self.lab.host.inside(|| completed_flows(100)).expect("a dump")
    }

    fn hears_nothing(&mut self) -> bool {
        drain(&mut self.completions) == (vec![], 0) && self.in_the_table().is_empty()
    }
}

#[test]
fn stray_and_wrong_acks_complete_nothing() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut eyes = Eyes::new(&lab);
    let bare = Forger::new(&lab, 1000);
    bare.send(ACK, 1, 1, &[]);
    bare.send(ACK | RST, 1, 1, &[]);
    bare.send(ACK, 1, 1, &[]);
    assert_eq!(eyes.state(&bare), None, "our RST ends such an entry");
    let signed = Forger::new(&lab, 1001);
    (0..3).for_each(|_| signed.send(ACK, 1, 1, &MD5));
    assert_eq!(
        eyes.state(&signed),
        Some(TcpState::Established),
        "conntrack took it up"
    );
    let wrong = Forger::new(&lab, 1002);
    wrong.send(SYN, 100, 0, &[]);
    for options in [&[][..], &MD5] {
        // Each in reach of our number once in 65,000 runs.
        wrong.send(ACK, 101, 0, options);
        wrong.send(ACK, 101, 1 << 31, options);
    }
    assert!(eyes.hears_nothing());
}

/// After `conntrack -F`, or as here when a RST that only conntrack heeds has ended its entry while TCP goes on
/// answering, ACKs make an entry that checks no numbers; the next SYN+ACK of TCP makes it assured.
#[test]
fn an_entry_taken_up_midway_is_no_completion() {
    let lab = awake();
    let _server = server(&lab.host);
    lab.host
        .sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1");
    let mut eyes = Eyes::new(&lab);
    let forger = Forger::new(&lab, 1000);
    forger.send(SYN, 100, 0, &[]);
    forger.send(RST, 101, 0, &MD5);
    assert_eq!(eyes.state(&forger), Some(TcpState::Other(8)));
    let assured = || {
        forger.send(ACK, 101, 7, &MD5);
        let listed = lab.host.must("conntrack", &["-L", "-s", SILENT]);
        listed.contains("ESTABLISHED") && listed.contains("[ASSURED]")
    };
    thread::sleep(ms(1200));
    assert!(
        within(secs(10), assured),
        "this kernel is not to be fooled that way: weaken the words about it"
    );
    assert!(eyes.hears_nothing());
}

/// Tries all of TCP's numbers in steps that conntrack takes for near enough; the claim that comes of it.
fn sweep(forger: &Forger, completions: &mut Completions, options: &[u8]) -> Completed {
    const STEP: u32 = 66_000;
    forger.send(SYN, 100, 0, &[]);
    let mut claim = None;
    for n in 0..=u32::MAX / STEP {
        forger.send(ACK, 101, n * STEP, options);
        if n % 64 == 0 {
            let _ = completions.drain(|completed| claim = Some(completed));
        }
        if claim.is_some() {
            break;
        }
    }
    let _ = completions.drain(|completed| claim = Some(completed));
    claim.expect("conntrack takes one of these ACKs for the end of the handshake")
}

#[test]
fn a_sweep_of_acks_convinces_conntrack_but_proves_nothing() {
    let lab = awake();
    let _server = server(&lab.host);
    let mut eyes = Eyes::new(&lab);
    let plain = Forger::new(&lab, 1000);
    let claim = sweep(&plain, &mut eyes.completions, &[]);
    assert_eq!(claim.flow(), plain.flow());
    let closed = || eyes.state(&plain) == Some(TcpState::Other(8));
    assert!(within(secs(5), closed), "our RST gives it away");
    assert_eq!(eyes.standing(&claim), Standing::Opening);
    let signed = Forger::new(&lab, 1001);
    let claim = sweep(&signed, &mut eyes.completions, &MD5);
    assert_eq!(
        eyes.state(&signed),
        Some(TcpState::Established),
        "nothing gives it away"
    );
    assert_eq!(eyes.standing(&claim), Standing::Opening);
    // A RST that TCP heeds and conntrack calls invalid: no socket is left to contradict.
    signed.send(RST | URG, 101, 0, &[]);
    assert_eq!(eyes.state(&signed), Some(TcpState::Established));
    assert_eq!(eyes.standing(&claim), Standing::Absent);
}

#[test]
fn handshakes_believe_sockets_only() {
    let lab = awake();
    let _server = server(&lab.host);
    // Any ACK will do for conntrack then: two packets instead of 65,000.
    lab.host.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1");
    let mut handshakes = lab.host.inside(Handshakes::open).expect("a listener");
    let began = Instant::now();
    let mut at = |after: Duration| {
        let mut told = Vec::new();
        let served = handshakes
            .serve(
                began + after,
                |_| true,
                |completed, proof| told.push((completed.flow(), proof)),
            )
            .expect("answers");
        (served, told, handshakes.poll_timeout())
    };
    let forger = Forger::new(&lab, 1000);
    forger.send(SYN, 100, 0, &[]);
    forger.send(ACK, 101, 7, &MD5);
    let honest = [connect(&lab.attacker, HOST), connect(&lab.attacker, HOST6)];
    let (served, told, next) = at(ms(0));
    assert_eq!(
        told,
        honest.each_ref().map(|stream| (flow_of(stream), Proof::Socket))
    );
    assert_eq!(
        (served.read, served.completed, served.unproven, served.lost),
        (3, 2, 0, false)
    );
    assert_eq!(next, Some(began + ms(20)), "the forged one is asked for again");
    assert_eq!(at(ms(20)).2, Some(began + ms(1020)));
    assert_eq!(at(ms(1019)).0.unproven, 0);
    assert_eq!(at(ms(1020)).2, Some(began + ms(6020)));
    let (served, told, next) = at(ms(6020));
    assert_eq!((served.unproven, told, next), (1, vec![], None));
}

#[test]
fn what_is_published_elsewhere_counts_on_conntracks_word() {
    let lab = Lab::new().with_behind();
    lab.host.nft(&format!(
        "add table ip publish; \
         add chain ip publish pre {{ type nat hook prerouting priority -100; }}; \
         add rule ip publish pre ip daddr {HOST} tcp dport 443 dnat to 10.77.2.1:{PORT}"
    ));
    let _server = server(lab.behind());
    let mut handshakes = lab.host.inside(Handshakes::open).expect("a listener");
    let stream = connect_to(&lab.attacker, HOST, 443);
    let mut told = Vec::new();
    assert!(within(secs(2), || {
        let _ = handshakes
            .serve(
                Instant::now(),
                |_| true,
                |completed, proof| told.push((completed.flow(), proof)),
            )
            .expect("answers");
        !told.is_empty()
    }));
    assert_eq!(told, [(flow_of(&stream), Proof::Conntrack)]);
}
