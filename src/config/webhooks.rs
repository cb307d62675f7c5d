//! `[webhooks]` of the Python system: read for known keys and right types. No value of a secret, a header or
//! an address is ever repeated in a message.

use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::suggest;
use super::units::{self, Fault, Read, shown};

/// Reads the section; says so if it asks for deliveries.
pub(super) fn read(root: &mut Section<'_>) {
    let Some(mut section) = root.section("webhooks") else {
        return;
    };
    let enabled = section.get("enabled", units::boolean);
    section.get("retry_attempts", units::whole(0..=100u32));
    let up_to_an_hour = || units::seconds(Duration::from_secs(1)..=Duration::from_secs(3_600));
    section.get("retry_delay", up_to_an_hour());
    section.get("timeout", up_to_an_hour());
    section.get("batch_size", units::whole(1..=10_000u32));
    section.get("batch_timeout", up_to_an_hour());
    section.get("rate_limit", units::whole(1..=1_000_000u32));
    section.get("signature_header", header_name);
    section.get("timestamp_header", header_name);
    section.sections("endpoints").into_iter().for_each(endpoint);
    if enabled == Some(true) {
        let text = "webhooks.enabled = true: webhooks are not delivered by this version";
        section
            .report()
            .note(section.line_of("enabled"), "webhooks.enabled", text);
    }
    section.finish(|_| None);
}

fn endpoint(mut section: Section<'_>) {
    section.get("name", |value| {
        units::string(value, "write a name in quotes").map(drop)
    });
    section.get("url", url);
    section.get("secret", secret);
    section.get("enabled", units::boolean);
    if let Some(headers) = section.section("headers") {
        headers.entries(|_| Ok(()), secret);
    }
    if let Some(mut events) = section.section("events") {
        for key in ["include", "exclude"] {
            events.list(key, "write a list, as in [\"ip_blocked\"]", event);
        }
        events.finish(|_| None);
    }
    for key in ["name", "url"].into_iter().filter(|key| !section.has(key)) {
        section.refuse(
            key,
            Fault::new("", "missing", format!("write {key} = \"…\" for this endpoint")),
        );
    }
    section.finish(|_| None);
}

fn url(value: &DeValue<'_>) -> Read<()> {
    let right = "write an address in quotes that begins with https:// or http://";
    let text = value.as_str().ok_or_else(|| hidden(value, right))?;
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Ok(())
        }
        _ => Err(Fault::new("", "not a web address", right)),
    }
}

fn secret(value: &DeValue<'_>) -> Read<()> {
    value
        .as_str()
        .map(drop)
        .ok_or_else(|| hidden(value, "write it in quotes"))
}

fn hidden(value: &DeValue<'_>, right: &str) -> Fault {
    Fault::new("", format!("holds {}", units::type_word(value)), right)
}

fn header_name(value: &DeValue<'_>) -> Read<()> {
    let right = "write a header's name in quotes, as in \"X-Firewall-Signature\"";
    let name = units::string(value, right)?;
    // RFC 9110, section 5.6.2: token
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let good = !name.is_empty() && name.chars().all(token);
    good.then_some(())
        .ok_or_else(|| Fault::new(shown(value), "is not the name of a header", right))
}

fn event(value: &DeValue<'_>) -> Read<()> {
    let text = units::string(value, "write the name of an event in quotes")?;
    if EVENTS.contains(&text) {
        return Ok(());
    }
    let right = match suggest::nearest(text, EVENTS.into_iter()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known are {}", EVENTS.join(", ")),
    };
    Err(Fault::new(shown(value), "is not an event", right))
}

/// A contract with receivers: none is renamed.
const EVENTS: [&str; 9] = [
    "firewall_started",
    "connection_attempt",
    "ip_blocked",
    "ip_unblocked",
    "port_scanning_detected",
    "distributed_attack_detected",
    "suspicious_scanning_detected",
    "block_error",
    "unblock_error",
];
