//! The built engine inside a namespace: started, asked, stopped, killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::command::{Output, run};
use super::namespace::Namespace;
use super::watch::set_elements;
use super::{secs, within};

/// A debug build under strace or libfaketime, beside three other tests on two cores.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Firewall mode, three ports open, 7 distinct ports tolerated, the standard ladder.
pub(crate) const FIREWALL: &str = r#"
[firewall]
mode = "standard"
firewall_mode = "firewall"
[allowed_ports]
tcp = [22, 80, 443]
[bans]
enforce = true
"#;

/// As [`FIREWALL`], and each refusal is told.
pub(crate) const CORPORATE: &str = r#"
[firewall]
mode = "standard"
firewall_mode = "corporate"
[allowed_ports]
tcp = [22, 80, 443]
[bans]
enforce = true
"#;

/// The mission's default: every port open, scanners banned.
pub(crate) const DETECTION: &str = r#"
[firewall]
mode = "standard"
firewall_mode = "detection_only"
[bans]
enforce = true
"#;

/// Nothing is dropped, offenders are only recorded.
pub(crate) const OBSERVING: &str = r#"
[firewall]
mode = "standard"
firewall_mode = "detection_only"
[bans]
enforce = false
"#;

/// `base` with the ladder that the custom preset allows to set.
pub(crate) fn with_ladder(base: &str, steps: &[&str]) -> String {
    let base = base.replace("mode = \"standard\"", "mode = \"custom\"");
    format!("{base}\n[custom]\nunique_ports_threshold = 7\nblock_durations = {steps:?}\n")
}

/// Where one engine keeps its files; outlives the engine, so that the next one can start from them.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// An empty one with this configuration.
    pub(crate) fn new(config: &str) -> Home {
        Home::below(&std::env::temp_dir(), config)
    }

    /// The same in a folder of `parent`.
    pub(crate) fn below(parent: &Path, config: &str) -> Home {
        let directory = TempDir::with_prefix_in("verdictd-test-", parent).expect("a directory of ours");
        let home = Home { directory };
        for part in ["state", "run", "logs"] {
            fs::create_dir(home.path().join(part)).expect("a directory of ours");
        }
        home.write_config(config);
        home
    }

    /// As [`Home::new`], for an engine that runs as any user: with a copy of the program in it, where it can be read.
    pub(crate) fn for_anybody(config: &str) -> Home {
        let home = Home::new(config);
        // By another process: what any thread of this one starts meanwhile would hold the copy open for writing, and a
        // program that somebody writes to cannot be started.
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_verdictd"))
            .arg(home.path().join("verdictd"));
        assert!(run(&mut copy, secs(20)).status.success(), "room for a copy");
        for part in ["", "state", "run", "logs"] {
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(home.path().join(part), mode).expect("a directory of ours");
        }
        home
    }

    /// Replaces the configuration.
    pub(crate) fn write_config(&self, config: &str) {
        fs::write(self.config(), config).expect("a file of ours");
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("verdictd.toml")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("run/control.sock")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The log directory, where the audit log is.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path().join("logs")
    }

    /// Everything that engines here logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command line that starts an engine here.
    pub(crate) fn command(&self) -> Command {
        let copy = Some(self.path().join("verdictd")).filter(|copy| copy.exists());
        let program = copy.unwrap_or_else(|| env!("CARGO_BIN_EXE_verdictd").into());
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(self.config());
        command
            .arg("--state-dir")
            .arg(self.state())
            .arg("--runtime-dir")
            .arg(self.path().join("run"))
            .arg("--log-dir")
            .arg(self.logs());
        command
    }

    /// Starts `command`, whose errors go to the log here; the lines that it prints.
    pub(crate) fn launch(&self, ns: &Namespace, command: &mut Command) -> (Child, Receiver<String>) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join("log"))
            .expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = ns.inside(|| command.spawn()).expect("the built engine starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Reads on when nobody listens, so that the engine never blocks on its own output.
            stdout
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.send(line)));
        });
        (child, lines)
    }

    /// `verdictctl` against the engine here.
    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        run(command.arg("--socket").arg(self.socket()).args(args), secs(10))
    }
}

/// A running engine; asked to stop when dropped.
pub(crate) struct Engine<'a> {
    ns: &'a Namespace,
    home: Home,
    child: Option<Child>,
    lines: Receiver<String>,
}

