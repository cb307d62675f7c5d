//! Names of users and groups, from the `passwd` and `group` of the root that is looked at: those of an image are not
//! this host's.

use std::io::Read;
use std::path::Path;

use super::root::Root;

/// What `/etc/passwd` and `/etc/group` say.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32)>,
}

impl Accounts {
    /// A file that cannot be read names nobody.
    pub(super) fn read(root: &Root) -> Accounts {
        let pairs = |path: &str| pairs(&text(root, Path::new(path)).unwrap_or_default());
        Accounts {
            users: pairs("/etc/passwd"),
            groups: pairs("/etc/group"),
        }
    }

    pub(super) fn user(&self, name: &str) -> Option<u32> {
        number(&self.users, name)
    }

    pub(super) fn group(&self, name: &str) -> Option<u32> {
        number(&self.groups, name)
    }

    /// `root:verdictd`; a number where there is no name.
    pub(super) fn pair(&self, uid: u32, gid: u32) -> String {
        format!("{}:{}", name(&self.users, uid), name(&self.groups, gid))
    }
}

/// Both files have the name first and the number third.
fn pairs(text: &str) -> Vec<(String, u32)> {
    let pair = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let number = number.parse().ok()?;
        (!name.is_empty()).then(|| (name.to_owned(), number))
    };
    text.lines().filter_map(pair).collect()
}

fn number(pairs: &[(String, u32)], name: &str) -> Option<u32> {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map(|(_, number)| *number)
}

fn name(pairs: &[(String, u32)], number: u32) -> String {
    let found = pairs.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| number.to_string(), |(name, _)| name.clone())
}

fn text(root: &Root, path: &Path) -> Option<String> {
    let (file, _) = root.file(path).ok()?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ten thousand users are half of it.
const LARGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_find_each_other() {
        let accounts = Accounts {
            users: pairs("root:x:0:0::/root:/bin/sh\nbroken\n:x:4:\nverdictd:x:998:997::/:/bin/false\n"),
            groups: pairs("root:x:0:\nverdictd:x:997:\nodd:x:minus:\n"),
        };
        assert_eq!(
            (accounts.user("verdictd"), accounts.group("verdictd")),
            (Some(998), Some(997))
        );
        assert_eq!((accounts.user(""), accounts.group("odd")), (None, None));
        assert_eq!(accounts.pair(0, 997), "root:verdictd");
        assert_eq!(accounts.pair(7, 8), "7:8");
    }
}
