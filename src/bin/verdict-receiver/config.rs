//! What `serve` runs with: settings read into values that cannot be wrong.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::Mailbox;
use verdictd::webhook::signature::Secret;

use crate::settings::Settings;

/// Everything `serve` is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) bind: SocketAddr,
    /// What requests may be signed with, the newest first.
    pub(crate) secrets: Vec<Secret>,
    /// Whether a request has to carry the signature that covers its timestamp.
    pub(crate) require_v2: bool,
    pub(crate) database: PathBuf,
    /// How long events are kept; none: for ever.
    pub(crate) retention: Option<Duration>,
    pub(crate) log_file: Option<PathBuf>,
    /// Whoever shows it may read events from elsewhere than loopback.
    pub(crate) read_token: Option<Secret>,
    pub(crate) wide_scan_ports: u64,
    pub(crate) alert_interval: Duration,
    pub(crate) mail: Option<Mail>,
    /// Address of the Slack webhook; whoever knows it can post, so it is a secret.
    pub(crate) slack: Option<Secret>,
    /// What is odd but no reason not to start.
    pub(crate) warnings: Vec<String>,
}

/// How alerts go out by mail.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) server: String,
    pub(crate) port: u16,
    pub(crate) tls: MailTls,
    pub(crate) login: Option<(String, Secret)>,
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailTls {
    /// STARTTLS, refused where the server does not offer it.
    Starttls,
    /// TLS from the first byte (port 465).
    Wrapped,
    /// None; only where the operator says so.
    Plain,
}

impl Config {
    /// Every problem of the settings, or what they mean. `bind` is the command line's, and wins.
    pub(crate) fn read(
        file: Option<&Path>,
        bind: Option<SocketAddr>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, Vec<String>> {
        let state = environment("STATE_DIRECTORY");
        let mut settings = Settings::read(file, environment);
        let mut secrets = settings.secrets("webhook_secret");
        if secrets.is_empty() && settings.problems.is_empty() {
            settings.problems.push(NO_SECRET.to_owned());
        }
        secrets.extend(settings.secrets("webhook_secret_previous"));
        let mut warnings = Vec::new();
        let configured = settings.parsed("bind", "an address and a port, as in 127.0.0.1:5000", |text| {
            text.parse().ok()
        });
        let config = Config {
            bind: bind
                .or(configured)
                .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 5000))),
            secrets,
            database: settings
                .text("database_path")
                .map_or_else(|| default_database(state), PathBuf::from),
            require_v2: settings
                .parsed("require_v2", "true or false", flag)
                .unwrap_or(false),
            retention: settings
                .parsed(
                    "retention_days",
                    "a number of days from 1 to 36500, or 0 for ever",
                    |text| within(text, 0, 36_500),
                )
                .map_or(Some(RETENTION), |days| {
                    (days > 0).then_some(DAY * u32::try_from(days).unwrap_or(0))
                }),
            log_file: settings.text("log_file").map(PathBuf::from),
            read_token: settings.secrets("read_token").into_iter().next(),
            wide_scan_ports: settings
                .parsed("wide_scan_ports", "a number of ports from 1 to 131072", |text| {
                    within(text, 1, 131_072)
                })
                .unwrap_or(1),
            alert_interval: settings
                .parsed("alert_interval", "a number of seconds from 1 to 86400", |text| {
                    within(text, 1, 86_400)
                })
                .map_or(ALERT_INTERVAL, Duration::from_secs),
            mail: mail(&mut settings, &mut warnings),
            slack: slack(&mut settings),
            warnings,
        };
        match settings.problems.is_empty() {
            true => Ok(config),
            false => Err(settings.problems),
        }
    }
}

