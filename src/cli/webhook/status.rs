//! `verdictctl webhook status` and `retry`: how it goes by the engine's word, and another try.

use super::super::print::{Column, Paint, Table, counted, grouped, json, plain};
use super::super::{CliError, Client, Exit, Screen};
use crate::control::wire::{Reply, Request, WebhookEndpointView, WebhookView};

pub(super) fn run(client: &Client, as_json: bool, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
    let view = match client.ask(&Request::Webhooks {})? {
        Reply::Webhooks(view) => view,
        other => return Err(CliError::other(other)),
    };
    match as_json {
        true => json(screen.out, &view, false)?,
        false => print(&view, screen)?,
    }
    Ok(Exit::Fine)
}

pub(super) fn retry(
    client: &Client,
    endpoint: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let request = Request::WebhookRetry { endpoint };
    request
        .check()
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let n = match client.ask(&request)? {
        Reply::WebhooksRetried(n) => n,
        other => return Err(CliError::other(other)),
    };
    let Request::WebhookRetry { endpoint } = request else {
        return Err(CliError::Unexpected);
    };
    match (n, endpoint) {
        (0, Some(name)) => Err(CliError::Refused(format!(
            "no enabled endpoint is called {name:?}, see verdictctl webhook status"
        ))),
        (0, None) => Err(CliError::Refused("no endpoint is enabled".into())),
        (n, _) => {
            let whom = counted(n, "endpoint");
            writeln!(
                screen.out,
                "{whom} tried again now, dead letters too; see verdictctl webhook status"
            )?;
            Ok(Exit::Fine)
        }
    }
}

fn print(view: &WebhookView, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let out = &mut *screen.out;
    let (paint, headline) = headline(view);
    writeln!(out, "{}", screen.style.paint(paint, &headline))?;
    let mut table = Table::new(COLUMNS);
    for endpoint in &view.endpoints {
        table.row([
            endpoint.name.clone(),
            endpoint.url.clone(),
            state(endpoint).to_owned(),
            grouped(endpoint.delivered),
            grouped(endpoint.failed),
            rate(endpoint),
            grouped(endpoint.waiting),
            grouped(endpoint.dead_letters),
            grouped(endpoint.dropped),
        ]);
    }
    if !view.endpoints.is_empty() {
        table.print("", screen.style, out)?;
    }
    for endpoint in &view.endpoints {
        if let Some(error) = &endpoint.last_error {
            let at = endpoint.last_error_at.as_deref().unwrap_or("?");
            let success = endpoint.last_success_at.as_deref().unwrap_or("never");
            let text = format!(
                "{}: last error {at}: {error} (last success: {success})",
                endpoint.name
            );
            writeln!(out, "{}", plain(&text))?;
        }
    }
    writeln!(
        out,
        "spool: {} on disk, {} written, {} merged, {} dropped, {} damaged",
        counted(view.spool_bytes, "byte"),
        counted(view.spooled, "event"),
        grouped(view.merged),
        grouped(view.dropped),
        grouped(view.damaged)
    )?;
    if let Some(error) = &view.last_error {
        let text = format!("spool: {error}");
        writeln!(out, "{}", screen.style.paint(Paint::Red, &plain(&text)))?;
    }
    Ok(())
}

fn headline(view: &WebhookView) -> (Paint, String) {
    let served = view.endpoints.iter().filter(|endpoint| endpoint.enabled);
    let (mut all, mut bad) = (0, 0);
    for endpoint in served {
        all += 1;
        bad += u64::from(endpoint.circuit != "closed");
    }
    match (view.enabled, all, bad) {
        (false, ..) => (
            Paint::Yellow,
            "OFF: no event is sent (webhooks.enabled = false)".into(),
        ),
        (true, 0, _) => (Paint::Yellow, "OFF: no endpoint is enabled".into()),
        (true, _, 0) => (
            Paint::Green,
            format!("ON: events go to {}", counted(all, "endpoint")),
        ),
        (true, ..) => (
            Paint::Red,
            format!(
                "TROUBLE: {bad} of {} does not take events; they wait on disk",
                counted(all, "endpoint")
            ),
        ),
    }
}

/// The word of the circuit means nothing where no request is made.
fn state(endpoint: &WebhookEndpointView) -> &str {
    match (endpoint.enabled, endpoint.circuit.as_str()) {
        (false, _) => "disabled",
        (true, "closed") => "ok",
        (true, "open") => "circuit open",
        (true, "half_open") => "trying",
        (true, other) => other,
    }
}

fn rate(endpoint: &WebhookEndpointView) -> String {
    let told = |rate: f64| format!("{:.1} %", rate * 100.0);
    endpoint.success_rate.map_or_else(|| "-".into(), told)
}

const COLUMNS: &[Column] = &[
    Column::Left("ENDPOINT"),
    Column::Left("ADDRESS"),
    Column::Left("STATE"),
    Column::Right("DELIVERED"),
    Column::Right("FAILED"),
    Column::Right("SUCCESS"),
    Column::Right("WAITING"),
    Column::Right("DEAD"),
    Column::Right("DROPPED"),
];
