//! The manifest as text, in the format of sha256sum(1).
//!
//! ```text
//! #: verdictd-integrity 1
//! # Made by verdictctl harden. …
//! #: binary 0755 0:0 13656144
//! 12ab…  /usr/bin/verdictd
//! #: secret 0640 0:998 - /etc/verdictd/soc.secret
//! ```
//! What sha256sum does not know stands in lines that it takes for comments, so `sha256sum -c --strict` passes: before a
//! file its kind, mode, owner and size; whole lines of files whose content is not sealed. A manifest that sha256sum
//! itself wrote is read too: then a file must belong to root, and nobody else may write it.
//!
//! Whatever the bytes are, reading them ends in a manifest or in an error with its line. One that allows what no seal
//! would (another owner than root, a mode that lets others write) is refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::manifest::{About, Dress, Entry, Manifest, SyntaxError};
use crate::audit::chain::Hash;

impl Manifest {
    /// Reads the text of one; total over any bytes.
    ///
    /// # Errors
    /// With the first line that no manifest has.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, SyntaxError> {
        let mut reader = Reader::default();
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let read = reader.line(at, line);
            read.map_err(|wrong| SyntaxError { line: at + 1, wrong })?;
        }
        reader.finish(text.split(|byte| *byte == b'\n').count())
    }

    /// The text that [`Manifest::parse`] reads.
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n{READERS}\n").into_bytes();
        for entry in &self.entries {
            entry.append(&mut text);
        }
        text
    }
}

impl Entry {
    fn append(&self, text: &mut Vec<u8>) {
        let (escaped, name) = escape(self.path.as_os_str().as_bytes());
        if let Some(About { kind, dress, size }) = self.about {
            let Dress { uid, gid, mode } = dress;
            let size = size.map_or_else(|| "-".into(), |size| size.to_string());
            text.extend(format!("#: {kind} {mode:04o} {uid}:{gid} {size}").into_bytes());
            if self.hash.is_none() {
                text.push(b' ');
                text.extend(escaped);
                text.extend(&name);
            }
            text.push(b'\n');
        }
        if let Some(hash) = self.hash {
            text.extend(escaped);
            text.extend(format!("{hash}  ").into_bytes());
            text.extend(name);
            text.push(b'\n');
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    complete: bool,
    entries: Vec<Entry>,
    known: BTreeSet<PathBuf>,
    /// Said of the file in the next line.
    about: Option<About>,
}

impl Reader {
    fn line(&mut self, at: usize, line: &[u8]) -> Result<(), String> {
        match line.strip_prefix(b"#:") {
            Some(_) if at == 0 => {
                self.complete = line == HEADER.as_bytes();
                let wrong = || format!("{} is another version, {HEADER:?} would be right", shown(line));
                self.complete.then_some(()).ok_or_else(wrong)
            }
            _ if self.about.is_some() => self.hashed(line),
            Some(about) => self.about(about),
            None if line.starts_with(b"#") => Ok(()),
            None => self.hashed(line),
        }
    }

    fn about(&mut self, line: &[u8]) -> Result<(), String> {
        let mut words = line
            .strip_prefix(b" ")
            .unwrap_or(line)
            .splitn(5, |byte| *byte == b' ');
        let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        let (kind, mode, owner, size) = (word(), word(), word(), word());
        let about = about_of(kind, mode, owner, size);
        let about = about.ok_or_else(|| format!("{} is not \"KIND MODE UID:GID SIZE\"", shown(line)))?;
        if let Some(why) = about.dress.too_open() {
            return Err(why);
        }
        match (about.kind.is_hashed(), words.next()) {
            (true, None) if about.size.is_some() => self.about = Some(about),
            (false, Some(name)) if about.size.is_none() => {
                let path = match name.strip_prefix(b"\\") {
                    Some(name) => unescape(name)?,
                    None => name.to_owned(),
                };
                self.entry(path, Some(about), None)?;
            }
            _ => return Err(format!("{} is not what is said of a {}", shown(line), about.kind)),
        }
        Ok(())
    }

    /// `HASH  NAME`, or `\HASH  NAME` with an escaped name; `*` for the second space means the same here.
    fn hashed(&mut self, line: &[u8]) -> Result<(), String> {
        let wrong = || {
            format!(
                "{} is not 64 small hex digits, two spaces and a path",
                shown(line)
            )
        };
        let (escaped, rest) = match line.strip_prefix(b"\\") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (hash, name) = rest.split_at_checked(64).ok_or_else(wrong)?;
        let hash = std::str::from_utf8(hash).ok().and_then(Hash::parse);
        let name = name.strip_prefix(b"  ").or_else(|| name.strip_prefix(b" *"));
        let (hash, name) = hash.zip(name).ok_or_else(wrong)?;
        let path = if escaped { unescape(name)? } else { name.to_owned() };
        let about = self.about.take();
        self.entry(path, about, Some(hash))
    }

    fn entry(&mut self, path: Vec<u8>, about: Option<About>, hash: Option<Hash>) -> Result<(), String> {
        let path = plain_path(path)?;
        if !self.known.insert(path.clone()) {
            return Err(format!("{path:?} stands there twice"));
        }
        if self.entries.len() == MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} files"));
        }
        self.entries.push(Entry { path, about, hash });
        Ok(())
    }

