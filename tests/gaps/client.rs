//! An honest client beside the probes: it comes and goes, it stays, and it is never shut out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::flow::{connect, echoes};
use crate::common::lab::{HOST, Lab};
use crate::common::{ms, secs};
use crate::probes::ALLOWED;

/// The client, until it is dropped.
pub(crate) struct Client {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of it so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Connections that came about.
    pub(crate) connected: u32,
    /// The longest time that one took.
    pub(crate) slowest: Duration,
    /// Words over the connection that stays open.
    pub(crate) words: u32,
    /// What failed, in words.
    pub(crate) failed: Vec<String>,
}

impl Client {
    /// Twenty connections a second, and one that stays.
    pub(crate) fn start(lab: &Arc<Lab>) -> Client {
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
        let mut staying = connect(lab.client(), HOST, ALLOWED).unwrap();
        staying.set_read_timeout(Some(PATIENCE)).unwrap();
        let ground = Arc::clone(lab);
        let threads = vec![
            run(&told, &stop, move |told| come_and_go(&ground, told)),
            run(&told, &stop, move |told| match echoes(&mut staying) {
                true => lock(told).words += 1,
                false => lock(told).failed.push("the connection that stays open".into()),
            }),
        ];
        Client { told, stop, threads }
    }

    /// What became of it so far.
    pub(crate) fn told(&self) -> Told {
        lock(&self.told).clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// `step` twenty times a second until told to stop.
fn run(
    told: &Arc<Mutex<Told>>,
    stop: &Arc<AtomicBool>,
    mut step: impl FnMut(&Mutex<Told>) + Send + 'static,
) -> JoinHandle<()> {
    let (told, stop) = (Arc::clone(told), Arc::clone(stop));
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            step(&told);
            thread::sleep(ms(50));
        }
    })
}

/// A SYN that waited in a queue when its engine was killed is lost: the client's own retransmission, after a second,
/// has to bring it through.
fn come_and_go(lab: &Lab, told: &Mutex<Told>) {
    let begun = Instant::now();
    let mut tries = 0;
    let talked = loop {
        tries += 1;
        match connect(lab.client(), HOST, ALLOWED) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                break echoes(&mut stream);
            }
            // `connect` gives up after one retransmission.
            Err(_) if begun.elapsed() < PATIENCE => {}
            Err(_) => break false,
        }
    };
    let took = begun.elapsed();
    let mut told = lock(told);
    told.slowest = told.slowest.max(took);
    match talked {
        true => told.connected += 1,
        false => told.failed.push(format!("connecting, {tries} tries in {took:?}")),
    }
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longer than any of this may take on a busy machine.
const PATIENCE: Duration = secs(5);
