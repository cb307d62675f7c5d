//! What nft loads at boot: whether our table stands in that text, and whether it empties the kernel of every table first.
//! Read as nft would, as far as that matters: comments, quotes, includes.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::kernel::ruleset::TABLE;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as nft would be told it.
    pub path: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

/// What of the text is not known.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A file that is not there, or is not ours to read.
    #[error("{}: {error}", path.display())]
    File {
        /// As nft would be told it.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Files that include each other deeper, or are more, than anybody means.
    #[error("{}: too many includes, what it loads is not known", .0.display())]
    TooMany(PathBuf),
    /// Which folders a pattern means is not looked for.
    #[error("include \"{0}\": a pattern of folders, what it loads is not known")]
    Folders(String),
}

/// What the text loads, as far as it concerns us.
#[derive(Debug, Default)]
pub struct Boot {
    /// The files that there are where distributions have them.
    pub files: Vec<PathBuf>,
    /// Whether nftables.service is enabled, so that they are loaded at boot.
    pub enabled: bool,
    /// Where our table is defined.
    pub ours: Vec<Place>,
    /// Where `flush ruleset` stands.
    pub flushes: Vec<Place>,
    /// Where a rule with a target of xtables stands, which nft lists but cannot load.
    pub xt: Vec<Place>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Boot {
    /// Reads below `root`, which is `/` but in tests.
    pub fn read(root: &Path) -> Boot {
        let mut reader = Reader {
            root,
            boot: Boot::default(),
            seen: BTreeSet::new(),
        };
        for path in FILES.map(Path::new) {
            if reader.at(path).exists() {
                reader.boot.files.push(path.to_owned());
                reader.file(path, 0);
            }
        }
        let mut boot = reader.boot;
        boot.enabled = ENABLED
            .iter()
            .any(|link| below(root, Path::new(link)).symlink_metadata().is_ok());
        boot
    }
}

struct Reader<'a> {
    root: &'a Path,
    boot: Boot,
    seen: BTreeSet<PathBuf>,
}

