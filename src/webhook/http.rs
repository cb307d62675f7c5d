//! One request and what became of it. The only place that connects.
//!
//! Certificates are always verified, redirects never followed, proxies of the environment not used; of the answer only
//! its head counts. The address is judged after it was looked up, and is the one that is connected to.

use std::fmt::{self, Display};
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderName, HeaderValue, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Timeout};

use super::address::{self, Place, Refused};
use super::config::{EndpointConfig, SecretSource, WebhookConfig};
use super::signature::{SIGNATURE_V2, Secret, sign_v1, sign_v2};
use super::trial::{Trouble, Why};
use super::wire::USER_AGENT;

/// How names become addresses.
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// Every address of `host`.
    ///
    /// # Errors
    /// If there is none, or nobody can tell.
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// As the system does it.
#[derive(Debug)]
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// What became of a request. Texts hold no secret, and nothing that the peer wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Delivered,
    /// Not now; the peer may wish for a pause.
    Later(String, Option<Duration>),
    /// Never: whatever is sent would meet the same.
    Refused(String),
    /// Never: but fewer events, or others, may be taken.
    Unfit(String),
}

/// What is needed to send to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    uri: Uri,
    secret: SecretSource,
    headers: Vec<(HeaderName, HeaderValue)>,
    signature: String,
    timestamp: String,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(endpoint: &EndpointConfig, config: &WebhookConfig, lookup: Arc<dyn Lookup>) -> Client {
        let timeout = endpoint.delivery.timeout;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(USER_AGENT)
            .accept("*/*")
            .max_response_header_size(LARGEST_HEAD)
            .max_idle_connections(0)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(LONGEST_CONNECT)))
            .timeout_recv_body(Some(BODY_WAIT.min(timeout)))
            .tls_config(tls)
            .build();
        let guard = Guard {
            lookup,
            plain: endpoint.url.is_plain() && !endpoint.allow_http,
        };
        let mut headers: Vec<_> = endpoint.headers.iter().filter_map(header).collect();
        if headers.iter().all(|(name, _)| name != AUTHORIZATION) {
            headers.extend(credentials(endpoint.url.uri()).map(|value| (AUTHORIZATION, value)));
        }
        Client {
            agent: Agent::with_parts(settings, DefaultConnector::default(), guard),
            uri: endpoint.url.uri().clone(),
            secret: endpoint.secret.clone(),
            headers,
            signature: config.signature_header.clone(),
            timestamp: config.timestamp_header.clone(),
            timeout,
        }
    }

    /// Sends `body`, signed at `now`.
    pub(super) fn send(&self, body: &[u8], now: OffsetDateTime) -> Outcome {
        match self.exchange(body, now) {
            Ok((status, wish)) => judged(status, wish),
            Err(trouble) => Outcome::Later(trouble.text, None),
        }
    }

    /// The same: what was answered, and the pause that the peer wishes for.
    pub(super) fn exchange(
        &self,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<(StatusCode, Option<Duration>), Trouble> {
        let secret = self.secret.read().map_err(|error| Trouble {
            why: Why::Secret,
            text: error.to_string(),
        })?;
        let seconds = now.unix_timestamp();
        let mut request = self
            .agent
            .post(self.uri.clone())
            .header("Content-Type", "application/json")
            .header("Connection", "close")
            .header(&self.timestamp, seconds.to_string());
        if let Some(secret) = &secret {
            request = request
                .header(&self.signature, sensitive(sign_v1(body, secret)))
                .header(SIGNATURE_V2, sensitive(sign_v2(seconds, body, secret)));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(mut answer) => {
                // Read what is there, so that the peer is not cut off while it writes; none of it counts.
                let mut rest = answer.body_mut().with_config().limit(LARGEST_BODY).reader();
                let _ = io::copy(&mut rest.by_ref().take(LARGEST_BODY), &mut io::sink());
                let wish = answer.headers().get("retry-after");
                Ok((
                    answer.status(),
                    wish.and_then(|wish| pause(wish.to_str().ok()?, now)),
                ))
            }
            Err(error) => Err(Trouble {
                why: why(&error),
                text: self.told(error),
            }),
        }
    }

    /// ureq's words are replaced where they could repeat an address or what the peer wrote.
    fn told(&self, error: ureq::Error) -> String {
        let seconds = self.timeout.as_secs();
        match error {
            ureq::Error::Timeout(Timeout::Resolve) => "its name was not looked up in time".to_owned(),
            ureq::Error::Timeout(Timeout::Connect) => "no connection in time".to_owned(),
            ureq::Error::Timeout(_) => format!("no answer within {seconds} s"),
            ureq::Error::HostNotFound => "its name is not known".to_owned(),
            ureq::Error::LargeResponseHeader(..) => {
                format!("the head of its answer is longer than {} KiB", LARGEST_HEAD >> 10)
            }
            ureq::Error::Rustls(error) => plain(format_args!("tls: {error}")),
            ureq::Error::Io(error) => plain(error),
            ureq::Error::Other(error) => plain(error),
            ureq::Error::ConnectionFailed => "no connection".to_owned(),
            _ => "its answer is not HTTP".to_owned(),
        }
    }
}

