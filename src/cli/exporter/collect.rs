//! One look at the engine: what it answers now, within bounded time. Nothing is kept from one look to the next.

use std::time::{Duration, Instant};

use super::super::Client;
use crate::control::monitor_view::MonitorView;
use crate::control::wire::{Reply, Request, StateView, StatsView, StatusReport, WebhookView};
use crate::monitor::places::Places;
use crate::monitor::report;

/// What was answered. Without `stats` the engine is down, and the rest is not asked for.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) stats: Option<StatsView>,
    pub(super) status: Option<StatusReport>,
    pub(super) state: Option<StateView>,
    pub(super) webhooks: Option<WebhookView>,
    /// None: there never was a monitor.
    pub(super) monitor: Option<MonitorView>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Whom to ask, and where the monitor says what it found.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) places: Places,
}

impl Source {
    /// Asks for everything; [`WHOLE`] at most.
    pub(super) fn look(&self) -> Look {
        let began = Instant::now();
        let mut look = Look {
            monitor: report::view(&self.places),
            ..Look::default()
        };
        look.stats = self.ask(began, &Request::Stats { top: 0 }, |reply| match reply {
            Reply::Stats(stats) => Some(*stats),
            _ => None,
        });
        if look.stats.is_some() {
            look.status = self.ask(began, &Request::Status {}, |reply| match reply {
                Reply::Status(status) => Some(*status),
                _ => None,
            });
            look.state = self.ask(began, &Request::State {}, |reply| match reply {
                Reply::State(state) => Some(*state),
                _ => None,
            });
            look.webhooks = self.ask(began, &Request::Webhooks {}, |reply| match reply {
                Reply::Webhooks(webhooks) => Some(*webhooks),
                _ => None,
            });
        }
        look.took = began.elapsed();
        look
    }

    /// None: no answer in time, or another one than was asked for.
    fn ask<T>(&self, began: Instant, request: &Request, taken: impl FnOnce(Reply) -> Option<T>) -> Option<T> {
        let left = WHOLE.saturating_sub(began.elapsed()).min(EACH);
        // Less is no time at all to the kernel.
        if left < Duration::from_millis(1) {
            return None;
        }
        taken(self.client.clone().within(left).ask(request).ok()?)
    }
}

/// Prometheus gives up after 10 s (scrape_timeout) unless told otherwise.
const WHOLE: Duration = Duration::from_secs(8);
/// As the monitor waits before it calls an engine silent.
const EACH: Duration = Duration::from_secs(5);
