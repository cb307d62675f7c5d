//! Endpoints in the text of a config: added, changed, removed, with every byte elsewhere as it was.
//!
//! Knows TOML and nothing of what the values mean: whoever edits has the result read by [`crate::config`] before it is
//! written anywhere.

use thiserror::Error;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use crate::webhook::config::SECRET_KEYS;
use crate::webhook::wire::EventType;

/// A config whose endpoints can be changed.
pub(super) struct Book {
    document: DocumentMut,
    /// Lines end as on Windows; toml_edit writes them as elsewhere.
    crlf: bool,
    /// It begins with a byte order mark, which toml_edit drops.
    marked: bool,
}

/// Why a text cannot be edited.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum EditError {
    #[error("it is not TOML")]
    NotToml,
    #[error(
        "it cannot be edited without changing other lines (mixed line ends, spaces inside the brackets of a section?), \
         write the endpoint by hand"
    )]
    Unfaithful,
    #[error("webhooks.endpoints is not a list of tables")]
    Form,
    #[error("there is no endpoint {0:?}")]
    NoEndpoint(String),
}

/// What an endpoint should say; `None` leaves a key as it is.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) url: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) allow_http: Option<bool>,
    pub(super) secret: Option<SecretKey>,
    /// Included and excluded events; empty ones are left out.
    pub(super) events: Option<[Vec<EventType>; 2]>,
}

/// The one key that says where the secret is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SecretKey {
    Unsigned,
    Inline(String),
    File(String),
}

impl Book {
    /// Reads `text`.
    pub(super) fn open(text: &str) -> Result<Book, EditError> {
        let crlf = text.contains("\r\n");
        let plain = if crlf {
            text.replace("\r\n", "\n")
        } else {
            text.to_owned()
        };
        let document: DocumentMut = plain.parse().map_err(|_| EditError::NotToml)?;
        let marked = text.starts_with(MARK);
        let book = Book {
            document,
            crlf,
            marked,
        };
        let same = book.text();
        // A last line without its end gets one.
        let faithful = match text.ends_with('\n') || text.is_empty() {
            true => same == text,
            false => same.trim_end_matches(['\r', '\n']) == text,
        };
        faithful.then_some(book).ok_or(EditError::Unfaithful)
    }

    /// The text as it is now.
    pub(super) fn text(&self) -> String {
        let mark = if self.marked { MARK } else { "" };
        let text = format!("{mark}{}", self.document);
        if self.crlf {
            text.replace('\n', "\r\n")
        } else {
            text
        }
    }

    /// Makes `[webhooks]` say `enabled = true`.
    pub(super) fn switch_on(&mut self) -> Result<(), EditError> {
        if !self.document.contains_key("webhooks") {
            let mut table = Table::new();
            self.put_last(&mut table, self.last_position() + 1);
            self.document.insert("webhooks", Item::Table(table));
        }
        let webhooks = self.webhooks_mut().ok_or(EditError::Form)?;
        if webhooks.get("enabled").and_then(Item::as_bool) != Some(true) {
            set(webhooks, "enabled", true.into());
        }
        // Made by [[webhooks.endpoints]] alone it has no line of its own yet: it gets one before them.
        let table = self.document.get_mut("webhooks").and_then(Item::as_table_mut);
        if let Some(table) = table.filter(|table| table.is_implicit()) {
            let endpoints = table.get("endpoints").and_then(Item::as_array_of_tables);
            let first = endpoints.and_then(|endpoints| endpoints.get(0)?.position());
            table.set_implicit(false);
            table.set_position(first);
        }
        Ok(())
    }

    /// Changes the endpoint of this name.
    pub(super) fn change(&mut self, name: &str, change: &Change) -> Result<(), EditError> {
        let found = self.endpoint_mut(name);
        let (endpoint, form) = found.ok_or_else(|| EditError::NoEndpoint(name.to_owned()))?;
        apply(endpoint, form, change);
        Ok(())
    }

