//! What the examples do with events, against stand-ins for a SIEM, a ticket system, a feed and other firewalls.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use verdictd::control::wire::BanView;
use verdictd::webhook::wire::{Event, EventType, Severity, timestamp};

use super::rig::run;
use super::stub::Service;
use super::{Example, batch, home, one};

fn blocked(change: impl FnOnce(&mut Event)) -> Event {
    let mut event = one(EventType::IpBlocked);
    change(&mut event);
    event
}

fn every() -> Vec<Event> {
    EventType::ALL.iter().map(|kind| one(*kind)).collect()
}

/// As the engine sends it: what is made up says so.
fn real(kind: EventType) -> Event {
    let mut event = one(kind);
    event.data.remove("test");
    event
}

fn of_a_prefix() -> Event {
    blocked(|event| {
        event.data.insert("ip".into(), json!("2001:db8::9"));
        event.data.insert("prefix".into(), json!("2001:db8::/64"));
        event.data.insert("until".into(), json!(null));
    })
}

#[test]
fn each_type_of_event_has_a_handler_and_each_event_is_handled_once() {
    let example = Example::start("python/handlers.py", |folder| {
        vec![(
            "SEEN_DATABASE",
            folder.join("seen.db").to_str().unwrap().to_owned(),
        )]
    });
    let mut later = one(EventType::IpBlocked);
    later.event_type = "from_the_future".into();
    let all = batch([every(), vec![later]].concat());
    assert_eq!(
        [example.post(&all), example.post(&all)],
        [200, 200],
        "{}",
        example.program.log()
    );
    let printed = example.printed();
    assert_eq!(printed.len(), EventType::ALL.len() + 1, "{printed:#?}");
    for kind in EventType::ALL {
        let said: Vec<_> = printed
            .iter()
            .filter(|line| line.contains(&format!(" {kind}: ")))
            .collect();
        assert_eq!(said.len(), 1, "{kind}: {printed:#?}");
        assert!(!said[0].contains("not known here"), "{}", said[0]);
    }
    assert!(
        printed
            .iter()
            .any(|line| line.contains("from_the_future: not known here"))
    );
}

#[test]
fn handlers_say_what_matters_and_a_restart_forgets_no_id() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen.db").to_str().unwrap().to_owned();
    let start = || Example::start("python/handlers.py", |_| vec![("SEEN_DATABASE", seen.clone())]);
    let many = {
        let mut event = one(EventType::ConnectionAttempt);
        event.data.insert("count".into(), json!(90));
        event
    };
    let told = batch(vec![of_a_prefix(), many]);
    let first = start();
    assert_eq!(first.post(&told), 200, "{}", first.program.log());
    let printed = first.printed();
    assert!(
        printed[0].contains("ip_blocked: 2001:db8::/64 for"),
        "{printed:?}"
    );
    assert!(printed[1].ends_with("tcp/22 (90)"), "{printed:?}");
    let second = start();
    assert_eq!(second.post(&told), 200);
    assert_eq!(second.printed(), [""; 0]);
}

