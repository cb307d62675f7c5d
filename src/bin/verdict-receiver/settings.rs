//! Where settings come from: the environment over the file over systemd's credentials, each value with its origin.
//!
//! The environment wins, since it is what one start is told and the file what all starts share. No value of a secret
//! is ever repeated in a message.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use verdictd::config::suggest::nearest;
use verdictd::webhook::signature::Secret;

/// One value as it was given.
#[derive(Clone)]
struct Given {
    value: String,
    from: String,
}

/// All values given, and every problem met so far.
#[derive(Default)]
pub(crate) struct Settings {
    environment: BTreeMap<&'static str, Given>,
    file: BTreeMap<&'static str, Given>,
    credentials: Option<PathBuf>,
    pub(crate) problems: Vec<String>,
}

impl Settings {
    /// Reads the file, if there is one, and looks each key up in `environment`.
    pub(crate) fn read(file: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Settings {
        let mut settings = Settings {
            credentials: environment("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            ..Settings::default()
        };
        for key in KEYS.into_iter().filter(|key| *key != "bind") {
            let from = key.to_ascii_uppercase();
            // An empty variable is none: that is how one is switched off in a unit or a compose file.
            if let Some(value) = environment(&from).filter(|value| !value.is_empty()) {
                settings.environment.insert(key, Given { value, from });
            }
        }
        if let Some(path) = file {
            settings.read_file(path);
        }
        settings
    }

    fn read_file(&mut self, path: &Path) {
        let read = read_private(path);
        let (text, open_to_all) = match read {
            Ok(read) => read,
            Err(why) => return self.problems.push(why),
        };
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(why) => {
                // Only the message: toml's own display shows the line, which may hold a secret.
                let line = why.span().map_or(1, |span| line_of(&text, span.start));
                return self
                    .problems
                    .push(format!("{}:{line}: {}", path.display(), why.message()));
            }
        };
        for (key, value) in table.get_ref() {
            let from = format!(
                "{}:{}: {}",
                path.display(),
                line_of(&text, key.span().start),
                key.get_ref()
            );
            match (
                KEYS.into_iter().find(|known| known == key.get_ref()),
                scalar(value.get_ref()),
            ) {
                (Some(_), Some(value)) if value.is_empty() => {
                    self.problems.push(format!("{from} is empty: leave it out"));
                }
                (Some(known), Some(value)) => _ = self.file.insert(known, Given { value, from }),
                (Some(_), None) => self
                    .problems
                    .push(format!("{from} takes text, a whole number, true or false")),
                (None, _) => self.problems.push(unknown(&from, key.get_ref())),
            }
        }
        let secret = SECRETS.into_iter().find(|key| self.file.contains_key(key));
        if let (true, Some(key)) = (open_to_all, secret) {
            self.problems.push(readable_by_all(path, key));
        }
    }

    fn given(&self, key: &str) -> Option<&Given> {
        self.environment.get(key).or_else(|| self.file.get(key))
    }

    /// Whether a key was given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    /// Where the value of a key was given: file and line, or the variable.
    pub(crate) fn origin(&self, key: &str) -> String {
        self.given(key)
            .map_or_else(|| key.to_owned(), |given| given.from.clone())
    }

    /// The text of a key.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.given(key).map(|given| given.value.clone())
    }

    /// The value of a key as `parse` reads it; `right` says what it takes.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &str,
        right: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(key)?.clone();
        let value = parse(&given.value);
        if value.is_none() {
            self.problems
                .push(format!("{}: \"{}\": write {right}", given.from, given.value));
        }
        value
    }

    /// A key that is a secret: its own text, a file with one a line, or a credential, from the nearest source that has any.
    pub(crate) fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        let file_key = format!("{key}_file");
        let given = [&self.environment, &self.file]
            .map(|source| (source.get(key).cloned(), source.get(file_key.as_str()).cloned()));
        for source in given {
            match source {
                (Some(text), Some(file)) => {
                    let both = format!("{} and {}: write one of them", text.from, file.from);
                    self.problems.push(both);
                    return Vec::new();
                }
                (Some(text), None) if text.value.trim() != text.value => {
                    let from = text.from;
                    self.problems.push(format!(
                        "{from} begins or ends with a space or a line break: take it out"
                    ));
                    return Vec::new();
                }
                (Some(text), None) => return Secret::new(text.value).into_iter().collect(),
                (None, Some(file)) => return self.lines(&file.from, Path::new(&file.value)),
                (None, None) => {}
            }
        }
        let credential = self.credentials.as_ref().map(|folder| folder.join(key));
        match credential.filter(|path| path.exists()) {
            Some(path) => self.lines("systemd credential", &path),
            None => Vec::new(),
        }
    }

    fn lines(&mut self, from: &str, path: &Path) -> Vec<Secret> {
        secret_file(path).unwrap_or_else(|why| {
            self.problems.push(format!("{from}: {why}"));
            Vec::new()
        })
    }
}

/// The secrets in a file, one a line; refused where everybody may read it.
pub(crate) fn secret_file(path: &Path) -> Result<Vec<Secret>, String> {
    let (text, open_to_all) = read_private(path)?;
    if open_to_all {
        return Err(readable_by_all(path, "a secret"));
    }
    let secrets: Vec<Secret> = text.lines().filter_map(|line| Secret::new(line.trim())).collect();
    match secrets.is_empty() {
        true => Err(format!("{}: no secret in it; write one a line", path.display())),
        false => Ok(secrets),
    }
}

fn readable_by_all(path: &Path, what: &str) -> String {
    let path = path.display();
    format!("{path} holds {what} and everybody may read it: chmod o= {path}")
}

/// The text of a file, and whether those who are neither its owner nor in its group may read it.
fn read_private(path: &Path) -> Result<(String, bool), String> {
    let at = |why: std::io::Error| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(at)?;
    let mode = file.metadata().map_err(at)?.mode();
    let mut text = String::new();
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(at)?;
    Ok((text, mode & 0o004 != 0))
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.as_str().replace('_', "")),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn unknown(from: &str, key: &str) -> String {
    match nearest(key, KEYS.into_iter()) {
        Some(near) => format!("{from} is not a setting; did you mean \"{near}\"?"),
        None => format!("{from} is not a setting; known are {}", KEYS.join(", ")),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

const LARGEST_FILE: u64 = 1 << 20;

/// Every key of the file; in upper case, but for `bind`, the variables of the environment.
const KEYS: [&str; 23] = [
    "alert_email",
    "alert_interval",
    "bind",
    "database_path",
    "email_from",
    "email_pass",
    "email_pass_file",
    "email_user",
    "log_file",
    "read_token",
    "read_token_file",
    "require_v2",
    "retention_days",
    "slack_webhook_url",
    "slack_webhook_url_file",
    "smtp_plain",
    "smtp_port",
    "smtp_server",
    "webhook_secret",
    "webhook_secret_file",
    "webhook_secret_previous",
    "webhook_secret_previous_file",
    "wide_scan_ports",
];
/// Keys whose value nobody else may see; each has a `_file`.
const SECRETS: [&str; 5] = [
    "email_pass",
    "read_token",
    "slack_webhook_url",
    "webhook_secret",
    "webhook_secret_previous",
];
