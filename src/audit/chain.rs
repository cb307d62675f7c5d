//! The chain: each line holds the SHA-256 of the line before it, newline included, so that
//! `sed -n 5p audit.jsonl | sha256sum` is what the sixth line's `prev` says.
//!
//! The hash is not keyed: whoever may write the log and its head can make up another chain. What stops him is a hash
//! that is kept where he cannot write (docs/audit.md).

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::record::{self, What};
use crate::notify::text::plain_json;

/// A SHA-256, shown in hex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// Of all that `reader` gives, and how many bytes that was.
    ///
    /// # Errors
    /// If it cannot be read to its end.
    pub fn of_all(mut reader: impl Read) -> io::Result<(Hash, u64)> {
        let mut digest = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut bytes = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((Hash(digest.finalize().into()), bytes)),
                Ok(read) => {
                    digest.update(&buffer[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Of nothing anybody could foresee: the `prev` of a first line, by which chains are told apart.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn drawn() -> io::Result<Hash> {
        let mut bytes = [0; 32];
        let given = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        match given == bytes.len() {
            true => Ok(Hash(bytes)),
            false => Err(io::Error::other("the kernel gave too few random bytes")),
        }
    }

    /// 64 small hex digits and nothing else.
    pub fn parse(text: &str) -> Option<Hash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Hash(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The end of a chain: its last line's number and hash. Number 0 is before the first line, and its hash the chain's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Number of the line.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: String,
    #[serde(flatten)]
    what: &'a What,
    prev: String,
}

impl Link {
    /// The line that follows, its newline included; this link is then its own.
    pub fn append(&mut self, what: &What, at: SystemTime) -> String {
        self.skip_to(self.seq + 1, what, at)
    }

    /// As [`Link::append`], with a number that may leave others out.
    pub fn skip_to(&mut self, seq: u64, what: &What, at: SystemTime) -> String {
        let line = Line {
            seq,
            time: record::time_text(at),
            what,
            prev: self.hash.to_string(),
        };
        let text =
            serde_json::to_string(&line).expect("string keys only, no map or number that JSON cannot hold");
        let line = plain_json(&text) + "\n";
        *self = Link {
            seq,
            hash: Hash::of(line.as_bytes()),
        };
        line
    }
}

/// As much as one read of a pipe gives; more is not faster.
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn hashes_survive_their_text() {
        let hash = Hash::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(Hash::parse(text), Some(hash));
        for bad in [&text[1..], &text.to_uppercase(), "", &format!("{text}0")] {
            assert_eq!(Hash::parse(bad), None, "{bad}");
        }
        assert_ne!(Hash::drawn().unwrap(), Hash::drawn().unwrap());
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it_and_holds_the_hash_before() {
        let mut link = Link {
            seq: 6,
            hash: Hash::of(b"before"),
        };
        let before = link.hash;
        let what = What::Stop {
            why: "a\n\"b\"\u{202e}\u{1b}".into(),
        };
        let line = link.append(&what, UNIX_EPOCH + Duration::from_millis(1_500));
        assert_eq!(
            line,
            format!(
                "{{\"seq\":7,\"time\":\"1970-01-01T00:00:01.500Z\",\"kind\":\"stop\",\
                 \"why\":\"a\\n\\\"b\\\"\\u202e\\u001b\",\"prev\":\"{before}\"}}\n"
            )
        );
        assert_eq!(
            link,
            Link {
                seq: 7,
                hash: Hash::of(line.as_bytes())
            }
        );
    }
}
