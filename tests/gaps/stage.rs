//! Attacker, host and client with all that is measured, and engines that start from many bans.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::client::Client;
use crate::common::engine::{Engine, Home};
use crate::common::flow::talks;
use crate::common::lab::{HOST, Lab};
use crate::common::service::Echo;
use crate::common::{ms, secs, within};
use crate::crowd;
use crate::probes::{ALLOWED, Kind, Leaks, Mark, Probes, REFUSED};

/// Firewall mode with the ports of the probes; `more` goes below.
pub(crate) fn firewall(more: &str) -> String {
    format!(
        "[firewall]\nmode = \"standard\"\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22, {ALLOWED}]\n\
         udp = [{ALLOWED}]\n[bans]\nenforce = true\n{more}"
    )
}

/// One story's ground. What it holds is let go of in this order.
pub(crate) struct Stage {
    pub(crate) probes: Probes,
    client: Client,
    _echo: Echo,
    pub(crate) lab: Arc<Lab>,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    /// Nothing holds anything yet: every kind of probe gets through, and is seen.
    pub(crate) fn set() -> Stage {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Arc::new(Lab::new().with_client());
        let echo = Echo::tcp(&lab.host, &[ALLOWED, REFUSED]);
        assert!(within(secs(10), || talks(lab.client(), HOST, ALLOWED)));
        let stage = Stage {
            probes: Probes::start(&lab),
            client: Client::start(&lab),
            _echo: echo,
            lab,
            _alone: alone,
        };
        stage.passes_everything(stage.probes.mark());
        stage
    }

    /// An engine that starts from so many bans, and holds every probe.
    pub(crate) fn engine(&self, config: &str, bans: usize) -> (Engine<'_>, Mark) {
        let home = Home::new(config);
        crowd::save(&home.state(), bans);
        let engine = Engine::start_in(&self.lab.host, home, &[]);
        assert_eq!(active(&engine), bans, "{}", engine.log());
        let ready = self.probes.mark();
        let quiet = within(secs(10), || self.probes.quiet(ms(50)));
        assert!(
            quiet,
            "{}\n{}",
            self.in_words(&self.probes.leaks(ready)),
            engine.log()
        );
        (engine, self.probes.forget())
    }

    /// That none of `kinds` got through since `mark`, and what was tried, in a line.
    pub(crate) fn nothing_leaked(&self, what: &str, mark: Mark, kinds: &[Kind]) {
        // What was sent a moment ago may be on its way.
        std::thread::sleep(ms(100));
        let mut leaks = self.probes.leaks(mark);
        leaks.retain(|kind, _| kinds.contains(kind));
        let (ticks, rate, longest) = self.probes.pace(mark);
        println!(
            "{what}: {} probes of {} kinds at {rate:.0} a second (longest pause {:.0} ms), {} leaked; {}",
            ticks * kinds.len(),
            kinds.len(),
            longest.as_secs_f64() * 1e3,
            leaks.values().map(|ticks| ticks.len()).sum::<usize>(),
            self.client_in_words(),
        );
        assert!(leaks.is_empty(), "{what}: {}", self.in_words(&leaks));
        assert!(rate > SLOWEST, "{what}: only {rate:.0} probes a second");
    }

    /// That the honest client always came through.
    pub(crate) fn nobody_was_shut_out(&self, what: &str) {
        let told = self.client.told();
        assert!(told.failed.is_empty(), "{what}: {:?}", told.failed);
        assert!(told.connected > 0 && told.words > 0, "{what}: {told:?}");
    }

    /// The engine has stopped; its table goes, and what was sent all along is seen.
    pub(crate) fn clear(&self) {
        self.lab.host.nft("delete table inet verdictd");
        self.passes_everything(self.probes.mark());
    }

    /// How long each kind leaked, from the first probe to the last.
    pub(crate) fn in_words(&self, leaks: &Leaks) -> String {
        let told = leaks.iter().map(|(kind, ticks)| {
            let length = self.probes.length(ticks);
            format!("{} of {kind:?} within {length:?}", ticks.len())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn client_in_words(&self) -> String {
        let told = self.client.told();
        format!(
            "an honest client connected {} times, the slowest in {:.0} ms",
            told.connected,
            told.slowest.as_secs_f64() * 1e3
        )
    }

    fn passes_everything(&self, mark: Mark) {
        let pass = within(secs(10), || self.probes.all_pass(mark));
        assert!(
            pass,
            "the witnesses saw only {:?}",
            self.probes.leaks(mark).keys()
        );
    }
}

/// How many bans are live, as the engine has it.
pub(crate) fn active(engine: &Engine) -> usize {
    engine.json("stats")["bans"]["active"].as_u64().unwrap() as usize
}

/// The value below which `percent` of them lie.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let nth = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(nth).copied().unwrap_or_default()
}

/// A thousand are meant; a machine that is busy with other things has its say.
const SLOWEST: f64 = 100.0;

#[test]
fn percentiles_are_of_what_was_measured() {
    let times: Vec<Duration> = (1..=200).rev().map(ms).collect();
    assert_eq!(
        [50, 99, 100].map(|p| percentile(&times, p)),
        [ms(100), ms(198), ms(200)]
    );
    assert_eq!(percentile(&[ms(7)], 99), ms(7));
}