impl<'a> Engine<'a> {
    /// Starts one with this configuration and waits until it is ready.
    pub(crate) fn start(ns: &'a Namespace, config: &str) -> Engine<'a> {
        Engine::start_in(ns, Home::new(config), &[])
    }

    /// Starts one from an existing home.
    pub(crate) fn start_in(ns: &'a Namespace, home: Home, args: &[&str]) -> Engine<'a> {
        Engine::start_by(ns, home, |command| {
            command.args(args);
        })
    }

    /// Starts one from an existing home by another command line, made of the usual one.
    pub(crate) fn start_by(ns: &'a Namespace, home: Home, change: impl FnOnce(&mut Command)) -> Engine<'a> {
        let mut engine = Engine::spawn(ns, home, change);
        if let Err(why) = engine.wait_ready() {
            panic!("the engine {why}\n{}", engine.log());
        }
        engine
    }

    /// Starts one that must give up before it is ready; tells how it ended and what it said.
    pub(crate) fn refuse(ns: &Namespace, home: &Home) -> Output {
        ns.run(&mut home.command(), START_LIMIT)
    }

    /// Starts one and does not wait for it.
    pub(crate) fn spawn(ns: &'a Namespace, home: Home, change: impl FnOnce(&mut Command)) -> Engine<'a> {
        let mut command = home.command();
        change(&mut command);
        let (child, lines) = home.launch(ns, &mut command);
        Engine {
            ns,
            home,
            child: Some(child),
            lines,
        }
    }

    /// Waits until one that was only spawned is ready.
    pub(crate) fn wait_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + START_LIMIT;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.trim() == "ready" => return Ok(()),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(format!("was not ready after {START_LIMIT:?}"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("ended before it was ready".into()),
            }
        }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        format!("--- engine's log ---\n{}--- end ---", self.home.log())
    }

    /// Where it keeps its files.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Whether its process still runs.
    pub(crate) fn alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `verdictctl`, whatever it answers.
    pub(crate) fn ctl(&self, args: &[&str]) -> Output {
        self.home.ctl(args)
    }

    /// `verdictctl`, which must succeed.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert_eq!(
            output.code(),
            0,
            "verdictctl {}: {}\n{}",
            args.join(" "),
            output.text(),
            self.log()
        );
        output.stdout
    }

    /// What a reading verb answers as JSON. `status` may say degraded (4): the answer counts.
    pub(crate) fn json(&self, verb: &str) -> Value {
        let output = self.ctl(&[verb, "--json"]);
        let why = || format!("verdictctl {verb} --json: {}\n{}", output.text(), self.log());
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", why()))
    }

    /// The bans it lists, would-be bans included.
    pub(crate) fn bans(&self) -> Vec<Value> {
        self.json("list")
            .as_array()
            .cloned()
            .expect("list --json is an array")
    }

    /// The ban of `source`, if it is listed.
    pub(crate) fn ban_of(&self, source: &str) -> Option<Value> {
        self.bans().into_iter().find(|ban| ban["source"] == source)
    }

    /// Waits until `source` is listed as banned; gives the ban.
    pub(crate) fn wait_ban(&self, source: &str) -> Value {
        let mut found = None;
        within(secs(3), || {
            found = self.ban_of(source);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("{source} is not banned: {:?}\n{}", self.bans(), self.log()))
    }

    /// Waits until `source` is no longer listed; says whether that came within `limit`.
    pub(crate) fn wait_free(&self, source: &str, limit: Duration) -> bool {
        within(limit, || self.ban_of(source).is_none())
    }

    /// The kernel's own set of bans, as nft lists it.
    pub(crate) fn kernel_bans(&self, set: &str) -> Vec<String> {
        set_elements(self.ns, "verdictd", set)
    }

    /// Our table as nft lists it, without what counts or runs off.
    pub(crate) fn table(&self) -> String {
        table(self.ns)
    }

    /// Asks the process for something by a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let child = self.child.as_ref().expect("a running engine");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number")).expect("not zero");
        kill_process(pid, signal).expect("a child of ours");
    }

    /// SIGKILL: what a crash or the OOM killer does. Its files stay.
    pub(crate) fn kill9(mut self) -> Home {
        self.signal(Signal::KILL);
        self.reap(STOP_LIMIT).expect("SIGKILL ends every process");
        self.take_home()
    }

    /// Waits until it ends by itself, which it must; its files, and how it ended.
    #[allow(dead_code, reason = "not every test program lets an engine die")]
    pub(crate) fn ended(mut self, limit: Duration) -> (Home, ExitStatus) {
        let end = Instant::now() + limit;
        while self.alive() {
            assert!(Instant::now() < end, "it goes on\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
        let status = self.reap(limit).expect("it has ended");
        (self.take_home(), status)
    }

    /// SIGTERM, which must end it with exit code 0. Its files stay.
    pub(crate) fn stop(mut self) -> Home {
        self.signal(Signal::TERM);
        let status = self
            .reap(STOP_LIMIT)
            .unwrap_or_else(|| panic!("did not stop on SIGTERM\n{}", self.log()));
        assert!(status.success(), "ended with {status}\n{}", self.log());
        self.take_home()
    }

    fn take_home(mut self) -> Home {
        std::mem::replace(&mut self.home, Home::new(""))
    }

    fn reap(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let mut status = None;
        if !within(limit, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        }) {
            let _ = child.kill();
            let _ = child.wait();
        }
        status
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        self.signal(Signal::TERM);
        let status = self.reap(STOP_LIMIT);
        if thread::panicking() {
            eprintln!("{}", self.log());
        } else if !status.is_some_and(|status| status.success()) {
            panic!("the engine did not end well: {status:?}\n{}", self.log());
        }
    }
}

/// The table `inet verdictd` of a namespace without counters, timeouts that run off, handles, and which workers beat.
pub(crate) fn table(ns: &Namespace) -> String {
    let listing = ns.nft_list(&["-s", "list", "table", "inet", "verdictd"]);
    let lines = listing.lines().filter(|line| !is_beat(line));
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Whether a line of a listing tells of elements of the set of workers that beat: they come and go.
pub(crate) fn is_beat(line: &str) -> bool {
    let line = line.trim_start();
    line.strip_prefix("elements = { ")
        .unwrap_or(line)
        .starts_with("0x7664")
}

/// `command` as nobody, with CAP_NET_ADMIN alone and these groups, as setpriv has them; its environment is not taken over.
pub(crate) fn unprivileged(command: &Command, groups: &[&str]) -> Command {
    const ONE: &str = "-all,+net_admin";
    let mut bare = Command::new("setpriv");
    bare.args(["--reuid", "65534", "--regid", "65534"]).args(groups);
    bare.args(["--inh-caps", ONE, "--ambient-caps", ONE, "--bounding-set", ONE]);
    bare.arg(command.get_program()).args(command.get_args());
    bare
}