fn why(error: &ureq::Error) -> Why {
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Resolve) => Why::Name,
        ureq::Error::Timeout(_) => Why::Late,
        ureq::Error::Rustls(_) => Why::Tls,
        // What rustls finds wrong while it reads comes so: a certificate, or no TLS at all.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Why::Tls,
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => Why::Connection,
        ureq::Error::Other(error) if error.is::<Unreachable>() => Why::Address,
        _ => Why::NotHttp,
    }
}

/// Values are ASCII and names are tokens: the config saw to it.
fn header((name, value): &(String, Secret)) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value.reveal()).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
}

/// What `user:password@` of an address says in a request (RFC 7617): there a percent sign is one, in an address it
/// writes other characters (RFC 3986, section 3.2.1).
fn credentials(uri: &Uri) -> Option<HeaderValue> {
    let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
    let user = if user.contains(':') {
        user.to_owned()
    } else {
        format!("{user}:")
    };
    let encoded = BASE64_STANDARD.encode(unescaped(&user));
    Some(sensitive(format!("Basic {encoded}")))
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(code.unwrap_or(b'%'));
        plain.extend(&part.as_bytes()[if code.is_some() { 2 } else { 0 }..]);
    }
    plain
}

fn sensitive(text: String) -> HeaderValue {
    let mut value = HeaderValue::try_from(text).expect("made of visible ASCII only");
    value.set_sensitive(true);
    value
}

fn judged(status: StatusCode, pause: Option<Duration>) -> Outcome {
    let said = format!("it answers {}", words(status));
    match status.as_u16() {
        200..300 => Outcome::Delivered,
        300..400 => Outcome::Later(format!("{said}, and redirects are not followed"), pause),
        408 | 429 => Outcome::Later(said, pause),
        400 | 413 | 422 => Outcome::Unfit(said),
        400..500 => Outcome::Refused(said),
        _ => Outcome::Later(said, pause),
    }
}

