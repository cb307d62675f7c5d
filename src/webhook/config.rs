//! What `[webhooks]` says, as values that cannot be bad: where events go, which, how fast, and who signs them.
//!
//! Nothing here shows a secret, the value of a header, or the part of an address behind its host.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use ureq::http::Uri;

use super::signature::{self, Secret};
use super::wire::EventType;

/// The longest name of an endpoint.
pub const MAX_NAME_CHARS: usize = 100;
/// The keys of an endpoint that say where its secret stands; it may have one of them.
pub const SECRET_KEYS: [&str; 4] = ["secret", "secret_file", "secret_env", "secret_credential"];

/// `[webhooks]`.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookConfig {
    /// Whether anything is sent.
    pub enabled: bool,
    /// What holds for endpoints that say nothing of their own.
    pub defaults: Delivery,
    /// Header of the signature over the body.
    pub signature_header: String,
    /// Header of the time of sending.
    pub timestamp_header: String,
    /// An event that could not be delivered for so long is a dead letter.
    pub spool_max_age: Duration,
    /// Bytes on disk of events that wait; beyond, the oldest are dropped and counted.
    pub spool_max_bytes: u64,
    /// Where events go, in the order of the file; names are unique.
    pub endpoints: Vec<EndpointConfig>,
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig {
            enabled: false,
            defaults: Delivery::default(),
            signature_header: signature::SIGNATURE.to_owned(),
            timestamp_header: signature::TIMESTAMP.to_owned(),
            spool_max_age: Duration::from_secs(24 * 3_600),
            spool_max_bytes: 64 << 20,
            endpoints: Vec::new(),
        }
    }
}

impl WebhookConfig {
    /// Those that events are sent to.
    pub fn live(&self) -> impl Iterator<Item = &EndpointConfig> {
        let enabled = self.enabled;
        self.endpoints
            .iter()
            .filter(move |endpoint| enabled && endpoint.enabled)
    }
}

/// How one endpoint is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts that follow a failed one before the circuit opens.
    pub retry_attempts: u32,
    /// Wait before the first of them; doubled each time, up to five minutes.
    pub retry_delay: Duration,
    /// What one request may take from name lookup to the head of the answer.
    pub timeout: Duration,
    /// Events in one request, at most.
    pub batch_size: usize,
    /// How long an informational event waits for others.
    pub batch_timeout: Duration,
    /// Requests a minute, at most; so many may also go at once after a rest.
    pub rate_limit: u32,
}

impl Default for Delivery {
    /// The Python system's.
    fn default() -> Delivery {
        Delivery {
            retry_attempts: 3,
            retry_delay: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            batch_size: 10,
            batch_timeout: Duration::from_secs(30),
            rate_limit: 100,
        }
    }
}

/// One `[[webhooks.endpoints]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointConfig {
    /// What it is called; no other is called so.
    pub name: String,
    /// Where requests go.
    pub url: Target,
    /// Whether it is served. While it is not, nothing is kept for it.
    pub enabled: bool,
    /// Whether `http://` may lead to a public address.
    pub allow_http: bool,
    /// Who signs.
    pub secret: SecretSource,
    /// Headers of its own, sent with each request. Their values are as secret as a key.
    pub headers: Vec<(String, Secret)>,
    /// Which events it gets.
    pub filter: Filter,
    /// How it is served.
    pub delivery: Delivery,
}

/// Which events an endpoint gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filter(u32);

impl Filter {
    /// Every event.
    pub const ALL: Filter = Filter(u32::MAX);

    /// Those of `include` (every event, if nothing is included by name) that are not in `exclude`.
    pub fn new(include: &[EventType], exclude: &[EventType]) -> Filter {
        let bits = |kinds: &[EventType]| kinds.iter().fold(0, |bits, kind| bits | bit(*kind));
        let wanted = if include.is_empty() {
            u32::MAX
        } else {
            bits(include)
        };
        Filter(wanted & !bits(exclude))
    }

    /// What either wants.
    pub fn or(self, other: Filter) -> Filter {
        Filter(self.0 | other.0)
    }

    /// Whether `kind` passes.
    pub fn wants(self, kind: EventType) -> bool {
        self.0 & bit(kind) != 0
    }

    /// Whether an event of this name passes; one that this version does not know passes where all do.
    pub fn wants_name(self, name: &str) -> bool {
        EventType::from_str(name).map_or(self == Filter::ALL, |kind| self.wants(kind))
    }

