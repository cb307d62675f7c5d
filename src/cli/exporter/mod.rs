//! `verdictctl exporter`: what the engine knows, for Prometheus; over HTTP on loopback, or in a file for node_exporter.
//!
//! A process of its own, without any right but to ask: the engine itself never listens. Each scrape asks anew over the
//! control socket. An engine that does not answer is told as `verdictd_up 0`, and nothing of what it said before.

mod collect;
mod families;
mod http;
mod measure;
mod page;
mod textfile;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::collect::Source;
use super::{CliError, Client, Exit, Screen};
use crate::config::parse_duration;
use crate::monitor::places::Places;
use crate::places;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExporterArgs {
    /// Where to answer GET /metrics
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:9590",
        conflicts_with = "textfile"
    )]
    listen: SocketAddr,
    /// Allow an address that others reach: whoever can connect may read; there is neither TLS nor a password
    #[arg(long)]
    public: bool,
    /// Write the metrics into this file (FILE.prom, for node_exporter) and end
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    /// Go on, and write it anew this often: 15s, 1m
    #[arg(long, value_name = "DURATION", requires = "textfile")]
    every: Option<String>,
    /// Where the monitor says what it found
    #[arg(long, value_name = "DIR", default_value = places::STATE_DIR)]
    state_dir: PathBuf,
}

pub(super) fn run(client: &Client, args: ExporterArgs, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let source = Source {
        client: client.clone(),
        places: Places {
            state_dir: args.state_dir.clone(),
            runtime_dir: client.path().parent().map(PathBuf::from).unwrap_or_default(),
            ..Places::default()
        },
    };
    match &args.textfile {
        Some(path) => write(path, args.every.as_deref(), &source, screen),
        None => listen(&args, source, screen),
    }
}

fn listen(args: &ExporterArgs, source: Source, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let at = args.listen;
    if !at.ip().is_loopback() && !args.public {
        return Err(CliError::Usage(format!(
            "{at} can be reached by others, who may then read all of it; listen on 127.0.0.1 or [::1], or say --public"
        )));
    }
    let failed = |what: &str, error: io::Error| CliError::Failed(format!("{what}: {error}"));
    let runtime = runtime()?;
    runtime.block_on(async {
        let stop = told_to_stop()?;
        let listener = TcpListener::bind(at)
            .await
            .map_err(|error| failed(&format!("cannot listen on {at}"), error))?;
        let at = listener.local_addr()?;
        writeln!(screen.out, "listening on http://{at}/metrics")?;
        screen.out.flush()?;
        http::serve(listener, source, stop)
            .await
            .map_err(|error| failed("cannot go on", error))
    })?;
    // A thread may still wait for an engine that hangs.
    runtime.shutdown_background();
    Ok(Exit::Fine)
}

fn write(
    path: &Path,
    every: Option<&str>,
    source: &Source,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    if path.extension().is_none_or(|end| end != "prom") {
        return Err(CliError::Usage(format!(
            "{} does not end in .prom, and node_exporter reads no other files",
            path.display()
        )));
    }
    let every = every.map(interval).transpose()?;
    let failed = |error: &io::Error| format!("cannot write {}: {error}", path.display());
    let Some(every) = every else {
        textfile::write(path, source).map_err(|error| CliError::Failed(failed(&error)))?;
        return Ok(Exit::Fine);
    };
    runtime()?.block_on(async {
        let stop = told_to_stop()?;
        tokio::pin!(stop);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = &mut stop => break,
            }
            let written = textfile::write(path, source);
            // Once, not every 15 s.
            if let Err(error) = written.as_ref().map_err(failed)
                && well
            {
                writeln!(screen.err, "verdictctl: {error}; it is tried again")?;
            }
            well = written.is_ok();
        }
        Ok::<(), CliError>(())
    })?;
    textfile::remove(path);
    Ok(Exit::Fine)
}

fn interval(text: &str) -> Result<Duration, CliError> {
    let parsed = parse_duration(text).map_err(|error| CliError::Usage(format!("--every: {error}")))?;
    match (SHORTEST..=LONGEST).contains(&parsed) {
        true => Ok(parsed),
        false => Err(CliError::Usage(format!(
            "--every is {text}, must be between 1s and 1h"
        ))),
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
