//! A real sshd and its clients, and what a host records of logins: all in a /run of the test's own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::command::{Output, Running, run};
use super::flow::connect;
use super::namespace::Namespace;
use super::{secs, within};

/// A record of utmp (glibc's bits/utmp.h).
const RECORD: usize = if cfg!(target_arch = "aarch64") { 400 } else { 384 };
const BOOT_TIME: u8 = 2;
const USER_PROCESS: u8 = 7;

/// What programs of a test find in /run and /etc: a utmp, a resolv.conf of a network manager, users.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    /// With a utmp that knows of nobody yet, as after a boot.
    pub(crate) fn new() -> Files {
        let directory = TempDir::with_prefix("verdictd-test-").expect("a temporary directory");
        allow(directory.path(), 0o755); // an engine without privileges reads them too
        let files = Files { directory };
        files.write_logins(&[]);
        files.write_resolvers(&[]);
        files
    }

    /// As a host that records no logins at all.
    pub(crate) fn without_utmp() -> Files {
        let files = Files::new();
        fs::remove_file(files.path("utmp")).expect("a file of ours");
        files
    }

    /// These are logged in: from where, and the process that let them in.
    pub(crate) fn write_logins(&self, logins: &[(&str, u32)]) {
        let mut utmp = vec![0; RECORD];
        utmp[0] = BOOT_TIME;
        for (host, pid) in logins {
            let mut record = vec![0; RECORD];
            record[0] = USER_PROCESS;
            record[4..8].copy_from_slice(&pid.to_ne_bytes());
            record[8..13].copy_from_slice(b"pts/0");
            record[76..76 + host.len()].copy_from_slice(host.as_bytes());
            utmp.extend(record);
        }
        fs::write(self.path("utmp"), utmp).expect("a file of ours");
    }

    /// The network manager's resolvers.
    pub(crate) fn write_resolvers(&self, resolvers: &[&str]) {
        let lines: String = resolvers
            .iter()
            .map(|addr| format!("nameserver {addr}\n"))
            .collect();
        fs::write(self.path("resolv.conf"), lines).expect("a file of ours");
    }

    /// `command` among these files.
    pub(crate) fn wrap(&self, command: &mut Command) {
        let mut wrapped = Command::new("unshare");
        wrapped
            .args(["--mount", "sh", "-ec"])
            .arg(
                "mount -t tmpfs none /run; mkdir -p /run/sshd /run/NetworkManager; \
                 ln -s \"$0/utmp\" /run/utmp; ln -s \"$0/resolv.conf\" /run/NetworkManager/no-stub-resolv.conf; \
                 if [ -e \"$0/passwd\" ]; then mount --bind \"$0/passwd\" /etc/passwd; fi; exec \"$@\"",
            )
            .arg(self.directory.path())
            .arg(command.get_program())
            .args(command.get_args());
        *command = wrapped;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A process of root that is called sshd and does nothing: for records to name.
pub(crate) struct Pretender {
    child: Child,
    _directory: TempDir,
}

impl Pretender {
    /// Called `name`.
    pub(crate) fn called(name: &str) -> Pretender {
        let directory = TempDir::with_prefix("verdictd-test-").expect("a temporary directory");
        let path = directory.path().join(name);
        fs::copy("/bin/sleep", &path).expect("sleep is there");
        let child = Command::new(path).arg("600").spawn().expect("a copy of sleep");
        Pretender {
            child,
            _directory: directory,
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Pretender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// OpenSSH's server on port 22, which lets in root and [`Sshd::USER`] by one key.
pub(crate) struct Sshd {
    directory: TempDir,
    _running: Running,
}

impl Sshd {
    /// An ordinary user of the host.
    pub(crate) const USER: &str = "vd-admin";

    /// Starts it in `ns` among `files`, and waits until it listens.
    pub(crate) fn start(ns: &Namespace, files: &Files) -> Sshd {
        let directory = TempDir::with_prefix("verdictd-test-").expect("a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]);
            assert!(run(&mut keygen, secs(20)).status.success(), "ssh-keygen");
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("every host has users");
        let user = format!("{passwd}{}:x:64242:64242::/:/bin/sh\n", Sshd::USER);
        fs::write(files.path("passwd"), user).expect("a file of ours");
        let config = format!(
            "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin yes\n",
            at("host"),
            at("authorized"),
        );
        fs::copy(at("key.pub"), at("authorized")).expect("a key of ours");
        fs::write(at("config"), config).expect("a file of ours");
        // The user reads his authorized keys himself.
        allow(directory.path(), 0o755);
        allow(Path::new(&at("authorized")), 0o644);
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &at("config")]);
        files.wrap(&mut command);
        let running = ns.start(&mut command);
        let mut held = None;
        let up = within(secs(10), || {
            held = ns.inside(|| TcpStream::connect("127.0.0.1:22").ok());
            held.is_some()
        });
        assert!(up, "sshd does not listen: {}", running.finish(secs(1)).text());
        Sshd {
            directory,
            _running: running,
        }
    }

    /// Logs `user` in from `ns` with a terminal; the session lasts until it is dropped.
    pub(crate) fn login(&self, ns: &Namespace, user: &str, host: &str) -> Running {
        let session = ns.start(&mut self.client(user, host, "echo in; sleep 600"));
        assert!(self.lets_in(ns, user, host), "{user} is not let in");
        session
    }

    /// Whether `user` is let in from `ns`.
    pub(crate) fn lets_in(&self, ns: &Namespace, user: &str, host: &str) -> bool {
        let output = ns.run(&mut self.client(user, host, "echo in"), secs(20));
        output.stdout.contains("in")
    }

    /// Has `user` run `what` from `ns`, over a connection with these options besides the usual ones.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn does(
        &self,
        ns: &Namespace,
        user: &str,
        host: &str,
        options: &[&str],
        what: &str,
    ) -> Output {
        ns.run(&mut self.client_with(user, host, options, what), secs(60))
    }

    fn client(&self, user: &str, host: &str, what: &str) -> Command {
        self.client_with(user, host, &[], what)
    }

    fn client_with(&self, user: &str, host: &str, options: &[&str], what: &str) -> Command {
        let mut client = Command::new("ssh");
        client
            .args(options)
            .args([
                "-tt",
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "BatchMode=yes",
            ])
            .args([
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "ConnectTimeout=5",
                "-i",
            ])
            .arg(self.directory.path().join("key"))
            .arg(format!("{user}@{host}"))
            .arg(what);
        client
    }
}

/// Connections to `host`'s sshd that say nothing: what a scanner who wants to look busy holds.
pub(crate) fn idle_connections(ns: &Namespace, host: &str, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| connect(ns, host, 22).expect("sshd listens"))
        .collect()
}

fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a path of ours");
}
