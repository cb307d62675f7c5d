//! Telling people: by e-mail and Slack, each on a thread of its own that no request waits for.
//!
//! What is to be told is read from the database and marked there as told, so that a restart loses no alert, a storm is
//! one message and nothing grows while a mail server is away.

mod digest;
mod mail;
pub(crate) mod rules;
mod slack;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use self::digest::Digest;
use crate::config::Config;
use crate::log::Log;
use crate::store::{Db, StoreError};

/// Where messages go.
pub(crate) trait Channel: Send {
    /// Its name, in the log and in the database.
    fn name(&self) -> &'static str;
    /// Sends one message.
    fn send(&self, digest: &Digest) -> Result<(), Unsent>;
}

/// Why a message did not go out.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    /// In words, without a secret.
    why: String,
    /// When the other side wants to hear from us again, if it says so.
    not_before: Option<Duration>,
}

impl From<String> for Unsent {
    fn from(why: String) -> Unsent {
        Unsent {
            why,
            not_before: None,
        }
    }
}

/// The threads.
#[derive(Default)]
pub(crate) struct Alerts {
    bells: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Alerts {
    /// Starts a thread for each channel that is configured.
    pub(crate) fn start(config: &Config, log: &Arc<Log>) -> Result<Alerts, String> {
        let mut channels: Vec<Box<dyn Channel>> = Vec::new();
        if let Some(mail) = &config.mail {
            channels.push(Box::new(mail::Mailer::new(mail)?));
        }
        if let Some(url) = &config.slack {
            channels.push(Box::new(slack::Slack::new(url.clone())));
        }
        let mut alerts = Alerts::default();
        for channel in channels {
            let teller = Teller::new(channel, &config.database, config.alert_interval, log)?;
            let (bell, heard) = bounded(1);
            // What a stopped receiver left untold.
            let _ = bell.try_send(());
            alerts.bells.push(bell);
            alerts.threads.push(thread::spawn(move || teller.run(&heard)));
        }
        Ok(alerts)
    }

    /// Something that rings when there are new alerts; never waits.
    pub(crate) fn bell(&self) -> impl Fn() + Send + 'static {
        let bells = self.bells.clone();
        move || bells.iter().for_each(|bell| _ = bell.try_send(()))
    }

    /// Waits for a message on its way, for `limit` at most. What is untold then is told after the next start.
    /// The bells that [`Alerts::bell`] gave out must be gone.
    pub(crate) fn stop(self, limit: Duration) {
        let end = Instant::now() + limit;
        drop(self.bells);
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One channel's thread.
struct Teller {
    channel: Box<dyn Channel>,
    db: Db,
    told: i64,
    interval: Duration,
    log: Arc<Log>,
}

impl Teller {
    fn new(
        channel: Box<dyn Channel>,
        database: &Path,
        interval: Duration,
        log: &Arc<Log>,
    ) -> Result<Teller, String> {
        let db = Db::open(database).map_err(|why| why.to_string())?;
        let told = db.told(channel.name()).map_err(|why| why.to_string())?;
        Ok(Teller {
            channel,
            db,
            told,
            interval,
            log: Arc::clone(log),
        })
    }

    /// One message for what came together, then none for `interval`, in which further alerts collect. After a failure
    /// tries again, later each time.
    fn run(mut self, bell: &Receiver<()>) {
        let mut failures = 0;
        let mut rung = false;
        loop {
            if !rung && bell.recv().is_err() || wait(bell, GATHER).is_none() {
                return;
            }
            let pause = match self.tell() {
                Ok(told) => {
                    failures = 0;
                    if told { self.interval } else { Duration::ZERO }
                }
                Err(unsent) => {
                    failures += 1;
                    let pause = retry_after(failures).max(unsent.not_before.unwrap_or_default());
                    let pause = pause.min(LAST_RETRY);
                    let name = self.channel.name();
                    self.log.warn(format!(
                        "alert by {name} failed: {}; tried again in {} s",
                        unsent.why,
                        pause.as_secs()
                    ));
                    pause
                }
            };
            match wait(bell, pause) {
                Some(heard) => rung = heard || failures > 0,
                None => return,
            }
        }
    }

    /// Whether there was something to tell.
    fn tell(&mut self) -> Result<bool, Unsent> {
        let broken = |why: StoreError| why.to_string();
        let due = self.db.due(self.told, digest::SHOWN).map_err(broken)?;
        if due.counts.is_empty() {
            return Ok(false);
        }
        let digest = Digest::of(&due);
        self.channel.send(&digest)?;
        self.told = due.last;
        self.log
            .info(format!("alert by {}: {}", self.channel.name(), digest.subject));
        // If this fails the message may come twice after a restart, which is better than not at all.
        self.db.set_told(self.channel.name(), due.last).map_err(broken)?;
        Ok(true)
    }
}

/// Waits for the whole of `pause`: whether it rang meanwhile, or none when the bell is gone.
fn wait(bell: &Receiver<()>, pause: Duration) -> Option<bool> {
    let end = Instant::now() + pause;
    let mut rung = false;
    loop {
        match bell.recv_deadline(end) {
            Ok(()) => rung = true,
            Err(RecvTimeoutError::Timeout) => return Some(rung),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// 5 s, doubling, five minutes at most.
fn retry_after(failures: u32) -> Duration {
    let doubled = FIRST_RETRY * 2u32.saturating_pow(failures.saturating_sub(1).min(10));
    doubled.min(LAST_RETRY)
}

/// What comes together is told together.
const GATHER: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
