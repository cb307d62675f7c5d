//! Alerts to a real mail server and to one that answers as Slack does.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::many;
use super::rig::{FakeSlack, MailServer, Post, Site, event, run, within};

const PASSWORD: &str = "hunter2-the-mail-password";

/// A certificate authority and a certificate of 127.0.0.1 in `folder`.
fn certificates(folder: &Path) {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign &&
        openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout mail.key -out mail.csr &&
        printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth\\n' > ext &&
        openssl x509 -req -in mail.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out mail.pem";
    let (text, code) = run(Command::new("sh").args(["-c", script]).current_dir(folder));
    assert_eq!(code, 0, "{text}");
}

fn mailing(site: Site, port: u16) -> Site {
    site.with("SMTP_SERVER", "127.0.0.1")
        .with("SMTP_PORT", &port.to_string())
        .with("EMAIL_USER", "alerts@example.com")
        .with("EMAIL_PASS", PASSWORD)
        .with("ALERT_EMAIL", "soc@example.com, boss@example.com")
}

#[test]
fn a_real_mail_server_gets_the_alert_over_starttls() {
    let site = Site::new();
    certificates(site.folder.path());
    let (pem, key) = (site.path("mail.pem"), site.path("mail.key"));
    let login = [
        pem.to_str().unwrap(),
        key.to_str().unwrap(),
        "alerts@example.com",
        PASSWORD,
    ];
    let server = MailServer::start(site.folder.path(), &login);
    let trusted = site.path("ca.pem").to_str().unwrap().to_owned();
    let site = mailing(site, server.port).with("SSL_CERT_FILE", &trusted);
    let receiver = site.start();
    let events = [
        event("a", "ip_blocked", json!({"ip": "203.0.113.9", "block_count": 2})),
        event(
            "b",
            "distributed_attack_detected",
            json!({"ip": "203.0.113.7", "port": 22, "attempts": 40}),
        ),
        event("c", "connection_attempt", json!({"ip": "203.0.113.8"})),
    ];
    assert_eq!(receiver.post(&Post::events(&events)).status, 200);
    assert!(within(20, || !server.messages().is_empty()), "{}", receiver.log());
    let mail = &server.messages()[0];
    assert_eq!(
        (&mail["tls"], &mail["user"]),
        (&Value::Bool(true), &json!("alerts@example.com"))
    );
    assert_eq!(mail["to"], json!(["soc@example.com", "boss@example.com"]));
    let text = mail["text"].as_str().unwrap();
    assert!(
        text.contains("Subject: [verdictd] distributed_attack_detected ip=203.0.113.7"),
        "{text}"
    );
    assert!(
        !text.contains("203.0.113.9") && !text.contains("203.0.113.8"),
        "{text}"
    );
    assert!(!receiver.log().contains(PASSWORD));
}

#[test]
fn no_password_goes_to_a_server_without_tls_or_with_a_strange_certificate() {
    let site = Site::new();
    certificates(site.folder.path());
    let (pem, key) = (site.path("mail.pem"), site.path("mail.key"));
    let login = [
        pem.to_str().unwrap(),
        key.to_str().unwrap(),
        "alerts@example.com",
        PASSWORD,
    ];
    let strange = MailServer::start(site.folder.path(), &login);
    let plain = MailServer::start(site.folder.path(), &[]);
    for port in [strange.port, plain.port] {
        let receiver = mailing(Site::new(), port).start();
        let attack = event("a", "distributed_attack_detected", json!({"ip": "203.0.113.7"}));
        assert_eq!(receiver.post(&Post::events(&[attack])).status, 200);
        assert!(
            within(20, || receiver.log().contains("alert by mail failed")),
            "{}",
            receiver.log()
        );
        assert!(!receiver.log().contains(PASSWORD), "{}", receiver.log());
        assert_eq!(receiver.stop(), Some(0));
    }
    assert!(strange.messages().is_empty() && plain.messages().is_empty());
}

#[test]
fn plain_smtp_only_where_the_operator_says_so() {
    let site = Site::new();
    let server = MailServer::start(site.folder.path(), &[]);
    let site = site
        .with("SMTP_SERVER", "127.0.0.1")
        .with("SMTP_PORT", &server.port.to_string())
        .with("SMTP_PLAIN", "true")
        .with("ALERT_EMAIL", "soc@example.com");
    let receiver = site.start();
    assert_eq!(
        receiver.post(&Post::events(&many(1, "ip_blocked", ""))).status,
        200
    );
    assert!(within(20, || server.messages().len() == 1), "{}", receiver.log());
    assert_eq!(server.messages()[0]["tls"], false);
}

