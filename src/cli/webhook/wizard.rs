//! The questions of `webhook setup`, in the order in which one answers them.

use std::path::PathBuf;

use super::super::print::plain;
use super::super::{CliError, Client, Exit, Screen, reload};
use super::ask::{Ask, AskError};
use super::edit::Change;
use super::setup::{HOW_TO_RELOAD, NewSecret, Session};
use super::try_out;
use crate::control::wire::Request;
use crate::webhook::address::{self, Place};
use crate::webhook::config::{EndpointConfig, Filter, SecretSource, Target};
use crate::webhook::wire::EventType;

pub(super) fn run(
    session: &mut Session,
    client: &Client,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    let mut touched = Vec::new();
    loop {
        show(session, screen)?;
        let mut options = vec!["Add an endpoint".to_owned()];
        options.extend(
            session
                .endpoints()
                .iter()
                .map(|endpoint| format!("Change {}", plain(&endpoint.name))),
        );
        options.extend([
            "Save and finish".to_owned(),
            "Leave, and change nothing".to_owned(),
        ]);
        let chosen = ask.one("What shall be done?", &options)?;
        let known = session.endpoints().len();
        let done = match chosen {
            0 => add(session, screen, ask),
            n if n <= known => change(session, n - 1, screen, ask),
            n if n == known + 1 => break,
            _ => {
                writeln!(screen.out, "nothing was changed")?;
                return Ok(Exit::Fine);
            }
        };
        match done {
            Ok(name) => touched.extend(name),
            // The parser's objection: said, and nothing of it done.
            Err(CliError::Config(error)) => {
                for line in error.to_string().lines() {
                    writeln!(screen.err, "{}", plain(line))?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    let changed = session.is_changed();
    session.save(screen)?;
    if !changed {
        return Ok(Exit::Fine);
    }
    touched.retain(|name| session.find(name).is_some_and(|endpoint| endpoint.enabled));
    touched.dedup();
    let exit = offer_test(session, &touched, screen, ask)?;
    offer_reload(client, screen, ask)?;
    Ok(exit)
}

fn show(session: &Session, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let out = &mut *screen.out;
    if session.endpoints().is_empty() {
        writeln!(out, "there is no endpoint yet")?;
    }
    for endpoint in session.endpoints() {
        let state = if endpoint.enabled { "" } else { ", disabled" };
        let (name, url) = (plain(&endpoint.name), &endpoint.url);
        writeln!(
            out,
            "{name}: {url}, {}, {}{state}",
            signed(&endpoint.secret),
            events(endpoint.filter)
        )?;
    }
    if !session.config.webhooks.enabled && !session.endpoints().is_empty() {
        writeln!(out, "webhooks.enabled is not true: nothing is sent")?;
    }
    // Questions are drawn on another stream.
    Ok(out.flush()?)
}

fn signed(secret: &SecretSource) -> &'static str {
    match secret {
        SecretSource::None => "not signed",
        SecretSource::Inline(_) => "secret in the configuration",
        SecretSource::File(_) => "secret in a file",
        SecretSource::Env(_) => "secret in a variable",
        SecretSource::Credential(_) => "secret in a credential",
    }
}

fn events(filter: Filter) -> String {
    match EventType::ALL.iter().filter(|kind| filter.wants(**kind)).count() {
        n if n == EventType::ALL.len() => "every event".into(),
        n => format!("{n} of {} events", EventType::ALL.len()),
    }
}

/// Both say which endpoint is another than before.
type Touched = Result<Option<String>, CliError>;

fn add(session: &mut Session, screen: &mut Screen<'_>, ask: &mut dyn Ask) -> Touched {
    let name = loop {
        let name = ask
            .text("Name (as in \"Security Operations Center\")", "")?
            .trim()
            .to_owned();
        match session.find(&name) {
            None if !name.is_empty() => break name,
            None => writeln!(screen.err, "an endpoint needs a name")?,
            Some(_) => writeln!(screen.err, "{} is the name of another endpoint", plain(&name))?,
        }
    };
    let (url, allow_http) = address(None, screen, ask)?;
    let secret = secret(session, &name, None, ask)?;
    let wanted = events_wanted(Filter::ALL, screen, ask)?;
    let change = Change {
        url: Some(url),
        allow_http: Some(allow_http),
        events: Some(wanted),
        ..Change::default()
    };
    session.put(&name, change, secret)?;
    Ok(Some(name))
}

fn change(session: &mut Session, at: usize, screen: &mut Screen<'_>, ask: &mut dyn Ask) -> Touched {
    let endpoint = session.endpoints()[at].clone();
    let switch = if endpoint.enabled {
        "Disable it (what waits for it is not sent)"
    } else {
        "Enable it"
    };
    let options = [
        "Its address",
        "Its secret",
        "Its events",
        switch,
        "Remove it",
        "Back",
    ];
    let title = format!("{}:", plain(&endpoint.name));
    let mut change = Change::default();
    let mut secret = NewSecret::Keep;
    match ask.one(&title, &options.map(str::to_owned))? {
        0 => {
            let (url, allow_http) = address(Some(&endpoint), screen, ask)?;
            (change.url, change.allow_http) = (Some(url), Some(allow_http));
        }
        1 => secret = self::secret(session, &endpoint.name, Some(&endpoint.secret), ask)?,
        2 => change.events = Some(events_wanted(endpoint.filter, screen, ask)?),
        3 => {
            change.enabled = Some(!endpoint.enabled);
            if !endpoint.enabled {
                session.edit(super::edit::Book::switch_on)?;
            }
        }
        4 => {
            let question = format!("Remove {}? What waits for it is not sent", plain(&endpoint.name));
            if ask.yes(&question, false)? {
                session.edit(|book| book.remove(&endpoint.name))?;
            }
            return Ok(None);
        }
        _ => return Ok(None),
    }
    session.put(&endpoint.name, change, secret)?;
    Ok(Some(endpoint.name))
}

/// Asks until it is an address that may be sent to; says whether it may be public though it is http.
fn address(
    before: Option<&EndpointConfig>,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<(String, bool), CliError> {
    let shown = before.map_or_else(
        || "https://".to_owned(),
        |endpoint| endpoint.url.uri().to_string(),
    );
    loop {
        let text = ask.text("Address that takes events", &shown)?.trim().to_owned();
        let target = match Target::parse(&text) {
            Ok(target) => target,
            Err(_) => {
                writeln!(screen.err, "that is no web address: write https://host/path")?;
                continue;
            }
        };
        let place = match target.address().map(address::place).transpose() {
            Ok(place) => place,
            Err(refused) => {
                writeln!(screen.err, "nothing is ever sent there: {refused}")?;
                continue;
            }
        };
        if !target.is_plain() {
            return Ok((text, false));
        }
        let question = match place {
            Some(Place::Loopback) => return Ok((text, false)),
            Some(Place::Private) => {
                writeln!(
                    screen.err,
                    "http: whoever is on the way can read and change what is sent"
                )?;
                return Ok((text, false));
            }
            Some(Place::Public) => {
                "This http:// address is public: everybody on the way can read along. Send all the same?"
            }
            None => "http:// is readable on the way. Send even if this name leads to a public address?",
        };
        let allowed = ask.yes(question, false)?;
        if allowed || place.is_none() {
            return Ok((text, allowed));
        }
    }
}

fn secret(
    session: &Session,
    name: &str,
    before: Option<&SecretSource>,
    ask: &mut dyn Ask,
) -> Result<NewSecret, CliError> {
    let file = session.secret_file(name);
    let mut options = vec![
        format!(
            "Make a secret, in {} (recommended)",
            plain(&file.display().to_string())
        ),
        "Make a secret, in the configuration, and show it once".into(),
        "Use the secret in another file".into(),
        "None: requests are not signed".into(),
    ];
    if before.is_some() {
        options.push("As it is".into());
    }
    Ok(match ask.one("Secret that signs", &options)? {
        0 => NewSecret::Make(file),
        1 => NewSecret::MakeInline,
        2 => existing(ask)?,
        3 => NewSecret::None,
        _ => NewSecret::Keep,
    })
}

fn existing(ask: &mut dyn Ask) -> Result<NewSecret, CliError> {
    let mut question = "File with the secret (the whole path)".to_owned();
    loop {
        let path = PathBuf::from(ask.text(&question, "/")?.trim());
        let read = SecretSource::File(path.clone()).read();
        match (path.is_absolute(), read) {
            (true, Ok(_)) => return Ok(NewSecret::Existing(path)),
            (true, Err(error)) => question = format!("{}. Another file", plain(&error.to_string())),
            (false, _) => question = "The whole path, from / on".into(),
        }
    }
}

/// Included and excluded ones: whichever list is shorter, so that what a later version brings passes where most do.
fn events_wanted(
    before: Filter,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<[Vec<EventType>; 2], CliError> {
    let names: Vec<String> = EventType::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    let wanted = |at: &usize| before.wants(EventType::ALL[*at]);
    let before: Vec<usize> = (0..names.len()).filter(wanted).collect();
    loop {
        let chosen = ask.several("Events that it gets", &names, &before)?;
        let (yes, no): (Vec<_>, Vec<_>) = (0..names.len()).partition(|at| chosen.contains(at));
        let kinds = |places: Vec<usize>| places.into_iter().map(|at| EventType::ALL[at]).collect();
        match (yes.len(), no.len()) {
            (0, _) => writeln!(screen.err, "choose at least one, or disable the endpoint")?,
            (yes_len, no_len) if yes_len < no_len => return Ok([kinds(yes), Vec::new()]),
            _ => return Ok([Vec::new(), kinds(no)]),
        }
    }
}

fn offer_test(
    session: &Session,
    touched: &[String],
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Fine;
    for name in touched {
        screen.out.flush()?;
        if offer(ask, &format!("Send a test event to {} now?", plain(name)))? {
            let one = try_out::one(&session.config.webhooks, name, screen)?;
            exit = if one == Exit::Fine { exit } else { one };
        }
    }
    Ok(exit)
}

/// What was saved is saved: who wants out now says no.
fn offer(ask: &mut dyn Ask, question: &str) -> Result<bool, AskError> {
    match ask.yes(question, true) {
        Err(AskError::Cancelled) => Ok(false),
        answer => answer,
    }
}

/// Only where an engine answers; elsewhere there is nothing to reload.
fn offer_reload(client: &Client, screen: &mut Screen<'_>, ask: &mut dyn Ask) -> Result<(), CliError> {
    screen.out.flush()?;
    let runs = client.ask(&Request::Status {}).is_ok();
    if runs && offer(ask, "Tell the running engine to reload now?")? {
        reload::run(client, screen)?;
    } else {
        writeln!(screen.out, "{HOW_TO_RELOAD}")?;
    }
    Ok(())
}
