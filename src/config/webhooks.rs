//! `[webhooks]`: where events go. No value of a secret, a header or an address is ever repeated in a message.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::sections::home_but;
use super::suggest;
use super::units::{self, Fault, Read, shown};
use crate::webhook::address;
use crate::webhook::config::{
    Delivery, EndpointConfig, Filter, MAX_NAME_CHARS, SECRET_KEYS, SecretSource, Target, WebhookConfig,
};
use crate::webhook::signature::{SIGNATURE_V2, Secret};
use crate::webhook::wire::EventType;

/// Reads the section.
pub(super) fn read(root: &mut Section<'_>) -> WebhookConfig {
    let mut config = WebhookConfig::default();
    let Some(mut section) = root.section("webhooks") else {
        return config;
    };
    config.enabled = section.get("enabled", units::boolean).unwrap_or(config.enabled);
    config.defaults = delivery(&mut section, config.defaults);
    let header = section.get("signature_header", header_name);
    config.signature_header = header.unwrap_or(config.signature_header);
    let header = section.get("timestamp_header", header_name);
    config.timestamp_header = header.unwrap_or(config.timestamp_header);
    refuse_same_header(&section, &config);
    config.spool_max_age = section
        .get("spool_max_age", units::seconds(MINUTE..=365 * DAY))
        .unwrap_or(config.spool_max_age);
    config.spool_max_bytes = section
        .get("spool_max_bytes", units::whole(LEAST_SPOOL..=MOST_SPOOL))
        .unwrap_or(config.spool_max_bytes);
    let mut names = BTreeSet::new();
    for below in section.sections("endpoints") {
        config.endpoints.extend(endpoint(below, &config, &mut names));
    }
    if config.enabled && config.live().next().is_none() {
        let text = "webhooks.enabled = true has no effect: no endpoint is enabled";
        section
            .report()
            .note(section.line_of("enabled"), "webhooks.enabled", text);
    }
    section.finish(home_but("webhooks"));
    config
}

/// How fast and how often: the same keys for all endpoints and for one.
fn delivery(section: &mut Section<'_>, default: Delivery) -> Delivery {
    let up_to_an_hour = || units::seconds(SECOND..=HOUR);
    let attempts = section.get("retry_attempts", units::whole(0..=100));
    Delivery {
        retry_attempts: attempts.unwrap_or(default.retry_attempts),
        retry_delay: section
            .get("retry_delay", up_to_an_hour())
            .unwrap_or(default.retry_delay),
        timeout: section.get("timeout", up_to_an_hour()).unwrap_or(default.timeout),
        batch_size: section
            .get("batch_size", units::whole(1..=10_000u32))
            .map_or(default.batch_size, |n| n as usize),
        batch_timeout: section
            .get("batch_timeout", up_to_an_hour())
            .unwrap_or(default.batch_timeout),
        rate_limit: section
            .get("rate_limit", units::whole(1..=1_000_000))
            .unwrap_or(default.rate_limit),
    }
}

/// Two of three headers under one name would be one header.
fn refuse_same_header(section: &Section<'_>, config: &WebhookConfig) {
    let (signature, timestamp) = (&config.signature_header, &config.timestamp_header);
    let taken = |name: &str| name.eq_ignore_ascii_case(SIGNATURE_V2);
    let right = "give each of the three headers a name of its own";
    if taken(signature) || signature.eq_ignore_ascii_case(timestamp) {
        let wrong = "is the name of another header of the request";
        section.refuse(
            "signature_header",
            Fault::new(format!("{signature:?}"), wrong, right),
        );
    }
    if taken(timestamp) {
        let wrong = "is the header of the second signature";
        section.refuse(
            "timestamp_header",
            Fault::new(format!("{timestamp:?}"), wrong, right),
        );
    }
}

/// `None` if name or address are missing or faulty, which is then reported.
fn endpoint(
    mut section: Section<'_>,
    config: &WebhookConfig,
    names: &mut BTreeSet<String>,
) -> Option<EndpointConfig> {
    let name = section.get("name", name);
    let url = section.get("url", url);
    let enabled = section.get("enabled", units::boolean).unwrap_or(true);
    let allow_http = section.get("allow_http", units::boolean).unwrap_or(false);
    let secret = secret_source(&mut section, config.enabled && enabled);
    let headers = headers(&mut section, config);
    let filter = filter(&mut section);
    let delivery = delivery(&mut section, config.defaults);
    for key in ["name", "url"].into_iter().filter(|key| !section.has(key)) {
        section.refuse(
            key,
            Fault::new("", "missing", format!("write {key} = \"…\" for this endpoint")),
        );
    }
    if let Some(name) = name.as_ref().filter(|name| !names.insert((*name).clone())) {
        let right = "give each endpoint a name of its own";
        section.refuse(
            "name",
            Fault::new(format!("{name:?}"), "is the name of another endpoint", right),
        );
    }
    if let Some(url) = &url {
        plain_http(&section, url, allow_http);
    }
    section.finish(home_but(""));
    let (name, url) = (name?, url?);
    Some(EndpointConfig {
        name,
        url,
        enabled,
        allow_http,
        secret,
        headers,
        filter,
        delivery,
    })
}

