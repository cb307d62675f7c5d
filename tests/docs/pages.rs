//! How pages are read: tables, code in them, blocks, links.

use std::fs;
use std::path::{Path, PathBuf};

/// A path below the top of the source.
pub(crate) fn home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A page of the source.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(home(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of every table: two cells each, without heads.
pub(crate) fn rows(page: &str) -> Vec<[String; 2]> {
    let lines: Vec<&str> = page.lines().collect();
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
    let rows = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| line.starts_with("| ") && !line.starts_with("|---") && !is_head(*at));
    rows.map(|(_, line)| {
        let inner = line.trim().trim_start_matches("| ").trim_end_matches(" |");
        let cells: Vec<String> = inner.split(" | ").map(str::to_owned).collect();
        <[String; 2]>::try_from(cells).unwrap_or_else(|cells| panic!("a row of two cells: {cells:?}"))
    })
    .collect()
}

/// What stands between single backticks.
pub(crate) fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Blocks in fences of this language, each with the lines before its fence back to the last empty one.
pub(crate) fn blocks<'p>(page: &'p str, language: &str) -> Vec<(&'p str, &'p str)> {
    let fence = format!("```{language}\n");
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find(&fence) {
        let before = rest[..at].trim_end().rsplit("\n\n").next().unwrap_or_default();
        let body = &rest[at + fence.len()..];
        let end = body.find("```").expect("a fence is closed");
        found.push((before, &body[..end]));
        rest = &body[end + 3..];
    }
    found
}

/// Files that a page links, and headings of its own.
fn links(page: &str) -> Vec<&str> {
    let all = page
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap());
    all.filter(|link| !link.contains("://")).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    for name in [
        "docs/migrating.md",
        "docs/differences.md",
        "docs/troubleshooting.md",
        "README.md",
    ] {
        let page = read(name);
        let folder = home(name);
        for link in links(&page) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let path = match file {
                "" => folder.clone(),
                file => folder.parent().unwrap().join(file),
            };
            assert!(path.exists(), "{name} links {link}");
            if !part.is_empty() {
                let target = fs::read_to_string(&path).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == part),
                    "{name} links {link}"
                );
            }
        }
    }
}

#[test]
fn the_first_screen_of_the_readme_leads_to_them() {
    let screen: String = read("README.md").lines().take(30).collect();
    for page in [
        "docs/migrating.md",
        "docs/differences.md",
        "docs/troubleshooting.md",
    ] {
        assert!(screen.contains(&format!("]({page})")), "{page}");
    }
}

#[test]
fn tables_and_blocks_are_read() {
    let page = "| a | b |\n|---|---|\n| `x y` | `z`, w |\n\ntext\n```sh\none\n```\n";
    assert_eq!(rows(page), [["`x y`".to_owned(), "`z`, w".to_owned()]]);
    assert_eq!(code("`x y`, `z`"), ["x y", "z"]);
    assert_eq!(blocks(page, "sh"), [("text", "one\n")]);
    assert_eq!(
        anchor("## What `stop` leaves, and why"),
        "what-stop-leaves-and-why"
    );
}
