//! A machine to run documented commands on, word for word: its own network, its own `/etc`, `/var` and `/run`, and the
//! built programs in its own `/usr/bin`.
//!
//! What commands change there goes into memory and is gone with the sandbox.
//! `/run` is empty, so that programs find neither systemd nor somebody's login, whatever machine the tests run on.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::command::{Output, Running};
use crate::common::namespace::Namespace;
use crate::common::{secs, within};
use crate::pages::home;

/// Longer than any documented command takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs first inside: `$1` becomes a file system in memory, `$2` holds the built programs; /etc, /var and /usr/bin are layers over the machine's own.
const SETUP: &str = r#"
set -e
mount -t tmpfs none "$1"
for dir in etc var; do
    mkdir -p "$1/$dir/upper" "$1/$dir/work"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$1/$dir/upper,workdir=$1/$dir/work" "/$dir"
done
mount -t tmpfs none /run
mkdir -p "$1/bin/upper" "$1/bin/work"
mount -t overlay overlay -o "lowerdir=$2:/usr/bin,upperdir=$1/bin/upper,workdir=$1/bin/work" /usr/bin
chmod 755 /usr/bin
mkdir -p "$1/home" /etc/verdictd /var/lib/verdictd /var/log/verdictd /run/verdictd
grep -q '^verdictd:' /etc/group || echo 'verdictd:x:64999:' >> /etc/group
echo ready
exec sleep 86400
"#;

/// One machine.
pub(crate) struct Sandbox {
    ns: Namespace,
    keeper: Child,
    folder: TempDir,
}

impl Sandbox {
    /// One with the configuration that the package installs, and the Python system's own in the working directory.
    pub(crate) fn new() -> Sandbox {
        let ns = Namespace::new("docs");
        let folder = TempDir::with_prefix("verdictd-docs-").unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SETUP, "sh"]);
        command
            .arg(folder.path())
            .arg(Path::new(env!("CARGO_BIN_EXE_verdictd")).parent().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut keeper = ns.inside(|| command.spawn()).expect("unshare, of util-linux");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("it is piped");
        let _ = BufReader::new(stdout).read_line(&mut line);
        let sandbox = Sandbox { ns, keeper, folder };
        assert_eq!(
            line, "ready\n",
            "a mount namespace with layers over /etc and /var"
        );
        let shipped = home("config/verdictd.toml");
        let theirs = home("tests/data/mission_firewall_config.toml");
        let state = home("tests/data/mission_firewall_state.toml");
        sandbox.must(&format!(
            "cp {} /etc/verdictd/verdictd.toml; cp {} firewall_config.toml; cp {} firewall_state.toml",
            shipped.display(),
            theirs.display(),
            state.display()
        ));
        sandbox
    }

    /// `sh` on `line`, in the working directory of the sandbox, where the built programs are in `/usr/bin`.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.keeper.id()))
            .args(["--mount", "--net"]);
        let folder = self.folder.path().join("home");
        let script = format!("cd {} || exit 99\n{line}", folder.display());
        command.args(["sh", "-c", &script]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for variable in ["VERDICTD_SOCKET", "VERDICTD_LOG", "WEBHOOK_SECRET", "LOG_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a line to its end.
    pub(crate) fn run(&self, line: &str) -> Output {
        Running::start(&mut self.shell(line)).finish(LIMIT)
    }

    /// Runs a line as a user without rights.
    pub(crate) fn run_as_nobody(&self, line: &str) -> Output {
        let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        self.run(&format!("{user} {line}"))
    }

    /// Does some work in its network.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.ns.inside(work)
    }

    /// Runs a line that must succeed; gives its standard output.
    pub(crate) fn must(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.code(), 0, "{line}: {}", output.text());
        output.stdout
    }

    /// Runs a line on a terminal, and types `keys` on it.
    pub(crate) fn type_into(&self, line: &str, keys: &str) -> Output {
        let mut command = self.shell(&format!("script -qec '{line}' /dev/null"));
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("script, of bsdutils");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(keys.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a line that serves until it is stopped, and waits until it has said `word`.
    pub(crate) fn serve(&self, line: &str, word: &str) -> Service {
        // Outside it is a folder as any other.
        let said = self.folder.path().join(unique().to_string());
        let file = File::create(&said).unwrap();
        let mut command = self.shell(&format!("exec {line}"));
        command.stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        let mut service = Service {
            child: Some(child),
            said,
        };
        assert!(
            within(secs(20), || service.said().contains(word) || service.is_over()),
            "{line} does not say {word:?}: {}",
            service.said()
        );
        assert!(service.said().contains(word), "{line}: {}", service.said());
        service
    }

    /// The engine with its configuration from where the package has it.
    pub(crate) fn engine(&self) -> Service {
        self.serve("verdictd run", "ready\n")
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, text: &str) {
        self.must(&format!("cat > /etc/verdictd/verdictd.toml <<'END'\n{text}\nEND"));
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        // The namespace ends what still runs inside.
    }
}

/// A program that serves; asked to stop when dropped.
pub(crate) struct Service {
    child: Option<Child>,
    said: PathBuf,
}

impl Service {
    /// All that it printed so far, on both streams.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn is_over(&mut self) -> bool {
        self.child
            .as_mut()
            .is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// SIGTERM; how it ended, and all that it printed.
    pub(crate) fn stop(mut self) -> (i32, String) {
        let status = self.end();
        (status.and_then(|status| status.code()).unwrap_or(-1), self.said())
    }

    fn end(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = kill_process(pid, Signal::CONT);
        let mut status = None;
        within(secs(30), || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        let _ = child.kill();
        let _ = child.wait();
        status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

fn unique() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
