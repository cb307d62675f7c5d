//! `serve`: opens everything, waits for the end, closes everything in reverse.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Failed;
use crate::alert::Alerts;
use crate::alert::rules::Rules;
use crate::app::App;
use crate::args::Serve;
use crate::config::Config;
use crate::http;
use crate::log::Log;
use crate::read_api::Readers;
use crate::store::{self, Db};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &Serve) -> Result<(), Failed> {
    let config =
        Config::read(args.config.as_deref(), args.bind, |name| env::var(name).ok()).map_err(Failed::Usage)?;
    let log = Log::open(config.log_file.clone()).map_err(|why| {
        let path = config.log_file.as_deref().unwrap_or(Path::new(""));
        failed(&format!("log_file {}", path.display()), why)
    })?;
    let log = Arc::new(log);
    config.warnings.iter().for_each(|warning| log.warn(warning));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .build()
        .map_err(|why| failed("runtime", why))?;
    let (writing, alerts) = runtime.block_on(serve(&config, &log))?;
    // Who is still connected ends with the runtime, and with them the writer's errands and its thread.
    runtime.shutdown_background();
    let _ = writing.join();
    alerts.stop(LAST_ALERTS);
    log.info("stopped");
    Ok(())
}

/// Serves until it is told to stop; what is left to wait for then.
async fn serve(config: &Config, log: &Arc<Log>) -> Result<(JoinHandle<()>, Alerts), Failed> {
    let broken = |why: store::StoreError| Failed::Work(why.to_string());
    let db = Db::open(&config.database).map_err(broken)?;
    let asked = Db::open(&config.database).map_err(broken)?;
    let alerts = Alerts::start(config, log).map_err(Failed::Work)?;
    let rules = Rules {
        wide_scan_ports: config.wide_scan_ports,
    };
    let (writer, writing) = store::start(db, rules, alerts.bell());
    if let Some(age) = config.retention {
        tokio::spawn(writer.clone().keep_forgetting(age, Arc::clone(log)));
    }
    let readers = Readers {
        db: Arc::new(Mutex::new(asked)),
        token: config.read_token.clone(),
    };
    let app = App::new(config, writer, readers, Arc::clone(log));

    let stop = until_told(Arc::clone(log)).map_err(|why| failed("signals", why))?;
    let listener = TcpListener::bind(config.bind)
        .await
        .map_err(|why| failed(&config.bind.to_string(), why))?;
    let address = listener.local_addr().map_err(|why| failed("listener", why))?;
    announce(address);
    log.info(format!(
        "listening on {address}, events in {}",
        config.database.display()
    ));
    if !address.ip().is_loopback() {
        log.warn("this address is not loopback and speaks no TLS: let a proxy stand before it");
    }
    http::serve(listener, app.router(), stop).await;
    Ok((writing, alerts))
}

/// For scripts that wait for it, and for `--bind 127.0.0.1:0`.
pub(crate) fn announce(address: std::net::SocketAddr) {
    let _ = writeln!(io::stdout(), "listening on http://{address}");
    let _ = io::stdout().flush();
}

/// Done when the program is told to stop. On SIGHUP the log is opened anew.
fn until_told(log: Arc<Log>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hang_up.recv() => log.reopen(),
            }
        }
    })
}

fn failed(what: &str, why: io::Error) -> Failed {
    Failed::Work(format!("{what}: {why}"))
}

/// A message that is on its way when it is told to stop.
const LAST_ALERTS: Duration = Duration::from_secs(10);
/// Threads that read; they take turns at the database anyway.
const READERS: usize = 2;