    /// As a number, for an atomic.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Back from [`bits`](Filter::bits).
    pub fn from_bits(bits: u32) -> Filter {
        Filter(bits)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(EventType::ALL.iter().filter(|kind| self.wants(**kind)))
            .finish()
    }
}

/// Asked for each packet that is counted.
fn bit(kind: EventType) -> u32 {
    1 << kind as u32
}

/// A web address. What it shows ends with the host: user, path and query are where services put their keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
}

/// Why a text is not the address of an endpoint. Never repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a web address")]
pub struct NotATarget;

impl Target {
    /// Reads `https://host[:port]/path?query` or the same with `http`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(text: &str) -> Result<Target, NotATarget> {
        let uri: Uri = text.parse().map_err(|_| NotATarget)?;
        let http = matches!(uri.scheme_str(), Some("https" | "http"));
        let authority = uri.authority().ok_or(NotATarget)?;
        let named = !authority.host().trim_matches(['[', ']', '.']).is_empty();
        let after_host = authority.as_str().rsplit(['@', ']']).next().unwrap_or_default();
        let port = !after_host.contains(':') || authority.port_u16().is_some_and(|port| port > 0);
        let target = Target { uri };
        (http && named && port).then_some(target).ok_or(NotATarget)
    }

    /// For the one place that connects.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether requests travel readable.
    pub fn is_plain(&self) -> bool {
        self.uri.scheme_str() == Some("http")
    }

    /// The address, where the host is one and no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host().trim_matches(['[', ']']).parse().ok()
    }

    fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            self.uri.scheme_str().unwrap_or_default(),
            self.host()
        )?;
        if let Some(port) = self.uri.port_u16() {
            write!(f, ":{port}")?;
        }
        let bare = matches!(self.uri.path(), "" | "/") && self.uri.query().is_none();
        f.write_str(if bare { "/" } else { "/…" })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an endpoint's secret stands. Read before each request, so that a changed file counts at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretSource {
    /// Nowhere: requests are not signed.
    #[default]
    None,
    /// In the config itself.
    Inline(Secret),
    /// In a file of one line, without spaces at its ends.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// In a credential that systemd hands over (`LoadCredential=`): its name below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_wins_and_nothing_named_is_everything() {
        use EventType::{ConnectionAttempt, IpBlocked, IpUnblocked};
        let all = Filter::new(&[], &[]);
        assert!(EventType::ALL.iter().all(|kind| all.wants(*kind)));
        let some = Filter::new(&[IpBlocked, ConnectionAttempt], &[ConnectionAttempt]);
        assert_eq!(
            [IpBlocked, ConnectionAttempt, IpUnblocked].map(|kind| some.wants(kind)),
            [true, false, false]
        );
        let but = Filter::new(&[], &[IpBlocked]);
        assert_eq!(
            [IpBlocked, IpUnblocked].map(|kind| but.wants(kind)),
            [false, true]
        );
        assert!(some.wants_name("ip_blocked") && !some.wants_name("later") && all.wants_name("later"));
        assert_eq!(format!("{some:?}"), "{IpBlocked}");
    }

    #[test]
    fn what_shows_of_an_address_ends_with_its_host() {
        for (text, shown) in [
            (
                "https://u:hush@soc.example.com/hooks/hush?key=hush",
                "https://soc.example.com/…",
            ),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
            ("https://x", "https://x/"),
            ("https://x/?hush", "https://x/…"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(
                (target.to_string(), format!("{target:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
        for text in [
            "",
            "x",
            "/x",
            "ftp://x/",
            "https://",
            "https:///x",
            "https://x:99999/",
            "https://x:0/",
            "http://[::1]:x/",
            "https://a b/",
            "https://./",
            "HTTPS//x",
        ] {
            assert_eq!(Target::parse(text), Err(NotATarget), "{text}");
        }
        assert_eq!(
            Target::parse("http://[fe80::1]/x").unwrap().address(),
            "fe80::1".parse().ok()
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = || Secret::new("hush").unwrap();
        let endpoint = EndpointConfig {
            name: "x".into(),
            url: Target::parse("https://hush:hush@x/hush").unwrap(),
            enabled: true,
            allow_http: false,
            secret: SecretSource::Inline(secret()),
            headers: vec![("X-Key".into(), secret())],
            filter: Filter::ALL,
            delivery: Delivery::default(),
        };
        let config = WebhookConfig {
            endpoints: vec![endpoint],
            ..WebhookConfig::default()
        };
        assert!(!format!("{config:?} {config:#?}").contains("hush"));
    }
}
