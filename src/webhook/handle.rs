//! What joins the thread of one endpoint to the rest: its settings, a word from an operator, its counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{EndpointConfig, WebhookConfig};
use super::http::Lookup;
use super::pace::Circuit;
use super::status::EndpointStatus;

/// What a thread is told from outside, and what it tells.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) name: String,
    setup: Mutex<Arc<Setup>>,
    /// The endpoint is no longer in the config.
    pub(super) leave: AtomicBool,
    /// An operator wants another try, of dead letters, too.
    pub(super) again: AtomicBool,
    counts: Mutex<EndpointStatus>,
}

/// What an endpoint is served by; replaced as a whole at a reload.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) endpoint: EndpointConfig,
    pub(super) config: Arc<WebhookConfig>,
    pub(super) lookup: Arc<dyn Lookup>,
}

impl Handle {
    pub(super) fn new(setup: Setup) -> Handle {
        Handle {
            name: setup.endpoint.name.clone(),
            counts: Mutex::new(idle(&setup.endpoint)),
            setup: Mutex::new(Arc::new(setup)),
            leave: AtomicBool::new(false),
            again: AtomicBool::new(false),
        }
    }

    pub(super) fn replace(&self, setup: Setup) {
        self.counts().url = setup.endpoint.url.to_string();
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
    }

    pub(super) fn leave(&self) {
        self.leave.store(true, Ordering::Release);
    }

    pub(super) fn again(&self) {
        self.again.store(true, Ordering::Release);
    }

    pub(super) fn status(&self) -> EndpointStatus {
        self.counts().clone()
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, EndpointStatus> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The status of an endpoint that nothing was done for.
pub(super) fn idle(endpoint: &EndpointConfig) -> EndpointStatus {
    EndpointStatus {
        name: endpoint.name.clone(),
        url: endpoint.url.to_string(),
        enabled: endpoint.enabled,
        delivered: 0,
        attempts: 0,
        failed: 0,
        last_error: None,
        last_error_at: None,
        last_success_at: None,
        circuit: Circuit::Closed,
        waiting: 0,
        dead_letters: 0,
        dropped: 0,
    }
}
