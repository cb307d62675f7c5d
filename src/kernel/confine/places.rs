//! Which files a running engine reads and writes, and why.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

/// What the engine's own options and configuration name.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Folders in which it writes.
    pub write: Vec<PathBuf>,
    /// Files that it reads again, and that may be replaced meanwhile: the folder of each is let in with it.
    pub read: Vec<PathBuf>,
    /// Files and folders of the system that it reads. They may be links, out of the usual places: where each leads now is
    /// let in, and that alone.
    pub follow: Vec<PathBuf>,
}

/// What is let in.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// Files, and folders with all below them.
    pub(super) read: Vec<PathBuf>,
    pub(super) write: Vec<PathBuf>,
    /// Files that are let in without their folder: what replaces one of them is not.
    pub(super) alone: Vec<PathBuf>,
    /// What should be known about it.
    pub(super) notes: Vec<String>,
}

pub(super) fn grants(needs: &Needs) -> Grants {
    let mut grants = Grants {
        read: places(&PLACES),
        write: needs.write.clone(),
        ..Grants::default()
    };
    for folder in needs.write.iter().filter(|folder| is_wide(folder)) {
        grants.notes.push(format!(
            "{} holds more than the engine's own files: all below it can be written",
            folder.display()
        ));
    }
    if geteuid().is_root() {
        // File by file: all of /etc would be open to root, /etc/shadow with it.
        grants.let_in_alone(places(&NAMES));
        grants.read.extend(places(&OF_ETC));
    } else {
        grants.read.push("/etc".into());
    }
    for path in &needs.read {
        grants.let_in_with_folder(path);
    }
    for (variable, is_file) in [("SSL_CERT_FILE", true), ("SSL_CERT_DIR", false)] {
        match std::env::var_os(variable).map(PathBuf::from) {
            Some(path) if is_file => grants.let_in_with_folder(&path),
            Some(path) => grants.read.push(path),
            None => {}
        }
    }
    grants
        .read
        .extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    grants.read.extend(needs.follow.iter().cloned());
    // For the lines of a panic.
    grants.read.extend(std::env::current_exe().ok());
    grants.write.push("/dev/null".into());
    grants
}

impl Grants {
    fn let_in_alone(&mut self, files: Vec<PathBuf>) {
        for file in files {
            self.read.push(file.clone());
            if is_readable(&file) {
                self.alone.push(file);
            }
        }
    }

    /// Where it is named, and where it is if that is a link.
    fn let_in_with_folder(&mut self, path: &Path) {
        let named = std::path::absolute(path).ok();
        let real = fs::canonicalize(path).ok();
        let mut paths: Vec<PathBuf> = named.into_iter().chain(real).collect();
        paths.dedup();
        for path in paths {
            match path.parent() {
                Some(folder) if !is_wide(folder) => self.read.push(folder.to_owned()),
                _ => {
                    self.notes.push(format!(
                        "{} is read alone and not its folder, which holds much else: once it is replaced it can be read \
                         after a restart only; keep it in a folder of its own, as in /etc/verdictd/",
                        path.display()
                    ));
                    self.let_in_alone(vec![path]);
                }
            }
        }
    }
}

/// `/`, `/etc`, `/root`, `/tmp`: folders that belong to nobody alone.
fn is_wide(folder: &Path) -> bool {
    let named = folder
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    named.count() < 2
}

fn is_readable(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok()
}

fn places(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

/// For everybody.
const PLACES: [&str; 20] = [
    // Counters and limits of the network, names and users of processes. What a process keeps to itself is refused:
    // Landlock does not let a domain look into what is outside of it.
    "/proc",
    // How many processors there are: the allocator's arenas, the default of engine.workers.
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    // Logins (utmp, logind), the resolver's files and sockets, credentials of systemd. They come and go.
    "/run",
    // Modules that look up names (NSS).
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/var/lib/sss",
    // Certificates that the system trusts.
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    "/dev/urandom",
];
/// How names are looked up. DHCP clients and editors replace them, which has to be said.
const NAMES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];
/// What else plays a part in that, and what uids are called. Without a newer one nothing worse happens than that a name of
/// a user is missing in the audit log.
const OF_ETC: [&str; 14] = [
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/hostname",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/group",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/cert.pem",
    "/etc/resolvconf",
    "/etc/systemd/resolve",
    "/etc/static",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_with_its_folder_unless_that_holds_much_else() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("verdictd");
        fs::create_dir(&own).unwrap();
        let (file, link) = (folder.path().join("real.toml"), own.join("verdictd.toml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut grants = Grants::default();
        grants.let_in_with_folder(&link);
        assert_eq!(grants.read, [own, folder.path().canonicalize().unwrap()]);
        assert!(grants.alone.is_empty() && grants.notes.is_empty());

        let mut grants = Grants::default();
        grants.let_in_with_folder(Path::new("/etc/hosts"));
        assert_eq!(grants.read, [PathBuf::from("/etc/hosts")]);
        assert_eq!(grants.alone, grants.read);
        assert!(
            grants.notes[0].starts_with("/etc/hosts is read alone"),
            "{:?}",
            grants.notes
        );
    }

    #[test]
    fn a_folder_of_everybody_is_noted_where_it_is_written() {
        for (folder, wide) in [
            ("/", true),
            ("/var", true),
            ("/var/lib", false),
            ("/srv/x/y", false),
        ] {
            assert_eq!(is_wide(Path::new(folder)), wide, "{folder}");
        }
        let needs = |folder: &str| Needs {
            write: vec![folder.into()],
            ..Needs::default()
        };
        assert_eq!(grants(&needs("/var")).notes.len(), 1);
        assert_eq!(grants(&needs("/var/lib/verdictd")).notes.len(), 0);
    }

    #[test]
    fn for_root_etc_is_not_open_as_a_whole() {
        let grants = grants(&Needs::default());
        let etc = PathBuf::from("/etc");
        assert_eq!(grants.read.contains(&etc), !geteuid().is_root());
        assert!(!grants.write.contains(&etc));
        let shadow = Path::new("/etc/shadow");
        assert!(!geteuid().is_root() || grants.read.iter().all(|path| !shadow.starts_with(path)));
    }
}
