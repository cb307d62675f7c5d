//! The engine gives up what it does not need, so that a bug in a parser does not open the host to whoever found it.
//!
//! Three walls, each of which stands without the others:
//! - **capabilities**: CAP_NET_ADMIN is kept, whoever started it, and nothing is ever gained again (no_new_privs);
//! - **Landlock**: files and folders that are not on the list cannot be opened, no TCP port be bound, no process outside
//!   be looked into or signalled;
//! - **seccomp**: a list of system calls; no other program, no raw socket, no ptrace, bpf, mount, listen.
//!
//! The first two bind a thread and what it starts, hence [`Confinement::enter`] before the first thread is made; the third
//! binds all threads at once, hence [`Confinement::seal`] when everything is open. What this kernel does not have is
//! said and done without (open, on purpose): a firewall that will not start protects nobody.

mod caps;
mod landlock;
mod places;
mod seccomp;

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::thread::set_no_new_privs;

pub use places::Needs;

/// What holds the engine, and what does not.
#[derive(Debug)]
pub struct Confinement {
    wanted: bool,
    landlock: Result<String, String>,
    capabilities: Result<String, String>,
    seccomp: OnceLock<Result<(), String>>,
    /// Files that were let in one by one: one that takes the place of such a file is not.
    files: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Confinement {
    /// None, as the configuration wants it.
    pub fn off() -> Confinement {
        Confinement {
            wanted: false,
            landlock: Err(String::new()),
            capabilities: Err(String::new()),
            seccomp: OnceLock::new(),
            files: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Confines the calling thread and all that it starts from now on to the files of `needs` and to CAP_NET_ADMIN.
    /// Call it before the first thread is made; what one that is there already could do is not taken from it.
    pub fn enter(needs: &Needs) -> Confinement {
        let alone = match threads() {
            Some(1) => Ok(()),
            count => Err(format!(
                "{} threads ran before it",
                count.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string())
            )),
        };
        let grants = places::grants(needs);
        let (landlock, capabilities) = match alone.and_then(|()| no_new_privs()) {
            Err(why) => (Err(why.clone()), Err(why)),
            // Files first: it asks what can be opened now, by whatever right.
            Ok(()) => (
                landlock::enter(&grants),
                caps::give_up(&needs.write).map_err(|error| error.to_string()),
            ),
        };
        Confinement {
            wanted: true,
            files: if landlock.is_ok() {
                grants.alone
            } else {
                Vec::new()
            },
            landlock,
            capabilities,
            seccomp: OnceLock::new(),
            notes: grants.notes,
        }
    }

    /// Closes the system calls that a running engine does not need, for every thread there is and will be.
    pub fn seal(&self) {
        if self.wanted {
            self.seccomp
                .get_or_init(|| seccomp::apply().map_err(|error| error.to_string()));
        }
    }

    /// What is not as it could be, in words.
    pub fn notes(&self) -> Vec<String> {
        if !self.wanted {
            return Vec::new(); // the configuration's own note says so
        }
        let missing = self.missing();
        let missing = missing
            .into_iter()
            .map(|missing| format!("not confined by {missing}"));
        missing.chain(self.notes.iter().cloned()).collect()
    }

    /// Files that were replaced since the start, and cannot be read any more.
    pub fn lost(&self) -> Vec<String> {
        let lost = self.files.iter().filter(|path| refused(path));
        lost.map(|path| {
            format!(
                "{} was replaced since the start, and the confined engine cannot read it: restart the engine",
                path.display()
            )
        })
        .collect()
    }

    /// Why `path` cannot be read, if confinement is the reason.
    pub fn keeps_from(&self, path: &Path) -> Option<String> {
        (self.landlock.is_ok() && refused(path)).then(|| {
            format!(
                "{} cannot be read: the confined engine reads what the configuration named at its start; restart the engine",
                path.display()
            )
        })
    }

    fn missing(&self) -> Vec<String> {
        let of = |name: &str, why: &String| format!("{name} ({why})");
        let landlock = self.landlock.as_ref().err().map(|why| of("landlock", why));
        let capabilities = self.capabilities.as_ref().err();
        let capabilities = capabilities.map(|why| of("capabilities", why));
        let seccomp = match self.seccomp.get() {
            Some(Ok(())) => None,
            Some(Err(why)) => Some(of("seccomp", why)),
            None => Some("seccomp (not yet)".to_owned()),
        };
        [seccomp, landlock, capabilities].into_iter().flatten().collect()
    }
}

/// `seccomp, landlock (ABI 7), capabilities net_admin`.
impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.wanted {
            return f.write_str("none (engine.confine = false)");
        }
        let seccomp = matches!(self.seccomp.get(), Some(Ok(()))).then(|| "seccomp".to_owned());
        let has = [
            seccomp,
            self.landlock.clone().ok(),
            self.capabilities.clone().ok(),
        ];
        let has: Vec<String> = has.into_iter().flatten().collect();
        match has.as_slice() {
            [] => f.write_str("none")?,
            has => f.write_str(&has.join(", "))?,
        }
        match self.missing().as_slice() {
            [] => Ok(()),
            missing => write!(f, "; missing: {}", missing.join(", ")),
        }
    }
}

fn no_new_privs() -> Result<(), String> {
    set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))
}

/// Threads of this process; `None` where /proc does not tell.
fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// Whether what stands at `path` is there and kept from us.
fn refused(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_and_what_is_missing_is_said_in_one_line() {
        let whole = Confinement {
            wanted: true,
            landlock: Ok("landlock (ABI 7)".into()),
            capabilities: Ok("capabilities net_admin".into()),
            seccomp: OnceLock::from(Ok(())),
            files: Vec::new(),
            notes: Vec::new(),
        };
        assert_eq!(
            whole.to_string(),
            "seccomp, landlock (ABI 7), capabilities net_admin"
        );
        assert_eq!((whole.notes(), whole.lost()), (Vec::new(), Vec::new()));
        let part = Confinement {
            landlock: Err("this kernel has none".into()),
            ..whole
        };
        assert_eq!(
            part.to_string(),
            "seccomp, capabilities net_admin; missing: landlock (this kernel has none)"
        );
        assert_eq!(part.notes(), ["not confined by landlock (this kernel has none)"]);
        assert_eq!(part.keeps_from(Path::new("/nowhere")), None);
        let off = Confinement::off();
        off.seal();
        assert_eq!(off.to_string(), "none (engine.confine = false)");
        assert!(off.notes().is_empty() && off.seccomp.get().is_none());
    }

    /// Tests run on threads of their own, so that this process is never alone; and it must stay as it is.
    #[test]
    fn beside_other_threads_nothing_is_half_done() {
        let before = rustix::thread::no_new_privs().unwrap();
        let confinement = Confinement::enter(&Needs::default());
        let why = "threads ran before it";
        assert!(confinement.landlock.as_ref().unwrap_err().contains(why));
        assert!(confinement.capabilities.as_ref().unwrap_err().contains(why));
        assert_eq!(rustix::thread::no_new_privs().unwrap(), before);
    }
}
