//! verdictd.toml(5), made of the commented default configuration: a comment explains the keys that follow it, and
//! `#key = value` is a key at its default (tests/config.rs holds that against the parser).

use std::collections::BTreeSet;
use std::path::Path;

use clap_mangen::roff::{Roff, bold, roman};
use verdictd::config;

use crate::page;

/// Where the keys go in the part that is written by hand.
const PLACE: &str = ".\\\" KEYS\n";

/// A line of the file.
#[derive(Debug, PartialEq)]
enum Line<'t> {
    Gap,
    Words(&'t str),
    /// `[name]`, also behind a "#".
    Section(&'t str),
    /// Also behind a "#".
    Key(&'t str, &'t str),
}

/// What the file says from its first section on; what stands before that the page tells in its own words.
fn lines(config: &str) -> impl Iterator<Item = Line<'_>> {
    let first = config.find("\n[").expect("a section");
    config[first + 1..].lines().map(line)
}

fn line(line: &str) -> Line<'_> {
    if line.trim_matches(['#', ' ']).is_empty() {
        return Line::Gap;
    }
    if let Some(words) = line.strip_prefix("# ") {
        return Line::Words(words);
    }
    let line = line.trim_start_matches('#');
    if let Some(name) = line.strip_prefix('[') {
        return Line::Section(name.trim_end_matches(']'));
    }
    let pair = line.split_once(" = ");
    let (key, value) = pair.unwrap_or_else(|| panic!("{line:?} is neither a key nor words"));
    Line::Key(key, value)
}

/// The page.
pub(crate) fn page(config: &str, parts: &str) -> String {
    let (before, after) = parts.split_once(PLACE).expect("a line for the keys");
    let mut writer = Writer::default();
    for line in lines(config) {
        match line {
            Line::Gap => writer.flush(),
            Line::Words(words) => {
                if !writer.keys.is_empty() {
                    writer.flush();
                }
                writer.words.push(words);
            }
            Line::Section(name) => writer.section(name),
            Line::Key(key, value) => writer.keys.push((key, value)),
        }
    }
    writer.flush();
    page::head("verdictd.toml", "5", "File formats") + before + &writer.roff.to_roff() + after
}

#[derive(Default)]
struct Writer<'t> {
    roff: Roff,
    words: Vec<&'t str>,
    keys: Vec<(&'t str, &'t str)>,
}

impl<'t> Writer<'t> {
    /// Words right before it are about it.
    fn section(&mut self, name: &str) {
        self.roff.control("SH", [format!("[{name}]").as_str()]);
        self.flush();
    }

    /// Keys that stand together are explained together.
    fn flush(&mut self) {
        for (nth, (key, value)) in self.keys.iter().enumerate() {
            self.roff.control(if nth == 0 { "TP" } else { "TQ" }, []);
            self.roff.text([bold(*key), roman(format!(" = {value}"))]);
        }
        if self.keys.is_empty() && !self.words.is_empty() {
            self.roff.control("PP", []);
        }
        let mut as_is = false;
        for words in &self.words {
            let set_off = is_set_off(words);
            if set_off != as_is {
                let end_or_start = if set_off { "nf" } else { "fi" };
                self.roff.control(end_or_start, []);
            }
            as_is = set_off;
            self.roff.text([roman(*words)]);
        }
        if as_is {
            self.roff.control("fi", []);
        }
        self.words.clear();
        self.keys.clear();
    }
}

/// Tables and examples.
fn is_set_off(words: &str) -> bool {
    let is_pair = || {
        words
            .split_once(" = ")
            .is_some_and(|(key, _)| key.trim_matches('"').chars().all(is_of_name))
    };
    words.starts_with([' ', '[']) || is_pair()
}

fn is_of_name(letter: char) -> bool {
    is_of_key(letter) || letter.is_ascii_uppercase() || letter == '-'
}

fn is_of_key(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter == '_'
}

/// Section by section: the keys that the page lists are those that the parser knows.
pub(crate) fn compare_with_the_parser(config: &str) {
    let (mut section, mut listed, mut all) = ("", BTreeSet::new(), Vec::new());
    for line in lines(config) {
        match line {
            Line::Section(name) => {
                all.push((std::mem::replace(&mut section, name), std::mem::take(&mut listed)))
            }
            Line::Key(key, _) => {
                listed.insert(key);
            }
            _ => {}
        }
    }
    all.push((section, listed));
    for (section, listed) in &all {
        // Ports and names of one's own, not keys.
        if section.is_empty() || section.contains('.') {
            continue;
        }
        let below = all
            .iter()
            .filter_map(|(other, _)| other.strip_prefix(&format!("{section}.")));
        let mut listed: BTreeSet<&str> = listed.iter().copied().chain(below).collect();
        // Told in words.
        listed.extend(
            ["sleep_interval", "port_thresholds", "endpoints"]
                .iter()
                .filter(|key| match **key {
                    "sleep_interval" => *section == "firewall",
                    "endpoints" => *section == "webhooks",
                    _ => false,
                }),
        );
        assert_eq!(
            listed,
            known(section).iter().map(String::as_str).collect(),
            "[{section}]"
        );
    }
    for key in known("[webhooks.endpoints]") {
        let word = |text: &str| text.split(|c: char| !is_of_key(c)).any(|word| word == key);
        assert!(word(config), "webhooks.endpoints.{key}");
    }
    let sections: BTreeSet<&str> = all
        .iter()
        .map(|(name, _)| name.split('.').next().unwrap())
        .collect();
    for section in known("") {
        assert!(
            sections.contains(section.as_str()) || config.contains(&format!("[{section}.")),
            "[{section}]"
        );
    }
}

/// What the parser says that it knows there.
fn known(section: &str) -> BTreeSet<String> {
    let text = match section {
        "" => "zzzzzzzzzzzz = 1".to_owned(),
        section => format!("[{section}]\nzzzzzzzzzzzz = 1"),
    };
    let refused = config::parse(&text, Path::new("f.toml"))
        .expect_err("an unknown key")
        .to_string();
    let line = refused
        .lines()
        .find(|line| line.contains("zzzzzzzzzzzz"))
        .expect(&refused);
    let (_, known) = line.split_once("known here: ").expect(line);
    known.split(", ").map(str::to_owned).collect()
}
