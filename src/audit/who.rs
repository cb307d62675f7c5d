//! Who gave an order, for people: the login name of a user number, and who logged in before he became another.
//!
//! Names come from `/etc/passwd` alone: what a directory service would say may take seconds, load foreign code, and
//! change with the network.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

/// Whoever asks, by the kernel's word, and what he is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Who {
    /// User.
    pub uid: u32,
    /// His name, if `/etc/passwd` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Group.
    pub gid: u32,
    /// Process; 0 when it lives in another pid namespace.
    pub pid: i32,
    /// Who logged in, before sudo or su; absent where the kernel does not keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// That user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged_in_as: Option<String>,
}

impl Who {
    /// Asks `/etc/passwd` and `/proc`. The process must still be there: it waits for its answer.
    pub fn of(uid: u32, gid: u32, pid: i32) -> Who {
        let passwd = bounded("/etc/passwd".as_ref()).unwrap_or_default();
        let login_uid = login_uid(pid);
        Who {
            uid,
            login: name_in(&passwd, uid),
            gid,
            pid,
            login_uid,
            logged_in_as: login_uid.and_then(|uid| name_in(&passwd, uid)),
        }
    }
}

/// What audit(8) calls auid: set at login, kept by sudo and su.
fn login_uid(pid: i32) -> Option<u32> {
    let path = format!("/proc/{pid}/loginuid");
    let text = (pid > 0).then(|| bounded(path.as_ref())).flatten()?;
    text.trim().parse().ok().filter(|uid| *uid != UNSET)
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let named = number.parse() == Ok(uid) && !name.is_empty() && name.len() <= LONGEST_NAME;
        named.then(|| name.to_owned())
    })
}

fn bounded(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(LARGEST)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `(uid_t)-1`: nobody logged in, as for what the system started.
const UNSET: u32 = u32::MAX;
/// `/etc/passwd` of ten thousand users is half of it.
const LARGEST: u64 = 1 << 20;
/// As utmp has it, with room.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_called_by_the_first_line_that_has_it() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\n:x:7::\nalice:x:1000:1000::/:\nbob:x:1000:1::/:\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!((name_in(passwd, 7), name_in(passwd, 1)), (None, None));
    }

    #[test]
    fn the_asker_is_named() {
        let me = rustix::process::getuid().as_raw();
        let who = Who::of(me, 0, i32::try_from(std::process::id()).unwrap());
        assert_eq!(who.uid, me);
        assert_eq!(Who::of(0, 0, 0).login.as_deref(), Some("root"));
    }
}