    fn finish(self, lines: usize) -> Result<Manifest, SyntaxError> {
        let wrong = match (&self.about, self.entries.iter().any(|entry| entry.hash.is_some())) {
            (Some(_), _) => "the file that this is said of does not follow",
            (None, false) => "it ends, and holds no file",
            (None, true) => {
                return Ok(Manifest {
                    path: PathBuf::new(),
                    root: "/".into(),
                    complete: self.complete,
                    entries: self.entries,
                });
            }
        };
        Err(SyntaxError {
            line: lines,
            wrong: wrong.into(),
        })
    }
}

impl Dress {
    /// Why no seal would say so.
    fn too_open(self) -> Option<String> {
        let Dress { uid, mode, .. } = self;
        if uid != 0 {
            return Some(format!("owner {uid} is not root (0)"));
        }
        let open = mode & 0o7022 != 0 || mode > 0o7777;
        open.then(|| format!("mode {mode:04o} lets others write, 0755, 0644 or 0640 would be right"))
    }
}

fn about_of(
    kind: Option<&str>,
    mode: Option<&str>,
    owner: Option<&str>,
    size: Option<&str>,
) -> Option<About> {
    let (uid, gid) = owner?.split_once(':')?;
    let size = match size? {
        "-" => None,
        size => Some(decimal(size)?),
    };
    let octal = mode.filter(|mode| mode.len() == 4 && mode.bytes().all(|byte| byte.is_ascii_digit()));
    Some(About {
        kind: kind?.parse().ok()?,
        dress: Dress {
            uid: decimal(uid)?.try_into().ok()?,
            gid: decimal(gid)?.try_into().ok()?,
            mode: u32::from_str_radix(octal?, 8).ok()?,
        },
        size,
    })
}

/// Digits alone: no sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A path that means one place: from the top, without a way back.
fn plain_path(bytes: Vec<u8>) -> Result<PathBuf, String> {
    let said = shown(&bytes);
    let parts = || bytes.split(|byte| *byte == b'/').skip(1);
    let odd = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
    if bytes.first() != Some(&b'/') || bytes.len() > LONGEST_PATH || bytes.contains(&0) {
        return Err(format!("{said} is not an absolute path"));
    }
    if parts().any(odd) {
        return Err(format!(
            "the path {said} goes round about: write it without \".\", \"..\" and \"//\""
        ));
    }
    Ok(OsString::from_vec(bytes).into())
}

/// As sha256sum does: what says that a name is escaped, and the name.
fn escape(name: &[u8]) -> (&'static [u8], Vec<u8>) {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            other => escaped.push(*other),
        }
    }
    let mark: &[u8] = if escaped.len() == name.len() { b"" } else { b"\\" };
    (mark, escaped)
}

fn unescape(name: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                _ => return Err(format!("{} holds a backslash that says nothing", shown(name))),
            },
            other => *other,
        });
    }
    Ok(plain)
}

/// Somebody else's bytes, for a message: quoted and not long.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut quoted = String::new();
    // Writing to a String cannot fail.
    let _ = write!(quoted, "{:?}", text.chars().take(MOST_SHOWN).collect::<String>());
    if text.chars().nth(MOST_SHOWN).is_some() {
        quoted.push('…');
    }
    quoted
}

const HEADER: &str = "#: verdictd-integrity 1";
const READERS: &str =
    "# Made by verdictctl harden; verdictctl verify checks all of it, sha256sum -c --strict the contents.";
