//! What docs/webhooks.md shows and names is there: payloads, examples, places in the source, settings.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use time::macros::datetime;
use verdictd::webhook::event::{Now, sample};
use verdictd::webhook::wire::{Event, EventType};

use super::home;
use super::rig::{Receiver, run};

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

/// Lines of a section that are commands, as words.
fn commands(text: &str, heading: &str) -> Vec<Vec<String>> {
    let section = text.split(heading).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_first_three_commands_lead_from_nothing_to_an_event() {
    let readme = fs::read_to_string(home("README.md")).unwrap();
    let [setup, server, test] = commands(&page(), "\n## Begin")
        .try_into()
        .expect("three commands");
    assert_eq!(commands(&readme, "\n## Webhooks"), [&setup[..], &server, &test]);

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("verdictd.toml");
    fs::copy(home("config/verdictd.toml"), &config).unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    let command = |words: &[String]| {
        let program = match &*words[0] {
            "verdictctl" => env!("CARGO_BIN_EXE_verdictctl"),
            "verdict-receiver" => env!("CARGO_BIN_EXE_verdict-receiver"),
            other => panic!("{other}"),
        };
        let mut command = Command::new(program);
        command.args(words[1..].iter().map(|word| {
            word.replace("8080", &port)
                .replace("/etc/verdictd", folder.path().to_str().unwrap())
        }));
        if words[0] == "verdictctl" {
            command.arg("--config").arg(&config);
        }
        command
    };
    let (text, code) = run(&mut command(&setup));
    assert_eq!(code, 0, "{text}");
    let mut server = Receiver::start(&mut command(&server), &folder.path().join("stderr"));
    let (text, code) = run(&mut command(&test));
    assert_eq!(code, 0, "{text}");
    let _ = server.child.kill();
    let printed: Vec<String> = std::io::BufRead::lines(&mut server.stdout)
        .map_while(Result::ok)
        .collect();
    for line in [
        "  good X-Firewall-Signature",
        "  good X-Firewall-Signature-V2",
        "  answering 200",
    ] {
        assert!(
            printed.iter().any(|one| one == line),
            "no {line:?} in {printed:#?}"
        );
    }
}

/// The endpoint that the installed configuration shows, behind "# ".
#[test]
fn the_endpoint_of_the_installed_configuration_loads_and_shows_every_key() {
    let shipped = fs::read_to_string(home("config/verdictd.toml")).unwrap();
    let (before, after) = shipped.split_once("# [[webhooks.endpoints]]").unwrap();
    let lines = after
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or_default());
    let example = format!("[[webhooks.endpoints]]\n{}", lines.collect::<Vec<_>>().join("\n"));
    let loaded = verdictd::config::parse(&example, Path::new("config")).unwrap();
    assert_eq!(loaded.notes.len(), 0, "{:?}", loaded.notes);
    let endpoint = &loaded.webhooks.endpoints[0];
    assert!(endpoint.enabled && endpoint.headers.len() == 1);
    assert!(
        endpoint.filter.wants(EventType::IpBlocked) && !endpoint.filter.wants(EventType::FirewallStarted)
    );

    let told = before.split("\n[webhooks]").nth(1).unwrap().to_owned() + after;
    let unknown = "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nzzzzzzzzzzzz = 1";
    let known = verdictd::config::parse(unknown, Path::new("config"))
        .unwrap_err()
        .to_string();
    let known = known.split("known here: ").nth(1).unwrap();
    let keys: Vec<&str> = known
        .split(['.', ',', ' ', '\n'])
        .filter(|key| !key.is_empty())
        .collect();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let words = told.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(words.clone().any(|word| word == key), "{key} is not told of");
    }
}

/// What the installed configuration says of the bounds of numbers.
#[test]
fn bounds_in_the_installed_configuration_are_those_that_hold() {
    let holds = |key: &str, value: &str| {
        let text = format!("[webhooks]\n{key} = {value}");
        verdictd::config::parse(&text, Path::new("config")).is_ok()
    };
    for (key, least, most) in [
        ("batch_size", ["1", "0"], ["10000", "10001"]),
        ("batch_timeout", ["\"1s\"", "0"], ["\"1h\"", "3601"]),
        ("rate_limit", ["1", "0"], ["1000000", "1000001"]),
        ("timeout", ["\"1s\"", "0"], ["\"1h\"", "3601"]),
        ("retry_attempts", ["0", "-1"], ["100", "101"]),
        ("retry_delay", ["\"1s\"", "0"], ["\"1h\"", "3601"]),
        ("spool_max_age", ["\"1m\"", "\"59s\""], ["\"365d\"", "\"366d\""]),
        (
            "spool_max_bytes",
            ["1048576", "1048575"],
            ["1073741824", "1073741825"],
        ),
    ] {
        let shipped = fs::read_to_string(home("config/verdictd.toml")).unwrap();
        let at = shipped.find(&format!("\n#{key} = ")).unwrap();
        // The comment of its paragraph.
        let comment = shipped[..at].rsplit("\n\n").next().unwrap();
        for [good, bad] in [least, most] {
            assert!(holds(key, good) && !holds(key, bad), "{key}: {good} {bad}");
            assert!(
                comment.contains(good),
                "{key}: the comment does not say {good}: {comment}"
            );
        }
    }
}
