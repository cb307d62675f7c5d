//! What the TOML parser says, in our words and with our lines, and what of it is only an echo.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::problem::Problem;

/// Faults of syntax, one a line, in the order of the file. What follows a bracket that is never closed is left
/// out: it is read as part of the list and says nothing true.
pub(super) fn problems(
    text: &str,
    document: &DeTable<'_>,
    errors: &[Error],
    line: impl Fn(usize) -> usize,
) -> Vec<Problem> {
    let start = |error: &Error| error.span().map_or(text.len(), |span| span.start);
    let unclosed = errors
        .iter()
        .find(|error| UNCLOSED.contains(&first_words(error.message())));
    let opened = unclosed.and_then(|error| opening(document, start(error)));
    let end = opened.as_ref().map_or(text.len() + 1, |(_, at)| *at);
    let mut errors: Vec<&Error> = errors.iter().filter(|error| start(error) < end).collect();
    errors.sort_by_key(|error| start(error));
    let mut seen = BTreeSet::new();
    let mut problems: Vec<Problem> = errors
        .into_iter()
        .map(|error| (line(start(error)), error))
        .filter(|(line, _)| seen.insert(*line))
        .take(MOST + 1)
        .map(|(line, error)| told(text, error, line))
        .collect();
    if let Some((key, at)) = opened {
        let wrong = NEVER_CLOSED.to_owned();
        let right = "close it with ] or }".to_owned();
        problems.push(Problem {
            line: Some(line(at)),
            key,
            found: String::new(),
            wrong,
            right,
        });
    }
    problems
}

/// Adds what the sections found, except on lines (and after brackets) where the parser had to guess.
pub(super) fn merge(syntax: Vec<Problem>, sections: Vec<Problem>) -> Vec<Problem> {
    let guessed: BTreeSet<_> = syntax.iter().map(|problem| problem.line).collect();
    let unclosed = syntax
        .iter()
        .filter(|problem| problem.wrong == NEVER_CLOSED)
        .map(|p| p.line)
        .min();
    let sound = |problem: &Problem| {
        !guessed.contains(&problem.line) && unclosed.is_none_or(|line| problem.line < line)
    };
    let mut all = syntax;
    all.extend(sections.into_iter().filter(sound));
    all.sort_by_key(|problem| problem.line);
    if let Some(line) = all.get(MOST).map(|problem| problem.line) {
        let wrong = format!("here it goes on: these are the first {MOST} problems");
        all.truncate(MOST);
        all.push(Problem {
            line,
            wrong,
            ..Problem::default()
        });
    }
    all
}

fn told(text: &str, error: &Error, line: usize) -> Problem {
    let span = error.span().unwrap_or(text.len()..text.len());
    let span_start = span.start;
    let found = if may_show(text, span.start) {
        excerpt(text, span.clone())
    } else {
        String::new()
    };
    let (found, wrong, right) = match first_words(error.message()) {
        "duplicate key" => (
            excerpt(text, span),
            "is given twice".into(),
            "keep one of them".into(),
        ),
        "string values must be quoted" if span.is_empty() => (
            String::new(),
            "there is no value after the =".into(),
            "write one, or remove the line".into(),
        ),
        "string values must be quoted" => (found, "is not quoted".into(), "put it between \" and \"".into()),
        "key with no value" => (
            String::new(),
            "there is no value".into(),
            "write the line as key = value".into(),
        ),
        "cannot recurse further; max recursion depth met" | "recursion limit" => (
            String::new(),
            "is nested too deeply".into(),
            "no key of verdictd needs more than three levels".into(),
        ),
        _ => (
            String::new(),
            error.message().to_owned(),
            "see https://toml.io for how it is written".into(),
        ),
    };
    Problem {
        line: Some(line),
        key: near(text, span_start),
        found,
        wrong,
        right,
    }
}

/// The key in whose line the parser stumbled, as far as the text tells: section and what stands before the `=`.
fn near(text: &str, at: usize) -> String {
    let bare = |word: &&str| {
        word.len() <= EXCERPT
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    if line.trim_start().starts_with('[') {
        return String::new();
    }
    let key = line
        .split_once('=')
        .map(|(key, _)| key.trim())
        .filter(bare)
        .unwrap_or_default();
    let header = header(&text[..line_start])
        .map(|line| line.trim_matches(|c: char| "[] ".contains(c)))
        .filter(bare);
    let words = [header.unwrap_or_default(), key];
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(".")
}

fn header(before: &str) -> Option<&str> {
    before
        .lines()
        .rev()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .find(|line| line.starts_with('['))
}

/// The parser's message up to what it expected.
fn first_words(message: &str) -> &str {
    message.split_once(',').map_or(message, |(first, _)| first)
}

/// Key and place of the outermost value that the end of the file (at `end`) cut short.
fn opening(table: &DeTable<'_>, end: usize) -> Option<(String, usize)> {
    table.iter().find_map(|(key, value)| match value.get_ref() {
        DeValue::Array(_) | DeValue::Table(_) if value.span().len() > 1 && value.span().end >= end => {
            Some((key.get_ref().escape_debug().to_string(), value.span().start))
        }
        DeValue::Table(below) => {
            opening(below, end).map(|(name, at)| (format!("{}.{name}", key.get_ref().escape_debug()), at))
        }
        _ => None,
    })
}

fn excerpt(text: &str, span: Range<usize>) -> String {
    let snippet = text.get(span).unwrap_or_default();
    snippet
        .chars()
        .take(EXCERPT)
        .flat_map(char::escape_debug)
        .collect()
}

/// Whether a text may be repeated in a message: secrets of webhooks may not.
fn may_show(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or(text);
    !header(before).is_some_and(|line| line.contains("webhooks"))
}

const UNCLOSED: [&str; 2] = ["unclosed array", "unclosed inline table"];

const NEVER_CLOSED: &str = "opens a bracket that is never closed";

/// Problems that are told of one file: nobody mends more at a time, and telling costs a look back for the section.
const MOST: usize = 1_000;

/// Characters of a faulty place that are shown.
const EXCERPT: usize = 40;