fn mail(settings: &mut Settings, warnings: &mut Vec<String>) -> Option<Mail> {
    let port = settings.parsed("smtp_port", "a port from 1 to 65535", |text| {
        within(text, 1, 65_535)
    });
    let plain = settings
        .parsed("smtp_plain", "true or false", flag)
        .unwrap_or(false);
    let from = settings.parsed("email_from", "an address of mail", |text| {
        text.parse::<Mailbox>().ok()
    });
    let to = settings.parsed("alert_email", "addresses of mail with commas between", mailboxes);
    let password = settings.secrets("email_pass").into_iter().next();
    let user = settings.text("email_user");
    let server = settings.parsed(
        "smtp_server",
        "the name or address of a host; its port goes into smtp_port",
        host,
    );
    if password.is_some() && user.is_none() {
        warnings.push("email_pass is given but email_user is not: mail is sent without a login".into());
    }
    let (server, to) = match (server, to) {
        (Some(server), Some(to)) => (server, to),
        (None, None) => return None,
        (Some(_), None) => {
            warnings.push("smtp_server is given but alert_email is not: no alert is mailed".into());
            return None;
        }
        (None, Some(_)) => {
            warnings.push("alert_email is given but smtp_server is not: no alert is mailed".into());
            return None;
        }
    };
    let from = from
        .or_else(|| user.as_ref()?.parse().ok())
        .unwrap_or_else(|| to[0].clone());
    if plain && password.is_some() && !is_loopback(&server) {
        let right = "leave smtp_plain out, or give no email_pass";
        let from = settings.origin("smtp_plain");
        settings.problems.push(format!(
            "{from}: true would send email_pass readable to \"{server}\": {right}"
        ));
    }
    let port = port.map_or(SUBMISSION, |port| u16::try_from(port).unwrap_or(SUBMISSION));
    let tls = match (plain, port) {
        (true, _) => MailTls::Plain,
        (false, SUBMISSIONS) => MailTls::Wrapped,
        (false, _) => MailTls::Starttls,
    };
    Some(Mail {
        server,
        port,
        tls,
        login: user.zip(password),
        from,
        to,
    })
}

/// Slack's webhook: https, or http to this machine, where tests stand in for Slack.
fn slack(settings: &mut Settings) -> Option<Secret> {
    let url = settings.secrets("slack_webhook_url").into_iter().next()?;
    let after = |scheme| url.reveal().strip_prefix(scheme);
    let host = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    let good = match (after("https://"), after("http://")) {
        (Some(rest), _) => !host(rest).is_empty(),
        (_, Some(rest)) => {
            let authority = host(rest);
            !authority.contains('@')
                && is_loopback(authority.rsplit_once(':').map_or(&*authority, |(name, _)| name))
        }
        _ => false,
    };
    if !good
        || url
            .reveal()
            .contains(|c: char| c.is_whitespace() || c.is_control())
    {
        let key = ["slack_webhook_url", "slack_webhook_url_file"]
            .into_iter()
            .find(|key| settings.has(key));
        let from = settings.origin(key.unwrap_or("slack_webhook_url"));
        settings
            .problems
            .push(format!("{from}: write an address that begins with https://"));
        return None;
    }
    Some(url)
}

fn default_database(state_directory: Option<String>) -> PathBuf {
    // systemd.exec(5): several folders have colons between.
    let folder = state_directory.and_then(|all| all.split(':').next().map(PathBuf::from));
    folder.unwrap_or_default().join("events.db")
}

fn mailboxes(text: &str) -> Option<Vec<Mailbox>> {
    let all: Option<Vec<Mailbox>> = text.split(',').map(|one| one.trim().parse().ok()).collect();
    all.filter(|all| !all.is_empty())
}