    /// Adds an endpoint behind everything that is there.
    pub(super) fn add(&mut self, name: &str, change: &Change) -> Result<(), EditError> {
        let last = self.last_position() + 1;
        let inline = self.webhooks_mut().ok_or(EditError::Form)?;
        match inline.get_mut("endpoints") {
            Some(Item::Value(Value::Array(array))) => {
                let mut endpoint = InlineTable::new();
                endpoint.insert("name", name.into());
                apply(&mut endpoint, Form::Inline, change);
                array.push(endpoint);
                return Ok(());
            }
            Some(Item::ArrayOfTables(_)) | None => {}
            Some(_) => return Err(EditError::Form),
        }
        let mut endpoint = Table::new();
        endpoint.insert("name", Item::Value(name.into()));
        apply(&mut endpoint, Form::Section, change);
        self.put_last(&mut endpoint, last);
        match self.document.get_mut("webhooks") {
            Some(Item::Table(webhooks)) => {
                let endpoints = webhooks
                    .entry("endpoints")
                    .or_insert(Item::ArrayOfTables(Default::default()));
                endpoints
                    .as_array_of_tables_mut()
                    .ok_or(EditError::Form)?
                    .push(endpoint);
                Ok(())
            }
            Some(Item::Value(Value::InlineTable(webhooks))) => {
                let list: Array = [endpoint.into_inline_table()].into_iter().collect();
                webhooks.insert("endpoints", list.into());
                Ok(())
            }
            _ => Err(EditError::Form),
        }
    }

    /// Takes an endpoint out. Comments above it stay: nobody can tell whether they are about it alone.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), EditError> {
        let missing = || EditError::NoEndpoint(name.to_owned());
        let endpoints = self
            .webhooks_mut()
            .and_then(|webhooks| webhooks.get_mut("endpoints"));
        match endpoints.ok_or_else(missing)? {
            Item::Value(Value::Array(array)) => {
                let at = array
                    .iter()
                    .position(|one| has_name(one.as_inline_table().map(|t| t as &dyn TableLike), name));
                array.remove(at.ok_or_else(missing)?);
            }
            Item::ArrayOfTables(array) => {
                let at = array.iter().position(|one| has_name(Some(one), name));
                let gone = array.remove(at.ok_or_else(missing)?);
                self.keep_comments(&gone);
            }
            _ => return Err(EditError::Form),
        }
        Ok(())
    }

    /// What stood above `gone` now stands above what came next.
    fn keep_comments(&mut self, gone: &Table) {
        let above = text_of(gone.decor().prefix().and_then(|prefix| prefix.as_str()));
        if above.trim().is_empty() {
            return;
        }
        let root = self.document.as_table_mut();
        let next = next_header(root, last_position(gone)).and_then(|at| header_at(root, at));
        if let Some(table) = next {
            let own = text_of(table.decor().prefix().and_then(|prefix| prefix.as_str()));
            table.decor_mut().set_prefix(above + &own);
        } else {
            let own = text_of(self.document.trailing().as_str());
            self.document.set_trailing(above + &own);
        }
    }

    /// Puts a new table behind the last line, comments that end the text included.
    fn put_last(&mut self, table: &mut Table, position: isize) {
        table.set_position(Some(position));
        let before = text_of(self.document.trailing().as_str());
        let gap = if before.ends_with("\n\n") || self.is_empty(&before) {
            ""
        } else {
            "\n"
        };
        table.decor_mut().set_prefix(before + gap);
        self.document.set_trailing("");
    }

    fn is_empty(&self, trailing: &str) -> bool {
        trailing.is_empty() && self.document.as_table().is_empty()
    }

    fn last_position(&self) -> isize {
        last_position(self.document.as_table())
    }

    fn webhooks_mut(&mut self) -> Option<&mut dyn TableLike> {
        self.document.get_mut("webhooks")?.as_table_like_mut()
    }

    fn endpoint_mut(&mut self, name: &str) -> Option<(&mut dyn TableLike, Form)> {
        match self.webhooks_mut()?.get_mut("endpoints")? {
            Item::ArrayOfTables(array) => {
                let found = array.iter_mut().find(|table| has_name(Some(&**table), name))?;
                Some((found, Form::Section))
            }
            Item::Value(Value::Array(array)) => {
                let mut tables = array.iter_mut().filter_map(Value::as_inline_table_mut);
                let found = tables.find(|table| has_name(Some(&**table), name))?;
                Some((found, Form::Inline))
            }
            _ => None,
        }
    }
}

/// How an endpoint is written: `[[webhooks.endpoints]]`, or `{ … }` in a list.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Section,
    Inline,
}

fn has_name(table: Option<&dyn TableLike>, name: &str) -> bool {
    table.and_then(|table| table.get("name")).and_then(Item::as_str) == Some(name)
}

fn apply(endpoint: &mut dyn TableLike, form: Form, change: &Change) {
    if let Some(url) = &change.url {
        set(endpoint, "url", url.as_str().into());
    }
    if let Some(secret) = &change.secret {
        put_secret(endpoint, secret);
    }
    // What is the default is written only where something else stands.
    for (key, wanted, default) in [
        ("enabled", change.enabled, true),
        ("allow_http", change.allow_http, false),
    ] {
        match wanted {
            Some(wanted) if wanted != default || endpoint.contains_key(key) => {
                set(endpoint, key, wanted.into())
            }
            _ => {}
        }
    }
    if let Some(events) = &change.events {
        put_events(endpoint, form, events);
    }
    // What is new stands in a list on one line, whose spaces were those of its old end.
    if form == Form::Inline {
        endpoint.fmt();
    }
}