/// `404 Not Found`, or the number alone.
pub(super) fn words(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("{} {reason}", status.as_u16()).trim_end().to_owned()
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn pause(text: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = time::PrimitiveDateTime::parse(text.trim(), form)
        .ok()?
        .assume_utc();
    Duration::try_from(date - now).ok()
}

/// One line of bounded length, whatever an error says.
fn plain(error: impl Display) -> String {
    let text = error.to_string();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Judges every address that a name leads to, before it is connected to.
#[derive(Debug)]
struct Guard {
    lookup: Arc<dyn Lookup>,
    /// Requests travel readable, and nobody said that they may do so on a public way.
    plain: bool,
}

#[derive(Debug, Error)]
enum Unreachable {
    #[error("nothing is ever sent there: {0}")]
    Never(#[from] Refused),
    #[error("{0} is public, and http:// leads there readable: write https://, or allow_http = true")]
    Plain(std::net::IpAddr),
}

impl Guard {
    fn judge(&self, address: &SocketAddr) -> Result<(), Unreachable> {
        match address::place(address.ip())? {
            Place::Public if self.plain => Err(Unreachable::Plain(address.ip())),
            _ => Ok(()),
        }
    }

    /// A thread, since nothing ends a lookup before its time.
    fn addresses(&self, host: &str, port: u16, within: Duration) -> Result<Vec<SocketAddr>, ureq::Error> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let (to, from) = mpsc::sync_channel(1);
        let (lookup, host) = (Arc::clone(&self.lookup), host.to_owned());
        let looking = move || drop(to.send(lookup.lookup(&host, port)));
        std::thread::Builder::new()
            .name("webhook-lookup".into())
            .spawn(looking)?;
        match from.recv_timeout(within) {
            Ok(found) => found.map_err(|_| ureq::Error::HostNotFound),
            Err(RecvTimeoutError::Timeout) => Err(ureq::Error::Timeout(Timeout::Resolve)),
            Err(RecvTimeoutError::Disconnected) => Err(ureq::Error::HostNotFound),
        }
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let found = self.addresses(host, uri.port_u16().unwrap_or(usual), *timeout.after)?;
        let mut good = self.empty();
        let mut refused = None;
        for address in found.into_iter().take(MOST_ADDRESSES) {
            match self.judge(&address) {
                Ok(()) => good.push(address),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            _ if !good.is_empty() => Ok(good),
            Some(error) => Err(ureq::Error::Other(Box::new(error))),
            None => Err(ureq::Error::HostNotFound),
        }
    }
}

/// Status line and headers of an honest answer are a few hundred bytes.
const LARGEST_HEAD: usize = 16 << 10;
/// What is read of the body of an answer, and for how long.
const LARGEST_BODY: u64 = 64 << 10;
const BODY_WAIT: Duration = Duration::from_secs(1);
/// A peer that is there answers a SYN at once; two retransmissions fit (1 s and 3 s, RFC 6298).
const LONGEST_CONNECT: Duration = Duration::from_secs(5);
/// As many as ureq keeps.
const MOST_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn only_some_answers_are_worth_another_try() {
        let of = |status| judged(StatusCode::from_u16(status).unwrap(), None);
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status), Outcome::Delivered, "{status}");
        }
        for status in [301, 308, 408, 429, 500, 503, 599, 999] {
            assert!(matches!(of(status), Outcome::Later(..)), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(of(status), Outcome::Unfit(_)), "{status}");
        }
        for status in [401, 403, 404, 410, 418] {
            assert!(matches!(of(status), Outcome::Refused(_)), "{status}");
        }
        assert_eq!(of(410), Outcome::Refused("it answers 410 Gone".into()));
    }

    #[test]
    fn a_wish_is_seconds_or_a_date() {
        let now = datetime!(2026-03-01 12:00 UTC);
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 01 Mar 2026 12:01:30 GMT"), Some(90));
        for text in [
            "Sun, 01 Mar 2026 11:00:00 GMT",
            "soon",
            "",
            "-1",
            "99999999999999999999999",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn who_asks_is_told_the_user_of_the_address() {
        let of = |address: &str| credentials(&address.parse().unwrap());
        // "us er:p@w", as RFC 7617 has it.
        for (address, value) in [
            (
                "https://us%20er:p%40w@soc.example.com/",
                Some("Basic dXMgZXI6cEB3"),
            ),
            ("https://key@soc.example.com/", Some("Basic a2V5Og==")),
            ("https://soc.example.com/a@b", None),
        ] {
            let got = of(address);
            assert_eq!(
                got.as_ref().map(|value| value.to_str().unwrap()),
                value,
                "{address}"
            );
            assert!(got.is_none_or(|value| value.is_sensitive()));
        }
    }

    #[test]
    fn what_an_error_says_is_one_short_line() {
        let said = plain(format!("a\r\n\u{1b}[2Jb{}", "x".repeat(1_000)));
        assert!(said.starts_with("a[2Jb") && said.len() == 200, "{said}");
    }
}