impl Reader<'_> {
    fn at(&self, path: &Path) -> PathBuf {
        below(self.root, path)
    }

    fn file(&mut self, path: &Path, depth: usize) {
        if depth > DEPTH || self.seen.len() >= MAX_FILES {
            self.boot.unread.push(Unread::TooMany(path.to_owned()));
            return;
        }
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        match files::read_up_to(&self.at(path), FILE_BYTES) {
            Ok(bytes) => self.text(path, &String::from_utf8_lossy(&bytes), depth),
            Err(error) => self.boot.unread.push(Unread::File {
                path: path.to_owned(),
                error,
            }),
        }
    }

    fn text(&mut self, path: &Path, text: &str, depth: usize) {
        let tokens = tokens(text);
        let words: Vec<&str> = tokens.iter().map(|token| token.text).collect();
        let place = |at: usize| Place {
            path: path.to_owned(),
            line: tokens[at].line,
        };
        let mut includes = Vec::new();
        for at in 0..words.len() {
            match &words[at..] {
                ["table", "inet", name, ..] if *name == TABLE && !is_removed(&words[..at]) => {
                    self.boot.ours.push(place(at));
                }
                ["flush", "ruleset", ..] => self.boot.flushes.push(place(at)),
                ["xt", "target" | "match", ..] => self.boot.xt.push(place(at)),
                ["include", target, ..] => includes.push(*target),
                _ => {}
            }
        }
        for target in includes {
            self.include(target, depth);
        }
    }

    fn include(&mut self, target: &str, depth: usize) {
        // nft looks for relative names below its own folder of configuration.
        let path = Path::new("/etc").join(target);
        let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
        if !has_wildcard(target) {
            self.file(&path, depth + 1);
            return;
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        if has_wildcard(&folder.to_string_lossy()) {
            self.boot.unread.push(Unread::Folders(target.to_owned()));
            return;
        }
        let entries = fs::read_dir(self.at(&folder)).into_iter().flatten().flatten();
        let mut names: Vec<OsString> = entries
            .take(MAX_ENTRIES)
            .map(|entry| entry.file_name())
            .filter(|entry| matches(name.as_encoded_bytes(), entry.as_encoded_bytes()))
            .collect();
        names.sort();
        for name in names {
            self.file(&folder.join(name), depth + 1);
        }
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether the words before `table` take it away instead of making it.
fn is_removed(before: &[&str]) -> bool {
    matches!(
        before.last(),
        Some(&("delete" | "destroy" | "flush" | "list" | "reset"))
    )
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Words and what stands between quotes, without comments; brackets and semicolons are words of their own.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let (text, after) = match first {
                '#' => break,
                '"' => match rest[1..].split_once('"') {
                    Some((quoted, after)) => (quoted, after),
                    None => (&rest[1..], ""),
                },
                '{' | '}' | ';' => rest.split_at(1),
                _ => rest.split_at(rest.find(ENDS_WORD).unwrap_or(rest.len())),
            };
            found.push(Token { text, line: number });
            rest = after.trim_start();
        }
    }
    found
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether `name` fits a pattern of `*` and `?`; hidden files fit none that does not begin with a dot, as in glob(7).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    // Where the last star stands, and how much of the name it has swallowed.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (p, n) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

const ENDS_WORD: [char; 9] = [' ', '\t', '"', '#', '{', '}', ';', '\r', '\u{b}'];
/// Debian and Arch; Red Hat; Alpine.
const FILES: [&str; 3] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables.nft",
];
/// Where `systemctl enable nftables` puts its link: Debian, others.
const ENABLED: [&str; 2] = [
    "/etc/systemd/system/sysinit.target.wants/nftables.service",
    "/etc/systemd/system/multi-user.target.wants/nftables.service",
];
/// nft's own MAX_INCLUDE_DEPTH.
const DEPTH: usize = 16;
const MAX_FILES: usize = 1000;
const MAX_ENTRIES: usize = 10_000;
/// A list of a million bans has some 40 MB; the table's head comes first.
const FILE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Boot {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = below(root.path(), Path::new(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Boot::read(root.path())
    }

    fn place(path: &str, line: usize) -> Place {
        let path = path.into();
        Place { path, line }
    }

    #[test]
    fn no_file_is_no_fact() {
        let boot = read(&[]);
        assert!(boot.files.is_empty() && boot.ours.is_empty() && boot.unread.is_empty());
    }

    #[test]
    fn our_table_is_found_also_in_what_is_included() {
        let boot = read(&[
            (
                "/etc/nftables.conf",
                "#!/usr/sbin/nft -f\n\nflush ruleset\n# table inet verdictd {\ninclude \"nftables.d/*.nft\"\n\
                 include \"/srv/more.nft\"\ntable inet filter { chain input { comment \"table inet verdictd\" } }\n",
            ),
            ("/etc/nftables.d/b.nft", "table inet verdictd{\n}\n"),
            ("/etc/nftables.d/.hidden.nft", "table inet verdictd {}\n"),
            ("/etc/nftables.d/c.conf", "table inet verdictd {}\n"),
            (
                "/srv/more.nft",
                "\n\tadd table inet verdictd; xt target \"NFQUEUE\"\n",
            ),
            ("/etc/systemd/system/sysinit.target.wants/nftables.service", ""),
        ]);
        assert_eq!(
            boot.ours,
            [place("/etc/nftables.d/b.nft", 1), place("/srv/more.nft", 2)]
        );
        assert_eq!(boot.flushes, [place("/etc/nftables.conf", 3)]);
        assert_eq!(boot.xt, [place("/srv/more.nft", 2)]);
        assert!(boot.enabled && boot.unread.is_empty(), "{boot:?}");
    }

    #[test]
    fn taking_it_away_is_not_making_it() {
        let boot = read(&[(
            "/etc/nftables.conf",
            "delete table inet verdictd\ndestroy table inet verdictd\nflush table inet verdictd\ntable ip verdictd {}\n\
             table inet verdictd2 {}\n",
        )]);
        assert_eq!(boot.ours, []);
        assert_eq!(boot.files, [PathBuf::from("/etc/nftables.conf")]);
    }

    #[test]
    fn circles_and_missing_files_end() {
        let boot = read(&[
            (
                "/etc/nftables.conf",
                "include \"/etc/nftables.conf\"\ninclude \"./a\"\ninclude \"none\"\ninclude \"*/x\"\n",
            ),
            ("/etc/a", "include \"nftables.conf\"\n"),
        ]);
        assert_eq!(boot.unread.len(), 2, "{boot:?}");
    }

    #[test]
    fn hostile_text_does_not_hang() {
        for text in [
            "\"",
            "include",
            "include \"",
            "table",
            "table inet",
            "{{{{;;;;\"\"\"#\0\u{fffd}",
            "flush",
            "xt",
            "include \"/dev/zero\"\ninclude \"/\"\ninclude \"\"\ninclude \"[\"",
            "é\"ü# x",
        ] {
            let boot = read(&[("/etc/nftables.conf", text)]);
            assert_eq!(boot.ours, [], "{text:?}");
        }
    }

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, name, fits) in [
            ("*.nft", "a.nft", true),
            ("*.nft", ".nft", false),
            ("*", "", true),
            ("?.*", "a.", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "a", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }
}