#[test]
fn a_siem_gets_every_event_as_cef_and_one_that_is_away_loses_none() {
    let siem = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = siem.local_addr().unwrap();
    drop(siem);
    let example = Example::start("python/siem_forward.py", |_| {
        vec![("SIEM_ADDRESS", address.to_string())]
    });
    let mut hostile = real(EventType::BlockError);
    hostile
        .data
        .insert("error".into(), json!("x\nCEF:0|evil act=blocked"));
    let mut later = of_a_prefix();
    later.event_type = "x|9|y\n".into();
    later.timestamp = "2026-03-01T12:00:00.250Z".into();
    let all = batch([every(), vec![later, hostile]].concat());
    assert_eq!(example.post(&all), 503);
    let siem = TcpListener::bind(address).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in siem.incoming() {
            let mut text = String::new();
            stream.unwrap().read_to_string(&mut text).unwrap();
            tell.send(text).unwrap();
        }
    });
    assert_eq!(example.post(&all), 200, "{}", example.program.log());
    let lines: Vec<String> = (0..EventType::ALL.len() + 2)
        .map(|_| told.recv_timeout(Duration::from_secs(10)).unwrap())
        .map(|text| {
            let (length, line) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), line.len(), "{text}");
            line.to_owned()
        })
        .collect();
    for (kind, line) in EventType::ALL.iter().zip(&lines) {
        // Facility 13; severities of syslog and of CEF.
        let (priority, severity) = match kind.severity() {
            Severity::Informational => (110, 3),
            Severity::Error => (107, 6),
            Severity::Critical => (106, 9),
        };
        assert!(line.starts_with(&format!("<{priority}>1 20")), "{line}");
        let head = format!("CEF:0|verdictd|verdictd|1.0|{kind}|{kind}|{severity}|rt=");
        assert!(line.contains(&head), "no {head:?}: {line}");
        let technique = format!(
            " cs1Label=technique cs1={}",
            kind.mitre_technique().unwrap_or("?")
        );
        assert_eq!(
            line.contains(&technique),
            kind.mitre_technique().is_some(),
            "{line}"
        );
        assert!(line.contains(" dvchost=web1.example externalId="), "{line}");
        assert!(line.contains(" cs2Label=trial cs2=True"), "{line}");
    }
    let of = |kind: EventType| &lines[EventType::ALL.iter().position(|one| *one == kind).unwrap()];
    for (kind, words) in [
        (
            EventType::IpBlocked,
            " src=192.0.2.1 act=blocked cnt=8 reason=port_scanning",
        ),
        (
            EventType::ConnectionAttempt,
            " src=192.0.2.1 spt=50123 dst=198.51.100.1 dpt=22 proto=tcp ",
        ),
        (EventType::StateDegraded, " msg=the state is not saved"),
    ] {
        assert!(of(kind).contains(words), "no {words:?}: {}", of(kind));
    }
    let later = &lines[EventType::ALL.len()];
    assert!(
        later.contains("|x\\|9\\|y |9|rt=1772366400250 ")
            && later.contains(" c6a2Label=Source IPv6 Address c6a2=2001:db8::9 "),
        "{later}"
    );
    let hostile = lines.last().unwrap();
    assert!(
        hostile.ends_with("msg=x\\nCEF:0|evil act\\=blocked") && !hostile.contains('\n'),
        "{hostile}"
    );
}

