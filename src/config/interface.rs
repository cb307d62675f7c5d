//! The name of a network interface as a rule matches it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An interface, `docker0`, or every one that begins alike, `br-*`. Safe to print into a ruleset between quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName {
    stem: Box<str>,
    wildcard: bool,
}

impl InterfaceName {
    /// The name without a trailing `*`.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// Whether the interface called `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        if self.wildcard {
            name.starts_with(&*self.stem)
        } else {
            name == &*self.stem
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stem, if self.wildcard { "*" } else { "" })
    }
}

/// Why something is not the name of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InterfaceError {
    /// Nothing, or only `*`: every interface of the host would be exempt.
    #[error("names no interface")]
    Empty,
    /// Longer than the kernel's IFNAMSIZ allows.
    #[error("is longer than the 15 bytes of an interface name")]
    TooLong,
    /// The kernel refuses it in a name (`dev_valid_name`), or a ruleset cannot hold it.
    #[error("holds a character that no interface name has")]
    Character,
}

impl FromStr for InterfaceName {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<InterfaceName, InterfaceError> {
        let (stem, wildcard) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
        if stem.is_empty() {
            return Err(InterfaceError::Empty);
        }
        if stem.len() > LONGEST {
            return Err(InterfaceError::TooLong);
        }
        if stem == "." || stem == ".." || !stem.chars().all(allowed) {
            return Err(InterfaceError::Character);
        }
        Ok(InterfaceName {
            stem: stem.into(),
            wildcard,
        })
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '/' | ':' | '*' | '"' | '\'' | '\\')
}

/// IFNAMSIZ (include/uapi/linux/if.h) is 16 with the closing NUL.
const LONGEST: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let bridge: InterfaceName = "br-*".parse().unwrap();
        assert!(bridge.matches("br-0a1b2c") && !bridge.matches("br0"));
        assert_eq!((bridge.stem(), bridge.to_string().as_str()), ("br-", "br-*"));
        let docker: InterfaceName = "docker0".parse().unwrap();
        assert!(docker.matches("docker0") && !docker.matches("docker01"));
    }

    #[test]
    fn what_is_no_name() {
        for (text, error) in [
            ("", InterfaceError::Empty),
            ("*", InterfaceError::Empty),
            ("abcdefghijklmnop", InterfaceError::TooLong),
            ("a b", InterfaceError::Character),
            ("a\"b", InterfaceError::Character),
            ("a*b", InterfaceError::Character),
            ("a\n", InterfaceError::Character),
            ("eth0:1", InterfaceError::Character),
            ("..", InterfaceError::Character),
            ("größe", InterfaceError::Character),
        ] {
            assert_eq!(text.parse::<InterfaceName>(), Err(error), "{text:?}");
        }
    }
}
