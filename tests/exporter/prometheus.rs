//! A real Prometheus scrapes a real engine while it is scanned, and tells the same numbers as `verdictctl`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::command::run;
use crate::common::engine::{Engine, FIREWALL};
use crate::common::lab::{ATTACKER, HOST, Lab};
use crate::common::namespace::Namespace;
use crate::common::nmap::nmap;
use crate::common::service::Echo;
use crate::common::{ms, secs, within};
use crate::rig::Exporter;

/// Debian's Prometheus inside a namespace; killed when it is dropped.
struct Prometheus<'a> {
    ns: &'a Namespace,
    child: Child,
    at: SocketAddr,
    folder: TempDir,
}

impl<'a> Prometheus<'a> {
    fn start(ns: &'a Namespace, target: SocketAddr) -> Prometheus<'a> {
        let folder = TempDir::new().unwrap();
        let rules = format!(
            "{}/packaging/prometheus/verdictd.rules.yml",
            env!("CARGO_MANIFEST_DIR")
        );
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: verdictd\n  static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let at = ns.inside(port).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={at}"))
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = ns
            .inside(|| command.spawn())
            .expect("prometheus (sudo make test installs what is missing)");
        Prometheus {
            ns,
            child,
            at,
            folder,
        }
    }

    /// What its HTTP API answers; none while it does not.
    fn get(&self, path: &str) -> Option<Value> {
        let connect = || TcpStream::connect_timeout(&self.at, secs(5));
        let mut stream = self.ns.inside(connect).ok()?;
        stream.set_read_timeout(Some(secs(30))).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The samples of an expression now.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression)))?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }

    /// The value of an expression with one sample.
    fn value(&self, expression: &str) -> Option<f64> {
        number(self.query(expression)?.first()?)
    }

    /// All series of this metric by one of their labels.
    fn by(&self, label: &str, expression: &str) -> BTreeMap<String, f64> {
        let samples = self.query(expression).unwrap_or_default();
        let named = samples.iter().filter_map(|sample| {
            let name = sample["metric"][label].as_str()?;
            Some((name.to_owned(), number(sample)?))
        });
        named.collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(sample: &Value) -> Option<f64> {
    sample["value"][1].as_str()?.parse().ok()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What differs between Prometheus and `stats --json` now.
fn differences(prometheus: &Prometheus<'_>, stats: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: String, told: Option<f64>, is: &Value| {
        if told != is.as_f64() {
            found.push(format!("{what}: {told:?} in Prometheus, {is} in stats"));
        }
    };
    let total = |metric: &str| prometheus.value(&format!("sum(verdictd_{metric})"));
    let sum_of = |verdict| total(&format!("verdicts_total{{verdict=\"{verdict}\"}}"));
    same("accepted".into(), sum_of("accept"), &stats["verdicts"]["accept"]);
    same("dropped".into(), sum_of("drop"), &stats["verdicts"]["drop"]);
    same("bans".into(), total("bans_total"), &stats["bans"]["total"]);
    same(
        "active bans".into(),
        total("active_bans"),
        &stats["bans"]["active"],
    );
    same(
        "sources".into(),
        total("tracked_sources"),
        &stats["sources"]["tracked"],
    );
    let refused = total("refused_packets_total");
    same("refused".into(), refused, &stats["dropped_packets"]["refused"]);
    let verdicts = total("verdict_seconds_count");
    same("measured".into(), verdicts, &stats["verdict_seconds"]["count"]);
    let drop = "verdictd_verdicts_total{verdict=\"drop\"}";
    for (label, expression, map) in [
        ("reason", drop, &stats["verdicts_by_reason"]["drop"]),
        ("reason", "verdictd_judged_packets_total", &stats["reasons"]),
        ("kind", "verdictd_evidence_packets_total", &stats["kinds"]),
        ("reason", "verdictd_bans_total", &stats["bans_by_reason"]),
        (
            "set",
            "verdictd_dropped_packets_total",
            &stats["dropped_packets"]["by_set"],
        ),
    ] {
        let told = prometheus.by(label, expression);
        let is = map.as_object().cloned().unwrap_or_default();
        same(
            format!("series of {expression}"),
            Some(told.len() as f64),
            &Value::from(is.len()),
        );
        for (word, is) in is {
            same(format!("{expression} {word}"), told.get(&word).copied(), &is);
        }
    }
    for bucket in stats["verdict_seconds"]["buckets"]
        .as_array()
        .unwrap_or(&Vec::new())
    {
        let below = format!(
            "verdictd_verdict_seconds_bucket < {}",
            bucket["count"].as_f64().unwrap() + 0.5
        );
        let bounds = prometheus.by("le", &below);
        let le = bucket["le"].as_f64().unwrap();
        let there = bounds.keys().any(|bound| bound.parse::<f64>().unwrap() == le);
        same(format!("le {le}"), there.then_some(1.0), &Value::from(1));
    }
    found
}

#[test]
fn prometheus_tells_the_same_numbers_as_stats() {
    let lab = Lab::new();
    let _echo = Echo::tcp(&lab.host, &[80]);
    let engine = Engine::start(&lab.host, FIREWALL);
    let exporter = Exporter::start(&lab.host, engine.home());
    let prometheus = Prometheus::start(&lab.host, exporter.at);
    let up = || prometheus.value("verdictd_up") == Some(1.0);
    assert!(within(secs(60), up), "{}", prometheus.log());

    // First, since the set of a new length is made with all rules, which then count anew.
    engine.must(&["ban", "2001:db8::/64", "--for", "2h"]);
    engine.must(&["ban", "198.51.100.0/24"]);
    let scan = format!("-sS -Pn -n -p 1-100 --max-retries 0 --min-rate 500 {HOST}");
    nmap(&lab.attacker, &scan, secs(60));
    engine.wait_ban(ATTACKER);
    nmap(&lab.attacker, &scan, secs(60));
    let mut last = Vec::new();
    let same = within(secs(30), || {
        std::thread::sleep(ms(300));
        last = differences(&prometheus, &engine.json("stats"));
        last.is_empty()
    });
    assert!(same, "{last:#?}\n{}", prometheus.log());
    let stats = engine.json("stats");
    assert!(stats["verdicts_by_reason"]["drop"]["banned"].is_number());
    assert!(stats["dropped_packets"]["refused"].as_u64() > Some(0), "{stats}");
    assert!(
        stats["dropped_packets"]["by_set"]["banned4"].as_u64() > Some(0),
        "{stats}"
    );
    assert_eq!(
        prometheus.value("verdictd_active_bans{family=\"ipv6\",tier=\"0\"}"),
        Some(1.0)
    );
    assert_eq!(
        prometheus.value("verdictd_bans_total{reason=\"port_scanning\"}"),
        Some(1.0)
    );
    let p99 = "histogram_quantile(0.99, sum by (le) (verdictd_verdict_seconds_bucket))";
    let p99 = prometheus.value(p99).unwrap();
    assert!(p99 > 0.0 && p99 < 10.0, "{p99}");
    asks_only_what_there_is(&prometheus);

    // The engine dies: the alert fires, and no number of it is there any more.
    drop(engine.kill9());
    let down = || prometheus.value("verdictd_up") == Some(0.0);
    assert!(within(secs(30), down), "{}", prometheus.log());
    assert_eq!(
        prometheus.query("verdictd_active_bans").map(|all| all.len()),
        Some(0)
    );
    let pending = || {
        let alerts = prometheus.query("ALERTS{alertname=\"VerdictdDown\"}");
        alerts.is_some_and(|alerts| alerts.len() == 1)
    };
    assert!(within(secs(30), pending), "{}", prometheus.log());
}

/// Every query of the dashboard and every alert is understood; those of the dashboard find something, but for what an
/// engine does not have that sends nothing, has no monitor and lost nothing.
fn asks_only_what_there_is(prometheus: &Prometheus<'_>) {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../packaging/grafana/verdictd.json")).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$__interval", "1m")
                .replace("$instance", ".*");
            let found = prometheus.query(&expression).unwrap();
            let may_be_empty = ["webhook", "monitor", "selftest", "> 0"];
            let empty = may_be_empty.iter().any(|word| expression.contains(word));
            assert!(empty || !found.is_empty(), "{expression} finds nothing");
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked}");
    let rules = prometheus.get("/api/v1/rules").unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap();
    assert!(rules.len() > 10, "{rules:?}");
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}

#[test]
fn alert_rules_are_well_formed() {
    let rules = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/prometheus/verdictd.rules.yml"
    );
    let output = run(Command::new("promtool").args(["check", "rules", rules]), secs(30));
    assert_eq!(output.code(), 0, "{}", output.text());
}
