//! The sending of events as a whole: opened, changed by a reload, asked how it goes, stopped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use thiserror::Error;

use super::config::{EndpointConfig, Filter, WebhookConfig};
use super::dead::DeadLetters;
use super::endpoint::Worker;
use super::handle::{self, Handle, Setup};
use super::http::{Lookup, SystemLookup};
use super::outbox::{self, Outbox, Shared};
use super::spool::{self, Spool};
use super::status::{EndpointStatus, Status};

/// Why events cannot be sent. The engine protects all the same.
#[derive(Debug, Error)]
pub enum StartError {
    /// The folder of waiting events.
    #[error("the spool of webhooks in {path:?} cannot be opened: {source}")]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("no thread for webhooks: {0}")]
    Thread(#[from] io::Error),
}

/// Everything that sends.
#[derive(Debug)]
pub struct Webhooks {
    shared: Arc<Shared>,
    folder: PathBuf,
    lookup: Arc<dyn Lookup>,
    config: WebhookConfig,
    running: Vec<Running>,
    writer: Option<JoinHandle<()>>,
    wake: Sender<()>,
    /// Keeps the lanes open for the writer.
    _outbox: Outbox,
}

#[derive(Debug)]
struct Running {
    handle: Arc<Handle>,
    thread: JoinHandle<()>,
}

impl Webhooks {
    /// Starts sending by `config`, from what waits in `folder` on. A config that sends nothing touches no disk.
    ///
    /// # Errors
    /// If there is no thread to be had, or the spool cannot be opened.
    pub fn start(config: &WebhookConfig, folder: &Path) -> Result<(Webhooks, Outbox), StartError> {
        Webhooks::start_with(config, folder, Arc::new(SystemLookup))
    }

    /// As [`start`](Webhooks::start), with a way of its own to look up names.
    ///
    /// # Errors
    /// As [`start`](Webhooks::start).
    pub fn start_with(
        config: &WebhookConfig,
        folder: &Path,
        lookup: Arc<dyn Lookup>,
    ) -> Result<(Webhooks, Outbox), StartError> {
        let shared = Arc::new(Shared::default());
        let (wake, woken) = bounded(1);
        let (outbox, writer) = outbox::pair(&shared, woken);
        let mut webhooks = Webhooks {
            shared,
            folder: folder.to_owned(),
            lookup,
            config: WebhookConfig::default(),
            running: Vec::new(),
            writer: Some(yielding("webhook-spool", move || writer.run())?),
            wake,
            _outbox: outbox.clone(),
        };
        webhooks.reload(config)?;
        Ok((webhooks, outbox))
    }

    /// Goes on by `config`. Endpoints keep their place by their name; what waits for one that is gone is forgotten.
    ///
    /// # Errors
    /// As [`start`](Webhooks::start); then nothing is sent to some endpoints or to any, and the next call tries again.
    pub fn reload(&mut self, config: &WebhookConfig) -> Result<(), StartError> {
        self.config = config.clone();
        let opened = self.open();
        self.running.retain(|running| {
            let stays = is_live(config, &running.handle.name);
            if !stays {
                running.handle.leave();
            }
            stays && !running.thread.is_finished()
        });
        let sends = self.shared.spools().is_some();
        let served = if sends { self.serve_all() } else { Ok(()) };
        let result = opened.and(served);
        self.notify();
        *self
            .shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = result
            .as_ref()
            .err()
            .map(|error| (error.to_string(), Instant::now()));
        result
    }

    /// Makes the spools what the config says.
    fn open(&self) -> Result<(), StartError> {
        let config = &self.config;
        let mut spools = self.shared.spools();
        let open = spools.take();
        let Some(wanted) = config.live().map(|endpoint| endpoint.filter).reduce(Filter::or) else {
            self.shared.wanted.store(0, Ordering::Relaxed);
            return Ok(());
        };
        let failed = |source| StartError::Spool {
            path: self.folder.clone(),
            source,
        };
        // What happens meanwhile waits for the lock, and is not lost.
        self.shared.wanted.fetch_or(wanted.bits(), Ordering::Relaxed);
        // Attempts get a quarter of the room: they may be many, and push out only each other.
        let bulk = config.spool_max_bytes / 4;
        let sizes = [config.spool_max_bytes - bulk, bulk];
        let mut open = match open {
            Some(open) => open,
            None => match self.open_spools(sizes) {
                Ok(open) => open,
                Err(error) => {
                    self.shared.wanted.store(0, Ordering::Relaxed);
                    return Err(failed(error));
                }
            },
        };
        let stays = |name: &str| is_live(config, name);
        let mut result = Ok(());
        for (spool, size) in open.iter_mut().zip(sizes) {
            let live = config
                .live()
                .map(|endpoint| (endpoint.name.as_str(), endpoint.filter));
            result = result.and(spool.serve(live).map_err(failed));
            spool.forget(stays);
            spool.set_most_bytes(size);
        }
        *spools = Some(open);
        self.shared.wanted.store(wanted.bits(), Ordering::Relaxed);
        result
    }