fn put_secret(endpoint: &mut dyn TableLike, secret: &SecretKey) {
    let (wanted, value) = match secret {
        SecretKey::Unsigned => ("", ""),
        SecretKey::Inline(text) => ("secret", text.as_str()),
        SecretKey::File(path) => ("secret_file", path.as_str()),
    };
    for key in SECRET_KEYS.into_iter().filter(|key| *key != wanted) {
        endpoint.remove(key);
    }
    if !wanted.is_empty() {
        set(endpoint, wanted, value.into());
    }
}

fn put_events(endpoint: &mut dyn TableLike, form: Form, lists: &[Vec<EventType>; 2]) {
    if lists.iter().all(Vec::is_empty) {
        endpoint.remove("events");
        return;
    }
    if endpoint.get("events").and_then(Item::as_table_like).is_none() {
        let empty = match form {
            Form::Inline => Item::Value(InlineTable::new().into()),
            Form::Section => Item::Table(Table::new()),
        };
        endpoint.insert("events", empty);
    }
    let Some(events) = endpoint.get_mut("events").and_then(Item::as_table_like_mut) else {
        return;
    };
    for (key, list) in ["include", "exclude"].into_iter().zip(lists) {
        if list.is_empty() {
            events.remove(key);
        } else {
            let names: Array = list.iter().map(|kind| kind.name()).collect();
            set(events, key, names.into());
        }
    }
}

/// Puts a value where the old one stood, with the spaces and the comment around it.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => _ = table.insert(key, Item::Value(value)),
    }
}

fn text_of(raw: Option<&str>) -> String {
    raw.unwrap_or_default().to_owned()
}

/// The place in the text of the last header of `table` and what is below it.
fn last_position(table: &Table) -> isize {
    let below = table.iter().map(|(_, item)| match item {
        Item::Table(table) => last_position(table),
        Item::ArrayOfTables(array) => array.iter().map(last_position).max().unwrap_or(0),
        _ => 0,
    });
    below.chain(table.position()).max().unwrap_or(0)
}

/// The place of the first header behind `after`.
fn next_header(table: &Table, after: isize) -> Option<isize> {
    let own = table.position().filter(|at| *at > after && has_header(table));
    let below = table.iter().filter_map(|(_, item)| match item {
        Item::Table(table) => next_header(table, after),
        Item::ArrayOfTables(array) => array.iter().filter_map(|table| next_header(table, after)).min(),
        _ => None,
    });
    below.chain(own).min()
}

fn header_at(table: &mut Table, position: isize) -> Option<&mut Table> {
    if table.position() == Some(position) && has_header(table) {
        return Some(table);
    }
    table.iter_mut().find_map(|(_, item)| match item {
        Item::Table(table) => header_at(table, position),
        Item::ArrayOfTables(array) => array.iter_mut().find_map(|table| header_at(table, position)),
        _ => None,
    })
}

fn has_header(table: &Table) -> bool {
    !table.is_implicit() && !table.is_dotted()
}

const MARK: &str = "\u{feff}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FULL: &str = r#"# top
[firewall]   # the filter
firewall_mode = "detection_only"

[webhooks] # where events go
enabled = true   # yes
#batch_size = 10

# the first
[[webhooks.endpoints]]
name = 'a'            # its name
url = "https://a.example.com/x"  # its place
secret = "hush" # to be changed

[webhooks.endpoints.headers]
"X-Org" = "1"

# the second
[[webhooks.endpoints]]
name = "b"
url = "https://b.example.com/"

