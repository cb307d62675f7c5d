//! A walk over a TOML document that knows its lines and collects problems instead of stopping at the first.
//!
//! Stands apart from the meaning of any key: sections ask for keys with a reader, and what nobody asked for
//! is unknown.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Note, Problem};
use super::suggest;
use super::units::{self, Fault, Read, shown, type_word};

/// Where problems and notes of one document are collected.
pub(super) struct Report {
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    notes: RefCell<Vec<Note>>,
}

impl Report {
    pub(super) fn new(text: &str) -> Report {
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Report {
            line_starts: std::iter::once(0).chain(starts).collect(),
            problems: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// The line, from 1, in which the byte at `offset` stands.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    pub(super) fn problem(&self, line: usize, key: impl Into<String>, fault: Fault) {
        let Fault { found, wrong, right } = fault;
        self.problems.borrow_mut().push(Problem {
            line: Some(line),
            key: key.into(),
            found,
            wrong,
            right,
        });
    }

    pub(super) fn note(&self, line: usize, key: impl Into<String>, text: impl Into<String>) {
        self.notes.borrow_mut().push(Note {
            line,
            key: key.into(),
            text: text.into(),
        });
    }

    pub(super) fn problems_so_far(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Everything collected, in the order of the file.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Note>) {
        let (mut problems, mut notes) = (self.problems.into_inner(), self.notes.into_inner());
        problems.sort_by_key(|problem| problem.line);
        notes.sort_by_key(|note| note.line);
        (problems, notes)
    }
}

/// One table of the document, with the keys that were asked of it so far.
pub(super) struct Section<'d> {
    report: &'d Report,
    table: &'d DeTable<'d>,
    name: String,
    line: usize,
    known: BTreeSet<&'static str>,
}

/// The elements of an array.
pub(super) struct List<T> {
    /// Those that were accepted, each with its line.
    pub(super) values: Vec<(usize, T)>,
    /// Whether that is all of them.
    pub(super) all_good: bool,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(super) fn root(report: &'d Report, table: &'d DeTable<'d>) -> Section<'d> {
        Section {
            report,
            table,
            name: String::new(),
            line: 1,
            known: BTreeSet::new(),
        }
    }

    pub(super) fn report(&self) -> &'d Report {
        self.report
    }