    fn open_spools(&self, [main, bulk]: [u64; 2]) -> io::Result<[Spool; 2]> {
        Ok([
            Spool::open(&self.folder.join("events"), main)?,
            Spool::open(&self.folder.join("attempts"), bulk)?,
        ])
    }

    /// A thread for each endpoint that has none, the new settings for those that have.
    fn serve_all(&mut self) -> Result<(), StartError> {
        // One for all: it holds every endpoint.
        let config = Arc::new(self.config.clone());
        for endpoint in self.config.live() {
            let setup = Setup {
                endpoint: endpoint.clone(),
                config: Arc::clone(&config),
                lookup: Arc::clone(&self.lookup),
            };
            if let Some(handle) = self.handle(&endpoint.name) {
                handle.replace(setup);
                continue;
            }
            if let Some(spools) = self.shared.spools().as_mut() {
                spools.iter_mut().for_each(|spool| spool.rewind(&endpoint.name));
            }
            let handle = Arc::new(Handle::new(setup));
            let number = spool::hash(&endpoint.name);
            let most = (self.config.spool_max_bytes / 16).max(LEAST_DEAD);
            let dead = DeadLetters::open(&self.folder, number, most);
            let worker = Worker::new(Arc::clone(&self.shared), Arc::clone(&handle), dead);
            let thread = yielding("webhook", move || worker.run())?;
            self.running.push(Running { handle, thread });
        }
        Ok(())
    }

    /// Of the endpoint of this name, if it has a thread.
    fn handle(&self, name: &str) -> Option<&Handle> {
        let mut handles = self.running.iter().map(|running| &*running.handle);
        handles.find(|handle| handle.name == name)
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        let spools = self.shared.spools();
        let open = spools.as_ref().map_or(&[][..], |spools| spools);
        let last_error = self
            .shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Status {
            enabled: self.config.enabled,
            spooled: self.shared.spooled.load(Ordering::Relaxed),
            merged: self.shared.merged.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            spool_bytes: open.iter().map(Spool::bytes).sum(),
            damaged: open.iter().map(Spool::damaged).sum(),
            last_error: last_error.as_ref().map(|(error, _)| error.clone()),
            endpoints: self
                .config
                .endpoints
                .iter()
                .map(|endpoint| self.endpoint(endpoint, open))
                .collect(),
        }
    }

    /// How it goes with one endpoint: what its thread says, and what waits for it in the spools.
    fn endpoint(&self, endpoint: &EndpointConfig, spools: &[Spool]) -> EndpointStatus {
        let handle = self.handle(&endpoint.name);
        let mut status = handle.map_or_else(|| handle::idle(endpoint), Handle::status);
        for (waiting, dropped) in spools.iter().map(|spool| spool.depth(&endpoint.name)) {
            status.waiting += waiting;
            status.dropped += dropped;
        }
        status
    }

    /// Tries at once what waits for `name` (or for everybody), and sends dead letters again; how many endpoints that
    /// are.
    pub fn retry(&self, name: Option<&str>) -> usize {
        let meant = |running: &&Running| name.is_none_or(|name| running.handle.name == name);
        let meant: Vec<_> = self.running.iter().filter(meant).collect();
        meant.iter().for_each(|running| running.handle.again());
        self.notify();
        meant.len()
    }

    /// Writes what was handed over, sends what can be sent before `deadline`, and leaves the rest on disk. An endpoint
    /// that hangs in a request then is left to the end of the process.
    pub fn stop(mut self, deadline: Instant) -> Status {
        self.tell_to_stop(deadline);
        let writer = self.writer.take();
        let threads = self.running.iter().map(|running| &running.thread).chain(&writer);
        let threads: Vec<_> = threads.collect();
        while Instant::now() < deadline && !threads.iter().all(|thread| thread.is_finished()) {
            thread::sleep(LOOK_EVERY);
        }
        self.status()
    }

    /// The first word counts.
    fn tell_to_stop(&self, deadline: Instant) {
        self.shared.deadline.get_or_init(|| deadline);
        let _ = self.wake.try_send(()); // full: it wakes anyway
        self.notify();
    }

    /// Under the lock, or a thread between its look and its wait would miss it.
    fn notify(&self) {
        let spools = self.shared.spools();
        self.shared.changed.notify_all();
        drop(spools);
    }
}

fn is_live(config: &WebhookConfig, name: &str) -> bool {
    config.live().any(|endpoint| endpoint.name == name)
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.tell_to_stop(Instant::now());
    }
}

/// A thread that steps back behind those that judge packets: where processors are short, an event comes later, and a
/// verdict does not. What it starts does the same.
fn yielding(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(move || {
        // On Linux this thread alone (setpriority(2)). Where it is forbidden all are alike, and nothing else is lost.
        let _ = rustix::process::nice(YIELDS);
        work();
    })
}

/// A tenth of the share of who does not yield (sched(7)), so still enough for what is urgent. Measured by
/// `make bench-peers`.
const YIELDS: i32 = 10;
/// How often the end of threads is looked for while stopping.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Room for dead letters, however small the spool.
const LEAST_DEAD: u64 = 256 << 10;
