//! What the documents of the Python system name: every command, file, key, environment variable, constant, endpoint,
//! event and header. Found in the documents by their form; what has none is listed by hand.

use std::collections::BTreeSet;

use toml::Value;

const FIREWALL: &str = include_str!("../data/mission_firewall_README.md");
const WEBHOOKS: &str = include_str!("../data/mission_webhook_README.md");
const CONFIG: &str = include_str!("../data/mission_firewall_config.toml");

/// What is named without a form of its own, each with the words of a document that name it.
const BY_HAND: [(&str, &str); 34] = [
    ("Ctrl+C", "stopped with Ctrl+C"),
    ("pgrep", "Auto-falls back to `pgrep`"),
    ("Dockerfile", "### Using Docker"),
    ("port 5000", "EXPOSE 5000"),
    ("/webhooks/firewall", "/webhooks/firewall"),
    ("firewall.state_save_interval", "# state_save_interval = 60"),
    ("allowed_ports.udp", "# udp = [53, 123]"),
    (
        "Content-Type: application/json",
        "Webhook payloads are sent as JSON",
    ),
    ("events", "\"events\": ["),
    ("batch_size", "\"batch_size\": 1"),
    ("timestamp", "\"timestamp\": \"2024-01-01T12:00:00\""),
    ("id", "\"id\": \"unique-event-id\""),
    ("event_type", "\"event_type\": \"ip_blocked\""),
    ("version", "\"version\": \"1.0\""),
    ("source", "\"source\": \"firewall\""),
    ("data", "\"data\": {"),
    ("verify_signature", "def verify_signature"),
    ("handle_firewall_event", "def handle_firewall_event"),
    ("handle_distributed_attack", "def handle_distributed_attack"),
    ("handle_ip_blocked", "def handle_ip_blocked"),
    ("mode = \"aggressive\"", "**Aggressive Mode**"),
    ("mode = \"standard\"", "**Standard Mode**"),
    ("mode = \"lenient\"", "**Lenient Mode**"),
    ("mode = \"custom\"", "**Custom Mode**"),
    (
        "firewall_mode = \"detection_only\"",
        "#### **Detection Only Mode**",
    ),
    ("firewall_mode = \"firewall\"", "#### **Firewall Mode**"),
    ("firewall_mode = \"corporate\"", "#### **Corporate Mode**"),
    ("data.method", "\"method\": \"iptables\""),
    ("data.additional_data", "additional_data"),
    ("ip_activity", "IP Activity Tracking"),
    ("port_access_tracker", "Port Access Counters"),
    ("unblock_tasks", "Scheduled Unblock Tasks"),
    ("block_count", "Progressive Block History"),
    ("X-Organization-ID", "\"X-Organization-ID\" = \"org-123\""),
];

/// All of it, as the left column of docs/migrating.md writes it.
pub(crate) fn items() -> BTreeSet<String> {
    let mut items: BTreeSet<String> = [FIREWALL, WEBHOOKS].into_iter().flat_map(commands).collect();
    for text in [FIREWALL, WEBHOOKS, CONFIG] {
        items.extend(files(text));
        items.extend(headers(text));
        items.extend(events(text));
    }
    for block in [FIREWALL, WEBHOOKS]
        .into_iter()
        .flat_map(|text| fenced(text, "toml"))
    {
        items.extend(keys(&block));
    }
    items.extend(keys(CONFIG));
    items.extend(constants(FIREWALL));
    for (item, words) in BY_HAND {
        assert!(says(words), "no document says {words:?}");
        items.insert(item.to_owned());
    }
    items
}

/// Whether one of the documents has these words.
pub(crate) fn says(words: &str) -> bool {
    [FIREWALL, WEBHOOKS, CONFIG]
        .iter()
        .any(|text| text.contains(words))
}

/// Blocks in fences of this language.
fn fenced(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_owned())
        .collect()
}