/// An address, or a name in the letters that RFC 1123 allows.
fn host(text: &str) -> Option<String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let good = text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(letters));
    good.then(|| text.to_owned())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn within(text: &str, least: u64, most: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// RFC 6409: mail submission.
const SUBMISSION: u16 = 587;
/// RFC 8314, section 3.3: the same with TLS from the first byte.
const SUBMISSIONS: u16 = 465;
const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: Duration = Duration::from_secs(365 * 86_400);
const ALERT_INTERVAL: Duration = Duration::from_secs(60);
const NO_SECRET: &str = "no secret: everybody could send events. Give WEBHOOK_SECRET in the environment, webhook_secret \
    or webhook_secret_file in --config FILE, or a systemd credential webhook_secret";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(file: Option<(&str, u32)>, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let variables: BTreeMap<&str, &str> = environment.iter().copied().collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receiver.toml");
        if let Some((text, mode)) = file {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let at = file.map(|_| path.as_path());
        let shorter = |problem: String| problem.replace(&path.display().to_string(), "FILE");
        Config::read(at, None, |name| {
            variables.get(name).map(|value| (*value).to_owned())
        })
        .map_err(|problems| problems.into_iter().map(shorter).collect())
    }

    fn with(environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        read(None, &[environment, &[("WEBHOOK_SECRET", "key")]].concat())
    }

    #[test]
    fn without_a_secret_it_does_not_start() {
        assert_eq!(read(None, &[]).unwrap_err(), [NO_SECRET]);
        assert_eq!(read(None, &[("WEBHOOK_SECRET", "")]).unwrap_err(), [NO_SECRET]);
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = (
            "webhook_secret = \"file\"\nwide_scan_ports = 9\nbind = \"127.0.0.1:1\"\n",
            0o600,
        );
        let config = read(
            Some(file),
            &[("WEBHOOK_SECRET", "variable"), ("DATABASE_PATH", "/x.db")],
        )
        .unwrap();
        assert_eq!(config.secrets, [Secret::new("variable").unwrap()]);
        assert_eq!((config.wide_scan_ports, config.bind.port()), (9, 1));
        assert_eq!(config.database, PathBuf::from("/x.db"));
        let config = with(&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).unwrap();
        assert_eq!(config.database, PathBuf::from("/var/lib/a/events.db"));
        assert_eq!((config.wide_scan_ports, config.bind.port()), (1, 5000));
    }

    #[test]
    fn every_problem_is_told_and_no_secret() {
        let file = "webhook_secrt = \"hunter2\"\nsmtp_port = 70000\nlog_file = 1.5\nslack_webhook_url = \"hunter2\"\n";
        let problems = read(Some((file, 0o600)), &[("WEBHOOK_SECRET", "hunter2")]).unwrap_err();
        assert_eq!(
            problems,
            [
                "FILE:3: log_file takes text, a whole number, true or false",
                "FILE:1: webhook_secrt is not a setting; did you mean \"webhook_secret\"?",
                "FILE:2: smtp_port: \"70000\": write a port from 1 to 65535",
                "FILE:4: slack_webhook_url: write an address that begins with https://",
            ]
        );
        let broken = read(Some(("webhook_secret = \"hunter2\n", 0o600)), &[])
            .unwrap_err()
            .concat();
        assert!(
            broken.starts_with("FILE:1: ") && !broken.contains("hunter2"),
            "{broken}"
        );
    }

    #[test]
    fn what_everybody_can_read_holds_no_secret() {
        let open = read(Some(("webhook_secret = \"hunter2\"\n", 0o644)), &[]).unwrap_err();
        assert_eq!(
            open,
            ["FILE holds webhook_secret and everybody may read it: chmod o= FILE"]
        );
        assert!(read(Some(("wide_scan_ports = 3\n", 0o644)), &[("WEBHOOK_SECRET", "x")]).is_ok());
    }

    #[test]
    fn several_secrets_for_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("webhook_secret");
        fs::write(&file, "new\n\nold\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let from_file = [
            ("WEBHOOK_SECRET_FILE", file.to_str().unwrap()),
            ("WEBHOOK_SECRET_PREVIOUS", "older"),
        ];
        let texts = |config: Config| {
            config
                .secrets
                .iter()
                .map(|s| s.reveal().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(read(None, &from_file).unwrap()), ["new", "old", "older"]);
        let credential = [("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())];
        assert_eq!(texts(read(None, &credential).unwrap()), ["new", "old"]);
        let both = with(&[("WEBHOOK_SECRET_FILE", "/x")]).unwrap_err();
        assert_eq!(
            both,
            ["WEBHOOK_SECRET and WEBHOOK_SECRET_FILE: write one of them"]
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(read(None, &credential).unwrap_err()[0].contains("chmod o="));
    }

    #[test]
    fn mail_needs_a_server_and_somebody_to_write_to() {
        let mail =
            |given: &[(&str, &str)]| with(given).map(|config| config.mail.map(|mail| (mail.port, mail.tls)));
        let to = ("ALERT_EMAIL", "a@example.com, b@example.com");
        assert_eq!(mail(&[to]), Ok(None));
        assert_eq!(with(&[to]).unwrap().warnings.len(), 1);
        let server = ("SMTP_SERVER", "mail.example.com");
        assert_eq!(mail(&[to, server]), Ok(Some((587, MailTls::Starttls))));
        assert_eq!(
            mail(&[to, server, ("SMTP_PORT", "465")]),
            Ok(Some((465, MailTls::Wrapped)))
        );
        let plain = ("SMTP_PLAIN", "true");
        assert_eq!(mail(&[to, server, plain]), Ok(Some((587, MailTls::Plain))));
        let password = ("EMAIL_PASS", "hunter2");
        assert!(mail(&[to, server, plain, password]).is_err());
        assert!(mail(&[to, ("SMTP_SERVER", "127.0.0.1"), plain, password]).is_ok());
        assert!(mail(&[("ALERT_EMAIL", "nobody"), server]).is_err());
        let from = |given: &[(&str, &str)]| with(given).unwrap().mail.unwrap().from.to_string();
        assert_eq!(from(&[to, server]), "a@example.com");
        assert_eq!(
            from(&[to, server, ("EMAIL_USER", "u@example.com")]),
            "u@example.com"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let file = "webhook_secret_file = \"/nowhere/secret\"\nsmtp_server = \"mail.example.com:25\"\n\
            log_file = \"\"\nretention_days = -1\nrequire_v2 = \"always\"\n";
        let problems = read(Some((file, 0o600)), &[("READ_TOKEN", "token\n")]).unwrap_err();
        assert_eq!(
            problems,
            [
                "FILE:3: log_file is empty: leave it out",
                "FILE:1: webhook_secret_file: /nowhere/secret: No such file or directory (os error 2)",
                "FILE:5: require_v2: \"always\": write true or false",
                "FILE:4: retention_days: \"-1\": write a number of days from 1 to 36500, or 0 for ever",
                "READ_TOKEN begins or ends with a space or a line break: take it out",
                "FILE:2: smtp_server: \"mail.example.com:25\": write the name or address of a host; its port goes into smtp_port",
            ]
        );
        let url = [("SLACK_WEBHOOK_URL", "hooks.slack.com/hunter2")];
        let right = "SLACK_WEBHOOK_URL: write an address that begins with https://";
        assert_eq!(with(&url).unwrap_err(), [right]);
        let mail = [
            ("SMTP_SERVER", "::1"),
            ("ALERT_EMAIL", "a@b"),
            ("EMAIL_PASS", "p"),
        ];
        let warned = with(&mail).unwrap().warnings;
        assert!(
            warned[0].starts_with("email_pass is given but email_user is not"),
            "{warned:?}"
        );
    }

    #[test]
    fn events_are_kept_for_a_year_unless_told_otherwise() {
        let days = |text| with(&[("RETENTION_DAYS", text)]).unwrap().retention;
        assert_eq!(
            [days(""), days("30"), days("0")],
            [Some(365 * DAY), Some(30 * DAY), None]
        );
    }

    #[test]
    fn slack_is_spoken_to_over_tls() {
        let slack = |url: &str| with(&[("SLACK_WEBHOOK_URL", url)]).map(|config| config.slack.is_some());
        for good in [
            "https://hooks.slack.com/services/T/B/x",
            "http://127.0.0.1:9/x",
            "http://[::1]:9/",
            "http://localhost",
        ] {
            assert_eq!(slack(good), Ok(true), "{good}");
        }
        for bad in [
            "http://hooks.slack.com/x",
            "https://",
            "ftp://localhost",
            "http://localhost@evil/",
            "https://a b",
        ] {
            assert!(slack(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_secret_in_what_is_shown_of_it() {
        let all = ["EMAIL_PASS", "SLACK_WEBHOOK_URL", "READ_TOKEN"].map(|name| (name, "https://hunter2"));
        let mail = [("SMTP_SERVER", "m"), ("ALERT_EMAIL", "a@b"), ("EMAIL_USER", "u")];
        let config = with(&[&all[..], &mail].concat()).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
