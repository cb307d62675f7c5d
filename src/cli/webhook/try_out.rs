//! `verdictctl webhook test` and `send`: one event to an endpoint, and in plain words what came of it.

use std::path::{self, Path};

use super::super::print::{Paint, plain};
use super::super::{CliError, Exit, Screen};
use super::args::{Send, Test};
use super::{load, note};
use crate::config::suggest::nearest;
use crate::places::CONFIG;
use crate::webhook::config::{Delivery, EndpointConfig, Filter, SecretSource, Target, WebhookConfig};
use crate::webhook::event::{self, Now};
use crate::webhook::signature::Secret;
use crate::webhook::trial::{self, Trial, Trouble, Why};
use crate::webhook::wire::{Event, EventType};

pub(super) fn test(args: Test, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    if args.secret.is_some() {
        let text =
            "other users of this machine can read --secret in the list of processes; --secret-file keeps it";
        note(screen, text)?;
    }
    let config = match (&args.config, &args.url) {
        (None, Some(_)) => WebhookConfig::default(),
        (path, _) => load(path.as_deref().unwrap_or(Path::new(CONFIG)))?.webhooks,
    };
    let mut endpoints = match (&args.url, &args.endpoint) {
        (Some(url), _) => vec![at_url(url, args.allow_http)?],
        (None, Some(name)) => vec![named(&config, name)?.clone()],
        (None, None) => enabled(&config).cloned().collect(),
    };
    if let Some(secret) = secret_of(args)? {
        endpoints[0].secret = secret;
    }
    if endpoints.is_empty() {
        let text = "no endpoint of the configuration is enabled; verdictctl webhook setup adds one";
        return Err(CliError::Usage(text.into()));
    }
    post_all(&config, &endpoints, EventType::FirewallStarted, screen)
}

pub(super) fn send(args: &Send, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let config = load(&args.config)?.webhooks;
    let endpoints: Vec<EndpointConfig> = match &args.endpoint {
        Some(name) => vec![named(&config, name)?.clone()],
        None => enabled(&config)
            .filter(|endpoint| endpoint.filter.wants(args.event))
            .cloned()
            .collect(),
    };
    if endpoints.is_empty() {
        let text = format!(
            "no enabled endpoint wants {}; --endpoint sends it all the same",
            args.event
        );
        return Err(CliError::Refused(text));
    }
    post_all(&config, &endpoints, args.event, screen)
}

/// A test of one endpoint, for `setup`.
pub(super) fn one(config: &WebhookConfig, name: &str, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let endpoint = named(config, name)?.clone();
    post_all(config, &[endpoint], EventType::FirewallStarted, screen)
}

fn post_all(
    config: &WebhookConfig,
    endpoints: &[EndpointConfig],
    kind: EventType,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let event = event::sample(kind, Now::read());
    let mut exit = Exit::Fine;
    for endpoint in endpoints {
        let title = format!("{} ({})", plain(&endpoint.name), endpoint.url);
        writeln!(screen.out, "{}", screen.style.paint(Paint::Bold, &title))?;
        screen.out.flush()?;
        let trial = trial::post(endpoint, config, event.clone());
        tell(endpoint, &event, &trial, screen)?;
        if !trial.accepted() {
            exit = Exit::Failed;
        }
    }
    if !config.enabled
        && endpoints
            .iter()
            .any(|endpoint| config.endpoints.contains(endpoint))
    {
        note(
            screen,
            "webhooks.enabled is not true in the configuration: the engine itself sends nothing",
        )?;
    }
    Ok(exit)
}

fn tell(
    endpoint: &EndpointConfig,
    event: &Event,
    trial: &Trial,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let signed = match endpoint.secret {
        SecretSource::None => "not signed",
        _ => "signed",
    };
    let went = match &trial.answer {
        Err(Trouble {
            why: Why::Secret | Why::Name | Why::Address,
            ..
        }) => "not sent",
        Err(Trouble {
            why: Why::Connection, ..
        }) => "tried",
        _ => "sent",
    };
    let what = format!(
        "{} {}, {} bytes, {signed}",
        event.event_type, event.id, trial.bytes
    );
    writeln!(screen.out, "  {went}: {what}")?;
    let took = trial.took.as_millis();
    match &trial.answer {
        Ok(_) => writeln!(screen.out, "  answer: {}, after {took} ms", trial.status_line())?,
        Err(trouble) => writeln!(
            screen.out,
            "  no answer after {took} ms: {}",
            plain(&trouble.text)
        )?,
    }
    let (paint, verdict) = match help(endpoint, trial) {
        None => (Paint::Green, "good: the event was taken".to_owned()),
        Some(help) => (Paint::Red, format!("wrong: {help}")),
    };
    Ok(writeln!(screen.out, "  {}", screen.style.paint(paint, &verdict))?)
}