/// Commands, and variables that are exported. Written alike: without `sudo` and comment, `python3`, one secret.
fn commands(text: &str) -> BTreeSet<String> {
    let blocks = fenced(text, "bash");
    let lines = blocks.iter().flat_map(|block| block.lines()).map(str::trim);
    let programs = [
        "sudo",
        "pip",
        "pip3",
        "cp",
        "python",
        "python3",
        "nano",
        "export",
        "chmod",
        "./firewall_control.sh",
        "ls",
        "rm",
        "cat",
        "curl",
        "tail",
        "journalctl",
        "./secure_setup.sh",
    ];
    let mut found = BTreeSet::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let first = line.split_whitespace().next().unwrap();
        if !programs.contains(&first) {
            // What nmap prints, modes of files, the body of a script in quotes.
            let other = line.contains("/tcp") || line.starts_with("-r");
            let script = ["import", "with", "hash_val", "f.write(hash_val)", "\""];
            assert!(other || script.contains(&first), "a command or not? {line}");
            continue;
        }
        if let Some(variable) = line.strip_prefix("export ") {
            found.insert(variable.split('=').next().unwrap().to_owned());
            continue;
        }
        found.insert(alike(line));
    }
    found
}

fn alike(line: &str) -> String {
    let line = line.split("  #").next().unwrap().trim();
    let line = line.replace("sudo ", "");
    let line = match line.strip_prefix("python ") {
        Some(rest) => format!("python3 {rest}"),
        None => line,
    };
    let line = line.replace("your-webhook-secret-key", "your-secret");
    match line.starts_with("python3 -c") {
        true => "python3 -c \"import hashlib …\"".to_owned(),
        false => line,
    }
}

/// Names of files, by their endings.
fn files(text: &str) -> BTreeSet<String> {
    let endings = [
        ".py", ".sh", ".toml", ".md", ".txt", ".sha256", ".example", ".service", ".db", ".log",
    ];
    let part = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let words = text.split(|c| !part(c)).map(|word| word.trim_end_matches('.'));
    let named = words.filter(|word| {
        endings
            .iter()
            .any(|ending| word.len() > ending.len() && word.ends_with(ending))
    });
    // A function of Python.
    let named = named.filter(|word| *word != "hashlib.sha256");
    named
        .map(|word| word.trim_start_matches("./").to_owned())
        .collect()
}

/// `X-Firewall-…`
fn headers(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .filter(|word| word.starts_with("X-Firewall-"))
        .map(str::to_owned)
        .collect()
}

/// Lists of events: "- `a`/`b` - text" and "# 1. a - text".
fn events(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| line.contains(" - ")) {
        let name =
            |word: &str| word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let before = line.split(" - ").next().unwrap();
        if before.starts_with("- `") {
            found.extend(before.split('`').filter(|word| name(word)).map(str::to_owned));
        } else if let Some(word) = before.strip_prefix("# ").and_then(|rest| rest.split(". ").nth(1)) {
            found.extend(Some(word.to_owned()).filter(|word| name(word)));
        }
    }
    found
}

/// Keys with their sections, and sections: `modes.*.port_thresholds` stands for every mode.
fn keys(block: &str) -> BTreeSet<String> {
    let table: toml::Table = block.parse().expect("the documents are TOML");
    let mut found = BTreeSet::new();
    for (key, value) in &table {
        match value {
            Value::Table(_) => walk(key, value, &mut found),
            // A fragment: the line stands below [firewall] in the file.
            _ => drop(found.insert(format!("firewall.{key}"))),
        }
    }
    found
}

fn walk(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    let leaf = ["port_thresholds", "headers"]
        .iter()
        .any(|name| path.ends_with(name));
    match value {
        Value::Table(table) if !leaf => {
            for (key, value) in table {
                let key = if path == "modes" { "*" } else { key };
                walk(&format!("{path}.{key}"), value, found);
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            array.iter().for_each(|value| walk(path, value, found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

/// Constants of the program that a reader is told to edit.
fn constants(text: &str) -> BTreeSet<String> {
    let blocks = fenced(text, "python");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let names = lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name);
    names
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documents_are_read_whole() {
    let items = items();
    for item in [
        "./firewall_control.sh monitor",
        "python3 setup_webhooks.py --create-service",
        "python3 webhook_client.py --test-url http://localhost:8080 --secret your-secret",
        "journalctl -u firewall -f",
        "SMTP_SERVER",
        "firewall.py.sha256",
        "/var/lib/firewall/events.db",
        "webhooks.endpoints.events.exclude",
        "modes.*.port_thresholds",
        "firewall.firewall_mode",
        "BLOCK_DURATIONS",
        "unblock_error",
        "X-Firewall-Timestamp",
    ] {
        assert!(items.contains(item), "{item} is not among {items:#?}");
    }
    assert!(items.len() > 130, "{}", items.len());
}