fn name(value: &DeValue<'_>) -> Read<String> {
    let right = format!("write a name in quotes, of at most {MAX_NAME_CHARS} characters");
    let text = units::string(value, &right)?;
    let good =
        !text.trim().is_empty() && text.chars().count() <= MAX_NAME_CHARS && !text.contains(char::is_control);
    good.then(|| text.to_owned())
        .ok_or_else(|| Fault::new(shown(value), "is not a name", right))
}

fn url(value: &DeValue<'_>) -> Read<Target> {
    let right = "write an address in quotes that begins with https:// or http://";
    let text = value.as_str().ok_or_else(|| hidden(value, right))?;
    let ascii = "write other letters than ASCII as xn--… in its host and %… behind it";
    let right_here = if text.is_ascii() { right } else { ascii };
    let target = Target::parse(text).map_err(|error| Fault::new("", error.to_string(), right_here))?;
    match target.address().map(address::place) {
        Some(Err(refused)) => Err(Fault::new(
            "",
            format!("leads nowhere: {refused}"),
            "write where events may go",
        )),
        _ => Ok(target),
    }
}

/// What travels readable is worth a word, and to a public address it needs the operator's.
fn plain_http(section: &Section<'_>, url: &Target, allowed: bool) {
    if !url.is_plain() {
        return;
    }
    let place = url.address().and_then(|address| address::place(address).ok());
    if place == Some(address::Place::Public) && !allowed {
        let right = "write https://, or allow_http = true for this endpoint";
        let wrong =
            "leads by http:// to a public address: everybody on the way can read and change what is sent";
        section.refuse("url", Fault::new("", wrong, right));
        return;
    }
    let rest = match (place, allowed) {
        (None, false) => "; nothing is sent if the name leads to a public address (allow_http = true)",
        _ => "",
    };
    let key = section.full("url");
    let text = format!("{key}: http://: everybody on the way can read and change what is sent{rest}");
    section.report().note(section.line_of("url"), key, text);
}

/// One of the places where a secret may stand. `used`: a word about one that nobody uses would only disturb.
fn secret_source(section: &mut Section<'_>, used: bool) -> SecretSource {
    let given: Vec<&str> = SECRET_KEYS.into_iter().filter(|key| section.has(key)).collect();
    if given.len() > 1 {
        let right = format!("keep one of {}", given.join(", "));
        section.refuse(
            given[1],
            Fault::new("", "is a second secret of this endpoint", right),
        );
    }
    let inline = section.get("secret", |value| secret(value).map(Secret::new));
    if inline == Some(None) {
        let key = section.full("secret");
        let text = format!("{key} is empty: requests of this endpoint are not signed");
        section.report().note(section.line_of("secret"), key, text);
    }
    if let Some(Some(known)) = &inline
        && used
        && known.reveal().starts_with("your-")
    {
        let key = section.full("secret");
        let text = format!("{key} is one of the documentation: everybody can sign with it");
        section.report().note(section.line_of("secret"), key, text);
    }
    let sources = [
        inline.flatten().map(SecretSource::Inline),
        section.get("secret_file", secret_file).map(SecretSource::File),
        section.get("secret_env", variable).map(SecretSource::Env),
        section
            .get("secret_credential", credential)
            .map(SecretSource::Credential),
    ];
    sources.into_iter().flatten().next().unwrap_or_default()
}

fn secret_file(value: &DeValue<'_>) -> Read<PathBuf> {
    let right = "write an absolute path in quotes";
    let path = PathBuf::from(value.as_str().ok_or_else(|| hidden(value, right))?);
    let good = path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0);
    // Who writes the secret itself here finds it in no message.
    good.then_some(path)
        .ok_or_else(|| Fault::new("", "is not an absolute path", right))
}