#[test]
fn a_storm_is_a_handful_of_messages() {
    let slack = FakeSlack::start(0);
    let receiver = Site::new()
        .with("SLACK_WEBHOOK_URL", &slack.url())
        .with("ALERT_INTERVAL", "4")
        .start();
    let start = Instant::now();
    for batch in many(5_000, "ip_blocked", "").chunks(500) {
        assert_eq!(receiver.post(&Post::events(batch)).status, 200);
    }
    let told = || -> u64 {
        let messages = slack.messages.lock().unwrap();
        let counts = messages.iter().map(|text| {
            text.trim_start_matches('*')
                .split(' ')
                .next()
                .unwrap()
                .replace(',', "")
        });
        counts.map(|count| count.parse().unwrap_or(1)).sum()
    };
    assert!(within(30, || told() >= 5_000), "{}: {}", told(), receiver.log());
    thread::sleep(Duration::from_secs(5));
    assert_eq!(told(), 5_000);
    // One after two seconds, then one each four.
    let most = 2 + start.elapsed().as_secs() / 4;
    assert!(
        slack.count() as u64 <= most,
        "{} messages in {:?}",
        slack.count(),
        start.elapsed()
    );
    assert!(
        slack
            .messages
            .lock()
            .unwrap()
            .iter()
            .all(|text| text.lines().count() < 30)
    );
}

#[test]
fn a_failing_channel_is_tried_again_and_delays_nobody() {
    let slack = FakeSlack::start(1);
    let receiver = Site::new().with("SLACK_WEBHOOK_URL", &slack.url()).start();
    let start = Instant::now();
    assert_eq!(
        receiver.post(&Post::events(&many(1, "ip_blocked", "a"))).status,
        200
    );
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(within(30, || slack.count() == 1), "{}", receiver.log());
    let log = receiver.log();
    assert!(
        log.contains("alert by slack failed: it answered 500; tried again in 5 s"),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn slack_says_when_it_wants_to_be_asked_again() {
    let slack = FakeSlack::answering("429 Too Many Requests\r\nRetry-After: 17");
    let receiver = Site::new().with("SLACK_WEBHOOK_URL", &slack.url()).start();
    assert_eq!(
        receiver.post(&Post::events(&many(1, "ip_blocked", "a"))).status,
        200
    );
    let told = "alert by slack failed: it answered 429; tried again in 17 s";
    assert!(within(20, || receiver.log().contains(told)), "{}", receiver.log());
}

#[test]
fn a_mail_server_that_says_nothing_is_said_to_say_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = mailing(Site::new(), silent.local_addr().unwrap().port()).start();
    assert_eq!(
        receiver.post(&Post::events(&many(1, "ip_blocked", "a"))).status,
        200
    );
    let told = "alert by mail failed: no answer within 10 s; tried again in 5 s";
    assert!(within(60, || receiver.log().contains(told)), "{}", receiver.log());
}

#[test]
fn an_alert_outlives_a_restart_and_is_told_once() {
    let site = Site::new().with("SLACK_WEBHOOK_URL", "http://127.0.0.1:1/hunter2");
    let receiver = site.start();
    assert_eq!(
        receiver.post(&Post::events(&many(2, "ip_blocked", ""))).status,
        200
    );
    assert!(
        within(20, || receiver.log().contains("alert by slack failed")),
        "{}",
        receiver.log()
    );
    assert!(!receiver.log().contains("hunter2"), "{}", receiver.log());
    assert_eq!(receiver.stop(), Some(0));
    let slack = FakeSlack::start(0);
    let site = site.with("SLACK_WEBHOOK_URL", &slack.url());
    for _ in 0..2 {
        let receiver = site.start();
        assert!(within(20, || slack.count() == 1));
        thread::sleep(Duration::from_secs(3));
        assert_eq!(receiver.stop(), Some(0));
    }
    assert!(slack.messages.lock().unwrap()[0].starts_with("*2 alerts: 2 ip_blocked*"));
}
