//! One look at the engine: what it answers now, within bounded time. Nothing is kept from one look to the next.

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::Client;
use crate::control::monitor_view::MonitorView;
use crate::control::wire::{AuditView, Reply, Request, StateView, StatsView, WebhookView};
use crate::monitor::places::Places;
use crate::monitor::report;

/// What was answered. Without `stats` the engine is down, and the rest is not asked for.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) stats: Option<StatsView>,
    pub(super) status: Option<InForce>,
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
            look.status = self.ask(began, &Request::Status {}, |StatusReply::Status(status)| {
                Some(*status)
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
    fn ask<R: DeserializeOwned, T>(
        &self,
        began: Instant,
        request: &Request,
        taken: impl FnOnce(R) -> Option<T>,
    ) -> Option<T> {
        let left = WHOLE.saturating_sub(began.elapsed()).min(EACH);
        // Less is no time at all to the kernel.
        if left < Duration::from_millis(1) {
            return None;
        }
        let client = self.client.clone().within(left).taking(LONGEST);
        taken(client.ask_for(request).ok()?)
    }
}

/// A [`Reply`] to [`Request::Status`].
#[derive(Deserialize)]
#[serde(tag = "reply", content = "body", rename_all = "snake_case")]
enum StatusReply {
    Status(Box<InForce>),
}

/// What of a status is told. Its lists are as long as somebody's configuration, or an attack on many ports, makes them:
/// they are counted, not kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InForce {
    pub(super) version: String,
    pub(super) mode: String,
    pub(super) preset: String,
    pub(super) on_loss: String,
    pub(super) backend: String,
    pub(super) workers: u32,
    pub(super) attacks: Count,
    pub(super) protected_sources: Count,
    pub(super) audit: Option<AuditView>,
}

/// How many elements a list has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Count, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        from.deserialize_seq(Counter)
    }
}

/// Prometheus gives up after 10 s (scrape_timeout) unless told otherwise.
const WHOLE: Duration = Duration::from_secs(8);
/// As the monitor waits before it calls an engine silent.
const EACH: Duration = Duration::from_secs(5);
/// Every port under attack is 8 MB of it. The unit has room for 64.
const LONGEST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::server::{Handler, Peer, Server};
    use crate::control::wire::{AttackView, ProtectedSource, StatusReport};

    /// An engine with more to tell than fits into a megabyte.
    struct Busy;

    impl Handler for Busy {
        fn handle(&self, request: Request, _: Peer) -> Reply {
            match request {
                Request::Stats { .. } => Reply::Stats(Box::default()),
                Request::Status {} => Reply::Status(Box::new(StatusReport {
                    version: "9.9".into(),
                    attacks: vec![AttackView::default(); 65_535],
                    protected_sources: vec![ProtectedSource::default(); 20_000],
                    ..StatusReport::default()
                })),
                _ => Reply::refused("no"),
            }
        }
    }

    #[test]
    fn a_status_of_many_megabytes_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let _server = Server::start(&socket, Arc::new(Busy)).unwrap();
        let source = Source {
            client: Client::find(Some(socket)),
            places: Places {
                state_dir: folder.path().into(),
                runtime_dir: folder.path().into(),
                ..Places::default()
            },
        };
        let look = source.look();
        assert!(look.stats.is_some() && look.state.is_none());
        let status = look.status.expect("it is within the limit");
        assert_eq!(
            (status.attacks, status.protected_sources),
            (Count(65_535), Count(20_000))
        );
        assert_eq!(status.version, "9.9");
    }
}