/// A token file beside the secret.
fn token(folder: &Path) -> String {
    let path = folder.join("token");
    fs::write(&path, "hunter2-the-token\n").unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_incident_is_opened_once_though_its_first_answer_was_lost() {
    let tickets = Service::start(&[500]);
    let example = Example::start("python/incident_ticket.py", |folder| {
        vec![
            ("TICKET_URL", format!("http://{}/api/incidents", tickets.address)),
            ("TICKET_TOKEN_FILE", token(folder)),
        ]
    });
    let attack = real(EventType::DistributedAttackDetected);
    let all = batch(vec![attack.clone(), one(EventType::IpBlocked)]);
    let id = serde_json::from_slice::<serde_json::Value>(&all.body).unwrap()["events"][0]["id"].clone();
    assert_eq!(
        [503, 200, 200].map(|_| example.post(&all)),
        [503, 200, 200],
        "{}",
        example.program.log()
    );
    let asked = tickets.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for asked in asked {
        assert!(asked.head.starts_with("post /api/incidents "), "{}", asked.head);
        assert!(
            asked.head.contains("authorization: bearer hunter2-the-token"),
            "{}",
            asked.head
        );
        assert!(
            asked
                .head
                .contains(&format!("idempotency-key: {}", id.as_str().unwrap())),
            "{}",
            asked.head
        );
        assert_eq!(asked.body["title"], "Distributed attack on port 22");
        assert_eq!(asked.body["severity"], "critical");
        assert_eq!(asked.body["occurred_at"], attack.timestamp);
        assert_eq!(
            (&asked.body["external_id"], &asked.body["details"]["sources"][3]),
            (&id, &json!("192.0.2.4"))
        );
    }
    assert_eq!(example.post(&batch(every())), 200);
    assert_eq!(tickets.asked().len(), 2 + 5);
    let title = tickets.asked()[2].body["title"].clone();
    assert_eq!(title, "Trial: Distributed attack on port 22");
    assert!(!example.program.log().contains("hunter2"));
}

#[test]
fn a_feed_gets_scanners_as_stix_and_nothing_that_others_must_not_block() {
    let feed = Service::start(&[]);
    let start = |any: &str| {
        Example::start("python/threat_intel.py", |folder| {
            vec![
                (
                    "TAXII_COLLECTION",
                    format!("http://{}/api/collections/x/", feed.address),
                ),
                ("TAXII_TOKEN_FILE", token(folder)),
                ("SUBMIT_ANY_ADDRESS", any.to_owned()),
            ]
        })
    };
    let manual = blocked(|event| drop(event.data.insert("reason".into(), json!("manual"))));
    let private = blocked(|event| drop(event.data.insert("ip".into(), json!("10.0.0.1"))));
    let strict = start("no");
    assert_eq!(
        strict.post(&batch(vec![manual.clone(), private, one(EventType::IpBlocked)])),
        200
    );
    assert!(feed.asked().is_empty());

    let stealth = blocked(|event| {
        event.data.insert("reason".into(), json!("suspicious_scanning"));
        event.data.insert("block_count".into(), json!(9));
        event.data.remove("unique_ports_scanned");
    });
    let attack = blocked(|event| drop(event.data.insert("reason".into(), json!("distributed_attack"))));
    let example = start("yes");
    let (scan, log) = (one(EventType::IpBlocked), || example.program.log());
    let all = vec![manual, attack, scan.clone(), of_a_prefix(), stealth];
    assert_eq!(example.post(&batch(all)), 200, "{}", log());
    let asked = feed.asked();
    assert_eq!(asked.len(), 3);
    for asked in &asked {
        assert!(
            asked.head.contains("authorization: bearer hunter2-the-token"),
            "{}",
            asked.head
        );
    }
    assert!(
        asked[0].head.starts_with("post /api/collections/x/objects/ "),
        "{}",
        asked[0].head
    );
    assert!(
        asked[0]
            .head
            .contains("content-type: application/taxii+json;version=2.1"),
        "{}",
        asked[0].head
    );
    let [v4, v6, stealth] = [0, 1, 2].map(|at| asked[at].body["objects"][0].clone());
    assert_eq!(v4["spec_version"], "2.1");
    assert_eq!(
        (&v4["confidence"], &stealth["confidence"]),
        (&json!(45), &json!(90))
    );
    assert_eq!(stealth["name"], "192.0.2.1/32 scanned some ports");
    assert_eq!(
        (&v4["type"], &v4["pattern_type"]),
        (&json!("indicator"), &json!("stix"))
    );
    assert_eq!(v4["pattern"], "[ipv4-addr:value = '192.0.2.1']");
    assert_eq!(v4["valid_until"], scan.data["until"]);
    assert_eq!(v6["pattern"], "[ipv6-addr:value = '2001:db8::/64']");
    assert!(v6.get("valid_until").is_none() && v4["id"] != v6["id"]);
    // A second instance knows nothing of the first: the indicator is the same.
    assert_eq!(start("yes").post(&batch(vec![scan])), 200);
    assert_eq!(feed.asked()[3].body["objects"][0]["id"], v4["id"]);
}

/// Writes a program.
fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An `ssh` that reaches each firewall by way of the forced command of its key, and a `verdictctl` that notes what it
/// is asked to ban, lists what is in the file `list` and ends as the file `ends` says. Firewalls that are named in the
/// file `down` cannot be reached.
fn firewalls(folder: &Path) -> Vec<(&'static str, String)> {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let ban_only = home("docs/examples/webhooks/sh/ban-only.sh");
    program(
        &bin.join("ssh"),
        &format!(
            "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\ngrep -qsx \"$2\" '{0}/down' && exit 255\n\
             FIREWALL=$2 SSH_ORIGINAL_COMMAND=$3 exec '{1}'\n",
            folder.display(),
            ban_only.display()
        ),
    );
    let noting = format!(
        "#!/bin/sh\nif [ \"$1\" = list ]; then cat '{0}/list' 2>/dev/null || echo '[]'; exit; fi\n\
         echo \"$FIREWALL $*\" >> '{0}/bans'\nexit \"$(cat '{0}/ends' 2>/dev/null || echo 0)\"\n",
        folder.display()
    );
    program(&bin.join("verdictctl"), &noting);
    vec![
        ("PATH", format!("{}:/usr/bin:/bin", bin.display())),
        ("FIREWALLS", "ban@one ban@two ban@three".to_owned()),
    ]
}

#[test]
fn a_ban_is_passed_on_to_every_firewall() {
    let example = Example::start("python/block_everywhere.py", firewalls);
    let bans = || fs::read_to_string(example.folder.path().join("bans")).unwrap_or_default();
    let clear = || drop(fs::remove_file(example.folder.path().join("bans")));
    let down = |names: &str| fs::write(example.folder.path().join("down"), names).unwrap();
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);

    // An operator's own, one that is over, and one whose address is none.
    let manual = blocked(|event| drop(event.data.insert("reason".into(), json!("manual"))));
    let over = blocked(|event| drop(event.data.insert("until".into(), json!(timestamp(past)))));
    assert_eq!(
        example.post(&batch(vec![manual, over])),
        200,
        "{}",
        example.program.log()
    );
    let injected = blocked(|event| drop(event.data.insert("ip".into(), json!("192.0.2.1; reboot"))));
    let answer = example.program.post(&batch(vec![injected]));
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nretry-after: 5"), "{}", answer.head);
    assert_eq!(bans(), "");

    let event = one(EventType::IpBlocked);
    assert_eq!(
        example.post(&batch(vec![event.clone()])),
        200,
        "{}",
        example.program.log()
    );
    let mut lines: Vec<String> = bans().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, name) in lines.iter().zip(["one", "three", "two"]) {
        assert!(
            line.starts_with(&format!("ban@{name} ban 192.0.2.1 --for 5")),
            "{line}"
        );
    }
    // The real one reads the order: it says that no engine runs (3), not that the order is wrong (2).
    let order: Vec<&str> = lines[0].splitn(7, ' ').skip(1).collect();
    let mut real = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    let (text, code) = run(real.args(["--socket", "/nowhere/control.sock"]).args(&order));
    assert_eq!(code, 3, "{order:?}: {text}");

    // One that is away delays none of the others, and is tried again.
    clear();
    down("ban@two\n");
    let both = batch(vec![of_a_prefix(), event]);
    assert_eq!(example.post(&both), 503);
    assert_eq!(bans().lines().count(), 2, "{}", bans());
    down("");
    assert_eq!([example.post(&both), example.post(&both)], [200, 200]);
    assert_eq!(
        bans().matches("ban 2001:db8::/64 --for 86400s --reason").count(),
        5,
        "{}",
        bans()
    );

    // Then given up.
    clear();
    down("ban@one\nban@two\nban@three\n");
    let stale = blocked(|event| event.timestamp = timestamp(past - Duration::from_secs(300)));
    assert_eq!(example.post(&batch(vec![stale])), 200);

    // A ban of a week is one of a day elsewhere; and what a firewall refuses is not asked of it again.
    clear();
    down("");
    fs::write(example.folder.path().join("ends"), "1").unwrap();
    let week = OffsetDateTime::now_utc() + Duration::from_secs(7 * 86_400);
    let long = blocked(|event| drop(event.data.insert("until".into(), json!(timestamp(week)))));
    assert_eq!(example.post(&batch(vec![long])), 200, "{}", example.program.log());
    assert_eq!(
        bans().matches("ban 192.0.2.1 --for 86400s ").count(),
        3,
        "{}",
        bans()
    );
}

