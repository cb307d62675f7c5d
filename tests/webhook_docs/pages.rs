//! What docs/webhooks.md shows and names is there: payloads, examples, places in the source, settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use time::macros::datetime;
use verdictd::webhook::event::{Now, sample};
use verdictd::webhook::wire::{Event, EventType};

use super::home;

const PAGE: &str = "docs/webhooks.md";
/// Set to write the payloads into the page.
const WRITE: &str = "VERDICTD_WRITE_DOCS";

fn page() -> String {
    fs::read_to_string(home(PAGE)).unwrap()
}

/// What stands in fences of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    let after = text.split(opening.as_str()).skip(1);
    after.map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// A sample without what is another each time, and without the mark of samples.
fn shown(at: usize, kind: EventType) -> Event {
    let now = Now {
        at: std::time::Instant::now(),
        wall: datetime!(2026-03-01 12:00 UTC),
    };
    let mut event = sample(kind, now);
    event.id = format!("019ca945-0a00-7000-8000-{at:012}");
    event.data.remove("test");
    if let Some(version) = event.data.get_mut("engine_version") {
        *version = "0.1.0".into();
    }
    event
}

/// In the order in which it is sent, each value on one line.
fn written(event: &Event) -> String {
    let lines = |indent: &str, pairs: Vec<(&str, Value)>| -> String {
        let lines = pairs
            .iter()
            .map(|(key, value)| format!("{indent}\"{key}\": {value}"));
        lines.collect::<Vec<_>>().join(",\n")
    };
    let Event {
        id,
        timestamp,
        event_type,
        version,
        source,
        data,
    } = event;
    let head = [
        ("id", id),
        ("timestamp", timestamp),
        ("event_type", event_type),
        ("version", version),
        ("source", source),
    ];
    let head = lines("  ", head.map(|(key, text)| (key, text.as_str().into())).to_vec());
    let data = lines(
        "    ",
        data.iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect(),
    );
    let text = format!("{{\n{head},\n  \"data\": {{\n{data}\n  }}\n}}\n");
    assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), event);
    text
}

/// The page with each payload as the library makes it. It stands in the first fence of JSON below the heading of its
/// event.
fn with_payloads(mut text: String) -> String {
    for (at, kind) in EventType::ALL.iter().enumerate() {
        let heading = format!("\n### `{kind}`");
        let start = text
            .find(&heading)
            .unwrap_or_else(|| panic!("{PAGE} has no {heading:?}"));
        let fence = start + text[start..].find("```json\n").unwrap() + "```json\n".len();
        let end = fence + text[fence..].find("```").unwrap();
        let between = &text[start + 1..fence];
        assert!(!between.contains("\n### "), "{kind} has no payload in {PAGE}");
        text.replace_range(fence..end, &written(&shown(at, *kind)));
    }
    text
}

#[test]
fn payloads_are_those_that_are_sent() {
    let page = page();
    let right = with_payloads(page.clone());
    if std::env::var_os(WRITE).is_some() {
        fs::write(home(PAGE), right).unwrap();
        return;
    }
    let differs = page.lines().zip(right.lines()).find(|(is, should)| is != should);
    assert!(
        page == right,
        "{PAGE} shows other payloads than are sent: {differs:?}; {WRITE}=1 cargo test --test webhook_docs payloads"
    );
}

#[test]
fn each_event_says_what_it_always_has_and_no_event_is_made_up() {
    let page = page();
    let headings: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.split('`').next())
        .collect();
    let names: Vec<&str> = EventType::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(headings, names);
    let table = page
        .split("\n## Events")
        .nth(1)
        .unwrap()
        .split("\n### ")
        .next()
        .unwrap();
    for kind in EventType::ALL {
        let severity = format!("{:?}", kind.severity()).to_lowercase();
        let technique = kind.mitre_technique().unwrap_or("");
        let row = format!("| `{kind}` | {severity} | {technique} |").replace("|  |", "| |");
        assert!(table.contains(&row), "{PAGE} has no row {row:?}");
    }
}

fn examples() -> Vec<String> {
    let top = home("docs/examples/webhooks");
    let folders = fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = folders
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.is_file())
        .map(|path| {
            path.strip_prefix(home("docs"))
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_is_linked_and_every_link_leads_somewhere() {
    let page = page();
    for file in examples() {
        assert!(
            page.contains(&format!("]({file})")),
            "{PAGE} does not link {file}"
        );
    }
    let links = page
        .split("](")
        .skip(1)
        .map(|rest| rest.split([')', '#']).next().unwrap());
    for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
        assert!(home("docs").join(link).exists(), "{PAGE} links {link}");
    }
}

#[test]
fn code_on_the_page_stands_in_an_example() {
    let page = page();
    let files: Vec<String> = examples()
        .iter()
        .map(|file| fs::read_to_string(home("docs").join(file)).unwrap())
        .collect();
    let code: Vec<&str> = ["python", "js", "rust"]
        .iter()
        .flat_map(|language| blocks(&page, language))
        .collect();
    assert!(code.len() >= 3, "{}", code.len());
    for block in code {
        assert!(
            files.iter().any(|file| file.contains(block)),
            "no example holds\n{block}"
        );
    }
}

#[test]
fn settings_on_the_page_load() {
    for block in blocks(&page(), "toml") {
        let loaded = verdictd::config::parse(block, Path::new("page"));
        assert!(loaded.is_ok(), "{loaded:?}\n{block}");
    }
}

#[test]
fn the_places_where_an_event_type_is_added_are_there() {
    let page = page();
    let section = page.split("\n## Adding an event type").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut files = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let [file, place, ..] = cells[..] else {
            panic!("a row names a file and a place: {row}");
        };
        let text = fs::read_to_string(home(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(place), "{file} holds no {place:?}");
        files.insert(file.to_owned());
    }
    // Whatever names every type by hand is listed.
    for file in [
        "src/webhook/wire.rs",
        "src/webhook/event.rs",
        "src/webhook/sample.rs",
        PAGE,
    ] {
        assert!(files.contains(file), "{file} is not named");
    }
}

#[test]
fn the_signature_on_the_page_is_the_one_of_its_body() {
    use verdictd::webhook::signature::{Secret, sign_v1, sign_v2};
    let page = page();
    let secret = Secret::new("your-webhook-secret-key").unwrap();
    let body = blocks(&page, "http")[0].split("\n\n").nth(1).unwrap();
    let _: Value = serde_json::from_str(body).unwrap();
    for line in [
        format!("X-Firewall-Signature: {}", sign_v1(body.as_bytes(), &secret)),
        format!(
            "X-Firewall-Signature-V2: {}",
            sign_v2("1772366400", body.as_bytes(), &secret)
        ),
    ] {
        assert!(page.contains(&line), "{PAGE} has no\n{line}");
    }
}
