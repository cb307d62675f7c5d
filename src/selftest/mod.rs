//! The functional test: real packets of a made-up scanner, judged and banned by the running engine, and what became
//! of each of them.
//!
//! A tun device puts the scanner on this host's doorstep: an address of a documentation range that nobody has. The
//! engine is told, so that nothing of it is told further, counted or remembered ([`crate::control::selftest_view`]); it is judged by
//! the same code as anybody. A second address, the witness, sends what the scanner sends and is nothing but answered: what it is
//! answered and the scanner is not, was the ban and nothing else.
//!
//! Whatever happens to this process, nothing stays: the device goes with its descriptor, and the engine ends the test
//! by itself after 30 s.

mod knock;
mod packet;
mod ports;
mod proof;
mod range;
mod session;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::proof::{Cause, Failed, Proof, Step};

use self::knock::Knocker;
use self::proof::{Fault, Record};
use self::session::Session;
use self::steps::Trial;
use crate::control::client::Client;

/// How the self-test is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The engine's control socket; none: where `verdictctl` would look for it.
    pub socket: Option<PathBuf>,
    /// Set by whoever wants it to end early; it then fails with "interrupted", and cleans up as ever.
    pub stop: Arc<AtomicBool>,
}

/// Tries the running engine of this network namespace, beside whatever it does: some 0.8 s, at most 30.
///
/// # Errors
/// What was expected and not seen, with the steps that were proved before; nothing of the test is left either way.
pub fn run(options: &Options) -> Result<Proof, Failed> {
    let mut record = Record::new();
    match try_engine(options, &mut record) {
        Ok(()) => Ok(record.proof()),
        Err(fault) => Err(record.failed(fault)),
    }
}

fn try_engine(options: &Options, record: &mut Record) -> Result<(), Fault> {
    if !rustix::process::geteuid().is_root() {
        return Err(Fault {
            step: "root",
            expected: "to be root: a device is made, and the engine takes a self-test from nobody else"
                .into(),
            seen: format!("uid {}", rustix::process::geteuid().as_raw()),
            look_at: "sudo verdictd selftest".into(),
            cause: Cause::CannotRun,
        });
    }
    let client = Client::find(options.socket.clone());
    let places = range::free_places()?;
    // Dropped in reverse: the device goes first, then the engine forgets, so that nothing comes after.
    let mut session = Session::begin(client, places, record)?;
    let mut knocker = Knocker::open(&session, Arc::clone(&options.stop), record)?;
    let tried = Trial::new(&mut knocker, &mut session, record).run();
    if options.stop.load(Ordering::Relaxed) {
        return Err(Fault::interrupted());
    }
    tried?;
    drop(knocker);
    steps::nothing_stays(&mut session, record)
}