#[test]
fn a_longer_ban_is_not_replaced_by_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let variables = firewalls(folder.path());
    let live = |source: &str, left: Option<u64>, enforced: bool| BanView {
        source: source.into(),
        reason: "manual".into(),
        step: 0,
        offences: 0,
        since: "2026-03-01T12:00:00Z".into(),
        until: left.map(|_| "2026-03-01T13:00:00Z".into()),
        remaining_seconds: left,
        enforced,
        note: Some("a \"note\", with {signs}".into()),
    };
    // As verdictctl prints it.
    let list = serde_json::to_string_pretty(&[
        live("192.0.2.1", Some(600), true),
        live("192.0.2.2", None, true),
        live("192.0.2.3", Some(600), false),
        live("2001:db8::/64", Some(600), true),
    ]);
    fs::write(folder.path().join("list"), list.unwrap()).unwrap();
    let passed_on = |target: &str, seconds: u32| {
        let mut command = Command::new(home("docs/examples/webhooks/sh/ban-only.sh"));
        command.env("PATH", &variables[0].1).env(
            "SSH_ORIGINAL_COMMAND",
            format!("verdictctl ban {target} --for {seconds}s"),
        );
        let (text, code) = run(&mut command);
        assert_eq!(code, 0, "{text}");
        fs::remove_file(folder.path().join("bans")).is_ok()
    };
    for (target, seconds, expected) in [
        ("192.0.2.1", 600, false),
        ("192.0.2.1", 601, true),
        ("192.0.2.2", 86_400, false),
        ("192.0.2.3", 60, true),
        ("2001:db8::/64", 60, false),
        ("2001:db8:0:1::/64", 60, true),
        ("192.0.2.11", 60, true),
    ] {
        assert_eq!(passed_on(target, seconds), expected, "{target} {seconds}");
    }
}

