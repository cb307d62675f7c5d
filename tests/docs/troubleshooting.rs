//! docs/troubleshooting.md: its messages are what the programs say. Each block is provoked, or, where that would touch
//! the whole machine, found in the source.

use std::any::Any;
use std::fs;
use std::path::Path;
use std::thread;

use crate::common::{secs, within};
use crate::pages::{blocks, code, home, read, rows};
use crate::sandbox::{Sandbox, Service};

const PAGE: &str = "docs/troubleshooting.md";

/// A machine on which a message comes.
struct Stage {
    // Dropped in this order: the engine before its machine.
    engine: Option<Service>,
    _keep: Option<Box<dyn Any>>,
    sandbox: Sandbox,
}

impl Stage {
    fn new() -> Stage {
        let sandbox = Sandbox::new();
        Stage {
            engine: None,
            _keep: None,
            sandbox,
        }
    }

    fn with(config: &str) -> Stage {
        let stage = Stage::new();
        stage.sandbox.configure(config);
        stage
    }

    fn run(mut self) -> Stage {
        self.engine = Some(self.sandbox.engine());
        self
    }

    fn stop(mut self) -> Stage {
        let (code, said) = self.engine.take().expect("it runs").stop();
        assert_eq!(code, 0, "{said}");
        self
    }

    fn after(self, line: &str) -> Stage {
        self.sandbox.must(line);
        self
    }
}

const FIREWALL: &str = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]";
const FIXED: &str = "[engine]\nworkers = 1\nqueue_base = 4100\nlog_base = 4100";
const STATE: &str = "/var/lib/verdictd/state.toml";

/// What the page calls it, and how to get there.
type Known = (&'static str, fn() -> Stage);

const STAGES: [Known; 25] = [
    ("nothing", Stage::new),
    ("engine", || Stage::new().run()),
    ("nobody", || Stage::with("").after("mkdir -m 777 /run/nobody")),
    ("private", || {
        Stage::with("").after(
            "cp /etc/verdictd/verdictd.toml /etc/verdictd/open.toml; chmod 600 /etc/verdictd/verdictd.toml; \
             chmod 700 /var/lib/verdictd",
        )
    }),
    ("bad config", || {
        let stage = Stage::new().run();
        stage.sandbox.configure("[firewall]\nmod = \"standard\"");
        stage
    }),
    ("fixed engine", || {
        Stage::with(&format!("{FIREWALL}\n{FIXED}"))
            .run()
            .after("mkdir /run/second")
    }),
    ("taken queue", || {
        let mut stage = Stage::with(FIXED);
        let queue = stage.sandbox.inside(|| {
            let mut queue = nfq::Queue::open().unwrap();
            queue.bind(4100).unwrap();
            queue
        });
        stage._keep = Some(Box::new(queue));
        stage
    }),
    ("foreign table", || {
        Stage::new().after("nft add table inet verdictd")
    }),
    ("no loopback", || Stage::with("").after("ip link set lo down")),
    ("state is a file", || {
        Stage::new().after("rmdir /var/lib/verdictd; touch /var/lib/verdictd")
    }),
    ("damaged state", || {
        let stage = Stage::new().run().after("verdictctl snapshot").stop();
        stage
            .after(&format!("sed -i 's/^seed = /seed =  /' {STATE}"))
            .run()
    }),
    ("no state left", || {
        Stage::new()
            .after(&format!("echo garbage > {STATE}; echo garbage > {STATE}.1"))
            .run()
    }),
    ("state of the Python system", || {
        Stage::new()
            .after(&format!("printf 'unblock_tasks = [\\n]\\n' > {STATE}"))
            .run()
    }),
    ("changed table", || Stage::with(FIREWALL).run()),
    ("events off", || {
        Stage::with(FIREWALL)
            .run()
            .after("sysctl -qw net.netfilter.nf_conntrack_events=0")
    }),
    ("stopped engine", || Stage::with(FIREWALL).run().stop()),
    ("small set", || Stage::with("[engine]\nban_set_size = 1").run()),
    ("dead receiver", || {
        Stage::with(
            "[webhooks]\nenabled = true\n[[webhooks.endpoints]]\nname = \"SOC\"\nurl = \"http://127.0.0.1:8080/webhook\"",
        )
        .run()
    }),
    ("unsealed", Stage::new),
    ("changed configuration", || {
        Stage::with("")
            .after("verdictctl harden --quiet; echo '# changed' >> /etc/verdictd/verdictd.toml")
            .run()
    }),
    ("changed program", || {
        Stage::with("").after("verdictctl harden --quiet; printf x >> /usr/bin/verdictd")
    }),
    ("monitor", || Stage::with("").after("verdictctl monitor")),
    ("foreign table under the monitor", || {
        Stage::new().after("nft add table inet verdictd")
    }),
    ("stopped under the monitor", || {
        let stage = Stage::with("").after("verdictctl monitor");
        let watched = "until verdictctl status | grep -q '^monitor .*last look 2'; do sleep 0.1; done";
        stage.after(watched).after(
            "kill -TERM \"$(head -1 /run/verdictd/verdictd.pid)\"; \
             until grep -q 'on purpose' /var/log/verdictd/monitor.log; do sleep 0.1; done",
        )
    }),
    // On kernels that have the expression a saved ruleset loads.
    ("xt", || Stage::with(FIREWALL).run()),
];

fn stage(name: &str) -> Stage {
    let found = STAGES.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("{PAGE}: nobody knows how to provoke {name:?}"))
        .1()
}