[bans] # at the end
enforce = true
# the last word
"#;

    fn change(url: &str) -> Change {
        Change {
            url: Some(url.into()),
            ..Change::default()
        }
    }

    fn edited(text: &str, edit: impl FnOnce(&mut Book)) -> String {
        let mut book = Book::open(text).unwrap();
        edit(&mut book);
        let text = book.text();
        config::parse(&text, "x.toml".as_ref()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        text
    }

    #[test]
    fn a_new_endpoint_stands_behind_all_that_was_there() {
        let mut new = change("https://c.example.com/");
        new.secret = Some(SecretKey::File("/etc/c".into()));
        new.events = Some([vec![EventType::IpBlocked], vec![]]);
        let text = edited(FULL, |book| {
            book.switch_on().unwrap();
            book.add("c", &new).unwrap();
        });
        let added = "\n[[webhooks.endpoints]]\nname = \"c\"\nurl = \"https://c.example.com/\"\nsecret_file = \"/etc/c\"\n\n\
                     [webhooks.endpoints.events]\ninclude = [\"ip_blocked\"]\n";
        assert_eq!(text, format!("{FULL}{added}"));
    }

    #[test]
    fn an_empty_file_gets_all_it_needs() {
        let add = |book: &mut Book| {
            book.switch_on().unwrap();
            book.add("c", &change("https://c/")).unwrap();
        };
        let all =
            "[webhooks]\nenabled = true\n\n[[webhooks.endpoints]]\nname = \"c\"\nurl = \"https://c/\"\n";
        assert_eq!(edited("", add), all);
        assert_eq!(edited("# only words\n", add), format!("# only words\n\n{all}"));
        let off = "[webhooks]\nenabled = false # for now\n# more\n";
        let on = off.replace("false", "true");
        assert_eq!(edited(off, add), on + all.split_once("true\n").unwrap().1);
    }

    #[test]
    fn a_change_touches_its_values_alone() {
        let mut new = change("https://new/");
        new.secret = Some(SecretKey::File("/f".into()));
        new.enabled = Some(false);
        let text = edited(FULL, |book| book.change("a", &new).unwrap());
        let wanted = FULL
            .replace("\"https://a.example.com/x\"  # its", "\"https://new/\"  # its")
            .replace(
                "secret = \"hush\" # to be changed\n",
                "secret_file = \"/f\"\nenabled = false\n",
            );
        assert_eq!(text, wanted);
        assert_eq!(
            edited(FULL, |book| book.change("b", &Change::default()).unwrap()),
            FULL
        );
        let mut book = Book::open(FULL).unwrap();
        assert_eq!(book.change("x", &new), Err(EditError::NoEndpoint("x".into())));
    }

    #[test]
    fn who_is_removed_leaves_the_comments_around() {
        let first = edited(FULL, |book| book.remove("a").unwrap());
        let (from, to) = (
            FULL.find("[[webhooks").unwrap(),
            FULL.find("\n# the second").unwrap(),
        );
        assert_eq!(first, format!("{}{}", &FULL[..from], &FULL[to..]));
        let second = edited(FULL, |book| book.remove("b").unwrap());
        let (from, to) = (FULL.rfind("[[webhooks").unwrap(), FULL.find("\n[bans]").unwrap());
        assert_eq!(second, format!("{}{}", &FULL[..from], &FULL[to..]));
    }

    #[test]
    fn other_ways_to_write_it_stay_as_they_are() {
        let inline = "[webhooks]\nendpoints = [{ name = \"a\", url = \"https://a/\" }] # short\n";
        let mut new = change("https://b/");
        new.events = Some([vec![], vec![EventType::BanStorm]]);
        let text = edited(inline, |book| book.add("b", &new).unwrap());
        assert!(
            text.contains(
                "name = \"b\", url = \"https://b/\", events = { exclude = [\"ban_storm\"] } }] # short\n"
            ),
            "{text}"
        );
        let text = edited(inline, |book| book.change("a", &new).unwrap());
        assert!(
            text.contains("{ name = \"a\", url = \"https://b/\", events = {"),
            "{text}"
        );
        let text = edited(inline, |book| book.remove("a").unwrap());
        assert!(text.contains("endpoints = [] # short\n"), "{text}");
        let alone = "# x\n[[webhooks.endpoints]]\nname = \"a\"\nurl = \"https://a/\"\n";
        assert_eq!(
            edited(alone, |book| book.switch_on().unwrap())
                .matches("[webhooks]\nenabled = true\n")
                .count(),
            1
        );
        let windows = FULL.replace('\n', "\r\n");
        let text = edited(&windows, |book| book.add("c", &change("https://c/")).unwrap());
        assert!(
            text.starts_with(&windows) && text.ends_with("url = \"https://c/\"\r\n"),
            "{text}"
        );
        let marked = format!("\u{feff}{windows}");
        let text = edited(&marked, |book| book.add("c", &change("https://c/")).unwrap());
        assert!(text.starts_with(&marked), "{text}");
    }

    #[test]
    fn what_cannot_be_kept_is_not_edited() {
        assert_eq!(Book::open("a = 1\r\nb = 2\n").err(), Some(EditError::Unfaithful));
        assert_eq!(Book::open("= 1").err(), Some(EditError::NotToml));
        let mut book = Book::open("webhooks = 1\n").unwrap();
        assert_eq!(book.add("a", &Change::default()), Err(EditError::Form));
    }
}