#[test]
fn the_key_of_another_firewall_bans_and_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let variables = firewalls(folder.path());
    // What a "*" could stand for.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("192.0.2.9"), "").unwrap();
    let asked = |order: &str| {
        let mut command = Command::new(home("docs/examples/webhooks/sh/ban-only.sh"));
        command
            .current_dir(&empty)
            .env("PATH", &variables[0].1)
            .env("SSH_ORIGINAL_COMMAND", order);
        run(&mut command).1
    };
    for order in [
        "",
        "sh",
        "verdictctl unban 192.0.2.1",
        "verdictctl ban 192.0.2.1",
        "verdictctl ban 192.0.2.1 --for 7d",
        "verdictctl ban 192.0.2.1 --for 100000s",
        "verdictctl ban 192.0.2.1 --for 86401s",
        "verdictctl ban 192.0.2.1 --for 60",
        "verdictctl ban 192.0.2.1 --for s",
        "verdictctl ban 192.0.2.1 --reason 60s",
        "verdictctl unban 192.0.2.1 --for 60s",
        "id ban 192.0.2.1 --for 60s",
        "verdictctl ban 0.0.0.0/0 --for 60s",
        "verdictctl ban 192.0.0.0/23 --for 60s",
        "verdictctl ban 2001::/47 --for 60s",
        "verdictctl ban 192.0.2.0/ --for 60s",
        "verdictctl ban 192.0.2.0/24/24 --for 60s",
        "verdictctl ban 192.0.2.1 --for 60s --socket /x",
        "verdictctl ban --help --for 60s",
        "verdictctl ban 192.0.2.1;id --for 60s",
        "verdictctl ban $(id) --for 60s",
        "verdictctl ban * --for 60s",
        "verdictctl ban 192.0.2.1 --for 60s\nid",
    ] {
        assert_eq!(asked(order), 1, "{order}");
    }
    assert!(!folder.path().join("bans").exists());
    assert_eq!(asked("verdictctl ban 192.0.2.0/24 --for 60s"), 0);
    let noted = fs::read_to_string(folder.path().join("bans")).unwrap();
    assert_eq!(
        noted.trim(),
        "ban 192.0.2.0/24 --for 60s --reason passed on by another firewall"
    );
}