#[test]
fn messages_are_those_of_the_programs() {
    let page = read(PAGE);
    let blocks = blocks(&page, "console");
    assert!(blocks.len() > 15, "{}", blocks.len());
    // Most of the time is waited for.
    thread::scope(|scope| {
        for (before, block) in blocks {
            let how = before.lines().last().unwrap_or_default();
            let how = how.trim_start_matches("<!-- ").trim_end_matches(" -->");
            match how.split_once(": ") {
                Some(("provoked", name)) => drop(scope.spawn(move || provoke(name, block))),
                Some(("source", files)) => found_in(files, block),
                _ => panic!("{PAGE}: says nobody how to provoke\n{block}"),
            }
        }
    });
}

/// Runs what is typed in a block, and looks for what is shown there in what is said.
fn provoke(name: &str, block: &str) {
    let stage = stage(name);
    let xt = || stage.sandbox.must("verdictctl status").contains("xt NFQUEUE");
    if name == "xt" && !xt() {
        // This kernel has the expression of nftables, and what the page warns of is not so.
        stage
            .sandbox
            .must("nft list ruleset > /run/saved && nft -c -f /run/saved");
        return;
    }
    let mut said: Option<String> = None;
    let mut from = 0;
    for line in block.lines() {
        if let Some(typed) = line.strip_prefix("# ") {
            said = Some(stage.sandbox.run(typed).text());
            from = 0;
        } else if let Some(typed) = line.strip_prefix("$ ") {
            said = Some(stage.sandbox.run_as_nobody(typed).text());
            from = 0;
        } else if let Some(text) = said.as_ref().filter(|text| after(text, from, line).is_some()) {
            from = after(text, from, line).expect("just found");
        } else {
            let log = || stage.engine.as_ref().map(Service::said).unwrap_or_default();
            let logged = within(secs(10), || after(&log(), 0, line).is_some());
            assert!(logged, "{name}: {line:?} is not said:\n{said:?}\n{}", log());
        }
    }
}

/// The number of the line after the first one, from `from` on, that is as shown.
fn after(text: &str, from: usize, shown: &str) -> Option<usize> {
    let mut lines = text.lines().enumerate().skip(from);
    lines
        .find(|(_, line)| is_as_shown(line, shown))
        .map(|(at, _)| at + 1)
}

/// Whether a line is as shown, where `…` may be anything.
fn is_as_shown(line: &str, shown: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, .., last] = parts[..] else {
        return line == shown;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for part in &parts[1..parts.len() - 1] {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Looks for each part of a message in the source.
fn found_in(files: &str, block: &str) {
    let text: String = files.split(' ').map(|file| as_compiled(&read(file))).collect();
    for part in parts(block).filter(|part| !part.starts_with("/var/")) {
        assert!(text.contains(part), "{files} does not say {part:?}");
    }
}

/// Strings of a source without their line ends and escapes.
fn as_compiled(source: &str) -> String {
    let text: String = source.split("\\\n").map(str::trim_start).collect();
    text.replace("\\\"", "\"")
}

/// What a message says in any case.
fn parts(message: &str) -> impl Iterator<Item = &str> {
    message
        .split(['…', '\n'])
        .map(str::trim)
        .filter(|part| part.len() > 3)
}

/// The lines of status that the page explains.
#[test]
fn what_is_degraded_is_said_so() {
    let page = read(PAGE);
    let table = page.split("\n## DEGRADED").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = rows(table);
    assert!(rows.len() > 5, "{}", rows.len());
    let sources = sources(&home("src"));
    for [said, _] in &rows {
        let said = code(said)[0];
        let is_said = parts(said).all(|part| sources.contains(part));
        assert!(is_said, "{said:?} is said by nobody");
    }
}

/// Every source below a folder, as the compiler reads its strings.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| match path.is_dir() {
        true => sources(&path),
        false => as_compiled(&fs::read_to_string(&path).unwrap()),
    });
    texts.collect()
}

#[test]
fn shown_lines_match_what_they_leave_open() {
    assert!(is_as_shown("12:00 WARN x is 3 ms", "… WARN x is … ms"));
    assert!(is_as_shown("a", "a") && !is_as_shown("ab", "a"));
    assert!(!is_as_shown("12:00 INFO x is 3 ms", "… WARN x is … ms"));
    assert!(!is_as_shown("WARN x is 3 s", "…WARN x is … ms"));
}