/// What is wrong, and what to do about it.
fn help(endpoint: &EndpointConfig, trial: &Trial) -> Option<&'static str> {
    match &trial.answer {
        Ok(status) => help_with_status(*status, endpoint.secret != SecretSource::None),
        Err(trouble) => Some(help_with_trouble(trouble.why, &endpoint.secret)),
    }
}

fn help_with_status(status: u16, signed: bool) -> Option<&'static str> {
    Some(match status {
        200..300 => return None,
        300..400 => {
            "it points to another address, and redirects are never followed: write that address as url"
        }
        401 | 403 if signed => {
            "it does not accept the signature: the secrets of the two sides differ, or their clocks do by more than \
             300 s; or it wants a header of its own (headers)"
        }
        401 | 403 => "it wants a signature and this endpoint has no secret: give both sides the same one",
        404 | 405 | 410 => "nobody takes events at this path: see whether the end of url is right",
        400 | 415 | 422 => "it does not understand the event: is it a receiver of these webhooks?",
        408 | 429 => "it has too much to do; the engine would try again later",
        413 | 431 => "the request is too large for it",
        500..600 => {
            "the receiver, or a proxy before it, has trouble of its own: see its log; the engine would try again"
        }
        _ => "it does not take the event",
    })
}

fn help_with_trouble(why: Why, secret: &SecretSource) -> &'static str {
    match why {
        Why::Secret if matches!(secret, SecretSource::Credential(_)) => {
            "only the engine's unit sees its systemd credentials: give the same secret here with --secret-file"
        }
        Why::Secret => "the secret of this endpoint cannot be had, so nothing is sent",
        Why::Name => "the name in url is wrong, or this host's resolver does not know it",
        Why::Address => "this address is never sent to: write another url",
        Why::Connection => {
            "nobody takes the connection: does the receiver run, on this port, with no firewall on the way?"
        }
        Why::Late => "the receiver, or a firewall on the way, is silent; `timeout` is how long is waited",
        Why::Tls => {
            "this system does not trust its certificate, or it has none for this name, or does not speak TLS on this \
             port; a certificate authority of your own belongs into the system's store (update-ca-certificates)"
        }
        Why::NotHttp => "something else than a web server listens there",
    }
}

fn enabled(config: &WebhookConfig) -> impl Iterator<Item = &EndpointConfig> {
    config.endpoints.iter().filter(|endpoint| endpoint.enabled)
}

fn named<'c>(config: &'c WebhookConfig, name: &str) -> Result<&'c EndpointConfig, CliError> {
    let names = || config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
    let found = config.endpoints.iter().find(|endpoint| endpoint.name == name);
    found.ok_or_else(|| {
        CliError::Usage(match nearest(name, names()) {
            Some(near) => format!("there is no endpoint {name:?}; did you mean {near:?}?"),
            None if config.endpoints.is_empty() => "the configuration has no endpoint".into(),
            None => format!(
                "there is no endpoint {name:?}; there are {}",
                names()
                    .map(|name| format!("{name:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
    })
}

fn at_url(url: &str, allow_http: bool) -> Result<EndpointConfig, CliError> {
    let right = "write https://host/path or http://host/path";
    let url = Target::parse(url).map_err(|error| CliError::Usage(format!("--url: {error}; {right}")))?;
    Ok(EndpointConfig {
        name: "--url".into(),
        url,
        enabled: true,
        allow_http,
        secret: SecretSource::None,
        headers: Vec::new(),
        filter: Filter::ALL,
        delivery: Delivery::default(),
    })
}

fn secret_of(args: Test) -> Result<Option<SecretSource>, CliError> {
    match (args.secret, args.secret_file) {
        (Some(text), _) => match Secret::new(text) {
            Some(secret) => Ok(Some(SecretSource::Inline(secret))),
            None => Err(CliError::Usage("--secret is empty".into())),
        },
        (None, Some(file)) => {
            let source = SecretSource::File(path::absolute(file)?);
            // What is wrong with a file of the command line is a matter of the command line.
            let read = source.read();
            read.map_err(|error| CliError::Usage(error.to_string()))?;
            Ok(Some(source))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_there_for_every_answer_but_a_good_one() {
        for status in 100..=999 {
            let good = (200..300).contains(&status);
            assert_eq!(help_with_status(status, true).is_none(), good, "{status}");
        }
        assert!(
            help_with_status(401, true).is_some_and(|help| help.contains("secrets of the two sides differ"))
        );
        assert!(help_with_status(401, false).is_some_and(|help| help.contains("no secret")));
    }
}
