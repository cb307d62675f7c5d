//! What of the file system a running engine is left with: by its options and by the configuration at its start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::daemon::Options;
use crate::config::Config;
use crate::files;
use crate::kernel::confine::{Confinement, Needs};
use crate::kernel::host;
use crate::kernel::sessions::Records;
use crate::state::Place;
use crate::webhook::config::{SecretSource, WebhookConfig};

/// Confines the calling thread and all it starts, unless the configuration says otherwise.
pub(super) fn enter(options: &Options, config: &Config, place: &Place) -> Arc<Confinement> {
    if !config.engine.confine {
        return Arc::new(Confinement::off());
    }
    if let Some(folder) = config
        .audit
        .place(&options.log_dir)
        .parent()
        .filter(|_| config.audit.enabled)
    {
        // What is not there cannot be let in. Whoever writes there says so if it cannot be made.
        let _ = files::make_folder(folder, 0o750);
    }
    Arc::new(Confinement::enter(&needs(options, config, place)))
}

/// Closes what a running engine does not need, and says what holds it now.
pub(super) fn seal(confinement: &Confinement) {
    confinement.seal();
    info!("confinement: {confinement}");
    for note in confinement.notes() {
        warn!("confinement: {note}");
    }
}

/// Secrets of `webhooks` that confinement keeps from this engine, in words.
pub(super) fn kept_back(confinement: &Confinement, webhooks: &WebhookConfig) -> Vec<String> {
    let secrets = secrets(webhooks);
    secrets.filter_map(|path| confinement.keeps_from(path)).collect()
}

fn needs(options: &Options, config: &Config, place: &Place) -> Needs {
    let audit = config.audit.place(&options.log_dir);
    let parent = |path: &Path| path.parent().map(Path::to_owned);
    let own = [
        Some(options.state_dir.clone()),
        Some(options.runtime_dir.clone()),
        Some(options.log_dir.clone()),
        parent(&place.path()),
        parent(&audit),
    ];
    let mut write: Vec<PathBuf> = own.into_iter().flatten().collect();
    write.sort();
    write.dedup();
    let read = std::iter::once(options.config.as_path()).chain(secrets(&config.webhooks));
    Needs {
        write,
        read: read.map(Path::to_owned).collect(),
        follow: host::resolver_files().chain(Records::default().paths()).collect(),
    }
}

fn secrets(webhooks: &WebhookConfig) -> impl Iterator<Item = &Path> {
    webhooks
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.secret {
            SecretSource::File(path) => Some(path.as_path()),
            _ => None,
        })
}