fn variable(value: &DeValue<'_>) -> Read<String> {
    let right = "write the name of an environment variable, as in \"SOC_SECRET\"";
    let text = value.as_str().ok_or_else(|| hidden(value, right))?;
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    good.then(|| text.to_owned())
        .ok_or_else(|| Fault::new("", "is not the name of a variable", right))
}

fn credential(value: &DeValue<'_>) -> Read<String> {
    let right = "write the name of a systemd credential, as in \"soc\" of LoadCredential=soc:/path";
    let text = value.as_str().ok_or_else(|| hidden(value, right))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = !text.is_empty() && text.len() <= 255 && !text.starts_with('.') && text.bytes().all(plain);
    good.then(|| text.to_owned())
        .ok_or_else(|| Fault::new("", "is not the name of a credential", right))
}

fn headers(section: &mut Section<'_>, config: &WebhookConfig) -> Vec<(String, Secret)> {
    let Some(below) = section.section("headers") else {
        return Vec::new();
    };
    let ours = [&config.signature_header, &config.timestamp_header].map(String::as_str);
    let key = |name: &str| {
        let same = |other: &&str| other.eq_ignore_ascii_case(name);
        let right = "write the name of another header";
        if !is_token(name) {
            return Err(Fault::new("", "is not the name of a header", right));
        }
        if OURS.iter().chain(&ours).any(same) {
            return Err(Fault::new("", "is a header that verdictd writes itself", right));
        }
        Ok(name.to_owned())
    };
    below.entries(key, header_value)
}

fn header_value(value: &DeValue<'_>) -> Read<Secret> {
    let text = secret(value)?;
    let visible = text.bytes().all(|b| (0x20..0x7f).contains(&b) || b == b'\t');
    let good = Secret::new(text).filter(|_| visible);
    good.ok_or_else(|| {
        Fault::new(
            "",
            "is not the value of a header",
            "write visible ASCII characters",
        )
    })
}

fn secret<'v>(value: &'v DeValue<'_>) -> Read<&'v str> {
    value.as_str().ok_or_else(|| hidden(value, "write it in quotes"))
}

fn hidden(value: &DeValue<'_>, right: &str) -> Fault {
    Fault::new("", format!("holds {}", units::type_word(value)), right)
}

fn header_name(value: &DeValue<'_>) -> Read<String> {
    let right = "write a header's name in quotes, as in \"X-Firewall-Signature\"";
    let name = units::string(value, right)?;
    let mut others = OURS.iter().filter(|ours| **ours != SIGNATURE_V2);
    let good = is_token(name) && !others.any(|ours| ours.eq_ignore_ascii_case(name));
    good.then(|| name.to_owned())
        .ok_or_else(|| Fault::new(shown(value), "is not the name of a header", right))
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.len() <= 100 && name.chars().all(token)
}

fn filter(section: &mut Section<'_>) -> Filter {
    let Some(mut events) = section.section("events") else {
        return Filter::ALL;
    };
    let [include, exclude] = ["include", "exclude"].map(|key| {
        let list = events.list(key, "write a list, as in [\"ip_blocked\"]", event)?;
        Some(list.values.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>())
    });
    let note = |key, text: &str| {
        let full = events.full(key);
        events
            .report()
            .note(events.line_of(key), full.clone(), format!("{full} {text}"));
    };
    if include.as_ref().is_some_and(Vec::is_empty) {
        note(
            "include",
            "= [] has no effect: every event is sent that is not excluded",
        );
    }
    let filter = Filter::new(&include.unwrap_or_default(), &exclude.unwrap_or_default());
    if !EventType::ALL.iter().any(|kind| filter.wants(*kind)) {
        note("exclude", "leaves nothing: no event is sent to this endpoint");
    }
    events.finish(|_| None);
    filter
}

fn event(value: &DeValue<'_>) -> Read<EventType> {
    let text = units::string(value, "write the name of an event in quotes")?;
    text.parse().map_err(|_| {
        let names = || EventType::ALL.iter().map(|kind| kind.name());
        let right = match suggest::nearest(text, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        };
        Fault::new(shown(value), "is not an event", right)
    })
}

/// Headers that frame the request, or say who sent it.
const OURS: [&str; 9] = [
    "Host",
    "Content-Length",
    "Content-Type",
    "Transfer-Encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "User-Agent",
    SIGNATURE_V2,
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Room for the largest event beside others, and no more than is read within seconds at a start.
const LEAST_SPOOL: u64 = 1 << 20;
const MOST_SPOOL: u64 = 1 << 30;