    /// The line of `key`, or of this section's header where the key is absent.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.find(key).map_or(self.line, |(line, _)| line)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of `key` if it is there and `read` accepts it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Option<T> {
        let (line, value) = self.take(key)?;
        self.accept(line, key, read(value.get_ref()))
    }

    /// The elements of the array `key` that `read` accepts; `None` if there is no array.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        right: &str,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<List<T>> {
        let (line, value) = self.take(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let fault = Fault::kind(value.get_ref(), right);
            return self.accept(line, key, Err(fault));
        };
        let read_one = |item: &Spanned<DeValue<'_>>| {
            let line = self.report.line(item.span().start);
            self.accept(line, key, read(item.get_ref()))
                .map(|value| (line, value))
        };
        let values: Vec<_> = items.iter().filter_map(read_one).collect();
        Some(List {
            all_good: values.len() == items.len(),
            values,
        })
    }

    /// The section `key` below this one, if it is there and a section; reports nothing.
    pub(super) fn peek(&self, key: &str) -> Option<Section<'d>> {
        let (line, value) = self.find(key)?;
        Some(self.below(self.full(key), line, value.get_ref().as_table()?))
    }

    /// The section `key` below this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'d>> {
        let (line, value) = self.take(key)?;
        let name = self.full(key);
        match value.get_ref() {
            DeValue::Table(table) => Some(self.below(name, line, table)),
            DeValue::Array(_) => {
                let right = format!("write [{name}] once, in single brackets");
                self.accept(line, key, Err(Fault::new("", "is an array of sections", right)))
            }
            other => {
                let fault = Fault::kind(other, &format!("write it as a section: [{name}]"));
                self.accept(line, key, Err(fault))
            }
        }
    }

    /// The sections `[[key]]` below this one.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some((line, value)) = self.take(key) else {
            return Vec::new();
        };
        let name = self.full(key);
        let right = format!("write each as a section: [[{name}]]");
        let DeValue::Array(items) = value.get_ref() else {
            self.accept::<()>(line, key, Err(Fault::kind(value.get_ref(), &right)));
            return Vec::new();
        };
        let below = |item: &'d Spanned<DeValue<'d>>| {
            let line = self.report.line(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => Some(self.below(name.clone(), line, table)),
                other => self.accept(line, key, Err(Fault::kind(other, &right))),
            }
        };
        items.iter().filter_map(below).collect()
    }

    /// Every entry of a section whose keys are free, read as pairs.
    pub(super) fn entries<K, V>(
        &self,
        read_key: impl Fn(&str) -> Read<K>,
        read_value: impl Fn(&DeValue<'_>) -> Read<V>,
    ) -> Vec<(K, V)> {
        let read = |(key, line, value)| {
            let name = printable(key);
            let key = self.accept(line, &name, read_key(key));
            let value = self.accept(line, &name, read_value(value));
            Some((key?, value?))
        };
        self.given().filter_map(read).collect()
    }

    /// The keys that are there, with line and value as shown, in the order of their names.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'d str, usize, &'d DeValue<'d>)> {
        let (table, report) = (self.table, self.report);
        table
            .iter()
            .map(|(key, value)| (&**key.get_ref(), report.line(key.span().start), value.get_ref()))
    }

    /// Every entry of a table by port, with its line; a port that is written twice, as `22` and `022`, is refused.
    pub(super) fn by_port<V>(&self, read_value: impl Fn(&DeValue<'_>) -> Read<V>) -> Vec<(usize, u16, V)> {
        let mut seen = BTreeSet::new();
        let mut given: Vec<_> = self.given().collect();
        given.sort_by_key(|(_, line, _)| *line);
        let read = |(key, line, value)| {
            let name = printable(key);
            let port = self.accept(line, &name, units::port_word(key));
            let value = self.accept(line, &name, read_value(value));
            let port = port.filter(|port| {
                let fault = || Fault::new("", format!("is port {port} again"), "keep one of them");
                seen.insert(*port) || self.accept::<()>(line, &name, Err(fault())).is_some()
            });
            Some((line, port?, value?))
        };
        given.into_iter().filter_map(read).collect()
    }

    /// Reports a problem with `key` of this section.
    pub(super) fn refuse(&self, key: &str, fault: Fault) {
        self.report.problem(self.line_of(key), self.full(key), fault);
    }

    /// Every key that was never asked for is unknown; `elsewhere` names the section where it would belong.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<&'static str>) {
        for (key, line, value) in self.given().filter(|(key, _, _)| !self.known.contains(key)) {
            let known = self.known.iter().copied();
            let right = match (elsewhere(key), suggest::nearest(key, known.clone())) {
                (Some(place), _) => format!("belongs under [{place}]"),
                (None, Some(near)) => format!("did you mean \"{near}\"?"),
                (None, None) => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
            };
            let wrong = if value.is_table() {
                "no such section"
            } else {
                "no such key"
            };
            self.report
                .problem(line, self.full(&printable(key)), Fault::new("", wrong, right));
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(usize, &'d Spanned<DeValue<'d>>)> {
        self.known.insert(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<(usize, &'d Spanned<DeValue<'d>>)> {
        let (name, value) = self.table.get_key_value(key)?;
        Some((self.report.line(name.span().start), value))
    }

    fn below(&self, name: String, line: usize, table: &'d DeTable<'d>) -> Section<'d> {
        Section {
            report: self.report,
            table,
            name,
            line,
            known: BTreeSet::new(),
        }
    }

    fn accept<T>(&self, line: usize, key: &str, read: Read<T>) -> Option<T> {
        read.map_err(|fault| self.report.problem(line, self.full(key), fault))
            .ok()
    }

    pub(super) fn full(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}

/// A key as a person would read it: bare where TOML allows it, else quoted, escaped and cut.
fn printable(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) {
        return key.to_owned();
    }
    shown(&DeValue::String(key.into()))
}

impl Fault {
    /// A value of the wrong type.
    pub(super) fn kind(value: &DeValue<'_>, right: &str) -> Fault {
        Fault::new(shown(value), format!("is {}", type_word(value)), right)
    }
}