/// Some ten are usual: three programs, units with their drop-ins, a config and its secrets.
const MOST_ENTRIES: usize = 4_096;
/// PATH_MAX.
const LONGEST_PATH: usize = 4_095;
const MOST_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::files::Kind;
    use super::*;

    const SUM: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

    fn wrong(text: &str) -> SyntaxError {
        Manifest::parse(text.as_bytes()).unwrap_err()
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let name = proptest::collection::vec(
            any::<u8>().prop_filter("one part", |byte| ![0, b'/'].contains(byte)),
            1..9,
        );
        let name = name.prop_filter("a name", |name| name != b"." && name != b"..");
        let kind = (0..7usize).prop_map(|at| {
            ["binary", "unit", "loader", "config", "nft", "secret", "folder"][at]
                .parse::<Kind>()
                .unwrap()
        });
        let entry = (name, kind, any::<u32>(), any::<u64>(), any::<[u8; 4]>()).prop_map(
            |(name, kind, gid, size, of)| {
                let hashed = kind.is_hashed();
                let mut path = b"/".to_vec();
                path.extend(name);
                Entry {
                    path: PathBuf::from(OsString::from_vec(path)),
                    about: Some(About {
                        kind,
                        dress: Dress {
                            uid: 0,
                            gid,
                            mode: 0o640,
                        },
                        size: hashed.then_some(size),
                    }),
                    hash: hashed.then(|| Hash::of(&of)),
                }
            },
        );
        proptest::collection::vec(entry, 1..20).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            entries.dedup_by(|a, b| a.path == b.path);
            entries
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(entries in entries()) {
            let manifest = Manifest { path: PathBuf::new(), root: "/".into(), complete: true, entries };
            let text = manifest.text();
            match manifest.entries.iter().any(|entry| entry.hash.is_some()) {
                true => prop_assert_eq!(Manifest::parse(&text).unwrap(), manifest),
                false => prop_assert!(Manifest::parse(&text).is_err()),
            }
        }

        #[test]
        fn any_bytes_end_in_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(manifest) = Manifest::parse(&bytes) {
                prop_assert!(manifest.files().all(|path| path.is_absolute()));
            }
        }

        #[test]
        fn a_spoiled_manifest_too(entries in entries(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let manifest = Manifest { path: PathBuf::new(), root: "/".into(), complete: true, entries };
            let mut text = manifest.text();
            let at = at.index(text.len());
            text[at] = byte;
            text.truncate(cut.index(text.len()) + 1);
            let _ = Manifest::parse(&text);
        }
    }

    #[test]
    fn one_by_sha256sum_is_read_with_names_as_it_escapes_them() {
        let text =
            format!("{SUM}  /usr/bin/x y\n{SUM} */b\n\\{SUM}  /b\\\\c\\nd\\re\n# a word\n{SUM}  /c\\d");
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let files: Vec<&Path> = manifest.files().collect();
        assert_eq!(
            files,
            ["/usr/bin/x y", "/b", "/b\\c\nd\re", "/c\\d"].map(Path::new)
        );
        assert!(!manifest.complete && manifest.entries[0].about.is_none());
    }

    #[test]
    fn what_no_seal_says_is_refused_with_its_line() {
        let about = |words: &str| format!("#: verdictd-integrity 1\n#: {words}\n{SUM}  /a\n");
        for (text, line, says) in [
            (String::new(), 1, "64 small hex digits"),
            ("# nothing\n".into(), 1, "holds no file"),
            ("garbage\n".into(), 1, "\"garbage\""),
            (format!("{SUM}  /a\n\n"), 2, "64 small hex digits"),
            (format!("{SUM}  /a\n{SUM}  /a\n"), 2, "twice"),
            (format!("{SUM}  a\n"), 1, "not an absolute path"),
            (format!("{SUM}  /usr/../etc/shadow\n"), 1, "goes round about"),
            (format!("{SUM}  /usr//x\n"), 1, "goes round about"),
            (format!("{SUM}  /\n"), 1, "goes round about"),
            (format!("{SUM}  /a\0b\n"), 1, "not an absolute path"),
            (format!("\\{SUM}  /a\\b\n"), 1, "says nothing"),
            (format!("{}  /a\n", SUM.to_uppercase()), 1, "small"),
            (
                format!("#: verdictd-integrity 2\n{SUM}  /a\n"),
                1,
                "another version",
            ),
            (about("binary 0777 0:0 1"), 2, "lets others write"),
            (about("binary 4755 0:0 1"), 2, "lets others write"),
            (about("binary 0755 1:0 1"), 2, "not root"),
            (about("binary 0755 0:0 -"), 2, "said of a binary"),
            (about("binary 0755 0:0 1 /b"), 2, "said of a binary"),
            (about("secret 0640 0:0 -"), 2, "said of a secret"),
            (about("binary +755 0:0 1"), 2, "KIND MODE"),
            (about("binary 0755 0 1"), 2, "KIND MODE"),
            (about("virus 0755 0:0 1"), 2, "KIND MODE"),
            (
                "#: verdictd-integrity 1\n#: binary 0755 0:0 1".into(),
                2,
                "does not follow",
            ),
        ] {
            let wrong = wrong(&text);
            assert_eq!(wrong.line, line, "{text}: {wrong}");
            assert!(wrong.wrong.contains(says), "{text}: {wrong}");
        }
    }

    #[test]
    fn a_message_is_short_and_acts_on_nobody() {
        let said = wrong(&"\x1b[2J".repeat(1_000)).to_string();
        assert!(said.len() < 1_000 && !said.contains('\x1b'), "{said}");
    }
}
